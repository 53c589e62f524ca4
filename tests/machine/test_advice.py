"""Settings that make times doubtful, on made-up machines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from resnet_bench import machine
from resnet_bench.cli import cli
from resnet_bench.machine import advice, availability, system
from resnet_bench.machine.availability import BusyProcess
from resnet_bench.render import advice_table
from tests.machine.trees import write

CPU = "sys/devices/system/cpu"
FREE = {
    f"{CPU}/smt/active": "0",
    "proc/sys/kernel/randomize_va_space": "2",
    "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never",
    "proc/self/cgroup": "0::/",
    "proc/cpuinfo": "flags\t\t: fpu avx2\n",
}
INTEL_LAPTOP = FREE | {
    f"{CPU}/intel_pstate/no_turbo": "0",
    f"{CPU}/smt/active": "1",
    f"{CPU}/smt/control": "on",
    f"{CPU}/cpufreq/policy0/scaling_governor": "powersave",
    f"{CPU}/cpufreq/policy0/scaling_driver": "intel_pstate",
    f"{CPU}/cpufreq/policy0/scaling_available_governors": "performance powersave",
}
ACPI_LAPTOP = FREE | {
    f"{CPU}/cpufreq/boost": "1",
    f"{CPU}/cpufreq/policy0/scaling_governor": "powersave",
    f"{CPU}/cpufreq/policy0/scaling_driver": "acpi-cpufreq",
    f"{CPU}/cpufreq/policy0/scaling_available_governors": "conservative ondemand powersave performance schedutil",
}
VIRTUAL = FREE | {"proc/cpuinfo": "flags\t\t: fpu avx2 hypervisor\n"}
TUNED = FREE | {
    f"{CPU}/intel_pstate/no_turbo": "1",
    f"{CPU}/cpufreq/policy0/scaling_governor": "performance",
    f"{CPU}/cpufreq/policy1/scaling_governor": "performance",
}


def found(root: Path, files: dict[str, str]) -> dict[str, advice.Finding]:
    write(root, files)
    return {f.name: f for f in advice.settings()}


def doubts(findings: dict[str, advice.Finding]) -> dict[str, str | None]:
    return {name: f.effect for name, f in findings.items() if f.effect != "none"}


def test_a_laptop_with_intel_pstate(root: Path) -> None:
    here = found(root, INTEL_LAPTOP)
    assert doubts(here) == {"turbo": "scatter", "smt": "scatter", "governor": "scatter"}
    assert here["turbo"].command == "echo 1 | sudo tee /sys/devices/system/cpu/intel_pstate/no_turbo"
    assert here["smt"].command == "echo off | sudo tee /sys/devices/system/cpu/smt/control"
    assert here["governor"].command == (
        "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
    )


def test_a_laptop_with_acpi_cpufreq_whose_powersave_is_the_lowest_clock_rate(root: Path) -> None:
    here = found(root, ACPI_LAPTOP)
    assert doubts(here) == {"turbo": "scatter", "governor": "bias"}
    assert here["turbo"].command == "echo 0 | sudo tee /sys/devices/system/cpu/cpufreq/boost"


def test_boost_may_be_switched_for_each_policy(root: Path) -> None:
    here = found(root, FREE | {f"{CPU}/cpufreq/policy0/boost": "1"})
    assert here["turbo"].command == "echo 0 | sudo tee /sys/devices/system/cpu/cpufreq/policy*/boost"


def test_a_tuned_machine_has_no_doubts(root: Path) -> None:
    assert not doubts(found(root, TUNED))


def test_a_governor_that_one_core_has_counts(root: Path) -> None:
    here = found(root, TUNED | {f"{CPU}/cpufreq/policy1/scaling_governor": "ondemand"})
    assert here["governor"].found == "ondemand, performance"
    assert here["governor"].effect == "scatter"
    assert here["governor"].command is None  # nothing says that `performance` is offered


def test_a_virtual_machine_leaves_clock_rates_to_its_host(root: Path) -> None:
    here = found(root, VIRTUAL)
    assert {name for name, f in here.items() if f.found is None} == {"turbo", "governor"}
    assert "host" in here["turbo"].why
    assert advice.virtual() is True


@pytest.mark.parametrize(("siblings", "value"), [("0,4", "on"), ("0-1", "on"), ("0", "off")])
def test_siblings_tell_of_smt_on_an_older_kernel(root: Path, siblings: str, value: str) -> None:
    files = {k: v for k, v in FREE.items() if "smt" not in k}
    here = found(root, files | {f"{CPU}/cpu0/topology/thread_siblings_list": siblings})
    assert here["smt"].found == value
    assert here["smt"].command is None


def test_smt_that_cannot_be_switched_off_has_no_command(root: Path) -> None:
    here = found(root, INTEL_LAPTOP | {f"{CPU}/smt/control": "notsupported"})
    assert (here["smt"].effect, here["smt"].command) == ("scatter", None)


@pytest.mark.parametrize(
    ("files", "value", "effect"),
    [
        ({"proc/sys/kernel/randomize_va_space": "0"}, "off", "bias"),
        ({"proc/sys/kernel/randomize_va_space": "1"}, "partial", "bias"),
        ({"proc/self/personality": "00040000"}, "off for this process", "bias"),
        ({"proc/self/personality": "00000000"}, "full", "none"),
        ({"proc/sys/kernel/randomize_va_space": "9"}, None, None),
    ],
)
def test_random_addresses_belong_into_the_interval(
    root: Path, files: dict[str, str], value: str | None, effect: str | None
) -> None:
    aslr = found(root, FREE | files)["aslr"]
    assert (aslr.found, aslr.effect) == (value, effect)
    assert aslr.command == ("sudo sysctl kernel.randomize_va_space=2" if value in ("off", "partial") else None)


def test_large_pages_for_whoever_gets_them_are_a_doubt(root: Path) -> None:
    here = found(root, FREE | {"sys/kernel/mm/transparent_hugepage/enabled": "[always] madvise never"})
    assert doubts(here) == {"turbo": None, "governor": None, "transparent_hugepages": "scatter"}
    assert here["transparent_hugepages"].command == (
        "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled"
    )


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "0::/a", "sys/fs/cgroup/a/cpu.max": "250000 100000"},
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/a",
            "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "250000",
            "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000",
        },
    ],
    ids=["version 2", "version 1"],
)
def test_a_quota_below_the_cores_stops_threads(
    root: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)), raising=False)
    here = found(root, FREE | files)["container"]
    assert (here.found, here.effect, here.command) == ("2.5 cores of CPU time", "bias", "--threads 2")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    assert advice.container().effect == "none"


def test_a_limit_of_memory_alone_is_no_doubt(root: Path) -> None:
    here = found(root, FREE | {"proc/self/cgroup": "0::/a", "sys/fs/cgroup/a/memory.max": str(2**31)})
    assert (here["container"].found, here["container"].effect) == ("2 GiB", "none")


def test_a_masked_machine_tells_nothing(root: Path) -> None:
    here = found(root, {})
    assert all((f.found, f.effect, f.command) == (None, None, None) for f in here.values())
    assert advice.virtual() is None


@given(st.text(max_size=12))
def test_files_of_another_form_never_raise_and_never_make_up_a_command(text: str) -> None:
    """Whatever the kernel's files hold, what was not understood has no effect and no command."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (advice, system):
            patch.setattr(module, "text_in", lambda path: text.strip() or None)
        for f in advice.settings():
            assert f.command is None or f.doubtful
            assert f.found is not None or f.effect is None


