"""The recorded attacks on models: table `stolen_model` of `results/<scale>/`, as in `security_study`."""

import dataclasses
import time
from functools import partial

import torch

from ..attacks import on_models as stolen
from ..attacks.matching import share_recovered
from ..learn.augment import augment
from ..learn.data import load_dataset
from ..learn.evaluate import accuracy
from ..lock.keys import SecretKey
from ..lock.model import decrypt_model, encrypt_model
from ..lock.patch import PatchCipher
from . import records
from .images import AttackSettings, origin
from .scales import Scale, new_model, trained_model

TRIALS = 8000  # of the annealing on statistics, thrice: each computes the first layer of 500 patches only
DRAWS = 2
LONGER = "embedding anew", "from nothing"
GENTLE = 0.005  # a learning rate as one takes it to go on training what is trained already
RATES = 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32
UNUSED_DRAW = 9  # images and key of a draw that the table `stolen_model` has not


def stolen_rates(scale: Scale, settings: AttackSettings) -> None:
    """Table `stolen_rates`: which learning rate serves the attacker of `stolen_model`, by what is trained.

    The attacker trains on 1,000 labelled images, and accuracy is that on 2,000 others. All are images that the victim
    trained with, and images and key are of a draw that `stolen_model` does not use: no test image chooses a rate.
    """
    data, path = load_dataset(scale.dataset), records.table_path(scale.name, "stolen_rates")
    norm = {"mean": data.mean, "std": data.std}
    cipher = PatchCipher(SecretKey.for_experiment(UNUSED_DRAW), scale.model["patch_size"])
    held, count = _held(data, UNUSED_DRAW), _middle(settings)
    others = slice(count, 3 * count)
    for name, (train, new) in {
        "embedding": ("embedding", False),
        "everything": ("everything", False),
        "from nothing": ("everything", True),
    }.items():
        for rate in RATES:
            unit = {"method": name, "n_plain": count, "rate": rate, "budget": settings.iterations, "draw": UNUSED_DRAW}
            if records.done(path, unit):
                continue
            start, locked = time.perf_counter(), encrypt_model(trained_model(scale)[0], cipher, **norm)
            model = new_model(scale, seed=100 + UNUSED_DRAW) if new else locked
            how = dataclasses.replace(scale.train, seed=UNUSED_DRAW, max_lr=rate)
            stolen.retrain(model, held, count, how, n_steps=settings.iterations, train=train)
            value = accuracy(model, held.train_images[others], held.train_labels[others], **norm)
            row = {**unit, "measure": "accuracy", "value": value}
            records.append(path, [row], origin(scale, data, settings, start, 2 * count, n_keys=1))


def chosen_rate(rates, method: str) -> float:
    """The learning rate for a method of ``stolen_rates``, from that table's rows: the lowest that comes within half a
    point of the best. LookupError where the method has no rows."""
    found = rates[(rates.method == method) & (rates.measure == "accuracy")].set_index("rate").value.sort_index()
    if found.empty:
        raise LookupError(f"The table stolen_rates has no row of the method {method!r}.")
    return float(found.index[found >= found.max() - 0.005][0])


