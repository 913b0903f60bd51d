"""The record of what was encrypted, so that a wrong key, cipher or normalisation is told before it gives wrong answers.

A JSON object under the name "cmxlib": in the text of a PNG, in the metadata of safetensors and ONNX, in an entry of its
own in a .pt file, in a file x.npy.json beside x.npy. It names the key by its fingerprint alone.
"""

import hashlib
import json
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import paths
from ..lock.keys import SecretKey
from ..lock.patch import STEPS, PatchCipher

NAME = "cmxlib"
LARGEST = 65_536  # characters: what is longer is no record
MODEL = ("mean", "std", "layers")  # what every record of a model tells
_VERSION = 2  # 1 knew no crc


@dataclass(frozen=True)
class Record:
    """What was done to a file. None where it does not apply.

    size: height and width of an encrypted image. original: the same before it was padded. mode: "RGB", or "L" for a
    grey one. dtype: of the array before. crc: of record and values, see ``summed``. source: of the file before, see
    ``source_sum``. resize, crop, resample: of the image before. mean, std, layers: of a model; order: in which its
    Linear embedding takes a patch; norm: the layer that normalises each patch in front of that; positions: the tensor
    that took the offset, for images of image_size, of an embedding without a bias.
    """

    key: str
    steps: tuple[str, ...]
    patch: int
    encrypted: bool = True
    size: tuple[int, ...] | None = None
    original: tuple[int, ...] | None = None
    mode: str | None = None
    dtype: str | None = None
    crc: int | None = None
    source: str | None = None
    resize: int | None = None
    crop: int | None = None
    resample: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    layers: tuple[str, ...] | None = None
    order: str | None = None
    norm: str | None = None
    positions: str | None = None
    image_size: tuple[int, ...] | None = None

    def text(self) -> str:
        """As it is written: JSON on one line. Of a model it carries its own sum, as those of images carry theirs."""
        return (self if self.mean is None else replace(self, crc=self.summed(b"")))._json()

    def _json(self):
        found = {name: value for name, value in vars(self).items() if value is not None}
        return json.dumps({"version": _VERSION, **found})

    def settings(self) -> "Record":
        """The part that is the same for every file of one command."""
        return replace(self, size=None, original=None, mode=None, dtype=None, crc=None, source=None)

    def summed(self, values: Any, so_far: int | None = None) -> int:
        """CRC-32 of this record, but for the sum, and of bytes that were encrypted; of more of them after ``so_far``.

        It tells accidents, such as an encrypted image that was turned or brightened while its record was kept, but no
        malice: whoever alters an image can make its sum anew.
        """
        if so_far is None:
            so_far = zlib.crc32(replace(self, crc=None)._json().encode())
        return zlib.crc32(values, so_far)


def cipher_of(key: SecretKey, patch: int, steps: tuple[str, ...]) -> PatchCipher:
    """The cipher of a command, whose arguments are called otherwise than those of the library."""
    try:
        return PatchCipher(key, patch, steps=steps)
    except ValueError as error:
        raise ValueError(str(error).replace("patch_size or block_size", "--patch")) from None


def of(key: SecretKey, cipher: PatchCipher, **how: Any) -> Record:
    """The record of what this key and cipher encrypt."""
    return Record(key.fingerprint, cipher.steps, cipher.patch_size, **how)


def source_key(key: SecretKey) -> bytes:
    """The key of ``source_sum``."""
    return key.stream(32, purpose="sum of a source")


def source_sum(path: Path, key: bytes) -> str:
    """A sum of a file that something is made of, 32 hexadecimal digits, by which it is known again: BLAKE2b (RFC 7693)
    under ``source_key``, so that nobody without the secret can try which file it was."""
    found = hashlib.blake2b(key=key, digest_size=16)
    with open(paths.regular(path), "rb", buffering=0) as file:  # of small files half of hashlib.file_digest's time
        while part := file.read(2**20):
            found.update(part)
    return found.hexdigest()


