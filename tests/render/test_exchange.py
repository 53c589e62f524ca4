"""`export` for other tools: each format read by the tool itself, or checked by the rules of its reader."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pyperf
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from resnet_bench.cli import main
from resnet_bench.render import exchange
from resnet_bench.results.reading import read
from resnet_bench.results.samples import read_all
from resnet_bench.schema import EpochTimeResult
from tests.handmade import accuracy, dataset, epoch_time, in_processes, machine, save, told

FORMATS = ["github-action-benchmark", "bencher", "pyperf"]
ROOT = Path(__file__).parents[2]


@dataclass
class Done:
    """How `export` ended."""

    status: int
    out: str
    notes: list[str]

    @property
    def data(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Exports results that are handmade, or files that are there."""

    def run(format_: str, results: Sequence[dict[str, Any] | Path], **described: Any) -> Done:
        made = [r for r in results if isinstance(r, dict)]
        files = [r for r in results if isinstance(r, Path)]
        files += [save(tmp_path / "made.json", made, machine=machine(**described))] if made else []
        with pytest.raises(SystemExit) as exit_:
            main(["export", *map(str, files), "--format", format_])
        out, err = capsys.readouterr()
        return Done(int(exit_.value.code or 0), out, err.splitlines())

    return run


def test_what_no_format_takes_is_said(export) -> None:
    reports = ROOT / "reports"
    names = ("quick-quiet", "scale-threads", "explain-baseline")
    done = export("bencher", [reports / f"{name}.json" for name in names])
    assert (
        "resnet-bench: note: results left out: of resnet-bench scale and that explain a step; --format json has them."
    ) in done.notes


# ---------------------------------------------------------------------------------------------------------------------
# What the readers of the tools accept


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class Entry(Strict):
    """An entry of `customSmallerIsBetter`: what `extractCustomBenchmarkResult` of its extract.ts takes over.

    Its comments are Markdown tables with the name in backticks, and `findAlerts` divides values. A `range` counts as a
    number only where `extractRangeInfo` finds one in it.
    """

    name: Annotated[str, Field(min_length=1, pattern=r"^[^|`\n]+$")]
    value: Annotated[float, Field(gt=0)]
    unit: Annotated[str, Field(min_length=1)]
    range: Annotated[str, Field(pattern=r"^(\+-|±)\s*\d[\d.]+$")] | None = None
    extra: str | None = None


class Metric(Strict):
    """A metric of Bencher's https://bencher.dev/bmf.json; its ends lie on both sides, as its plots draw them."""

    value: float
    lower_value: float | None = None
    upper_value: float | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Metric:
        assert (self.lower_value is None) == (self.upper_value is None)
        if self.lower_value is not None and self.upper_value is not None:
            assert self.lower_value <= self.value <= self.upper_value
        return self


ENTRIES = TypeAdapter(Annotated[list[Entry], Field(min_length=1)])  # an empty list is an error of the tool
SLUG = r"^[a-z0-9]+(-[a-z0-9]+)*$"
BMF = TypeAdapter(
    dict[
        Annotated[str, Field(min_length=1, max_length=1024)],
        dict[Annotated[str, Field(max_length=64, pattern=SLUG)], Metric],
    ]
)


def accepted(format_: str, text: str | bytes) -> Any:
    """What the tool reads in the file; an error where it would refuse it."""
    if format_ == "pyperf":
        return pyperf.BenchmarkSuite.loads(text.decode() if isinstance(text, bytes) else text)
    read_back = (ENTRIES if format_ == "github-action-benchmark" else BMF).validate_json(text)
    if isinstance(read_back, list):
        assert len({e.name for e in read_back}) == len(read_back)  # it finds the value before by its name
    return read_back


REPORTS = [
    *sorted((ROOT / "reports").glob("*.json")),
    *(ROOT / "reports" / name for name in ("same-code/run-1.json", "duel-same/b.json")),
]
REPORTS = [path for path in REPORTS if b'"kind": "epoch_time"' in path.read_bytes()]


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("path", REPORTS, ids=lambda p: p.stem)
def test_what_was_measured_is_accepted(export, format_: str, path: Path) -> None:
    done = export(format_, [path])
    assert done.status == 0
    assert accepted(format_, done.out)
    assert not [note for note in done.notes if not note.startswith("resnet-bench: note: ")]


