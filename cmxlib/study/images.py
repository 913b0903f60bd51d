"""The recorded attacks on images: each function measures one table of `results/<scale>/`, or what it still lacks.

`cmx attack --scale small` runs all of them, and those on models in `stolen_study`, and prints how much of the key was
found.
"""

import time
from dataclasses import dataclass

import numpy as np
import torch
from skimage import data as photos
from skimage.transform import resize

from ..attacks.matching import share_recovered
from ..attacks.metrics import psnr, ssim
from ..attacks.on_images import chosen_image, chosen_plaintext, ciphertext_only, known_plaintext, patch_moments
from ..learn.data import load_dataset
from ..learn.evaluate import accuracy
from ..lock.keys import SecretKey
from ..lock.model import decrypt_model, encrypt_model
from ..lock.patch import PatchCipher, to_blocks
from . import records
from .scales import SCALES, Scale, trained_model

STEPS = (("shuffle",), ("flip",), ("shuffle", "flip"), ("orthogonal",))


@dataclass(frozen=True)
class AttackSettings:
    """How much each attack gets at a scale; counts are of images unless said otherwise.

    victims: encrypted images seen; public: images of the same kind that the attacker has; draws: repetitions with
    other victims' images; patch_sizes; pairs: known plaintexts; labelled: of a stolen model's attacker; trials: keys
    tried by random and hill climbing; iterations: of a gradient search, or batches of a training, on a stolen model;
    retrain_steps: batches of an adversary's own model; opened: test images
    for the accuracy of an opened model; attacked: images made adversarial; queries: of Square; repaired: encrypted
    images seen under the repairs.
    """

    victims: tuple[int, ...]
    public: int
    draws: int
    patch_sizes: tuple[int, ...]
    pairs: tuple[int, ...]
    labelled: tuple[int, ...]
    trials: int
    iterations: int
    retrain_steps: int
    opened: int
    attacked: int
    queries: int
    repaired: tuple[int, ...]


_FULL = AttackSettings(
    victims=(1, 3, 10, 30, 100, 300, 1000, 10000),
    public=5000,
    draws=3,
    patch_sizes=(2, 4, 8),
    pairs=(1, 2, 5, 10, 20),
    labelled=(10, 100, 1000, 10000),
    trials=300,
    iterations=300,
    retrain_steps=300,
    opened=10000,
    attacked=500,
    queries=300,
    repaired=(30, 100, 300, 1000),
)
SETTINGS = {
    "quick": AttackSettings((10, 100, 1000), 2000, 1, (4,), (1, 2), (100,), 20, 20, 20, 500, 50, 20, (300,)),
    "small": _FULL,
    "paper": _FULL,
}


def run(scale_name: str, say=print) -> None:
    """Measure every table of attacks at a scale, from the quickest to the longest."""
    from . import adversarial as adversarial_study  # which import this module
    from . import repairs as repair_study
    from . import stolen as stolen_study

    scale, settings = SCALES[scale_name], SETTINGS[scale_name]
    on_images = visibility, pairs, ciphertexts, statistics
    on_models = (
        repair_study.repairs,
        stolen_study.stolen_rates,  # which the next two read
        adversarial_study.adversarial,
        stolen_study.stolen_model,
    )
    for unit in (*on_images, *on_models):
        start = time.perf_counter()
        unit(scale, settings)
        say(f"{unit.__name__}: recorded ({time.perf_counter() - start:.0f} s)")


def main(args) -> int:
    """`cmx attack`: run what is not yet recorded, then print the share of the key that each attack found."""
    run(args.scale)
    for table, by in SHARES.items():
        rows = records.read(args.scale, table)
        shares = rows[rows.measure == "share_recovered"].groupby(by, sort=False).value.agg(["mean", "min", "max"])
        print(f"\n{table}: share of the key recovered\n{shares.round(3).to_string()}")
    return 0


