"""Image files: read as bytes of red, green and blue, encrypted patch by patch, and written as PNG with their record.

Read are PNG, JPEG, WebP, TIFF, BMP and GIF of one frame and 8 bits a channel: RGB, palettes, and grey, which counts as
three equal channels and comes back as grey. Turned as EXIF says. An alpha channel is dropped where all is opaque.
Refused, for a network sees none of it: transparency, 16 bits, several frames, CMYK and other colours. Only pixels are
written: no EXIF, thumbnail, position or colour profile of the original.
"""

import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..lock.patch import PatchCipher, block_entries, entry_table
from ..paths import need, out_of_memory, regular, replacing
from .record import NAME, Record, check, encrypted_already, exists, parse, source_sum

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
_END = b"\0\0\0\0IEND\xae\x42\x60\x82"  # the last chunk of each PNG
_SMALL = 2**16  # pixels of an image of which a chunk may be in memory
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")


@dataclass(frozen=True)
class Job:
    """What is to be done to each file. record: its settings; source_key: see ``record``; pad, force: as the command
    line says."""

    cipher: PatchCipher
    record: Record
    source_key: bytes = field(repr=False)
    decrypt: bool = False
    pad: bool = False
    force: bool = False


def check_target(path: Path) -> None:
    """ValueError where an output is no PNG: no other format keeps both the bytes and the record."""
    suffix = path.suffix.lower()
    if suffix in (".jpg", ".jpeg"):
        raise ValueError(
            f"{path} would be a JPEG, which changes the values of pixels: neither predictions nor decrypted images "
            "would be exact. Name a .png."
        )
    if suffix != ".png":
        raise ValueError(f"{path} is no name of an output: images are written as .png, arrays as .npy.")


def convert(source: Path, target: Path, job: Job) -> Iterator[bool | None]:
    """Encrypt or decrypt an image file: at last, whether there was anything to do, for an interrupted job finds some
    done. Before, None after each step of a small image, which may wait there for others."""
    if is_done(target, source, job):
        yield False
        return
    image, found = read(source)
    pauses = [None] * (max(image.width * image.height, (job.record.resize or 0) ** 2) <= _SMALL)
    yield from pauses
    pixels, record = (_decrypted if job.decrypt else _encrypted)(image, found, source, job)
    yield from pauses
    data = png(pixels, record)
    yield from pauses
    try:
        with replacing(target, one_of_many=True, over=job.force) as file:
            file.write(data)
    except FileExistsError:  # from another process, since: the same, or refused
        yield not is_done(target, source, job)
        return
    yield True


def is_done(target: Path, source: Path, job: Job) -> bool:
    """Whether ``target`` is what the job makes of ``source``, by its record. FileExistsError where it is something
    else, unless the job may replace it."""
    if job.force or not os.path.lexists(target):
        return False
    try:
        found = recorded(target)
    except (ValueError, OSError):
        found = None
    same = found and found.settings() == replace(job.record, encrypted=not job.decrypt)
    if found and same and found.source == source_sum(source, job.source_key):
        with target.open("rb") as file:
            whole = file.seek(-12, os.SEEK_END) and file.read() == _END
        if not whole:
            raise ValueError(f"{target} is cut off, as by a crash: delete it, and give the same command again.")
        return True
    if not job.decrypt and (mine := recorded(source)) and mine.encrypted:  # no --force would help
        raise encrypted_already(source, mine)
    if same:
        raise another(target, source)
    raise exists(target, found, job.record)


def another(target: Path, source: Path) -> FileExistsError:
    """What is said of an output of another file than the one that its source is now."""
    return FileExistsError(f"{target} was not made of {source} as it is now: give --force to make it anew.")


def recorded(path: Path) -> Record | None:
    """The record in a file, None where there is none."""
    with _opened(path) as image:
        if NAME not in image.info and image.format == "PNG" and _recorded_behind(path):
            with _damage_told(path):
                image.load()
        return _record(image, path)


