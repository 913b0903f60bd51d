"""The depthwise convolution, by matrix products and directly in C, against torch's own."""

import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from cmxlib.learn import depthwise as module
from cmxlib.learn.compiled import library
from cmxlib.learn.convmixer import ConvMixer
from cmxlib.learn.depthwise import depthwise, from_tiles, layout_rows, tile_rows, to_tiles

needs_compiler = pytest.mark.skipif(library() is None, reason="no C compiler is at hand")


def inputs(n, c, h, w, k, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, weight = (torch.randn(s, generator=generator) for s in ((n, c, h, w), (c, 1, k, k)))
    return [v.to(dtype).requires_grad_() for v in (x, weight)]


def in_tiles(x, weight):
    n, _, h, w = x.shape
    tiles = to_tiles(x, layout_rows(h, w, weight.shape[-1], x.dtype))
    return from_tiles(depthwise(tiles, weight, n, h, w), n, h, w)


def stock(x, weight):
    return F.conv2d(x, weight, padding="same", groups=len(weight))


@pytest.fixture(params=["products", pytest.param("direct", marks=needs_compiler)])
def way(request, monkeypatch):
    monkeypatch.setattr(module, "direct_is_faster", lambda *size: request.param == "direct")


def value_and_gradients(function, arguments):
    out = function(*arguments)
    # A fixed random cotangent, so that no error hides behind a symmetric sum; the same at every precision.
    cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(9)).bfloat16().to(out.dtype)
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
        value_and_gradients(in_tiles, arguments), value_and_gradients(stock, arguments), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize(
    ("height", "width", "k"), [(8, 8, 5), (16, 16, 5), (16, 16, 9), (32, 32, 3), (7, 11, 4), (1, 1, 1)]
)
def test_equals_torch_to_rounding(way, dtype, tolerance, height, width, k):
    arguments = inputs(4, 8, height, width, k, dtype)
    exact = value_and_gradients(stock, [v.detach().double().requires_grad_() for v in arguments])
    for ours, truth in zip(value_and_gradients(in_tiles, arguments), exact, strict=True):
        assert (ours.double() - truth).norm() < tolerance * truth.norm()


@pytest.mark.parametrize(("height", "width", "k"), [(4, 4, 3), (6, 32, 5), (3, 5, 4), (8, 16, 2)])
def test_gradcheck(height, width, k):
    assert torch.autograd.gradcheck(in_tiles, inputs(2, 2, height, width, k, torch.float64))


@needs_compiler
@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 3), c=st.integers(1, 3), h=st.integers(1, 33), w=st.integers(1, 33), k=st.integers(1, 16))
def test_directly_it_is_the_exact_sum_rounded_once(n, c, h, w, k):
    x, weight = inputs(n, c, h, w, k, torch.bfloat16)
    exact = value_and_gradients(stock, [v.detach().double().requires_grad_() for v in (x, weight)])
    arguments = [x, weight.detach().float().requires_grad_()]

    def direct(x, weight):
        flat = module._Direct.apply(to_tiles(x, h), weight.flatten(1), n, h, w)
        return from_tiles(flat, n, h, w)

    for ours, truth, rounding in zip(value_and_gradients(direct, arguments), exact, (2**-8, 2**-8, 0), strict=True):
        assert ((ours.double() - truth).abs() <= rounding * truth.abs() + 1e-4).all()


@needs_compiler
def test_directly_the_same_to_the_bit_with_any_number_of_threads():
    arguments, threads, found = inputs(8, 16, 16, 16, 5, torch.bfloat16), torch.get_num_threads(), []
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            tiles = to_tiles(arguments[0], 16)
            out = module._Direct.apply(tiles, arguments[1].float().flatten(1), 8, 16, 16)
            found.append((out, *torch.autograd.grad(out.float().square().sum(), arguments)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@needs_compiler
def test_what_is_not_a_number_stays_visible():
    x, weight = inputs(2, 2, 8, 8, 3, torch.bfloat16)
    with torch.no_grad():
        x[1, 1, 4, 4] = torch.nan
        out = from_tiles(module._Direct.apply(to_tiles(x, 8), weight.float().flatten(1), 2, 8, 8), 2, 8, 8)
    assert out.isnan().sum() == 9 and out[1, 1, 3:6, 3:6].isnan().all()


@needs_compiler
@pytest.mark.parametrize("patch_size", [2, 4])
def test_the_network_is_the_same_both_ways(monkeypatch, patch_size):
    torch.manual_seed(0)
    model, x, found = ConvMixer(16, 2, 5, patch_size), torch.randn(8, 3, 32, 32), []
    for direct in (True, False):
        monkeypatch.setattr(module, "direct_is_faster", lambda *size, direct=direct: direct)
        with torch.autocast("cpu", torch.bfloat16):
            out = model(x)
        found.append([out, *torch.autograd.grad(out.square().sum(), list(model.parameters()))])
    for a, b in zip(*found, strict=True):
        assert (a - b).norm() <= 0.05 * b.norm() + 0.02


@needs_compiler
def test_the_quicker_way_is_found_by_measurement(monkeypatch):
    """With one way made to wait, the other is taken."""
    for slow, direct in ((module._Products, True), (module._Direct, False)):
        module.direct_is_faster.cache_clear()
        forward = slow.forward

        def waits(*arguments, forward=forward):
            time.sleep(0.1)
            return forward(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(slow, "forward", staticmethod(waits))
            assert module.direct_is_faster(8, 8, 5) is direct
    module.direct_is_faster.cache_clear()


@needs_compiler
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_is_measured_also_where_no_gradients_are_kept(mode):
    module.direct_is_faster.cache_clear()
    with mode():
        assert module.direct_is_faster(8, 8, 5) in (True, False)


def test_several_tiles_are_tested():
    """The sizes above include one tile and many, or neighbours would never be touched."""
    assert tile_rows(8, 8, 5) == 8 and tile_rows(16, 16, 5) == 4 and tile_rows(6, 32, 5) == 2


def test_tiles_and_back():
    x = torch.arange(2 * 3 * 16 * 16).view(2, 3, 16, 16)
    assert torch.equal(from_tiles(to_tiles(x, 4), 2, 16, 16), x)
