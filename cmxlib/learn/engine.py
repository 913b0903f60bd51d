"""How a ConvMixer computes on a CPU: every activation is a matrix, and every layer a product on it.

Stock modules spend most of a CPU's training step in depthwise convolutions, above all in the gradient of their
weights. Here a batch lies channel by channel, each channel as a matrix of positions, and a channel's convolution is one
product with a small Toeplitz matrix that holds its taps. All three passes (forward, gradient of the input, gradient of
the weights) are then batched matrix products, and the pointwise layers before and after it are products on the same
memory.

Layout. An image channel of H x W positions is cut into tiles of R full rows; activations are (C, T * N, R * W) with
T = H / R tiles, tile by tile, and within a tile image by image. As (C, T * N * R * W) they are the right-hand side of
a pointwise layer's product.

Nothing here is chosen by measuring: the same training has to give the same bits in every process.
"""

import ctypes
from functools import cache, lru_cache

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# -- the network ---------------------------------------------------------------------------------------------------


def products(model: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    """The logits of normalised images, on a CPU: up to rounding, what the layers one by one give, gradients too.

    Args:
        model: a ConvMixer with the very layers that its constructor makes, whatever their sizes.
        x: (N, channels, H, W).

    Returns (N, classes), in the type of the parameters. Under autocast all but the last layer is in autocast's type.
    """
    keep_freed_memory()
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    embedding, _, norm, *blocks = list(model)[:-3]
    linear = model[-1]
    n, channels, _, _ = x.shape
    p = embedding.kernel_size[0]
    h, w = x.shape[2] // p, x.shape[3] // p
    rows = tile_rows(h, w, blocks[0][0].fn[0].kernel_size[0]) if blocks else h

    def pointwise(conv, z):
        return conv.weight.to(dtype).flatten(1) @ z  # its bias is added by gelu_norm

    with torch.autocast("cpu", enabled=False):
        patches = x[..., : h * p, : w * p].to(dtype).reshape(n, channels, h // rows, rows, p, w, p)
        patches = patches.permute(1, 4, 6, 2, 0, 3, 5).reshape(channels * p * p, -1)
        z = gelu_norm(pointwise(embedding, patches), norm, embedding.bias)
        for residual, conv, _, norm in blocks:
            spatial, _, spatial_norm = residual.fn
            mixed = depthwise(z.view(len(z), -1, rows * w), spatial.weight, n, h, w).view_as(z)
            z = z + gelu_norm(mixed, spatial_norm, spatial.bias)
            z = gelu_norm(pointwise(conv, z), norm, conv.bias)
        pooled = z.view(len(z), h // rows, n, rows * w).mean((1, 3), dtype=linear.weight.dtype)
        return F.linear(pooled.T, linear.weight, linear.bias)


def gelu_norm(z: torch.Tensor, norm: nn.BatchNorm2d, bias: torch.Tensor) -> torch.Tensor:
    """norm(gelu(z + bias)) for activations z (channels, positions) and the bias (channels,) of the convolution before.

    Returns (channels, positions).
    """
    return norm(F.gelu(z + bias.to(z.dtype)[:, None]).view(1, len(z), -1, 1)).view(len(z), -1)


@cache
def keep_freed_memory() -> None:
    """Have the C library (glibc) keep freed memory for the next step, in this process from now on.

    It would give arrays of megabytes back to the system, and asking for them anew costs a CPU about a quarter of a
    training step at patch size 2. Other C libraries have no such switch and are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(-3, 2**30)  # M_MMAP_THRESHOLD: arrays up to this size come from memory that is kept
    mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: so much of it may lie idle


# -- depthwise convolutions ----------------------------------------------------------------------------------------


def tile_rows(height: int, width: int, kernel_size: int) -> int:
    """Rows of a tile: the fewest that divide the height, span half a kernel and give 64 or more positions.

    Fewer multiply fewer zeros of the Toeplitz matrix, but products of smaller matrices run far below the full rate.
    """
    for rows in range(max(kernel_size // 2, 1), height):
        if height % rows == 0 and rows * width >= 64:
            return rows
    return height


@lru_cache(maxsize=32)
def _toeplitz(height, width, kernel_size, dtype):
    """How the taps fill the Toeplitz matrices, one matrix for each tile that a tile takes values from.

    A list of (shift, source, target, places): ``shift`` is the tile's distance (0, -1 or 1); ``source`` and ``target``
    are the slices of positions that touch; ``places`` (k * k, sources * targets) is 1 where a tap connects a source
    to a target, so that taps (C, k * k) @ places are the matrices.
    """
    rows = tile_rows(height, width, kernel_size)
    before = (kernel_size - 1) // 2  # as padding="same" does, also for even kernels
    after = kernel_size - 1 - before
    taps, x, y = torch.arange(kernel_size), torch.arange(width), torch.arange(rows)

    def places(source_rows, target_rows):
        in_y = source_rows[:, None] - target_rows + before == taps[:, None, None]
        in_x = x[:, None] - x + before == taps[:, None, None]
        return torch.einsum("kst,luv->klsutv", in_y.to(dtype), in_x.to(dtype)).reshape(kernel_size**2, -1)

    parts = [(0, slice(None), slice(None), places(y, y))]
    if rows < height and before:
        above = places(y[rows - before :] - rows, y[:before])
        parts.append((-1, slice((rows - before) * width, None), slice(before * width), above))
    if rows < height and after:
        below = places(y[:after] + rows, y[rows - after :])
        parts.append((1, slice(after * width), slice((rows - after) * width, None), below))
    return parts


def _facing(sources, targets, shift, n):
    """Of both arrays of tiles, those where ``shift`` tiles away from a target there is a source."""
    if shift == 0:
        return sources, targets
    return (sources[:, :-n], targets[:, n:]) if shift < 0 else (sources[:, n:], targets[:, :-n])


class _Products(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tiles, taps, n, height, width):
        parts = _toeplitz(height, width, int(taps.shape[1] ** 0.5), tiles.dtype)
        channels = len(tiles)
        out, matrices = None, []
        for shift, source, target, places in parts:
            sources = tiles[0, 0, source].numel()
            matrix = (taps @ places).view(channels, sources, -1)
            matrices.append(matrix)
            if out is None:
                out = torch.bmm(tiles, matrix)
            else:
                near, there = _facing(tiles, out, shift, n)
                there[:, :, target].baddbmm_(near[:, :, source], matrix)
        ctx.save_for_backward(tiles, *matrices)
        ctx.n, ctx.parts = n, parts
        return out

    @staticmethod
    @once_differentiable  # the saved matrices are constants to it: a second derivative would silently lack a part
    def backward(ctx, grad):
        tiles, *matrices = ctx.saved_tensors
        grad = grad.contiguous()
        grad_tiles, grad_taps = None, 0
        for (shift, source, target, places), matrix in zip(ctx.parts, matrices, strict=True):
            near, there = _facing(tiles, grad, shift, ctx.n)
            near, there = near[:, :, source], there[:, :, target]
            if grad_tiles is None:
                grad_tiles = torch.bmm(there, matrix.transpose(1, 2))
            else:
                _facing(grad_tiles, grad, shift, ctx.n)[0][:, :, source].baddbmm_(there, matrix.transpose(1, 2))
            # The gradient of every entry of the matrices, then the sum over the places of each tap: its diagonals.
            grad_taps = grad_taps + torch.bmm(near.transpose(1, 2), there).flatten(1) @ places.T
        return grad_tiles, grad_taps, None, None, None


def depthwise(tiles: torch.Tensor, weight: torch.Tensor, n: int, height: int, width: int) -> torch.Tensor:
    """A depthwise convolution without bias and with zero padding "same" of n images, in the layout of tiles.

    Args:
        tiles: (C, T * N, R * W) with R = ``tile_rows(height, width, k)``.
        weight: (C, 1, k, k), as torch.nn.Conv2d(C, C, k, groups=C, padding="same") holds it.

    Returns tiles of the same shape. Both get gradients.
    """
    return _Products.apply(tiles, weight.flatten(1).to(tiles.dtype), n, height, width)
