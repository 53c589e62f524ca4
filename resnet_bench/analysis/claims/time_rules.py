"""Rules on times of a step. Each judges one `StepTimes`; `in_every_setting` asks it for all that the results have."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from resnet_bench import architectures, paper
from resnet_bench.analysis.claims.causes import MAIN_SHARE, share_of_effect
from resnet_bench.analysis.claims.evidence import ratio_text
from resnet_bench.analysis.claims.outcome import Judgement, Undecided, decided
from resnet_bench.analysis.claims.selection import Selection
from resnet_bench.analysis.claims.step_times import StepTimes
from resnet_bench.intervals import positive_mean_interval
from resnet_bench.paper import PUBLISHED
from resnet_bench.recipe import Recipe
from resnet_bench.schema import Interval

TIME_PRECISION = 0.10
"""Half-width of a time's or a ratio's interval, relative to it, beyond which an overlap with a range says nothing."""

SIZE_TOLERANCE = 0.10
"""With another number of classes, a network whose parameters are off by more than this share is another network."""

FEW_PARAMETERS = 0.5
"""A network with at most this share of the baseline's parameters counts as one with many of them removed."""


def in_every_setting(
    rule: Callable[..., Judgement], *networks: str, **details: str
) -> Callable[[Selection], Judgement]:
    """A rule that asks `rule` in each setting in which `networks` and the baseline were timed.

    `rule` is called with the `StepTimes`, then the networks and the details. Settings that cannot decide do not count;
    those that decide have to agree.
    """

    def rule_on_selection(selection: Selection) -> Judgement:
        judgements, reasons = [], []
        for times in selection.step_times(*dict.fromkeys([*networks, "baseline"])):
            try:
                judgements.append(rule(times, *networks, **details))
            except Undecided as reason:
                reasons.append(reason)
        if not judgements:
            raise reasons[0]
        return _all_agree(judgements)

    return rule_on_selection


def _all_agree(judgements: Sequence[Judgement]) -> Judgement:
    first, *others = judgements
    for other in others:
        if other.outcome != first.outcome:
            raise Undecided(f"{first.outcome}: {first.evidence}; but {other.outcome}: {other.evidence}")
    likewise = f"; likewise in {len(others)} more" if others else ""
    return Judgement(first.outcome, first.evidence + likewise)


# ---------------------------------------------------------------------------------------------------------------------
# Faster, slower


def faster_than_baseline(times: StepTimes, name: str) -> Judgement:
    """The interval of the ratio to the baseline's time lies below 1."""
    ratio, evidence = _significant_ratio(times, name)
    return decided(ratio.high < 1, evidence)


def slower_than_baseline(times: StepTimes, name: str) -> Judgement:
    """The interval of the ratio to the baseline's time lies above 1."""
    ratio, evidence = _significant_ratio(times, name)
    return decided(ratio.low > 1, evidence)


def _significant_ratio(times: StepTimes, name: str) -> tuple[Interval, str]:
    ratio = times.ratio_to_baseline(name)
    evidence = f"{name} takes {ratio_text(ratio)} of the baseline's step time; {times}"
    if ratio.low <= 1 <= ratio.high:
        raise Undecided(f"no significant difference: {evidence}")
    return ratio, evidence


# ---------------------------------------------------------------------------------------------------------------------
# Published minutes


def minutes_are_as_published(times: StepTimes, name: str) -> Judgement:
    """An epoch of as many steps as the paper's takes the published minutes; judged only on the paper's CPU."""
    if paper.CPU_MODEL not in times.cpu_model:
        raise Undecided(f"minutes hold for one machine: measured on {times.cpu_model}, published on {paper.MACHINE}")
    seconds = times.rounds(name).values()
    if len(seconds) < 2:
        raise Undecided(f"a single time decides nothing; {times}")
    steps = paper.TRAIN_IMAGES / Recipe().batch_size
    minutes = positive_mean_interval([step * steps / 60 for step in seconds])
    evidence = (
        f"{minutes.estimate:.1f} [{minutes.low:.1f}, {minutes.high:.1f}] min "
        f"(published {PUBLISHED[name].epoch_minutes:g}); {times}"
    )
    return _overlaps(minutes, *_published_range(name), evidence)


def factor_is_as_published(times: StepTimes, name: str) -> Judgement:
    """The interval of the ratio to the baseline's time overlaps the range that the two published times allow."""
    for network in (name, "baseline"):
        full, here = architectures.parameter_count(architectures.get(network), paper.CLASSES), times.parameters[network]
        if abs(here / full - 1) > SIZE_TOLERANCE:
            raise Undecided(
                f"with {times.dataset.classes} classes {network} has {here:,} parameters instead of {full:,}; measure "
                f"on data with {paper.CLASSES} classes"
            )
    ratio = times.ratio_to_baseline(name)
    (shortest, longest), (base_shortest, base_longest) = _published_range(name), _published_range("baseline")
    low, high = shortest / base_longest, longest / base_shortest
    evidence = (
        f"{name} takes {ratio_text(ratio)} of the baseline's step time (published minutes, as rounded, allow "
        f"{low:.3f} to {high:.3f}); {times}"
    )
    return _overlaps(ratio, low, high, evidence)


