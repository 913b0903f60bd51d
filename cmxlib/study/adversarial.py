"""The recorded adversarial examples: table `adversarial` of `results/<scale>/`, as in `security_study`."""

import dataclasses
import time

from ..attacks import on_models as stolen
from ..attacks.adversarial import Pipeline, noise, pgd, square, to_bytes
from ..attacks.matching import share_recovered
from ..attacks.on_images import ciphertext_only
from ..learn.data import load_dataset
from ..learn.evaluate import accuracy, logits
from ..lock.keys import SecretKey
from ..lock.model import decrypt_model, encrypt_model
from ..lock.patch import PatchCipher
from . import records
from .images import AttackSettings, origin
from .scales import Scale, new_model, trained_model
from .stolen import chosen_rate


def adversarial(scale: Scale, settings: AttackSettings) -> None:
    """Table `adversarial`: accuracy of the plain and the encrypted pipeline on examples made with each knowledge.

    All examples are images of bytes, within 8 of 255 grey levels (max_change). ``differ`` counts the examples that the
    two pipelines classify differently; own_accuracy is that of the attacker's stand-in on unchanged plain images.
    """
    data, path = load_dataset(scale.dataset), records.table_path(scale.name, "adversarial")
    norm, size = {"mean": data.mean, "std": data.std}, scale.model["patch_size"]
    images, labels = data.test_images[: settings.attacked], data.test_labels[: settings.attacked]
    few, few_labels = images[:200], labels[:200]  # for Square, which takes long
    model, cipher = trained_model(scale)[0], PatchCipher(SecretKey.for_experiment(0), size)
    encrypted = encrypt_model(model, cipher, **norm)

    def own_answers(source):
        return logits(source, few, **norm).argmax(1)

    def by_pgd(source):
        return to_bytes(pgd(source, images, labels, **norm))

    def by_square(source, answers=few_labels, **how):
        return to_bytes(square(source, few, answers, queries=settings.queries, **{**norm, **how}))

    def both(source):
        return {"pgd": by_pgd(source), "square": by_square(source)}, source, {}

    def estimated():
        seen = cipher.encrypt(data.test_images[-100:])
        estimate = ciphertext_only(seen, data.train_images[: settings.public], size)
        made, source, _ = both(decrypt_model(encrypted, estimate, **norm))
        return made, source, {"share_recovered": share_recovered(estimate, cipher)}

    def relearnt():
        source = encrypt_model(model, cipher, **norm)
        how = dataclasses.replace(
            scale.train, max_lr=chosen_rate(records.read(scale.name, "stolen_rates"), "embedding")
        )
        stolen.retrain(source, data, own, how, n_steps=settings.retrain_steps, train="embedding")
        return {"pgd": by_pgd(source)}, source, {}

    def surrogate():
        source = new_model(scale, seed=1)
        stolen.retrain(source, data, own, scale.train, n_steps=3 * settings.retrain_steps)
        return {"pgd": by_pgd(source), "square": by_square(source, own_answers(source))}, source, {}

    def asking():
        unit = {"mean": (0,) * 3, "std": (1,) * 3}  # the pipeline normalises by itself
        return {"square": by_square(Pipeline(encrypted, cipher, **norm), **unit)}, None, {}

    def in_transit():
        changed = to_bytes(pgd(encrypted, cipher.encrypt(images), labels, **norm))
        return {"pgd": cipher.decrypt(changed)}, None, {}

    def no_key():
        return {"pgd": by_pgd(encrypted), "square": by_square(encrypted, own_answers(encrypted))}, encrypted, {}

    own = len(data.train_labels) // 5  # labelled images of the attacker
    knowledges = {
        "none": lambda: ({"none": images, "noise": to_bytes(noise(images))}, None, {}),
        "plain model": lambda: both(model),
        "encrypted model, no key": no_key,
        "encrypted model, first layer relearnt": relearnt,
        "encrypted model, estimated key": estimated,
        "surrogate": surrogate,
        "answers of the encrypted pipeline": asking,
        "encrypted model and encrypted images": in_transit,
    }
    for knowledge, make in knowledges.items():
        if records.done(path, {"knowledge": knowledge}):
            continue
        start = time.perf_counter()
        made, source, about = make()
        if source is not None:
            about["own_accuracy"] = accuracy(source, images, labels, **norm)
        where = {"knowledge": knowledge, "attack": "", "n_attacked": len(images), "pipeline": ""}
        rows = [{**where, "measure": name, "value": value} for name, value in about.items()]
        for attack, tried in made.items():
            truth = labels[: len(tried)]
            found = {
                "plain": logits(model, tried, **norm).argmax(1),
                "encrypted": logits(encrypted, cipher.encrypt(tried), **norm).argmax(1),
            }
            where |= {"attack": attack, "n_attacked": len(tried)}
            for pipeline, answers in found.items():
                right = (answers == truth).double().mean().item()
                rows.append({**where, "pipeline": pipeline, "measure": "accuracy", "value": right})
            change = (tried.int() - images[: len(tried)].int()).abs().max().item()
            rows.append({**where, "measure": "max_change", "value": change})
            differ = (found["plain"] != found["encrypted"]).sum().item()
            rows.append({**where, "measure": "differ", "value": differ})
        records.append(path, rows, origin(scale, data, settings, start, len(images), n_keys=1))
