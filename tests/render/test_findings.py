"""The sentences that the page opens with: known answers, and what holds for whatever was measured."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_bench import paper
from resnet_bench.analysis import claims, findings
from resnet_bench.analysis.series import groups
from resnet_bench.render.findings import sentences
from resnet_bench.results.reading import read
from resnet_bench.results.samples import Samples
from tests.handmade import accuracy, dataset, epoch_time, in_processes, parameters, plans, save, together

Make = Callable[..., list[str]]
FIVE = tuple(paper.PUBLISHED)


def said(samples: Samples) -> list[str]:
    return sentences(samples, claims.judge(samples))


@pytest.fixture
def tell(tmp_path: Path) -> Make:
    """The sentences of the results in one file."""
    return lambda *entries, **kwargs: said(together([read(save(tmp_path / "results.json", entries, **kwargs))]))


def test_a_study_has_five_sentences(tell: Make) -> None:
    """Minutes an epoch, and with `fast` a quarter of them; fc1 takes a third of the baseline's; 3 seeds, 15 epochs."""
    minutes = {"baseline": 60, "fc1": 20, "fc3": 90, "blocks2": 80, "conv5x5": 30}
    timed = [in_processes(a, 60 * m, noise=0) for a, m in minutes.items()]
    timed += [in_processes(a, 15 * m, noise=0, engine="fast") for a, m in minutes.items()]
    ends = {"baseline": 0.34, "fc1": 0.38, "fc3": 0.31, "blocks2": 0.34, "conv5x5": 0.38}
    trained = [
        accuracy(a, [0.2] * 14 + [end + 0.001 * seed + (0.03 * (seed - 1) if a == "blocks2" else 0)], seed=seed)
        for a, end in ends.items()
        for seed in range(3)
    ]
    run, fast, plain, learned, judged = tell(*timed, *trained)
    assert run == (
        "5 networks were trained (15 epochs, 3 seeds) and timed on cifar100 (50,000 training and 10,000 test images, "
        "100 classes) with 13th Gen Intel(R) Core(TM) i5-1340P."
    )
    assert fast.startswith(
        "fc1 is the fastest of the 5 networks timed with plain PyTorch: a step takes 96.0 [96.0, 96.0] ms, 0.667 "
        "[0.667, 0.667] times that of conv5x5, the next, and 0.333 [0.333, 0.333] times the baseline's (published: "
        "0.132 times)."
    )
    assert plain.startswith(
        "With the engine fast, a step of the study's five networks, summed, is 4.00 [4.00, 4.00] times as fast as with "
        "plain PyTorch, from 4.00 [4.00, 4.00] ("
    )
    assert learned == (
        "After 15 epochs and with 3 seeds on cifar100 (guessing: 1 %) the final accuracy, against the baseline's of "
        "34.1 %, is higher for fc1 (+4.0 points [+4.0, +4.0]) and conv5x5 (+4.0 points [+4.0, +4.0]), lower for fc3 "
        "(-3.0 points [-3.0, -3.0]) and not to be told from it for blocks2."
    )
    assert re.match(r"Of \d+ claims of the study \d+ are reproduced, \d+ (is|are) not reproduced and \d+ ", judged)


def test_networks_of_which_only_some_were_trained(tell: Make) -> None:
    timed = [in_processes(a, 60) for a in ("baseline", "fc1", "fc3")]
    run = tell(*timed, accuracy("fc1", [0.2]))[0]
    assert run.startswith("1 network was trained (1 epoch, 1 seed) and 3 networks were timed on cifar100 (")
    assert tell(accuracy("fc1", [0.2]))[0].startswith("1 network was trained (1 epoch, 1 seed) on cifar100 (")


def test_one_process_gives_no_verdict(tell: Make) -> None:
    found = tell(epoch_time("fc1", 600, noise=0), epoch_time("baseline", 3000, noise=0))
    assert found[1] == (
        "In 1 process, too few for a verdict, fc1 had the shortest step of the 2 networks timed with plain PyTorch, "
        "48.0 ms, and baseline the longest, 5.00 times that."
    )
    assert len(found) == 3  # no other engine, no accuracy


def test_networks_that_the_intervals_do_not_set_apart_are_not_called_faster(tell: Make) -> None:
    found = tell(in_processes("fc1", (600, 700, 800)), in_processes("baseline", (720, 640, 810)))
    assert found[1].startswith(
        "Which of the 2 networks timed with plain PyTorch is the fastest cannot be told: fc1 had"
    )


