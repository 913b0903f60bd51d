"""The table of other networks, on toy data: timm's own, trained for real."""

from dataclasses import replace

from cmxlib.study import records
from cmxlib.study.generality import GENERALITY, WRONG
from cmxlib.study.scales import new_model
from cmxlib.study.table import record

SIZES = {"img_size": 32, "patch_size": 4, "num_classes": 10, "embed_dim": 8}


def test_the_lock_holds_for_a_transformer_and_a_mixer(toy):
    others = {
        "ViT": ({"network": "ViT", **SIZES, "depth": 1, "num_heads": 2}, {"epochs": 1, "max_lr": 0.002}),
        "MLP-Mixer": ({"network": "MLP-Mixer", **SIZES, "num_blocks": 1}, {"epochs": 1, "max_lr": 0.002}),
    }
    scale = replace(toy, others=others, ciphers={name: toy.ciphers[name] for name in ("shuffle+flip", "orthogonal")})
    assert [type(new_model(scale.of(name))).__name__ for name in others] == ["VisionTransformer", "MlpMixer"]
    record(GENERALITY, scale, lambda text: None)
    found = records.read("toy", "generality")
    assert (found.groupby(["network", "steps", "case"]).size().unstack()["wrong key"] == WRONG).all()
    right = found[found.case == "correct key"].groupby("measure").value
    assert right.max()["differ"] == 0 and right.max()["max_logit_difference"] < 1e-5
    lost = found[found.case.isin(["no key", "encrypted images into the plain model"])]
    assert lost[lost.measure == "max_logit_difference"].value.min() > 1e-3
    assert set(found[found.case == "wrong key"].n_images) == {20} and set(found[found.case == "plain"].n_images) == {40}
