"""The one dial: what "quick", "small" and "paper" mean, and the trained model of each."""

import dataclasses
import hashlib
import json
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
import torch

from ..learn.checkpoint import CheckpointError, load_model, save_model
from ..learn.convmixer import ConvMixer
from ..learn.data import load_dataset
from ..learn.train import TrainSettings, default_device, fit
from ..paths import cache_dir

MODELS = Path(__file__).parents[2] / "models"  # trained models that come with the book


@dataclass(frozen=True)
class Scale:
    """A size of the study.

    name: "quick" (embedded data, seconds), "small" (CIFAR-10, minutes on two cores) or "paper" (the full recipe).
    dataset: a name for load_dataset.
    model: arguments of ConvMixer.
    train: how it is trained.
    n_wrong: wrong keys per key setting.
    """

    name: str
    dataset: str
    model: dict = field(hash=False)
    train: TrainSettings
    n_wrong: int

    def with_patch_size(self, patch_size: int) -> "Scale":
        """The same study with another patch size of the network."""
        return replace(self, model={**self.model, "patch_size": patch_size})


SCALES = {
    "quick": Scale(
        name="quick",
        dataset="fontdigits",
        model={"dim": 64, "depth": 4, "kernel_size": 5, "patch_size": 4},
        train=TrainSettings(epochs=8, batch_size=64, flip=False, crop_padding=2),
        n_wrong=20,
    ),
    "small": Scale(
        name="small",
        dataset="cifar10",
        model={"dim": 128, "depth": 8, "kernel_size": 5, "patch_size": 4},
        train=TrainSettings(epochs=16),
        n_wrong=100,
    ),
    "paper": Scale(
        name="paper",
        dataset="cifar10",
        model={"dim": 256, "depth": 8, "kernel_size": 5, "patch_size": 4},
        # RandAugment as in the recipe of ConvMixer's authors; their rate of 0.05 for batches of 512, a quarter of that
        # size here, and a little less. Twice as much lost all that a first training had learnt, in epoch 21.
        train=TrainSettings(epochs=40, max_lr=0.01, rand_augment=12),
        n_wrong=200,
    ),
}


def new_model(scale, seed: int = 0) -> ConvMixer:
    """The untrained ConvMixer of a scale, its initial weights drawn from ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ConvMixer(**scale.model)


def trained_model(scale, *, seed=0, device=None, progress=True):
    """The model of a scale, trained on plain images, and its history: from the book, from the cache, or trained now.

    Args:
        scale: "quick", "small" or "paper", or a Scale of one's own.
        seed: of the initial weights and of the training.

    Returns (model in eval mode, history as ``fit`` returns it).
    """
    scale = SCALES[scale] if isinstance(scale, str) else scale
    settings = dataclasses.replace(scale.train, seed=seed)
    model = new_model(scale, seed)
    recipe = json.dumps([scale.dataset, scale.model, dataclasses.asdict(settings)], sort_keys=True)
    name = f"{scale.name}-p{scale.model['patch_size']}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}-seed{seed}"
    for folder in (MODELS, cache_dir() / "models"):
        if (folder / f"{name}.json").exists():
            try:
                history = pd.DataFrame(load_model(folder / name, model)["history"])
                return model.to(device or default_device()).eval(), history
            except CheckpointError as error:
                warnings.warn(f"{error} It is trained anew.", stacklevel=2)
    data = load_dataset(scale.dataset)
    history = fit(
        model, data, settings, checkpoint=cache_dir() / "checkpoints" / name, device=device, progress=progress
    )
    save_model(cache_dir() / "models" / name, model, history, json.loads(recipe))
    return model, history
