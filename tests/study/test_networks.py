"""The tables of the plain network and its encrypted twin, on toy data."""

import numpy as np
import pandas as pd
import pytest
import torch

from cmxlib import ConvMixer, PatchCipher, SecretKey
from cmxlib.book.figures import RECORDED, draw_recorded
from cmxlib.book.summaries import main_table, recorded_differences, share_left, summary
from cmxlib.lock.near import damaged, restricted, scrambled_in_part, turned
from cmxlib.study import networks, records
from cmxlib.study.anatomy import ANATOMY, RESTRICTED, TURNED
from cmxlib.study.networks import BLOCKS, COST, ENGINE, KEYS, TRAINING
from cmxlib.study.scales import SCALES
from cmxlib.study.table import record

CIPHER = PatchCipher(SecretKey.for_experiment(0), 4)


@pytest.mark.parametrize("positions, signs", [(0, 0), (2, 0), (3, 5), (0, 1), (48, 48)])
def test_damaged_keys_have_exactly_so_many_wrong_entries(positions, signs):
    found = damaged(CIPHER, positions, signs, np.random.default_rng(1))
    assert (found.permutation != CIPHER.permutation).sum() == positions
    assert (found.flipped != CIPHER.flipped).sum() == signs


def test_one_wrong_position_is_impossible():
    with pytest.raises(ValueError, match="at least 2"):
        damaged(CIPHER, 1, 0, np.random.default_rng(1))


@pytest.mark.parametrize("kind", ["pixels", "within channels", "all"])
def test_what_a_partial_scramble_leaves_in_place(kind):
    image = torch.rand(3, 4, 4, dtype=torch.float64)
    moved = CIPHER.decrypt(scrambled_in_part(CIPHER, kind, np.random.default_rng(1)).encrypt(image))
    assert not torch.allclose(moved, image)
    assert moved.mean().item() == pytest.approx(image.mean().item())
    same_channel_means = torch.allclose(moved.mean((1, 2)), image.mean((1, 2)))
    assert same_channel_means == (kind != "all")
    pixels = {tuple(p) for p in image.flatten(1).T.tolist()}
    assert ({tuple(p) for p in moved.flatten(1).T.tolist()} == pixels) == (kind == "pixels")


@pytest.mark.parametrize(
    "turn, turn_back",
    {
        "mirrored left to right": lambda x: x.flip(-1),
        "mirrored top to bottom": lambda x: x.flip(-2),
        "half turn": lambda x: x.flip(-1, -2),
        "transposed": lambda x: x.mT,
        "red and blue exchanged": lambda x: x.flip(0),
    }.items(),
)
def test_a_turned_key_shows_each_patch_turned(turn, turn_back):
    patch = torch.rand(3, 4, 4, dtype=torch.float64)
    moved = CIPHER.decrypt(turned(CIPHER, turn).encrypt(patch))
    assert not torch.allclose(moved, patch) and torch.allclose(turn_back(moved), patch)


def test_a_restricted_shuffle_leaves_so_many_entries_in_place_and_keys_choose_which():
    found = [restricted(SecretKey.for_experiment(seed), 4, 36).permutation for seed in range(20)]
    moved = np.array([permutation != np.arange(48) for permutation in found])
    assert moved.sum(1).max() <= 12 and moved.sum(1).min() >= 6  # of 12, one more stays by chance on average
    assert moved.any(0).sum() > 40 and all(sorted(permutation) == list(range(48)) for permutation in found)
    assert (restricted(SecretKey.for_experiment(0), 4, 0).permutation == np.arange(48)).sum() < 8
    assert (restricted(SecretKey.for_experiment(0), 4, 48).permutation == np.arange(48)).all()


