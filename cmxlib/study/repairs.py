"""Table `repairs`: exactness and cost of each repair, and what attacks find where `attack_images` does not say.

Images have three colours. Models of other patch sizes are untrained, since exactness and time do not depend on that.
Ratios are to the plain model of the scale, to the cipher of shuffles and flips, and (rekey_ratio) to the time that an
image takes.
"""

import statistics
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ..attacks.jigsaw import jigsaw_by_position
from ..attacks.matching import share_recovered
from ..attacks.metrics import ssim
from ..attacks.on_images import ciphertext_only, known_plaintext
from ..attacks.on_repairs import (
    chained,
    chosen_image_by_position,
    chosen_image_of_bits,
    ciphertext_and_model_by_position,
    ciphertext_and_model_of_bits,
    ciphertext_only_by_position,
    known_plaintext_by_position,
    relative_cipher,
)
from ..learn.evaluate import accuracy, logits
from ..lock.bits import bit_model, from_bits, to_bits
from ..lock.keys import SecretKey
from ..lock.model import encrypt_model
from ..lock.patch import PatchCipher
from ..lock.position import PositionCipher, encrypt_model_by_position
from .images import drawn
from .scales import CIPHERS, Scale, new_model, trained_model
from .table import Table, in_turns, of_attack

FEW, BITS_PUBLIC, ROUNDS = 500, 2000, 5  # test images for exactness and time; public images in bits; timings
NEW_KEYS = "new key for each image"
POSITIONS = ("key by position", "EtC by position")
BITS = ("flips of single bits", "single bits")


@dataclass
class _Repair:
    """A repair at a scale: its plain model, its cipher, how images and the model are prepared for it."""

    name: str
    scale: Scale
    key_seed: int

    def __post_init__(self):
        data, size = self.scale.data(), self.scale.patch_sizes[0]
        self.norm: dict[str, Any] = data.norm
        self.plain_norm = data.norm
        self.model, key = trained_model(self.scale)[0], SecretKey.for_experiment(self.key_seed)
        if self.name in CIPHERS:
            self.cipher = CIPHERS[self.name](key, size)
        elif self.name.startswith("patch size"):
            size = int(self.name.split()[-1])
            self.model, self.cipher = new_model(self.scale.at(size)).eval(), PatchCipher(key, size)
        elif self.name in POSITIONS:
            self.cipher = PositionCipher(key, size) if self.name == POSITIONS[0] else PositionCipher.etc(key, size)
        else:
            self.steps = ("flip",) if self.name == BITS[0] else ("shuffle", "flip")
            self.cipher = PatchCipher(key, size, 24, steps=self.steps)
            self.norm = {"mean": (0,) * 24, "std": (1,) * 24}

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        return to_bits(images) if self.name in BITS else images

    def encrypt(self, images: torch.Tensor) -> torch.Tensor:
        return self.cipher.encrypt(self.prepare(images))

    def locked(self) -> nn.Module:
        if self.name in POSITIONS:
            return encrypt_model_by_position(self.model, self.cipher, **self.norm)
        plain = bit_model(self.model, **self.plain_norm) if self.name in BITS else self.model
        return encrypt_model(plain, self.cipher, **self.norm)


def _units(scale: Scale):
    size, attack = scale.patch_sizes[0], scale.attack
    model_too = [n for n in attack.victims if n <= max(attack.repaired)]
    counts = {
        "ciphertext only": attack.repaired,
        "ciphertext and model": model_too,
        "known plaintext": attack.pairs,
        "chosen plaintext": (1,),
    }
    attacked = dict.fromkeys((POSITIONS[0], *BITS), counts) | {NEW_KEYS: {"ciphertext and model": model_too}}
    few = [n for n in attack.victims if n <= 100]  # no more are needed
    attacked[POSITIONS[1]] = {"jigsaw": few, "known plaintext": attack.pairs[:2], "chosen plaintext": (1,)}
    attacked[POSITIONS[1]]["ciphertext and model"] = few
    names = [*CIPHERS, *(f"patch size {other}" for other in sorted({2, 4, 8} - {size})), *attacked]
    for name in names:
        if name != NEW_KEYS:  # whose cipher is the usual one
            yield {"repair": name, "attack": "", "seen": 0, "draw": 0}
        for kind, numbers in attacked.get(name, {}).items():
            for seen in numbers:
                for draw in range(attack.draws):
                    yield {"repair": name, "attack": kind, "seen": seen, "draw": draw}


def _measure(scale: Scale, unit: dict):
    if unit["repair"] == NEW_KEYS:
        found = _new_keys(scale, unit["seen"], unit["draw"])
    else:
        repair = _Repair(unit["repair"], scale, unit["draw"])
        found = _attacked(repair, unit) if unit["attack"] else _cost(repair)
    return [{"measure": name, "value": value} for name, value in found.items()]


