"""Images of one's own, brought to one size: a folder for each class, root/train/CLASS/... and root/test/CLASS/..."""

import os
import unicodedata
from pathlib import Path

import torch

from ..files import pictures
from ..files.folders import walk
from ..lock import checks
from ..paths import NOT_ENOUGH, expanded, need, out_of_memory, sentence
from .cifar10 import DatasetError

_WAY_OUT = "Put the images into root/train/CLASS/ and root/test/CLASS/, one folder a class, the same in both."
_MODES = {1: "L", 3: "RGB"}


def read_folder(root: str | os.PathLike, size: int, channels: int = 3) -> tuple:
    """Train images, train labels, test images, test labels (uint8 (N, channels, size, size), int64 (N,)), class names.

    The shorter side of each image is resized to ``size`` (bilinear), and the middle square cut out. channels: 3 for
    RGB, or 1 for grey. The images of all classes are mixed, in an order that is the same each time, so that the first
    ones stand for all. Read is what `cmxlib.files.pictures` reads, also in folders within a class; hidden files and
    folders are left out. DatasetError, naming the folder or the file, where the folders are not as above or an image is
    refused.
    """
    root, size = expanded(root, "root"), checks.whole(size, "size", 1, 10_000)
    if (channels := checks.whole(channels, "channels", 1)) not in _MODES:
        raise ValueError(f"channels must be 3 (RGB) or 1 (grey), but it is {channels!r}.")
    v2 = need("torchvision.transforms.v2", "book")
    change = v2.Compose([v2.Resize(size), v2.CenterCrop(size), v2.PILToTensor()])
    found, classes = [], []
    for part in ("train", "test"):
        try:
            names, files = _listed(root / part)
            order = torch.randperm(len(files), generator=torch.Generator().manual_seed(0)).tolist()
            images = torch.empty(len(order), channels, size, size, dtype=torch.uint8)
            for place, i in enumerate(order):
                images[place] = change(pictures.read(files[i][0])[0].convert(_MODES[channels]))
        except (OSError, ValueError) as error:
            raise DatasetError(f"The images of {root} cannot be read: {sentence(error)} {_WAY_OUT}") from error
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise MemoryError(f"{NOT_ENOUGH} for the {len(files)} images of {root}: lower size, {size}.") from error
        found += [images.numpy(), torch.tensor([label for _, label in files])[order].numpy()]
        classes.append(names)
    if other := sorted(set(classes[0]) ^ set(classes[1])):
        raise DatasetError(f"The classes {', '.join(other[:5])} are in one of train and test alone. {_WAY_OUT}")
    return *found, classes[0]


def _class(path: Path) -> str:
    """The name of a class, in Unicode's form NFC: systems write one letter in several ways."""
    return unicodedata.normalize("NFC", path.name)


def _listed(folder: Path) -> tuple[tuple[str, ...], list[tuple[Path, int]]]:
    """The names of the classes, and each image with its label, in order. Hidden files and folders are none of them."""
    inside = sorted((path for path in folder.iterdir() if path.name[0] != "."), key=_class)
    if beside := [path for path in inside if path.is_file() and path.name.lower().endswith(pictures.SUFFIXES)]:
        raise ValueError(f"{beside[0]} is in no class.")
    names, files = [], []
    for path in (path for path in inside if path.is_dir()):
        count = len(files)
        for where, folders, here in walk(path):
            folders[:] = [name for name in folders if name[0] != "."]
            shown = (name for name in here if name[0] != "." and name.lower().endswith(pictures.SUFFIXES))
            files += [(where / name, len(names)) for name in shown]
        if len(files) == count:
            raise ValueError(f"{path} holds no image.")
        if (name := _class(path)) in names:
            raise ValueError(f"{path} has the name of another class, in another form of Unicode: put both into one.")
        names.append(name)
    if not names:
        raise ValueError(f"{folder} holds no classes.")
    return tuple(names), files
