"""Compiled functions that a later process loads, and everything that decides whether it may."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from resnet_bench import architectures, compiled_functions, compiler, networks
from resnet_bench.engines import _units
from tests.test_compiler import TORCH_ALONE

RUN = """
import hashlib, sys, torch
from resnet_bench import compiler
from resnet_bench.compiled_functions import compiled
from resnet_bench.engines import _units
from torch._dynamo.utils import counters

compiler.require()
counters.clear()
torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
state = torch.rand(4, 4, 40, generator=generator)
adam = compiled(_units.adam)
for _ in range(2):
    parameter, *_ = adam(*state, torch.ones(2), (0.9, 0.999), 1e-8)
print(counters["stats"]["unique_graphs"], hashlib.sha256(parameter.numpy().tobytes()).hexdigest())
"""


def run_with(cache: Path, **environment: str) -> tuple[int, str]:
    """Runs `RUN` in a process of its own: functions that it traced, and a digest of what they computed."""
    given = os.environ | TORCH_ALONE | {compiler.CACHE_VARIABLE: str(cache), **environment}
    done = subprocess.run([sys.executable, "-c", RUN], env=given, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    traced, digest = done.stdout.split()
    return int(traced), digest


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """A cache folder, the file that one process has kept in it, and the digest of what that process computed."""
    cache = tmp_path_factory.mktemp("first") / "cache"
    traced, digest = run_with(cache)
    (path,) = kept(cache)
    assert traced == 1
    return cache, path, digest


def kept(cache: Path) -> list[Path]:
    """The files with functions."""
    return sorted((cache / compiled_functions.FOLDER).glob("*/*"))


def test_a_later_process_loads_what_one_has_compiled_and_computes_the_same_bits(first: tuple[Path, Path, str]) -> None:
    cache, _, digest = first
    there = kept(cache)
    assert run_with(cache) == (0, digest)
    assert kept(cache) == there


def test_another_setting_of_torch_compiles_anew(first: tuple[Path, Path, str]) -> None:
    cache, path, digest = first
    assert run_with(cache, TORCHINDUCTOR_MAX_AUTOTUNE="1") == (1, digest)
    assert len(kept(cache)) == 2
    assert path.exists()


def test_a_spoilt_file_is_made_anew(first: tuple[Path, Path, str]) -> None:
    cache, path, digest = first
    whole = path.read_bytes()
    for spoilt in (whole[:-100], whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:], b""):
        path.write_bytes(spoilt)
        assert run_with(cache) == (1, digest)
        assert run_with(cache) == (0, digest)


def test_where_nothing_can_be_written_functions_are_compiled_all_the_same(
    first: tuple[Path, Path, str], tmp_path: Path
) -> None:
    *_, digest = first
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / compiled_functions.FOLDER).touch()
    assert run_with(tmp_path / "cache") == (1, digest)


# --- what is kept under which name


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(compiler.CACHE_VARIABLE, str(tmp_path))
    return tmp_path


def path_of(moment: Tensor, *, rows: int = 2) -> Path | None:
    return compiled_functions._path(_units.adam, (moment, torch.arange(rows), torch.ones(4)))


def test_equal_arguments_have_one_file_and_any_difference_has_another() -> None:
    moment = torch.zeros(4, 8)
    paths = [
        path_of(moment),
        path_of(torch.zeros(4, 9)),
        path_of(torch.zeros(8, 4).t()),
        path_of(moment.double()),
        path_of(moment.clone().requires_grad_()),
        path_of(torch.zeros(5, 8)[1:]),
        path_of(moment, rows=3),
        compiled_functions._path(_units.adam, (moment, moment, moment)),
        compiled_functions._path(_units.adam, (moment, moment.clone(), moment)),
        compiled_functions._path(_units.adam, ([moment], moment.clone(), (moment, 1))),
        compiled_functions._path(_units.adam, ([moment], moment.clone(), (moment, 1.0))),
        compiled_functions._path(_units.adam, ([moment], moment.clone(), (moment, None))),
        compiled_functions._path(_units.may_move, (moment, torch.arange(2), torch.ones(4))),
    ]
    assert None not in paths
    assert len({*paths}) == len(paths)
    assert path_of(torch.ones(4, 8)) == paths[0]  # values decide nothing


@pytest.mark.usefixtures("threads")
def test_settings_that_change_the_code_change_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def path() -> Path | None:
        return path_of(torch.zeros(4, 8))

    torch.set_num_threads(1)
    paths = [path()]
    torch.set_num_threads(2)
    paths.append(path())
    with torch.no_grad():
        paths.append(path())
    torch.use_deterministic_algorithms(not torch.are_deterministic_algorithms_enabled())
    paths.append(path())
    torch.use_deterministic_algorithms(not torch.are_deterministic_algorithms_enabled())
    monkeypatch.setenv("CXX", "another-compiler")
    paths.append(path())
    monkeypatch.delenv("CXX")
    with torch._inductor.config.patch({"cpp.simdlen": 256}):
        paths.append(path())
    with torch._dynamo.config.patch(assume_static_by_default=False):
        paths.append(path())
    assert None not in paths
    assert len({*paths}) == len(paths)
    assert path() == paths[1]


def features_path(network: nn.Module) -> Path | None:
    return compiled_functions._path(_units.adam, (network, torch.zeros(4, 3, 32, 32)))


def test_networks_are_told_apart_by_their_layers() -> None:
    small = replace(architectures.get("fc1"), widths=(8, 8), strides=(2, 2))

    def path(classes: int = 5, **changes: object) -> Path | None:
        return features_path(networks.build(replace(small, **changes), classes, 0))

    paths = [path(), path(strides=(1, 2)), path(widths=(8, 4)), path(attention="se"), path(6)]
    evaluating = networks.build(small, 5, 0).eval()
    paths.append(features_path(evaluating))
    assert None not in paths
    assert len({*paths}) == len(paths)
    assert features_path(networks.build(small, 5, 1)) == paths[0]


class Foreign(nn.Module):
    """Code that no digest covers."""


def foreign(x: Tensor) -> Tensor:
    return x + 1


def test_what_no_digest_covers_is_not_kept() -> None:
    x = torch.zeros(2)
    assert compiled_functions._path(foreign, (x,)) is None
    assert features_path(Foreign()) is None
    assert features_path(nn.Sequential(nn.ReLU(), Foreign())) is None
    assert compiled_functions._path(_units.adam, (x, object())) is None
    assert compiled_functions._path(_units.adam, (x, lambda: x)) is None


def test_the_files_that_count_are_there() -> None:
    package = Path(compiled_functions.__file__).parent
    assert all((package / name).exists() for name in compiled_functions.SOURCES)


def test_what_nothing_has_loaded_for_a_month_is_deleted(tmp_path: Path) -> None:
    used, old, young = (tmp_path / name for name in ("used", "old", "young"))
    for path in (used, old, young):
        path.mkdir()
        (path / "update-0").touch()
    for path in (used, old):
        os.utime(path, (0, time.time() - compiled_functions.KEPT_SECONDS - 60))
    compiled_functions._delete_old(used)
    assert (used.exists(), old.exists(), young.exists()) == (True, False, True)
