"""Tables of the attacks on images: `visibility`, `attack_pairs` (known and chosen plaintext), `attack_images`."""

import functools
from typing import Any

import numpy as np
import torch

from ..attacks.matching import share_recovered
from ..attacks.metrics import psnr, ssim
from ..attacks.on_images import chosen_image, chosen_plaintext, ciphertext_only, known_plaintext, patch_moments
from ..learn.data import load_dataset
from ..learn.evaluate import accuracy
from ..lock.keys import SecretKey
from ..lock.model import decrypt_model, encrypt_model
from ..lock.patch import PatchCipher, to_blocks
from ..lock.pixels import to_bytes
from .scales import CIPHERS, Scale, ciphers, trained_model
from .table import Table, of_attack

NEAR = "same data set"  # public images of the data set itself; FAR: how far they may be from the victim's
FAR = ("other classes", "100 images", "fontdigits", "photos")
VISIBLE_IMAGES, SHOWN, OPENED = 1000, 100, 1000  # for likeness; of decrypted images; for an opened model


def _cipher(scale: Scale, unit: dict) -> PatchCipher:
    """The cipher of a unit, under a key of its draw's own."""
    return ciphers(scale.channels)[unit["steps"]](SecretKey.for_experiment(unit.get("draw", 0)), unit["patch_size"])


def _options(unit: dict) -> dict:
    return {"patch_size": unit["patch_size"], "steps": tuple(unit["steps"].split("+"))}


def drawn(images: torch.Tensor, count: int, draw: int) -> torch.Tensor:
    """``count`` images at random, other ones for each draw."""
    return images[torch.randperm(len(images), generator=torch.Generator().manual_seed(draw))[:count]]


# -- visibility: how alike images and encrypted images are -----------------------------------------------------------
# contrast_correlation is that between the standard deviations of the blocks, before and after, within an image: what
# the eye sees as edges and silhouettes.


def _visibility(scale: Scale, unit: dict):
    images = scale.data().test_images[:VISIBLE_IMAGES]
    shown = to_bytes(_cipher(scale, unit).encrypt(images))
    contrast = [to_blocks(each.float(), unit["patch_size"]).std(2).numpy() for each in (images, shown)]
    correlated = [np.corrcoef(a, b)[0, 1] for a, b in zip(*contrast, strict=True) if a.std() and b.std()]
    found = {"ssim": ssim(images, shown), "psnr": psnr(images, shown), "contrast_correlation": correlated}
    return [{"measure": name, "value": np.mean(values)} for name, values in found.items()]


def _sizes_and_steps(scale: Scale) -> list[dict]:
    return [{"patch_size": size, "steps": steps} for size in scale.attack.patch_sizes for steps in CIPHERS]


VISIBILITY = Table("visibility", _sizes_and_steps, _visibility, lambda scale, unit: of_attack(scale, VISIBLE_IMAGES))


# -- attack_pairs: known and chosen plaintext; for the chosen image, `pixels` is its height and width ------------------


def _pair_units(scale: Scale):
    for where in _sizes_and_steps(scale):
        for count in scale.attack.pairs:
            for draw in range(scale.attack.draws):
                yield {"attack": "known plaintext", **where, "pairs": count, "draw": draw}
        for draw in range(scale.attack.draws):
            yield {"attack": "chosen plaintext", **where, "pairs": 1, "draw": draw}


def _pairs(scale: Scale, unit: dict):
    cipher, options = _cipher(scale, unit), _options(unit)
    if unit["attack"] == "known plaintext":
        plain = drawn(scale.data().test_images, unit["pairs"], unit["draw"])
        estimate = known_plaintext(cipher.encrypt(plain), plain, **options)
    else:
        estimate = chosen_plaintext(cipher.encrypt, channels=scale.channels, **options)
        side = chosen_image(unit["patch_size"], scale.channels, options["steps"]).shape[-1]
        yield {"measure": "pixels", "value": side}
    yield {"measure": "share_recovered", "value": share_recovered(estimate, cipher)}


PAIRS = Table("attack_pairs", _pair_units, _pairs, lambda scale, unit: of_attack(scale, max(scale.attack.pairs)))


# -- attack_images: ciphertext only, by public images, block size, steps and number of encrypted images ---------------
# Each draw has victims' images and a key of its own. share_recovered; ssim and mse of decrypted images;
# recovered_accuracy: of the plain network on them; opened_accuracy: of the encrypted model with the estimated key,
# where the block size is that of the model.


