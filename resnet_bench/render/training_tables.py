"""What trainings say beside their accuracy: effects of a change, hidden units that stay alive, learning rates."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from resnet_bench import architectures
from resnet_bench.analysis.conditions import MOST_PLANNED
from resnet_bench.analysis.effects import (
    CONSTANT,
    ERROR,
    POWER,
    SMALL_EFFECT,
    Effect,
    EpochTimes,
    Source,
    differing,
    effects,
    times_of,
    verdicts,
)
from resnet_bench.analysis.series import Group, Series
from resnet_bench.analysis.speed import epoch_times
from resnet_bench.render import captions
from resnet_bench.render.captions import (
    dataset_text,
    group_machine_text,
    name,
    setting_text,
    value_text,
    with_settings,
)
from resnet_bench.render.speed_tables import ratio_with_interval
from resnet_bench.render.table import MISSING, Table, mean_and_range, minutes_or_seconds, significant


def accuracy_effects(group: Group) -> Table | None:
    """A row for each network against the baseline, and for each schedule against a constant learning rate."""
    found = effects(group)
    if not found:
        return None
    decided = verdicts(found)
    times = [times_of(effect, group) for effect in found]
    divisor, unit = minutes_or_seconds([t.seconds for t in times if t] or [0.0])
    rows = [
        [*_change(group, effect), *_cost(effect, time, divisor), *_effect(effect, decided.get(i), len(found))]
        for i, (effect, time) in enumerate(zip(found, times, strict=True))
    ]
    columns = [
        "Network", "Against", "Seeds", "More parameters", f"Epoch ({unit})", "Times as long", "Final accuracy (%)",
        "Difference (points)", "Verdict", f"Seeds that tell {100 * SMALL_EFFECT:g} points",
    ]  # fmt: skip
    caption = f"{dataset_text(group.dataset)}; {group_machine_text(group)}; {setting_text(group)}."
    notes = [
        "Final accuracy: mean over the seeds, in brackets the lowest and the highest. Difference: seed by seed; mean "
        "with its 95 % Student-t interval, which is that of the row alone. Verdict: any of the whole table is false in "
        f"at most {100 * ERROR:.0f} % of cases (Holm's method), so an interval without 0 may still be «cannot tell».",
        f"Seeds that tell: with so many, an effect of {100 * SMALL_EFFECT:g} points has a verdict in "
        f"{100 * POWER:.0f} % of cases, if seeds scatter as they did here and no other row has one (paired t test of "
        f"{100 * ERROR / len(found):.2g} %). Few seeds tell little of how they scatter: in brackets the same for the "
        "ends of the 95 % interval of that scatter (chi-squared).",
        *_time_notes(group, list(zip(found, times, strict=True))),
    ]
    return Table("Effect on the accuracy", columns, rows, caption, notes)


def _change(group: Group, effect: Effect) -> list[str]:
    return [name(group, effect.series), name(group, effect.control), str(len(effect.differences))]


def _cost(effect: Effect, time: EpochTimes | None, divisor: float) -> list[str]:
    more = f"{effect.parameters:+,}" if effect.parameters else "0"
    if time is None:
        return [more, MISSING, MISSING]
    return [more, significant(time.seconds / divisor), ratio_with_interval(time.ratio)]


def _effect(effect: Effect, higher: bool | None, together: int) -> list[str]:
    i, seeds = effect.interval, effect.seeds_needed(together)
    verdict = "cannot tell" if higher is None else "higher" if higher else "lower"
    return [
        mean_and_range([100 * accuracy for accuracy in effect.accuracies]),
        "{:+.2f} [{:+.2f}, {:+.2f}]".format(
            *(round(100 * x, 2) + 0.0 for x in (i.estimate, i.low, i.high))
        ),  # no -0.00
        verdict,
        f"{_planned(seeds.estimate)} [{_planned(seeds.low)}, {_planned(seeds.high)}]",
    ]


def _planned(seeds: int | None) -> str:
    return f"over {MOST_PLANNED:,}" if seeds is None else f"{seeds:,}"


_SOURCES: dict[Source, str] = {
    "processes": "epoch times that the same processes measured, paired",
    "turns": "epoch times that processes of a duel took in turn, paired by round",
    "trainings": "epochs of trainings one after the other, which nothing pairs",
}


def _time_notes(group: Group, found: Sequence[tuple[Effect, EpochTimes | None]]) -> list[str]:
    """What the times are of, of which rows they are of another setting, and why some rows have none."""
    notes = []
    compared = [time for _, time in found if time and time.ratio]
    if compared:
        ways = [text for source, text in _SOURCES.items() if any(time.source == source for time in compared)]
        notes.append(
            "Times as long: an epoch over one of «Against», with the 95 % interval of the row alone; from "
            f"{'; else '.join(ways)}."
        )
    elsewhere: dict[str, list[str]] = {}
    for effect, time in found:
        if time and time.series is not effect.series:
            keys = [key for key in differing(time.series, effect.series) if key != "epochs"]
            elsewhere.setdefault(with_settings(time.series.setting, keys), []).append(name(group, effect.series))
    notes += [f"Timed with {setting} alone: {', '.join(names)}." for setting, names in elsewhere.items()]
    lacking = [effect for effect, time in found if time is None or time.ratio is None]
    if lacking:
        notes.append(
            f"{MISSING} as the ratio of times: {'; or '.join(dict.fromkeys(map(_no_ratio, lacking)))}. "
            f"{_how_to_time(lacking)}."
        )
    return [*notes, *captions.no_interval(time.ratio for time in compared if time.ratio)]


def _no_ratio(effect: Effect) -> str:
    if epoch_times(effect.series):
        if epoch_times(effect.control):
            return "both were timed, but in sessions of their own, so their times do not compare"
        return "«Against» was not timed"
    runs = [*effect.series.accuracies, *effect.control.accuracies]
    if any(r.beside for r in runs):
        return "trainings ran side by side, so their times do not compare"
    if any(r.mixed for r in runs):
        return "trainings were resumed under another setting or machine, so their times do not compare"
    return "no times of both compare"


def _how_to_time(lacking: Sequence[Effect]) -> str:
    """What times the networks and the schedules that have no ratio yet."""
    ways = []
    if any(effect.of_network for effect in lacking):
        ways.append("`pytest benchmarks -k epoch_time` times networks together")
    schedules: dict[str, dict[str, None]] = {}  # by what each is held against
    for effect in lacking:
        if not effect.of_network:
            schedules.setdefault(_arm(effect.control), {})[_arm(effect.series)] = None
    for control, arms in schedules.items():  # a duel has four arms at most
        shown = " ".join([control, *list(arms)[:3]])
        ways.append(f"`resnet-bench duel {shown}` times schedules{' such as these' if len(arms) > 3 else ''}")
    return f"{' and '.join(ways)}, here with the same recipe, engine and threads"


def _arm(series: Series) -> str:
    """The schedule as an arm of a duel."""
    schedule, warmup = series.setting["schedule"], series.setting.get("warmup_steps")
    return f"--arm {schedule}{warmup or ''}:schedule={schedule}" + (f",warmup_steps={warmup}" if warmup else "")


def live_units(group: Group) -> Table | None:
    """How many units of each hidden FC layer answer any test image, by epoch; None where no one counted."""
    rows = [row for s in group.series for row in _live_rows(group, s)]
    if not rows:
        return None
    columns = [
        "Network",
        "Hidden layer",
        "Seeds",
        "Units",
        "Live after one epoch",
        "after half",
        "after the last",
    ]
    caption = f"{dataset_text(group.dataset)}; {group_machine_text(group)}; {setting_text(group)}."
    notes = [
        "Live: the unit's activation behind the ReLU is above 0 for at least one test image. Mean over the seeds that "
        "got so far, in brackets the lowest and the highest. After half: of the planned epochs, rounded up."
    ]
    return Table("Live hidden units", columns, rows, caption, notes)


def _live_rows(group: Group, series: Series) -> list[list[str]]:
    runs = [{e.epoch: e.live_units for e in r.epochs if e.live_units is not None} for r in series.accuracies]
    counted = [run for run in runs if run]
    if not counted:
        return []
    planned = max(int(series.setting["epochs"]), 1)
    network = architectures.every().get(series.architecture)
    rows = []
    for layer in range(len(next(iter(counted[0].values())))):
        at = [[run[epoch][layer] for run in counted if epoch in run] for epoch in (1, (planned + 1) // 2, planned)]
        units = f"{network.hidden[layer]:,}" if network and layer < len(network.hidden) else MISSING
        cells = [name(group, series) if layer == 0 else "", str(layer + 1), str(len(counted)), units]
        rows.append([*cells, *map(_spread, at)])
    return rows


def _spread(values: Sequence[int]) -> str:
    """`17 [12, 25]`, or the one value that all are."""
    if not values:
        return MISSING
    if min(values) == max(values):
        return f"{values[0]:,}"
    return f"{fmean(values):,.0f} [{min(values):,}, {max(values):,}]"


def learning_rates(group: Group) -> Table | None:
    """The learning rate at the beginning of each epoch and at the end, by schedule; None where it is constant."""
    rates: dict[str, list[tuple[float, float]]] = {}
    told = ["schedule", *(key for key in ("warmup_steps", "lr", "batch_size", "epochs") if key in group.varying)]
    for s in group.series:
        if s.setting.get("schedule", CONSTANT) != CONSTANT or s.setting.get("warmup_steps"):
            words = ", ".join(value_text(key, s.setting[key]) for key in told if key in s.setting)
            runs = [[(e.lr_start, e.lr_end) for e in r.epochs] for r in s.accuracies]
            rates[words] = max([rates.get(words, []), *runs], key=len)
    if not any(rates.values()):
        return None
    caption = f"Of the epoch's first and last step. {dataset_text(group.dataset)}; {setting_text(group)}."
    rows = [
        [str(epoch + 1), *(_rate(own, epoch) for own in rates.values())]
        for epoch in range(max(map(len, rates.values())))
    ]
    return Table("Learning rate", ["Epoch", *rates], rows, caption)


def _rate(rates: Sequence[tuple[float, float]], epoch: int) -> str:
    return f"{rates[epoch][0]:.3g} to {rates[epoch][1]:.3g}" if epoch < len(rates) else MISSING
