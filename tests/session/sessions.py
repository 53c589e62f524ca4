"""Real sessions of pytest that start fast: each runs in a fork of a process that has imported torch and the plugins."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import NamedTuple

ROOT = Path(__file__).parents[2]

SERVER = """
import contextlib, io, json, os, secrets, signal, sys
import pytest, resnet_bench.measure.ablation, resnet_bench.render.paper_tables, torchvision
from resnet_bench import identity
from resnet_bench.errors import UserError
from resnet_bench.measure import process, processes
with contextlib.redirect_stdout(io.StringIO()):
    pytest.main(["--help"])  # imports pytest's plugins

def forked(order):
    # In place of `processes.events`: the measuring process is forked, so that it need not import torch again.
    (events, end), pid = os.pipe(), os.fork()
    if not pid:
        identity.PROCESS = secrets.token_hex(8)
        sys.stdin, sys.stdout = io.StringIO(json.dumps(order)), open(end, "w")
        os._exit(process.main())
    os.close(end)
    with open(events) as lines:
        for event in map(json.loads, lines):
            if event["event"] == "error":
                raise UserError(event["message"])
            yield event
    os.waitpid(pid, 0)

processes.events = forked
for line in sys.stdin:
    output, folder, environment, arguments = json.loads(line)
    child = os.fork()
    if not child:
        signal.alarm(240)
        os.chdir(folder)
        sys.path.insert(0, folder)
        os.environ.update(environment)
        file = os.open(output, os.O_TRUNC | os.O_WRONLY)
        os.dup2(file, 1)
        os.dup2(file, 2)
        status = int(pytest.main(arguments))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # taking torch down again would take seconds
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Done(NamedTuple):
    """How a session ended, what it printed, and its working folder."""

    status: int
    output: str
    folder: Path

    @property
    def files(self) -> list[str]:
        """All files below the working folder but what Python compiled."""
        found = [path.relative_to(self.folder) for path in self.folder.rglob("*") if path.is_file()]
        return sorted(str(path) for path in found if "__pycache__" not in path.parts)

    def saved(self) -> Path:
        """The only run in the default storage."""
        (path,) = self.folder.glob(".benchmarks/*/*.json")
        return path


class Sessions:
    """The process that is forked."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", SERVER]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, folder: Path, *arguments: str, **environment: str) -> Done:
        """Run `pytest` with the arguments in `folder`, from which it can import plugins too."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with NamedTemporaryFile("r") as output:
            request = [output.name, str(folder), environment, ["-p", "no:cacheprovider", *arguments]]
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            status = int(self._process.stdout.readline())
            return Done(status, output.read(), folder)

    def close(self) -> None:
        """End the process; not by the end of its input, whose other end processes that this one forked hold open."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


def assert_refused(done: Done, message: str) -> None:
    """One sentence, status 2, nothing measured, nothing left."""
    assert done.status == 2, done.output
    assert message in done.output
    assert "Traceback" not in done.output
    assert "passed" not in done.output
    assert "= resnet_bench =" not in done.output
    assert not [name for name in done.files if name.endswith(".json")]
