"""CIFAR with small files in the official layout: what is found, downloaded and checked, and what `auto` takes."""

from __future__ import annotations

import hashlib
import http.server
import os
import pickle
import re
import resource
import shutil
import tarfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision
from filelock import FileLock

from resnet_bench import progress
from resnet_bench.data import cifar, datasets
from resnet_bench.data.datasets import Dataset
from resnet_bench.errors import UserError

ARCHIVE = "cifar-100-python.tar.gz"
FOLDER = "cifar-100-python"


@dataclass
class Server:
    """Serves one file on 127.0.0.1 and notes what was asked for."""

    content: bytes
    requests: list[str] = field(default_factory=list)
    cut: int | None = None  # breaks off after so many bytes
    hang: float = 0  # seconds before an answer
    url: str = ""


@pytest.fixture
def server(small_cifar100: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """torchvision's CIFAR-100 is the small one, and a server has its archive."""
    served = Server((official(tmp_path) / ARCHIVE).read_bytes())

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            served.requests.append(self.command)
            time.sleep(served.hang)
            self.send_response(200)
            self.send_header("Content-Length", str(len(served.content)))
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(served.content[: served.cut])

        def log_message(self, *args: object) -> None:
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, args=(0.05,), daemon=True).start()
    served.url = f"http://127.0.0.1:{httpd.server_port}/{ARCHIVE}"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for name, value in {**small_cifar100, "url": served.url}.items():
        monkeypatch.setattr(torchvision.datasets.CIFAR100, name, value)
    yield served
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def offline(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens where the archive should be."""
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "url", "http://127.0.0.1:1/" + ARCHIVE)


def official(tmp_path: Path) -> Path:
    return tmp_path / "official"


def unpickled(path: Path, marker: Path) -> None:
    """Replace a file by a pickle that leaves a mark when it is loaded."""

    class Mark:
        def __reduce__(self) -> tuple[object, ...]:
            return (os.mkdir, (str(marker),))

    path.write_bytes(pickle.dumps(Mark()))


@pytest.fixture
def little_space() -> Iterator[None]:
    """No file grows beyond 1000 bytes: to the writer it is as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_cifar100_is_downloaded_once_and_read_as_torchvision_reads_it(
    server: Server, tmp_path: Path, data_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    dataset = datasets.load("cifar100")
    assert datasets.load("cifar100").sha256 == dataset.sha256
    assert server.requests == ["GET"]
    assert (dataset.name, dataset.synthetic, dataset.subset) == ("cifar100", False, False)
    assert dataset.classes == tuple(f"class{i}" for i in range(100))
    expected = torchvision.datasets.CIFAR100(official(tmp_path), train=False)
    assert (dataset.test.images.permute(0, 2, 3, 1).numpy() == expected.data).all()
    assert dataset.test.labels.tolist() == expected.targets
    assert dataset.train.images.is_contiguous()
    out, err = capfd.readouterr()
    assert out == ""
    assert err == f"Downloading {server.url} to {data_folder}\n"  # no bar, no control characters in a pipe


def test_cifar10_is_read_with_its_ten_classes(monkeypatch: pytest.MonkeyPatch, data_folder: Path) -> None:
    source = torchvision.datasets.CIFAR10
    folder = data_folder / source.base_folder
    folder.mkdir(parents=True)

    def write(name: str, content: object) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5(pickle.dumps(content)).hexdigest()

    names = [f"data_batch_{i}" for i in range(1, 6)]
    batches = {n: {"data": np.full((10, 3072), i, np.uint8), "labels": list(range(10))} for i, n in enumerate(names)}
    test = {"data": np.zeros((10, 3072), np.uint8), "labels": list(range(10))}
    monkeypatch.setattr(source, "train_list", [[n, write(n, b)] for n, b in batches.items()])
    monkeypatch.setattr(source, "test_list", [["test_batch", write("test_batch", test)]])
    meta = write("batches.meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(source, "meta", {**source.meta, "md5": meta})
    dataset = datasets.load("cifar10", train_images=30)
    assert (dataset.name, len(dataset.train), len(dataset.test), dataset.subset) == ("cifar10", 30, 10, True)
    assert dataset.classes == tuple("abcdefghij")


@pytest.mark.usefixtures("offline")
def test_the_archive_placed_by_hand_is_enough(tmp_path: Path, data_folder: Path) -> None:
    data_folder.mkdir()
    shutil.copy(official(tmp_path) / ARCHIVE, data_folder)
    assert len(datasets.load("cifar100").train) == 200
    assert [p.name for p in data_folder.iterdir()] == [ARCHIVE]  # it is read in memory


@pytest.mark.usefixtures("offline", "permissions_hold")
@pytest.mark.parametrize("spec", ["cifar100", "auto"])
def test_the_archive_is_read_in_a_data_folder_that_cannot_be_written(
    tmp_path: Path, data_folder: Path, spec: str, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(official(tmp_path) / FOLDER, data_folder / FOLDER)
    expected = datasets.load("cifar100")
    shutil.rmtree(data_folder / FOLDER)
    shutil.copy(official(tmp_path) / ARCHIVE, data_folder)
    data_folder.chmod(0o555)
    with pytest.raises(PermissionError):
        (data_folder / "x").touch()
    dataset = datasets.load(spec)
    assert (dataset.name, dataset.sha256, dataset.classes) == ("cifar100", expected.sha256, expected.classes)
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("permissions_hold")
@pytest.mark.parametrize("spec", ["cifar100", "cifar10", "auto"])
def test_a_data_folder_that_cannot_be_read_is_named(server: Server, data_folder: Path, spec: str) -> None:
    """`auto` too: what it cannot see may be the official files."""
    data_folder.mkdir()
    data_folder.chmod(0)
    with pytest.raises(
        UserError,
        match=rf"Cannot read {re.escape(str(data_folder))}/.*: Permission denied; make it readable, or name another "
        r"data folder in RESNET_BENCH_DATA\.$",
    ):
        datasets.load(spec)
    data_folder.chmod(0o755)
    assert server.requests == []


@pytest.mark.usefixtures("permissions_hold")
@pytest.mark.parametrize("name", [ARCHIVE, f"{FOLDER}/test", FOLDER])
def test_an_official_file_that_cannot_be_read_is_named(
    server: Server, tmp_path: Path, data_folder: Path, name: str
) -> None:
    shutil.copytree(official(tmp_path), data_folder)
    if name == ARCHIVE:
        shutil.rmtree(data_folder / FOLDER)
    (data_folder / name).chmod(0)
    for spec in ("cifar100", "auto"):
        with pytest.raises(UserError, match=rf"Cannot read {re.escape(str(data_folder / name))}.*: Permission denied;"):
            datasets.load(spec)
    (data_folder / name).chmod(0o755)
    assert server.requests == []


@pytest.mark.parametrize("name", [ARCHIVE, FOLDER, f"{FOLDER}/train", "."])
def test_a_link_that_leads_nowhere_is_named_and_kept(server: Server, data_folder: Path, name: str) -> None:
    """What it leads to may be on a share that is not mounted."""
    link = data_folder / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to("/nowhere/at/all")
    for spec in ("cifar100", "auto"):
        with pytest.raises(UserError, match=rf"^{re.escape(str(link))} leads nowhere; mount what this link leads to"):
            datasets.load(spec)
    assert link.is_symlink()
    assert server.requests == []


@pytest.mark.usefixtures("offline")
def test_a_folder_in_the_archives_place_is_named(data_folder: Path) -> None:
    (data_folder / ARCHIVE).mkdir(parents=True)
    with pytest.raises(UserError, match=rf"Cannot read {re.escape(str(data_folder / ARCHIVE))}: Is a directory;"):
        datasets.load("cifar100")


@pytest.mark.usefixtures("offline")
def test_the_extracted_folder_placed_by_hand_is_enough(tmp_path: Path, data_folder: Path) -> None:
    shutil.copytree(official(tmp_path) / FOLDER, data_folder / FOLDER)
    assert len(datasets.load("cifar100").train) == 200
    assert [p.name for p in data_folder.iterdir()] == [FOLDER]  # it may be a folder that cannot be written


@pytest.mark.usefixtures("offline")
def test_where_an_extraction_was_cut_off_the_archive_is_read(tmp_path: Path, data_folder: Path) -> None:
    data_folder.mkdir()
    shutil.copy(official(tmp_path) / ARCHIVE, data_folder)
    (data_folder / FOLDER).mkdir()
    shutil.copy(official(tmp_path) / FOLDER / "train", data_folder / FOLDER)
    (data_folder / FOLDER / ".test.x1y2").write_bytes(b"half a file")
    assert len(datasets.load("cifar100").test) == 100


@pytest.mark.usefixtures("offline")
def test_missing_and_not_to_be_fetched_says_what_to_put_where(data_folder: Path) -> None:
    with pytest.raises(UserError) as error:
        datasets.load("cifar100")
    message = str(error.value)
    for part in (
        str(data_folder),
        ARCHIVE,
        f"{FOLDER}/",
        "refused",
        "--dataset synthetic",
        "folder:PATH",
        "no network",
    ):
        assert part in message
    assert not (data_folder / ARCHIVE).exists()


@pytest.mark.parametrize("name", ["train", "test", "meta"])
def test_a_file_of_the_wrong_hash_is_named_kept_and_never_unpickled(
    server: Server, tmp_path: Path, data_folder: Path, name: str
) -> None:
    shutil.copytree(official(tmp_path) / FOLDER, data_folder / FOLDER)
    bad = data_folder / FOLDER / name
    unpickled(bad, tmp_path / "marker")
    content = bad.read_bytes()
    for spec in ("cifar100", "auto"):  # a file the user has is not passed over in silence
        with pytest.raises(UserError, match=rf"{re.escape(str(bad))} is damaged or not the official file .* remove it"):
            datasets.load(spec)
    assert bad.read_bytes() == content
    assert not (tmp_path / "marker").exists()
    assert server.requests == []


@pytest.mark.parametrize("content", [b"", b"no archive"])
def test_an_archive_of_the_wrong_hash_is_named_and_kept(server: Server, data_folder: Path, content: bytes) -> None:
    data_folder.mkdir()
    (data_folder / ARCHIVE).write_bytes(content)
    with pytest.raises(UserError, match=rf"{re.escape(ARCHIVE)} is damaged or not the official file"):
        datasets.load("cifar100")
    assert (data_folder / ARCHIVE).read_bytes() == content
    assert not (data_folder / FOLDER).exists()
    assert server.requests == []


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", [f"{FOLDER}/train", "train"])
def test_an_archive_without_the_official_files_is_named(
    tmp_path: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    data_folder.mkdir()
    with tarfile.open(data_folder / ARCHIVE, "w:gz") as tar:
        tar.add(official(tmp_path) / FOLDER / "test", name)
    digest = hashlib.md5((data_folder / ARCHIVE).read_bytes()).hexdigest()
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "tgz_md5", digest)
    with pytest.raises(UserError, match="holds no official train"):
        datasets.load("cifar100")


def test_a_download_that_breaks_off_leaves_nothing_and_can_be_repeated(server: Server, data_folder: Path) -> None:
    server.cut = len(server.content) // 2
    with pytest.raises(UserError, match="what arrived is incomplete or not the official file"):
        datasets.load("cifar100")
    assert [p.name for p in data_folder.iterdir() if p.suffix != ".lock"] == []
    server.cut = None
    assert len(datasets.load("cifar100").train) == 200


def test_an_interrupted_download_leaves_nothing(
    server: Server, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(progress.Task, "advance", interrupt)
        with pytest.raises(KeyboardInterrupt):
            datasets.load("cifar100")
    assert [p.name for p in data_folder.iterdir() if p.suffix != ".lock"] == []
    assert len(datasets.load("cifar100").train) == 200


def test_what_a_killed_download_left_is_cleared_away_and_never_used(server: Server, data_folder: Path) -> None:
    data_folder.mkdir()
    leftover = data_folder / f".{ARCHIVE}.k1ll3d"
    leftover.write_bytes(server.content[:100])
    assert len(datasets.load("cifar100").train) == 200
    assert not leftover.exists()


def test_two_at_once_download_once(server: Server) -> None:
    server.hang = 0.2
    loaded: list[Dataset] = []
    threads = [threading.Thread(target=lambda: loaded.append(datasets.load("cifar100"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len({dataset.sha256 for dataset in loaded}) == 1
    assert len(loaded) == 3
    assert server.requests == ["GET"]


@pytest.mark.usefixtures("server")
def test_a_data_folder_that_cannot_be_made_is_named(data_folder: Path) -> None:
    data_folder.write_text("a file")
    with pytest.raises(UserError, match=rf"{re.escape(str(data_folder))} .*the folder cannot be written: it is a file"):
        datasets.load("cifar100")


@pytest.mark.usefixtures("permissions_hold")
def test_a_download_into_a_data_folder_that_cannot_be_written_is_not_begun(server: Server, data_folder: Path) -> None:
    data_folder.mkdir(mode=0o555)
    with pytest.raises(
        UserError, match=rf"{re.escape(str(data_folder))} .*the folder cannot be written: Permission denied"
    ):
        datasets.load("cifar100")
    assert server.requests == []


def test_a_lock_file_that_cannot_be_made_is_an_error_only_for_a_download(
    server: Server, tmp_path: Path, data_folder: Path
) -> None:
    (data_folder / f"{FOLDER}.lock").mkdir(parents=True)
    with pytest.raises(UserError, match="the folder cannot be written: Is a directory"):
        datasets.load("cifar100")
    assert server.requests == []
    shutil.copy(official(tmp_path) / ARCHIVE, data_folder)
    assert len(datasets.load("cifar100").train) == 200


def test_a_leftover_that_cannot_be_removed_does_not_stop_a_download(server: Server, data_folder: Path) -> None:
    (data_folder / f".{ARCHIVE}.folder").mkdir(parents=True)
    assert len(datasets.load("cifar100").train) == 200


@pytest.mark.usefixtures("server", "little_space")
def test_a_disk_without_space_for_the_archive_is_named(data_folder: Path) -> None:
    with pytest.raises(UserError) as error:
        datasets.load("cifar100")
    assert f"(Cannot write {data_folder / ARCHIVE}: File too large); put " in str(error.value)
    assert [p.name for p in data_folder.iterdir() if p.suffix != ".lock"] == []


def test_who_waits_for_another_process_that_downloads_is_told_so(
    server: Server, data_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data_folder.mkdir()
    taken = threading.Event()

    def hold() -> None:
        with FileLock(data_folder / f"{FOLDER}.lock"):
            taken.set()
            time.sleep(1.3)

    threading.Thread(target=hold).start()
    assert taken.wait(60)
    assert len(datasets.load("cifar100").train) == 200
    said = re.sub(r"\A(\[\d+:\d\d\] reading the images\n)*", "", capfd.readouterr().err)  # of a busy machine
    assert said.startswith(f"Waiting for another process, which is downloading {ARCHIVE}\n")


@pytest.mark.parametrize("address", ["http:/user:secret@proxy", "http://proxy:secret"])
@pytest.mark.parametrize("spec", ["cifar100", "auto"])
@pytest.mark.usefixtures("server")
def test_a_proxy_without_a_valid_address_is_the_reason_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], address: str, spec: str
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", address)
    monkeypatch.setattr(urllib.request, "_opener", None)  # it keeps the proxies of its first use
    message = ""
    try:
        datasets.load(spec, train_images=100, test_images=100)
    except UserError as error:
        message = str(error)
    message += capfd.readouterr().err
    assert "(a proxy that the environment names has no valid address)" in message
    assert "sec" not in message


# --- auto ---


@pytest.mark.usefixtures("offline")
def test_auto_takes_cifar100_that_is_there(tmp_path: Path, data_folder: Path) -> None:
    shutil.copytree(official(tmp_path) / FOLDER, data_folder / FOLDER)
    assert datasets.load("auto").name == "cifar100"


def test_auto_fetches_cifar100_where_the_server_answers(server: Server) -> None:
    assert datasets.load("auto").name == "cifar100"
    assert server.requests == ["HEAD", "GET"]


def assert_auto_is_synthetic(capfd: pytest.CaptureFixture[str], reason: str) -> None:
    dataset = datasets.load("auto", train_images=100, test_images=100)
    assert (dataset.name, dataset.synthetic) == ("synthetic", True)
    lines = [line for line in capfd.readouterr().err.splitlines() if "SYNTHETIC" in line]
    assert len(lines) == 1
    assert reason in lines[0]


@pytest.mark.usefixtures("offline")
def test_auto_without_network_says_that_it_takes_the_synthetic_set(capfd: pytest.CaptureFixture[str]) -> None:
    assert_auto_is_synthetic(capfd, "refused")


def test_auto_waits_only_a_stated_time_for_an_answer(
    server: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    server.hang = 2
    monkeypatch.setattr(cifar, "ANSWER_SECONDS", 0.1)
    assert_auto_is_synthetic(capfd, "no answer within 0.1 s")
    assert server.requests == ["HEAD"]


def test_auto_gives_a_slow_download_up(
    server: Server, data_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(datasets, "AUTO_DOWNLOAD_SECONDS", 0)
    assert_auto_is_synthetic(capfd, "the download takes longer than 0 s")
    assert not (data_folder / ARCHIVE).exists()


@pytest.mark.usefixtures("server", "little_space")
def test_auto_falls_back_where_the_disk_has_no_space(capfd: pytest.CaptureFixture[str]) -> None:
    assert_auto_is_synthetic(capfd, "File too large")


def test_auto_does_not_wait_long_for_another_process_that_downloads(
    server: Server, data_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(datasets, "AUTO_DOWNLOAD_SECONDS", 0.1)
    data_folder.mkdir()
    with FileLock(data_folder / f"{FOLDER}.lock"):
        assert_auto_is_synthetic(capfd, "another process has been downloading it for more than 0.1 s")
    assert server.requests == []


@pytest.mark.usefixtures("server")
def test_auto_falls_back_where_the_data_folder_cannot_be_written(
    data_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data_folder.write_text("a file")
    assert_auto_is_synthetic(capfd, "the folder cannot be written")
