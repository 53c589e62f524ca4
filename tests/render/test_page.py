"""The page: complete, escaped, self-contained; and in a real browser readable, on a phone and in the dark too."""

from __future__ import annotations

import contextlib
import html
import http.server
import importlib.util
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from resnet_bench import cli
from resnet_bench.analysis.claims import REPRODUCED, JudgedClaim
from resnet_bench.errors import UserError
from resnet_bench.paper import CLAIMS, PUBLISHED, Claim
from resnet_bench.render import page
from resnet_bench.render.page import Commands, Facts, Findings, JudgedAlike, Picture, Section
from resnet_bench.render.table import Table
from resnet_bench.results import reading
from resnet_bench.schema import ExplainResult
from tests import handmade as samples

Entry = dict[str, Any]
NASTY = "<script>alert('x')</script> & \"quoted\""


def entries() -> list[Entry]:
    """All networks: parameters, times, and two epochs on CIFAR-100."""
    found = [samples.parameters(n) for n in PUBLISHED]
    found += [
        samples.in_processes(n, seconds=60 * p.epoch_minutes, step_bound_seconds=0.01) for n, p in PUBLISHED.items()
    ]
    return found + [samples.accuracy(n, [0.1, 0.2], seed=seed) for n in PUBLISHED for seed in (0, 1)]


def explanation() -> Entry:
    """What `explain` found of fc1 and fc3, in two rows each."""
    rows = [variant(name, step, ms) for name in ("fc1", "fc3") for step, ms in (("plain", 10), ("fast", 5))]
    run = samples.epoch_time("fc1")
    return {
        "kind": "explain",
        "architecture": "fc1",
        "counterpart": "fc3",
        **{key: run[key] for key in ("dataset", "recipe", "seed", "threads", "workers")},
        "schema_version": 3,
        "process": "a" * 16,
        "started_at": "2026-01-02T03:04:05+00:00",
        "variants": rows,
        "states": [denormal_state()],
        "warnings": [],
    }


def denormal_state(**overrides: Any) -> Entry:
    shares = ("dead_share", "denormal_share", "denormal_exp_avg", "zero_exp_avg", "denormal_exp_avg_sq")
    state = {"name": "early", "idle_steps": 1200, **dict.fromkeys(shares, 0.5), "zero_exp_avg_sq": 0.25}
    steps = {"kept": variant("fc1", "early: denormals kept", 10), "flushed": variant("fc1", "early: flushed", 5)}
    return {**state, **steps, **overrides}


def old_explanation(version: int) -> Entry:
    """The same as version 1 or 2 has it, with one state, whose moments were not counted apart."""
    entry = explanation()
    (state,) = entry.pop("states")
    old = {"dead_share": 0.5, "denormal_share": 0.25, "denormals": [state["kept"], state["flushed"]]}
    if version == 1:
        del entry["process"], entry["started_at"]
    return {**entry, **old, "schema_version": version}


