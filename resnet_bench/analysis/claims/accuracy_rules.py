"""Rules on test accuracies. Accuracies are fractions of 1; arrays of them are [seeds] or [seeds, epochs]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from resnet_bench import paper
from resnet_bench.analysis.bootstrap import effective_trials, proportion_difference
from resnet_bench.analysis.claims.causes import MAIN_SHARE, share_of_effect
from resnet_bench.analysis.claims.evidence import listed, points_text, tolerance_text
from resnet_bench.analysis.claims.outcome import Judgement, Undecided, decided
from resnet_bench.analysis.claims.selection import Curves, Fractions, Selection
from resnet_bench.intervals import wilson
from resnet_bench.paper import PUBLISHED
from resnet_bench.schema import Interval

ACCURACY_ROUNDING = 0.005
"""The paper prints whole per cents."""

ACCURACY_PRECISION = 0.02
"""Half-width of an accuracy's interval beyond which an overlap with a range says nothing."""

PLATEAU_EPOCHS = 5
"""The plateau of a curve is the mean of its last epochs, this many."""

PLATEAU_TOLERANCE = 0.02
"""A curve has converged from the epoch on from which it stays this near to its plateau."""

RISE_EPOCHS = 5
"""A curve still rises where it is higher after the last epoch than this many epochs before."""

Side = Literal["below", "above", "either"]
"""Where the accuracy lies in an epoch, seen from the baseline's."""


# ---------------------------------------------------------------------------------------------------------------------
# Published accuracies


def peak_is_as_published(selection: Selection, name: str) -> Judgement:
    """The peak agrees with the published one, which is a whole per cent of one run."""
    curves = selection.curves(name)
    return _agrees(curves, curves.accuracies[0].max(axis=1), PUBLISHED[name].peak_accuracy, f"peak of {name}")


def final_is_as_published(selection: Selection, name: str) -> Judgement:
    """The accuracy after the last epoch agrees with the published one, which is a whole per cent of one run."""
    curves = selection.curves(name)
    published = PUBLISHED[name].final_accuracy
    assert published is not None
    return _agrees(curves, curves.accuracies[0][:, -1], published, f"{name} after epoch {paper.EPOCHS}")


def _agrees(curves: Curves, accuracies: Fractions, published: float, what: str) -> Judgement:
    """The interval of the difference overlaps the rounding, and is narrow enough for that to mean something."""
    mean, trials = _proportion(accuracies)
    difference = proportion_difference(mean, trials, published, paper.TEST_IMAGES)
    evidence = f"{what}: {mean:.1%} (published {published:.0%}), difference {points_text(difference)}; {curves}"
    if difference.low > ACCURACY_ROUNDING or difference.high < -ACCURACY_ROUNDING:
        return decided(False, evidence)
    if _half_width(difference) > ACCURACY_PRECISION:
        raise Undecided(f"the interval is wider than {tolerance_text(ACCURACY_PRECISION)}: {evidence}")
    return decided(True, evidence)


# ---------------------------------------------------------------------------------------------------------------------
# Against the baseline


def higher_peak_than_baseline(selection: Selection, name: str) -> Judgement:
    """The interval of the difference between the peaks lies above 0."""
    difference, evidence = _significant_peak_difference(selection, name)
    return decided(difference.low > 0, evidence)


def lower_peak_than_baseline(selection: Selection, name: str) -> Judgement:
    """The interval of the difference between the peaks lies below 0."""
    difference, evidence = _significant_peak_difference(selection, name)
    return decided(difference.high < 0, evidence)


def _significant_peak_difference(selection: Selection, name: str) -> tuple[Interval, str]:
    curves = selection.compared_curves(name, "baseline")
    mine, base = curves.accuracies
    difference = _difference(mine.max(axis=1), base.max(axis=1))
    evidence = f"peak of {name} {points_text(difference)} against the baseline's; {curves}"
    if difference.low <= 0 <= difference.high:
        raise Undecided(f"no significant difference: {evidence}")
    return difference, evidence


