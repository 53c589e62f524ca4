"""What there is to run; `nox --list` has all sessions. `nox -s tests` and `nox -s tests-3.13` run the same tests, the
first with the Python that runs nox."""

import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "tests"]

IN_PARALLEL = ("-n", "auto", "--dist", "loadfile", "--no-loadscope-reorder")  # one thread each; long files first

# They start Python some fifty times: let it keep what it compiled even where an environment forbids that.
KEEP_BYTECODE = {"PYTHONDONTWRITEBYTECODE": ""}

PROJECT = nox.project.load_toml("pyproject.toml")


def groups(*names: str) -> list[str]:
    return nox.project.dependency_groups(PROJECT, *names)


@nox.session
def quick(session: nox.Session) -> None:
    """The main job: train and time the five networks on a small image set, print a summary, save the JSON."""
    session.install("-e", ".")
    session.run("pytest", "benchmarks", "--profile", "quick", "--benchmark-save=quick", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """The suite's own tests."""
    session.install("-e", ".[figures]", *groups("test"))
    session.run("pytest", *IN_PARALLEL, *session.posargs, env=KEEP_BYTECODE)


for version in ("3.10", "3.11", "3.12", "3.13", "3.14"):
    nox.session(tests.func, python=version, name=f"tests-{version}")


@nox.session
def surroundings(session: nox.Session) -> None:
    """The tests that need minutes or a machine to themselves: mounts, name spaces, limits, killed processes."""
    session.install("-e", ".[figures]", *groups("test"), "paramiko")  # that for dask ssh
    session.run("pytest", "tests/surroundings", *session.posargs, env=KEEP_BYTECODE)


@nox.session
def lint(session: nox.Session) -> None:
    """ruff and mypy."""
    session.install("-e", ".[figures]", *groups("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """The site, in build/docs. A warning, such as for a link that leads nowhere, is an error."""
    session.install("-e", ".", *groups("docs"))
    session.run(
        "sphinx-build", "-q", "-W", "--keep-going", "-E", "-d", "build/doctrees", "-c", "docs", ".", "build/docs"
    )


@nox.session
def links(session: nox.Session) -> None:
    """Links out of the documentation that lead nowhere are named; not part of `docs`, as it needs the internet."""
    session.install("-e", ".", *groups("docs"))
    session.run("sphinx-build", "-q", "-b", "linkcheck", "-E", "-d", "build/doctrees", "-c", "docs", ".", "build/links")


@nox.session
def lowest(session: nox.Session) -> None:
    """The tests with the lowest versions that pyproject.toml declares."""
    session.install("--resolution", "lowest-direct", "-e", ".[figures]", *groups("test"))
    session.run("pytest", *IN_PARALLEL, *session.posargs, env=KEEP_BYTECODE)


@nox.session
def build(session: nox.Session) -> None:
    """The source distribution and, from that, the wheel, in dist; their metadata and contents are checked."""
    session.install("build", "twine", "check-wheel-contents")
    shutil.rmtree("dist", ignore_errors=True)
    session.run("python", "-m", "build")
    session.run("twine", "check", "--strict", *map(str, Path("dist").iterdir()))
    session.run("check-wheel-contents", "dist")


@nox.session(requires=["build"])
def package(session: nox.Session) -> None:
    """The wheel alone, installed and run outside the checkout: the main job on few images, and its report."""
    (wheel,) = Path("dist").resolve().glob("*.whl")
    session.install(str(wheel))
    with session.chdir(session.create_tmp()):
        session.run("resnet-bench", "--version")
        session.run(
            "pytest", "-p", "resnet_bench.pytest_options", "--pyargs", "resnet_bench.benchmarks",
            "--profile", "quick", "--dataset", "synthetic", "--train-images", "100", "--test-images", "100",
            "--time-limit", "5", "--benchmark-json", "package.json",
        )  # fmt: skip
        session.run("resnet-bench", "report", "package.json", "--html", "package.html")
