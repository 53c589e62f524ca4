"""A history in words, bars, JSON and on a page."""

from __future__ import annotations

import json
import re
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from resnet_bench.analysis.history import History, history
from resnet_bench.render import history_page
from resnet_bench.render.axes import network_style
from resnet_bench.render.drawing import Figure
from resnet_bench.render.history_tables import BARS, as_dict, machine_name, render, sentences, sparkline
from resnet_bench.render.page import WHOLE
from resnet_bench.results.samples import read_all
from tests import handmade as samples

NASTY = "<script>alert('x')</script>"
SECONDS = [60, 61, 59, 60, 60.5, 59.5, 80, 81, 79, 80, 80.5, 79.5]


def made(folder: Path, seconds: list[float], cpu: str = "CPU one", number: int = 0, **machine: object) -> list[Path]:
    """A session a day; torch and code are others from the seventh on."""
    paths = []
    for i, s in enumerate(seconds):
        name = f"{number:08x}{i:08x}"
        at = (datetime(2027, 1, 1, tzinfo=timezone.utc) + timedelta(days=i)).isoformat()
        described = {
            "session": name,
            "cpu": {"model": cpu},
            "code": {"commit": ("a" if i < 6 else "b") * 40, "sha256": ("a" if i < 6 else "b") * 64},
            "torch": {"version": "2.15.0" if i < 6 else "2.15.1"},
            **machine,
        }
        entry = samples.in_processes("fc3", s, processes=3, process=name, started_at=at, engine="fast")
        paths.append(samples.save(folder / f"{number}-{i:02}.json", [entry], samples.machine(**described)))
    return paths


@pytest.fixture
def slower(tmp_path: Path) -> History:
    return history(read_all(made(tmp_path, SECONDS)))


def test_a_step_is_a_sentence(slower: History) -> None:
    (sentence,) = sentences(slower)
    assert sentence.startswith("REGRESSION fast, fc3: 1.3")
    assert "since bbbbbbb on 2027-01-07 (p 0.0" in sentence
    assert sentence.endswith("; code aaaaaaa → bbbbbbb, torch 2.15.0 → 2.15.1 at the same time")


def test_uncommitted_changes_are_named(tmp_path: Path) -> None:
    changed = [{"commit": c * 40, "sha256": c * 64, "dirty": c == "b"} for c in "ab"]
    paths = made(tmp_path, SECONDS[:6], code=changed[0])
    (tmp_path / "b").mkdir()
    paths += made(tmp_path / "b", SECONDS, code=changed[1])[6:]
    found = history(read_all(paths))
    (sentence,) = sentences(found)
    assert "since bbbbbbb with uncommitted changes on 2027-01-07 (p 0.0" in sentence
    (line,) = as_dict(found)["lines"]
    assert line["changes"][0]["dirty"] is True
    assert [s["dirty"] for s in line["sessions"]] == [False] * 6 + [True] * 6


def test_lines_of_data_sets_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = made(tmp_path, SECONDS[:2])
    content = json.loads(paths[1].read_text())
    content["benchmarks"][0]["extra_info"]["dataset"]["test_images"] = 500
    paths[1].write_text(json.dumps(content))
    captions = [line for line in render(history(read_all(paths))).splitlines() if "test images" in line]
    assert len(captions) == 2
    assert " 10,000 test images" in captions[0]
    assert " 500 test images" in captions[1]


def test_a_line_is_named_by_what_differs_among_those_of_its_machine(tmp_path: Path) -> None:
    paths = made(tmp_path, SECONDS[:1]) + made(tmp_path, SECONDS[:1], "CPU two", 1)
    for path, threads in zip(paths, (1, 2), strict=True):
        content = json.loads(path.read_text())
        content["benchmarks"][0]["extra_info"]["threads"] = threads
        path.write_text(json.dumps(content))
    assert "thread" not in render(history(read_all(paths)))


def test_the_sentence_tells_of_the_machine(tmp_path: Path) -> None:
    paths = made(tmp_path, SECONDS[:6], calibration={"start": samples.calibration(memory=40e9)})
    moved = tmp_path / "moved"
    moved.mkdir()
    paths += made(moved, SECONDS, calibration={"start": samples.calibration(memory=30e9)})[6:]
    (sentence,) = sentences(history(read_all(paths)))
    assert sentence.endswith("; the machine's own memory bandwidth was 0.75 of before")


def test_bars_show_the_course(slower: History) -> None:
    text = sparkline(slower.lines[0])
    before, after = text.split("|")
    assert len(before) == len(after) == 6
    assert set(before) <= set(BARS[:2])
    assert set(after) <= set(BARS[-2:])


def test_equal_times_and_a_single_session_have_bars(tmp_path: Path) -> None:
    found = history(read_all(made(tmp_path, [60])))
    assert sparkline(found.lines[0]) == BARS[4]
    assert "too few sessions: 1 of 6" in render(found)
    start = "No line could be judged: none has 6 sessions without doubts.\n\nEpoch times over sessions\n"
    assert render(found).startswith(start)


def test_machines_of_one_name_are_told_apart(tmp_path: Path) -> None:
    one = made(tmp_path, [60])
    two = made(tmp_path, [60], number=1, cpu="CPU one", container={"cpu_quota": None}, memory_bytes=2**40)
    assert len(history(read_all([*one, *two])).lines) == 1  # more memory makes no other machine
    three = made(tmp_path, [60], number=2)
    content = json.loads(three[0].read_text())
    content["machine_info"]["resnet_bench"]["cpu"]["stepping"] = 7
    three[0].write_text(json.dumps(content))
    found = history(read_all([*one, *three]))
    names = [machine_name(found, line) for line in found.lines]
    assert len(set(names)) == 2
    assert any(name.endswith("(cpu stepping 7)") for name in names)


