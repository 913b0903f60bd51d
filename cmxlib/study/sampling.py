"""Table `mean_keys`: the mean over wrong keys, with its interval, for a part of the work of the table `keys`.

Keys differ far more from one another than the images of one key say: at scale paper and patches of 4, the accuracies
of wrong keys have a standard deviation of 1 to 3 points, and 10,000 images tell one of them to 0.3 to 0.4. So more keys
with fewer images each tell their mean better. With a standard deviation b between keys and w of one image of a key, the
variance of the mean of K keys with m images each is (b^2 + w^2 / m) / K; for what it costs, that is least at
m = (w / b) sqrt(c), where a key costs as much as c images before the first one is classified. Each key has images of
its own: with the same ones for all, the difficulty of these images would not average out. At patches of 2 the standard
deviation is 7 to 15 points (2 under an orthogonal key), so that thousands of keys are wanted, with a few images each.
"""

import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from ..learn.evaluate import opener, share_right
from ..lock import checks
from .scales import Scale, trained_model
from .table import Table, in_turns, of_network

KEY_COST = 4  # images that could be classified while a key is drawn and a pass begun: at scale paper 1 to 3 with
# patches of 2, some more with patches of 4, by one thread. Little hangs on it: with 2, more keys did the same work.
PILOT_KEYS, PILOT_IMAGES = 20, 200
AIM, MOST_KEYS = 0.005, 10_000  # of the table: half the width of an interval, and where it stops all the same


def images_per_key(accuracies: Sequence[float], n_images: int) -> int:
    """The number of images that each further key should get, from the accuracies of some keys on ``n_images`` each."""
    accuracies = checks.numbers(accuracies, "accuracies", 0, 1)
    if len(accuracies) < 2:
        raise ValueError(f"accuracies must be of two keys at least, for they tell how keys differ, not {accuracies}.")
    n_images = checks.whole(n_images, "n_images", 1)
    mean = float(np.mean(accuracies))
    within = mean * (1 - mean)  # the variance of one image, right or not
    between = max(float(np.var(accuracies, ddof=1)) - within / n_images, within / n_images / 10)
    ratio = within / between if within else 10 * n_images  # where no image differs, as in the limit
    return math.ceil(math.sqrt(KEY_COST * ratio))


def half_width(values: Sequence[float]) -> float:
    """Half the width of the 95 % interval for a mean, by Student's t."""
    from scipy.stats import t

    values = checks.numbers(values, "values")
    if len(values) < 2:
        raise ValueError(f"values must be two at least, for one has no spread, but they are {values}.")
    return float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))


def mean_of_keys(trial: Callable[[int, int], float], aim: float, most_keys: int, most_images: int) -> dict[str, float]:
    """The mean accuracy over wrong keys, to ``aim`` on each side or over ``most_keys`` keys: accuracy; half_width, half
    the width of its 95 % interval; keys; images_a_key; images in all, with those of the first keys, which choose
    images_a_key.

    trial: (number of a key, m) -> its accuracy on m random images of its own, of ``most_images`` at most. Keys are
    numbered from 0, and the first ``PILOT_KEYS`` choose m and do not count for the mean.
    """
    if not callable(trial):
        raise TypeError(f"trial must be a function of a key's number and m, but this is {checks.shown(trial)}.")
    aim = checks.number(aim, "aim", 0)
    most_keys = checks.whole(most_keys, "most_keys", 1)
    most_images = checks.whole(most_images, "most_images", 1)
    pilot_images = min(PILOT_IMAGES, most_images)
    pilot = [trial(key, pilot_images) for key in range(PILOT_KEYS)]
    m = min(images_per_key(pilot, pilot_images), most_images)
    found: list[float] = []
    while len(found) < PILOT_KEYS or (half_width(found) > aim and len(found) < most_keys):
        more = [trial(PILOT_KEYS + len(found) + i, m) for i in range(PILOT_KEYS)]
        found += [checks.number(each, "what trial gives", 0, 1) for each in more]
    about = {"accuracy": float(np.mean(found)), "half_width": half_width(found), "keys": len(found)}
    return about | {"images_a_key": m, "images": PILOT_KEYS * pilot_images + len(found) * m}


def _units(scale: Scale):
    for size in scale.patch_sizes:
        for steps in scale.ciphers:
            yield from ({"patch_size": size, "steps": steps, "seeds": seed} for seed in scale.seeds)


def _measure(scale: Scale, unit: dict):
    """What ``mean_of_keys`` gives, the seconds that it took, and those that one key would take on all images, by the
    least of three times for a thousand. The column n_keys holds the most keys that would have been tried."""
    scale, size = scale.at(unit["patch_size"]), unit["patch_size"]
    data, (model, _) = scale.data(), trained_model(scale, seed=unit["seeds"])

    opened = opener(model, data, lambda secret: scale.ciphers[unit["steps"]](secret, size))

    def trial(key: int, m: int) -> float:
        chosen = torch.randperm(len(data.test_labels), generator=torch.Generator().manual_seed(key))[:m]
        return share_right(opened(1 + key), data, chosen)

    start, all_images = time.perf_counter(), len(data.test_labels)
    found = mean_of_keys(trial, AIM, MOST_KEYS, all_images)
    taken, some = time.perf_counter() - start, min(1000, all_images)
    an_image = min(in_turns({"key": lambda: trial(0, some)}, 3)["key"]) / some
    found |= {"seconds": taken, "seconds_a_full_key": an_image * all_images}
    return [{"measure": name, "value": value} for name, value in found.items()]


MEAN_KEYS = Table(
    "mean_keys",
    _units,
    _measure,
    lambda scale, unit: of_network(scale.at(unit["patch_size"]), unit["seeds"], n_keys=MOST_KEYS),
    trained=lambda scale, unit: (scale.at(unit["patch_size"]), unit["seeds"]),
    timed=True,
)
