"""What a measured explanation means: its table and its sentences. `resnet_bench.explain` measures it."""

from __future__ import annotations

from itertools import pairwise

from resnet_bench.report.table import Table
from resnet_bench.results import ExplainResult, PhaseSeconds, Variant


def of(result: ExplainResult, architecture: str) -> list[Variant]:
    """The rows of one of the two networks, plain first."""
    return [v for v in result.variants if v.architecture == architecture]


def dominating(result: ExplainResult) -> Variant:
    """The change that took the most milliseconds off the step of `result.architecture`."""
    rows = of(result, result.architecture)
    saved = {after.name: before.step_seconds.estimate - after.step_seconds.estimate for before, after in pairwise(rows)}
    return max(rows[1:], key=lambda v: saved[v.name])


def sentences(result: ExplainResult) -> list[str]:
    """What dominates; how much of the ratio of the two networks is the architecture's; what denormals cost."""
    rows, others = of(result, result.architecture), of(result, result.counterpart)
    first, last, most = rows[0], rows[-1], dominating(result)
    before = rows[rows.index(most) - 1]
    share = (before.step_seconds.estimate - most.step_seconds.estimate) / (
        first.step_seconds.estimate - last.step_seconds.estimate
    )
    plain, fastest = (rows[i].step_seconds.estimate / others[i].step_seconds.estimate for i in (0, len(rows) - 1))
    optimizer = rows[0].phases.optimizer / rows[0].step_seconds.estimate
    kept, flushed = (v.step_seconds.estimate for v in result.denormals)
    return [
        f"From plain to fast, a step of {result.architecture} gets "
        f"{first.step_seconds.estimate / last.step_seconds.estimate:.1f} times faster; {most.name} ({most.change}) is "
        f"{share:.0%} of what is saved.",
        f"In the plain step the optimiser takes {optimizer:.0%} of the time.",
        f"Plain, a step of {result.architecture} takes {plain:.2f} times as long as one of {result.counterpart}; with "
        f"the implementation out of the way (fast), {fastest:.2f} times: that much is the architecture, and the "
        f"remaining factor {plain / fastest:.2f} is how the plain step is implemented.",
        f"With {result.dead_share:.0%} of the first FC layer's units dead, {result.denormal_share:.0%} of Adam's "
        f"moments are denormal numbers; keeping them instead of flushing them to 0 makes the step "
        f"{kept / flushed:.2f} times as long.",
    ]


def table(result: ExplainResult, machine_text: str = "") -> Table:
    """The rows of both networks and of the denormals, with what each change saves."""
    rows = []
    for group in (of(result, result.architecture), of(result, result.counterpart), list(result.denormals)):
        for i, v in enumerate(group):
            saved = group[i - 1].step_seconds.estimate - v.step_seconds.estimate if i else None
            t = v.step_seconds
            rows.append(
                [
                    v.architecture,
                    v.name,
                    f"{t.estimate * 1e3:.2f} [{t.low * 1e3:.2f}, {t.high * 1e3:.2f}]",
                    "" if saved is None else f"{saved * 1e3:+.2f}",
                    *(f"{getattr(v.phases, p) * 1e3:.2f}" for p in PhaseSeconds.model_fields),
                    f"{v.optimizer_bytes / 1e6:.0f}",
                    f"{v.page_faults:,.0f}",
                ]
            )
    d = result.dataset
    caption = (
        f"{d.name}, {d.train_images:,} training images, batch size {result.recipe['batch_size']}, {result.threads} "
        f"threads{', ' + machine_text if machine_text else ''}. Milliseconds a step with 95 % intervals, "
        f"{result.blocks} interleaved blocks; saved: against the row before."
    )
    columns = ["network", "step", "ms", "saved", *PhaseSeconds.model_fields, "optimizer MB", "page faults"]
    explained = [f"{v.name}: {v.change}." for v in (*of(result, result.architecture), *result.denormals)]
    notes = [*explained, *sentences(result), *result.warnings]
    return Table(f"Where a step of {result.architecture} goes", columns, rows, caption, notes)
