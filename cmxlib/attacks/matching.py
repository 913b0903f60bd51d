"""What the attacks share: matching what is seen with what is known, and the measure of how much of a key was found."""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment, quadratic_assignment

from ..lock import checks
from ..lock.patch import PatchCipher

LARGEST_MATCHED = 1024  # entries of a patch, or patches of an image: a search takes time by their third power
STEPS = (("shuffle",), ("flip",), ("shuffle", "flip"), ("flip", "shuffle"), ("orthogonal",))  # that attacks know


def check_steps(steps: tuple[str, ...], orthogonal: bool = True) -> tuple[str, ...]:
    """``steps``, when they are those of a cipher that an attack knows; TypeError or ValueError otherwise."""
    found = checks.steps(steps, ("shuffle", "flip", "orthogonal"))
    if found not in STEPS[: 5 if orthogonal else 4]:
        alone = ', both, or ("orthogonal",) alone' if orthogonal else " or both, which this attack knows"
        raise ValueError(f'steps must be "shuffle", "flip"{alone}, not {found}.')
    return found


def check_images(
    images: torch.Tensor, patch_size: int, name: str = "images", limits: tuple[float, float] = (0, 1)
) -> torch.Tensor:
    """``images`` (N, C, H, W), when there are some, patches of this size fill them, no gradient is asked of them and
    floats lie in ``limits``; an error otherwise."""
    size = checks.whole(patch_size, "patch_size", 1)
    height, width = checks.images(images, name=name).shape[2:]
    if not images.numel() or height % size or width % size:
        raise ValueError(
            f"{name} must hold at least one image that patches of {size} fill, but this is {tuple(images.shape)}."
        )
    if images.requires_grad:
        raise ValueError(f"{name} must not ask for gradients, which this attack has no use for: use {name}.detach().")
    return checks.values(images, name, limits)


def check_tell(**batches: torch.Tensor) -> None:
    """ValueError where all values of images are one: they tell nothing of a key."""
    for name, images in batches.items():
        if images.min() == images.max():
            raise ValueError(
                f"{name} must hold more than one value, for one tells nothing of the key: give other images."
            )


def check_alike(encrypted: torch.Tensor, public: torch.Tensor, patch_size: int) -> int:
    """The number of patches of an image; an error unless both are images of one shape that tell something."""
    check_images(public, patch_size, "public")
    shape = check_images(encrypted, patch_size, "encrypted", checks.ENCRYPTED).shape[1:]
    if public.shape[1:] != shape:
        raise ValueError(
            f"Encrypted and public images must have one shape, not {tuple(encrypted.shape)} and {tuple(public.shape)}."
        )
    check_tell(encrypted=encrypted, public=public)
    return shape[1] * shape[2] // patch_size**2


def check_matched(n: int) -> None:
    """ValueError where two matrices of so many rows would be matched for hours."""
    if n > LARGEST_MATCHED:
        raise ValueError(
            f"{n:,} entries, over {LARGEST_MATCHED:,}, would be matched for hours: choose smaller patches or images."
        )


def check_labelled(images: torch.Tensor, labels: torch.Tensor, limits: tuple[float, float] = (0, 1)) -> torch.Tensor:
    """``labels`` as int64; an error unless there are images (N, C, H, W), floats within ``limits``, and as many labels
    (N,), from 0 up."""
    labels = checks.labels(labels, len(checks.values(checks.images(images), limits=limits)))
    if not len(labels) or labels.min() < 0:
        raise ValueError("labels must be classes from 0 up, one for each of at least one image.")
    return labels


def assign(same: np.ndarray, flipped: np.ndarray, steps: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The shuffle and flips (n,), (n,) of least cost: a linear assignment where ``steps`` has "shuffle".

    same, flipped: (n, n), the cost of taking encrypted entry i for plain entry j as it is, and flipped.
    """
    cost = np.minimum(same, flipped) if "flip" in steps else same
    permutation = linear_sum_assignment(cost)[1] if "shuffle" in steps else np.arange(len(cost))
    entries = np.arange(len(cost)), permutation
    return permutation, flipped[entries] < same[entries] if "flip" in steps else np.zeros(len(cost), bool)


def match_moments(
    target: np.ndarray, source: np.ndarray, steps: tuple[str, ...], rng: np.random.Generator, restarts: int
) -> tuple[np.ndarray, np.ndarray]:
    """The shuffle and signs (n,), (n,) that take one matrix of second moments (n, n) to the other, up to all signs.

    A quadratic assignment, solved by the FAQ algorithm of scipy from ``restarts`` starting points. Flips change signs
    only, so absolute values are matched first; then come the signs that agree best, a leading eigenvector.
    """
    restarts = checks.whole(restarts, "restarts", 1)
    check_matched(len(target))
    permutation, signs = np.arange(len(target)), np.ones(len(target))
    if "shuffle" in steps:
        size, found = np.abs if "flip" in steps else np.array, []
        for start in range(restarts):
            options = {"maximize": True, "P0": "randomized" if start else "barycenter", "rng": rng}
            found.append(quadratic_assignment(size(target), size(source), options=options))
        permutation = max(found, key=lambda result: result.fun).col_ind
    if "flip" in steps:
        signs = np.sign(leading(target * source[np.ix_(permutation, permutation)]))
    return permutation, signs


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean squared difference of each row of a (n, m) from each row of b (n, m): (n, n)."""
    return np.square(a).mean(1)[:, None] + np.square(b).mean(1) - 2 * a @ b.T / a.shape[1]


def leading(matrix: np.ndarray) -> np.ndarray:
    """The leading eigenvector (n,) of a matrix (n, n), made symmetric."""
    return np.linalg.eigh(matrix + matrix.T)[1][:, -1]


def polar(matrix: np.ndarray) -> np.ndarray:
    """The orthogonal matrix that is closest to a matrix."""
    u, _, v = np.linalg.svd(matrix)
    return u @ v


def patch_size_of(**ciphers: PatchCipher) -> int:
    """The patch size that ciphers have in common; TypeError or ValueError where they are none, or have none."""
    for name, value in ciphers.items():
        if not (hasattr(value, "matrix") and hasattr(value, "block_size")):
            raise TypeError(f"{name} must be a PatchCipher, but this is {type(value).__name__}.")
    found = {(getattr(each, "patch_size", each.block_size), getattr(each, "channels", 3)) for each in ciphers.values()}
    if len(found) > 1:
        sizes = " and ".join(f"{size} pixels in {channels} channels" for size, channels in sorted(found))
        raise ValueError(
            f"{' and '.join(ciphers)} must be of one patch size and number of channels, not of {sizes}: give both the "
            "same patch_size; blocks within it may be smaller."
        )
    return found.pop()[0]


def share_recovered(estimate: PatchCipher, cipher: PatchCipher) -> float:
    """How much of the map was found, from 0 to 1: the share of each entry that decryption puts back in its place.

    With T = (estimated A)^-1 A, what encryption and then decryption with the estimate make of a patch, it is the mean
    over entries i of max(T_ii, 0)^2 / sum_j T_ij^2. For shuffles and flips: the share of entries whose position and
    sign are both right. For orthogonal maps: the share of energy that comes back to its entry; about 1 / 2n by chance.
    ValueError where they are not of one patch size and number of channels.
    """
    size = patch_size_of(estimate=estimate, cipher=cipher)
    through = np.linalg.solve(estimate.matrix(size)[0], cipher.matrix(size)[0])
    return float(np.mean(np.maximum(np.diag(through), 0) ** 2 / np.square(through).sum(1)))
