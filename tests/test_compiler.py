"""Whether something can be compiled here, found out at the start; and where it is kept. Mostly in real processes."""

from __future__ import annotations

import functools
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch._inductor import config as inductor_config
from torch._inductor import cpu_vec_isa

from resnet_bench import compiler, engines, folders
from resnet_bench.cli import main
from resnet_bench.errors import UserError

TORCH_ALONE = {"TORCHINDUCTOR_VEC_ISA_OK": "0", "TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS": "0"}
"""Compiles one file a function, and none to see which instructions the compiler has, nor headers: in seconds."""

needs_posix = pytest.mark.skipif(os.name != "posix", reason="the stand-ins for a compiler are shell scripts")


def train(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """`resnet-bench train`, on a data set that is not there: what is wrong before is found out before."""
    command = [sys.executable, "-m", "resnet_bench.cli", "train", "fc1", "--engine", "fast"]
    command += ["--dataset", "folder:/no-such-folder", *arguments]
    given = {k: v for k, v in os.environ.items() if k not in ("CXX", compiler.CACHE_VARIABLE)}
    return subprocess.run(command, env=given | environment, capture_output=True, text=True, timeout=240)


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], str]:
    """Makes a compiler of a few lines of shell and returns its path."""

    def make(text: str) -> str:
        path = tmp_path / "g++"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)

    return make


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing was tried in this process yet, and what is tried now is forgotten."""
    monkeypatch.setattr(compiler, "_trial", functools.cache(compiler._trial.__wrapped__))
    monkeypatch.setenv(compiler.CACHE_VARIABLE, str(tmp_path / "cache"))
    yield
    cpu_vec_isa.valid_vec_isa_list.cache_clear()
    for isa in cpu_vec_isa.supported_vec_isa_list:  # each remembers whether a compiler knew it
        for value in (value for kind in type(isa).__mro__ for value in vars(kind).values()):
            if hasattr(value, "cache_clear"):
                value.cache_clear()


# --- what cannot compile


@needs_posix
def test_a_compiler_without_its_headers_is_one_sentence_with_its_own_first_error(script) -> None:
    program = script(f'exec {shutil.which("g++")} -nostdinc++ "$@"')
    done = train({"CXX": program})
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        f"resnet-bench: error: The C++ compiler {program} cannot compile what the engines fast and fast-bf16 need: "
    )
    assert re.search(  # which header is missed first depends on the version of GCC
        "fatal error: [a-z_./]+: No such file or directory; repair it, name another one in CXX, or take --engine "
        r"reference, which runs without\.$",
        line,
    )


def said_with(cxx: str | None, monkeypatch: pytest.MonkeyPatch) -> str:
    """What `require` says where this is `CXX`, in this process, which has read the variable before."""
    if cxx is None:
        monkeypatch.delenv("CXX", raising=False)
    else:
        monkeypatch.setenv("CXX", cxx)
    settings = {"cpp.cxx": (None, cxx or ""), "cpp.vec_isa_ok": False, "cpp_cache_precompile_headers": False}
    with inductor_config.patch(settings), pytest.raises(UserError) as error:
        compiler.require()
    return str(error.value)


@needs_posix
@pytest.mark.usefixtures("fresh")
def test_a_program_that_answers_like_a_compiler_and_is_none(script, monkeypatch: pytest.MonkeyPatch) -> None:
    program = script(
        'test "$1" = --version && echo "g++ 12" || { echo "note: 7"; echo "cc1plus: error: lost"; exit 1; }'
    )
    assert said_with(program, monkeypatch) == (
        f"The C++ compiler {program} cannot compile what the engines fast and fast-bf16 need: cc1plus: error: lost; "
        "repair it, name another one in CXX, or take --engine reference, which runs without."
    )


@needs_posix
@pytest.mark.usefixtures("fresh")
def test_a_program_that_writes_nothing_is_no_compiler_either(script, monkeypatch: pytest.MonkeyPatch) -> None:
    said = said_with(script("exit 0"), monkeypatch)
    assert re.fullmatch(
        r"torch cannot compile with the C\+\+ compiler \S+/g\+\+, as the engines fast and fast-bf16 need: .+; mend "
        r"that, or take --engine reference, which runs without\.",
        said,
    )


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("named", ["/nowhere/g++", "", "g++ 'unfinished", __file__, f"{__file__}/g++"])
def test_a_cxx_that_leads_nowhere_is_named(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert said_with(named, monkeypatch) == (
        f"The environment variable CXX names {named!r}, which is no C++ compiler that can be run here; correct it, "
        "unset it, or take --engine reference, which runs without."
    )


@pytest.mark.usefixtures("fresh")
def test_without_a_compiler_the_user_hears_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said_with(None, monkeypatch) == (
        "The engines fast and fast-bf16 need a C++ compiler and found none: install g++ (Linux; Fedora calls it "
        "gcc-c++) or the Xcode command line tools (macOS), or take --engine reference, which "
        "runs without."
    )


SETTINGS = {
    "TORCHDYNAMO_DISABLE=1": lambda: torch._dynamo.config.patch({}),
    "TORCH_COMPILE_DISABLE=1": lambda: torch._dynamo.config.patch(disable=True),  # read when torch is imported
    "TORCH_COMPILE_OVERRIDE_BACKENDS=>=0:eager": lambda: torch._dynamo.config.patch(debug_backend_override=">=0:eager"),
}


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("variable", SETTINGS)
@pytest.mark.parametrize(
    "command", [["train", "fc1", "--engine", "fast"], ["explain", "fc1"]], ids=["train", "explain"]
)
def test_what_keeps_torch_from_compiling_is_named_and_nothing_runs_uncompiled_instead(
    variable: str, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, _, value = variable.partition("=")
    for other in compiler.SWITCHES:
        monkeypatch.setenv(other, "0")
    monkeypatch.setenv(name, value)
    with SETTINGS[variable](), pytest.raises(SystemExit) as exit_:
        main([*command, "--dataset", "folder:/no-such-folder"])
    assert exit_.value.code == 2
    assert capsys.readouterr().err == (
        f"resnet-bench: error: {variable} in the environment keeps torch.compile from compiling, which the engines "
        "fast and fast-bf16 need; undo that, or take --engine reference, which runs without.\n"
    )


@pytest.mark.usefixtures("fresh")
def test_a_setting_of_the_process_that_keeps_torch_from_compiling_is_noticed() -> None:
    with torch.compiler.set_stance("force_eager"), pytest.raises(UserError, match=r"^A setting of this process keeps"):
        compiler.require()


def test_that_dynamo_is_switched_off_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in compiler.SWITCHES:
        monkeypatch.delenv(variable, raising=False)
    assert not compiler.switched_off()
    with torch._dynamo.config.patch(disable=True):
        assert compiler.switched_off()
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    assert compiler.switched_off()


@pytest.mark.parametrize(
    ("output", "line"),
    [
        ("In file included from a.cpp:1:\nb.h:5:10: fatal error: c.h: gone\n 5 |", "b.h:5:10: fatal error: c.h: gone"),
        ("a.cpp:1: warning: x\n/usr/bin/ld: cannot find -lgomp: no\n", "/usr/bin/ld: cannot find -lgomp: no"),
        ("b.h:5:10: schwerwiegender Fehler: c.h: fehlt.\n", "b.h:5:10: schwerwiegender Fehler: c.h: fehlt"),
        ("\n", "it says nothing"),
    ],
)  # fmt: skip
def test_the_line_of_a_compilers_output_that_says_what_is_wrong(output: str, line: str) -> None:
    assert compiler._first_error(output) == line


def test_another_compiler_does_not_pass_for_one_that_worked(script, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the trial compiled is in torch's cache, and would be found there."""
    monkeypatch.setenv("CXX", script("exit 0"))
    first = compiler._mark()
    assert compiler._mark() == first
    monkeypatch.setenv("CXX", shlex.quote(script("exit 1 # by now")))
    assert compiler._mark() != first
    monkeypatch.setenv("CXX", "/nowhere/g++")
    assert compiler._mark() != first


