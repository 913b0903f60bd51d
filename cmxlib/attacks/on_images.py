"""Recover the key of a patch cipher from images alone: the attacks of classical cryptanalysis.

    estimate = ciphertext_only(encrypted, public)        # other people's images are enough
    estimate = known_plaintext(encrypted, plain)         # some images together with their encryption
    estimate = chosen_plaintext(cipher.encrypt)          # one image of our own, encrypted for us
    estimate.decrypt(encrypted)                          # each estimate is a PatchCipher without a key
    share_recovered(estimate, cipher)                    # 1 where the whole map was found

A patch cipher is one affine map x' = A x + b for every patch of every image, so any average over patches shows A. What
the attacks use is that a covariance M of plain patches becomes A M A^T, within a patch and between neighbours.
"""

from collections.abc import Callable

import numpy as np
import torch

from ..lock import checks
from ..lock.patch import PatchCipher, n_entries, to_blocks
from ..lock.pixels import to_values
from .matching import (
    assign,
    check_images,
    check_matched,
    check_steps,
    check_tell,
    distances,
    leading,
    match_moments,
    polar,
)

# How much a neighbour's covariance counts beside that within the patch, to its right and below it. Different numbers,
# for natural images look nearly alike when mirrored or transposed, and the two directions must not be exchanged.
_RIGHT, _BELOW = 0.5, 0.25


