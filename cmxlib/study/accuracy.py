"""The recorded study: each function measures one table of `results/<scale>/`, skipping what is there already.

`cmx study --scale small` runs all of them. A table's rows are read back, and summed up, by the functions at the end.
"""

import time
from dataclasses import replace

import numpy as np
import torch

from ..learn.data import load_dataset
from ..learn.evaluate import accuracy, key_trials, logits
from ..learn.train import bf16_is_faster, default_device, fit
from ..lock.keys import SecretKey
from ..lock.model import decrypt_model, encrypt_model
from ..lock.near import damaged, scrambled_in_part
from ..lock.patch import PatchCipher
from . import records
from .scales import SCALES, Scale, new_model, trained_model

STEPS = (("shuffle",), ("flip",), ("shuffle", "flip"), ("orthogonal",))
ANATOMY_IMAGES = 2000
ANATOMY_KEYS = 20
ENGINE_SEEDS = 0, 1, 2
ENGINE_EPOCHS = 4
# Fixed before the first training. The recipe of ConvMixer's authors has 25 epochs (92.6 %); patches of 4 did not
# overfit in 40, so that a few more are no risk.
PATCH_2_EPOCHS = 30
PATCH_2_WRONG = 30


def run(scale_name: str, only: str = "", say=print) -> None:
    """Measure the tables at a scale: "small" or "paper" (CIFAR-10), or "quick" (FontDigits, ignored folder).

    ``only`` names one table, or ``patches_of_2``. The networks of the table ``blocks`` are of the small scale; at paper
    scale a network with patches of 2 takes its place. The table ``engine`` is of the small scale alone.
    """
    from .conventional import conventional  # which uses this module

    units = training, keys, anatomy, cost, blocks, patches_of_2, engine, conventional  # the dearest comes last
    tables = {unit.__name__: unit for unit in units}
    if only and only not in tables:
        raise ValueError(f"there is no table {only!r}; there are {', '.join(tables)}")
    left_out = {"blocks", "engine"} if scale_name == "paper" else {"patches_of_2"}
    records.commit()  # the code that runs is the one that is there now, not when the first rows are written
    for name in [only] if only else [name for name in tables if name not in left_out]:
        start = time.perf_counter()
        tables[name](SCALES[scale_name], say)
        say(f"{name}: recorded ({time.perf_counter() - start:.0f} s)")


def training(scale: Scale, say=print) -> None:
    """Table `training`: the curves of the scale's model, one row an epoch and measure."""
    path = records.table_path(scale.name, "training")
    unit = {"patch_size": scale.model["patch_size"], "seed": scale.train.seed}
    if records.done(path, unit):
        return
    data = load_dataset(scale.dataset)
    model, history = trained_model(scale)
    rows = [
        {**unit, "epoch": epoch["epoch"], "measure": measure, "value": epoch[measure]}
        for epoch in history.to_dict("records")
        for measure in ("lr", "train_loss", "train_accuracy", "test_accuracy", "seconds")
    ]
    # The last row is the one that the tables rest on: no autocast, every test image.
    final = accuracy(model, data.test_images, data.test_labels, mean=data.mean, std=data.std)
    parameters = sum(p.numel() for p in model.parameters())
    rows += [
        {**unit, "epoch": len(history), "measure": "final_test_accuracy", "value": final},
        {**unit, "epoch": len(history), "measure": "parameters", "value": parameters},
    ]
    records.append(path, rows, origin(scale, data, history.seconds.sum(), scale.train.seed))


def keys(scale: Scale, say=print) -> None:
    """Table `keys`: accuracy of the plain and the encrypted model under correct, wrong and missing keys."""
    path = records.table_path(scale.name, "keys")
    data = load_dataset(scale.dataset)
    for steps in STEPS:
        unit = {"patch_size": scale.model["patch_size"], "steps": "+".join(steps)}
        if records.done(path, unit):
            continue
        model, _ = trained_model(scale)
        start = time.perf_counter()
        settings = {"patch_size": scale.model["patch_size"], "steps": steps}
        autocast = bf16_is_faster(default_device())
        trials = key_trials(model, data, settings, scale.n_wrong, autocast=autocast)
        rows = []
        for trial in trials.to_dict("records"):
            where = {**unit, "case": trial["case"], "key_seed": trial["key_seed"]}
            where["precision"] = "bfloat16" if autocast and trial["case"] == "wrong key" else "float32"
            measures = ("accuracy",) if trial["case"] == "wrong key" else ("accuracy", "differ", "max_logit_difference")
            rows += [{**where, "measure": measure, "value": trial[measure]} for measure in measures]
        where_from = origin(scale, data, time.perf_counter() - start, scale.train.seed, n_keys=scale.n_wrong)
        records.append(path, rows, where_from)
        say(f"keys: {scale.n_wrong} wrong keys for {unit['steps']}")