def variant(architecture: str, name: str, milliseconds: float) -> Entry:
    seconds = milliseconds / 1e3
    return {
        "architecture": architecture,
        "name": name,
        "change": "nothing",
        "step_seconds": {"estimate": seconds, "low": seconds, "high": seconds, "method": "student-t"},
        "block_seconds": [seconds, seconds],
        "phases": dict.fromkeys(samples.PHASE_SHARES, 0.0),
        "page_faults": 0.0,
        "optimizer_bytes": 0,
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Results of a machine with a nasty name, and some of another machine."""
    folder = tmp_path_factory.mktemp("results")
    here = samples.machine(cpu={"model": NASTY}, os=NASTY)
    there = samples.machine(cpu={"model": "Another CPU"})
    times = [e for e in entries() if e["kind"] == "epoch_time"]
    return samples.save(folder / "0001_run.json", entries(), here), samples.save(folder / "other.json", times, there)


@pytest.fixture(scope="module")
def made(files: tuple[Path, Path]) -> str:
    """The page of both, with a comparison."""
    mine, other = map(reading.read, files)
    return page.report(samples.together([mine]), samples.together([other]))


class Tags(HTMLParser):
    """Collects start tags with their attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def pictures(found: Tags) -> list[dict[str, str | None]]:
    return [attributes for attributes in found.all("svg") if attributes.get("role") == "img"]


def test_everything_is_on_it(made: str) -> None:
    found = Tags(made)
    headings = ("What was found", "Claims", "Comparison", "Tables", "Figures", "What was run", "How to reproduce it")
    assert re.findall("<h2>(.*?)</h2>", made) == list(headings)
    for words in (
        "Table 1",
        "Table 2",
        "Summary",
        "SHA-256",
        "cifar100 (50,000 training",
        "Another CPU",
        "0001_run.json",
    ):
        assert words in found.text
    for claim in CLAIMS:
        assert claim.sentence in found.text
    assert len(pictures(found)) == 12  # of the first two, one for phones too
    assert len({alt["aria-label"] for alt in pictures(found)}) == 10
    assert {a["href"] for a in found.all("a")} == {f"#{s['id']}" for s in found.all("section")}


def test_text_of_a_result_file_stays_text(made: str) -> None:
    found = Tags(made)
    assert found.text.count(NASTY) >= 4
    assert "<script" not in made


def test_nothing_on_it_is_fetched_or_run_and_it_is_small(made: str) -> None:
    found = Tags(made)
    tags = {name for name, _ in found.tags}
    assert not tags & {"script", "iframe", "object", "embed", "video", "audio"}
    for _, attributes in found.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
    assert "@import" not in made
    assert set(re.findall(r"url\((.)", made)) <= {"#"}
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["href"] for a in found.all("use")} <= {f"#{own}" for own in ids}
    assert len(made.encode()) < 3_000_000


def test_pictures_that_would_make_it_too_large_are_left_out_with_a_word(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "PICTURES_BYTES", 200_000)
    made = page.report(samples.together([reading.read(files[0])]))
    assert len(made) < 500_000
    assert 4 < len(pictures(Tags(made))) < 12
    assert "more would make this page too large" in made


def test_without_matplotlib_it_says_how_to_get_figures(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name))
    made = page.report(samples.together([reading.read(files[0])]))
    assert "pip install" in html.unescape(made).split("Figures need matplotlib")[1]
    assert not pictures(Tags(made))


def test_commands_name_what_decides_the_result(files: tuple[Path, Path]) -> None:
    lines = page.commands([reading.read(files[0])])
    assert lines[0] == (
        "pytest benchmarks/test_parameters.py benchmarks/test_epoch_time.py benchmarks/test_accuracy.py "
        "--architectures baseline,fc1,fc3,blocks2,conv5x5 --dataset cifar100 --engine reference --pipeline loader "
        "--epochs 15 --batch-size 4 --lr 0.0004 --seed 0 --workers 2 --threads 2 --processes 5 --states trained "
        "--epoch-mode sampled --benchmark-save=run"
    )
    assert lines[1].startswith("pytest benchmarks/test_accuracy.py")
    assert "--seed 1" in lines[1]
    assert "--processes" not in lines[1]
    assert lines[-1].startswith("resnet-bench report 0001_run.json")


def test_command_of_a_single_training(tmp_path: Path) -> None:
    data = samples.dataset(name="folder:some images; rm", subset=True, train_images=100, test_images=50)
    entry = samples.accuracy("fc1", dataset=data, machine=samples.machine())
    path = tmp_path / "fc1.json"
    path.write_text(json.dumps(entry))
    line, _ = page.commands([reading.read(path)])
    assert line.startswith("resnet-bench train fc1 --dataset 'folder:PATH/TO/some images; rm' --train-images 100")
    assert line.endswith("--output fc1.json")


def test_a_command_of_whole_epochs_says_so(tmp_path: Path) -> None:
    path = samples.save(tmp_path / "full.json", [samples.epoch_time("fc1", mode="full", blocks=3)])
    assert "--epoch-mode full --rounds 3" in page.commands([reading.read(path)])[0]


