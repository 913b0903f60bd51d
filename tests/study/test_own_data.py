"""Images of one's own and CIFAR-100's files, from the folder to the main table: toy pictures, networks trained."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from cmxlib import Scale, TrainSettings, load_dataset, trained_model
from cmxlib.learn import cifar10
from cmxlib.study import records
from cmxlib.study.images import IMAGES, PAIRS, VISIBILITY
from cmxlib.study.networks import KEYS
from cmxlib.study.recovered import MOVED, RECOVERED
from cmxlib.study.scales import ciphers
from cmxlib.study.table import missing, record

from ..learn.test_data import official


def pictures(root, mode, size):
    """Three classes of noise with lines, columns or squares in it, 16 pictures each to train with, 8 to test."""
    rng = np.random.default_rng(0)
    lines, columns = np.indices((size, size)) // 2 % 2
    patterns = {"lines": lines, "columns": columns, "squares": lines ^ columns}
    for part, n in (("train", 16), ("test", 8)):
        for name, pattern in patterns.items():
            (root / part / name).mkdir(parents=True)
            for i in range(n):
                values = rng.integers(0, 100, (size, size, 3), dtype=np.uint8)
                Image.fromarray(values + 120 * pattern[..., None].astype(np.uint8)).convert(mode).save(
                    root / part / name / f"{i}.png"
                )


def scale_of(toy, dataset, n_classes, channels, **settings):
    model = {**toy.model, "num_classes": n_classes, "channels": channels}
    chosen = {steps: ciphers(channels)[steps] for steps in ("shuffle+flip", "orthogonal")}
    train = TrainSettings(batch_size=16, flip=False, crop_padding=1, **settings)
    return dataclasses.replace(toy, dataset=dataset, model=model, train=train, ciphers=chosen)


def values_of(scale: Scale, measure):
    record(KEYS, scale, lambda text: None)
    rows = records.read("toy", "keys")
    return rows[rows.measure == measure].groupby(["steps", "case"]).value.mean().unstack()


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
def test_a_folder_of_images_goes_through_to_the_main_table(toy, tmp_path, mode, channels):
    pictures(tmp_path / "patterns", mode, 64)
    data = load_dataset("folder", tmp_path / "patterns", size=64, channels=channels)
    scale = scale_of(toy, data, 3, channels, epochs=40)
    found, differ = (values_of(scale, measure) for measure in ("accuracy", "differ"))
    assert set(records.read("toy", "keys").dataset) == {"patterns"}
    assert (found["plain"] >= 0.9).all() and (found["correct key"] == found["plain"]).all()
    assert (differ["correct key"] == 0).all() and (found["wrong key"] < found["plain"]).all()

    changed = dataclasses.replace(data, train_images=255 - data.train_images)  # of the same name
    assert (
        trained_model(dataclasses.replace(scale, dataset=changed))[0][0]
        .weight.ne(trained_model(scale)[0][0].weight)
        .any()
    )


def test_grey_images_go_through_the_tables_of_attacks(toy, tmp_path):
    pictures(tmp_path / "patterns", "L", 16)
    scale = scale_of(toy, load_dataset("folder", tmp_path / "patterns", size=16, channels=1), 3, 1, epochs=1)
    scale = dataclasses.replace(scale, attack=dataclasses.replace(scale.attack, victims=(3, 20)))
    for table in (VISIBILITY, PAIRS, IMAGES, RECOVERED, MOVED):
        record(table, scale, lambda text: None)
        assert not missing(table, scale) and set(records.read("toy", table.name).dataset) == {"patterns"}
    pairs = records.read("toy", "attack_pairs")
    chosen = pairs[pairs.attack == "chosen plaintext"].set_index(["steps", "measure"]).value
    assert len(chosen.index.levels[0]) == 4 and (chosen.xs("share_recovered", level=1) > 0.999).all()


def test_the_files_of_cifar100_go_through_to_the_main_table(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "CIFAR100", official(tmp_path, cifar10.CIFAR100, 100))
    monkeypatch.setenv("CMX_DATA", str(tmp_path))
    scale = dataclasses.replace(scale_of(toy, "cifar100", 100, 3, epochs=1), name="toy")
    scale = dataclasses.replace(scale, train=dataclasses.replace(scale.train, batch_size=2))
    differ = values_of(scale, "differ")
    assert trained_model(scale)[0][-1].out_features == 100 and (differ["correct key"] == 0).all()
