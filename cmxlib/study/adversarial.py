"""Table `adversarial`: what attackers leave of the accuracy, by who encrypts, what they have, key, eps and patch size.

setting "none": nothing is encrypted. "provider": the attacker changes plain images, which the provider encrypts before
the encrypted model sees them, as the field's keyed defences mean it. "client": encrypted images travel, and the
attacker has what the encrypted model and some of them give.

Measures: ``accuracy`` of the victim on the examples, where for each image the worst of all starts counts;
``unchanged``, on the same images as they were; ``max_change`` and ``rms_change`` of the plain image, in grey levels;
``differ``, how many examples plain and encrypted pipeline classify differently; ``own_accuracy`` of the attacker's
stand-in on unchanged plain images; ``share_recovered`` of the key; ``questions`` asked about an image, on average.

Attacked are the first test images; whoever learns, learns from the other test images, which the victim never saw.
"""

import dataclasses
from functools import lru_cache, partial
from typing import NamedTuple

import torch

from ..attacks import on_models
from ..attacks.adversarial import Pipeline, autoattack, noise, pgd, square
from ..attacks.matching import share_recovered
from ..attacks.on_images import ciphertext_only
from ..learn.evaluate import accuracy, logits
from ..lock.keys import SecretKey
from ..lock.model import decrypt_model, encrypt_model
from ..lock.pixels import to_bytes, to_values
from .images import drawn
from .scales import Scale, named, trained_model
from .table import Table, of_attack

SEEN = 1000  # encrypted images of which the key is estimated
RATE = 0.08  # for a first layer, by the rows `stolen_rates` of the small scale: no test image chose it


class Kind(NamedTuple):
    """A kind of attack and its units; it is made on one of ``part`` parts of ``attacked``, by what an image costs, and
    for other patch sizes than the first, with one key and one eps, on one of ``finer`` parts, where that is not 0."""

    setting: str
    knowledge: str
    attack: str
    ciphers: tuple[str, ...] = ("none",)
    levels: tuple[int, ...] = (8,)
    part: int = 1
    keys: int = 1
    finer: int = 0


BOTH = "shuffle+flip", "orthogonal"
KINDS = (  # in the order of measuring
    Kind("none", "plain model", "none", levels=(0,), finer=1),
    Kind("none", "plain model", "pgd", levels=(8, 4), finer=5),
    Kind("client", "encrypted model", "pgd", BOTH, keys=3, finer=5),
    Kind("none", "plain model", "noise", levels=(8, 4)),
    Kind("client", "estimated key", "pgd", BOTH, keys=3),
    Kind("provider", "encrypted model", "pgd", BOTH, part=5, keys=3, finer=5),
    Kind("provider", "own model", "pgd", BOTH[:1], levels=(8, 4)),
    Kind("provider", "first layer retrained", "pgd", BOTH[:1]),
    Kind("provider", "answers", "square", BOTH[:1], part=10, keys=3, finer=10),
)
EXTRA = (  # the same with other ciphers, sizes of change and attacks
    Kind("client", "encrypted model", "autoattack", BOTH[:1], part=10),
    Kind("provider", "answers", "square", BOTH[1:], part=10),
    Kind("client", "encrypted model", "pgd", BOTH, levels=(4,)),
    Kind("provider", "encrypted model", "pgd", ("shuffle",), part=5),
    Kind("client", "encrypted model", "pgd", ("shuffle",)),
    Kind("provider", "encrypted model", "pgd", BOTH, levels=(4,), part=5),
    Kind("provider", "answers", "square", BOTH[:1], levels=(4,), part=10),
)


def _units(scale: Scale):
    first, *others = scale.patch_sizes
    yield from (unit for kind in KINDS for unit in _of(kind, first, min(kind.keys, scale.attack.draws)))
    for size in others:
        yield from (unit for kind in KINDS if kind.finer for unit in _of(kind._replace(levels=kind.levels[:1]), size))
    yield from (unit for kind in EXTRA for unit in _of(kind, first))


def _of(kind: Kind, size: int, keys: int = 1):
    where = {"setting": kind.setting, "knowledge": kind.knowledge, "attack": kind.attack}
    for cipher in kind.ciphers:
        for level in kind.levels:
            for key in range(keys):
                yield {**where, "steps": cipher, "key": key, "eps": level, "patch_size": size}


