import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from resnet_bench import networks
from resnet_bench.architectures import Architecture
from resnet_bench.data.augmentation import normalize
from resnet_bench.data.pipelines import batches
from resnet_bench.errors import UserError
from resnet_bench.recipe import Recipe
from resnet_bench.signals import Terminated
from resnet_bench.training import training
from resnet_bench.training.checkpoint import CHECKPOINT_FILE
from resnet_bench.training.training import Training, weights_sha256

ROOT = Path(__file__).parent.parent.parent
SMALL = Architecture("small", "", "", widths=(16, 16), strides=(2, 2), hidden=(8,))
RECIPE = Recipe(epochs=2)


def train(dataset, **options):
    run = Training(options.pop("architecture", SMALL), dataset, options.pop("recipe", RECIPE), **options)
    for _ in run.epochs():
        pass
    return run


@pytest.fixture(scope="module")
def expected(dataset):
    """The digest of an undisturbed run."""
    return weights_sha256(train(dataset, pipeline="vectorized").engine.network)


def test_is_a_plain_pytorch_training(dataset):
    """The harness gives the same weights, to the last bit, as the loop anyone would write."""
    run = train(dataset, pipeline="vectorized")
    network = networks.build(SMALL, dataset.num_classes, 0)
    optimizer = torch.optim.Adam(network.parameters(), lr=4e-4)
    mean, std = torch.tensor(dataset.mean), torch.tensor(dataset.std)
    for epoch in (1, 2):
        network.train()
        losses = []
        for images, labels in batches("vectorized", dataset, RECIPE, 0, epoch):
            optimizer.zero_grad()
            loss = F.cross_entropy(network(images), labels)
            loss.backward()
            optimizer.step()
            losses += [loss.item()] * len(labels)
        network.eval()
        with torch.no_grad():
            logits = network(normalize(dataset.test.images, mean, std))
        result = run.results[epoch - 1]
        assert result.train_loss == pytest.approx(sum(losses) / len(losses), rel=1e-12)
        assert result.test_accuracy == int((logits.argmax(1) == dataset.test.labels).sum()) / 20
        assert result.test_loss == pytest.approx(float(F.cross_entropy(logits, dataset.test.labels)), rel=1e-5)
    assert weights_sha256(run.engine.network) == weights_sha256(network)


@pytest.mark.parametrize(("pipeline", "workers"), [("vectorized", 0), ("loader", 0), ("loader", 2)])
def test_same_weights_for_any_pipeline_and_worker_count(dataset, expected, pipeline, workers):
    run = train(dataset, pipeline=pipeline, workers=workers)
    assert weights_sha256(run.engine.network) == expected


def test_another_seed_gives_other_weights(dataset, expected):
    assert weights_sha256(train(dataset, pipeline="vectorized", seed=1).engine.network) != expected


def test_digest_sees_every_weight_and_buffer():
    network = networks.build(SMALL, 5, 0)
    seen = {weights_sha256(network)}
    for tensor in network.state_dict().values():
        tensor.view(-1)[0] += 1
        seen.add(weights_sha256(network))
    assert len(seen) == 1 + len(network.state_dict())


def test_result_holds_what_was_run(dataset):
    """Parameters, epochs with phases, Wilson interval and digest."""
    result = train(dataset, pipeline="vectorized").result()
    assert result.complete
    assert [e.epoch for e in result.epochs] == [1, 2]
    assert result.parameters == sum(p.numel() for p in networks.build(SMALL, 5, 0).parameters())
    for epoch in result.epochs:
        phases = epoch.phases
        spent = phases.data + phases.forward + phases.backward + phases.optimizer
        assert 0 < spent <= epoch.train_seconds
    assert result.final_accuracy.low <= result.epochs[-1].test_accuracy <= result.final_accuracy.high
    assert result.dataset.sha256 == dataset.sha256