def read(path: Path) -> tuple["Image.Image", Record | None]:
    """An image of mode RGB or L, and its record. ValueError or OSError where it is of a kind that is refused."""
    ops = need("PIL.ImageOps", "files")
    with _opened(path) as image:
        record = _record(image, path)
        with _damage_told(path):
            frames = getattr(image, "n_frames", 1)  # which reads on
        if frames > 1:
            raise ValueError(f"{path} has {frames} frames: save the one that is meant as a file of its own.")
        if ";16" in str(image.tile) or image.mode[0] in "IF":
            raise ValueError(f"{path} has more than 8 bits a channel, which models do not see: save it with 8 first.")
        with _damage_told(path):
            image.load()
        record = record or _record(image, path)  # for text behind the pixels is seen now
        with _damage_told(path):
            ops.exif_transpose(image, in_place=True)
        if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
            grey = image.mode in ("L", "LA", "La")
            image = image.convert("RGBA")
            if image.getextrema()[3] != (255, 255):
                raise ValueError(f"{path} is transparent in places, which models do not see: put it on a ground first.")
            image = image.convert("RGB").convert("L") if grey else image.convert("RGB")
        if image.mode in ("1", "P"):
            image = image.convert("L" if image.mode == "1" else "RGB")
        if image.mode not in ("RGB", "L"):
            raise ValueError(f"{path} has the colours {image.mode}: convert it to RGB first, by its colour profile.")
        return image, record


def png(pixels: np.ndarray, record: Record) -> bytes:
    """A PNG of pixels (H, W, 3) or (H, W), uint8, with its record. Its frame is put together here: of a small image,
    what Pillow does around the compression takes as long."""
    (height, width), grey = pixels.shape[:2], pixels.ndim == 2
    if record.encrypted:  # no row is filtered, as its first byte says: that would hardly make less of shuffled pixels
        rows = np.zeros((height, 1 + pixels[0].size), np.uint8)
        rows[:, 1:] = pixels.reshape(height, -1)
        data = zlib.compress(rows)
    else:
        mode = "L" if grey else "RGB"
        data = need("PIL.Image", "files").frombytes(mode, (width, height), pixels.tobytes()).tobytes("zip", mode)
    head = struct.pack(">2I5B", width, height, 8, 0 if grey else 2, 0, 0, 0)
    text = f"{NAME}\0{record.text()}".encode()
    chunks = [(b"IHDR", head), (b"tEXt", text), (b"IDAT", data)]
    parts = [(len(d).to_bytes(4), kind, d, zlib.crc32(d, zlib.crc32(kind)).to_bytes(4)) for kind, d in chunks]
    return b"".join([b"\x89PNG\r\n\x1a\n", *(piece for part in parts for piece in part), _END])


def scramble(pixels: np.ndarray, cipher: PatchCipher, undo: bool = False) -> np.ndarray:
    """``cipher.encrypt`` (undo: ``decrypt``) of pixels (H, W, C), uint8, by a table of one row of blocks: as quick for
    small images as reading them, and little memory for large ones."""
    source, turned = _tables(cipher, pixels.shape[1], undo)
    bands = pixels.reshape(-1, len(source))
    return (np.take(bands, source, axis=1) ^ turned).reshape(pixels.shape)


@lru_cache(maxsize=16)
def _tables(cipher, width, undo):
    order, flipped = cipher.permutation, cipher.flipped
    if undo:
        order = np.argsort(order)
        flipped = flipped[order]
    places = block_entries(cipher.block_size, (cipher.channels, cipher.block_size, width))
    channel, pixel = divmod(places, cipher.block_size * width)
    places = pixel * cipher.channels + channel  # where Pillow has them
    source, turned = entry_table(places, places[:, order], np.broadcast_to(flipped, places.shape))
    return source, turned.astype(np.uint8) * 255


def _encrypted(image, found, path, job):
    if found and found.encrypted:
        raise encrypted_already(path, found)
    settings, block = job.record, job.cipher.block_size
    mode, image = image.mode, image if image.mode == "RGB" else image.convert("RGB")
    if settings.resize:
        image = _resized(image, settings.resize, settings.resample, path)
    if settings.crop:
        image = _cropped(image, settings.crop, path)
    pixels = np.asarray(image)
    h, w = original = pixels.shape[:2]
    if h % block or w % block:
        if not job.pad:
            way_out = "--crop N to cut a square out of its middle" if min(h, w) >= block else "--resize N to enlarge it"
            raise ValueError(
                f"{path} is {w} x {h}, which patches of {block} (--patch) do not fill: give {way_out}, or --pad to add "
                "copies of its last row and column, which decryption removes."
            )
        pixels = np.pad(pixels, ((0, -h % block), (0, -w % block), (0, 0)), "edge")
    size, pixels = pixels.shape[:2], scramble(pixels, job.cipher)
    original = None if size == original else original
    source = source_sum(path, job.source_key)
    made = replace(settings, size=size, original=original, mode=mode, source=source)
    return pixels, replace(made, crc=made.summed(pixels))


