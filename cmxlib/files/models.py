"""Encrypt and decrypt a model's file.

A file holds tensors, not what is done with them. So what cannot be seen there has to be told: the normalisation; of a
Linear embedding, in which order it takes a patch; of one without a bias, how large the model's images are, so that the
position embeddings of their patches can take the offset.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..lock.keys import SecretKey
from ..lock.model import decrypt_model, encrypt_model
from ..lock.patch import PatchCipher
from ..lock.tokens import MOST_OTHERS
from ..paths import free, not_itself
from . import record
from .checkpoints import Safetensors, TorchFile, Values
from .record import Record

DEFAULT_STEPS = ("shuffle", "flip")
_PIECE = 2**20  # numbers that are looked at at once
_SUFFIXES = (".safetensors", ".pt", ".pth", ".onnx")


@dataclass(frozen=True)
class Asked:
    """What a command line says of a model; None where it leaves it open."""

    patch: int | None = None
    steps: tuple[str, ...] | None = None
    layers: tuple[str, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    order: str | None = None
    image_size: tuple[int, ...] | None = None


def opened(path: Path) -> Any:
    """A model's file, by its suffix: an object with record, shapes(), tensor(name), write(target, values, record,
    force)."""
    suffix = _suffix(path)
    if suffix == ".onnx":
        from .graphs import OnnxFile

        return OnnxFile(path)
    return Safetensors(path) if suffix == ".safetensors" else TorchFile(path)


def _suffix(path):
    suffix = path.suffix.lower()
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name the file of the model in it that holds the patch embedding.")
    if path.name.endswith(".index.json"):
        raise ValueError(f"{path} is the index of a model in parts: name the part that holds the patch embedding.")
    if suffix not in _SUFFIXES:
        raise ValueError(f"{path} is no .safetensors, .pt, .pth or .onnx: convert it to one of them.")
    return suffix


def encrypt(source: Path, target: Path, key: SecretKey, asked: Asked, force: bool = False) -> Record:
    """Write the encrypted model, and return its record."""
    _check_target(source, target, force)
    file = opened(source)
    if file.record and file.record.encrypted:
        raise record.encrypted_already(source, file.record)
    if asked.mean is None or asked.std is None:
        raise ValueError(
            f"The normalisation in front of {source} must be told, for the cipher acts before it: give --norm "
            "imagenet, cifar10 or none, or --mean and --std."
        )
    cipher, made = _told(file, key, asked)
    values, made = _folded(file, cipher, made, undo=False)
    _check_needed(made, asked)
    file.write(target, values, made, force)
    return made


def decrypt(source: Path, target: Path, key: SecretKey, asked: Asked, force: bool = False) -> Record:
    """Write the plain model, and return the record of what it was encrypted with."""
    _check_target(source, target, force)
    file = opened(source)
    found = file.record
    if found is None:
        if asked.mean is None or asked.std is None or not (asked.layers or asked.patch):
            raise ValueError(
                f"{source} carries no record of its cipher: it is not encrypted, or was saved by another program "
                "since. To decrypt it all the same, say how it was encrypted: --layer, --norm, and --steps."
            )
        _, found = _told(file, key, asked)
    elif not found.encrypted:
        raise ValueError(f"{source} is decrypted already.")
    values, found = _folded(file, cipher_of(found, key, asked, source), found, undo=True)
    file.write(target, values, replace(found, encrypted=False), force)
    return found


def layout(made: Record) -> str:
    """What the record's layers must take, which no file but a graph tells."""
    if made.order is None:
        return f"patches side by side: stride {made.patch} and no padding"
    return f"patches of the image flattened as {made.order}{f' and normalised by {made.norm}' if made.norm else ''}"


def cipher_of(found: Record, key: SecretKey, asked: Asked, where: Path) -> PatchCipher:
    """The cipher of a model's record. ValueError where the key or what is asked for is another."""
    steps, patch = asked.steps or found.steps, asked.patch or found.patch
    told = {name: getattr(asked, name) for name in ("mean", "std", "layers", "order", "image_size")}
    record.check(found, Record(key.fingerprint, steps, patch, **told), str(where))
    _check_needed(found, asked)
    return record.cipher_of(key, found.patch, found.steps)


def _check_needed(made: Record, asked: Asked) -> None:
    """ValueError where something is told that is of no use to this model, and so perhaps meant for another layer."""
    names = ", ".join(made.layers or ())
    if asked.order and not made.order:
        raise ValueError(f"--order is of a Linear, but {names} is a convolution: leave it out.")
    if asked.image_size and not made.image_size:
        raise ValueError(
            f"--image-size is of models whose position embeddings take an offset, but {names} needs none: leave it out."
        )