def test_a_command_names_processes_and_states(tmp_path: Path) -> None:
    """Of whole epochs, how many each process timed."""
    entry = samples.in_processes("fc1", processes=4)
    whole = [{**b, "steps": 12_500, "point": 0} for b in entry["blocks"] if not b["point"] and b["round"] < 2]
    path = samples.save(tmp_path / "a.json", [entry])
    (line, _) = page.commands([reading.read(path)])
    assert "--processes 4 --states trained --epoch-mode sampled --benchmark-save" in line
    aged = [{**point, "state": "aged" if point["step"] else "trained"} for point in entry["points"]]
    path = samples.save(tmp_path / "aged.json", [{**entry, "points": aged}])
    assert "--processes 4 --states aged --epoch-mode sampled --benchmark-save" in page.commands([reading.read(path)])[0]
    path = samples.save(tmp_path / "b.json", [{**entry, "mode": "full", "points": [], "blocks": whole}])
    assert "--processes 4 --epoch-mode full --rounds 2" in page.commands([reading.read(path)])[0]


def test_both_modes_of_a_session_are_one_command(tmp_path: Path) -> None:
    entry = samples.in_processes("fc1", processes=4)
    whole = [{**b, "steps": 12_500, "point": 0} for b in entry["blocks"] if not b["point"] and not b["round"]]
    path = samples.save(tmp_path / "both.json", [entry, {**entry, "mode": "full", "points": [], "blocks": whole}])
    line, _ = page.commands([reading.read(path)])
    assert line.startswith("pytest benchmarks/test_epoch_time.py --architectures fc1 ")
    assert "--processes 4 --states trained --epoch-mode both --rounds 1 --benchmark-save=both" in line


def told(tmp_path: Path, *entries: Entry) -> str:
    """What the page says of how times were measured."""
    file = reading.read(samples.save(tmp_path / "results.json", entries))
    text = Tags(page.report(samples.together([file]))).text
    return text.partition("How times were measured")[2].partition("\nFiles")[0]


def test_how_times_were_measured_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes, blocks, points, and whether states were trained or aged."""
    monkeypatch.setattr(page, "figures", lambda _: ([], []))
    entry = samples.in_processes("fc1")
    assert (
        "Each network was measured in 5 processes, one after the other; 40 blocks of steps at 2 points of the training "
        "(after 0 and 100,000 steps). Every state was trained from the first step on."
    ) in told(tmp_path, entry)
    aged = [{**p, "state": "aged" if p["step"] else "trained"} for p in entry["points"]]
    said = told(tmp_path, {**entry, "points": aged})
    assert "aged (fc1): the states after 100,000 steps were not trained all the way" in said
    assert "Every state was trained" not in said
    assert "in 1 process; 10 blocks of steps among the first 280 of the training." in told(
        tmp_path, samples.epoch_time("fc1")
    )
    assert told(tmp_path, samples.accuracy("fc1", [0.1])) == ""


def test_document_escapes_every_part() -> None:
    parts = [
        NASTY,
        Facts(NASTY, [(NASTY, NASTY)]),
        Commands([NASTY]),
        Picture(NASTY, NASTY, "<svg/>"),
        Findings([NASTY]),
        JudgedAlike(REPRODUCED, [JudgedClaim(Claim(NASTY, NASTY, NASTY), REPRODUCED, NASTY)]),
        Table(NASTY, [NASTY], [[NASTY]], NASTY, [NASTY]),
    ]
    made = page.document(NASTY, [Section(NASTY, parts), Section("b", [])])
    assert "<script" not in made
    assert Tags(made).text.count(NASTY) == 20
    assert Tags(made).all("div")[0]["aria-label"] == f"Figure: {NASTY}: {NASTY}"


def test_halves_of_characters_can_be_written() -> None:
    page.document("\ud800", []).encode("utf-8")


def test_a_refused_comparison_is_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    other = samples.save(tmp_path / "small.json", [samples.epoch_time("fc1", dataset=samples.dataset(name="cifar10"))])
    with pytest.raises(UserError, match="cannot be compared"):
        page.report(samples.together([reading.read(files[0])]), samples.together([reading.read(other)]))


def test_files_that_cannot_be_compared_are_left_out_with_the_reason(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Another data set, and a file with nothing that can be compared; the first file's tables are there."""
    small = samples.save(tmp_path / "small.json", [samples.epoch_time("fc1", dataset=samples.dataset(name="cifar10"))])
    explained = samples.save(tmp_path / "explained.json", [explanation()])
    mine, other = map(reading.read, files)
    found = Tags(
        page.report(samples.together([reading.read(small), mine, reading.read(explained)]), samples.together([other]))
    ).text
    assert "small.json is left out of the comparison: other.json cannot be compared with small.json: data set" in found
    assert "explained.json is left out of the comparison: explained.json and other.json have no network" in found
    assert "other.json against 0001_run.json" in found
    assert str(tmp_path) not in found


