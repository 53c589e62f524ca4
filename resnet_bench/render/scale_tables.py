"""How the time of a step grows: a table for each quantity, where `fast` is faster, and what a study costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from resnet_bench import identity, paper
from resnet_bench.analysis import scale
from resnet_bench.analysis.scale import FAST, PLAIN, Mean, StudyCost, Sweep, Verdict
from resnet_bench.architectures import ARCHITECTURES
from resnet_bench.intervals import LEAST_VALUES
from resnet_bench.recipe import Recipe
from resnet_bench.render.captions import dataset_text, machine_text, value_text
from resnet_bench.render.table import MISSING, Table, with_interval
from resnet_bench.results.samples import Samples
from resnet_bench.schema import ScaleResult, Varied
from resnet_bench.wording import counted, listed

HEADS: dict[Varied, str] = {
    "threads": "Threads",
    "batch-size": "Batch size",
    "images": "Images",
    "classes": "Classes",
    "processes": "Processes side by side",
}
"""What columns and axes call each quantity."""

VERDICTS: dict[Verdict, str] = {
    "faster": "fast is faster",
    "slower": "reference is faster",
    "cannot tell": "the difference cannot be told",
}


def tables(samples: Samples) -> list[Table]:
    """A table for each quantity that was varied; then, for each machine, what a study costs there."""
    found = scale.sweeps(samples)
    return [*map(_table, found), *(_costs(own, costs) for own, costs in _study_costs(found))]


def sentences(samples: Samples) -> list[str]:
    """Where `fast` is faster, and what a study costs: the answers of these tables."""
    found = scale.sweeps(samples)
    told = [sentence for sweep in found for sentence in _where_fast_is_faster(sweep) or _growth(sweep)]
    return told + [sentence for _, costs in _study_costs(found) for sentence in _cost_sentences(costs)]


def about(sweep: Sweep) -> str:
    """Data set, machine, settings and how it was measured."""
    first = sweep.results[0]
    engines = {r.engine: r for r in sweep.results}
    fixed = [value_text("threads", first.threads)] if sweep.varied != "threads" else []
    fixed += [f"batch size {first.recipe['batch_size']}"] if sweep.varied != "batch-size" else []
    pipelines = [
        f"{name}: {r.pipeline} pipeline, {value_text('workers', r.workers)}" for name, r in sorted(engines.items())
    ]
    data = dataset_text(first.dataset)
    if sweep.varied in ("images", "classes"):
        data = f"{first.dataset.name}{' (synthetic images)' if first.dataset.synthetic else ''}"
    rounds = max(len(r.step_times) for r in sweep.results)
    how = f"{counted(rounds, 'round')} of fresh processes, the values in an order that is drawn anew in each"
    return f"{'; '.join([data, machine_text(sweep.machine), ', '.join([*fixed]), *pipelines, how])}."


def notes(sweep: Sweep) -> list[str]:
    """What these times are, what makes them doubtful, and that they were cut off."""
    reach = max(r.first_steps for r in sweep.results)
    told = [
        f"Early steps, their data included: all are among the first {reach:,} of a training. The mean over a training "
        "may be another one; `pytest benchmarks` measures that."
    ]
    rounds = max(len(r.step_times) for r in sweep.results)
    if rounds < LEAST_VALUES:
        told.append(f"{counted(rounds, 'round')}: no interval.")
    if not all(r.complete for r in sweep.results):
        told.append(f"The measurement was cut off after {counted(rounds, 'round')}.")
    doubtful: dict[str, list[str]] = {}
    for r in sweep.results:
        for warning in r.warnings:
            doubtful.setdefault(warning, []).append(f"{r.architecture} ({r.engine}) at {r.value:,}")
    every = len(sweep.results)
    return told + [
        f"Doubtful ({'all' if len(names) == every else ', '.join(names)}): {warning}"
        for warning, names in doubtful.items()
    ]


# The table of a quantity ----------------------------------------------------------------------------------------------


def _table(sweep: Sweep) -> Table:
    compared = {PLAIN, FAST} <= set(sweep.engines)
    further = _further(sweep)
    heads = [HEADS[sweep.varied], "Network", "Engine", "Step (ms)", *further]
    rows = []
    for architecture in sweep.architectures:
        for value in sweep.values:
            for engine in sweep.engines:
                if (r := sweep.at(architecture, engine, value)) is None:
                    continue
                gain = sweep.gain(architecture, value) if engine == FAST else None
                cells = [f"{value:,}", architecture, engine, _cell(scale.mean([1e3 * s for s in r.step_times]))]
                cells += [cell(r) for cell in further.values()]
                rows.append([*cells, *([_times(gain)] if compared else [])])
    if compared:
        heads.append("fast, times as fast as reference")
    own = [*notes(sweep), *_where_fast_is_faster(sweep), *_not_a_study(sweep)]
    return Table(f"Time of a step by {HEADS[sweep.varied].lower()}", heads, rows, about(sweep), own)


def _further(sweep: Sweep) -> dict[str, Callable[[ScaleResult], str]]:
    """{head of a column: what its cell holds}, for what else tells how the cost grows with this quantity."""
    least = sweep.values[0]

    def against(times: Callable[[ScaleResult], Sequence[float]]) -> Callable[[ScaleResult], str]:
        def cell(r: ScaleResult) -> str:
            base = sweep.at(r.architecture, r.engine, least)
            return MISSING if base is None or base is r else _times(scale.ratio(times(base), times(r)))

        return cell

    if sweep.varied == "batch-size":
        return {"Images per second": lambda r: _cell(scale.mean([r.value / s for s in r.step_times]))}
    if sweep.varied == "images":
        return {
            "Epoch (s)": lambda r: _cell(scale.mean(r.epoch_times)),
            "of it opening the pipeline": lambda r: f"{100 * scale.startup_share(r):.1f} %",
        }
    if sweep.varied == "processes":
        return {
            "Steps per second, together": lambda r: _cell(scale.mean(r.rates)),
            f"against {least}": against(lambda r: r.rates),
        }
    if sweep.varied == "threads":
        return {f"Speed, against {least}": against(lambda r: [1 / s for s in r.step_times])}
    return {f"Time, against {least}": against(lambda r: r.step_times)}


def _cell(found: Mean) -> str:
    return with_interval(found.value, (found.interval.low, found.interval.high) if found.interval else None)


def _times(found: Mean | None) -> str:
    """`1.83× [1.70, 1.97]`."""
    if found is None:
        return MISSING
    number, _, brackets = _cell(found).partition(" ")
    return f"{number}× {brackets}".rstrip()


# Where fast is faster -------------------------------------------------------------------------------------------------


def _where_fast_is_faster(sweep: Sweep) -> list[str]:
    """A sentence for each network: from the smallest value on, what the whole interval of the ratio says."""
    found = {a: scale.stretches(sweep, a) for a in sweep.architectures}
    told = {a: own for a, own in found.items() if own}
    if not told:
        return []
    rounds = min(len(r.step_times) for r in sweep.results)
    if rounds < LEAST_VALUES:
        return [
            f"Whether fast is faster than reference cannot be told from {counted(rounds, 'round')}; give --processes "
            f"{LEAST_VALUES} or more."
        ]
    return [f"{a}: {_stretches_text(sweep.varied, own)}." for a, own in told.items()]


def _stretches_text(varied: Varied, own: Sequence[scale.Stretch]) -> str:
    first, *rest = own
    every = "" if rest or len(first.values) == 1 else "all that was measured, "
    parts = [f"{VERDICTS[first.verdict]} at {every}{_places(varied, first.values)}"]
    parts += [f"at {_span(stretch.values)} {VERDICTS[stretch.verdict]}" for stretch in rest]
    return "; ".join(parts)


def _places(varied: Varied, values: Sequence[int]) -> str:
    """`batch sizes 1 to 16`, `2 threads`."""
    if varied == "batch-size":
        return f"batch size{'s' if len(values) > 1 else ''} {_span(values)}"
    _, _, unit = _amount(varied, values[-1]).partition(" ")
    return f"{_span(values)} {unit}"


def _span(values: Sequence[int]) -> str:
    """`4`, `64 and 256`, `1 to 16`: neighbouring values that were measured."""
    if len(values) < 3:
        return listed([f"{value:,}" for value in values])
    return f"{values[0]:,} to {values[-1]:,}"


def _amount(varied: Varied, value: int) -> str:
    """`a batch of 16`, `2 threads`."""
    if varied == "batch-size":
        return f"a batch of {value:,}"
    singular = {"threads": "thread", "images": "image", "classes": "class", "processes": "process"}[varied]
    return counted(value, singular)


def _growth(sweep: Sweep) -> list[str]:
    """How many times as long a step takes with the largest value as with the smallest, for each network and engine."""
    first, last = (_amount(sweep.varied, value) for value in (sweep.values[0], sweep.values[-1]))
    ends = [(own[0], own[-1]) for a in sweep.architectures for e in sweep.engines if (own := sweep.of(a, e))]
    return [
        f"{base.architecture} ({base.engine}): a step takes {_times(scale.ratio(base.step_times, other.step_times))} "
        f"as long with {last} as with {first}."
        for base, other in ends
    ]


# What a study costs ---------------------------------------------------------------------------------------------------


def _study_costs(found: Iterable[Sweep]) -> list[tuple[list[Sweep], list[StudyCost]]]:
    """For each machine its sweeps and what they say of a study's cost; without machines of which they say nothing."""
    machines: dict[str, list[Sweep]] = {}
    for sweep in found:
        machines.setdefault(identity.key(sweep.machine), []).append(sweep)
    return [(own, costs) for own in machines.values() if (costs := scale.study_costs(own))]


