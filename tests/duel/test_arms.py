"""Arms as the command line writes them."""

import sys

import pytest

from resnet_bench.duel.arms import Arm, parse, parse_all
from resnet_bench.errors import UserError


def test_without_items_an_arm_is_this_environment():
    assert parse("glibc:") == Arm("glibc")


def test_all_kinds_of_items_in_one_arm():
    arm = parse(f"new:torch==2.15,git=v2^,env:A=b=c,threads=1,train-images=40,engine=fast,python={sys.executable}")
    assert arm.requirements == ("torch==2.15",)
    assert (arm.revision, arm.python) == ("v2^", sys.executable)
    assert arm.variables == {"A": "b=c"}
    assert arm.options == {"threads": 1, "train_images": 40, "engine": "fast"}


def test_commas_that_separate_no_items():
    arm = parse(r"a:torch>=2.12,<2.14,numpy[x,y]==2,env:MALLOC_CONF=a:1\,b:2,threads=2")
    assert arm.requirements == ("torch>=2.12,<2.14", "numpy[x,y]==2")
    assert arm.variables == {"MALLOC_CONF": "a:1,b:2"}
    assert arm.options == {"threads": 2}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a:"], "A duel has 2 to 4 arms, and --arm was given 1 time;"),
        ([], "--arm was given 0 times;"),
        ([f"a{i}:" for i in range(5)], "--arm was given 5 times;"),
        (["a:", "b:", "A:threads=1"], "Two arms are called A;"),
    ],
)
def test_number_and_names(texts, message):
    with pytest.raises(UserError, match=message):
        parse_all(texts)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("old", "has no colon after its name"),
        ("../x:", "cannot be called '../x'"),
        ("duel:", "cannot be called 'duel'"),
        (":threads=1", "cannot be called ''"),
        ("a:thread=1", "there is no option 'thread'; options are dataset, engine"),
        ("a:torch=2.12", "a requirement is written torch==2.12"),
        ("a:threads=x", "'threads=x' gives no number"),
        ("a:threads=1,threads=2", "threads is set twice"),
        ("a:env:=1", "'env:=1' is no environment variable"),
        ("a:env:PATH", "'env:PATH' is no environment variable"),
        ("a:env:X=1,env:X=2", "X is set twice"),
        ("a:env:LD_PRELOAD=/nowhere/libx.so", "LD_PRELOAD names /nowhere/libx.so, which is not there"),
        ("a:git=", "'git=' names nothing"),
        ("a:git=x,git=y", "git= is there twice"),
        ("a:python=/nowhere/python", "/nowhere/python is no interpreter"),
        ("a:./wheel.whl", "'./wheel.whl' is no item"),
        ("a:torch==2.12,torch==2.13", "torch is required twice"),
        ("a:resnet_bench==1", "cannot require resnet-bench itself"),
    ],
)
def test_mistakes_are_one_sentence(text, message):
    with pytest.raises(UserError) as error:
        parse(text)
    assert message in str(error.value)
    assert str(error.value).endswith(".")
    assert "\n" not in str(error.value)
