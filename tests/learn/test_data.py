import hashlib
import os
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from cmxlib.learn import cifar10, data, fontdigits
from cmxlib.learn.cifar10 import DatasetError
from cmxlib.learn.data import load_dataset
from cmxlib.paths import cache_dir

REAL = os.environ.get("CMX_DATA")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache of the test's own, and no data set named from outside."""
    monkeypatch.setenv("CMX_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CMX_DATA", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A tiny data set in CIFAR-10's format, whose sums pass as official: the folder that holds both forms of it."""
    root = tmp_path / "copy"
    (root / cifar10.FOLDER).mkdir(parents=True)
    rng = np.random.default_rng(0)
    sums = {}
    for number, name in enumerate(cifar10.FILES):
        content = {b"data": rng.integers(256, size=(3, 3072), dtype=np.uint8), b"labels": [number, 8, 9]}
        if name == "batches.meta":
            content = {b"label_names": [f"class {i}".encode() for i in range(10)]}
        (root / cifar10.FOLDER / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((root / cifar10.FOLDER / name).read_bytes()).hexdigest()
    with tarfile.open(root / cifar10.TAR, "w:gz") as tar:
        tar.add(root / cifar10.FOLDER, cifar10.FOLDER)
    sums[cifar10.TAR] = hashlib.md5((root / cifar10.TAR).read_bytes()).hexdigest()
    monkeypatch.setattr(cifar10, "MD5", sums)
    return root


@pytest.fixture
def no_network(monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", fail)


def same(a, b):
    tensors = ("train_images", "train_labels", "test_images", "test_labels")
    return all(torch.equal(getattr(a, t), getattr(b, t)) for t in tensors) and repr(a) == repr(b)


def flip_a_byte(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def count_decodes(monkeypatch):
    calls, decode = [], cifar10.decode
    monkeypatch.setattr(cifar10, "decode", lambda content: calls.append(1) or decode(content))
    return calls


def test_the_sums_are_those_of_torchvision():
    from torchvision.datasets import CIFAR10

    known = dict(CIFAR10.train_list + CIFAR10.test_list)
    known |= {CIFAR10.meta["filename"]: CIFAR10.meta["md5"], CIFAR10.filename: CIFAR10.tgz_md5}
    assert known == cifar10.MD5


def test_images_labels_and_statistics_are_the_files(copy):
    loaded = load_dataset("cifar10", copy)
    batches = [pickle.loads((copy / cifar10.FOLDER / name).read_bytes()) for name in cifar10.FILES[:6]]
    train = np.concatenate([b[b"data"] for b in batches[:5]]).reshape(-1, 3, 32, 32)
    assert loaded.train_images.dtype == torch.uint8 and loaded.train_labels.dtype == torch.int64
    assert np.array_equal(loaded.train_images, train)
    assert np.array_equal(loaded.test_images, batches[5][b"data"].reshape(-1, 3, 32, 32))
    assert loaded.train_labels.tolist() == [v for i in range(5) for v in (i, 8, 9)]
    assert loaded.test_labels.tolist() == [5, 8, 9]
    assert loaded.classes == tuple(f"class {i}" for i in range(10))
    assert loaded.mean == pytest.approx((train / 255).mean((0, 2, 3)))
    assert loaded.std == pytest.approx((train / 255).std((0, 2, 3)))


def test_every_form_of_a_copy_gives_the_same(copy, tmp_path, monkeypatch, cache):
    first = load_dataset("cifar10", copy)
    assert same(first, load_dataset("cifar10", copy / cifar10.FOLDER))
    monkeypatch.setenv("CMX_DATA", str(copy))
    assert same(first, load_dataset("cifar10"))
    (tmp_path / "tar").mkdir()
    shutil.copy(copy / cifar10.TAR, tmp_path / "tar")
    shutil.rmtree(cache)
    assert same(first, load_dataset("cifar10", tmp_path / "tar"))


def test_root_goes_before_the_environment(copy, tmp_path, monkeypatch):
    monkeypatch.setenv("CMX_DATA", str(tmp_path / "nowhere"))
    load_dataset("cifar10", copy)
    with pytest.raises(DatasetError, match="nowhere"):
        load_dataset("cifar10")


def test_a_second_load_neither_sums_nor_unpickles(copy, monkeypatch, no_network):
    first = load_dataset("cifar10", copy)
    monkeypatch.setattr(cifar10, "read_checked", None)
    assert same(first, load_dataset("cifar10", copy))
    assert same(first, load_dataset("cifar10"))  # no folder named: the cache itself is a source


def test_a_bad_root_is_an_error_although_a_cache_exists(copy):
    load_dataset("cifar10", copy)
    flip_a_byte(copy / cifar10.FOLDER / "data_batch_2", 100)  # the size stays
    with pytest.raises(DatasetError, match=r"data_batch_2 .*damaged.*CMX_DATA"):
        load_dataset("cifar10", copy)


def test_missing_files_are_named(copy):
    load_dataset("cifar10", copy)
    for name in ("data_batch_4", "batches.meta"):
        (copy / cifar10.FOLDER / name).unlink()
    with pytest.raises(DatasetError, match=r"lacks data_batch_4, batches.meta\. .*CMX_DATA.*fontdigits"):
        load_dataset("cifar10", copy)


@pytest.mark.parametrize("form", ["a folder of something else", "no folder"])
def test_a_root_without_cifar10(tmp_path, form):
    root = tmp_path if form == "a folder of something else" else tmp_path / "absent"
    with pytest.raises(DatasetError, match=r"(neither|no such folder).*root=.*CMX_DATA"):
        load_dataset("cifar10", root)


@pytest.mark.parametrize("name", ["data_batch_1", "test_batch", "batches.meta", cifar10.TAR])
def test_a_truncated_file_is_damaged(copy, name):
    if name == cifar10.TAR:
        shutil.rmtree(copy / cifar10.FOLDER)
    path = copy / name if name == cifar10.TAR else copy / cifar10.FOLDER / name
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DatasetError, match=rf"{name} \(50 bytes\) is damaged or incomplete"):
        load_dataset("cifar10", copy)


class Trap:
    def __reduce__(self):
        return os.mkdir, (str(cache_dir() / "sprung"),)


def test_nothing_is_unpickled_before_its_sum_is_right(copy, cache):
    path = copy / cifar10.FOLDER / "test_batch"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(DatasetError):
        load_dataset("cifar10", copy)
    assert not (cache / "sprung").exists()


def test_damage_anywhere_in_the_cache_is_mended_silently(copy, cache, monkeypatch, recwarn, capsys):
    first = load_dataset("cifar10", copy)
    path = cache / "cifar10.safetensors"
    whole = path.read_bytes()
    calls = count_decodes(monkeypatch)
    damaged = [whole[:1000], whole[:-1], b"", b"\xff" * 2000]
    for at in (0, 5, 30, whole.index(b"class 3"), whole.index(b"shape") + 8, len(whole) // 2, len(whole) - 1):
        damaged.append(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    for number, content in enumerate(damaged, 1):
        path.write_bytes(content)
        assert same(first, load_dataset("cifar10", copy))
        assert len(calls) == number
        assert same(first, load_dataset("cifar10", copy)) and len(calls) == number  # it is whole again
    assert not recwarn.list and capsys.readouterr() == ("", "")


def test_a_damaged_cache_without_a_source_says_so_and_leaves_nothing(copy, cache, no_network):
    load_dataset("cifar10", copy)
    flip_a_byte(cache / "cifar10.safetensors", -1)
    with pytest.raises(DatasetError, match=r"download of CIFAR-10 failed \(no network\).*CMX_DATA.*fontdigits"):
        load_dataset("cifar10")
    assert [p.name for p in cache.iterdir()] == ["cifar10.safetensors"]


def test_the_download_is_announced_checked_and_kept(copy, cache, monkeypatch, capsys):
    def fetch(url, root, filename, md5):
        assert md5 == cifar10.MD5[cifar10.TAR]
        shutil.copy(copy / cifar10.TAR, Path(root) / filename)

    monkeypatch.setattr("torchvision.datasets.utils.download_url", fetch)
    first = load_dataset("cifar10")
    message = capsys.readouterr().out
    assert "throttled" in message and "CMX_DATA" in message
    assert sorted(p.name for p in cache.iterdir()) == [cifar10.TAR, "cifar10.safetensors"]

    (cache / "cifar10.safetensors").unlink()  # the tar is there: no second download
    assert same(first, load_dataset("cifar10")) and capsys.readouterr().out == ""

    (cache / "cifar10.safetensors").unlink()
    flip_a_byte(cache / cifar10.TAR, -1)  # the tar is damaged: it is fetched anew
    assert same(first, load_dataset("cifar10")) and "Downloading" in capsys.readouterr().out


def test_a_download_cut_short_by_hand_leaves_nothing(cache, monkeypatch):
    def interrupt(url, root, filename, md5):
        (Path(root) / filename).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("torchvision.datasets.utils.download_url", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load_dataset("cifar10")
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_only_warns(copy, cache, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(data, "save_file", full)
    with pytest.warns(UserWarning, match="could not be kept"):
        load_dataset("cifar10", copy)
    assert list(cache.iterdir()) == []


def test_a_cache_folder_that_cannot_be_made_names_the_way_out(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CMX_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DatasetError, match="CMX_CACHE"):
        cache_dir()


@pytest.mark.parametrize(
    ("platform", "variable", "expected"),
    [
        ("linux", None, "home/.cache/cmxlib"),
        ("linux", "XDG_CACHE_HOME", "xdg/cmxlib"),
        ("darwin", None, "home/Library/Caches/cmxlib"),
        ("win32", "LOCALAPPDATA", "xdg/cmxlib"),
    ],
)
def test_the_cache_folder_is_the_usual_one(tmp_path, monkeypatch, platform, variable, expected):
    for name in ("CMX_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, str(tmp_path / "xdg"))
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    monkeypatch.setattr("sys.platform", platform)
    assert cache_dir() == tmp_path / expected and cache_dir().is_dir()


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match='"cifar10" or "fontdigits"'):
        load_dataset("mnist")


def test_fontdigits_are_drawn_once_and_again_after_a_change(monkeypatch):
    calls, draw = [], fontdigits.draw_fontdigits
    monkeypatch.setattr(fontdigits, "draw_fontdigits", lambda: calls.append(1) or draw(20, 10))
    first = load_dataset("fontdigits")
    assert first.classes == tuple("0123456789") and first.train_images.shape == (20, 3, 32, 32)
    assert same(first, load_dataset("fontdigits")) and len(calls) == 1
    monkeypatch.setattr(data, "version", lambda package: "another")
    assert same(first, load_dataset("fontdigits")) and len(calls) == 2


@pytest.mark.skipif(REAL is None, reason="needs CIFAR-10: set CMX_DATA")
def test_the_real_cifar10():
    first = load_dataset("cifar10", REAL)
    assert same(first, load_dataset("cifar10", REAL))
    assert first.train_images.shape == (50000, 3, 32, 32) and first.test_images.shape == (10000, 3, 32, 32)
    assert torch.equal(first.train_labels.bincount(), torch.full((10,), 5000))
    assert torch.equal(first.test_labels.bincount(), torch.full((10,), 1000))
    assert first.classes[0] == "airplane" and first.classes[-1] == "truck"
    # The usual constants of CIFAR-10, over the pixels of the training images.
    assert first.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=5e-5)
    assert first.std == pytest.approx((0.2470, 0.2435, 0.2616), abs=5e-5)