def test_an_engine_that_is_not_told_from_plain_says_so(tell: Make) -> None:
    found = tell(in_processes("fc1", (600, 700, 800)), in_processes("fc1", (720, 640, 810), engine="fast"))
    assert "times as fast as with plain PyTorch (no difference that can be told)" in found[1]


def test_few_seeds_and_other_images_have_their_caveats(tell: Make) -> None:
    data = dataset(name="synthetic", synthetic=True, subset=True, train_images=500, classes=10)
    found = tell(*(accuracy(a, [end], dataset=data) for a, end in (("baseline", 0.2), ("fc1", 0.3))))
    assert found[1] == (
        "After 1 epoch and with 1 seed on synthetic (guessing: 10 %; drawn images, which say nothing about real ones; "
        "a subset of 500 training images, so lower than with all; stopped early) final accuracies lie between 20.0 % "
        "(baseline) and 30.0 % (fc1); fewer than 3 seeds tell no networks apart."
    )
    assert found[-1].endswith("in doubt: trainings that stopped early, of baseline and fc1.")


ATTENTION = ("baseline", "baseline-se", "baseline-eca")


def test_a_study_of_schedules_names_the_setting_and_tells_what_schedules_do(tell: Make) -> None:
    """All three settings are equal in networks, seeds and epochs; the first of the file is not the only one told."""
    better = {(n, s): 0.03 for n in ATTENTION for s in ("cosine", "onecycle")}
    better["baseline-se", "cosine"] += 0.02
    better["baseline-eca", "onecycle"] -= 0.05
    told = tell(*plans(better))[1]
    points = r"\(([+-]\d\.\d) points \[[^]]*\]\)"
    shape = (
        r"After 15 epochs and with 5 seeds on cifar100 \(guessing: 1 %\) the final accuracy with a constant rate, "
        r"against the baseline's of 60\.\d %, is not to be told from it for baseline-se and baseline-eca; "
        rf"with the cosine schedule instead of a constant rate it is higher for baseline {points}, baseline-se "
        rf"{points} and baseline-eca {points}; "
        rf"with the onecycle schedule instead of a constant rate it is higher for baseline {points} and baseline-se "
        rf"{points} and lower for baseline-eca {points}; "
        rf"with the cosine schedule, against the baseline's, it is higher for baseline-se {points}; "
        rf"with the onecycle schedule, against the baseline's, it is lower for baseline-eca {points}; "
        r"the other 2 of 10 effects of networks under other settings and of schedules cannot be told\."
    )
    found = re.fullmatch(shape, told)
    assert found, told
    assert [float(x) for x in found.groups()] == pytest.approx([3, 5, 3, 3, 3, -2, 2, -5], abs=0.4)


def test_the_setting_that_is_told_first_does_not_depend_on_the_order_of_the_results(tell: Make) -> None:
    entries = plans({("baseline-se", "constant"): 0.01})
    first, second = (tell(*order)[1].partition(";")[0] for order in (entries, entries[::-1]))
    assert first == second
    assert "the final accuracy with a constant rate, against" in first


def test_schedules_without_an_effect_are_said_to_have_none_that_can_be_told(tell: Make) -> None:
    told = tell(*plans({}))[1]
    assert told.endswith(
        "is not to be told from it for baseline-se and baseline-eca; none of 10 effects of networks under other "
        "settings and of schedules can be told."
    )


def test_one_network_under_several_schedules(tell: Make) -> None:
    """A warm-up is a setting of its own, and the baseline under a schedule is none of the networks against it."""
    entries = [e for e in plans({("baseline", "cosine"): 0.03}) if e["architecture"] == "baseline"]
    told = tell(*entries)[1]
    assert re.search(
        r"\(guessing: 1 %\) the final accuracy of baseline with a constant rate is 60\.\d % \[[^]]*\]; with the cosine "
        r"schedule instead of a constant rate it is higher for baseline \(\+3\.\d points \[[^]]*\]\); one of 2 effects "
        r"of schedules cannot be told\.$",
        told,
    )
    warm = [{**e, "recipe": {**e["recipe"], "warmup_steps": 5}} for e in entries if e["recipe"]["schedule"] == "cosine"]
    constant = [e for e in entries if e["recipe"]["schedule"] == "constant"]
    assert (
        "; with the cosine schedule and 5 warm-up steps instead of a constant rate and no warm-up it is higher for "
    ) in tell(*constant, *warm)[1]


