"""The depthwise convolution by matrix products against torch's own."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from cmxlib.depthwise import depthwise, from_tiles, tile_rows, to_tiles


def inputs(n, c, h, w, k, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, weight, bias = (torch.randn(s, generator=generator) for s in ((n, c, h, w), (c, 1, k, k), (c,)))
    return [v.to(dtype).requires_grad_() for v in (x, weight, bias)]


def by_products(x, weight, bias):
    n, _, h, w = x.shape
    tiles = to_tiles(x, tile_rows(h, w, weight.shape[-1]))
    return from_tiles(depthwise(tiles, weight, bias, n, h, w), n, h, w)


def stock(x, weight, bias):
    return F.conv2d(x, weight, bias, padding="same", groups=len(weight))


def value_and_gradients(function, arguments):
    out = function(*arguments)
    # A fixed random cotangent, so that no error hides behind a symmetric sum.
    cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(9)).to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, arguments, cotangent)]


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 3),
    c=st.integers(1, 3),
    h=st.sampled_from([1, 2, 3, 4, 6, 7, 8, 12, 16, 32]),
    w=st.sampled_from([1, 3, 8, 16, 20]),
    k=st.integers(1, 9),
)
def test_equals_torch_in_float64(n, c, h, w, k):
    arguments = inputs(n, c, h, w, k, torch.float64)
    for ours, theirs in zip(
        value_and_gradients(by_products, arguments), value_and_gradients(stock, arguments), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize(("size", "k"), [(8, 5), (16, 5), (16, 9), (32, 3)])
def test_equals_torch_to_rounding(dtype, tolerance, size, k):
    arguments = inputs(4, 8, size, size, k, dtype)
    exact = value_and_gradients(stock, [v.detach().double().requires_grad_() for v in arguments])
    for ours, truth in zip(value_and_gradients(by_products, arguments), exact, strict=True):
        assert (ours.double() - truth).norm() < tolerance * truth.norm()


@pytest.mark.parametrize(("height", "width", "k"), [(4, 4, 3), (6, 32, 5), (3, 5, 4), (8, 16, 2)])
def test_gradcheck(height, width, k):
    assert torch.autograd.gradcheck(by_products, inputs(2, 2, height, width, k, torch.float64))


def test_several_tiles_are_tested():
    """The sizes above include one tile and many, or neighbours would never be touched."""
    assert tile_rows(8, 8, 5) == 8 and tile_rows(16, 16, 5) == 4 and tile_rows(6, 32, 5) == 2


def test_tiles_and_back():
    x = torch.arange(2 * 3 * 16 * 16).view(2, 3, 16, 16)
    assert torch.equal(from_tiles(to_tiles(x, 4), 2, 16, 16), x)
