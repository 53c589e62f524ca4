"""Rules on times of a step. Each makes a `Question` of one `StepTimes`; `in_every_setting` asks all that there are.

Times are judged on the logarithmic scale, and ratios between networks process by process: what a process keeps for its
whole life, such as its memory layout, hits all networks that it measures and drops out of their ratios.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from resnet_bench import architectures, paper
from resnet_bench.analysis.claims.causes import beyond_halfway, short_of_halfway
from resnet_bench.analysis.claims.evidence import factor_text
from resnet_bench.analysis.claims.outcome import Judgement, Undecided, Untestable
from resnet_bench.analysis.claims.questions import Question
from resnet_bench.analysis.claims.selection import Selection
from resnet_bench.analysis.claims.step_times import StepTimes
from resnet_bench.analysis.conditions import Condition
from resnet_bench.intervals import LEAST_VALUES
from resnet_bench.paper import PUBLISHED
from resnet_bench.recipe import Recipe

TIME_MARGIN = 0.10
"""A published time or ratio is reproduced where ours is at most this share outside what rounds to it."""

SIZE_TOLERANCE = 0.10
"""With another number of classes, a network whose parameters are off by more than this share is another network."""

FEW_PARAMETERS = 0.5
"""A network with at most this share of the baseline's parameters counts as one with many of them removed."""


def in_every_setting(
    build: Callable[..., Question], *networks: str, **details: str
) -> Callable[[Selection, float], Judgement]:
    """A rule that asks what `build` makes of each setting in which `networks` and the baseline were timed.

    `build` gets the `StepTimes`, then the networks and the details. Settings that cannot be asked do not count. The
    others share the error, and those that decide have to agree.
    """

    def rule(selection: Selection, error: float) -> Judgement:
        questions, reasons = [], []
        for times in selection.step_times(*dict.fromkeys([*networks, "baseline"])):
            try:
                question = build(times, *networks, **details)
                if question.values < LEAST_VALUES:
                    question.judge(error)
                questions.append(question)
            except Untestable as reason:
                reasons.append(reason)
        if not questions:
            raise reasons[0]
        judgements, still = [], []
        for question in questions:
            try:
                judgements.append(question.judge(error / len(questions)))
            except Undecided as reason:
                still.append(reason)
        if not judgements:
            raise still[0]
        return _all_agree(judgements)

    return rule


def _all_agree(judgements: Sequence[Judgement]) -> Judgement:
    first, *others = judgements
    for other in others:
        if other.outcome != first.outcome:
            raise Undecided(f"{first.outcome}: {first.evidence}; but {other.outcome}: {other.evidence}")
    likewise = f"; likewise in {len(others)} more" if others else ""
    return first._replace(evidence=first.evidence + likewise)


# ---------------------------------------------------------------------------------------------------------------------
# Faster, slower


def faster_than_baseline(times: StepTimes, name: str) -> Question:
    """The ratio to the baseline's time is below 1."""
    return _ratio_question(times, name, Condition(times.log_ratios(name), high=0))


def slower_than_baseline(times: StepTimes, name: str) -> Question:
    """The ratio to the baseline's time is above 1."""
    return _ratio_question(times, name, Condition(times.log_ratios(name), low=0))


def _ratio_question(times: StepTimes, name: str, ratio: Condition, published: str = "") -> Question:
    return Question(
        {"ratio": ratio},
        lambda error: f"{name} takes {factor_text(ratio, error)} of the baseline's step time{published}; {times}",
        "process",
    )


# ---------------------------------------------------------------------------------------------------------------------
# Published minutes


def minutes_are_as_published(times: StepTimes, name: str) -> Question:
    """An epoch of as many steps as the paper's takes the published minutes; judged only on the paper's CPU."""
    if paper.CPU_MODEL not in times.cpu_model:
        raise Untestable(f"minutes hold for one machine: measured on {times.cpu_model}, published on {paper.MACHINE}")
    times.require_whole_training(name)
    minutes_a_second = paper.TRAIN_IMAGES / Recipe().batch_size / 60
    low, high = _published_range(name)
    logs = [math.log(minutes_a_second * step) for step in times.steps(name).values()]
    minutes = Condition(logs, math.log(low / (1 + TIME_MARGIN)), math.log(high * (1 + TIME_MARGIN)))

    def evidence(error: float) -> str:
        return (
            f"{factor_text(minutes, error, decimals=1)} min (published {PUBLISHED[name].epoch_minutes:g}, reproduced "
            f"within ±{TIME_MARGIN:.0%} of what rounds to it); {times}"
        )

    return Question({"minutes": minutes}, evidence, "process")


