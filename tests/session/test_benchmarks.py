"""`pytest benchmarks`, end to end, on a tiny image folder."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from resnet_bench.render.first_screen import LINES
from resnet_bench.results import reading
from resnet_bench.schema import AccuracyResult, EpochTimeResult, OverheadResult, ParametersResult
from tests.session.sessions import ROOT

TINY = ["--architectures", "fc1,conv5x5", "--engine", "reference", "--epochs", "2", "--time-limit", "0.1"]

BRIEF = """
from resnet_bench.machine import calibration
calibration.ROUNDS = calibration.MIN_ROUNDS = 2
calibration.SAMPLE_SECONDS = 1e-6
"""  # a plugin for sessions whose calibration no test looks at


def arguments_for(storage, folder, *arguments):
    """For the whole suite on the folder's images, saved in `storage`."""
    options = ["--dataset", f"folder:{folder}", "--train-images", "24", "--test-images", "12", *TINY]
    return [str(ROOT / "benchmarks"), f"--benchmark-storage=file://{storage}", *options, *arguments]


def command(*arguments):
    """The same as a process of its own."""
    return [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments_for(*arguments)]


def run(asked, **environment):
    environment = {**os.environ, **environment}
    return subprocess.run(asked, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)


def saved_files(storage):
    return sorted(storage.glob("*/*_*.json"))


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    """One run of the whole suite: its storage, its output, and the file it saved."""
    storage = tmp_path_factory.mktemp("storage")
    done = run(command(storage, images, "--benchmark-save=tiny"))
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = saved_files(storage)
    return storage, done, path


BRIEFLY = ["-p", "brief", "--pipeline", "vectorized"]
"""For a session that is not measured by: a short calibration, and no wait for torchvision."""


@pytest.fixture
def brief(tmp_path):
    """A folder with the plugin that `BRIEFLY` names; storage and working folder of the test's sessions."""
    (tmp_path / "brief.py").write_text(BRIEF)
    return tmp_path


@pytest.fixture
def session(sessions, images, brief):
    """The whole suite on `images`, in a process that has torch imported already."""

    def run(*arguments, folder=brief):
        return sessions.run(folder, *arguments_for(folder, images, *arguments))

    return run


def test_saved_file_follows_the_schema(whole):
    """Every network has its three results, and raw values without being asked for."""
    *_, path = whole
    file = reading.read(path)
    for kind in (ParametersResult, EpochTimeResult, AccuracyResult):
        assert [r.architecture for r in file.of_kind(kind)] == ["fc1", "conv5x5"]
    for benchmark in json.loads(path.read_text())["benchmarks"]:
        assert len(benchmark["stats"]["data"]) == benchmark["stats"]["rounds"]
    for result in file.of_kind(EpochTimeResult):
        assert result.complete
        assert result.dataset.name == "folder:tiny"
        assert result.steps_per_epoch == 6
        assert len(result.blocks) >= 2
        assert result.step_bound_seconds > 0
    for result in file.of_kind(AccuracyResult):
        assert [e.epoch for e in result.epochs] == [1, 2]
        assert result.parameters == {"fc1": 674_003, "conv5x5": 1_644_787}[result.architecture]


def test_raw_values_are_the_processes(whole):
    """pytest-benchmark's rounds are the independent values: seconds for an epoch, process by process."""
    *_, path = whole
    for benchmark in json.loads(path.read_text())["benchmarks"]:
        info = benchmark["extra_info"] or {"kind": "augmentation"}
        if info["kind"] == "epoch_time":
            expected = EpochTimeResult.model_validate_json(json.dumps(info)).epoch_times
            assert list(expected) == [0, 1, 2]
            assert benchmark["stats"]["data"] == pytest.approx(list(expected.values()))
        if info["kind"] == "accuracy":
            assert benchmark["stats"]["data"] == [e["train_seconds"] for e in info["epochs"]]


def test_intervals_of_times_and_ratios_are_positive(whole):
    """However few and scattered the blocks of so short a session are."""
    *_, path = whole
    file = reading.read(path)
    intervals = [r.epoch_seconds for r in file.of_kind(EpochTimeResult)]
    assert len(intervals) == 2
    assert {i.method for i in intervals} == {"log-t"}
    assert all(i.low > 0 for i in intervals)


def test_cost_of_the_harness(session):
    """Measured where the profile has rounds for it; the others say which has."""
    done = session(*BRIEFLY, "--profile", "standard", "-k", "overhead", "--benchmark-save=x")
    assert done.status == 0, done.output
    (overhead,) = reading.read(saved_files(done.folder)[0]).of_kind(OverheadResult)
    assert len(overhead.bare_seconds) == 12
    assert {i.method for i in (overhead.harness_over_bare, overhead.clocks_over_harness)} == {"log-t"}
    assert overhead.harness_over_bare.low > 0
    quick = session(*BRIEFLY, "-k", "overhead", "-rs")
    assert "the profile quick leaves out what the harness costs; standard measures it" in quick.output


