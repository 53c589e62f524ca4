"""Who measured a result, and with which code."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from resnet_bench import identity

PACKAGE = Path(identity.__file__).parent


def python(code: str, **environment: str) -> str:
    """What a fresh process prints, started where no package lies."""
    inherited = {k: v for k, v in os.environ.items() if k != identity.SESSION_VARIABLE}
    command, environment = [sys.executable, "-c", code], {**inherited, **environment}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=Path(__file__).root)
    return done.stdout.strip()


def tree(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    return folder


def test_every_process_has_an_id_of_its_own():
    ask = "from resnet_bench import identity; print(identity.PROCESS, identity.session())"
    (first, session), (second, other) = (python(ask).split() for _ in range(2))
    assert first != second
    assert session != other


def test_processes_of_a_session_share_its_id():
    ask = "from resnet_bench import identity; print(identity.session())"
    assert python(ask, **{identity.SESSION_VARIABLE: "0123456789abcdef"}) == "0123456789abcdef"
    assert python(ask, **{identity.SESSION_VARIABLE: "/home/someone"}) != "/home/someone"


def test_the_digest_is_that_of_the_sources_and_of_nothing_else(tmp_path):
    """Names, texts and templates count; line ends of a checkout, compiled files and the benchmarks do not."""
    files = {"a.py": "x = 1\n", "b/c.py": "y\n", "p.jinja": "t", "b/d.cpp": "int z;\n"}
    one = identity.sources_sha256(tree(tmp_path / "1", **files))
    same = tree(tmp_path / "2", **{**files, "a.py": "x = 1\r\n", "b/d.cpp": "int z;\r\n", "benchmarks/t.py": "z"})
    tree(same, **{"b/__pycache__/c.pyc": "junk", "notes.txt": "n"})
    assert identity.sources_sha256(same) == one
    for changed in ({"a.py": "x = 2\n"}, {"d.py": ""}, {"p.jinja": "u"}, {"b/d.cpp": "int w;\n"}):
        other = tree(tmp_path / str(changed), **{**files, **changed})
        assert identity.sources_sha256(other) != one


@pytest.fixture
def checkout(tmp_path):
    """A git repository with a copy of the package's identity module in it."""
    folder = tree(tmp_path / "repo", **{"resnet_bench/__init__.py": "__version__ = '9.8'\n"})
    (folder / "resnet_bench/identity.py").write_text((PACKAGE / "identity.py").read_text())

    def git(*arguments):
        names = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        done = subprocess.run(["git", "-C", folder, *names, *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    return folder, git


def code_of(folder: Path, **environment: str) -> dict:
    ask = "import json; from resnet_bench import identity; print(json.dumps(identity.code()))"
    return json.loads(python(ask, PYTHONPATH=str(folder), PYTHONDONTWRITEBYTECODE="1", **environment))


def test_in_a_checkout_the_commit_is_named_and_whether_the_tree_was_dirty(checkout):
    folder, git = checkout
    clean = code_of(folder)
    assert clean["version"] == "9.8"
    assert (clean["commit"], clean["dirty"]) == (git("rev-parse", "HEAD"), False)
    (folder / "resnet_bench/__init__.py").write_text("__version__ = '9.9'\n")
    dirty = code_of(folder)
    assert (dirty["commit"], dirty["dirty"]) == (clean["commit"], True)
    assert dirty["sha256"] != clean["sha256"]


def test_a_package_installed_below_another_checkout_has_no_commit(checkout):
    """A virtual environment often lies in a repository that has nothing to do with the package."""
    folder, _ = checkout
    installed = folder / "venv"
    tree(installed, **{"resnet_bench/__init__.py": "__version__ = '9.8'\n"})
    (installed / "resnet_bench/identity.py").write_text((PACKAGE / "identity.py").read_text())
    code = code_of(installed)
    assert (code["commit"], code["dirty"]) == (None, None)
    assert len(code["sha256"]) == 64


def test_without_git_the_digest_tells_the_code(checkout, tmp_path):
    code = code_of(checkout[0], PATH=str(tmp_path))
    assert (code["commit"], code["dirty"]) == (None, None)
    assert len(code["sha256"]) == 64


def test_a_message_of_git_in_another_encoding_hides_nothing(checkout, tmp_path):
    """git may warn in the user's language, in Latin-1."""
    folder, git = checkout
    wrapper = tree(tmp_path / "bin", git=f"#!/bin/sh\nprintf 'f\\374r\\n' >&2\nexec '{shutil.which('git')}' \"$@\"\n")
    (wrapper / "git").chmod(0o755)
    code = code_of(folder, PATH=f"{wrapper}{os.pathsep}{os.environ['PATH']}")
    assert (code["commit"], code["dirty"]) == (git("rev-parse", "HEAD"), False)


def test_variables_of_a_git_hook_do_not_point_elsewhere(checkout, tmp_path):
    folder, git = checkout
    assert code_of(folder, GIT_DIR=str(tmp_path / "elsewhere"))["commit"] == git("rev-parse", "HEAD")


def test_a_description_answers_all_five_questions():
    described = identity.describe()
    assert described["session"] == identity.session()
    assert set(described["code"]) == {"version", "commit", "dirty", "sha256"}
    machine = identity.machine_of(described)
    assert machine["cpu_model"]
    assert machine["usable_cores"] == len(os.sched_getaffinity(0))
    assert identity.software_of(described)["torch"]


@pytest.mark.parametrize("described", [{}, {"cpu": 3, "torch": [], "threads": None}, {"memory_bytes": "much"}])
def test_what_a_description_does_not_tell_is_unknown(described):
    told = {**identity.machine_of(described), **identity.software_of(described), **identity.code_of(described)}
    assert set(told.values()) == {None}
    assert identity.key(described) == identity.key({})
