"""Epoch times over many sessions: lines of what is comparable, their steps, and what changed at the same time.

- A line joins what may be compared: one kind of machine, data set, network, setting of the training (engine, pipeline,
  workers, threads, recipe), mode and points of measuring. Runs on another kind of machine are another line. Software,
  code and environment may change along a line, for these changes are what a history is read for.
- A value is a session's mean over its processes. Sessions are the replicates: they differ from one another by more
  than the processes of one session do, so that no session's interval says anything about the next session.
- Sessions whose times are doubtful (with warnings, or cut off) are kept and not judged. The arms of a duel are left
  out: they were measured side by side, and differ on purpose.
- Steps are found by `resnet_bench.analysis.steps`, line by line, each line with an error of about 5 %.
- `regressions` names the lines with a significant step to slower from which they never came back. It judges all
  lines together by Holm's method, so that it names any of the lines in about 5 % of cases where nothing changed. Steps
  up to a date or commit can be accepted: they stay steps, and are no regressions.

Only epoch-time results count; accuracy is no part of it, since a seed decides it and no session does.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, time, timezone
from functools import cached_property, partial
from statistics import fmean
from typing import Any, Literal

from resnet_bench import identity
from resnet_bench.analysis.conditions import step_down
from resnet_bench.analysis.differences import Difference, differences
from resnet_bench.analysis.drift import Resource, speed_change
from resnet_bench.analysis.ratios import independent_ratio
from resnet_bench.analysis.replicates import Replicates, epoch_seconds, replicates
from resnet_bench.analysis.series import in_order
from resnet_bench.analysis.steps import ALIKE, ERROR, LEAST_SESSIONS, Step, steps
from resnet_bench.errors import UserError
from resnet_bench.results.samples import Run, Samples, dataset_keys
from resnet_bench.schema import DatasetInfo, EpochTimeResult, Interval
from resnet_bench.wording import counted

MOST_TOGETHER = int(ERROR * (ALIKE + 1))
"""Lines that can be judged together: the simulation has no p-value that is significant for more."""

Verdict = Literal["slower", "faster", "no step", "too few sessions"]


@dataclass(frozen=True, eq=False)
class Session:
    """What one session measured of one line.

    Attributes:
        started: when the measurement began, UTC.
        name: of the file, without its folder.
        machine: its description.
        times: seconds of an epoch, of each process.
        doubts: why the times are doubtful; empty where nothing was noticed.
        judged: whether steps are looked for in them.
    """

    started: datetime
    name: str
    machine: dict[str, Any]
    times: Replicates
    doubts: tuple[str, ...]
    judged: bool

    @property
    def seconds(self) -> float:
        """Mean of an epoch over the processes."""
        return self.times.mean

    @property
    def code(self) -> dict[str, Any]:
        """`version`, `commit`, `dirty` and `sha256` of the code, as far as the file tells."""
        return identity.part(self.machine, "code")

    @property
    def commit(self) -> str | None:
        """Of the code; None outside a checkout and in older files."""
        found = self.code.get("commit")
        return found if isinstance(found, str) else None

    @property
    def dirty(self) -> bool:
        """Whether the code differed from that of the commit."""
        return self.code.get("dirty") is True

    @property
    def torch(self) -> str | None:
        found = identity.part(self.machine, "torch").get("version")
        return found if isinstance(found, str) else None


@dataclass(frozen=True, eq=False)
class Level:
    """Judged sessions between two steps, at least one."""

    sessions: tuple[Session, ...]

    @property
    def seconds(self) -> float:
        """Geometric mean of an epoch."""
        return math.exp(fmean(math.log(s.seconds) for s in self.sessions))


@dataclass(frozen=True, eq=False)
class Change:
    """A step of a line.

    Attributes:
        before, after: the levels.
        ratio: of the epoch times, after over before. Its interval takes sessions for independent and the place for
            known, so it is too narrow where neighbouring sessions resemble one another.
        p_value: see `steps.Step`.
        differences: what else differs between the last session before and the first one after it, the likeliest causes
            first.
        speed: how many times as fast the machine itself was after it: see `drift.speed_change`.
    """

    before: Level
    after: Level
    ratio: Interval
    p_value: float
    differences: tuple[Difference, ...]
    speed: dict[Resource, float]

    @property
    def since(self) -> Session:
        """The first judged session of the new level."""
        return self.after.sessions[0]

    @property
    def slower(self) -> bool:
        return self.ratio.estimate > 1


@dataclass(frozen=True, eq=False)
class Line:
    """Sessions that may be compared, by their dates.

    Attributes:
        machine_key: equal for lines of one kind of machine.
        dataset_key: equal for lines of one data set and number of images.
        setting: engine, pipeline, workers, threads, what of the recipe decides each step, and how it was measured:
            `mode`, and `points`, the steps of the training before each.
        steps_per_epoch: of the training.
        accepted_until: steps to slower up to then are accepted; None where none are.
    """

    machine_key: str
    dataset_key: str
    architecture: str
    setting: dict[str, Any]
    dataset: DatasetInfo
    steps_per_epoch: int
    sessions: tuple[Session, ...]
    accepted_until: datetime | None = None

    @property
    def engine(self) -> str:
        return str(self.setting["engine"])

    @property
    def machine(self) -> dict[str, Any]:
        """The description in the newest session."""
        return self.sessions[-1].machine

    @cached_property
    def judged(self) -> tuple[Session, ...]:
        return tuple(s for s in self.sessions if s.judged)

    @cached_property
    def _steps(self) -> list[Step]:
        return steps([s.seconds for s in self.judged])

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """What the steps separate; empty without judged sessions."""
        ends = [0, *(step.first for step in self._steps), len(self.judged)]
        return tuple(Level(own) for a, b in itertools.pairwise(ends) if (own := self.judged[a:b]))

    @cached_property
    def changes(self) -> tuple[Change, ...]:
        """The steps, in their order."""
        pairs = itertools.pairwise(self.levels)
        return tuple(_change(*pair, step.p_value) for pair, step in zip(pairs, self._steps, strict=True))

    def accepts(self, change: Change) -> bool:
        """Whether this is a step to slower that was accepted."""
        return bool(change.slower and self.accepted_until and change.since.started <= self.accepted_until)

    def regressed_by(self, error: float = ERROR) -> tuple[Change, ...]:
        """The steps to slower, with p-values of at most `error` and not accepted, from which the line never came back.

        It came back where the interval of a later level over the one before the step begins at or below 1.
        """

        def stays(number: int, change: Change) -> bool:
            return all(_ratio(change.before, later).low > 1 for later in self.levels[number + 2 :])

        return tuple(
            change
            for number, change in enumerate(self.changes)
            if change.slower and change.p_value <= error and not self.accepts(change) and stays(number, change)
        )

    @property
    def verdict(self) -> Verdict:
        """How the newest level is against the one before it."""
        if len(self.judged) < LEAST_SESSIONS:
            return "too few sessions"
        if not self.changes:
            return "no step"
        return "slower" if self.changes[-1].slower else "faster"


@dataclass(frozen=True)
class History:
    """The lines of some files.

    Attributes:
        lines: by machine and data set, as these come first in time; then in the order of the networks.
        notes: what the files hold and the lines do not.
    """

    lines: tuple[Line, ...]
    notes: tuple[str, ...]

    @cached_property
    def regressions(self) -> tuple[Line, ...]:
        """The lines that have become significantly slower and are not back, all judged lines taken together.

        Lines without a step, or whose steps are accepted, count as asked too.
        """
        named = step_down({i: partial(_regressed, line) for i, line in enumerate(self.judged)}, ERROR)
        return tuple(line for i, line in enumerate(self.judged) if i in named)

    @cached_property
    def judged(self) -> tuple[Line, ...]:
        """The lines with enough sessions."""
        return tuple(line for line in self.lines if line.verdict != "too few sessions")


def _regressed(line: Line, error: float) -> bool | None:
    return True if line.regressed_by(error) else None


def history(
    samples: Samples,
    networks: Sequence[str] | None = None,
    engines: Sequence[str] | None = None,
    with_doubtful: bool = False,
    accept: str | None = None,
) -> History:
    """The lines of these files.

    Args:
        networks, engines: only these; None for all.
        with_doubtful: judge sessions with doubts too.
        accept: a date, such as 2027-01-04, or a commit; steps to slower up to the end of that day (UTC), or up to the
            first session of that commit, are accepted.

    Raises:
        UserError: the files hold no epoch times, or none of these networks and engines; `accept` is no date, and no
            commit of a session.
    """
    every = [run for run in samples.runs if isinstance(run.result, EpochTimeResult)]
    if not every:
        raise UserError("The files hold no epoch times; measure them with pytest benchmarks --benchmark-save=NAME.")
    wanted = _named(_named(every, "network", networks, lambda r: r.architecture), "engine", engines, lambda r: r.engine)
    datasets = dataset_keys(wanted)
    found: dict[str, dict[str, list[Run]]] = {}
    duels = dateless = 0
    for run in wanted:
        if "duel" in run.machine:
            duels += 1
        elif _started([run]) is None or replicates(_values(run)) is None:
            dateless += 1
        else:
            session = run.session or run.file.sha256
            found.setdefault(_line_key(run, datasets[id(run)]), {}).setdefault(session, []).append(run)
    lines = [_line(key, by_session, with_doubtful) for key, by_session in found.items()]
    if accept is not None:
        lines = _accepting(accept, lines)
    notes = [
        _note(sum(not file.of_kind(EpochTimeResult) for file in samples.files), "file", "without epoch times"),
        _note(duels, "result", "of a duel, whose arms were measured side by side"),
        _note(dateless, "result", "without a date or a usable time"),
    ]
    if not lines:
        raise UserError(f"There is no session to show. {' '.join(filter(None, notes))}")
    return History(tuple(_in_order(lines)), tuple(filter(None, notes)))


def _named(runs: Sequence[Run], what: str, names: Sequence[str] | None, name_of: Callable[[Any], str]) -> list[Run]:
    """The runs of these networks or engines; `UserError` for a name that none of them has."""
    there = dict.fromkeys(name_of(run.result) for run in runs)
    for name in names or ():
        if name not in there:
            raise UserError(f"The files hold no epoch time of {what} {name}; give one of {', '.join(there)}.")
    return [run for run in runs if names is None or name_of(run.result) in names]


def _note(count: int, what: str, why: str) -> str:
    return f"Left out: {counted(count, what)} {why}." if count else ""


def _in_order(lines: Sequence[Line]) -> Iterable[Line]:
    """By the first session of machine and data set, network, engine, and all that tells lines apart."""
    networks = in_order(sorted({line.architecture for line in lines}))

    def place(line: Line) -> tuple[str, str]:
        return line.machine_key, line.dataset_key

    first: dict[tuple[str, str], datetime] = {}
    for line in lines:
        first[place(line)] = min(line.sessions[0].started, first.get(place(line), line.sessions[0].started))
    return sorted(
        lines,
        key=lambda line: (
            first[place(line)],
            place(line),
            networks.index(line.architecture),
            line.engine,
            json.dumps([line.setting, line.dataset.model_dump()], sort_keys=True, default=str),
        ),
    )


# ---------------------------------------------------------------------------------------------------------------------
# Lines


def _line_key(run: Run, dataset: str) -> str:
    """Equal for results that one line may join."""
    r = run.result
    assert isinstance(r, EpochTimeResult)
    # the mode, not what was measured of it: a session whose epochs were cut off stays in its line, and is not judged
    measured = [r.mode, [p.step for p in r.points], r.steps_per_epoch]
    return json.dumps([_machine_key(run), r.architecture, run.setting, dataset, measured], sort_keys=True)


def _machine_key(run: Run) -> str:
    """Equal for machines of one kind, as `identity.same_machine` compares them; what a file does not tell counts.

    A machine of unknown model is of no kind, so that each of its sessions is alone.
    """
    machine = identity.machine_of(run.machine)
    model = machine["cpu_model"]
    if not isinstance(model, str) or model.strip().lower() in ("", "unknown"):
        return f"{run.session or run.file.sha256}"
    return identity.digest({k: v for k, v in machine.items() if k not in identity.NO_OTHER_MACHINE})


def _line(key: str, by_session: dict[str, list[Run]], with_doubtful: bool) -> Line:
    sessions = {name: _session(runs, with_doubtful) for name, runs in by_session.items()}
    ordered = sorted(sessions, key=lambda name: (sessions[name].started, name))  # the same in any order of the files
    newest = by_session[ordered[-1]][0]
    machine_key, _, _, dataset_key, _ = json.loads(key)
    r = newest.result
    assert isinstance(r, EpochTimeResult)
    return Line(
        machine_key=machine_key,
        dataset_key=dataset_key,
        architecture=r.architecture,
        setting={**newest.setting, "mode": r.mode, "points": [p.step for p in r.points]},
        dataset=r.dataset,
        steps_per_epoch=r.steps_per_epoch,
        sessions=tuple(sessions[name] for name in ordered),
    )


def _session(runs: Sequence[Run], with_doubtful: bool) -> Session:
    runs = sorted(runs, key=lambda run: (run.file.sha256, run.result.started_at or ""))
    times = replicates(value for run in runs for value in _values(run))
    started = _started(runs)
    assert times
    assert started
    doubts: dict[str, None] = {}
    for run in runs:
        assert isinstance(run.result, EpochTimeResult)
        doubts |= dict.fromkeys(run.result.warnings)
        if not run.result.complete:
            doubts["it was cut off"] = None
    return Session(started, runs[0].file.path.name, runs[0].machine, times, tuple(doubts), with_doubtful or not doubts)


def _values(run: Run) -> list[tuple[Any, float]]:
    """The seconds of an epoch that each process says, as `replicates` takes them."""
    assert isinstance(run.result, EpochTimeResult)
    return list(epoch_seconds(run.result, ""))


def _started(runs: Iterable[Run]) -> datetime | None:
    """When the first of them began or, in older files, was saved; None where no file tells."""
    told = [_date(run.result.started_at or run.file.datetime) for run in runs]
    return min((date for date in told if date), default=None)


def _date(text: str) -> datetime | None:
    """ISO 8601 as UTC, also without a time zone; None for a text that is no date."""
    try:
        date = datetime.fromisoformat(text.replace("Z", "+00:00"))
        return date.replace(tzinfo=timezone.utc) if date.tzinfo is None else date.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None


def _accepting(accept: str, lines: Sequence[Line]) -> list[Line]:
    """The lines with the moment up to which their steps are accepted."""
    if re.fullmatch(r"\d{4}-\d\d-\d\d", accept) and (day := _date(accept)):
        end = datetime.combine(day.date(), time.max, timezone.utc)
        return [replace(line, accepted_until=end) for line in lines]
    if not re.fullmatch(r"[0-9a-f]{4,40}", accept.lower()):
        raise UserError(f"--accept {accept} is neither a date, such as 2027-01-04, nor a commit; give one of the two.")
    first: list[dict[str, datetime]] = []  # session of each such commit, line by line
    for line in lines:
        own = [s for s in line.sessions if s.commit and s.commit.startswith(accept.lower())]
        first.append({s.commit: s.started for s in reversed(own) if s.commit})
    commits = sorted({commit for own in first for commit in own})
    if len(commits) != 1:
        which = f"more than one commit: {', '.join(commits)}" if commits else "no session"
        raise UserError(f"--accept {accept} names {which}; give a commit of a session, or a date, such as 2027-01-04.")
    (commit,) = commits
    anywhere = min(own[commit] for own in first if own)
    return [replace(line, accepted_until=own.get(commit, anywhere)) for line, own in zip(lines, first, strict=True)]


# ---------------------------------------------------------------------------------------------------------------------
# Changes


def _change(before: Level, after: Level, p_value: float) -> Change:
    ratio = _ratio(before, after)
    sides = [[s.machine for s in level.sessions] for level in (before, after)]
    found = _told_once(differences(sides[0][-1], sides[1][0]))
    return Change(before, after, ratio, p_value, tuple(found), speed_change(*sides))


def _ratio(before: Level, after: Level) -> Interval:
    ratio = independent_ratio([s.seconds for s in before.sessions], [s.seconds for s in after.sessions])
    assert ratio  # a level has enough sessions
    return ratio


def _told_once(found: Sequence[Difference]) -> list[Difference]:
    """Without what says again that the code is another one, and without a commit that changed no source."""
    code = {d.key: d for d in found if d.key.startswith("code.")}
    kept = next((code[k] for k in ("code.commit", "code.version", "code.sha256") if k in code), None)
    if "code.sha256" not in code:
        kept = None
    return ([kept] if kept else []) + [d for d in found if d.key not in code]
