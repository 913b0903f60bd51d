"""Images as bytes and as values: uint8 v is the value v / 255, and back."""

import torch

from . import checks


def to_values(images: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
    """uint8 images as values in [0, 1], float32 unless a dtype is given; floating images as they are, or in it."""
    if checks.images(images, ndim=(3, 4)).dtype == torch.uint8:
        return images.to(dtype or torch.float32) / 255
    return images if dtype is None else images.to(dtype)


def to_bytes(images: torch.Tensor) -> torch.Tensor:
    """Images as a file holds them and a screen shows them: values cut to [0, 1] and rounded to uint8; bytes as they
    are. Within 8 / 255 of byte images they stay so."""
    whole = checks.images(images, ndim=(3, 4)).dtype == torch.uint8
    return images if whole else (images.clamp(0, 1) * 255).round().to(torch.uint8)
