"""What there is to run: `nox -s quick`, `nox -s tests`, `nox -s surroundings`, `nox -s lint`, `nox -s lowest`,
`nox -s docs`."""

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
def lowest(session: nox.Session) -> None:
    """The tests with the lowest versions that pyproject.toml declares."""
    session.install("--resolution", "lowest-direct", "-e", ".[figures]", *groups("test"))
    session.run("pytest", *IN_PARALLEL, *session.posargs, env=KEEP_BYTECODE)
