"""The paper's two tables and a summary of all networks, made from results; published values stay in own columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from resnet_bench import paper
from resnet_bench.analysis.drift import drift_during_run
from resnet_bench.analysis.series import (
    EpochDuration,
    Group,
    Series,
    groups,
    in_order,
    parameter_counts,
)
from resnet_bench.architectures import millions
from resnet_bench.render import ablation_table, agreement_table, captions, scale_tables, speed_tables, training_tables
from resnet_bench.render.captions import drift_text, machine_text
from resnet_bench.render.speed_tables import duration_text, time_marks
from resnet_bench.render.table import MISSING, Table, minutes_or_seconds, significant
from resnet_bench.results.samples import Samples
from resnet_bench.schema import ExplainResult, Interval

PAPER_BATCH_SIZE = 4


TABLES: list[Callable[[Group], Table | None]] = [
    speed_tables.epoch_times,
    speed_tables.steps,
    speed_tables.modes,
    agreement_table.agreement,
    training_tables.accuracy_effects,
    training_tables.live_units,
    training_tables.learning_rates,
]
"""The tables of each group besides its summary. A function returns None where the group has no results for it."""


def tables(samples: Samples) -> list[Table]:
    """Table 1 and 2 as in the paper; for each machine and data set a summary and `TABLES`; where a step's time goes.

    Then how it grows, by `resnet-bench scale`. Where that alone measured, there is no Table 1 and 2.
    """
    counts = parameter_counts(samples)
    found = groups(samples)
    measured = {s.architecture for group in found for s in group.series}
    counted = {a: own for a, own in counts.items() if a in paper.PUBLISHED or a not in measured}
    summaries = [_summary(group, counted) for group in found] if found else [_counts_only(counts)] if counts else []
    explained = [
        table
        for run in samples.runs
        if isinstance(run.result, ExplainResult)
        for table in ablation_table.tables(run.result, machine_text(run.machine))
    ]
    others = [table for group in found for make in TABLES if (table := make(group))]
    scales = scale_tables.tables(samples)
    papers = [] if scales and not summaries else [_paper_table(number, counts) for number in paper.TABLES]
    return [*papers, *summaries, *others, *explained, *scales]


def _paper_table(number: int, counts: dict[str, dict[int, int]]) -> Table:
    networks = [paper.PUBLISHED[a] for a in paper.TABLES[number]]
    rows = [[n.name, _paper_count(counts.get(n.architecture, {}))] for n in networks]
    published = "; ".join(f"{n.architecture} {n.parameters}" for n in networks)
    caption = "Trainable parameters, counted on the networks that were run."
    return Table(f"Table {number}", paper.TABLE_COLUMNS, rows, caption, [f"Published: {published}."])


def _paper_count(counts: dict[int, int]) -> str:
    """`8.9M`, or `8.9M (10 classes)`, because the count depends on the number of classes."""
    if not counts:
        return "not measured"
    if paper.CLASSES in counts:
        return millions(counts[paper.CLASSES])
    return " / ".join(f"{millions(count)} ({classes} classes)" for classes, count in sorted(counts.items()))


def _counts_only(counts: dict[str, dict[int, int]]) -> Table:
    rows = []
    for architecture in in_order(counts):
        published = paper.PUBLISHED.get(architecture)
        for classes, count in sorted(counts[architecture].items()):
            rows.append([architecture, f"{count:,}", (published and published.parameters) or MISSING, str(classes)])
    caption = "Only parameters were measured."
    return Table("Summary", ["Network", "Parameters", "Parameters, published", "Classes"], rows, caption)


def _summary(group: Group, counts: dict[str, dict[int, int]]) -> Table:
    """Of what the group measured; also, with their parameters alone, networks of `counts` and of the paper."""
    dataset, series = group.dataset, group.series
    times = [t for s in series if (t := s.epoch_time())]
    divisor, unit = minutes_or_seconds([t.seconds for t in times] or [0.0])
    with_setting = any(captions.label(group, s) for s in series)
    columns = [
        "Network",
        *(["Setting"] if with_setting else []),
        "Parameters",
        "Parameters, published",
        f"Epoch time ({unit})",
        "Epoch time (min), published",
        "Step (ms)",
        "Step (ms), from published",
        "Peak accuracy (%)",
        "Peak accuracy (%), published",
        "Final accuracy (%)",
        "Final accuracy (%), published",
        "Marks",
    ]
    rows = [
        [
            s.architecture,
            *([captions.label(group, s)] if with_setting else []),
            *_measured(s, divisor),
            _marks(s, group),
        ]
        for s in series
    ]
    for architecture in in_order([*paper.PUBLISHED, *counts]):
        count = counts.get(architecture, {}).get(dataset.classes)
        if all(s.architecture != architecture for s in series) and (count or architecture in paper.PUBLISHED):
            row = _cells(architecture, f"{count:,}" if count else MISSING, None, None, None, None, divisor)
            rows.append([architecture, *([""] if with_setting else []), *row, "" if count else "not measured"])
    order = in_order([*paper.PUBLISHED, *counts, *(s.architecture for s in series)])
    rows.sort(key=lambda row: order.index(row[0]))
    caption = captions.group_text(group)
    return Table("Summary", columns, rows, caption, _notes(group, times))


def _measured(series: Series, divisor: float) -> list[str]:
    return _cells(
        series.architecture,
        f"{series.parameters:,}",
        series.epoch_time(),
        series.step_seconds(),
        series.peak_accuracy(),
        series.final_accuracy(),
        divisor,
    )


def _cells(
    architecture: str,
    parameters: str,
    epoch: EpochDuration | None,
    step: float | None,
    peak: Interval | None,
    final: Interval | None,
    divisor: float,
) -> list[str]:
    """The cells from parameters to final accuracy: each measured value with the published one after it."""
    published = paper.PUBLISHED.get(architecture)
    steps = paper.TRAIN_IMAGES // PAPER_BATCH_SIZE
    return [
        parameters,
        (published and published.parameters) or MISSING,
        duration_text(epoch, divisor),
        f"{published.epoch_minutes:g}" if published else MISSING,
        significant(step * 1e3) if step else MISSING,
        significant(published.epoch_minutes * 60e3 / steps) if published else MISSING,
        _percent(peak),
        f"{published.peak_accuracy:.0%}".rstrip("%") if published else MISSING,
        _percent(final),
        f"{published.final_accuracy:.0%}".rstrip("%") if published and published.final_accuracy else MISSING,
    ]


def _percent(accuracy: Interval | None) -> str:
    if accuracy is None:
        return MISSING
    return f"{100 * accuracy.estimate:.1f} [{100 * accuracy.low:.1f}, {100 * accuracy.high:.1f}]"


def _marks(series: Series, group: Group) -> str:
    """How the measurements of this row differ from the paper's, in words, so that every format can show it."""
    dataset, marks = group.dataset, []
    if dataset.synthetic:
        marks.append("synthetic")
    if dataset.subset:
        marks.append("subset")
    if dataset.classes != paper.CLASSES:
        marks.append(f"{dataset.classes} classes")
    time = series.epoch_time()
    if time:
        marks.append({"training": "time from training"}.get(time.source, time.source))
        if time.low is None:
            marks.append("no interval")
    marks += time_marks(series)
    if any(not r.complete for r in series.times):
        marks.append("time cut off")
    if series.accuracies:
        reached = max(len(r.epochs) for r in series.accuracies)
        planned = series.setting["epochs"]
        if not series.complete:
            marks.append(f"stopped early: epoch {reached} of {planned}")
        elif planned != paper.EPOCHS:
            marks.append(f"{planned} epoch{'s' if planned != 1 else ''}")
        if any(r.mixed for r in series.accuracies):
            marks.append("resumed under another setting or machine")
        if any(r.beside for r in series.accuracies) and not series.times:
            marks.append("trained side by side: times not comparable")
        if any(r.same_bits is False for r in series.accuracies):
            marks.append("bits not promised")
        if series.stopped:
            marks.append(f"{series.stopped} stopped run{'s' if series.stopped != 1 else ''} left out")
    if series.warnings:
        marks.append("doubtful time")
    return ", ".join(marks)


