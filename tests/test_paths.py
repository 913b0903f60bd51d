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


def test_everybody_may_read_it_and_a_link_stays(tmp_path):
    write_bytes(tmp_path / "file", b"1")
    (tmp_path / "link").symlink_to("file")
    write_bytes(tmp_path / "link", b"2")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_bytes() == b"2"
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644 or os.name == "nt"


def test_a_package_that_is_not_there_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.delitem(sys.modules, "safetensors.torch", raising=False)
    with pytest.raises(ImportError, match=r'^This needs safetensors.*pip install "cmxlib\[files\]"\.$'):
        need("safetensors.torch", "files")


ALONE = """
import sys
for name in ("pandas", "safetensors", "tqdm", "torchvision", "matplotlib", "PIL", "scipy", "seaborn", "sklearn"):
    sys.modules[name] = None
import torch
from cmxlib import ConvMixer, accuracy, encrypt_model, decrypt_model, fit, key_trials, load_dataset, logits
from cmxlib import PatchCipher, SecretKey
from cmxlib.learn.data import Dataset, channel_statistics
from cmxlib.learn.evaluate import right_key_rows, wrong_key_accuracy
from cmxlib.learn.train import TrainSettings

images = torch.randint(0, 256, (8, 3, 8, 8), dtype=torch.uint8)
labels = torch.arange(8) % 2
data = Dataset("own", images, labels, images, labels, ("a", "b"), *channel_statistics(images))
norm = {"mean": data.mean, "std": data.std}
model = ConvMixer(8, 1, 3, 2, num_classes=2)
cipher = PatchCipher(SecretKey.generate(), 2)
locked = encrypt_model(model, cipher, **norm)
assert torch.allclose(logits(model, images, **norm), logits(locked, cipher.encrypt(images), **norm), atol=1e-4)
assert 0 <= accuracy(model, images, labels, **norm) <= 1
assert len(right_key_rows(model, data, {"patch_size": 2})) == 4
wrong_key_accuracy(model, data, {"patch_size": 2}, 1)
for call in (
    lambda: fit(model, data, TrainSettings(1, 4)),
    lambda: key_trials(model, data, {"patch_size": 2}),
    lambda: load_dataset("fontdigits"),
    lambda: load_dataset("cifar10"),
):
    try:
        call()
    except ImportError as error:
        print(error)
"""


def test_the_core_stands_alone(tmp_path):
    found = subprocess.run(
        [sys.executable, "-c", ALONE],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "CMX_CACHE": str(tmp_path), "CMX_DATA": ""},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    said = found.stdout.splitlines()
    assert [line.split()[2].strip(",") for line in said] == ["pandas", "pandas", "matplotlib", "safetensors"]
    assert all(line.endswith(('"cmxlib[book]".', '"cmxlib[files]".')) for line in said)
