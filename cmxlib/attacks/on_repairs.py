"""Attacks on the repairs, with images alone, with pairs of images, and with the encrypted model at hand.

An encrypted model shows more of the key than one might think. Its filters are the plain ones, rearranged:

    W' D^-1 = (W D^-1) A^-1

Two encryptions of the same filters, at two positions or under two keys, show how the keys differ: `relative_cipher`.
And the eight filter entries of the bits of one value are the same but for powers of two: `bits_in_order`. Either way
the repaired cipher falls back to one patch cipher for all patches, which `ciphertext_only` finds.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..lock import checks
from ..lock.bits import from_bits
from ..lock.patch import PatchCipher, n_entries, to_blocks
from ..lock.pixels import to_values
from ..lock.position import PositionCipher, PositionEmbedding
from .matching import assign, check_alike, check_steps, distances, patch_size_of, polar
from .on_images import check_pairs, chosen_image, ciphertext_only, fitted

# -- a key for each position ---------------------------------------------------------------------------------------


def ciphertext_only_by_position(
    encrypted: torch.Tensor,
    public: torch.Tensor,
    patch_size: int = 4,
    steps: tuple[str, ...] = ("shuffle", "flip"),
    *,
    restarts: int = 5,
    rounds: int = 5,
) -> PositionCipher:
    """Estimate a PositionCipher of shuffles and flips, from images as for ``ciphertext_only``.

    First each position by itself. Then positions help one another: the covariance of an encrypted patch with the other
    patches, decrypted as far as they are known, is compared with the same covariance of public images; now only one
    side is unknown, so that a linear assignment finds it.
    """
    if (count := check_alike(encrypted, public, patch_size)) < 2:
        raise ValueError("The images are one patch each, and no position could help another: use ciphertext_only.")
    rounds = checks.whole(rounds, "rounds", 0)
    estimates = [
        ciphertext_only(*patches, patch_size, steps, neighbours=False, restarts=restarts)
        for patches in zip(_patches(encrypted, patch_size), _patches(public, patch_size), strict=True)
    ]
    observed, known = _all_covariances(encrypted, patch_size), _all_covariances(public, patch_size)
    for _ in range(rounds):
        # Decrypting the second patch of each pair as far as its key is known.
        matrices = np.stack([each.matrix()[0] for each in estimates])
        half = observed @ matrices
        pairs = [_others(half, known, i) for i in range(count)]
        estimates = [_closest(seen, plain, patch_size, steps) for seen, plain in pairs]
    return PositionCipher.from_ciphers(estimates)


def known_plaintext_by_position(
    encrypted: torch.Tensor, plain: torch.Tensor, patch_size: int = 4, steps: tuple[str, ...] = ("shuffle", "flip")
) -> PositionCipher:
    """Estimate a PositionCipher from encrypted images and the same as they were: ``known_plaintext`` by position."""
    check_pairs(encrypted, plain, patch_size, steps)
    pairs = zip(_patches(encrypted, patch_size), _patches(plain, patch_size), strict=True)
    return PositionCipher.from_ciphers([fitted(*pair, patch_size, steps) for pair in pairs])


def chosen_image_by_position(patch_size: int = 4, channels: int = 3, image_size: int = 32) -> torch.Tensor:
    """One image (1, C, S, S) that shows every position's shuffle and flips: ``chosen_image`` at each of them."""
    one = chosen_image(patch_size, channels)
    if checks.whole(image_size, "image_size", 1, 10_000) % patch_size:
        raise ValueError(f"Patches of {patch_size} pixels do not divide images of {image_size} x {image_size}.")
    if one.shape[-1] != patch_size:
        raise ValueError(f"A patch of {patch_size} has more entries than one image can number; choose 6 or less.")
    return one.repeat(1, 1, image_size // patch_size, image_size // patch_size)


def relative_cipher(
    weight: torch.Tensor,
    other: torch.Tensor,
    *,
    std: Sequence[float],
    patch_size: int,
    steps: tuple[str, ...] = ("shuffle", "flip"),
) -> PatchCipher:
    """The map from images under one key to images under another, from encrypted filters alone.

    weight, other: the same patch embedding (dim, n), or (dim, C, p, p), encrypted with either key. Where its filters
    have rank n (so dim >= n), all maps are found, shuffles and flips in general with fewer filters too.
    """
    check_steps(steps)
    first, second = (_per_value(each, name, std, patch_size) for name, each in (("weight", weight), ("other", other)))
    if first.shape != second.shape:
        raise ValueError(f"weight and other must have one shape, not {tuple(weight.shape)} and {tuple(other.shape)}.")
    if tuple(steps) == ("orthogonal",):
        rotation = polar(second.T @ first)
        return PatchCipher.from_affine(rotation, np.zeros(len(rotation)), patch_size, len(rotation) // patch_size**2)
    return _closest(second.T, first.T, patch_size, steps)


def ciphertext_and_model_by_position(
    encrypted: torch.Tensor,
    embedding: PositionEmbedding,
    public: torch.Tensor,
    steps: tuple[str, ...] = ("shuffle", "flip"),
    *,
    std: Sequence[float],
    **options: Any,
) -> PositionCipher:
    """Estimate a PositionCipher from encrypted images and the encrypted embedding: first to one key, then that key."""
    checks.instance(embedding, PositionEmbedding, "embedding")
    size, first = embedding.patch_size, embedding.weight[0]
    maps = [relative_cipher(first, each, std=std, patch_size=size, steps=steps) for each in embedding.weight]
    under_one_key = PositionCipher.from_ciphers(maps).decrypt(encrypted)
    estimate = ciphertext_only(under_one_key, public, size, steps, **options)
    return PositionCipher.from_ciphers([chained(estimate, each) for each in maps])


# -- single bits ---------------------------------------------------------------------------------------------------


def chosen_image_of_bits(patch_size: int = 4, channels: int = 3) -> torch.Tensor:
    """One square image (1, C, S, S), uint8, that shows a shuffle and flips of single bits.

    Bit i of a patch spells the number i, one binary digit a patch, after a digit 0 that tells a number from its
    negative.
    """
    n = n_entries("A patch", checks.whole(patch_size, "patch_size", 1), 8 * checks.whole(channels, "channels", 1))
    digits = n.bit_length() + 1
    side = int(np.ceil(np.sqrt(digits)))
    patches = torch.arange(n) >> torch.arange(side**2)[:, None].clamp(max=digits) & 1
    grid = patches.view(side, side, 8 * channels, patch_size, patch_size).permute(2, 0, 3, 1, 4)
    return from_bits(grid.reshape(1, 8 * channels, side * patch_size, side * patch_size).float())


def bits_in_order(weight: torch.Tensor, patch_size: int = 4) -> PatchCipher:
    """A cipher of bits whose decryption brings the bits of each value together, from encrypted filters (dim, 8 n).

    Entries of one value are told by their direction, bits by their size (each twice the next), flips by their sign.
    What the filters cannot tell is which value is which, and whether all its bits are flipped: a PatchCipher of values.
    """
    per_value = 8 * checks.whole(patch_size, "patch_size", 1) ** 2
    usual = isinstance(weight, torch.Tensor) and checks.tensor(weight, "weight").is_floating_point()
    if not usual or weight.ndim < 2 or not weight.numel() or weight[0].numel() % per_value:
        raise ValueError(
            f"weight must be filters (dim, 8 C p p) with p = {patch_size}, of which there is at least one."
        )
    columns = weight.detach().double().flatten(1).cpu().numpy()
    sizes = np.linalg.norm(columns, axis=0)
    if not (sizes > 0).all():
        raise ValueError("weight must be finite, and no column of it 0, which would tell nothing.")
    alike = (columns / sizes).T @ (columns / sizes)
    n, bits = len(sizes) // 8, np.empty(len(sizes), int)
    flipped, left, pixels = np.zeros(len(sizes), bool), np.ones(len(sizes), bool), patch_size**2
    for value in range(n):
        first = np.flatnonzero(left)[0]
        group = np.argsort(-np.abs(alike[first]) * left)[:8]  # the first one and its seven likest
        group = group[np.argsort(-sizes[group])]
        channel, pixel = divmod(value, pixels)
        bits[group] = (channel * 8 + np.arange(8)) * pixels + pixel  # as to_bits orders the entries of a patch
        flipped[group] = alike[group[0], group] < 0
        left[group] = False
    return PatchCipher.from_entries(bits, flipped, patch_size, len(sizes) // pixels)


def ciphertext_and_model_of_bits(
    encrypted: torch.Tensor, weight: torch.Tensor, public: torch.Tensor, patch_size: int = 4, **options: Any
) -> PatchCipher:
    """Estimate a PatchCipher of bits from encrypted bits (N, 8 C, H, W) and the encrypted filters of a bit model."""
    check_steps(options.get("steps", ("shuffle", "flip")), orthogonal=False)
    order = bits_in_order(weight, patch_size)
    estimate = ciphertext_only(from_bits(order.decrypt(encrypted)), public, patch_size, **options)
    pixels = patch_size**2
    value, pixel = np.divmod(estimate.permutation.reshape(-1, 1, pixels), pixels)  # channel, place of each entry
    moved = ((value * 8 + np.arange(8)[:, None]) * pixels + pixel).ravel()
    flips = np.repeat(estimate.flipped.reshape(-1, 1, pixels), 8, 1).ravel()
    return chained(PatchCipher.from_entries(moved, flips, patch_size, order.channels), order)


# -- shared --------------------------------------------------------------------------------------------------------


def chained(first: PatchCipher, second: PatchCipher) -> PatchCipher:
    """The one cipher that does what ``first`` and then ``second`` do, on patches of one size."""
    size = patch_size_of(first=first, second=second)
    (a, b), (matrix, offset) = first.matrix(), second.matrix()
    both = matrix @ a
    if first.permutation is None or second.permutation is None:
        return PatchCipher.from_affine(both, matrix @ b + offset, size, first.channels)
    return PatchCipher.from_entries(np.abs(both).argmax(1), both.sum(1) < 0, size, first.channels)


def _patches(images, size):
    """The patches of each position as images: a list of (N, C, p, p), along rows."""
    rows = images.unfold(2, size, size).unfold(3, size, size)
    return [rows[:, :, i, j] for i in range(rows.shape[2]) for j in range(rows.shape[3])]


def _all_covariances(images, size):
    """Of each patch with each other one: (positions, positions, n, n)."""
    blocks = to_blocks(to_values(images), size)
    _, positions, n = blocks.shape
    flat = (blocks - blocks.mean(0)).flatten(1)
    return (flat.T @ flat / len(flat)).view(positions, n, positions, n).transpose(1, 2).double().numpy()


def _others(observed, known, i):
    """The covariances of patch i with all other patches, beside one another: (n, (positions - 1) * n), of both."""
    return (np.delete(each[i], i, axis=0).swapaxes(0, 1).reshape(each.shape[-1], -1) for each in (observed, known))


def _closest(y, x, size, steps):
    """The cipher of shuffles and flips that takes the rows of x (n, m) to those of y best."""
    same, flipped = distances(y, x), distances(y, -x)
    return PatchCipher.from_entries(*assign(same, flipped, steps), size, len(x) // size**2)


def _per_value(weight, name, std, patch_size):
    """An embedding's weight (dim, n) on patches that are not normalised, float64."""
    std = checks.array(std, "std")
    if std.ndim != 1 or std.dtype.kind not in "fiu":
        raise TypeError(f"std must be numbers, one a channel, but this is {std.tolist()!r}.")
    n = len(std) * checks.whole(patch_size, "patch_size", 1) ** 2
    if not checks.tensor(weight, name).is_floating_point() or weight.ndim < 2 or weight.shape[1:].numel() != n:
        raise ValueError(
            f"{name} must be filters (dim, {n}), of patches of {patch_size} pixels in {len(std)} channels, as "
            f"patch_size and std say, but its shape is {tuple(weight.shape)}."
        )
    values = weight.detach().double().flatten(1).cpu().numpy()
    if not (np.isfinite(values).all() and values.any()):
        raise ValueError(f"{name} must be finite filters, one at least, and not all of them 0.")
    return values / np.repeat(checks.statistics((0,) * len(std), std, len(std))[1], patch_size**2)
