"""The figures: what is drawn comes from the results, published values are labelled, what is left out is told."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import struct
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resnet_bench import cli, paper
from resnet_bench.analysis.series import groups
from resnet_bench.render import drawing
from resnet_bench.render.axes import DARK, NETWORK_STYLES, PAPER, PHASE_STYLES
from resnet_bench.render.drawing import Figure
from resnet_bench.render.figures import figures, headlines, write
from resnet_bench.results.reading import ResultFile, read
from tests.handmade import accuracy, calibration, dataset, epoch_time, in_processes, machine, plans, save, together

matplotlib = pytest.importorskip("matplotlib")
from matplotlib.figure import Figure as Canvas  # noqa: E402
from matplotlib.text import Text  # noqa: E402

FIVE = ("baseline", "fc1", "fc3", "blocks2", "conv5x5")
EVERYTHING = [
    "time-by-network",
    "accuracy-by-epoch",
    "figure-7",
    "figure-8",
    "figure-9",
    "figure-10",
    "parameters-and-time",
    "step-over-training",
]
EVERYTHING += ["step-by-phase", "fraction-of-limit"]
CURVE = [0.1 + 0.015 * i for i in range(15)]

Reader = Callable[..., ResultFile]


@pytest.fixture
def results(tmp_path: Path) -> Reader:
    def make(*entries: dict[str, Any], **kwargs: Any) -> ResultFile:
        return read(save(tmp_path / f"{len(list(tmp_path.iterdir()))}.json", entries, **kwargs))

    return make


def complete_study() -> list[dict[str, Any]]:
    """Three seeds of all five networks, and their times with two engines."""
    trained = [accuracy(a, [c + 0.01 * seed for c in CURVE], seed=seed) for a in FIVE for seed in range(3)]
    timed = [in_processes(a, 600, engine=e, step_bound_seconds=0.012) for a in FIVE for e in ("reference", "fast")]
    return trained + timed


def named(made: list[Figure], name: str) -> Figure:
    return next(f for f in made if f.name == name)


def drawn(figure: Figure) -> Canvas:
    canvas = Canvas()
    figure.draw(canvas)
    return canvas


def intervals(axes: Any, architecture: str, axis: int = 1) -> list[tuple[float, float]]:
    """The ends of the intervals in the network's colour, in the order in which they were drawn."""
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgba

    color = to_rgba(NETWORK_STYLES[architecture].color)
    bars = [c for c in axes.collections if isinstance(c, LineCollection) and tuple(c.get_color()[0]) == color]
    return [(s[:, axis].min(), s[:, axis].max()) for bar in bars for s in bar.get_segments()]


def labels(canvas: Canvas) -> list[str]:
    return [text.get_text() for text in canvas.legends[0].get_texts()]


def test_a_complete_study_gives_every_figure(results: Reader) -> None:
    made, skipped = figures(together([results(*complete_study())]))
    assert [f.name for f in made] == EVERYTHING
    assert skipped == []


def test_each_file_is_a_whole_picture_and_the_same_every_time(results: Reader, tmp_path: Path) -> None:
    """SVG that parses, PNG of the stated size; a second writing gives the same bytes."""
    file = results(*complete_study()[:6:2], *complete_study()[-10:])
    paths, _ = write(together([file]), tmp_path / "a" / "b")
    again, _ = write(together([file]), tmp_path / "c")
    assert [p.name for p in paths] == [f"{n}.{e}" for n in (*EVERYTHING[:3], *EVERYTHING[-4:]) for e in ("svg", "png")]
    for path, other in zip(paths, again, strict=True):
        content = path.read_bytes()
        assert content == other.read_bytes()
        if path.suffix == ".svg":
            assert ET.fromstring(content).tag.endswith("svg")
        else:
            assert content.startswith(b"\x89PNG")
            assert struct.unpack(">I", content[16:20])[0] == drawing.WIDTH * drawing.DPI


