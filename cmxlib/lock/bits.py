"""Images and models of single bits: flips and shuffles of bits instead of values, a repair of the patch cipher.

The cipher itself is a PatchCipher of 8 C channels; its attacks are in `cmxlib.attacks.on_repairs`.
"""

from collections.abc import Sequence

import torch
from torch import nn

from . import checks
from .embedding import checked_copy, find_embedding, replaced

_PLACES = torch.arange(7, -1, -1, dtype=torch.uint8).view(-1, 1, 1)  # shifts, for (N, C, 8, H, W)


def to_bits(images: torch.Tensor) -> torch.Tensor:
    """uint8 (N, C, H, W) -> the bits of each value as floats 0 and 1 (N, 8 C, H, W), highest first.

    Flipping one bit of a value v is no affine map of v (only flipping all eight is: 255 - v), so no embedding of values
    can undo it. It is one of the bits, b -> 1 - b: an embedding of bits can.
    """
    checks.images(images, bytes_only=True)
    bits = images[:, :, None] >> _PLACES & 1
    return bits.flatten(1, 2).float()


def from_bits(bits: torch.Tensor) -> torch.Tensor:
    """The inverse of ``to_bits``; also shows encrypted bits as an image. ValueError where they are not 0 and 1."""
    if checks.images(bits, name="bits").shape[1] % 8:
        raise ValueError(f"bits must have 8 channels for each of the image's, but this has {bits.shape[1]}.")
    if not (torch.minimum(bits.abs(), (bits - 1).abs()) < 0.1).all():  # false for NaN too
        raise ValueError("bits must be 0 or 1, to rounding, as to_bits gives them, but there are others among these.")
    return (bits.round().to(torch.uint8).unflatten(1, (-1, 8)) << _PLACES).sum(2, dtype=torch.uint8)


def bit_model(model: nn.Module, *, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """A copy of ``model`` that takes ``to_bits(images)``, not normalised, and gives the same logits.

    Its embedding has 8 times the weights; encrypt it with a PatchCipher of 8 C channels, mean 0 and std 1.
    """
    widened, found = checked_copy(model, 3, find_embedding(model)[0])
    conv, weight = found.layer, found.layer.weight.detach().double()
    share = 2.0 ** _PLACES.to(weight) / 255  # of each bit in a value; broadcasts to (dim, C, 8, p, p)
    mu, sigma = (weight.new_tensor(v).view(1, -1, 1, 1) for v in checks.statistics(mean, std, 3))
    scaled = weight / sigma
    wide = nn.Conv2d(8 * conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride).to(conv.weight)
    with torch.no_grad():
        wide.weight.copy_((scaled[:, :, None] * share).flatten(1, 2))
        wide.bias.copy_((0 if conv.bias is None else conv.bias) - (scaled * mu).sum((1, 2, 3)))
    return replaced(widened, found, wide)
