"""The command line: what it prints, what it refuses, how it exits."""

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from resnet_bench.cli import main
from resnet_bench.results import reading
from resnet_bench.schema import AccuracyResult

ROOT = Path(__file__).parents[1]


@dataclass
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(capsys):
    """Runs the command line in this process, which has torch imported already."""

    def call(*arguments):
        with pytest.raises(SystemExit) as exit_:
            main([str(a) for a in arguments])
        return Done(exit_.value.code or 0, *capsys.readouterr())

    return call


def refused(done, message):
    """Exit status 2, one line that says what is wrong, no traceback."""
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" not in done.stdout


@pytest.fixture
def small(image_folder):
    return ["--dataset", f"folder:{image_folder()}", "--epochs", "2", "--workers", "1"]


def test_train_prints_a_line_an_epoch_and_writes_json(run, small, tmp_path):
    """Clean in a pipe: no carriage returns, no control characters."""
    output = tmp_path / "out.json"
    done = run("train", "conv5x5", *small, "--output", output)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("conv5x5: 1,644,787 parameters, reference engine, loader pipeline")
    assert [line.split()[1] for line in lines[1:]] == ["1/2", "2/2"]
    assert "\r" not in done.stdout + done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    keys = {"architecture", "parameters", "engine", "dataset", "recipe", "seed", "machine", "epochs", "weights_sha256"}
    assert keys <= set(json.loads(output.read_text()))
    (result,) = reading.read(output).results
    assert isinstance(result, AccuracyResult)
    assert result.complete


def test_train_goes_on_from_its_checkpoint(run, small, tmp_path):
    """The same command again trains nothing; one more epoch trains one."""
    arguments = ["train", "conv5x5", *small, "--checkpoint", tmp_path / "run"]
    first = run(*arguments, "--output", tmp_path / "a.json")
    again = run(*arguments, "--output", tmp_path / "b.json")
    assert first.returncode == again.returncode == 0
    assert "going on from the checkpoint at epoch 3" in again.stdout
    a, b = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    assert a["weights_sha256"] == b["weights_sha256"]
    assert a["epochs"] == b["epochs"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "resnet50"], "There is no architecture 'resnet50'; choose one of baseline, fc1"),
        (["train", "fc1", "--engine", "quantum"], "There is no engine 'quantum'; choose one of reference"),
        (["train", "fc1", "--pipeline", "oil"], "There is no pipeline 'oil'"),
        (["train", "fc1", "--batch-size", "0"], "--batch-size is 0; give at least 1"),
        (["train", "fc1", "--batch-size", "25"], "--batch-size is 25, but there are only 24 training images"),
        (["train", "fc1", "--batch-size", "four"], "--batch-size"),
        (["train", "fc1", "--epochs", "0"], "--epochs is 0"),
        (["train", "fc1", "--threads", "0"], "--threads is 0"),
        (["train", "fc1", "--train-images", "25"], "25"),
        (["train", "fc1", "--output", "/nowhere/out.json"], "There is no folder /nowhere"),
        (["train", "fc1", "--output", "/dev/fd/99"], "Cannot write /dev/fd/99: Bad file descriptor; give another --o"),
        (["train", "conv5x5", "--lr", "1e30"], "train with a smaller --lr than 1e+30"),
        (["train", "fc1", "--schedule", "steep"], "There is no schedule 'steep'"),
        (["train", "fc1", "--warmup-steps", "-1"], "--warmup-steps is -1"),
        (["train", "fc1", "--warmup-steps", "1000000"], "--warmup-steps is 1000000"),
        (["train", "fc1", "--lr", "-1"], "--lr is -1"),
        (["train", "fc1", "--lr", "nan"], "--lr is nan"),
        (["train", "fc1", "--unheard-of"], "No such option"),
        (["train"], "Missing argument"),
        (["unheard-of"], "No such command"),
    ],
)
def test_bad_input_to_train(run, small, arguments, message):
    extra = small if len(arguments) > 1 and arguments[0] == "train" else []
    refused(run(*arguments[:2], *extra, *arguments[2:]), message)


@pytest.mark.parametrize("spec", ["imagenet", "folder:/nowhere", "folder:"])
def test_bad_data_sets(run, spec):
    refused(run("train", "fc1", "--dataset", spec), spec.partition(":")[2] or spec)


@pytest.mark.usefixtures("permissions_hold")
@pytest.mark.parametrize("spec", ["cifar100", "auto"])
def test_a_data_folder_that_cannot_be_read(run, tmp_path, monkeypatch, spec):
    folder = tmp_path / "data"
    folder.mkdir(mode=0)
    monkeypatch.setenv("RESNET_BENCH_DATA", str(folder))
    done = run("train", "fc1", "--dataset", spec)
    folder.chmod(0o755)
    refused(done, f"resnet-bench: error: Cannot read {folder}/cifar-100-python/train: Permission denied; make it")
    assert len(done.stderr.splitlines()) == 1


def test_diverged_training_keeps_finished_epochs(run, small, tmp_path):
    """JSON of an earlier run is not overwritten by a run that has nothing to say."""
    output = tmp_path / "out.json"
    output.write_text("precious")
    refused(run("train", "conv5x5", *small, "--lr", "1e30", "--output", output), "loss")
    assert output.read_text() == "precious"


