"""Hand-made result files for the tests of everything that reads results: valid, small, with known answers.

`save(path, [epoch_time("baseline", seconds=60), accuracy("fc1", [0.1, 0.2]), parameters("fc1")])` writes what
`pytest benchmarks --benchmark-save` writes. Every keyword that is not named is a key of the result to override.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from resnet_bench import architectures, networks
from resnet_bench.analysis.series import mean_of
from resnet_bench.intervals import positive_mean_interval, wilson_interval
from resnet_bench.machine.calibration import WORKING_SETS
from resnet_bench.paper import PUBLISHED
from resnet_bench.recipe import Recipe
from resnet_bench.results.reading import ResultFile
from resnet_bench.results.samples import Samples
from resnet_bench.schema import EpochTimeResult

PHASE_SHARES = {"data": 0.05, "forward": 0.25, "backward": 0.4, "optimizer": 0.3}


def digest(text: str) -> str:
    """A SHA-256 that stands for some data or weights."""
    return hashlib.sha256(text.encode()).hexdigest()


def dataset(**overrides: Any) -> dict[str, Any]:
    """CIFAR-100 whole; `name="synthetic", synthetic=True` and the like change it (and give it another digest)."""
    info = {
        "name": "cifar100",
        "synthetic": False,
        "subset": False,
        "train_images": 50_000,
        "test_images": 10_000,
        "classes": 100,
        "mean": [0.507, 0.487, 0.441],
        "std": [0.267, 0.256, 0.276],
        **overrides,
    }
    return {"sha256": digest(json.dumps(info)), **info}


def denormal_costs(second: float = 4.0, flushed: float | None = 1.5) -> dict[str, Any]:
    """What `resnet_bench.machine.measure_denormals()` finds where denormal second moments make steps `second` times as
    long, and all else costs nothing; `flushed`: where both moments are, and are flushed; None: this CPU cannot flush.
    """
    ratios: list[tuple[str, str, bool, float]] = [("square root", "operand", False, 2.0)]
    for adam in ("default Adam", "foreach Adam", "fused Adam"):
        ratios += [(adam, "first moments", False, 1.0), (adam, "second moments", False, second)]
        ratios += [(adam, "both moments", False, second)]
        if flushed is not None:
            ratios.append((adam, "both moments", True, flushed))
    return {
        "threads": 2,
        "numbers": 16_384,
        "parameters": 8_192_000,
        "seconds": 12.0,
        "costs": [
            {
                "work": work,
                "denormal": denormal,
                "flushed": is_flushed,
                "seconds": 0.02 * ratio,
                "ordinary_seconds": 0.02,
                "median": ratio,
                "low": 0.9 * ratio,
                "high": 1.1 * ratio,
                "samples": 9,
            }
            for work, denormal, is_flushed, ratio in ratios
        ],
    }


def calibration(memory: float = 40e9, arithmetic: float = 200e9, threads: int = 2) -> dict[str, Any]:
    """What `resnet_bench.machine.calibrate()` measures where all memory has one bandwidth (bytes/s), all sums one rate.

    Convolutions run at half of `arithmetic` (FLOP/s). A machine that holds it: `machine(calibration={"start": …})`.
    """
    memory_sizes = {f"{size / 1e6:.0f} MB": size for size in WORKING_SETS}
    rates = [(f"read {name}", "read", "bytes/s", size, memory) for name, size in memory_sizes.items()]
    rates += [(f"update {name}", "update", "bytes/s", size, memory) for name, size in memory_sizes.items()]
    rates += [("first touch 33 MB", "first touch", "bytes/s", 32_768_000, memory / 10)]
    rates += [("gemm 1024", "gemm", "FLOP/s", 2**31, arithmetic)]
    rates += [("conv 64-64 3x3 stride 1 on 16x16", "convolution", "FLOP/s", 75_497_472, arithmetic / 2)]
    return {
        "schema_version": 1,
        "threads": threads,
        "seconds": 3.0,
        "measurements": {
            name: {
                "quantity": quantity,
                "unit": unit,
                "size": size,
                "median": rate,
                "low": 0.99 * rate,
                "high": 1.01 * rate,
                "samples": 15,
            }
            for name, quantity, unit, size, rate in rates
        },
    }


def machine(**overrides: Any) -> dict[str, Any]:
    """What `resnet_bench.machine.describe()` says of a laptop; no calibration unless `calibration=` is given."""
    return {
        "cpu": {
            "model": "13th Gen Intel(R) Core(TM) i5-1340P",
            "architecture": "x86_64",
            "physical_cores": 12,
            "logical_cores": 16,
            "affinity_cores": 16,
            "isa": ["avx2"],
        },
        "memory_bytes": 16 * 2**30,
        "os": "Linux 6.8",
        "governor": "performance",
        "container": {"cpu_quota": None, "memory_limit_bytes": None},
        "torch": {"version": "2.15.0"},
        "threads": {"intraop": 2, "interop": 1, "environment": {}},
        "allocator": {"name": "glibc"},
        **overrides,
    }


@functools.cache
def _parameter_count(architecture: str, classes: int) -> int:
    known = architectures.every()
    if architecture not in known:
        return 1_000_000  # a network that only the sample knows
    return networks.parameter_count(known[architecture], classes)


def _run(architecture: str, seed: int, overrides: dict[str, Any]) -> dict[str, Any]:
    data = overrides.get("dataset", dataset())
    return {
        "schema_version": 1,
        "architecture": architecture,
        "parameters": _parameter_count(architecture, data["classes"]),
        "engine": "reference",
        "pipeline": "loader",
        "dataset": data,
        "recipe": Recipe().as_dict(),
        "seed": seed,
        "threads": 2,
        "workers": 2,
    }


def epoch_time(
    architecture: str,
    seconds: float = 60.0,
    noise: float = 0.01,
    blocks: int = 10,
    seed: int = 0,
    drift: Sequence[float] | None = None,
    **overrides: Any,
) -> dict[str, Any]:
    """An epoch-time result whose blocks scatter about `seconds` an epoch with relative deviation `noise`.

    `seed` seeds the scatter (and is the training's seed). `drift` multiplies the blocks, one factor a round: give
    several networks the same to let the machine drift under all of them.
    """
    steps_per_epoch, steps, startup = 12_500, 24, 0.1
    draws = np.random.default_rng([seed, *architecture.encode()]).normal(1, noise, blocks).clip(0.1)
    step = (seconds - startup) / steps_per_epoch * draws * (np.ones(blocks) if drift is None else np.asarray(drift))
    result = {
        **_run(architecture, seed, overrides),
        "kind": "epoch_time",
        "complete": True,
        "mode": "sampled",
        "stopped_by": "precision",
        "steps_per_epoch": steps_per_epoch,
        "warmup_steps": 40,
        "startup_seconds": startup,
        "blocks": [
            {
                "round": i,
                "steps": steps,
                "seconds": float(s) * steps,
                "phases": {p: float(s) * steps * share for p, share in PHASE_SHARES.items()},
                "page_faults": 100,
            }
            for i, s in enumerate(step)
        ],
        "epoch_seconds": None,
        "step_bound_seconds": None,
        "peak_memory_bytes": 500_000_000,
        "load_average_before": 0.1,
        "load_average_after": 1.9,
        "warnings": [],
        **overrides,
    }
    for key in ("read_parameters", "updated_parameters"):
        result.setdefault(key, result["parameters"])
    if blocks > 1 and "epoch_seconds" not in overrides:
        result["epoch_seconds"] = mean_of([startup + steps_per_epoch * float(s) for s in step]).model_dump()
    return result


def in_processes(
    architecture: str,
    seconds: float | Sequence[float] = 60.0,
    processes: int = 5,
    noise: float = 0.01,
    process_noise: float = 0.0,
    late: float = 1.0,
    blocks: int = 4,
    seed: int = 0,
    process: str = "a" * 16,
    **overrides: Any,
) -> dict[str, Any]:
    """An epoch-time result of version 3: several processes that time blocks early and late in the training.

    Each process's epoch takes `seconds` (or its own of the sequence) times a factor that scatters with the relative
    deviation `process_noise`; its blocks scatter with `noise`. A step at the late point takes `late` times as long as
    one at the early point; the mean of both is the epoch's. `seed` seeds the scatter (and is the training's seed).
    """
    old = epoch_time(architecture, blocks=1, seed=seed, **overrides)
    own = [float(seconds)] * processes if isinstance(seconds, int | float) else list(seconds)
    random = np.random.default_rng([seed, *process.encode(), *architecture.encode()])
    steps, startup, at = 24, 0.1, "2026-01-02T03:04:05+00:00"
    step_factors = {0: 2 / (1 + late), 1: 2 * late / (1 + late)}
    made = []
    for i, s in enumerate(own):
        step = (s - startup) / old["steps_per_epoch"] * max(0.1, float(random.normal(1, process_noise)))
        for point, factor in step_factors.items():
            for round_, draw in enumerate(random.normal(1, noise, blocks).clip(0.1)):
                taken = step * factor * float(draw) * steps
                made.append(
                    {
                        "process": i,
                        "point": point,
                        "round": round_,
                        "steps": steps,
                        "seconds": taken,
                        "phases": {p: taken * share for p, share in PHASE_SHARES.items()},
                        "page_faults": 100,
                        "read_parameters": old["read_parameters"],
                        "updated_parameters": old["updated_parameters"],
                    }
                )
    point = {"weight": 0.5, "state": "trained", "live_share": None}
    point |= {"denormal_exp_avg": None, "denormal_exp_avg_sq": None}
    result = {
        **old,
        "schema_version": 3,
        "process": process,
        "started_at": at,
        "stopped_by": "plan",
        "points": [{"step": 0, **point}, {"step": 100_000, **point}],
        "processes": [
            {
                "process": f"{process[:-4]}{i:04x}",
                "started_at": at,
                "startup_seconds": startup,
                "compile_seconds": 0.0,
                "peak_memory_bytes": 500_000_000,
            }
            for i in range(len(own))
        ],
        "blocks": made,
        "epoch_seconds": None,
        **overrides,
    }
    if "epoch_seconds" not in overrides and len(own) > 2:
        times = EpochTimeResult.model_validate(result).epoch_times
        result["epoch_seconds"] = positive_mean_interval(list(times.values())).model_dump()
    return result


def scaled(
    architecture: str,
    engine: str,
    varied: str,
    value: int,
    milliseconds: Sequence[float] = (10.0, 10.0, 10.0),
    startup: float = 0.1,
    **overrides: Any,
) -> dict[str, Any]:
    """What `resnet-bench scale` writes of one value: a step takes `milliseconds` in each round.

    Of processes side by side all take as long, each of them a step in that time.
    """
    images = value if varied == "images" else 10_000
    info = dataset(train_images=images, subset=True, classes=value if varied == "classes" else 100)
    run = _run(architecture, 0, {"engine": engine, "dataset": info})
    jobs = value if varied == "processes" else 1
    batch_size = value if varied == "batch-size" else 4
    at, steps = "2026-01-02T03:04:05+00:00", 8
    taken = [1e-3 * ms * steps for ms in milliseconds for _ in range(jobs)]
    return {
        **run,
        "kind": "scale",
        "engine": engine,
        "schema_version": 6,
        "process": "5ca1e" + "0" * 11,
        "started_at": at,
        "recipe": {**run["recipe"], "batch_size": batch_size, "schedule": "constant", "warmup_steps": 0},
        "threads": value if varied == "threads" else 1,
        "varied": varied,
        "jobs": jobs,
        "complete": True,
        "first_steps": 560,
        "steps_per_epoch": -(-images // batch_size),
        "processes": [
            {
                "process": f"5ca1e{i:011x}",
                "started_at": at,
                "startup_seconds": startup,
                "compile_seconds": 0.0,
                "peak_memory_bytes": None,
            }
            for i in range(len(taken))
        ],
        "blocks": [
            {
                "process": i,
                "round": 0,
                "steps": steps,
                "seconds": seconds,
                "phases": {p: seconds * share for p, share in PHASE_SHARES.items()},
                "page_faults": 0,
            }
            for i, seconds in enumerate(taken)
        ],
        "warnings": [],
        **overrides,
    }


def accuracy(
    architecture: str, accuracies: Sequence[float] = (0.1, 0.2, 0.3), seed: int = 0, **overrides: Any
) -> dict[str, Any]:
    """A training with these test accuracies after its epochs; `complete` unless fewer than the recipe's 15."""
    run = {**_run(architecture, seed, overrides), **overrides}
    tested = run["dataset"]["test_images"]
    same = [run[key] for key in ("architecture", "engine", "pipeline", "threads", "workers", "seed", "recipe")]
    eval_seconds = 3 + int(digest(json.dumps([*same, run.get("machine")]))[:6], 16) / 1e9  # no two are measured alike
    correct = [round(a * tested) for a in accuracies]
    return {
        **run,
        "kind": "accuracy",
        "complete": len(correct) >= run["recipe"]["epochs"],
        "epochs": [
            {
                "epoch": i,
                "train_seconds": 60.0,
                "eval_seconds": eval_seconds,
                "train_loss": 4.6 - 0.1 * i,
                "test_loss": 4.6 - 0.08 * i,
                "test_accuracy": c / tested,
                "phases": {p: 60.0 * share for p, share in PHASE_SHARES.items()},
            }
            for i, c in enumerate(correct, 1)
        ],
        "final_accuracy": wilson_interval(correct[-1], tested).model_dump() if correct else None,
        "weights_sha256": digest(f"{architecture} {seed}"),
        **overrides,
    }


