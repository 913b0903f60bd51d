import pytest
import torch

from cmxlib.learn import device as rules
from cmxlib.learn import train
from cmxlib.learn.train import fit

from .test_train import SETTINGS, same_state, toy_data, toy_model


@pytest.mark.parametrize(
    ("device", "triton", "capability", "n_steps", "expected"),
    [
        ("cuda", True, (9, 0), rules.STEPS_WORTH_COMPILING, True),
        ("cuda", True, (9, 0), rules.STEPS_WORTH_COMPILING - 1, False),  # a short training could not repay it
        ("cuda", True, (6, 1), 10**6, False),  # too old a chip
        ("cuda", False, (9, 0), 10**6, False),
        ("cpu", True, (9, 0), 10**6, False),
    ],
)
def test_when_a_network_is_compiled_follows_a_rule(monkeypatch, device, triton, capability, n_steps, expected):
    monkeypatch.setattr(rules, "find_spec", lambda name: triton or None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert rules.pays_to_compile(torch.device(device), n_steps) is expected


def test_a_compiled_training_fills_the_model_that_was_given(monkeypatch):
    """Whether to compile is asked with all steps of the training, so that one that goes on computes as it began."""
    asked, whole, half = [], toy_model(), toy_model()
    monkeypatch.setattr(train, "pays_to_compile", lambda device, n_steps: asked.append(n_steps) or True)
    monkeypatch.setattr(torch, "compile", lambda model: lambda batch: model(batch))
    fit(whole, toy_data(), SETTINGS, progress=False)
    monkeypatch.undo()
    fit(half, toy_data(), SETTINGS, progress=False)
    assert same_state(whole, half) and asked == [12]
