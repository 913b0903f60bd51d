import dataclasses
import hashlib
import http.server
import os
import pickle
import shutil
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from cmxlib.learn import cifar10, data, fontdigits
from cmxlib.learn.cifar10 import DatasetError
from cmxlib.learn.data import Dataset, channel_statistics, load_dataset
from cmxlib.paths import cache_dir

REAL = os.environ.get("CMX_DATA")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache of the test's own, and no data set named from outside."""
    monkeypatch.setenv("CMX_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CMX_DATA", raising=False)
    return tmp_path / "cache"


def official(root, which, n_classes):
    """A tiny data set in the format of one of the CIFARs, in both its forms, and what makes its sums pass as right."""
    (root / which.folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, name in enumerate(which.files):
        content = {b"data": rng.integers(256, size=(3, 3072), dtype=np.uint8), which.labels: [number, 8, 9]}
        if name == which.meta:
            content = {which.names: [f"class {i}".encode() for i in range(n_classes)]}
        (root / which.folder / name).write_bytes(pickle.dumps(content))
    with tarfile.open(root / which.tar, "w:gz") as tar:
        tar.add(root / which.folder, which.folder)
    files = [root / which.tar, *(root / which.folder).iterdir()]
    return dataclasses.replace(which, md5={f.name: hashlib.md5(f.read_bytes()).hexdigest() for f in files})


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """The folder that holds a tiny copy of CIFAR-10."""
    monkeypatch.setattr(cifar10, "CIFAR10", official(tmp_path / "copy", cifar10.CIFAR10, 10))
    return tmp_path / "copy"


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """A place to download from where nothing is."""
    ask_at(monkeypatch, (tmp_path / "nowhere").as_uri())


def ask_at(monkeypatch, *urls):
    monkeypatch.setattr(cifar10, "CIFAR10", dataclasses.replace(cifar10.CIFAR10, urls=urls))


def same(a, b):
    tensors = ("train_images", "train_labels", "test_images", "test_labels")
    return all(torch.equal(getattr(a, t), getattr(b, t)) for t in tensors) and repr(a) == repr(b)


def flip_a_byte(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def count_decodes(monkeypatch):
    calls, decode = [], cifar10.decode
    monkeypatch.setattr(cifar10, "decode", lambda *args: calls.append(1) or decode(*args))
    return calls


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100"])
def test_names_and_sums_are_those_of_torchvision(name):
    theirs, ours = getattr(torchvision.datasets, name), getattr(cifar10, name)
    known = dict(theirs.train_list + theirs.test_list)
    known |= {theirs.meta["filename"]: theirs.meta["md5"], theirs.filename: theirs.tgz_md5}
    assert known == ours.md5 and theirs.url in ours.urls
    assert (theirs.base_folder, theirs.filename, theirs.meta["key"]) == (ours.folder, ours.tar, ours.names.decode())


def test_cifar100_is_read_by_its_finer_classes(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "CIFAR100", official(tmp_path, cifar10.CIFAR100, 100))
    loaded = load_dataset("cifar100", tmp_path)
    assert loaded.name == "cifar100" and len(loaded.classes) == 100
    assert loaded.train_labels.tolist() == [0, 8, 9] and loaded.test_labels.tolist() == [1, 8, 9]
    assert same(loaded, load_dataset("cifar100"))  # from the cache, which is its own
    path = tmp_path / "cifar-100-python" / "test"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(DatasetError, match=r"test .*MD5 sum is wrong.*cifar-100-python"):
        load_dataset("cifar100", tmp_path)
    assert not (cache_dir() / "sprung").exists()


def test_images_labels_and_statistics_are_the_files(copy):
    loaded = load_dataset("cifar10", copy)
    batches = [pickle.loads((copy / cifar10.CIFAR10.folder / name).read_bytes()) for name in cifar10.CIFAR10.files[:6]]
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
    assert same(first, load_dataset("cifar10", copy / cifar10.CIFAR10.folder))
    monkeypatch.setenv("CMX_DATA", str(copy))
    assert same(first, load_dataset("cifar10"))
    (tmp_path / "tar").mkdir()
    shutil.copy(copy / cifar10.CIFAR10.tar, tmp_path / "tar")
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
    flip_a_byte(copy / cifar10.CIFAR10.folder / "data_batch_2", 100)  # the size stays
    with pytest.raises(DatasetError, match=r"data_batch_2 .*damaged.*CMX_DATA"):
        load_dataset("cifar10", copy)


def test_missing_files_are_named(copy):
    load_dataset("cifar10", copy)
    for name in ("data_batch_4", "batches.meta"):
        (copy / cifar10.CIFAR10.folder / name).unlink()
    with pytest.raises(DatasetError, match=r"lacks data_batch_4, batches.meta\. .*CMX_DATA.*fontdigits"):
        load_dataset("cifar10", copy)


@pytest.mark.parametrize("form", ["a folder of something else", "no folder"])
def test_a_root_without_cifar10(tmp_path, form):
    root = tmp_path if form == "a folder of something else" else tmp_path / "absent"
    with pytest.raises(DatasetError, match=r"(neither|no such folder).*root=.*CMX_DATA"):
        load_dataset("cifar10", root)


@pytest.mark.parametrize("name", ["data_batch_1", "test_batch", "batches.meta", cifar10.CIFAR10.tar])
def test_a_truncated_file_is_damaged(copy, name):
    if name == cifar10.CIFAR10.tar:
        shutil.rmtree(copy / cifar10.CIFAR10.folder)
    path = copy / name if name == cifar10.CIFAR10.tar else copy / cifar10.CIFAR10.folder / name
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DatasetError, match=rf"{name} \(50 bytes\) is damaged or incomplete"):
        load_dataset("cifar10", copy)


class Trap:
    def __reduce__(self):
        return os.mkdir, (str(cache_dir() / "sprung"),)


def test_nothing_is_unpickled_before_its_sum_is_right(copy, cache):
    path = copy / cifar10.CIFAR10.folder / "test_batch"
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
    with pytest.raises(DatasetError, match=r"download of CIFAR-10 failed \(.*No such file.*\).*CMX_DATA.*fontdigits"):
        load_dataset("cifar10")
    assert [p.name for p in cache.iterdir()] == ["cifar10.safetensors"]


def test_the_download_is_announced_checked_and_kept(copy, cache, monkeypatch, capsys):
    ask_at(monkeypatch, (copy / cifar10.CIFAR10.tar).as_uri())
    first = load_dataset("cifar10")
    message = capsys.readouterr().out
    assert "throttled" in message and "CMX_DATA" in message
    assert sorted(p.name for p in cache.iterdir()) == [cifar10.CIFAR10.tar, "cifar10.safetensors"]

    (cache / "cifar10.safetensors").unlink()  # the tar is there: no second download
    assert same(first, load_dataset("cifar10")) and capsys.readouterr().out == ""

    (cache / "cifar10.safetensors").unlink()
    flip_a_byte(cache / cifar10.CIFAR10.tar, -1)  # the tar is damaged: it is fetched anew
    assert same(first, load_dataset("cifar10")) and "Downloading" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", ["cut short", "altered"])
def test_a_bad_download_is_refused_and_leaves_nothing(copy, cache, monkeypatch, wrong):
    tar = copy / cifar10.CIFAR10.tar
    tar.write_bytes(tar.read_bytes()[:100]) if wrong == "cut short" else flip_a_byte(tar, 50)
    ask_at(monkeypatch, tar.as_uri())
    with pytest.raises(DatasetError, match=r"failed \(.*MD5 sum is wrong\).*CMX_DATA"):
        load_dataset("cifar10")
    assert list(cache.iterdir()) == []


class Host:
    """A host of one file. breaks_at: it hangs up after so many bytes; ranges: it can send a rest."""

    def __init__(self, content, breaks_at=None, ranges=True):
        self.asked = asked = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(self.headers["Range"])
                start = int((self.headers["Range"] or "bytes=0-")[6:-1]) if ranges else 0
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(content) - start))
                self.end_headers()
                self.wfile.write(content[start:breaks_at])

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/{cifar10.CIFAR10.tar}"


