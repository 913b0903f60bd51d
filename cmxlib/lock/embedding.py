"""The patch embedding of a model: which layer it is, and whether its weight is its own."""

import copy
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from ..paths import out_of_memory, sentence
from . import checks
from .probe import Embedding, check_sees_image, linear_embeddings


def find_embedding(model: nn.Module, channels: int = 3, embedding: str | None = None) -> tuple[str, nn.Conv2d]:
    """The name and module of the patch embedding: the one Conv2d on ``channels`` channels with kernel = stride.

    Given a name, that module, if it is such a convolution. ValueError otherwise.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be a torch module, but this is {type(model).__name__}: "
            "for a state dict or a file, make the model and call load_state_dict first."
        )
    channels = checks.whole(channels, "channels", 1)
    if isinstance(model, (torch.jit.ScriptModule, torch.fx.GraphModule)) and not _has_stem(model, channels):
        raise ValueError("model is scripted or exported, and its layers cannot be changed: encrypt it before that.")
    modules = dict(model.named_modules())
    if embedding is not None:
        if not isinstance(embedding, str) or embedding not in modules:
            raise ValueError(f"The model has no module named {checks.shown(embedding)}; see model.named_modules().")
        if why := _why_not(modules[embedding], channels):
            raise ValueError(f"{embedding!r} is no patch embedding that can absorb a cipher: {why}.")
        return embedding, modules[embedding]
    reasons = {name: _why_not(module, channels) for name, module in modules.items()}
    found = [name for name, why in reasons.items() if not why]
    if not found:
        near = [
            f"{name!r} ({why})"
            for name, why in reasons.items()
            if isinstance(modules[name], nn.Conv2d) and modules[name].in_channels in (channels, 0)
        ]
        raise ValueError(
            f"The model has no patch embedding: no Conv2d on {channels} channels with a square kernel equal to its "
            f"stride and without padding{', but ' + ', '.join(near[:3]) if near else ''}. "
            "A cipher cannot be folded into it."
        )
    if len(found) > 1:
        shapes = ", ".join(f"{name} {tuple(modules[name].weight.shape)}" for name in found)
        raise ValueError(
            f"Several layers could be the patch embedding: {shapes}; name one with embedding=, if it alone reads the "
            "image: where several do, as in CrossViT, each would have to undo the cipher, and all but one see the "
            "image resized or cut into other patches."
        )
    return found[0], modules[found[0]]


def _why_not(module, channels) -> str | None:
    """Why a module cannot be the embedding; None where it can."""
    if not isinstance(module, nn.Conv2d):
        return f"it is no Conv2d, but {type(module).__name__}"
    if isinstance(module, nn.LazyConv2d):
        return "it has no weights yet: run the model once on an image"
    if module.in_channels != channels:
        return f"it takes {module.in_channels} channels, not {channels}"
    kernel, stride = module.kernel_size, module.stride
    if kernel[0] != kernel[1]:
        return f"its kernel of {kernel[0]} x {kernel[1]} is not square"
    if kernel != stride:
        kind = "overlap" if kernel > stride else "leave gaps"
        return f"its patches of {kernel[0]} x {kernel[1]} with stride {stride[0]} {kind}"
    if module.padding not in ("valid", 0, (0, 0)):
        return f"its padding of {module.padding} shifts the patches"
    if not module.out_channels:
        return "it has no filters"
    if module.dilation != (1, 1) or module.groups != 1:
        return "it has dilation or groups"
    return None


def locate(model: nn.Module, channels: int, name: str | None) -> Embedding:
    """The embedding of ``model``: a Conv2d (see ``find_embedding``), else a Linear that is seen to get flat patches."""
    named = isinstance(model, nn.Module) and isinstance(name, str)
    linear = named and isinstance(dict(model.named_modules()).get(name), nn.Linear)
    try:
        if not linear:
            name, layer = find_embedding(model, channels, name)
            size = layer.kernel_size[0]
            return Embedding(name, layer, size, np.arange(channels * size**2))
    except ValueError:
        if name is not None or _has_stem(model, channels):
            raise
        found = linear_embeddings(copied(model), channels, None)
        if len(found) != 1:
            raise
        return found[0]
    found = linear_embeddings(copied(model), channels, name)
    if len(found) != 1:
        raise ValueError(
            f"The Linear {name!r} does not get the flat patches of the image, as far as a run on a probe tells: "
            "name another layer with embedding=."
        )
    return found[0]


def checked_copy(model: nn.Module, channels: int, name: str | None = None) -> tuple[nn.Module, Embedding]:
    """A copy of ``model``, and its embedding, which alone sees the image and has a weight of its own."""
    checks.default_device()
    found = locate(model, channels, name)
    check_own_weights(found.name, found.layer)
    probed = copied(model)  # and given away, for a model may keep something of an image that it sees
    size = check_sees_image(probed, replace(found, layer=probed.get_submodule(found.name)), channels)
    del probed
    model = copied(model)
    return model, replace(found, layer=model.get_submodule(found.name), image_size=size)


def replaced(model: nn.Module, found: Embedding, layer: nn.Module) -> nn.Module:
    """``model`` with another layer in place of its embedding, changed itself; where it is its embedding, the layer."""
    if not found.name:
        return layer
    model.set_submodule(found.name, layer)
    return model


def copied(model: nn.Module) -> nn.Module:
    """A copy of ``model``. TypeError where it cannot be copied, or says of itself that it is its copy."""
    checks.instance(model, nn.Module, "model")
    try:
        made = copy.deepcopy(model)
    except Exception as error:  # whatever its parts, or its own __deepcopy__, say
        if out_of_memory(error):
            raise
        raise TypeError(
            f"model cannot be copied ({sentence(error)}): take out what cannot be, such as a lock, a generator, an "
            "open file or an activation that it keeps."
        ) from error
    if made is model:
        raise TypeError("model cannot be copied: its __deepcopy__ gives the model itself, which must stay as it is.")
    return made


def _has_stem(model: nn.Module, channels: int) -> bool:
    """Whether any convolution takes images of so many channels."""
    return any(isinstance(module, nn.Conv2d) and module.in_channels == channels for module in model.modules())


def check_own_weights(name: str, layer: nn.Module) -> None:
    """ValueError where the layer computes its weight from other parameters: a change of the weight would not last."""
    where = f"model.get_submodule({name!r})"
    if parametrize.is_parametrized(layer):
        out = f'torch.nn.utils.parametrize.remove_parametrizations({where}, "weight")'
    elif "weight" in dict(layer.named_parameters(recurse=False)):
        if not layer.weight.is_floating_point() or layer.weight.dtype.itemsize == 1:
            raise ValueError(f"The weight of {name!r} is {layer.weight.dtype}: encrypt the model before quantising it.")
        if layer.weight.layout != torch.strided:
            raise ValueError(f"The weight of {name!r} is {layer.weight.layout}: put weight.to_dense() in its place.")
        if layer.weight.is_meta:
            raise ValueError(f"{name!r} is on the meta device and has no values: load its weights first.")
        if not all(value.isfinite().all() for value in layer.parameters(recurse=False)):
            raise ValueError(f"{name!r} holds weights that are not finite (NaN or infinity): load or train it anew.")
        return
    elif hasattr(layer, "weight_g"):
        out = f"torch.nn.utils.remove_weight_norm({where})"
    elif hasattr(layer, "weight_mask"):
        out = f'torch.nn.utils.prune.remove({where}, "weight")'
    elif hasattr(layer, "weight_u"):
        out = f"torch.nn.utils.remove_spectral_norm({where})"
    else:
        out = "a copy of the model whose layer has an ordinary weight"
    raise ValueError(f"The weight of {name!r} is computed from other parameters at each call: first use {out}.")
