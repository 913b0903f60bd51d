"""The recorded comparison with conventional methods: table `conventional` of `results/<scale>/`.

Each conventional method gets a network of its own, trained on encrypted images with the initial weights, batches,
augmentation, recipe and budget of the plain one. Images are augmented first and encrypted then, batch by batch: a
crop of an encrypted image would cut through its blocks. The method "proposed" trains nothing: it encrypts the plain
model.
"""

import dataclasses
import hashlib
import json
import statistics

from ..learn.device import default_device
from ..learn.evaluate import accuracy, key_trials
from ..learn.train import fit
from ..lock.conventional import METHODS, key_space_bits, make_cipher
from ..lock.keys import SecretKey
from ..lock.model import decrypt_model, encrypt_model
from ..lock.patch import PatchCipher
from ..paths import cache_dir
from .records import uninterrupted
from .scales import Scale, new_model, trained_model
from .table import Table, in_turns, of_network

N_WRONG = 5
COMPARED = ("plain", "proposed", *METHODS)


def _measure(scale: Scale, unit: dict):
    """Rows of a method and seed; the seed is that of weights and training, and the experiment key's; wrong keys follow.

        measure "accuracy"  case "correct key", "wrong key" (test images encrypted with it), "no key" (plain test
                            images); for the method "plain" only case "plain"
        measure "seconds"   case "key change": training anew, with a test after each epoch and ``uninterrupted``; for
                            "proposed" the median of seven times decrypting the model and encrypting it with another key
        measure "bits"      case "key space"

    An interrupted training goes on from its last epoch.
    """
    rows = {"plain": _plain, "proposed": _proposed}.get(unit["method"], _conventional)
    for case, key_seed, measure, value in rows(scale, scale.data(), **unit):
        yield {"case": case, "key_seed": key_seed, "measure": measure, "value": value}


def _plain(scale, data, method, block_size, seed):
    model, _ = trained_model(scale, seed=seed)
    yield "plain", -1, "accuracy", accuracy(model, data.test_images, data.test_labels, **data.norm)


def _proposed(scale, data, method, block_size, seed):
    model, _ = trained_model(scale, seed=seed)
    for trial in key_trials(model, data, {"patch_size": block_size}, N_WRONG, seed=seed).to_dict("records"):
        if trial["case"] in ("correct key", "wrong key", "no key"):
            yield trial["case"], trial["key_seed"], "accuracy", trial["accuracy"]
    norm, new_seed = data.norm, iter(range(seed + 1, seed + 8))
    old = PatchCipher(SecretKey.for_experiment(seed), block_size)
    encrypted = encrypt_model(model, old, **norm)

    def change():
        new = PatchCipher(SecretKey.for_experiment(next(new_seed)), block_size)
        encrypt_model(decrypt_model(encrypted, old, **norm), new, **norm)

    yield "key change", seed, "seconds", statistics.median(in_turns({"change": change}, 7)["change"])
    yield "key space", -1, "bits", old.key_bits()


def _conventional(scale, data, method, block_size, seed):
    sizes = {"block_size": block_size, "image_size": tuple(data.test_images.shape[2:])}
    model, history = _trained_on_encrypted(scale, data, method, sizes, seed)

    def accuracy_on(images):
        return accuracy(model, images, data.test_labels, **data.norm)

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
    recipe = json.dumps([data.name, scale.model, vars(settings), method, sizes], sort_keys=True)
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


CONVENTIONAL = Table(
    "conventional",
    lambda scale: [
        {"method": method, "block_size": scale.patch_sizes[0], "seed": seed}
        for seed in scale.compared_seeds
        for method in COMPARED
    ],
    _measure,
    lambda scale, unit: of_network(scale, unit["seed"], 0 if unit["method"] == "plain" else N_WRONG),
)
