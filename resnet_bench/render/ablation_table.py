"""Where the time of a step goes, as `resnet_bench.measure.ablation` measured it: tables and sentences."""

from __future__ import annotations

from itertools import pairwise

from resnet_bench import paper
from resnet_bench.intervals import positive_mean_interval
from resnet_bench.render.table import Table
from resnet_bench.schema import DenormalState, ExplainResult, Interval, PhaseSeconds, Variant


def variants(result: ExplainResult, architecture: str) -> list[Variant]:
    """The variants of one of the two networks, the plain step first."""
    return [v for v in result.variants if v.architecture == architecture]


def dominating(result: ExplainResult) -> Variant:
    """The variant whose change saved the most milliseconds of a step of `result.architecture`."""
    rows = variants(result, result.architecture)
    saved = {after.name: before.step_seconds.estimate - after.step_seconds.estimate for before, after in pairwise(rows)}
    return max(rows[1:], key=lambda v: saved[v.name])


def sentences(result: ExplainResult) -> list[str]:
    """Which change saves the most, and how much of the ratio of the two networks is architecture."""
    rows = variants(result, result.architecture)
    first, last, most = rows[0], rows[-1], dominating(result)
    before = rows[rows.index(most) - 1]
    most_saved, all_saved = (
        1e3 * (a.step_seconds.estimate - b.step_seconds.estimate) for a, b in ((before, most), (first, last))
    )
    optimizer = first.phases.optimizer / first.step_seconds.estimate
    return [
        f"From plain to fast, a step of {result.architecture} gets "
        f"{first.step_seconds.estimate / last.step_seconds.estimate:.1f} times faster and saves {all_saved:.1f} ms; "
        f"{most.name} ({most.change}) saves the most, {most_saved:.1f} ms.",
        f"In the plain step the optimiser takes {optimizer:.0%} of the time.",
        _updated(first, last),
        _against_counterpart(result),
    ]


def _updated(plain: Variant, fast: Variant) -> str:
    return (
        f"The plain optimiser reads and writes {plain.optimizer_bytes / 1e6:.0f} MB a step, that of fast "
        f"{fast.optimizer_bytes / 1e6:.0f} MB; how little depends on the training, for it leaves out the weights of "
        "hidden units that have answered no image for some hundred steps."
    )


def ratios(result: ExplainResult) -> dict[str, float]:
    """For each variant, the network's step time over its counterpart's."""
    others = {v.name: v.step_seconds.estimate for v in variants(result, result.counterpart)}
    return {v.name: v.step_seconds.estimate / others[v.name] for v in variants(result, result.architecture)}


def _against_counterpart(result: ExplainResult) -> str:
    """By which factor each change lowers the ratio of the two networks; what is left is due to the architecture."""
    found = ratios(result)
    names = list(found)
    factors = {after: found[before] / found[after] for before, after in pairwise(names)}
    ours, theirs = (paper.PUBLISHED.get(name) for name in (result.architecture, result.counterpart))
    published = ""
    if ours and theirs:
        published = (
            f" (published: {ours.epoch_minutes:g} against {theirs.epoch_minutes:g} minutes, "
            f"{ours.epoch_minutes / theirs.epoch_minutes:.2f} times, on other hardware)"
        )
    parts = ", ".join(f"{name} {factor:.2f}" for name, factor in factors.items())
    return (
        f"Plain, a step of {result.architecture} takes {found[names[0]]:.2f} times as long as one of "
        f"{result.counterpart}{published}. That ratio is a product: factors that each change takes away ({parts}), "
        f"which are how the step is implemented, and {found[names[-1]]:.2f}, which is left in the fastest step and is "
        f"the architecture."
    )


def tables(result: ExplainResult, machine_text: str = "") -> list[Table]:
    """Where a step goes and, for a network with hidden units, what denormals cost; `machine_text` is for captions."""
    found = [_variants_table(result, machine_text)]
    return [*found, _denormals_table(result, machine_text)] if result.states else found


def _where(result: ExplainResult, machine_text: str) -> str:
    d = result.dataset
    return (
        f"{d.name}, {d.train_images:,} training images, batch size {result.recipe['batch_size']}, {result.threads} "
        f"threads{', ' + machine_text if machine_text else ''}"
    )


def _milliseconds(v: Variant) -> str:
    t = v.step_seconds
    return f"{t.estimate * 1e3:.2f} [{t.low * 1e3:.2f}, {t.high * 1e3:.2f}]"


