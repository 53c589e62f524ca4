"""How fast a step is: against the least time this machine allows, and against plain PyTorch in the same rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, median

from resnet_bench import paper
from resnet_bench.analysis.series import Group, Series, dataset_text, in_one_mode
from resnet_bench.render.table import Table, significant
from resnet_bench.schema import EpochTimeResult

PLAIN = ("reference", "loader")
"""Engine and pipeline of the plain script that every other is compared with."""


def table(group: Group) -> Table | None:
    """A row for each network and engine that was timed; a row for the five summed. None without epoch times."""
    timed = [s for s in group.series if rounds(s)]
    if not timed:
        return None
    rows = []
    for s in timed:
        steps = rounds(s)
        bound, plain = s.step_bound(), _plain(timed, s)
        middle = median(steps.values())
        rows.append(
            [
                s.architecture,
                s.engine,
                str(s.setting["pipeline"]),
                spread([t * 1e3 for t in steps.values()]),
                _updated([s]),
                significant(bound * 1e3) if bound else "–",
                f"{bound / middle:.2f}" if bound else "–",
                spread(ratios(rounds(plain), steps)) if plain else "–",
            ]
        )
    rows += _summed(timed)
    columns = [
        "Network", "Engine", "Pipeline", "Step (ms)", "Updated (%)", "Bound (ms)", "Bound / step",
        "Times faster than plain",
    ]  # fmt: skip
    caption = (
        f"{dataset_text(group.dataset)}; {group.machine_text}. Median over interleaved blocks, in brackets "
        "the lowest and the highest."
    )
    notes = [
        "Updated: share of the parameters that the mean step's optimiser went over; the rest, the weights of hidden "
        "units that had long answered no image, it would have left as they were.",
        "Bound: the least time here of a step that reads and updates so many parameters, from the bytes it must move "
        "and the operations it must do, at the rates measured at the start of the session, as by resnet-bench machine.",
        "Plain: the engine reference on the loader pipeline, as the paper ran; ratios are taken round by round.",
    ]
    return Table("Speed of a step, data included", columns, rows, caption, notes)


def modes(group: Group) -> Table | None:
    """What sampled blocks said of an epoch against whole epochs, where a network was measured both ways."""
    rows = []
    for s in group.series:
        full, sampled = (
            [value for r in s.times if r.mode == mode for value in r.epoch_times.values()]
            for mode in ("full", "sampled")
        )
        if full and sampled:
            means = mean(full), mean(sampled)
            rows.append([s.architecture, s.engine, *(spread(v) for v in (full, sampled)), f"{means[1] / means[0]:.3f}"])
    if not rows:
        return None
    columns = ["Network", "Engine", "Whole epochs (s)", "Sampled (s)", "Sampled / whole"]
    where = f"{dataset_text(group.dataset)}; {group.machine_text}"
    caption = f"{where}. Median, lowest and highest; the ratio is of the means."
    return Table("Sampled against whole epochs", columns, rows, caption)


Round = tuple[tuple[str, str], str, int]
"""What was measured in turn (`Run.together`), the mode, and the number of the round in it."""


def rounds(series: Series) -> dict[Round, float]:
    """Seconds of a step in each round, in one mode where there are several."""
    kept = in_one_mode(series.times)
    return {
        (run.together, run.result.mode, b.round): b.seconds / b.steps
        for run in series.timed
        if isinstance(run.result, EpochTimeResult) and run.result in kept
        for b in run.result.blocks
    }


def ratios(slow: Mapping[Round, float], quick: Mapping[Round, float]) -> list[float]:
    """A round's ratio, for each round that both were measured in: how many times longer `slow` takes."""
    return [slow[key] / quick[key] for key in slow if key in quick]


def spread(values: Sequence[float]) -> str:
    """`4.1 [3.9, 4.4]`: median, lowest, highest; `–` for none."""
    if not values:
        return "–"
    middle = median(values)
    low, high = (significant(v, middle) for v in (min(values), max(values)))
    return f"{significant(middle)} [{low}, {high}]"


def _updated(series: Sequence[Series]) -> str:
    """Per cent of the parameters; `–` where a file does not tell."""
    updated = [(r.parameters, r.updated_parameters) for s in series for r in s.times]
    if any(count is None for _, count in updated):
        return "–"
    return f"{sum(count or 0 for _, count in updated) / sum(every for every, _ in updated):.1%}".removesuffix("%")


def _plain(timed: Sequence[Series], series: Series) -> Series | None:
    """The plain run of the same network with the same threads and recipe; None for the plain run itself."""
    own = ("engine", "pipeline", "workers", "epochs")
    setting = series.setting_without(*own)
    for other in timed:
        same = other.architecture == series.architecture and other.setting_without(*own) == setting
        if same and _key(other) == PLAIN and _key(series) != PLAIN:
            return other
    return None


def _key(series: Series) -> tuple[str, str]:
    return series.engine, str(series.setting["pipeline"])


def _summed(timed: Sequence[Series]) -> list[list[str]]:
    """The study's five networks together, for each engine that ran them all beside the plain one."""
    rows = []
    for key in dict.fromkeys(_key(s) for s in timed):
        ours = {s.architecture: s for s in timed if _key(s) == key}
        if not set(paper.PUBLISHED) <= set(ours):
            continue
        sums = _sum([rounds(ours[name]) for name in paper.PUBLISHED])
        plain = [_plain(timed, ours[name]) for name in paper.PUBLISHED]
        faster = spread(ratios(_sum([rounds(p) for p in plain if p]), sums)) if all(plain) else "–"
        bounds = [ours[name].step_bound() for name in paper.PUBLISHED]
        bound = sum(b for b in bounds if b) if all(bounds) else None
        rows.append(
            [
                "all five, summed",
                *key,
                spread([t * 1e3 for t in sums.values()]),
                _updated([ours[name] for name in paper.PUBLISHED]),
                significant(bound * 1e3) if bound else "–",
                f"{bound / median(sums.values()):.2f}" if bound and sums else "–",
                faster,
            ]
        )
    return rows


def _sum(parts: Sequence[Mapping[Round, float]]) -> dict[Round, float]:
    shared = set.intersection(*(set(p) for p in parts))
    return {key: sum(p[key] for p in parts) for key in sorted(shared)}
