import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from resnet_bench.results import reading
from resnet_bench.results.journal import Journal, left_behind
from resnet_bench.schema import ParametersResult

MACHINE = {"resnet_bench": {"cpu": {}}}


def result(architecture, count=10):
    return ParametersResult(
        process="0123456789abcdef",
        started_at="2026-01-02T03:04:05+00:00",
        architecture=architecture,
        parameters=count,
        num_classes=100,
        fc_parameters=5,
        multiply_accumulates=7,
        published_parameters=None,
    )


def test_every_entry_is_on_disk_at_once(tmp_path):
    """After each `add` the file is complete and reads like a saved one; the latest of a name stands."""
    journal = Journal(tmp_path / "journal", MACHINE)
    journal.add("b.py::test[fc1]", "parameters", result("fc1"), [1.0, 3.0])
    assert reading.read(journal.path).results == (result("fc1"),)
    journal.add("b.py::test[fc3]", "parameters", result("fc3"), [])
    journal.add("b.py::test[fc1]", "parameters", result("fc1", 11), [1.0, 2.0, 6.0])
    assert reading.read(journal.path).results == (result("fc1", 11), result("fc3"))
    saved = json.loads(journal.path.read_text())["benchmarks"][0]
    assert saved["stats"]["data"] == [1.0, 2.0, 6.0]
    assert saved["stats"]["mean"] == 3.0
    journal.remove()
    assert not (tmp_path / "journal").exists()


SESSION = """
import os, sys
from pathlib import Path
from resnet_bench.results.journal import Journal
from tests.results.test_journal import MACHINE, result
journal = Journal(Path(sys.argv[1]), MACHINE)
journal.add("b.py::test[fc1]", "parameters", result("fc1"), [1.0])
if os.fork() == 0:
    __import__("time").sleep(60)  # a process of the data loader, which outlives its parent for seconds
print(journal.path, os.getpid(), flush=True)
sys.stdin.read()
"""
LOOK = """
import sys
import time
from pathlib import Path
from resnet_bench.results.journal import left_behind
print(*left_behind(Path(sys.argv[1])))
"""
ROOT = Path(__file__).parent.parent.parent
NAMESPACE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]


def python(code, folder):
    return [sys.executable, "-c", code, str(folder)]


def look(folder, *prefix):
    """The journals that a session started now finds left behind."""
    done = subprocess.run([*prefix, *python(LOOK, folder)], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture
def start():
    """Starts a session with a journal; returns its process, the journal and its process number where it runs."""
    started = []

    def start(folder, *prefix):
        process = subprocess.Popen(
            [*prefix, *python(SESSION, folder)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        started.append(process)
        path, pid = process.stdout.readline().split()
        return process, path, int(pid)

    yield start
    for process in started:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_a_journal_is_left_behind_once_its_session_is_killed(tmp_path, start):
    """At once, though a child of the session lives on; for every later session until the file is removed."""
    process, path, _ = start(tmp_path)
    assert look(tmp_path) == []
    process.kill()
    process.wait()
    assert look(tmp_path) == [path]
    assert look(tmp_path) == [path]
    assert [p.name for p in tmp_path.iterdir()] == [Path(path).name]


def test_sessions_that_start_at_once_have_each_their_journal(tmp_path):
    """Also with the same process number, as in two containers."""
    first, second = Journal(tmp_path, MACHINE), Journal(tmp_path, MACHINE)
    assert first.path != second.path


def test_a_journal_from_before_there_were_locks_is_left_behind(tmp_path):
    (tmp_path / "20260101T000000Z-1.json").touch()
    assert [p.name for p in left_behind(tmp_path)] == ["20260101T000000Z-1.json"]


def test_looking_does_not_take_the_lock_from_a_session(tmp_path):
    journal = Journal(tmp_path, MACHINE)
    journal.add("b.py::test[fc1]", "parameters", result("fc1"), [1.0])
    assert [*left_behind(tmp_path), *left_behind(tmp_path)] == []
    journal.remove()
    assert not tmp_path.exists()


def test_a_file_system_without_locks_keeps_journals_all_the_same(tmp_path, monkeypatch):
    """Whether their sessions still run cannot be told, so nothing is said of them."""

    def acquire(self, *arguments, **keywords):
        Path(self.lock_file).touch()
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(FileLock, "acquire", acquire)
    journal = Journal(tmp_path, MACHINE)
    journal.add("b.py::test[fc1]", "parameters", result("fc1"), [1.0])
    assert reading.read(journal.path).results == (result("fc1"),)
    assert list(left_behind(tmp_path)) == []
    journal.remove()
    assert not tmp_path.exists()


@pytest.fixture
def namespace():
    """The start of a command that runs it as process 1, as in a container."""
    try:
        subprocess.run([*NAMESPACE, "true"], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine does not allow process namespaces")
    return NAMESPACE


def test_containers_with_a_shared_folder_see_whose_session_runs(tmp_path, start, namespace):
    """Each session is process 1: numbers can tell neither that another's runs nor that one's own was killed."""
    process, path, pid = start(tmp_path, *namespace)
    assert pid == 1
    assert look(tmp_path) == []
    assert look(tmp_path, *namespace) == []
    process.kill()
    deadline = time.monotonic() + 20
    while not look(tmp_path, *namespace) and time.monotonic() < deadline:
        time.sleep(0.1)  # the processes of a namespace end a moment after what started it
    assert look(tmp_path, *namespace) == look(tmp_path) == [path]
