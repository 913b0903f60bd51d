"""The words of CONTRIBUTING.md, followed to the letter with a toy cipher, a toy attack and a toy table."""

import re

import numpy as np
import pytest
import torch

from cmxlib import ConvMixer, Dataset, Scale, SecretKey, TrainSettings, encrypt_model, logits
from cmxlib.paths import ROOT
from cmxlib.study import records
from cmxlib.study.table import Table, record
from cmxlib.study.tables import TABLES

# -- a cipher ------------------------------------------------------------------------------------------------------


class Channels:
    """Exchange the colour channels by a secret key."""

    def __init__(self, order):
        self.order = torch.as_tensor(order)

    @classmethod
    def of(cls, key, patch_size=4):
        return cls(key.permutation(3, purpose="toy/channels"))

    def encrypt(self, images):
        return images[:, self.order]

    def decrypt(self, images):
        return images[:, self.order.argsort()]

    def matrix(self, patch_size):
        exchange = np.eye(3)[self.order.numpy()]
        return np.kron(exchange, np.eye(patch_size**2)), np.zeros(3 * patch_size**2)


# -- an attack -----------------------------------------------------------------------------------------------------


def known_channels(plain, encrypted):
    """The cipher that takes these images (N, 3, H, W) to these, from the distances of their channels."""
    apart = (encrypted[:, :, None].double() - plain[:, None].double()).abs().mean((0, 3, 4))
    return Channels(apart.argmin(1))


# -- a table -------------------------------------------------------------------------------------------------------


def units(scale):
    return [{"n_pairs": count, "key": key} for count in (1, 2) for key in scale.seeds]


def measure(scale, unit):
    images, cipher = scale.data().test_images[: unit["n_pairs"]], Channels.of(SecretKey.for_experiment(unit["key"]))
    estimate = known_channels(images, cipher.encrypt(images))
    yield {"measure": "share_recovered", "value": (estimate.order == cipher.order).double().mean().item()}


TOY = Table(
    "toy",
    units,
    measure,
    lambda scale, unit: {"dataset": "noise", "settings": {}, "seeds": unit["key"], "n_images": unit["n_pairs"]},
)


@pytest.fixture
def scale():
    images = torch.randint(0, 256, (20, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels, classes = torch.arange(20) % 10, tuple("abcdefghij")
    data = Dataset("noise", images, labels, images, labels, classes, (0.5,) * 3, (0.25,) * 3)
    model = {"dim": 16, "depth": 1, "kernel_size": 3, "patch_size": 4}
    return Scale("toy", data, model, TrainSettings(epochs=1), n_wrong=2, seeds=(0, 1, 2))


def test_a_cipher_of_ones_own_locks_a_network_exactly(scale):
    data, model = scale.data(), ConvMixer(**scale.model).double().eval()
    cipher, norm = Channels.of(SecretKey.for_experiment(1)), {"mean": scale.data().mean, "std": scale.data().std}
    encrypted = cipher.encrypt(data.test_images)
    assert not encrypted.equal(data.test_images) and cipher.decrypt(encrypted).equal(data.test_images)
    locked = encrypt_model(model, cipher, **norm)
    assert torch.allclose(logits(locked, encrypted, **norm), logits(model, data.test_images, **norm), atol=1e-12)


def test_an_attack_of_ones_own_opens_it(scale):
    images, cipher = scale.data().test_images, Channels.of(SecretKey.for_experiment(1))
    estimate = known_channels(images[:1], cipher.encrypt(images[:1]))
    assert estimate.decrypt(cipher.encrypt(images[1:])).equal(images[1:])
    assert not estimate.order.equal(torch.arange(3))


def test_a_table_of_ones_own_is_stopped_and_goes_on(scale, tmp_path, monkeypatch):
    monkeypatch.setattr(records, "table_path", lambda scale, table: tmp_path / f"{table}.csv")

    def stop(scale, unit):
        if unit == {"n_pairs": 2, "key": 0}:
            raise KeyboardInterrupt
        return measure(scale, unit)

    with pytest.raises(KeyboardInterrupt):
        record(Table(TOY.name, units, stop, TOY.over), scale)
    first = (tmp_path / "toy.csv").read_text()
    assert first.count("\n") == 1 + 3
    record(TOY, scale)
    rows = records.read("toy", "toy")
    assert (tmp_path / "toy.csv").read_text().startswith(first)
    assert list(zip(rows.n_pairs, rows.key, strict=True)) == [(n, key) for n in (1, 2) for key in (0, 1, 2)]
    assert set(rows.value) == {1.0} and set(rows.measure) == {"share_recovered"}


def test_the_places_that_are_named_are_there():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = [name for name in re.findall(r"`([\w/.]+/[\w/.]*)`", text) if not re.search("NN|/bin/", name)]
    assert named and [name for name in named if not (ROOT / name).exists()] == []
    assert all(isinstance(table, Table) for table in TABLES)
    assert [
        part for part in ("a cipher", "an attack", "a table", "a chapter") if f"## {part}" not in text.lower()
    ] == []