@given(
    processes=st.integers(1, 5),
    seconds=st.floats(1e-3, 1e6),
    noise=st.floats(0, 0.5),
    late=st.floats(0.1, 10),
    correct=st.lists(st.integers(0, 500), min_size=15, max_size=15),
    peak=st.none() | st.integers(1, 2**40),
)
def test_whatever_was_measured_is_accepted(tmp_path_factory, processes, seconds, noise, late, correct, peak) -> None:
    small = dataset(test_images=500)
    options = {"late": late, "peak_memory_bytes": peak, "dataset": small}
    timed = in_processes("fc1", seconds + 0.1, processes, process_noise=noise, **options)
    trained = accuracy("fc1", [c / 500 for c in correct], dataset=small)
    path = save(tmp_path_factory.mktemp("x") / "a.json", [timed, trained])
    samples = read_all([path])
    for format_ in FORMATS:
        assert accepted(format_, exchange.exported(samples, format_)[0])  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------------------------
# What the values are

NAME = "fc1 (reference engine, cifar100)"


def test_github_action_benchmark_has_seconds_and_half_the_interval(export) -> None:
    timed = in_processes("fc1", 60, processes=5, process_noise=0.1)
    interval = timed["epoch_seconds"]
    time, memory = ENTRIES.validate_json(export("github-action-benchmark", [timed]).out)
    assert (time.name, time.unit) == (f"{NAME}: epoch time", "s")
    assert time.value == pytest.approx(interval["estimate"])
    half = (interval["high"] - interval["low"]) / 2
    assert float(time.range.removeprefix("± ")) == pytest.approx(half, rel=0.01)
    ends = [float(end) for end in re.findall(r"[\d.]+", time.extra.split("[")[1].split("]")[0])]
    assert ends == pytest.approx([interval["low"], interval["high"]], rel=0.01)
    assert "measured in 5 processes\ncifar100 (50,000 training and" in time.extra
    assert (memory.name, memory.unit, memory.value) == (f"{NAME}: peak memory", "MiB", 500_000_000 / 2**20)


def test_bencher_has_nanoseconds_per_cent_and_bytes(export) -> None:
    timed = in_processes("fc1", 60, processes=5, process_noise=0.1)
    results = [timed, *(accuracy("fc1", [0.1] * 14 + [a], seed=i) for i, a in enumerate((0.3, 0.32, 0.34)))]
    content = BMF.validate_json(export("bencher", results).out)
    measures = content[NAME]
    latency, interval = measures["latency"], timed["epoch_seconds"]
    expected = [1e9 * interval[key] for key in ("estimate", "low", "high")]
    assert [latency.value, latency.lower_value, latency.upper_value] == pytest.approx(expected)
    assert measures["accuracy"].value == pytest.approx(32)
    assert measures["accuracy"].upper_value == pytest.approx(32 + 4.303 * 2 / 3**0.5, rel=1e-3)  # Student's t
    assert measures["peak-memory"].value == 500_000_000


def test_pyperf_has_a_run_a_process_and_its_blocks_as_they_were_measured(export, tmp_path: Path) -> None:
    """Each point of the training is a benchmark, since the points do not weigh alike and pyperf's values do."""
    timed = in_processes("fc1", 60, processes=3, blocks=4, late=2)
    suite = accepted("pyperf", export("pyperf", [timed]).out)
    assert suite.get_benchmark_names() == [f"{NAME}: step after {s} steps" for s in ("0", "100,000")]
    (result,) = read(tmp_path / "made.json").of_kind(EpochTimeResult)
    for i, benchmark in enumerate(suite):
        own = [[b for b in result.blocks if (b.process, b.point) == (p, i)] for p in range(3)]
        assert [list(run.values) for run in benchmark.get_runs()] == [[b.seconds / b.steps for b in o] for o in own]
        assert [run._get_raw_values() for run in benchmark.get_runs()] == [
            pytest.approx([b.seconds for b in o]) for o in own
        ]
        about = benchmark.get_metadata()
        assert (benchmark.get_unit(), about["loops"], about["point_weight"]) == ("second", 24, 0.5)
        assert (about["cpu_model_name"], about["cpu_count"]) == ("13th Gen Intel(R) Core(TM) i5-1340P", 16)
        assert about["load_avg_1min"] == 0.1
        start, end = benchmark.get_dates()
        assert str(start) == "2026-01-02 03:04:05+00:00"
        assert end > start


