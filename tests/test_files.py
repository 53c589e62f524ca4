"""What a path names is written, not destroyed: devices, pipes, links, mounted files."""

import contextlib
import errno
import os
import shutil
import stat
import subprocess
import sys
import threading

import pytest

from resnet_bench import files
from resnet_bench.errors import UserError


def write(path, text="new"):
    with files.atomic_write(path) as file:
        file.write(text)


@pytest.fixture
def device(tmp_path):
    """A device like `/dev/null`, of this test alone."""
    try:
        os.mknod(tmp_path / "null", stat.S_IFCHR | 0o666, os.stat("/dev/null").st_rdev)
        (tmp_path / "null").write_text("")
    except (OSError, AttributeError) as error:
        pytest.skip(f"no device can be made here: {error}")
    return tmp_path / "null"


def test_a_file_is_replaced_only_when_complete(tmp_path):
    """An error while writing leaves the old file, and no temporary file beside it."""
    path = tmp_path / "a.json"
    path.write_text("old")
    with contextlib.suppress(RuntimeError), files.atomic_write(path) as file:
        file.write("new")
        raise RuntimeError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]
    write(path)
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.json"]


def test_full_disk(tmp_path, monkeypatch):
    """One sentence, and the old file is still there."""
    path = tmp_path / "a.json"
    path.write_text("old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(UserError, match=r"Cannot write .*a\.json: No space left on device"):
        files.write_json(path, {"a": 1})
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_unwritable_folder(tmp_path):
    with pytest.raises(UserError, match=r"Cannot write .*No such file or directory"):
        files.write_json(tmp_path / "gone" / "a.json", {})


def test_a_device_stays_a_device(device):
    files.require_writable(device, "--output")
    write(device)
    assert stat.S_ISCHR(device.stat().st_mode)
    assert os.listdir(device.parent) == ["null"]


def test_a_link_to_a_device_stays_a_link(device):
    link = device.parent / "link"
    link.symlink_to(device)
    files.require_writable(link, "--output")
    write(link)
    assert link.readlink() == device
    assert stat.S_ISCHR(link.stat().st_mode)


def test_a_terminal_is_written(tmp_path):
    ours, theirs = os.openpty()
    link = tmp_path / "terminal"
    link.symlink_to(os.ttyname(theirs))
    files.require_writable(link, "--output")
    write(link, "to the terminal")
    assert os.read(ours, 100) == b"to the terminal"
    assert link.is_symlink()


def test_a_pipe_gets_what_is_written(tmp_path):
    """The check before does not open it: its reader would see the end of the file."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    received = []
    reader = threading.Thread(target=lambda: received.append(path.read_text()))
    reader.start()
    files.require_writable(path, "--output")
    write(path, "through the pipe")
    reader.join(timeout=10)
    assert received == ["through the pipe"]
    assert path.is_fifo()


def test_a_link_is_followed_and_its_target_replaced(tmp_path):
    """Also a link to a link, and one whose target is not there yet."""
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "a.json", tmp_path / "link"
    (tmp_path / "second").symlink_to("there/a.json")
    link.symlink_to("second")
    for text in ("first", "again"):
        files.require_writable(link, "--output")
        write(link, text)
        assert target.read_text() == text
        assert link.is_symlink()
        assert os.listdir(tmp_path / "there") == ["a.json"]


def test_a_link_into_a_missing_folder_is_one_sentence(tmp_path):
    """As where a share is not mounted: the link stays, and nothing is made in its place."""
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "share" / "a.json")
    with pytest.raises(UserError, match=rf"no folder {tmp_path}/share to write a\.json to; .* another --output"):
        files.require_writable(link, "--output")
    with pytest.raises(UserError, match=rf"Cannot write {link} \(a link to {tmp_path}/share/a\.json\): No such"):
        write(link)
    assert os.listdir(tmp_path) == ["link"]


def test_a_loop_of_links_is_one_sentence(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(UserError, match="Too many levels of symbolic links; give another --output"):
        files.require_writable(tmp_path / "a", "--output")
    with pytest.raises(UserError, match="Too many levels of symbolic links"):
        write(tmp_path / "a")


def test_a_socket_and_a_folder_are_refused_before(tmp_path, monkeypatch):
    socket = pytest.importorskip("socket")
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        for name, reason in (("socket", "No such device or address"), (".", "Is a directory")):
            with pytest.raises(UserError, match=f"Cannot write .*: {reason}; give another --output"):
                files.require_writable(name, "--output")


def test_permissions_are_kept(tmp_path):
    """A private file stays private; a new one gets what the user's mask leaves."""
    path = tmp_path / "a.json"
    write(path)
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    path.chmod(0o600)
    write(path, "again")
    assert path.read_text() == "again"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_name_as_long_as_the_file_system_takes(tmp_path):
    path = tmp_path / ("ä" * 125 + ".json")
    files.require_writable(path, "--output")
    write(path)
    assert path.read_text() == "new"


def test_a_name_that_is_too_long_is_one_sentence(tmp_path):
    """Also of a folder, and of a file in it."""
    for name in ("x" * 300, f"{'x' * 300}/a.json"):
        for function in (files.require_writable, files.make_folder):
            with pytest.raises(UserError, match=r"^Cannot .*: File name too long; give another --output\.$"):
                function(tmp_path / name, "--output")
        with pytest.raises(UserError, match=r"^Cannot write .*: File name too long;"):
            write(tmp_path / name)


def test_a_write_protected_file_is_not_replaced(tmp_path, monkeypatch):
    """Though its folder could be written."""
    path = tmp_path / "a.json"
    path.write_text("old")
    path.chmod(0o444)
    if os.access(path, os.W_OK):  # root may write everything
        monkeypatch.setattr(files.os, "access", lambda p, mode: not (mode & os.W_OK and p == path))
    with pytest.raises(UserError, match="Permission denied; give another --output"):
        files.require_writable(path, "--output")
    with pytest.raises(UserError, match="Permission denied"):
        write(path)
    assert path.read_text() == "old"


def python(code, *arguments, **options):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], stderr=subprocess.PIPE, text=True, timeout=60, **options
    )


