"""Encrypt and decrypt a model's file."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ..lock.keys import SecretKey
from ..lock.model import decrypt_model, encrypt_model
from ..lock.patch import PatchCipher
from . import record
from .checkpoints import Layers, Safetensors, TorchFile
from .record import Record

DEFAULT_STEPS = ("shuffle", "flip")


@dataclass(frozen=True)
class Asked:
    """What a command line says of a model; None where it leaves it open."""

    patch: int | None = None
    steps: tuple[str, ...] | None = None
    layers: tuple[str, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def opened(path: Path) -> Any:
    """A model's file, by its suffix: an object with record, shapes(), layer(name) and write(target, layers, record)."""
    suffix = path.suffix.lower()
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name the file of the model in it that holds the patch embedding.")
    if suffix == ".safetensors":
        return Safetensors(path)
    if suffix in (".pt", ".pth"):
        return TorchFile(path)
    if suffix == ".onnx":
        from .graphs import OnnxFile

        return OnnxFile(path)
    if path.name.endswith(".index.json"):
        raise ValueError(f"{path} is the index of a model in parts: name the part that holds the patch embedding.")
    raise ValueError(f"{path} is no .safetensors, .pt, .pth or .onnx: convert it to one of them.")


def encrypt(source: Path, target: Path, key: SecretKey, asked: Asked, force: bool = False) -> Record:
    """Write the encrypted model, and return its record."""
    _check_target(source, target, force)
    file = opened(source)
    if file.record and file.record.encrypted:
        raise ValueError(f"{source} is encrypted already, with the key {file.record.key}.")
    if asked.mean is None or asked.std is None:
        raise ValueError(
            f"The normalisation in front of {source} must be told, for the cipher acts before it: give --norm "
            "imagenet, cifar10 or none, or --mean and --std."
        )
    names = _layers(file, asked)
    cipher = PatchCipher(key, _kernel(file, names), steps=asked.steps or DEFAULT_STEPS)
    made = record.of(key, cipher, mean=asked.mean, std=asked.std, layers=names)
    file.write(target, _folded(file, cipher, made, undo=False), made)
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
        names = _layers(file, asked)
        cipher = PatchCipher(key, _kernel(file, names), steps=asked.steps or DEFAULT_STEPS)
        found = record.of(key, cipher, mean=asked.mean, std=asked.std, layers=names)
    elif not found.encrypted:
        raise ValueError(f"{source} is decrypted already.")
    cipher = cipher_of(found, key, asked, source)
    file.write(target, _folded(file, cipher, found, undo=True), replace(found, encrypted=False))
    return found


def cipher_of(found: Record, key: SecretKey, asked: Asked, where: Path) -> PatchCipher:
    """The cipher of a model's record. ValueError where the key or what is asked for is another."""
    steps, patch = asked.steps or found.steps, asked.patch or found.patch
    said = Record(key.fingerprint, steps, patch, mean=asked.mean, std=asked.std, layers=asked.layers)
    record.check(found, said, str(where))
    return PatchCipher(key, found.patch, steps=found.steps)


def _check_target(source, target, force):
    if source.suffix.lower() != target.suffix.lower():
        raise ValueError(f"{target} must end in {source.suffix}, as {source} does, for the file's kind stays.")
    if (target.exists() or target.is_symlink()) and not force:
        raise FileExistsError(f"{target} exists already: give --force to replace it, or name another output.")


def _folded(file, cipher, made: Record, undo: bool) -> Layers:
    """The layers of the record, with the cipher folded in (undo: out)."""
    found, change = {}, decrypt_model if undo else encrypt_model
    for name in made.layers or ():
        _check_shape(file, name, made.patch)
        weight, bias = file.layer(name)
        dim, channels, size, _ = weight.shape
        for values in (weight, bias):
            if values is not None and not values.isfinite().all():
                raise ValueError(f"{name} of {file.path} holds values that are not finite: restore it from a copy.")
        conv = nn.Conv2d(channels, dim, size, size, bias=bias is not None, device="meta")
        conv.weight = nn.Parameter(weight.detach().double(), False)
        if bias is not None:
            if bias.shape != (dim,):
                raise ValueError(f"The bias of {name} in {file.path} has the shape {tuple(bias.shape)}, not ({dim},).")
            conv.bias = nn.Parameter(bias.detach().double(), False)
        new = change(conv, cipher, mean=made.mean, std=made.std)  # type: ignore[arg-type]
        if new.bias is not None and bias is None and file.embedding is None:  # a graph says what there is
            raise ValueError(
                f"{name} of {file.path} has no bias, which this cipher needs and a model would not look for: give "
                "it a bias of 0 and save it, or use --steps shuffle and the same mean and std in all channels."
            )
        values = [None if v is None else v.detach().to(weight.dtype) for v in (new.weight, new.bias)]
        if not all(v is None or v.isfinite().all() for v in values):
            raise ValueError(f"{name} of {file.path} is {weight.dtype}, which cannot hold the encrypted values.")
        found[name] = tuple(values)
    return found


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
            _check_shape(file, name, asked.patch)
    else:
        fitting = [name for name, shape in near.items() if shape[2] == asked.patch]
        if len(fitting) != 1:
            why = "give --patch or --layer" if asked.patch is None else "name one with --layer" if fitting else (
                "a convolution of that size whose stride is as large can be encrypted, and nothing else"
            )  # fmt: skip
            raise ValueError(
                f"{file.path} does not tell which layer embeds patches"
                f"{f' of {asked.patch}' if asked.patch else ''}: {why} (on 3 channels with a square kernel: {listed})."
            )
        names = (fitting[0],)
    taken = {shapes[weight_name(name)] for name in names}
    copies = [n for n, shape in shapes.items() if shape in taken and n not in map(weight_name, names)]
    if copies:
        raise ValueError(
            f"{file.path} also holds {', '.join(copies[:3])} of the same shape, from which a plain copy or an "
            "optimiser's state could give the key away: save the weights alone, or name every copy with --layer."
        )
    return names


def weight_name(layer: str) -> str:
    """The name of a layer's weight."""
    return f"{layer}.weight" if layer else "weight"


def _check_shape(file, name, patch):
    shape = file.shapes().get(weight_name(name))
    if shape is None:
        raise ValueError(f"{file.path} has no layer {name}.")
    if len(shape) == 2:
        raise ValueError(
            f"{name} of {file.path} is a Linear {shape}: the order in which it takes a patch cannot be seen in a file; "
            "encrypt the model in Python, with cmxlib.encrypt_model."
        )
    if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3] or not np.prod(shape):
        raise ValueError(f"{name} of {file.path} has the shape {shape}, not (dim, 3, patch, patch).")
    if patch and shape[2] != patch:
        raise ValueError(f"{name} of {file.path} has patches of {shape[2]}, not of {patch}.")


def _kernel(file, names):
    sizes = {file.shapes()[weight_name(name)][2] for name in names}
    if len(sizes) > 1:
        raise ValueError(f"The layers {', '.join(names)} have patches of several sizes: encrypt models of one size.")
    return sizes.pop()