def test_measured_curve_is_the_mean_with_its_interval_over_seeds(results: Reader) -> None:
    """Seeds 0.30, 0.31, 0.32: mean 31 %, half width 4.303 × 1/√3 = 2.48 points."""
    made, _ = figures(together([results(*complete_study())]))
    left = drawn(named(made, "figure-7")).axes[0]
    curve = next(line for line in left.lines if line.get_label() == "fc1, measured")
    assert curve.get_xdata()[13:].tolist() == [14, 15]
    assert curve.get_ydata()[14] == pytest.approx(32.0)
    assert intervals(left, "fc1")[14] == pytest.approx((32 - 2.484, 32 + 2.484), abs=0.01)
    assert "Student-t 95 % interval over 3 seeds" in named(made, "figure-7").caption


def test_one_seed_has_wilsons_interval_and_says_so(results: Reader) -> None:
    made, _ = figures(together([results(accuracy("baseline", [0.36] * 15), accuracy("fc1", [0.36] * 15))]))
    for name in ("figure-7", "accuracy-by-epoch"):
        figure = named(made, name)
        assert intervals(drawn(figure).axes[0], "baseline")[0][0] == pytest.approx(35.06, abs=0.01)
        assert "Wilson" in figure.caption


def test_published_values_are_drawn_dotted_and_labelled(results: Reader) -> None:
    made, _ = figures(together([results(*complete_study())]))
    canvas = drawn(named(made, "figure-8"))
    assert labels(canvas) == [
        "baseline, measured",
        "baseline, published: peak 36 %, 57 min, final 34 %",
        "fc3, measured",
        "fc3, published: peak 33 %, 90 min, final 31 %",
    ]
    left, right = canvas.axes
    for axes, heights in ((left, [36, 33]), (right, [57, 90])):
        dotted = [line for line in axes.lines if "published" in str(line.get_label())]
        assert [line.get_ydata()[0] for line in dotted] == pytest.approx(heights)
        assert {line.get_markerfacecolor() for line in dotted} == {PAPER}


def test_published_times_are_scaled_to_the_images_in_use_and_labelled_so(results: Reader) -> None:
    """57 min for 50,000 images are 68.4 s for 1,000."""
    small = dataset(subset=True, train_images=1000)
    made, _ = figures(together([results(*(accuracy(a, CURVE, dataset=small) for a in ("baseline", "fc1")))]))
    right = drawn(named(made, "figure-7")).axes[1]
    line = next(line for line in right.lines if str(line.get_label()).startswith("baseline, published"))
    assert line.get_ydata()[0] * 60 == pytest.approx(68.4)
    assert "scaled to 1,000 images" in right.get_title()
    assert "scaled" in named(made, "figure-7").alt


def test_only_measured_networks_are_drawn(results: Reader) -> None:
    """Published values of networks without results appear in no figure and no alternative text."""
    made, skipped = figures(together([results(accuracy("baseline", CURVE), accuracy("fc1", CURVE))]))
    assert [f.name for f in made] == ["time-by-network", "accuracy-by-epoch", "figure-7", "parameters-and-time"]
    assert not any(a in f.alt for f in made for a in ("fc3", "blocks2", "conv5x5"))
    assert skipped == [
        "Figure 8 is left out: there are no accuracy results of fc3.",
        "Figure 9 is left out: there are no accuracy results of blocks2.",
        "Figure 10 is left out: there are no accuracy results of conv5x5.",
        "Time of a step over the training is left out: it needs epoch times that were measured at two points of the "
        "training or more.",
        "Time of a step by phase is left out: it needs epoch-time results.",
        "Fraction of the machine's limit is left out: no epoch-time result holds the least time of a step, which needs "
        "the machine's calibration.",
    ]


def test_different_settings_are_not_set_against_each_other(results: Reader) -> None:
    made, skipped = figures(together([results(accuracy("baseline", CURVE), accuracy("fc1", CURVE, engine="fast"))]))
    assert "figure-7" not in [f.name for f in made]
    assert skipped[0] == "Figure 7 is left out: baseline and fc1 were not trained under the same settings."


def test_each_engine_and_each_machine_has_its_own_figure(results: Reader) -> None:
    both = [accuracy(a, CURVE, engine=e) for a in ("baseline", "fc1") for e in ("reference", "fast")]
    later = [accuracy(a, [*CURVE[:-1], 0.5]) for a in ("baseline", "fc1")]
    other = results(*later, machine=machine(torch={"version": "2.9.0"}))
    names = [f.name for f in figures(together([results(*both), other]))[0] if f.name.startswith("figure")]
    assert names == ["figure-7-reference-engine", "figure-7-fast-engine", "figure-7-2"]


