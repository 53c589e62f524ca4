"""Checkpoint files: which are refused, and that none is lost."""

import pytest
import torch

from resnet_bench.architectures import ARCHITECTURES
from resnet_bench.errors import UserError
from resnet_bench.recipe import Recipe
from resnet_bench.training import checkpoint
from resnet_bench.training.checkpoint import CHECKPOINT_FILE
from resnet_bench.training.training import Training
from tests.conftest import locked_by_another_process
from tests.training.test_training import RECIPE, SMALL, train


def test_fewer_epochs_than_are_done_are_refused(dataset, tmp_path):
    """The result would hold more epochs than its recipe says."""
    train(dataset, pipeline="vectorized", checkpoint=tmp_path)
    with pytest.raises(UserError, match=r"is 2 epochs old, but --epochs is 1"):
        train(dataset, pipeline="vectorized", checkpoint=tmp_path, recipe=Recipe(epochs=1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": ARCHITECTURES["conv5x5"]}, "another architecture"),
        ({"recipe": Recipe(epochs=2, lr=0.1)}, "another recipe"),
        ({"seed": 9}, "another seed"),
    ],
)
def test_checkpoint_of_another_run_is_refused(dataset, tmp_path, change, message):
    train(dataset, pipeline="vectorized", checkpoint=tmp_path, recipe=Recipe(epochs=1))
    before = (tmp_path / CHECKPOINT_FILE).read_bytes()
    with pytest.raises(UserError, match=message):
        train(dataset, checkpoint=tmp_path, **change)
    assert (tmp_path / CHECKPOINT_FILE).read_bytes() == before


def test_checkpoint_of_another_data_set_is_refused(dataset, tmp_path):
    train(dataset, pipeline="vectorized", checkpoint=tmp_path, recipe=Recipe(epochs=1))
    other = type(dataset)("random", dataset.test, dataset.test, dataset.classes, synthetic=True, subset=False)
    with pytest.raises(UserError, match="another data set"):
        Training(SMALL, other, RECIPE, checkpoint=tmp_path)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_broken_checkpoint_is_refused_and_kept(dataset, tmp_path, content):
    """Foreign, empty and truncated files: one sentence, and the file stays."""
    path = tmp_path / CHECKPOINT_FILE
    train(dataset, pipeline="vectorized", checkpoint=tmp_path, recipe=Recipe(epochs=1))
    path.write_bytes(path.read_bytes()[:2000] if content is None else content)
    with pytest.raises(UserError, match="is no checkpoint of this release or was cut off"):
        Training(SMALL, dataset, RECIPE, checkpoint=tmp_path)
    assert path.exists()


def test_a_checkpoint_that_cannot_be_written_is_found_out_at_the_start(dataset, tmp_path):
    """Its link leads into a folder that is not there, as of a share that is not mounted."""
    (tmp_path / "checkpoint.pt").symlink_to(tmp_path / "share" / "checkpoint.pt")
    with pytest.raises(UserError, match=r"no folder .*share to write checkpoint\.pt to; .* give another --checkpoint"):
        Training(SMALL, dataset, RECIPE, pipeline="vectorized", checkpoint=tmp_path)