# --- where it is kept

KEPT = r"""
import os, torchvision
given = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
from resnet_bench import engines
engines.get("fast").require()
from torch._dynamo.utils import counters
print(given, os.environ["TORCHINDUCTOR_CACHE_DIR"], counters["inductor"]["fxgraph_cache_hit"], sep="\n")
"""


@pytest.fixture
def kept(tmp_path: Path) -> Callable[..., tuple[str, ...]]:
    """Runs `KEPT` with an empty home: the folder that torch had chosen, the one in use, functions found there."""
    (tmp_path / "tmp").mkdir()

    def run(**environment: str) -> tuple[str, ...]:
        given = {k: v for k, v in os.environ.items() if k not in ("XDG_CACHE_HOME", compiler.CACHE_VARIABLE)}
        given |= TORCH_ALONE | {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp"), **environment}
        done = subprocess.run([sys.executable, "-c", KEPT], env=given, capture_output=True, text=True, timeout=240)
        assert (done.returncode, done.stderr) == (0, "")
        return tuple(done.stdout.splitlines())

    return run


@pytest.mark.skipif(sys.platform != "linux", reason="the platform's cache folder is another one")
def test_another_process_finds_what_was_compiled_in_the_platforms_cache_folder(kept, tmp_path: Path) -> None:
    """Though importing torchvision has torch choose the temporary folder, which a restart empties."""
    (torchs, folder, hits), again = kept(), kept()
    assert Path(torchs).parent == tmp_path / "tmp"
    assert Path(folder) == tmp_path / "home/.cache/resnet_bench/inductor"
    assert hits == "0"
    assert again == (torchs, folder, "1")
    assert not [p for p in (tmp_path / "tmp").rglob("*") if p.suffix in (".so", ".cpp", ".h")]


@pytest.fixture
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is set to torch's own choice, as importing torchvision does."""
    monkeypatch.setenv(compiler.CACHE_VARIABLE, str(compiler._torchs_folder()))


@pytest.mark.usefixtures("no_variable")
@pytest.mark.parametrize(
    ("folder", "why"),
    [
        (None, "this user has no home folder"),
        ("file/x", "{}/inductor cannot be written (Not a directory)"),
        (
            "Jane Doe",
            "{}/inductor has a space or a quotation mark in its path, at which torch cuts the compiler's arguments",
        ),
        (
            "O'Hara",
            "{}/inductor has a space or a quotation mark in its path, at which torch cuts the compiler's arguments",
        ),
    ],
)
def test_where_the_platforms_folder_cannot_be_used_torchs_own_is_and_a_line_says_so(
    folder: str | None, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    path = folder and tmp_path / folder
    monkeypatch.setattr(compiler, "cache_folder", lambda: path)
    compiler._keep()
    torchs = compiler._torchs_folder()
    assert os.environ[compiler.CACHE_VARIABLE] == str(torchs)
    assert capsys.readouterr().err == (
        f"resnet_bench: compiled code is kept in {torchs} only, because {why.format(path)}; TORCHINDUCTOR_CACHE_DIR "
        "may name another folder\n"
    )


@pytest.mark.usefixtures("no_variable")
def test_where_no_folder_can_be_used_it_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(compiler, "cache_folder", lambda: None)
    monkeypatch.setattr(compiler, "_torchs_folder", lambda: tmp_path / "file" / "x")
    monkeypatch.delenv(compiler.CACHE_VARIABLE)
    with pytest.raises(UserError) as error:
        compiler._keep()
    assert str(error.value) == (
        f"Compiled code can be kept nowhere: this user has no home folder, and {tmp_path}/file/x cannot be written "
        "(Not a directory); name another folder in TORCHINDUCTOR_CACHE_DIR, or take --engine reference, which runs "
        "without."
    )


def test_a_folder_that_the_environment_names_is_used_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(compiler.CACHE_VARIABLE, str(tmp_path / "mine"))
    compiler._keep()
    assert os.environ[compiler.CACHE_VARIABLE] == str(tmp_path / "mine")
    assert (tmp_path / "mine").is_dir()
    (tmp_path / "file").touch()
    monkeypatch.setenv(compiler.CACHE_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(
        UserError, match=r"file cannot be written \(File exists\); name another folder for compiled code"
    ):
        compiler._keep()


# --- a user without a home


@pytest.fixture
def homeless() -> list[str]:
    """What to put before a command, for a user without `HOME` and without an entry in the user database."""
    command = ["unshare", "--user", "--map-user=12345", "env", "-u", "HOME", "-u", "XDG_CACHE_HOME"]
    try:
        subprocess.run([*command, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine allows no user namespaces")
    return command


def test_a_user_without_a_home_is_told_where_compiled_code_is_kept(homeless: list[str], tmp_path: Path) -> None:
    script = "from resnet_bench import engines; engines.get('fast').require()"
    environment = {k: v for k, v in os.environ.items() if k not in (compiler.CACHE_VARIABLE, "USER", "LOGNAME")}
    environment |= TORCH_ALONE | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [*homeless, sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=240
    )
    (folder,) = tmp_path.glob("torchinductor_*")
    assert (done.returncode, done.stderr) == (
        0,
        f"resnet_bench: compiled code is kept in {folder} only, because this user has no home folder; "
        "TORCHINDUCTOR_CACHE_DIR may name another folder\n",
    )


@pytest.mark.parametrize(
    ("spec", "status", "said"),
    [
        (
            "cifar100",
            2,
            "resnet-bench: error: This user has no home folder to keep CIFAR-10 and CIFAR-100 in; name a folder in "
            "RESNET_BENCH_DATA, or take --dataset synthetic or folder:PATH.\n",
        ),
        (
            "auto",
            0,
            "*** Using the SYNTHETIC data set. This user has no home folder to keep CIFAR-10 and CIFAR-100 in; name a "
            "folder in RESNET_BENCH_DATA, or take --dataset synthetic or folder:PATH. ***\n",
        ),
    ],
)  # fmt: skip
def test_a_user_without_a_home_trains_or_hears_what_to_name(
    homeless: list[str], spec: str, status: int, said: str
) -> None:
    sizes = ["--train-images", "8", "--test-images", "4", "--epochs", "1", "--pipeline", "vectorized"]
    command = [sys.executable, "-m", "resnet_bench.cli", "train", "fc1", "--dataset", spec, *sizes]
    environment = {k: v for k, v in os.environ.items() if k != "RESNET_BENCH_DATA"}
    done = subprocess.run([*homeless, *command], env=environment, capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stderr) == (status, said)


def test_a_cache_folder_that_begins_with_a_tilde_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As older versions of platformdirs give it, without a home."""
    monkeypatch.setattr(folders.platformdirs, "user_cache_path", lambda *_: Path("~/.cache/resnet_bench"))
    assert folders.cache_folder() is None


# --- engines


@pytest.mark.parametrize("name", ["reference", "fast", "fast-bf16"])
def test_no_engine_runs_with_fewer_digits_than_float32(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(UserError) as error:
        engines.get(name).require()
    assert str(error.value) == (
        "torch computes with fewer digits than float32 has (torch.set_float32_matmul_precision, torch.backends.mkldnn, "
        "torch.autocast or TORCH_ALLOW_TF32_CUBLAS_OVERRIDE asks for it), so that no engine computes what its name "
        "says; take that setting back."
    )


def test_no_engine_runs_with_another_type_or_place_of_numbers() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(UserError, match=r"^torch's default type of number is torch.float64, so that no engine"):
            engines.get("reference").require()
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.device("meta"), pytest.raises(UserError, match=r"^torch's default device is meta, so that no engine"):
        engines.get("reference").require()


def test_compiling_does_not_speak_of_cuda() -> None:
    compiler._prepare()
    assert logging.getLogger("torch.utils.cpp_extension").level == logging.ERROR


def test_a_compilers_version_in_another_encoding_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler may answer in the user's language, in Latin-1."""
    program = tmp_path / "c++"
    program.write_bytes(b"#!/bin/sh\nprintf 'g++ (f\\374r alle) 14.2\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("CXX", str(program))
    assert compiler.cxx_version.__wrapped__() == "g++ (f\ufffdr alle) 14.2"