def test_no_panel_of_accuracies_is_cut_off(results: Reader) -> None:
    """The panels share their axis, and those to the right reach higher than the first."""
    made, _ = figures(together([results(*plans({("baseline", "cosine"): 0.1, ("baseline-se", "onecycle"): 0.2}))]))
    panels = drawn(named(made, "accuracy-by-epoch")).axes
    highest = [max(max(line.get_ydata()) for line in axes.lines) for axes in panels]
    assert highest == pytest.approx([60, 70, 80], abs=0.5)
    assert all(axes.get_ylim()[0] == 0 and axes.get_ylim()[1] > 80 for axes in panels)


def measured(axes: Any) -> list[str]:
    return [str(line.get_label()) for line in axes.lines if "measured" in str(line.get_label())]


@pytest.mark.parametrize("resumed", [{"baseline"}, {"fc1"}, {"baseline", "fc1"}], ids=lambda r: " ".join(sorted(r)))
def test_resumed_trainings_are_drawn_without_their_times(results: Reader, resumed: set[str]) -> None:
    """Accuracies of both; times only of the network that was not resumed, without the panel where there is none."""
    pair = ("baseline", "fc1")
    made, skipped = figures(together([results(*(accuracy(a, CURVE, mixed=a in resumed) for a in pair))]))
    figure = named(made, "figure-7")
    assert not any(line.startswith("Figure 7") for line in skipped)
    left, *right = drawn(figure).axes
    assert measured(left) == [f"{a}, measured" for a in pair]
    timed = [a for a in pair if a not in resumed]
    assert [measured(axes) for axes in right] == ([[f"{a}, measured" for a in timed]] if timed else [])
    for a in pair:
        assert (f"Times leave out the run of {a}, resumed" in figure.caption) == (a in resumed)
    assert figure.alt.count(" an epoch (published ") == len(timed)
    assert ET.fromstring(figure.svg()).tag.endswith("svg")


def test_one_resumed_run_of_several_counts_for_accuracy_alone(results: Reader) -> None:
    """The seed that was resumed took 600 s an epoch, the other 60 s: only the latter is drawn."""
    slow = accuracy("fc1", CURVE, seed=1, mixed=True)
    slow["epochs"] = [{**e, "train_seconds": 600.0} for e in slow["epochs"]]
    made, _ = figures(together([results(accuracy("baseline", CURVE), accuracy("fc1", CURVE), slow)]))
    figure = named(made, "figure-7")
    curve = next(line for line in drawn(figure).axes[1].lines if line.get_label() == "fc1, measured")
    assert curve.get_ydata() == pytest.approx([1.0] * 15)  # minutes
    assert "Times leave out 1 of 2 runs of fc1" in figure.caption
    assert "baseline, resumed" not in figure.caption


def test_synthetic_images_are_the_same_for_every_seed(results: Reader) -> None:
    """Unlike subsets: with another digest they are another data set, whatever the seed."""
    data = dataset(name="synthetic", synthetic=True)
    others = {**data, "sha256": "1" * 64}
    names = [
        [
            f.name
            for f in figures(
                together([results(epoch_time("fc1", dataset=data), epoch_time("fc1", seed=1, dataset=d))])
            )[0]
        ]
        for d in (data, others)
    ]
    alone = ["time-by-network", "step-by-phase"]
    assert names == [alone, [name for own in alone for name in (own, f"{own}-2")]]


@pytest.mark.parametrize("name", ["$\\frac$", "half \ud800", "\x00 \x1b"], ids=ascii)
def test_names_are_drawn_as_they_are(results: Reader, name: str) -> None:
    """No formulas, no halves of characters, nothing that XML forbids."""
    file = results(epoch_time("fc1"), machine=machine(cpu={"model": name}))
    made, _ = figures(together([file]))
    assert ET.fromstring(made[0].svg()).tag.endswith("svg")


def test_step_bars_add_up_to_the_mean_step(results: Reader) -> None:
    """5, 25, 40 and 30 % of 48 ms, as the sample has them; the alternative text names them."""
    step = (600 - 0.1) / 12_500 * 1e3
    made, _ = figures(together([results(epoch_time("fc1", 600, noise=0))]))
    absolute, share = drawn(named(made, "step-by-phase")).axes
    assert [bar.get_width() for bar in absolute.patches] == pytest.approx([step * s for s in (0.05, 0.25, 0.4, 0.3)])
    assert [bar.get_width() for bar in share.patches] == pytest.approx([5, 25, 40, 30])
    assert "waiting for data 5%, forward 25%, backward 40%, optimiser 30%" in named(made, "step-by-phase").alt


