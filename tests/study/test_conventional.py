"""The comparison with conventional methods, on a data set so small that it shows the bookkeeping and nothing else."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from cmxlib import SecretKey
from cmxlib.book.summaries import CONVENTIONAL as SHOWN
from cmxlib.book.summaries import conventional_table, duration, published_table
from cmxlib.lock.conventional import METHODS, make_cipher
from cmxlib.study import conventional, records
from cmxlib.study.conventional import CONVENTIONAL, N_WRONG
from cmxlib.study.scales import SCALES
from cmxlib.study.table import record


def test_what_is_shown_is_what_is_measured():
    assert SHOWN == METHODS


def test_measures_every_method_once_on_images_of_the_right_key(toy, monkeypatch):
    trained, fit = {}, conventional.fit

    def watched(model, data, settings, **options):
        trained[options["checkpoint"].name.split("-")[1]] = data, options["transform"]
        return fit(model, data, settings, **{**options, "progress": False})

    monkeypatch.setattr(conventional, "fit", watched)
    scale = dataclasses.replace(toy, compared_seeds=(3,))
    record(CONVENTIONAL, scale, lambda text: None)
    rows = records.read("toy", "conventional")
    assert list(rows.method.unique()) == ["plain", "proposed", *METHODS]
    assert set(trained) == set(METHODS)  # a network of its own for each method
    for method in ("proposed", *METHODS):
        mine = rows[rows.method == method]
        counts = {"correct key": 1, "wrong key": N_WRONG, "no key": 1, "key change": 1, "key space": 1}
        assert mine.case.value_counts().to_dict() == counts
        assert (mine[mine.case == "correct key"].key_seed == 3).all()
        assert 3 not in set(mine[mine.case == "wrong key"].key_seed)
        assert set(mine.n_keys) == {N_WRONG}
    plain = toy.data()
    for method, (encrypted, transform) in trained.items():
        right = make_cipher(method, SecretKey.for_experiment(3), block_size=4, image_size=(32, 32))
        assert torch.equal(encrypted.test_images, right.encrypt(plain.test_images))
        assert torch.equal(transform(plain.test_images), encrypted.test_images)
        assert torch.equal(encrypted.train_images, plain.train_images)  # encrypted after augmentation, batch by batch

    table = conventional_table(rows).set_index("method")
    assert table.loss["proposed"] == 0  # exact, also with random weights and images
    assert table.loc["LE", "n_wrong"] == N_WRONG


def test_the_paper_scale_has_one_seed():
    seeds = {name: {unit["seed"] for unit in CONVENTIONAL.units(SCALES[name])} for name in ("paper", "small")}
    assert seeds == {"paper": {0}, "small": {0, 1, 2}}


def test_the_table_sums_up_over_seeds_and_keys():
    def row(method, seed, case, value):
        return {"method": method, "seed": seed, "case": case, "value": value}

    rows = [row("plain", 0, "plain", 0.9), row("plain", 1, "plain", 0.8)]
    rows += [row("LE", 0, "correct key", 0.85), row("LE", 1, "correct key", 0.65)]
    rows += [row("LE", seed, "wrong key", value) for seed, value in ((0, 0.1), (0, 0.2), (1, 0.3))]
    rows += [row("LE", 0, "no key", 0.12), row("LE", 0, "key change", 60), row("LE", 1, "key change", 80)]
    plain, le = conventional_table(pd.DataFrame(rows)).to_dict("records")
    assert (plain["method"], plain["seeds"], plain["loss"], plain["n_wrong"]) == ("plain", 2, 0, 0)
    assert le["correct"] == pytest.approx(75)
    assert le["loss"] == pytest.approx(10)  # of 5 and 15, each against its own plain network
    # t with 1 degree of freedom at 97.5 %: 12.706; sd of 5 and 15 is 7.0711; half width 12.706 * 7.0711 / sqrt(2)
    assert (le["loss_low"], le["loss_high"]) == pytest.approx((10 - 63.53, 10 + 63.53), abs=0.01)
    assert (le["wrong"], le["wrong_max"], le["n_wrong"]) == pytest.approx((20, 30, 3))
    assert (le["no_key"], le["key_change"]) == pytest.approx((12, 70))


def test_a_network_without_its_plain_twin_has_no_loss():
    rows = [("plain", 0, "plain", 0.9), ("LE", 0, "correct key", 0.8), ("SHF", 1, "correct key", 0.7)]
    rows = pd.DataFrame(rows, columns=["method", "seed", "case", "value"])
    table = conventional_table(rows).set_index("method")
    assert table.loss["LE"] == pytest.approx(10) and np.isnan(table.loss_low["LE"])  # one seed gives no interval
    assert table.correct["SHF"] == pytest.approx(70) and np.isnan(table.loss["SHF"])


@pytest.mark.parametrize(
    "seconds, text",
    [(7200, "2 h"), (431, "7.18 min"), (41, "41 s"), (0.00243, "2.43 ms"), (8.5e-5, "85 µs"), (0, "0 µs")],
)
def test_spans_of_time_are_readable(seconds, text):
    assert duration(seconds) == text


def test_published_figures_name_their_source_and_methods():
    published = published_table()
    assert set(published.method) <= {"plain", *METHODS}
    assert published.source.str.len().min() > 0
    assert published.accuracy.between(10, 100).all()
