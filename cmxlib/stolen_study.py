"""The recorded attacks on models, and the repairs: tables of `results/<scale>/`, as in `security_study`."""

import time

import numpy as np

from . import records, stolen
from .adversarial import pgd, square
from .attacks import ciphertext_only, share_recovered
from .cipher import PatchCipher
from .data import load_dataset
from .evaluate import accuracy, logits
from .keys import SecretKey
from .metrics import ssim
from .protect import decrypt_model, encrypt_model
from .repairs import (
    PositionCipher,
    bit_model,
    ciphertext_only_by_position,
    encrypt_model_by_position,
    from_bits,
    to_bits,
)
from .scales import Scale, new_model, trained_model
from .security_study import STEPS, AttackSettings, origin


def repairs(scale: Scale, settings: AttackSettings) -> None:
    """Table `repairs`: exactness, cost and the same attack, for keys by position and for single bits."""
    data, path = load_dataset(scale.dataset), records.table_path(scale.name, "repairs")
    size, key = scale.model["patch_size"], SecretKey.for_experiment(0)
    norm = {"mean": data.mean, "std": data.std}
    images, public = data.test_images, data.train_images[: settings.public]
    cases = {}
    for steps in STEPS:
        cipher = PatchCipher(key, size, steps=steps)
        cases["+".join(steps)] = (cipher, lambda model, c=cipher: encrypt_model(model, c, **norm), lambda x: x, norm)
    cipher = PositionCipher(key, size)
    cases["key by position"] = cipher, lambda m, c=cipher: encrypt_model_by_position(m, c, **norm), lambda x: x, norm
    bits, unit_norm = PatchCipher(key, size, 24), {"mean": (0,) * 24, "std": (1,) * 24}
    cases["single bits"] = bits, lambda m: encrypt_model(bit_model(m, **norm), bits, **unit_norm), to_bits, unit_norm
    for name, (cipher, encrypt, prepare, how) in cases.items():
        if records.done(path, {"repair": name}):
            continue
        model, _ = trained_model(scale)
        start, few = time.perf_counter(), images[:1000]
        changed, ready = encrypt(model), cipher.encrypt(prepare(few))
        plain, seconds = _timed(lambda m=model, x=few: logits(m, x, **norm))
        found, changed_seconds = _timed(lambda m=changed, x=ready, how=how: logits(m, x, **how))
        rows = [
            {"measure": "differ", "value": (found.argmax(1) != plain.argmax(1)).sum().item()},
            {"measure": "max_logit_difference", "value": (found - plain).abs().max().item()},
            {"measure": "first_layer_numbers", "value": sum(p.numel() for p in changed[0].parameters())},
            {"measure": "inference_ratio", "value": changed_seconds / seconds},
        ]
        for count in settings.repaired if name in ("key by position", "single bits") else ():
            seen = cipher.encrypt(prepare(images[:count]))
            if name == "key by position":
                estimates = ciphertext_only_by_position(seen, public, size)
                share = np.mean([share_recovered(*both) for both in zip(estimates, cipher.ciphers, strict=True)])
                shown = None
            else:
                estimate = ciphertext_only(seen, prepare(public[:2000]), size, restarts=2)
                share = share_recovered(estimate, cipher)
                shown = ssim(images[: min(count, 100)], from_bits(estimate.decrypt(seen[:100]))).mean()
            rows.append({"n_encrypted": count, "measure": "share_recovered", "value": share})
            if shown is not None:
                rows.append({"n_encrypted": count, "measure": "ssim", "value": shown})
        rows = [{"repair": name, "n_encrypted": 0, **row} for row in rows]
        records.append(path, rows, origin(scale, data, settings, start, len(few), n_keys=1))