def _n_images(scale: Scale, unit: dict) -> int:
    for kind in KINDS + EXTRA:
        if unit in _of(kind, unit["patch_size"], kind.keys):
            part = kind.part if unit["patch_size"] == scale.patch_sizes[0] else kind.finer
            return max(scale.attack.attacked // part, 1)
    raise LookupError(f"No kind of attack has the unit {unit}.")


def _measure(scale: Scale, unit: dict):
    n, scale = _n_images(scale, unit), scale.at(unit["patch_size"])
    data, attack, settings = scale.data(), unit["attack"], scale.attack
    norm, images, labels = data.norm, data.test_images[:n], data.test_labels[:n]
    model = trained_model(scale)[0]
    cipher = (
        None
        if unit["steps"] == "none"
        else scale.ciphers[unit["steps"]](SecretKey.for_experiment(unit["key"]), unit["patch_size"])
    )
    victim = model if cipher is None else encrypt_model(model, cipher, **norm)
    sent = cipher.encrypt if cipher else lambda plain: plain  # what the victim is given for a plain image
    source, about = _source(scale, unit, model, victim, cipher)
    if source is not None and source is not model and source is not victim:
        about["own_accuracy"] = accuracy(source, images, labels, **norm)
    in_transit = unit["setting"] == "client" and unit["knowledge"] == "encrypted model"
    shown = sent(images) if in_transit else images
    limits = tuple(end.item() for end in torch.aminmax(shown)) if shown.is_floating_point() else (0, 1)
    how = {**norm, "eps": unit["eps"] / 255}
    asked = Pipeline(victim, cipher, **norm) if attack == "square" else None
    questions = []
    if asked is not None:
        asked.register_forward_hook(lambda module, given, answers: questions.append(len(answers)))

    def made(chosen, start):
        """Examples from some of the images: as they are sent where they are changed on the way, else plain."""
        where = shown[chosen], labels[chosen]
        if attack == "none":
            return where[0]
        if attack == "noise":
            return to_bytes(noise(where[0], eps=how["eps"], seed=start))
        if attack == "square":
            unit_norm = {"mean": (0,) * 3, "std": (1,) * 3}  # the pipeline normalises by itself
            found = square(asked, *where, queries=settings.queries, **{**how, **unit_norm})
        else:
            make = {"pgd": pgd, "autoattack": partial(autoattack, queries=settings.queries, starts=settings.restarts)}
            found = make[attack](source, *where, limits=limits, seed=start, **how)
        return found if shown.is_floating_point() else to_bytes(found)

    left, differ, largest, squares = torch.arange(n), 0, 0.0, []
    for start in range(settings.restarts if attack in ("pgd", "noise") else 1):
        examples = made(left, start)
        given = examples if in_transit else sent(examples)
        plain = cipher.decrypt(examples) if cipher and in_transit else examples
        answers = logits(victim, given, **norm).argmax(1)
        differ += (answers != logits(model, plain, **norm).argmax(1)).sum().item()
        change = 255 * (to_values(plain) - to_values(images[left]))
        largest, squares = max(largest, change.abs().max().item()), [*squares, change.square().mean().item()]
        left = left[answers == labels[left]]
        if not len(left):
            break
    about |= {"accuracy": len(left) / n, "unchanged": accuracy(victim, sent(images), labels, **norm), "differ": differ}
    about |= {"max_change": round(largest, 3), "rms_change": round(max(squares) ** 0.5, 3)}
    if questions:
        about["questions"] = sum(questions) / n
    return [{"measure": name, "value": value} for name, value in about.items()]


def _source(scale, unit, model, victim, cipher):
    """The model that examples are made on, or None, and what is to be said of it."""
    data, size, settings = scale.data(), unit["patch_size"], scale.attack
    match unit["knowledge"]:
        case "plain model":
            return model, {}
        case "encrypted model":
            return victim, {}
        case "estimated key":
            steps = tuple(unit["steps"].split("+"))
            # Other images under each key: with the same ones, another orthogonal key would change nothing.
            seen = cipher.encrypt(drawn(data.test_images[settings.attacked :], SEEN, unit["key"]))
            public = data.train_images[: settings.public]
            estimate = ciphertext_only(seen, public, size, steps)
            return decrypt_model(victim, estimate, **data.norm), {"share_recovered": share_recovered(estimate, cipher)}
        case "first layer retrained":
            return _retrained(scale, unit["steps"], unit["key"]), {}
        case "own model":
            return _own_model(scale), {}
    return None, {}


@lru_cache(maxsize=1)
def _retrained(scale, steps, key):
    """The encrypted model with its first layer retrained from the test images that are not attacked."""
    data, size, held = scale.data(), scale.model["patch_size"], slice(scale.attack.attacked, None)
    thief = dataclasses.replace(data, train_images=data.test_images[held], train_labels=data.test_labels[held])
    victim = encrypt_model(
        trained_model(scale)[0], scale.ciphers[steps](SecretKey.for_experiment(key), size), **data.norm
    )
    how = dataclasses.replace(scale.train, max_lr=RATE)
    n_steps = scale.attack.retrain_steps
    on_models.retrain(victim, thief, len(thief.train_labels), how, n_steps=n_steps, train="embedding")
    return victim.eval()


def _own_model(scale):
    """A network that the attacker trained on the public training images, the victim's own: the small scale's for that
    of scale paper, which takes too long to train once more, else one of another seed."""
    return trained_model(named("small"))[0] if scale.name == "paper" else trained_model(scale, seed=1)[0]


ADVERSARIAL = Table(
    "adversarial",
    _units,
    _measure,
    lambda scale, unit: of_attack(scale, _n_images(scale, unit)),
    trained=lambda scale, unit: (scale.at(unit["patch_size"]), 0),
    left_out=("small",),  # whose first rows, of weaker attacks, are kept as `first_adversarial`
)
