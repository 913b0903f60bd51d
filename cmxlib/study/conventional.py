"""The recorded comparison with conventional methods: table `conventional` of `results/<scale>/`.

Each conventional method gets a network of its own, trained on encrypted images with the initial weights, batches,
augmentation, recipe and budget of the plain one. Images are augmented first and encrypted then, batch by batch: a
crop of an encrypted image would cut through its blocks. The method "proposed" trains nothing: it encrypts the plain
model.

For a look at what the methods do to pictures:

    from cmxlib import conventional, figures
    ciphers = [conventional.make_cipher(method, key) for method in conventional.METHODS]
    figures.image_grid([[image, *(c.encrypt(image) for c in ciphers)] for image in images],
                       column_titles=["plain", *conventional.METHODS])
"""

import dataclasses
import hashlib
import json
import time

import numpy as np

from ..learn.data import load_dataset
from ..learn.evaluate import accuracy, key_trials
from ..learn.train import default_device, fit
from ..lock.conventional import METHODS, key_space_bits, make_cipher
from ..lock.keys import SecretKey
from ..lock.model import decrypt_model, encrypt_model
from ..lock.patch import PatchCipher
from ..paths import cache_dir
from . import records
from .accuracy import origin
from .records import uninterrupted
from .scales import Scale, new_model, trained_model

SEEDS = (0, 1, 2)
PAPER_SEEDS = (0,)  # one training takes about an hour of one core there
N_WRONG = 5
COMPARED = ("plain", "proposed", *METHODS)


def conventional(scale: Scale, say=print, *, methods=COMPARED, seeds=None) -> None:
    """Measure table `conventional`, one method and seed after the other; what is recorded already is skipped.

    methods: some of ``COMPARED``. seeds: ``SEEDS`` unless given, and at scale paper ``PAPER_SEEDS``.

    Blocks are as large as the network's patches. The seed is that of weights and training, and the experiment key's;
    wrong keys follow it. Rows have the columns method, block_size, seed, case, key_seed (-1: none), and

        measure "accuracy"  case "correct key", "wrong key" (test images encrypted with it), "no key" (plain test
                            images); for the method "plain" only case "plain"
        measure "seconds"   case "key change": training anew, with a test after each epoch and ``uninterrupted``; for
                            "proposed" the median of seven times decrypting the model and encrypting it with another key
        measure "bits"      case "key space"

    An interrupted training goes on from its last epoch.
    """
    path, block_size = records.table_path(scale.name, "conventional"), scale.model["patch_size"]
    data = load_dataset(scale.dataset)
    for seed in seeds or (PAPER_SEEDS if scale.name == "paper" else SEEDS):
        for method in methods:
            unit = {"method": method, "block_size": block_size, "seed": seed}
            if records.done(path, unit):
                continue
            start = time.perf_counter()
            measure = {"plain": _plain, "proposed": _proposed}.get(method, _conventional)
            rows = [
                {**unit, "case": case, "key_seed": key_seed, "measure": name, "value": value}
                for case, key_seed, name, value in measure(scale, data, **unit)
            ]
            n_wrong = 0 if method == "plain" else N_WRONG
            records.append(path, rows, origin(scale, data, time.perf_counter() - start, seed, n_wrong))
            right = next(row["value"] for row in rows if row["measure"] == "accuracy")
            say(f"conventional: {method}, seed {seed}: {right:.2%} ({time.perf_counter() - start:.0f} s)")


def _plain(scale, data, method, block_size, seed):
    model, _ = trained_model(scale, seed=seed)
    yield "plain", -1, "accuracy", accuracy(model, data.test_images, data.test_labels, mean=data.mean, std=data.std)


def _proposed(scale, data, method, block_size, seed):
    model, _ = trained_model(scale, seed=seed)
    for trial in key_trials(model, data, {"patch_size": block_size}, N_WRONG, seed=seed).to_dict("records"):
        if trial["case"] in ("correct key", "wrong key", "no key"):
            yield trial["case"], trial["key_seed"], "accuracy", trial["accuracy"]
    norm, seconds = {"mean": data.mean, "std": data.std}, []
    old = PatchCipher(SecretKey.for_experiment(seed), block_size)
    encrypted = encrypt_model(model, old, **norm)
    for trial in range(1, 8):
        before = time.perf_counter()
        new = PatchCipher(SecretKey.for_experiment(seed + trial), block_size)
        encrypt_model(decrypt_model(encrypted, old, **norm), new, **norm)
        seconds.append(time.perf_counter() - before)
    yield "key change", seed, "seconds", float(np.median(seconds))
    yield "key space", -1, "bits", old.key_bits()


def _conventional(scale, data, method, block_size, seed):
    sizes = {"block_size": block_size, "image_size": tuple(data.test_images.shape[2:])}
    model, history = _trained_on_encrypted(scale, data, method, sizes, seed)

    def accuracy_on(images):
        return accuracy(model, images, data.test_labels, mean=data.mean, std=data.std)

    for key_seed in range(seed, seed + 1 + N_WRONG):
        images = make_cipher(method, SecretKey.for_experiment(key_seed), **sizes).encrypt(data.test_images)
        yield "correct key" if key_seed == seed else "wrong key", key_seed, "accuracy", accuracy_on(images)
    yield "no key", -1, "accuracy", accuracy_on(data.test_images)
    yield "key change", seed, "seconds", uninterrupted(history.seconds)
    yield "key space", -1, "bits", key_space_bits(method, **sizes)


def _trained_on_encrypted(scale, data, method, sizes, seed):
    """The scale's network, trained on images encrypted with SecretKey.for_experiment(seed), and its history."""
    cipher = make_cipher(method, SecretKey.for_experiment(seed), **sizes)
    settings = dataclasses.replace(scale.train, seed=seed)
    recipe = json.dumps([scale.dataset, scale.model, vars(settings), method, sizes], sort_keys=True)
    name = f"{scale.name}-{method}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}-seed{seed}"
    model = new_model(scale, seed)
    history = fit(
        model,
        dataclasses.replace(data, test_images=cipher.encrypt(data.test_images)),
        settings,
        checkpoint=cache_dir() / "checkpoints" / name,
        transform=cipher.encrypt,
        device=default_device(),
    )
    return model, history
