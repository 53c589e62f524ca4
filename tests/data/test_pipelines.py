import gc
import multiprocessing
import os
import signal
import subprocess
import sys
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from resnet_bench.data import pipelines
from resnet_bench.data.pipelines import WorkerError
from resnet_bench.errors import UserError
from resnet_bench.machine import system
from resnet_bench.recipe import Recipe

ROOT = Path(__file__).parent.parent.parent
RECIPE = Recipe()


def collect(dataset, pipeline, recipe=RECIPE, **options):
    return list(pipelines.batches(pipeline, dataset, recipe, 5, 2, **options))


def assert_same(a, b):
    assert len(a) == len(b)
    for (images, labels), (other_images, other_labels) in zip(a, b, strict=True):
        assert torch.equal(images, other_images)
        assert torch.equal(labels, other_labels)


@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_same_batches_for_any_pipeline_and_worker_count(dataset, workers):
    """Bit for bit, with the smaller last batch."""
    expected = collect(dataset, "vectorized")
    assert [len(labels) for _, labels in expected] == [4] * 10 + [2]
    assert_same(collect(dataset, "loader", workers=workers), expected)


@pytest.mark.parametrize("pipeline", pipelines.PIPELINES)
@pytest.mark.parametrize("start", [1, 7, 10, 11])
def test_an_epoch_taken_up_in_the_middle(dataset, pipeline, start):
    """Starting at a step gives what a run from the beginning gives from there on."""
    assert_same(collect(dataset, pipeline, start=start), collect(dataset, pipeline)[start:])


@pytest.mark.parametrize("batch_size", [1, 3, 42])
def test_images_do_not_depend_on_the_batch_size(dataset, batch_size):
    """Another batch size cuts the same sequence of augmented images elsewhere."""
    ours = collect(dataset, "vectorized", Recipe(batch_size=batch_size))
    assert torch.equal(
        torch.cat([images for images, _ in ours]), torch.cat([i for i, _ in collect(dataset, "vectorized")])
    )


def test_chunks_do_not_show(dataset, monkeypatch):
    """However many images are augmented at once, the batches are the same."""
    expected = collect(dataset, "vectorized")
    monkeypatch.setattr(pipelines, "CHUNK_IMAGES", 1)
    assert_same(collect(dataset, "vectorized"), expected)


@pytest.mark.parametrize("pipeline", pipelines.PIPELINES)
def test_the_global_generator_is_not_touched(dataset, pipeline):
    before = torch.random.get_rng_state()
    collect(dataset, pipeline)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_every_image_is_seen_once_an_epoch(dataset):
    labels = torch.cat([labels for _, labels in collect(dataset, "vectorized")])
    assert labels.bincount().tolist() == dataset.train.labels.bincount().tolist()


IMPORTS = """
import sys
sys.path[:0] = [{root!r}]
from tests.conftest import image_set
from resnet_bench.architectures import Architecture
from resnet_bench.data.datasets import Dataset
from resnet_bench.recipe import Recipe
from resnet_bench.training.training import Training
images = Dataset("random", image_set(8, 5, 0), image_set(4, 5, 1), tuple("abcde"), synthetic=True, subset=False)
small = Architecture("small", "", "", widths=(8,), strides=(2,), hidden=())
for pipeline in ("vectorized", "loader"):
    Training(small, images, Recipe(), pipeline=pipeline)
    print(pipeline, "torchvision" in sys.modules)
"""


def test_what_takes_seconds_to_import_is_there_before_a_clock_runs():
    """In a fresh process: torchvision comes with a training on the loader, not with its first epoch, and only then."""
    code = IMPORTS.format(root=str(ROOT))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split("\n")[:2] == ["vectorized False", "loader True"]


needs_fork = pytest.mark.skipif(pipelines.START_METHOD != "fork", reason="this system's workers are not forked")


@pytest.fixture
def start_method():
    """Sets Python's default way to start processes, for one test."""
    before = multiprocessing.get_start_method(allow_none=True)
    yield lambda method: multiprocessing.set_start_method(method, force=True)
    multiprocessing.set_start_method(before, force=True)


def workers_of(loaded):
    """The first batch of an iterator, and the processes that work for it."""
    before = set(multiprocessing.active_children())
    return next(loaded), [child for child in multiprocessing.active_children() if child not in before]


@needs_fork
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_are_forked_whatever_pythons_default_is(dataset, start_method, method):
    """Others would import torch in every epoch's time and would be sent the whole data set."""
    start_method(method)
    loaded = pipelines.batches("loader", dataset, RECIPE, 5, 2, workers=2)
    first, workers = workers_of(loaded)
    assert [type(worker).__name__ for worker in workers] == ["ForkProcess", "ForkProcess"]
    assert_same([first, *loaded], collect(dataset, "vectorized"))


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_a_killed_worker_is_one_sentence_where_its_batch_is_waited_for(dataset):
    """Not wherever the training is when it dies: torch's handler for that is not left behind."""
    handler, mask = signal.getsignal(signal.SIGCHLD), signal.pthread_sigmask(signal.SIG_BLOCK, [])
    loaded = pipelines.batches("loader", dataset, RECIPE, 5, 2, workers=2)
    _, workers = workers_of(loaded)
    assert signal.getsignal(signal.SIGCHLD) is handler
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == mask
    workers[0].kill()
    connection.wait([workers[0].sentinel])
    with pytest.raises(WorkerError) as error:
        list(loaded)
    assert str(error.value) == (
        "A worker process of the loader was ended by SIGKILL, as happens where memory runs out; "
        "give --workers 0, which trains on the same batches."
    )


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_workers_do_not_hear_an_interrupt(dataset):
    """Ctrl-C reaches all processes of a terminal; the training answers it."""
    loaded = pipelines.batches("loader", dataset, RECIPE, 5, 2, workers=2)
    first, workers = workers_of(loaded)
    for worker in workers:
        os.kill(worker.pid, signal.SIGINT)
    assert_same([first, *loaded], collect(dataset, "vectorized"))


