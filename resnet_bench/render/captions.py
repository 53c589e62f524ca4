"""What captions and notes say of data set, machine, settings, drift and how times were measured.

Also what tells series and groups apart.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from resnet_bench import identity
from resnet_bench.analysis.replicates import Replicates
from resnet_bench.analysis.series import Distinction, EpochDuration, Group, Series
from resnet_bench.analysis.speed import Ratio, measured
from resnet_bench.schema import DatasetInfo
from resnet_bench.wording import counted, listed, short

SHOWN = ("cpu_model", "physical_cores", "logical_cores", "torch", "allocator", "cpu_quota", "code_commit", "code_dirty")
"""Facts that are not repeated in brackets, because `machine_text` has them or another fact says the same."""


def label(group: Group, series: Series) -> str:
    """What tells the series from others in its group, e.g. `fast engine, 2 threads`; empty where nothing varies."""
    return ", ".join(value_text(k, series.setting[k]) for k in group.varying if k in series.setting)


def name(group: Group, series: Series) -> str:
    """`baseline`, or `baseline (fast engine)` where there are several engines."""
    own = label(group, series)
    return f"{series.architecture} ({own})" if own else series.architecture


def group_machine_text(group: Group) -> str:
    """`machine_text`, with what tells the group from others of the same files in brackets."""
    return machine_text(group.machine) + _in_brackets(group)


def cpu_text(group: Group) -> str:
    """The model of the CPU, with what tells the group from others in brackets."""
    return cpu_name(group.machine) + _in_brackets(group)


def cpu_name(machine: dict[str, Any]) -> str:
    """The model of the CPU."""
    return str(identity.part(machine, "cpu").get("model") or "unknown CPU")


def _facts(group: Group) -> list[str]:
    """What tells the group from others, but for what `machine_text` says."""
    return [fact_text(fact) for fact in group.distinctions if fact.key not in SHOWN]


def _in_brackets(group: Group) -> str:
    facts = _facts(group)
    return f" ({'; '.join(facts)})" if facts else ""


def fact_text(fact: Distinction) -> str:
    """`L1d cache 48 KiB`; of the instruction sets only those that some groups have and others lack."""
    key, value, every = fact
    words = key.replace("_", " ").removesuffix(" bytes")
    words = words.replace("l1d", "L1d").replace("l2", "L2").replace("l3", "L3")
    if value is None:
        return f"{words} unknown"
    if key == "isa":
        sets = [set(str(other).split()) for other in every if other is not None]
        own = [word for word in str(value).split() if word not in set.intersection(*sets)]
        missing = sorted(set.union(*sets) - set(str(value).split()))
        return " ".join(["with", *own] if own else ["without", *missing])
    if key.endswith("_bytes") and isinstance(value, int):
        return f"{words} cache {value / 1024:,.0f} KiB"
    return f"{words} {str(value)[:12] if key == 'code_sha256' else short(value)}"


def machine_text(machine: dict[str, Any]) -> str:
    """`13th Gen Intel(R) Core(TM) i5-1340P, 12 cores (16 logical), torch 2.15.0, glibc allocator`."""
    version = identity.part(machine, "torch").get("version")
    parts = [hardware_text(machine), f"torch {version}" if version else "unknown torch"]
    if allocator := identity.part(machine, "allocator").get("name"):
        parts.append(f"{allocator} allocator")
    return ", ".join(parts)


def hardware_text(machine: dict[str, Any]) -> str:
    """The model of the CPU, its cores and the limit of a container."""
    cpu = identity.part(machine, "cpu")
    physical, logical, usable = cpu.get("physical_cores"), cpu.get("logical_cores"), cpu.get("affinity_cores")
    cores = f"{physical or logical} cores" if physical or logical else "unknown cores"
    if physical and logical and logical != physical:
        cores += f" ({logical} logical)"
    if usable and logical and usable != logical:
        cores += f", {usable} usable"
    parts = [cpu_name(machine), cores]
    quota = identity.part(machine, "container").get("cpu_quota")
    if quota:
        small = isinstance(quota, int | float) and quota < 1e6  # a damaged file may have one beyond floating point
        parts.append(f"container limited to {quota:g} CPUs" if small else str(quota))
    return ", ".join(parts)


def drift_text(drift: dict[str, float]) -> str:
    """`update 98 MB -20 %, gemm 1024 -15 % and 2 more`, for what `drift_during_run` gives; empty without drift."""
    changes = list(drift.items())
    more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
    return ", ".join(f"{short(name)} {100 * change:+.0f} %" for name, change in changes[:3]) + more


def dataset_text(dataset: DatasetInfo) -> str:
    """`cifar100 (50,000 training and 10,000 test images, 100 classes)`, with `synthetic` and `subset`."""
    kinds = [k for k, is_it in (("synthetic images", dataset.synthetic), ("subset", dataset.subset)) if is_it]
    sizes = (
        f"{dataset.train_images:,} training and {counted(dataset.test_images, 'test image')}, {dataset.classes} classes"
    )
    return f"{dataset.name} ({', '.join([*kinds, sizes])})"


def setting_text(group: Group) -> str:
    """`2 threads, batch size 4; reference engine: loader pipeline; fast engine: …`: what all share, then the rest."""
    keys = ["engine", "pipeline", "workers", "threads", "batch_size", "lr"]
    if any(s.setting.get("schedule", "constant") != "constant" for s in group.series):
        keys.append("schedule")
    if any(s.setting.get("warmup_steps") for s in group.series):
        keys.append("warmup_steps")
    shared = [k for k in keys if len({json.dumps(s.setting.get(k)) for s in group.series}) == 1]
    parts = [", ".join(value_text(k, group.series[0].setting.get(k)) for k in shared)]
    for s in group.series:
        rest = [value_text(k, s.setting.get(k)) for k in keys if k not in (*shared, *group.varying)]
        parts += [f"{label(group, s)}: {', '.join(rest)}"] if rest else []
    return "; ".join(dict.fromkeys(parts))


def value_text(key: str, value: Any) -> str:
    """A setting in words: `fast engine`, `cosine schedule`, `2 threads`, `lr 0.0004`."""
    if key in ("engine", "pipeline", "schedule"):
        return f"{value} {key}"
    if key in ("workers", "threads", "epochs"):
        return f"{value} {key if value != 1 else key[:-1]}"
    return f"{key.replace('_', ' ')} {value}"


def with_settings(setting: dict[str, Any], keys: Iterable[str]) -> str:
    """Settings as a sentence has them: `the cosine schedule and 500 warm-up steps`; empty where there are none."""
    return listed([_in_a_sentence(key, setting[key]) for key in keys if key in setting] or [""])


def _in_a_sentence(key: str, value: Any) -> str:
    if key == "schedule":
        return "a constant rate" if value == "constant" else f"the {short(value)} schedule"
    if key == "warmup_steps":
        return counted(value, "warm-up step") if value else "no warm-up"
    if key in ("engine", "pipeline"):
        return f"the {key} {short(value)}"
    return short(value_text(key, value))


def group_text(group: Group) -> str:
    """Data set, machine, settings and how much was measured, as one sentence."""
    parts = [dataset_text(group.dataset), group_machine_text(group), setting_text(group), sizes_text(group.series)]
    return f"{'; '.join(parts)}."


def beside_text(group: Group, first: Group) -> str:
    """Of what `group_text` says only that in which the group differs from another one of the same files."""
    parts = [
        (dataset_text(group.dataset), dataset_text(first.dataset)),
        (machine_text(group.machine), machine_text(first.machine)),
        *((fact, "") for fact in _facts(group)),
        (setting_text(group), setting_text(first)),
        (sizes_text(group.series), sizes_text(first.series)),
    ]
    return f"{'; '.join([own for own, other in parts if own != other] or ['measured again'])}; else as above."


def arm_text(group: Group) -> str:
    """`Arm new: `, where a duel measured it; else empty."""
    names = dict.fromkeys(identity.part(machine, "duel").get("arm") for machine in group.machines)
    return f"Arm {listed(short(name) for name in names)}: " if None not in names else ""


def sizes_text(series: Sequence[Series]) -> str:
    """How much was measured: `accuracy of 3 seeds after 15 epochs; time of 1,200 to 1,400 steps a network`."""
    parts = []
    trained = [s for s in series if s.accuracies]
    if trained:
        seeds = _span([len(s.accuracies) for s in trained], "seed")
        parts.append(
            f"accuracy of {seeds} after {_span([len(r.epochs) for s in trained for r in s.accuracies], 'epoch')}"
        )
    times = [t for s in series if (t := s.epoch_time())]
    if times:
        parts.append(f"time of {_span([t.steps for t in times], 'step')} a network")
    return "; ".join(parts) or "nothing measured yet"


def _span(numbers: Sequence[int], noun: str) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}{'' if low == high else f' to {high:,}'} {noun}{'' if high == 1 else 's'}"


def measured_text(series: Series) -> str:
    """How its epoch time was measured; empty where it was not.

    `5 processes, one after the other; 160 blocks of steps at 8 points of the training (after 0, 200, … steps)`.
    """
    runs = measured(series)
    if not runs:
        return ""
    results = [result for _, result in runs]
    used = [blocks for r in results for blocks in r.process_blocks.values()]
    sessions, processes, blocks = len({run.together[0] for run, _ in runs}), len(used), sum(map(len, used))
    first = results[0]
    where = f"{sessions} sessions, " if sessions > 1 else ""
    how = "in turn with those of a duel's other arms" if "duel" in runs[0][0].machine else "one after the other"
    where += counted(processes, "process") + (f", {how}" if processes > 1 else "")
    if first.measured != first.mode:
        return f"{where}; the {first.measured} of {counted(blocks, 'epoch')}, as the time limit allowed"
    if first.mode == "full":
        return f"{where}; {counted(blocks, 'whole epoch')}"
    if not first.points:
        reach = max(r.warmup_steps + sum(b.steps for b in r.blocks) for r in results)
        return f"{where}; {counted(blocks, 'block')} of steps among the first {reach:,} of the training"
    points = f"{counted(len(first.points), 'point')} of the training ({steps_text([p.step for p in first.points])})"
    return f"{where}; {counted(blocks, 'block')} of steps at {points}"


def measurement_notes(group: Group) -> list[str]:
    """How the epoch times of the group were measured: once, or for each network where they differ."""
    found: dict[str, list[str]] = {}
    for s in group.series:
        if text := measured_text(s):
            found.setdefault(text, []).append(name(group, s))
    if len(found) == 1:
        return [f"Each network was measured in {text}." for text in found]
    return [f"Measured in {text}: {', '.join(names)}." for text, names in found.items()]


def no_interval(found: Iterable[Replicates | Ratio | EpochDuration]) -> list[str]:
    """`1 process: no interval.`, for each number of processes or sessions that was too small for one."""
    few = [x for x in found if (x.low if isinstance(x, EpochDuration) else x.interval) is None]
    return [f"{count}: no interval." for count in dict.fromkeys(map(count_text, few))]


def count_text(found: Replicates | Ratio | EpochDuration) -> str:
    """`3 processes`."""
    return found.measured.removeprefix("measured in ")


def steps_text(steps: Sequence[int]) -> str:
    """`after 0, 200 and 1,000 steps`."""
    texts = [f"{step:,}" for step in steps]
    listed = " and ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))
    return f"after {listed} step{'' if list(steps) == [1] else 's'}"
