"""The summary that comes first: never too long or too wide, and honest about published numbers."""

from __future__ import annotations

import contextlib
import os
import re
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from resnet_bench.analysis.earlier import Earlier, last_alike, saved_before
from resnet_bench.render import first_screen
from resnet_bench.render.first_screen import LINES
from resnet_bench.results.samples import Samples, read_all
from tests import handmade

REPORTS = Path(__file__).parents[2] / "reports"
WIDTHS = (60, 80, 120, 200)


def read(folder: Path, *entries: dict[str, Any], name: str = "0001_x.json", **machine: Any) -> Samples:
    return read_all([handmade.save(folder / name, list(entries), machine=handmade.machine(**machine))])


def text(samples: Samples, width: int = 80, **options: Any) -> str:
    return "\n".join(line.text for line in first_screen.lines(samples, width, **options))


def height(found: list[first_screen.Line], width: int) -> int:
    """Lines on a terminal that breaks what is too long."""
    return sum(max(1, -(-len(line.text) // width)) for line in found)


@settings(max_examples=12)
@given(
    networks=st.integers(1, 12),
    engines=st.lists(st.sampled_from(["reference", "fast", "fast-bf16"]), min_size=1, unique=True),
    machines=st.integers(1, 3),
    width=st.sampled_from(WIDTHS),
    path=st.integers(1, 120),
)
@example(networks=1, engines=["reference"], machines=1, width=60, path=120)
def test_never_more_than_the_limit(networks: int, engines: list[str], machines: int, width: int, path: int) -> None:
    entries = [
        handmade.in_processes(f"network{i}", [60 + i, 61 + i, 62 + i], engine=engine)
        for i in range(networks)
        for engine in engines
    ]
    with tempfile.TemporaryDirectory() as folder:
        made = [
            handmade.save(Path(folder) / f"{i}.json", entries, machine=handmade.machine(cpu={"model": f"CPU {i}"}))
            for i in range(machines)
        ]
        samples = read_all(made)
    commands = first_screen.next_commands(Path("x" * path), None, [run.result for run in samples.runs])
    found = first_screen.lines(samples, width, earlier=Earlier(None), commands=commands)
    assert height(found, width) <= LINES
    assert all(len(line.text) <= width for line in found if line.text not in commands)
    shown = sum(line.text.startswith("network") for line in found)
    if shown < networks * len(engines) * machines:
        assert "more" in "\n".join(line.text for line in found)  # and it is said
    if machines == 1:
        assert shown


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    "name", ["quick-cifar100-subset.json", "epoch-time-cifar10.json", "modes-cifar10.json", "study-cifar100-subset"]
)
def test_real_results(name: str, width: int) -> None:
    found = first_screen.lines(read_all([REPORTS / name]), width, earlier=Earlier(None), commands=["next"])
    assert height(found, width) <= LINES
    assert all(len(line.text) <= width for line in found)
    assert any(line.text.startswith("conv5x5") for line in found)


def test_a_wider_terminal_tells_more() -> None:
    samples = read_all([REPORTS / "quick-cifar100-subset.json"])
    narrow, wide = (text(samples, width) for width in (60, 200))
    step_with_interval = re.compile(r"^fc1 +(1\.5M +)?[\d.]+ \[", re.MULTILINE)
    assert step_with_interval.search(wide)
    assert not step_with_interval.search(narrow)  # the bar has the interval
    assert "│" in narrow
    assert "Left out for want of room: Parameters." in narrow
    assert "Left out" not in wide
    assert "Of baseline's" in text(read_all([REPORTS / "speed-zen4.json"]), 80)  # with what was published


def test_published_accuracies_only_beside_the_whole_data_set(tmp_path: Path) -> None:
    whole = read(tmp_path, handmade.accuracy("fc1", [0.3] * 15))
    assert "(published)" in text(whole)
    assert re.search(r"30\.0 \[.*\] \(38\)", text(whole))
    for other in ({"synthetic": True, "name": "synthetic"}, {"subset": True, "train_images": 320}, {"name": "cifar10"}):
        samples = read(tmp_path, handmade.accuracy("fc1", [0.3] * 15, dataset=handmade.dataset(**other)))
        assert "(38)" not in text(samples)
        assert "do not compare" in text(samples)
    assert "(38)" not in text(read(tmp_path, handmade.accuracy("fc1", [0.3] * 3)))


def test_a_ratio_that_nobody_can_tell_is_marked(tmp_path: Path) -> None:
    """The published ratio of fc1 is 7.5 / 57."""
    for times, doubtful in (([30, 31, 32], False), ([20, 60, 110], True), ([30], True)):
        base = [60.0, 61.0, 62.0][: len(times)]
        entries = [handmade.in_processes(n, t, noise=0) for n, t in (("baseline", base), ("fc1", times))]
        (row,) = (line for line in text(read(tmp_path, *entries)).splitlines() if line.startswith("fc1"))
        assert "(0.132)" in row
        assert ("?" in row) == doubtful


def test_counts_alone_have_claims_and_nothing_to_compare(tmp_path: Path) -> None:
    results = [run.result for run in read(tmp_path, handmade.parameters("fc1")).runs]
    (command,) = first_screen.next_commands(tmp_path / "x.json", None, results)
    assert command.startswith("All tables:  resnet-bench report ")
    assert command.endswith("x.json --claims --html report.html")


def test_without_times_or_trainings(tmp_path: Path) -> None:
    assert "baseline 8,942,524" in text(read(tmp_path, handmade.parameters("baseline")))


def test_doubts_are_one_line(tmp_path: Path) -> None:
    calibrations = {"start": handmade.calibration(), "end": handmade.calibration(memory=20e9)}
    entry = handmade.in_processes("fc1", [60, 61, 62], warnings=["Something else runs; x.", "More."])
    found = text(read(tmp_path, entry, calibration=calibrations), 100)
    (line,) = (line for line in found.splitlines() if line.startswith("Doubtful"))
    assert "up to 50 %" in line
    assert "Something else runs" in line
    assert "Doubtful" not in text(read(tmp_path, handmade.in_processes("fc1", [60, 61, 62])))


# Against the last saved session ---------------------------------------------------------------------------------------


def test_several_doubts_are_counted_first(tmp_path: Path) -> None:
    entries = [
        handmade.in_processes(n, [60, 61, 62], warnings=[f"{n} was slow.", "The load was 3."]) for n in ("fc1", "fc3")
    ]
    assert "\nDoubtful times (3 reasons): fc1 was slow; The load was 3; fc3 was slow." in text(read(tmp_path, *entries))


def test_a_later_group_says_only_what_differs(tmp_path: Path) -> None:
    """The arms of a duel, of which only the name and the code differ."""
    found = [
        handmade.save(
            tmp_path / f"{name}.json",
            [handmade.in_processes("fc1", [60, 61, 62])],
            machine=handmade.machine(duel={"id": "d", "arm": name}, code={"sha256": digit * 64}),
        )
        for name, digit in (("old", "1"), ("new", "2"))
    ]
    shown = text(read_all(found))
    assert shown.startswith("Brackets: 95 % intervals. Arm old: cifar100 (")
    assert "\nArm new: code sha256 222222222222; else as above.\n" in shown


def test_the_signs_of_the_bars_are_explained_where_they_are(tmp_path: Path) -> None:
    wide = read(tmp_path, handmade.in_processes("fc1", [60, 61, 62]), handmade.in_processes("fc3", [10, 60, 110]))
    assert "▒: the interval of the step; │: its mean; >: it goes on." in text(wide, 200)
    certain = read(tmp_path, handmade.in_processes("fc1", [60, 60, 60]), name="0002_y.json")
    assert "▒" not in text(certain)


def test_early_steps_beside_a_session_are_told_of(tmp_path: Path) -> None:
    found = text(
        read(tmp_path, handmade.in_processes("fc1", [60, 61, 62]), handmade.scaled("fc1", "fast", "batch-size", 4))
    )
    assert "Early steps by batch size, too: in the tables of resnet-bench report." in found


def test_the_last_saved_session_of_the_same_setting(tmp_path: Path) -> None:
    read(tmp_path, handmade.in_processes("fc1", [60, 61, 62]), name="0001_a.json")
    read(tmp_path, handmade.in_processes("fc1", [90, 91, 92], threads=1), name="0002_b.json")
    read(tmp_path, handmade.in_processes("fc1", [90, 91, 92]), name="0003_c.json", cpu={"model": "Another"})
    (tmp_path / "0004_d.json").write_text("{")
    now = read(tmp_path, handmade.in_processes("fc1", [30, 30.5, 31]), name="0005_now.json")
    earlier = last_alike(now, saved_before(tmp_path, "0005_now.json"))
    assert earlier.comparison is not None
    assert earlier.comparison.base.path.name == "0001_a.json"
    found = text(now, earlier=earlier)
    assert "2.00× faster" in found
    commands = first_screen.next_commands(tmp_path / "0005_now.json", earlier, [run.result for run in now.runs])
    assert any("0001_a.json" in command and "0005_now.json" in command for command in commands)


def against(folder: Path, before: list[dict[str, Any]], now: list[dict[str, Any]]) -> list[first_screen.Line]:
    """The lines of the comparison with the last saved session."""
    read(folder, *before, name="0001_before.json")
    samples = read(folder, *now, name="0002_now.json")
    earlier = last_alike(samples, saved_before(folder, "0002_now.json"))
    return first_screen._against(earlier, 500)


def test_the_mean_is_over_the_networks_with_an_interval(tmp_path: Path) -> None:
    both = [handmade.in_processes("fc1", [60, 61, 62], engine=engine) for engine in ("fast", "reference")]
    few = handmade.in_processes("baseline", [60])
    found = against(tmp_path, [*both, few], [handmade.in_processes("fc1", [30, 30.5, 31], engine="fast"), both[1], few])
    assert re.search(r"faster \[.*\] over 1 network\.", found[0].text)


def test_without_intervals_no_network_speaks_for_all(tmp_path: Path) -> None:
    before = [handmade.in_processes(name, [60]) for name in ("fc1", "fc3")]
    (line,) = against(tmp_path, before, [handmade.in_processes("fc1", [30]), before[1]])
    assert line.text.endswith("cannot tell: measured in 1 process over 2 networks.")


@pytest.mark.parametrize(
    ("accuracy", "seconds", "style"),
    [
        (0.30, [30, 30.5, 31], "red"),
        (0.30, [60, 61, 62], "red"),
        (0.50, [60, 61, 62], "green"),
        (0.50, [90, 91, 92], "red"),
        (0.40, [30, 30.5, 31], "green"),
    ],
)
def test_slower_or_less_accurate_is_red(tmp_path: Path, accuracy: float, seconds: list[float], style: str) -> None:
    def session(final: float, times: list[float]) -> list[dict[str, Any]]:
        trained = [handmade.accuracy("fc1", [final + 0.001 * seed] * 15, seed=seed) for seed in range(3)]
        return [*trained, handmade.in_processes("fc1", times)]

    found = against(tmp_path, session(0.40, [60, 61, 62]), session(accuracy, seconds))
    assert {line.style for line in found[1:]} == {style}


def test_other_settings_machines_and_data_are_no_comparison(tmp_path: Path) -> None:
    now = read(tmp_path, handmade.in_processes("fc1", [30, 30.5, 31]), name="0009_now.json")
    assert "No earlier session here." in text(now, earlier=last_alike(now, saved_before(tmp_path, "0009_now.json")))
    subset = handmade.dataset(subset=True, train_images=320)
    others = [
        (handmade.in_processes("fc1", [60, 61, 62], threads=1), {}, "other threads"),
        (handmade.in_processes("fc1", [60, 61, 62]), {"cpu": {"model": "Another"}}, "another machine"),
        (handmade.in_processes("fc1", [60, 61, 62], dataset=subset), {}, "subset size"),
        (handmade.in_processes("fc3", [60, 61, 62]), {}, "no network in common"),
    ]
    for entry, machine, reason in others:
        read(tmp_path, entry, name="0001_a.json", **machine)
        earlier = last_alike(now, saved_before(tmp_path, "0009_now.json"))
        assert earlier.comparison is None
        assert reason in earlier.reason
        assert "No earlier session here was measured like this one" in text(now, earlier=earlier)


def test_only_what_was_saved_before(tmp_path: Path) -> None:
    for name in ("0001_a.json", "0002_b.json", "0010_c.json", "other.json"):
        (tmp_path / name).write_text("{}")
    assert [path.name for path in saved_before(tmp_path, "0010_c.json")] == ["0002_b.json", "0001_a.json"]
    assert [path.name for path in saved_before(tmp_path)] == ["0010_c.json", "0002_b.json", "0001_a.json"]
    assert saved_before(tmp_path, "other.json") == []


# On a terminal --------------------------------------------------------------------------------------------------------


def on_terminal(columns: int, *arguments: str, **environment: str) -> str:
    """What a process prints on a terminal of so many columns."""
    fcntl, termios = (pytest.importorskip(name) for name in ("fcntl", "termios"))
    controller, end = os.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    removed = ("COLUMNS", "NO_COLOR", "FORCE_COLOR", "PY_COLORS")
    variables = {k: v for k, v in os.environ.items() if k not in removed} | {"TERM": "xterm", **environment}
    with subprocess.Popen([sys.executable, *arguments], stdin=end, stdout=end, stderr=end, env=variables) as process:
        os.close(end)
        printed = b""
        with contextlib.suppress(OSError):  # the process has closed its end
            while chunk := os.read(controller, 65536):
                printed += chunk
    os.close(controller)
    assert process.returncode == 0, printed
    return printed.decode()


REPORT = ("-m", "resnet_bench.cli", "report", str(REPORTS / "quick-cifar100-subset.json"))


def test_report_begins_with_it_as_wide_as_the_terminal() -> None:
    printed = on_terminal(120, *REPORT)
    first = printed[printed.index("\x1b[1mBrackets") : printed.index("Table 1")].splitlines()  # progress is before it
    plain = [re.sub(r"\x1b\[\d+m", "", line) for line in first]
    assert 100 < max(len(line) for line in plain if "resnet-bench" not in line) <= 120
    assert len(plain) <= LINES + 1


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_without_colours(environment: dict[str, str]) -> None:
    printed = on_terminal(80, *REPORT, **environment)
    assert "\x1b" not in printed
    assert "█" in printed


def test_a_session_on_a_terminal(tmp_path: Path) -> None:
    benchmarks = str(REPORTS.parent / "benchmarks")
    options = ["--engine", "reference", "--architectures", "conv5x5", "-k", "parameters", "-p", "no:cacheprovider"]
    storage = f"--benchmark-storage={tmp_path}"
    printed = on_terminal(80, "-m", "pytest", benchmarks, *options, storage, "--benchmark-save=x")
    assert "conv5x5 1,741,884" in printed
    assert "0001_x.json" in printed
    assert "StdDev" not in printed