def test_fraction_of_the_limit_is_bound_over_mean_step(results: Reader) -> None:
    """12 ms of 48 ms are 25 %."""
    made, _ = figures(together([results(epoch_time("fc1", 600.1, noise=0, step_bound_seconds=0.012))]))
    figure = named(made, "fraction-of-limit")
    assert [line.get_xdata()[0] for line in drawn(figure).axes[0].lines[:1]] == pytest.approx([25.0])
    assert "fc1 25.0%" in figure.alt


def test_a_model_that_does_not_stand_is_left_out_with_the_reason(results: Reader) -> None:
    """A step of `fc1` beat it; where all were beaten there is no figure."""
    beaten = in_processes("fc1", 600, step_bound_seconds=0.05)
    made, _ = figures(together([results(in_processes("fc3", 600, step_bound_seconds=0.012), beaten)]))
    figure = named(made, "fraction-of-limit")
    assert [text.get_text() for text in drawn(figure).axes[0].get_yticklabels()] == ["fc3"]
    assert "Left out: fc1 (a step beat the model)." in figure.caption
    _, skipped = figures(together([results(beaten)]))
    assert skipped[-1] == (
        "Fraction of the machine's limit is left out: the model of the least time stands for none: fc1 (a step beat "
        "the model)."
    )


def test_rates_that_drifted_are_no_limit(results: Reader) -> None:
    described = machine(calibration={"start": calibration(40e9), "end": calibration(20e9)})
    entry = in_processes("fc1", 600, step_bound_seconds=0.012)
    _, skipped = figures(together([results(entry, machine=described)]))
    assert "fc1 (rates differed by 50 % between start and end)" in skipped[-1]


def scattered_points(axes: Any) -> list[list[float]]:
    return [collection.get_offsets().tolist() for collection in axes.collections if len(collection.get_offsets()) > 1]


def test_time_by_network_has_published_plain_and_fast(results: Reader) -> None:
    """A row for each; published values hollow and named so, and none for networks that the study has not."""
    entries = [
        in_processes(a, 120, engine=e, noise=0) for a in ("baseline", "conv5x5-same") for e in ("reference", "fast")
    ]
    figure = named(figures(together([results(*entries)]))[0], "time-by-network")
    (axes,) = drawn(figure).axes
    texts = [text.get_text() for text in axes.texts]
    assert texts == [
        "published 57.0",
        "plain PyTorch 2.00",
        "fast engine 2.00",
        "plain PyTorch 2.00",
        "fast engine 2.00",
    ]
    hollow = [line for line in axes.lines if line.get_markerfacecolor() == PAPER]
    assert [line.get_xdata()[0] for line in hollow] == [57]
    assert figure.alt.count("published") == 2  # once for each engine of the baseline


@pytest.mark.parametrize("width", [drawing.WIDTH, drawing.NARROW])
def test_headlines_are_drawn_for_a_screen_and_for_a_phone(results: Reader, width: float) -> None:
    """Nothing is beyond the edge and no text overlaps another, with the longest intervals too."""
    wide = [in_processes(a, (5, 60, 700), engine=e) for a in FIVE for e in ("reference", "fast")]
    made = headlines(groups(together([results(*complete_study())])), width)
    made += headlines(groups(together([results(*wide)])), width)
    assert [f.name for f in made] == ["time-by-network", "accuracy-by-epoch", "time-by-network"]
    for figure in made:
        assert figure.width == width
        with figure.canvas(titled=False) as canvas:
            assert texts_that_collide(canvas) == []