def test_where_no_file_can_be_compared_the_reasons_are_the_error(files: tuple[Path, Path], tmp_path: Path) -> None:
    small = samples.save(tmp_path / "small.json", [samples.epoch_time("fc1", dataset=samples.dataset(name="cifar10"))])
    explained = samples.save(tmp_path / "explained.json", [explanation()])
    with pytest.raises(UserError, match=r"(?s)cannot be compared with .*small\.json.*no network in common") as error:
        page.report(
            samples.together([reading.read(small), reading.read(explained)]), samples.together([reading.read(files[1])])
        )
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"variants": []}, "not the same two"),
        ({"counterpart": "blocks2"}, "not the same two"),
        ({"variants": explanation()["variants"][:3]}, "not the same two"),
        ({"recipe": {}}, "batch size"),
        ({"states": [denormal_state(kept={**variant("fc1", "kept", 10), "block_seconds": [0.01]})]}, "in turn"),
        (
            {"states": [denormal_state(kept={**variant("fc1", "kept", 10), "block_seconds": [0.01, 0.02]})]},
            "not the mean",
        ),
        ({"states": [denormal_state(flushed=variant("fc1", "flushed", 0))]}, "no time"),
        ({"states": [denormal_state(), denormal_state()]}, "one name"),
        ({"states": [denormal_state(zero_exp_avg=None)]}, "only before version 3"),
        ({"denormals": []}, "denormals: extra inputs"),
    ],
)
def test_half_an_explanation_is_one_sentence(tmp_path: Path, change: Entry, reason: str) -> None:
    path = samples.save(tmp_path / "explained.json", [explanation()])
    assert page.report(samples.together([reading.read(path)]))
    with pytest.raises(UserError, match=reason):
        reading.read(samples.save(path, [{**explanation(), **change}]))


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_explanation_has_one_early_state_whose_moments_were_not_counted_apart(
    tmp_path: Path, version: int
) -> None:
    file = reading.read(samples.save(tmp_path / "explained.json", [old_explanation(version)]))
    (result,) = file.results
    assert isinstance(result, ExplainResult)
    (state,) = result.states
    assert (state.name, state.dead_share, state.denormal_share, state.idle_steps) == ("early", 0.5, 0.25, None)
    assert (state.denormal_exp_avg, state.zero_exp_avg, state.denormal_exp_avg_sq) == (None, None, None)
    assert [v.step_seconds.estimate for v in result.denormals] == [0.01, 0.005]
    assert "25% of Adam" in page.report(samples.together([file]))


@pytest.mark.parametrize("denormals", [[], [variant("fc1", "kept", 10)], None])
def test_an_older_explanation_without_both_steps_is_one_sentence(tmp_path: Path, denormals: Any) -> None:
    entry = {**old_explanation(2), "denormals": denormals}
    with pytest.raises(UserError, match=r"does not follow the schema at explain\.states: field required"):
        reading.read(samples.save(tmp_path / "explained.json", [entry]))


def test_resumed_trainings_are_no_obstacle(tmp_path: Path) -> None:
    """All runs of both networks: there is no time in any of the results, nor in what they are compared with."""
    entries = [samples.accuracy(n, [0.1, 0.2], mixed=True) for n in ("baseline", "fc1")]
    file = reading.read(samples.save(tmp_path / "resumed.json", entries))
    found = Tags(page.report(samples.together([file]), samples.together([file])))
    assert {p["aria-label"][:10] for p in pictures(found)} == {"Line chart"}
    assert "Parameters against epoch time is left out" in found.text


def test_a_table_is_there_once_and_an_empty_section_not_at_all() -> None:
    table, other = Table("a", ["x"], [["1"]]), Table("a", ["x"], [["2"]])
    kept = page._each_table_once([Section("one", [table, "text"]), Section("two", [table]), Section("three", [other])])
    assert [(s.heading, s.parts) for s in kept] == [("one", [table, "text"]), ("three", [other])]


