"""Attacks on models: tables `stolen_rates` (which learning rate serves a thief), `stolen_model`, `stolen_heldout`.

In the first two all images of the attacker are images that the victim trained with, the best that an attacker could
hold; in the last, none of them are.
"""

import dataclasses
import time
from functools import partial
from typing import TYPE_CHECKING

import torch

from ..attacks import on_models
from ..attacks.matching import share_recovered
from ..learn.augment import augment
from ..learn.evaluate import accuracy
from ..lock.keys import SecretKey
from ..lock.model import decrypt_model, encrypt_model
from ..lock.patch import PatchCipher
from . import records
from .scales import Scale, new_model, trained_model
from .table import Table, of_attack

if TYPE_CHECKING:
    import pandas as pd

DRAWS, HELDOUT_DRAWS = 2, 3  # each with a key of its own; they are trainings
LONGER = "embedding anew", "from nothing"
GENTLE = 0.005  # a learning rate as one takes it to go on training what is trained already
RATES = 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32
UNUSED_DRAW = 9  # images and key of a draw that the table `stolen_model` has not


def _held(data, draw):
    """The data with training images in the order in which a draw's attacker comes to hold them."""
    order = torch.randperm(len(data.train_labels), generator=torch.Generator().manual_seed(draw))
    return dataclasses.replace(data, train_images=data.train_images[order], train_labels=data.train_labels[order])


def _middle(settings):
    return settings.labelled[min(2, len(settings.labelled) - 1)]


# -- stolen_rates: accuracy by what is trained and by learning rate ---------------------------------------------------
# The attacker trains on 1,000 labelled images, and accuracy is that on 2,000 others; all were the victim's, and images
# and key are of a draw that `stolen_model` does not use: no test image chooses a rate.

_TRAINED = {  # what is trained, and whether the model is a new one
    "embedding": ("embedding", False),
    "everything": ("everything", False),
    "from nothing": ("everything", True),
}


def _rates(scale: Scale, unit: dict):
    data, count, (train, new) = scale.data(), unit["n_plain"], _TRAINED[unit["method"]]
    cipher = PatchCipher(SecretKey.for_experiment(UNUSED_DRAW), scale.patch_sizes[0])
    held, others = _held(data, UNUSED_DRAW), slice(count, 3 * count)
    locked = encrypt_model(trained_model(scale)[0], cipher, **data.norm)
    model = new_model(scale, seed=100 + UNUSED_DRAW) if new else locked
    how = dataclasses.replace(scale.train, seed=UNUSED_DRAW, max_lr=unit["rate"])
    on_models.retrain(model, held, count, how, n_steps=unit["budget"], train=train)
    value = accuracy(model, held.train_images[others], held.train_labels[others], **data.norm)
    return [{"measure": "accuracy", "value": value}]


STOLEN_RATES = Table(
    "stolen_rates",
    lambda scale: [
        {"method": name, "n_plain": _middle(scale.attack), "rate": rate, "budget": scale.attack.iterations}
        | {"draw": UNUSED_DRAW}
        for name in _TRAINED
        for rate in RATES
    ],
    _rates,
    lambda scale, unit: of_attack(scale, 2 * unit["n_plain"]),
    trained=lambda scale, unit: (scale, 0),
)


def chosen_rate(rates: "pd.DataFrame", method: str) -> float:
    """The learning rate for a method of ``stolen_rates``, from that table's rows: the lowest that comes within half a
    point of the best. LookupError where the method has no rows."""
    found = rates[(rates.method == method) & (rates.measure == "accuracy")].set_index("rate").value.sort_index()
    if found.empty:
        raise LookupError(f"The table stolen_rates has no row of the method {method!r}.")
    return float(found.index[found >= found.max() - 0.005][0])


# -- stolen_model: accuracy on plain test images of what the attacker makes of the encrypted model --------------------
# By method and number of plain images that the attacker holds (n_plain; labels: whether they are labelled), with a
# budget in trials, iterations or steps; at 1,000 images also with a third and a ninth of it, and for the best attack
# and the new model with three times as much. Each draw has other images and another key. share_recovered: of the key,
# where the method gives one; attack_seconds: what it took, without the measuring; learning_rate: of a training (the
# first, where there are two), by ``chosen_rate`` where the method does not name another.