def test_full_disk_while_saving_a_checkpoint(dataset, tmp_path, monkeypatch):
    """One sentence; the checkpoint before it stays."""
    run = Training(SMALL, dataset, RECIPE, pipeline="vectorized", checkpoint=tmp_path)
    run.run_epoch()
    good = (tmp_path / CHECKPOINT_FILE).read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("resnet_bench.files.os.fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        run.run_epoch()
    assert (tmp_path / CHECKPOINT_FILE).read_bytes() == good


@pytest.mark.parametrize("change", [{"format": 1}, {"format": 3}, {"results": [{"epoch": 1}]}, {"stretches": "[{}]"}])
def test_a_checkpoint_of_another_release_is_refused_and_kept(dataset, tmp_path, change):
    path = tmp_path / CHECKPOINT_FILE
    train(dataset, pipeline="vectorized", checkpoint=tmp_path, recipe=Recipe(epochs=1))
    torch.save({**torch.load(path, weights_only=True), **change}, path)
    before = path.read_bytes()
    with pytest.raises(UserError, match="is no checkpoint of this release or was cut off"):
        Training(SMALL, dataset, RECIPE, checkpoint=tmp_path)
    assert path.read_bytes() == before


@pytest.mark.usefixtures("permissions_hold")
@pytest.mark.parametrize("name", [".", CHECKPOINT_FILE])
def test_a_checkpoint_that_may_not_be_read_is_named(dataset, tmp_path, name):
    train(dataset, pipeline="vectorized", checkpoint=tmp_path, recipe=Recipe(epochs=1))
    (tmp_path / name).chmod(0)
    with pytest.raises(UserError) as error:
        Training(SMALL, dataset, RECIPE, checkpoint=tmp_path)
    (tmp_path / name).chmod(0o755)
    assert str(error.value) == (
        f"Cannot read {tmp_path / CHECKPOINT_FILE}: Permission denied; make it readable or give another --checkpoint "
        "folder."
    )


@pytest.mark.parametrize("truncated", [False, True])
def test_any_damage_to_a_checkpoint_is_found_by_its_checksum(dataset, tmp_path, truncated):
    """torch itself reads other weights where a bit of them is another one. Nothing of the file is unpickled."""
    train(dataset, pipeline="vectorized", checkpoint=tmp_path, recipe=Recipe(epochs=1))
    data = (tmp_path / CHECKPOINT_FILE).read_bytes()
    assert checkpoint.damaged(data) is None
    for place in {*range(0, len(data), 997), *range(len(data) - 95, len(data))}:
        changed = bytearray(data)
        changed[place] ^= 4
        assert checkpoint.damaged(data[:place] if truncated else bytes(changed)), place


def test_a_damaged_checkpoint_is_refused_before_anything_in_it_is_unpickled(dataset, tmp_path, monkeypatch):
    path = tmp_path / CHECKPOINT_FILE
    train(dataset, pipeline="vectorized", checkpoint=tmp_path, recipe=Recipe(epochs=1))
    data = bytearray(path.read_bytes())
    data[3000] ^= 1
    path.write_bytes(data)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("unpickled"))
    with pytest.raises(UserError, match="is damaged: its checksum is another one; move it away"):
        Training(SMALL, dataset, RECIPE, checkpoint=tmp_path)


def test_a_checkpoint_without_a_checksum_is_of_an_earlier_release_and_read(dataset, tmp_path):
    path = tmp_path / CHECKPOINT_FILE
    train(dataset, pipeline="vectorized", checkpoint=tmp_path, recipe=Recipe(epochs=1))
    torch.save(torch.load(path, weights_only=True), path)
    assert Training(SMALL, dataset, RECIPE, checkpoint=tmp_path).resumed


def test_a_program_in_a_checkpoint_of_a_stranger_is_not_run(dataset, tmp_path):
    class Program:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").write_text, ("",))

    torch.save({"format": checkpoint.CHECKPOINT_FORMAT, "identity": Program()}, tmp_path / CHECKPOINT_FILE)
    with pytest.raises(UserError, match="is no checkpoint of this release"):
        Training(SMALL, dataset, RECIPE, checkpoint=tmp_path)
    assert not (tmp_path / "ran").exists()


def test_another_process_may_not_write_to_the_same_folder(dataset, tmp_path):
    with locked_by_another_process(tmp_path) as other:
        with pytest.raises(UserError, match=rf"Another training writes to .* \(process {other.pid} on .*; wait until"):
            Training(SMALL, dataset, RECIPE, checkpoint=tmp_path)
        other.kill()
        other.wait()
        Training(SMALL, dataset, RECIPE, checkpoint=tmp_path)