def test_parts_with_one_title_are_told_apart() -> None:
    parts = [Table("a", ["x"], [["1"]], "here; more"), Table("a", ["x"], [["2"]], "there; more"), Facts("b", [])]
    made = page.document("c", [Section("s", [*parts, parts[0]], folded=True)])
    assert re.findall("<summary><h3>(.*?)</h3>", made) == ["a: here", "a: there", "b", "a: here (2)"]


def test_an_empty_first_cell_heads_no_row() -> None:
    """As in the table of live units, whose second layer is of the same network."""
    made = page.document("a", [Section("s", [Table("t", ["x", "y"], [["fc3", "1"], ["", "2"]])])])
    assert made.count('<th scope="row">') == 1
    assert "<td></td><td>2</td>" in made


def test_results_with_only_parameters_have_a_page(tmp_path: Path) -> None:
    file = reading.read(samples.save(tmp_path / "counts.json", [samples.parameters("fc1")]))
    found = Tags(page.report(samples.together([file])))
    assert "The parameters of 1 network were counted" in found.text
    assert not pictures(found)


def test_each_colour_of_a_figure_has_one_for_the_dark(made: str) -> None:
    used = set(re.findall(r"var\(--c([0-9a-f]{6})", made))
    dark = set(re.findall(r"^ *--c([0-9a-f]{6}):", made, re.MULTILINE))
    assert len(used) > 10
    assert used <= dark
    assert not re.search(r'="[^"]*(?<!, )#[0-9a-f]{6}\b', re.sub(r"<style>.*?</style>", "", made, flags=re.DOTALL))


# ---------------------------------------------------------------------------------------------------------------------
# The command


def run(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli.cli, ["report", *map(str, arguments)])
    if isinstance(result.exception, UserError):
        return 2, result.stdout, str(result.exception)
    assert result.exception is None, result.exception
    return result.exit_code, result.stdout, result.stderr


def test_command_writes_the_page(files: tuple[Path, Path], tmp_path: Path, made: str) -> None:
    target = tmp_path / "page.html"
    status, _, said = run(files[0], "--html", target, "--compare-with", files[1])
    assert status == 0
    assert str(target) in said
    assert target.read_text(encoding="utf-8") == made


def test_command_does_not_replace_the_results_by_their_page(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Nor through a link to them, nor those that they are compared with."""
    before = [f.read_bytes() for f in files]
    (tmp_path / "link").symlink_to(files[0])
    for target in (files[0], files[1], tmp_path / "link"):
        status, _, said = run(files[0], "--compare-with", files[1], "--html", target)
        assert (status, said) == (2, f"--html {target} would replace the results in it; give another file.")
    assert [f.read_bytes() for f in files] == before
    (tmp_path / "folder").mkdir()
    inside = tmp_path / "folder" / "run.json"
    inside.write_bytes(before[1])
    assert run(files[0], "--compare-with", tmp_path / "folder", "--html", inside)[0] == 2
    assert inside.read_bytes() == before[1]


def test_command_writes_the_page_to_where_a_link_leads(files: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "page.html")
    status, _, _ = run(files[0], "--html", tmp_path / "link")
    assert status == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_command_judges_the_claims_in_the_tables_format(files: tuple[Path, Path]) -> None:
    _, text, _ = run(files[0], "--claims")
    assert "REPRODUCED  fc1-faster: With one FC layer an epoch takes less time" in text
    _, text, _ = run(files[0], "--claims", "--format", "markdown")
    assert re.search(r"^\| With one FC layer an epoch takes less .* \| Figure 7 +\| reproduced ", text, re.MULTILINE)


def test_command_without_claims_prints_none(files: tuple[Path, Path]) -> None:
    assert "fc1-faster" not in run(files[0])[1]


def test_compare_with_needs_a_page(files: tuple[Path, Path]) -> None:
    status, _, said = run(files[0], "--compare-with", files[1])
    assert status == 2
    assert "--html" in said


def test_a_page_in_no_folder_is_an_error(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Found before anything is drawn or printed."""
    status, out, said = run(files[0], "--html", tmp_path / "none" / "page.html")
    assert (status, out) == (2, "")
    assert said == f"There is no folder {tmp_path / 'none'} to write page.html to; make it or give another --html."
    (tmp_path / "file").touch()
    status, out, said = run(files[0], "--figures", tmp_path / "file" / "figures")
    assert (status, out) == (2, "")
    assert "Cannot make the folder" in said


# ---------------------------------------------------------------------------------------------------------------------
# In a browser

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
in_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium is installed; on Debian and Ubuntu: apt-get install chromium"
)
FLAGS = (
    "--headless",
    "--no-sandbox",  # it cannot be set up by root, as in most containers
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--virtual-time-budget=10000",
    "--window-size=1400,1000",
)
DARK = "--blink-settings=preferredColorScheme=0"