def leads_baseline_early(selection: Selection, name: str, epochs: int, lead: tuple[float, float]) -> Judgement:
    """In each of the first `epochs` epochs the network has a significant lead whose interval overlaps the range `lead`.

    The ends of the range are rounded numbers. The intervals have to be narrow enough for an overlap to mean something.
    """
    curves = selection.compared_curves(name, "baseline", epochs=epochs)
    mine, base = curves.accuracies
    differences = [_difference(mine[:, i], base[:, i]) for i in range(epochs)]
    low, high = lead[0] - ACCURACY_ROUNDING, lead[1] + ACCURACY_ROUNDING
    evidence = (
        f"{name} against the baseline in epochs 1 to {epochs}: {'; '.join(map(points_text, differences))}; {curves}"
    )
    if outside := [epoch for epoch, d in enumerate(differences, 1) if d.high < low or d.low > high]:
        return decided(False, f"outside the range in epoch {listed(outside)}: {evidence}")
    if vague := [e for e, d in enumerate(differences, 1) if d.low <= 0 or _half_width(d) > ACCURACY_PRECISION]:
        raise Undecided(
            f"no significant lead, or an interval wider than {tolerance_text(ACCURACY_PRECISION)}, in epoch "
            f"{listed(vague)}: {evidence}"
        )
    return decided(True, evidence)


def below_baseline_throughout(selection: Selection, name: str) -> Judgement:
    """The accuracy is significantly below the baseline's in every epoch."""
    return _on_sides(selection, name, ["below"] * paper.EPOCHS)


def crosses_baseline(selection: Selection, name: str, last_below: int) -> Judgement:
    """The accuracy is significantly below the baseline's up to epoch `last_below` and above it afterwards.

    Curves that cross are equal for a while. So the epochs before and after the crossing may lie on either side.
    """
    below: list[Side] = ["below"] * (last_below - 1)
    crossing: list[Side] = ["either"] * 2
    above: list[Side] = ["above"] * (paper.EPOCHS - last_below - 1)
    return _on_sides(selection, name, below + crossing + above)


def _on_sides(selection: Selection, name: str, sides: Sequence[Side]) -> Judgement:
    """In each epoch the difference to the baseline lies significantly on the side that `sides` has for it."""
    curves = selection.compared_curves(name, "baseline")
    mine, base = curves.accuracies
    differences = [_difference(mine[:, i], base[:, i]) for i in range(len(sides))]
    wrong, open_ = [], []
    for epoch, (side, difference) in enumerate(zip(sides, differences, strict=True), 1):
        if side == "either":
            continue
        if difference.low <= 0 <= difference.high:
            open_.append(epoch)
        elif (difference.low > 0) != (side == "above"):
            wrong.append(epoch)
    points = " ".join(f"{100 * difference.estimate:+.1f}" for difference in differences)
    evidence = f"{name} minus baseline by epoch, points: {points}; {curves}"
    if wrong:
        return decided(False, f"on the other side in epoch {listed(wrong)}: {evidence}")
    if open_:
        raise Undecided(f"no significant difference in epoch {listed(open_)}: {evidence}")
    return decided(True, evidence)


# ---------------------------------------------------------------------------------------------------------------------
# The shape of a curve


