"""Tables of a study: its plan, how far it is, and which packings were measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from resnet_bench import locks
from resnet_bench.render.table import MISSING, Table, significant
from resnet_bench.study import planning, running
from resnet_bench.study.cells import Plan, by_network
from resnet_bench.study.folder import CellState, StudyFolder
from resnet_bench.study.packing import Packing, makespan
from resnet_bench.wording import counted, duration


def packings(measured: Sequence[Packing], jobs: int, threads: int) -> Table:
    """Every packing that was measured, with its speed against one training that has all the cores it was given."""
    alone = max((p for p in measured if p.jobs == 1), key=lambda p: p.threads)
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
    caption = (
        f"Each network of the study took steps; speed against one training with {counted(alone.threads, 'thread')}."
    )
    return Table("Packing", columns, rows, caption)


def plan(plan: Plan, packing: Packing, states: Sequence[CellState]) -> Table:
    """What a study trains, and about how long that takes on this machine with this packing."""
    finished = {s.cell for s in states if s.state == "finished"}
    rows = []
    for (architecture, engine), cells in by_network(plan.cells):
        seconds = [packing.seconds(cell, plan) for cell in cells]
        done = sum(cell in finished for cell in cells)
        rows.append(
            [
                architecture,
                engine,
                str(len(cells)),
                str(done),
                str(cells[0].recipe.epochs),
                duration(seconds[0]),
                duration(sum(seconds)),
            ]
        )
    rest = [packing.seconds(cell, plan) for cell in plan.cells if cell not in finished]
    left = duration(makespan(rest, packing.jobs)) if rest else "no time"
    space = planning.required_space(plan, packing.jobs) / 1e6
    caption = (
        f"{counted(len(plan.cells), 'cell')} on {_dataset(plan)}; {packing.jobs} side by side, "
        f"{counted(plan.threads, 'thread')} each: about {left} on this machine, and up to {space:,.0f} MB on the disk."
    )
    notes = [
        "Estimated from steps at the beginning of a training; the engine fast becomes faster after some hundred steps."
    ]
    columns = ["Network", "Engine", "Cells", "Finished", "Epochs", "One cell", "All cells"]
    return Table("Plan", columns, rows, caption, notes)


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
        works = f"nobody works on it; go on with: {running.command(study.path)}"
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
