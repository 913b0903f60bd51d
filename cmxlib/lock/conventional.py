"""Conventional methods: images are encrypted first, and a network is then trained on the encrypted images.

They are here to be compared with the patch cipher, whose model is trained on plain images and encrypted afterwards.
Images are cut into blocks of B x B pixels, and a block is read in channel, row, column order.

=====  ====================================================================================  ======================
name   what the key chooses                                                                  source
=====  ====================================================================================  ======================
LE     one reversal and one shuffle of a block's 6 B B 4-bit halves, the same in all blocks  Tanaka 2018
ELE    LE with a key of its own in every block, then where each block goes                   Madono 2020
EtC    where each block goes, its rotation and inversion, its negative, its channel order    Chuman 2019
PE     in each pixel the negative of each channel, then the channel order                    Sirichotedumrong 2019
SHF    one shuffle of a block's 3 B B values, the same in all blocks                         arXiv 2010.00801
NP     the half of a block's values that become negatives, the same in all blocks            arXiv 2010.00801
FFX    the half of a block's values that are encrypted, and for each byte one of 0 .. 999    arXiv 2010.00801
SUB    the half of a block's values that are encrypted, and a permutation of 0 .. 255        of the book, after FFX
=====  ====================================================================================  ======================

All but FFX and SUB do the same two things: every *entry* (a byte, or a 4-bit half of one) is moved, and some are
turned into their negatives, 255 - v for a byte and 15 - v for a half. A key is therefore a table of where each entry of
the encrypted image comes from, and which entries are turned.

One key serves all images (PE's authors also study a key of its own for every image). Every choice is drawn
independently.
"""

import math
from typing import Any

import numpy as np
import torch

from . import checks
from .keys import LARGEST_PERMUTATION, SecretKey, check_key
from .patch import PatchCipher, block_entries, entry_table, from_blocks

METHODS = ("LE", "ELE", "EtC", "PE", "SHF", "NP", "FFX", "SUB")
CHANNELS = 3
_MOST_PIXELS = 2**24  # whose tables take some gigabytes
_MOST_DRAWS = 2**18  # of ELE: a block by itself takes as long as what eight of its pixels add, some 40 us


def make_cipher(method: str, key: SecretKey, *, block_size: int = 4, image_size: tuple[int, int] = (32, 32)) -> Any:
    """The cipher of a conventional method: an object with ``encrypt(images)`` and ``decrypt(images)``.

    Both take and give uint8 images (N, 3, H, W) or (3, H, W) on any device, and decrypting gives back every bit. FFX
    alone encrypts to float32 in [0, 1], as its values are more than bytes can tell apart.

    Args:
        method: one of ``METHODS``.
        key: the secret.
        block_size: B, in pixels; it must divide height and width. PE works on pixels and has no blocks.
        image_size: (H, W) of the images. Only the methods that act alike in all blocks (SHF, NP) take others as well.
    """
    check_key(key)
    block_size, image_size = _check(method, block_size, image_size)
    height, width = image_size
    n, pixels = CHANNELS * block_size**2, height * width
    count = pixels // block_size**2
    if method != "PE" and max(2 * n, count * (method == "EtC")) > LARGEST_PERMUTATION:
        raise ValueError(
            f"With a block_size of {block_size}, {method} draws a permutation of over {LARGEST_PERMUTATION:,} entries "
            f"for images of {height} x {width}: choose another block_size or smaller images."
        )
    if method == "SHF":
        return PatchCipher(key, patch_size=block_size, steps=("shuffle",))
    if method == "NP":
        return PatchCipher.from_entries(np.arange(n), key.half(n, purpose="NP half"), patch_size=block_size)
    if pixels > _MOST_PIXELS:
        raise ValueError(
            f"{method} keeps a table of all values of an image, and one of {height} x {width} has over "
            f"{_MOST_PIXELS:,} pixels: choose smaller images."
        )
    if method in ("FFX", "SUB"):
        # SUB is drawn, as it was measured, for the purposes of FFX: in its place it once stood here.
        table = key.permutation(256, purpose="FFX") if method == "SUB" else key.permutation(1000, purpose="FFX digits")
        return ValueCipher(table[:256], key.half(n, purpose="FFX half"), block_size, image_size)
    if method == "ELE" and count + pixels / 8 > _MOST_DRAWS:
        raise ValueError(
            f"ELE draws a key for each of the {count:,} blocks of an image of {height} x {width}, which would take "
            "over ten seconds: choose a larger block_size or smaller images."
        )
    draw = {"LE": _le, "ELE": _ele, "EtC": _etc, "PE": _pe}[method]
    blocks = block_entries(1 if method == "PE" else block_size, (CHANNELS, *image_size))
    source, turned = draw(key, blocks)
    return EntryCipher(source, turned, image_size)