# Load -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cores, of which others use 0.6 and the host takes a tenth."""
    ticks = iter([(0, 0), (10, 100)])
    monkeypatch.setattr(system, "cpu_ticks", lambda: next(ticks))
    monkeypatch.setattr(system, "logical_cores", lambda: 2)
    monkeypatch.setattr(availability, "other_processes", lambda seconds: 0.6)
    monkeypatch.setattr(availability, "busiest", lambda seconds: [BusyProcess("browser", 7, 0.6)])


@pytest.mark.usefixtures("busy")
def test_other_processes_are_named_and_what_the_host_takes_is_told_apart() -> None:
    others, stolen = advice.load()
    assert (others.found, others.effect) == ("0.6 of 2 cores", "bias")
    assert "browser (7) 0.6" in others.why
    assert (stolen.found, stolen.effect) == ("10.0 %", "bias")


def test_a_free_machine_has_no_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "cpu_ticks", iter([(5, 100), (5, 200)]).__next__)
    monkeypatch.setattr(availability, "other_processes", lambda seconds: 0.01)
    assert [f.effect for f in advice.load()] == ["none", "none"]


def test_load_is_not_told_where_the_system_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "cpu_ticks", lambda: None)
    monkeypatch.setattr(availability, "other_processes", lambda seconds: None)
    assert [f.found for f in advice.load()] == [None, None]


