"""What a duel found, as sentences, tables and JSON."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from resnet_bench.analysis.agreement import MARGIN
from resnet_bench.analysis.comparison import Ratio
from resnet_bench.analysis.duel import PHASES, Accuracies, Duel, Network, Opponent, Quantity
from resnet_bench.render.comparison_tables import difference_texts
from resnet_bench.render.table import Format, Table, paragraph, significant
from resnet_bench.render.verdicts import ratio_text
from resnet_bench.wording import counted

MEBIBYTE = 2**20


def sentence(arm: str, first: str, ratio: Ratio) -> str:
    """`new against old: 1.08× faster [1.05, 1.11]`."""
    return f"{arm} against {first}: {ratio_text(ratio)}"


def headline(duel: Duel, opponent: Opponent) -> str:
    """`new: 1.08× faster [1.05, 1.11] than old over 5 networks, in 8 rounds`."""
    text, count = ratio_text(opponent.overall), len(opponent.networks)
    joint = " than " if opponent.overall.verdict in ("faster", "slower") else " against "
    return (
        f"{opponent.arm}: {text}{joint}{duel.first} over {counted(count, 'network')}, "
        f"in {counted(opponent.rounds, 'round')}"
    )


def render(duel: Duel, format_: Format) -> str:
    """The headline of each arm, then its tables."""
    parts = [headline(duel, opponent) for opponent in duel.opponents]
    above = "\n\n".join(map(paragraph, parts)) if format_ == "markdown" else "\n".join(parts)
    return "\n\n".join([above, *(t.render(format_) for o in duel.opponents for t in tables(duel, o))])


def tables(duel: Duel, opponent: Opponent) -> list[Table]:
    """Networks, phases and what differs between the arms."""
    first, arm, networks = duel.first, opponent.arm, opponent.networks
    columns = {
        "network": [n.architecture for n in networks],
        f"{first} (s)": [significant(n.epoch_seconds.first) for n in networks],
        f"{arm} (s)": [significant(n.epoch_seconds.other) for n in networks],
        "epoch time": [_cell(n.epoch_seconds) for n in networks],
        "peak memory": [_memory_cell(n.memory) for n in networks],
    }
    measured = [n.accuracy for n in networks if n.accuracy]
    caption = (
        "Epoch time: mean over the training; ratios are paired by round, with 95 % intervals by Student's t on their "
        "logarithms for all networks together. Peak memory: what training the network added to the process, MiB."
    )
    if measured:
        columns[f"accuracy, within {100 * MARGIN:g} points"] = [_accuracy_cell(n.accuracy) for n in networks]
        caption += (
            f" Accuracy: the same seeds with both arms; equivalent where two one-sided t tests at 5 % place the "
            f"difference within ±{100 * MARGIN:g} points."
        )
    notes = [] if measured else ["Accuracy was not measured: --accuracy-epochs N compares it after N epochs."]
    rows = [list(cells) for cells in zip(*columns.values(), strict=True)]
    found = [
        Table(f"{arm} against {first}", list(columns), rows, caption, notes),
        Table(
            f"Phases of a step: {arm} against {first}",
            ["network", *PHASES],
            [[n.architecture, *(_phase_cell(n.phases[p]) for p in PHASES)] for n in networks],
            f"Milliseconds of {first} → {arm}, and their ratio (below 1 is faster) with its 95 % interval, for all "
            "cells together.",
        ),
    ]
    if opponent.comparison.differences:
        found.append(
            Table(
                f"What differs: {arm} and {first}",
                ["setting", first, arm],
                [[d.key, *difference_texts(d)] for d in opponent.comparison.differences],
            )
        )
    return found


def _cell(quantity: Quantity) -> str:
    return ratio_text(quantity.ratio) if quantity.ratio else "–"


def _phase_cell(quantity: Quantity) -> str:
    text = f"{_milliseconds(quantity.first)} → {_milliseconds(quantity.other)}"
    if quantity.ratio is None or quantity.ratio.interval is None:
        return text
    i = quantity.ratio.interval
    return f"{text}: {i.estimate:.2f} [{i.low:.2f}, {i.high:.2f}]"


def _milliseconds(seconds: float) -> str:
    return significant(1000 * seconds)


def _memory_cell(quantity: Quantity | None) -> str:
    if quantity is None:
        return "–"
    text = f"{quantity.first / MEBIBYTE:.0f} → {quantity.other / MEBIBYTE:.0f}"
    if quantity.ratio is None or quantity.ratio.interval is None:
        return text
    i = quantity.ratio.interval
    return f"{text}: {i.estimate:.2f} [{i.low:.2f}, {i.high:.2f}]"


def _accuracy_cell(found: Accuracies | None) -> str:
    if found is None:
        return "–"
    numbers = f"{100 * fmean(found.first):.1f} → {100 * fmean(found.other):.1f} %, {100 * found.difference:+.1f}"
    verdict, i = found.equivalence.verdict, found.equivalence.interval
    if i is None:
        return f"{numbers} points: {verdict} from {counted(len(found.first), 'seed')}"
    return f"{numbers} [{100 * i.low:+.1f}, {100 * i.high:+.1f}] points: {verdict}"


def as_dict(duel: Duel) -> dict[str, Any]:
    """The result as JSON.

    - `first`: the arm that the others are compared with.
    - `arms`: a list of `arm`; `rounds`; `text`, the headline; `epoch_time` over all networks; `networks`, a list of
      `architecture`, `epoch_time`, `phases` (by name), `peak_memory`, `accuracy` (null where not measured);
      `differences` of the set-ups: `key`, `first`, `other`.
    - A quantity has `first`, `other` (seconds of an epoch, seconds of a step, bytes), `verdict`, `ratio`, `low`,
      `high`.
    - `accuracy` has `first`, `other`, `seeds`, `difference`, `low`, `high` (of 90 %), `margin` (all as fractions of 1),
      `verdict`.
    """
    return {
        "first": duel.first,
        "arms": [
            {
                "arm": o.arm,
                "rounds": o.rounds,
                "text": headline(duel, o),
                "epoch_time": _ratio_dict(o.overall),
                "networks": [_network_dict(n) for n in o.networks],
                "differences": [
                    {"key": d.key, "first": first, "other": other}
                    for d in o.comparison.differences
                    for first, other in [difference_texts(d)]
                ],
            }
            for o in duel.opponents
        ],
    }


def _network_dict(network: Network) -> dict[str, Any]:
    return {
        "architecture": network.architecture,
        "epoch_time": _quantity_dict(network.epoch_seconds),
        "phases": {p: _quantity_dict(q) for p, q in network.phases.items()},
        "peak_memory": _quantity_dict(network.memory) if network.memory else None,
        "accuracy": _accuracy_dict(network.accuracy) if network.accuracy else None,
    }


def _quantity_dict(quantity: Quantity) -> dict[str, Any]:
    return {"first": quantity.first, "other": quantity.other, **_ratio_dict(quantity.ratio)}


def _ratio_dict(ratio: Ratio | None) -> dict[str, Any]:
    if ratio is None:
        return dict.fromkeys(("verdict", "ratio", "low", "high"))
    if ratio.interval is None:
        return {"verdict": ratio.verdict, "ratio": ratio.estimate, "low": None, "high": None}
    i = ratio.interval
    return {"verdict": ratio.verdict, "ratio": i.estimate, "low": i.low, "high": i.high}


def _accuracy_dict(found: Accuracies) -> dict[str, Any]:
    verdict, i = found.equivalence.verdict, found.equivalence.interval
    return {
        "first": fmean(found.first),
        "other": fmean(found.other),
        "seeds": len(found.first),
        "difference": found.difference,
        "low": i.low if i else None,
        "high": i.high if i else None,
        "margin": MARGIN,
        "verdict": verdict,
    }
