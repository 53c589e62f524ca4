"""The result of a duel: one ordinary benchmark file for each arm, which `report`, `compare` and `load` read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resnet_bench import identity, machine
from resnet_bench.duel.environments import Code
from resnet_bench.duel.journal import Journal, Measured
from resnet_bench.files import write_json
from resnet_bench.measure.processes import joined
from resnet_bench.results import journal as results_journal
from resnet_bench.results import reading
from resnet_bench.schema import AccuracyResult, EpochTimeResult, Result


def file_of(journal: Journal, arm: str) -> Path:
    """The benchmark file of an arm."""
    return journal.folder / f"{arm}.json"


def epoch_times(
    measured: Sequence[Measured], planned: int, begun_at: str, warnings: Sequence[str] = ()
) -> list[EpochTimeResult]:
    """The epoch times of an arm's processes, one result for each network.

    Args:
        measured: by round.
        planned: processes that the arm is to have.
        begun_at: when the duel began.
        warnings: sentences that say why the times are doubtful.
    """
    reports = [m.report for m in measured]
    return [
        joined(
            reports,
            case,
            measured[0].order,
            complete=len(reports) == planned,
            origin=identity.origin(begun_at, reports[0].process),
            warnings=warnings,
            load_averages=(None, machine.load_average()),
        )
        for case in range(len(measured[0].order.cases))
    ]


def write(
    journal: Journal, codes: Mapping[str, Code], rounds: Mapping[str, Sequence[int]], planned: int
) -> dict[str, Path]:
    """Write the file of every arm that has measured.

    Args:
        journal: of the duel.
        codes: of the arms, by name.
        rounds: complete rounds of each arm. They begin with 0 and leave out none, so process i of every file is that of
            round i.
        planned: processes that each arm is to have.

    Returns:
        The file of each arm.
    """
    arms = [name for name in codes if rounds[name]]
    most = max((len(rounds[name]) for name in arms), default=0)
    duel = {
        "id": journal.id,
        "arms": arms,
        "pairs": [[i if i < len(rounds[name]) else None for name in arms] for i in range(most)],
    }
    written = {}
    for name in arms:
        measured = journal.measured(name, rounds[name])
        results: list[tuple[str, Result, Sequence[float]]] = [
            (_test("epoch_time", r.architecture, r.engine), r, list(r.epoch_times.values()))
            for r in epoch_times(measured, planned, journal["begun_at"], journal["warnings"])
        ]
        for training in _trainings(journal, name, [r.architecture for _, r, _ in results], planned):
            seconds = [e.train_seconds for e in training.epochs]
            results.append((_test("accuracy", training.architecture, training.engine), training, seconds))
        described = {**_described(measured, codes[name]), "duel": {**duel, "arm": name}}
        written[name] = file_of(journal, name)
        write_json(
            written[name],
            {
                "machine_info": {"resnet_bench": described},
                "commit_info": {},
                "datetime": identity.now(),
                "version": "",
                "benchmarks": [
                    results_journal.entry(test, result.kind.replace("_", " "), result, seconds)
                    for test, result, seconds in results
                ],
            },
        )
    return written


def _trainings(journal: Journal, arm: str, architectures: Sequence[str], seeds: int) -> list[AccuracyResult]:
    paths = [journal.training(seed, arm, name) for seed in range(seeds) for name in architectures]
    found = [r for path in paths if path.exists() for r in reading.read(path).of_kind(AccuracyResult)]
    return [r.model_copy(update={"machine": None}) for r in found]  # which the file has once, for all results


def _described(measured: Sequence[Measured], original: Code) -> dict[str, Any]:
    """The description by the first process, with what only the original of the code tells: its commit."""
    described = measured[0].report.machine
    code = {key: value for key, value in original.identity.items() if value is not None}
    return {**described, "code": {**identity.part(described, "code"), **code}}


def _test(kind: str, architecture: str, engine: str) -> str:
    parameters = "-".join([architecture, engine, *(["sampled"] if kind == "epoch_time" else [])])
    return f"benchmarks/test_{kind}.py::test_{kind}[{parameters}]"