def _decrypted(image, found, path, job):
    if found is None:
        raise ValueError(
            f"{path} carries no record of its cipher: it is not encrypted, or was saved by another program since. "
            "Decrypt the file that encrypt-images wrote."
        )
    if not found.encrypted:
        raise ValueError(f"{path} is decrypted already.")
    check(found, job.record, str(path))
    pixels = np.asarray(image)
    same = pixels.ndim == 3 and pixels.shape[:2] == found.size and found.crc in (None, found.summed(pixels))
    if not same or any(n % job.cipher.block_size for n in found.size):
        raise ValueError(f"{path} was resized or changed after it was encrypted: decrypt the file as it was.")
    pixels = scramble(pixels, job.cipher, undo=True)
    h, w = found.original or found.size
    if h > pixels.shape[0] or w > pixels.shape[1]:
        raise ValueError(f"{path} has a damaged record of its cipher: restore the file, or encrypt it again.")
    pixels = pixels[:h, :w, 0] if found.mode == "L" else pixels[:h, :w]
    source = source_sum(path, job.source_key)
    return np.ascontiguousarray(pixels), replace(found, encrypted=False, crc=None, source=source)


def _resized(image, side, resample, path):
    w, h = image.size
    size = (side, max(1, int(side * h / w))) if w <= h else (max(1, int(side * w / h)), side)
    pillow = need("PIL.Image", "files")
    if size[0] * size[1] > pillow.MAX_IMAGE_PIXELS:
        raise ValueError(f"{path} would have {size[0]} x {size[1]} pixels: give --resize a smaller side.")
    return image.resize(size, getattr(pillow.Resampling, resample.upper()))


def _cropped(image, side, path):
    w, h = image.size
    if min(w, h) < side:
        raise ValueError(f"{path} is {w} x {h}, smaller than --crop {side}: give --resize {side} or more, too.")
    left, top = round((w - side) / 2), round((h - side) / 2)
    return image.crop((left, top, left + side, top + side))


def _opened(path: Path) -> Any:
    pillow = need("PIL.Image", "files")
    regular(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pillow.DecompressionBombWarning)
            return pillow.open(path, formats=FORMATS)
    except (pillow.DecompressionBombWarning, pillow.DecompressionBombError):
        limit = f"{pillow.MAX_IMAGE_PIXELS:,}"
        raise ValueError(f"{path} has more than {limit} pixels: cut or shrink it first.") from None
    except pillow.UnidentifiedImageError:
        raise ValueError(f"{path} is no image of the formats {', '.join(FORMATS)}, or is damaged.") from None
    except Exception as error:  # whatever a decoder says of a damaged file
        if isinstance(error, OSError) and error.errno:
            raise
        raise _damaged(path, error) from error


@contextmanager
def _damage_told(path):
    try:
        yield
    except Exception as error:  # whatever a decoder says of a damaged file
        raise _damaged(path, error) from error


def _damaged(path, error):
    """The ValueError for a decoder's error. One that tells of memory is raised again, for it tells of no damage."""
    if out_of_memory(error):
        raise error
    return ValueError(f"{path} is damaged ({_short(error)}): restore it from a copy.")


def _recorded_behind(path):
    """Whether a PNG holds text of this name, by the heads of its chunks, also where Pillow sees it not: behind the
    pixels, until these are read."""
    with path.open("rb") as file:
        at = file.seek(8)
        while len(head := file.read(8)) == 8:
            if head[4:] in (b"tEXt", b"zTXt", b"iTXt") and file.read(len(NAME) + 1) == f"{NAME}\0".encode():
                return True
            at = file.seek(at + 12 + int.from_bytes(head[:4]))
    return False


def _record(image, path):
    text = image.info.get(NAME)
    return None if text is None else parse(str(text), str(path), ("size",))


def _short(error):
    return " ".join(str(error).split())[:100] or type(error).__name__
