"""An arm of a duel: a configuration, as the command line writes it: `NAME:ITEM,ITEM,...`.

Each item is one of

- a requirement, as `torch==2.12`: a package of the arm's environment;
- `git=REV`: a revision of the suite's own repository, whose code the arm runs;
- `python=PATH`: an interpreter. It is used as it is, with the packages that it has, unless there are requirements too;
- `env:NAME=VALUE`: an environment variable;
- `OPTION=VALUE`: an option of `resnet-bench train`, as `threads=1`.

Without items an arm is the environment that the command runs in. A comma within a value is written `\\,`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from resnet_bench.errors import UserError
from resnet_bench.options import RUN_OPTIONS
from resnet_bench.wording import counted

MIN_ARMS, MAX_ARMS = 2, 4

_USAGE = (
    "write NAME:ITEM,ITEM with items such as torch==2.12, git=main, python=PATH, env:NAME=VALUE or threads=1, and "
    "NAME: alone for this environment as it is"
)
_OPTIONS = {o.name: o for o in RUN_OPTIONS}


@dataclass(frozen=True)
class Arm:
    """One configuration.

    Attributes:
        name: as results, tables and files call it.
        text: the items as they were given.
        requirements: packages that its environment must have.
        revision: of the suite's repository; None for the code that is running.
        python: path of an interpreter; None for the one that is running.
        variables: environment variables.
        options: values of options of `train`, by `Option.name`, that replace those of the duel.
    """

    name: str
    text: str = ""
    requirements: tuple[str, ...] = ()
    revision: str | None = None
    python: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


def parse_all(texts: Iterable[str]) -> list[Arm]:
    """The arms of a duel.

    Raises:
        UserError: a text is no arm, two arms have one name, or there are too few or too many.
    """
    arms = [parse(text) for text in texts]
    if not MIN_ARMS <= len(arms) <= MAX_ARMS:
        raise UserError(
            f"A duel has {MIN_ARMS} to {MAX_ARMS} arms, and --arm was given {counted(len(arms), 'time')}; "
            "give --arm NAME:ITEM,ITEM for each."
        )
    seen: set[str] = set()
    for arm in arms:
        if arm.name.casefold() in seen:  # they name files, and some file systems do not tell cases apart
            raise UserError(f"Two arms are called {arm.name}; give each a name of its own.")
        seen.add(arm.name.casefold())
    return arms


def parse(text: str) -> Arm:
    """One arm; `UserError` where the text is none."""
    name, colon, items = text.partition(":")
    if not colon:
        raise UserError(f"--arm {text!r} has no colon after its name; {_USAGE}.")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}", name) or name.casefold() == "duel":
        raise UserError(
            f"--arm {text!r} cannot be called {name!r}; take up to 40 letters, digits, dots, dashes and underscores, "
            "but not duel."
        )
    return _Parser(name, items).arm()


class _Parser:
    """Reads the items of one arm."""

    def __init__(self, name: str, items: str) -> None:
        self.name, self.items = name, items
        self.requirements: list[str] = []
        self.single: dict[str, str] = {}  # `git` and `python`
        self.variables: dict[str, str] = {}
        self.options: dict[str, Any] = {}

    def arm(self) -> Arm:
        for item in _items(self.items):
            self._read(item)
        return Arm(
            self.name,
            self.items,
            tuple(self.requirements),
            self.single.get("git"),
            self.single.get("python"),
            self.variables,
            self.options,
        )

    def _read(self, item: str) -> None:
        if item.startswith("env:"):
            self._variable(item)
        elif match := re.fullmatch(r"(?P<name>[A-Za-z_-]+)=(?!=)(?P<value>.*)", item):
            self._setting(match["name"], match["value"], item)
        else:
            self._requirement(item)

    def _variable(self, item: str) -> None:
        name, equals, value = item.removeprefix("env:").partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise self._error(f"{item!r} is no environment variable; write env:NAME=VALUE")
        if name in self.variables:
            raise self._error(f"{name} is set twice; set it once")
        if name == "LD_PRELOAD":  # the loader says of a missing one only that it ignores it
            for library in filter(None, re.split(r"[ :]", value)):
                if "/" in library and not Path(library).exists():
                    raise self._error(f"LD_PRELOAD names {library}, which is not there; give a library's path")
        self.variables[name] = value

    def _setting(self, name: str, value: str, item: str) -> None:
        if name in ("git", "python"):
            if not value:
                raise self._error(f"{item!r} names nothing; write {'git=REV' if name == 'git' else 'python=PATH'}")
            if name in self.single:
                raise self._error(f"{name}= is there twice; give it once")
            if name == "python":
                value = os.path.abspath(Path(value).expanduser())
                if not (os.path.isfile(value) and os.access(value, os.X_OK)):
                    raise self._error(f"{value} is no interpreter; give the path of one")
            self.single[name] = value
            return
        option = _OPTIONS.get(name.replace("-", "_"))
        if option is None:
            raise self._error(
                f"there is no option {name!r}; options are {', '.join(_OPTIONS)}, and a requirement is written "
                f"{name}=={value}"
            )
        if option.name in self.options:
            raise self._error(f"{option.name} is set twice; set it once")
        try:
            self.options[option.name] = option.type(value)
        except ValueError:
            raise self._error(f"{item!r} gives no number; write it as in {option.name}=1") from None

    def _requirement(self, item: str) -> None:
        try:
            found = Requirement(item)
        except InvalidRequirement:
            raise self._error(f"{item!r} is no item; {_USAGE}") from None
        name = canonicalize_name(found.name)
        if name == "resnet-bench":
            raise self._error("it cannot require resnet-bench itself; write git=REV for another revision of it")
        if name in {canonicalize_name(Requirement(r).name) for r in self.requirements}:
            raise self._error(f"{found.name} is required twice; write it once")
        self.requirements.append(item)

    def _error(self, text: str) -> UserError:
        return UserError(f"--arm {self.name}: {text}.")


def _items(text: str) -> Iterator[str]:
    """The items: separated by commas, but not by those of `\\,`, of `[a,b]` and of `torch>=2.12,<2.14`."""
    item = ""
    for piece in re.split(r"(?<!\\),(?![^\[]*\])", text):
        if item and re.match(r"\s*[<>=!~]", piece):
            item += f",{piece}"
            continue
        if item.strip():
            yield item.strip()
        item = piece.replace(r"\,", ",")
    if item.strip():
        yield item.strip()
