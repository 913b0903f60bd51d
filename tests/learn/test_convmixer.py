"""The network by matrix products against the stock modules that its parameters belong to."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cmxlib.learn.convmixer import ConvMixer


def network(dtype=torch.float64, **arguments):
    torch.manual_seed(0)
    model = ConvMixer(**{"dim": 16, "depth": 2, "kernel_size": 5, "patch_size": 4, **arguments}).to(dtype)
    for module in model.modules():  # statistics and scales that a wrong order of layers would show
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.weight, mean=1, std=0.3)
            nn.init.normal_(module.bias, std=0.3)
    return model


def stock(model):
    """The same modules, run one after the other as torch.nn.Sequential does."""
    return nn.Sequential(*copy.deepcopy(model))


def images(size=32, n=5, dtype=torch.float64):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=dtype)


CASES = [
    {"patch_size": 4},
    {"patch_size": 2},
    {"patch_size": 2, "kernel_size": 8},
    {"patch_size": 8, "kernel_size": 9},
    {"patch_size": 5, "kernel_size": 3},  # leaves a rim of pixels out
    {"depth": 0},
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_same_logits_gradients_and_statistics(case, training):
    ours = network(**case).train(training)
    theirs = stock(ours).train(training)
    x = images()
    labels = torch.arange(5)
    for model in (ours, theirs):
        F.cross_entropy(model(x), labels).backward()
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-9, atol=1e-9)
    for name, mine in ours.named_parameters():
        torch.testing.assert_close(mine.grad, theirs.get_parameter(name).grad, rtol=1e-8, atol=1e-10)
    for name, mine in ours.named_buffers():
        torch.testing.assert_close(mine, theirs.get_buffer(name), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("patch_size", [2, 4])
def test_float32_to_rounding(patch_size):
    model = network(torch.float32, patch_size=patch_size).eval()
    x = images(dtype=torch.float32)
    torch.testing.assert_close(model(x), stock(model)(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("patch_size", [2, 4])
def test_bfloat16_is_as_near_to_float64_as_the_stock_modules_are(patch_size):
    def gradient(model, x, autocast):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            output = model(x)
            loss = F.cross_entropy(output, torch.arange(5))
        loss.backward()
        return torch.cat([p.grad.flatten().double() for p in model.parameters()])

    exact = gradient(stock(network(patch_size=patch_size)), images(), False)
    model = network(torch.float32, patch_size=patch_size)
    reference = gradient(stock(model), images(dtype=torch.float32), True)
    ours = gradient(model, images(dtype=torch.float32), True)
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())
    assert (ours - exact).norm() < 1.5 * (reference - exact).norm()


def test_memory_format_does_not_matter():
    model = network().eval()
    x = images()
    assert torch.equal(model(x), model(x.contiguous(memory_format=torch.channels_last)))


def test_keys_are_those_of_the_authors():
    keys = ConvMixer(16, 1).state_dict().keys()
    assert {"0.weight", "2.running_mean", "3.0.fn.0.weight", "3.0.fn.2.weight", "3.1.weight", "6.bias"} <= set(keys)


def test_copies_and_state_dicts():
    model = network().eval()
    twin = ConvMixer(16, 2, 5, 4).double().eval()
    twin.load_state_dict(model.state_dict())
    x = images()
    assert torch.equal(twin(x), model(x)) and torch.equal(copy.deepcopy(model)(x), model(x))


def test_a_slice_is_a_sequence_of_layers():
    model, x = ConvMixer(8, 2, 3, 4).eval(), torch.rand(2, 3, 8, 8)
    assert type(model[:-3]) is torch.nn.Sequential and model[0] is model[:3][0]
    assert torch.allclose(model[-3:](model[:-3](x)), model(x), atol=1e-5)