@pytest.mark.parametrize("stop_at", [1, 5, 11])
def test_interrupted_run_goes_on_to_the_same_weights(dataset, expected, tmp_path, stop_at):
    """Ctrl-C in the middle of an epoch finishes the step, saves, and a new process goes on from there."""
    run = Training(SMALL, dataset, RECIPE, pipeline="vectorized", checkpoint=tmp_path)
    step = run.train_step

    def interrupted_step():
        if run.step == stop_at - 1:
            os.kill(os.getpid(), signal.SIGINT)
        return step()

    run.train_step = interrupted_step
    with pytest.raises(KeyboardInterrupt):
        run.run_epoch()
    again = Training(SMALL, dataset, RECIPE, pipeline="loader", workers=1, checkpoint=tmp_path)
    assert again.resumed
    assert (again.epoch, again.step) == (1, stop_at)
    losses = [e.train_loss for e in again.epochs()]
    assert weights_sha256(again.engine.network) == expected
    undisturbed = train(dataset, pipeline="vectorized")
    assert losses == [e.train_loss for e in undisturbed.results]


@pytest.mark.parametrize("engine", ["reference", "fast"])
@pytest.mark.parametrize("stop_at", [4, 13])
def test_a_training_resumes_to_the_same_weights_in_the_middle_of_a_warm_up_and_of_a_schedule(
    dataset, tmp_path, engine, stop_at
):
    recipe = Recipe(epochs=2, schedule="cosine", warmup_steps=9)
    undisturbed = train(dataset, recipe=recipe, pipeline="vectorized", engine=engine)
    run = Training(SMALL, dataset, recipe, pipeline="vectorized", engine=engine, checkpoint=tmp_path)
    for _ in range(stop_at):
        if run.train_step() is None:
            run.close_epoch()
            run.train_step()
    run._save()
    again = Training(SMALL, dataset, recipe, pipeline="vectorized", engine=engine, checkpoint=tmp_path)
    assert again.resumed
    for _ in again.epochs():
        pass
    assert weights_sha256(again.engine.network) == weights_sha256(undisturbed.engine.network)
    assert weights_sha256(again.engine.network) != weights_sha256(train(dataset, engine=engine).engine.network)


def test_a_scheduled_training_is_a_plain_one_with_torchs_scheduler(dataset):
    """A loop that anyone would write: warm-up and cosine one after the other, stepped after every batch."""
    recipe = Recipe(epochs=2, schedule="cosine", warmup_steps=5)
    run = train(dataset, recipe=recipe, pipeline="vectorized")
    network = networks.build(SMALL, dataset.num_classes, 0).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=4e-4)
    warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1 / 6, total_iters=5)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=22 - 5)
    scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm_up, cosine], milestones=[5])
    for epoch in (1, 2):
        for images, labels in batches("vectorized", dataset, recipe, 0, epoch):
            optimizer.zero_grad()
            F.cross_entropy(network(images), labels).backward()
            optimizer.step()
            scheduler.step()
    for mine, its in zip(run.engine.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-7)  # rates differ in the last of 16 digits


def test_each_epoch_has_the_rates_of_its_first_and_last_step(dataset):
    recipe = Recipe(epochs=2, schedule="cosine", warmup_steps=5)
    rates = recipe.learning_rates(22)
    run = train(dataset, recipe=recipe, pipeline="vectorized")
    assert [(e.lr_start, e.lr_end) for e in run.results] == [
        (rates.at(0), rates.at(10)),
        (rates.at(11), rates.at(21)),
    ]


def test_a_longer_training_is_another_one_where_the_rate_depends_on_its_length(dataset, tmp_path):
    train(dataset, pipeline="vectorized", checkpoint=tmp_path, recipe=Recipe(epochs=1, schedule="cosine"))
    with pytest.raises(UserError, match=r"The checkpoint in .* is of another recipe"):
        train(dataset, pipeline="vectorized", checkpoint=tmp_path, recipe=Recipe(epochs=2, schedule="cosine"))