def _check_target(source, target, force):
    if _suffix(source) != target.suffix.lower():
        raise ValueError(f"{target} must end in {source.suffix}, as {source} does, for the file's kind stays.")
    not_itself(source, target)
    if not force:
        free(target)


def as_filters(weight: torch.Tensor, order: str | None) -> torch.Tensor:
    """A Linear's weight (dim, 3 p p) as that of a convolution, (dim, 3, p, p), which is given back as it is.

    order: of the Linear's entries, "chw" (channel, row, column) or "hwc"."""
    if weight.ndim == 4:
        return weight
    size = _patch(tuple(weight.shape))
    return (
        weight.view(-1, 3, size, size) if order == "chw" else weight.view(-1, size, size, 3).permute(0, 3, 1, 2)
    ).contiguous()


def patch_positions(values: torch.Tensor, made: Record) -> torch.Tensor:
    """The position embeddings of the patches alone, (patches, dim): a view of the last ones in ``values``."""
    height, width = made.image_size or (0, 0)
    return values.view(values.shape[-2:])[-(height // made.patch) * (width // made.patch) :]


def exchanged(made: Record) -> set[str]:
    """The names of the tensors that a model's encryption exchanges."""
    layers = [*(made.layers or ()), *filter(None, [made.norm])]
    names = {tensor_name(layer, word) for layer in layers for word in ("weight", "bias")}
    return names | ({made.positions} if made.positions else set())


def _told(file, key, asked: Asked) -> tuple[PatchCipher, Record]:
    """The cipher and the record of what is asked for, as far as they can be said before it is folded in."""
    names = _layers(file, asked)
    shapes = [file.shapes()[tensor_name(name)] for name in names]
    if len(sizes := set(map(_patch, shapes))) > 1:
        raise ValueError(f"The layers {', '.join(names)} have patches of several sizes: encrypt models of one size.")
    cipher = record.cipher_of(key, sizes.pop(), asked.steps or DEFAULT_STEPS)
    linear = any(len(shape) == 2 for shape in shapes)
    how = {"order": _order(file, asked) if linear else None, "norm": _norm(file, names), "image_size": asked.image_size}
    return cipher, record.of(key, cipher, mean=asked.mean, std=asked.std, layers=names, **how)


def _folded(file, cipher, made: Record, undo: bool) -> tuple[Values, Record]:
    """The tensors of the record's layers, with the cipher folded in (undo: out), and the record that says which."""
    values: Values = {}
    offset = None  # that no bias takes
    alike = len(set(made.mean or ())) == len(set(made.std or ())) == 1
    if made.norm and (made.steps != ("shuffle",) or not alike):
        raise ValueError(
            f"{made.norm} of {file.path} normalises each patch before it is embedded, which only shuffles pass "
            "unchanged, and with equal mean and std in all channels: give --steps shuffle and such statistics."
        )

    def fold(name, weight, bias=None):
        for value in filter(lambda value: value is not None, (weight, bias)):
            if not value.isfinite().all():
                raise ValueError(f"{name} of {file.path} holds values that are not finite: restore it from a copy.")
        filters = as_filters(weight.detach().double(), made.order)
        dim, channels, size, _ = filters.shape
        conv = nn.Conv2d(channels, dim, size, size, bias=bias is not None, device="meta")
        conv.weight = nn.Parameter(filters, False)
        if bias is not None:
            if bias.shape != (dim,):
                raise ValueError(f"The bias of {name} in {file.path} has the shape {tuple(bias.shape)}, not ({dim},).")
            conv.bias = nn.Parameter(bias.detach().double(), False)
        new = (decrypt_model if undo else encrypt_model)(conv, cipher, mean=made.mean, std=made.std)  # type: ignore[arg-type]
        changed = new.weight if weight.ndim == 4 or made.order == "chw" else new.weight.permute(0, 2, 3, 1)
        return changed.reshape(weight.shape).to(weight.dtype), new.bias

    for name in made.layers or ():
        check_shape(file, name, made.patch, made.order)
        weight, bias = (file.tensor(tensor_name(name, word)) for word in ("weight", "bias"))
        values[tensor_name(name)], added = fold(name, weight, bias)
        if added is not None and (bias is not None or file.embedding is not None):  # a graph says what there is
            values[tensor_name(name, "bias")] = added.to(weight.dtype)
        elif added is not None:
            offset = added
    if made.norm:
        for scale_or_shift in (tensor_name(made.norm), tensor_name(made.norm, "bias")):
            if (value := file.tensor(scale_or_shift)) is not None:
                values[scale_or_shift] = fold(made.norm, value[None])[0][0]  # shuffled as the filters are
    if offset is not None:
        made = made if made.positions else replace(made, positions=_positions(file, made, len(offset)))
        old = file.tensor(made.positions)
        if old is None or patch_positions(old, made).shape[-1:] != offset.shape:
            raise ValueError(f"{file.path} has no {made.positions} to take the offset of {name}: restore it.")
        added = old.double().clone()
        patch_positions(added, made).add_(offset)
        values[str(made.positions)] = added.to(old.dtype)
    elif not made.positions:
        made = replace(made, image_size=None)
    for name, value in values.items():
        if not value.isfinite().all():
            raise ValueError(f"{name} of {file.path} is {value.dtype}, which cannot hold the encrypted values.")
    return {name: value.detach() for name, value in values.items()}, made


def _positions(file, made: Record, dim):
    """The name of the position embeddings that take the offset of an embedding without a bias."""
    (name, *others), where = made.layers or (), file.path
    way_out = (
        f"give {name} a bias of 0 and save the model, use --steps shuffle and the same mean and std in all channels, "
        "or encrypt the model in Python, with cmxlib.encrypt_model"
    )
    if others:
        raise ValueError(f"{where} has {1 + len(others)} layers without a bias, which this cipher needs: {way_out}.")
    if made.image_size is None:
        raise ValueError(
            f"{name} of {where} has no bias, which this cipher needs and a model would not look for. Where position "
            "embeddings are added to its patches, they can take the offset: give --image-size, that of the model's "
            f"images. Or {way_out}."
        )
    (height, width), size = made.image_size, made.patch
    if height % size or width % size:
        raise ValueError(f"Patches of {size} do not divide images of {height} x {width}: give another --image-size.")
    n_patches = height // size * (width // size)
    fits = {
        found: shape
        for found, shape in file.shapes().items()
        if "pos" in found.lower() and shape[-1:] == (dim,) and shape[:-2] in ((), (1,))
        if len(shape) >= 2 and 0 <= shape[-2] - n_patches <= MOST_OTHERS
    }
    if len(fits) != 1:
        what = ", ".join(f"{found} {shape}" for found, shape in fits.items()) or "none"
        raise ValueError(
            f"{name} of {where} has no bias, and of position embeddings for {n_patches} patches, which could take the "
            f"offset, there is not one alone, but {what}: give another --image-size, {way_out}."
        )
    return next(iter(fits))


def _layers(file, asked: Asked) -> tuple[str, ...]:
    """The names of the layers that are asked for, or of the one that can be meant."""
    shapes = file.shapes()
    weights = {name.removesuffix("weight").removesuffix("."): shape for name, shape in shapes.items()
               if name == "weight" or name.endswith(".weight")}  # fmt: skip
    near = {n: s for n, s in weights.items() if len(s) == 4 and s[1] == 3 and s[2] == s[3] and s[0]}
    listed = ", ".join(f"{name} {shape}" for name, shape in list(near.items())[:8]) or "none"
    if asked.layers or file.embedding is not None:
        names = tuple(dict.fromkeys(name.removesuffix(".weight") for name in asked.layers or (file.embedding,)))
        for name in names:
            if name not in weights:
                raise ValueError(
                    f"{file.path} has no layer {name}: those on 3 channels with a square kernel: {listed}."
                )
            check_shape(file, name, asked.patch, _order(file, asked))
    else:
        fitting = [name for name, shape in near.items() if shape[2] == asked.patch]
        if len(fitting) != 1:
            why = "give --patch or --layer" if asked.patch is None else "name one with --layer" if fitting else (
                "a convolution of that size whose stride is as large can be encrypted, or a Linear that --layer names"
            )  # fmt: skip
            raise ValueError(
                f"{file.path} does not tell which layer embeds patches"
                f"{f' of {asked.patch}' if asked.patch else ''}: {why} (on 3 channels with a square kernel: {listed})."
            )
        names = (fitting[0],)
    copies = [
        other
        for name in names
        for other in dict.fromkeys(_copies(file, name) + _rearranged(file, name))
        if other not in map(tensor_name, names)
    ]
    if copies:
        raise ValueError(
            f"{file.path} also holds {', '.join(copies[:3])} of the same shape or values, from which a plain copy or "
            "an optimiser's state could give the key away: save the weights alone, or name every copy with --layer."
        )
    return names


def _copies(file, layer):
    """The tensors that may be a copy of a layer's weight or an optimiser's state of it: any of the same shape, but of
    a Linear, whose shape others may have, those that are no other layer's weight."""
    weight, shapes = tensor_name(layer), file.shapes()
    if file.order:  # a graph, where other layers' matrices have any names
        return []
    alike = [name for name, shape in shapes.items() if shape == shapes[weight] and name != weight]
    if len(shapes[weight]) == 4:
        return alike
    last = weight.partition(".")[2] if weight.count(".") > 1 else weight
    return [name for name in alike if not name.endswith(".weight") or name.endswith(f".{last}")]


def _rearranged(file, layer):
    """The tensors of another shape that hold the very values of a layer's weight, turned or flat, or in a row among
    others."""
    weight, shapes, found = tensor_name(layer), file.shapes(), []
    values = file.tensor(weight).flatten().double()
    if values.min() == values.max():  # of which a copy says nothing, and which much else would look like
        return []
    for name, other in file.stored(weight):
        if len(other) > len(values):
            found += [name] * _holds(other, values)
        elif len(other) == len(values) and shapes.get(name) != shapes[weight]:
            pair = torch.stack([values, other.double()])
            ends = torch.stack(pair.aminmax(dim=1))  # which tells nearly all apart, and takes no sorting
            found += [name] * (_near(*ends.T) and _near(*pair.sort().values))
    return found


def _holds(many, values):
    """Whether ``many`` numbers hold these values in a row. They are looked through a piece at a time for the largest or
    lowest, and where it is, for the next ones of both ends: few pass the first look, and next to none the second."""
    ends = torch.cat([values.topk(min(len(values), 8), largest=largest).indices for largest in (True, False)]).unique()
    first, *others = ends[values[ends].abs().argsort(descending=True)].tolist()
    starts = len(many) - len(values) + 1  # where a row can begin
    for start in range(0, starts, _PIECE):
        piece = many[start + first : min(start + _PIECE, starts) + first].double()
        found = start + torch.isclose(piece, values[first], 1e-2, 1e-6).nonzero().flatten()
        for at in others:
            found = found[torch.isclose(many[found + at].double(), values[at], 1e-2, 1e-6)]
        if any(_near(values, many[begin : begin + len(values)].double()) for begin in found.tolist()):
            return True
    return False


def _near(one, two):
    """Whether values are the same, but for the rounding to another type."""
    return torch.allclose(one, two, 1e-2, 1e-6)


def tensor_name(layer: str, word: str = "weight") -> str:
    """The name of a layer's weight, or of its bias."""
    return f"{layer}.{word}" if layer else word


def _patch(shape):
    """The size of the patches that a weight of this shape can take; 0 where there is none."""
    if len(shape) == 4:
        return shape[2] if shape[1] == 3 and shape[2] == shape[3] and shape[0] else 0
    size = math.isqrt(shape[1] // 3) if len(shape) == 2 and shape[0] else 0
    return size if shape[1:] == (3 * size**2,) else 0


def _order(file, asked: Asked) -> str | None:
    """The order in which a Linear takes the entries of a patch: as a graph shows, else as is asked for."""
    if file.order and asked.order not in (None, file.order):
        raise ValueError(f"{file.path} takes patches flattened as {file.order}: leave out --order {asked.order}.")
    return file.order or asked.order


def _norm(file, layers: tuple[str, ...]) -> str | None:
    """The layer that normalises each patch in front of a Linear: as a graph shows, else the one beside it whose values
    are as many as a patch's."""
    if file.embedding is not None:
        return file.norm
    shapes, found = file.shapes(), []
    for name in layers:
        (dim, *rest), parent = shapes[tensor_name(name)], name.rpartition(".")[0]
        beside = (n for n in shapes if n.endswith(".weight") and len(rest) == 1 and shapes[n] == (rest[0],))
        found += (n for n in beside if (n.startswith(f"{parent}.") if parent else n.count(".") == 1))
        more = [*found[1:], *layers[1:], *(n for n in shapes if found and n == f"{found[0][:-6]}running_mean")]
        if found and (more or rest[0] == dim):
            raise ValueError(
                f"{found[0]} of {file.path} may normalise each patch in front of {name}, which the file does not tell: "
                "encrypt the model in Python, with cmxlib.encrypt_model."
            )
    return found[0].removesuffix(".weight") if found else None


def check_shape(file: Any, name: str, patch: int | None, order: str | None) -> None:
    """ValueError where a layer is none that embeds patches of this size, in this order where it is a Linear."""
    shapes = file.shapes()
    shape = shapes.get(tensor_name(name))
    if shape is None:
        raise ValueError(f"{file.path} has no layer {name}.")
    if not (size := _patch(shape)):
        raise ValueError(
            f"The layer {name} of {file.path} has the shape {shape}, not (dim, 3, patch, patch) or (dim, 3 patch "
            "patch)."
        )
    if len(shape) == 2:
        if order is None:
            raise ValueError(
                f"{name} of {file.path} is a Linear {shape}: the order in which it takes the entries of a patch cannot "
                "be seen in a file. Give --order chw (channel, row, column) or hwc, or encrypt the model in Python."
            )
    if patch and size != patch:
        raise ValueError(f"The layer {name} of {file.path} has patches of {size}, not of {patch}.")
