"""Tables of the plain network and its encrypted twin: training, keys, block sizes, cost, the engine."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from ..learn.data import Dataset
from ..learn.device import bf16_is_faster, default_device
from ..learn.evaluate import accuracy, key_trials, logits, right_key_rows, wrong_key_accuracy
from ..learn.train import fit
from ..lock.keys import SecretKey
from ..lock.model import decrypt_model, encrypt_model
from ..lock.patch import PatchCipher
from .scales import Scale, new_model, trained_model
from .table import Table, in_turns, of_network

BLOCKS_WRONG = 20  # wrong keys for each pair of patch and block
COST_IMAGES, COST_ROUNDS = 2000, 7


# -- training: the curves, one row an epoch and measure --------------------------------------------------------------


def _training(scale: Scale, unit: dict):
    scale, data = scale.at(unit["patch_size"]), scale.data()
    model, history = trained_model(scale, seed=unit["seed"])
    for epoch in history.to_dict("records"):
        for measure in ("lr", "train_loss", "train_accuracy", "test_accuracy", "seconds"):
            yield {"epoch": epoch["epoch"], "measure": measure, "value": epoch[measure]}
    # The last row is the one that the tables rest on: no autocast, every test image.
    final = accuracy(model, data.test_images, data.test_labels, **data.norm)
    yield {"epoch": len(history), "measure": "final_test_accuracy", "value": final}
    yield {"epoch": len(history), "measure": "parameters", "value": sum(p.numel() for p in model.parameters())}


TRAINING = Table(
    "training",
    lambda scale: [{"patch_size": size, "seed": seed} for size in scale.patch_sizes for seed in scale.seeds],
    _training,
    lambda scale, unit: of_network(scale.at(unit["patch_size"]), unit["seed"]),
)


# -- keys: accuracy of the plain and the encrypted model under correct, wrong and missing keys ------------------------


def _key_units(scale: Scale):
    for size in scale.patch_sizes:
        wrong = range(1, 1 + scale.at(size).n_wrong)
        for steps in scale.ciphers:
            for seed in scale.seeds:
                unit = {"patch_size": size, "steps": steps, "seeds": seed}
                yield {**unit, "case": "correct key", "key_seed": 0}  # and the other cases that are of no wrong key
                yield from ({**unit, "case": "wrong key", "key_seed": key_seed} for key_seed in wrong)


def _keys(scale: Scale, unit: dict):
    scale, data = scale.at(unit["patch_size"]), scale.data()
    model, _ = trained_model(scale, seed=unit["seeds"])
    autocast = bf16_is_faster(default_device())

    def cipher(key):
        return scale.ciphers[unit["steps"]](key, unit["patch_size"])

    if unit["case"] == "wrong key":
        value = wrong_key_accuracy(model, data, cipher, unit["key_seed"], autocast=autocast)
        yield {"precision": "bfloat16" if autocast else "float32", "measure": "accuracy", "value": value}
        return
    yield from ({"precision": "float32", **row} for row in right_keys(model, data, cipher))


def right_keys(model: torch.nn.Module, data: Dataset, cipher: Callable) -> Iterator[dict]:
    """Rows of all cases that are of no wrong key."""
    for found in right_key_rows(model, data, cipher):
        for measure in ("accuracy", "differ", "max_logit_difference"):
            yield {"case": found["case"], "key_seed": found["key_seed"], "measure": measure, "value": found[measure]}


KEYS = Table(
    "keys",
    _key_units,
    _keys,
    lambda scale, unit: of_network(
        scale.at(unit["patch_size"]), unit["seeds"], n_keys=scale.at(unit["patch_size"]).n_wrong
    ),
    trained=lambda scale, unit: (scale.at(unit["patch_size"]), unit["seeds"]),
)


# -- blocks: block and patch size against plain and wrong-key accuracy and the key space in bits ----------------------


def _blocks(scale: Scale, unit: dict):
    model, _ = trained_model(scale.at(unit["patch_size"]))
    trials = key_trials(model, scale.data(), unit, BLOCKS_WRONG, autocast=bf16_is_faster(default_device()))
    for trial in trials.to_dict("records"):
        where = {"case": trial["case"], "key_seed": trial["key_seed"]}
        yield {**where, "measure": "accuracy", "value": trial["accuracy"]}
    bits = PatchCipher(SecretKey.for_experiment(0), **unit).key_bits()
    yield {"case": "key space", "key_seed": -1, "measure": "bits", "value": bits}


BLOCKS = Table(
    "blocks",
    lambda scale: [
        {"patch_size": patch, "block_size": block}
        for patch in (4, 8, 2)  # the dearest training comes last
        for block in (1, 2, 4, 8)
        if patch % block == 0
    ],
    _blocks,
    lambda scale, unit: of_network(scale.at(unit["patch_size"]), 0, BLOCKS_WRONG),
    trained=lambda scale, unit: (scale.at(unit["patch_size"]), 0),
    left_out=("paper",),
)


# -- cost: seconds for encrypting images, a model and a change of key, and inference with and without -----------------


def _cost(scale: Scale, unit: dict):
    size, data = unit["patch_size"], scale.data()
    norm, (model, _) = data.norm, trained_model(scale.at(size))
    one, other = (PatchCipher(SecretKey.for_experiment(seed), size) for seed in (0, 1))
    encrypted, images = encrypt_model(model, one, **norm), data.test_images[:COST_IMAGES]
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
    for name, seconds in in_turns(jobs, COST_ROUNDS).items():
        for trial, value in enumerate(seconds):
            yield {"case": name, "trial": trial, "measure": "seconds", "value": value}


COST = Table(
    "cost",
    lambda scale: [{"patch_size": scale.patch_sizes[0]}],
    _cost,
    lambda scale, unit: of_network(scale, 0, n_images=COST_IMAGES),
    timed=True,
)


# -- engine: accuracy after a few epochs by cmxlib's engine, and by torch's own modules in float32 --------------------
# Both begin with the same weights and see the same batches; the schedule of rates is drawn together to so few epochs.


def _short(scale: Scale, seed: int) -> Scale:
    return replace(scale, train=replace(scale.train, epochs=scale.engine_epochs, seed=seed))


def _engine(scale: Scale, unit: dict):
    scale, data = _short(scale, unit["seed"]), scale.data()
    model = new_model(scale, unit["seed"])
    # The same layers, called by torch one after the other: none of cmxlib's ways to compute them.
    ours = unit["engine"] == "cmxlib"
    fit(model if ours else torch.nn.Sequential(*model), data, scale.train, autocast=None if ours else False)
    final = accuracy(model, data.test_images, data.test_labels, **data.norm)
    yield {"measure": "accuracy", "value": final}


ENGINE = Table(
    "engine",
    lambda scale: [
        {"engine": name, "patch_size": scale.patch_sizes[0], "seed": seed, "epochs": scale.engine_epochs}
        for seed in scale.compared_seeds
        for name in ("cmxlib", "stock")
    ],
    _engine,
    lambda scale, unit: of_network(_short(scale, unit["seed"]), unit["seed"]),
    left_out=("paper",),
)
