"""Rules on test accuracies. Each makes a `Question` of the curves of one setting; accuracies are fractions of 1.

Differences between networks are taken seed by seed. A seed decides the order of the images, how each is augmented and,
of a subset, which images there are, for all networks alike. Student's t over these differences is right whatever the
networks share; where they share nothing, it costs degrees of freedom. Test images bring no uncertainty of their own: a
claim is about the accuracy on the test set, which is the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from resnet_bench import paper
from resnet_bench.analysis.claims.causes import beyond_halfway
from resnet_bench.analysis.claims.evidence import points_text
from resnet_bench.analysis.claims.outcome import Judgement
from resnet_bench.analysis.claims.questions import Question
from resnet_bench.analysis.claims.selection import Curves, Fractions, Selection
from resnet_bench.analysis.conditions import Condition
from resnet_bench.paper import PUBLISHED

ACCURACY_MARGIN = 0.02
"""A published accuracy, printed in whole per cents and of one run, is reproduced where ours is at most so far off."""

ACCURACY_ROUNDING = 0.005
"""Half of the paper's last digit."""

PLATEAU_EPOCHS = 5
"""The plateau of a curve is the mean of its last epochs, this many."""

PLATEAU_TOLERANCE = 0.02
"""A curve has converged from the epoch on from which it stays this near to its plateau."""

RISE_EPOCHS = 5
"""A curve still rises where it is higher after the last epoch than this many epochs before."""


def of_curves(
    build: Callable[..., Question],
    *networks: str,
    epochs: int = paper.EPOCHS,
    least_epochs: int | None = None,
    **details: object,
) -> Callable[[Selection, float], Judgement]:
    """A rule that asks what `build` makes of the networks' curves; `build` gets them first, then the details.

    Args:
        epochs: how many of the first epochs the claim is about.
        least_epochs: how many are enough on other images than all of CIFAR-100; None: judged on CIFAR-100 only.
    """

    def rule(selection: Selection, error: float) -> Judgement:
        curves = selection.curves(*networks, epochs=epochs, least_epochs=least_epochs)
        return build(curves, **details).judge(error)

    return rule


def _by_epoch(epochs: Mapping[int, Condition]) -> dict[str, Condition]:
    return {f"epoch {epoch}": condition for epoch, condition in epochs.items()}


def _points(values: Fractions) -> str:
    """The means over the seeds, [seeds, epochs], in points: `+1.2 +0.3`."""
    return " ".join(f"{100 * mean:+.1f}" for mean in values.mean(axis=0))


# ---------------------------------------------------------------------------------------------------------------------
# Published accuracies


def peak_is_as_published(curves: Curves) -> Question:
    """The peak of 15 epochs agrees with the published one, which is the peak of 15 epochs of one run."""
    ((name, accuracies),) = curves.accuracies.items()
    return _agrees(curves, accuracies.max(axis=1), PUBLISHED[name].peak_accuracy, f"peak of {name}")


def final_is_as_published(curves: Curves) -> Question:
    """The accuracy after the last epoch agrees with the published one, which is that of one run."""
    ((name, accuracies),) = curves.accuracies.items()
    published = PUBLISHED[name].final_accuracy
    assert published is not None
    return _agrees(curves, accuracies[:, -1], published, f"{name} after epoch {paper.EPOCHS}")


def _agrees(curves: Curves, accuracies: Fractions, published: float, what: str) -> Question:
    difference = Condition(list(accuracies - published), -ACCURACY_MARGIN, ACCURACY_MARGIN, against_one=True)

    def evidence(error: float) -> str:
        return (
            f"{what}: {accuracies.mean():.1%} (published {published:.0%}, reproduced within "
            f"±{100 * ACCURACY_MARGIN:.0f} points), difference {points_text(difference, error)}; {curves}"
        )

    return Question({what: difference}, evidence, "seed", curves.place)


# ---------------------------------------------------------------------------------------------------------------------
# Against the baseline


def higher_peak_than_baseline(curves: Curves) -> Question:
    """The peak is higher than the baseline's, both of as many epochs and on the same test images."""
    return _peaks(curves, lambda difference: Condition(difference, low=0))


def lower_peak_than_baseline(curves: Curves) -> Question:
    """The peak is lower than the baseline's, both of as many epochs and on the same test images."""
    return _peaks(curves, lambda difference: Condition(difference, high=0))


def _peaks(curves: Curves, condition: Callable[[Sequence[float]], Condition]) -> Question:
    name, _ = curves.accuracies
    peak, base = (accuracies.max(axis=1) for accuracies in curves.accuracies.values())
    difference = condition(list(peak - base))
    return Question(
        {"peak": difference},
        lambda error: f"peak of {name} {points_text(difference, error)} against the baseline's; {curves}",
        "seed",
        curves.place,
    )