SHARES = {  # table: what its rows of the measure share_recovered differ by, beside repetitions
    "attack_pairs": ["attack", "patch_size", "steps", "pairs"],
    "attack_images": ["public", "neighbours", "patch_size", "steps", "n_encrypted"],
    "repairs": ["repair", "attack", "seen"],
    "adversarial": ["knowledge"],
    "stolen_model": ["method", "n_plain", "budget"],
}


def visibility(scale: Scale, settings: AttackSettings) -> None:
    """Table `visibility`: how alike images and encrypted images are, by step and block size.

    contrast_correlation is that between the standard deviations of the blocks, before and after, within an image: what
    the eye sees as edges and silhouettes.
    """
    data, path = load_dataset(scale.dataset), records.table_path(scale.name, "visibility")
    images = data.test_images[:1000]
    for size in settings.patch_sizes:
        for steps in STEPS:
            unit = {"patch_size": size, "steps": "+".join(steps)}
            if records.done(path, unit):
                continue
            start = time.perf_counter()
            shown = _shown(PatchCipher(SecretKey.for_experiment(0), size, steps=steps).encrypt(images))
            contrast = [to_blocks(each.float(), size).std(2).numpy() for each in (images, shown)]
            found = {"ssim": ssim(images, shown), "psnr": psnr(images, shown)}
            found["contrast_correlation"] = [
                np.corrcoef(a, b)[0, 1] for a, b in zip(*contrast, strict=True) if a.std() and b.std()
            ]
            rows = [{**unit, "measure": name, "value": np.mean(values)} for name, values in found.items()]
            records.append(path, rows, origin(scale, data, settings, start, len(images)))


def pairs(scale: Scale, settings: AttackSettings) -> None:
    """Table `attack_pairs`: known and chosen plaintext. For the chosen image, `pixels` is its height and width."""
    data, path = load_dataset(scale.dataset), records.table_path(scale.name, "attack_pairs")
    for size in settings.patch_sizes:
        for steps in STEPS:
            options = {"patch_size": size, "steps": steps}
            unit = {"attack": "chosen plaintext", "patch_size": size, "steps": "+".join(steps)}
            if records.done(path, unit):
                continue
            start = time.perf_counter()
            cipher = PatchCipher(SecretKey.for_experiment(0), **options)
            rows = []
            for count in settings.pairs:
                for draw in range(settings.draws):
                    plain = drawn(data.test_images, count, draw)
                    found = share_recovered(known_plaintext(plain, cipher.encrypt(plain), **options), cipher)
                    where = {**unit, "attack": "known plaintext", "pairs": count, "draw": draw}
                    rows.append({**where, "measure": "share_recovered", "value": found})
            found = share_recovered(chosen_plaintext(cipher.encrypt, **options), cipher)
            where = {**unit, "pairs": 1, "draw": 0}
            rows.append({**where, "measure": "share_recovered", "value": found})
            rows.append({**where, "measure": "pixels", "value": chosen_image(size, 3, steps).shape[-1]})
            records.append(path, rows, origin(scale, data, settings, start, max(settings.pairs)))


def ciphertexts(scale: Scale, settings: AttackSettings) -> None:
    """Table `attack_images`, public images of the data set itself: ciphertext only, by number, block size and steps.

    share_recovered; ssim and psnr of decrypted images; opened_accuracy: of the encrypted model with the estimated key,
    where the block size is that of the model.
    """
    data = load_dataset(scale.dataset)
    for size in settings.patch_sizes:
        public = patch_moments(data.train_images[: settings.public], size)
        for steps in STEPS:
            _attack(scale, settings, data, "same data set", public, size, steps, settings.victims, True)
            if size == scale.model["patch_size"] and steps != ("orthogonal",):
                _attack(scale, settings, data, "same data set", public, size, steps, settings.victims, False)


