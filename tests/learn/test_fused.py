"""Bias, GELU and batch normalisation in one pass give what torch gives, to the rounding of bfloat16."""

import copy
import shutil

import pytest
import torch
from torch.nn import functional as F

from cmxlib.learn import fused
from cmxlib.learn.compiled import library
from cmxlib.learn.convmixer import ConvMixer

needs_compiler = pytest.mark.skipif(library() is None, reason="no C compiler is at hand")
SIZES = [(1, 2), (3, 7), (5, 1023), (2, 1025), (16, 4096)]


def make(channels, n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = (3 * torch.randn(channels, n, generator=generator)).bfloat16()
    residual, grad = (torch.randn(channels, n, generator=generator).bfloat16() for _ in range(2))
    norm = torch.nn.BatchNorm2d(channels)
    shift = torch.zeros(channels)
    for tensor in (norm.weight, norm.bias, norm.running_mean, shift):
        torch.nn.init.normal_(tensor, generator=generator)
    norm.running_var.uniform_(0.5, 2, generator=generator)
    return z, residual, grad, norm, shift


def exact(z, norm, shift, residual):
    """The same in float64, with gradients of z, shift, residual, weight and bias."""
    norm = copy.deepcopy(norm).double()
    inputs = [*(v.detach().double().requires_grad_() for v in (z, shift, residual)), norm.weight, norm.bias]
    out = norm(F.gelu(inputs[0] + inputs[1][:, None]).view(1, len(z), -1, 1)).view(len(z), -1)
    return out + inputs[2], inputs, norm


@needs_compiler
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_values_gradients_and_statistics_are_those_of_float64(size, training):
    z, residual, grad, norm, shift = make(*size)
    norm.train(training)
    right, right_inputs, right_norm = exact(z, norm, shift, residual)
    inputs = [z.requires_grad_(), shift.requires_grad_(), residual.requires_grad_(), norm.weight, norm.bias]
    found = fused._in_one(z, norm, shift, residual)
    # bfloat16 rounds GELU's value, up to the size of the largest, and then the sum.
    largest = (right - residual.double()).abs().max().item() + right_norm.bias.abs().max().item()
    torch.testing.assert_close(found.double(), right, rtol=2**-8, atol=2**-8 * max(largest, 1))
    gradients = torch.autograd.grad(found, inputs, grad)
    for mine, true in zip(gradients, torch.autograd.grad(right, right_inputs, grad.double()), strict=True):
        spread = true.abs().max().item()
        torch.testing.assert_close(mine.double(), true, rtol=2**-6, atol=0.01 * spread + 2e-3)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(
            getattr(norm, name).double(), getattr(right_norm, name).double(), rtol=1e-4, atol=1e-4
        )


@needs_compiler
def test_the_polynomials_are_as_good_as_they_say():
    """With a norm that changes nothing, GELU and its slope come out, all over the range of inputs."""
    z = torch.linspace(-12, 12, 4001).bfloat16()[None].requires_grad_()
    norm = torch.nn.BatchNorm2d(1, eps=0).eval()
    found = fused._in_one(z, norm, torch.zeros(1))
    right = F.gelu(z.double())
    rounding = right.abs() * 2**-8
    assert ((found.double() - right).abs() <= rounding + 1e-4).all()
    # In training the slope shows where the terms of mean and variance vanish: a gradient orthogonal to both.
    norm.train()
    g = F.gelu(z.detach().double())
    basis = torch.linalg.qr(torch.stack([torch.ones_like(g[0]), g[0]], 1)).Q
    grad = torch.randn(1, 4001, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    grad = (grad - grad @ basis @ basis.T).bfloat16()
    (mine,) = torch.autograd.grad(fused._in_one(z, norm, torch.zeros(1)), z, grad)
    x = z.detach().double().requires_grad_()
    (slope,) = torch.autograd.grad(F.gelu(x).sum(), x)
    expected = grad.double() * slope / g.std(correction=0)
    assert ((mine.double() - expected).abs() <= expected.abs() * 2**-7 + 1e-3).all()


@needs_compiler
def test_far_out_the_slope_is_0_or_1():
    """Activations of hundreds occur; an error of the density there would be multiplied by them."""
    z = torch.tensor([[-3000.0, -100.0, -10.0, 10.0, 100.0, 3000.0]]).bfloat16().requires_grad_()
    norm = torch.nn.BatchNorm2d(1)
    weights = torch.tensor([[1.0, 2.0, -3.0, 0.0, 0.0, 0.0]])  # without mean, and 0 where GELU is not
    (slopes,) = torch.autograd.grad(fused._in_one(z, norm, torch.zeros(1)), z, weights.bfloat16())
    sd = F.gelu(z.detach().double()).std(correction=0)
    assert (slopes.double() * sd).abs().max() < 1e-3
    (slopes,) = torch.autograd.grad(fused._in_one(z, norm, torch.zeros(1)), z, weights.bfloat16().flip(1))
    values = F.gelu(z.detach().double())
    centred = (values - values.mean()) / sd
    expected = weights.double().flip(1) - centred * (weights.double().flip(1) * centred).mean()
    assert ((slopes.double() * sd)[0, 3:] - expected[0, 3:]).abs().max() < 0.02


@needs_compiler
def test_what_is_not_a_number_stays_visible():
    z, _, _, norm, shift = make(2, 64)
    z[1, 3] = torch.nan
    found = fused._in_one(z, norm, shift)
    assert found[1].isnan().all() and not found[0].isnan().any()


@needs_compiler
def test_the_same_to_the_bit_with_any_number_of_threads():
    z, residual, grad, norm, shift = make(16, 4096)
    z.requires_grad_()
    results = []
    threads = torch.get_num_threads()
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            out = fused._in_one(z, copy.deepcopy(norm), shift, residual)
            results.append((out, *torch.autograd.grad(out, z, grad)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("why", ["no compiler", "a compiler that fails"])
def test_without_a_working_compiler_torch_does_it(monkeypatch, tmp_path, why):
    monkeypatch.setenv("CMX_CACHE", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda name: None if why == "no compiler" else shutil.sys.executable)
    for function in (library, fused.fused_is_faster):
        function.cache_clear()
    try:
        assert library() is None and not fused.fused_is_faster()
        z, residual, _, norm, shift = make(4, 64)
        expected = copy.deepcopy(norm)(F.gelu(z + shift.bfloat16()[:, None]).view(1, 4, -1, 1)).view(4, -1) + residual
        assert torch.equal(fused.gelu_norm(z, norm, shift, residual), expected)
        assert list(tmp_path.iterdir()) == []
    finally:
        for function in (library, fused.fused_is_faster):
            function.cache_clear()


@needs_compiler
@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_the_same_with_and_without(monkeypatch, training):
    torch.manual_seed(0)
    model, x = ConvMixer(16, 2, 5, 4), torch.randn(8, 3, 32, 32)
    results = []
    for quick in (True, False):
        monkeypatch.setattr(fused, "fused_is_faster", lambda quick=quick: quick)
        net = copy.deepcopy(model).train(training)
        with torch.autocast("cpu", torch.bfloat16):
            out = net(x)
        out.square().sum().backward()
        results.append([out, *(p.grad for p in net.parameters())])
    for a, b in zip(*results, strict=True):
        assert (a - b).norm() <= 0.05 * b.norm() + 0.02
