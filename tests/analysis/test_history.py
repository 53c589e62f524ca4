"""Lines, sessions and steps of saved files, the real ones of eight runs of the same code among them."""

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_bench.analysis.history import history
from resnet_bench.errors import UserError
from resnet_bench.results.reading import read
from resnet_bench.results.samples import Samples, read_all
from tests import handmade as samples

SAME_CODE = sorted((Path(__file__).parents[2] / "reports" / "same-code").glob("*.json"))
START = datetime(2027, 1, 1, tzinfo=timezone.utc)


def session(number, seconds, *, networks=("fc3",), machine=None, **result):
    """The entries and the machine of one session, a day after the one before."""
    name = f"{number:016x}"
    at = (START + timedelta(days=number)).isoformat()
    entries = [samples.in_processes(n, seconds, processes=3, process=name, started_at=at, **result) for n in networks]
    described = {"session": name, "code": {"commit": "a" * 40, "sha256": "1" * 64}, **(machine or {})}
    return entries, samples.machine(**described)


def save(folder, sessions):
    """Files of sessions."""
    return [samples.save(folder / f"{i:04}_run.json", *own) for i, own in enumerate(sessions)]


def course(levels, noise=0.02, seed=1):
    """The seconds of an epoch, scattered about these."""
    return np.asarray(levels) * np.exp(noise * np.random.default_rng(seed).standard_normal(len(levels)))


NEW = {"torch": {"version": "2.15.1"}, "code": {"commit": "b" * 40, "sha256": "2" * 64}}


def regressed(networks=("fc3",)):
    """Six sessions, then six that are slower, with another torch and code."""
    return [
        session(i, s, networks=networks, machine=NEW if i > 5 else None)
        for i, s in enumerate(course([60] * 6 + [67.2] * 6))
    ]


def test_a_step_is_named_with_all_that_changed(tmp_path):
    (line,) = history(read_all(save(tmp_path, regressed()))).lines
    (change,) = line.changes
    assert line.verdict == "slower"
    assert change.since is line.sessions[6]
    assert (change.since.commit, change.since.torch) == ("b" * 40, "2.15.1")
    assert change.ratio.low < 1.12 < change.ratio.high
    assert change.ratio.low > 1
    assert {d.key: (d.base, d.other) for d in change.differences} == {
        "code.commit": ("a" * 40, "b" * 40),
        "torch.version": ("2.15.0", "2.15.1"),
    }
    assert [len(level.sessions) for level in line.levels] == [6, 6]


def test_a_commit_that_changed_no_source_is_no_cause(tmp_path):
    new = {"code": {"commit": "b" * 40, "sha256": "1" * 64}}
    own = [session(i, s, machine=new if i > 5 else None) for i, s in enumerate(course([60] * 6 + [80] * 6))]
    (line,) = history(read_all(save(tmp_path, own))).lines
    assert [change.differences for change in line.changes] == [()]


def test_the_calibrations_tell_that_the_machine_itself_was_slower(tmp_path):
    def machine(i):
        return {"calibration": dict.fromkeys(("start", "end"), samples.calibration(memory=40e9 if i < 6 else 30e9))}

    own = [session(i, s, machine=machine(i)) for i, s in enumerate(course([60] * 6 + [80] * 6))]
    (line,) = history(read_all(save(tmp_path, own))).lines
    assert line.changes[0].speed == pytest.approx({"memory": 0.75, "arithmetic": 1.0})


def test_what_does_not_compare_is_another_line(tmp_path):
    other_cpu = {"cpu": {"model": "Another CPU"}}
    own = [
        session(0, 60),
        session(1, 60, machine=NEW),  # the same line: software may change
        session(2, 60, machine=other_cpu),
        session(3, 60, threads=1),
        session(4, 60, dataset=samples.dataset(name="cifar10", classes=10)),
        session(5, 60, networks=("fc1",)),
        session(6, 60, engine="fast"),
        session(7, 60),
    ]
    (whole_epochs,) = own[7][0]
    whole_epochs |= {"mode": "full", "points": [], "blocks": [b for b in whole_epochs["blocks"] if b["point"] == 0]}
    found = history(read_all(save(tmp_path, own))).lines
    assert sorted(len(line.sessions) for line in found) == [1, 1, 1, 1, 1, 1, 2]


def test_machines_of_unknown_model_are_of_no_kind(tmp_path):
    own = [session(i, 60, machine={"cpu": {"model": "unknown"}}) for i in range(3)]
    assert len(history(read_all(save(tmp_path, own))).lines) == 3


def test_doubtful_sessions_are_shown_and_not_judged(tmp_path):
    own = regressed()
    for entries, _ in own[6:]:
        entries[0]["warnings"] = ["The load average was 9."]
    read_ = read_all(save(tmp_path, own))
    (line,) = history(read_).lines
    assert (len(line.sessions), len(line.judged), line.verdict) == (12, 6, "no step")
    (line,) = history(read_, with_doubtful=True).lines
    assert (len(line.judged), line.verdict) == (12, "slower")