@pytest.mark.parametrize(("options", "mode"), [((), "full"), (("--epoch-mode", "sampled"), "sampled")])
def test_a_training_of_few_steps_is_timed_whole(session, options, mode):
    """One epoch of 6 steps, unless blocks are asked for; with two epochs the others of these tests sample."""
    done = session(*BRIEFLY, "--epochs", "1", *options, "-k", "epoch_time and fc1", "--benchmark-save=x", "--tables")
    assert done.status == 0, done.output
    (result,) = reading.read(saved_files(done.folder)[0]).of_kind(EpochTimeResult)
    assert result.mode == mode
    assert ("Epoch time over the training" in done.output) == (mode == "sampled")


def test_a_short_time_limit_gives_fewer_steps_and_trainings_and_says_so(session, tmp_path):
    """One epoch of 12 steps, timed by its first 8; of the networks only the first is trained."""
    asked = ["--epochs", "1", "--batch-size", "2", "--time-limit", "1e-6", "-k", "epoch_time or accuracy"]
    done = session(*BRIEFLY, *asked, "--benchmark-save=x")
    assert done.status == 0, done.output
    saved = reading.read(saved_files(tmp_path)[0])
    timed = saved.of_kind(EpochTimeResult)
    assert [(r.architecture, r.measured) for r in timed] == [(n, "first 8 of 12 steps") for n in ("fc1", "conv5x5")]
    assert {b.steps for r in timed for b in r.blocks} == {8}
    assert all("the time limit allowed only the first 8 of 12 steps of an epoch" in r.warnings for r in timed)
    assert [r.architecture for r in saved.of_kind(AccuracyResult)] == ["fc1"]
    assert "conv5x5 (reference) is not trained: the 1e-06 s of --time-limit are over" in done.output
    assert "time of 24 steps a network" in done.output


def test_machine_is_described_and_calibrated_at_both_ends_and_in_each_process(whole):
    """Without a host name: saved files are made to be shared."""
    *_, path = whole
    data = json.loads(path.read_text())
    file = reading.read(path)
    calibration = file.machine["calibration"]
    assert set(calibration) == {"start", "end", "processes"}
    for result in file.of_kind(EpochTimeResult):
        assert {p.process for p in result.processes} == set(calibration["processes"])
        assert all(p.step_bound_seconds > 0 for p in result.processes)
    assert "node" not in data["machine_info"]


def test_output_ends_with_the_summary(whole):
    """What was measured and what to do next, in a few lines; no control characters in a pipe."""
    _, done, _ = whole
    tail = done.stdout[done.stdout.index("resnet_bench ==") :]
    assert len(tail.splitlines()) <= 1 + LINES + 1  # the title above, pytest's last line below
    assert "Accuracy (%)" in tail
    assert "folder:tiny" in tail
    assert "resnet-bench report" in tail
    assert "Table 1" not in done.stdout
    assert "StdDev" not in done.stdout
    assert "\r" not in done.stdout + done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_journal_is_gone_after_a_good_end(whole):
    storage, _, _ = whole
    assert not (storage / "journal").exists()


