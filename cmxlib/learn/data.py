"""Labelled images as tensors: CIFAR-10 and CIFAR-100, read and checked; FontDigits, drawn; or one's own.

    data = load_dataset("cifar10")                              # or "cifar100", "fontdigits"
    data.train_images                                           # uint8 (50000, 3, 32, 32)
    data = load_dataset("folder", root="photos", size=64)       # of photos/train/CLASS/ and photos/test/CLASS/

CIFAR-10 and CIFAR-100: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

import json
import os
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import torch

from ..lock import checks
from ..paths import cache_dir, expanded, need, replacing
from . import cifar10
from .checkpoint import checksum

NAMES = ("cifar10", "cifar100", "fontdigits")  # that ``load_dataset`` knows, besides "folder"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images (N, C, H, W), uint8 with values 0..255 or floating with values in [0, 1], and labels (N,), whole numbers
    that count into ``classes``, kept as int64; C, H and W are any.

    mean and std are per channel, of values in [0, 1]: for one's own images, ``channel_statistics(train_images)``.
    Raises TypeError or ValueError where these do not fit together.
    """

    name: str
    train_images: torch.Tensor = field(repr=False)
    train_labels: torch.Tensor = field(repr=False)
    test_images: torch.Tensor = field(repr=False)
    test_labels: torch.Tensor = field(repr=False)
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self):
        if not isinstance(self.classes, (tuple, list)):
            raise TypeError(f"classes must be a tuple of names, but this is {checks.shown(self.classes)}.")
        if other := [name for name in self.classes if not isinstance(name, str)]:
            raise TypeError(
                f"classes must be texts, but one is {checks.shown(other[0])}: use tuple(map(str, classes))."
            )
        if twice := [name for i, name in enumerate(self.classes) if name in self.classes[:i]]:
            raise ValueError(f"classes must have different names, but {checks.shown(twice[0])} is there twice.")
        if not isinstance(self.name, str) or set(self.name) & set("/\\\n"):
            raise ValueError(f"name must be a text in one line, without / and \\, but it is {checks.shown(self.name)}.")
        channels = checks.images(self.train_images, name="train_images").shape[1]
        checks.images(self.test_images, channels, name="test_images")
        for part in ("train", "test"):
            labels = checks.labels(
                getattr(self, f"{part}_labels"), len(getattr(self, f"{part}_images")), name=f"{part}_labels"
            )
            object.__setattr__(self, f"{part}_labels", labels)
            images = getattr(self, f"{part}_images")
            if not len(labels) or not images.numel():
                raise ValueError(f"{part}_images must hold at least one image.")
            checks.values(images, f"{part}_images")
            if not 0 <= labels.min() <= labels.max() < len(self.classes):
                raise ValueError(
                    f"{part}_labels must count into the {len(self.classes)} classes from 0 on, "
                    f"but they run from {labels.min()} to {labels.max()}."
                )
        for name, values in zip(("mean", "std"), checks.statistics(self.mean, self.std, channels), strict=True):
            object.__setattr__(self, name, tuple(values.tolist()))

    @property
    def norm(self) -> dict[str, Any]:
        """``mean`` and ``std``, as functions take them: ``logits(model, images, **data.norm)``."""
        return {"mean": self.mean, "std": self.std}

    def fingerprint(self) -> str:
        """A checksum of all that is in it, to tell data sets apart; it is no secret and no proof against forgery."""
        tensors, fields = _parts(self)
        return checksum(tensors, json.dumps(fields))