def _cost(repair: _Repair) -> dict[str, float]:
    few, usual = (
        repair.scale.data().test_images[:FEW],
        PatchCipher(SecretKey.for_experiment(0), repair.scale.patch_sizes[0]),
    )
    model, changed, ready = trained_model(repair.scale)[0], repair.locked(), repair.encrypt(few)
    expected, found = logits(repair.model, few, **repair.plain_norm), logits(changed, ready, **repair.norm)
    numbers = [sum(p.numel() for p in net[0].parameters()) for net in (model, changed)]
    exact = {
        "differ": (found.argmax(1) != expected.argmax(1)).sum().item(),
        "max_logit_difference": (found - expected).abs().max().item(),
        "first_layer_ratio": numbers[1] / numbers[0],
    }
    if repair.name == POSITIONS[1]:  # its embedding and its cipher compute what those of any key by position do
        return exact
    # Layer by layer for all of them: the quick way of a plain ConvMixer on a CPU does not know other embeddings.
    layers = [nn.Sequential(*net) for net in (model, changed)]
    jobs = {
        "plain": lambda: logits(layers[0], few, **repair.plain_norm),
        "changed": lambda: logits(layers[1], ready, **repair.norm),
        "usual cipher": lambda: usual.encrypt(few),
        "cipher": lambda: repair.encrypt(few),
        "new key": repair.locked,
    }
    times = in_turns(jobs, ROUNDS + 1)
    seconds = {name: statistics.median(found[1:]) for name, found in times.items()}  # the first one warms up
    return exact | {
        "inference_ratio": seconds["changed"] / seconds["plain"],
        "encryption_ratio": seconds["cipher"] / seconds["usual cipher"],
        "rekey_ratio": seconds["new key"] / (seconds["changed"] / len(few)),
    }


def _attacked(repair: _Repair, unit: dict) -> dict[str, float]:
    """What an attack on keys by position or on single bits finds."""
    data, size, kind, bits = repair.scale.data(), repair.cipher.patch_size, unit["attack"], repair.name in BITS
    public, locked = data.train_images[: repair.scale.attack.public], repair.locked()
    plain = drawn(data.test_images, unit["seen"], unit["draw"])
    if kind == "chosen plaintext":
        plain = chosen_image_of_bits(size) if bits else chosen_image_by_position(size)
    seen = repair.encrypt(plain)
    estimate: PatchCipher | PositionCipher
    match kind, bits:
        case "jigsaw", _:
            estimate = jigsaw_by_position(seen, public, size)
        case "ciphertext only", True:
            estimate = ciphertext_only(seen, to_bits(public[:BITS_PUBLIC]), size, repair.steps, restarts=2)
        case "ciphertext only", False:
            estimate = ciphertext_only_by_position(seen, public, size)
        case "ciphertext and model", True:
            estimate = ciphertext_and_model_of_bits(seen, locked[0].weight, public, size)
        case "ciphertext and model", False:
            estimate = ciphertext_and_model_by_position(seen, locked[0], public, std=data.std)
        case _, True:  # known or chosen plaintext
            estimate = known_plaintext(seen, repair.prepare(plain), size, repair.steps)
        case _:
            estimate = known_plaintext_by_position(seen, plain, size)
    return _worth(estimate, repair.cipher, locked, data, repair.prepare, repair.norm)


def _worth(estimate, cipher, locked, data, prepare, norm) -> dict[str, float]:
    """What an estimate is worth: the share of the map, likeness of decrypted images, accuracy of the opened model."""
    few, labels = data.test_images[:1000], data.test_labels[:1000]
    shown = estimate.decrypt(cipher.encrypt(prepare(few[:100])))
    shown = shown if shown.dtype == torch.uint8 else from_bits(shown)
    both = zip(getattr(estimate, "ciphers", [estimate]), getattr(cipher, "ciphers", [cipher]), strict=True)
    return {
        "share_recovered": np.mean([share_recovered(*pair) for pair in both]),
        "ssim": ssim(few[:100], shown).mean(),
        # The encrypted model on images that the estimate encrypts: what decrypt_model would give, for any embedding.
        "opened_accuracy": accuracy(locked, estimate.encrypt(prepare(few)), labels, **norm),
    }


def _new_keys(scale: Scale, count: int, draw: int) -> dict[str, float]:
    """A new key for each image: one image is seen under each key, with the model of each key at hand."""
    data, size = scale.data(), scale.patch_sizes[0]
    norm, model = data.norm, trained_model(scale)[0]
    ciphers = [PatchCipher(SecretKey.for_experiment(1000 * draw + i), size) for i in range(count)]
    embeddings = [encrypt_model(nn.Sequential(model[0]), cipher, **norm)[0].weight for cipher in ciphers]
    maps = [relative_cipher(embeddings[0], each, std=data.std, patch_size=size) for each in embeddings]
    plain = drawn(data.test_images, count, draw)
    seen = [cipher.encrypt(image) for cipher, image in zip(ciphers, plain, strict=True)]
    under_one_key = torch.stack([each.decrypt(image) for each, image in zip(maps, seen, strict=True)])
    estimate = ciphertext_only(under_one_key, data.train_images[: scale.attack.public], size)
    locked = encrypt_model(model, ciphers[0], **norm)
    found = _worth(estimate, ciphers[0], locked, data, lambda images: images, norm)
    pairs = zip(maps, ciphers, strict=True)
    return found | {"share_recovered": np.mean([share_recovered(chained(estimate, m), c) for m, c in pairs])}


def _over(scale: Scale, unit: dict) -> dict:
    if unit["repair"] == NEW_KEYS:
        return of_attack(scale, max(scale.attack.repaired), n_keys=max(scale.attack.repaired))
    return of_attack(scale, FEW)


REPAIRS = Table("repairs", _units, _measure, _over, timed=True)
