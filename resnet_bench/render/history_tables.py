"""A history as tables, as sentences and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from resnet_bench import identity
from resnet_bench.analysis.differences import Difference
from resnet_bench.analysis.history import MOST_TOGETHER, Change, History, Line, Session
from resnet_bench.analysis.series import Distinction, varying
from resnet_bench.analysis.steps import LEAST_SESSIONS
from resnet_bench.render.captions import dataset_text, fact_text, hardware_text, steps_text, value_text
from resnet_bench.render.comparison_tables import difference_texts, finite
from resnet_bench.render.table import MISSING, Table, significant, with_interval
from resnet_bench.render.verdicts import factor_text
from resnet_bench.wording import counted, short

BARS = "▁▂▃▄▅▆▇█"
STEP = "|"  # in a sparkline
LONGEST_SPARKLINE = 40  # sessions

NO_STEP = "No step was found."
NONE_JUDGED = f"No line could be judged: none has {LEAST_SESSIONS} sessions without doubts."

CALLED = {"torch.version": "torch", "code.commit": "code", "code.version": "code", "code.sha256": "code"}
"""What a key of a machine's description is called in a sentence."""

LEAST_SPEED_CHANGE = 0.05
"""Change of the machine's own speed that is worth telling: calibrations of a free machine mostly agree so well."""

METHOD = (
    "Steps: the double maximum test of Bai and Perron on logarithms, against simulated series as correlated as the "
    f"sessions are, by binary segmentation; about 5 % of lines of at least {LEAST_SESSIONS} sessions have one where "
    "nothing changed, more where neighbours correlate by over 0.5. p: how often no change would give as large a step. "
    "The place of a step is an estimate, seldom more than one session off. The interval of a ratio takes sessions for "
    "independent. A line joins machines of one kind, so that another machine of the same model may make a step too. "
    "Accuracy is no part of a history."
)


def render(history: History) -> str:
    """The history for a terminal: what changed, then the lines."""
    return "\n\n".join(["\n".join(sentences(history)), *(table.render("text") for table in tables(history))])


def sentences(history: History) -> list[str]:
    """One for each step: first those to slower from which a line is not back, then all others, the newest first.

    One sentence says that there is none, or that lines cannot be judged.
    """
    steps = [(line, change) for line in history.lines for change in line.changes]
    if not history.judged:
        return [NONE_JUDGED]
    if not steps:
        return [NO_STEP]
    steps.sort(key=lambda step: step[1].since.started, reverse=True)
    worse = [(line, change) for line, change in steps if line in history.regressions and change in line.regressed_by()]
    return [f"REGRESSION {change_text(history, *step)}" for step in worse] + [
        f"{'accepted: ' if step[0].accepts(step[1]) else ''}{change_text(history, *step)}"
        for step in steps
        if step not in worse
    ]


def change_text(history: History, line: Line, change: Change) -> str:
    """`fast, fc3: 1.12× slower [1.08, 1.16] since 3f2c1a0 on 2027-01-04; torch 2.15.0 → 2.15.1 at the same time`."""
    where = ""
    if len({other.dataset_key for other in history.lines}) > 1:
        where += f", {dataset_text(line.dataset)}"
    if len({other.machine_key for other in history.lines}) > 1:
        where += f" on {machine_name(history, line)}"
    together = [_difference_text(d) for d in change.differences[:4]]
    together += [f"{len(change.differences) - 4} more"] if len(change.differences) > 4 else []
    text = f"{name(history, line)}{where}: {change_size_text(change)} since {since_text(change.since)}"
    text += f" (p {change.p_value:.4f})"
    text += f"; {', '.join(together)} at the same time" if together else "; the files tell of nothing that changed"
    return text + "".join(f"; {told}" for told in speed_texts(change))


def change_size_text(change: Change) -> str:
    """`1.12× slower [1.08, 1.16]`."""
    return factor_text(change.ratio, "slower" if change.slower else "faster")


def since_text(session: Session) -> str:
    """`3f2c1a0 on 2027-01-04`, or the date alone. A commit whose code was changed before the run is called so."""
    date = f"{session.started:%Y-%m-%d}"
    changed = " with uncommitted changes" if session.dirty else ""
    return f"{session.commit[:7]}{changed} on {date}" if session.commit else date


