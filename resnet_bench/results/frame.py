"""The table of samples as a pandas data frame, as `resnet_bench.load` returns it; docs/schema.md documents it."""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from resnet_bench import identity
from resnet_bench.clock import PHASES
from resnet_bench.errors import UserError
from resnet_bench.schema import (
    AccuracyResult,
    Block,
    EpochTimeResult,
    ExplainResult,
    MeasuringProcess,
    OverheadResult,
    ParametersResult,
    PhaseSeconds,
    ScaleResult,
)

if TYPE_CHECKING:
    from resnet_bench.results.samples import Run, Samples

TEXT, WHOLE, UNSIGNED, NUMBER, TRUTH = "string", "Int64", "UInt64", "Float64", "boolean"
"""The dtypes of the columns. These dtypes of pandas have `<NA>`, for what is unknown or does not apply."""

MEASUREMENT = {
    "kind": TEXT,
    "architecture": TEXT,
    "variant": TEXT,
    "point": WHOLE,
    "training_step": WHOLE,
    "point_weight": NUMBER,
    "point_state": TEXT,
    "round": WHOLE,
    "epoch": WHOLE,
    "steps": WHOLE,
    "seconds": NUMBER,
    "epoch_seconds": NUMBER,
    **{f"{phase}_seconds": NUMBER for phase in PHASES},
    "eval_seconds": NUMBER,
    "lr_start": NUMBER,
    "lr_end": NUMBER,
    "train_loss": NUMBER,
    "test_loss": NUMBER,
    "test_accuracy": NUMBER,
    "live_units": WHOLE,
    "parameters": WHOLE,
    "multiply_accumulates": WHOLE,
    "page_faults": WHOLE,
    "waiting_share": NUMBER,
    "stolen_share": NUMBER,
    "peak_memory_bytes": WHOLE,
    "complete": TRUTH,
    "comparable_times": TRUTH,
    "same_bits": TRUTH,
    "doubtful": TRUTH,
}

SETTING = {
    "engine": TEXT,
    "pipeline": TEXT,
    "workers": WHOLE,
    "threads": WHOLE,
    "mode": TEXT,
    "seed": UNSIGNED,
    "recipe_epochs": WHOLE,
    "batch_size": WHOLE,
    "lr": NUMBER,
    "schedule": TEXT,
    "warmup_steps": WHOLE,
    "beta1": NUMBER,
    "beta2": NUMBER,
    "eps": NUMBER,
    "padding": WHOLE,
    "flip_probability": NUMBER,
    "rotation_degrees": NUMBER,
    "dataset": TEXT,
    "synthetic": TRUTH,
    "subset": TRUTH,
    "train_images": WHOLE,
    "test_images": WHOLE,
    "classes": WHOLE,
    "dataset_sha256": TEXT,
}

IDENTITY = {
    "machine": TEXT,
    "software": TEXT,
    "code": TEXT,
    "pool": TEXT,
    "session": TEXT,
    "process": TEXT,
    "started_at": TEXT,
    **dict.fromkeys(identity.machine_of({}), TEXT),
    **dict.fromkeys(identity.software_of({}), TEXT),
    **dict.fromkeys(identity.code_of({}), TEXT),
}
for _key in ("cpu_family", "cpu_model_number", "cpu_stepping", "physical_cores", "logical_cores", "usable_cores"):
    IDENTITY[_key] = WHOLE
IDENTITY |= {"cpu_quota": NUMBER, "memory_gib": WHOLE, "memory_limit_gib": WHOLE, "interop_threads": WHOLE}
IDENTITY |= {"l1d_bytes": WHOLE, "l2_bytes": WHOLE, "l3_bytes": WHOLE, "flush_denormal": TRUTH, "code_dirty": TRUTH}

COLUMNS = {**MEASUREMENT, **SETTING, **IDENTITY}
"""Name and dtype of every column, in their order."""


def data_frame(samples: Samples) -> pd.DataFrame:
    """One row for each raw measurement, one column for each of `COLUMNS`; the same for any order of the files."""
    pools = {id(run): pool.key for pool in samples.pools for run in pool.runs}
    rows: list[dict[str, Any]] = []
    for run in samples.runs:
        shared = {**_identity(run), **_setting(run), "pool": pools.get(id(run))}
        rows += [{**shared, **measured} for measured in _measurements(run)]
    columns = {
        name: pd.Series([_cell(row.get(name), dtype) for row in rows], dtype=dtype) for name, dtype in COLUMNS.items()
    }
    table: pd.DataFrame = pd.DataFrame(columns)
    order = [
        "kind",
        "architecture",
        "engine",
        "mode",
        "pipeline",
        "pool",
        "seed",
        "process",
        "variant",
        "epoch",
        "point",
        "round",
    ]
    order += [name for name in COLUMNS if name not in order]  # all columns, so that only equal rows may change places
    ordered: pd.DataFrame = table.sort_values(order, kind="stable", na_position="first", ignore_index=True)
    return ordered


def serialized(table: pd.DataFrame, format_: Literal["csv", "parquet", "json"]) -> bytes:
    """The content of a file with the table; csv and json are UTF-8. `<NA>` becomes an empty cell in csv, null in json.

    Raises:
        UserError: parquet was asked for, and pyarrow is not installed.
    """
    if format_ == "csv":
        text: str = table.to_csv(index=False, lineterminator="\n")
        return text.encode("utf-8", "replace")
    if format_ == "json":
        rows = table.astype(object).where(table.notna(), None).to_dict("records")  # to_json would round numbers
        return (json.dumps(rows, indent=1, allow_nan=False) + "\n").encode()
    if importlib.util.find_spec("pyarrow") is None:
        raise UserError('Parquet needs pyarrow; install it with: pip install "resnet-bench[parquet]".')
    file = io.BytesIO()
    table.to_parquet(file, index=False)
    return file.getvalue()