def plans(higher: Mapping[tuple[str, str], float], **stretch: Any) -> list[dict[str, Any]]:
    """Trainings of the study's plans for later: attention × schedules × 5 seeds; all end at 60 % but for a scatter.

    Args:
        higher: {(network, schedule): what is added to its final accuracies}.
        stretch: what the trainings ran under, as in `told`.
    """
    entries = []
    for network in ("baseline", "baseline-se", "baseline-eca"):
        for schedule in ("constant", "cosine", "onecycle"):
            scatter = np.random.default_rng([*network.encode(), *schedule.encode()]).normal(0, 0.002, 5)
            for seed, off in enumerate(scatter):
                end = 0.6 + float(off) + higher.get((network, schedule), 0.0)
                recipe = Recipe(schedule=schedule).as_dict()
                entry = accuracy(network, [0.2] * 14 + [end], seed, engine="fast", pipeline="vectorized", recipe=recipe)
                entries.append(told(entry, process=digest(f"{network} {schedule} {seed}")[:16], **stretch))
    return entries


def parameters(architecture: str, num_classes: int = 100, **overrides: Any) -> dict[str, Any]:
    """The parameter count of a real architecture."""
    a = architectures.get(architecture)
    published = PUBLISHED.get(architecture)
    return {
        "kind": "parameters",
        "schema_version": 1,
        "architecture": architecture,
        "parameters": networks.parameter_count(a, num_classes),
        "num_classes": num_classes,
        "fc_parameters": architectures.fc_parameter_count(a, num_classes),
        "multiply_accumulates": networks.multiply_accumulates(a, num_classes),
        "published_parameters": published.parameters if published else None,
        **overrides,
    }


