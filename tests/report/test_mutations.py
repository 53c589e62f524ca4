"""Mutated result files, through everything that reads them: an answer or one sentence, never a traceback."""

import copy
import json
import random

import pytest
from samples import accuracy, calibration, document, epoch_time, machine, parameters

from resnet_bench.cli import main

VALUES = [None, True, -1, 0, 1, 1e308, -1e308, 10**400, "", "x", [], {}, [[]], float("nan"), float("inf")]


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
    entries = [parameters("baseline"), epoch_time("baseline", 100), epoch_time("fc1", 20), accuracy("fc1", [0.1] * 15)]
    return document(entries, machine(calibration={"start": calibration(), "end": calibration(memory=30e9)}))


@pytest.mark.parametrize("seed", range(4))
def test_no_mutation_of_a_file_is_a_traceback(tmp_path, capsys, whole, seed):
    """50 for each seed, through `report` with claims."""
    rng, path = random.Random(seed), tmp_path / "mutated.json"
    for _ in range(50):
        path.write_text(mutated(rng, whole))
        with pytest.raises(SystemExit) as exit_:
            main(["report", str(path), "--claims"])
        printed = capsys.readouterr()
        assert exit_.value.code in (0, None, 2), path.read_text()
        if exit_.value.code == 2:
            assert len(printed.err.strip().splitlines()) == 1