def _measurements(run: Run) -> Iterator[dict[str, Any]]:
    """The rows of one result, with the columns of `MEASUREMENT` that its kind has."""
    r = run.result
    shown: dict[str, Any]
    kind: dict[str, Any] = {"kind": r.kind, "architecture": r.architecture}
    if isinstance(r, EpochTimeResult):
        kind |= {"parameters": r.parameters, "complete": r.complete, "comparable_times": True}
        kind |= {"doubtful": bool(r.warnings), "peak_memory_bytes": r.peak_memory_bytes}
        for b in r.blocks:
            shown = {"point": b.point, "epoch_seconds": r.block_epoch_seconds(b)}
            if r.points:
                point = r.points[b.point]
                shown |= {"training_step": point.step, "point_weight": point.weight, "point_state": point.state}
            yield {**kind, **shown, **_timed(b, r.processes)}
    elif isinstance(r, AccuracyResult):
        kind |= {"parameters": r.parameters, "complete": r.complete, "same_bits": r.same_bits}
        batch_size = r.recipe.get("batch_size")
        for e in r.epochs:
            comparable = e.epoch in r.epoch_times
            shown = {"epoch": e.epoch, "seconds": e.train_seconds, "comparable_times": comparable}
            shown |= {"epoch_seconds": e.train_seconds if comparable else None, "eval_seconds": e.eval_seconds}
            if isinstance(batch_size, int) and batch_size > 0:
                shown["steps"] = -(-r.dataset.train_images // batch_size)
            shown |= {"lr_start": e.lr_start, "lr_end": e.lr_end}
            losses = {"train_loss": e.train_loss, "test_loss": e.test_loss, "test_accuracy": e.test_accuracy}
            if e.live_units:
                shown["live_units"] = e.live_units[0]
            yield {**kind, **shown, **losses, **_phases(e.phases)}
    elif isinstance(r, ParametersResult):
        yield {**kind, "parameters": r.parameters, "multiply_accumulates": r.multiply_accumulates}
    elif isinstance(r, ScaleResult):
        kind |= {"variant": f"{r.varied}={r.value}", "parameters": r.parameters, "complete": r.complete}
        kind |= {"comparable_times": False, "doubtful": bool(r.warnings)}
        for b in r.blocks:
            yield {**kind, **_timed(b, r.processes)}
    elif isinstance(r, OverheadResult):
        for variant in ("bare", "harness", "clocks"):
            for i, seconds in enumerate(getattr(r, f"{variant}_seconds")):
                yield {**kind, "variant": variant, "round": i, "steps": r.steps, "seconds": seconds}
    else:
        for v in (*r.variants, *r.denormals):
            for i, seconds in enumerate(v.block_seconds):
                row = {"architecture": v.architecture, "variant": v.name, "round": i, "steps": 1, "seconds": seconds}
                yield {**kind, **row, "doubtful": bool(r.warnings)}


def _timed(block: Block, processes: Sequence[MeasuringProcess]) -> dict[str, Any]:
    """What a block says, and its process where the file tells that."""
    shown = {key: getattr(block, key) for key in ("round", "steps", "seconds", "page_faults")}
    shown |= {"waiting_share": block.waiting_share, "stolen_share": block.stolen_share}
    if processes:
        own = processes[block.process]
        shown |= {key: getattr(own, key) for key in ("process", "started_at", "peak_memory_bytes")}
    return shown | _phases(block.phases)


def _setting(run: Run) -> dict[str, Any]:
    r = run.result
    found = {key: getattr(r, key, None) for key in ("engine", "pipeline", "workers", "threads", "mode", "seed")}
    if isinstance(r, AccuracyResult | EpochTimeResult | ExplainResult | ScaleResult):
        found |= {"recipe_epochs": r.recipe.get("epochs")} | {k: v for k, v in r.recipe.items() if k in SETTING}
        betas = r.recipe.get("betas")
        if isinstance(betas, list | tuple) and len(betas) == 2:
            found |= {"beta1": betas[0], "beta2": betas[1]}
        d = r.dataset
        found |= {"dataset": d.name, "dataset_sha256": d.sha256}
        found |= {key: getattr(d, key) for key in ("synthetic", "subset", "train_images", "test_images", "classes")}
    elif isinstance(r, ParametersResult):
        found["classes"] = r.num_classes
    return found


def _identity(run: Run) -> dict[str, Any]:
    machine, software = identity.machine_of(run.machine), identity.software_of(run.machine)
    code = identity.code_of(run.machine)
    digests = {"machine": identity.digest(machine), "software": identity.digest(software), "code": code["code_sha256"]}
    origin = {"session": run.session, "process": run.result.process, "started_at": run.result.started_at}
    return {**digests, **origin, **machine, **software, **code}


def _phases(phases: PhaseSeconds) -> dict[str, float]:
    return {f"{phase}_seconds": getattr(phases, phase) for phase in PHASES}


def _cell(value: Any, dtype: str) -> Any:
    """The value as the column takes it; `<NA>` where a damaged file holds a value of another type."""
    if value is None or isinstance(value, dict | list | tuple):
        return pd.NA
    if dtype == TEXT:
        return str(value).encode(errors="replace").decode()  # a file's name may be no Unicode
    right = {WHOLE: int, UNSIGNED: int, NUMBER: int | float, TRUTH: bool}[dtype]
    if not isinstance(value, right) or (isinstance(value, bool) and dtype != TRUTH):
        return pd.NA
    limits = {WHOLE: (-(2**63), 2**63), UNSIGNED: (0, 2**64)}.get(dtype)
    return value if limits is None or limits[0] <= value < limits[1] else pd.NA