def test_many_effects_are_counted(tell: Make) -> None:
    """With another learning rate there are twice as many; the table has them."""
    better = {(n, s): 0.03 for n in ATTENTION for s in ("cosine", "onecycle")}
    entries = plans(better)
    told = tell(*entries, *({**e, "recipe": {**e["recipe"], "lr": 0.01}} for e in entries))[1]
    assert "the final accuracy with a constant rate and lr 0.0004, against" in told
    assert told.endswith(
        "; of 22 effects of networks under other settings and of schedules, which are in the tables, 12 raise the "
        "accuracy and 0 lower it."
    )


def test_only_parameters(tell: Make) -> None:
    assert tell(parameters("fc1"), parameters("baseline"))[0] == (
        "The parameters of 2 networks were counted; nothing was trained or timed as a whole."
    )
    assert len(tell(parameters("fc1"))) == 2


def test_no_results_say_nothing() -> None:
    assert sentences(Samples(()), []) == []


def test_doubtful_times_are_named(tell: Make) -> None:
    found = tell(epoch_time("fc1", warnings=["The load average was high."]), epoch_time("baseline"))
    assert found[-1].endswith("; in doubt: times of fc1.")


times = st.lists(st.floats(1, 100), min_size=5, max_size=5)


@settings(max_examples=25, deadline=None)
@given(seconds=st.lists(times, min_size=2, max_size=4), processes=st.integers(1, 5), fast=st.booleans())
def test_faster_is_said_only_where_the_interval_excludes_one(
    seconds: Sequence[Sequence[float]], processes: int, fast: bool
) -> None:
    entries = [in_processes(a, own[:processes], noise=0) for a, own in zip(FIVE, seconds, strict=False)]
    if fast:
        entries += [
            in_processes(a, own[:processes][::-1], noise=0, engine="fast")
            for a, own in zip(FIVE, seconds, strict=False)
        ]
    with tempfile.TemporaryDirectory() as folder:
        samples = together([read(save(Path(folder) / "results.json", entries))])
    told = said(samples)
    found = findings.fastest(groups(samples))
    assert found is not None
    apart = all(r.times and r.times.interval and r.times.interval.low > 1 for r in found.rivals)
    assert any("is the fastest of" in sentence for sentence in told) == apart
    for sentence in told:
        for low, high in intervals_of(sentence, "times as fast as"):
            assert ("no difference" in sentence) or not low <= 1 <= high
        if "is the fastest of" in sentence:
            assert all(high < 1 for _, high in intervals_of(sentence, "times that of", "times the baseline's"))
    if processes < 3:
        assert not any("[" in sentence for sentence in told)


def intervals_of(sentence: str, *words: str) -> list[tuple[float, float]]:
    """The intervals that stand before one of these words."""
    found = re.findall(rf"\[([\d.]+), ([\d.]+)\] (?:{'|'.join(words)})", sentence)
    return [(float(low), float(high)) for low, high in found]


@settings(max_examples=25, deadline=None)
@given(ends=st.lists(st.lists(st.integers(0, 100), min_size=5, max_size=5), min_size=2, max_size=4))
def test_higher_and_lower_are_said_only_where_the_interval_excludes_zero(ends: Sequence[Sequence[int]]) -> None:
    entries: list[Any] = [
        accuracy(a, [0.1] * 14 + [end / 100], seed=seed)
        for a, own in zip(FIVE, ends, strict=False)
        for seed, end in enumerate(own)
    ]
    with tempfile.TemporaryDirectory() as folder:
        samples = together([read(save(Path(folder) / "results.json", entries))])
    (told,) = (sentence for sentence in said(samples) if sentence.startswith("After"))
    found = findings.accuracies(groups(samples))
    assert found is not None
    for effect, verdict in found.effects:
        name, i = effect.series.architecture, effect.interval
        assert (verdict is None) == (f"{name} (" not in told)
        if verdict:
            assert i.low > 0 if verdict == "higher" else i.high < 0
            assert told.index(verdict) < told.index(f"{name} (")


def test_no_published_number_without_the_word(tell: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Published minutes of 1234 and 1 give a factor that nothing measured has."""
    odd = {a: replace(p, epoch_minutes=1234.0 if a == "fc1" else 1.0) for a, p in paper.PUBLISHED.items()}
    monkeypatch.setattr(paper, "PUBLISHED", odd)
    told = tell(in_processes("fc1", 60, noise=0), in_processes("baseline", 600, noise=0), accuracy("fc1", [0.1]))
    numbers = [sentence for sentence in told if "1234" in sentence]
    assert len(numbers) == 1
    assert "(published: 1234 times)" in numbers[0]
    assert numbers[0].count("1234") == 1