def anatomy(scale: Scale, say=print) -> None:
    """Table `anatomy`: accuracy against the number of wrong entries in the key, and what survives in part."""
    path = records.table_path(scale.name, "anatomy")
    unit = {"patch_size": scale.model["patch_size"]}
    if records.done(path, unit):
        return
    data, (model, _) = load_dataset(scale.dataset), trained_model(scale)
    norm = {"mean": data.mean, "std": data.std}
    n_images = min(ANATOMY_IMAGES, len(data.test_labels))
    chosen = torch.randperm(len(data.test_labels), generator=torch.Generator().manual_seed(0))[:n_images]
    images, labels = data.test_images[chosen], data.test_labels[chosen]
    cipher = PatchCipher(SecretKey.for_experiment(0), scale.model["patch_size"])
    encrypted = encrypt_model(model, cipher, **norm)
    options = {**norm, "autocast": bf16_is_faster(default_device())}
    counts = [k for k in (0, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192) if k <= cipher.n]
    points = [("positions", k, k, 0) for k in counts] + [("signs", k, 0, k) for k in [0, 1, *counts[1:]]]
    points += [("both", k, k, k) for k in counts]
    rows, start = [], time.perf_counter()
    for trial in range(ANATOMY_KEYS):
        rng = np.random.default_rng(trial)
        tried = [(kind, wrong, damaged(cipher, positions, signs, rng)) for kind, wrong, positions, signs in points]
        for kind in ("pixels", "within channels", "all"):
            tried.append((kind, cipher.n, scrambled_in_part(cipher, kind, rng)))
        for kind, wrong, other in tried:
            found = accuracy(decrypt_model(encrypted, other, **norm), images, labels, **options)
            where = {**unit, "kind": kind, "wrong": wrong, "trial": trial}
            rows.append({**where, "measure": "accuracy", "value": found})
    # What is left when a patch is nothing but its mean colour: the coarsest picture that a patch can carry.
    size = scale.model["patch_size"]
    coarse = torch.nn.functional.avg_pool2d(images.float() / 255, size).repeat_interleave(size, 2)
    found = accuracy(model, coarse.repeat_interleave(size, 3), labels, **norm)
    where = {**unit, "kind": "mean colour only", "wrong": 0, "trial": 0}
    rows.append({**where, "measure": "accuracy", "value": found})
    where_from = origin(scale, data, time.perf_counter() - start, scale.train.seed, ANATOMY_KEYS, n_images)
    records.append(path, rows, where_from)


def blocks(scale: Scale, say=print) -> None:
    """Table `blocks`: block and patch size against plain and wrong-key accuracy and the key space in bits."""
    path = records.table_path(scale.name, "blocks")
    data = load_dataset(scale.dataset)
    for patch_size in (4, 8, 2):  # the dearest training comes last
        for block_size in (size for size in (1, 2, 4, 8) if patch_size % size == 0):
            unit = {"patch_size": patch_size, "block_size": block_size}
            if records.done(path, unit):
                continue
            model, _ = trained_model(scale.with_patch_size(patch_size))
            start = time.perf_counter()
            n_wrong = 20
            options = {"autocast": bf16_is_faster(default_device())}
            trials = key_trials(model, data, unit, n_wrong, **options)
            rows = [
                {**unit, "case": t["case"], "key_seed": t["key_seed"], "measure": "accuracy", "value": t["accuracy"]}
                for t in trials.to_dict("records")
            ]
            bits = PatchCipher(SecretKey.for_experiment(0), **unit).key_bits()
            rows.append({**unit, "case": "key space", "key_seed": -1, "measure": "bits", "value": bits})
            seconds = time.perf_counter() - start
            records.append(path, rows, origin(scale, data, seconds, scale.train.seed, n_wrong))
            say(f"blocks: patches of {patch_size}, blocks of {block_size}")


def patches_of_2(scale: Scale, say=print) -> None:
    """Tables `training`, `keys` and `anatomy` for patches of 2."""
    training(finer(scale), say)
    keys(finer(scale), say)
    anatomy(finer(scale), say)


