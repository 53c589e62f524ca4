"""Tables of epoch times: over the training, beside other engines and networks, and sampled against whole epochs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from resnet_bench import paper
from resnet_bench.analysis.replicates import Replicates
from resnet_bench.analysis.series import SPREAD_LIMITS, Course, EpochDuration, Group, Series, Trend
from resnet_bench.analysis.speed import (
    DRIFT_LIMIT,
    MODE_MARGIN,
    LeastTime,
    ModeCheck,
    Ratio,
    StepSpeed,
    mode_checks,
    over_training,
    rates_between_steps,
    step_speeds,
)
from resnet_bench.render import captions
from resnet_bench.render.captions import dataset_text, group_machine_text, setting_text, steps_text
from resnet_bench.render.table import MISSING, Table, minutes_or_seconds, significant, with_interval

SPREAD_MARKS = {
    "spread": "The blocks vary.",
    "wide spread": "Warning: something else disturbed these times; measure again on a machine that is free.",
}
"""What is marked where blocks scatter by more than each of `SPREAD_LIMITS`, and what to make of it."""


def epoch_times(group: Group) -> Table | None:
    """The time of an epoch early, late and in the mean over the training; None where no blocks were sampled."""
    found = [(s, course, t) for s in group.series if (course := s.course("epoch")) and (t := s.epoch_time())]
    if all(time.source == "full" for _, _, time in found):
        return None
    divisor, unit = minutes_or_seconds([t.seconds for _, _, t in found])
    columns = ["Network", *_setting_head(group), f"Early ({unit})", f"Late ({unit})", f"Mean ({unit})"]
    rows = [
        [
            s.architecture,
            *_setting_cell(group, s),
            replicates_text(course.early, divisor),
            replicates_text(course.late, divisor),
            duration_text(time, divisor),
            f"{100 * spread.relative:.0f}" if (spread := s.spread()) else MISSING,
            ", ".join(time_marks(s)),
        ]
        for s, course, time in found
    ]
    courses = [course for _, course, _ in found]
    few = captions.no_interval(course.mean for course in courses)
    notes = [*captions.measurement_notes(group), *few, *_point_notes(courses), *time_notes(group)]
    caption = _about(group) + _brackets(course.mean for course in courses)
    return Table("Epoch time over the training", [*columns, "Spread (%)", "Marks"], rows, caption, notes)


def time_marks(series: Series) -> list[str]:
    """What is to be known of the epoch time of a network besides its value."""
    marks = []
    if any(p.aged for p in over_training(series)):
        marks.append("aged")
    if any(trend.changes for trend in series.trends()):
        marks.append("trend")
    spread = series.spread()
    if spread and spread.level != "usual":
        marks.append("spread" if spread.level == "large" else "wide spread")
    return marks


def time_notes(group: Group) -> list[str]:
    """What the marks of `time_marks` mean, each with the networks that have it."""
    notes = aged_notes(group)
    for s in group.series:
        if trends := [trend for trend in s.trends() if trend.changes]:
            notes.append(
                f"trend ({captions.name(group, s)}): {'; '.join(map(_trend_text, trends))}. Nothing is assumed to have "
                "settled: the mean is over all points."
            )
    untold = [s for s in group.series if len(over_training(s)) > 1 and not s.trends()]
    if untold:
        notes.append(f"Too few processes to tell a trend: {', '.join(captions.name(group, s) for s in untold)}.")
    spreads = [(s, spread) for s in group.series if (spread := s.spread())]
    if spreads:
        notes.append("Spread: interquartile range of the blocks at a point over their median.")
    for level, mark, limit in zip(("large", "very large"), SPREAD_MARKS, SPREAD_LIMITS, strict=True):
        if found := [f"{captions.name(group, s)} {100 * x.relative:.0f} %" for s, x in spreads if x.level == level]:
            notes.append(f"{mark} ({', '.join(found)}): above {100 * limit:.0f} % of the median. {SPREAD_MARKS[mark]}")
    return notes


def aged_notes(group: Group) -> list[str]:
    """Which states of which networks were aged."""
    aged: dict[str, list[str]] = {}
    for s in group.series:
        if steps := [p.step for p in over_training(s) if p.aged]:
            aged.setdefault(steps_text(steps), []).append(captions.name(group, s))
    return [
        f"aged ({', '.join(names)}): the states {after} were not trained all the way: hidden units that answer no "
        "image were carried on by the multiplications of idle steps."
        for after, names in aged.items()
    ]


def _trend_text(trend: Trend) -> str:
    """`step times rise by 58 % [51, 65] from the first point to the one after 187,500 steps`."""
    change, low, high = (100 * (x - 1) for x in (trend.ratio.estimate, trend.ratio.low, trend.ratio.high))
    if change < 0:
        change, low, high = -change, -high, -low
    verb = "rise" if trend.ratio.estimate > 1 else "fall"
    return (
        f"{trend.quantity.removesuffix('s')}s {verb} by {change:.0f} % [{low:.0f}, {high:.0f}] from the first point to "
        f"the one after {trend.step:,} steps"
    )


def _point_notes(courses: Sequence[Course]) -> list[str]:
    ends = {(c.early_step, c.late_step) for c in courses if c.early and c.late}
    if not ends:
        return []
    early, late = (steps_text(sorted({steps[i] for steps in ends})) for i in (0, 1))
    return [
        f"Early and late: an epoch of such steps as those {early} and {late} of training. Mean: over the whole "
        f"training, as the published minutes are over {paper.EPOCHS} epochs; between two points the time of a step "
        "counts as changing evenly."
    ]


def steps(group: Group) -> Table | None:
    """A row for each network and engine that was timed, then rows for all five summed. None without epoch times."""
    speeds = step_speeds(group)
    if not speeds:
        return None
    columns = [
        "Network", *_setting_head(group), "Step (ms)", "Updated (%)", "Model of the least time (ms)",
        "Model / step", "Times as fast as plain", "Step / baseline's",
    ]  # fmt: skip
    whole = any(over_training(s) for speed in speeds for s in speed.series)
    mean = " Mean over the training." if whole else " Mean over all timed steps."
    caption = _about(group) + mean + _brackets(speed.step for speed in speeds)
    return Table("Speed of a step, data included", columns, [_row(group, s) for s in speeds], caption, _notes(speeds))


def _row(group: Group, speed: StepSpeed) -> list[str]:
    share = speed.updated_share
    return [
        speed.series[0].architecture if len(speed.series) == 1 else "all five, summed",
        *_setting_cell(group, speed.series[0]),
        replicates_text(speed.step, 1e-3),
        MISSING if share is None else f"{100 * share:.1f}",
        _least_text(speed.least_time),
        replicates_text(speed.least_time.share, 1) if speed.least_time and speed.least_time.stands else MISSING,
        ratio_with_interval(speed.times_as_fast),
        ratio_with_interval(speed.to_baseline),
    ]


def _least_text(least: LeastTime | None) -> str:
    """Milliseconds, or a dash with the reason."""
    if least is None:
        return MISSING
    if least.stands:
        return significant(least.seconds * 1e3)
    return f"{MISSING} ({'beaten' if least.beaten else f'drift {100 * least.drift:.0f} %'})"


def _notes(speeds: Sequence[StepSpeed]) -> list[str]:
    ratios = [r for s in speeds for r in (s.times_as_fast, s.to_baseline) if r]
    least = [s.least_time for s in speeds if s.least_time]
    notes = [
        "Updated: share of the parameters that the mean step's optimiser went over; the rest, the weights of hidden "
        "units that had long answered no image, it would have left as they were."
    ]
    if least:
        older = any(
            r.step_bound_seconds and not rates_between_steps(r) for s in speeds for x in s.series for r in x.times
        )
        notes.append(
            "Model of the least time of a step that reads and updates so many parameters: from the bytes it must move "
            "and the operations it must do, at the machine's rates, which each process measured between its own steps"
            f"{' (in older files: at rates from the start and the end of the session)' if older else ''}."
        )
    if any(t.beaten for t in least):
        notes.append(f"{MISSING} (beaten): a step took less than the model says, so this was no least time here.")
    if any(not t.beaten and not t.stands for t in least):
        notes.append(
            f"{MISSING} (drift): a rate differed by more than {100 * DRIFT_LIMIT:.0f} % between the calibrations at "
            "the start and the end, so the rates at which the steps ran are not known."
        )
    if any(s.times_as_fast for s in speeds):
        notes.append("Plain: the engine reference on the loader pipeline, as the paper ran.")
    if ratios:
        notes.append("Ratios are paired: the same processes measured both.")
    return [*notes, *captions.no_interval([*(s.step for s in speeds), *ratios])]


def modes(group: Group) -> Table | None:
    """A row for each network that was measured in whole epochs and in sampled blocks; None without such."""
    checks = mode_checks(group)
    if not checks:
        return None
    margin = f"±{100 * MODE_MARGIN:.0f} %"
    rows = [
        [
            check.series.architecture,
            *_setting_cell(group, check.series),
            replicates_text(check.full),
            replicates_text(check.sampled),
            ratio_with_interval(check.ratio),
            _same_text(check),
        ]
        for check in checks
    ]
    return Table(
        "Sampled against whole epochs",
        ["Network", *_setting_head(group), "Whole epochs (s)", "Sampled (s)", "Sampled / whole", f"Within {margin}"],
        rows,
        _about(group) + _brackets(check.full for check in checks),
        [
            f"Within {margin}: a test of equivalence; yes where the whole interval of the ratio lies in "
            f"{1 - MODE_MARGIN:.2f}–{1 + MODE_MARGIN:.2f}, no where all of it lies outside. The same processes "
            "measured both, and the ratio is paired.",
            *captions.no_interval(check.ratio for check in checks),
        ],
    )


def _same_text(check: ModeCheck) -> str:
    if check.ratio.interval is None:
        return f"cannot tell: {check.ratio.measured}"
    return {True: "yes", False: "no", None: "cannot tell"}[check.same]


def duration_text(time: EpochDuration | None, divisor: float) -> str:
    """`57.3 [56.0, 58.6]`: an epoch's time with its interval, the time alone for too few processes, `–` for none."""
    if time is None:
        return MISSING
    ends = None if time.low is None or time.high is None else (time.low / divisor, time.high / divisor)
    return with_interval(time.seconds / divisor, ends)