def _benchmark(entry: dict[str, Any]) -> dict[str, Any]:
    """One benchmark as pytest-benchmark stores it, `entry` being its `extra_info`."""
    kind, name = entry["kind"], entry["architecture"]
    if kind == "epoch_time":
        data = [
            entry["startup_seconds"] + entry["steps_per_epoch"] * b["seconds"] / b["steps"] for b in entry["blocks"]
        ]
    elif kind == "accuracy":
        data = [sum(e["train_seconds"] + e["eval_seconds"] for e in entry["epochs"])]
    else:
        data = [0.02, 0.021]
    values = np.asarray(data or [0.0])
    return {
        "group": kind,
        "name": f"test_{kind}[{name}]",
        "fullname": f"benchmarks/test_{kind}.py::test_{kind}[{name}]",
        "params": {"architecture": name},
        "param": name,
        "extra_info": entry,
        "options": {"disable_gc": False, "timer": "perf_counter", "min_rounds": 1, "max_time": 1.0, "warmup": False},
        "stats": {
            "min": float(values.min()),
            "max": float(values.max()),
            "mean": float(values.mean()),
            "stddev": float(values.std(ddof=1)) if len(values) > 1 else 0.0,
            "median": float(np.median(values)),
            "rounds": len(values),
            "iterations": 1,
            "data": [float(v) for v in values],
        },
    }