def test_each_epoch_counts_the_hidden_units_that_answer_a_test_image(dataset):
    """By hand, from the weights at the end; and of a dead layer there are none."""
    deep = Architecture("deep", "", "", widths=(16,), strides=(2,), hidden=(32, 12))
    run = train(dataset, pipeline="vectorized", architecture=deep)
    network = run.engine.network.eval()
    x = normalize(dataset.test.images, torch.tensor(dataset.mean), torch.tensor(dataset.std))
    with torch.no_grad():
        x = network.blocks(network.stem(x)).flatten(1)
        first = torch.relu(network.fc[0](x))
        second = torch.relu(network.fc[2](first))
    expected = tuple(int((out > 0).any(0).sum()) for out in (first, second))
    assert run.results[-1].live_units == expected
    assert 0 < expected[0] < 32
    with torch.no_grad():
        network.fc[0].bias.fill_(-1e9)
    assert run.evaluate().live_units[0] == 0
    assert train(dataset, architecture=Architecture("one", "", "", hidden=())).results[-1].live_units == ()


KILLED = """
import sys
from pathlib import Path
sys.path[:0] = [{root!r}]
from tests.conftest import image_set
from tests.training.test_training import RECIPE, SMALL
from resnet_bench.data.datasets import Dataset
from resnet_bench.training.training import Training
dataset = Dataset("random", image_set(42, 5, 0), image_set(20, 5, 1), tuple("abcde"), synthetic=True, subset=False)
run = Training(SMALL, dataset, RECIPE, pipeline="vectorized", checkpoint=Path({folder!r}), checkpoint_minutes=0)
step = run.train_step
def slow():
    print(run.epoch, run.step, flush=True)
    return step()
run.train_step = slow
for epoch in run.epochs():
    pass
"""


