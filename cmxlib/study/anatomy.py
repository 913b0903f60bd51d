"""Tables of nearly right keys: the anatomy of one key, and keys that all agree in part."""

import numpy as np
import torch

from ..learn.device import bf16_is_faster, default_device
from ..learn.evaluate import accuracy
from ..lock.keys import SecretKey
from ..lock.model import decrypt_model, encrypt_model
from ..lock.near import TURNS, damaged, restricted, scrambled_in_part, turned
from ..lock.patch import PatchCipher
from ..lock.pixels import to_values
from .scales import Scale, trained_model
from .table import Table, of_network

# -- anatomy: accuracy against the number of wrong entries in the key, and what survives in part ----------------------


def _chosen_images(scale: Scale):
    data = scale.data()
    order = torch.randperm(len(data.test_labels), generator=torch.Generator().manual_seed(0))
    chosen = order[: scale.anatomy_images]
    return data.test_images[chosen], data.test_labels[chosen]


def _anatomy(scale: Scale, unit: dict):
    size, trial, norm = unit["patch_size"], unit["trial"], scale.data().norm
    model, _ = trained_model(scale.at(size), seed=unit["seeds"])
    images, labels = _chosen_images(scale)
    cipher = PatchCipher(SecretKey.for_experiment(0), size)
    encrypted = encrypt_model(model, cipher, **norm)
    counts = [k for k in (0, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192) if k <= cipher.n]
    points = [("positions", k, k, 0) for k in counts] + [("signs", k, 0, k) for k in [0, 1, *counts[1:]]]
    points += [("both", k, k, k) for k in counts]
    rng = np.random.default_rng(trial)
    tried = [(kind, wrong, damaged(cipher, positions, signs, rng)) for kind, wrong, positions, signs in points]
    for kind in ("pixels", "within channels", "all"):
        tried.append((kind, cipher.n, scrambled_in_part(cipher, kind, rng)))
    for kind, wrong, other in tried:
        opened = decrypt_model(encrypted, other, **norm)
        found = accuracy(opened, images, labels, **norm, autocast=bf16_is_faster(default_device()))
        yield {"kind": kind, "wrong": wrong, "measure": "accuracy", "value": found}
    if trial == 0:  # what is left when a patch is nothing but its mean colour: the coarsest picture that it can carry
        coarse = torch.nn.functional.avg_pool2d(to_values(images), size).repeat_interleave(size, 2)
        found = accuracy(model, coarse.repeat_interleave(size, 3), labels, **norm)
        yield {"kind": "mean colour only", "wrong": 0, "measure": "accuracy", "value": found}


ANATOMY = Table(
    "anatomy",
    lambda scale: [
        {"patch_size": size, "seeds": seed, "trial": trial}
        for size in scale.patch_sizes
        for seed in scale.seeds
        for trial in range(scale.anatomy_keys)
    ],
    _anatomy,
    lambda scale, unit: of_network(
        scale.at(unit["patch_size"]), unit["seeds"], scale.anatomy_keys, len(_chosen_images(scale)[1])
    ),
    trained=lambda scale, unit: (scale.at(unit["patch_size"]), unit["seeds"]),
)


# -- turns: keys with which each patch is mirrored, turned, or has its colours exchanged -------------------------------


def _turns(scale: Scale, unit: dict):
    size, norm = unit["patch_size"], scale.data().norm
    model, _ = trained_model(scale.at(size))
    images, labels = _chosen_images(scale)
    cipher = PatchCipher(SecretKey.for_experiment(0), size)
    encrypted = encrypt_model(model, cipher, **norm)
    for turn in ("none", *TURNS):
        other = cipher if turn == "none" else turned(cipher, turn)
        found = accuracy(decrypt_model(encrypted, other, **norm), images, labels, **norm)
        yield {"turn": turn, "measure": "accuracy", "value": found}
        yield {"turn": turn, "measure": "entries_right", "value": (other.permutation == cipher.permutation).sum()}


TURNED = Table(
    "turns",
    lambda scale: [{"patch_size": scale.patch_sizes[0]}],
    _turns,
    lambda scale, unit: of_network(scale.at(unit["patch_size"]), 0, 1, scale.anatomy_images),
)


# -- restricted: shuffles of which a share stays in place, under wrong keys of the same kind and without a key ---------
# Such keys agree in part whatever they are, so each trial has a correct key of its own, and a wrong one.


def _restricted(scale: Scale, unit: dict):
    size, norm = unit["patch_size"], scale.data().norm
    model, _ = trained_model(scale.at(size))
    images, labels = _chosen_images(scale)
    for trial in range(scale.anatomy_keys):
        right, wrong = (
            restricted(SecretKey.for_experiment(seed), size, unit["in_place"]) for seed in (trial, 1000 + trial)
        )
        locked = encrypt_model(model, right, **norm)
        for case, opened in (("wrong key", decrypt_model(locked, wrong, **norm)), ("no key", locked)):
            found = accuracy(opened, images, labels, **norm, autocast=bf16_is_faster(default_device()))
            yield {"case": case, "trial": trial, "measure": "accuracy", "value": found}


RESTRICTED = Table(
    "restricted",
    lambda scale: [
        {"patch_size": scale.patch_sizes[0], "in_place": 3 * scale.patch_sizes[0] ** 2 * quarters // 4}
        for quarters in range(4)
    ],
    _restricted,
    lambda scale, unit: of_network(scale.at(unit["patch_size"]), 0, scale.anatomy_keys, scale.anatomy_images),
    trained=lambda scale, unit: (scale.at(unit["patch_size"]), 0),
    left_out=("paper",),
)
