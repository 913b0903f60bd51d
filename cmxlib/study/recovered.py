"""Tables `recovered` and `moved`: `attack_images` goes on, as far as it can, and where whole patches change places.

`recovered` gives the attack on an orthogonal key ten times the public images, and statistics of higher order. Both
judge what comes back of an image by its likeness (SSIM), and by what a network that was trained on plain images makes
of it.
"""

import functools

from ..attacks.higher_order import by_components, independent_components
from ..attacks.jigsaw import jigsaw_of_places
from ..attacks.matching import share_recovered
from ..attacks.metrics import ssim
from ..attacks.on_images import ciphertext_only, patch_moments
from ..lock.blocks import BlockCipher
from ..lock.keys import SecretKey
from .images import SHOWN, come_back, drawn
from .scales import Scale, ciphers
from .table import Table, of_attack

COVARIANCES, COMPONENTS = "covariances", "independent components"


def _units(scale: Scale):
    """Attack, public images (some, and ten times as many), patch size and key; under each key other ones of the test
    images, half of CIFAR-10's, for with the same ones another key would change nothing. Smaller patches than the
    model's have nothing left to find."""
    attack, own, half = scale.attack, scale.patch_sizes[0], (max(scale.attack.victims) + 1) // 2
    for size in (own, *(size for size in attack.patch_sizes if size > own)):
        for kind, times in ((COVARIANCES, 1), (COVARIANCES, 10), (COMPONENTS, 10)):
            for seed in range(attack.draws):
                unit = {"attack": kind, "n_public": times * attack.public, "patch_size": size, "steps": "orthogonal"}
                yield {**unit, "n_encrypted": half, "key_seed": seed}


@functools.lru_cache(maxsize=4)
def _known(scale, kind, count, size):
    """What the attacker knows of public images."""
    images = scale.data().train_images[:count]
    return patch_moments(images, size) if kind == COVARIANCES else independent_components(images, size)


def _measure(scale: Scale, unit: dict):
    """share_recovered; ssim of decrypted images; recovered_accuracy of the plain network on them."""
    size, seed = unit["patch_size"], unit["key_seed"]
    cipher = ciphers(scale.channels)[unit["steps"]](SecretKey.for_experiment(seed), size)
    seen = cipher.encrypt(drawn(scale.data().test_images, unit["n_encrypted"], seed))
    steps = tuple(unit["steps"].split("+"))
    estimate = ciphertext_only(seen, _known(scale, COVARIANCES, unit["n_public"], size), size, steps, seed=seed)
    if unit["attack"] == COMPONENTS:
        estimate = by_components(seen, _known(scale, COMPONENTS, unit["n_public"], size), estimate, size, seed=seed)
    return _worth(scale, estimate, cipher)


def _worth(scale, estimate, cipher):
    shown, read = come_back(scale, estimate, cipher)
    found = {
        "share_recovered": share_recovered(estimate, cipher),
        "ssim": ssim(scale.data().test_images[:SHOWN], shown[:SHOWN]).mean(),
        "recovered_accuracy": read,
    }
    return [{"measure": name, "value": value} for name, value in found.items()]


RECOVERED = Table("recovered", _units, _measure, lambda scale, unit: of_attack(scale, unit["n_encrypted"]))


# -- moved: by steps inside patches, number of encrypted images and key; places_recovered: the share of places ---------


def _moved_units(scale: Scale):
    attack = scale.attack
    for steps in ("", "shuffle+flip"):
        for count in (count for count in attack.victims if 10 <= count <= 1000):
            for seed in range(attack.draws):
                yield {"patch_size": scale.patch_sizes[0], "steps": steps, "n_encrypted": count, "key_seed": seed}


def _moved(scale: Scale, unit: dict):
    data, size, seed = scale.data(), unit["patch_size"], unit["key_seed"]
    steps = tuple(unit["steps"].split("+")) if unit["steps"] else ()
    shape = tuple(data.test_images.shape[1:])
    cipher = BlockCipher(SecretKey.for_experiment(seed), size, shape[0], steps, image_size=shape[1:])
    seen = cipher.encrypt(drawn(data.test_images, unit["n_encrypted"], seed))
    estimate = jigsaw_of_places(seen, data.train_images[: scale.attack.public], size, steps, seed=seed)
    places = (estimate.places == cipher.places).mean()
    return [*_worth(scale, estimate, cipher), {"measure": "places_recovered", "value": places}]


MOVED = Table(
    "moved", _moved_units, _moved, lambda scale, unit: of_attack(scale, unit["n_encrypted"]), left_out=("paper",)
)
