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
import pandas as pd

from . import records
from .cipher import PatchCipher
from .conventional import METHODS, key_space_bits, make_cipher
from .data import cache_dir, load_dataset
from .evaluate import accuracy, key_trials
from .keys import SecretKey
from .protect import decrypt_model, encrypt_model
from .scales import Scale, new_model, trained_model
from .study import origin, summary, uninterrupted
from .train import default_device, fit

SEEDS = (0, 1, 2)
PAPER_SEEDS = (0,)  # one training takes about an hour of one core there
N_WRONG = 5
COMPARED = ("plain", "proposed", *METHODS)

# CIFAR-10 accuracies in per cent as published, each with its own network: (network, method, block, accuracy, source).
# An adaptation network stands before Shake-PyramidNet-110; the source is the README of the code of Madono et al., and
# the logs of the code of arXiv 2010.00801.
PUBLISHED = (
    ("Shake-PyramidNet-110", "plain", None, 96.70, "Madono 2020"),
    ("Shake-PyramidNet-110", "LE", 4, 94.94, "Madono 2020"),
    ("Shake-PyramidNet-110", "EtC", 4, 85.94, "Madono 2020"),
    ("Shake-PyramidNet-110", "ELE", 4, 67.10, "Madono 2020"),
    ("LE's adaptation network", "plain", None, 95.64, "Madono 2020"),
    ("LE's adaptation network", "LE", 4, 94.49, "Madono 2020"),
    ("LE's adaptation network", "EtC", 4, 80.16, "Madono 2020"),
    ("LE's adaptation network", "ELE", 4, 48.39, "Madono 2020"),
    ("ELE's adaptation network", "plain", None, 85.32, "Madono 2020"),
    ("ELE's adaptation network", "LE", 4, 87.28, "Madono 2020"),
    ("ELE's adaptation network", "EtC", 4, 89.09, "Madono 2020"),
    ("ELE's adaptation network", "ELE", 4, 83.06, "Madono 2020"),
    ("ResNet-18", "plain", None, 95.43, "arXiv 2010.00801"),
    ("ResNet-18", "SHF", 2, 94.77, "arXiv 2010.00801"),
    ("ResNet-18", "NP", 2, 95.32, "arXiv 2010.00801"),
    ("ResNet-18", "FFX", 2, 93.79, "arXiv 2010.00801"),
    ("ResNet-18", "SHF", 4, 92.56, "arXiv 2010.00801"),
    ("ResNet-18", "NP", 4, 93.41, "arXiv 2010.00801"),
    ("ResNet-18", "FFX", 4, 92.27, "arXiv 2010.00801"),
    ("ResNet-18", "SHF", 8, 86.40, "arXiv 2010.00801"),
    ("ResNet-18", "NP", 8, 91.54, "arXiv 2010.00801"),
    ("ResNet-18", "FFX", 8, 91.99, "arXiv 2010.00801"),
    ("ResNet-18", "SHF", 16, 77.25, "arXiv 2010.00801"),
    ("ResNet-18", "NP", 16, 92.68, "arXiv 2010.00801"),
    ("ResNet-18", "FFX", 16, 91.39, "arXiv 2010.00801"),
)


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


def conventional_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Sum up rows of the table `conventional`: one row a method, accuracies and losses in per cent and points.

    Columns: method; seeds; correct, correct_sd (over seeds; plain images for "plain"); loss, loss_low, loss_high,
    loss_max (points against the plain network of the same seed: mean, its 95 % interval from two seeds up, and
    largest); wrong, wrong_sd, wrong_max, n_wrong (over keys and seeds); no_key; key_change (seconds, mean); bits (of
    the key space). A network whose plain twin is not measured yet has no loss.
    """
    plain = rows[rows.case == "plain"].set_index("seed").value
    found = []
    by_method = dict(list(rows.groupby("method")))
    for method in (name for name in COMPARED if name in by_method):
        group = by_method[method]
        cases = {case: part.set_index("seed").value for case, part in group.groupby("case")}
        correct, none = cases["plain" if method == "plain" else "correct key"], pd.Series(dtype=float)
        wrong, lost = 100 * cases.get("wrong key", none), 100 * (plain - correct).dropna()
        loss = summary(lost) if len(lost) else dict.fromkeys(("mean", "low", "high", "max"), float("nan"))
        found.append(
            {
                "method": method,
                "seeds": len(correct),
                "correct": 100 * correct.mean(),
                "correct_sd": 100 * correct.std(),
                "loss": loss["mean"],
                "loss_low": loss["low"],
                "loss_high": loss["high"],
                "loss_max": loss["max"],
                "wrong": wrong.mean(),
                "wrong_sd": wrong.std(),
                "wrong_max": wrong.max(),
                "n_wrong": len(wrong),
                "no_key": 100 * cases.get("no key", none).mean(),
                "key_change": cases.get("key change", none).mean(),
                "bits": cases.get("key space", none).mean(),
            }
        )
    return pd.DataFrame(found)


def published_table() -> pd.DataFrame:
    """The accuracies that were published for conventional methods, each with a network of its own."""
    return pd.DataFrame(PUBLISHED, columns=["network", "method", "block_size", "accuracy", "source"])


def duration(seconds: float) -> str:
    """A span of time as a reader would say it, to two or three digits: "7.2 min", "41 s", "2.4 ms", "85 µs"."""
    units = {"h": 3600, "min": 60, "s": 1, "ms": 1e-3}
    unit = next((unit for unit, size in units.items() if seconds >= size), "µs")
    return f"{seconds / units.get(unit, 1e-6):.3g} {unit}"