def _variants_table(result: ExplainResult, machine_text: str) -> Table:
    """A row for each variant of both networks."""
    rows, rows_of = [], variants(result, result.architecture)
    for group in (rows_of, variants(result, result.counterpart)):
        for i, v in enumerate(group):
            saved = group[i - 1].step_seconds.estimate - v.step_seconds.estimate if i else None
            ratio = ratios(result)[v.name] if group is rows_of else None
            rows.append(
                [
                    v.architecture,
                    v.name,
                    _milliseconds(v),
                    "" if saved is None else f"{saved * 1e3:+.2f}",
                    *(f"{getattr(v.phases, p) * 1e3:.2f}" for p in PhaseSeconds.model_fields),
                    f"{v.optimizer_bytes / 1e6:.0f}",
                    f"{v.page_faults:,.0f}",
                    "" if ratio is None else f"{ratio:.2f}",
                ]
            )
    caption = (
        f"{_where(result, machine_text)}, {result.workers} loader workers. Milliseconds a step with 95 % intervals, "
        f"{len(rows_of[0].block_seconds)} interleaved blocks; saved: against the row before."
    )
    columns = [
        "network",
        "step",
        "ms",
        "saved",
        *PhaseSeconds.model_fields,
        "optimizer MB",
        "page faults",
        f"over {result.counterpart}",
    ]
    notes = [*(f"{v.name}: {v.change}." for v in rows_of), *sentences(result), *result.warnings]
    return Table(f"Where a step of {result.architecture} goes", columns, rows, caption, notes)


# Denormals ----------------------------------------------------------------------------------------------------------


def over_flushed(state: DenormalState, step: Variant) -> Interval | None:
    """How many times as long as with denormals flushed, pair by pair of blocks; None where none were flushed."""
    if state.flushed is None or step is state.flushed:
        return None
    pairs = zip(step.block_seconds, state.flushed.block_seconds, strict=True)
    return positive_mean_interval([kept / flushed for kept, flushed in pairs])


def denormal_sentences(result: ExplainResult) -> list[str]:
    """For each state what is denormal and what that costs; late also which of both moments does."""
    return [_of_state(state) for state in result.states]


def _of_state(state: DenormalState) -> str:
    after = "" if state.idle_steps is None else f", {state.idle_steps:,} steps after their last gradient"
    text = f"{state.name.capitalize()}: {state.dead_share:.0%} of the first hidden layer's units are dead{after}. "
    if None in (state.denormal_exp_avg, state.denormal_exp_avg_sq, state.zero_exp_avg, state.zero_exp_avg_sq):
        text += f"{state.denormal_share:.0%} of Adam's moments are denormal numbers"
    else:
        text += (
            f"Denormal are {state.denormal_exp_avg:.0%} of Adam's first moments ({state.zero_exp_avg:.0%} are 0) and "
            f"{state.denormal_exp_avg_sq:.0%} of its second moments ({state.zero_exp_avg_sq:.0%} are 0)"
        )
    cost = over_flushed(state, state.kept)
    if cost is None:
        return f"{text}; this CPU cannot flush them to 0."
    text += f"; a step that keeps them takes {_times(cost)} times as long as one that flushes them to 0"
    if cost.low <= 1 <= cost.high:
        text += ", which does not tell the two apart"
    parts = [
        f"{_times(ratio)} times with only the {kind} moments denormal"
        for kind, step in (("first", state.only_exp_avg), ("second", state.only_exp_avg_sq))
        if step and (ratio := over_flushed(state, step))
    ]
    return "; ".join([text, *([" and ".join(parts)] if parts else [])]) + "."


def _times(ratio: Interval) -> str:
    return f"{ratio.estimate:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"


def _denormals_table(result: ExplainResult, machine_text: str) -> Table:
    """A row for each step of each state, with what is denormal in the state."""
    rows = []
    for state in result.states:
        shares = (state.denormal_exp_avg, state.zero_exp_avg, state.denormal_exp_avg_sq, state.zero_exp_avg_sq)
        for v in state.steps:
            ratio = over_flushed(state, v)
            rows.append(
                [
                    state.name,
                    *(("–" if share is None else f"{share:.0%}") for share in shares),
                    v.name.removeprefix(f"{state.name}: "),
                    _milliseconds(v),
                    f"{v.phases.optimizer * 1e3:.2f}",
                    _times(ratio) if ratio else "",
                ]
            )
    caption = (
        f"{_where(result, machine_text)}. Shares are of all first or all second moments in the state. Milliseconds a "
        f"plain step with 95 % intervals, {len(result.denormals[0].block_seconds)} interleaved blocks."
    )
    columns = [
        "state",
        "first moments denormal",
        "first moments 0",
        "second moments denormal",
        "second moments 0",
        "step",
        "ms",
        "optimizer",
        "over flushed",
    ]
    changes = {v.name.removeprefix(f"{s.name}: "): v.change for s in result.states for v in s.steps}
    notes = [*(f"{name}: {change}." for name, change in changes.items()), *denormal_sentences(result)]
    return Table(f"Denormal numbers in a step of {result.architecture}", columns, rows, caption, notes)