def test_a_session_that_the_time_limit_cut_short_stays_in_its_line(tmp_path):
    """It is doubtful, as its warning says, so that it is shown there and not judged."""
    sessions = [session(i, 60) for i in range(7)]
    for number, (entries, _) in enumerate(sessions):
        for entry in entries:
            entry["mode"], entry["points"] = "full", []
            steps = 30 if number == 3 else entry["steps_per_epoch"]
            entry["blocks"] = [{**b, "steps": steps} for b in entry["blocks"] if b["point"] == 0]
            entry["warnings"] = ["the time limit allowed only the first 30 steps"] if number == 3 else []
    (line,) = history(read_all(save(tmp_path, sessions))).lines
    assert [s.judged for s in line.sessions] == [True] * 3 + [False] + [True] * 3


def test_fewer_than_six_sessions_tell_nothing(tmp_path):
    own = [session(i, s) for i, s in enumerate([60, 60, 90, 90, 90])]
    found = history(read_all(save(tmp_path, own)))
    assert [line.verdict for line in found.lines] == ["too few sessions"]
    assert not found.regressions


def test_copies_count_once_and_arms_of_a_duel_not_at_all(tmp_path):
    own = [session(0, 60), session(0, 60), session(1, 60, machine={"duel": {"id": "x"}})]
    found = history(read_all(save(tmp_path, own)))
    assert [len(line.sessions) for line in found.lines] == [1]
    assert found.notes == ("Left out: 1 result of a duel, whose arms were measured side by side.",)


def test_files_without_epoch_times(tmp_path):
    trained = samples.save(tmp_path / "a.json", [samples.accuracy("fc1")])
    with pytest.raises(UserError, match="hold no epoch times"):
        history(read_all([trained]))
    timed = save(tmp_path, [session(0, 60)])
    assert history(read_all([trained, *timed])).notes == ("Left out: 1 file without epoch times.",)
    with pytest.raises(UserError, match="no epoch time of network fc1; give one of fc3"):
        history(read_all(timed), networks=["fc1"])


def test_older_files_have_the_date_at_which_they_were_saved(tmp_path):
    path = samples.save(tmp_path / "old.json", [samples.epoch_time("fc1")])
    (line,) = history(read_all([path])).lines
    assert f"{line.sessions[0].started:%Y-%m-%d}" == "2026-01-02"
    content = json.loads(path.read_text()) | {"datetime": "yesterday"}
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"no session to show\. Left out: 1 result without a date or a usable time"):
        history(read_all([path]))
    found = history(read_all([path, *save(tmp_path, [session(0, 60)])]))
    assert found.notes == ("Left out: 1 result without a date or a usable time.",)


def test_regressions_are_those_of_the_newest_level(tmp_path):
    slow_spell = [session(i, s) for i, s in enumerate(course([60] * 8 + [80] * 8 + [60] * 8))]
    found = history(read_all(save(tmp_path, slow_spell)))
    assert [line.verdict for line in found.lines] == ["faster"]
    assert not found.regressions
    found = history(read_all(save(tmp_path, slow_spell[:16])))  # writes the same files again; the others stay
    assert len(found.regressions) == 1


@pytest.mark.parametrize(
    ("seconds", "by"),
    [
        ([60] * 8 + [80] * 8 + [75] * 8, [8]),  # faster again, but not back
        ([60] * 8 + [80] * 8 + [58] * 8, []),
        ([60] * 8 + [80] * 8 + [60] * 8 + [70] * 8, [24]),
        ([60] * 8 + [70] * 8 + [85] * 8, [8, 16]),
        ([60] * 8 + [50] * 8 + [58] * 8, [16]),  # faster than at first, but slower than since
        ([60] * 8 + [70] * 8 + [85] * 8 + [70] * 8, [8]),
    ],
)
def test_a_line_fails_until_it_is_back(tmp_path, seconds, by):
    own = [session(i, s) for i, s in enumerate(course(seconds, noise=0.005))]
    found = history(read_all(save(tmp_path, own)))
    (line,) = found.lines
    assert bool(found.regressions) is bool(by)
    assert [line.sessions.index(change.since) for change in line.regressed_by()] == by


@pytest.mark.parametrize(
    ("accept", "accepted"),
    [
        ("2027-01-06", 0),  # the day before the step
        ("2027-01-07", 1),
        ("2027-01-08", 1),
        ("aaaa", 0),
        ("bbbbbbb", 1),
        ("B" * 40, 1),
    ],
)
def test_steps_up_to_a_date_or_commit_are_accepted_and_stay_steps(tmp_path, accept, accepted):
    found = history(read_all(save(tmp_path, regressed())), accept=accept)
    (line,) = found.lines
    assert line.verdict == "slower"
    assert [line.accepts(change) for change in line.changes] == [bool(accepted)]
    assert len(found.regressions) == 1 - accepted


