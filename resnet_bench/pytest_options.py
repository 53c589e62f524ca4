"""The options of `pytest benchmarks`. This plugin loads `resnet_bench.pytest_plugin` if a session has benchmarks.

pyproject.toml names this module with `-p`, so that pytest loads it before any conftest.py. It does not import torch,
because a session with no benchmarks needs neither torch nor the rest of the suite.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from resnet_bench import options
from resnet_bench.measure.points import SHORT_TRAINING_STEPS

PROFILES: dict[str, dict[str, Any]] = {
    "quick": {
        "engine": "fast", "epochs": 1, "train_images": 320, "test_images": 500, "time_limit": 60.0,
        "processes": 3, "states": "aged", "overhead_rounds": 0,
    },
    "standard": {
        "epochs": 5, "train_images": 10_000, "test_images": 2000, "time_limit": 300.0, "explain": "baseline",
        "processes": 5, "states": "aged", "overhead_rounds": 12,
    },
    "paper": {
        "time_limit": 1800.0, "explain": "baseline", "processes": 10, "states": "trained", "overhead_rounds": 24,
    },
}  # fmt: skip
"""Options that a profile leaves out have the paper's values (`resnet_bench.options`). A given option wins over both."""

PACKAGE = Path(__file__).resolve().parent
INSTALLED = "resnet_bench.benchmarks"
"""The benchmarks of an installed package. In a checkout they are beside the package."""

GROUP = (
    "resnet_bench: what is measured, on which data. Every option is --resnet-NAME, or --NAME for short unless another "
    "plugin has that name"
)


def _options() -> Iterator[tuple[str, dict[str, Any]]]:
    """The name of each option, and the arguments of `addoption` for it."""
    yield "profile", {"choices": list(PROFILES), "default": "quick", "help": "Sizes of all below.  [default: quick]"}
    yield (
        "architectures",
        {"help": "Comma-separated networks, e.g. baseline,conv5x5,conv5x5-same.  [default: the study's five]"},
    )
    yield (
        "explain",
        {
            "help": "Comma-separated networks to explain step by step, as `resnet-bench explain` does; needs a C++ "
            "compiler.  [default: none in quick, else baseline]"
        },
    )
    for option in options.RUN_OPTIONS:
        default = "" if option.default is None else f"  [default: the profile's, else {option.default}]"
        if option.name == "engine":
            default = "  Several, with commas, run side by side." + default
        yield option.flag.removeprefix("--"), {"type": option.type, "help": option.help + default}
    yield (
        "epoch-mode",
        {
            "choices": ["sampled", "full", "both"],
            "help": "sampled times blocks of steps at points all over the training; full times whole epochs from its "
            "beginning; both measures blocks in the course of whole epochs, to hold one against the other.  "
            f"[default: full where the training is one epoch of at most {SHORT_TRAINING_STEPS} steps, or the first of "
            "these as far as --time-limit allows, else sampled]",
        },
    )
    processes = "Fresh processes that measure epoch time; an interval needs 3.  [default: the profile's]"
    yield "processes", {"type": int, "help": processes}
    limit = (
        "Seconds for all processes that sample, without compiling; decides how many blocks they time.  "
        "[default: the profile's]"
    )
    yield "time-limit", {"type": float, "help": limit}
    yield (
        "states",
        {
            "choices": ["trained", "aged"],
            "help": "How later points of the training are reached, once, before anything is timed: trained to the end, "
            "or trained until a thousand steps after the highest learning rate, and idle hidden units carried on from "
            "there.  [default: the profile's]",
        },
    )
    rounds = "Epochs that full and both time of each network in each process.  [default: 1]"
    yield "rounds", {"type": int, "default": 1, "help": rounds}
    tables = "After the summary also print pytest-benchmark's tables and all those of `resnet-bench report`."
    yield "tables", {"action": "store_true", "default": False, "help": tables}


def _destination(name: str) -> str:
    return "resnet_" + name.replace("-", "_")


TAKEN = pytest.StashKey[list[str]]()
"""The short names of our options that another plugin has taken."""


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config, parser: pytest.Parser) -> Iterator[None]:
    """Register the options after those of all other plugins and conftest.py files, to know which names are free."""
    result = yield
    groups = {*parser._groups, parser._anonymous}
    others = {name for group in groups for option in group.options for name in option.names()}
    early_config.stash[TAKEN] = []
    group = parser.getgroup("resnet_bench", GROUP)
    for name, attributes in _options():
        flags = [f"--resnet-{name}", f"--{name}"]
        if flags[1] in others:
            early_config.stash[TAKEN].append(flags.pop())
        shown = {} if attributes.keys() & {"choices", "action"} else {"metavar": name.replace("-", "_").upper()}
        group.addoption(*flags, dest=_destination(name), **shown, **attributes)
    return result


def _asks_for_benchmarks(config: pytest.Config) -> bool:
    """Whether the arguments name the benchmarks: those of a checkout, or of the installed package with --pyargs."""
    checkout = (config.inipath.parent if config.inipath else config.rootpath) / "benchmarks"
    for argument in config.args:
        name = argument.partition("::")[0]
        if config.option.pyargs and f"{name}.".startswith(f"{INSTALLED}."):
            return True
        path = Path(config.invocation_params.dir, name).resolve()
        if any(path.is_relative_to(b) or b.is_relative_to(path) for b in (checkout, PACKAGE / "benchmarks")):
            return True
    return False


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Load the suite if the arguments name benchmarks. Runs before pytest-benchmark reads its options."""
    if _asks_for_benchmarks(config):
        config.pluginmanager.import_plugin("resnet_bench.pytest_plugin")
        return
    for name, attributes in _options() if config.args else ():  # --help asks for nothing
        if config.getoption(_destination(name)) != attributes.get("default"):
            raise pytest.UsageError(f"--resnet-{name} is for `pytest benchmarks`; here are no benchmarks.")
