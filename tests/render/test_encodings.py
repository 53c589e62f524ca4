"""Every command's output under every encoding: the same text, but for what the encoding lacks."""

from __future__ import annotations

import functools
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resnet_bench import cli, machine, reconstruction, schema
from resnet_bench.measure import ablation as explain
from resnet_bench.output import COUNTERPARTS
from tests import handmade as samples
from tests.render.test_page import explanation

searched = functools.cache(reconstruction.reconstruct)  # which takes seconds

ENCODINGS = ["ascii", "latin-1", "cp1252", "cp437", "cp932", "utf-16"]


@pytest.fixture
def saved(tmp_path: Path) -> list[str]:
    """Two files with results of every kind, from two machines and of a data set with a name beyond ASCII."""
    paths = [tmp_path / "base.json", tmp_path / "other.json"]
    data = samples.dataset(name="folder:Käfer→猫")
    for path, model in zip(paths, ("Processor ×2", "Another"), strict=True):
        entries = [samples.accuracy(a, [0.1, 0.2], seed=s, dataset=data) for a in ("baseline", "fc1") for s in (0, 1)]
        entries += [samples.epoch_time(a, 600, engine=e, dataset=data) for a in ("baseline", "fc1") for e in ("fast",)]
        entries += [samples.parameters(a) for a in ("baseline", "fc1")]
        calibrations = {"start": samples.calibration()}
        samples.save(path, entries, machine=samples.machine(cpu={"model": model}, calibration=calibrations))
    return [str(path) for path in paths]


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs a command whose output has an encoding; what it printed, decoded strictly."""

    def call(encoding: str, *arguments: str) -> str:
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n") for _ in range(2))
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            with pytest.raises(SystemExit) as exit_:
                cli.main(list(arguments))
            out.flush()
        assert not exit_.value.code
        return out.buffer.getvalue().decode(encoding)

    return call


def as_far_as(encoding: str, text: str) -> str:
    """The text with counterparts of what the encoding lacks."""

    def shown(character: str) -> str:
        try:
            character.encode(encoding)
        except UnicodeEncodeError:
            return COUNTERPARTS.get(character) or character.encode("ascii", "backslashreplace").decode()
        return character

    return "".join(map(shown, text))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    "command",
    [
        "report FILES --claims",
        "report FILES --claims --format markdown",
        "report FILES --claims --format latex",
        "report FILES --claims --format csv",
        "compare FILES --fail-if accuracy:50",
        "compare FILES --format markdown",
        "architectures",
        "architectures --format markdown",
        "reconstruct",
        "explain fc1 --dataset synthetic",
        "machine",
        "compare --help",
    ],
)
def test_tables(
    command: str, encoding: str, saved: list[str], printed: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = schema.ExplainResult.model_validate_json(json.dumps(explanation()))
    monkeypatch.setattr(explain, "explain", lambda *_, **__: result)
    monkeypatch.setattr("resnet_bench.data.datasets.load", lambda *_, **__: None)
    measured = machine.Calibration.model_validate(samples.calibration())
    monkeypatch.setattr(machine, "calibrate", lambda threads=None: measured)
    costs = machine.DenormalCosts.model_validate(samples.denormal_costs())
    monkeypatch.setattr(machine, "measure_denormals", lambda threads=None: costs)
    monkeypatch.setattr(machine, "busy_reason", lambda load: "“Something” else runs.")
    description = samples.machine()
    monkeypatch.setattr(machine, "describe", lambda: description)
    monkeypatch.setattr(reconstruction, "reconstruct", searched)
    arguments: list[str] = []
    for word in command.split():
        arguments += saved if word == "FILES" else [word]
    expected = printed("utf-8", *arguments)
    assert printed(encoding, *arguments) == as_far_as(encoding, expected)
    if "FILES" in command and encoding == "ascii":
        assert "->" in printed(encoding, *arguments)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("command", ["compare FILES", "architectures", "reconstruct"])
def test_json_says_the_same(
    command: str, encoding: str, saved: list[str], printed: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last character: nothing in it is replaced."""
    monkeypatch.setattr(reconstruction, "reconstruct", searched)
    arguments: list[Any] = []
    for word in command.split():
        arguments += saved if word == "FILES" else [word]
    expected = json.loads(printed("utf-8", *arguments, "--format", "json"))
    assert json.loads(printed(encoding, *arguments, "--format", "json")) == expected


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_html_says_the_same(encoding: str, saved: list[str], printed: Callable[..., str]) -> None:
    """It declares itself UTF-8, so it is ASCII in whatever encoding it is printed."""
    text = printed(encoding, "compare", *saved, "--format", "html")
    assert text == printed("utf-8", "compare", *saved, "--format", "html")
    assert text.isascii()
    assert "&#215;" in text