@pytest.mark.parametrize("colors", [[s.color for s in NETWORK_STYLES.values()], None], ids=["light", "dark"])
def test_colours_of_networks_stand_out_and_are_told_apart_by_colour_blind_readers(colors: list[str] | None) -> None:
    """3:1 against the paper (WCAG 1.4.11); differences in OKLab under Machado's simulations of colour blindness."""
    paper_color = "#fdfdfc" if colors else DARK[PAPER]
    colors = colors or [DARK[s.color] for s in NETWORK_STYLES.values()]
    assert min(contrast(color, paper_color) for color in colors) >= 3
    apart = {(a, b): min(difference(a, b, seen) for seen in SIGHT) for a, b in combinations(colors, 2)}
    assert min(apart.values()) >= 7
    assert min(value for pair, value in apart.items() if set(pair) <= set(colors[:5])) >= 10  # of the study's five


SIGHT = [
    [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
]
"""How linear RGB is seen by trichromats, protanopes, deuteranopes, tritanopes (Machado, Oliveira, Fernandes 2009)."""


def linear(color: str) -> Any:
    from matplotlib.colors import to_rgb

    channels = np.array(to_rgb(color))
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    low, high = sorted(linear(c) @ [0.2126, 0.7152, 0.0722] for c in (one, other))
    return float((high + 0.05) / (low + 0.05))


def difference(one: str, other: str, seen: list[list[float]]) -> float:
    """The distance in OKLab (Ottosson 2020), times 100."""
    to_lms = [[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]]
    to_lab = [[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]]
    a, b = (to_lab @ np.cbrt(to_lms @ np.clip(seen @ linear(c), 0, 1)) for c in (one, other))
    return float(100 * np.linalg.norm(a - b))


def test_an_inlined_figure_draws_and_does_nothing_else(results: Reader) -> None:
    """No scripts, links, metadata or comments; its name for those who cannot see it is the alternative text."""
    name = "--><script>alert(1)</script>"
    file = results(epoch_time("fc1"), machine=machine(cpu={"model": name}))
    figure = figures(together([file]))[0][0]
    root = ET.fromstring(figure.inline("x"))
    assert {element.tag for element in root.iter()} <= drawing.DRAWING
    assert {key for e in root.iter() for key in e.attrib} <= drawing.ATTRIBUTES | {"role", "aria-label"}
    assert root.get("aria-label") == figure.alt
    ids = [e.get("id") for e in root.iter() if e.get("id")]
    assert all(str(own).startswith("x-") for own in ids)
    assert {e.get("href") for e in root.iter("use")} <= {f"#{own}" for own in ids}
    assert ids


def test_processes_are_points_and_their_interval_a_bar(results: Reader) -> None:
    """Of 9, 10 and 11 minutes: three points, and 10 × exp(±4.303 × 0.577 / 10) = [7.80, 12.82]."""
    entries = [in_processes(a, (540, 600, 660), noise=0) for a in ("fc1", "fc3")]
    figure = named(figures(together([results(*entries)]))[0], "parameters-and-time")
    (axes,) = drawn(figure).axes
    points = scattered_points(axes)
    assert [sorted(y for _, y in own) for own in points] == [pytest.approx([9, 10, 11])] * 2
    assert intervals(axes, "fc1") == [pytest.approx((7.80, 12.82), abs=0.01)]
    assert "Small points: 3 processes; bars: 95 % intervals of their means." in figure.caption


def test_one_process_has_a_point_and_no_bar(results: Reader) -> None:
    made, _ = figures(together([results(epoch_time("fc1", 600), epoch_time("fc3", 900))]))
    for figure in made:
        assert "Small points: 1 process. 1 process: no interval." in figure.caption
        assert not [c for axes in drawn(figure).axes for c in axes.collections if hasattr(c, "get_segments")]


def test_the_time_of_a_step_over_the_training_is_drawn_with_its_intervals(results: Reader) -> None:
    """Steps of 40 ms early and 60 ms late; processes differ by a tenth; 100,000 steps are 8 epochs."""
    step = 625.1  # an epoch of 50 ms a step, and its start
    entry = in_processes("fc1", [step, step * 0.9 + 0.01, step * 1.1 - 0.01], noise=0, late=1.5)
    figure = named(figures(together([results(entry)]))[0], "step-over-training")
    (axes,) = drawn(figure).axes
    line = next(line for line in axes.lines if line.get_label() == "fc1")
    assert line.get_xdata().tolist() == [0, 8]
    assert line.get_ydata().tolist() == pytest.approx([40, 60])
    assert [sorted(y for _, y in own) for own in scattered_points(axes)] == [
        pytest.approx([36, 40, 44]),
        pytest.approx([54, 60, 66]),
    ]
    assert [low < mean < high for (low, high), mean in zip(intervals(axes, "fc1"), (40, 60), strict=True)] == [True] * 2
    assert axes.get_xlabel() == "epoch (square-root scale)"
    assert "Small points: 3 processes; bars: 95 % intervals of their means." in figure.caption
    assert "fc1 40.0 ms after 0 steps, 60.0 ms after 100,000 steps" in figure.alt
    assert "aged" not in figure.caption


def test_the_figure_over_the_training_says_where_states_were_aged(results: Reader) -> None:
    aged = [{**p, "state": "aged"} for p in in_processes("fc1")["points"]]
    figure = named(
        figures(together([results(in_processes("fc1", points=aged), in_processes("fc3"))]))[0], "step-over-training"
    )
    assert "Some states of fc1 were aged, not trained" in figure.caption


def test_no_two_networks_or_phases_look_alike_in_black_and_white() -> None:
    """Markers and line styles of networks, and brightness or hatch of phases, differ pairwise."""
    from matplotlib.colors import to_rgb

    assert len({marker for _, marker, _ in NETWORK_STYLES.values()}) == len(NETWORK_STYLES)
    assert len({str(line) for _, _, line in NETWORK_STYLES.values()}) == len(NETWORK_STYLES)
    assert set(NETWORK_STYLES) >= set(paper.PUBLISHED)

    def grey(color: str) -> float:
        red, green, blue = to_rgb(color)
        return 0.299 * red + 0.587 * green + 0.114 * blue

    for (_, color, hatch), (_, other, other_hatch) in combinations(PHASE_STYLES.values(), 2):
        assert hatch != other_hatch or abs(grey(color) - grey(other)) > 0.1


@pytest.mark.parametrize("number", range(len(EVERYTHING)))
def test_no_text_overlaps_another(results: Reader, number: int) -> None:
    """Titles, labels, tick labels, bar labels and legend are apart from each other as rendered."""
    made, _ = figures(
        together([results(*complete_study(), in_processes("conv5x5-same", 700), in_processes("blocks2-same", 720))])
    )
    with made[number].canvas() as canvas:
        assert texts_that_collide(canvas) == []


def texts_that_collide(canvas: Canvas) -> list[Any]:
    """The texts that lie beyond the edges, and the pairs that overlap."""
    canvas.draw_without_rendering()
    unseen = {
        id(tick.label1)
        for axes in canvas.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in axis.get_major_ticks()
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    }
    texts = [t for t in canvas.findobj(Text) if t.get_visible() and t.get_text().strip() and id(t) not in unseen]
    boxes = [(t.get_text(), t.get_window_extent()) for t in texts]
    assert len(boxes) >= 15
    beyond = [t for t, box in boxes if not (canvas.bbox.x0 <= box.x0 and box.x1 <= canvas.bbox.x1)]
    return [*beyond, *((t, u) for (t, a), (u, b) in combinations(boxes, 2) if a.overlaps(b))]


def test_pictures_do_not_depend_on_the_users_matplotlib_settings(results: Reader) -> None:
    made, _ = figures(together([results(epoch_time("fc1"))]))
    before = made[0].svg()
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black"}):
        assert made[0].svg() == before
        assert matplotlib.rcParams["font.size"] == 30


DIGEST = """
import hashlib, sys
from resnet_bench.render.figures import figures
from resnet_bench.results.samples import read_all
figure = figures(read_all([sys.argv[1]]))[0][0]
print(hashlib.sha256(figure.svg().encode() + figure.png()).hexdigest())
"""


@pytest.mark.parametrize(
    "environment",
    [
        {"MPLBACKEND": "module://matplotlib_inline.backend_inline"},  # of a notebook in another environment
        {"MPLBACKEND": "no backend", "MATPLOTLIBRC": "matplotlibrc"},
        {"MPLBACKEND": "TkAgg", "FREETYPE_PROPERTIES": "truetype:interpreter-version=35"},
        {"MPLCONFIGDIR": "."},  # with the same matplotlibrc, and a style that is no text
    ],
    ids=lambda environment: " ".join("=".join(item) for item in environment.items()),
)
def test_pictures_do_not_depend_on_the_environment(
    results: Reader, tmp_path: Path, environment: dict[str, str]
) -> None:
    file = results(epoch_time("fc1"))
    figure = figures(together([file]))[0][0]
    expected = hashlib.sha256(figure.svg().encode() + figure.png()).hexdigest()
    folder = tmp_path / "settings"
    (folder / "stylelib").mkdir(parents=True)
    (folder / "stylelib" / "x.mplstyle").write_bytes(b"\xff\xfe")
    (folder / "matplotlibrc").write_text("backend: no backend\nfont.size: 30\ntext.usetex: True\nsavefig.dpi: 7\n")
    places = {k: str(folder / v) if k in ("MATPLOTLIBRC", "MPLCONFIGDIR") else v for k, v in environment.items()}
    command = [sys.executable, "-c", DIGEST, str(file.path)]
    done = subprocess.run(command, env={**os.environ, **places}, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == expected, done.stderr


def test_a_notebook_keeps_its_backend_and_settings(results: Reader) -> None:
    file = results(epoch_time("fc1"))
    code = f"""if True:
        import os, sys
        from resnet_bench.render.figures import figures
        from resnet_bench.results.samples import read_all
        figures(read_all([{str(file.path)!r}]))[0][0].svg()
        import matplotlib
        print(matplotlib.get_backend(), os.environ["MPLBACKEND"], "matplotlib.pyplot" in sys.modules)
        matplotlib.rcParams.update({{"backend": "pdf", "font.size": 22}})
        figures(read_all([{str(file.path)!r}]))[0][0].svg()
        print(matplotlib.get_backend(), matplotlib.rcParams["font.size"])
    """
    environment = {**os.environ, "MPLBACKEND": "svg"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == ["svg svg False", "pdf 22.0"], done.stderr


def test_matplotlib_that_cannot_be_imported_is_one_sentence(results: Reader, tmp_path: Path) -> None:
    file = results(epoch_time("fc1"))
    (tmp_path / "rc").write_bytes(b"\xff\xfe")
    command = [sys.executable, "-m", "resnet_bench.cli", "report", str(file.path), "--figures", str(tmp_path / "made")]
    environment = {**os.environ, "MATPLOTLIBRC": str(tmp_path / "rc")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "resnet-bench: error: Figures need matplotlib, which cannot be imported ('utf-8' codec can't decode byte 0xff "
        "in position 0: invalid start byte); mend its matplotlibrc or install it anew."
    )
    assert "Traceback" not in done.stderr


def test_without_matplotlib_one_sentence_says_how_to_get_it(
    results: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 2 and nothing written."""
    file = results(epoch_time("fc1"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as exit_:
        cli.main(["report", str(file.path), "--figures", str(tmp_path / "figures")])
    assert exit_.value.code == 2
    assert 'pip install "resnet-bench[figures]"' in capsys.readouterr().err
    assert not (tmp_path / "figures").exists()


def test_command_writes_files_and_keeps_stdout_for_the_tables(
    results: Reader, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = results(epoch_time("fc1"))
    with pytest.raises(SystemExit) as exit_:
        cli.main(["report", str(file.path), "--figures", str(tmp_path / "figures")])
    out, err = capsys.readouterr()
    assert not exit_.value.code
    assert {p.name for p in (tmp_path / "figures").iterdir()} == {
        f"{name}.{kind}" for name in ("time-by-network", "step-by-phase") for kind in ("svg", "png")
    }
    assert "left out" not in out
    assert err.count("is left out: ") == 8
    assert err.endswith(f"4 files written to {tmp_path / 'figures'}.\n")


def test_figures_go_to_where_links_lead(results: Reader, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    (tmp_path / "there" / "step-by-phase.svg").symlink_to(tmp_path / "shown.svg")
    write(together([results(epoch_time("fc1"))]), tmp_path / "link")
    assert (tmp_path / "there" / "step-by-phase.svg").is_symlink()
    assert ET.fromstring((tmp_path / "shown.svg").read_text()).tag.endswith("svg")


def test_a_folder_that_cannot_be_made_is_a_user_error(
    results: Reader, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = results(epoch_time("fc1"))
    with pytest.raises(SystemExit) as exit_:
        cli.main(["report", str(file.path), "--figures", str(file.path / "figures")])
    assert (exit_.value.code, capsys.readouterr().err.count("\n")) == (2, 1)
