"""Images of one's own, brought to one size: a folder for each class, root/train/CLASS/... and root/test/CLASS/..."""

import os
from pathlib import Path

import torch

from ..files import pictures
from ..lock import checks
from ..paths import need, sentence
from .cifar10 import DatasetError

_WAY_OUT = "Put the images into root/train/CLASS/ and root/test/CLASS/, one folder a class, the same in both."
_MODES = {1: "L", 3: "RGB"}


def read_folder(root: str | os.PathLike, size: int, channels: int = 3) -> tuple:
    """Train images, train labels, test images, test labels (uint8 (N, channels, size, size), int64 (N,)), class names.

    The shorter side of each image is resized to ``size`` (bilinear), and the middle square cut out. channels: 3 for
    RGB, or 1 for grey. The images of all classes are mixed, in an order that is the same each time, so that the first
    ones stand for all. Read is what `cmxlib.files.pictures` reads. DatasetError, naming the folder or the file, where
    the folders are not as above or an image is refused.
    """
    checks.whole(size, "size", 1, 10_000)
    if channels not in _MODES:
        raise ValueError(f"channels must be 3 (RGB) or 1 (grey), but it is {channels!r}.")
    v2 = need("torchvision.transforms.v2", "book")
    change = v2.Compose([v2.Resize(size), v2.CenterCrop(size), v2.PILToTensor()])
    found, classes = [], []
    for part in ("train", "test"):
        try:
            folder = need("torchvision.datasets", "book").ImageFolder(
                str(Path(root).expanduser() / part),
                transform=change,
                loader=lambda path: pictures.read(Path(path))[0].convert(_MODES[channels]),
                is_valid_file=lambda path: path.lower().endswith(pictures.SUFFIXES),
            )
            order = torch.randperm(len(folder), generator=torch.Generator().manual_seed(0)).tolist()
            images = torch.empty(len(order), channels, size, size, dtype=torch.uint8)
            for place, i in enumerate(order):
                images[place] = folder[i][0]
        except (OSError, ValueError) as error:
            raise DatasetError(f"The images of {root} cannot be read: {sentence(error)} {_WAY_OUT}") from error
        found += [images.numpy(), torch.tensor(folder.targets)[order].numpy()]
        classes.append(tuple(folder.classes))
    if other := sorted(set(classes[0]) ^ set(classes[1])):
        raise DatasetError(f"The classes {', '.join(other[:5])} are in one of train and test alone. {_WAY_OUT}")
    return *found, classes[0]
