"""The one dial: what "quick", "small" and "paper" mean, and the trained model of each."""

import dataclasses
import functools
import hashlib
import inspect
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from .. import paths
from ..learn.checkpoint import CheckpointError, load_model, save_model
from ..learn.convmixer import ConvMixer
from ..learn.data import NAMES, Dataset, load_dataset
from ..learn.device import default_device, usable
from ..learn.train import TrainSettings, fit
from ..lock import checks
from ..lock.patch import PatchCipher
from . import records

if TYPE_CHECKING:
    import pandas as pd


def ciphers(channels: int = 3) -> dict[str, Callable]:
    """The ciphers of the main tables, for images of so many channels: name in rows -> function of key, patch size."""
    every = ("shuffle",), ("flip",), ("shuffle", "flip"), ("orthogonal",)
    return {"+".join(steps): functools.partial(PatchCipher, channels=channels, steps=steps) for steps in every}


CIPHERS = ciphers()

OTHER_NETWORKS = {  # name in a Scale's model: module and class of timm
    "ViT": ("timm.models.vision_transformer", "VisionTransformer"),  # arXiv 2010.11929
    "MLP-Mixer": ("timm.models.mlp_mixer", "MlpMixer"),  # arXiv 2105.01601
}


MOST = 10**6  # of whatever a scale counts


@dataclass(frozen=True)
class AttackSettings:
    """How much each attack gets at a scale; counts are of images unless said otherwise.

    victims: encrypted images seen; public: images of the same kind that the attacker has; draws: repetitions with other
    victims' images and another key; patch_sizes; pairs: known plaintexts; labelled: of a stolen model's attacker;
    trials: keys tried by random and hill climbing; iterations: of a gradient search, or batches of a training, on a
    stolen model; retrain_steps: batches of an adversary's own model; opened: test images for the accuracy of an opened
    model; attacked: images made adversarial; queries: of Square; repaired: encrypted images seen under the repairs;
    restarts: of PGD, on the images that are still classified correctly; annealing: trials of each of three annealings
    on statistics, which compute the first layer of 500 patches only.
    """

    victims: tuple[int, ...] = (1, 3, 10, 30, 100, 300, 1000, 10000)
    public: int = 5000
    draws: int = 10
    patch_sizes: tuple[int, ...] = (2, 4, 8)
    pairs: tuple[int, ...] = (1, 2, 5, 10, 20)
    labelled: tuple[int, ...] = (10, 100, 1000, 10000)
    trials: int = 300
    iterations: int = 300
    retrain_steps: int = 300
    opened: int = 10000
    attacked: int = 500
    queries: int = 300
    repaired: tuple[int, ...] = (30, 100, 300, 1000)
    restarts: int = 3
    annealing: int = 8000

    def __post_init__(self):
        for name, value in list(vars(self).items()):
            check = checks.wholes if isinstance(value, tuple) else checks.whole
            object.__setattr__(self, name, check(value, name, 1, MOST))


