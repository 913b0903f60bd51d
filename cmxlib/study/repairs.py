"""The recorded repairs: table `repairs` of `results/<scale>/`, as in `security_study`."""

import time

import numpy as np
import torch
from torch import nn

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
from ..learn.data import load_dataset
from ..learn.evaluate import accuracy, logits
from ..lock.bits import bit_model, from_bits, to_bits
from ..lock.keys import SecretKey
from ..lock.model import encrypt_model
from ..lock.patch import PatchCipher
from ..lock.position import PositionCipher, encrypt_model_by_position
from . import records
from .images import STEPS, AttackSettings, drawn, origin
from .scales import Scale, new_model, trained_model


def repairs(scale: Scale, settings: AttackSettings) -> None:
    """Table `repairs`: exactness and cost of each repair, and what attacks find where `attack_images` does not say.

    Models of other patch sizes are untrained, since exactness and time do not depend on that. Ratios are to the plain
    model of the scale, to the cipher of shuffles and flips, and (rekey_ratio) to the time that an image takes.
    """
    data, path = load_dataset(scale.dataset), records.table_path(scale.name, "repairs")
    size, key, norm = scale.model["patch_size"], SecretKey.for_experiment(0), {"mean": data.mean, "std": data.std}
    usual, model = PatchCipher(key, size), trained_model(scale)[0]
    few, unit_norm = data.test_images[:500], {"mean": (0,) * 24, "std": (1,) * 24}
    cases = {"+".join(steps): (model, PatchCipher(key, size, steps=steps)) for steps in STEPS}
    for other in {2, 4, 8} - {size}:
        cases[f"patch size {other}"] = new_model(scale.with_patch_size(other)).eval(), PatchCipher(key, other)
    cases["key by position"] = model, PositionCipher(key, size)
    cases["flips of single bits"] = model, PatchCipher(key, size, 24, steps=("flip",))
    cases["single bits"] = model, PatchCipher(key, size, 24)
    for name, (plain, cipher) in cases.items():
        if records.done(path, {"repair": name}):
            continue
        start = time.perf_counter()
        prepare, how = (to_bits, unit_norm) if "bits" in name else (lambda x: x, norm)

        def encrypt(plain=plain, cipher=cipher, name=name):
            if name == "key by position":
                return encrypt_model_by_position(plain, cipher, **norm)
            return (
                encrypt_model(bit_model(plain, **norm), cipher, **unit_norm)
                if "bits" in name
                else (encrypt_model(plain, cipher, **norm))
            )

        # Layer by layer for all of them: the quick way of a plain ConvMixer on a CPU does not know other embeddings.
        changed, layers = encrypt(), [nn.Sequential(*net) for net in (model, encrypt())]
        ready = cipher.encrypt(prepare(few))
        jobs = {
            "plain": lambda: logits(layers[0], few, **norm),  # noqa: B023
            "changed": lambda: logits(layers[1], ready, **how),  # noqa: B023
            "usual cipher": lambda: usual.encrypt(few),
            "cipher": lambda: cipher.encrypt(prepare(few)),  # noqa: B023
            "new key": encrypt,
        }
        seconds = _timed(jobs)
        expected, found = logits(plain, few, **norm), logits(changed, ready, **how)
        numbers = [sum(p.numel() for p in net[0].parameters()) for net in (model, changed)]
        measured = {
            "differ": (found.argmax(1) != expected.argmax(1)).sum().item(),
            "max_logit_difference": (found - expected).abs().max().item(),
            "first_layer_ratio": numbers[1] / numbers[0],
            "inference_ratio": seconds["changed"] / seconds["plain"],
            "encryption_ratio": seconds["cipher"] / seconds["usual cipher"],
            "rekey_ratio": seconds["new key"] / (seconds["changed"] / len(few)),
        }
        rows = [{"attack": "", "seen": 0, "draw": 0, "measure": m, "value": v} for m, v in measured.items()]
        rows += _attacks_on(name, cipher, changed, data, settings, prepare, how)
        where = origin(scale, data, settings, start, len(few), n_keys=1)
        records.append(path, [{"repair": name, **row} for row in rows], where)
    _new_keys(scale, settings, data, model, path)