def speed_texts(change: Change) -> list[str]:
    """`the machine's own memory bandwidth was 0.91 of before`, where the calibrations of the levels differ so much."""
    words = {"memory": "memory bandwidth", "arithmetic": "arithmetic rate"}
    return [
        f"the machine's own {words[resource]} was {speed:.2f} of before"
        for resource, speed in change.speed.items()
        if abs(speed - 1) >= LEAST_SPEED_CHANGE
    ]


def _difference_text(difference: Difference) -> str:
    """`torch 2.15.0 → 2.15.1`; digests of code are cut short."""
    code = difference.key in ("code.commit", "code.sha256")
    before, after = (t[:7] if code else t for t in difference_texts(difference))
    return f"{CALLED.get(difference.key, short(difference.key))} {before} → {after}"


def tables(history: History) -> list[Table]:
    """A table of lines for each kind of machine and data set."""
    found = []
    for lines in groups(history):
        several = len({line.dataset.name for line in history.lines}) > 1
        columns = ["line", "sessions", "newest (s)", "level (s)", "lowest to highest (s)", "over time", "newest level"]
        rows = [
            [
                name(history, line),
                _count_text(line),
                _seconds_text(line.sessions[-1]),
                significant(line.levels[-1].seconds) if line.levels else MISSING,
                _range_text(line),
                sparkline(line),
                verdict_text(line),
            ]
            for line in lines
        ]
        caption = f"{machine_name(history, lines[0])}; {dataset_text(lines[0].dataset)}. {_course_caption(lines)}"
        title = f"Epoch times over sessions{f', {short(lines[0].dataset.name)}' if several else ''}"
        found.append(Table(title, columns, rows, caption, [*_doubts(lines)]))
    notes = [*found[-1].notes, METHOD, *history.notes]
    if len(history.judged) > MOST_TOGETHER:
        notes.append(too_many_text(history))
    found[-1] = Table(found[-1].title, found[-1].columns, found[-1].rows, found[-1].caption, notes)
    return found


def too_many_text(history: History) -> str:
    """Why no line of so many can be a regression, and what to do."""
    return (
        f"Of {counted(len(history.judged), 'line')} together no step can be significant; choose at most "
        f"{MOST_TOGETHER} with --network or --engine."
    )


def _course_caption(lines: Sequence[Line]) -> str:
    text = "Brackets: 95 % interval over the processes of a session. Over time: a bar a session, oldest first"
    if any(len(line.sessions) > LONGEST_SPARKLINE for line in lines):
        text += f", the last {LONGEST_SPARKLINE}"
    return f"{text}; {STEP} is a step. Level: the geometric mean of the judged sessions since the last step."


def groups(history: History) -> list[list[Line]]:
    """The lines of each kind of machine and data set."""
    found: dict[tuple[str, str], list[Line]] = {}
    for line in history.lines:
        found.setdefault((line.machine_key, line.dataset_key), []).append(line)
    return list(found.values())


def name(history: History, line: Line) -> str:
    """`fast, fc3`, with the settings that tell it from other lines of its machine, data set, network and engine."""

    def of(line: Line) -> tuple[str, ...]:
        return line.machine_key, line.dataset_key, line.architecture, line.engine

    alike = [
        {k: v for k, v in other.setting.items() if k != "engine"} for other in history.lines if of(other) == of(line)
    ]
    own = [_setting_text(key, line.setting[key]) for key in varying(alike) if key in line.setting]
    return ", ".join([short(line.engine), short(line.architecture), *own])


def _setting_text(key: str, value: Any) -> str:
    if key == "points":
        return f"timed {steps_text(value) if value else 'at the first steps'}"
    return short(value_text(key, value), 60)


def machine_name(history: History, line: Line) -> str:
    """Its hardware, with what tells it from other machines that are called the same."""
    own, text = identity.machine_of(line.machine), hardware_text(line.machine)
    newest = {other.machine_key: other.machine for other in history.lines}
    every = [identity.machine_of(m) for m in newest.values() if hardware_text(m) == text]
    facts = [
        fact_text(Distinction(key, value, tuple(m[key] for m in every)))
        for key, value in own.items()
        if key not in identity.NO_OTHER_MACHINE and any(m[key] != value for m in every)
    ]
    return f"{short(text, 120)} ({'; '.join(facts)})" if facts else short(text, 120)