@dataclass(frozen=True)
class Scale:
    """A size of the study; the tables of `cmxlib.study` take any, also one of your own.

    name: "quick" (embedded data, seconds), "small" (CIFAR-10, minutes on two cores), "paper" (the full recipe), or
        that of the folder in which the rows of your own scale go.
    dataset: a name for load_dataset, or a Dataset of your own.
    model: arguments of ConvMixer (num_classes, 10, and channels, 3, must be those of the data); or "network", a name of
        OTHER_NETWORKS, and the arguments of that class.
    train: how it is trained.
    others: the networks of the table `generality`, as {name: (model, what differs in train)}.
    n_wrong: wrong keys for each cipher.
    patch_sizes: of the networks of the main tables; the first is that of the attacks.
    finer: what differs at a patch size, as {patch size: {"epochs": ..., "n_wrong": ...}}.
    seeds: of networks, for the main tables. compared_seeds: those for the conventional methods.
    anatomy_keys, anatomy_images: nearly right keys a point, and test images, of the table `anatomy`.
    engine_epochs: of the trainings of the table `engine`.
    ciphers: {name: function of a key and a patch size that gives a cipher}, with encrypt, decrypt and matrix; for grey
        images ``ciphers(1)`` of this module.
    attack: how much the attacks get.
    """

    name: str
    dataset: str | Dataset
    model: dict = field(hash=False)
    train: TrainSettings
    n_wrong: int
    others: Mapping[str, tuple[dict, dict]] = field(default_factory=dict, hash=False)
    patch_sizes: tuple[int, ...] = (4,)
    finer: Mapping[int, dict] = field(default_factory=dict, hash=False)
    seeds: tuple[int, ...] = (0,)
    compared_seeds: tuple[int, ...] = (0, 1, 2)
    anatomy_keys: int = 20
    anatomy_images: int = 2000
    engine_epochs: int = 4
    ciphers: Mapping[str, Callable] = field(default_factory=lambda: CIPHERS, hash=False)
    attack: AttackSettings = AttackSettings()

    def __post_init__(self):
        records.check_name(self.name, "scale")
        kinds = {"model": dict, "train": TrainSettings, "attack": AttackSettings}
        for name, kind in (kinds | dict.fromkeys(("others", "finer", "ciphers"), Mapping)).items():
            checks.instance(getattr(self, name), kind, name)
        if not isinstance(self.dataset, Dataset) and not (isinstance(self.dataset, str) and self.dataset in NAMES):
            raise ValueError(
                f"dataset must be a Dataset or one of {', '.join(NAMES)}, but it is {checks.shown(self.dataset)}."
            )
        for name, low in {"n_wrong": 0, "anatomy_keys": 1, "anatomy_images": 1, "engine_epochs": 1}.items():
            object.__setattr__(self, name, checks.whole(getattr(self, name), name, low, MOST))
        for name, low in {"seeds": 0, "compared_seeds": 0, "patch_sizes": 1}.items():
            object.__setattr__(self, name, checks.wholes(getattr(self, name), name, low, MOST))
        for name, other in self.others.items():
            if not isinstance(other, (tuple, list)) or [isinstance(each, Mapping) for each in other] != [True, True]:
                raise TypeError(f"others must give two mappings for {name}: its model, and what differs in train.")
        for name, made in self.ciphers.items():
            if not callable(made):
                raise TypeError(f"ciphers must give a function of a key for {name}, but this is {checks.shown(made)}.")
        lows = {"epochs": 1, "n_wrong": 0}
        for size, changes in self.finer.items():
            if not isinstance(changes, Mapping) or set(changes) - set(lows):
                raise ValueError(
                    f"finer must give {' or '.join(lows)} at a patch size, but at {size} it is {checks.shown(changes)}."
                )
            for name, value in changes.items():
                checks.whole(value, f"{name} in finer", lows[name], MOST)
        if (network := self.model.get("network", "ConvMixer")) not in (names := ("ConvMixer", *OTHER_NETWORKS)):
            raise ValueError(
                f"The network of a model must be one of {', '.join(names)}, but it is {checks.shown(network)}."
            )
        try:
            json.dumps(self.model)
        except (TypeError, ValueError) as error:
            raise TypeError(f"model must hold plain numbers and texts, as int(...) makes them: {error}.") from None
        known = inspect.signature(ConvMixer).parameters.keys() | {"network"}
        if network == "ConvMixer" and (wrong := self.model.keys() - known):
            raise ValueError(f"model must hold arguments of ConvMixer, but has {', '.join(map(repr, wrong))}.")
        size = self.model.get("patch_size")
        if not self.patch_sizes or self.patch_sizes[0] != size:
            raise ValueError(
                f"patch_sizes must begin with the model's patch_size, {size}, but it is {self.patch_sizes}: "
                "change either."
            )

    @property
    def channels(self) -> int:
        """Of the images."""
        return self.model.get("channels", 3)

    def at(self, patch_size: int) -> "Scale":
        """The same study with another patch size of the network, and with what ``finer`` says of it."""
        patch_size = checks.whole(patch_size, "patch_size", 1, MOST)
        changes = dict(self.finer.get(patch_size, {}))
        train = replace(self.train, epochs=changes.pop("epochs", self.train.epochs))
        model = {**self.model, "patch_size": patch_size}
        sizes = (patch_size, *(size for size in self.patch_sizes if size != patch_size))
        return replace(self, model=model, train=train, patch_sizes=sizes, **changes)

    def of(self, network: str) -> "Scale":
        """The same study with one of its other networks."""
        if not isinstance(network, str) or network not in self.others:
            known = ", ".join(self.others) or "none"
            raise ValueError(f"There is no other network {checks.shown(network)} at scale {self.name}: it has {known}.")
        model, changes = self.others[network]
        return replace(self, model=model, train=replace(self.train, **changes))

    def data(self) -> Dataset:
        """The data set, read once in a process."""
        return self.dataset if isinstance(self.dataset, Dataset) else _loaded(self.dataset)


_loaded = functools.lru_cache(maxsize=2)(load_dataset)


class _Scales(dict):
    """The scales by name; a chapter that is given another name stops with one sentence, not with a KeyError."""

    def __getitem__(self, name):
        if isinstance(name, str) and name in self:
            return super().__getitem__(name)
        raise ValueError(f"There is no scale {checks.shown(name)}: SCALE is one of {', '.join(self)}.")


_PATCHES = {"img_size": 32, "patch_size": 4, "num_classes": 10, "embed_dim": 96}

