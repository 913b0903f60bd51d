"""Files of trainings and trained models: safetensors for the weights, JSON for the rest, each written at one stroke."""

import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..lock import checks
from ..paths import expanded, need, out_of_memory, regular, writable, write_bytes, write_text

if TYPE_CHECKING:
    import pandas as pd

SAME = ("settings", "data", "model", "transform", "autocast")  # of a training's state: what makes it this training


class CheckpointError(RuntimeError):
    """A checkpoint or a saved model that cannot be used; the message names it and says the way out."""


def _damage() -> tuple[type[Exception], ...]:
    """What reading a damaged file may raise."""
    of_tensors = need("safetensors", "files").SafetensorError
    return OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, of_tensors


def checksum(tensors: dict[str, torch.Tensor], text: str = "") -> str:
    """A CRC-32 of tensors, with their names, types and shapes, and of a text: against accidents, not forgery."""
    crc = zlib.crc32(text.encode())
    for name, tensor in sorted(tensors.items()):
        crc = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), crc)
        values = tensor.detach().cpu().contiguous().flatten()
        crc = zlib.crc32(values.view(torch.uint8).numpy(), crc)
    return f"{crc:08x}"


def model_checksum(model: nn.Module) -> str:
    """A checksum of all of a model that training leaves as it is: its layers, the names, types and shapes of what they
    hold, which of it is trained, and the values of the parameters that are not."""
    parameters = dict(model.named_parameters())
    frozen = {name: value for name, value in parameters.items() if not value.requires_grad}
    shapes = [(name, value.dtype, tuple(value.shape)) for name, value in model.state_dict().items()]
    layers = re.sub(r" at 0x[0-9a-f]+", "", str(model))  # where a function lies in memory is another each time
    return checksum(frozen, f"{layers} {shapes}")


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """The folder of a checkpoint, made if need be, for one process at a time: another one waits, and says so.

    CheckpointError where nothing can be written there: before hours of training, not after.
    """
    from filelock import FileLock, Timeout  # comes with torch

    try:
        folder = folder.resolve()  # "." has no name
        writable(folder)
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"Another process trains in {folder}: waiting until it is done.", flush=True)
            lock.acquire()
    except OSError as error:
        why = error.strerror or "a file is in its place"
        raise CheckpointError(
            f"The checkpoint folder {folder} cannot be written ({why}): choose another one; "
            "that of the cache is moved by the environment variable CMX_CACHE."
        ) from error
    try:
        yield
    finally:
        lock.release()


_OURS, _MODEL = {"cmxlib": "checkpoint"}, {"cmxlib": "model"}  # what the tensors of an epoch, and of a model, say