def test_summary_against_hand_made_values():
    found = summary([1.0, 2.0, 3.0])
    # t with 2 degrees of freedom at 97.5 %: 4.3027; sd 1; half width 4.3027 / sqrt(3)
    expected = {"n": 3, "mean": 2, "sd": 1, "min": 1, "max": 3, "low": 2 - 2.4841, "high": 2 + 2.4841}
    assert found == pytest.approx(expected, abs=1e-3)
    assert summary([5.0])["mean"] == 5 and np.isnan(summary([5.0])["sd"])


def test_what_is_left_is_nothing_at_guessing_and_all_at_the_plain_accuracy():
    assert [share_left(found, 0.9) for found in (0.1, 0.5, 0.9)] == pytest.approx([0, 0.5, 1])


def test_the_rows_tell_the_story(toy):
    tables = TRAINING, KEYS, ANATOMY, TURNED, RESTRICTED, COST, BLOCKS, ENGINE
    for table in tables:
        record(table, toy, lambda text: None)
    found, differences = main_table("toy").set_index(["steps", "case"]), recorded_differences("toy", 4)
    for steps in ("shuffle", "flip", "shuffle+flip", "orthogonal"):
        assert found.loc[(steps, "plain"), "mean"] == found.loc[(steps, "correct key"), "mean"]
        assert found.loc[(steps, "wrong key"), "n"] == 2
        assert differences.loc[steps, "differ"] == 0 and differences.loc[steps, "n_images"] == 40
    anatomy = records.read("toy", "anatomy")
    right = anatomy[(anatomy.wrong == 0) & anatomy.kind.isin(["positions", "signs", "both"])]
    assert right.value.nunique() == 1 and len(right) == 6
    assert (anatomy.kind == "mean colour only").sum() == 1 and set(anatomy.n_images) == {20}
    turns = records.read("toy", "turns").set_index(["turn", "measure"]).value
    assert turns["none", "entries_right"] == 48 and turns["none", "accuracy"] == right.value.iloc[0]
    assert turns["half turn", "entries_right"] == 0 and turns["transposed", "entries_right"] == 12
    some = records.read("toy", "restricted").groupby(["in_place", "case"]).size()
    assert some.index.get_level_values("in_place").unique().tolist() == [0, 12, 24, 36] and set(some) == {2}
    blocks = records.read("toy", "blocks")
    assert {(p, b) for p, b in zip(blocks.patch_size, blocks.block_size, strict=True)} == {
        (2, 1), (2, 2), (4, 1), (4, 2), (4, 4), (8, 1), (8, 2), (8, 4), (8, 8)
    }  # fmt: skip
    engine = records.read("toy", "engine")
    assert engine.groupby(["engine", "seed", "measure"]).size().tolist() == [1, 1]

    draw_recorded("toy")
    drawn = {path.name for path in records.figures_dir("toy").iterdir()}
    assert drawn == {f"{t.name}.{kind}" for t in tables for kind in ("png", "svg") if t.name in RECORDED}


def test_the_stock_engine_is_torchs_own(toy, monkeypatch):
    """No layer of cmxlib's, and no bfloat16, takes part in the training that cmxlib's is compared with."""
    fitted, fit = [], networks.fit

    def watched(model, data, settings, autocast):
        fitted.append((type(model), autocast))
        return fit(model, data, settings, autocast=autocast, progress=False)

    monkeypatch.setattr(networks, "fit", watched)
    record(ENGINE, toy, lambda text: None)
    assert fitted == [(ConvMixer, None), (torch.nn.Sequential, False)]


def test_the_paper_scale_has_finer_patches_too():
    paper = SCALES["paper"]
    finer = paper.at(2)
    assert paper.patch_sizes == (4, 2) and finer.model == paper.model | {"patch_size": 2} and finer.name == "paper"
    assert (finer.train.epochs, finer.n_wrong) == (30, 30) and finer.train.max_lr == paper.train.max_lr
    assert paper.at(4) == paper
    units = pd.DataFrame(KEYS.units(paper))
    wrong = units[units.case == "wrong key"].groupby(["patch_size", "steps"]).size()
    assert set(wrong[4]) == {200} and set(wrong[2]) == {30}
