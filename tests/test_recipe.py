import pytest
from click.testing import CliRunner

from resnet_bench.cli import cli
from resnet_bench.errors import UserError
from resnet_bench.options import RUN_OPTIONS, recipe
from resnet_bench.recipe import LOADER_WORKERS, Recipe


def test_defaults_are_the_papers():
    """Batch 4, Adam 4e-4, 15 epochs, 2 workers, pad 4, flip 0.5, ±15°."""
    r = Recipe()
    assert (r.batch_size, r.lr, r.epochs, LOADER_WORKERS) == (4, 4e-4, 15, 2)
    assert (r.padding, r.flip_probability, r.rotation_degrees) == (4, 0.5, 15.0)


def test_option_defaults_give_the_papers_recipe():
    assert recipe({o.name: o.default for o in RUN_OPTIONS}) == Recipe()


def test_train_help_shows_every_option_with_its_default():
    text = CliRunner().invoke(cli, ["train", "--help"]).output
    for option in RUN_OPTIONS:
        assert option.flag in text
    assert "[default: 0.0004]" in text


@pytest.mark.parametrize(
    "bad", [{"batch_size": 0}, {"epochs": 0}, {"lr": 0.0}, {"lr": float("nan")}, {"lr": float("inf")}]
)
def test_numbers_that_make_no_sense(bad):
    (name,) = bad
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')} is"):
        Recipe(**bad)


def test_differences_name_the_fields():
    assert Recipe(lr=0.1, epochs=2).differences(Recipe(), ignore=("epochs",)) == ["lr 0.1 against 0.0004"]