def test_pyperf_compares_and_shows_what_was_exported(export, tmp_path: Path) -> None:
    """By its own commands."""
    for name, seconds in (("base", 60), ("other", 90)):
        done = export("pyperf", [in_processes("fc1", seconds, processes=3)])
        (tmp_path / f"{name}-pyperf.json").write_text(done.out)
    base, other = (str(tmp_path / f"{name}-pyperf.json") for name in ("base", "other"))

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "pyperf", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout

    assert "Number of run with values: 3" in run("stats", base)
    compared = run("compare_to", base, other)
    assert re.search(r"step after 0 steps: Mean \+- std dev: .* 1\.50x slower", compared)
    assert "Geometric mean: 1.50x slower" in compared


@pytest.mark.parametrize("format_", ["github-action-benchmark", "bencher"])
def test_fewer_than_three_processes_have_a_value_and_no_interval(export, format_: str) -> None:
    done = export(format_, [in_processes("fc1", processes=2)])
    first = accepted(format_, done.out)[0 if format_ == "github-action-benchmark" else NAME]
    assert (first.range if isinstance(first, Entry) else first["latency"].lower_value) is None
    assert done.notes == [
        "resnet-bench: note: times without an interval, from fewer than three processes: all benchmarks."
    ]


def test_whole_epochs_are_single_loops(export) -> None:
    blocks = [{**b, "steps": 12_500, "seconds": 60.0 + i} for i, b in enumerate(epoch_time("fc1", blocks=3)["blocks"])]
    whole = {**epoch_time("fc1", mode="full"), "blocks": blocks, "epoch_seconds": None}
    (benchmark,) = accepted("pyperf", export("pyperf", [whole]).out)
    assert benchmark.get_name() == f"{NAME}: epoch"
    assert (benchmark.get_values(), benchmark.get_loops()) == ((60, 61, 62), 1)


def test_epochs_of_trainings_are_taken_where_nothing_else_was_timed(export) -> None:
    results = [accuracy("fc1", [0.1] * 15, seed=seed) for seed in (0, 1)]
    (benchmark,) = accepted("pyperf", export("pyperf", results).out)
    assert benchmark.get_name() == f"{NAME}: epoch of a training"
    assert [run.values for run in benchmark.get_runs()] == [(60,) * 15] * 2
    assert export("bencher", results).data[NAME]["latency"]["value"] == pytest.approx(60e9)


# ---------------------------------------------------------------------------------------------------------------------
# Names


def test_a_name_does_not_depend_on_what_else_the_file_holds(export) -> None:
    """Only what would have the same name gets more, and then says the same in every file with both."""
    fast = in_processes("fc1", engine="fast")
    alone = list(export("bencher", [fast]).data)
    beside = [in_processes("fc1"), in_processes("baseline", threads=1), in_processes("baseline", threads=2), fast]
    among = list(export("bencher", beside).data)
    assert alone == ["fc1 (fast engine, cifar100)"]
    assert sorted(among) == [
        "baseline (reference engine, 1 thread, cifar100)",
        "baseline (reference engine, 2 threads, cifar100)",
        "fc1 (fast engine, cifar100)",
        "fc1 (reference engine, cifar100)",
    ]


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ({"name": "synthetic", "synthetic": True}, "synthetic"),
        ({"name": "drawn", "synthetic": True}, "drawn, synthetic"),
        ({"subset": True, "train_images": 5000}, "cifar100 subset of 5,000"),
    ],
)
@pytest.mark.parametrize("format_", FORMATS)
def test_synthetic_images_and_subsets_are_marked(export, format_: str, images, expected: str) -> None:
    text = export(format_, [in_processes("fc1", dataset=dataset(**images))]).out
    assert f"fc1 (reference engine, {expected})" in text