def document(entries: Sequence[dict[str, Any]], machine_info: dict[str, Any] | None = None) -> dict[str, Any]:
    """The JSON that pytest-benchmark saves for these results."""
    return {
        "machine_info": {
            "node": "laptop",
            "machine": "x86_64",
            "system": "Linux",
            "python_version": "3.12.3",
            "cpu": {"brand_raw": "13th Gen Intel(R) Core(TM) i5-1340P", "hz_actual_friendly": "2.1000 GHz"},
            "resnet_bench": machine() if machine_info is None else machine_info,
        },
        "commit_info": {"id": "unknown", "branch": "main", "dirty": False, "time": None, "project": "resnet_bench"},
        "benchmarks": [_benchmark(e) for e in entries],
        "datetime": "2026-01-02T03:04:05.678901+00:00",
        "version": "5.2.0",
    }


def told(entry: dict[str, Any], process: str = "a" * 16, **stretch: Any) -> dict[str, Any]:
    """The result as version 2 has it, measured by one process; `stretch` changes what a training ran under."""
    origin = {"process": process, "started_at": "2026-01-02T03:04:05+00:00"}
    new = {**entry, **origin, "schema_version": 2}
    if entry["kind"] == "accuracy":
        setting = {key: entry[key] for key in ("engine", "pipeline", "workers", "threads")}
        new["stretches"] = [{**origin, "session": "b" * 16, **setting, "machine": machine(), **stretch}]
        new["same_bits"] = True
        new["epochs"] = [{**e, "stretches": [0]} for e in entry["epochs"]]
    return new


def together(files: Iterable[ResultFile]) -> Samples:
    """The samples of files that were read."""
    return Samples(tuple(files))


def save(path: Path, entries: Sequence[dict[str, Any]], machine: dict[str, Any] | None = None) -> Path:
    """Write `document(entries, machine)` to `path`, which is returned."""
    path.write_text(json.dumps(document(entries, machine)), encoding="utf-8")
    return path
