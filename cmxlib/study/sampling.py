"""How many test images a wrong key needs: the mean over keys, with its interval, for a part of the work.

Keys differ far more from one another than the images of one key say: at scale paper and patches of 4, the accuracies
of wrong keys have a standard deviation of 1 to 3 points, and 10,000 images tell one of them to 0.3 to 0.4. So more keys
with fewer images each tell their mean better. With a standard deviation b between keys and w of one image of a key, the
variance of the mean of K keys with m images each is (b^2 + w^2 / m) / K; for what it costs, that is least at
m = (w / b) sqrt(c), where a key costs as much as c images before the first one is classified. Each key has images of
its own: with the same ones for all, the difficulty of these images would not average out.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..learn.device import bf16_is_faster, default_device
from ..learn.evaluate import wrong_key_accuracy
from .scales import Scale, trained_model
from .table import Table, of_network

KEY_COST = 100  # images that could be classified while a key is drawn and the model decrypted with it
PILOT_KEYS, PILOT_IMAGES = 20, 500
AIM, TIMES_AS_MANY = 0.005, 10  # of the table: half a point on each side, by at most 10 times the scale's wrong keys
FIRST_KEY = 1_000_000  # none of these is a key of the table `keys`, whose means these rows can thus be held against


@dataclass(frozen=True)
class MeanOfKeys:
    """A mean accuracy over keys, with half the width of its 95 % interval, and what it was measured over."""

    mean: float
    half_width: float
    n_keys: int
    images_a_key: int
    images: int  # in all, with those of the first keys, which choose images_a_key


def images_per_key(accuracies: Sequence[float], n_images: int) -> int:
    """The number of images that each further key should get, from the accuracies of some keys on ``n_images`` each."""
    mean = float(np.mean(accuracies))
    within = mean * (1 - mean)  # the variance of one image, right or not
    between = max(float(np.var(accuracies, ddof=1)) - within / n_images, within / n_images / 10)
    return math.ceil(math.sqrt(KEY_COST * within / between))


def half_width(values: Sequence[float]) -> float:
    """Half the width of the 95 % interval for a mean, by Student's t."""
    from scipy.stats import t

    return float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))


def mean_of_keys(trial: Callable[[int, int], float], aim: float, most_keys: int, most_images: int) -> MeanOfKeys:
    """The mean accuracy over wrong keys, to ``aim`` on each side or over ``most_keys`` keys.

    trial: (number of a key, m) -> its accuracy on m random images of its own, of ``most_images`` at most. Keys are
    numbered from 0, and the first ``PILOT_KEYS`` choose m and do not count for the mean.
    """
    pilot_images = min(PILOT_IMAGES, most_images)
    pilot = [trial(key, pilot_images) for key in range(PILOT_KEYS)]
    m = min(images_per_key(pilot, pilot_images), most_images)
    found: list[float] = []
    while len(found) < PILOT_KEYS or (half_width(found) > aim and len(found) < most_keys):
        found += [trial(PILOT_KEYS + len(found) + i, m) for i in range(PILOT_KEYS)]
    images = PILOT_KEYS * pilot_images + len(found) * m
    return MeanOfKeys(float(np.mean(found)), half_width(found), len(found), m, images)


# -- sampled_keys: the mean accuracy under wrong keys, by few images of each; the table `keys` gives each key all -----


def _sampled(scale: Scale, unit: dict):
    scale, data = scale.at(unit["patch_size"]), scale.data()
    model, _ = trained_model(scale, seed=unit["seeds"])
    autocast = bf16_is_faster(default_device())

    def trial(number, m):
        order = torch.randperm(len(data.test_labels), generator=torch.Generator().manual_seed(number))[:m]
        own = replace(data, test_images=data.test_images[order], test_labels=data.test_labels[order])
        return wrong_key_accuracy(
            model,
            own,
            lambda key: scale.ciphers[unit["steps"]](key, unit["patch_size"]),
            FIRST_KEY + number,
            autocast=autocast,
        )

    found = mean_of_keys(trial, AIM, TIMES_AS_MANY * scale.n_wrong, len(data.test_labels))
    return [{"measure": name, "value": value} for name, value in vars(found).items()]


SAMPLED_KEYS = Table(
    "sampled_keys",
    lambda scale: [
        {"patch_size": size, "steps": steps, "seeds": seed}
        for size in scale.patch_sizes
        for steps in scale.ciphers
        for seed in scale.seeds
    ],
    _sampled,
    lambda scale, unit: of_network(scale.at(unit["patch_size"]), unit["seeds"]),
    trained=lambda scale, unit: (scale.at(unit["patch_size"]), unit["seeds"]),
)