def stolen_model(scale: Scale, settings: AttackSettings) -> None:
    """Table `stolen_model`: accuracy on plain test images of what the attacker makes of the encrypted model.

    By method and number of plain images that the attacker holds (n_plain; labels: whether they are labelled), with a
    budget in trials, iterations or steps; at 1,000 images also with a third and a ninth of it, and for the best attack
    and the new model with three times as much. They are images that the victim trained with, the best that an attacker
    could hold. Each draw has other images and another key. share_recovered: of the key, where the method gives one;
    attack_seconds: what it took, without the measuring; learning_rate: of a training (the first, where there are two),
    by ``chosen_rate`` where the method does not name another.
    """
    data, path = load_dataset(scale.dataset), records.table_path(scale.name, "stolen_model")
    norm, size = {"mean": data.mean, "std": data.std}, scale.model["patch_size"]
    test, truth = data.test_images[: settings.opened], data.test_labels[: settings.opened]
    middle, attacks = _middle(settings), methods(scale, settings, records.read(scale.name, "stolen_rates"))
    for draw in range(min(settings.draws, DRAWS)):
        cipher = PatchCipher(SecretKey.for_experiment(draw), size)
        held = _held(data, draw)
        for name, (method, budget, counts, labels, rate) in attacks.items():
            for count in counts:
                budgets = [budget]
                if budget and count == middle:
                    budgets = [budget, budget // 3, budget // 9]
                    budgets += [3 * budget] if name in LONGER else []
                for spent_on in budgets:
                    unit = {"method": name, "n_plain": count, "labels": labels, "budget": spent_on, "draw": draw}
                    if records.done(path, unit):
                        continue
                    locked, start = encrypt_model(trained_model(scale)[0], cipher, **norm), time.perf_counter()
                    found, rows = method(locked, held, count, spent_on, draw), []
                    spent = time.perf_counter() - start
                    if isinstance(found, PatchCipher):
                        rows.append({**unit, "measure": "share_recovered", "value": share_recovered(found, cipher)})
                        found = decrypt_model(locked, found, **norm)
                    rows.append({**unit, "measure": "accuracy", "value": accuracy(found, test, truth, **norm)})
                    rows.append({**unit, "measure": "attack_seconds", "value": spent})
                    if rate:
                        rows.append({**unit, "measure": "learning_rate", "value": rate})
                    records.append(path, rows, origin(scale, data, settings, start, len(truth), n_keys=1))


def _held(data, draw):
    """The data with training images in the order in which a draw's attacker comes to hold them."""
    order = torch.randperm(len(data.train_labels), generator=torch.Generator().manual_seed(draw))
    return dataclasses.replace(data, train_images=data.train_images[order], train_labels=data.train_labels[order])


def _middle(settings):
    return settings.labelled[min(2, len(settings.labelled) - 1)]


def methods(scale, settings, rates):
    """What an attacker may do, as {name: (function, full budget, numbers of plain images, whether labels are used,
    learning rate or None)}, with learning rates by the rows of `stolen_rates`.

    function(encrypted model, data in the attacker's order, number of images, budget, draw) -> a model or a cipher.
    """

    def norm(data):
        return {"mean": data.mean, "std": data.std}

    def search(method, **more):
        def run(locked, data, count, budget, draw):
            images, labels = data.train_images[:count], data.train_labels[:count]
            found = method(locked, images, labels, **norm(data), **{more["budget"]: budget}, seed=10_000 * (1 + draw))
            return found[0] if isinstance(found, tuple) else found

        return run

    def statistics(locked, data, count, budget, draw):
        # As for the victim's training: the images again and again, shifted and mirrored.
        images = data.train_images[torch.arange(max(count, 1000)) % count]
        how = {"crop_padding": scale.train.crop_padding, "flip": scale.train.flip}
        images = augment(images, torch.Generator().manual_seed(draw), **how)
        tries = [
            stolen.from_statistics(locked, images, **norm(data), trials=budget, seed=3 * draw + i) for i in range(3)
        ]
        return min(tries, key=lambda found: found[1])[0]

    def both(locked, data, count, budget, draw):
        flipped = statistics(locked, data, count, TRIALS, draw).flipped
        found = search(partial(stolen.gradient_search, flipped=flipped), budget="iterations")
        return found(locked, data, count, budget, draw)

    def retrain(train, rate, new=False):
        def run(locked, data, count, budget, draw):
            model = new_model(scale, seed=100 + draw) if new else locked
            how = dataclasses.replace(scale.train, seed=draw, max_lr=rate)
            stolen.retrain(model, data, count, how, n_steps=budget, train=train)
            return model

        return run

    def in_two_stages(locked, data, count, budget, draw):
        opened = retrain("embedding", anew)(locked, data, count, budget - budget // 3, draw)
        return retrain("everything", GENTLE)(opened, data, count, budget // 3, draw)

    def filters(locked, data, count, budget, draw):
        other = retrain("everything", fresh, new=True)(locked, data, count, settings.iterations, draw)
        return stolen.from_filters(locked, other, std=data.std)

    anew, tuned = (chosen_rate(rates, name) for name in ("embedding", "everything"))
    fresh = scale.train.max_lr  # the recipe's: a higher one looked better in a short run, and diverged in a longer
    few = tuple(count for count in settings.labelled if count <= 100)  # each trial takes all of them through the model
    every = settings.labelled
    n_keys, n_steps = settings.trials, settings.iterations
    return {
        "no key": (lambda locked, *_: locked, 0, (0,), False, None),
        "statistics": (statistics, TRIALS, every, False, None),
        "statistics, gradient": (both, n_steps, every, True, None),
        "filters": (filters, 0, every[-1:], True, None),
        "random keys": (search(stolen.random_keys, budget="trials"), n_keys, few, True, None),
        "hill climbing": (search(stolen.hill_climb, budget="trials"), n_keys, few, True, None),
        "gradient": (search(stolen.gradient_search, budget="iterations"), n_steps, every, True, None),
        "embedding anew": (retrain("embedding", anew), n_steps, every, True, anew),
        "embedding": (retrain("embedding", GENTLE), n_steps, every, True, GENTLE),
        "everything": (retrain("everything", tuned), n_steps, every, True, tuned),
        "embedding, then everything": (in_two_stages, n_steps, every, True, anew),
        "from nothing": (retrain("everything", fresh, new=True), n_steps, every, True, fresh),
    }
