"""Table `adversarial`: accuracy of the plain and the encrypted pipeline on examples made with each knowledge.

All examples are images of bytes, within 8 of 255 grey levels (max_change). ``differ`` counts the examples that the two
pipelines classify differently; own_accuracy is that of the attacker's stand-in on unchanged plain images.
"""

import dataclasses

from ..attacks import on_models
from ..attacks.adversarial import Pipeline, noise, pgd, square
from ..attacks.matching import share_recovered
from ..attacks.on_images import ciphertext_only
from ..learn.evaluate import accuracy, logits
from ..lock.keys import SecretKey
from ..lock.model import decrypt_model, encrypt_model
from ..lock.patch import PatchCipher
from ..lock.pixels import to_bytes
from . import records
from .scales import Scale, new_model, trained_model
from .stolen import STOLEN_RATES, chosen_rate
from .table import Table, of_attack

KNOWLEDGE = (
    "none",
    "plain model",
    "encrypted model, no key",
    "encrypted model, first layer relearnt",
    "encrypted model, estimated key",
    "surrogate",
    "answers of the encrypted pipeline",
    "encrypted model and encrypted images",
)


def _measure(scale: Scale, unit: dict):
    data, size = scale.data(), scale.patch_sizes[0]
    norm = data.norm
    images, labels = data.test_images[: scale.attack.attacked], data.test_labels[: scale.attack.attacked]
    model, cipher = trained_model(scale)[0], PatchCipher(SecretKey.for_experiment(0), size)
    encrypted = encrypt_model(model, cipher, **norm)
    made, source, about = _examples(scale, unit["knowledge"], model, encrypted, cipher, images, labels)
    if source is not None:
        about["own_accuracy"] = accuracy(source, images, labels, **norm)
    for name, value in about.items():
        yield {"attack": "", "n_attacked": len(images), "pipeline": "", "measure": name, "value": value}
    for attack, tried in made.items():
        where = {"attack": attack, "n_attacked": len(tried), "pipeline": ""}
        found = {
            "plain": logits(model, tried, **norm).argmax(1),
            "encrypted": logits(encrypted, cipher.encrypt(tried), **norm).argmax(1),
        }
        for pipeline, answers in found.items():
            right = (answers == labels[: len(tried)]).double().mean().item()
            yield {**where, "pipeline": pipeline, "measure": "accuracy", "value": right}
        change = (tried.int() - images[: len(tried)].int()).abs().max().item()
        yield {**where, "measure": "max_change", "value": change}
        yield {**where, "measure": "differ", "value": (found["plain"] != found["encrypted"]).sum().item()}


def _examples(scale, knowledge, model, encrypted, cipher, images, labels):
    """What an attacker with this knowledge makes: ({attack: images}, the model that they were made on, numbers)."""
    data, size, norm = scale.data(), cipher.patch_size, scale.data().norm
    few, few_labels = images[:200], labels[:200]  # for Square, which takes long
    own = len(data.train_labels) // 5  # labelled images of the attacker

    def own_answers(source):
        return logits(source, few, **norm).argmax(1)

    def by_pgd(source):
        return to_bytes(pgd(source, images, labels, **norm))

    def by_square(source, answers=few_labels, **how):
        return to_bytes(square(source, few, answers, queries=scale.attack.queries, **{**norm, **how}))

    def both(source):
        return {"pgd": by_pgd(source), "square": by_square(source)}, source, {}

    def estimated():
        seen = cipher.encrypt(data.test_images[-100:])
        estimate = ciphertext_only(seen, data.train_images[: scale.attack.public], size)
        made, source, _ = both(decrypt_model(encrypted, estimate, **norm))
        return made, source, {"share_recovered": share_recovered(estimate, cipher)}

    def relearnt():
        source = encrypt_model(model, cipher, **norm)
        how = dataclasses.replace(
            scale.train, max_lr=chosen_rate(records.read(scale.name, "stolen_rates"), "embedding")
        )
        on_models.retrain(source, data, own, how, n_steps=scale.attack.retrain_steps, train="embedding")
        return {"pgd": by_pgd(source)}, source, {}

    def surrogate():
        source = new_model(scale, seed=1)
        on_models.retrain(source, data, own, scale.train, n_steps=3 * scale.attack.retrain_steps)
        return {"pgd": by_pgd(source), "square": by_square(source, own_answers(source))}, source, {}

    def asking():
        unit = {"mean": (0,) * 3, "std": (1,) * 3}  # the pipeline normalises by itself
        return {"square": by_square(Pipeline(encrypted, cipher, **norm), **unit)}, None, {}

    def in_transit():
        changed = to_bytes(pgd(encrypted, cipher.encrypt(images), labels, **norm))
        return {"pgd": cipher.decrypt(changed)}, None, {}

    def no_key():
        return {"pgd": by_pgd(encrypted), "square": by_square(encrypted, own_answers(encrypted))}, encrypted, {}

    return {
        "none": lambda: ({"none": images, "noise": to_bytes(noise(images))}, None, {}),
        "plain model": lambda: both(model),
        "encrypted model, no key": no_key,
        "encrypted model, first layer relearnt": relearnt,
        "encrypted model, estimated key": estimated,
        "surrogate": surrogate,
        "answers of the encrypted pipeline": asking,
        "encrypted model and encrypted images": in_transit,
    }[knowledge]()


ADVERSARIAL = Table(
    "adversarial",
    lambda scale: [{"knowledge": knowledge} for knowledge in KNOWLEDGE],
    _measure,
    lambda scale, unit: of_attack(scale, scale.attack.attacked),
    reads=(STOLEN_RATES,),
    trained=lambda scale, unit: (scale, 0),
)
