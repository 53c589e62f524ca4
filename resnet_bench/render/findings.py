"""What was found, in five sentences at most: what was run, the fastest network, plain PyTorch, accuracy, claims.

Each sentence is put together from `analysis.findings` and is left out where the results lack it. Without an interval,
or where an interval does not tell, the sentence says so.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from resnet_bench import paper
from resnet_bench.analysis import findings
from resnet_bench.analysis.claims import (
    FAILS_ELSEWHERE,
    HOLDS_ELSEWHERE,
    NOT_REPRODUCED,
    REPRODUCED,
    UNDECIDED,
    JudgedClaim,
)
from resnet_bench.analysis.effects import BASELINE, Effect, differing
from resnet_bench.analysis.findings import Accuracies, BesidePlain, Fastest, Judged
from resnet_bench.analysis.series import Group, groups, in_order, parameter_counts
from resnet_bench.analysis.speed import Ratio
from resnet_bench.intervals import LEAST_VALUES
from resnet_bench.render import scale_tables
from resnet_bench.render.captions import count_text, cpu_name, dataset_text, with_settings
from resnet_bench.render.speed_tables import ratio_with_interval, replicates_text, time_marks
from resnet_bench.render.table import significant
from resnet_bench.results.samples import Samples
from resnet_bench.schema import ExplainResult, ScaleResult
from resnet_bench.wording import counted, listed, short

GROUPS_NAMED = 2
"""So many machines and data sets are named; of more, the number is told."""

EFFECTS_NAMED = 10
"""So many effects under other settings are named; of more, the number is told."""


def sentences(samples: Samples, judged: Sequence[JudgedClaim]) -> list[str]:
    """Five sentences, or fewer where the results say less. Where `resnet-bench scale` alone measured, its answers too.

    Args:
        judged: the claims, judged by the same samples; none where these have nothing to judge them by.
    """
    found = groups(samples)
    fastest, plain, accuracies = findings.fastest(found), findings.beside_plain(found), findings.accuracies(found)
    made = [
        _what_was_run(found, samples),
        fastest and _fastest(fastest),
        plain and _beside_plain(plain),
        accuracies and _accuracies(accuracies),
        _claims(judged, found) if judged else "",
        *([] if found else scale_tables.sentences(samples)),
    ]
    return [sentence for sentence in made if sentence]


def _what_was_run(found: Sequence[Group], samples: Samples) -> str:
    if not found:
        counts = parameter_counts(samples)
        done = [f"the parameters of {counted(len(counts), 'network')} were counted"] if counts else []
        for run in samples.of_kind(ExplainResult):
            done.append(f"a step of {run.architecture} was taken apart beside one of {run.counterpart}")
        done += [f"early steps were timed by {r.varied.replace('-', ' ')}" for r in samples.of_kind(ScaleResult)]
        return _sentence(f"{listed(dict.fromkeys(done))}; nothing was trained or timed as a whole") if done else ""
    texts: dict[str, int] = {}
    for group in sorted(found, key=lambda g: -len({s.architecture for s in g.series})):
        texts[_done(group)] = texts.get(_done(group), 0) + 1
    named = [f"{text}{f' (in {n} versions)' if n > 1 else ''}" for text, n in list(texts.items())[:GROUPS_NAMED]]
    if more := sum(list(texts.values())[GROUPS_NAMED:]):
        named.append(f"{more} more {'set of results is' if more == 1 else 'sets of results are'} in the details")
    return _sentence("; ".join(named))


def _done(group: Group) -> str:
    """`5 networks were trained (1 epoch, 1 seed) and timed on cifar100 (…) with Some CPU`."""
    networks = {s.architecture for s in group.series}
    trained = [s for s in group.series if s.accuracies]
    done = {}
    if trained:
        epochs = _span([len(r.epochs) for s in trained for r in s.accuracies], "epoch")
        seeds = _span([len(s.accuracies) for s in trained], "seed")
        done[f"trained ({epochs}, {seeds})"] = {s.architecture for s in trained}
    if timed := {s.architecture for s in group.series if s.times}:
        done["timed"] = timed
    if all(names == networks for names in done.values()):
        text = f"{_networks(networks)} {' and '.join(done)}"
    else:
        text = " and ".join(f"{_networks(names)} {what}" for what, names in done.items())
    return f"{text} on {dataset_text(group.dataset)} with {short(cpu_name(group.machine))}"


def _networks(names: Collection[str]) -> str:
    return f"{counted(len(names), 'network')} {'was' if len(names) == 1 else 'were'}"


def _fastest(found: Fastest) -> str:
    first = found.series.architecture
    every = f"the {len(found.rivals) + 1} networks timed with {_engine_text(found.series.engine, found.plain)}"
    step = f"{replicates_text(found.step, 1e-3)} ms"
    if found.equals:
        ratios = [rival.times for rival in found.rivals]
        if all(ratio is None or ratio.interval is None for ratio in ratios):
            last = found.rivals[-1]
            return (
                f"In {count_text(found.step)}, too few for a verdict, {first} had the shortest step of {every}, "
                f"{step}, and {last.series.architecture} the longest{_times_as_long(last.times)}."
            )
        others = listed([f"that of {r.series.architecture} took {_times(r.times)}" for r in found.equals])
        return (
            f"Which of {every} is the fastest cannot be told: {first} had the shortest step, {step}, and {others} "
            "times as long."
        )
    next_ = found.rivals[0]
    against = [f"{_times(_inverse(next_.times))} times that of {next_.series.architecture}, the next"]
    baseline = found.baseline
    if baseline and baseline is not next_:
        against.append(f"{_times(_inverse(baseline.times))} times the baseline's")
    published = ""
    if baseline and first in paper.PUBLISHED:
        minutes = paper.PUBLISHED[first].epoch_minutes, paper.PUBLISHED[BASELINE].epoch_minutes
        published = f" (published: {significant(minutes[0] / minutes[1])} times)"
    return f"{first} is the fastest of {every}: a step takes {step}, {', and '.join(against)}{published}."


def _inverse(ratio: Ratio | None) -> Ratio | None:
    """The ratio the other way round."""
    if ratio is None:
        return None
    i = ratio.interval
    turned = i and i.model_copy(update={"estimate": 1 / i.estimate, "low": 1 / i.high, "high": 1 / i.low})
    return Ratio(1 / ratio.value, turned, ratio.count, ratio.unit)


def _times(ratio: Ratio | None) -> str:
    return ratio_with_interval(ratio) if ratio else "an unknown part (no process measured both)"


def _times_as_long(ratio: Ratio | None) -> str:
    return f", {ratio_with_interval(ratio)} times that" if ratio else ""


def _beside_plain(found: Sequence[BesidePlain]) -> str:
    return _sentence("; ".join(map(_engine_beside_plain, found)))


def _engine_beside_plain(found: BesidePlain) -> str:
    """`with the engine fast, a step of fc1 is 1.94 [1.90, 1.98] times as fast as with plain PyTorch`."""
    engine = _engine_text(found.engine, plain=False)
    ordered = sorted(found.networks, key=lambda network: network[1].value)
    (slowest, least), (quickest, most) = ordered[0], ordered[-1]
    of, ratio = ("the study's five networks, summed,", found.five) if found.five else (quickest, most)
    times = ratio_with_interval(ratio)
    text = f"with {engine}, a step of {of} is {times} times as fast as with plain PyTorch{_same(ratio)}"
    if found.five:
        text += f", from {ratio_with_interval(least)} ({slowest}) to {ratio_with_interval(most)} ({quickest})"
    elif slowest != quickest:
        text += f", and one of {slowest} {ratio_with_interval(least)} times{_same(least)}"
    return text if ratio.interval else f"{text}, in {count_text(ratio)}, too few for an interval"


def _same(ratio: Ratio) -> str:
    """Says where the interval does not tell a difference."""
    i = ratio.interval
    return " (no difference that can be told)" if i and i.low <= 1 <= i.high else ""


def _accuracies(found: Accuracies) -> str:
    parts = [_under_one_setting(found), _other_effects_text(found)]
    return f"{'; '.join(filter(None, parts))}."


def _under_one_setting(found: Accuracies) -> str:
    dataset = found.group.dataset
    epochs = [len(r.epochs) for s in found.series for r in s.accuracies]
    seeds = [len(s.accuracies) for s in found.series]
    trained = f"After {_span(epochs, 'epoch')} and with {_span(seeds, 'seed')} on {dataset.name}"
    caveats = [f"guessing: {100 / dataset.classes:.3g} %"]
    if dataset.synthetic:
        caveats.append("drawn images, which say nothing about real ones")
    if dataset.subset:
        caveats.append(f"a subset of {dataset.train_images:,} training images, so lower than with all")
    if not all(s.complete for s in found.series):
        caveats.append("stopped early")
    about = f"{trained} ({'; '.join(caveats)})"
    own = with_settings(found.series[0].setting, [key for key in found.varying if key != "epochs"])  # told already
    setting = f" with {own}" if own else ""
    if found.effects:
        return f"{about} {_effects_text(found, setting)}"
    ends = [(s.architecture, end) for s in found.series if (end := s.final_accuracy())]
    if len(ends) == 1:
        (name, end), *_ = ends
        interval = f" [{100 * end.low:.1f}, {100 * end.high:.1f}]"
        return f"{about} the final accuracy of {name}{setting} is {_percent(end.estimate)}{interval}"
    low, high = (pick(ends, key=lambda end: end[1].estimate) for pick in (min, max))
    reason = (
        f"fewer than {LEAST_VALUES} seeds tell no networks apart"
        if min(seeds) < LEAST_VALUES
        else "no baseline is there to set them against"
    )
    return (
        f"{about} final accuracies{setting} lie between {_percent(low[1].estimate)} ({low[0]}) and "
        f"{_percent(high[1].estimate)} ({high[0]}); {reason}"
    )


def _effects_text(found: Accuracies, setting: str) -> str:
    parts = _told(found.effects)
    open_ = [effect.series.architecture for effect, verdict in found.effects if verdict is None]
    if open_:
        parts.append(f"not to be told from it for {listed(open_)}")
    baseline = found.effects[0][0].control.final_accuracy()
    mean = f" of {_percent(baseline.estimate)}" if baseline else ""
    return f"the final accuracy{setting}, against the baseline's{mean}, is {listed(parts)}"


def _told(judged: Sequence[Judged]) -> list[str]:
    """`higher for fc1 (+0.9 points [+0.2, +1.6])`, then what is lower."""
    told = {verdict: [_effect_text(effect) for effect, own in judged if own == verdict] for verdict in _VERDICTS}
    return [f"{verdict} for {listed(networks)}" for verdict, networks in told.items() if networks]


_VERDICTS = ("higher", "lower")


def _other_effects_text(found: Accuracies) -> str:
    """Of networks under the other settings and of schedules: those that can be told; empty where there are none."""
    told = [(effect, verdict) for effect, verdict in found.others if verdict]
    if not found.others:
        return ""
    of = [
        text
        for text, there in (
            ("networks under other settings", any(effect.of_network for effect, _ in found.others)),
            ("schedules", any(not effect.of_network for effect, _ in found.others)),
        )
        if there
    ]
    every = f"{counted(len(found.others), 'effect')} of {' and of '.join(of)}"
    if not told:
        return f"none of {every} can be told"
    if len(told) > EFFECTS_NAMED:
        higher, lower = (sum(own == verdict for _, own in told) for verdict in _VERDICTS)
        return f"of {every}, which are in the tables, {higher} raise the accuracy and {lower} lower it"
    clauses: dict[str, list[Judged]] = {}
    for effect, verdict in told:
        clauses.setdefault(_change(found, effect), []).append((effect, verdict))
    parts = [f"{change} it is {listed(_told(own))}" for change, own in clauses.items()]
    if rest := len(found.others) - len(told):
        parts.append(f"{'one' if rest == 1 else f'the other {rest}'} of {every} cannot be told")
    return "; ".join(parts)


def _change(found: Accuracies, effect: Effect) -> str:
    """`with the cosine schedule, against the baseline's,`, or `with the cosine schedule instead of a constant rate`."""
    changed = differing(effect.series, effect.control)
    same = with_settings(effect.series.setting, [key for key in found.varying if key not in changed])
    if effect.of_network:
        return f"with {same or 'another setting'}, against the baseline's,"
    new, old = (with_settings(s.setting, changed) for s in (effect.series, effect.control))
    return f"with {f'{same}, and ' if same else ''}{new} instead of {old}{',' if same else ''}"


def _effect_text(effect: Effect) -> str:
    """`fc1 (+0.9 points [+0.2, +1.6])`."""
    estimate, low, high = (100 * x for x in (effect.interval.estimate, effect.interval.low, effect.interval.high))
    return f"{effect.series.architecture} ({estimate:+.1f} points [{low:+.1f}, {high:+.1f}])"


def _claims(judged: Sequence[JudgedClaim], found: Sequence[Group]) -> str:
    counts = {outcome: sum(j.outcome == outcome for j in judged) for outcome in {j.outcome for j in judged}}
    words = {
        REPRODUCED: "reproduced",
        NOT_REPRODUCED: "not reproduced",
        HOLDS_ELSEWHERE: "found to hold on other images",
        FAILS_ELSEWHERE: "found not to hold on other images",
        UNDECIDED: "undecided",
    }
    parts = [f"{counts[o]} {'is' if counts[o] == 1 else 'are'} {word}" for o, word in words.items() if counts.get(o)]
    doubts = _doubts(found)
    told = f"Of {len(judged)} claims of the study {listed(parts)}"
    if len(counts) == 1:
        told = f"All {len(judged)} claims of the study are {words[judged[0].outcome]}"
    return f"{told}{f'; in doubt: {doubts}' if doubts else ''}."


def _doubts(found: Sequence[Group]) -> str:
    """What makes some results doubtful, each with the networks that it is of; empty where nothing does."""
    every = [s for group in found for s in group.series]
    marked = {
        "times of": [s.architecture for s in every if s.warnings or "wide spread" in time_marks(s)],
        "trainings that stopped early, of": [s.architecture for s in every if s.accuracies and not s.complete],
    }
    doubts = [f"{what} {listed(in_order(names))}" for what, names in marked.items() if names]
    if any(map(findings.drifted, found)):
        doubts.append("a machine whose speed changed during the run")
    return "; ".join(doubts)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _engine_text(engine: str, plain: bool) -> str:
    return "plain PyTorch" if plain else f"the engine {short(engine)}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _span(numbers: Sequence[int], noun: str) -> str:
    """`3 to 5 seeds`."""
    low, high = min(numbers), max(numbers)
    return counted(high, noun) if low == high else f"{low:,} to {counted(high, noun)}"