def test_a_step_after_an_accepted_one_is_a_regression(tmp_path):
    new = {"code": {"commit": "b" * 40, "sha256": "2" * 64}}
    seconds = course([60] * 6 + [80] * 6 + [110] * 6)  # the last step without another commit
    own = [session(i, s, machine=new if i > 5 else None) for i, s in enumerate(seconds)]
    for accept in ("2027-01-07", "bbbb"):
        found = history(read_all(save(tmp_path, own)), accept=accept)
        (line,) = found.regressions
        assert [line.accepts(change) for change in line.changes] == [True, False]


def test_a_commit_is_looked_for_line_by_line(tmp_path):
    """Another machine measured it later; one that never did has the date of the first that did."""
    own = regressed()
    for days, cpu in ((3, "late"), (0, "never")):
        for i, s in enumerate(course([60] * 6 + [80] * 6)):
            new = {"code": NEW["code"]} if i > 5 and cpu == "late" else {}
            own.append(session(100 + i + days, s, machine={"cpu": {"model": cpu}, **new}))
    lines = history(read_all(save(tmp_path, own)), accept="bbbb").lines
    assert [[line.accepts(c) for c in line.changes] for line in lines] == [[True], [False], [True]]


@pytest.mark.parametrize(
    ("accept", "message"),
    [
        ("2027-02-30", "neither a date, such as 2027-01-04, nor a commit"),
        ("yesterday", "neither a date, such as 2027-01-04, nor a commit"),
        ("", "neither a date"),
        ("bbb", "neither a date"),  # too short to be meant
        ("cccc", "--accept cccc names no session; give a commit of a session, or a date"),
        ("20270104", "names no session; give a commit of a session, or a date"),
        ("abab", f"names more than one commit: {'ab' * 20}, {'ab' * 19}cd; give"),
    ],
)
def test_what_is_no_date_and_no_commit_is_refused(tmp_path, accept, message):
    own = regressed()
    own += [session(20 + i, 67, machine={"code": {"commit": "ab" * 19 + end}}) for i, end in enumerate(("ab", "cd"))]
    with pytest.raises(UserError, match=message):
        history(read_all(save(tmp_path, own)), accept=accept)


def test_lines_share_the_error(tmp_path):
    """A step that is significant alone is not among nine lines without one (Holm)."""
    alone = course([60] * 3 + [66] * 3, noise=0.01, seed=3)
    own = [session(i, s) for i, s in enumerate(alone)]
    (line,) = history(read_all(save(tmp_path, own))).regressions
    assert 0.005 < line.changes[0].p_value <= 0.05
    for i, (entries, _) in enumerate(own):
        for number in range(9):
            seconds = course([60] * 6, seed=10 + number)[i]
            engine = {"engine": f"engine-{number}", "process": f"{i:016x}"}
            entries.append(samples.in_processes("fc3", seconds, 3, started_at=entries[0]["started_at"], **engine))
    found = history(read_all(save(tmp_path, own)))
    assert len(found.lines) == 10
    assert not found.regressions


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(12)))
def test_the_order_of_the_files_does_not_matter(tmp_path_factory, order):
    folder = tmp_path_factory.mktemp("runs")
    files = [read(path) for path in save(folder, regressed(("fc3", "fc1")))]
    told = [
        [(line.architecture, [s.name for s in line.sessions], [c.since.name for c in line.changes]) for line in h.lines]
        for h in (history(Samples(tuple(files))), history(Samples(tuple(files[i] for i in order))))
    ]
    assert told[0] == told[1]


def scaled(folder, factors):
    """The eight sessions of the same code, with the steps of some files longer by a factor."""
    made = []
    for path in SAME_CODE:
        content = json.loads(path.read_text())
        factor = factors.get(int(path.stem[-1]), 1)
        for benchmark in content["benchmarks"]:
            result = benchmark["extra_info"]
            for block in result.get("blocks", []):
                block["seconds"] *= factor
            result["epoch_seconds"] = None
        made.append(folder / path.name)
        made[-1].write_text(json.dumps(content))
    return made


@pytest.mark.parametrize("factors", [{}, {8: 1.5}, {3: 2}], ids=["as they are", "the last one slow", "one slow"])
def test_eight_real_sessions_of_the_same_code_have_no_step(tmp_path, factors):
    """Nor where one of them is far off: a single session is no level."""
    found = history(read_all(scaled(tmp_path, factors)), with_doubtful=True)
    assert [(line.architecture, len(line.judged)) for line in found.lines] == [("baseline", 8), ("conv5x5", 8)]
    assert [line.verdict for line in found.lines] == ["no step", "no step"]
    assert not found.regressions


def test_a_step_in_the_real_sessions_is_found(tmp_path):
    found = history(read_all(scaled(tmp_path, dict.fromkeys((5, 6, 7, 8), 1.6))), with_doubtful=True)
    assert [line.architecture for line in found.regressions] == ["baseline", "conv5x5"]
    for line in found.lines:
        assert line.changes[0].since.name == "run-5.json"
        assert 1.4 < line.changes[0].ratio.estimate < 1.8


def test_as_they_are_the_real_sessions_are_doubtful():
    found = history(read_all(SAME_CODE))
    assert [line.verdict for line in found.lines] == ["too few sessions"] * 2
