"""Checkpoints: .safetensors, and .pt or .pth of torch.save, of which weights alone are read, never code.

A layer is what holds "NAME.weight"; its kernel can be seen in a checkpoint, its stride cannot. All but the tensors that
are exchanged is copied as it is, a little at a time.
"""

import json
import shutil
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..paths import need, out_of_memory, regular, replacing
from .record import LARGEST, MODEL, NAME, Record, parse, unique

Values = dict[str, torch.Tensor]  # by name, what a file's tensors are exchanged for
_TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_DEEPEST = 50  # dicts and lists in one another


class Safetensors:
    """A .safetensors file: a header of JSON, then the bytes of all tensors."""

    embedding = order = None  # nothing in the file says which layer it is, or how it takes patches

    def __init__(self, path: Path):
        self.path = regular(path)
        try:
            with need("safetensors", "files").safe_open(path, "pt"):  # asks whether header and sizes agree
                pass
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                self._header = json.loads(file.read(length), object_pairs_hook=unique)
        except FileNotFoundError:
            raise FileNotFoundError(2, "No such file", str(path)) from None
        except Exception as error:  # whatever the parser says of a damaged header
            if out_of_memory(error):
                raise
            raise ValueError(
                f"{path} is no complete safetensors file ({' '.join(str(error).split())[:100]}): get it again."
            ) from error
        self._start = 8 + length
        self._metadata = self._header.pop("__metadata__", None) or {}

    @property
    def record(self) -> Record | None:
        text = self._metadata.get(NAME)
        return None if text is None else parse(text, str(self.path), MODEL)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor, by name."""
        return {name: tuple(found["shape"]) for name, found in self._header.items()}

    def tensor(self, name: str) -> torch.Tensor | None:
        """A tensor of floating numbers, None where there is none of that name."""
        if name not in self._header:
            return None
        found = self._header[name]
        if found["dtype"] not in _TYPES:
            raise ValueError(f"{name} of {self.path} is {found['dtype']}: encrypt the model before quantising it.")
        start, end = found["data_offsets"]
        data = np.memmap(self.path, np.uint8, "c", self._start + start, end - start)  # read where it is used
        return torch.from_numpy(data).view(_TYPES[found["dtype"]]).view(found["shape"])

    def stored(self, but: str) -> Iterator[tuple[str, torch.Tensor]]:
        """By name, the floating numbers of every tensor but one, flat."""
        for name, found in self._header.items():
            if name != but and found["dtype"] in _TYPES and all(found["shape"]):
                yield name, self.tensor(name).flatten()  # type: ignore[union-attr]

    def write(self, target: Path, values: Values, record: Record, force: bool) -> None:
        """Write the file with other values of some tensors, and the record in its metadata."""
        header = {"__metadata__": {**self._metadata, NAME: record.text()}, **self._header}
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        with replacing(target, over=force) as file, self.path.open("rb") as source:
            file.write(len(text).to_bytes(8, "little") + text)
            source.seek(self._start)
            shutil.copyfileobj(source, file, 2**20)
            for name, value in values.items():
                file.seek(8 + len(text) + self._header[name]["data_offsets"][0])
                file.write(value.contiguous().view(torch.uint8).numpy().tobytes())

    def same_elsewhere(self, other: "Safetensors", told: set[str]) -> list[str]:
        """The tensors, but those told, that differ from the other file's by name, type, shape or a byte."""
        names = (set(self._header) | set(other._header)) - told
        return sorted(name for name in names if not self._same(other, name))

    def _same(self, other, name):
        one, two = self._header.get(name), other._header.get(name)
        if not one or not two or (one["dtype"], one["shape"]) != (two["dtype"], two["shape"]):
            return False
        (start, end), begin = one["data_offsets"], two["data_offsets"][0]
        with self.path.open("rb") as a, other.path.open("rb") as b:
            a.seek(self._start + start)
            b.seek(other._start + begin)
            steps = [min(2**20, end - at) for at in range(start, end, 2**20)]
            return all(a.read(step) == b.read(step) for step in steps)


