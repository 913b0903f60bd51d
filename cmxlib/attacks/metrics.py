"""How alike two images are, as numbers: PSNR and SSIM.

Both compare pixels, not content: a low value is no proof that nothing can be recognised.
"""

from typing import Any

import numpy as np
import torch
from skimage.metrics import structural_similarity

from ..lock import checks


def psnr(a: Any, b: Any) -> np.ndarray:
    """Peak signal-to-noise ratio in dB, (N,): 10 log10(1 / mean squared difference); inf where images are equal.

    a, b: images (N, C, H, W), uint8 or float in [0, 1], as tensors or arrays.
    """
    a, b = _values(a, b)
    with np.errstate(divide="ignore"):
        return -10 * np.log10(((a - b) ** 2).mean((1, 2, 3)))


def ssim(a: Any, b: Any) -> np.ndarray:
    """Structural similarity, (N,): 1 for equal images, about 0 for unrelated ones (Wang et al., 2004).

    a, b: as for ``psnr``, at least 7 x 7 pixels: windows of that size are compared, and averaged over the channels.
    """
    a, b = _values(a, b)
    if min(a.shape[2:]) < 7:
        raise ValueError(f"Images must have 7 x 7 pixels at least, but these are {a.shape[2]} x {a.shape[3]}.")
    pairs = zip(a, b, strict=True)
    return np.array([structural_similarity(x, y, data_range=1.0, channel_axis=0) for x, y in pairs])


def _values(*batches):
    batches = [checks.array(batch, "images") for batch in batches]
    if batches[0].ndim != 4 or len({batch.shape for batch in batches}) > 1:
        shapes = " and ".join(str(batch.shape) for batch in batches)
        raise ValueError(f"Compare two batches of images of one shape (N, C, H, W), not {shapes}.")
    if 0 in batches[0].shape[1:]:
        raise ValueError(f"Images must have a pixel at least, but these are {batches[0].shape}.")
    if any(batch.dtype != np.uint8 and batch.dtype.kind != "f" for batch in batches):
        kinds = " and ".join(str(batch.dtype) for batch in batches)
        raise TypeError(f"Images must be uint8 (0 to 255) or floating (0 to 1), but these are {kinds}.")
    found = [batch / 255 if batch.dtype == np.uint8 else batch.astype(np.float64, order="C") for batch in batches]
    for batch in found:
        checks.values(torch.from_numpy(batch))
    return found
