"""Files of trainings and trained models: safetensors for the weights, JSON for the rest, each written at one stroke."""

import hashlib
import json
import os
from pathlib import Path

import pandas as pd
import safetensors.torch
import torch


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be gone on from."""


def save_checkpoint(folder: Path, model, optimizer, state):
    """Write the state after an epoch into ``folder``, in place of the one before.

    ``state`` is what JSON can hold: settings, data, rows so far.
    """
    # The tensors go to a new file first, and then the JSON that names it: a crash between leaves the epoch before.
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{name}": tensor.contiguous() for name, tensor in model.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": tensor.contiguous() for name, tensor in values.items()}
    name = f"epoch-{len(state['rows']):03d}.safetensors"
    data = safetensors.torch.save(tensors)
    write_bytes(folder / name, data)
    found = {**state, "tensors": name, "sha256": hashlib.sha256(data).hexdigest()}
    write_bytes(folder / "state.json", json.dumps(found, indent=1).encode())
    for old in folder.glob("epoch-*.safetensors"):
        if old.name != name:
            old.unlink()


def load_checkpoint(folder: Path, model, optimizer, state):
    """Load what ``save_checkpoint`` wrote into model and optimizer, and return its state; ``state`` if there is none.

    CheckpointError where the folder's state is damaged, or is of other settings or data than ``state``.
    """
    if not (folder / "state.json").exists():
        return state
    way_out = f"delete the folder {folder.name} to start again"
    try:
        found = json.loads((folder / "state.json").read_text())
        data = (folder / found.pop("tensors")).read_bytes()
        intact = hashlib.sha256(data).hexdigest() == found.pop("sha256")
    except (OSError, ValueError, KeyError):
        intact = False
    if not intact:
        raise CheckpointError(f"The checkpoint {folder.name} is damaged; {way_out}.")
    if (found["settings"], found["data"]) != (state["settings"], state["data"]):
        raise CheckpointError(f"The checkpoint {folder.name} is of another training; {way_out}.")
    tensors = safetensors.torch.load(data)
    model.load_state_dict({name[6:]: t for name, t in tensors.items() if name.startswith("model.")})
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    per_parameter = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, what = name.split(".")
            if tensor.ndim:  # the fused update pairs numbers by their place in memory, so layouts must agree
                tensor = torch.empty_like(parameters[int(index)]).copy_(tensor)
            per_parameter.setdefault(int(index), {})[what] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": per_parameter})
    return found


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file at one stroke: readers see the old one or the new one."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def save_model(path, model, history: pd.DataFrame, recipe) -> None:
    """Write path.safetensors and path.json (recipe and history), each at one stroke, the JSON last."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()}
    write_bytes(path.with_name(path.name + ".safetensors"), safetensors.torch.save(tensors))
    card = {"recipe": recipe, "torch": torch.__version__, "threads": torch.get_num_threads()}
    card["history"] = history.to_dict("records")
    write_bytes(path.with_name(path.name + ".json"), json.dumps(card, indent=1).encode())
