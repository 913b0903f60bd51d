"""The patch cipher: one keyed affine map x' = A x + b, applied to every block of an image.

A block of B x B pixels with C channels is read as a vector of n = C*B*B values in [0, 1], in channel, row, column
order. Shuffling makes A a permutation; bit flipping, v -> 255 - v on bytes, makes it diagonal with entries +-1 and
sets b = 1 where it flips; a random orthogonal A mixes all values (arXiv 2301.03843).
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from . import checks
from .keys import LARGEST_MIXED, SecretKey, check_key

if TYPE_CHECKING:  # files of images are encrypted without torch, which takes seconds to import
    import torch

STEPS = ("shuffle", "flip", "orthogonal")
LARGEST = 2**14  # entries of a block: its matrix takes 2 GB


class PatchCipher:
    """The affine map of a key on image blocks.

    Args:
        key: the secret.
        patch_size: height and width in pixels of the patches that the model embeds.
        channels: colour channels of the images.
        steps: any of "shuffle" and "flip", in the order in which they act, or ("orthogonal",) alone,
            for blocks of at most 3,072 entries, as of 32 x 32 pixels in colour.
        block_size: height and width in pixels of the scrambled blocks; it must divide ``patch_size``, which is
            also its default. Blocks larger than a patch would mix patches, and no embedding could undo that.

    ``permutation`` (n,) and ``flipped`` (n,) describe a cipher of shuffles and flips: entry i of an encrypted block is
    entry permutation[i] of the plain one, and 1 minus it where flipped[i]. They are None for an orthogonal cipher.
    They are read-only: a cipher does not change once it is made. It can be pickled, as for the workers of a
    loader; that is its map, without the key, and whoever has it can encrypt and decrypt.
    """

    # While it is made, or where that failed, a traceback may show it already.
    steps: tuple[str, ...] = ("unfinished",)
    block_size = channels = 0

    def __init__(
        self,
        key: SecretKey,
        patch_size: int = 4,
        channels: int = 3,
        steps: tuple[str, ...] = ("shuffle", "flip"),
        *,
        block_size: int | None = None,
    ):
        check_key(key)
        steps = checks.steps(steps, STEPS)
        if "orthogonal" in steps and len(steps) > 1:
            raise ValueError('"orthogonal" stands alone: it already contains every shuffle and every change of sign.')
        self._set_sizes(patch_size, channels, block_size)
        if "orthogonal" in steps:
            _check_mixed(self.n)
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
    def from_entries(cls, permutation: Any, flipped: Any, patch_size: int = 4, channels: int = 3) -> "PatchCipher":
        """The cipher with a given permutation (n,) and flips (n,) of the blocks, without a key."""
        self = cls.__new__(cls)
        self._set_sizes(patch_size, channels, None)
        self.steps = ("shuffle", "flip")
        permutation, flipped = checks.array(permutation, "permutation"), checks.array(flipped, "flipped")
        whole = permutation.dtype.kind in "iu" and permutation.shape == (self.n,)
        whole = whole and np.array_equal(np.sort(permutation), np.arange(self.n))
        if not whole or flipped.shape != (self.n,) or not np.isin(flipped, (0, 1)).all():
            raise ValueError(
                f"A block has {self.n} entries: give a permutation of them, in whole numbers, and as many flips, each "
                "True or False."
            )
        self._set_entries(permutation.copy(), flipped.astype(bool))
        return self

    @classmethod
    def from_affine(cls, matrix: Any, offset: Any, patch_size: int = 4, channels: int = 3) -> "PatchCipher":
        """The cipher x' = matrix x + offset with any invertible matrix (n, n) and any offset (n,), without a key.

        ValueError where the matrix is singular: what it did could not be undone.
        """
        self = cls.__new__(cls)
        self._set_sizes(patch_size, channels, None)
        self.steps = ("affine",)
        matrix, offset = check_affine(matrix, offset, self.n)
        self._set_affine(matrix, offset)
        return self

    def __setattr__(self, name, value):
        if "_affine" in vars(self):  # which is set last
            raise AttributeError(f"A cipher does not change: make another one instead of setting {name}.")
        super().__setattr__(name, value)

    def __repr__(self):
        steps = "+".join(self.steps) or "identity"
        return f"<PatchCipher {steps}, blocks of {self.block_size}, {self.channels} channels>"

    @property
    def permutation(self) -> Any:
        """(n,): entry i of an encrypted block is entry permutation[i] of the plain one; or None."""
        return _read_only(self._entries[0])

    @property
    def flipped(self) -> Any:
        """(n,): which entries of an encrypted block are 1 minus what they were; or None."""
        return _read_only(self._entries[1])

    def key_bits(self) -> float:
        """log2 of the number of maps that the steps allow: n! shuffles, 2^n flips, infinitely many orthogonal ones.

        A SecretKey holds 256 bits, so no more than that many bits of a larger space are ever reached. ValueError for a
        cipher that was made of a matrix.
        """
        if self.steps == ("affine",):
            raise ValueError("A cipher that was made of a matrix, without a key, has no key space.")
        bits = {"shuffle": math.lgamma(self.n + 1) / math.log(2), "flip": self.n, "orthogonal": math.inf}
        return float(sum(bits[step] for step in self.steps))

    # -- images ----------------------------------------------------------------------------------------------

    def encrypt(self, images: "torch.Tensor") -> "torch.Tensor":
        """Encrypt images (N, C, H, W) or (C, H, W), uint8 or float in [0, 1], H and W divisible by the block size.

        Shuffles and flips keep the type, and uint8 comes back to the bit. An orthogonal cipher gives floats
        (uint8 v counts as v / 255), which may leave [0, 1].
        """
        import torch

        self._check(images)
        # A graph that is being recorded has no values yet: whoever runs it later sees to their range.
        recorded = torch.compiler.is_compiling() or torch.jit.is_tracing()
        if not recorded:
            checks.values(images, limits=(0, 1))
        if self._affine:
            return self._mix(images, *self._affine)
        return self._rearrange(images, *self._entries)

    def decrypt(self, images: "torch.Tensor") -> "torch.Tensor":
        """Undo ``encrypt``; shapes and types as there, any values."""
        self._check(images)
        if self._affine:
            matrix, offset = self._affine
            inverse = np.linalg.inv(matrix)
            return self._mix(images, inverse, -inverse @ offset)
        permutation, flipped = self._entries
        order = np.argsort(permutation)
        return self._rearrange(images, order, flipped[order])

    def _rearrange(self, images, permutation, flipped):
        """Move each value within its block, and flip it where the place that it comes to is flipped."""
        import torch

        places = block_entries(self.block_size, images.shape[-3:])
        source, flips = entry_table(places, places[:, permutation], np.broadcast_to(flipped, places.shape))
        source, flips = torch.from_numpy(source).to(images.device), torch.from_numpy(flips).to(images.device)
        flat = images.reshape(-1, places.size)
        moved = flat.gather(1, source.expand(flat.shape[0], -1))  # four times quicker than index_select
        if images.dtype == torch.uint8:
            moved ^= flips.to(torch.uint8) * 255  # 255 - v is v with every bit flipped
        else:
            moved = torch.where(flips, 1 - moved, moved)
        return moved.view(images.shape)

    def _mix(self, images, matrix, offset):
        import torch

        from .pixels import to_values

        images = to_values(images)
        matrix, offset = (torch.from_numpy(a).to(images) for a in (matrix, offset))
        blocks = to_blocks(images.reshape(-1, *images.shape[-3:]), self.block_size)
        return from_blocks(blocks @ matrix.T + offset, self.block_size, images.shape[-3:]).view(images.shape)

    # -- the map itself --------------------------------------------------------------------------------------

    def matrix(self, patch_size: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """A (m, m) and b (m,), float64: x' = A x + b for a patch x in channel, row, column order, values in [0, 1].

        ``patch_size`` is the cipher's own unless given; m = C * patch_size^2. A patch of several blocks has a map
        that is block diagonal up to the order of its entries. ValueError where blocks do not fit into the patch.
        """
        patch_size = self.patch_size if patch_size is None else checks.whole(patch_size, "patch_size", 1)
        if patch_size % self.block_size:
            raise ValueError(
                f"Blocks of {self.block_size} pixels do not fit into patches of {patch_size}: the patch size must "
                "be a multiple of the block size, for an embedding sees one patch and cannot undo what mixes patches."
            )
        m = n_entries("A patch", patch_size, self.channels)
        matrix, offset = np.zeros((m, m)), np.zeros(m)
        for entries in block_entries(self.block_size, (self.channels, patch_size, patch_size)):
            if self._affine:
                matrix[np.ix_(entries, entries)], offset[entries] = self._affine
            else:
                matrix[entries, entries[self.permutation]] = np.where(self.flipped, -1.0, 1.0)
                offset[entries] = self.flipped
        return matrix, offset

    def _set_sizes(self, patch_size, channels, block_size):
        patch_size, channels = checks.whole(patch_size, "patch_size", 1), checks.whole(channels, "channels", 1)
        block_size = patch_size if block_size is None else checks.whole(block_size, "block_size", 1)
        if patch_size % block_size:
            raise ValueError(
                f"A block of {block_size} pixels does not divide a patch of {patch_size}: "
                "a patch embedding sees one patch only and cannot undo what mixes patches."
            )
        self.patch_size, self.channels, self.block_size = patch_size, channels, block_size
        self.n = n_entries("A block", block_size, channels)

    def _set_entries(self, permutation, flipped):
        self._entries = permutation, flipped
        self._affine = None  # the two say all, and a matrix of large blocks takes gigabytes

    def _set_affine(self, matrix, offset):
        self._entries = None, None
        self._affine = matrix, offset

    def _check(self, images):
        checks.images(images, self.channels, ndim=(3, 4))
        h, w = images.shape[-2:]
        if h % self.block_size or w % self.block_size or not h * w:
            raise ValueError(
                f"Height and width must be divisible by the block size {self.block_size}, and not be 0, "
                f"but the images are {h} x {w}; crop or pad them first."
            )


def check_affine(matrix: Any, offset: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
    """A matrix (n, n) and an offset (n,) as float64, when they are finite and float64 can undo the matrix."""
    matrix, offset = checks.array(matrix, "matrix"), checks.array(offset, "offset")
    if matrix.shape != (n, n) or offset.shape != (n,):
        raise ValueError(
            f"The patch or block has {n} entries: give a {n} x {n} matrix and as long an offset, "
            f"not {matrix.shape} and {offset.shape}."
        )
    if not {matrix.dtype.kind, offset.dtype.kind} <= set("biuf"):
        raise TypeError(f"matrix and offset must be real numbers, but they are {matrix.dtype} and {offset.dtype}.")
    matrix, offset = matrix.astype(np.float64), offset.astype(np.float64)
    if not (np.isfinite(matrix).all() and np.isfinite(offset).all()):
        raise ValueError("The cipher's matrix and offset must be finite.")
    found = only_entries(matrix)
    sizes = None if found is None else np.abs(found[1])
    if found is None:
        _check_mixed(n)
    if not (condition := np.linalg.cond(matrix, 1) if sizes is None else sizes.max() / sizes.min()) < 1e12:
        raise ValueError(f"The cipher's matrix is singular (condition number {condition:.1e}): nothing can undo it.")
    if not 1e-20 < (largest := np.abs(matrix).max()) < 1e20:  # where it and its inverse are within what float32 holds
        raise ValueError(
            f"The largest entry of the cipher's matrix must lie between 1e-20 and 1e20, but it is {largest:.1e}, so "
            "that float32 could not undo it: scale it."
        )
    return matrix, offset


def _read_only(values):
    """A view that nobody writes into by mistake; torch, which takes none of those, is given the array itself."""
    if values is not None:
        values = values.view()
        values.flags.writeable = False
    return values


def n_entries(what: str, size: int, channels: int) -> int:
    """How many entries a patch or block has. ValueError where a map of them would not fit into memory."""
    n = channels * size**2
    if n > LARGEST:
        raise ValueError(
            f"{what} of {size} pixels and {channels} channels has {n:,} entries, over {LARGEST:,}, so that its map "
            "would take over 2 GB: choose a smaller patch_size or block_size."
        )
    return n


def _check_mixed(n):
    if n > LARGEST_MIXED:
        raise ValueError(
            f"A matrix that mixes {n:,} entries of a block, over {LARGEST_MIXED:,}, takes minutes: choose a smaller "
            "patch_size or block_size, or shuffles and flips."
        )


def only_entries(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """(row, value) of the one entry in each column, where each row holds one too, as of shuffles and flips; else None.

    Patches of 32 pixels want it: what takes n^3 steps with any matrix takes n with these.
    """
    there = matrix != 0
    if not ((there.sum(0) == 1).all() and there.any(1).all()):
        return None
    rows = there.argmax(0)
    return rows, matrix[rows, np.arange(len(rows))]


def block_entries(size: int, shape: tuple[int, int, int]) -> np.ndarray:
    """(number of blocks, C * size * size): the place in a flattened image (C, H, W) of each entry of each block."""
    c, h, w = (int(n) for n in shape)
    places = np.arange(c * h * w).reshape(c, h // size, size, w // size, size)
    return places.transpose(1, 3, 0, 2, 4).reshape(-1, c * size * size)


def entry_table(places: np.ndarray, source: np.ndarray, turned: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(source, turned) in the order of the image, from tables in the order of ``places``: see ``block_entries``."""
    sources, turns = np.empty(places.size, np.int64), np.empty(places.size, bool)
    sources[places], turns[places] = source, turned
    return sources, turns


def to_blocks(images: "torch.Tensor", size: int) -> "torch.Tensor":
    """(N, C, H, W) -> (N, number of blocks, C * size * size)."""
    n, c, h, w = images.shape
    blocks = images.reshape(n, c, h // size, size, w // size, size).permute(0, 2, 4, 1, 3, 5)
    return blocks.reshape(n, (h // size) * (w // size), c * size * size)


def from_blocks(blocks: "torch.Tensor", size: int, shape: tuple[int, int, int]) -> "torch.Tensor":
    """(N, number of blocks, C * size * size) -> (N, C, H, W), with ``shape`` = (C, H, W)."""
    c, h, w = shape
    images = blocks.reshape(blocks.shape[0], h // size, w // size, c, size, size).permute(0, 3, 1, 4, 2, 5)
    return images.reshape(blocks.shape[0], c, h, w)
