"""Every model that comes with the book is small, loads, and has its card."""

import json

import pytest
import safetensors.torch
import torch

from cmxlib import ConvMixer, paths
from cmxlib.book import cards, readme
from cmxlib.study import scales
from cmxlib.study.scales import SCALES

COMMITTED = cards.models()

MODELS = paths.ROOT / "models"


def test_there_is_a_model_and_each_has_its_weights():
    weights = {path.with_suffix(".json") for path in MODELS.glob("*.safetensors")}
    assert COMMITTED and weights == set(COMMITTED)


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_a_committed_model_is_small_and_loads(path):
    weights = path.with_suffix(".safetensors")
    assert weights.stat().st_size < 5_000_000
    _, network, _ = json.loads(path.read_text())["recipe"]
    model = ConvMixer(**network)
    model.load_state_dict(safetensors.torch.load_file(weights))
    with torch.no_grad():
        found = model.eval()(torch.zeros(2, 3, 32, 32))
    assert found.shape == (2, 10) and found.isfinite().all()


def test_the_cards_in_the_folder_are_current():
    text = (MODELS / "README.md").read_text(encoding="utf-8")
    assert all(f"## {path.stem}\n" in text for path in COMMITTED)
    assert text == readme.render(text, {"models": cards.model_cards}), "run cmx readme"


def test_a_card_says_what_its_json_says(tmp_path):
    recipe = ["cifar10", {"dim": 8, "depth": 2, "kernel_size": 3, "patch_size": 4}, {"epochs": 2, "max_lr": 0.5}]
    history = [{"epoch": 1, "test_accuracy": 0.9, "seconds": 60}, {"epoch": 2, "test_accuracy": 0.8123, "seconds": 120}]
    path = tmp_path / "one.json"
    path.write_text(json.dumps({"recipe": recipe, "torch": "2.15.0+cpu", "threads": 2, "history": history}))
    path.with_suffix(".safetensors").write_bytes(bytes(10_000))
    text = cards.model_cards(tmp_path)
    for part in (
        "## one\n",
        "ConvMixer-8/2, patches of 4",
        "81.23% as measured in training, after the last of 2",
        "max_lr 0.5",
        "2 epochs of 1.5 min (median)",
        "threads: 2",
    ):
        assert part in text
    assert "0.01 MB" in text and "95b532cc4381affdff0d956e12520a04129ed49d37e154228368fe5621f0b9a2" in text
    assert cards.model_cards(tmp_path / "none") == "No model is here yet."


@pytest.mark.parametrize(
    "scale", [*SCALES.values(), SCALES["paper"].at(2)], ids=["quick", "small", "paper", "paper, patches of 2"]
)
def test_a_scale_whose_model_comes_with_the_book_trains_nothing(scale, monkeypatch, tmp_path):
    monkeypatch.setenv("CMX_CACHE", str(tmp_path))
    monkeypatch.setattr(scales, "fit", None)
    model, history = scales.trained_model(scale)
    assert not model.training and len(history) == scale.train.epochs


@pytest.mark.parametrize("damaged", ["", "{", "[]", '{"recipe": 3}', '{"recipe": ["none", {}, {}], "history": []}'])
def test_a_damaged_model_is_named(tmp_path, damaged):
    (tmp_path / "a.json").write_text(damaged)
    (tmp_path / "a.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a\.json is damaged .*: restore it from a copy"):
        cards.model_cards(tmp_path)