def key_space_bits(method: str, *, block_size: int = 4, image_size: tuple[int, int] = (32, 32)) -> float:
    """log2 of the number of different keys of a method.

    A count of choices is an upper bound of the work of an attacker, and no method is as hard to break as it suggests:
    see the attacks on LE and PE. The secret itself has 256 bits.
    """
    block_size, image_size = _check(method, block_size, image_size)
    n, pixels = CHANNELS * block_size**2, image_size[0] * image_size[1]
    blocks = pixels // block_size**2
    learnable = _log2_factorial(2 * n) + 2 * n  # orders of the halves of a block, and their reversals
    where = _log2_factorial(blocks)
    half = math.log2(math.comb(n, n // 2)) if n < _LARGE else _log2_factorial(n) - 2 * _log2_factorial(n // 2)
    return {
        "LE": learnable,
        "ELE": blocks * learnable + where,
        "EtC": blocks * math.log2(8 * 2 * 6) + where,
        "PE": pixels * math.log2(2**CHANNELS * 6),
        "SHF": _log2_factorial(n),
        "NP": half,
        "FFX": half + math.log2(math.perm(1000, 256)),
        "SUB": half + math.log2(math.factorial(256)),
    }[method]


_LARGE = 10_000  # from here on a factorial takes long, and its logarithm by the gamma function has as many digits


def _log2_factorial(n):
    return math.log2(math.factorial(n)) if n < _LARGE else math.lgamma(n + 1) / math.log(2)


class EntryCipher:
    """Moves the entries of an image, and turns some into their negatives.

    Entry i of the encrypted image is entry source[i] of the plain one, as its negative where turned[i]. There are
    either 3 H W entries, the bytes, or twice as many: first the upper 4 bits of each byte, then the lower 4.
    """

    def __init__(self, source, turned, image_size):
        self.shape = (CHANNELS, *image_size)
        self.halves = len(source) == 2 * math.prod(self.shape)
        self.source, self.inverse = torch.from_numpy(source), torch.from_numpy(np.argsort(source))
        self.mask = torch.from_numpy(turned.astype(np.uint8) * (15 if self.halves else 255))  # 255 - v is v ^ 255

    def encrypt(self, images: torch.Tensor) -> torch.Tensor:
        """Encrypt uint8 images (N, 3, H, W) or (3, H, W)."""
        _check_images(images, self.shape)
        entries = self._split(images).index_select(1, self.source.to(images.device))
        return self._join(entries ^ self.mask.to(images.device)).view(images.shape)

    def decrypt(self, images: torch.Tensor) -> torch.Tensor:
        """Undo ``encrypt``."""
        _check_images(images, self.shape)
        entries = self._split(images) ^ self.mask.to(images.device)
        return self._join(entries.index_select(1, self.inverse.to(images.device))).view(images.shape)

    def _split(self, images):
        values = images.reshape(-1, math.prod(self.shape))
        return torch.cat([values >> 4, values & 15], 1) if self.halves else values

    def _join(self, entries):
        if not self.halves:
            return entries
        upper, lower = entries.chunk(2, 1)
        return upper << 4 | lower


class ValueCipher:
    """FFX (arXiv 2010.00801) and SUB: the values at a keyed half of a block's places are replaced by a keyed table.

    Format-preserving encryption with no tweak is a keyed permutation of all values of the format, so a table (256,)
    of what becomes of each byte says it all; here it is drawn uniformly. The paper's public code writes a byte as
    three decimal digits, so that its table goes up to 999; then it divides the whole image by the table's largest
    value, so that the values that are not encrypted become about four times darker. That is FFX here. With a table of
    bytes (SUB) all values stay bytes, and those that are not encrypted stay as they are.

    NIST asks that such a cipher have at least 100 values (SP 800-38G, 2016), and 1,000,000 in the drafts of its
    revision: a table of 256 bytes is soon learnt from a few known images.
    """

    def __init__(self, table, chosen, block_size, image_size):
        self.shape = (CHANNELS, *image_size)
        self.table, self.largest = torch.from_numpy(table).to(torch.int16), int(table.max())
        self.inverse = torch.zeros(1000, dtype=torch.uint8)
        self.inverse[self.table.long()] = torch.arange(256, dtype=torch.uint8)
        blocks = math.prod(image_size) // block_size**2
        self.chosen = from_blocks(torch.from_numpy(chosen).expand(1, blocks, -1), block_size, self.shape)[0]

    def encrypt(self, images: torch.Tensor) -> torch.Tensor:
        """Encrypt uint8 images (N, 3, H, W) or (3, H, W): to uint8, or to float32 where the table exceeds a byte."""
        _check_images(images, self.shape)
        replaced = self._replace(images, images, self.table)
        return replaced.to(torch.uint8) if self.largest < 256 else replaced.float() / self.largest

    def decrypt(self, images: torch.Tensor) -> torch.Tensor:
        """Undo ``encrypt``."""
        _check_images(images, self.shape, bytes_only=self.largest < 256)
        if not (images.is_floating_point() or self.largest < 256) or not images.isfinite().all():
            raise ValueError("FFX encrypts to finite float32 values in [0, 1], so these images are not its result.")
        numbers = (images * self.largest).round() if images.is_floating_point() else images
        numbers = numbers.int()
        return self._replace(numbers.clamp(0, 255), numbers.clamp(0, 999), self.inverse).to(torch.uint8)

    def _replace(self, kept, numbers, table):
        replaced = table.to(numbers.device).index_select(0, numbers.flatten().int()).view(numbers.shape)
        return torch.where(self.chosen.to(numbers.device), replaced, kept)


# -- what each method draws from the key: (source, turned), one of each for every entry of an image -------------------
# ``blocks`` (number of blocks, values of a block) holds the number of each value in the image, block by block.


def _le(key, blocks):
    """All blocks alike: reverse some 4-bit halves, then shuffle them."""
    halves = _halves(blocks)
    order, turned = _le_block(key, halves.shape[1])
    return entry_table(halves, halves[:, order], np.broadcast_to(turned, halves.shape))


def _ele(key, blocks):
    """LE with a key for every block, then the blocks change places."""
    halves = _halves(blocks)
    drawn = [_le_block(key.subkey(f"ELE block {i}"), halves.shape[1]) for i in range(len(halves))]
    orders, turned = (np.stack(tables) for tables in zip(*drawn, strict=True))
    moved = key.permutation(len(halves), purpose="ELE blocks")  # place i receives block moved[i]
    return entry_table(halves, np.take_along_axis(halves, orders, 1)[moved], turned[moved])


def _le_block(key, n):
    order = key.permutation(n, purpose="LE shuffle")
    # Independent bits reverse half of the entries on average, and give the published number of keys, (6BB)! 2^(6BB).
    return order, key.bits(n, purpose="LE reversal")[order]


def _etc(key, blocks):
    """The blocks change places; each is then rotated and inverted, made a negative or not, its channels reordered."""
    n = len(blocks)
    size = math.isqrt(blocks.shape[1] // CHANNELS)
    turned = turns(np.arange(blocks.shape[1]).reshape(CHANNELS, size, size))
    way = np.packbits(key.bits(3 * n, purpose="EtC rotation and inversion").reshape(n, 3), axis=1) >> 5  # 0 .. 7
    ways = turned[way[:, 0]]  # (n, channels, size, size)
    ways = np.take_along_axis(ways, _channel_orders(key, n, "EtC")[:, :, None, None], 1)
    moved = blocks[key.permutation(n, purpose="EtC blocks")]
    turned = np.broadcast_to(key.bits(n, purpose="EtC negative")[:, None], blocks.shape)
    return entry_table(blocks, np.take_along_axis(moved, ways.reshape(n, -1), 1), turned)


def turns(block: np.ndarray) -> np.ndarray:
    """A square block (C, B, B) in the 8 ways to rotate and mirror it, the dihedral group: (8, C, B, B)."""
    return np.stack([np.rot90(way, k, (1, 2)) for way in (block, block[:, :, ::-1]) for k in range(4)])


def _pe(key, pixels):
    """In each pixel, some channels become negatives, then the channels are reordered."""
    orders = _channel_orders(key, len(pixels), "PE")
    turned = key.bits(pixels.size, purpose="PE negative").reshape(pixels.shape)
    return entry_table(pixels, *(np.take_along_axis(table, orders, 1) for table in (pixels, turned)))


def _channel_orders(key, n, purpose):
    """n uniform orders of the channels (n, 3): the order of three random 64-bit words."""
    stream = key.stream(8 * CHANNELS * n, purpose=f"{purpose} channels/{n}")
    return np.argsort(np.frombuffer(stream, "<u8").reshape(n, CHANNELS), axis=1, kind="stable")


def _halves(blocks):
    """The same of the 4-bit halves: first the upper ones of a block, then the lower ones, which in the image come
    after all the upper ones."""
    return np.concatenate([blocks, blocks + blocks.size], axis=1)


# -- refusals ---------------------------------------------------------------------------------------------------------


def _check(method, block_size, image_size):
    """block_size and image_size as whole numbers of Python."""
    if not isinstance(method, str) or method not in METHODS:
        raise ValueError(f"There is no conventional method {checks.shown(method)}; choose one of {', '.join(METHODS)}.")
    block_size = checks.whole(block_size, "block_size", 1)
    if not isinstance(image_size, (tuple, list)) or len(image_size) != 2:
        raise ValueError(f"image_size must be (height, width), but it is {checks.shown(image_size)}.")
    image_size = tuple(checks.whole(size, "image_size", 1) for size in image_size)
    if method != "PE" and any(size % block_size for size in image_size):
        raise ValueError(
            f"Blocks of {block_size} pixels do not divide images of {image_size[0]} x {image_size[1]}; "
            "choose another block_size, or crop or pad the images."
        )
    return block_size, image_size


def _check_images(images, shape, bytes_only=True):
    checks.images(images, ndim=(3, 4), bytes_only=bytes_only)
    if images.shape[-3:] != shape:
        raise ValueError(
            f"This cipher was made for images of the shape {shape}, alone or as a batch, but this is "
            f"{tuple(images.shape)}; make one with the image_size of the images."
        )
