"""Nearly right keys: ciphers that agree with a given one in part, or that all agree in part with one another."""

from collections.abc import Callable

import numpy as np

from . import checks
from .keys import SecretKey, check_key
from .patch import PatchCipher, n_entries


def damaged(cipher: PatchCipher, positions: int, signs: int, rng: np.random.Generator) -> PatchCipher:
    """A nearly right shuffle-and-flip cipher: so many entries exchanged in a ring, so many flips the other way.

    ``positions`` is 0 or at least 2, since one entry alone cannot be in the wrong place. ``rng`` is a numpy Generator.
    """
    _check_entries(cipher)
    _check_rng(rng)
    positions, signs = checks.whole(positions, "positions", 0, cipher.n), checks.whole(signs, "signs", 0, cipher.n)
    if positions == 1:
        raise ValueError("One entry alone cannot be in the wrong place: choose 0 or at least 2 positions.")
    permutation, flipped = cipher.permutation.copy(), cipher.flipped.copy()
    ring = rng.choice(cipher.n, positions, replace=False)
    permutation[ring] = permutation[np.roll(ring, 1)]
    flipped[rng.choice(cipher.n, signs, replace=False)] ^= True
    return PatchCipher.from_entries(permutation, flipped, cipher.block_size, cipher.channels)


def scrambled_in_part(cipher: PatchCipher, kind: str, rng: np.random.Generator) -> PatchCipher:
    """The cipher followed by a further shuffle of the plain entries that leaves something in place.

    kind: "pixels" moves whole pixels, their channels together; "within channels" shuffles each channel by itself, so
    that a patch keeps the mean of each colour; "all" shuffles all entries, so that a patch keeps its overall mean.
    """
    n, pixels = _check_entries(cipher).n, cipher.block_size**2
    _check_rng(rng)
    if not isinstance(kind, str) or kind not in ("pixels", "within channels", "all"):
        raise ValueError(f'kind must be "pixels", "within channels" or "all", but it is {checks.shown(kind)}.')
    if kind == "pixels":
        order = np.arange(n).reshape(-1, pixels)[:, rng.permutation(pixels)].ravel()
    elif kind == "within channels":
        order = rng.permuted(np.arange(n).reshape(-1, pixels), axis=1).ravel()
    else:
        order = rng.permutation(n)
    return PatchCipher.from_entries(order[cipher.permutation], cipher.flipped, cipher.block_size, cipher.channels)


TURNS: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # what becomes of a patch (C, p, p)
    "mirrored left to right": lambda patch: patch[:, :, ::-1],
    "mirrored top to bottom": lambda patch: patch[:, ::-1],
    "half turn": lambda patch: patch[:, ::-1, ::-1],
    "transposed": lambda patch: patch.transpose(0, 2, 1),
    "red and blue exchanged": lambda patch: patch[::-1],
}


def turned(cipher: PatchCipher, turn: str) -> PatchCipher:
    """The cipher after one of ``TURNS`` of each plain patch: wrong in most entries or all, and yet not at random."""
    _check_entries(cipher)
    if not isinstance(turn, str) or turn not in TURNS:
        raise ValueError(f"turn must be one of {', '.join(TURNS)}, but it is {checks.shown(turn)}.")
    order = TURNS[turn](np.arange(cipher.n).reshape(cipher.channels, cipher.block_size, cipher.block_size)).ravel()
    return PatchCipher.from_entries(order[cipher.permutation], cipher.flipped, cipher.block_size, cipher.channels)


def restricted(key: SecretKey, patch_size: int, in_place: int, channels: int = 3) -> PatchCipher:
    """The shuffle of a key in which at least ``in_place`` entries of a patch, chosen by the key, stay where they are.

    The idea of restricted random permutations (arXiv 2408.08529), here for the entries of a patch.
    """
    check_key(key)
    n = n_entries("A patch", checks.whole(patch_size, "patch_size", 1), checks.whole(channels, "channels", 1))
    in_place = checks.whole(in_place, "in_place", 0, n)
    moved = key.permutation(n, purpose="restricted places")[in_place:]
    permutation = np.arange(n)
    permutation[moved] = moved[key.permutation(len(moved), purpose="restricted shuffle")]
    return PatchCipher.from_entries(permutation, np.zeros(n, bool), patch_size, channels)


def partway(start: PatchCipher, end: PatchCipher, count: int) -> PatchCipher:
    """The cipher that has the first ``count`` entries of ``end``, and otherwise as much of ``start`` as can be."""
    sizes = [(each.block_size, each.channels) for each in map(_check_entries, (start, end))]
    if sizes[0] != sizes[1]:
        blocks = " and ".join(f"{size} pixels in {channels} channels" for size, channels in sizes)
        raise ValueError(f"Both ciphers must have blocks of one size, but theirs are of {blocks}.")
    count = checks.whole(count, "count", 0, end.n)
    permutation, flipped = start.permutation.copy(), start.flipped.copy()
    for i in range(count):
        j = np.flatnonzero(permutation == end.permutation[i])[0]
        permutation[[i, j]] = permutation[[j, i]]
    flipped[:count] = end.flipped[:count]
    return PatchCipher.from_entries(permutation, flipped, start.block_size, start.channels)


def _check_rng(rng):
    if not isinstance(rng, np.random.Generator):
        raise TypeError(
            f"rng must be a numpy Generator, but this is {checks.shown(rng)}: use numpy.random.default_rng(seed)."
        )


def _check_entries(cipher):
    """``cipher``, when it is a PatchCipher of shuffles and flips, which has entries to exchange."""
    if not isinstance(cipher, PatchCipher) or cipher.permutation is None:
        raise TypeError(f"cipher must be a PatchCipher of shuffles and flips, but this is {checks.shown(cipher)}.")
    return cipher