def verdict_text(line: Line) -> str:
    """`1.12× slower since 3f2c1a0 on 2027-01-04`, `no step`, `too few sessions: 3 of 6`."""
    if line.verdict == "too few sessions":
        return f"too few sessions: {len(line.judged)} of {LEAST_SESSIONS}"
    if not line.changes:
        return "no step"
    return f"{change_size_text(line.changes[-1])} since {since_text(line.changes[-1].since)}"


def sparkline(line: Line) -> str:
    """A bar for each of the newest sessions, from the shortest epoch of these to the longest on a logarithmic scale."""
    shown = line.sessions[-LONGEST_SPARKLINE:]
    logs = [math.log(s.seconds) for s in shown]
    low, high = min(logs), max(logs)
    first = {id(change.since) for change in line.changes}
    text = ""
    for s, log in zip(shown, logs, strict=True):
        part = (log - low) / (high - low) if high > low else 0.5
        text += (STEP if id(s) in first and text else "") + BARS[min(int(part * len(BARS)), len(BARS) - 1)]
    return text


def _count_text(line: Line) -> str:
    count, judged = len(line.sessions), len(line.judged)
    return str(count) if judged == count else f"{count}, {judged} judged"


def _seconds_text(session: Session) -> str:
    interval = session.times.interval
    return with_interval(session.seconds, (interval.low, interval.high) if interval else None)


def _range_text(line: Line) -> str:
    seconds = [s.seconds for s in line.sessions]
    return f"{significant(min(seconds))} to {significant(max(seconds))}"


def _doubts(lines: Sequence[Line]) -> Iterator[str]:
    """Which sessions were not judged, and why: each reason once, with an example's words."""
    reasons: dict[str, set[tuple[str, str]]] = {}
    for line in lines:
        for s in line.sessions:
            for doubt in s.doubts if not s.judged else ():
                reasons.setdefault(short(doubt, 160), set()).add((f"{s.started}", s.name))
    if reasons:
        files = {session for found in reasons.values() for session in found}
        yield f"{counted(len(files), 'session')} not judged; --with-doubtful judges them too:"
    for reason, found in list(reasons.items())[:5]:
        yield f"{', '.join(sorted({short(file) for _, file in found})[:8])}: {reason}"
    if len(reasons) > 5:
        yield f"and {counted(len(reasons) - 5, 'more reason')}."


def as_dict(history: History) -> dict[str, Any]:
    """The history as JSON holds it; docs/schema.md explains the keys."""
    return {
        "lines": [_line_dict(history, line) for line in history.lines],
        "notes": list(history.notes),
    }


def _line_dict(history: History, line: Line) -> dict[str, Any]:
    return {
        "architecture": line.architecture,
        "engine": line.engine,
        "machine": {"key": line.machine_key, "text": machine_name(history, line)},
        "dataset": line.dataset.model_dump(mode="json"),
        "setting": finite(line.setting),
        "steps_per_epoch": line.steps_per_epoch,
        "verdict": line.verdict,
        "regression": line in history.regressions,
        "sessions": [_session_dict(s) for s in line.sessions],
        "changes": [_change_dict(history, line, change) for change in line.changes],
    }


def _session_dict(session: Session) -> dict[str, Any]:
    interval = session.times.interval
    return {
        "started_at": session.started.isoformat(),
        "file": session.name,
        "commit": session.commit,
        "dirty": session.dirty,
        "torch": session.torch,
        "epoch_seconds": session.seconds,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "processes": len(session.times.values),
        "judged": session.judged,
        "doubts": list(session.doubts),
    }


def _change_dict(history: History, line: Line, change: Change) -> dict[str, Any]:
    return {
        "since": change.since.started.isoformat(),
        "file": change.since.name,
        "commit": change.since.commit,
        "dirty": change.since.dirty,
        "torch": change.since.torch,
        "ratio": change.ratio.estimate,
        "low": change.ratio.low,
        "high": change.ratio.high,
        "p_value": change.p_value,
        "accepted": line.accepts(change),
        "before_seconds": change.before.seconds,
        "after_seconds": change.after.seconds,
        "before_sessions": len(change.before.sessions),
        "after_sessions": len(change.after.sessions),
        "differences": [{"key": d.key, "before": finite(d.base), "after": finite(d.other)} for d in change.differences],
        "machine_speed": {resource: change.speed.get(resource) for resource in ("memory", "arithmetic")},
        "text": change_text(history, line, change),
    }