def test_pytest_benchmark_compares_what_was_saved(whole):
    """The interface of pytest-benchmark works unchanged."""
    storage, _, _ = whole
    compare = [sys.executable, "-m", "pytest_benchmark", f"--storage=file://{storage}", "compare"]
    done = subprocess.run(compare, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "test_epoch_time[fc1-reference]" in done.stdout


@pytest.fixture(scope="module")
def full(sessions, images, tmp_path_factory):
    """Epoch times in mode `full`, on as many of the 24 images as the profile says; `quick` says 500."""
    folder = tmp_path_factory.mktemp("full")
    (folder / "brief.py").write_text(BRIEF)
    asked = arguments_for(folder, images, *BRIEFLY, "--epoch-mode", "full", "--rounds", "3", "-k", "epoch_time")
    place = asked.index("--train-images")
    done = sessions.run(folder, *asked[:place], *asked[place + 4 :], "--benchmark-save=x")
    assert done.status == 0, done.output
    results = reading.read(saved_files(folder)[0]).of_kind(EpochTimeResult)
    assert len(results) == 2
    return results


def test_full_mode_times_whole_epochs(full):
    for result in full:
        assert result.mode == "full"
        assert [(b.process, b.round, b.steps) for b in result.blocks] == [(p, e, 6) for p in range(3) for e in range(3)]


def test_sizes_of_the_profile_are_as_many_as_there_are(full):
    """A folder of 24 images is enough, because nobody asked for more."""
    for result in full:
        assert (result.dataset.train_images, result.dataset.test_images, result.dataset.subset) == (24, 24, False)


def test_both_modes_in_one_session(session, tmp_path):
    """Two results of each network, and the table that holds them against each other."""
    both = [*BRIEFLY, "--epoch-mode", "both"]
    done = session(*both, "--rounds", "1", "-k", "epoch_time", "--benchmark-save=x", "--tables")
    assert done.status == 0, done.output
    found = reading.read(saved_files(tmp_path)[0]).of_kind(EpochTimeResult)
    assert [(r.architecture, r.mode) for r in found] == [
        (name, mode) for name in ("fc1", "conv5x5") for mode in ("full", "sampled")
    ]
    assert "Sampled against whole epochs" in done.output
    selected = session(*both, "-k", "epoch_time and sampled")
    assert selected.status == 2
    assert "select by network, not by mode" in selected.output


def weights(folder):
    """{network: digest of its last weights} of the last run in a storage."""
    return {r.architecture: r.weights_sha256 for r in reading.read(saved_files(folder)[-1]).of_kind(AccuracyResult)}


def test_trainings_of_a_killed_session_go_on(images, session, brief, tmp_path):
    """With the same weights to the last bit; when they are saved, no checkpoint is left."""
    # so many epochs that they do not end before a busy machine kills the session
    asked = [*BRIEFLY, "-k", "accuracy", "--epochs", "100", "--threads", "1", "--benchmark-save=x"]
    process = start_until("conv5x5 (reference) epoch 2/100", brief, images, *asked)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (tmp_path / "other").mkdir()
    assert "sessions that did not finish left 2 checkpoints" in session("--collect-only").output
    done = session(*asked)
    assert done.status == 0, done.output
    for network in ("fc1", "conv5x5"):
        assert f"{network} (reference) goes on from epoch" in done.output
        assert f"{network} (reference) epoch 1/100" not in done.output
    assert not (brief / "checkpoints").exists()
    whole = session(*asked, "--benchmark-storage=file://" + str(tmp_path / "other"))
    assert whole.status == 0, whole.output
    assert weights(brief) == weights(tmp_path / "other")


def test_a_damaged_checkpoint_of_a_session_is_named_and_its_training_begins_anew(images, session, brief):
    asked = [*BRIEFLY, "-k", "accuracy and fc1", "--epochs", "40", "--threads", "1"]
    process = start_until("fc1 (reference) epoch 2/40", brief, images, *asked)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (path,) = (brief / "checkpoints").glob("*/checkpoint.pt")
    path.write_bytes(path.read_bytes()[:-100])
    done = session(*asked)
    assert done.status == 0, done.output
    assert "fc1 (reference) begins anew, because its checkpoint was damaged" in done.output
    assert "fc1 (reference) epoch 1/40" in done.output


MEASURED = "parameters or epoch_time or accuracy"


def start_until(line, folder, *arguments):
    """Start a session in a process of its own, and return it when it has printed a line with these words."""
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        command(folder, *arguments),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        bufsize=1,
    )
    assert process.stdout is not None
    for printed in process.stdout:
        if line in printed:
            return process
    raise AssertionError(f"{line!r} was never printed")


def test_killed_session_loses_only_the_benchmark_it_was_in(images, session, brief):
    """The journal has the finished benchmarks and the finished epochs, and the next session names it."""
    process = start_until("conv5x5 (reference) epoch 1/50", brief, images, *BRIEFLY, "-k", MEASURED, "--epochs", "50")
    time.sleep(0.5)  # the journal is written right after the line
    process.send_signal(signal.SIGKILL)
    process.wait()
    (journal,) = (brief / "journal").glob("*.json")
    file = reading.read(journal)
    assert len(file.of_kind(ParametersResult)) == 2
    assert all(r.complete for r in file.of_kind(EpochTimeResult))
    assert {r.architecture for r in file.of_kind(AccuracyResult)} == {"fc1", "conv5x5"}
    assert not any(r.complete for r in file.of_kind(AccuracyResult))
    assert f"a session that did not finish left {journal}:" in session("--collect-only").output