PRINTS_AND_WRITES = """
import sys
from resnet_bench import files
print("before", end=" ")
files.require_writable(sys.argv[1], "--output")
with files.atomic_write(sys.argv[1]) as file:
    file.write("written ")
print("after")
"""


@pytest.mark.skipif(not os.path.exists("/dev/fd/1"), reason="needs /dev/fd")
@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
def test_the_output_in_a_file_is_gone_on_with(tmp_path, name):
    """`command --output /dev/stdout > FILE`: the file has what was printed before and after; nothing is replaced."""
    if name == "link":
        (tmp_path / "link").symlink_to("/dev/stdout")
    elif not os.path.exists(name):
        pytest.skip(f"needs {name}")
    with open(tmp_path / "out", "w") as out:
        done = python(PRINTS_AND_WRITES, tmp_path / name, stdout=out)  # an absolute name stays as it is
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out").read_text() == "before written after\n"
    assert (tmp_path / "link").is_symlink() == (name == "link")


@pytest.mark.skipif(not os.path.exists("/dev/fd/1"), reason="needs /dev/fd")
def test_a_descriptor_that_is_not_open_is_refused_before(tmp_path):
    done = python(PRINTS_AND_WRITES, "/dev/fd/99", stdout=subprocess.DEVNULL)
    assert "Cannot write /dev/fd/99: Bad file descriptor; give another --output." in done.stderr


def test_a_mounted_file_is_written_in_place(tmp_path):
    """As containers have them: it cannot be replaced, which only the last step of writing would find out."""
    (tmp_path / "inside.json").write_text("old")
    (tmp_path / "outside.json").write_text("old")
    script = 'mount --bind outside.json inside.json && exec "$@"'
    code = "from resnet_bench import files\nwith files.atomic_write('inside.json') as file: file.write('new')"
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("no mount namespace can be made here")
    command = ["unshare", "-m", "sh", "-c", script, "sh", sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "outside.json").read_text() == "new"
    assert (tmp_path / "inside.json").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["inside.json", "outside.json"]


def test_a_folder_behind_a_link_that_leads_nowhere_is_one_sentence(tmp_path):
    """It is not made in the place of a share that is not mounted."""
    (tmp_path / "runs").symlink_to(tmp_path / "share")
    for folder in (tmp_path / "runs", tmp_path / "runs" / "today"):
        with pytest.raises(UserError, match=rf"/runs is a link to {tmp_path}/share, which is not there; give"):
            files.make_folder(folder, "--checkpoint")
    assert os.listdir(tmp_path) == ["runs"]
    (tmp_path / "share").mkdir()
    files.make_folder(tmp_path / "runs" / "today", "--checkpoint")
    assert os.listdir(tmp_path / "share") == ["today"]
