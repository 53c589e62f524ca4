"""`pytest benchmarks`, end to end, on a tiny image folder."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnet_bench.results import reading
from resnet_bench.schema import AccuracyResult, EpochTimeResult, OverheadResult, ParametersResult

ROOT = Path(__file__).parent.parent
TINY = ["--architectures", "fc1,conv5x5", "--engine", "reference", "--epochs", "2", "--time-limit", "0.1"]

BRIEF = """
from resnet_bench.machine import calibration
calibration.ROUNDS = calibration.MIN_ROUNDS = 2
calibration.SAMPLE_SECONDS = 1e-6
"""  # a plugin for sessions whose calibration no test looks at


def command(storage, folder, *arguments):
    """The whole suite on the folder's images, saved in `storage`."""
    options = ["--dataset", f"folder:{folder}", "--train-images", "24", "--test-images", "12", *TINY]
    python = [sys.executable, "-m", "pytest", "benchmarks", "-p", "no:cacheprovider"]
    return [*python, f"--benchmark-storage=file://{storage}", *options, *arguments]


def run(*arguments):
    return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=240)


def saved_files(storage):
    return sorted(storage.glob("*/*_*.json"))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """3 classes with 8 training and 8 test images each."""
    folder = tmp_path_factory.mktemp("data") / "tiny"
    for split in ("train", "test"):
        for c in range(3):
            (folder / split / f"c{c}").mkdir(parents=True)
            for i in range(8):
                pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / f"c{c}" / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def session(images, tmp_path_factory):
    """One run of the whole suite: its storage, its output, and the file it saved."""
    storage = tmp_path_factory.mktemp("storage")
    done = run(storage, images, "--benchmark-save=tiny")
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = saved_files(storage)
    return storage, done, path


@pytest.fixture
def brief(tmp_path, monkeypatch):
    """Arguments for a session that is not measured by: a short calibration, and no wait for torchvision."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "brief.py").write_text(BRIEF)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "plugins"))
    return ["-p", "brief", "--pipeline", "vectorized"]


def test_saved_file_follows_the_schema(session):
    """Every network has its three results, and raw values without being asked for."""
    *_, path = session
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


def test_raw_values_are_the_blocks(session):
    """pytest-benchmark's rounds are what was measured interleaved: seconds for an epoch, block by block."""
    *_, path = session
    for benchmark in json.loads(path.read_text())["benchmarks"]:
        info = benchmark["extra_info"] or {"kind": "augmentation"}
        if info["kind"] == "epoch_time":
            expected = [info["startup_seconds"] + 6 * b["seconds"] / b["steps"] for b in info["blocks"]]
            assert benchmark["stats"]["data"] == pytest.approx(expected)
        if info["kind"] == "accuracy":
            assert benchmark["stats"]["data"] == [e["train_seconds"] for e in info["epochs"]]


def test_intervals_of_times_and_ratios_are_positive(session):
    """However few and scattered the blocks of so short a session are."""
    *_, path = session
    file = reading.read(path)
    intervals = [r.epoch_seconds for r in file.of_kind(EpochTimeResult)]
    for overhead in file.of_kind(OverheadResult):
        intervals += [overhead.harness_over_bare, overhead.clocks_over_harness]
    assert len(intervals) == 4
    assert {i.method for i in intervals} == {"log-t"}
    assert all(i.low > 0 for i in intervals)


def test_machine_is_described_and_calibrated_at_both_ends(session):
    """Without a host name: saved files are made to be shared."""
    *_, path = session
    data = json.loads(path.read_text())
    assert set(reading.read(path).machine["calibration"]) == {"start", "end"}
    assert "node" not in data["machine_info"]


def test_output_ends_with_the_tables(session):
    """Accuracy and parameters are printed, not only saved; no control characters in a pipe."""
    _, done, _ = session
    tail = done.stdout[done.stdout.index("resnet_bench ==") :]
    assert "Table 1" in tail
    assert "Table 2" in tail
    assert "folder:tiny" in tail
    assert "\r" not in done.stdout + done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_journal_is_gone_after_a_good_end(session):
    storage, _, _ = session
    assert not (storage / "journal").exists()


