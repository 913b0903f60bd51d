"""Mean and standard deviation that a model's images are normalised by, where its library says them."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch

from . import checks


def statistics_of(source: Any) -> dict[str, tuple[float, ...]]:
    """``mean`` and ``std`` a channel, of values in [0, 1], as functions take them: ``**statistics_of(model)``.

    source: a model of timm (its ``pretrained_cfg``) or of open_clip (``image_mean``), weights or a preset of
        torchvision (``ResNet50_Weights.DEFAULT``), or an image processor of transformers. They are those of the
        weights that the source names, so a model that was trained with others has to be told them.

    ValueError where the source says none.
    """
    if callable(transforms := getattr(source, "transforms", None)):
        with suppress(TypeError):  # those of a data set want an image
            source = transforms()
    for holder in (source, getattr(source, "pretrained_cfg", None), getattr(source, "visual", None)):
        for words in (("mean", "std"), ("image_mean", "image_std")):
            mean, std = (holder.get(w) if isinstance(holder, dict) else getattr(holder, w, None) for w in words)
            if isinstance(mean, (tuple, list)) and isinstance(std, (tuple, list)):
                arrays = checks.statistics(mean, std, len(mean))
                return {name: tuple(array.tolist()) for name, array in zip(("mean", "std"), arrays, strict=True)}
    raise ValueError(
        f"{type(source).__name__} does not say by which mean and std its images are normalised: give mean= and std=."
    )


def statistics_or(source: Any, mean: Sequence[float] | None, std: Sequence[float] | None) -> dict[str, Any]:
    """``mean`` and ``std`` as given; where neither is, those of ``source``."""
    if (mean is None) != (std is None):
        raise ValueError("mean and std belong together: give both, or neither where the model says them.")
    return statistics_of(source) if mean is None else {"mean": mean, "std": std}


def normalised(images: torch.Tensor, mean: Sequence[float], std: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    """(v - mean) / std for images (N, C, H, W), computed in float64, in the type and on the device of ``like``."""
    mu, sigma = (
        torch.from_numpy(v).view(-1, 1, 1) for v in checks.statistics(mean, std, checks.images(images).shape[1])
    )
    values = images.cpu().double() / (255 if images.dtype == torch.uint8 else 1)
    return ((values - mu) / sigma).to(like.device, like.dtype)