def _image_units(scale: Scale):
    model_size = scale.patch_sizes[0]
    for where in _sizes_and_steps(scale):
        yield from _counts(scale, {"public": NEAR, "neighbours": True, **where})
        if where["patch_size"] == model_size and where["steps"] != "orthogonal":
            yield from _counts(scale, {"public": NEAR, "neighbours": False, **where})
    for public in FAR if scale.channels == 3 else FAR[:2]:  # the other data sets are in colour
        for steps in ("shuffle+flip", "orthogonal"):
            yield from _counts(scale, {"public": public, "neighbours": True, "patch_size": model_size, "steps": steps})


def _counts(scale, unit):
    # For CIFAR-10 taken without its files, so that a status needs none: there are more than any number asked for.
    pool = max(scale.attack.victims) if scale.dataset == "cifar10" else len(_pool(scale, unit["public"]))
    for count in scale.attack.victims:
        for draw in range(scale.attack.draws if count <= pool else 0):
            yield {**unit, "n_encrypted": count, "draw": draw}


@functools.lru_cache(maxsize=2)
def _pool(scale, public):
    """The victims' images: all that are not public, so that draws of many differ too; of the attacker's classes no
    other, where the attacker has other classes or kinds."""
    data, n = scale.data(), scale.attack.public
    images = torch.cat([data.train_images[n:], data.test_images])
    labels = torch.cat([data.train_labels[n:], data.test_labels])
    return images if public == NEAR else images[labels < len(data.classes) // 2]


@functools.lru_cache(maxsize=4)
def _public(scale, public, size):
    """The moments of the attacker's public images."""
    data, n = scale.data(), scale.attack.public
    images = {
        NEAR: lambda: data.train_images[:n],
        "other classes": lambda: data.train_images[data.train_labels >= len(data.classes) // 2][:n],
        "100 images": lambda: data.train_images[:100],
        "fontdigits": lambda: load_dataset("fontdigits").train_images[:n],
        "photos": photo_tiles,
    }[public]()
    return patch_moments(images, size)


def _images(scale: Scale, unit: dict):
    data, size, draw = scale.data(), unit["patch_size"], unit["draw"]
    cipher, near = _cipher(scale, unit), unit["public"] == NEAR
    plain = drawn(_pool(scale, unit["public"]), unit["n_encrypted"], draw)
    seen, public = cipher.encrypt(plain), _public(scale, unit["public"], size)
    estimate = ciphertext_only(seen, public, **_options(unit), neighbours=unit["neighbours"], seed=draw)
    shown = to_bytes(estimate.decrypt(seen[:SHOWN]))
    found = {"share_recovered": share_recovered(estimate, cipher)}
    found |= {"ssim": ssim(plain[:SHOWN], shown).mean(), "mse": np.mean(10 ** (-psnr(plain[:SHOWN], shown) / 10))}
    if near and unit["neighbours"]:
        found["recovered_accuracy"] = come_back(scale, estimate, cipher)[1]
        if size == scale.patch_sizes[0]:
            norm = data.norm
            opened = decrypt_model(encrypt_model(trained_model(scale)[0], cipher, **norm), estimate, **norm)
            found["opened_accuracy"] = accuracy(opened, data.test_images[:OPENED], data.test_labels[:OPENED], **norm)
    return [{"measure": name, "value": value} for name, value in found.items()]


def come_back(scale: Scale, estimate: Any, cipher: Any) -> tuple[torch.Tensor, float]:
    """The first test images, encrypted with the cipher and decrypted with its estimate, in bytes, and the accuracy of
    the plain network on them."""
    data = scale.data()
    shown = to_bytes(estimate.decrypt(cipher.encrypt(data.test_images[:OPENED])))
    return shown, accuracy(trained_model(scale)[0], shown, data.test_labels[:OPENED], **data.norm)


def photo_tiles() -> torch.Tensor:
    """Photographs that scikit-image ships, halved in size, in tiles of 32 pixels: uint8 (N, 3, 32, 32)."""
    from skimage import data as photos
    from skimage.transform import resize

    tiles = []
    for photo in (photos.astronaut(), photos.chelsea(), photos.coffee(), photos.rocket()):
        height, width = (side // 64 * 32 for side in photo.shape[:2])
        small = resize(photo, (height, width), anti_aliasing=True)
        small = to_bytes(torch.from_numpy(small)).permute(2, 0, 1)
        tiles.append(small.unfold(1, 32, 32).unfold(2, 32, 32).permute(1, 2, 0, 3, 4).flatten(0, 1))
    return torch.cat(tiles)


IMAGES = Table("attack_images", _image_units, _images, lambda scale, unit: of_attack(scale, unit["n_encrypted"]))