def _published_range(name: str) -> tuple[float, float]:
    """The minutes that round to the published number."""
    published, rounding = PUBLISHED[name].epoch_minutes, paper.MINUTES_ROUNDING[name]
    return published - rounding, published + rounding


def _overlaps(measured: Interval, low: float, high: float, evidence: str) -> Judgement:
    """Whether the measured interval overlaps the range, and is narrow enough for that to mean something."""
    if measured.high < low or measured.low > high:
        return decided(False, evidence)
    if measured.relative > TIME_PRECISION:
        raise Undecided(f"the interval is wider than ±{TIME_PRECISION:.0%}: {evidence}")
    return decided(True, evidence)


# ---------------------------------------------------------------------------------------------------------------------
# Causes of time


def cause_accounts_for_time(times: StepTimes, variant: str, control: str, cause: str) -> Judgement:
    """More than half of the variant's effect on time is also there in the control, where only the cause changes."""
    effect, alone = times.ratio_to_baseline(variant), times.ratio_to_baseline(control)
    if effect.low <= 1 <= effect.high:
        raise Undecided(f"{variant} does not differ: {ratio_text(effect)} of the baseline's time; {times}")
    evidence = (
        f"control {control}, where only {cause} changes, takes {ratio_text(alone)} of the baseline's step time, "
        f"{variant} {ratio_text(effect)}; {times}"
    )
    if (effect.low > 1) != (PUBLISHED[variant].epoch_minutes > PUBLISHED["baseline"].epoch_minutes):
        return decided(False, f"the effect itself is the other way round: {evidence}")
    low, high = share_of_effect(alone, effect)
    if low <= MAIN_SHARE <= high:
        raise Undecided(f"the control does not tell whether it is more than half of the effect: {evidence}")
    return decided(low > MAIN_SHARE, evidence)


def time_falls_with_parameters(times: StepTimes, variant: str, control: str) -> Judgement:
    """Removing many parameters saves much time; removing few saves little, whatever else is removed with them.

    Two networks take the parameters and the architecture apart. The variant `fc1` keeps all convolutions and has a
    sixth of the parameters. The control `blocks2-same` drops half of the convolutions and has 96 % of the parameters.
    The claim is reproduced where `fc1` is faster than the baseline and `blocks2-same` saves less than half of what
    `fc1` saves, on the logarithmic scale. It is not reproduced where `fc1` is not faster, or where more than half of
    its saving comes with nearly all of the parameters.

    How much time the parameters cost depends on the implementation: most of it is the optimiser's memory traffic over
    them. The `fast` engine makes that traffic small, so the evidence also says how much of `fc1`'s saving is left
    there. That is information and does not decide, because the paper speaks of its own program, and every faster engine
    leaves another share.
    """
    count, kept = (times.parameters[name] / times.parameters["baseline"] for name in (variant, control))
    if count > FEW_PARAMETERS:
        raise Undecided(f"with {times.dataset.classes} classes {variant} still has {count:.2f} of the parameters")
    effect, held = times.ratio_to_baseline(variant), times.ratio_to_baseline(control)
    if effect.low <= 1 <= effect.high:
        raise Undecided(f"{variant} does not differ: {ratio_text(effect)} of the baseline's time; {times}")
    evidence = (
        f"{variant} takes {ratio_text(effect)} of the baseline's step time with {count:.2f} of its parameters, control "
        f"{control} {ratio_text(held)} with {kept:.2f} of them{_left_on_the_fast_engine(times, variant, effect)}; "
        f"{times}"
    )
    if effect.low > 1:
        return decided(False, f"there is no reduction: {evidence}")
    low, high = share_of_effect(held, effect)
    if low <= MAIN_SHARE <= high:
        raise Undecided(f"the control does not tell whether it saves half as much: {evidence}")
    if low > MAIN_SHARE:
        return decided(False, f"most of the reduction comes without fewer parameters: {evidence}")
    return decided(True, f"with the count held the time falls by less than half as much: {evidence}")


def _left_on_the_fast_engine(times: StepTimes, variant: str, effect: Interval) -> str:
    """How much of the variant's reduction `effect` is left on `fast`; empty where it was not timed there."""
    if any(len(times.rounds(name, "fast")) < 2 for name in (variant, "baseline")):
        return ""
    left = times.ratio_to_baseline(variant, "fast")
    low, high = share_of_effect(left, effect)
    return (
        f" (not judged: on the fast engine {variant} takes {ratio_text(left)} of the baseline's, {low:.0%} to "
        f"{high:.0%} of the reduction on the log scale; the rest is owed to the implementation)"
    )
