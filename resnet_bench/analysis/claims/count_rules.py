"""Rules on numbers of parameters, which are counted: no verdict of theirs can be false by chance."""

from __future__ import annotations

from resnet_bench import architectures, paper
from resnet_bench.analysis.claims.outcome import Judgement, decided
from resnet_bench.analysis.claims.selection import Selection
from resnet_bench.paper import PUBLISHED


def counts_are_as_printed(selection: Selection, error: float, table: int) -> Judgement:
    """Every count of the paper's table, rounded to 0.1M, is the printed one."""
    counts = {name: selection.parameter_count(name) for name in paper.TABLES[table]}
    evidence = "; ".join(
        f"{name} {count:,} = {architectures.millions(count)} (published {PUBLISHED[name].parameters})"
        for name, count in counts.items()
    )
    return decided(all(architectures.millions(n) == PUBLISHED[name].parameters for name, n in counts.items()), evidence)


def kernel_lowers_count(selection: Selection, error: float) -> Judgement:
    """The control `conv5x5-same`, which changes only the kernel of the baseline, has fewer parameters."""
    base, control = selection.parameter_count("baseline"), selection.parameter_count("conv5x5-same")
    variant_inputs, base_inputs = (architectures.get(name).features for name in ("conv5x5", "baseline"))
    evidence = (
        f"control conv5x5-same, where only the kernel changes: {control:,} parameters against the baseline's {base:,}; "
        f"conv5x5 also has other strides, so its first FC layer has {variant_inputs} inputs instead of {base_inputs:,}"
    )
    return decided(control < base, evidence)