_KINDS = {
    "key": lambda v: isinstance(v, str) and len(v) == 16,
    "steps": lambda v: _list(v, str) and all(step in STEPS for step in v) and 0 < len(set(v)) == len(v),
    "patch": lambda v: _whole(v),
    "encrypted": lambda v: isinstance(v, bool),
    "size": lambda v: _list(v, int) and len(v) == 2 and all(map(_whole, v)),
    "original": lambda v: _list(v, int) and len(v) == 2 and all(map(_whole, v)),
    "mode": lambda v: v in ("RGB", "L"),
    "dtype": lambda v: v in ("uint8", "float16", "float32", "float64"),
    "crc": lambda v: type(v) is int and 0 <= v < 2**32,
    "source": lambda v: isinstance(v, str) and len(v) == 32,
    "resize": lambda v: _whole(v),
    "crop": lambda v: _whole(v),
    "resample": lambda v: v in ("bilinear", "bicubic"),
    "mean": lambda v: _list(v, float) and len(v) == 3 and all(abs(x) <= 2 for x in v),
    "std": lambda v: _list(v, float) and len(v) == 3 and all(1e-6 < x < 2**20 for x in v),
    "layers": lambda v: _list(v, str) and 0 < len(v) < 100,
    "order": lambda v: v in ("chw", "hwc"),
    "norm": lambda v: isinstance(v, str),
    "positions": lambda v: isinstance(v, str),
    "image_size": lambda v: _list(v, int) and len(v) == 2 and all(map(_whole, v)),
}


def _list(value, kind):
    return isinstance(value, list) and all(type(v) is kind or (kind is float and type(v) is int) for v in value)


def _whole(value):
    return type(value) is int and 0 < value < 2**20


def parse(text: Any, where: str, told: tuple[str, ...] = ()) -> Record:
    """The record that ``text`` holds. ValueError, naming ``where`` it stood, for anything but a whole record of a file
    of which ``told`` is told."""
    problem = f"{where} has a damaged record of its cipher: restore the file, or encrypt it again."
    try:
        if not isinstance(text, (str, bytes)) or len(text) > LARGEST:
            raise ValueError
        found = json.loads(text, object_pairs_hook=unique)
        version = found.pop("version")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(problem) from None
    if type(version) is int and version > _VERSION:
        raise ValueError(f"{where} was encrypted by a later cmxlib (record of version {version}): use that one.")
    needed = {"key", "steps", "patch", *told, *(["image_size"] if "positions" in found else [])}
    if type(version) is not int or version < 1 or needed - set(found) or set(found) - set(_KINDS):
        raise ValueError(problem)
    if not all(_KINDS[name](value) for name, value in found.items()):
        raise ValueError(problem)
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in found.items()}
    record = Record(**values)
    if record.mean is not None and record.crc not in (None, record.summed(b"")):  # None: as cmxlib 0.1 began
        raise ValueError(problem)
    return record if record.mean is None else replace(record, crc=None)


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object as a dict, for json.loads. ValueError where a name stands twice: readers would differ on it."""
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a name stands twice")
    return dict(pairs)


def encrypted_already(path: Path, found: Record) -> ValueError:
    """What is said of a file that is encrypted and was to be encrypted again."""
    return ValueError(
        f"{path} is encrypted already, with the key {found.key}: give the plain one, or decrypt it first."
    )


def check(found: Record, asked: Record, where: str) -> None:
    """ValueError that says what was used and what was asked for, where the two differ."""
    if how := difference(found, asked):
        raise ValueError(f"{where} was encrypted with {how}.")


def exists(target: Path, found: Record | None, asked: Record) -> FileExistsError:
    """What is said of an output that stands there already and is not what was asked for."""
    how = difference(found, asked) if found and found.encrypted else ""
    return paths.exists(target, how and f", encrypted with {how}")


def difference(found: Record, asked: Record) -> str:
    """What was used, "not" what was asked for; empty where nothing differs that both tell."""
    said = {
        "key": lambda v: f"the key {v}",
        "steps": lambda v: f"--steps {','.join(v)}",
        "patch": lambda v: f"--patch {v}",
        "mean": lambda v: "--mean " + " ".join(f"{x:g}" for x in v),
        "std": lambda v: "--std " + " ".join(f"{x:g}" for x in v),
        "layers": lambda v: "--layer " + " ".join(v),
        "order": lambda v: f"--order {v}",
        "image_size": lambda v: "--image-size " + " ".join(map(str, v)),
    }
    for name, say in said.items():
        one, other = getattr(found, name), getattr(asked, name)
        if one is not None and other is not None and one != other:
            return f"{say(one)}, not with {say(other)}"
    return ""
