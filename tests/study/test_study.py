"""`resnet-bench study`: what it trains, what it goes on with, what it refuses; `study status`, `study add`."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import shlex
from pathlib import Path

import pytest
from PIL import Image

from resnet_bench import cli, files, identity, locks, signals
from resnet_bench.errors import UNFIT, UserError
from resnet_bench.results import reading
from resnet_bench.results.manifest import COPY, MANIFEST, _digest
from resnet_bench.study import folder, packing, running
from resnet_bench.study.folder import StudyFolder
from resnet_bench.study.running import Ended
from resnet_bench.training.checkpoint import CHECKPOINT_FILE
from resnet_bench.training.training import Training
from tests.conftest import locked_by_another_process
from tests.study.conftest import digests, flipped

LOCAL = running.Local  # which the fixture `here` replaces
ZERO, ONE = "conv5x5-reference-0", "conv5x5-reference-1"


def train(options: list[str], seed: int, output: Path) -> str:
    """The weights of the same training alone."""
    alone = {"--architectures", "--seeds", "--output"}
    kept = [o for pair in zip(options[::2], options[1::2], strict=True) if pair[0] not in alone for o in pair]
    with pytest.raises(SystemExit):
        cli.main(["train", "conv5x5", *kept, "--seed", str(seed), "--output", str(output)])
    return reading.read(output).results[0].weights_sha256  # type: ignore[union-attr]


def interrupt(monkeypatch, at: tuple[int, int], error: type[BaseException] = KeyboardInterrupt) -> None:
    """Have the training of seed 1 save its checkpoint and end before this epoch and step."""
    step = Training.train_step

    def stopping(self):
        if (self.seed, self.epoch, self.step) == (1, *at):
            monkeypatch.setattr(Training, "train_step", step)
            self._save()
            raise error
        return step(self)

    monkeypatch.setattr(Training, "train_step", stopping)


def test_each_cell_has_a_result_with_the_digest_of_the_same_training_alone(run, options, tmp_path, here):
    status, out, err = run("study", *options)
    assert (err, status) == ("", 0)
    assert f"{ZERO}: accuracy " in out
    assert "2 of 2 cells finished" in out
    assert "\r" not in out
    assert "\x1b" not in out
    assert digests(tmp_path / "study") == {
        name: train(options, seed, tmp_path / f"{seed}.json") for seed, name in enumerate([ZERO, ONE])
    }
    assert not list((tmp_path / "study/checkpoints").iterdir())


def test_the_same_command_again_trains_nothing_and_the_folder_alone_is_enough(run, options, done, here):
    for arguments in (options, ["--output", str(done)]):
        status, out, _ = run("study", *arguments)
        assert (status, here.trained) == (0, [])
        assert "All 2 cells are finished" in out


def test_report_and_compare_take_the_folder(run, done):
    assert "accuracy of 2 seeds after 2 epochs" in run("report", done)[1].replace("\n", " ")
    assert run("compare", done, done)[0] == 0
    assert run("report", done / "results")[1] == run("report", done)[1]


@pytest.mark.parametrize(("at", "error"), [((1, 1), KeyboardInterrupt), ((2, 2), signals.Terminated)])
def test_after_an_interruption_it_goes_on_from_the_checkpoint(run, options, tmp_path, monkeypatch, here, at, error):
    """With the digests of an undisturbed run, and without training what was finished."""
    interrupt(monkeypatch, at, error)
    monkeypatch.setattr(running, "RETRIES", 0)
    status, _, err = run("study", *options)
    assert status == 1
    assert digests(tmp_path / "study").keys() == {ZERO}
    assert f"{ONE} failed" in err
    here.trained = []
    assert run("study", *options)[0] == 0
    assert here.trained == [ONE]
    assert digests(tmp_path / "study")[ONE] == train(options, 1, tmp_path / "alone.json")


def test_a_cell_that_others_end_is_started_again(run, options, tmp_path, monkeypatch, here):
    interrupt(monkeypatch, (2, 1))
    status, out, _ = run("study", *options)
    assert (status, here.trained) == (0, [ZERO, ONE, ONE])
    assert "it is started again." in out


def test_ctrl_c_says_how_to_go_on(run, options, tmp_path, monkeypatch, here):
    monkeypatch.setattr(here, "ended", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    status, _, err = run("study", *options)
    assert status == 130
    assert err.strip() == (
        "resnet-bench: interrupted; 0 of 2 cells are finished; go on with: resnet-bench study --output "
        f"{tmp_path / 'study'}"
    )


@pytest.mark.parametrize(
    ("error", "status", "word"), [(KeyboardInterrupt, 130, "interrupted"), (signals.Terminated, 143, "terminated")]
)
def test_ctrl_c_before_a_training_says_so(run, options, monkeypatch, here, error, status, word):
    def prepare(*_):
        raise error

    monkeypatch.setattr("resnet_bench.study.planning.new_plan", prepare)
    found, _, err = run("study", *options)
    assert found == status
    assert err.strip() == f"resnet-bench: {word}; run the same command again to go on"


CHANGES = (
    (["--lr", "0.1"], "is another one: lr 0.1 instead of 0.0004; leave those options out"),
    (["--epochs", "3"], "epochs 3 instead of 2"),
    (["--threads", "2"], "threads 2 instead of 1"),
    (["--train-images", "9"], "train_images 9 instead of None"),
    (["--architectures", "fc1"], "architectures fc1, which resnet-bench study add would add"),
    (["--seeds", "0-2"], "seeds 2, which resnet-bench study add would add"),
    (["--engine", "fast"], "engines fast"),
    (["--vary", "lr=1,2"], "--vary lr=1.0,2.0 instead of nothing"),
    (["--profile", "quick"], "train_images 320 instead of None"),
    (["--profile", "paper"], "epochs 15 instead of 2"),
)


def test_another_recipe_is_refused_by_name(run, done, here):
    for change, message in CHANGES:
        status, _, err = run("study", "--output", done, *change)
        assert status == 2
        assert message in err
    assert here.trained == []


def test_images_that_changed_between_runs_are_refused_by_their_digest(run, options, done, images):
    path = next(images.rglob("train/*/*.png"))
    Image.new("RGB", (32, 32)).save(path)
    status, _, err = run("study", *options)
    assert status == 2
    assert "The images of folder:" in err
    assert "are not those that the study in" in err


def test_images_that_moved_are_found_where_the_user_says(run, done, images):
    moved = images.rename(images.with_name("elsewhere"))
    status, _, err = run("study", "--output", done)
    assert status == 2
    assert f"Cannot read the folder {images}: No such file or directory" in err
    (moved.parent / "other").mkdir()
    again = moved.rename(moved.parent / "other" / images.name)
    assert run("study", "--output", done, "--dataset", f"folder:{again}")[0] == 0
    assert run("study", "--output", done)[0] == 0


def test_other_code_is_refused_unless_it_is_to_be_marked(run, done, monkeypatch, here):
    other = {**identity.code(), "sha256": "d" * 64}
    monkeypatch.setattr(identity, "code", lambda: other)
    status, _, err = run("study", "--output", done)
    assert status == 2
    assert "began with other code of this suite" in err
    assert "not dddddddddddd" in err
    assert run("study", "add", done, "--seeds", "2")[0] == 0
    assert run("study", "--output", done, "--allow-other-code")[0] == 0
    assert here.trained == ["conv5x5-reference-2"]
    assert run("study", "--output", done)[0] == 0
    assert "other code dddddddddddd" in run("study", "status", done)[1]
    assert run("study", "status", done)[1].count("other code") == 1


def test_add_extends_the_study_and_nothing_that_is_there_is_trained_again(run, options, done, here):
    status, out, _ = run("study", "add", done, "--seeds", "1-2")
    assert (status, out.splitlines()[0]) == (
        0,
        f"Added: 1 of now 3 cells; train them with: resnet-bench study --output {done}",
    )
    assert run("study", *options)[0] == 0  # the command that began it still goes on with it
    assert here.trained == ["conv5x5-reference-2"]


def test_status_tells_what_is_finished_interrupted_and_not_started(run, options, tmp_path, monkeypatch):
    interrupt(monkeypatch, (2, 1))
    monkeypatch.setattr(running, "RETRIES", 0)
    run("study", *options)
    path = tmp_path / "study"
    run("study", "add", path, "--seeds", "2")
    told = json.loads(run("study", "status", path, "--format", "json")[1])
    assert [(c["state"], c["epochs"]) for c in told["cells"]] == [
        ("finished", 2),
        ("interrupted", 1),
        ("not started", 0),
    ]
    assert told["running"] is False
    assert f"nobody works on it; go on with: resnet-bench study --output {path}" in run("study", "status", path)[
        1
    ].replace("\n", " ")


def test_a_second_writer_is_told_who_holds_the_study(run, options, done):
    """In another process: one process may take its own lock again."""
    with locked_by_another_process(done) as other:
        status, _, err = run("study", *options)
        assert status == 2
        assert f"Another process writes to the study in {done} (process {other.pid} on " in err
        assert "written by process" in run("study", "status", done)[1].replace("\n", " ")
        other.kill()  # and a dead process holds nothing
        other.wait()
        assert not locks.held(done)
        assert run("study", *options)[0] == 0


def test_how_it_was_run_here_is_kept_for_the_next_time(run, options, tmp_path, monkeypatch, here):
    """`--jobs auto` too, and the address of a cluster is in the command that goes on."""
    asked = []
    init = here.__init__

    def note(self, study, jobs, *_):
        asked.append(jobs)
        init(self, study)

    monkeypatch.setattr(here, "__init__", note)
    best = packing.Packing(jobs=7, threads=1, rates=())
    monkeypatch.setattr(packing, "choose", lambda *_: (best, []))
    path = tmp_path / "study"
    assert run("study", *options, "--jobs", "2")[0] == 0
    run("study", "--output", path)
    run("study", "--output", path, "--jobs", "auto")
    run("study", "--output", path)
    run("study", "--output", path, "--jobs", "1")
    assert asked == [2, 2, 7, 7, 1]
    study = StudyFolder.open(path)
    assert study.command == f"resnet-bench study --output {path}"
    study.keep_local(study.local.model_copy(update={"cluster": "tcp://a:1"}))
    assert study.command == f"resnet-bench study --output {path} --cluster tcp://a:1"
    assert "--cluster tcp://a:1" in run("study", "add", path, "--seeds", "5")[1]


def test_the_command_that_goes_on_can_be_given_as_it_is_printed(run, options, tmp_path):
    path = tmp_path / "my study"
    run("study", *options[:-1], str(path))
    assert shlex.split(StudyFolder.open(path).command) == ["resnet-bench", "study", "--output", str(path)]


def test_a_study_that_was_killed_while_it_was_made_is_made(run, options, tmp_path):
    """With only a part of what it writes first."""
    for left in ("lock", ".holder.json.x7", ".study.copy.json.ab", "study.copy.json"):
        (tmp_path / "study").mkdir(exist_ok=True)
        if left == "study.copy.json":
            run("study", *options)
            for path in (tmp_path / "study").iterdir():
                if path.name != left and path.is_file():
                    path.unlink()
        else:
            (tmp_path / "study" / left).write_text("")
    status, _, err = run("study", *options)
    assert (status, err) == (0, "")
    assert {p.name for p in (tmp_path / "study").iterdir()} >= {".gitignore", "study.json", "local.json"}


def test_images_that_changed_cannot_be_let_in_by_add(run, options, done, images):
    path = next(images.rglob("train/*/*.png"))
    before = json.loads((done / MANIFEST).read_text())
    Image.new("RGB", (32, 32)).save(path)
    status, _, err = run("study", "add", done, "--seeds", "2")
    assert status == 2
    assert "are not those that the study in" in err
    assert json.loads((done / MANIFEST).read_text()) == before


def test_a_cell_is_given_up_after_so_many_tries_without_a_new_checkpoint(run, options, tmp_path, monkeypatch, here):
    """A cell that comes further each time goes on however often others end it."""
    tries = []

    def ended(self, seconds):
        cell, self._cell = self._cell, None
        if cell is None:
            return []
        tries.append(cell.seed)
        if cell.seed == 0 and len(tries) < 10:
            path = self.study.begin(cell) / CHECKPOINT_FILE
            path.write_bytes(b"new")
            os.utime(path, ns=(len(tries), len(tries)))
        return [Ended(cell, -9, "was ended by SIGKILL")]

    monkeypatch.setattr(here, "ended", ended)
    assert run("study", *options)[0] == 1
    assert tries.count(1) == 1 + running.RETRIES
    assert tries.count(0) > 1 + running.RETRIES


def test_a_result_says_how_many_trainings_ran_beside_it_at_most(run, options, tmp_path, monkeypatch, here):
    """Where more began on its machine than it knew of; its times do not compare then."""
    end = here.ended
    monkeypatch.setattr(here, "ended", lambda self, s: [dataclasses.replace(e, jobs=3) for e in end(self, s)])
    assert run("study", *options)[0] == 0
    for state in StudyFolder.open(tmp_path / "study").states():
        assert state.state == "finished"
        assert state.result.stretches[-1].jobs == 3
        assert not state.result.epoch_times


# Damage --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("place", "truncated"), [(300, False), (0, True), (-2, True)])
def test_a_damaged_result_is_named_and_only_its_cell_is_computed_again(run, options, done, here, place, truncated):
    before, path = digests(done), done / "results" / f"{ZERO}.json"
    if truncated:
        path.write_bytes(path.read_bytes()[:place])
    else:
        with flipped(path, place):
            pass
    status, _, err = run("report", done)
    assert status == 2
    assert f"{path} is damaged: its checksum is another one" in err
    assert "damaged" in run("study", "status", done)[1]
    status, out, _ = run("study", *options)
    assert (status, here.trained) == (0, [ZERO])
    assert f"{path} is damaged: its checksum is another one. Only {ZERO} is computed again." in out
    assert digests(done) == before


def test_a_result_that_is_gone_is_computed_again(run, options, done, here):
    (done / "results" / f"{ONE}.json").unlink()
    assert run("study", *options)[0] == 0
    assert here.trained == [ONE]


@pytest.mark.parametrize(("name", "place"), [(MANIFEST, 40), (COPY, 400)])
def test_a_damaged_manifest_is_named_and_its_copy_takes_its_place(run, options, done, here, name, place):
    before = json.loads((done / name).read_text())
    with flipped(done / name, place):
        pass
    status, out, _ = run("study", *options)
    assert (status, here.trained) == (0, [])
    assert f"{done / name} is damaged. Its copy takes its place." in out
    after = json.loads((done / name).read_text())
    assert {k: v for k, v in after.items() if k not in ("revision", "sha256")} == {
        k: v for k, v in before.items() if k not in ("revision", "sha256")
    }


def test_without_either_manifest_nothing_is_guessed(run, options, done):
    for name in (MANIFEST, COPY):
        (done / name).write_bytes(b"{}")
    status, _, err = run("study", *options)
    assert status == 2
    assert "Without either nobody knows what this study is" in err


def test_a_study_of_a_later_release_is_not_called_damaged(run, options, done):
    content = json.loads((done / MANIFEST).read_text())
    del content["sha256"]
    content["format"] = 2
    (done / MANIFEST).write_text(json.dumps({**content, "sha256": _digest(content)}))
    status, _, err = run("study", *options)
    assert status == 2
    assert f"{done / MANIFEST} was written by a later release, in format 2; go on with that one." in err


@pytest.mark.parametrize(("place", "truncated"), [(100_000, False), (5000, True)])
def test_a_damaged_checkpoint_is_named_and_only_its_cell_begins_anew(
    run, options, tmp_path, monkeypatch, here, place, truncated
):
    interrupt(monkeypatch, (2, 1))
    monkeypatch.setattr(running, "RETRIES", 0)
    run("study", *options)
    here.trained = []
    path = tmp_path / "study/checkpoints" / ONE / CHECKPOINT_FILE
    if truncated:
        path.write_bytes(path.read_bytes()[:place])
    else:
        with flipped(path, place):
            pass
    status, out, _ = run("study", *options)
    assert (status, here.trained) == (0, [ONE])
    assert f"Only {ONE} is computed again." in out
    assert str(path) in out
    assert digests(tmp_path / "study")[ONE] == train(options, 1, tmp_path / "alone.json")


def test_links_in_the_folder_lead_nowhere_else(run, options, done, tmp_path, here):
    """As a folder of somebody else may have them."""
    victim = tmp_path / "victim.json"
    victim.write_text("precious")
    path = done / "results" / f"{ZERO}.json"
    path.unlink()
    path.symlink_to(victim)
    status, _, err = run("study", *options)
    assert status == 2
    assert f"{path} is a link that leads out of the study's folder" in err
    assert (victim.read_text(), here.trained) == ("precious", [])


def test_a_link_in_place_of_the_holder_is_replaced(run, options, done, tmp_path, here):
    """Before anything in the folder is trusted: writing who holds the lock comes first."""
    victim = tmp_path / "victim.json"
    victim.write_text("precious")
    (done / locks.HOLDER_FILE).symlink_to(victim)
    assert run("study", *options)[0] == 0
    assert victim.read_text() == "precious"
    other = tmp_path / "other"
    other.mkdir()
    (other / locks.HOLDER_FILE).symlink_to(victim)
    run("study", *options[:-1], str(other))
    assert victim.read_text() == "precious"


def test_a_damaged_note_of_where_the_images_are_is_named(run, options, done, images):
    with flipped(done / "local.json", (done / "local.json").read_text().index(images.name)):
        pass
    status, _, err = run("study", "--output", done)
    assert status == 2
    assert f"{done / 'local.json'}, which told where it is, is damaged; give --dataset folder:PATH." in err
    assert run("study", *options)[0] == 0
    assert run("study", "--output", done)[0] == 0


def test_options_of_another_type_in_the_manifest_are_a_sentence(run, done):
    content = json.loads((done / MANIFEST).read_text())
    content.pop("sha256")
    content["plan"]["options"]["epochs"] = "2"
    for name in (MANIFEST, COPY):
        files.write_json(done / name, {**content, "sha256": _digest(content)})
    status, _, err = run("study", "--output", done)
    assert status == 2
    assert "holds no plan of this release" in err
    assert len(err.splitlines()) == 1


def test_names_in_the_manifest_lead_nowhere_else(run, done, tmp_path):
    content = json.loads((done / MANIFEST).read_text())
    content.pop("sha256")
    content["finished"]["../../victim"] = {"sha256": "0" * 64, "notes": []}
    for name in (MANIFEST, COPY):
        files.write_json(done / name, {**content, "sha256": _digest(content)})
    for arguments in (["report", done], ["study", "status", done], ["study", "--output", done]):
        assert run(*arguments)[0] == 2


def test_a_folder_with_other_files_is_not_taken(run, options, tmp_path):
    (tmp_path / "study").mkdir()
    (tmp_path / "study/thesis.tex").write_text("precious")
    status, _, err = run("study", *options)
    assert status == 2
    assert "holds other files and no study; give another --output" in err


@pytest.mark.usefixtures("permissions_hold")
def test_a_folder_that_cannot_be_written_can_be_looked_at(run, options, done):
    for path in (done, done / "results", done / "checkpoints"):
        path.chmod(0o555)
    (done / "lock").chmod(0o444)
    try:
        status, _, err = run("study", "--output", done)
        assert status == 2
        assert "Cannot write to the folder" in err
        status, _, err = run("study", "add", done, "--seeds", "2")
        assert status == 2
        assert "Permission denied" in err
        assert run("study", "status", done)[0] == run("report", done)[0] == 0
    finally:
        for path in (done, done / "results", done / "checkpoints"):
            path.chmod(0o755)


def test_a_full_disk_stops_the_study_with_a_sentence(run, options, tmp_path, monkeypatch, here):
    class Disk:
        free = 1000

    monkeypatch.setattr(running.shutil, "disk_usage", lambda path: Disk)
    interrupt(monkeypatch, (1, 1), UserError)
    status, _, err = run("study", *options)
    assert status == 2
    assert f"{ONE} failed by itself; nor does a checkpoint fit any more on the disk with {tmp_path / 'study'}" in err


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_or_quota_that_is_full_by_its_own_words_stops_the_study(
    run, options, tmp_path, monkeypatch, here, number
):
    said = f"failed: Cannot write checkpoint.pt: {os.strerror(number)}; free space or give another place."
    monkeypatch.setattr(here, "ended", lambda self, seconds: [Ended(self._cell, 2, said)] if self._cell else [])
    status, _, err = run("study", *options)
    assert status == 2
    assert f"The disk with {tmp_path / 'study'} is full, so that {ZERO} failed: Cannot write checkpoint.pt" in err


def test_a_disk_that_is_full_when_a_result_is_kept_loses_nothing(run, options, tmp_path, monkeypatch, here):
    """Neither that of an earlier cell nor, once there is space, the finished training itself."""
    write = folder.atomic_write
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @contextlib.contextmanager
    def on_a_full_disk(path, mode="w"):
        with write(path, mode) as file:
            yield file
            if path.name == f"{ONE}.json":
                raise full

    monkeypatch.setattr(folder, "atomic_write", on_a_full_disk)
    status, _, err = run("study", *options)
    assert status == 2
    assert len(err.splitlines()) == 1
    assert "No space left on device" in err
    assert digests(tmp_path / "study").keys() == {ZERO}
    monkeypatch.setattr(folder, "atomic_write", write)
    assert run("study", *options)[0] == 0
    assert digests(tmp_path / "study")[ONE] == train(options, 1, tmp_path / "alone.json")


def test_data_that_changes_while_the_study_runs_is_found_before_a_cell_trains(
    run, options, tmp_path, monkeypatch, here
):
    """And the same command goes on when the images are back."""
    start = here.start
    images = Path(options[1].removeprefix("folder:"))
    victim = next(images.rglob("train/*/*.png"))
    before = victim.read_bytes()

    def changing(self, cell):
        if cell.seed == 1:
            Image.new("RGB", (32, 32)).save(victim)
        start(self, cell)

    monkeypatch.setattr(here, "start", changing)
    status, _, err = run("study", *options)
    assert status == 2
    assert f"{ONE} failed by itself; mend that and go on with: resnet-bench study --output" in err
    assert digests(tmp_path / "study").keys() == {ZERO}
    assert not list((tmp_path / "study/checkpoints" / ONE).glob("*.pt"))
    victim.write_bytes(before)
    monkeypatch.setattr(here, "start", start)
    assert run("study", "--output", tmp_path / "study")[0] == 0
    assert digests(tmp_path / "study")[ONE] == train(options, 1, tmp_path / "alone.json")


def test_a_training_of_other_code_than_the_study_runs_with_ends_before_it_begins(run, options, tmp_path):
    """As after an update of the package while the study runs."""
    asked = ["train", "conv5x5", *options[:2], "--epochs", "1", "--checkpoint", tmp_path / "kept", "--code-sha256"]
    status, out, err = run(*asked, "e" * 64)
    assert (status, out) == (UNFIT, "")
    assert "the code of this suite is not that which the study runs with" in err
    assert not (tmp_path / "kept").exists()
    assert run(*asked, f"{'e' * 64},{identity.code()['sha256']}")[0] == 0


def test_each_training_is_told_the_code_and_the_images(done, monkeypatch):
    """By the place that runs them in processes of their own."""
    told = []
    monkeypatch.setattr(running, "TrainingProcess", lambda arguments, *_: told.append(arguments))
    study = StudyFolder.open(done)
    LOCAL(study, 1, 5.0).start(study.plan.cells[0])
    assert told[0][-2:] == ["--code-sha256", identity.code()["sha256"]]
    assert told[0][-4:-2] == ["--images-sha256", study.plan.digests["0"]]


def test_dry_run_writes_nothing(run, options, tmp_path, monkeypatch):
    timed = {"batch_size": 4, "pipeline": "vectorized", "workers": 2}
    rate = packing.Rate(architecture="conv5x5", engine="reference", options=timed, step_seconds=2.0, test_seconds=0.5)
    chosen = packing.Packing(jobs=1, threads=1, rates=(rate,))
    monkeypatch.setattr(packing, "measure", lambda *_: chosen)
    status, out, _ = run("study", *options, "--dry-run")
    assert status == 0
    # two cells of two epochs of 3 steps and 6 test images: 2 × 2 × (3 × 2 s + 6 × 0.5 s)
    assert "about 36 s on this machine" in out.replace("\n", " ")
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--lr", "nan"], "--lr is nan; give a finite number above 0."),
        (["--lr", "inf"], "--lr is inf"),
        (["--vary", "lr=0.1,nan"], "--lr is nan"),
        (["--vary", "batch-size=4,0"], "--batch-size is 0; give at least 1."),
        (["--threads", "0"], "--threads is 0; give at least 1."),
        (["--threads", "-2"], "--threads is -2"),
        (["--workers", "-1"], "--workers is -1; give 0 or more."),
        (["--pipeline", "oil"], "There is no pipeline 'oil'"),
        (["--vary", "pipeline=loader,oil"], "There is no pipeline 'oil'"),
        (["--architectures", ","], "--architectures names none; give one or leave it out."),
        (["--engine", ""], "--engine names none"),
    ],
)
def test_what_no_training_can_run_is_found_before_any(run, options, tmp_path, change, message):
    for more in ([], ["--dry-run"]):
        status, out, err = run("study", *options, *change, *more)
        assert (status, out) == (2, "")
        assert message in err
        assert len(err.splitlines()) == 1
    assert not (tmp_path / "study" / "study.json").exists()


def test_dry_run_finds_other_files_in_the_folder(run, options, tmp_path):
    (tmp_path / "study").mkdir()
    (tmp_path / "study/thesis.tex").write_text("precious")
    status, _, err = run("study", *options, "--dry-run")
    assert status == 2
    assert "holds other files and no study" in err


def test_a_folder_without_a_study_has_no_status(run, tmp_path):
    status, _, err = run("study", "status", tmp_path)
    assert status == 2
    assert "There is no study in" in err