def test_a_busy_process_is_found_and_this_one_is_not() -> None:
    code = "while True: pass"
    started = subprocess.Popen(["sh", "-c", f"{sys.executable} -c '{code}' & echo $!"], stdout=subprocess.PIPE)
    assert started.stdout is not None
    pid = int(started.stdout.readline())  # its parent has ended, so that it is no child of this process
    started.wait()
    try:
        found = availability.busiest(1.0, 0.01)
    finally:
        psutil.Process(pid).kill()
    assert pid in [p.pid for p in found]
    assert os.getpid() not in [p.pid for p in found]


def test_children_are_no_others() -> None:
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        assert child.pid not in [p.pid for p in availability.busiest(0.5, 0.0)]
    finally:
        child.kill()
        child.wait()


def test_no_process_is_named_where_the_system_hides_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "process_iter", refuse)
    assert availability.busiest(0.0) == []


# Counters -------------------------------------------------------------------------------------------------------------


def test_stolen_ticks_are_those_of_the_cores_in_use(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1}, raising=False)
    write(root, {"proc/stat": "cpu  9 9 9 9\ncpu0 1 1 1 1 1 1 1 1 0 0\ncpu1 10 0 5 80 0 0 0 5 10 0\nintr 5\n"})
    assert system.cpu_ticks() == (5, 100)


@pytest.mark.parametrize("text", ["", "cpu  1 2\n", "cpu0 1 2 3\n", "cpu0 a b c d e f g h\n"])
def test_ticks_of_another_form_are_not_told(root: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0}, raising=False)
    write(root, {"proc/stat": text})
    assert system.cpu_ticks() is None


@given(*[st.tuples(st.integers(0, 10**9), st.integers(0, 10**9))] * 2)
def test_a_stolen_share_is_a_share_whatever_the_counters_do(before: tuple[int, int], after: tuple[int, int]) -> None:
    share = system.stolen_share(before, after)
    assert share is None or 0 <= share <= 1


# The command and the description --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("busy")
def test_the_command_prints_a_short_table_and_one_sentence(root: Path) -> None:
    write(root, INTEL_LAPTOP)
    done = CliRunner().invoke(cli, ["machine", "--check"])
    assert done.exit_code == 0, done.output
    assert "echo 1 | sudo tee /sys/devices/system/cpu/intel_pstate/no_turbo" in done.stdout
    assert done.stdout.splitlines()[-1] == (
        "Results here are doubtful by turbo, SMT, clock governor, other load and stolen time."
    )


@pytest.mark.usefixtures("busy")
def test_the_command_prints_json(root: Path) -> None:
    write(root, FREE)
    data = json.loads(CliRunner().invoke(cli, ["machine", "--check", "--format", "json"]).stdout)
    assert [f["name"] for f in data["check"]][-2:] == ["other load", "stolen time"]
    assert "not told here: turbo, clock governor" in data["summary"]


def test_a_check_takes_no_threads() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "resnet_bench.cli", "machine", "--check", "--threads", "2"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert "leave out --threads" in done.stderr


def test_a_check_imports_no_torch() -> None:
    code = "import sys; from resnet_bench.cli import cli; cli(['machine', '--check'], standalone_mode=False)"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nprint('torch' in sys.modules)"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "False"


def test_nothing_found_is_said() -> None:
    assert advice_table.summary([advice.Finding("turbo", "off", "none")]) == "Nothing found makes results doubtful."


def test_the_description_has_the_settings_and_their_effects(root: Path) -> None:
    write(root, INTEL_LAPTOP)
    described = machine.describe()
    assert (described["turbo"], described["smt"], described["aslr"]) == ("on", "on", "full")
    assert described["virtual_machine"] is False
    assert described["doubts"] == {
        "turbo": "scatter", "smt": "scatter", "governor": "scatter", "aslr": "none", "transparent_hugepages": "none",
        "container": "none",
    }  # fmt: skip
