"""An attack by higher-order statistics: independent components, where covariances leave an orthogonal cipher open.

    components = independent_components(public, 4)
    estimate = by_components(encrypted, components, ciphertext_only(encrypted, public, 4, ("orthogonal",)), 4)

Covariances tell a direction of a patch by its variance, and hardly tell two of nearly the same variance. Natural images
are far from normal, so their independent components (edges, above all) are told by their shape as well.
"""

import warnings

import numpy as np
import torch
from sklearn.decomposition import FastICA
from sklearn.exceptions import ConvergenceWarning

from ..lock import checks
from ..lock.patch import PatchCipher, to_blocks
from ..lock.pixels import to_values
from .matching import check_images, check_tell, polar

_PATCHES, _ROUNDS = 100_000, 100  # patches that are looked at, drawn at random; iterations


def independent_components(
    images: torch.Tensor, patch_size: int, start: np.ndarray | None = None, *, seed: int = 0
) -> np.ndarray:
    """The independent components of the patches of images (N, C, H, W): the rows of an orthogonal matrix (n, n).

    They are for patches that were whitened by the symmetric root of their covariance, so that an orthogonal cipher A
    takes components w to w A^T. Found by FastICA (Hyvärinen, IEEE Trans. Neural Networks 10(3), 1999) from ``start``,
    an orthogonal matrix, or from a random one; their order and signs stay those of ``start``.
    """
    check_images(images, patch_size, limits=checks.ENCRYPTED)
    check_tell(images=images)
    n = images.shape[1] * patch_size**2
    if start is not None and not _orthogonal(start, n):
        raise ValueError(f"start must be an orthogonal matrix ({n}, {n}), as components are.")
    rng = np.random.default_rng(checks.seed(seed))
    per_image = images.shape[2] * images.shape[3] // patch_size**2
    share = _PATCHES / (len(images) * per_image)  # of each image's patches, so that many images are seen
    patches = []
    for batch in images.split(1000):
        blocks = to_blocks(to_values(batch), patch_size).flatten(0, 1)
        patches.append(blocks[torch.from_numpy(rng.random(len(blocks)) < share)])
    x = torch.cat(patches).float().numpy()
    if len(x) <= n:
        raise ValueError(f"images must hold more than {n:,} patches, as many as a patch has entries: give more images.")
    values, axes = np.linalg.eigh(np.cov(x.T.astype(np.float64)))
    white = (x - x.mean(0)) @ ((axes / np.sqrt(np.maximum(values, values[-1] * 1e-9))) @ axes.T).astype(np.float32)
    if start is None:
        start = polar(rng.standard_normal((x.shape[1], x.shape[1])))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the last components of a patch never settle
        found = FastICA(whiten=False, w_init=start, max_iter=_ROUNDS, tol=1e-3).fit(white).components_
    return found * np.sign((found * start).sum(1, keepdims=True))  # each round changes the sign of a peaked component


def _orthogonal(value, n):
    found = checks.array(value, "components")
    return found.shape == (n, n) and found.dtype.kind == "f" and np.allclose(found @ found.T, np.eye(n), atol=1e-3)


def by_components(
    encrypted: torch.Tensor, components: np.ndarray, estimate: PatchCipher, patch_size: int, *, seed: int = 0
) -> PatchCipher:
    """Refine an estimate of an orthogonal cipher: from it the search for components starts, and so they pair up.

    encrypted: images (N, C, H, W). components: those of public images, from ``independent_components``.
    """
    checks.cipher(estimate, "matrix")
    n = check_images(encrypted, patch_size, "encrypted", checks.ENCRYPTED).shape[1] * patch_size**2
    if not _orthogonal(components, n) or (matrix := estimate.matrix(patch_size)[0]).shape != (n, n):
        raise ValueError("components and estimate must be of patches of encrypted, of patch_size and as many channels.")
    start = components @ matrix.T
    found = independent_components(encrypted, patch_size, start, seed=seed)
    matrix = polar(found.T @ components)
    return PatchCipher.from_affine(matrix, np.zeros(len(matrix)), patch_size, encrypted.shape[1])
