"""What `report` says of a file of `resnet-bench scale`: tables, sentences, figure, page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resnet_bench import cli
from resnet_bench.architectures import ARCHITECTURES
from resnet_bench.render import first_screen, page, scale_tables
from resnet_bench.render.figures import figures
from resnet_bench.render.paper_tables import tables
from resnet_bench.results.frame import data_frame
from resnet_bench.results.samples import Samples, read_all
from tests.handmade import epoch_time, save, scaled

ROUNDS = (10.0, 10.2, 9.8)

Reader = Callable[..., Samples]


@pytest.fixture
def read(tmp_path: Path) -> Reader:
    def make(*entries: dict[str, Any]) -> Samples:
        return read_all([save(tmp_path / "scale.json", entries)])

    return make


def batches(architecture: str = "fc1", *, factors: dict[int, float], rounds: tuple[float, ...] = ROUNDS) -> list[Any]:
    """At each batch size a step of reference takes so many times as long as one of fast; 1: now more, now less."""
    made = []
    for batch, factor in factors.items():
        plain = [ms * factor for ms in (rounds if factor != 1 else rounds[::-1])]
        made += [scaled(architecture, "reference", "batch-size", batch, plain)]
        made += [scaled(architecture, "fast", "batch-size", batch, rounds)]
    return made


def five(varied: str, *values: int) -> list[Any]:
    return [scaled(a, "fast", varied, value, ROUNDS) for a in ARCHITECTURES for value in values]


def text(samples: Samples) -> str:
    return " ".join("\n".join(table.render("text") for table in tables(samples)).split())


@pytest.mark.parametrize(
    ("factors", "sentence"),
    [
        (
            {1: 2.0, 16: 1.5, 64: 1.0, 256: 0.8},
            "fc1: fast is faster at batch sizes 1 and 16; at 64 the difference cannot be told; at 256 reference is "
            "faster.",
        ),
        ({1: 2.0, 16: 1.5}, "fc1: fast is faster at all that was measured, batch sizes 1 and 16."),
        ({1: 2.0, 16: 1.5, 64: 1.2}, "fc1: fast is faster at all that was measured, batch sizes 1 to 64."),
        (
            {1: 1.0, 4: 2.0, 16: 2.0, 64: 2.0},
            "fc1: the difference cannot be told at batch size 1; at 4 to 64 fast is faster.",
        ),
        ({16: 1.5}, "fc1: fast is faster at batch size 16."),
        ({1: 1.0, 4: 1.0}, "fc1: the difference cannot be told at all that was measured, batch sizes 1 and 4."),
        ({1: 0.5, 4: 2.0}, "fc1: reference is faster at batch size 1; at 4 fast is faster."),
    ],
)
def test_a_sentence_says_at_which_values_fast_is_faster(read: Reader, factors: dict[int, float], sentence: str) -> None:
    assert sentence in text(read(*batches(factors=factors)))


def test_rows_are_values_networks_and_engines(read: Reader) -> None:
    (table,) = tables(read(*batches(factors={4: 2.0, 64: 1.2})))
    assert table.columns == [
        "Batch size", "Network", "Engine", "Step (ms)", "Images per second", "fast, times as fast as reference",
    ]  # fmt: skip
    assert [row[:3] for row in table.rows] == [[b, "fc1", e] for b in ("4", "64") for e in ("reference", "fast")]
    assert table.rows[1][3].startswith("10.0 [9.5")
    assert table.rows[1][4].startswith("400 [3")
    assert table.rows[1][5].startswith("2.00× [")
    assert table.rows[0][5] == "–"
    assert "all are among the first 560 of a training" in text(read(*batches(factors={4: 2.0})))


@pytest.mark.parametrize(
    ("varied", "values", "head", "cell"),
    [
        ("threads", (1, 2), "Speed, against 1", "1.00× [1.00, 1.00]"),
        ("classes", (10, 100), "Time, against 10", "1.00× [1.00, 1.00]"),
        ("processes", (1, 2), "against 1", "2.00× [2.00, 2.00]"),
        ("images", (1000, 4000), "of it opening the pipeline", "1.0 %"),
    ],
)
def test_each_quantity_has_its_column(read: Reader, varied: str, values: tuple[int, int], head: str, cell: str) -> None:
    table = tables(read(*(scaled("fc1", "fast", varied, value, ROUNDS) for value in values)))[0]
    assert dict(zip(table.columns, table.rows[1], strict=True))[head] == cell


def test_two_rounds_have_no_interval_and_no_verdict(read: Reader) -> None:
    found = text(read(*batches(factors={4: 2.0}, rounds=(10.0, 10.0))))
    assert "2 rounds: no interval." in found
    assert "Whether fast is faster than reference cannot be told from 2 rounds; give --processes 3 or more." in found
    assert "10.0 20" not in found


def test_what_was_cut_off_or_is_doubtful_is_said(read: Reader) -> None:
    warned = scaled("fc1", "fast", "threads", 1, warnings=["The machine was busy."], complete=False)
    found = text(read(warned, scaled("fc1", "fast", "threads", 2, complete=False)))
    assert "The measurement was cut off after 3 rounds." in found
    assert "Doubtful (fc1 (fast) at 1): The machine was busy." in found


def test_what_a_study_costs(read: Reader) -> None:
    """Five trainings of 15 × (12,500 × 10 ms + 0.1 s) are 2.61 hours, three of them 1.56."""
    found = text(read(*five("processes", 1, 2)))
    assert (
        "A study of the 5 networks with fast takes 2.61 [2.48, 2.74] hours with --jobs 1 --threads 1 and 1.56 [1.49, "
        "1.64] hours with --jobs 2 --threads 1, which is the best packing that was measured; computed from early steps."
    ) in found
    assert "5 networks × 15 epochs × 50,000 images, batch size 4, one seed, without evaluation" in found
    assert "Computed, not measured" in found


def test_why_nothing_is_said_about_a_study(read: Reader) -> None:
    assert "What a study costs here is not told, as fc3 was not measured." in text(
        read(*(e for e in five("threads", 1) if e["architecture"] != "fc3"))
    )


def test_the_first_screen_has_the_answers(read: Reader) -> None:
    lines = [line.text for line in first_screen.lines(read(*batches(factors={4: 2.0, 64: 1.2})), 100)]
    assert lines == ["fc1: fast is faster at all that was measured, batch sizes 4 and 64."]
    grown = read(scaled("fc1", "fast", "threads", 1, ROUNDS), scaled("fc1", "fast", "threads", 2, ROUNDS))
    assert first_screen.lines(grown, 100)[0].text == (
        "fc1 (fast): a step takes 1.00× [1.00, 1.00] as long with 2 threads as with 1 thread."
    )


def test_the_page_says_how_it_was_measured_and_judges_no_claims(read: Reader) -> None:
    made = page.report(read(*batches(factors={4: 2.0, 64: 1.2}), *batches("conv5x5", factors={4: 2.0, 64: 1.2})))
    assert (
        "resnet-bench scale --over batch-size=4,64 --architectures fc1,conv5x5 --engine reference,fast --dataset"
    ) in made
    assert "--processes 3 --output scale.json" in made
    assert "--batch-size" not in made.partition("How to reproduce it")[2].replace("--over batch-size", "")
    assert "judged by the results of this page" not in made
    assert "(2)</" not in made


@pytest.mark.parametrize(("varied", "option"), [("threads", "--threads"), ("images", "--train-images")])
def test_the_command_does_not_give_what_it_varies(read: Reader, varied: str, option: str) -> None:
    (line, _) = page.commands(read(*five(varied, 1, 2)).files)
    assert f"--over {varied}=1,2" in line
    assert f" {option} " not in line


def test_report_advises_no_comparison_that_is_refused(read: Reader, capsys: pytest.CaptureFixture[str]) -> None:
    (file,) = read(*five("threads", 1, 2)).files
    with pytest.raises(SystemExit):
        cli.main(["report", str(file.path)])
    out = capsys.readouterr().out
    assert "All tables:  resnet-bench report" in out
    assert "resnet-bench compare" not in out


def test_early_steps_never_count_as_epoch_times(read: Reader) -> None:
    """Beside a result of the suite: in no table of it, and pooled with none."""
    alone = [t.render("text") for t in tables(read(epoch_time("fc1", seconds=60)))]
    found = read(epoch_time("fc1", seconds=60), *batches(factors={4: 2.0}))
    assert [t.render("text") for t in tables(found)][: len(alone)] == alone
    rows = data_frame(found)
    assert set(rows[rows["kind"] == "scale"]["variant"]) == {"batch-size=4"}
    assert rows[rows["kind"] == "scale"][["pool", "epoch_seconds"]].isna().all(axis=None)


@pytest.mark.parametrize("format_", ["text", "markdown", "latex", "csv"])
def test_every_format(read: Reader, format_: Any) -> None:
    assert all("fast" in table.render(format_) for table in tables(read(*five("threads", 1, 2))))


def test_the_figure_has_a_panel_for_each_engine_and_a_line_for_each_network(read: Reader) -> None:
    pytest.importorskip("matplotlib")
    entries = [*batches(factors={4: 2.0, 64: 1.2}), *batches("conv5x5", factors={4: 2.0, 64: 1.2})]
    made, skipped = figures(read(*entries))
    (figure,) = made
    assert (figure.name, skipped) == ("step-by-batch-size", [])
    assert "fc1 (fast) 10.0 ms at 4, 10.0 ms at 64" in figure.alt
    assert "early steps" in figure.context
    with figure.canvas() as canvas:
        assert [axes.get_title() for axes in canvas.axes] == ["reference engine", "fast engine"]
        assert all((axes.get_xscale(), axes.get_yscale()) == ("log", "log") for axes in canvas.axes)
        curves = [line for line in canvas.axes[0].get_lines() if line.get_marker() in ("s", "v")]
        assert [list(line.get_ydata()) for line in curves] == [pytest.approx([20.0, 12.0])] * 2


@pytest.mark.parametrize(
    ("rounds", "cut"), [((10.0, 10.2, 9.8), False), ((10.0, 14.0, 7.0), False), ((5, 50, 9), True)]
)
def test_no_interval_leaves_the_figure_unless_it_is_said(read: Reader, rounds: tuple[float, ...], cut: bool) -> None:
    pytest.importorskip("matplotlib")
    ((figure,), _) = figures(read(*(scaled("fc1", "fast", "threads", n, rounds) for n in (1, 2))))
    with figure.canvas() as canvas:
        (axes,) = canvas.axes
        low, high = axes.get_ylim()
        ends = [y for bars in axes.collections for path in bars.get_paths() for y in path.vertices[:, 1]]
    assert ("are cut off" in figure.caption) is cut
    assert (low <= min(ends) <= max(ends) <= high) is not cut
    assert low <= min(rounds) < max(rounds) <= high


def test_report_writes_page_and_figures(read: Reader, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    read(*five("threads", 1, 2))
    arguments = ["--figures", str(tmp_path / "figures"), "--html", str(tmp_path / "page.html"), "--claims"]
    with pytest.raises(SystemExit) as exit_:
        cli.main(["report", str(tmp_path / "scale.json"), *arguments])
    out = capsys.readouterr()
    assert not exit_.value.code, out.err
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == ["step-by-threads.png", "step-by-threads.svg"]
    page = (tmp_path / "page.html").read_text()
    assert "What a study costs" in page
    assert "Time of a step by threads" in page


@pytest.mark.parametrize("keep", [0, 40, 2000])
def test_a_truncated_file_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str], keep: int) -> None:
    path = save(tmp_path / "scale.json", batches(factors={4: 2.0}))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(SystemExit) as exit_:
        cli.main(["report", str(path)])
    err = capsys.readouterr().err
    assert exit_.value.code == 2
    assert "scale.json is no JSON or was cut off" in err
    assert len(err.splitlines()) == 1


def test_a_damaged_value_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path / "scale.json", [{**scaled("fc1", "fast", "threads", 1), "jobs": 2}])
    with pytest.raises(SystemExit) as exit_:
        cli.main(["report", str(path)])
    assert exit_.value.code == 2
    assert "a round lacks some of its processes" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["compare"], ["history"], ["export", "--format", "bencher"], ["export"]])
def test_other_commands_take_or_refuse_it_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    path = str(save(tmp_path / "scale.json", batches(factors={4: 2.0})))
    with pytest.raises(SystemExit) as exit_:
        cli.main([*command, path, *([path] if command == ["compare"] else [])])
    assert exit_.value.code in (0, None, 2)
    assert "Traceback" not in capsys.readouterr().err


def test_heads_name_every_quantity() -> None:
    assert set(scale_tables.HEADS) == {"threads", "batch-size", "images", "classes", "processes"}
