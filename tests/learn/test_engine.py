"""The depthwise convolution by matrix products against torch's own, and what the other parts of the engine promise."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from cmxlib.learn.device import bf16_is_faster
from cmxlib.learn.engine import depthwise, gelu_norm, tile_rows


def to_tiles(x, rows):
    """(N, C, H, W) -> (C, H / rows * N, rows * W)."""
    n, c, h, w = x.shape
    return x.reshape(n, c, h // rows, rows * w).permute(1, 2, 0, 3).reshape(c, h // rows * n, rows * w)


def from_tiles(tiles, n, height, width):
    """The inverse, for n images."""
    c, _, area = tiles.shape
    return tiles.view(c, -1, n, area).transpose(0, 2).transpose(1, 2).reshape(n, c, height, width)


def inputs(n, c, h, w, k, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, weight = (torch.randn(s, generator=generator) for s in ((n, c, h, w), (c, 1, k, k)))
    return [v.to(dtype).requires_grad_() for v in (x, weight)]


def in_tiles(x, weight):
    n, _, h, w = x.shape
    tiles = to_tiles(x, tile_rows(h, w, weight.shape[-1]))
    return from_tiles(depthwise(tiles, weight, n, h, w), n, h, w)


def stock(x, weight):
    return F.conv2d(x, weight, padding="same", groups=len(weight))


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
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize(
    ("height", "width", "k"), [(8, 8, 5), (16, 16, 5), (16, 16, 9), (32, 32, 3), (7, 11, 4), (1, 1, 1)]
)
def test_equals_torch_to_rounding(dtype, tolerance, height, width, k):
    arguments = inputs(4, 8, height, width, k, dtype)
    exact = value_and_gradients(stock, [v.detach().double().requires_grad_() for v in arguments])
    for ours, truth in zip(value_and_gradients(in_tiles, arguments), exact, strict=True):
        assert (ours.double() - truth).norm() < tolerance * truth.norm()


@pytest.mark.parametrize(("height", "width", "k"), [(4, 4, 3), (6, 32, 5), (3, 5, 4), (8, 16, 2)])
def test_gradcheck(height, width, k):
    assert torch.autograd.gradcheck(in_tiles, inputs(2, 2, height, width, k, torch.float64))


def test_a_second_derivative_is_refused():
    """It would lack what the taps contribute; an error is better than a wrong number."""
    x, weight = inputs(2, 2, 8, 8, 3, torch.float64)
    (grad,) = torch.autograd.grad(in_tiles(x, weight).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_several_tiles_are_tested():
    """The sizes above include one tile and many, or neighbours would never be touched."""
    assert tile_rows(8, 8, 5) == 8 and tile_rows(16, 16, 5) == 4 and tile_rows(6, 32, 5) == 2


def test_tiles_and_back():
    x = torch.arange(2 * 3 * 16 * 16).view(2, 3, 16, 16)
    assert torch.equal(from_tiles(to_tiles(x, 4), 2, 16, 16), x)


@pytest.mark.parametrize("training", [True, False])
def test_gelu_norm_is_that_of_images(training):
    torch.manual_seed(0)
    norm, x, bias = torch.nn.BatchNorm2d(3).double().train(training), torch.randn(4, 3, 2, 5).double(), torch.randn(3)
    flat = gelu_norm(x.transpose(0, 1).reshape(3, -1), norm, bias)
    right = torch.nn.BatchNorm2d(3).double().train(training)(F.gelu(x + bias.view(3, 1, 1)))
    torch.testing.assert_close(flat.view(3, 4, 2, 5).transpose(0, 1), right, rtol=1e-12, atol=1e-12)


TRAINING = """
import hashlib, torch
from cmxlib import ConvMixer, fit
from cmxlib.learn.data import Dataset
from cmxlib.learn.train import TrainSettings
for threads, autocast in ((1, None), (2, True)):
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = ConvMixer(32, 2, 7, 4)
    images, labels = torch.randint(256, (32, 3, 32, 32), dtype=torch.uint8), torch.randint(10, (32,))
    data = Dataset("random", images, labels, images[:8], labels[:8], tuple("0123456789"), (0.5,) * 3, (0.25,) * 3)
    fit(model, data, TrainSettings(epochs=2, batch_size=16), progress=False, autocast=autocast)
    state = b"".join(value.numpy().tobytes() for value in model.state_dict().values())
    print(hashlib.sha256(state).hexdigest())
"""


def test_every_process_trains_to_the_same_bits():
    # At the same time, so that each is slowed down by the others: what a clock decided would differ.
    running = [subprocess.Popen([sys.executable, "-c", TRAINING], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    found = {process.communicate()[0] for process in running}
    assert len(found) == 1 and len(found.pop()) == 2 * 65 and all(process.returncode == 0 for process in running)


@pytest.mark.parametrize(
    ("avx512_bf16", "amx", "expected"), [(True, False, True), (False, True, True), (False, False, False)]
)
def test_bfloat16_is_for_chips_with_instructions_for_it(monkeypatch, avx512_bf16, amx, expected):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert bf16_is_faster(torch.device("cpu")) is expected