def save_checkpoint(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Write the state after an epoch into ``folder``, in place of the one before.

    ``state`` is what JSON can hold: what ``SAME`` lists, and the rows so far.
    """
    # The tensors go to a new file first, and then the JSON that names it: a crash between leaves the epoch before.
    tensors = {f"model.{name}": tensor for name, tensor in _kept(model).items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": tensor.contiguous() for name, tensor in values.items()}
    name = f"epoch-{len(state['rows']):03d}.safetensors"
    data = need("safetensors.torch", "files").save(tensors, _OURS)
    write_bytes(folder / name, data)
    found = {**state, "tensors": name, "sha256": _sum(data, {**state, "tensors": name})}
    write_text(folder / "state.json", json.dumps(found, indent=1))
    _drop_others(folder, name)


def _kept(model: nn.Module) -> dict[str, torch.Tensor]:
    """The model's tensors, each with memory of its own, as safetensors asks it: of tied weights, copies."""
    kept, seen = {}, set()
    for name, tensor in model.state_dict().items():
        memory = tensor.untyped_storage().data_ptr()
        kept[name] = tensor.clone(memory_format=torch.contiguous_format) if memory in seen else tensor.contiguous()
        seen.add(memory)
    return kept


def _ours(folder: Path, but: str = "") -> list[str]:
    """The files of epochs ``but`` one, where a training wrote them."""
    paths = sorted({*folder.glob("epoch-*.safetensors")} - {folder / but})
    return [path.name for path in paths if path.is_file() and _says(path) == _OURS]


def _says(path: Path) -> dict[str, str] | None:
    """What the tensors in a file say of themselves; None where it is gone, or of no format that is known here."""
    with suppress(Exception), need("safetensors", "files").safe_open(path, "numpy") as file:
        return file.metadata()
    return None


def _drop_others(folder: Path, name: str) -> None:
    """Delete the tensors of other epochs than the one that ``state.json`` names."""
    for old in _ours(folder, name):
        (folder / old).unlink(missing_ok=True)


def _sum(data: bytes, state: dict) -> str:
    """A SHA-256 of the tensors' file and of what is said of it, so that no changed digit of either is believed."""
    return hashlib.sha256(data + json.dumps(state, sort_keys=True).encode()).hexdigest()


def load_checkpoint(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: dict) -> dict:
    """Load what ``save_checkpoint`` wrote into model and optimizer, and return its state; ``state`` if there is none.

    CheckpointError where the folder's state is damaged or lost, or where it differs from ``state`` in what ``SAME``
    lists (None there: whatever it was). What has the right sum is looked at all the same, for anybody can make one.
    """
    if not (folder / "state.json").exists():
        _check_not_lost(folder)
        return state
    with _intact(folder):
        found = json.loads(regular(folder / "state.json").read_text())
        expected, name, rows = found.pop("sha256"), found["tensors"], found["rows"]
        data = regular(folder / name).read_bytes()
        numbers = all(isinstance(value, (int, float)) for row in rows for value in row.values())
        counted = [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))
        known = name == os.path.basename(name) and isinstance(found["autocast"], (bool, NoneType))
        if _sum(data, found) != expected or not (numbers and counted and known):
            raise ValueError
        tensors = need("safetensors.torch", "files").load(data)
    if other := [name for name in SAME if state[name] not in (None, found.get(name))]:
        raise CheckpointError(f"The checkpoint in {folder} is of another training (other {other[0]}): {_WAY_OUT}.")
    with _intact(folder):
        weights = {name[6:]: tensor for name, tensor in tensors.items() if name.startswith("model.")}
        check_like(weights, model)
        of_optimizer = _of_optimizer(tensors, [p for group in optimizer.param_groups for p in group["params"]])
    model.load_state_dict(weights)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": of_optimizer})
    _drop_others(folder, found["tensors"])  # those that a writer left who was killed just before it did this
    return found


_WAY_OUT = "delete its state.json and epoch-*.safetensors to start again, or choose another folder"


@contextmanager
def _intact(folder: Path) -> Iterator[None]:
    try:
        yield
    except _damage() as error:
        if out_of_memory(error):
            raise
        raise CheckpointError(f"The checkpoint in {folder} is damaged: {_WAY_OUT}.") from error


def _of_optimizer(tensors: dict[str, torch.Tensor], parameters: list) -> dict[int, dict[str, torch.Tensor]]:
    """An optimizer's state for each parameter. ValueError or IndexError where it is of others."""
    found: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        if not name.startswith("model."):
            _, index, what = name.split(".")
            like = parameters[int(index)]
            if value.shape != (torch.Size() if what == "step" else like.shape):
                raise ValueError(f"{name} has another shape")
            if value.ndim:  # the fused update pairs numbers by their place in memory, so layouts must agree
                value = torch.empty_like(like).copy_(value)
            found.setdefault(int(index), {})[what] = value
    if any(set(values) != {"step", "exp_avg", "exp_avg_sq"} for values in found.values()):
        raise ValueError("something of the optimizer is missing")
    return found


def _check_not_lost(folder: Path) -> None:
    """CheckpointError where later epochs than the first are there, but not their ``state.json``."""
    if later := [name for name in _ours(folder) if name != "epoch-001.safetensors"]:  # kept before the first state is
        raise CheckpointError(
            f"{folder} holds {later[0]} of a training, but not its state.json: put that back, or choose another folder."
        )


def check_like(tensors: dict[str, torch.Tensor], model: nn.Module) -> None:
    """ValueError where tensors are not those of such a model, by name and shape."""
    ours = model.state_dict()
    if {name: t.shape for name, t in tensors.items()} != {name: t.shape for name, t in ours.items()}:
        raise ValueError("the weights are of another model")