def channel_statistics(images: torch.Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, of values in [0, 1], over all pixels of images (N, C, H, W)."""
    if not checks.values(checks.images(images)).numel():
        raise ValueError(f"images must hold at least one image, but this is {tuple(images.shape)}.")
    if images.is_floating_point():
        std, mean = torch.std_mean(images.double(), (0, 2, 3), correction=0)
        return tuple(mean.tolist()), tuple(std.tolist())
    # Exact, and without a float copy of all images: from how often each of the 256 values occurs.
    channels = images.transpose(0, 1).flatten(1).cpu().numpy()
    counts = np.stack([np.bincount(values, minlength=256) for values in channels])
    values = np.arange(256) / 255
    mean = counts @ values / counts.sum(1)
    return tuple(mean.tolist()), tuple(np.sqrt(counts @ values**2 / counts.sum(1) - mean**2).tolist())


def load_dataset(
    name: str, root: str | os.PathLike | None = None, *, size: int | None = None, channels: int = 3
) -> Dataset:
    """Load "cifar10", "cifar100", "fontdigits" (see `cmxlib.learn.fontdigits`), or a "folder" of one's own images.

    The CIFARs come from the first of: the folder `root`; the folder that the environment variable CMX_DATA names; the
    cache, where they are kept decoded; a download. A named folder holds cifar-10-batches-py or cifar-10-python.tar.gz
    (cifar-100-python, cifar-100-python.tar.gz), or is that folder itself. FontDigits is drawn and takes no notice of
    root.

    A named folder always counts: its files are compared with those that the cache was made from by name, size and
    time of change, and where these differ all MD5 sums are checked again. So an incomplete folder is an error even
    when a cache exists, and an unchanged one costs no second check.

    A "folder" holds root/train/CLASS/... and root/test/CLASS/..., whose images are brought to ``size`` x ``size``
    pixels and to 3 channels or, grey, to 1: see `cmxlib.learn.folder`. It is read anew each time, and its name as a
    Dataset is that of ``root``.

    Raises ValueError for an unknown name and DatasetError for missing or damaged files.
    """
    if not isinstance(root, (str, os.PathLike, NoneType)):
        raise TypeError(f"root must be the path of a folder, but this is {checks.shown(root)}.")
    if not isinstance(name, str) or name not in (*NAMES, "folder"):
        known = '"cifar10", "cifar100", "fontdigits" or "folder"'
        raise ValueError(f"There is no data set {checks.shown(name)}: choose {known}.")
    if name == "folder":
        from .folder import read_folder

        if root is None or size is None:
            raise ValueError('A "folder" needs root= and size=, the side in pixels that all its images get.')
        return _dataset(expanded(root).resolve().name, *read_folder(root, size, channels))
    if size is not None or channels != 3:
        raise ValueError(f'size and channels are of a "folder": {checks.shown(name)} comes as it is.')
    if name in ("cifar10", "cifar100"):
        which = cifar10.CIFAR10 if name == "cifar10" else cifar10.CIFAR100
        return _load_cifar(name, which, root or os.environ.get("CMX_DATA"))
    return _load_fontdigits()


def _load_cifar(name, which, named):
    files, origin = cifar10.find_files(which, named) if named else (None, None)

    def build() -> Dataset:
        files_or_tar = files or [cifar10.download(which, cache_dir())]
        return _dataset(name, *cifar10.decode(which, cifar10.read_checked(which, files_or_tar)))

    return _cached(name, origin, build)


def _load_fontdigits() -> Dataset:
    from . import fontdigits

    def build() -> Dataset:
        return _dataset("fontdigits", *fontdigits.draw_fontdigits(), tuple("0123456789"))

    # Drawn anew whenever the drawing, or what it is drawn with, has changed.
    code = zlib.crc32(Path(fontdigits.__file__).read_bytes())
    need("matplotlib", "book")
    need("PIL", "files")
    versions = {package: version(package) for package in ("matplotlib", "numpy", "pillow")}
    return _cached("fontdigits", json.dumps([code, versions]), build)


def _dataset(name, *parts) -> Dataset:
    """The data set of four arrays, images and labels for training, then for testing, and its classes."""
    *arrays, classes = parts
    train_images, train_labels, test_images, test_labels = map(torch.from_numpy, arrays)
    mean, std = channel_statistics(train_images)
    return Dataset(name, train_images, train_labels, test_images, test_labels, classes, mean, std)


# The decoded cache: one safetensors file a data set, with what it was made from and a checksum in its metadata.


def _cached(name: str, origin: str | None, build: Callable[[], Dataset]) -> Dataset:
    """The cached data set if it is whole and was made from `origin` (None: whatever from); else build() and keep it."""
    path = cache_dir() / f"{name}.safetensors"
    data = _read_cache(path, origin)
    if data is None:
        data = build()
        try:
            _write_cache(path, origin, data)
        except OSError as error:
            warnings.warn(f"The decoded {name} could not be kept in {path.parent}: {error}", stacklevel=4)
    return data


def _read_cache(path: Path, origin: str | None) -> Dataset | None:
    """None where the file is absent, damaged or made from something else: whoever asks will build it again."""
    safetensors = need("safetensors", "files")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        if metadata["crc32"] != checksum(tensors, metadata["fields"]):
            return None
        fields = json.loads(metadata["fields"])
        if fields.pop("origin") != origin and origin is not None:
            return None
        return Dataset(**tensors, **fields | {"classes": tuple(fields["classes"])})
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError):
        return None


def _write_cache(path: Path, origin: str | None, data: Dataset) -> None:
    tensors, fields = _parts(data)
    text = json.dumps({"origin": origin, **fields})
    save = need("safetensors.torch", "files").save
    with replacing(path) as file:
        file.write(save(tensors, metadata={"fields": text, "crc32": checksum(tensors, text)}))


def _parts(data: Dataset) -> tuple[dict[str, torch.Tensor], dict]:
    fields = dict(vars(data))
    return {name: fields.pop(name) for name in list(fields) if isinstance(fields[name], torch.Tensor)}, fields