def test_json_is_whole(slower: History) -> None:
    data = json.loads(json.dumps(as_dict(slower), allow_nan=False))
    (line,) = data["lines"]
    assert (line["architecture"], line["engine"], line["verdict"], line["regression"]) == (
        "fc3",
        "fast",
        "slower",
        True,
    )
    assert [s["epoch_seconds"] for s in line["sessions"]] == pytest.approx(SECONDS, rel=0.02)
    assert all(s["low"] < s["epoch_seconds"] < s["high"] for s in line["sessions"])
    (change,) = line["changes"]
    assert (change["before_sessions"], change["after_sessions"]) == (6, 6)
    assert change["differences"] == [
        {"key": "code.commit", "before": "a" * 40, "after": "b" * 40},
        {"key": "torch.version", "before": "2.15.0", "after": "2.15.1"},
    ]


def test_every_key_of_the_json_is_documented(slower: History) -> None:
    document = (Path(__file__).parents[2] / "docs" / "schema.md").read_text()
    part = document[document.index("## A history") : document.index("## The table of samples")]
    data = as_dict(slower)
    (line,) = data["lines"]
    keys = {
        *data,
        *line,
        *line["machine"],
        *line["sessions"][0],
        *line["changes"][0],
        *line["changes"][0]["differences"][0],
    }
    assert {key for key in keys if f"`{key}`" not in part} == set()


def test_the_page_is_escaped_and_has_its_figure(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    text = history_page.page(history(read_all(made(tmp_path, SECONDS, cpu=NASTY))))
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert text.count("<svg") == 2  # once more for a phone
    assert "× slower" in text


def test_each_colour_of_the_figure_has_one_for_the_dark(slower: History) -> None:
    pytest.importorskip("matplotlib")
    text = history_page.page(slower)
    used = set(re.findall(r"var\(--c([0-9a-f]{6})", text))
    assert len(used) > 2
    assert used <= set(re.findall(r"^ *--c([0-9a-f]{6}):", text, re.MULTILINE))
    assert not re.search(r'="[^"]*(?<!, )#[0-9a-f]{6}\b', re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL))


def test_the_figure_draws_levels_steps_and_what_is_not_judged(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    paths = made(tmp_path, [*SECONDS, 300])
    content = json.loads(paths[-1].read_text())
    content["benchmarks"][0]["extra_info"]["warnings"] = ["busy"]
    paths[-1].write_text(json.dumps(content))
    (figure,) = history_page.figures(history(read_all(paths)))
    with figure.canvas() as canvas:
        (axes,) = canvas.axes
        points = [line for line in axes.lines if line.get_marker() == network_style("fc3").marker]
        steps = [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":"]
        filled = [line.get_markerfacecolor() != "white" for line in points]
    assert steps == [5.5]
    assert filled == [True] * 12 + [False]
    assert figure.svg() == figure.svg()


def test_a_page_for_a_phone_and_paper(tmp_path: Path) -> None:
    """A figure has four lines at most; it is drawn once more for a phone; a line of one session is not drawn."""
    pytest.importorskip("matplotlib")
    paths = made(tmp_path, SECONDS[:2])
    for path in paths:
        content = json.loads(path.read_text())
        content["benchmarks"] *= 6
        for number, benchmark in enumerate(json.loads(json.dumps(content["benchmarks"]))):
            benchmark["extra_info"]["architecture"] = f"network{number}"
            content["benchmarks"][number] = benchmark
        path.write_text(json.dumps(content))
    found = history(read_all(paths))
    assert [len(canvas_of(figure)) for figure in history_page.figures(found)] == [4, 2]
    assert history_page.page(found).count('class="picture narrow"') == 2
    alone = history(read_all(paths[:1]))
    assert not history_page.figures(alone)
    assert "No line has 2 sessions, so that there is no course to draw." in history_page.page(alone)


def canvas_of(figure: Figure) -> list[object]:
    with figure.canvas() as canvas:
        return list(canvas.axes)


def test_a_line_of_the_page_ends_within_no_bars_date_interval_or_number(slower: History) -> None:
    text = history_page.page(slower)
    for whole in (sparkline(slower.lines[0]), "2027-01-07"):
        assert f'<span class="whole">{whole}</span>' in text
    kept = [
        piece for piece in WHOLE.split("8 s, 1.5 ms since 2027-01-04 [1.0, 2.0], 5 seconds") if WHOLE.fullmatch(piece)
    ]
    assert kept == ["8 s", "5 ms", "2027-01-04", "[1.0, 2.0]"]


def test_sessions_of_one_day_are_told_apart_by_the_time_of_day() -> None:
    first = datetime(2027, 1, 1, 23, 30, tzinfo=timezone.utc)
    assert history_page._dates([first, first + timedelta(days=1)]) == ["2027-01-01", "2027-01-02"]
    hours = [first, first + timedelta(minutes=5)]
    assert history_page._dates(hours) == ["2027-01-01\n23:30", "2027-01-01\n23:35"]


def test_without_matplotlib_the_page_says_so(slower: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "matplotlib", raising=False)
    text = history_page.page(slower)
    assert "Figures need matplotlib" in text
    assert "× slower" in text