def test_interrupted_session_saves_what_is_finished(images, brief):
    """Ctrl-C: exit status 130, the finished benchmarks saved."""
    asked = [*BRIEFLY, "-k", MEASURED, "--epochs", "50", "--benchmark-save=cut"]
    process = start_until("fc1 (reference) epoch 1/50", brief, images, *asked)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    (path,) = saved_files(brief)
    assert len(reading.read(path).of_kind(EpochTimeResult)) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--architectures", "resnet50"], "There is no architecture 'resnet50'"),
        (["--engine", "quantum"], "There is no engine 'quantum'"),
        (["--dataset", "imagenet"], "imagenet"),
        (["--batch-size", "0"], "--batch-size is 0"),
        (["--batch-size", "1000"], "--batch-size is 1000, but there are only 24"),
        (["--pipeline", "oil"], "There is no pipeline 'oil'"),
        (["--rounds", "0", "--epoch-mode", "full"], "--rounds is 0"),
        (["--lr", "1e30"], "train with a smaller --lr"),
    ],
)
def test_bad_input(session, arguments, message):
    """One sentence, exit status 2, no traceback."""
    done = session(*arguments)
    assert done.status == 2
    assert message in done.output
    assert "Traceback" not in done.output


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="permissions do not hold for root")
def test_a_data_folder_that_cannot_be_read_is_one_sentence(images, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir(mode=0)
    without_rights = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    asked = [*without_rights, *command(tmp_path / "storage", images, "--dataset", "auto", "-k", "epoch_time")]
    done = run(asked, RESNET_BENCH_DATA=str(folder))
    folder.chmod(0o755)
    assert done.returncode == 2
    output = done.stdout + done.stderr
    assert f"resnet_bench: error: Cannot read {folder}/cifar-100-python/train: Permission denied; make it" in output
    assert "Traceback" not in output


REFUSES = """
from resnet_bench.engines import reference
reference.Engine.supports = classmethod(lambda cls, network, recipe: f"reference has no {network.id}; mend it.")
"""


def test_what_an_engine_does_not_support_is_found_before_anything_is_prepared(session, tmp_path):
    (tmp_path / "refuses.py").write_text(REFUSES)
    done = session(*BRIEFLY, "-p", "refuses", "-k", "epoch_time", "--benchmark-save=x")
    assert done.status == 2
    assert "resnet_bench: error: reference has no fc1; mend it." in done.output
    assert "Traceback" not in done.output
    assert "measuring the machine" not in done.output


BREAKS = """
from resnet_bench.training.training import Training
run_epoch = Training.run_epoch
def breaks(self, *arguments):
    if self.epoch == 2:
        raise RuntimeError("a worker died")
    return run_epoch(self, *arguments)
Training.run_epoch = breaks
"""


def test_what_an_error_cuts_off_stays_in_the_journal(session, tmp_path):
    """The file has the finished benchmarks only; the finished epochs are in the journal, which is named."""
    (tmp_path / "breaks.py").write_text(BREAKS)
    done = session(*BRIEFLY, "-p", "breaks", "-k", "parameters or accuracy", "--benchmark-save=x")
    assert done.status == 1
    (journal,) = (tmp_path / "journal").glob("*.json")
    assert f"what was measured is kept in {journal}" in done.output
    assert [len(r.epochs) for r in reading.read(journal).of_kind(AccuracyResult)] == [1, 1]


def test_tables_are_readable_whatever_the_encoding(images, tmp_path):
    """Not one line with «\\n» in it, which is what pytest makes of a table that the terminal cannot show."""
    asked = command(tmp_path, images, "-k", "parameters", "--architectures", "blocks2", "--tables")
    done = run(asked, PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert {"Table 1", "Table 2", "Summary"} <= set(done.stdout.splitlines())
    assert "StdDev" in done.stdout
    (row,) = (line for line in done.stdout.splitlines() if line.startswith("blocks2"))
    assert row.split() == ["blocks2", "16,608,956", "-", "100"]  # the paper prints no count: a dash
    assert "\\n" not in done.stdout


def test_where_nothing_can_be_compiled_plain_pytorch_runs_and_the_header_says_so(images, tmp_path):
    """As without a compiler; the file tells which setting it was, and with --engine fast it is an error."""
    reason = (
        "TORCHDYNAMO_DISABLE=1 in the environment keeps torch.compile from compiling, which the engines fast and "
        "fast-bf16 need; undo that, or take --engine reference, which runs without."
    )
    asked = command(tmp_path, images, "-k", "parameters", "--benchmark-save=x")
    place = asked.index("--engine")
    chosen = asked[:place] + asked[place + 2 :]
    done = run(chosen, TORCHDYNAMO_DISABLE="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"resnet_bench: engine reference instead of fast. {reason}\n" in done.stdout
    told = reading.read(saved_files(tmp_path)[0]).machine["torch"]
    assert told["dynamo_disabled"] is True
    assert told["environment"]["TORCHDYNAMO_DISABLE"] == "1"
    asked[place + 1] = "reference,fast"
    refused = run(asked, TORCHDYNAMO_DISABLE="1")
    assert refused.returncode == 2
    assert f"resnet_bench: error: {reason}" in refused.stdout + refused.stderr
    assert "Traceback" not in refused.stdout + refused.stderr