@needs_fork
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)"),
            "RuntimeError: unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)",
        ),
        (OSError(24, "Too many open files"), "OSError: [Errno 24] Too many open files"),
        (MemoryError(), "MemoryError"),
    ],
    ids=["shared memory", "files", "memory"],
)
def test_an_error_of_the_surroundings_in_a_worker_is_one_sentence(dataset, monkeypatch, error, said):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(pipelines.augmentation, "augment_image", fail)
    with pytest.raises(WorkerError) as raised:
        collect(dataset, "loader", workers=1)
    assert str(raised.value) == (
        f"A worker process of the loader failed ({said}); give --workers 0, which trains on the same batches."
    )
    with pytest.raises(type(error)):  # without workers there is none to blame
        collect(dataset, "loader", workers=0)
    error.__traceback__ = None  # it would keep this frame, and with it the loader and its worker, for good


@needs_fork
def test_a_loader_of_which_one_worker_cannot_start_ends_the_others_and_says_one_sentence(dataset, monkeypatch):
    """Torch alone would also print a traceback, when the loader is deleted."""
    started, unraisable = [], []
    start = BaseProcess.start

    def second_fails(process):
        if started:
            raise OSError(28, "No space left on device")
        start(process)
        started.append(process)

    monkeypatch.setattr(BaseProcess, "start", second_fails)
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    with pytest.raises(WorkerError) as raised:
        next(pipelines.batches("loader", dataset, RECIPE, 5, 2, workers=2))
    assert "No space left on device" in str(raised.value)
    raised.value.__traceback__ = raised.value.__cause__.__traceback__ = None  # they hold the loader
    del raised
    gc.collect()
    assert unraisable == []
    assert not started[0].is_alive()


def test_a_mistake_in_the_code_of_a_worker_keeps_its_traceback(dataset, monkeypatch):
    monkeypatch.setattr(pipelines.augmentation, "augment_image", lambda: None)
    with pytest.raises(TypeError):
        collect(dataset, "loader", workers=1)


@pytest.mark.parametrize(
    ("batch_size", "images", "needed"),
    [(4, 50_000, 5 * 4 * 12_296), (400, 50_000, 5 * 400 * 12_296), (400, 500, 500 * 12_296), (4, None, 20 * 12_296)],
)
def test_batches_under_way_have_to_fit_into_shared_memory(monkeypatch, batch_size, images, needed):
    """2 workers prepare 2 batches each, one more is trained on; of an image 12,288 bytes and 8 of its label."""
    usage = SimpleNamespace(free=needed)
    monkeypatch.setattr(pipelines.shutil, "disk_usage", lambda path: usage)
    pipelines.require_workers(Recipe(batch_size=batch_size), 2, images)
    usage.free -= 1
    with pytest.raises(UserError, match=r"MB free, but batches of 2 loader workers take .* MB there; make it larger"):
        pipelines.require_workers(Recipe(batch_size=batch_size), 2, images)
    pipelines.require_workers(Recipe(batch_size=batch_size), 0, images)


def test_a_system_without_locks_is_found_out_before_training(dataset, monkeypatch):
    def refuse(self):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(multiprocessing.context.BaseContext, "Lock", refuse)
    with pytest.raises(UserError, match=r"cannot share a lock with the training \(\[Errno 38\] Function not"):
        pipelines.prepare("loader", RECIPE, 2, 42)
    pipelines.prepare("loader", RECIPE, 0, 42)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not bind processes to cores")
@pytest.mark.filterwarnings("error")
def test_more_workers_than_cores_are_said_in_one_line(dataset, monkeypatch):
    """On one core of this machine: the paper's 2 workers stay, and nothing of torch's is printed."""
    monkeypatch.setattr(system, "container_limits", lambda: system.ContainerLimits(None, None))
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        assert_same(collect(dataset, "loader", workers=2), collect(dataset, "vectorized"))
        said = [pipelines.crowded(*setting) for setting in (("loader", 2), ("loader", 1), ("vectorized", 2))]
    finally:
        os.sched_setaffinity(0, cores)
    expected = (
        "2 loader workers and the training share 1 usable core: an epoch takes longer than with --workers 0, "
        "which gives the same batches."
    )
    assert said == [expected, None, None]


@pytest.mark.parametrize(("cores", "workers"), [(0.5, 0), (1.0, 0), (1.5, 2), (8.0, 2)])
def test_one_usable_core_has_no_loader_workers_unless_they_are_asked_for(monkeypatch, cores, workers):
    monkeypatch.setattr(pipelines.machine, "usable_cores", lambda: cores)
    assert pipelines.chosen_workers(None) == workers
    assert pipelines.chosen_workers(1) == 1
    assert (pipelines.fewer_workers("loader", None) is None) == (workers == 2)
    assert pipelines.fewer_workers("vectorized", None) is None
    assert pipelines.fewer_workers("loader", 0) is None


def test_a_containers_quota_counts_as_cores(monkeypatch):
    monkeypatch.setattr(system, "container_limits", lambda: system.ContainerLimits(0.5, None))
    assert pipelines.crowded("loader", 1) == (
        "1 loader worker and the training share 0.5 usable cores: an epoch takes longer than with --workers 0, "
        "which gives the same batches."
    )
