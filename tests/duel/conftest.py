"""Arms whose interpreter is a small program: it takes an order and reports at once, as a measuring process would."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from resnet_bench.duel import orders
from resnet_bench.duel.arms import parse_all
from resnet_bench.duel.plan import Settings
from resnet_bench.duel.running import Outcome, run
from resnet_bench.measure.places import Place
from resnet_bench.options import RUN_OPTIONS
from resnet_bench.schema import Point
from tests import handmade

PROGRAM = r'''#!{python}
"""Stands for an interpreter that measures. Variables say what it does:

FACTOR: what its times are multiplied with; LATER: the same for its later processes, or `crash` or `other code`; OLD:
it is of the first release with duels, which reads its input to the end and cannot take turns.
"""

import json, os, sys, time

if "resnet_bench.cli" in sys.argv:
    sys.exit("no training here")
old = "OLD" in os.environ
order = json.loads(sys.stdin.read() if old else sys.stdin.readline())
if old and "schedule" in order["recipe"]:  # which every release lacks from before there were schedules
    sys.exit("schedule is no key that I know")
if old and "turns" in order:
    sys.exit("turns is no key that I know")
number, turns = order.get("process", 0), order.get("turns", False)
with open(os.environ["STARTED"], "a") as file:
    print(number, os.environ["NAME"], order["rounds"], file=file)
later = os.environ.get("LATER") if number >= 2 else None
if later == "crash":
    sys.exit("first line\nno memory left")
factor = float(os.environ.get("FACTOR", "1"))
report = json.load(open({template!r}))
if later == "other code":
    report["machine"]["code"]["sha256"] = "f" * 64
drift = 1 + number  # of the machine: it hits both arms of a round alike
for case, asked in zip(report["cases"], order["cases"]):
    case["info"] |= {{"architecture": asked["architecture"], "engine": asked["engine"]}}
    block = case["blocks"][0]
    noise = 1 + 0.001 * ((number * 7 + len(os.environ["NAME"]) * 3) % 5)
    seconds = {{k: v * factor * drift * noise for k, v in block["phases"].items()}}
    case["blocks"] = [
        block | {{"point": point, "round": r, "seconds": sum(seconds.values()), "phases": seconds}}
        for point in range(len(order["places"][asked["architecture"]]))
        for r in range(order["rounds"])
    ]
blocks = sum(len(case["blocks"]) for case in report["cases"])
for done in range(1, blocks + 1):
    if turns:
        print(json.dumps({{"event": "turn"}}), flush=True)
        sys.stdin.readline()
        with open(os.environ["STARTED"] + "-turns", "a") as file:
            print(number, os.environ["NAME"], done, file=file)
    if "WAITS" in os.environ:
        print(json.dumps({{"event": "waiting", "message": "a thread waits."}}), flush=True)
    print(json.dumps({{"event": "progress", "done": done, "total": blocks}}), flush=True)
report["takes_turns"] = not old
if old:
    del report["takes_turns"]
report["process"] = f"{{os.getpid():016x}}"
report["cases"] = report["cases"][: len(order["cases"])]
time.sleep(float(os.environ.get("SLEEP", "0")))
print(json.dumps(report))
'''


@pytest.fixture
def interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program. The file `started` has a line for each start: process, arm, rounds."""
    from resnet_bench import identity

    result = handmade.in_processes("fc1", processes=1)
    keys = ("parameters", "engine", "pipeline", "dataset", "recipe", "seed", "threads", "workers", "architecture")
    info = {key: result[key] for key in keys} | {"compile_seconds": 0.0, "process": "c" * 16, "started_at": "now"}
    case = {
        "info": info,
        "steps_per_epoch": result["steps_per_epoch"],
        "startup_seconds": 0.0,
        "peak_memory_bytes": 100 * 2**20,
        "warmup_steps": 2,
        "blocks": result["blocks"][:1],
    }
    report = {
        "event": "report",
        "process": "c" * 16,
        "started_at": "2026-01-02T03:04:05+00:00",
        "machine": {**handmade.machine(), "code": identity.code(), "session": "b" * 16},
        "rounds": 1,
        "seconds": 1.0,
        "cases": [case, case],
    }
    template, program = tmp_path / "template.json", tmp_path / "interpreter"
    template.write_text(json.dumps(report))
    program.write_text(PROGRAM.format(python=sys.executable, template=str(template)))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("STARTED", str(tmp_path / "started"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return program


@pytest.fixture
def started(tmp_path: Path) -> Callable[[], list[str]]:
    """The lines that the program wrote: process, arm, blocks at a point."""
    return lambda: (tmp_path / "started").read_text().splitlines()


def beginning_and_end(*_: Any) -> dict[str, tuple[Place, ...]]:
    """Two points without states, for networks that nobody trains."""
    unknown = {"live_share": None, "denormal_exp_avg": None, "denormal_exp_avg_sq": None}
    places = tuple(
        Place(point=Point(step=step, weight=0.5, state="trained", **unknown), path=None) for step in (0, 100)
    )
    return dict.fromkeys(("fc1", "conv5x5"), places)


@pytest.fixture
def duel(
    interpreter: Path, image_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Outcome]]:
    """Runs a duel of `NAME:ITEM,ITEM` arms with the program as their interpreter; `duel.said` has what it said."""
    monkeypatch.setattr(orders.Orders, "_prepared", beginning_and_end)
    values = {o.name: o.default for o in RUN_OPTIONS} | {"dataset": f"folder:{image_folder()}", "workers": 0}

    def begin(*arms: str, processes: int = 4, **changed: Any) -> Outcome:
        own = {k: changed.pop(k) for k in list(changed) if k in values}
        settings = {"architectures": ("fc1", "conv5x5"), "time_limit": 1e-3, "states": "aged", **changed}
        texts = [f"{a}{',' if a.split(':')[1] else ''}python={interpreter},env:NAME={a.split(':')[0]}" for a in arms]
        begin.said = []
        return run(
            parse_all(texts),
            Settings(values={**values, **own}, at_most=(), processes=processes, **settings),
            tmp_path / "out",
            begin.said.append,
        )

    begin.folder = tmp_path / "out"
    return begin
