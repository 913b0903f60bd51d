"""Arrays of images, .npy: (N, C, H, W) or (C, H, W), uint8 or floats in [0, 1], and the record beside.

Grey ones, of one channel, count as three equal channels, and come back as grey.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..lock.pixels import to_bytes
from ..paths import free, out_of_memory, regular, replacing, write_text
from .pictures import Job, another
from .record import LARGEST, Record, check, encrypted_already, exists, parse, source_sum

_AT_ONCE = 2**24  # values that are encrypted at once


def record_path(path: Path) -> Path:
    """Where the record of an array stands: beside it."""
    return path.with_name(path.name + ".json")


def recorded(path: Path) -> Record | None:
    """The record beside an array, None where there is none."""
    beside = record_path(path)
    if not beside.exists():
        return None
    with regular(beside).open("rb") as file:
        return parse(file.read(LARGEST + 1), str(beside), ("dtype",))


def opened(path: Path) -> Any:
    """An array on disk, of which only what is used is read; nothing in it is unpickled. ValueError where it is none."""
    regular(path)
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # whatever the parser says of a damaged header
        if isinstance(error, OSError) or out_of_memory(error):
            raise
        raise ValueError(
            f"{path} is no array of numbers in .npy format, or is damaged or cut off: save it anew, by numpy.save."
        ) from error
    if not array.size:
        raise ValueError(f"{path} holds no image: its shape is {array.shape}.")
    if array.dtype.name not in ("uint8", "float16", "float32", "float64") or array.ndim not in (3, 4):
        raise ValueError(
            f"{path} holds {array.dtype} {array.shape}: images are (N, C, H, W) or (C, H, W), uint8 or floats."
        )
    return array


def copied(array: np.ndarray) -> np.ndarray:
    """A copy in the machine's order of bytes and C's order of axes, as torch takes it."""
    return np.array(array, array.dtype.newbyteorder("="), order="C")


def convert(source: Path, target: Path, job: Job) -> bool:
    """Encrypt or decrypt an array; whether there was anything to do."""
    if target.suffix != ".npy":
        raise ValueError(f"{target} is no name for an array: name a .npy.")
    found = recorded(source)
    if not job.decrypt and found and found.encrypted:
        raise encrypted_already(source, found)
    if os.path.lexists(target) and not job.force:
        there = recorded(target) if target.exists() else None
        if there and there.settings() == replace(job.record, encrypted=not job.decrypt):
            if there.source != source_sum(source, job.source_key):
                raise another(target, source)
            opened(target)  # ValueError where a crash cut it off
            return False
        raise exists(target, there, job.record)
    if os.path.lexists(beside := record_path(target)) and not job.force:
        try:
            recorded(target)
        except ValueError:  # not of ours
            raise exists(beside, None, job.record) from None
    array = opened(source)
    if job.record.resize or job.record.crop or job.pad:
        raise ValueError(f"{source} is an array: resize, crop and pad it before.")
    if job.decrypt:
        if found is None:
            raise ValueError(
                f"{source} has no record of its cipher beside it ({record_path(source).name}): restore it."
            )
        if not found.encrypted:
            raise ValueError(f"{source} is decrypted already.")
        check(found, job.record, str(source))
        record = found
    else:
        record = replace(job.record, dtype=array.dtype.name, mode="L" if array.shape[-3] == 1 else None)
    of = source_sum(source, job.source_key)
    try:
        _write(target, array, job, record if job.decrypt else replace(record, source=of), of)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{source}: {error}") from error
    return True


def _write(target, array, job, record, of):
    change, grey, crc = job.cipher.decrypt if job.decrypt else job.cipher.encrypt, record.mode == "L", None
    images = array if array.ndim == 4 else array[None]
    step = max(1, _AT_ONCE // images[0].size)
    with replacing(target, over=job.force) as file:
        for start in range(0, len(images), step):
            given = copied(images[start : start + step])
            if grey and not job.decrypt:
                given = np.repeat(given, 3, axis=1)
            found = change(torch.from_numpy(given))
            if job.decrypt:
                found = found[:, :1] if grey else found
                found = to_bytes(found) if record.dtype == "uint8" else found.to(getattr(torch, record.dtype))
            part = np.ascontiguousarray(found.numpy())
            crc = record.summed(given if job.decrypt else part, crc)
            if not start:
                header = {"descr": np.lib.format.dtype_to_descr(part.dtype), "fortran_order": False}
                shape = (*array.shape[:-3], *part.shape[1:])
                np.lib.format.write_array_header_1_0(file, header | {"shape": shape})
            file.write(part.data)
        if job.decrypt and record.crc not in (None, crc):
            raise ValueError("it was changed after it was encrypted, or its record is another's: restore both.")
        if not job.force:
            free(target)  # or the record would be another's
        record_path(target).unlink(missing_ok=True)  # so that no old record ever stands beside a new array
    made = replace(record, encrypted=not job.decrypt, crc=None if job.decrypt else crc, source=of)
    write_text(record_path(target), made.text() + "\n")
