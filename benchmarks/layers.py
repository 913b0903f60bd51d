"""Where the time of a training step goes: each kind of layer by itself, forward and backward, beside its floor."""

import torch
from torch import nn
from torch.nn import functional as F

from cmxlib.learn.depthwise import depthwise, layout_rows
from cmxlib.learn.fused import gelu_norm
from cmxlib.learn.memory import keep_freed_memory
from cmxlib.learn.train import bf16_is_faster

from .rows import row
from .timing import in_turns_apart, matrix_rate, seconds
from .training import CPU, STOCK, sizes

KERNEL = 5
IN_A_ROW = 4  # as training finds the caches
KINDS = {  # one of each in a block; and the arrays that its forward and backward pass have to read or write
    "pointwise convolution": 5,  # input and output, then the gradient of the output, the input, and its gradient
    "depthwise convolution": 5,
    "GELU, BatchNorm": 5,
    "GELU, BatchNorm, residual sum": 6,
}


def floating_point_operations(kind, dim, positions):
    """Forward and both gradients; of the other kinds none that matter beside their traffic."""
    taps = {"pointwise convolution": dim, "depthwise convolution": KERNEL**2}.get(kind, 0)
    return 3 * 2 * taps * dim * positions


def _both_passes(layer, inputs, parameters=()):
    """A function that applies the layer and computes all gradients."""
    wanted = [*inputs, *parameters]
    grad = torch.randn_like(layer(*inputs))
    return lambda: torch.autograd.grad(layer(*inputs), wanted, grad)


def fast(kind, dim, side, batch):
    """As ``ConvMixer`` computes on a CPU: activations (dim, positions), in bfloat16 where that is faster."""
    keep_freed_memory()
    dtype = torch.bfloat16 if bf16_is_faster(CPU) else torch.float32

    def array(*shape):
        return torch.randn(*shape).to(dtype).requires_grad_()

    z = array(dim, batch * side * side)
    if kind == "pointwise convolution":
        weight = array(dim, dim)
        return _both_passes(lambda z: weight @ z, [z], [weight])
    if kind == "depthwise convolution":
        weight = torch.randn(dim, 1, KERNEL, KERNEL, requires_grad=True)
        rows = layout_rows(side, side, KERNEL, dtype)
        tiles = array(dim, side // rows * batch, rows * side)
        return _both_passes(lambda z: depthwise(z, weight, batch, side, side), [tiles], [weight])
    norm, shift = nn.BatchNorm2d(dim), torch.zeros(dim, requires_grad=True)  # the convolutions' biases are added here
    inputs = [z, array(*z.shape)] if "residual" in kind else [z]
    return _both_passes(lambda z, *residual: gelu_norm(z, norm, shift, *residual), inputs, [shift, *norm.parameters()])


def stock(kind, dim, side, batch):
    """As torch's own modules compute: activations (batch, dim, side, side) in float32."""
    x = torch.randn(batch, dim, side, side, requires_grad=True)
    if kind == "pointwise convolution":
        layer = nn.Conv2d(dim, dim, 1)
    elif kind == "depthwise convolution":
        layer = nn.Conv2d(dim, dim, KERNEL, groups=dim, padding="same")
    else:
        layer = nn.BatchNorm2d(dim)
        inputs = [x, torch.randn_like(x, requires_grad=True)] if "residual" in kind else [x]
        return _both_passes(lambda x, *residual: sum(residual, layer(F.gelu(x))), inputs, layer.parameters())
    return _both_passes(layer, [x], layer.parameters())


def copy_rate(quick):
    """Bytes read plus written a second, copying an array that no cache holds."""
    source = torch.empty(2**20 if quick else 2**28, dtype=torch.uint8)
    target = torch.empty_like(source)
    target.copy_(source)
    return 2 * source.numel() / min(seconds(lambda: target.copy_(source)) for _ in range(5))


def measure(quick):
    """Rows "layer": seconds of all layers of a kind in one training step, stock's, and the floor.

    No layer can be quicker than its operations at the rate of matrix products, nor than its arrays at that of copying.
    """
    settings, batch, repeats = sizes(quick)
    dim, depth, rate = settings["dim"], settings["depth"], copy_rate(quick)
    of_products = matrix_rate(torch.bfloat16 if bf16_is_faster(CPU) else torch.float32, repeats=3 if quick else 20)
    found = [row("rate of copying", rate / 1e9, unit="GB/s read and written")]
    for patch_size in (4,) if quick else (4, 2):
        side = 32 // patch_size
        positions = batch * side * side
        for kind, arrays in KINDS.items():
            sized = (kind, dim, side, batch)
            times = in_turns_apart({"ours": (fast, sized), "reference": (stock, sized)}, repeats, not quick, IN_A_ROW)
            times = {name: value * depth for name, value in times.items()}
            traffic = arrays * dim * positions * (2 if bf16_is_faster(CPU) else 4)
            floor = max(floating_point_operations(kind, dim, positions) / of_products, traffic / rate)
            found.append(
                row(
                    "layer, times quicker",
                    times["reference"] / times["ours"],
                    **times,
                    against=STOCK,
                    layer=kind,
                    floor=floor * depth,
                    patch_size=patch_size,
                    repeats=repeats,
                    note=f"all {depth} of a step at batch {batch}, forward and backward",
                )
            )
    return found