def converges(selection: Selection, name: str, epochs: tuple[int, int], level: float | None = None) -> Judgement:
    """The first epoch from which the curve stays near its plateau is one of `epochs`, or one epoch off.

    An epoch is apart from the plateau where the whole interval of their difference is farther from 0 than
    `PLATEAU_TOLERANCE`. It counts as near only where that interval is narrower than the tolerance on either side: a
    wider one would overlap it wherever it lay.

    Args:
        epochs: the first and the last epoch that the claim allows.
        level: the accuracy that the claim gives the plateau; the plateau's whole interval has to be near it as well.
    """
    curves = selection.curves(name)
    (accuracies,) = curves.accuracies
    plateaus = accuracies[:, -PLATEAU_EPOCHS:].mean(axis=1)
    differences = [_difference(column, plateaus) for column in accuracies.T]
    since = 1 + max((epoch for epoch, d in enumerate(differences, 1) if _apart(d.low, d.high)), default=0)
    low, high = wilson(*_proportion(plateaus))
    points = f"{PLATEAU_TOLERANCE * 100:.0f} points"
    evidence = (
        f"{name} stays within {points} of its plateau of {plateaus.mean():.1%} [{low:.1%}, {high:.1%}] from epoch "
        f"{since} on; {curves}"
    )
    first, last = epochs
    if since > last + 1 or (level is not None and _apart(low - level, high - level)):
        return decided(False, evidence)
    near = enumerate(differences[since - 1 :], since)
    if wide := [epoch for epoch, d in near if _half_width(d) > PLATEAU_TOLERANCE]:
        raise Undecided(
            f"an interval wider than {tolerance_text(PLATEAU_TOLERANCE)} in epoch {listed(wide)}: {evidence}"
        )
    if since < first - 1:
        return decided(False, evidence)
    if level is not None and max(level - low, high - level) > PLATEAU_TOLERANCE:
        raise Undecided(f"the plateau may or may not be within {points} of {level:.0%}: {evidence}")
    return decided(True, evidence)


def _apart(low: float, high: float) -> bool:
    """Whether the whole interval [low, high] of a difference is farther from 0 than what counts as near."""
    return low > PLATEAU_TOLERANCE or high < -PLATEAU_TOLERANCE


def still_rises(selection: Selection, name: str) -> Judgement:
    """The mean curve is highest after the last epoch, and significantly higher there than `RISE_EPOCHS` before."""
    curves = selection.curves(name)
    (accuracies,) = curves.accuracies
    mean = accuracies.mean(axis=0)
    best = int(mean.argmax()) + 1
    rise = _difference(accuracies[:, -1], accuracies[:, -1 - RISE_EPOCHS])
    drop = _difference(accuracies[:, best - 1], accuracies[:, -1])
    evidence = (
        f"{name} is highest after epoch {best} ({mean[best - 1]:.1%}); from epoch {paper.EPOCHS - RISE_EPOCHS} to "
        f"{paper.EPOCHS}: {points_text(rise)}; {curves}"
    )
    if rise.high < 0 or drop.low > 0:
        return decided(False, evidence)
    if best == paper.EPOCHS and rise.low > 0:
        return decided(True, evidence)
    raise Undecided(f"neither a rise nor a fall is significant: {evidence}")


# ---------------------------------------------------------------------------------------------------------------------
# Causes of accuracy


def cause_accounts_for_accuracy(selection: Selection, variant: str, control: str, cause: str) -> Judgement:
    """More than half of the variant's effect on the peak is also there in the control, where only the cause changes."""
    curves = selection.compared_curves(variant, control, "baseline")
    *networks, base = (accuracies.max(axis=1) for accuracies in curves.accuracies)
    effect, alone = (_difference(peaks, base) for peaks in networks)
    evidence = (
        f"control {control}, where only {cause} changes: peak {points_text(alone)} against the baseline's, "
        f"{variant} {points_text(effect)}; {curves}"
    )
    if effect.low <= 0 <= effect.high:
        raise Undecided(f"{variant} does not differ: {evidence}")
    if (effect.low > 0) != (PUBLISHED[variant].peak_accuracy > PUBLISHED["baseline"].peak_accuracy):
        return decided(False, f"the effect itself is the other way round: {evidence}")
    low, high = share_of_effect(alone, effect, scale=float)
    if low <= MAIN_SHARE <= high:
        raise Undecided(f"the control does not tell whether it is more than half of the effect: {evidence}")
    return decided(low > MAIN_SHARE, evidence)


# ---------------------------------------------------------------------------------------------------------------------


def _proportion(accuracies: Fractions) -> tuple[float, float]:
    """(mean over seeds, effective number of test images)."""
    return float(accuracies.mean()), effective_trials(list(accuracies), paper.TEST_IMAGES)


def _difference(mine: Fractions, base: Fractions) -> Interval:
    """Of two networks' accuracies, each [seeds], with its interval over seeds and test images."""
    return proportion_difference(*_proportion(mine), *_proportion(base))


def _half_width(difference: Interval) -> float:
    return (difference.high - difference.low) / 2