def check_target(path: Path) -> None:
    """ValueError where ``save_model`` could not write there, to be told before a training and not after it."""
    if path.name in ("", ".."):
        raise ValueError(f"{str(path)!r} is no name for a model: give one such as models/mine.")
    if path.parent.exists() and not path.parent.is_dir():
        raise ValueError(f"{path.parent} is no folder, so that no model can be saved in it: give another name.")
    for ending in (".safetensors", ".json"):
        if (path.with_name(path.name + ending)).is_dir():
            raise ValueError(f"{path}{ending} is a folder, where the model's file is to go: give another name.")


def check_unused(path: Path, recipe: Any) -> None:
    """ValueError where ``save_model`` would take the place of a model of another recipe, or of another's file."""
    card, weights = (path.with_name(path.name + ending) for ending in (".json", ".safetensors"))
    with suppress(*_damage()):
        if os.path.lexists(card):
            mine = json.loads(regular(card).read_text())["recipe"] == json.loads(json.dumps(recipe))
        else:  # of a kill before the card was written
            mine = not os.path.lexists(weights) or _says(weights) == _MODEL
        if mine:
            return
    raise ValueError(f"{card if os.path.lexists(card) else weights} is there, not of this training: give another name.")


def check_values(model: nn.Module) -> None:
    """TypeError where not all that a file of the model keeps are tensors with values."""
    checks.instance(model, nn.Module, "model")
    checks.default_device()
    for name, value in model.state_dict().items():
        if not isinstance(value, torch.Tensor) or value.is_meta or nn.parameter.is_lazy(value):
            raise TypeError(f"{name} of the model is no tensor with values: load it, or run it once, or take it out.")


def save_model(path: str | os.PathLike, model: nn.Module, history: "pd.DataFrame", recipe: Any) -> None:
    """Write path.safetensors and path.json (recipe, history, a SHA-256 of all), each at one stroke, the JSON last.

    recipe: what JSON can hold. TypeError or ValueError, and nothing written, where an argument is of no use.
    """
    check_target(path := expanded(path))
    check_values(model)
    checks.instance(history, need("pandas", "book").DataFrame, "history")
    tensors = {name: tensor.cpu() for name, tensor in _kept(model).items()}
    data = need("safetensors.torch", "files").save(tensors, _MODEL)
    card = {"recipe": recipe, "torch": torch.__version__, "threads": torch.get_num_threads()}
    card |= {"history": history.to_dict("records")}
    try:
        card |= {"sha256": _sum(data, card)}
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"recipe and history must be what JSON can hold, but here: {error}.") from error
    write_bytes(path.with_name(path.name + ".safetensors"), data)
    write_text(path.with_name(path.name + ".json"), json.dumps(card, indent=1))


def load_model(path: str | os.PathLike, model: nn.Module) -> dict:
    """Load what ``save_model`` wrote into a model like the one that was saved, and return what the JSON holds.

    CheckpointError, and the model as it was, where the files are incomplete, damaged, not finite or of another model.
    """
    check_target(path := expanded(path))
    check_values(model)
    weights = path.with_name(path.name + ".safetensors")
    safetensors = need("safetensors.torch", "files")
    try:
        card = json.loads(regular(path.with_name(path.name + ".json")).read_text())
        data = regular(weights).read_bytes()
        told = {name: value for name, value in card.items() if name != "sha256"}
        older = (None, hashlib.sha256(data).hexdigest())  # cards that have none, or one of the weights alone
        if card.get("sha256") not in (*older, _sum(data, told)):
            raise ValueError("the SHA-256 of weights and card is not the recorded one")
        if not isinstance(card["history"], list):
            raise ValueError("its JSON lacks the history")
        check_like(tensors := safetensors.load(data), model)
        if not all(tensor.isfinite().all() for tensor in tensors.values()):
            raise ValueError("not all weights are finite")
    except _damage() as error:
        if out_of_memory(error):
            raise
        there = weights.exists() or path.with_name(path.name + ".json").exists()
        way_out = "delete it and its JSON" if there else "give the path of one that was saved"
        raise CheckpointError(f"The saved model {weights} cannot be used ({error}): {way_out}.") from error
    model.load_state_dict(tensors)
    return card