class TorchFile:
    """A file of torch.save: a state dict, alone or somewhere in dicts, such as "model" beside "epoch". What lists hold
    is called by its place in them."""

    embedding = order = None

    def __init__(self, path: Path):
        self.path = regular(path)
        path.open("rb").close()  # the system's own error, where it cannot be read
        try:
            with zipfile.ZipFile(path) as archive:
                infos = [info for info in archive.infolist() if info.filename.endswith(f"/{NAME}.json")]
                self._text = archive.open(infos[0]).read(LARGEST + 1) if infos else None
            with warnings.catch_warnings(action="ignore"):  # of sparse tensors, which are refused below
                self._content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # whatever the parsers say; torch's own advice, to run code, is not passed on
            if out_of_memory(error):
                raise
            raise ValueError(
                f"{path} is no checkpoint of weights alone, or is damaged ({type(error).__name__}): what could run "
                "code is not read, nor the format of before torch 1.6; save model.state_dict(), or safetensors."
            ) from error
        found = list(_tensors(self._content, path))
        self._places = dict(found)
        if len(self._places) < len(found):
            raise ValueError(f"{path} has two tensors of one name, keys joined by dots: save the state dict alone.")
        if not self._places:
            raise ValueError(f"{path} holds no tensors by name: save model.state_dict().")
        for name, (holder, key) in self._places.items():
            if holder[key].is_meta or holder[key].layout != torch.strided:
                kind = "on the meta device, without values" if holder[key].is_meta else "sparse"
                raise ValueError(f"{name} of {path} is {kind}: save a state dict of ordinary, dense tensors.")

    @property
    def record(self) -> Record | None:
        return None if self._text is None else parse(self._text, str(self.path), MODEL)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor, by its keys, joined by dots."""
        return {name: tuple(holder[key].shape) for name, (holder, key) in self._places.items()}

    def tensor(self, name: str) -> torch.Tensor | None:
        """A tensor of floating numbers, None where there is none of that name."""
        if name not in self._places:
            return None
        found = self._held(name)
        if found.dtype not in _TYPES.values():
            raise ValueError(f"{name} of {self.path} is {found.dtype}: encrypt the model before quantising it.")
        return found

    def stored(self, but: str) -> Iterator[tuple[str, torch.Tensor]]:
        """By name, the floating numbers of every tensor but one, flat: all that are saved with it, each but once."""
        seen = set()
        for name in self._places:
            held = self._held(name)
            place = held.untyped_storage().data_ptr(), held.dtype
            if name != but and held.dtype in _TYPES.values() and place not in seen:
                seen.add(place)
                yield name, torch.empty(0, dtype=held.dtype).set_(held.untyped_storage())

    def write(self, target: Path, values: Values, record: Record, force: bool) -> None:
        """Write the file with other values of some tensors, and the record as an entry that torch.load passes over."""
        for name, value in values.items():
            holder, key = self._places[name]
            old = holder[key]
            if not isinstance(holder, dict):
                raise ValueError(f"{name} of {self.path} stands in a list, not by name: save model.state_dict().")
            if old.untyped_storage().nbytes() != old.numel() * old.element_size():
                raise ValueError(
                    f"{name} of {self.path} is a part of a larger tensor, which would keep its plain values: save a "
                    "state dict of clones."
                )
            holder[key] = nn.Parameter(value, old.requires_grad) if isinstance(old, nn.Parameter) else value
        with replacing(target, over=force) as file:
            torch.save(self._content, file)
            with zipfile.ZipFile(file, "a") as archive:
                archive.writestr(f"{archive.namelist()[0].split('/')[0]}/{NAME}.json", record.text())

    def same_elsewhere(self, other: "TorchFile", told: set[str]) -> list[str]:
        """The tensors, but those told, that differ from the other file's."""
        names = (set(self._places) | set(other._places)) - told
        return sorted(n for n in names if not _equal(self._held(n), other._held(n)))

    def _held(self, name):
        if name not in self._places:
            return None
        holder, key = self._places[name]
        return holder[key].detach()


def _equal(one, two):
    """Whether two tensors agree in type, shape and every bit, NaN included."""
    if one is None or two is None or one.dtype != two.dtype or one.shape != two.shape:
        return False
    if one.is_quantized:  # whose bits torch does not view, and whose scales count, too
        return torch.equal(one, two)
    return torch.equal(*(each.resolve_conj().resolve_neg().flatten().view(torch.uint8) for each in (one, two)))


def _tensors(content: Any, path: Path) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """(name, (what holds it, under which key)) of every tensor in a dict, however far inside."""
    waiting: list[tuple[str, int, Any]] = [("", 0, content)] if isinstance(content, dict) else []
    seen = set()
    for before, depth, holder in waiting:  # which grows
        if id(holder) in seen:  # the same at two places, or in itself
            continue
        seen.add(id(holder))
        if depth > _DEEPEST:
            raise ValueError(f"{path} is nested deeper than {_DEEPEST} dicts and lists: save model.state_dict().")
        held = holder if isinstance(holder, dict | list | tuple) else list(holder)
        for key, value in held.items() if isinstance(held, dict) else enumerate(held):
            if isinstance(value, torch.Tensor):
                yield f"{before}{key}", (held, key)
            elif isinstance(value, dict | list | tuple | set):
                waiting.append((f"{before}{key}.", depth + 1, value))
