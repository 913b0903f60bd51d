"""Depthwise convolution, quick on CPUs, above all its weight gradient: as matrix products, or directly in C.

Stock depthwise convolutions spend most of a CPU's training step in the gradient of their weights. Here a batch lies
channel by channel, each channel as a matrix of positions, and a channel's convolution is one product with a small
Toeplitz matrix that holds its taps. All three passes (forward, gradient of the input, gradient of the weights) are
then batched matrix products, and the pointwise layers before and after it are products on the same memory.

Where an image is cut into several tiles, the products across their borders cost more than those within. There
`depthwise.c`, which multiplies by the taps alone, may win: which of the two is taken is measured, once for each size.

Layout. An image channel of H x W positions is cut into tiles of R full rows; activations are (C, T * N, R * W) with
T = H / R tiles, tile by tile, and within a tile image by image. As (C, T * N * R * W) they are the right-hand side of
a pointwise layer's product. `depthwise.c` takes whole images: R = H.
"""

from functools import cache, lru_cache

import torch

from .choice import least_seconds
from .compiled import checked, library, pointers

LARGEST_KERNEL = 16  # of depthwise.c


def layout_rows(height: int, width: int, kernel_size: int, dtype: torch.dtype) -> int:
    """Rows of a tile for the way that is quicker here: all, or ``tile_rows``."""
    return height if _directly(height, width, kernel_size, dtype) else tile_rows(height, width, kernel_size)


def _directly(height, width, kernel_size, dtype):
    return dtype == torch.bfloat16 and direct_is_faster(height, width, kernel_size)


@cache
@torch.inference_mode(False)  # with gradients, also where it is asked first in an evaluation
def direct_is_faster(height: int, width: int, kernel_size: int) -> bool:
    """Whether `depthwise.c` beats matrix products on images of this size: measured, once per process."""
    if library() is None or kernel_size > LARGEST_KERNEL:
        return False
    n, channels = 64, 32

    def both_passes(way, rows, dtype_of_taps):
        taps = torch.ones(channels, kernel_size**2, dtype=dtype_of_taps, requires_grad=True)
        tiles = to_tiles(torch.ones(n, channels, height, width, dtype=torch.bfloat16), rows).requires_grad_()
        return lambda: way.apply(tiles, taps, n, height, width).sum().backward()

    tiled = tile_rows(height, width, kernel_size)
    ways = [both_passes(_Direct, height, torch.float32), both_passes(_Products, tiled, torch.bfloat16)]
    direct, products = least_seconds(ways, 5)
    return direct < products


def tile_rows(height: int, width: int, kernel_size: int) -> int:
    """Rows of a tile: the fewest that divide the height, span half a kernel and give 64 or more positions.

    Fewer multiply fewer zeros of the Toeplitz matrix, but products of smaller matrices run far below the full rate.
    """
    for rows in range(max(kernel_size // 2, 1), height):
        if height % rows == 0 and rows * width >= 64:
            return rows
    return height


def to_tiles(x: torch.Tensor, rows: int) -> torch.Tensor:
    """(N, C, H, W) -> (C, H / rows * N, rows * W)."""
    n, c, h, w = x.shape
    return x.reshape(n, c, h // rows, rows * w).permute(1, 2, 0, 3).reshape(c, h // rows * n, rows * w)


def from_tiles(tiles: torch.Tensor, n: int, height: int, width: int) -> torch.Tensor:
    """The inverse of ``to_tiles``, for n images."""
    c, _, area = tiles.shape
    return tiles.view(c, -1, n, area).transpose(0, 2).transpose(1, 2).reshape(n, c, height, width)


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


class _Direct(torch.autograd.Function):
    @staticmethod
    def forward(ctx, images, taps, n, height, width):
        images, taps = images.contiguous(), taps.contiguous()
        ctx.size = (len(images), n, height, width, round(taps.shape[1] ** 0.5))
        out = torch.empty_like(images)
        checked(library().depthwise(*pointers(images, taps, out), *ctx.size))
        ctx.save_for_backward(images, taps)
        return out

    @staticmethod
    def backward(ctx, grad):
        images, taps = ctx.saved_tensors
        grad, grad_images, grad_taps = grad.contiguous(), torch.empty_like(images), torch.empty_like(taps)
        arrays = pointers(grad, images, taps, grad_images, grad_taps)
        checked(library().depthwise_backward(*arrays, *ctx.size))
        return grad_images, grad_taps, None, None, None


def depthwise(tiles, weight, n, height, width):
    """A depthwise convolution without bias and with zero padding "same" of n images, in the layout of tiles.

    Args:
        tiles: (C, T * N, R * W) with R = ``layout_rows(height, width, k, tiles.dtype)``.
        weight: (C, 1, k, k), as torch.nn.Conv2d(C, C, k, groups=C, padding="same") holds it.

    Returns tiles of the same shape. Both get gradients.
    """
    if _directly(height, width, weight.shape[-1], tiles.dtype):
        return _Direct.apply(tiles, weight.flatten(1).float(), n, height, width)
    return _Products.apply(tiles, weight.flatten(1).to(tiles.dtype), n, height, width)
