"""Settings of the machine that make its times doubtful, and the command that changes each. Nothing is changed here.

Everything is read below `system.PROC` and `system.SYS`. What the system hides is not told: it is never guessed. The
commands are those of the kernel's documentation, most of which pyperf's `system tune` carries out too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from resnet_bench.machine import availability, system
from resnet_bench.machine.system import answer, text_in
from resnet_bench.wording import counted

Effect = Literal["none", "scatter", "bias"]
"""What a setting does to times on its own: nothing; it makes them differ from run to run, with which intervals get
wider; or it shifts all of them, or narrows their intervals, which no interval shows."""

FREE_SHARE = 0.02
"""Of the cores: what other processes use on any idle system, and of the time: what a host takes."""

SAMPLE_SECONDS = 0.5

CPU = "/sys/devices/system/cpu"

PROCESSES = 3
"""Other processes that are named, those that use most."""


@dataclass(frozen=True)
class Finding:
    """What one setting is, and what that means.

    Attributes:
        name: the setting; for most of them, the key of `machine.describe()` that has it.
        found: its value; None where the system does not tell.
        effect: on times; None where the value is not known, or not what it does.
        why: a sentence about the effect, or about why nothing is told; may be empty.
        command: what changes it; None where nothing has to be changed, or no command that is known to work can.
    """

    name: str
    found: str | None
    effect: Effect | None = None
    why: str = ""
    command: str | None = None

    @property
    def doubtful(self) -> bool:
        """Whether results here are doubtful because of it."""
        return self.effect in ("scatter", "bias")


def settings() -> list[Finding]:
    """The settings, in a fixed order. Takes milliseconds; imports no torch."""
    return [turbo(), smt(), governor(), aslr(), transparent_hugepages(), container()]


def load(seconds: float = SAMPLE_SECONDS) -> list[Finding]:
    """What else runs now: other processes, and the host of a virtual machine. Watches twice for `seconds`."""
    before = system.cpu_ticks()
    others = availability.other_processes(seconds)
    stolen = system.stolen_share(before, system.cpu_ticks())
    return [_others(others, seconds), _stolen(stolen)]


def effects(found: list[Finding]) -> dict[str, Effect | None]:
    """{name of a setting: its effect on times}."""
    return {f.name: f.effect for f in found}


def as_dicts(found: list[Finding]) -> list[dict[str, Any]]:
    """The findings, ready for JSON."""
    return [vars(f) for f in found]


def virtual() -> bool | None:
    """Whether this is a virtual machine; None where the system does not tell."""
    flags = re.search(r"^flags\s*:(.*)$", text_in(system.PROC / "cpuinfo") or "", re.MULTILINE)
    return None if flags is None else "hypervisor" in flags[1].split()


# Settings -------------------------------------------------------------------------------------------------------------


def _cpu() -> Path:
    return system.SYS / "devices/system/cpu"


def _not_told(name: str) -> Finding:
    return Finding(name, None, why="The host of this virtual machine decides it." if virtual() else "")


def turbo() -> Finding:
    """Clock rates above the nominal one, which the CPU gives while it is cool and few cores are busy."""
    scatter = "The clock rate depends on heat and on how many cores are busy, so that times differ from run to run."
    switches = {  # file: value that stands for turbo on, and the one that switches it off
        "intel_pstate/no_turbo": ("0", "1"),
        "cpufreq/boost": ("1", "0"),
        "cpufreq/policy0/boost": ("1", "0"),
    }
    for file, (on, off) in switches.items():
        value = text_in(_cpu() / file)
        if value == off:
            return Finding("turbo", "off", "none")
        if value == on:
            where = file.replace("policy0", "policy*")
            return Finding("turbo", "on", "scatter", scatter, f"echo {off} | sudo tee {CPU}/{where}")
    return _not_told("turbo")


def smt() -> Finding:
    """Several logical cores on each physical one."""
    active = text_in(_cpu() / "smt/active")
    siblings = [text_in(path) for path in _files("cpu[0-9]*/topology/thread_siblings_list")]
    if active not in ("0", "1"):  # before Linux 4.19
        if not any(siblings):
            return _not_told("smt")
        active = "1" if any(s and re.search(r"[,-]", s) for s in siblings) else "0"
    if active == "0":
        return Finding("smt", "off", "none")
    why = (
        "Two threads on one physical core slow each other down, and which threads meet differs from run to run; "
        "--threads with the number of physical cores makes it rarer."
    )
    changes = text_in(_cpu() / "smt/control") == "on"
    return Finding("smt", "on", "scatter", why, f"echo off | sudo tee {CPU}/smt/control" if changes else None)


def governor() -> Finding:
    """The policy for the clock rate."""
    files = _files("cpufreq/policy[0-9]*/scaling_governor") or _files("cpu[0-9]*/cpufreq/scaling_governor")
    policies = [(value, file.parent) for file in files if (value := text_in(file))]
    names = sorted({value for value, _ in policies})
    if not names:
        return _not_told("governor")
    found = ", ".join(names)
    if names == ["performance"]:
        return Finding("governor", found, "none")
    offered = all("performance" in (text_in(p / "scaling_available_governors") or "").split() for _, p in policies)
    command = f"echo performance | sudo tee {CPU}/cpu*/cpufreq/scaling_governor" if offered else None
    # Under these two drivers `powersave` follows the load; under any other it is the lowest rate.
    lowest = [p for value, p in policies if value == "powersave"]
    if lowest and not any(
        (text_in(p / "scaling_driver") or "") in ("intel_pstate", "amd-pstate-epp", "amd_pstate_epp") for p in lowest
    ):
        why = "The clock stays at its lowest rate: times are longer than this machine's best, and ratios may differ."
        return Finding("governor", found, "bias", why, command)
    why = "The clock rate follows the load with a delay, so that times differ from run to run."
    return Finding("governor", found, "scatter", why, command)


def aslr() -> Finding:
    """Random addresses of stack, libraries and heap."""
    value = text_in(system.PROC / "sys/kernel/randomize_va_space")
    personality = text_in(system.PROC / "self/personality") or ""
    if re.fullmatch(r"[0-9a-f]+", personality) and int(personality, 16) & 0x0040000:  # ADDR_NO_RANDOMIZE
        why = "Every process has the same addresses, so that the interval over processes is too narrow."
        return Finding("aslr", "off for this process", "bias", f"{why} Start it without setarch --addr-no-randomize.")
    found = {"0": "off", "1": "partial", "2": "full"}.get(value or "")
    if found is None:
        return Finding("aslr", None)
    if found == "full":
        why = "Each process has other addresses, and the interval over processes covers what they do."
        return Finding("aslr", found, "none", why)
    why = "Processes have the same addresses for all or the heap, so that the interval over processes is too narrow."
    return Finding("aslr", found, "bias", why, "sudo sysctl kernel.randomize_va_space=2")


def transparent_hugepages() -> Finding:
    """Whether the kernel backs memory by large pages."""
    name, file = "transparent_hugepages", "kernel/mm/transparent_hugepage/enabled"
    match = re.search(r"\[(\w+)\]", text_in(system.SYS / file) or "")
    if match is None:
        return Finding(name, None)
    if match[1] != "always":
        return Finding(name, match[1], "none")
    why = "Which memory gets large pages depends on how fragmented it is, so that processes differ."
    return Finding(name, "always", "scatter", why, f"echo madvise | sudo tee /sys/{file}")


def container() -> Finding:
    """The limits of the control groups around this process."""
    if text_in(system.PROC / "self/cgroup") is None:
        return Finding("container", None)
    limits, cores = system.container_limits(), answer(availability.allowed_cores)
    parts = []
    if limits.cpu_quota is not None:
        parts.append(f"{limits.cpu_quota:g} core{'' if limits.cpu_quota == 1 else 's'} of CPU time")
    if limits.memory_limit_bytes is not None:
        parts.append(f"{limits.memory_limit_bytes / 2**30:.3g} GiB")
    found = ", ".join(parts) or "no limit"
    if limits.cpu_quota is None or (cores is not None and limits.cpu_quota >= cores):
        return Finding("container", found, "none")
    threads = max(1, int(limits.cpu_quota))
    why = (
        "Once all threads and workers together have used the quota of a period, mostly 0.1 s, they stop until the next "
        "one. Whole cores, as docker run --cpuset-cpus gives them, stop nothing."
    )
    return Finding("container", found, "bias", why, f"--threads {threads}")


def _files(pattern: str) -> list[Path]:
    return sorted(answer(lambda: list(_cpu().glob(pattern))) or [])  # a forbidden folder raises


# Load -----------------------------------------------------------------------------------------------------------------


def _others(others: float | None, seconds: float) -> Finding:
    cores = system.logical_cores()
    if others is None:
        return Finding("other load", None)
    found = f"{others:.1f} of {counted(cores, 'core')}"
    if others <= FREE_SHARE * cores:
        return Finding("other load", found, "none")
    busiest = availability.busiest(seconds)[:PROCESSES]
    named = f"Cores in use: {', '.join(map(str, busiest))}. " if busiest else ""
    why = f"{named}Steps wait for them, and for memory. End what need not run, or measure later."
    return Finding("other load", found, "bias", why)


def _stolen(share: float | None) -> Finding:
    if share is None:
        return Finding("stolen time", None)
    found = f"{share:.1%}".replace("%", " %")
    if share <= FREE_SHARE:
        return Finding("stolen time", found, "none")
    why = "The host of this virtual machine runs others on its cores; measure later, or where nobody else does."
    return Finding("stolen time", found, "bias", why)
