"""Where the time of a step goes, as `resnet_bench.measure.ablation` measured it: a table and sentences."""

from __future__ import annotations

from itertools import pairwise

from resnet_bench import paper
from resnet_bench.intervals import positive_mean_interval
from resnet_bench.render.table import Table
from resnet_bench.schema import ExplainResult, PhaseSeconds, Variant


def variants(result: ExplainResult, architecture: str) -> list[Variant]:
    """The variants of one of the two networks, the plain step first."""
    return [v for v in result.variants if v.architecture == architecture]


def dominating(result: ExplainResult) -> Variant:
    """The variant whose change saved the most milliseconds of a step of `result.architecture`."""
    rows = variants(result, result.architecture)
    saved = {after.name: before.step_seconds.estimate - after.step_seconds.estimate for before, after in pairwise(rows)}
    return max(rows[1:], key=lambda v: saved[v.name])


def sentences(result: ExplainResult) -> list[str]:
    """Which change saves the most; how much of the ratio of the two networks is architecture; what denormals cost."""
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
        f"With {result.dead_share:.0%} of the first FC layer's units dead, {result.denormal_share:.0%} of Adam's "
        f"moments are denormal numbers; {_cost_of_denormals(result)}",
    ]


def _updated(plain: Variant, fast: Variant) -> str:
    return (
        f"The plain optimiser reads and writes {plain.optimizer_bytes / 1e6:.0f} MB a step, that of fast "
        f"{fast.optimizer_bytes / 1e6:.0f} MB; how little depends on the training, for it leaves out the weights of "
        "hidden units that have answered no image for some hundred steps."
    )


def _cost_of_denormals(result: ExplainResult) -> str:
    kept, flushed = (v.block_seconds for v in result.denormals)
    ratio = positive_mean_interval([k / f for k, f in zip(kept, flushed, strict=True)])  # block by block, in turn
    text = f"{ratio.estimate:.2f} [{ratio.low:.2f}, {ratio.high:.2f}] times as long"
    if ratio.low <= 1 <= ratio.high:
        return f"a step that keeps them takes {text} as one that flushes them to 0, which does not tell the two apart."
    return f"a step that keeps them takes {text} as one that flushes them to 0."


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


def table(result: ExplainResult, machine_text: str = "") -> Table:
    """A row for each variant of both networks and for both steps with denormals; `machine_text` is for the caption."""
    rows, rows_of, d = [], variants(result, result.architecture), result.dataset
    for group in (rows_of, variants(result, result.counterpart), list(result.denormals)):
        for i, v in enumerate(group):
            saved = group[i - 1].step_seconds.estimate - v.step_seconds.estimate if i else None
            t, ratio = v.step_seconds, ratios(result)[v.name] if group is rows_of else None
            rows.append(
                [
                    v.architecture,
                    v.name,
                    f"{t.estimate * 1e3:.2f} [{t.low * 1e3:.2f}, {t.high * 1e3:.2f}]",
                    "" if saved is None else f"{saved * 1e3:+.2f}",
                    *(f"{getattr(v.phases, p) * 1e3:.2f}" for p in PhaseSeconds.model_fields),
                    f"{v.optimizer_bytes / 1e6:.0f}",
                    f"{v.page_faults:,.0f}",
                    "" if ratio is None else f"{ratio:.2f}",
                ]
            )
    caption = (
        f"{d.name}, {d.train_images:,} training images, batch size {result.recipe['batch_size']}, {result.threads} "
        f"threads, {result.workers} loader workers{', ' + machine_text if machine_text else ''}. Milliseconds a step "
        f"with 95 % intervals, {len(rows_of[0].block_seconds)} interleaved blocks; saved: against the row before."
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
    explained = [f"{v.name}: {v.change}." for v in (*variants(result, result.architecture), *result.denormals)]
    notes = [*explained, *sentences(result), *result.warnings]
    return Table(f"Where a step of {result.architecture} goes", columns, rows, caption, notes)
