"""The final accuracy of each engine, beside that of `reference` with the same seeds."""

from __future__ import annotations

from resnet_bench.analysis.agreement import ERROR, MARGIN, MAY_DIFFER, EngineAccuracy, Equivalence, engine_accuracies
from resnet_bench.analysis.conditions import MOST_PLANNED, TYPICAL_SPREAD
from resnet_bench.analysis.series import Group
from resnet_bench.render.captions import dataset_text, group_machine_text, value_text
from resnet_bench.render.table import Table, mean_and_range
from resnet_bench.wording import counted

_POINTS = f"{100 * MARGIN:g} point{'' if MARGIN == 0.01 else 's'}"


def agreement(group: Group) -> Table | None:
    """A row for each network and engine; None where no engine can be compared with `reference`."""
    rows = [_row(group, found) for found in engine_accuracies(group)]
    if not rows:
        return None
    columns = ["Network", "Engine", "Seeds", "Final accuracy (%)", "Minus reference (points)", "The same training?"]
    where = f"{dataset_text(group.dataset)}; {group_machine_text(group)}"
    caption = f"{where}. Mean over the seeds, in brackets the lowest and the highest."
    notes = [
        "Minus reference: seed by seed, for a seed's initial weights and batches are the same with every engine; mean "
        f"with its {100 * (1 - 2 * ERROR):.0f} % Student-t interval. Equivalent: it lies wholly within ±{_POINTS} (two "
        f"one-sided tests, false in at most {100 * ERROR:.0f} % of cases). Different: wholly outside. The margin was "
        "set beforehand. The error is that of one row; for «equivalent for every network» no more is needed.",
        "More seeds: so many would tell if mean and scatter stay; where there is one seed, if seeds scatter by "
        f"{100 * TYPICAL_SPREAD:.1f} points, as in reports/accuracy-cifar10.",
    ]
    return Table("Accuracy of the engines", columns, rows, caption, notes)


def _row(group: Group, found: EngineAccuracy) -> list[str]:
    accuracies = [100 * accuracy for accuracy in found.accuracies]
    equivalence = found.equivalence
    texts = ["–", "–"] if equivalence is None else [_difference(found, equivalence), _verdict(equivalence)]
    series = found.series
    others = [value_text(k, series.setting[k]) for k in group.varying if k in series.setting and k not in MAY_DIFFER]
    network = f"{series.architecture} ({', '.join(others)})" if others else series.architecture
    return [network, series.engine, str(len(accuracies)), mean_and_range(accuracies), *texts]


def _difference(found: EngineAccuracy, equivalence: Equivalence) -> str:
    """`+0.3 [-0.2, +0.8]`; of fewer seeds than an interval needs, each difference: `+0.3, -0.1`."""
    if equivalence.interval is None:
        return ", ".join(f"{100 * difference:+.1f}" for difference in found.differences)
    i = equivalence.interval
    return f"{100 * i.estimate:+.1f} [{100 * i.low:+.1f}, {100 * i.high:+.1f}]"


def _verdict(equivalence: Equivalence) -> str:
    if equivalence.verdict == "equivalent":
        return f"equivalent within ±{_POINTS}"
    if equivalence.verdict == "different":
        return f"different by more than {_POINTS}"
    if equivalence.more_seeds is None:
        return f"cannot tell, even with {MOST_PLANNED:,} seeds"
    return f"cannot tell: about {counted(equivalence.more_seeds, 'more seed')}"