def replicates_text(values: Replicates | None, divisor: float = 1.0) -> str:
    """The mean with its interval, the mean alone for too few values, `–` for none."""
    if values is None:
        return MISSING
    i = values.interval
    return with_interval(values.mean / divisor, (i.low / divisor, i.high / divisor) if i else None)


def ratio_with_interval(ratio: Ratio | None) -> str:
    """The ratio with its interval, the ratio alone for too few processes, `–` for none."""
    if ratio is None:
        return MISSING
    return with_interval(ratio.value, (ratio.interval.low, ratio.interval.high) if ratio.interval else None)


def _brackets(found: Iterable[Replicates | None]) -> str:
    """What the intervals in brackets are over; empty where there is none."""
    units = dict.fromkeys(values.unit for values in found if values and values.interval)
    names = " and ".join(f"{unit}{'es' if unit == 'process' else 's'}" for unit in units)
    return f" Brackets: 95 % intervals over {names}." if names else ""


def _about(group: Group) -> str:
    return f"{dataset_text(group.dataset)}; {group_machine_text(group)}; {setting_text(group)}."


def _setting_head(group: Group) -> list[str]:
    return ["Setting"] if any(captions.label(group, s) for s in group.series) else []


def _setting_cell(group: Group, series: Series) -> list[str]:
    return [captions.label(group, series)] if _setting_head(group) else []
