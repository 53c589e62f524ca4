"""What the processes of an arm run: an interpreter with packages, and the suite's code.

Code and packages are apart. The code is a copy in the cache folder, of the running package or of a git revision. It
comes first on the import path of the arm's processes, so whoever edits the checkout meanwhile changes nothing. Packages
are those of an interpreter: the running one, the one that `python=` names, or, where an arm has requirements, those of
an environment that `uv` makes. Then every package that the requirements do not decide has the version that it has here,
so that arms differ in what they say and in nothing else.

An environment is kept under a digest of what it was made of. A file in it says that it is complete; one without, as a
killed installation leaves it, is made again.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from resnet_bench import identity, progress
from resnet_bench.duel.arms import Arm
from resnet_bench.errors import UserError, without_credentials
from resnet_bench.files import make_folder
from resnet_bench.folders import cache_folder

DISTRIBUTION = "resnet-bench"
ENTRY = "resnet_bench/measure/process.py"
"""The module that a revision must have: one that measures in a process of its own."""

LAST_LINES = 6  # of what a program printed before it failed

COMPLETE = "complete.json"
DECIDED_BY_TORCH = {canonicalize_name(name) for name in ("torch", "torchvision")}
"""Packages that are not held where a requirement names one of them: they go together."""

_START = "import runpy, sys; sys.path[0] = sys.argv.pop(1); runpy.run_module(sys.argv.pop(1), None, '__main__', True)"
"""Runs a module of the folder that is the first argument. `python -m` would look in the current folder first, which
may be a checkout with other code."""


class ArmError(Exception):
    """An arm cannot be made or run. Its text is a clause with the last lines of what went wrong; no arm's name."""


@dataclass(frozen=True)
class Code:
    """A copy of the suite's code.

    Attributes:
        folder: has the package `resnet_bench`, and `pyproject.toml` or `requirements.txt` with what it needs.
        identity: as `identity.code()` has it, of the original.
    """

    folder: Path
    identity: Mapping[str, Any]

    @property
    def needs(self) -> Path:
        """The file that lists the packages it needs."""
        return next(p for p in (self.folder / "pyproject.toml", self.folder / "requirements.txt") if p.exists())


@dataclass(frozen=True)
class Setup:
    """What the processes of an arm run."""

    arm: Arm
    python: str
    code: Code

    def command(self, module: str, *arguments: str) -> list[str]:
        """The command that runs a module of the arm's code."""
        return [self.python, "-c", _START, str(self.code.folder), module, *arguments]

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables that differ from this process's: also what the processes start imports the code."""
        path = os.pathsep.join(filter(None, [str(self.code.folder), os.environ.get("PYTHONPATH", "")]))
        return {"PYTHONPATH": path, **self.arm.variables}


def kept_in(fallback: Path) -> Path:
    """The folder for environments and copies of code; below `fallback` for a user without a cache folder."""
    folder = (cache_folder() or fallback) / "duel"
    make_folder(folder, "--output")
    return folder


# Code ---------------------------------------------------------------------------------------------------------------


def code_of(arm: Arm, folder: Path) -> Code:
    """The arm's code, copied into `folder`.

    Raises:
        UserError: git does not know the revision, or it cannot take part in a duel.
    """
    return _running_code(folder) if arm.revision is None else _revision(arm, arm.revision, folder)


def _running_code(folder: Path) -> Code:
    known = identity.code()
    checkout = identity.PACKAGE.parent / "pyproject.toml"
    # Outside a checkout a file of that name beside the package is another project's.
    needs = checkout.read_bytes() if checkout.is_file() and b'name = "resnet-bench"' in checkout.read_bytes() else None

    def write(target: Path) -> None:
        shutil.copytree(identity.PACKAGE, target / "resnet_bench", ignore=shutil.ignore_patterns("__pycache__"))
        if needs is not None:
            (target / "pyproject.toml").write_bytes(needs)
        else:
            (target / "requirements.txt").write_text("\n".join(_required()) + "\n", encoding="utf-8")

    name = hashlib.sha256(known["sha256"].encode() + (needs or b"")).hexdigest()[:16]
    return Code(_made(folder / "code" / name, write), known)


def _revision(arm: Arm, revision: str, folder: Path) -> Code:
    commit = identity.git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if commit is None:
        where = identity.PACKAGE.parent
        if identity.git("rev-parse", "--git-dir") is None:
            raise UserError(f"--arm {arm.name}: git=REV needs a checkout of the suite, and {where} is none; clone it.")
        raise UserError(f"--arm {arm.name}: git knows no revision {revision!r} in {where}; fetch it or give another.")
    name = commit.decode().strip()
    archive = identity.git("archive", "--format=tar", name, "resnet_bench", "pyproject.toml")
    if archive is None or identity.git("cat-file", "-e", f"{name}:./{ENTRY}") is None:
        raise UserError(
            f"--arm {arm.name}: revision {revision} has no {ENTRY}, so it is older than duels; give a later one."
        )

    def write(target: Path) -> None:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            for member in tar:
                if (content := tar.extractfile(member)) is not None:
                    path = target / member.name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content.read())

    made = _made(folder / "code" / name[:16], write)
    sha256 = identity.sources_sha256(made / "resnet_bench")
    return Code(made, {"version": None, "commit": name, "dirty": False, "sha256": sha256})


