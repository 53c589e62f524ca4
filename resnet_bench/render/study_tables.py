"""Tables of a study: its plan, how far it is, and which packings were measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from resnet_bench import locks
from resnet_bench.render.table import MISSING, Table, significant
from resnet_bench.study import planning, running
from resnet_bench.study.cells import Plan, by_network
from resnet_bench.study.folder import CellState, StudyFolder
from resnet_bench.study.packing import REMEMBERED_DAYS, Packing, makespan, memory
from resnet_bench.wording import counted, duration


def packings(measured: Sequence[Packing], jobs: int, threads: int) -> Table:
    """Every packing that was measured, with its speed against that of the fewest trainings, mostly one alone."""
    alone = max(measured, key=lambda p: (-p.jobs, p.threads))
    rows = [
        [
            str(p.jobs),
            str(p.threads),
            significant(p.steps_per_second),
            f"{p.steps_per_second / alone.steps_per_second:.2f}×",
            "chosen" if (p.jobs, p.threads) == (jobs, threads) else "",
        ]
        for p in measured
    ]
    columns = ["Trainings side by side", "Threads of each", "Steps per second, together", "Speed", ""]
    days = sorted({p.measured_on for p in measured})
    caption = (
        f"Each network of the study took steps; speed against {counted(alone.jobs, 'training')} with "
        f"{counted(alone.threads, 'thread')} each. "
        f"Measured on {_range(days)}, and remembered for {REMEMBERED_DAYS} days in {memory() or 'no file'}; who doubts "
        "it removes that file."
    )
    return Table("Packing", columns, rows, caption)


def plan(plan: Plan, packing: Packing, states: Sequence[CellState]) -> Table:
    """What a study trains, and about how long that takes on this machine with this packing."""
    finished = {s.cell for s in states if s.state == "finished"}
    epochs = {s.cell: s.epochs for s in states}
    rows = []
    for (architecture, engine), cells in by_network(plan.cells):
        seconds = sorted(packing.seconds(cell, plan) for cell in cells)
        rows.append(
            [
                architecture,
                engine,
                str(len(cells)),
                str(sum(cell in finished for cell in cells)),
                _range([str(n) for n in sorted({cell.recipe.epochs for cell in cells})]),
                _range([duration(seconds[0]), duration(seconds[-1])]),
                duration(sum(seconds)),
            ]
        )
    rest = [
        packing.seconds(cell, plan) * (1 - epochs.get(cell, 0) / cell.recipe.epochs)
        for cell in plan.cells
        if cell not in finished
    ]
    left = duration(makespan(rest, packing.jobs)) if rest else "no time"
    space = planning.required_space(plan, packing.jobs) / 1e6
    caption = (
        f"{counted(len(plan.cells), 'cell')} on {_dataset(plan)}; {packing.jobs} side by side, "
        f"{counted(plan.threads, 'thread')} each: about {left} on this machine, and about {space:,.0f} MB on the disk."
    )
    notes = [
        "Estimated from steps at the beginning of a training; the engine fast becomes faster after some hundred steps."
    ]
    columns = ["Network", "Engine", "Cells", "Finished", "Epochs", "One cell", "All cells"]
    return Table("Plan", columns, rows, caption, notes)


def _range(texts: Sequence[str]) -> str:
    """`15`, or `3 to 15` where cells differ."""
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]} to {texts[-1]}"


def status(study: StudyFolder, states: Sequence[CellState]) -> Table:
    """How far each cell is."""
    rows = [
        [
            s.cell.name,
            s.state,
            f"{s.epochs} of {s.cell.recipe.epochs}",
            f"{s.result.epochs[-1].test_accuracy:.1%}" if s.result and s.result.epochs else MISSING,
            _time(s),
            "; ".join(study.notes(s.cell)),
        ]
        for s in states
    ]
    columns = ["Cell", "State", "Epochs", "Accuracy", "Time of an epoch", "Notes"]
    if not any(row[-1] for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    return Table(
        "Study", columns, rows, _progress(study, states), [*study.damages, *(d for s in states if (d := s.damage))]
    )


def as_dict(study: StudyFolder, states: Sequence[CellState]) -> dict[str, Any]:
    """The same for scripts."""
    return {
        "cells": [
            {
                "name": s.cell.name,
                "architecture": s.cell.architecture,
                "engine": s.cell.engine,
                "seed": s.cell.seed,
                "threads": s.cell.threads,
                "state": s.state,
                "epochs": s.epochs,
                "planned_epochs": s.cell.recipe.epochs,
                "accuracy": s.result.epochs[-1].test_accuracy if s.result and s.result.epochs else None,
                "damage": s.damage,
                "notes": list(study.notes(s.cell)),
            }
            for s in states
        ],
        "damages": study.damages,
        "running": locks.held(study.path),
    }


def _progress(study: StudyFolder, states: Sequence[CellState]) -> str:
    """Who works on it, what is done, and how long the rest takes."""
    finished = sum(s.state == "finished" for s in states)
    side_by_side = max(1, sum(s.state == "running" for s in states))
    seconds = running.seconds_left(states, side_by_side)
    left = duration(seconds) if seconds is not None else ""
    done = f"{finished} of {len(states)} cells finished on {_dataset(study.plan)}"
    if locks.held(study.path):
        works = f"written by {locks.holder(study.path) or 'an unknown process'}"
    elif finished < len(states):
        works = f"nobody works on it; go on with: {study.command}"
    else:
        works = "complete"
    return f"{done}; {works}" + (f"; about {left} left, {side_by_side} side by side." if left else ".")


def _time(state: CellState) -> str:
    if not state.result or not state.result.epochs:
        return MISSING
    if not state.result.epoch_times:
        return "not comparable"
    times = list(state.result.epoch_times.values())
    return duration(sum(times) / len(times))


def _dataset(plan: Plan) -> str:
    d = plan.dataset
    return f"{d.name} ({d.train_images:,} training and {d.test_images:,} test images)"
