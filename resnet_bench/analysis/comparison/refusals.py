"""Reasons against comparing two networks: other data, another recipe, or a file that mixes several settings."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from resnet_bench import wording
from resnet_bench.analysis.comparison.networks import SETTINGS, Network, Pair, Role
from resnet_bench.schema import AccuracyResult, DatasetInfo, EpochTimeResult
from resnet_bench.wording import short

Runs = Sequence[EpochTimeResult | AccuracyResult]


def reasons_against(pair: Pair) -> tuple[str, ...]:
    """Every reason once, without the network's name; empty where the two may be compared."""
    base, other = pair
    reasons = []
    mixed = {"base": _mixed_recipes(base), "other": _mixed_recipes(other)}
    reasons += [*_mixed("base", base.times), *_mixed("base", base.trainings)]
    reasons += [*_mixed("other", other.times), *_mixed("other", other.trainings)]
    reasons += [
        f"{role} mixes runs with {key} {wording.listed(values)}"
        for role, own in mixed.items()
        for key, values in own.items()
    ]
    told = {key for own in mixed.values() for key in own}
    # The number of epochs that a training has does not change the time of one.
    reasons += _different(base.times, other.times, ignored={"epochs", *told})
    reasons += _different(base.trainings, other.trainings, ignored=told)
    if base.modes and other.modes and not base.modes & other.modes:
        reasons.append(f"epoch time measured {' and '.join(base.modes)} against {' and '.join(other.modes)}")
    base_points, other_points = _points(base.times), _points(other.times)
    if base_points and other_points and base_points != other_points:
        reasons.append(f"epoch time measured after {_steps(base_points)} against {_steps(other_points)}")
    return tuple(dict.fromkeys(reasons))


def advice(pairs: Sequence[Pair]) -> str:
    """What to do where there are reasons against some of the pairs."""
    text = "give runs on the same data with the same settings"
    mixed = [(key, values[0]) for pair in pairs for n in pair for key, values in _mixed_recipes(n).items()]
    if mixed:
        key, value = mixed[0]
        text += (
            f", on each side those of one recipe (of a study, a folder with copies of its results/*{key}={value}*; "
            "resnet-bench report tells of the whole study what a schedule does to the accuracy)"
        )
    return f"{text}, or take resnet-bench compare --force."


def _points(runs: Runs) -> set[tuple[int, ...]]:
    """The steps before the points at which the runs were timed; without older files, which do not tell any."""
    return {tuple(p.step for p in r.points) for r in runs if isinstance(r, EpochTimeResult) and r.points}


def _steps(points: set[tuple[int, ...]]) -> str:
    return " and ".join(short(f"{', '.join(map(str, steps))} steps", 60) for steps in sorted(points))


def listed(pairs: Sequence[Pair], reasons: Sequence[Sequence[str]]) -> str:
    """The reasons against all pairs in one line; a reason that does not hold for all of them names its networks."""
    parts = []
    for reason in dict.fromkeys(r for own in reasons for r in own):
        names = [pair.base.architecture for pair, own in zip(pairs, reasons, strict=True) if reason in own]
        parts.append(reason if len(names) == len(pairs) else f"{', '.join(names)}: {reason}")
    return "; ".join(parts)


def _different(base: Runs, other: Runs, ignored: Collection[str]) -> list[str]:
    """How data set and recipe of the runs differ; nothing where either file has no such runs."""
    if not base or not other:
        return []
    recipes = base[0].recipe, other[0].recipe
    unlike = [
        f"{short(key)} {short(recipes[0].get(key))} against {short(recipes[1].get(key))}"
        for key in dict.fromkeys([*recipes[0], *recipes[1]])
        if key not in ignored and recipes[0].get(key) != recipes[1].get(key)
    ]
    return [
        *_different_data(base[0].dataset, other[0].dataset),
        *([f"recipe: {', '.join(unlike)}"] if unlike else []),
    ]


def _different_data(base: DatasetInfo, other: DatasetInfo) -> list[str]:
    if base.sha256 == other.sha256:
        return []
    if base.name != other.name:
        return [f"data set {short(base.name)} against {short(other.name)}"]
    reasons = [
        f"subset size: {short(count)} against {short(other_count)} {what} images"
        for what, count, other_count in (
            ("training", base.train_images, other.train_images),
            ("test", base.test_images, other.test_images),
        )
        if count != other_count
    ]
    return reasons or [f"data set {short(base.name)} with SHA-256 {base.sha256[:8]}… against {other.sha256[:8]}…"]


def _images(dataset: DatasetInfo) -> tuple[object, ...]:
    """What is equal for images of one data set: a subset is drawn anew for each seed, so its digest may differ."""
    size = (dataset.name, dataset.train_images, dataset.test_images, dataset.classes)
    return size if dataset.subset else (*size, dataset.sha256)


def _mixed(role: Role, runs: Runs) -> list[str]:
    """In what the runs of one network in one file differ, so that they are not samples of one quantity."""
    reasons = []
    for what in SETTINGS:
        values = sorted({getattr(r, what) for r in runs})
        if len(values) > 1:
            reasons.append(f"{role} mixes runs with {what} {' and '.join(short(v) for v in values)}")
    if len(_points(runs)) > 1:
        reasons.append(f"{role} mixes runs timed after {_steps(_points(runs))}")
    if len({_images(r.dataset) for r in runs}) > 1 or len({(r.seed, r.dataset.sha256) for r in runs}) > len(
        {r.seed for r in runs}
    ):
        reasons.append(f"{role} mixes runs on several data sets")
    return reasons


def _mixed_recipes(network: Network) -> dict[str, list[str]]:
    """{key: its values}, for the keys in which recipes differ among the runs that tell times, or among trainings."""
    found: dict[str, list[str]] = {}
    for runs in (network.times, network.trainings):
        for key in dict.fromkeys(key for r in runs for key in r.recipe):
            values: list[Any] = []  # a value may be a list, so it is no key of a dict
            for value in (r.recipe.get(key) for r in runs):
                values += [value] if value not in values else []
            if len(values) > 1:
                found.setdefault(short(key), [short(v) for v in values])
    return found