# ---------------------------------------------------------------------------------------------------------------------
# What is left out or refused


@pytest.mark.parametrize("format_", FORMATS)
def test_results_of_two_machines_are_refused(export, format_: str, tmp_path: Path) -> None:
    other = save(tmp_path / "other.json", [in_processes("fc1")], machine=machine(cpu={"model": "another"}))
    done = export(format_, [other, in_processes("fc1")])
    assert (done.status, done.out) == (2, "")
    assert done.notes == [
        "resnet-bench: error: The files hold results of several machines, softwares or codes, which "
        f"{format_} would take for one; export those of each into a file of its own."
    ]


@pytest.mark.parametrize("format_", FORMATS)
def test_other_images_under_the_same_name_are_refused(export, format_: str) -> None:
    done = export(format_, [in_processes("fc1"), in_processes("fc1", dataset=dataset() | {"sha256": "0" * 64})])
    assert done.status == 2
    assert f"would both be called {NAME}" in done.notes[0]


@pytest.mark.parametrize("format_", FORMATS)
def test_doubtful_times_are_written_and_said(export, format_: str) -> None:
    results = [in_processes("fc1", warnings=["The load was 3."]), in_processes("baseline")]
    done = export(format_, results)
    assert done.notes == [
        "resnet-bench: note: doubtful times, written all the same, for which resnet-bench report has the reasons: "
        f"{NAME}."
    ]
    assert done.out.count("The load was 3.") == {"bencher": 0, "pyperf": 2, "github-action-benchmark": 1}[format_]


@pytest.mark.parametrize("format_", ["github-action-benchmark", "pyperf"])
def test_accuracies_are_left_out_and_that_is_said(export, format_: str) -> None:
    done = export(format_, [in_processes("fc1"), accuracy("fc1", [0.1] * 15)])
    assert "accuracy" not in done.out
    assert len(done.notes) == 1
    assert "accuracies left out" in done.notes[0]
    assert "; --format bencher has them." in done.notes[0]


def test_times_that_do_not_compare_are_left_out_and_that_is_said(export) -> None:
    beside = told(accuracy("fc1", [0.3] * 15), jobs=2)
    done = export("bencher", [beside])
    assert list(done.data[NAME]) == ["accuracy"]
    assert len(done.notes) == 1
    assert "times left out, which do not compare" in done.notes[0]
    for format_ in ("github-action-benchmark", "pyperf"):
        refused = export(format_, [beside])
        assert (refused.status, refused.out) == (2, "")
        assert f"Nothing in these files can be told to {format_}" in refused.notes[0]


def test_the_accuracy_of_an_unfinished_training_is_left_out_and_that_is_said(export) -> None:
    done = export("bencher", [in_processes("fc1"), accuracy("fc1", [0.3] * 3)])
    assert "accuracy" not in done.data[NAME]
    assert done.notes == [
        "resnet-bench: note: accuracies left out, of trainings that stopped before their last epoch: all benchmarks."
    ]


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("content", ["", '{"benchmarks": [{"extra', "[]"])
def test_truncated_files_are_refused(export, format_: str, content: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(content)
    done = export(format_, [path])
    assert (done.status, done.out, len(done.notes)) == (2, "", 1)
    assert "bad.json" in done.notes[0]


def test_what_a_damaged_file_has_for_facts_is_nothing_that_pyperf_refuses(export) -> None:
    timed = {**in_processes("fc1", processes=1), "load_average_before": -1.0}
    timed["processes"][0]["started_at"] = "yesterday"
    done = export("pyperf", [timed], cpu={"model": "two\nlines", "logical_cores": ["x"]}, os=" ", python=None)
    about = accepted("pyperf", done.out).get_metadata()
    assert about["cpu_model_name"] == "two lines"
    assert not {"date", "load_avg_1min", "cpu_count", "python_version"} & set(about)
