"""The two data sets as tensors: CIFAR-10, read and checked, and FontDigits, drawn.

    data = load_dataset("cifar10")      # or "fontdigits"
    data.train_images                   # uint8 (50000, 3, 32, 32)

CIFAR-10: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

import json
import os
import tempfile
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..paths import cache_dir
from . import cifar10


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images as uint8 (N, 3, 32, 32) with values 0..255, labels as int64 (N,) that count into `classes`.

    mean and std are per channel, over all pixels of the training images, of values in [0, 1].
    """

    name: str
    train_images: torch.Tensor = field(repr=False)
    train_labels: torch.Tensor = field(repr=False)
    test_images: torch.Tensor = field(repr=False)
    test_labels: torch.Tensor = field(repr=False)
    classes: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def load_dataset(name: str, root: str | os.PathLike | None = None) -> Dataset:
    """Load "cifar10" or "fontdigits" (see `cmxlib.learn.fontdigits`), from a decoded cache where there is one.

    CIFAR-10 comes from the first of: the folder `root`; the folder that the environment variable CMX_DATA names; the
    cache; torchvision's download. A named folder holds cifar-10-batches-py or cifar-10-python.tar.gz, or is
    cifar-10-batches-py itself. FontDigits is drawn and takes no notice of root.

    A named folder always counts: its files are compared with those that the cache was made from by name, size and
    time of change, and where these differ all MD5 sums are checked again. So an incomplete folder is an error even
    when a cache exists, and an unchanged one costs no second check.

    Raises ValueError for an unknown name and DatasetError for missing or damaged files.
    """
    if name == "cifar10":
        return _load_cifar10(root or os.environ.get("CMX_DATA"))
    if name == "fontdigits":
        return _load_fontdigits()
    raise ValueError(f'There is no data set {name!r}: choose "cifar10" or "fontdigits".')


def _load_cifar10(named: str | os.PathLike | None) -> Dataset:
    if named:
        files = cifar10.find_files(Path(named).expanduser())
        origin = json.dumps([(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files])
    else:
        files = origin = None

    def build() -> Dataset:
        return _dataset("cifar10", *cifar10.decode(cifar10.read_checked(files or [cifar10.download(cache_dir())])))

    return _cached("cifar10", origin, build)


def _load_fontdigits() -> Dataset:
    from . import fontdigits  # here, so that CIFAR-10 does not wait for matplotlib

    def build() -> Dataset:
        return _dataset("fontdigits", *fontdigits.draw_fontdigits(), classes=tuple("0123456789"))

    # Drawn anew whenever the drawing, or what it is drawn with, has changed.
    code = zlib.crc32(Path(fontdigits.__file__).read_bytes())
    versions = {package: version(package) for package in ("matplotlib", "numpy", "pillow")}
    return _cached("fontdigits", json.dumps([code, versions]), build)


def _dataset(name: str, train_images: np.ndarray, train_labels, test_images, test_labels, classes) -> Dataset:
    # Exact, and without a float copy of all images: from how often each of the 256 values occurs.
    counts = np.stack([np.bincount(train_images[:, c].ravel(), minlength=256) for c in range(3)])
    values = np.arange(256) / 255
    mean = counts @ values / counts.sum(1)
    std = np.sqrt(counts @ values**2 / counts.sum(1) - mean**2)
    tensors = (torch.from_numpy(a) for a in (train_images, train_labels, test_images, test_labels))
    return Dataset(name, *tensors, classes=classes, mean=tuple(mean.tolist()), std=tuple(std.tolist()))


# The decoded cache: one safetensors file a data set, with what it was made from and a checksum in its metadata.


def _cached(name: str, origin: str | None, build: Callable[[], Dataset]) -> Dataset:
    """The cached data set if it is whole and was made from `origin` (None: whatever from); else build() and keep it."""
    path = cache_dir() / f"{name}.safetensors"
    data = _read_cache(path, origin)
    if data is None:
        data = build()
        try:
            _write_cache(path, origin, data)
        except (OSError, SafetensorError) as error:
            warnings.warn(f"The decoded {name} could not be kept in {path.parent}: {error}", stacklevel=4)
    return data


def _read_cache(path: Path, origin: str | None) -> Dataset | None:
    """None where the file is absent, damaged or made from something else: whoever asks will build it again."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        if metadata["crc32"] != _crc32(tensors, metadata["fields"]):
            return None
        fields = json.loads(metadata["fields"])
        if fields.pop("origin") != origin and origin is not None:
            return None
        fields |= {key: tuple(fields[key]) for key in ("classes", "mean", "std")}
        return Dataset(**tensors, **fields)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None


def _write_cache(path: Path, origin: str | None, data: Dataset) -> None:
    fields = dict(vars(data))
    tensors = {name: fields.pop(name) for name in list(fields) if isinstance(fields[name], torch.Tensor)}
    fields = json.dumps({"origin": origin, **fields})
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".part")
    os.close(handle)
    try:
        save_file(tensors, temporary, metadata={"fields": fields, "crc32": _crc32(tensors, fields)})
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _crc32(tensors: dict[str, torch.Tensor], fields: str) -> str:
    """A checksum against accidents; nothing in the cache is ever run."""
    crc = zlib.crc32(fields.encode())
    for name, tensor in sorted(tensors.items()):
        crc = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), crc)
        crc = zlib.crc32(tensor.contiguous().numpy(), crc)
    return f"{crc:08x}"