def finer(scale: Scale) -> Scale:
    """The scale with patches of 2, which take four times as long: fewer epochs, fewer wrong keys."""
    settings = replace(scale.train, epochs=PATCH_2_EPOCHS)
    return replace(scale.with_patch_size(2), train=settings, n_wrong=PATCH_2_WRONG)


def cost(scale: Scale, say=print) -> None:
    """Table `cost`: seconds for encrypting images, a model and a change of key, and inference with and without."""
    path = records.table_path(scale.name, "cost")
    unit = {"patch_size": scale.model["patch_size"]}
    if records.done(path, unit):
        return
    data, (model, _) = load_dataset(scale.dataset), trained_model(scale)
    norm = {"mean": data.mean, "std": data.std}
    size = scale.model["patch_size"]
    one, other = (PatchCipher(SecretKey.for_experiment(seed), size) for seed in (0, 1))
    encrypted, images = encrypt_model(model, one, **norm), data.test_images[:2000]
    encrypted_images = one.encrypt(images)
    jobs = {
        "draw a key's map": lambda: PatchCipher(SecretKey.for_experiment(0), size),
        "encrypt one image": lambda: one.encrypt(images[0]),
        "encrypt 2,000 images": lambda: one.encrypt(images),
        "encrypt the model": lambda: encrypt_model(model, one, **norm),
        "change the model's key": lambda: encrypt_model(decrypt_model(encrypted, one, **norm), other, **norm),
        "classify 2,000 plain images, plain model": lambda: logits(model, images, **norm),
        "classify 2,000 encrypted images, encrypted model": lambda: logits(encrypted, encrypted_images, **norm),
    }
    start, seconds = time.perf_counter(), {name: [] for name in jobs}
    for _ in range(7):  # in turn, so that a slow minute of the machine falls on all of them
        for name, job in jobs.items():
            before = time.perf_counter()
            job()
            seconds[name].append(time.perf_counter() - before)
    rows = [
        {**unit, "case": name, "trial": trial, "measure": "seconds", "value": value}
        for name, values in seconds.items()
        for trial, value in enumerate(values)
    ]
    records.append(path, rows, origin(scale, data, time.perf_counter() - start, scale.train.seed, n_images=2000))


def engine(scale: Scale, say=print) -> None:
    """Table `engine`: accuracy after ENGINE_EPOCHS epochs by cmxlib's engine and by torch's own modules in float32.

    Both begin with the same weights and see the same batches; the schedule of rates is drawn together to so few
    epochs. Rows have the columns engine ("cmxlib" or "stock"), seed, epochs, and the measures accuracy (all test
    images, in float32) and seconds (the training, with a test after each epoch).
    """
    path, data = records.table_path(scale.name, "engine"), load_dataset(scale.dataset)
    for seed in ENGINE_SEEDS:
        for name in ("cmxlib", "stock"):
            unit = {"engine": name, "patch_size": scale.model["patch_size"], "seed": seed, "epochs": ENGINE_EPOCHS}
            if records.done(path, unit):
                continue
            model, settings = new_model(scale, seed), replace(scale.train, epochs=ENGINE_EPOCHS, seed=seed)
            # The same layers, called by torch one after the other: none of cmxlib's ways to compute them.
            trained, autocast = (model, None) if name == "cmxlib" else (torch.nn.Sequential(*model), False)
            history = fit(trained, data, settings, autocast=autocast)
            final = accuracy(model, data.test_images, data.test_labels, mean=data.mean, std=data.std)
            rows = [
                {**unit, "measure": "accuracy", "value": final},
                {**unit, "measure": "seconds", "value": history.seconds.sum()},
            ]
            trained_as = replace(scale, train=settings)
            records.append(path, rows, origin(trained_as, data, history.seconds.sum(), seed))
            say(f"engine: {name}, seed {seed}: {final:.2%} ({history.seconds.sum():.0f} s)")


def origin(scale, data, seconds, seed, n_keys=0, n_images=None):
    """The columns that say where a scale's rows came from, for ``records.append``."""
    return records.provenance(
        scale=scale.name,
        dataset=data.name,
        settings={"model": scale.model, "threads": torch.get_num_threads(), **vars(scale.train)},
        seeds=seed,
        n_images=n_images or len(data.test_labels),
        n_keys=n_keys,
        seconds=seconds,
        device=default_device(),
    )
