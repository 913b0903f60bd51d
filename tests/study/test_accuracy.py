import dataclasses
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
import pytest
import torch

from cmxlib import ConvMixer, PatchCipher, SecretKey, paths
from cmxlib.__main__ import main
from cmxlib.book.figures import RECORDED, draw_recorded
from cmxlib.book.readme import main_table
from cmxlib.learn.checkpoint import CheckpointError
from cmxlib.learn.cifar10 import DatasetError
from cmxlib.learn.train import TrainSettings
from cmxlib.study import accuracy as study
from cmxlib.study import records
from cmxlib.study.scales import SCALES

from ..learn.test_train import toy_data

CIPHER = PatchCipher(SecretKey.for_experiment(0), 4)


@pytest.mark.parametrize("positions, signs", [(0, 0), (2, 0), (3, 5), (0, 1), (48, 48)])
def test_damaged_keys_have_exactly_so_many_wrong_entries(positions, signs):
    found = study.damaged(CIPHER, positions, signs, np.random.default_rng(1))
    assert (found.permutation != CIPHER.permutation).sum() == positions
    assert (found.flipped != CIPHER.flipped).sum() == signs


def test_one_wrong_position_is_impossible():
    with pytest.raises(ValueError, match="at least 2"):
        study.damaged(CIPHER, 1, 0, np.random.default_rng(1))


@pytest.mark.parametrize("kind", ["pixels", "within channels", "all"])
def test_what_a_partial_scramble_leaves_in_place(kind):
    image = torch.rand(3, 4, 4, dtype=torch.float64)
    moved = CIPHER.decrypt(study.scrambled_in_part(CIPHER, kind, np.random.default_rng(1)).encrypt(image))
    assert not torch.allclose(moved, image)
    assert moved.mean().item() == pytest.approx(image.mean().item())
    same_channel_means = torch.allclose(moved.mean((1, 2)), image.mean((1, 2)))
    assert same_channel_means == (kind != "all")
    pixels = {tuple(p) for p in image.flatten(1).T.tolist()}
    assert ({tuple(p) for p in moved.flatten(1).T.tolist()} == pixels) == (kind == "pixels")


def test_summary_against_hand_made_values():
    found = study.summary([1.0, 2.0, 3.0])
    # t with 2 degrees of freedom at 97.5 %: 4.3027; sd 1; half width 4.3027 / sqrt(3)
    expected = {"n": 3, "mean": 2, "sd": 1, "min": 1, "max": 3, "low": 2 - 2.4841, "high": 2 + 2.4841}
    assert found == pytest.approx(expected, abs=1e-3)
    assert study.summary([5.0])["mean"] == 5 and np.isnan(study.summary([5.0])["sd"])


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The whole study on toy data, in a folder of its own: what it says while running, the first and second time."""
    said = []
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("study")
        patch.setattr(paths, "ROOT", root)
        patch.setenv("CMX_CACHE", str(root / "cache"))
        for module in ("scales", "study"):
            patch.setattr(f"cmxlib.{module}.load_dataset", lambda name: toy_data())
        scale = dataclasses.replace(
            SCALES["small"],
            model={"dim": 8, "depth": 1, "kernel_size": 3, "patch_size": 4, "num_classes": 2},
            train=TrainSettings(epochs=20, batch_size=16, flip=False, crop_padding=1),
            n_wrong=3,
        )
        patch.setitem(SCALES, "small", scale)
        patch.setattr(study, "ANATOMY_KEYS", 2)
        patch.setattr(study, "ENGINE_SEEDS", (0, 1))
        patch.setattr(study, "ENGINE_EPOCHS", 20)
        patch.setattr("cmxlib.study.conventional.conventional", MagicMock(__name__="conventional"))  # its own tests
        for _ in range(2):
            study.run("small", say=said.append)
            said.append({p.name: p.read_bytes() for p in (root / "results" / "small").glob("*.csv")})
        draw_recorded("small")
        yield root, said


def test_every_table_is_recorded_once(recorded):
    _, said = recorded
    first, second = (part for part in said if isinstance(part, dict))
    assert set(first) == {"training.csv", "keys.csv", "anatomy.csv", "blocks.csv", "cost.csv", "engine.csv"}
    assert first == second  # the second run found every unit done


def test_the_rows_tell_the_story(recorded, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", recorded[0])
    table = study.main_table("small").set_index(["steps", "case"])
    differences = study.recorded_differences("small", 4)
    for steps in ("shuffle", "flip", "shuffle+flip", "orthogonal"):
        assert table.loc[(steps, "plain"), "mean"] == table.loc[(steps, "correct key"), "mean"] == 100
        assert table.loc[(steps, "wrong key"), "n"] == 3 and table.loc[(steps, "wrong key"), "mean"] < 100
        assert differences.loc[steps, "differ"] == 0 and differences.loc[steps, "n_images"] == 48
    anatomy = records.read("small", "anatomy")
    right = anatomy[(anatomy.wrong == 0) & anatomy.kind.isin(["positions", "signs", "both"])]
    assert (right.value == 1).all() and len(right) == 6
    assert "100.00" in main_table() and "0 of 48" in main_table()
    blocks = records.read("small", "blocks")
    assert {(p, b) for p, b in zip(blocks.patch_size, blocks.block_size, strict=True)} == {
        (2, 1), (2, 2), (4, 1), (4, 2), (4, 4), (8, 1), (8, 2), (8, 4), (8, 8)
    }  # fmt: skip


def test_both_engines_learn_the_same_from_the_same_start(recorded, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", recorded[0])
    rows = records.read("small", "engine")
    assert rows.groupby(["engine", "seed", "measure"]).size().tolist() == [1] * 8  # nothing was measured twice
    assert (rows[rows.measure == "accuracy"].value == 1).all()


def test_the_stock_engine_is_torchs_own(monkeypatch, tmp_path):
    """No layer of cmxlib's, and no bfloat16, takes part in the training that cmxlib's is compared with."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(study, "load_dataset", lambda name: toy_data())
    monkeypatch.setattr(study, "ENGINE_SEEDS", (0,))
    fitted = []

    def fit(model, data, settings, autocast):
        fitted.append((type(model), autocast))
        return pd.DataFrame({"seconds": [1.0]})

    monkeypatch.setattr(study, "fit", fit)
    study.engine(SCALES["quick"])
    assert fitted == [(ConvMixer, None), (torch.nn.Sequential, False)]


