"""Encrypt a model: fold the inverse of a patch cipher into its patch embedding.

With the cipher x' = A x + b, normalisation D^-1 (x - mu) and the embedding W, c, the encrypted embedding is

    W' = W D^-1 A^-1 D        c' = c + W D^-1 (A^-1 (mu - b) - mu)

so that W' D^-1 (x' - mu) + c' = W D^-1 (x - mu) + c for every patch x: the encrypted model does with encrypted images
exactly what the plain one does with plain images, and its first layer is the only one that changes.
"""

import copy

import numpy as np
import torch
from torch import nn

from .patch import PatchCipher


def encrypt_model(model: nn.Module, cipher: PatchCipher, *, mean, std, embedding: str | None = None) -> nn.Module:
    """A copy of ``model`` whose patch embedding expects images that ``cipher`` encrypted.

    Args:
        model: any module whose patch embedding is a Conv2d with kernel = stride; it stays as it is.
        cipher: its block size must divide the kernel.
        mean, std: per channel, of values in [0, 1], as the images are normalised before the model sees them.
        embedding: the name of the patch embedding among ``model.named_modules()``, where it cannot be told.

    Raises ValueError where there is no such embedding, where several qualify, or where sizes do not fit.
    """
    return _fold(model, cipher, mean, std, embedding, undo=True)


def decrypt_model(model: nn.Module, cipher: PatchCipher, *, mean, std, embedding: str | None = None) -> nn.Module:
    """Undo ``encrypt_model``, to rounding; arguments as there.

    With the wrong cipher this gives a model that does with plain images what ``model`` does with images encrypted
    by that cipher: the quick way to try many keys, since no image needs to be encrypted.
    """
    return _fold(model, cipher, mean, std, embedding, undo=False)


def find_embedding(model: nn.Module, channels: int = 3, embedding: str | None = None) -> tuple[str, nn.Conv2d]:
    """The name and module of the patch embedding: the one Conv2d on ``channels`` channels with kernel = stride.

    Given a name, that module, if it is such a convolution. ValueError otherwise.
    """
    modules = dict(model.named_modules())
    if embedding is not None:
        if embedding not in modules:
            raise ValueError(f"The model has no module named {embedding!r}; see model.named_modules().")
        if not _embeds_patches(modules[embedding], channels):
            raise ValueError(
                f"{embedding!r} is no patch embedding: that is a Conv2d on {channels} channels with a square kernel "
                "equal to its stride, without padding, dilation or groups."
            )
        return embedding, modules[embedding]
    found = [name for name, module in modules.items() if _embeds_patches(module, channels)]
    if not found:
        raise ValueError(
            f"The model has no patch embedding: no Conv2d on {channels} channels with a square kernel equal to its "
            "stride and without padding. A cipher cannot be folded into it."
        )
    if len(found) > 1:
        raise ValueError(f"Several layers could be the patch embedding: {', '.join(found)}; name one with embedding=.")
    return found[0], modules[found[0]]


def _embeds_patches(module, channels):
    return (
        isinstance(module, nn.Conv2d)
        and module.in_channels == channels
        and module.kernel_size == module.stride == (module.kernel_size[0],) * 2
        and module.padding in ("valid", 0, (0, 0))
        and module.dilation == (1, 1)
        and module.groups == 1
    )


@torch.no_grad()
def _fold(model, cipher, mean, std, embedding, undo):
    name, conv = find_embedding(model, cipher.channels, embedding)
    size = conv.kernel_size[0]
    if size % cipher.block_size:
        raise ValueError(
            f"The cipher's blocks of {cipher.block_size} pixels do not divide the patches of {size} that {name!r} "
            "embeds: each patch is embedded by itself, so nothing that mixes patches can be undone."
        )
    mu, sigma = (_per_entry(values, word, cipher.channels, size) for values, word in ((mean, "mean"), (std, "std")))
    if not (sigma > 0).all():
        raise ValueError("Every std must be above 0.")
    matrix, offset = cipher.matrix(size)
    if undo:  # from here on, the embedding's patches are put through z -> matrix z + offset first
        matrix = np.linalg.inv(matrix)
        offset = -matrix @ offset

    weight = conv.weight.double().cpu().flatten(1).numpy() / sigma
    bias = np.zeros(len(weight)) if conv.bias is None else conv.bias.double().cpu().numpy()
    bias = bias + weight @ (matrix @ mu + offset - mu)
    weight = (weight @ matrix) * sigma

    folded = copy.deepcopy(model)
    conv = folded.get_submodule(name)
    conv.weight.copy_(torch.from_numpy(weight).view_as(conv.weight))
    bias = torch.from_numpy(bias).to(conv.weight)
    if conv.bias is None:  # the mean and the flips need a bias, also where the plain model had none
        conv.bias = nn.Parameter(bias)
    else:
        conv.bias.copy_(bias)
    return folded


def _per_entry(values, word, channels, size):
    values = np.asarray(values, np.float64)
    if values.shape != (channels,):
        raise ValueError(f"{word} must hold {channels} numbers, one per channel, but its shape is {values.shape}.")
    return np.repeat(values, size * size)