# A frame of the width asked for shows the page; this reads from it what there is to see.
FRAME = """<!DOCTYPE html><iframe id="frame" src="/page.html" style="width: %dpx; height: 900px; border: 0"></iframe>
<pre id="seen"></pre>
<script>
onload = async () => {
  const page = document.getElementById("frame").contentDocument, view = page.defaultView;
  if (%s) page.querySelectorAll("details").forEach(part => part.open = true);
  if (view.axe) await view.axe.run().then(found => view.found = found);
  const style = selector => view.getComputedStyle(page.querySelector(selector));
  const shown = element => element.getClientRects().length > 0 && element.checkVisibility();
  document.getElementById("seen").textContent = JSON.stringify({
    title: page.title,
    width: page.documentElement.clientWidth,
    scrollWidth: page.documentElement.scrollWidth,
    tables: [...page.querySelectorAll("table")].filter(shown).map(table => ({
      display: view.getComputedStyle(table).display,
      heads: [...table.tHead.rows[0].cells].every(cell => cell.tagName == "TH" && cell.scope == "col"),
      columns: table.tHead.rows[0].cells.length,
      cells: [...table.tBodies[0].rows].map(row => row.cells.length),
    })),
    pictures: [...page.querySelectorAll("svg[role=img]")].filter(shown).map(picture => ({
      alt: picture.ariaLabel, width: picture.getBoundingClientRect().width,
      smallest: Math.min(...[...picture.querySelectorAll("use")].map(glyph => glyph.getBoundingClientRect().height)
        .filter(height => height > 2)),
    })),
    cut: [...page.querySelectorAll("table, svg[role=img], pre, p, li, summary")].filter(shown).filter(element =>
      element.getBoundingClientRect().right > view.innerWidth + 1 && !element.closest(".scroll[tabindex='0']"))
      .map(element => element.textContent.slice(0, 80)),
    scrolled: [...page.querySelectorAll(".scroll")].filter(region => region.scrollWidth > region.clientWidth)
      .map(region => region.ariaLabel),
    folded: [...page.querySelectorAll("details")].filter(part => !part.open).length,
    unseen: [...page.querySelectorAll("table")].filter(table => !shown(table)).length,
    fill: page.querySelector("svg") ? style("svg").fill : null,
    ink: style("body").color,
    paper: style("body").backgroundColor,
    soft: page.querySelector(".note") ? style(".note").color : null,
    axe: view.found ? { passed: view.found.passes.map(rule => rule.id), violated: view.found.violations.map(rule =>
      `${rule.id}: ${rule.help}: ${rule.nodes.map(node => node.html).slice(0, 3).join(" ")}`) } : null,
    fetched: view.performance.getEntriesByType("resource").map(entry => entry.name)
      .filter(name => !name.startsWith("data:")),
  });
};
</script>"""


Look = Callable[..., tuple[dict[str, Any], list[str], list[str]]]