_SCALES = {
    "quick": Scale(
        name="quick",
        dataset="fontdigits",
        model={"dim": 64, "depth": 4, "kernel_size": 5, "patch_size": 4},
        train=TrainSettings(epochs=8, batch_size=64, flip=False, crop_padding=2),
        n_wrong=20,
        compared_seeds=(0,),
        anatomy_keys=2,
        anatomy_images=500,
        engine_epochs=1,
        attack=AttackSettings(
            (10, 100, 1000), 2000, 1, (4,), (1, 2), (100,), 20, 20, 20, 500, 50, 20, (300,), annealing=800
        ),
    ),
    "small": Scale(
        name="small",
        dataset="cifar10",
        model={"dim": 128, "depth": 8, "kernel_size": 5, "patch_size": 4},
        train=TrainSettings(epochs=16),
        n_wrong=100,
        # timm's, smaller than published ones. Fixed before the first training: epochs that fit into 20 minutes of one
        # core, and a rate that is usual for networks with LayerNorm.
        others={
            "ViT": (
                {"network": "ViT", **_PATCHES, "depth": 3, "num_heads": 3, "mlp_ratio": 2}
                | {"class_token": False, "global_pool": "avg"},
                {"epochs": 5, "max_lr": 0.002},
            ),
            "MLP-Mixer": (
                {"network": "MLP-Mixer", **_PATCHES, "num_blocks": 4, "mlp_ratio": (0.5, 2)},
                {"epochs": 6, "max_lr": 0.002},
            ),
        },
    ),
    "paper": Scale(
        name="paper",
        dataset="cifar10",
        model={"dim": 256, "depth": 8, "kernel_size": 5, "patch_size": 4},
        # RandAugment as in the recipe of ConvMixer's authors; their rate of 0.05 for batches of 512, a quarter of that
        # size here, and a little less. Twice as much lost all that a first training had learnt, in epoch 21.
        train=TrainSettings(epochs=40, max_lr=0.01, rand_augment=12),
        n_wrong=200,
        patch_sizes=(4, 2),
        # Fixed before the first training. The recipe of ConvMixer's authors has 25 epochs (92.6 %); patches of 4 did
        # not overfit in 40, so that a few more are no risk. Patches of 2 take four times as long.
        finer={2: {"epochs": 30, "n_wrong": 30}},
        compared_seeds=(0,),  # one training takes about an hour of one core
        attack=AttackSettings(queries=5000, retrain_steps=100, attacked=1000),
    ),
}
SCALES: Mapping[str, Scale] = _Scales(_SCALES)


def named(scale: str | Scale) -> Scale:
    """The scale of a name, or the Scale itself. ValueError that lists the names where there is none."""
    return scale if isinstance(scale, Scale) else SCALES[scale]


def new_model(scale: Scale, seed: int = 0) -> torch.nn.Module:
    """The untrained network of a scale, its initial weights drawn from ``seed``."""
    sizes = dict(scale.model)
    network = sizes.pop("network", "ConvMixer")
    make = ConvMixer
    if network != "ConvMixer":
        module, name = OTHER_NETWORKS[network]
        make = getattr(paths.need(module, "book"), name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make(**sizes)


def trained_model(
    scale: str | Scale, *, seed: int = 0, device: torch.device | str | None = None, progress: bool = True
) -> tuple[torch.nn.Module, "pd.DataFrame"]:
    """The model of a scale, trained on plain images, and its history: from the book, from the cache, or trained now.

    Args:
        scale: "quick", "small" or "paper", or a Scale of one's own.
        seed: of the initial weights and of the training.

    Returns (model in eval mode, history as ``fit`` returns it). A file of the cache that is damaged is made anew. Of
    two processes that want one model, one trains and the other waits.
    """
    pd = paths.need("pandas", "book")

    scale, device = named(scale), usable(default_device() if device is None else device)
    settings = replace(scale.train, seed=seed)
    model = new_model(scale, seed)
    own = scale.dataset if isinstance(scale.dataset, Dataset) else None  # known by all that is in it, not by its name
    dataset = f"{own.name} {own.fingerprint()}" if own else scale.dataset
    recipe = json.dumps([dataset, scale.model, dataclasses.asdict(settings)], sort_keys=True)
    name = f"{scale.name}-p{scale.model['patch_size']}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}-seed{seed}"
    cache = paths.cache_dir()
    shipped = [paths.ROOT / "models"] if paths.ROOT else []

    def found():
        for folder in (*shipped, cache / "models"):
            if (folder / f"{name}.json").exists():
                try:
                    history = pd.DataFrame(load_model(folder / name, model)["history"])
                    return model.to(device).eval(), history
                except CheckpointError as error:
                    warnings.warn(f"{error} It is trained anew.", stacklevel=3)

    if made := found():
        return made
    data = scale.data()
    with records.locked(cache / "models" / name):
        if made := found():  # by the process that this one waited for
            return made
        history = fit(model, data, settings, checkpoint=cache / "checkpoints" / name, device=device, progress=progress)
        save_model(cache / "models" / name, model, history, json.loads(recipe))
    return model, history