def statistics(scale: Scale, settings: AttackSettings) -> None:
    """Table `attack_images`, other public images: how far the attacker's statistics may be from the victim's."""
    data, size = load_dataset(scale.dataset), scale.model["patch_size"]
    half = len(data.classes) // 2
    other = data.train_images[data.train_labels >= half][: settings.public]
    few = data.train_images[:100]
    digits = load_dataset("fontdigits").train_images[: settings.public]
    for kind, public in (
        ("other classes", other),
        ("100 images", few),
        ("fontdigits", digits),
        ("photos", photo_tiles()),
    ):
        moments = patch_moments(public, size)
        for steps in (("shuffle", "flip"), ("orthogonal",)):
            _attack(scale, settings, data, kind, moments, size, steps, settings.victims, True, half)


def _attack(scale, settings, data, kind, public, size, steps, victims, neighbours, classes=None):
    """Append to `attack_images` what ciphertext_only finds with these public moments, for each number of victims."""
    path = records.table_path(scale.name, "attack_images")
    pool = data.test_images if classes is None else data.test_images[data.test_labels < classes]
    norm, cipher = {"mean": data.mean, "std": data.std}, PatchCipher(SecretKey.for_experiment(0), size, steps=steps)
    model = trained_model(scale)[0] if classes is None and size == scale.model["patch_size"] and neighbours else None
    test, truth = data.test_images[:1000], data.test_labels[:1000]
    for count in [n for n in victims if n <= len(pool)]:
        unit = {"public": kind, "neighbours": neighbours, "patch_size": size, "steps": "+".join(steps)}
        unit["n_encrypted"] = count
        if records.done(path, unit):
            continue
        start, rows = time.perf_counter(), []
        for draw in range(settings.draws if count < len(pool) else 1):
            plain = drawn(pool, count, draw)
            seen = cipher.encrypt(plain)
            estimate = ciphertext_only(seen, public, size, steps, neighbours=neighbours, seed=draw)
            shown = _shown(estimate.decrypt(seen[:100]))
            found = {"share_recovered": share_recovered(estimate, cipher)}
            found |= {"ssim": ssim(plain[:100], shown).mean(), "mse": np.mean(10 ** (-psnr(plain[:100], shown) / 10))}
            if model is not None and draw == 0:
                opened = decrypt_model(encrypt_model(model, cipher, **norm), estimate, **norm)
                found["opened_accuracy"] = accuracy(opened, test, truth, **norm)
            rows += [{**unit, "draw": draw, "measure": name, "value": value} for name, value in found.items()]
        records.append(path, rows, origin(scale, data, settings, start, count, n_keys=1))


def drawn(images, count, draw):
    """``count`` images at random, other ones for each draw."""
    return images[torch.randperm(len(images), generator=torch.Generator().manual_seed(draw))[:count]]


def _shown(images):
    """Values as an image would show them: cut to [0, 1] where an orthogonal map leaves it, uint8."""
    return images if images.dtype == torch.uint8 else (images.clamp(0, 1) * 255).round().to(torch.uint8)


def photo_tiles():
    """Photographs that scikit-image ships, halved in size, in tiles of 32 pixels: uint8 (N, 3, 32, 32)."""
    tiles = []
    for photo in (photos.astronaut(), photos.chelsea(), photos.coffee(), photos.rocket()):
        height, width = (side // 64 * 32 for side in photo.shape[:2])
        small = resize(photo, (height, width), anti_aliasing=True)
        small = torch.from_numpy((small * 255).round().astype(np.uint8)).permute(2, 0, 1)
        tiles.append(small.unfold(1, 32, 32).unfold(2, 32, 32).permute(1, 2, 0, 3, 4).flatten(0, 1))
    return torch.cat(tiles)


def origin(scale, data, settings, start, n_images, n_keys=1):
    return records.provenance(
        scale=scale.name,
        dataset=data.name,
        settings=settings,
        seeds=range(settings.draws),
        n_images=n_images,
        n_keys=n_keys,
        seconds=time.perf_counter() - start,
    )