@pytest.fixture
def look(tmp_path: Path) -> Look:
    """Open a page: `look(page, width, *flags)` is (what is seen, lines of the console, paths asked of the server).

    `unfolded` opens what folds. With `axe`, the accessibility checker runs in the page.
    """

    def looked(
        text: str, width: int = 1280, *flags: str, unfolded: bool = True, axe: str = ""
    ) -> tuple[dict[str, Any], list[str], list[str]]:
        if axe:
            text = text.replace("</main>", '</main><script src="/axe.js"></script>')
        documents = {"/page.html": text, "/frame.html": FRAME % (width, json.dumps(unfolded))}
        documents |= {"/axe.js": axe} if axe else {}
        with _served(documents) as (address, asked):
            command = [str(CHROMIUM), *FLAGS, *flags, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
            browser = subprocess.run(
                [*command, f"{address}/frame.html"], capture_output=True, text=True, timeout=120, check=True
            )
        found = re.search(r'<pre id="seen">(.+?)</pre>', browser.stdout, re.DOTALL)
        assert found, browser.stderr
        console = [line for line in browser.stderr.splitlines() if "CONSOLE" in line]
        return json.loads(html.unescape(found[1])), console, asked

    return looked


@contextlib.contextmanager
def _served(documents: dict[str, str]) -> Iterator[tuple[str, list[str]]]:
    """Serve documents on this machine; the page with a policy under which scripts and fetches are console errors."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200 if self.path in documents else 404)
            self.send_header(
                "Content-Type", f"text/{'html' if self.path.endswith('.html') else 'javascript'}; charset=utf-8"
            )
            if self.path == "/page.html" and "/axe.js" not in documents:
                self.send_header(
                    "Content-Security-Policy", "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
                )
            self.end_headers()
            self.wfile.write(documents.get(self.path, "").encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def contrast(one: str, other: str) -> float:
    """WCAG 2's contrast ratio of two `rgb(r, g, b)` colours."""

    def luminance(color: str) -> float:
        channels = [int(c) / 255 for c in re.findall(r"\d+", color)[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@in_browser
def test_browser_shows_tables_and_figures_and_has_nothing_to_complain_about(look: Look, made: str) -> None:
    seen, console, asked = look(made)
    assert console == []
    assert set(asked) <= {"/frame.html", "/page.html", "/favicon.ico"}  # the icon is the frame's, not the page's
    assert asked.count("/favicon.ico") <= 1
    assert seen["fetched"] == []
    assert seen["title"] == "Five small residual networks, trained on a CPU"
    assert len(seen["tables"]) >= 5
    for table in seen["tables"]:
        assert table["display"] == "table"
        assert table["heads"]
        assert set(table["cells"]) == {table["columns"]}
    assert len(seen["pictures"]) == 10
    for picture in seen["pictures"]:
        assert len(picture["alt"]) > 40
        assert picture["width"] > 100


@in_browser
@pytest.mark.parametrize("width", [360, 390, 820, 1200])
def test_nothing_is_cut(look: Look, made: str, width: int) -> None:
    """The page is no wider than the screen; what is wider scrolls in a region that has focus and a name."""
    seen, _, _ = look(made, width)
    assert seen["width"] == width
    assert seen["scrollWidth"] <= width
    assert seen["cut"] == []
    assert all(seen["scrolled"])
    if width >= 1200:
        assert seen["scrolled"] == []


@in_browser
def test_it_opens_with_sentences_and_two_pictures_that_a_phone_can_show(look: Look, made: str) -> None:
    seen, _, _ = look(made, 390, unfolded=False)
    assert seen["folded"] > 10
    assert len(seen["pictures"]) == 2
    for picture in seen["pictures"]:
        assert picture["width"] <= 390
        assert picture["smallest"] >= 2


@in_browser
def test_in_print_all_is_open_and_fits(look: Look, made: str) -> None:
    """On A4 across, with margins of 12 mm: 273 mm are 1031 px. The rules for print are applied to the screen here."""
    printed = made.replace("@media print", "@media all").replace("@media screen", "@media print")
    assert printed.count("@media all") == 1
    seen, _, _ = look(printed, 1031, DARK, unfolded=False)
    assert seen["folded"] > 10
    assert seen["unseen"] == 0
    assert seen["cut"] == []
    assert seen["scrollWidth"] <= 1031
    assert seen["paper"] == "rgb(253, 253, 252)"  # also where the reader prefers the dark


@in_browser
@pytest.mark.parametrize("flags", [[], [DARK]], ids=["light", "dark"])
def test_text_is_readable_in_light_and_dark(look: Look, made: str, flags: list[str]) -> None:
    seen, _, _ = look(made, 1280, *flags)
    brightness = [int(c) for c in re.findall(r"\d+", seen["paper"])]
    assert max(brightness) < 50 if flags else min(brightness) > 200
    assert contrast(seen["ink"], seen["paper"]) >= 7
    assert contrast(seen["soft"], seen["paper"]) >= 4.5
    assert contrast(seen["fill"], seen["paper"]) >= 7  # the text of figures


def axe_script() -> str:
    """The source of axe-core, which a package carries; nothing is fetched. Skips where it is not installed."""
    package = importlib.util.find_spec("axe_playwright_python")
    if package is None or not package.submodule_search_locations:
        pytest.skip("axe-core is not installed; the test group of pyproject.toml has it (axe-playwright-python)")
    return (Path(package.submodule_search_locations[0]) / "axe.min.js").read_text(encoding="utf-8")


@in_browser
@pytest.mark.parametrize("flags", [[], [DARK]], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
def test_an_accessibility_checker_finds_nothing(look: Look, made: str, width: int, flags: list[str]) -> None:
    seen, _, _ = look(made, width, *flags, axe=axe_script())
    assert seen["axe"]["violated"] == []
    checked = {"color-contrast", "svg-img-alt", "heading-order", "landmark-unique"}
    checked |= {"scrollable-region-focusable"} if width < 1000 else set()  # nothing scrolls on a wide screen
    assert checked <= set(seen["axe"]["passed"])


@in_browser
def test_the_accessibility_checker_would_find_something(look: Look) -> None:
    bad = page.document("bad", [Section("bad", ["x"])]).replace(
        "</main>", '</main><svg role="img"></svg><p style="color: #ccc; background: #fff">pale</p>'
    )
    seen, _, _ = look(bad, axe=axe_script())
    assert {text.partition(":")[0] for text in seen["axe"]["violated"]} >= {"svg-img-alt", "color-contrast"}


@in_browser
def test_browser_would_notice_a_fetch_a_script_and_an_overflow(look: Look) -> None:
    """The checks above can fail."""
    bad = page.document("bad", [Section("bad", ["x"])]).replace(
        "</main>",
        '</main><img src="/picture.png" alt=""><script>1</script><div style="width: 500px">wide</div>',
    )
    seen, console, _ = look(bad, 360)
    assert len(console) >= 2
    assert seen["scrollWidth"] > 360


@in_browser
def test_the_comparisons_own_page_is_such_a_page(look: Look, files: tuple[Path, Path]) -> None:
    made = CliRunner().invoke(cli.cli, ["compare", *map(str, files), "--format", "html"]).stdout
    seen, console, _ = look(made, 360)
    assert console == []
    assert seen["scrollWidth"] <= 360
    assert seen["tables"]


@in_browser
@pytest.mark.parametrize("flags", [[], [DARK]], ids=["light", "dark"])
def test_the_page_of_a_history_is_such_a_page(look: Look, tmp_path: Path, flags: list[str]) -> None:
    """Of two machines, one of which has a step."""
    days = [
        samples.in_processes("fc3", s, 3, started_at=f"2027-01-{i:02}", process=f"{i:016x}")
        for i, s in enumerate([60] * 6 + [80] * 6, 1)
    ]
    files = [samples.save(tmp_path / f"{i}.json", [day], samples.machine(session=str(i))) for i, day in enumerate(days)]
    for number, day in enumerate(days[:2]):
        other = samples.machine(session=f"other {number}", cpu={"model": "Another"})
        files.append(samples.save(tmp_path / f"other{number}.json", [day], other))
    made = CliRunner().invoke(cli.cli, ["history", *map(str, files), "--format", "html"]).stdout
    assert "REGRESSION" in made
    seen, console, _ = look(made, 390, *flags)
    assert console == []
    assert seen["scrollWidth"] <= 390
    assert len(seen["pictures"]) == len(seen["tables"]) == 2
    assert look(made, 390, *flags, axe=axe_script())[0]["axe"]["violated"] == []


def test_what_stands_between_backticks_is_code() -> None:
    table = Table("T", ["a"], [["`b`"]], "Give `--claims <x>`.", ["`a` and `b`; one ` alone"])
    text = page.document("Title", [Section("S", ["Run `pip`.", table])])
    assert "<p>Run <code>pip</code>.</p>" in text
    assert "Give <code>--claims &lt;x&gt;</code>." in text
    assert "<code>a</code> and <code>b</code>; one ` alone" in text


def test_figures_of_one_number_are_told_apart_by_what_they_are_of() -> None:
    pictures = [Picture("Figure 7: fc1", f"on {machine}; more", "<svg/>") for machine in "ab"]
    text = page.document("Title", [Section("S", pictures, folded=True)])
    assert "<h3>Figure 7: fc1: on a</h3>" in text
