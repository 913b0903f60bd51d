"""A scale so small that every table runs for real within seconds; it shows the bookkeeping and nothing else."""

import pytest
import torch

from cmxlib import Dataset, Scale, TrainSettings, paths
from cmxlib.study.scales import AttackSettings

ATTACK = AttackSettings(
    victims=(3, 40),
    public=40,
    draws=1,
    patch_sizes=(4,),
    pairs=(1, 2),
    labelled=(16,),
    trials=9,
    iterations=9,
    retrain_steps=2,
    opened=20,
    attacked=8,
    queries=2,
    repaired=(40,),
    annealing=18,
)


def striped(n):
    """Images (n, 3, 32, 32) of ten classes that a network soon tells apart, by the place of a bright bar; labels."""
    generator = torch.Generator().manual_seed(n)
    images = torch.randint(0, 100, (n, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.arange(n) % 10
    for image, label in zip(images, labels, strict=True):
        image[:, 3 * label : 3 * label + 3] += 120
    return images, labels


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A scale of its own, whose rows and models go to a temporary folder."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setenv("CMX_CACHE", str(tmp_path / "cache"))
    data = Dataset("toy", *striped(80), *striped(40), tuple("0123456789"), (0.3,) * 3, (0.2,) * 3)
    return Scale(
        name="toy",
        dataset=data,
        model={"dim": 8, "depth": 1, "kernel_size": 3, "patch_size": 4},
        train=TrainSettings(epochs=2, batch_size=16, flip=False, crop_padding=1),
        n_wrong=2,
        compared_seeds=(0,),
        anatomy_keys=2,
        anatomy_images=20,
        engine_epochs=1,
        attack=ATTACK,
    )