def factor_is_as_published(times: StepTimes, name: str) -> Question:
    """The ratio to the baseline's time is what the two published times, as rounded, allow."""
    for network in (name, "baseline"):
        full = architectures.plain_parameter_count(architectures.get(network), paper.CLASSES)
        here = times.parameters[network]
        if abs(here / full - 1) > SIZE_TOLERANCE:
            raise Untestable(
                f"with {times.dataset.classes} classes {network} has {here:,} parameters instead of {full:,}; measure "
                f"on data with {paper.CLASSES} classes"
            )
    times.require_whole_training(name, "baseline")
    (shortest, longest), (base_shortest, base_longest) = _published_range(name), _published_range("baseline")
    low, high = shortest / base_longest, longest / base_shortest
    ratio = Condition(times.log_ratios(name), math.log(low / (1 + TIME_MARGIN)), math.log(high * (1 + TIME_MARGIN)))
    published = (
        f" (published minutes, as rounded, allow {low:.3f} to {high:.3f}; reproduced within ±{TIME_MARGIN:.0%} of that)"
    )
    return _ratio_question(times, name, ratio, published)


def _published_range(name: str) -> tuple[float, float]:
    """The minutes that round to the published number."""
    published, rounding = PUBLISHED[name].epoch_minutes, paper.MINUTES_ROUNDING[name]
    return published - rounding, published + rounding


# ---------------------------------------------------------------------------------------------------------------------
# Causes of time


def cause_accounts_for_time(times: StepTimes, variant: str, control: str, cause: str) -> Question:
    """The variant's time differs as published, and more than half of it is in the control: only the cause changes."""
    effect, alone = _effect(times, variant, control)

    def evidence(error: float) -> str:
        return (
            f"control {control}, where only {cause} changes, takes {factor_text(alone, error)} of the baseline's step "
            f"time, {variant} {factor_text(effect, error)}; {times}"
        )

    conditions = {"the effect": effect, "more than half of it in the control": beyond_halfway(effect, alone)}
    return Question(conditions, evidence, "process")


def time_falls_with_parameters(times: StepTimes, variant: str, control: str) -> Question:
    """Removing many parameters saves much time; removing few saves little, whatever else is removed with them.

    Two networks take the parameters and the architecture apart. The variant `fc1` keeps all convolutions and has a
    sixth of the parameters. The control `blocks2-same` drops half of the convolutions and has 96 % of the parameters.
    The claim is reproduced where `fc1` is faster than the baseline and `blocks2-same` saves less than half of what
    `fc1` saves, on the logarithmic scale. It is not reproduced where `fc1` is slower, or where more than half of its
    saving comes with nearly all of the parameters.

    How much time the parameters cost depends on the implementation: most of it is the optimiser's memory traffic over
    them. The `fast` engine makes that traffic small, so the evidence also says what `fc1` takes there. That is
    information and does not decide, because the paper speaks of its own program.
    """
    count, kept = (times.parameters[name] / times.parameters["baseline"] for name in (variant, control))
    if count > FEW_PARAMETERS:
        raise Untestable(f"with {times.dataset.classes} classes {variant} still has {count:.2f} of the parameters")
    effect, held = _effect(times, variant, control)
    fast = Condition(times.log_ratios(variant, "fast"))

    def evidence(error: float) -> str:
        faster = f" (not judged: on the fast engine {factor_text(fast, error)})" if fast.values else ""
        return (
            f"{variant} takes {factor_text(effect, error)} of the baseline's step time with {count:.2f} of its "
            f"parameters{faster}, control {control} {factor_text(held, error)} with {kept:.2f} of them; {times}"
        )

    left = short_of_halfway(effect, held)
    conditions = {"the effect": effect, "less than half of it left with the parameters held": left}
    return Question(conditions, evidence, "process")


def _effect(times: StepTimes, variant: str, control: str) -> tuple[Condition, Condition]:
    """The variant and the control against the baseline, process by process, on the side of the published effect."""
    slower = PUBLISHED[variant].epoch_minutes > PUBLISHED["baseline"].epoch_minutes
    low, high = (0.0, math.inf) if slower else (-math.inf, 0.0)
    shared = (variant, control, "baseline")
    effect, alone = (Condition(times.log_ratios(name, among=shared), low, high) for name in (variant, control))
    return effect, alone
