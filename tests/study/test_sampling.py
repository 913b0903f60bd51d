"""The mean over wrong keys by few images of each: held against the tables that gave each key all images."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from cmxlib.learn.evaluate import wrong_key_accuracy
from cmxlib.study import records, sampling
from cmxlib.study.scales import trained_model
from cmxlib.study.table import record

REPEATED = 25


def recorded():
    """The accuracies of wrong keys, each over 10,000 images, by scale and steps at patches of 4."""
    for scale in ("small", "paper"):
        rows = records.read(scale, "keys")
        rows = rows[(rows.case == "wrong key") & (rows.measure == "accuracy") & (rows.patch_size == 4)]
        for steps, found in rows.groupby("steps"):
            yield f"{scale} {steps}", found.value.to_numpy()


RECORDED = dict(recorded())


def test_intervals_hold_the_recorded_means_at_their_rate_for_a_fifth_of_the_work():
    """Keys are drawn from the recorded ones, and a key's images from the 10,000: what it would have got by chance."""
    rng, covered = np.random.default_rng(0), []
    for name, accuracies in RECORDED.items():

        def trial(key, m, accuracies=accuracies):
            right = round(10_000 * rng.choice(accuracies))
            return rng.hypergeometric(right, 10_000 - right, m) / m

        for _ in range(REPEATED):
            found = sampling.mean_of_keys(trial, 0.005, 10_000, 10_000)
            covered.append(abs(found["accuracy"] - accuracies.mean()) <= found["half_width"])
            assert found["half_width"] <= 0.005, name
            work = found["images"] + sampling.KEY_COST * (found["keys"] + sampling.PILOT_KEYS)
            full = len(accuracies) * (10_000 + sampling.KEY_COST)
            assert work < full / (5 if len(accuracies) == 200 else 3), name  # scale small has half as many keys
    assert len(RECORDED) == 8 and 0.91 < np.mean(covered) < 0.99  # of 200


def test_the_table_gives_the_mean_over_as_many_keys_as_it_needs(toy, monkeypatch):
    scale = replace(toy, ciphers={"flip": toy.ciphers["flip"]})
    monkeypatch.setattr(sampling, "MOST_KEYS", 40)
    monkeypatch.setattr(sampling, "KEY_COST", 400)
    record(sampling.MEAN_KEYS, scale, lambda text: None)
    (row,) = records.read("toy", "mean_keys").pivot(index="steps", columns="measure", values="value").itertuples()
    assert row.keys in (20, 40) and (row.half_width <= sampling.AIM or row.keys == 40)
    assert row.images == (20 + row.keys) * 40  # where keys cost so much, every key gets all
    model, data = trained_model(scale)[0], scale.data()
    made = partial(toy.ciphers["flip"], patch_size=4)
    every = [wrong_key_accuracy(model, data, made, 21 + key) for key in range(int(row.keys))]
    assert row.accuracy == pytest.approx(np.mean(every))


def test_more_images_are_for_keys_that_are_alike():
    rng = np.random.default_rng(0)
    apart, alike = (0.15 + rng.normal(0, spread, 500) + rng.normal(0, 0.016, 500) for spread in (0.03, 0.01))
    few, many = (sampling.images_per_key(found, 500) for found in (apart, alike))
    best = [np.sqrt(sampling.KEY_COST * 0.15 * 0.85) / spread for spread in (0.03, 0.01)]
    assert (few, many) == (pytest.approx(best[0], rel=0.15), pytest.approx(best[1], rel=0.15))
    assert sampling.images_per_key([0.15] * 20, 500) == 142  # at most, however alike they seem


def test_what_cannot_be_told_so_well_says_so():
    """Keys as far apart as at patches of 2: no more keys than were allowed, and the interval that these give."""
    rng = np.random.default_rng(0)
    found = sampling.mean_of_keys(lambda key, m: rng.choice([0.1, 0.7]), 0.005, 100, 10_000)
    assert found["keys"] == 100 and 0.05 < found["half_width"] < 0.07