def test_killed_run_goes_on_to_the_same_weights(dataset, expected, tmp_path):
    """`kill -9` in the middle of an epoch, then a resume from the last checkpoint, in another process."""
    code = KILLED.format(root=str(ROOT), folder=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.split() == ["2", "4"]:
            process.send_signal(signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    again = Training(SMALL, dataset, RECIPE, pipeline="vectorized", checkpoint=tmp_path)
    assert again.resumed
    assert (again.epoch, again.step) >= (2, 3)
    for _ in again.epochs():
        pass
    assert weights_sha256(again.engine.network) == expected


TWO_THREADS = """
import sys
sys.path[:0] = [{root!r}]
import torch
from tests.conftest import image_set
from resnet_bench.architectures import get
from resnet_bench.data.datasets import Dataset
from resnet_bench.recipe import Recipe
from resnet_bench.signals import Terminated
from resnet_bench.training.training import Training, weights_sha256
images = Dataset("random", image_set(42, 5, 0), image_set(20, 5, 1), tuple("abcde"), synthetic=True, subset=False)
run = Training(get("conv5x5"), images, Recipe(), engine={engine!r}, threads=2)
for _ in range(6):
    run.train_step()
assert torch.get_num_threads() == 2
print(weights_sha256(run.engine.network))
"""


@pytest.mark.parametrize("engine", ["reference", "fast"])
def test_same_weights_in_every_process_with_two_threads_too(engine):
    """A network of the study, not a toy; the other tests run with one thread."""
    code = TWO_THREADS.format(root=str(ROOT), engine=engine)
    # Threads that wait are to sleep: the other core has another test to run.
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"} | {"OMP_WAIT_POLICY": "passive"}

    def run():
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    first, second = run(), run()
    assert first == second
    assert len(first) == 64


def test_finished_run_is_not_trained_again(dataset, expected, tmp_path):
    train(dataset, pipeline="vectorized", checkpoint=tmp_path)
    again = Training(SMALL, dataset, RECIPE, checkpoint=tmp_path)
    assert list(again.epochs()) == []
    assert weights_sha256(again.engine.network) == expected
    assert len(again.result().epochs) == 2


def test_more_epochs_go_on_from_a_finished_run(dataset, tmp_path):
    """The number of epochs may grow: the learning rate is constant, so the longer run is the same run."""
    train(dataset, pipeline="vectorized", checkpoint=tmp_path)
    longer = train(dataset, pipeline="vectorized", checkpoint=tmp_path, recipe=Recipe(epochs=3))
    direct = train(dataset, pipeline="vectorized", recipe=Recipe(epochs=3))
    assert weights_sha256(longer.engine.network) == weights_sha256(direct.engine.network)


def test_diverged_training_stops_and_keeps_the_last_good_checkpoint(dataset, tmp_path):
    """The sentence says at which step; the checkpoint still holds finite weights."""
    run = Training(SMALL, dataset, RECIPE, pipeline="vectorized", checkpoint=tmp_path)
    run.run_epoch()
    good = (tmp_path / CHECKPOINT_FILE).read_bytes()
    with torch.no_grad():
        run.engine.network.fc[0].weight.fill_(float("nan"))
    with pytest.raises(UserError, match=r"loss is nan at step 1 of epoch 2; .* checkpoint is kept"):
        run.run_epoch()
    assert (tmp_path / CHECKPOINT_FILE).read_bytes() == good


def test_weights_that_are_not_finite_are_never_saved(dataset, tmp_path):
    """Also where the loss of the last step was still finite."""
    run = Training(SMALL, dataset, RECIPE, pipeline="vectorized", checkpoint=tmp_path)
    with torch.no_grad():
        run.engine.network.fc[0].bias[0] = float("inf")
    with pytest.raises(UserError, match="weights are not finite"):
        run._save()
    assert not (tmp_path / CHECKPOINT_FILE).exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recipe": Recipe(batch_size=43)}, "--batch-size is 43, but there are only 42 training images"),
        ({"recipe": Recipe(epochs=1, warmup_steps=11)}, "--warmup-steps is 11, but the whole training has 11 steps"),
        ({"workers": -1}, "--workers is -1"),
        ({"threads": 0}, "--threads is 0"),
        ({"seed": -1}, "--seed is -1"),
        ({"seed": 2**64}, "--seed is 18446744073709551616"),
        ({"engine": "quantum"}, "no engine 'quantum'; choose one of reference"),
        ({"pipeline": "oil"}, "no pipeline 'oil'; choose one of loader, vectorized"),
    ],
)
def test_bad_options(dataset, options, message):
    with pytest.raises(UserError, match=message):
        Training(SMALL, dataset, options.pop("recipe", RECIPE), **options)


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_run_whose_worker_was_killed_goes_on_to_the_same_weights(dataset, expected, tmp_path):
    """The steps that were trained are in a checkpoint, whole; the epoch does not pass for finished."""
    others = set(multiprocessing.active_children())
    run = Training(SMALL, dataset, RECIPE, pipeline="loader", workers=2, checkpoint=tmp_path)
    run.train_step()
    worker, _ = set(multiprocessing.active_children()) - others
    worker.kill()
    with pytest.raises(UserError) as error:
        run.run_epoch()
    assert str(error.value) == (
        "A worker process of the loader was ended by SIGKILL, as happens where memory runs out; give --workers 0, "
        f"which trains on the same batches. What is trained is kept in {tmp_path}."
    )
    assert run.results == []
    stopped_at = run.step
    again = Training(SMALL, dataset, RECIPE, pipeline="loader", workers=0, checkpoint=tmp_path)
    assert (again.epoch, again.step) == (1, stopped_at)
    assert run.train_step() == again.train_step()  # with new workers
    list(again.epochs())
    assert weights_sha256(again.engine.network) == expected


def test_second_interrupt_is_not_held_back():
    """The first Ctrl-C waits for the end of the step; the second, for a hanging one, interrupts at once."""
    with training.deferred_interrupt() as interrupted:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupted.wait(5)
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012 (the signal arrives at the next bytecode)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)


def test_a_second_sigterm_is_held_back_too():
    """A cluster that cancels a job sends one, and the end of the parent is another; the checkpoint is still written."""
    with training.deferred_interrupt() as interrupted:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGTERM):
            os.kill(os.getpid(), number)
            time.sleep(0.01)
        assert isinstance(interrupted.reason, Terminated)
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012 (the signal arrives at the next bytecode)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)


def test_trains_outside_the_main_thread(dataset):
    """Where no signal can be handled, training still runs."""
    done = []
    thread = threading.Thread(target=lambda: done.append(train(dataset, pipeline="vectorized").result().complete))
    thread.start()
    thread.join()
    assert done == [True]