def adversarial(scale: Scale, settings: AttackSettings) -> None:
    """Table `adversarial`: accuracy of the plain and the encrypted pipeline on examples made with each knowledge."""
    data, path = load_dataset(scale.dataset), records.table_path(scale.name, "adversarial")
    norm, size = {"mean": data.mean, "std": data.std}, scale.model["patch_size"]
    images, labels = data.test_images[: settings.attacked], data.test_labels[: settings.attacked]
    cipher = PatchCipher(SecretKey.for_experiment(0), size)

    def sources(model, encrypted):
        yield "none", None
        yield "plain model", model
        yield "encrypted model, no key", encrypted
        seen = cipher.encrypt(data.test_images[-100:])
        estimate = ciphertext_only(seen, data.train_images[: settings.public], size)
        yield "encrypted model, estimated key", decrypt_model(encrypted, estimate, **norm)
        surrogate = new_model(scale, seed=1)
        chosen = len(data.train_labels) // 5
        stolen.retrain(surrogate, data, chosen, scale.train, n_steps=3 * settings.retrain_steps)
        yield "surrogate", surrogate

    if records.done(path, {"knowledge": "surrogate"}):
        return
    model, _ = trained_model(scale)
    encrypted, rows, start = encrypt_model(model, cipher, **norm), [], time.perf_counter()
    for knowledge, source in sources(model, encrypted):
        made = {"none": images}
        if source is not None:
            made = {"pgd": pgd(source, images, labels, **norm)}
            made["square"] = square(source, images[:200], labels[:200], queries=settings.queries, **norm)
        for attack, tried in made.items():
            truth = labels[: len(tried)]
            where = {"knowledge": knowledge, "attack": attack, "n_attacked": len(tried), "measure": "accuracy"}
            rows.append({**where, "pipeline": "plain", "value": accuracy(model, tried, truth, **norm)})
            found = accuracy(encrypted, cipher.encrypt(tried), truth, **norm)
            rows.append({**where, "pipeline": "encrypted", "value": found})
    records.append(path, rows, origin(scale, data, settings, start, len(images), n_keys=1))


def stolen_model(scale: Scale, settings: AttackSettings) -> None:
    """Table `stolen_model`: accuracy on plain test images of what the attacker makes of it, by method and labels."""
    data, path = load_dataset(scale.dataset), records.table_path(scale.name, "stolen_model")
    norm, size = {"mean": data.mean, "std": data.std}, scale.model["patch_size"]
    test, truth = data.test_images[: settings.opened], data.test_labels[: settings.opened]
    cipher = PatchCipher(SecretKey.for_experiment(0), size)

    def locked():
        return encrypt_model(trained_model(scale)[0], cipher, **norm)

    def searched(method, count, **budget):
        few = data.train_images[:count], data.train_labels[:count]
        found = method(locked(), *few, **norm, **budget)
        return found[0] if isinstance(found, tuple) else found

    def retrained(make, train):
        def method(count):
            model = make()
            stolen.retrain(model, data, count, scale.train, n_steps=settings.retrain_steps, train=train)
            return model

        return method

    new_trained = retrained(lambda: new_model(scale, seed=1), "everything")
    methods = {
        "no key": lambda count: locked(),
        "filters": lambda n: stolen.from_filters(locked(), new_trained(n), std=data.std),
        "random keys": lambda n: searched(stolen.random_keys, min(n, 500), trials=settings.trials),
        "hill climbing": lambda n: searched(stolen.hill_climb, min(n, 500), trials=settings.trials),
        "gradient": lambda n: searched(stolen.gradient_search, n, iterations=settings.iterations),
        "embedding": retrained(locked, "embedding"),
        "everything": retrained(locked, "everything"),
        "from nothing": new_trained,
    }
    for name, method in methods.items():
        for count in {"no key": (0,), "filters": settings.labelled[-1:]}.get(name, settings.labelled):
            unit = {"method": name, "n_labelled": count}
            if records.done(path, unit):
                continue
            start, rows = time.perf_counter(), []
            found = method(count)
            spent = time.perf_counter() - start
            if isinstance(found, PatchCipher):
                rows.append({**unit, "measure": "share_recovered", "value": share_recovered(found, cipher)})
                found = decrypt_model(locked(), found, **norm)
            rows.append({**unit, "measure": "accuracy", "value": accuracy(found, test, truth, **norm)})
            rows.append({**unit, "measure": "attack_seconds", "value": spent})
            records.append(path, rows, origin(scale, data, settings, start, len(truth), n_keys=1))


def _timed(function):
    function()
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start