def _offered(settings) -> dict[str, tuple[int, tuple[int, ...], bool]]:
    """{method: (full budget, numbers of plain images, whether labels are used)}."""
    few = tuple(count for count in settings.labelled if count <= 100)  # each trial takes all of them through the model
    every, n_keys, n_steps = settings.labelled, settings.trials, settings.iterations
    return {
        "no key": (0, (0,), False),
        "statistics": (settings.annealing, every, False),
        "statistics, gradient": (n_steps, every, True),
        "filters": (0, every[-1:], True),
        "random keys": (n_keys, few, True),
        "hill climbing": (n_keys, few, True),
        "gradient": (n_steps, every, True),
        "embedding anew": (n_steps, every, True),
        "embedding": (n_steps, every, True),
        "everything": (n_steps, every, True),
        "embedding, then everything": (n_steps, every, True),
        "from nothing": (n_steps, every, True),
    }


def _units(scale: Scale):
    for draw in range(min(scale.attack.draws, DRAWS)):
        for name, (budget, counts, labels) in _offered(scale.attack).items():
            for count in counts:
                budgets = [budget]
                if budget and count == _middle(scale.attack):
                    budgets += [budget // 3, budget // 9, *([3 * budget] if name in LONGER else [])]
                for spent in budgets:
                    yield {"method": name, "n_plain": count, "labels": labels, "budget": spent, "draw": draw}


def _stolen(scale: Scale, unit: dict):
    data, settings, draw = scale.data(), scale.attack, unit["draw"]
    test, truth = data.test_images[: settings.opened], data.test_labels[: settings.opened]
    cipher, held = PatchCipher(SecretKey.for_experiment(draw), scale.patch_sizes[0]), _held(data, draw)
    method, rate = _methods(scale, records.read(scale.name, "stolen_rates"))[unit["method"]]
    locked, start = encrypt_model(trained_model(scale)[0], cipher, **data.norm), time.perf_counter()
    found = method(locked, held, unit["n_plain"], unit["budget"], draw)
    spent = time.perf_counter() - start
    if isinstance(found, PatchCipher):
        yield {"measure": "share_recovered", "value": share_recovered(found, cipher)}
        found = decrypt_model(locked, found, **data.norm)
    yield {"measure": "accuracy", "value": accuracy(found, test, truth, **data.norm)}
    yield {"measure": "attack_seconds", "value": spent}
    if rate:
        yield {"measure": "learning_rate", "value": rate}


STOLEN_MODEL = Table(
    "stolen_model",
    _units,
    _stolen,
    lambda scale, unit: of_attack(scale, min(scale.attack.opened, len(scale.data().test_labels))),
    reads=(STOLEN_RATES,),
    trained=lambda scale, unit: (scale, 0),
)


def _methods(scale: Scale, rates):
    """What an attacker may do, as {name: (function, learning rate or None)}, with rates by the rows of `stolen_rates`.

    function(encrypted model, data in the attacker's order, number of images, budget, draw) -> a model or a cipher.
    """

    def search(method, **more):
        def run(locked, data, count, budget, draw):
            images, labels = data.train_images[:count], data.train_labels[:count]
            found = method(locked, images, labels, **data.norm, **{more["budget"]: budget}, seed=10_000 * (1 + draw))
            return found[0] if isinstance(found, tuple) else found

        return run

    def statistics(locked, data, count, budget, draw):
        # As for the victim's training: the images again and again, shifted and mirrored.
        images = data.train_images[torch.arange(max(count, 1000)) % count]
        how = {"crop_padding": scale.train.crop_padding, "flip": scale.train.flip}
        images = augment(images, torch.Generator().manual_seed(draw), **how)
        tries = [
            on_models.from_statistics(locked, images, **data.norm, trials=budget, seed=3 * draw + i) for i in range(3)
        ]
        return min(tries, key=lambda found: found[1])[0]

    def both(locked, data, count, budget, draw):
        flipped = statistics(locked, data, count, scale.attack.annealing, draw).flipped
        found = search(partial(on_models.gradient_search, flipped=flipped), budget="iterations")
        return found(locked, data, count, budget, draw)

    def retrain(train, rate, new=False):
        def run(locked, data, count, budget, draw):
            model = new_model(scale, seed=100 + draw) if new else locked
            how = dataclasses.replace(scale.train, seed=draw, max_lr=rate)
            on_models.retrain(model, data, count, how, n_steps=budget, train=train)
            return model

        return run

    def in_two_stages(locked, data, count, budget, draw):
        second = max(budget // 3, 1)
        opened = retrain("embedding", anew)(locked, data, count, max(budget - second, 1), draw)
        return retrain("everything", GENTLE)(opened, data, count, second, draw)

    def filters(locked, data, count, budget, draw):
        other = retrain("everything", fresh, new=True)(locked, data, count, scale.attack.iterations, draw)
        return on_models.from_filters(locked, other, std=data.std)

    anew, tuned = (chosen_rate(rates, name) for name in ("embedding", "everything"))
    fresh = scale.train.max_lr  # the recipe's: a higher one looked better in a short run, and diverged in a longer
    return {
        "no key": (lambda locked, *_: locked, None),
        "statistics": (statistics, None),
        "statistics, gradient": (both, None),
        "filters": (filters, None),
        "random keys": (search(on_models.random_keys, budget="trials"), None),
        "hill climbing": (search(on_models.hill_climb, budget="trials"), None),
        "gradient": (search(on_models.gradient_search, budget="iterations"), None),
        "embedding anew": (retrain("embedding", anew), anew),
        "embedding": (retrain("embedding", GENTLE), GENTLE),
        "everything": (retrain("everything", tuned), tuned),
        "embedding, then everything": (in_two_stages, anew),
        "from nothing": (retrain("everything", fresh, new=True), fresh),
    }


# -- stolen_heldout: what a thief gets whose images the victim never saw ----------------------------------------------
# The victim is trained with all training images, so the thief's are the first half of the test images; the other half
# judges, the plain network as well. By cipher and key, with a third of the budget and with all of it; the new model,
# which needs no theft, also at the rate that `stolen_rates` chooses for it.

PLAIN = "plain network"
_HELDOUT = {  # method: what is trained, whether batch normalisations keep their statistics, whether the model is new,
    # and whose rate of `stolen_rates` it takes; None: that of the recipe
    "embedding anew": ("embedding", False, False, "embedding"),
    "embedding anew, frozen": ("embedding", True, False, "embedding"),
    "everything": ("everything", False, False, "everything"),
    "from nothing": ("everything", False, True, None),
    "from nothing, rate chosen": ("everything", False, True, "from nothing"),
}


def _heldout_units(scale: Scale):
    full = scale.attack.iterations
    third = max(full // 3, 1)
    tried = [("shuffle", "embedding anew", third), ("none", "from nothing", third)]
    tried += [("shuffle+flip", "embedding anew", third)]
    tried += [("shuffle", "embedding anew, frozen", third), ("shuffle", "everything", third)]
    tried += [("orthogonal", "embedding anew", third), ("flip", "embedding anew", third)]
    tried += [("none", "from nothing", full)]
    tried += [(steps, "embedding anew", full) for steps in ("shuffle", "shuffle+flip", "orthogonal", "flip")]
    tried += [("none", "from nothing, rate chosen", budget) for budget in (third, full)]
    return [
        {"steps": steps, "method": method, "n_plain": _middle(scale.attack), "budget": budget, "draw": draw}
        for steps, method, budget in (*tried, ("none", PLAIN, 0))
        for draw in range(min(scale.attack.draws, HELDOUT_DRAWS) if budget else 1)
    ]


def _heldout(scale: Scale, unit: dict):
    data, draw = scale.data(), unit["draw"]
    half = len(data.test_labels) // 2
    judging = data.test_images[half:], data.test_labels[half:]
    if unit["method"] == PLAIN:
        return [{"measure": "accuracy", "value": accuracy(trained_model(scale)[0], *judging, **data.norm)}]
    train, frozen, new, whose = _HELDOUT[unit["method"]]
    theirs = dataclasses.replace(data, train_images=data.test_images[:half], train_labels=data.test_labels[:half])
    if new:
        model = new_model(scale, seed=100 + draw)
    else:
        cipher = scale.ciphers[unit["steps"]](SecretKey.for_experiment(draw), scale.patch_sizes[0])
        model = encrypt_model(trained_model(scale)[0], cipher, **data.norm)
    rate = chosen_rate(records.read(scale.name, "stolen_rates"), whose) if whose else scale.train.max_lr
    how = dataclasses.replace(scale.train, seed=draw, max_lr=rate)
    held = _held(theirs, draw)
    on_models.retrain(model, held, unit["n_plain"], how, n_steps=unit["budget"], train=train, frozen=frozen)
    value = accuracy(model, *judging, **data.norm)
    return [{"measure": "accuracy", "value": value}, {"measure": "learning_rate", "value": rate}]


STOLEN_HELDOUT = Table(
    "stolen_heldout",
    _heldout_units,
    _heldout,
    lambda scale, unit: of_attack(scale, len(scale.data().test_labels) // 2),
    reads=(STOLEN_RATES,),
    trained=lambda scale, unit: (scale, 0),
    left_out=("paper",),
)
