"""The comparison with conventional methods, on a data set so small that it shows the bookkeeping and nothing else."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from cmxlib import paths
from cmxlib.book.summaries import conventional_table, duration, published_table
from cmxlib.learn.data import Dataset
from cmxlib.learn.train import TrainSettings
from cmxlib.lock.conventional import METHODS
from cmxlib.study import conventional as conventional_study
from cmxlib.study import records, scales
from cmxlib.study.conventional import N_WRONG, conventional
from cmxlib.study.scales import Scale

TINY = Scale(
    name="quick",
    dataset="fontdigits",
    model={"dim": 8, "depth": 1, "kernel_size": 3, "patch_size": 4},
    train=TrainSettings(epochs=1, batch_size=16),
    n_wrong=2,
)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (96, 3, 32, 32), np.uint8))
    labels = torch.from_numpy(rng.integers(0, 10, 96))
    data = Dataset(
        "fontdigits", images[:64], labels[:64], images[64:], labels[64:], tuple("0123456789"), (0.5,) * 3, (0.3,) * 3
    )
    for module in (conventional_study, scales):
        monkeypatch.setattr(module, "load_dataset", lambda name: data)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setenv("CMX_CACHE", str(tmp_path / "cache"))
    return TINY


def test_measures_every_method_once_and_skips_what_is_recorded(tiny, monkeypatch):
    trained_on = {}
    fit = conventional_study.fit

    def watched(model, data, settings, **options):
        trained_on[options["checkpoint"].name] = data.test_images
        batch = data.test_images.clone()
        assert not torch.equal(options["transform"](batch), batch)
        return fit(model, data, settings, **{**options, "progress": False})

    monkeypatch.setattr(conventional_study, "fit", watched)
    said = []
    conventional(tiny, said.append, seeds=(3,))
    rows = records.read("quick", "conventional")
    assert list(rows.method.unique()) == ["plain", "proposed", *METHODS]
    assert len(trained_on) == len(METHODS) == len(said) - 2  # a network of its own for each method
    for method in ("proposed", *METHODS):
        mine = rows[rows.method == method]
        counts = {"correct key": 1, "wrong key": N_WRONG, "no key": 1, "key change": 1, "key space": 1}
        assert mine.case.value_counts().to_dict() == counts
        assert (mine[mine.case == "correct key"].key_seed == 3).all()
        assert 3 not in set(mine[mine.case == "wrong key"].key_seed)
        assert set(mine.n_keys) == {N_WRONG}

    monkeypatch.setattr(conventional_study, "fit", None)  # nothing is trained again
    conventional(tiny, said.append, seeds=(3,))
    assert len(records.read("quick", "conventional")) == len(rows)

    table = conventional_table(rows).set_index("method")
    assert table.loss["proposed"] == 0  # exact, also with random weights and images
    assert table.loc["LE", "n_wrong"] == N_WRONG


def test_the_paper_scale_has_one_seed(tiny, monkeypatch):
    monkeypatch.setattr(conventional_study, "_plain", lambda *_, **__: iter([("plain", -1, "accuracy", 0.9)]))
    for name in ("paper", "small"):
        conventional(dataclasses.replace(tiny, name=name), lambda text: None, methods=("plain",))
    assert records.read("paper", "conventional").seed.tolist() == [0]
    assert records.read("small", "conventional").seed.tolist() == [0, 1, 2]


def test_networks_learn_from_and_are_tested_on_images_of_the_right_key(tiny, monkeypatch):
    data = conventional_study.load_dataset("fontdigits")
    seen = []

    def accuracy(model, images, labels, *, mean, std):
        seen.append(images)
        return 0.5

    monkeypatch.setattr(conventional_study, "accuracy", accuracy)
    trained = []

    def fit(model, encrypted, settings, **options):
        trained.append((encrypted, options["transform"]))
        return pd.DataFrame({"seconds": [1.0, 2.0]})

    monkeypatch.setattr(conventional_study, "fit", fit)
    found = list(conventional_study._conventional(tiny, data, "ELE", 4, 0))
    (encrypted, transform) = trained[0]
    assert torch.equal(transform(data.test_images), encrypted.test_images)
    assert torch.equal(encrypted.train_images, data.train_images)  # encrypted after augmentation, batch by batch
    assert torch.equal(seen[0], encrypted.test_images)
    assert torch.equal(seen[-1], data.test_images)
    assert len({images.numpy().tobytes() for images in seen}) == N_WRONG + 2
    assert ("key change", 0, "seconds", 3.0) in found


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
    assert le["correct_sd"] == pytest.approx(20 / 2**0.5)
    assert (le["loss"], le["loss_max"]) == pytest.approx((10, 15))  # 5 and 15, each against its own plain network
    # t with 1 degree of freedom at 97.5 %: 12.706; sd of 5 and 15 is 7.0711; half width 12.706 * 7.0711 / sqrt(2)
    assert (le["loss_low"], le["loss_high"]) == pytest.approx((10 - 63.53, 10 + 63.53), abs=0.01)
    assert (le["wrong"], le["wrong_sd"], le["wrong_max"], le["n_wrong"]) == pytest.approx((20, 10, 30, 3))
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