def test_the_paper_scale_has_patches_of_2_in_place_of_the_block_sizes(monkeypatch):
    ran = []
    for name in ("training", "keys", "anatomy", "cost", "blocks"):
        unit = MagicMock(side_effect=lambda scale, say, name=name: ran.append((name, scale)), __name__=name)
        monkeypatch.setattr(study, name, unit)
    compared = MagicMock(__name__="conventional")
    monkeypatch.setattr("cmxlib.study.conventional.conventional", compared)
    study.run("paper", say=MagicMock())
    compared.assert_called_once()
    paper = SCALES["paper"]
    assert ran[:4] == [(name, paper) for name in ("training", "keys", "anatomy", "cost")]
    names, (finer, *same) = zip(*ran[4:], strict=True)
    assert names == ("training", "keys", "anatomy") and same == [finer, finer]
    assert finer.model == paper.model | {"patch_size": 2} and finer.name == "paper"
    assert (finer.train.epochs, finer.n_wrong) == (30, 30) and finer.train.max_lr == paper.train.max_lr


def test_every_recorded_table_has_its_figure(recorded):
    figures = {p.name for p in (recorded[0] / "figures" / "small").iterdir()}
    tables = set(RECORDED) - {"conventional", "benchmarks"}  # which have commands of their own
    assert figures == {f"{name}.{kind}" for name in tables for kind in ("png", "svg")}


def test_an_unknown_table_is_named():
    with pytest.raises(ValueError, match=r"no table 'kyes'; there are training, keys, .*conventional"):
        study.run("small", "kyes")


def test_a_stopped_study_says_how_to_go_on(monkeypatch, capsys):
    def stopped(scale, only):
        raise KeyboardInterrupt("Training stopped after 3 of 9 epochs; run it again to go on from here.")

    monkeypatch.setattr(study, "run", stopped)
    assert main(["study", "--scale", "small"]) == 130
    assert capsys.readouterr().err == "cmx: Training stopped after 3 of 9 epochs; run it again to go on from here.\n"


def test_a_missing_data_set_is_one_sentence_but_a_fault_keeps_its_trace(monkeypatch, capsys):
    for error in (DatasetError("no such folder"), CheckpointError("damaged")):
        monkeypatch.setattr(study, "run", MagicMock(side_effect=error))
        assert main(["study"]) == 1
        assert capsys.readouterr().err == f"cmx: {error}\n"
    monkeypatch.setattr(study, "run", MagicMock(side_effect=RuntimeError("a fault")))
    with pytest.raises(RuntimeError, match="a fault"):
        main(["study"])
