"""Encrypt a model: fold the inverse of a patch cipher into its patch embedding.

With the cipher x' = A x + b, normalisation D^-1 (x - mu) and the embedding W, c, the encrypted embedding is

    W' = W D^-1 A^-1 D        c' = c + W D^-1 (A^-1 (mu - b) - mu)

so that W' D^-1 (x' - mu) + c' = W D^-1 (x - mu) + c for every patch x: the encrypted model does with encrypted images
exactly what the plain one does with plain images, and its first layer is the only one that changes.
"""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from . import checks
from .embedding import checked_copy, find_embedding
from .norm import statistics_or
from .patch import PatchCipher, check_affine, only_entries
from .tokens import check_same, fold_tokens

__all__ = ["decrypt_model", "encrypt_model", "find_embedding"]


def encrypt_model(
    model: nn.Module,
    cipher: PatchCipher,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    embedding: str | None = None,
) -> nn.Module:
    """A copy of ``model`` whose patch embedding expects images that ``cipher`` encrypted.

    Args:
        model: any module that takes images (N, C, H, W), whose patch embedding is a Conv2d with kernel = stride or a
            Linear on flat patches (with a LayerNorm over the patch before it, for shuffles); it stays as it is.
        cipher: its block size must divide the patches. Any object with ``encrypt``, ``decrypt`` and
            ``matrix(patch_size)`` will do; ``channels`` is 3 unless it says otherwise. Where it has ``places`` and an
            ``image_size``, as BlockCipher, the position embeddings of the patches change places too.
        mean, std: per channel, of values in [0, 1], as the images are normalised before the model sees them. Without
            them, those that the model says itself: see ``statistics_of``.
        embedding: the name of the patch embedding among ``model.named_modules()``, where it cannot be told.

    "Exactly" means: in exact arithmetic. The fold is computed in float64 and rounded once to the type of the layer. Of
    2,000 predictions of the quick model, with 5 keys for each of shuffle, flip, both and orthogonal, float64 and
    float32 changed none (logits agree to 6e-16 and 9e-7 of their scale; orthogonal images are float32 where they were
    bytes), float16 0 or 1 (3e-3) and bfloat16 2 to 9 (2e-2), which is up to three times what the type itself costs:
    bfloat16 alone changed 3 (1e-2). Where every prediction counts, leave the embedding in float32, and let the model's
    forward cast what it gives.

    Nothing in a model tells that it is encrypted already: encrypted once more, it expects images that both ciphers
    encrypted, in that order. A weight that is shared with another layer is no longer shared in the copy. Where the
    embedding has no bias, as CLIP's, the offset c' - c goes into the position embeddings of the patches, so that no
    parameter is added. Raises ValueError, with the reason, where there is no such embedding, where several qualify,
    where sizes do not fit, where the weight is computed from other parameters, where there is neither a bias nor a
    position embedding, and where a run on a probe image shows that the embedding does not see the image as it is,
    that another layer sees it too or that the weight is used elsewhere too; warns where no probe can be run. The run is
    one in evaluation mode, on images that patches fill: what a model does otherwise in training, with what it kept of
    the images before, or to fill up images of other sizes, cannot be told from it.
    """
    return _fold(model, cipher, mean, std, embedding, undo=True)


def decrypt_model(
    model: nn.Module,
    cipher: PatchCipher,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    embedding: str | None = None,
) -> nn.Module:
    """Undo ``encrypt_model``, to rounding; arguments as there.

    With the wrong cipher this gives a model that does with plain images what ``model`` does with images encrypted
    by that cipher: the quick way to try many keys, since no image needs to be encrypted.
    """
    return _fold(model, cipher, mean, std, embedding, undo=False)


