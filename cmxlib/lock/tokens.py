"""The position embeddings of a model's patches.

Added to what the patch embedding gives, they take what it cannot: an offset, where it has no bias, and a new order of
the patches, where a cipher lets whole patches change places.
"""

from typing import Any

import numpy as np
import torch
from torch import nn

from ..paths import out_of_memory
from .norm import normalised
from .probe import Embedding, evaluating, run, tensors

MOST_OTHERS = 16  # class, distillation and register tokens that may stand before the patches


def fold_tokens(
    model: nn.Module, found: Embedding, size: tuple[int, int] | None, offset: Any, places: np.ndarray | None
) -> None:
    """Add ``offset`` (dim,) to the position embeddings of the patches of images of ``size``; then let them change
    places: patch i gets that of patch places[i]. In place; ValueError, with the reason and the way out, where there
    are none."""
    n_patches = 0 if size is None else (size[0] // found.size) * (size[1] // found.size)
    name, value = _positions(model, found, n_patches, size, places is not None)
    new = value.detach().double().cpu().clone()
    patches = new[..., -n_patches:, :]
    patches += torch.as_tensor(offset)
    if places is not None:
        patches.copy_(patches[..., torch.from_numpy(places), :])
    new = new.to(value.device, value.dtype)
    module, _, last = name.rpartition(".")
    kept = nn.Parameter(new, value.requires_grad) if isinstance(value, nn.Parameter) else new
    setattr(model.get_submodule(module), last, kept)


def _positions(model, found, n_patches, size, moves):
    """The name and the tensor (..., others + n_patches, dim) of the position embedding; other tokens come first."""
    dim = found.layer.weight.shape[0]
    held = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    kept = model.state_dict().keys()  # what is not saved would be lost when the model is built anew
    fits = [
        (name, value)
        for name, value in held.items()
        if name in kept and "pos" in name.lower() and value.is_floating_point() and 2 <= value.ndim <= 3
        if value.shape[-1] == dim and n_patches and 0 <= value.shape[-2] - n_patches <= MOST_OTHERS
    ]
    if len(fits) == 1:
        return fits[0]
    many = ", ".join(f"{name!r} {tuple(value.shape)}" for name, value in fits)
    seen = f"for {n_patches} patches" if n_patches else "since the model could not be run on a probe"
    what = f"several that may be it ({many})" if fits else f"none {seen}"
    if moves:
        raise ValueError(
            f"Patches may change places only where learned absolute position embeddings undo it, but in images of "
            f"{size[0]} x {size[1]} this model has {what}: use a PatchCipher, which leaves each patch in its place."
        )
    raise ValueError(
        f"{found.name!r} has no bias to take the offset of the cipher, nor has the model position embeddings of the "
        f"patches that could take it, but {what}: give the layer one first, by "
        f"model.get_submodule({found.name!r}).bias = torch.nn.Parameter(torch.zeros({dim})), also wherever the model "
        "is built anew."
    )


def check_same(
    model: nn.Module, folded: nn.Module, cipher: Any, size: tuple[int, int], mean: Any, std: Any, undo: bool
) -> None:
    """ValueError where one random image, plain and encrypted, does not give the same in both models, to rounding."""
    parameter = next(model.parameters())
    channels = getattr(cipher, "channels", 3)
    image = torch.rand(1, channels, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    pair = [image, cipher.encrypt(image)]
    first, second = (normalised(each, mean, std, parameter) for each in (pair if undo else pair[::-1]))
    with evaluating(model), evaluating(folded):
        try:
            found = [tensors(run(model, first)), tensors(run(folded, second))]
        except Exception as error:  # whatever a model says of a size that it does not take
            if out_of_memory(error):
                raise
            raise ValueError(f"The model cannot be run on images of {size[0]} x {size[1]}: {error}") from None
    most = 1e-9 if parameter.dtype == torch.float64 else 1e-4
    for one, two in zip(*found, strict=True):
        if one.is_floating_point() and not (one - two).abs().max() <= most * one.abs().max():
            raise ValueError(
                "The position embeddings alone do not undo the cipher: where a patch stands, or what it is embedded "
                "as, counts elsewhere in the model too, as with windows, relative positions, convolutions, or a "
                "normalisation of the embedded patches: use a PatchCipher, and give the embedding a bias."
            )