def patch_moments(images: torch.Tensor, patch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean (n,) and covariances (3, n, n) of the patches of images (N, C, H, W), uint8 or float in [0, 1].

    The covariances are of a patch with itself, with the one to its right, and with the one below it, n = C p p; those
    between neighbours are 0 where an image is a single row or column of patches.
    """
    scale = 255 if check_images(images, patch_size, limits=checks.ENCRYPTED).dtype == torch.uint8 else 1
    average = images.sum(0, keepdim=True, dtype=torch.float64) / (len(images) * scale)
    mean = to_blocks(average, patch_size)[0].mean(0)
    rows, columns = images.shape[2] // patch_size, images.shape[3] // patch_size
    sums = torch.zeros(3, len(mean), len(mean), dtype=torch.float64)
    for batch in images.split(1000):
        patches = to_blocks(batch.float() / scale, patch_size) - mean.float()
        grid = patches.unflatten(1, (rows, columns))
        pairs = (grid, grid), (grid[:, :, :-1], grid[:, :, 1:]), (grid[:, :-1], grid[:, 1:])
        for total, (first, second) in zip(sums, pairs, strict=True):
            per_image = max(first[0, ..., 0].numel(), 1)
            total += first.flatten(0, 2).T @ second.flatten(0, 2) * (rows * columns / per_image)
    return mean.numpy(), (sums / (len(images) * rows * columns)).numpy()


def ciphertext_only(
    encrypted: torch.Tensor,
    public: torch.Tensor | tuple[np.ndarray, np.ndarray],
    patch_size: int = 4,
    steps: tuple[str, ...] = ("shuffle", "flip"),
    *,
    neighbours: bool = True,
    restarts: int = 10,
    seed: int = 0,
) -> PatchCipher:
    """Estimate the cipher from encrypted images and from unrelated plain images of the same kind.

    Args:
        encrypted, public: images (N, C, H, W) and (M, C, H, W), uint8 or float; none of them need to belong together.
            Instead of public images, what ``patch_moments`` makes of them will do.
        steps: what the cipher does, as for PatchCipher: shuffles and flips, or ("orthogonal",).
        neighbours: use the covariances between neighbouring patches too; without them, mirrored and transposed
            solutions are hard to tell from the true one.
        restarts: starting points of the search.

    Shuffles are a quadratic assignment between the covariances, solved by the FAQ algorithm (Vogelstein et al., PLOS
    ONE 10(4), 2015) of scipy. Flips change signs only, so absolute values come first, then the signs that agree best
    (a leading eigenvector), then the sign of the whole from the means. An orthogonal map has to take principal axes to
    principal axes, which leaves their signs; these come from the covariances between neighbours, as does a last
    refinement by alternating orthogonal Procrustes problems.
    """
    check_steps(steps)
    checks.truth(neighbours, "neighbours")
    restarts = checks.whole(restarts, "restarts", 1)
    rng = np.random.default_rng(checks.seed(seed))
    check_matched(check_images(encrypted, patch_size, limits=checks.ENCRYPTED).shape[1] * patch_size**2)
    encrypted_mean, encrypted_moments = patch_moments(encrypted, patch_size)
    if not isinstance(public, tuple):
        public = patch_moments(check_images(public, patch_size, "public"), patch_size)
    public_mean, public_moments = _checked_moments(public, encrypted_moments.shape)
    seen = encrypted_moments.any((1, 2)) & public_moments.any((1, 2))
    if not (seen if neighbours or tuple(steps) == ("orthogonal",) else seen[:1]).all():
        raise ValueError(
            "The images have no neighbouring patches, or all patches are alike: give larger images, of more than one "
            "colour, or neighbours=False."
        )
    channels = encrypted.shape[1]
    if tuple(steps) == ("orthogonal",):
        rotation = _match_axes(encrypted_moments, public_moments, rng, restarts)
        rotation *= 1 if encrypted_mean @ rotation @ public_mean > 0 else -1
        return PatchCipher.from_affine(rotation, np.zeros(len(rotation)), patch_size, channels)

    weights = np.array([1, _RIGHT, _BELOW] if neighbours else [1, 0, 0])
    target, source = (np.tensordot(weights, moments, 1) for moments in (encrypted_moments, public_moments))
    permutation, signs = match_moments(target, source, steps, rng, restarts)
    if "flip" in steps:
        # What is left is whether all entries are flipped: real images are not as bright as their negatives are dark.
        signs *= 1 if (signs * (encrypted_mean - 0.5)) @ (public_mean[permutation] - 0.5) >= 0 else -1
    return PatchCipher.from_entries(permutation, signs < 0, patch_size, channels)


def _checked_moments(public, shape):
    """What ``patch_moments`` made of public images, when covariances have the ``shape`` of those that are seen."""
    wanted = [shape[1:2], shape]
    found = [checks.array(each, "public") for each in public]
    real = all(each.dtype.kind in "fiu" and np.isfinite(each).all() for each in found)
    if [each.shape for each in found] != wanted or not real:
        raise ValueError(
            "Encrypted and public images must have as many channels, and moments of public images be what "
            f"patch_moments makes of them: finite arrays of the shapes {wanted[0]} and {wanted[1]}."
        )
    return found


def known_plaintext(
    encrypted: torch.Tensor, plain: torch.Tensor, patch_size: int = 4, steps: tuple[str, ...] = ("shuffle", "flip")
) -> PatchCipher:
    """Estimate the cipher from encrypted images (N, C, H, W) and the same images as they were.

    Shuffles and flips: each encrypted entry, as a vector over all patches, is compared with each plain entry and its
    negative, and a linear assignment takes the closest. Orthogonal: least squares over all patches, among orthogonal
    matrices (the Procrustes problem, Schönemann 1966), so that n patches in general position are enough.
    """
    check_pairs(encrypted, plain, patch_size, steps)
    return fitted(encrypted, plain, patch_size, steps)


def check_pairs(encrypted: torch.Tensor, plain: torch.Tensor, patch_size: int, steps: tuple[str, ...]) -> None:
    """An error unless these are images and their encryption, not of one value each, and steps that attacks know."""
    check_steps(steps)
    check_images(plain, patch_size, "plain")
    check_images(encrypted, patch_size, "encrypted", checks.ENCRYPTED)
    if plain.shape != encrypted.shape:
        raise ValueError(f"Images and encrypted images must pair up, not {plain.shape} with {encrypted.shape}.")
    check_tell(encrypted=encrypted, plain=plain)


def fitted(encrypted: torch.Tensor, plain: torch.Tensor, patch_size: int, steps: tuple[str, ...]) -> PatchCipher:
    """What ``known_plaintext`` finds, with arguments as there; from images of one value, some cipher."""
    x, y = (_entries(images, patch_size) for images in (plain, encrypted))  # (n, number of patches)
    channels = plain.shape[1]
    if tuple(steps) == ("orthogonal",):
        return PatchCipher.from_affine(polar(y @ x.T), np.zeros(len(x)), patch_size, channels)
    same, flipped = (distances(y, values) for values in (x, 1 - x))
    return PatchCipher.from_entries(*assign(same, flipped, steps), patch_size, channels)


def chosen_plaintext(
    encrypt: Callable[[torch.Tensor], torch.Tensor],
    patch_size: int = 4,
    channels: int = 3,
    steps: tuple[str, ...] = ("shuffle", "flip"),
) -> PatchCipher:
    """Estimate the cipher from one image of our choice: ``encrypt`` is called once, with ``chosen_image``."""
    if not callable(encrypt):
        raise TypeError(f"encrypt must be a function, such as cipher.encrypt, but this is {type(encrypt).__name__}.")
    image = chosen_image(patch_size, channels, steps)
    return known_plaintext(encrypt(image), image, patch_size, steps)


def chosen_image(patch_size: int = 4, channels: int = 3, steps: tuple[str, ...] = ("shuffle", "flip")) -> torch.Tensor:
    """One square image (1, C, S, S), as small as it can be, whose encryption shows the whole cipher.

    Shuffles and flips: each entry has a code of its own, its number written in digits 0 .. 126, one digit a patch, so
    that no code is the negative of another (uint8). Orthogonal: patch i is the unit vector i, whose encryption is
    column i of the matrix (float32).
    """
    check_steps(steps)
    n = n_entries("A patch", checks.whole(patch_size, "patch_size", 1), checks.whole(channels, "channels", 1))
    if tuple(steps) == ("orthogonal",):
        patches = torch.eye(n)
    else:
        digits = next(digits for digits in (1, 2, 3) if n <= 127**digits)
        patches = torch.stack([torch.arange(n) // 127**place % 127 for place in range(digits)]).to(torch.uint8)
    side = int(np.ceil(np.sqrt(len(patches))))
    patches = torch.cat([patches, patches[:1].repeat(side**2 - len(patches), 1)])  # the square's last places repeat one
    grid = patches.view(side, side, channels, patch_size, patch_size).permute(2, 0, 3, 1, 4)
    return grid.reshape(1, channels, side * patch_size, side * patch_size)


# -- the searches ------------------------------------------------------------------------------------------------


def _match_axes(target, source, rng, restarts):
    """The orthogonal Q for which Q source Q^T is closest to target, over all three covariances, as far as is found."""
    target_axes, source_axes = (_whitening_axes(moments[0]) for moments in (target, source))
    # In principal axes of unit variance the first covariance is the identity, and the others have to give the rest.
    a = target_axes.T @ target[1:] @ target_axes
    b = source_axes.T @ source[1:] @ source_axes
    agreement = (a * b).sum(0)
    agreement = agreement + agreement.T
    np.fill_diagonal(agreement, 0)
    starts = [np.sign(leading(agreement)), *rng.choice([-1.0, 1.0], (20 * restarts, len(agreement)))]
    signs = max((_flip_while_better(start, agreement) for start in starts), key=lambda s: s @ agreement @ s)
    rotation = np.diag(signs)
    for _ in range(300):
        previous = rotation
        rotation = polar((a @ rotation @ b.swapaxes(1, 2) + a.swapaxes(1, 2) @ rotation @ b).sum(0))
        if np.abs(rotation - previous).max() < 1e-5:
            break
    target_axes, source_axes = (axes / np.linalg.norm(axes, axis=0) for axes in (target_axes, source_axes))
    return target_axes @ rotation @ source_axes.T


def _flip_while_better(signs, agreement):
    """Change one sign at a time while that increases signs @ agreement @ signs."""
    signs = signs.copy()
    while (gain := -signs * (agreement @ signs)).max() > 1e-9:
        signs[gain.argmax()] *= -1
    return signs


def _whitening_axes(covariance):
    values, axes = np.linalg.eigh(covariance)
    return axes / np.sqrt(np.maximum(values, values[-1] * 1e-9))


def _entries(images, patch_size):
    return to_blocks(to_values(images, torch.float64), patch_size).flatten(0, 1).T.numpy()
