"""The code and the packages of an arm; a program stands for uv, and what it is called with is looked at."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from resnet_bench import identity
from resnet_bench.duel import environments
from resnet_bench.duel.arms import parse
from resnet_bench.errors import UserError

UV = """#!/bin/sh
echo "$@" >> "{calls}"
if [ "$1" = venv ]; then
  for folder; do :; done
  mkdir -p "$folder/bin" && ln -s "{python}" "$folder/bin/python"
  exit 0
fi
echo "Resolved 2 packages in 1ms" >&2
{then}
"""


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """Makes `uv` a program that ends each installation so; the file has its calls."""

    def stand_in(then="exit 0"):
        program, calls = tmp_path / "bin" / "uv", tmp_path / "calls"
        program.parent.mkdir(exist_ok=True)
        program.write_text(UV.format(calls=calls, python=sys.executable, then=then))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(environments.shutil, "which", lambda name: str(program))
        return lambda: calls.read_text().splitlines() if calls.exists() else []

    return stand_in


def made(text, folder, said=None):
    arm = parse(text)
    say = [].append if said is None else said.append
    return environments.interpreter(arm, environments.code_of(arm, folder), folder, say)


def test_without_requirements_the_interpreter_is_used_as_it_is(tmp_path, calls):
    called = calls()
    assert made("a:threads=1", tmp_path) == sys.executable
    assert made(f"a:python={sys.executable}", tmp_path) == sys.executable
    assert called() == []


def test_an_environment_is_made_once_and_kept(tmp_path, calls):
    called, said = calls(), []
    python = made("old:torch==2.12", tmp_path, said)
    assert Path(python).is_relative_to(tmp_path / "environments")
    venv, install = called()
    assert venv.startswith(f"venv --no-project --python {sys.executable} ")
    assert install.startswith(f"pip install --python {python} --constraints ")
    assert install.endswith("pyproject.toml torch==2.12")
    assert "old: Resolved 2 packages in 1ms" in said
    said.clear()
    assert made("again:torch==2.12", tmp_path, said) == python
    assert said == ["again: its environment is kept from an earlier duel"]
    assert made("other:torch==2.13", tmp_path) != python
    assert len(called()) == 4


def test_packages_that_an_arm_does_not_name_have_the_versions_that_they_have_here():
    import numpy
    import torch

    held = environments._held(["numpy==1.26"])
    assert not any(line.startswith("numpy==") for line in held)
    assert f"torch=={torch.__version__.partition('+')[0]}" in held
    held = environments._held(["torch==2.12"])
    assert f"numpy=={numpy.__version__}" in held
    assert not any(line.startswith("torch") for line in held)  # nor torchvision, which follows torch


def test_a_killed_installation_is_not_reused(tmp_path, calls):
    called = calls("kill -9 $$")
    with pytest.raises(environments.ArmError):
        made("old:torch==2.12", tmp_path)
    called = calls("exit 0")
    before = len(called())
    made("old:torch==2.12", tmp_path)
    assert len(called()) == before + 2


def test_a_failed_installation_gives_the_last_lines_of_uv_without_passwords(tmp_path, calls):
    calls("for i in 1 2 3 4 5 6 7; do echo line $i >&2; done; echo https://me:secret@host/simple >&2; exit 1")
    with pytest.raises(environments.ArmError) as error:
        made("old:torch==0.1", tmp_path)
    assert str(error.value) == (
        "uv cannot make its environment: line 3 | line 4 | line 5 | line 6 | line 7 | https://***@host/simple"
    )


def test_an_interpreter_that_does_not_run_is_told(tmp_path, calls):
    calls()
    with pytest.raises(environments.ArmError, match="does not run"):
        made("a:python=/bin/false,torch==2.12", tmp_path)


def test_the_code_is_a_copy_that_does_not_change_with_the_checkout(tmp_path):
    code = environments.code_of(parse("a:"), tmp_path)
    assert identity.sources_sha256(code.folder / "resnet_bench") == code.identity["sha256"]
    assert code.folder.is_relative_to(tmp_path)
    assert not list(code.folder.rglob("__pycache__"))
    setup = environments.Setup(parse("a:env:A=b"), sys.executable, code)
    where = "import resnet_bench; print(resnet_bench.__file__)"
    module = tmp_path / "code" / "where_from.py"
    module.write_text(where)
    environment = {**setup.variables, "PATH": "/bin"}
    assert environment["A"] == "b"
    (code.folder / "where_from.py").write_text(where)
    done = subprocess.run(
        setup.command("where_from"), cwd=identity.PACKAGE.parent, env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == str(code.folder / "resnet_bench" / "__init__.py"), done.stderr


def git(folder, *arguments):
    command = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@example.org", *arguments]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository of the suite in which `old` has no measuring process and `new` has one."""
    folder = tmp_path / "checkout"
    package = folder / "resnet_bench"
    (package / "measure").mkdir(parents=True)
    (package / "__init__.py").write_text("# old\n")
    (folder / "pyproject.toml").write_text('[project]\nname = "resnet-bench"\n')
    git(tmp_path, "init", "-q", str(folder))
    for tag in ("old", "new"):
        if tag == "new":
            (package / "measure" / "process.py").write_text("# new\n")
        git(folder, "add", "-A")
        git(folder, "commit", "-q", "-m", tag)
        git(folder, "tag", tag)
    monkeypatch.setattr(identity, "PACKAGE", package)
    return folder


def test_a_revision_is_taken_as_git_has_it(checkout, tmp_path):
    (checkout / "resnet_bench" / "measure" / "process.py").write_text("# not committed\n")
    code = environments.code_of(parse("a:git=new"), tmp_path / "kept")
    assert (code.folder / "resnet_bench" / "measure" / "process.py").read_text() == "# new\n"
    assert code.identity["sha256"] == identity.sources_sha256(code.folder / "resnet_bench")
    assert (len(code.identity["commit"]), code.identity["dirty"]) == (40, False)
    assert code.needs == code.folder / "pyproject.toml"


@pytest.mark.parametrize(
    ("revision", "message"),
    [
        ("gone", "git knows no revision 'gone'"),
        ("--help", "git knows no revision '--help'"),
        ("old", "revision old has no resnet_bench/measure/process.py, so it is older than duels"),
    ],
)
def test_a_revision_that_cannot_take_part(checkout, tmp_path, revision, message):
    with pytest.raises(UserError) as error:
        environments.code_of(parse(f"a:git={revision}"), tmp_path / "kept")
    assert message in str(error.value)


def test_a_revision_needs_a_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "PACKAGE", tmp_path / "resnet_bench")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(UserError, match="git=REV needs a checkout of the suite"):
        environments.code_of(parse("a:git=main"), tmp_path / "kept")