def _notes(group: Group, times: Sequence[EpochDuration]) -> list[str]:
    dataset, series = group.dataset, group.series
    notes = [
        f"Columns headed “published” are the paper's, measured on {paper.MACHINE} with CIFAR-100 for {paper.EPOCHS} "
        "epochs; everything else was measured here. Brackets: 95 % intervals."
    ]
    seeds = {len(s.accuracies) for s in series if s.accuracies}
    if seeds:
        several = "mean over seeds with its Student-t interval" if max(seeds) > 1 else ""
        single = "one seed with Wilson's interval over the test images" if min(seeds) == 1 else ""
        notes.append(
            f"Accuracy: {'; '.join(filter(None, [single, several]))}. Peak: the best epoch, picked after the fact."
        )
    sources = {t.source for t in times}
    sampled = [r for s in series for r in s.times if r.mode == "sampled"]
    if "sampled" in sources and any(r.points for r in sampled):
        notes.append("sampled: from blocks of steps at points all over the training.")
    if "sampled" in sources and (older := [r for r in sampled if not r.points]):
        reach = max(r.warmup_steps + sum(b.steps for b in r.blocks) for r in older)
        notes.append(f"sampled: extrapolated from blocks of steps among the first {reach:,} steps of real training.")
    if "full" in sources:
        notes.append("full: whole epochs were timed.")
    if "training" in sources:
        notes.append("time from training: mean over the epochs of the accuracy runs, with their evaluation left out.")
    if times and dataset.train_images != paper.TRAIN_IMAGES:
        notes.append(
            f"An epoch here has {dataset.train_images:,} images, the published one {paper.TRAIN_IMAGES:,}: compare the "
            f"time of a step (published: minutes over {paper.TRAIN_IMAGES // PAPER_BATCH_SIZE:,} steps)."
        )
    if dataset.classes != paper.CLASSES:
        notes.append(
            f"{dataset.classes} classes: the last layer has {dataset.classes} outputs instead of {paper.CLASSES}, "
            "so parameter counts differ from the paper's."
        )
    if dataset.synthetic:
        notes.append("synthetic: procedurally drawn images; accuracies say nothing about CIFAR-100.")
    if dataset.subset:
        notes.append("subset: fewer images than the data set has; accuracies are lower than with all of it.")
    if any(not s.complete for s in series):
        notes.append(
            "stopped early: the run ended before its last epoch; its final accuracy is the last one it reached."
        )
    notes += captions.no_interval(times)
    if any(time_marks(s) for s in series):
        notes.append("aged, trend, spread: explained below the table of epoch times over the training.")
    drifts = dict.fromkeys(drift_text(drift) for machine in group.machines if (drift := drift_during_run(machine)))
    notes += [f"The machine drifted between the start and the end of the run: {changes}." for changes in drifts]
    warned: dict[str, list[str]] = {}
    for s in series:
        for warning in s.warnings:
            warned.setdefault(warning, []).append(captions.name(group, s))
    notes += [f"doubtful time ({', '.join(names)}): {warning}" for warning, names in warned.items()]
    return notes