def _attacks_on(name, cipher, locked, data, settings, prepare, how):
    """The attacks on keys by position and on single bits, row by row; on other ciphers: nothing."""
    size, public = cipher.patch_size, data.train_images[: settings.public]
    bits, weight = prepare(public[:2000]) if "bits" in name else None, locked[0].weight
    steps = ("flip",) if name == "flips of single bits" else ("shuffle", "flip")
    attacks = {
        "key by position": {
            "ciphertext only": lambda x, y: ciphertext_only_by_position(y, public, size),
            "ciphertext and model": lambda x, y: ciphertext_and_model_by_position(y, locked[0], public, std=data.std),
            "known plaintext": lambda x, y: known_plaintext_by_position(x, y, size),
            "chosen plaintext": lambda x, y: known_plaintext_by_position(x, y, size),
        },
        "single bits": {
            "ciphertext only": lambda x, y: ciphertext_only(y, bits, size, steps, restarts=2),
            "ciphertext and model": lambda x, y: ciphertext_and_model_of_bits(y, weight, public, size),
            "known plaintext": lambda x, y: known_plaintext(prepare(x), y, patch_size=size, steps=steps),
            "chosen plaintext": lambda x, y: known_plaintext(prepare(x), y, patch_size=size, steps=steps),
        },
    }
    attacks["flips of single bits"] = attacks["single bits"]
    counts = {
        "ciphertext only": settings.repaired,
        "ciphertext and model": [n for n in settings.victims if n <= max(settings.repaired)],
        "known plaintext": settings.pairs,
        "chosen plaintext": (1,),
    }
    for attack, estimate_from in attacks.get(name, {}).items():
        for count in counts[attack]:
            for draw in range(1 if attack == "chosen plaintext" else settings.draws):
                plain = drawn(data.test_images, count, draw)
                if attack == "chosen plaintext":
                    plain = chosen_image_of_bits(size) if "bits" in name else chosen_image_by_position(size)
                estimate = estimate_from(plain, cipher.encrypt(prepare(plain)))
                found = _worth(estimate, cipher, locked, data, prepare, how)
                yield from (
                    {"attack": attack, "seen": count, "draw": draw, "measure": m, "value": found[m]} for m in found
                )


def _worth(estimate, cipher, locked, data, prepare=lambda x: x, how=None):
    """What an estimate is worth: the share of the map, likeness of decrypted images, accuracy of the opened model."""
    few, labels = data.test_images[:1000], data.test_labels[:1000]
    shown = estimate.decrypt(cipher.encrypt(prepare(few[:100])))
    shown = shown if shown.dtype == torch.uint8 else from_bits(shown)
    both = zip(getattr(estimate, "ciphers", [estimate]), getattr(cipher, "ciphers", [cipher]), strict=True)
    return {
        "share_recovered": np.mean([share_recovered(*pair) for pair in both]),
        "ssim": ssim(few[:100], shown).mean(),
        # The encrypted model on images that the estimate encrypts: what decrypt_model would give, for any embedding.
        "opened_accuracy": accuracy(locked, estimate.encrypt(prepare(few)), labels, **how),
    }


def _new_keys(scale, settings, data, model, path):
    """A new key for each image: rows of one image under one key, with the model of each key at hand."""
    name = "new key for each image"
    if records.done(path, {"repair": name}):
        return
    start, size = time.perf_counter(), scale.model["patch_size"]
    norm, public = {"mean": data.mean, "std": data.std}, data.train_images[: settings.public]
    rows = []
    for count in [n for n in settings.victims if n <= max(settings.repaired)]:
        ciphers = [PatchCipher(SecretKey.for_experiment(seed), size) for seed in range(count)]
        embeddings = [encrypt_model(model[:1], cipher, **norm)[0].weight for cipher in ciphers]
        maps = [relative_cipher(embeddings[0], each, std=data.std, patch_size=size) for each in embeddings]
        locked = encrypt_model(model, ciphers[0], **norm)
        for draw in range(settings.draws):
            plain = drawn(data.test_images, count, draw)
            seen = [cipher.encrypt(image) for cipher, image in zip(ciphers, plain, strict=True)]
            under_one_key = torch.stack([each.decrypt(image) for each, image in zip(maps, seen, strict=True)])
            estimate = ciphertext_only(under_one_key, public, size)
            found = _worth(estimate, ciphers[0], locked, data, how=norm)
            pairs = zip(maps, ciphers, strict=True)
            found["share_recovered"] = np.mean([share_recovered(chained(estimate, m), c) for m, c in pairs])
            where = {"repair": name, "attack": "ciphertext and model", "seen": count, "draw": draw}
            rows += [{**where, "measure": measure, "value": value} for measure, value in found.items()]
    records.append(path, rows, origin(scale, data, settings, start, max(settings.repaired), n_keys=count))


def _timed(jobs, rounds=5):
    """The median seconds of each job, in turn, so that a slow minute of the machine falls on all of them."""
    seconds = {name: [] for name in jobs}
    for _ in range(rounds + 1):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            seconds[name].append(time.perf_counter() - start)
    return {name: np.median(values[1:]) for name, values in seconds.items()}  # the first one warms up
