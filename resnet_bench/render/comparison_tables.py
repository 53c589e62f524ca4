"""A comparison as tables and as JSON."""

from __future__ import annotations

import json
from typing import Any

from resnet_bench.analysis.comparison import BASELINE, AccuracyDifference, Comparison, Ratio, Row
from resnet_bench.analysis.differences import Difference
from resnet_bench.render.captions import machine_text
from resnet_bench.render.table import Table, significant
from resnet_bench.render.verdicts import accuracy_text, explanation_text, missing_text, ratio_text, remarks
from resnet_bench.wording import short


def tables(comparison: Comparison) -> list[Table]:
    """The networks; between machines or numbers of threads, what may still be said; what differs between the runs."""
    c = comparison
    caption = (
        f"base: {c.base.path.name} ({machine_text(c.base.machine)}); other: {c.other.path.name} "
        f"({machine_text(c.other.machine)}). Time: ratio of the times of an epoch; {_intervals_text(c)}. "
    )
    several = len({r.engines for r in c.rows}) > 1
    columns = {
        "network": [_row_name(r, several) for r in c.rows],
        "base": [_seconds_cell(r.seconds[0]) for r in c.rows],
        "other": [_seconds_cell(r.seconds[1]) for r in c.rows],
        "epoch time": [_ratio_cell(r.time) for r in c.rows],
    }
    columns["parameters"] = [_parameters_cell(r.parameters) for r in c.rows]
    if any(r.accuracy for r in c.rows):
        columns["accuracy"] = [_accuracy_cell(r.accuracy) for r in c.rows]
        caption += (
            "Accuracy: difference over the test images with Newcombe's 95 % interval, seeds pooled, their scatter with "
            "Student's t."
        )
    if any(r.refused for r in c.rows):
        columns["not comparable (--force)"] = ["; ".join(r.refused) or "–" for r in c.rows]
    rows = [list(cells) for cells in zip(*columns.values(), strict=True)]
    if c.geometric_mean:
        mean = dict.fromkeys(columns, "") | {"network": "geometric mean", "epoch time": ratio_text(c.geometric_mean)}
        rows.append(list(mean.values()))
    notes = [f"Missing: {missing_text(m)}." for m in c.missing]
    if any(r.accuracy and 1 in r.accuracy.seeds for r in c.rows):
        notes.append("Accuracy of a single seed: the interval covers the choice of test images, not that of the seed.")
    notes += [f"† {remark}" for remark in remarks(c)]
    title = f"{c.other.path.name} against {c.base.path.name}" + (" †" if any(c.drifts) else "")
    found = [Table(title, list(columns), rows, caption.strip(), notes)]
    if not c.same_machine or any(r.explanation for r in c.rows):
        found.append(_other_conditions(c, several))
    if c.differences:
        found.append(
            Table(
                "What differs",
                ["setting", "base", "other"],
                [[d.key, *difference_texts(d)] for d in c.differences],
                "Settings and software, the likeliest to matter first, then hardware; clock rates and load left out.",
            )
        )
    return found


def _intervals_text(c: Comparison) -> str:
    """How the intervals of times were made."""
    if c.in_turn:
        return "measured in turn; intervals over pairs of processes, 95 % for all networks together"
    text = "intervals over processes, or over sessions where a file has several, 95 % for all networks together"
    if c.speed and c.speed.factor > 1 and any(r.time and r.time.interval for r in c.rows):
        percent = f"{100 * (c.speed.factor - 1):.0f} %"
        text += f", wider at both ends by {percent}, by which the machine's own speed differed between its calibrations"
    return text


def _other_conditions(c: Comparison, several_engines: bool) -> Table:
    """What may be said although hardware or threads differ."""
    columns = {"network": [_row_name(r, several_engines) for r in c.rows]}
    caption = []
    if not c.same_machine:
        columns[f"verdict: against {BASELINE}, within each machine"] = [_ratio_cell(r.relative) for r in c.rows]
        caption.append(
            f"Between machines only a network's ratio to {BASELINE}, measured within each machine, decides whether it "
            "is faster or slower than before."
        )
    if any(r.explanation for r in c.rows):
        columns["epoch time, explained"] = [_explanation_cell(r) for r in c.rows]
        caption.append(
            "Expected: the ratio of the least times that a step can take on each machine, from the calibration at the "
            "start of each run. It explains and decides nothing."
        )
    rows = [list(cells) for cells in zip(*columns.values(), strict=True)]
    title = "Another machine" if not c.same_machine else "Another number of threads"
    return Table(title, list(columns), rows, " ".join(caption))


