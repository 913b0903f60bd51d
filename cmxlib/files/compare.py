"""What `cmx verify` says of a plain and an encrypted model."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..lock import checks
from ..lock.keys import SecretKey
from ..lock.patch import to_blocks
from ..lock.pixels import to_bytes, to_values
from . import arrays, folders, pictures
from .models import Asked, as_filters, check_shape, cipher_of, exchanged, layout, opened, patch_positions, tensor_name

# What is still counted as equal, in roundings of the weights' type and units of the largest output: of an embedding,
# where 5 were the most that were seen (bfloat16 to float32, patches of 2 to 16), and of a whole network in float32.
_ROUNDINGS = {"embedding": 20, "network": 300}


def verify(plain: Path, encrypted: Path, key: SecretKey, images: Path | None = None) -> dict[str, Any]:
    """How far an encrypted model is from the plain one.

    images: a file or folder of plain images, or a .npy; None for random ones. "equal": no tensor but the embedding's
    differs, and the embedding (of ONNX files, the whole network) gives on encrypted images what the plain one gives on
    plain ones, to 20 roundings of the type of its weights (300 of float32). "taken for granted": what would make the
    encrypted model useless if it were not so, and no file tells. ValueError where the files are no such pair.
    """
    for path in (plain, encrypted):
        path.stat()  # FileNotFoundError, before anything is said of its kind
    if plain.suffix.lower() != encrypted.suffix.lower():
        raise ValueError(f"{plain} and {encrypted} are files of two kinds: compare files of one.")
    one, two = opened(plain), opened(encrypted)
    if one.record and one.record.encrypted:
        raise ValueError(f"{plain} is an encrypted model: name the plain one first.")
    found = two.record
    if found is None or not found.encrypted:
        raise ValueError(f"{encrypted} carries no record of a cipher: it is not encrypted, or was saved again since.")
    cipher, names = cipher_of(found, key, Asked(), encrypted), list(found.layers or ())
    differing = one.same_elsewhere(two, exchanged(found))
    for file in (one, two):
        for name in (*map(tensor_name, names), *filter(None, [found.positions])):
            if file.tensor(name) is None:
                raise ValueError(f"{file.path} has no {name}, which the record of {encrypted} names: compare its pair.")
            if (shape := one.shapes()[name]) != (other := two.shapes().get(name, shape)):
                raise ValueError(
                    f"{plain} is not the plain model of {encrypted}: {name} has the shape {shape} in the one and "
                    f"{other} in the other. Name its pair."
                )
    for name in names:
        check_shape(two, name, found.patch, found.order)
    if found.positions:  # those of other tokens than patches stay
        tokens = [value.flatten(0, -2)[: -len(patch_positions(value, found))]
                  for value in (file.tensor(found.positions) for file in (one, two))]  # fmt: skip
        differing += [] if torch.equal(*tokens) else [found.positions]
    size = found.image_size or getattr(one, "size", None) or (4 * found.patch, 4 * found.patch)
    batch = _noise(size) if images is None else plain_images(images, found.patch)
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in checks.statistics(found.mean, found.std, 3))
    if torch.equal(batch, changed := cipher.encrypt(batch)):
        raise ValueError("The cipher changes nothing in these images, which so tell nothing: give others by --images.")
    inputs = [(to_values(x, torch.float64) - mean) / std for x in (batch, changed, batch)]
    files, whole = (one, two, two), hasattr(one, "run")
    outputs = [
        file.run(x) if whole else torch.cat([_embedded(file, name, found, x) for name in names])
        for file, x in zip(files, inputs, strict=True)
    ]
    if outputs[0].shape != outputs[1].shape:
        shapes = (tuple(output.shape[1:]) for output in outputs[:2])
        raise ValueError("{} and {} give {} and {} values an image: name a pair.".format(plain, encrypted, *shapes))
    parts = {name: [tensor_name(name, word) for word in ("weight", "bias")] for name in (*names, found.norm) if name}
    parts |= {name: [name] for name in [found.positions] if name}
    roundings = _ROUNDINGS["network" if whole else "embedding"]
    kept = torch.float32 if whole else one.tensor(tensor_name(names[0])).dtype
    scale = max(outputs[0].abs().max().item(), 1e-12)
    difference, without = ((output - outputs[0]).abs().max().item() for output in outputs[1:])
    return {
        "equal": not differing and difference <= roundings * torch.finfo(kept).eps * scale,
        "compared": "outputs" if whole else "outputs of the embedding",
        "images": len(batch),
        "largest": scale,
        "largest difference": difference,
        "without encryption": without,
        "changed layers": [name for name, held in parts.items() if any(_differ(one, two, tensor) for tensor in held)],
        "differs elsewhere": differing,
        "taken for granted": [
            *([] if whole else [f"{', '.join(names)} takes {layout(found)}"]),
            f"images are normalised by mean {_listed(found.mean)} and std {_listed(found.std)}",
        ],
    }


def _differ(one, two, name):
    value, other = one.tensor(name), two.tensor(name)
    return value is not None and other is not None and not torch.equal(value, other)


def _embedded(file, name, made, images):
    """What the embedding makes of the patches: (N, patches, dim), with the position embeddings where these changed."""
    weight, bias = (file.tensor(tensor_name(name, word)) for word in ("weight", "bias"))
    filters = as_filters(weight.double(), made.order)
    patches = to_blocks(images, filters.shape[-1])
    if made.norm:
        taken = [file.tensor(tensor_name(made.norm, word)) for word in ("weight", "bias")]
        taken = [v if v is None else as_filters(v.double()[None], made.order).flatten() for v in taken]
        patches = nn.functional.layer_norm(patches, patches.shape[-1:], *taken)
    found = patches @ filters.flatten(1).T
    if made.positions:
        if found.shape[1] != len(added := patch_positions(file.tensor(made.positions), made)):
            height, width = made.image_size
            raise ValueError(f"The images must be {height} x {width}, the size that {file.path} was encrypted for.")
        found += added
    return found if bias is None else found + bias.double()


def _listed(values):
    return " ".join(f"{value:g}" for value in values)


def _noise(size):
    make = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (8, 3, *size), dtype=torch.uint8, generator=make)


def plain_images(source: Path, patch: int) -> torch.Tensor:
    """The plain images of a file, a folder or a .npy: (N, 3, H, W), uint8, cut so that patches divide them.

    ValueError where they are encrypted, of several sizes or smaller than a patch.
    """
    found = []
    for path in folders.inputs(source):
        if path.suffix.lower() == ".npy":
            known, array = arrays.recorded(path), torch.from_numpy(arrays.copied(arrays.opened(path)))
            batch = to_bytes(checks.values(array.reshape(-1, *array.shape[-3:]), str(path), (0, 1)))
            batch = batch.expand(-1, 3, -1, -1) if batch.shape[1] == 1 else batch  # grey
        else:
            image, known = pictures.read(path)
            batch = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None]
        if known and known.encrypted:
            raise ValueError(f"{path} is encrypted: give the plain images.")
        found.append(batch[..., : batch.shape[-2] // patch * patch, : batch.shape[-1] // patch * patch])
    if len({batch.shape[1:] for batch in found}) > 1 or not found[0].numel() or found[0].shape[1] != 3:
        raise ValueError(f"The images of {source} are of several sizes, or smaller than a patch: resize them first.")
    return torch.cat(found)
