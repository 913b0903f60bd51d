"""The patch cipher: one keyed affine map x' = A x + b, applied to every block of an image.

A block of B x B pixels with C channels is read as a vector of n = C*B*B values in [0, 1], in channel, row, column
order. Shuffling makes A a permutation; bit flipping, v -> 255 - v on bytes, makes it diagonal with entries +-1 and
sets b = 1 where it flips; a random orthogonal A mixes all values (arXiv 2301.03843).
"""

import math

import numpy as np
import torch

from .keys import SecretKey

STEPS = ("shuffle", "flip", "orthogonal")


class PatchCipher:
    """The affine map of a key on image blocks.

    Args:
        key: the secret.
        patch_size: height and width in pixels of the patches that the model embeds.
        channels: colour channels of the images.
        steps: any of "shuffle" and "flip", in the order in which they act, or ("orthogonal",) alone.
        block_size: height and width in pixels of the scrambled blocks; it must divide ``patch_size``, which is
            also its default. Blocks larger than a patch would mix patches, and no embedding could undo that.

    ``permutation`` (n,) and ``flipped`` (n,) describe a cipher of shuffles and flips: entry i of an encrypted block is
    entry permutation[i] of the plain one, and 1 minus it where flipped[i]. They are None for an orthogonal cipher.
    """

    def __init__(self, key: SecretKey, patch_size=4, channels=3, steps=("shuffle", "flip"), *, block_size=None):
        steps = tuple(steps)
        if any(step not in STEPS for step in steps) or len(set(steps)) < len(steps):
            raise ValueError(f"steps must be different ones of {', '.join(STEPS)}, but they are {steps}.")
        if "orthogonal" in steps and len(steps) > 1:
            raise ValueError('"orthogonal" stands alone: it already contains every shuffle and every change of sign.')
        self._set_sizes(patch_size, channels, block_size)
        self.steps = steps
        if steps == ("orthogonal",):
            self._set_affine(key.orthogonal(self.n, purpose="orthogonal"), np.zeros(self.n))
            return
        permutation, flipped = np.arange(self.n), np.zeros(self.n, bool)
        for step in steps:
            if step == "shuffle":
                order = key.permutation(self.n, purpose="shuffle")
                permutation, flipped = permutation[order], flipped[order]
            else:
                flipped = flipped ^ key.bits(self.n, purpose="flip")
        self._set_entries(permutation, flipped)

    @classmethod
    def from_entries(cls, permutation, flipped, patch_size=4, channels=3) -> "PatchCipher":
        """The cipher with a given permutation (n,) and flips (n,) of the blocks, without a key."""
        self = cls.__new__(cls)
        self._set_sizes(patch_size, channels, None)
        self.steps = ("shuffle", "flip")
        permutation, flipped = np.asarray(permutation), np.asarray(flipped, bool)
        if not np.array_equal(np.sort(permutation), np.arange(self.n)) or flipped.shape != (self.n,):
            raise ValueError(f"A block has {self.n} entries: give a permutation of them and as many flips.")
        self._set_entries(permutation, flipped)
        return self

    @classmethod
    def from_affine(cls, matrix, offset, patch_size=4, channels=3) -> "PatchCipher":
        """The cipher x' = matrix x + offset with any invertible matrix (n, n) and any offset (n,), without a key."""
        self = cls.__new__(cls)
        self._set_sizes(patch_size, channels, None)
        self.steps = ("affine",)
        matrix, offset = np.asarray(matrix, np.float64), np.asarray(offset, np.float64)
        if matrix.shape != (self.n, self.n) or offset.shape != (self.n,):
            raise ValueError(f"A block has {self.n} entries: give a {self.n} x {self.n} matrix and as long an offset.")
        self._set_affine(matrix, offset)
        return self

    def __repr__(self):
        steps = "+".join(self.steps) or "identity"
        return f"<PatchCipher {steps}, blocks of {self.block_size}, {self.channels} channels>"

    def key_bits(self) -> float:
        """log2 of the number of maps that the steps allow: n! shuffles, 2^n flips, infinitely many orthogonal ones.

        A SecretKey holds 256 bits, so no more than that many bits of a larger space are ever reached.
        """
        bits = {"shuffle": math.lgamma(self.n + 1) / math.log(2), "flip": self.n, "orthogonal": math.inf}
        return float(sum(bits[step] for step in self.steps))

    # -- images ----------------------------------------------------------------------------------------------

    def encrypt(self, images: torch.Tensor) -> torch.Tensor:
        """Encrypt images (N, C, H, W) or (C, H, W), uint8 or float in [0, 1], H and W divisible by the block size.

        Shuffles and flips keep the type, and uint8 comes back to the bit. An orthogonal cipher gives floats
        (uint8 v counts as v / 255), which may leave [0, 1].
        """
        self._check(images)
        if images.is_floating_point() and images.numel():
            low, high = torch.aminmax(images.detach())
            if not (low >= -1e-3 and high <= 1 + 1e-3):  # false for NaN too
                raise ValueError("Float images must hold values in [0, 1]; encrypt them before normalising.")
        if self.permutation is None:
            return self._mix(images, *self._affine)
        return self._rearrange(images, self.permutation, self.flipped)

    def decrypt(self, images: torch.Tensor) -> torch.Tensor:
        """Undo ``encrypt``; shapes and types as there, any values."""
        self._check(images)
        if self.permutation is None:
            matrix, offset = self._affine
            inverse = np.linalg.inv(matrix)
            return self._mix(images, inverse, -inverse @ offset)
        order = np.argsort(self.permutation)
        return self._rearrange(images, order, self.flipped[order])

    def _rearrange(self, images, permutation, flipped):
        """Move each value within its block, and flip it where the place that it comes to is flipped."""
        c, h, w = images.shape[-3:]
        device, blocks = images.device, (h // self.block_size) * (w // self.block_size)
        entries = to_blocks(torch.arange(c * h * w).view(1, c, h, w), self.block_size)  # one image's index
        source = from_blocks(entries[..., permutation], self.block_size, (c, h, w)).flatten().to(device)
        flips = torch.from_numpy(flipped).expand(1, blocks, self.n)
        flips = from_blocks(flips, self.block_size, (c, h, w)).flatten().to(device)
        flat = images.reshape(-1, c * h * w)
        moved = flat.gather(1, source.expand(len(flat), -1))  # four times quicker than index_select
        if images.dtype == torch.uint8:
            moved ^= flips.to(torch.uint8) * 255  # 255 - v is v with every bit flipped
        else:
            moved = torch.where(flips, 1 - moved, moved)
        return moved.view(images.shape)

    def _mix(self, images, matrix, offset):
        if images.dtype == torch.uint8:
            images = images.float() / 255
        matrix, offset = (torch.from_numpy(a).to(images) for a in (matrix, offset))
        blocks = to_blocks(images.reshape(-1, *images.shape[-3:]), self.block_size)
        return from_blocks(blocks @ matrix.T + offset, self.block_size, images.shape[-3:]).view(images.shape)

    # -- the map itself --------------------------------------------------------------------------------------

    def matrix(self, patch_size=None) -> tuple[np.ndarray, np.ndarray]:
        """A (m, m) and b (m,), float64: x' = A x + b for a patch x in channel, row, column order, values in [0, 1].

        ``patch_size`` is the cipher's own unless given; m = C * patch_size^2. A patch of several blocks has a map
        that is block diagonal up to the order of its entries. ValueError where blocks do not fit into the patch.
        """
        patch_size = patch_size or self.patch_size
        if patch_size % self.block_size:
            raise ValueError(
                f"Blocks of {self.block_size} pixels do not fit into patches of {patch_size}: the patch size must "
                "be a multiple of the block size, for an embedding sees one patch and cannot undo what mixes patches."
            )
        a, b = self._affine
        m = self.channels * patch_size**2
        patch = torch.arange(m).view(1, self.channels, patch_size, patch_size)
        matrix, offset = np.zeros((m, m)), np.zeros(m)
        for entries in to_blocks(patch, self.block_size)[0].numpy():  # the places of each block within the patch
            matrix[np.ix_(entries, entries)] = a
            offset[entries] = b
        return matrix, offset

    def _set_sizes(self, patch_size, channels, block_size):
        block_size = block_size or patch_size
        if patch_size < 1 or channels < 1 or block_size < 1:
            raise ValueError("patch_size, channels and block_size are whole numbers from 1 up.")
        if patch_size % block_size:
            raise ValueError(
                f"A block of {block_size} pixels does not divide a patch of {patch_size}: "
                "a patch embedding sees one patch only and cannot undo what mixes patches."
            )
        self.patch_size, self.channels, self.block_size = patch_size, channels, block_size
        self.n = channels * block_size**2

    def _set_entries(self, permutation, flipped):
        self.permutation, self.flipped = permutation, flipped
        matrix = np.eye(self.n)[permutation] * np.where(flipped, -1.0, 1.0)[:, None]
        self._affine = matrix, flipped.astype(np.float64)

    def _set_affine(self, matrix, offset):
        self.permutation = self.flipped = None
        self._affine = matrix, offset

    def _check(self, images):
        if not isinstance(images, torch.Tensor) or not (images.dtype == torch.uint8 or images.is_floating_point()):
            kind = images.dtype if isinstance(images, torch.Tensor) else type(images).__name__
            raise TypeError(f"Images must be a torch tensor of uint8 or floats, but this is {kind}.")
        if images.ndim not in (3, 4) or images.shape[-3] != self.channels:
            raise ValueError(
                f"Images must have the shape (N, {self.channels}, H, W) or ({self.channels}, H, W), "
                f"but this is {tuple(images.shape)}."
            )
        if images.shape[-2] % self.block_size or images.shape[-1] % self.block_size:
            raise ValueError(
                f"Height and width must be divisible by the block size {self.block_size}, "
                f"but the images are {images.shape[-2]} x {images.shape[-1]}; crop or pad them first."
            )


def to_blocks(images, size):
    """(N, C, H, W) -> (N, number of blocks, C * size * size)."""
    n, c, h, w = images.shape
    blocks = images.reshape(n, c, h // size, size, w // size, size).permute(0, 2, 4, 1, 3, 5)
    return blocks.reshape(n, (h // size) * (w // size), c * size * size)


def from_blocks(blocks, size, shape):
    """(N, number of blocks, C * size * size) -> (N, C, H, W), with ``shape`` = (C, H, W)."""
    c, h, w = shape
    images = blocks.reshape(len(blocks), h // size, w // size, c, size, size).permute(0, 3, 1, 4, 2, 5)
    return images.reshape(len(blocks), c, h, w)