def leads_baseline(curves: Curves, lead: tuple[float, float]) -> Question:
    """In each epoch the network leads: on CIFAR-100 by the published points, elsewhere by any.

    The ends of `lead` are rounded numbers of one run, so that leads within `ACCURACY_MARGIN` of them count too.
    """
    low, high = (0, float("inf")) if curves.place else (lead[0] - ACCURACY_MARGIN, lead[1] + ACCURACY_MARGIN)
    note = " (only whether it leads is judged here, not by how much)" if curves.place else ""
    return _against_baseline(curves, lambda epoch: (low, high), note)


def below_baseline_throughout(curves: Curves) -> Question:
    """The accuracy is below the baseline's in every epoch."""
    return _against_baseline(curves, lambda epoch: (float("-inf"), 0))


def crosses_baseline(curves: Curves, last_below: int) -> Question:
    """The accuracy is below the baseline's up to epoch `last_below` and above it afterwards.

    Curves that cross are equal for a while. So the epochs before and after the crossing may lie on either side.
    """

    def side(epoch: int) -> tuple[float, float] | None:
        if epoch in (last_below, last_below + 1):
            return None
        return (float("-inf"), 0) if epoch < last_below else (0, float("inf"))

    return _against_baseline(curves, side)


def _against_baseline(curves: Curves, ranges: Callable[[int], tuple[float, float] | None], note: str = "") -> Question:
    """In each epoch the difference to the baseline lies in the range that `ranges` has for it, if there is one."""
    name, _ = curves.accuracies
    mine, base = curves.accuracies.values()
    difference = mine - base
    conditions = {
        epoch: Condition(list(column), *limits)
        for epoch, column in enumerate(difference.T, 1)
        if (limits := ranges(epoch)) is not None
    }
    evidence = f"{name} minus baseline by epoch, points: {_points(difference)}{note}; {curves}"
    return Question(_by_epoch(conditions), lambda error: evidence, "seed", curves.place)


# ---------------------------------------------------------------------------------------------------------------------
# The shape of a curve


def converges(curves: Curves, first: int, last: int, level: float | None = None) -> Question:
    """The curve gets near its plateau in one of the epochs `first` to `last`, or one epoch off, and stays near it.

    That is: in epoch `first - 2` it is still below the plateau by more than `PLATEAU_TOLERANCE`, and after epoch `last`
    it is always within that tolerance. On CIFAR-100 the plateau is also within `ACCURACY_MARGIN` of the `level` that
    the claim gives.
    """
    ((name, accuracies),) = curves.accuracies.items()
    plateaus = accuracies[:, -PLATEAU_EPOCHS:].mean(axis=1)
    away = accuracies - plateaus[:, None]
    conditions = {first - 2: Condition(list(away[:, first - 3]), high=-PLATEAU_TOLERANCE)}
    for epoch in range(last + 1, paper.EPOCHS + 1):
        conditions[epoch] = Condition(list(away[:, epoch - 1]), -PLATEAU_TOLERANCE, PLATEAU_TOLERANCE)
    named = _by_epoch(conditions)
    if level is not None and not curves.place:
        named["the plateau"] = Condition(list(plateaus - level), -ACCURACY_MARGIN, ACCURACY_MARGIN, against_one=True)
    evidence = (
        f"{name} minus its plateau of {plateaus.mean():.1%} by epoch, points: {_points(away)} (converged within "
        f"±{100 * PLATEAU_TOLERANCE:.0f}); {curves}"
    )
    return Question(named, lambda error: evidence, "seed", curves.place)


def still_rises(curves: Curves) -> Question:
    """After the last epoch the accuracy is higher than `RISE_EPOCHS` before, and no earlier epoch is better.

    An earlier epoch counts as better where it is so by more than the paper's rounding: neighbouring epochs of a slow
    rise are too alike to be told apart.
    """
    ((name, accuracies),) = curves.accuracies.items()
    gains = accuracies[:, -1:] - accuracies[:, :-1]
    conditions = {
        epoch: Condition(list(column), low=0 if epoch == paper.EPOCHS - RISE_EPOCHS else -ACCURACY_ROUNDING)
        for epoch, column in enumerate(gains.T, 1)
    }
    evidence = f"{name}: epoch {paper.EPOCHS} minus each earlier one, points: {_points(gains)}; {curves}"
    return Question(_by_epoch(conditions), lambda error: evidence, "seed", curves.place)


# ---------------------------------------------------------------------------------------------------------------------
# Causes of accuracy


def cause_lowers_accuracy(curves: Curves, cause: str) -> Question:
    """The variant has a lower peak, and more than half of it is in the control, where only the cause changes."""
    variant, control, _ = curves.accuracies
    peaks = {name: accuracies.max(axis=1) for name, accuracies in curves.accuracies.items()}
    effect = Condition(list(peaks[variant] - peaks["baseline"]), high=0)
    alone = Condition(list(peaks[control] - peaks["baseline"]), high=0)
    halfway = beyond_halfway(effect, alone)

    def evidence(error: float) -> str:
        return (
            f"control {control}, where only {cause} changes: peak {points_text(alone, error)} against the baseline's, "
            f"{variant} {points_text(effect, error)}; {curves}"
        )

    return Question(
        {"the effect": effect, "more than half of it in the control": halfway}, evidence, "seed", curves.place
    )
