"""The architecture matrix, small: exact to rounding in float64, or refused by a sentence that says why."""

import pytest
import torch

from cmxlib.study.architectures import ARCHITECTURES, REFUSED, SMALL, exactness, refusal


@pytest.mark.parametrize("architecture", SMALL, ids=lambda each: each.name)
def test_exact_at_random_weights(architecture):
    found = exactness(architecture, torch.float64, full=False)
    assert found["difference"] < 1e-9
    assert found["without key"] > 1e-3  # or the image would not count, and anything were exact


@pytest.mark.parametrize("architecture", [SMALL[0], SMALL[-1]], ids=lambda each: each.name)
def test_float32(architecture):
    assert exactness(architecture, torch.float32, full=False)["difference"] < 1e-4


@pytest.mark.parametrize("architecture", REFUSED, ids=lambda each: each.name)
def test_other_stems_are_refused_with_the_layer_and_the_reason(architecture):
    sentence = refusal(architecture)
    layers = [name for name, module in architecture.build().named_modules() if isinstance(module, torch.nn.Conv2d)]
    assert any(name in sentence for name in layers)
    assert ("CrossViT" if "crossvit" in architecture.name else "overlap") in sentence and "\n" not in sentence


def test_as_many_as_are_promised():
    assert len(ARCHITECTURES) >= 25 and len({each.family for each in ARCHITECTURES}) == 6
