"""Mutated result files, through everything that reads them: an answer or one sentence, never a traceback."""

import copy
import json
import random

import pytest

from resnet_bench.cli import main
from resnet_bench.errors import UserError
from resnet_bench.render.drawing import Figure
from resnet_bench.results import reading
from tests.handmade import accuracy, calibration, document, epoch_time, in_processes, machine, parameters

VALUES = [None, True, -1, 0, 1, 1e308, -1e308, 10**400, "", "x", [], {}, [[]], float("nan"), float("inf")]
VALUES += [10**15, 1e9, 1e300, -1e300, "\ud800", "$\\frac$"]  # the largest that are valid; what cannot be drawn


def places(node, path=()):
    """The path of everything in a JSON document."""
    yield path
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def mutated(rng, whole):
    data = copy.deepcopy(whole)
    *parents, last = rng.choice([p for p in places(data) if p])
    node = data
    for key in parents:
        node = node[key]
    if rng.random() < 0.3:
        del node[last]
    else:
        node[last] = rng.choice(VALUES)
    return json.dumps(data)


@pytest.fixture(scope="module")
def whole():
    entries = [
        parameters("baseline"),
        in_processes("baseline", 100),
        epoch_time("fc1", 20),
        accuracy("fc1", [0.1] * 15),
    ]
    return document(entries, machine(calibration={"start": calibration(), "end": calibration(memory=30e9)}))


def ran(capsys, *arguments):
    """The exit status, which is 0, or 2 with one line on stderr."""
    with pytest.raises(SystemExit) as exit_:
        main(["report", *map(str, arguments)])
    printed = capsys.readouterr()
    status = exit_.value.code or 0
    assert status in (0, 2), printed.err
    if status == 2:
        assert len(printed.err.strip().splitlines()) == 1
    return status


@pytest.mark.parametrize("seed", range(4))
def test_no_mutation_of_a_file_is_a_traceback(tmp_path, capsys, whole, seed):
    """50 for each seed, through `report` with claims."""
    rng, path = random.Random(seed), tmp_path / "mutated.json"
    for _ in range(50):
        path.write_text(mutated(rng, whole))
        ran(capsys, path, "--claims")


@pytest.fixture(scope="module")
def small():
    """Everything that figures are drawn of, no more often than it takes: most mutations then hit something drawn."""
    entries = [in_processes("baseline", processes=3, blocks=1, step_bound_seconds=0.001), epoch_time("fc1", blocks=2)]
    entries += [in_processes("fc1", processes=3, blocks=1)]
    entries += [accuracy("baseline", [0.1]), accuracy("fc1", [0.1], mixed=True)]
    data = document(entries, machine(calibration={"start": calibration()}))
    data["benchmarks"] = [{"extra_info": b["extra_info"]} for b in data["benchmarks"]]  # nothing else is read
    return {"machine_info": {"resnet_bench": data["machine_info"]["resnet_bench"]}, "benchmarks": data["benchmarks"]}


def readable(rng, whole, path):
    """Write a mutation that follows the schema: others end on reading, which the test above has."""
    while True:
        path.write_text(mutated(rng, whole))
        try:
            return reading.read(path)
        except UserError:
            continue


@pytest.mark.parametrize("seed", range(4))
def test_no_mutation_of_a_file_is_a_traceback_on_the_page(tmp_path, capsys, monkeypatch, small, seed):
    """25 pages for each seed, which have a readable one's figures and compare it with another.

    All figures are drawn; of every fifth page they are rendered too, which takes most of the time.
    """

    def drawn(figure):
        with figure.canvas():
            return "<svg/>"

    rng, path, other = random.Random(seed), tmp_path / "mutated.json", tmp_path / "other.json"
    statuses = []
    for page in range(25):
        readable(rng, small, path)
        readable(rng, small, other)
        with monkeypatch.context() as patch:
            if page % 5:
                patch.setattr(Figure, "svg", drawn)
            statuses.append(ran(capsys, path, "--html", tmp_path / "page.html", "--compare-with", other))
    assert set(statuses) == {0, 2}  # some are still on the same data with the same recipe