def _made(target: Path, write: Callable[[Path], None]) -> Path:
    """The folder `target`, which `write` fills unless it is there. It is there only when it is complete."""
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".new") as temporary:
            write(Path(temporary) / "made")
            try:
                os.rename(Path(temporary) / "made", target)
            except OSError:
                if not target.is_dir():  # else another duel was faster
                    raise
    except OSError as error:
        raise UserError(
            f"Cannot write {target}: {error.strerror or error}; free space or set XDG_CACHE_HOME to another folder."
        ) from None
    return target


def _required() -> list[str]:
    """The packages that the running package needs, without those of its extras."""
    declared = importlib.metadata.requires(DISTRIBUTION) or []
    return [r for r in declared if "extra" not in str(Requirement(r).marker or "")]


# Packages -----------------------------------------------------------------------------------------------------------


def uv() -> str:
    """The program `uv`; `UserError` where it is not installed."""
    found = shutil.which("uv")
    if found is None:
        try:
            from uv import find_uv_bin  # the package that the extra `duel` installs

            found = str(find_uv_bin())
        except (ImportError, FileNotFoundError):
            raise UserError(
                "An arm with requirements needs uv to make its environment, and uv is not installed; run: pip install "
                '"resnet-bench[duel]".'
            ) from None
    return found


def interpreter(arm: Arm, code: Code, folder: Path, say: Callable[[str], None]) -> str:
    """The interpreter of an arm, with all packages; an environment is made where it has requirements.

    Args:
        arm: the arm.
        code: its code.
        folder: where environments are kept.
        say: called with a line of progress.

    Raises:
        UserError: `uv` is not installed.
        ArmError: the environment cannot be made.
    """
    base = arm.python or sys.executable
    if not arm.requirements:
        return base
    held = _held(arm.requirements)
    made_of = {
        "requirements": sorted(arm.requirements),
        "held": held,
        "python": _output([base, "-c", "import sys; print(sys.version, sys.base_prefix)"]),
        "needs": code.needs.read_text(encoding="utf-8"),
    }
    key = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]
    target = folder / "environments" / key
    program = uv()
    target.parent.mkdir(parents=True, exist_ok=True)
    with progress.task(f"the environment of {arm.name}"), FileLock(target.with_suffix(".lock")):
        python = target / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        if (target / COMPLETE).exists():
            say(f"{arm.name}: its environment is kept from an earlier duel")
            return str(python)
        shutil.rmtree(target, ignore_errors=True)  # what a killed installation left
        say(f"{arm.name}: making an environment with {', '.join(arm.requirements)}")
        _run([program, "venv", "--no-project", "--python", base, str(target)], arm, say)
        constraints = target / "constraints.txt"
        constraints.write_text("\n".join(held) + "\n", encoding="utf-8")
        install = [program, "pip", "install", "--python", str(python), "--constraints", str(constraints)]
        _run([*install, "--requirements", str(code.needs), *arm.requirements], arm, say)
        (target / COMPLETE).write_text(json.dumps(made_of, indent=1), encoding="utf-8")
        return str(python)


def _held(requirements: Sequence[str]) -> list[str]:
    """Versions of the packages that the suite needs, as they are here, but for what the requirements decide."""
    named = {canonicalize_name(Requirement(r).name) for r in requirements}
    if named & DECIDED_BY_TORCH:
        named |= DECIDED_BY_TORCH
    try:
        needed = {canonicalize_name(Requirement(r).name) for r in _required()}
        versions = {name: Version(importlib.metadata.version(name)).public for name in needed - named}
    except importlib.metadata.PackageNotFoundError:  # the package runs without being installed
        return []
    return [f"{name}=={version}" for name, version in sorted(versions.items())]


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise ArmError(f"{command[0]} does not run: {last_lines(done.stderr.splitlines())}")
    return done.stdout.strip()


def _run(command: Sequence[str], arm: Arm, say: Callable[[str], None]) -> None:
    """Run uv and pass on what it says."""
    lines: deque[str] = deque(maxlen=LAST_LINES)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr
        try:
            for line in process.stderr:
                if text := without_credentials_in_addresses(line.decode(errors="replace").strip()):
                    lines.append(text)
                    if not text.startswith(("+ ", "Activate with")):  # the list of all packages
                        say(f"{arm.name}: {text}")
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise ArmError(f"uv cannot make its environment: {last_lines(lines)}")


def without_credentials_in_addresses(text: str) -> str:
    """The text with `***` in place of user name and password in each address."""
    return without_credentials(text) if "://" in text and "@" in text else text


def last_lines(lines: Sequence[str] | deque[str]) -> str:
    """The last lines of what a program printed, in one line."""
    return " | ".join([line.strip() for line in lines if line.strip()][-LAST_LINES:]) or "it said nothing"
