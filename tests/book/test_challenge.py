"""The locks of the challenge: exact, complete, small, and without what opens them."""

import dataclasses
import itertools

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from cmxlib import ConvMixer, logits
from cmxlib.book import challenge
from cmxlib.book.challenge import LOCKS, is_flag, load_lock, make
from cmxlib.lock.bits import to_bits
from cmxlib.paths import checkout
from cmxlib.study.scales import SCALES

FOLDER = checkout() / "notebooks" / "challenge"


@pytest.fixture(scope="module")
def few():
    data = SCALES["quick"].data()
    parts = ("train_images", "train_labels", "test_images", "test_labels")
    return dataclasses.replace(data, **{name: getattr(data, name)[:64] for name in parts})


@pytest.mark.parametrize("kind", dict.fromkeys(kind for kind, _ in LOCKS.values()))
def test_each_kind_of_lock_is_exact(kind, few):
    torch.manual_seed(0)
    model, norm = ConvMixer(**SCALES["quick"].model).eval(), {"mean": few.mean, "std": few.std}
    locked, encrypt = challenge._lock(kind, model, few)
    images = encrypt(few.train_images)
    plain = logits(model, few.train_images, **norm)
    if kind == LOCKS[5][0]:
        found = logits(locked, to_bits(images), mean=(0,) * 24, std=(1,) * 24)
    else:
        found = logits(locked, images, **norm)
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-4)
    assert not torch.equal(images, few.train_images)


def test_new_locks_are_complete_and_hold_no_sentence(few, tmp_path, monkeypatch):
    said, words = [], iter("BABE KOLI MUSA TERI WOXU ZADE".split() * 6)
    monkeypatch.setattr(challenge, "_word", lambda: said.append(word := next(words)) or word)
    make(tmp_path, data=few)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"lock{number}.safetensors" for number in LOCKS]
    for number, (_, count) in LOCKS.items():
        lock = load_lock(number, tmp_path)
        assert len(lock.images) == count and len(lock.flag) == 6 and not lock.model.training
        assert is_flag(number, "  babe KOLI musa\nteri woxu zade ", tmp_path)
        assert not is_flag(number, "BABE KOLI MUSA TERI WOXU ZADA", tmp_path)
        content = (tmp_path / f"lock{number}.safetensors").read_bytes()
        header = content[: 8 + int.from_bytes(content[:8], "little")]
        assert not any(word.encode() in header for word in said)
        # Four letters stand by chance in a megabyte of encrypted pixels, once in some hundred runs; nine do not.
        pairs = [(one + gap + two).encode() for one, two in itertools.pairwise(said) for gap in (" ", "")]
        assert not any(pair in content for pair in pairs)


def test_the_committed_locks_load_and_are_small():
    digests = set()
    for number, (cipher, count) in LOCKS.items():
        lock = load_lock(number)
        assert lock.cipher == cipher and len(lock.images) == count
        assert lock.model(torch.zeros(1, lock.model[0].weight.shape[1] if number == 5 else 3, 32, 32)).shape == (1, 10)
        digests.add(lock.digest)
    assert len(digests) == len(LOCKS)
    assert sum(path.stat().st_size for path in FOLDER.glob("*.safetensors")) < 3_000_000


@pytest.mark.parametrize("number", [0, 7])
def test_there_are_six(number):
    with pytest.raises(ValueError, match="number"):
        load_lock(number)


@pytest.mark.parametrize("lacking", ["digest", "flag", "images", "0.weight", "9.bias"])
def test_a_lock_that_lacks_something_is_told(lacking, tmp_path):
    path = tmp_path / "lock1.safetensors"
    with safe_open(FOLDER / path.name, "pt") as file:
        held, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()
    held.pop(lacking, None)
    save_file(held, path, None if lacking == "digest" else metadata)
    with pytest.raises(ValueError, match=r"lock1\.safetensors is no lock, or is damaged"):
        load_lock(1, tmp_path)


def test_new_locks_take_the_place_of_nothing(tmp_path):
    (tmp_path / "lock2.safetensors").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"lock2\.safetensors exists already: name another folder"):
        make(tmp_path)
    with pytest.raises(OSError, match="lock2"):
        make(tmp_path / "lock2.safetensors")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("lock2.safetensors", b"mine")]
