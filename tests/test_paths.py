import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cmxlib import paths
from cmxlib.paths import need, replacing, write_bytes

WRITER = """
import sys, time
from cmxlib.paths import replacing
with replacing(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    print("half", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path):
    """A process in the middle of writing the file `big`."""
    command = [sys.executable, "-c", WRITER, str(tmp_path / "big")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1])
    assert process.stdout.readline() == b"half\n"
    yield process
    process.kill()
    process.wait()


def test_what_a_killed_writer_left_is_swept_by_the_next_write(tmp_path, writer):
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert len(list(tmp_path.iterdir())) == 1  # the half
    (tmp_path / ".mine.tmp").write_text("not ours")
    write_bytes(tmp_path / "other", b"whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".mine.tmp", "other"]


def test_what_a_live_writer_writes_is_left_alone(tmp_path, writer):
    write_bytes(tmp_path / "other", b"whole")
    assert len(list(tmp_path.glob(".big.*"))) == 1


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, error):
    write_bytes(tmp_path / "file", b"old")
    with pytest.raises(type(error)), replacing(tmp_path / "file") as file:
        file.write(b"new")
        raise error
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"file": b"old"}


@pytest.mark.parametrize("links", [True, False], ids=["links", "a file system without links"])
def test_what_another_wrote_meanwhile_stays_where_nothing_may_be_replaced(tmp_path, monkeypatch, links):
    def refused(*names):
        raise PermissionError(1, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", refused)
    write_bytes(tmp_path / "new", b"new", over=False)
    with pytest.raises(FileExistsError, match="exists already"), replacing(tmp_path / "file", over=False) as file:
        file.write(b"mine")
        write_bytes(tmp_path / "file", b"another's", over=False)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"file": b"another's", "new": b"new"}


def test_what_cannot_be_written_is_named_and_no_temporary_file(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, replacing(tmp_path / "none" / "file", one_of_many=True):
        pass
    assert caught.value.filename == str(tmp_path / "none" / "file")


def test_a_file_swept_before_it_was_locked_is_made_anew(tmp_path, monkeypatch):
    """Between making a file and locking it another writer may take it for a dead one's."""
    flock, swept = paths.fcntl.flock, []

    def late(handle, how):
        if not swept:
            swept.extend(tmp_path.glob("*") or tmp_path.glob(".*"))
            swept[0].unlink()
        flock(handle, how)

    monkeypatch.setattr(paths.fcntl, "flock", late)
    write_bytes(tmp_path / "file", b"whole")
    assert swept and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_everybody_may_read_it_and_what_a_link_points_to_stays(tmp_path):
    write_bytes(tmp_path / "file", b"1")
    (tmp_path / "link").symlink_to("file")
    write_bytes(tmp_path / "link", b"2")
    assert not (tmp_path / "link").is_symlink() and (tmp_path / "file").read_bytes() == b"1"
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644 or os.name == "nt"


def test_a_package_that_is_not_there_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.delitem(sys.modules, "safetensors.torch", raising=False)
    with pytest.raises(ImportError, match=r'^This needs safetensors.*pip install "cmxlib\[files\]"\.$'):
        need("safetensors.torch", "files")