def test_pytest_benchmark_compares_what_was_saved(session):
    """The interface of pytest-benchmark works unchanged."""
    storage, _, _ = session
    compare = [sys.executable, "-m", "pytest_benchmark", f"--storage=file://{storage}", "compare"]
    done = subprocess.run(compare, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "test_epoch_time[fc1-reference]" in done.stdout


def test_full_mode_times_whole_epochs(images, brief, tmp_path):
    done = run(
        tmp_path, images, *brief, "--epoch-mode", "full", "--rounds", "3", "-k", "epoch_time", "--benchmark-save=x"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for result in reading.read(saved_files(tmp_path)[0]).of_kind(EpochTimeResult):
        assert result.mode == "full"
        assert [b.steps for b in result.blocks] == [6, 6, 6]


def test_both_modes_in_one_session(images, brief, tmp_path):
    """Two results of each network, and the table that holds them against each other."""
    done = run(
        tmp_path, images, *brief, "--epoch-mode", "both", "--rounds", "1", "-k", "epoch_time", "--benchmark-save=x"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = reading.read(saved_files(tmp_path)[0]).of_kind(EpochTimeResult)
    assert [(r.architecture, r.mode) for r in found] == [
        (name, mode) for name in ("fc1", "conv5x5") for mode in ("full", "sampled")
    ]
    assert "Sampled against whole epochs" in done.stdout
    selected = run(tmp_path, images, *brief, "--epoch-mode", "both", "-k", "epoch_time and sampled")
    assert selected.returncode == 2
    assert "select by network, not by mode" in selected.stdout + selected.stderr


MEASURED = "parameters or epoch_time or accuracy"


def start_until(line, arguments):
    """Start a session and return it when it has printed a line with these words."""
    process = subprocess.Popen(
        command(*arguments), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
    )
    assert process.stdout is not None
    for printed in process.stdout:
        if line in printed:
            return process
    raise AssertionError(f"{line!r} was never printed")


def test_killed_session_loses_only_the_benchmark_it_was_in(images, brief, tmp_path):
    """The journal has the finished benchmarks and the finished epochs, and the next session names it."""
    arguments = (tmp_path, images, *brief, "-k", MEASURED, "--epochs", "50")
    process = start_until("conv5x5 (reference) epoch 1/50", arguments)
    time.sleep(0.5)  # the journal is written right after the line
    process.send_signal(signal.SIGKILL)
    process.wait()
    (journal,) = (tmp_path / "journal").glob("*.json")
    file = reading.read(journal)
    assert len(file.of_kind(ParametersResult)) == 2
    assert all(r.complete for r in file.of_kind(EpochTimeResult))
    assert {r.architecture for r in file.of_kind(AccuracyResult)} == {"fc1", "conv5x5"}
    assert not any(r.complete for r in file.of_kind(AccuracyResult))
    done = run(tmp_path, images, "-k", "parameters")
    assert f"a session that did not finish left {journal}:" in done.stdout


def test_interrupted_session_saves_what_is_finished(images, brief, tmp_path):
    """Ctrl-C: exit status 130, the finished benchmarks saved."""
    arguments = (tmp_path, images, *brief, "-k", MEASURED, "--epochs", "50", "--benchmark-save=cut")
    process = start_until("fc1 (reference) epoch 1/50", arguments)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    (path,) = saved_files(tmp_path)
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
def test_bad_input(images, tmp_path, arguments, message):
    """One sentence, exit status 2, no traceback."""
    done = run(tmp_path, images, *arguments)
    assert done.returncode == 2
    output = done.stdout + done.stderr
    assert message in output
    assert "Traceback" not in output


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="permissions do not hold for root")
def test_a_data_folder_that_cannot_be_read_is_one_sentence(images, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir(mode=0)
    without_rights = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    asked = [*without_rights, *command(tmp_path / "storage", images, "--dataset", "auto", "-k", "epoch_time")]
    environment = {**os.environ, "RESNET_BENCH_DATA": str(folder)}
    done = subprocess.run(asked, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
    folder.chmod(0o755)
    assert done.returncode == 2
    output = done.stdout + done.stderr
    assert f"resnet_bench: error: Cannot read {folder}/cifar-100-python/train: Permission denied; make it" in output
    assert "Traceback" not in output


def test_sizes_of_the_profile_are_as_many_as_there_are(images, brief, tmp_path):
    """`quick` trains on 1,000 images; a folder of 24 is enough, because nobody asked for more."""
    asked = command(tmp_path, images, *brief, "-k", "epoch_time", "--benchmark-save=x")
    place = asked.index("--train-images")
    done = subprocess.run(asked[:place] + asked[place + 4 :], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    for result in reading.read(saved_files(tmp_path)[0]).of_kind(EpochTimeResult):
        assert (result.dataset.train_images, result.dataset.test_images, result.dataset.subset) == (24, 24, False)


BREAKS = """
from resnet_bench.training.training import Training
run_epoch = Training.run_epoch
def breaks(self, *arguments):
    if self.epoch == 2:
        raise RuntimeError("a worker died")
    return run_epoch(self, *arguments)
Training.run_epoch = breaks
"""


def test_what_an_error_cuts_off_stays_in_the_journal(images, brief, tmp_path):
    """The file has the finished benchmarks only; the finished epochs are in the journal, which is named."""
    (tmp_path / "plugins" / "breaks.py").write_text(BREAKS)
    selected = ["-k", "parameters or accuracy", "--benchmark-save=x"]
    done = run(tmp_path / "storage", images, *brief, "-p", "breaks", *selected)
    assert done.returncode == 1
    (journal,) = (tmp_path / "storage" / "journal").glob("*.json")
    assert f"what was measured is kept in {journal}" in done.stdout
    assert [len(r.epochs) for r in reading.read(journal).of_kind(AccuracyResult)] == [1, 1]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_full_disk_while_saving(images, tmp_path):
    """What was measured is kept in the journal, and the sentence says where."""
    done = run(tmp_path, images, "-k", "parameters", "--benchmark-json=/dev/full")
    assert done.returncode == 2
    assert "cannot save the results: Cannot write /dev/full: No space left on device" in done.stdout
    assert "Table 1" in done.stdout
    (journal,) = (tmp_path / "journal").glob("*.json")
    assert len(reading.read(journal).results) == 2


def test_benchmark_json_follows_a_link(images, tmp_path):
    """The link stays, and beside its target there is nothing else."""
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "saved.json").write_text("old")
    (tmp_path / "link").symlink_to("there/saved.json")
    done = run(tmp_path, images, "-k", "parameters", f"--benchmark-json={tmp_path / 'link'}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "link").is_symlink()
    assert os.listdir(tmp_path / "there") == ["saved.json"]
    assert len(reading.read(tmp_path / "link").results) == 2


@pytest.mark.skipif(not os.path.exists("/dev/stdout"), reason="needs /dev/stdout")
def test_benchmark_json_to_the_output_does_not_cut_it_off(images, tmp_path):
    """What the session printed before stands before it in the file, the tables after it."""
    with open(tmp_path / "out", "w") as out:
        asked = command(tmp_path, images, "-k", "parameters", "--benchmark-json=/dev/stdout")
        done = subprocess.run(asked, cwd=ROOT, stdout=out, stderr=subprocess.PIPE, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "out").read_text()
    start = text.index("{\n")
    data, end = json.JSONDecoder().raw_decode(text, start)
    assert "test session starts" in text[:start]
    assert len(data["benchmarks"]) == 2
    assert "Table 1" in text[end:]
    assert Path("/dev/stdout").is_symlink()


def test_tables_are_readable_whatever_the_encoding(images, tmp_path, monkeypatch):
    """Not one line with «\\n» in it, which is what pytest makes of a table that the terminal cannot show."""
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = run(tmp_path, images, "-k", "parameters", "--architectures", "blocks2")
    assert done.returncode == 0
    assert {"Table 1", "Table 2", "Summary"} <= set(done.stdout.splitlines())
    (row,) = (line for line in done.stdout.splitlines() if line.startswith("blocks2"))
    assert row.split() == ["blocks2", "16,608,956", "-", "100"]  # the paper prints no count: a dash
    assert "\\n" not in done.stdout


def test_where_nothing_can_be_compiled_plain_pytorch_runs_and_the_header_says_so(images, tmp_path, monkeypatch):
    """As without a compiler; the file tells which setting it was, and with --engine fast it is an error."""
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    reason = (
        "TORCHDYNAMO_DISABLE=1 in the environment keeps torch.compile from compiling, which the engines fast and "
        "fast-bf16 need; undo that, or take --engine reference, which runs without."
    )
    asked = command(tmp_path, images, "-k", "parameters", "--benchmark-save=x")
    place = asked.index("--engine")
    chosen = asked[:place] + asked[place + 2 :]
    done = subprocess.run(chosen, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"resnet_bench: engine reference instead of fast. {reason}\n" in done.stdout
    told = reading.read(saved_files(tmp_path)[0]).machine["torch"]
    assert told["dynamo_disabled"] is True
    assert told["environment"]["TORCHDYNAMO_DISABLE"] == "1"
    asked[place + 1] = "reference,fast"
    refused = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert refused.returncode == 2
    assert f"resnet_bench: error: {reason}" in refused.stdout + refused.stderr
    assert "Traceback" not in refused.stdout + refused.stderr