def _costs(own: Sequence[Sweep], costs: Sequence[StudyCost]) -> Table:
    rows = [
        [c.engine, str(c.jobs), str(c.threads), str(c.classes), _cell(_hours(c)), "best" if c.best else ""]
        for c in costs
    ]
    caption = (
        f"{len(ARCHITECTURES)} networks × {paper.EPOCHS} epochs × {paper.TRAIN_IMAGES:,} images, batch size "
        f"{Recipe().batch_size}, one seed, without evaluation; {machine_text(own[0].machine)}."
    )
    computed = (
        "Computed, not measured: from early steps, as if all of a training's took as long, and from the opening of an "
        "epoch's pipeline. Plain PyTorch gets slower in the course of a training, fast gets faster."
    )
    heads = ["Engine", "Trainings side by side", "Threads of each", "Classes", "Hours", ""]
    return Table("What a study costs", heads, rows, caption, [*_cost_sentences(costs), computed])


def _cost_sentences(costs: Sequence[StudyCost]) -> list[str]:
    """`A study of five networks with fast takes 2.6 hours with --jobs 1 (2 threads), …`."""
    told = []
    for engine in dict.fromkeys(c.engine for c in costs):
        own = [c for c in costs if c.engine == engine]
        alone = min((c for c in own if c.jobs == 1), key=lambda c: c.seconds.value, default=None)
        best = next(c for c in own if c.best)
        parts = [f"{_cell(_hours(alone))} hours with --jobs 1 --threads {alone.threads}"] if alone else []
        if best is not alone:
            parts.append(f"{_cell(_hours(best))} hours with --jobs {best.jobs} --threads {best.threads}")
        best_text = ", which is the best packing that was measured" if len(own) > 1 else ""
        told.append(
            f"A study of the {len(ARCHITECTURES)} networks with {engine} takes {' and '.join(parts)}{best_text}; "
            "computed from early steps."
        )
    return told


def _hours(cost: StudyCost) -> Mean:
    mean, interval = cost.seconds
    if interval is not None:
        ends = {key: getattr(interval, key) / 3600 for key in ("estimate", "low", "high")}
        interval = interval.model_copy(update=ends)
    return Mean(mean / 3600, interval)


def _not_a_study(sweep: Sweep) -> list[str]:
    """Why nothing is said about the cost of a study where it could have been."""
    missing = [a for a in ARCHITECTURES if a not in sweep.architectures]
    if sweep.varied not in ("threads", "processes") or not missing:
        return []
    return [
        f"What a study costs here is not told, as {listed(missing)} {'was' if len(missing) == 1 else 'were'} not "
        "measured."
    ]