def test_output_that_cannot_be_written_is_found_out_before_training(run, small, tmp_path, monkeypatch):
    """Not after hours of it."""

    def refuse(*, dir):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("resnet_bench.files.tempfile.TemporaryFile", refuse)
    monkeypatch.setattr("resnet_bench.data.datasets.load", lambda *_, **__: pytest.fail("went on"))
    refused(run("train", "fc1", *small, "--output", tmp_path / "a.json"), "Permission denied; give another --output.")


def test_training_writes_through_links_and_into_pipes(run, small, tmp_path):
    """The result goes into the pipe, the checkpoint to where its link leads; both stay what they are."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.pt").symlink_to(tmp_path / "kept.pt")
    os.mkfifo(tmp_path / "pipe")
    received = []
    reader = threading.Thread(target=lambda: received.append((tmp_path / "pipe").read_text()))
    reader.start()
    places = ["--checkpoint", tmp_path / "run", "--output", tmp_path / "pipe"]
    done = run("train", "conv5x5", *small, "--epochs", "1", "--pipeline", "vectorized", *places)
    assert done.returncode == 0, done.stderr
    reader.join(timeout=10)
    assert json.loads(received[0])["complete"]
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "run" / "checkpoint.pt").is_symlink()
    assert (tmp_path / "kept.pt").stat().st_size > 1_000_000


def test_interrupt(small, tmp_path):
    """Ctrl-C after the first epoch: exit status 130, its result saved and marked incomplete."""
    output = tmp_path / "out.json"
    command = ["train", "conv5x5", *small, "--epochs", "1000", "--output", output, "--checkpoint", tmp_path / "run"]
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "resnet_bench.cli", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch  1"):
            process.send_signal(signal.SIGINT)
            break
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip() == "resnet-bench: interrupted"
    (result,) = reading.read(output).results
    assert not result.complete
    assert len(result.epochs) >= 1
    assert (tmp_path / "run" / "checkpoint.pt").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_full_disk_while_printing():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "resnet_bench.cli", "architectures"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("architectures >&-", 0),
        ("architectures >&- 2>&-", 0),
        ("report nowhere.json 2>&-", 2),
        ("report nowhere.json 2>/dev/full", 2),
        ("report --unheard 2>/dev/full", 2),
    ],
)
def test_closed_and_full_streams_change_no_status(command, status):
    done = subprocess.run(f"{sys.executable} -m resnet_bench.cli {command}", shell=True, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (status, "")


@pytest.mark.parametrize("content", ["", '{"benchmarks": [{"extra', "[]", '{"benchmarks": []}'])
@pytest.mark.parametrize("command", ["report", "compare", "history"])
def test_truncated_and_foreign_json(run, tmp_path, command, content):
    path = tmp_path / "bad.json"
    path.write_text(content)
    refused(run(command, path, *([path] if command == "compare" else [])), "bad.json")


def test_export_does_not_replace_what_it_reads(run, tmp_path):
    path = tmp_path / "results.json"
    path.write_bytes((ROOT / "reports" / "quick-quiet.json").read_bytes())
    before = path.read_bytes()
    refused(run("export", path, "--output", path), f"--output {path} would replace the results in it")
    assert path.read_bytes() == before


def test_a_file_whose_name_is_no_text(run, tmp_path):
    path = tmp_path / os.fsdecode(b"\xff.json")
    path.write_bytes((ROOT / "reports" / "quick-quiet.json").read_bytes())
    for format_ in ("csv", "json", "parquet"):
        done = run("export", path, "--format", format_, "--output", tmp_path / f"table.{format_}")
        assert done.returncode == 0, done.stderr


def test_damaged_recipes_and_times_are_no_traceback(run, tmp_path):
    content = json.loads((ROOT / "reports" / "quick-quiet.json").read_text())
    for benchmark in content["benchmarks"]:
        benchmark["extra_info"].get("recipe", {}).pop("schedule", None)
        for epoch in benchmark["extra_info"].get("epochs", []):
            epoch["train_seconds"] = 0
    (tmp_path / "a.json").write_text(json.dumps(content))
    done = run("report", tmp_path / "a.json", "--html", tmp_path / "page.html", "--figures", tmp_path / "figures")
    assert done.returncode == 0, done.stderr


def test_architectures_as_json(run):
    """What scripts read: exact counts, and the published one as the paper prints it."""
    networks = {d["architecture"]: d for d in json.loads(run("architectures", "--format", "json").stdout)}
    assert networks["baseline"]["parameters"] == 8_942_524
    assert networks["baseline"]["parameters_rounded"] == networks["baseline"]["published_parameters"] == "8.9M"
    assert networks["blocks2"]["published_parameters"] is None
    assert 0 < networks["conv5x5"]["fc_share"] < networks["blocks2"]["fc_share"] < 1


def test_a_reader_that_goes_away_has_a_status_of_its_own():
    """As `| head` does; a failed check has another."""
    command = f"{sys.executable} -m resnet_bench.cli reconstruct --format json | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert done.stdout == "141\n"
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


@pytest.mark.parametrize(
    "command",
    ["train", "architectures", "reconstruct", "report", "compare", "history", "machine", "explain", "scale", "study"],
)
def test_help_is_instant_and_teaches(command):
    """Without importing torch, which takes seconds."""
    code = (
        "import sys; from resnet_bench.cli import cli; cli.main([sys.argv[1], '--help'], standalone_mode=False);"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout
    assert len(done.stdout.splitlines()) > 6