@pytest.fixture
def hosts():
    started = []
    yield lambda *args, **options: started.append(Host(*args, **options)) or started[-1]
    for host in started:
        host.server.shutdown()
        host.server.server_close()


@pytest.mark.parametrize("ranges", [True, False])
def test_another_host_goes_on_where_one_broke_off(copy, cache, monkeypatch, hosts, ranges, capsys):
    content = (copy / cifar10.CIFAR10.tar).read_bytes()
    broken, whole = hosts(content, breaks_at=len(content) // 3), hosts(content, ranges=ranges)
    ask_at(monkeypatch, broken.url)
    with pytest.raises(DatasetError, match=r"127\.0\.0\.1: the connection ended after [0-9,]+ of [0-9,]+ bytes"):
        load_dataset("cifar10")
    assert [p.name for p in cache.iterdir()] == [f"{cifar10.CIFAR10.tar}.part"]
    ask_at(monkeypatch, broken.url, whole.url)
    assert same(load_dataset("cifar10"), load_dataset("cifar10", copy))
    assert broken.asked == [None, f"bytes={len(content) // 3}-"] and whole.asked == [f"bytes={len(content) // 3}-"]
    assert sorted(p.name for p in cache.iterdir()) == [cifar10.CIFAR10.tar, "cifar10.safetensors"]


def test_a_rest_of_something_else_is_thrown_away(copy, cache, monkeypatch, hosts, capsys):
    content = (copy / cifar10.CIFAR10.tar).read_bytes()
    cache.mkdir()
    (cache / f"{cifar10.CIFAR10.tar}.part").write_bytes(b"no part of it" * 10)
    bad, good = hosts(content), hosts(content)
    ask_at(monkeypatch, bad.url, good.url)
    assert same(load_dataset("cifar10"), load_dataset("cifar10", copy))
    assert good.asked == [None]


def test_a_cache_that_cannot_be_written_only_warns(copy, cache, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(UserWarning, match="could not be kept.*No space left"):
        load_dataset("cifar10", copy)
    assert list(cache.iterdir()) == []


def test_a_cache_folder_that_cannot_be_made_names_the_way_out(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CMX_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(OSError, match="CMX_CACHE"):
        cache_dir()


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs POSIX permissions")
def test_a_folder_without_permission_is_named(copy):
    copy.chmod(0)
    who = os.geteuid()
    try:
        if who == 0:  # nothing is forbidden to root
            os.seteuid(65534)
        with pytest.raises(DatasetError, match=r"cannot be read from .*copy \(Permission denied\).*CMX_DATA"):
            load_dataset("cifar10", copy)
    finally:
        os.seteuid(who)
        copy.chmod(0o755)


def test_a_home_folder_is_not_needed_where_the_cache_is_named(cache, monkeypatch):
    monkeypatch.setattr(
        Path, "expanduser", lambda path: (_ for _ in ()).throw(RuntimeError) if "~" in str(path) else path
    )
    assert cache_dir() == cache
    monkeypatch.delenv("CMX_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(OSError, match=r"there is no home folder.*CMX_CACHE"):
        cache_dir()


IMAGES, LABELS = torch.zeros(4, 1, 5, 7, dtype=torch.uint8), torch.tensor([0, 1, 0, 1])
GREY = {"name": "own", "train_images": IMAGES, "train_labels": LABELS, "test_images": IMAGES, "test_labels": LABELS}
GREY |= {"classes": ("a", "b"), "mean": (0.4,), "std": (0.2,)}


def test_images_of_any_size_and_number_of_channels_are_data():
    assert Dataset(**GREY).std == (0.2,)
    assert Dataset(**GREY | {"test_images": torch.rand(4, 1, 64, 64), "mean": np.float32([0.5])}).mean == (0.5,)


@pytest.mark.parametrize(
    "wrong, error, match",
    [
        ({"train_images": IMAGES.long()}, TypeError, "train_images must be uint8"),
        ({"classes": tuple("0123456780")}, ValueError, "different names, but '0' is there twice"),
        ({"name": "../x"}, ValueError, "name must be a text in one line, without /"),
        ({"name": None}, ValueError, "name must be a text"),
        ({"test_images": IMAGES.numpy()}, TypeError, "test_images must be a torch tensor"),
        ({"train_images": IMAGES[0]}, ValueError, "train_images must have the shape"),
        ({"test_images": IMAGES.expand(4, 3, 5, 7)}, ValueError, "test_images must have the shape"),
        ({"test_images": IMAGES[:0], "test_labels": LABELS[:0]}, ValueError, "test_images must hold at least one"),
        ({"train_labels": LABELS[:, None]}, ValueError, "train_labels must have the shape"),
        ({"train_labels": LABELS.float()}, TypeError, "train_labels must be whole numbers"),
        ({"test_labels": LABELS + 1}, ValueError, "test_labels must count into the 2 classes.*from 1 to 2"),
        ({"test_labels": LABELS - 1}, ValueError, "from -1 to 0"),
        ({"mean": (0.4, 0.4, 0.4)}, ValueError, "mean must hold 1"),
        ({"mean": (float("nan"),)}, ValueError, "mean must be finite"),
        ({"std": (0.0,)}, ValueError, "std must be above 0"),
        ({"std": 0.2}, ValueError, "std must hold 1"),
    ],
)
def test_data_that_do_not_fit_together_are_refused(wrong, error, match):
    with pytest.raises(error, match=match):
        Dataset(**GREY | wrong)


def test_statistics_of_bytes_and_of_values_agree():
    images = torch.randint(0, 256, (6, 2, 5, 7), dtype=torch.uint8)
    of_bytes, of_values = channel_statistics(images), channel_statistics(images.double() / 255)
    expected = (images / 255).numpy()
    assert of_bytes[0] == pytest.approx(expected.mean((0, 2, 3))) and of_bytes[1] == pytest.approx(of_values[1])
    assert of_values[0] == pytest.approx(of_bytes[0]) and of_bytes[1] == pytest.approx(expected.std((0, 2, 3)))


def test_a_fingerprint_is_of_all_that_is_in_the_data():
    other = {"train_images": IMAGES + 1, "train_labels": 1 - LABELS, "test_images": IMAGES + 1, "mean": (0.41,)}
    prints = {Dataset(**GREY | {name: value}).fingerprint() for name, value in other.items()}
    assert len({*prints, Dataset(**GREY).fingerprint()}) == 5
    assert Dataset(**GREY).fingerprint() == Dataset(**GREY | {"train_images": IMAGES.clone()}).fingerprint()


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
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("sys.platform", platform)
    assert cache_dir() == tmp_path / expected and cache_dir().is_dir()


def photographs(root, classes=("cat", "dog"), parts=("train", "test"), mode="RGB", n=3, size=(20, 12)):
    """An image folder; the pictures of class k have the colour 10 k, 20 k, 30 k or the grey level 10 k."""
    for part in parts:
        for number, name in enumerate(classes):
            (root / part / name / "deeper").mkdir(parents=True)
            for i in range(n):
                image = Image.new(mode, size, 10 * number if mode == "L" else (10 * number, 20 * number, 30 * number))
                image.save(root / part / name / ("deeper" if i == 0 else "") / f"{i}.png")
    return root


def test_a_folder_of_images_is_cut_to_a_square_and_mixed(tmp_path):
    root = photographs(tmp_path / "photos", n=20)
    Image.new("RGB", (12, 40), (10, 20, 30)).save(root / "train" / "dog" / "last.jpg", quality=100)
    (root / "train" / "cat" / "notes.txt").write_text("no image")
    (root / "train" / ".ipynb_checkpoints").mkdir()
    shutil.copytree(root / "test" / "dog", root / "train" / "dog" / ".hidden")
    (root / "train" / "dog" / "._0.png").write_bytes(b"of a file system")
    (root / "train" / "dog" / "loop").symlink_to(root / "train")
    with pytest.raises(DatasetError, match=r"dog/loop is a link to a folder: put the folder itself there"):
        load_dataset("folder", root, size=8)
    (root / "train" / "dog" / "loop").rename(root / "train" / "dog" / ".loop")
    loaded = load_dataset("folder", root, size=8)
    assert loaded.name == "photos" and loaded.classes == ("cat", "dog")
    assert loaded.train_images.shape == (41, 3, 8, 8) and loaded.test_images.shape == (40, 3, 8, 8)
    for images, labels in ((loaded.train_images, loaded.train_labels), (loaded.test_images, loaded.test_labels)):
        expected = labels[:, None] * torch.tensor([10, 20, 30])
        assert (images.long() - expected[:, :, None, None]).abs().max() <= 1  # JPEG rounds
        assert labels[:10].unique().tolist() == [0, 1]
    assert same(loaded, load_dataset("folder", root, size=8))
    grey = load_dataset("folder", root, size=8, channels=1)
    assert grey.train_images.shape == (41, 1, 8, 8) and len(grey.mean) == 1


def test_what_a_folder_is_resized_to_is_its_middle(tmp_path):
    root = photographs(tmp_path / "photos", n=1)
    image = Image.new("L", (32, 16))
    image.paste(200, (8, 0, 24, 16))
    for part in ("train", "test"):
        image.save(root / part / "cat" / "deeper" / "0.png")
    loaded = load_dataset("folder", root, size=16, channels=1)
    assert (loaded.test_images[loaded.test_labels == 0] == 200).all()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda root: shutil.rmtree(root / "test"), "test: No such file.*root/train/CLASS/"),
        (lambda root: shutil.rmtree(root / "test" / "dog"), "classes dog are in one of train and test alone"),
        (lambda root: (root / "train" / "empty").mkdir(), "empty holds no image"),
        (
            lambda root: shutil.copytree(root / "train" / "dog" / "deeper", root / "test", dirs_exist_ok=True),
            "test/0.png is in no class",
        ),
        (lambda root: [shutil.rmtree(path) for path in (root / "train").iterdir()], "train holds no classes"),
        (lambda root: (root / "test" / "cat" / "1.png").write_bytes(b"x"), r"1\.png is no image"),
        (lambda root: Image.new("RGBA", (9, 9)).save(root / "test" / "cat" / "1.png"), "1.png is transparent"),
    ],
)
def test_a_folder_that_is_no_data_set_is_refused(tmp_path, change, match):
    change(root := photographs(tmp_path / "photos"))
    with pytest.raises(DatasetError, match=match):
        load_dataset("folder", root, size=8)


@pytest.mark.parametrize(
    ("arguments", "options", "match"),
    [
        (("folder",), {"size": 8}, "needs root= and size="),
        (("folder", "photos"), {}, "needs root= and size="),
        (("folder", "photos"), {"size": 8, "channels": 2}, r"channels must be 3 \(RGB\) or 1"),
        (("cifar10",), {"size": 64}, 'size and channels are of a "folder"'),
    ],
)
def test_options_of_folders(arguments, options, match):
    with pytest.raises(ValueError, match=match):
        load_dataset(*arguments, **options)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match='"cifar10", "cifar100", "fontdigits" or "folder"'):
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