def as_dict(comparison: Comparison) -> dict[str, Any]:
    """The comparison as JSON holds it.

    - `base`, `other`: `path`, `datetime`, `machine` (one line).
    - `same_machine`: true where verdicts are on `time`; else they are on `relative`.
    - `in_turn`: true for the files of one duel, whose processes are paired.
    - `speed`: how far the machine's own speed differed: `factor`, its fastest over its slowest, by which the intervals
      of `time` are wider at both ends; `seen`, whether calibrations show all of both runs. Null between machines, for
      files of one duel, and without times.
    - `networks`: a list of `architecture`; `engines` [base, other]; `epoch_seconds` [base, other] or null each;
      `time` and `relative` (each null or `verdict`, `ratio` other/base, `low`, `high`, `method`, `processes`, `cause`,
      `text`; `low` to `processes` are null for fewer than three processes; `processes` [base, other] says from how many
      the interval is; `cause` of `cannot tell` is `processes`, for too few, `drift` or `baseline`, else null);
      `verdict`: that of `relative` across machines, else of `time`; null without times; `explanation` (null or
      `expected`, `resource`, `unexplained` like `time`, `text`); `parameters`
      [base, other]; `accuracy` (null or `base`, `other` as fractions of 1, `seeds` [base, other], `epoch`,
      `difference`, `low`, `high`, `method`, `verdict`, `text`); `refused`: reasons, not empty only with `--force`.
    - `geometric_mean`: like `time`; null without times.
    - `missing`: a list of `architecture`, `engine`, `metric` (null where the network is missing), `file` that lacks it.
    - `differences`: a list of `key`, `base`, `other`, the likeliest causes of a difference in time first.
    - `notes`: drift, busy machine, runs that stopped early, results that were left out, what to do to be able to tell.
    """
    c = comparison
    return {
        **{
            side: {"path": str(f.path), "datetime": f.datetime, "machine": machine_text(f.machine)}
            for side, f in (("base", c.base), ("other", c.other))
        },
        "same_machine": c.same_machine,
        "in_turn": c.in_turn,
        "speed": c.speed and {"factor": c.speed.factor, "seen": c.speed.seen},
        "networks": [_row_dict(row) for row in c.rows],
        "geometric_mean": _ratio_dict(c.geometric_mean),
        "missing": [
            {"architecture": m.architecture, "engine": m.engine, "metric": m.metric, "file": m.file} for m in c.missing
        ],
        "differences": [{"key": d.key, "base": finite(d.base), "other": finite(d.other)} for d in c.differences],
        "notes": remarks(c),
    }


def _row_dict(row: Row) -> dict[str, Any]:
    explanation = row.explanation
    accuracy = row.accuracy
    return {
        "architecture": row.architecture,
        "engines": list(row.engines),
        "epoch_seconds": list(row.seconds),
        "verdict": row.judged.verdict if row.judged else None,
        "time": _ratio_dict(row.time),
        "relative": _ratio_dict(row.relative),
        "explanation": explanation
        and {
            "expected": explanation.expected,
            "resource": explanation.resource,
            "unexplained": _ratio_dict(explanation.unexplained),
            "text": _explanation_cell(row),
        },
        "parameters": list(row.parameters),
        "accuracy": accuracy
        and {
            "base": accuracy.base,
            "other": accuracy.other,
            "seeds": list(accuracy.seeds),
            "epoch": accuracy.epoch,
            "difference": accuracy.interval.estimate,
            "low": accuracy.interval.low,
            "high": accuracy.interval.high,
            "method": accuracy.interval.method,
            "verdict": accuracy.verdict,
            "text": accuracy_text(accuracy),
        },
        "refused": list(row.refused),
    }


def _ratio_dict(ratio: Ratio | None) -> dict[str, Any] | None:
    if ratio is None:
        return None
    i = ratio.interval
    return {
        "verdict": ratio.verdict,
        "ratio": i.estimate if i else ratio.estimate,
        "low": i.low if i else None,
        "high": i.high if i else None,
        "method": i.method if i else None,
        "processes": ratio.processes and list(ratio.processes),
        "cause": ratio.cause,
        "text": ratio_text(ratio),
    }


def _row_name(row: Row, several_engines: bool) -> str:
    """The network, with its engine where the table has several."""
    base, other = row.engines
    if base and other and base != other:
        return f"{short(row.architecture)} ({short(base)} → {short(other)})"
    engine = base or other
    return f"{short(row.architecture)} ({short(engine)})" if several_engines and engine else short(row.architecture)


def _ratio_cell(ratio: Ratio | None) -> str:
    return ratio_text(ratio) if ratio else "–"


def _explanation_cell(row: Row) -> str:
    return explanation_text(row.explanation, row.time) if row.explanation and row.time else "–"


def _seconds_cell(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{seconds:,.0f} s" if seconds >= 100 else f"{significant(seconds)} s"


def _parameters_cell(parameters: tuple[int | None, int | None]) -> str:
    base, other = (short(f"{p:,}") if p and p < 10**30 else "–" for p in parameters)
    return base if base == other else f"{base} → {other}"


def _accuracy_cell(accuracy: AccuracyDifference | None) -> str:
    if accuracy is None:
        return "–"
    return f"{100 * accuracy.base:.1f} % → {100 * accuracy.other:.1f} %: {accuracy_text(accuracy)}"


def difference_texts(difference: Difference) -> tuple[str, str]:
    """Both values, short enough for a table."""
    return _value_text(difference.base), _value_text(difference.other)


def _value_text(value: Any) -> str:
    if value is None:
        return "unknown"
    text = " ".join(", ".join(map(str, value)).split() if isinstance(value, list) else str(value).split()) or "none"
    return text if len(text) <= 70 else f"{text[:67]}…"


def finite(value: Any) -> Any:
    """NaN and infinities of a machine's description as strings: JSON has no numbers for them."""
    return json.loads(json.dumps(value), parse_constant=str)