@torch.no_grad()
def _fold(model, cipher, mean, std, embedding, undo):
    checks.cipher(cipher, "encrypt", "decrypt", "matrix")
    channels = checks.whole(getattr(cipher, "channels", 3), "cipher.channels", 1)
    folded, found = checked_copy(model, channels, embedding)
    layer = found.layer
    size, block = found.size, checks.whole(getattr(cipher, "block_size", 1), "cipher.block_size", 1)
    if size % block:
        raise ValueError(
            f"The cipher's blocks of {block} pixels do not divide the patches of {size} that {found.name!r} "
            "embeds: each patch is embedded by itself, so nothing that mixes patches can be undone."
        )
    norm = statistics_or(model, mean, std)
    mu, sigma = (np.repeat(values, size * size) for values in checks.statistics(**norm, channels=channels))
    affine = cipher.matrix(size)
    if not isinstance(affine, (tuple, list)) or len(affine) != 2:
        raise TypeError(f"cipher.matrix must give a matrix and an offset, but it gave {type(affine).__name__}.")
    matrix, offset = affine
    if not isinstance(cipher, PatchCipher):  # which was checked when it was made
        matrix, offset = check_affine(matrix, offset, len(mu))
    if undo:  # from here on, the embedding's patches are put through z -> matrix z + offset first
        matrix = _inverse(matrix)
        offset = -matrix @ offset
    # The same of normalised patches, in the layer's order of entries.
    order = found.order
    shift = ((matrix @ mu + offset - mu) / sigma)[order]
    matrix = (matrix * sigma / sigma[:, None])[np.ix_(order, order)]

    if found.norm:
        _fold_norm(folded.get_submodule(found.norm), found.norm, matrix, shift)
    weight = layer.weight.double().cpu().flatten(1).numpy()
    change = weight @ shift
    # New parameters, for the old ones may be another layer's, too.
    layer.weight = _like(torch.from_numpy(_times(weight, matrix)).view_as(layer.weight), layer.weight)
    offset = np.abs(change).max() > 1e-12
    if layer.bias is not None or (offset and not found.name):  # a layer by itself may be given one
        bias = torch.zeros(len(change), dtype=torch.float64) if layer.bias is None else layer.bias.double().cpu()
        layer.bias = _like(bias + torch.from_numpy(change), layer.weight if layer.bias is None else layer.bias)
        change, offset = np.zeros_like(change), False
    _check_used(layer, found)
    places = getattr(cipher, "places", None)
    if places is not None or offset:
        seen = found.image_size
        if places is not None:
            seen = checks.sides(getattr(cipher, "image_size", None), "cipher.image_size")
            places = checks.places(places, (seen[0] // size) * (seen[1] // size), "cipher.places")
        fold_tokens(folded, found, seen, change, places if undo or places is None else np.argsort(places))
        if layer.weight.dtype.itemsize < 4:  # there rounding would hide what is wrong
            _fold(copy.deepcopy(model).float(), cipher, mean, std, found.name, undo)
        else:
            check_same(model, folded, cipher, seen, **norm, undo=undo)
    return folded


def _inverse(matrix):
    if (found := only_entries(matrix)) is None:
        return np.linalg.inv(matrix)
    rows, values = found
    inverse = np.zeros_like(matrix)
    inverse[np.arange(len(rows)), rows] = 1 / values
    return inverse


def _times(weight, matrix):
    return weight @ matrix if (found := only_entries(matrix)) is None else weight[:, found[0]] * found[1]


def _fold_norm(norm, name, matrix, shift):
    """A LayerNorm takes shuffles of its entries as they are, once its own scale and offset are shuffled alike."""
    if np.abs(shift).max() > 1e-9 or np.abs(matrix - matrix.round()).max() > 1e-9 or (matrix.round() < 0).any():
        raise ValueError(
            f"{name!r} normalises each patch before it is embedded, which only shuffles pass unchanged, and with equal "
            'mean and std in all channels: use steps=("shuffle",) and such statistics.'
        )
    turn = torch.from_numpy(matrix.round().T)
    for word in ("weight", "bias"):
        if (old := getattr(norm, word, None)) is not None:
            setattr(norm, word, _like((turn @ old.double().cpu().flatten()).view_as(old), old))


def _like(values, old):
    """A parameter of the type, device and layout of ``old``, and trained or frozen as it is."""
    return nn.Parameter(values.to(old.device, old.dtype), requires_grad=old.requires_grad)


def _check_used(layer, found):
    """ValueError where the layer does not compute weight z + bias, but changes its weight at each call."""
    probe = copy.deepcopy(layer).double()
    n = len(found.order)
    z = torch.rand(4, n, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(probe.weight.device)
    z = 40 * z - 20  # as far as the values of a probe reach
    expected = z @ probe.weight.flatten(1).T + (0 if probe.bias is None else probe.bias)
    shape = (4, -1, found.size, found.size) if isinstance(probe, nn.Conv2d) else (4, n)
    try:
        result = probe(z.view(shape)).reshape(expected.shape)
        same = torch.allclose(result, expected, 1e-9, 1e-9)
    except RuntimeError:  # another shape, or arithmetic that knows one type only, such as that of quantised layers
        same = False
    if not same:
        raise ValueError(
            f"{found.name!r} does not compute with the weight that it holds, but changes it or its input in its hooks "
            "or its forward: put the change into the weight first, or replace the layer by a plain one."
        )
