"""Training: a loop, a checkpoint after each epoch, and a cache of trained models."""

import dataclasses
import functools
import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from torch.nn import functional as F
from tqdm.auto import tqdm

from .augment import augment
from .convmixer import ConvMixer
from .data import Dataset, cache_dir, load_dataset
from .evaluate import accuracy, normalise

MODELS = Path(__file__).parent.parent / "models"  # trained models that come with the book


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be gone on from."""


@dataclass(frozen=True)
class TrainSettings:
    """How to train. ``crop_padding``, ``flip``, ``jitter`` and ``erase`` are those of ``augment``.

    The rate follows the reference recipe of ConvMixer's authors: linear from 0 to ``max_lr`` at 2/5 of all steps, to
    max_lr / 20 at 4/5, and to 0 at the end. Everything random follows from ``seed``.
    """

    epochs: int
    batch_size: int = 128
    max_lr: float = 0.02
    weight_decay: float = 0.005
    label_smoothing: float = 0.1
    crop_padding: int = 4
    flip: bool = True
    jitter: float = 0.0
    erase: int = 0
    seed: int = 0

    def lr(self, progress: float) -> float:
        """The learning rate when the share ``progress`` of all steps is done."""
        return float(np.interp(progress, [0, 2 / 5, 4 / 5, 1], [0, self.max_lr, self.max_lr / 20, 0]))


def default_device() -> torch.device:
    """A GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@functools.cache
def bf16_is_faster(device: torch.device) -> bool:
    """Whether bfloat16 matrix products beat float32 ones by half or more: measured, once per process."""

    def seconds(dtype):
        a = torch.ones(1024, 256, dtype=dtype, device=device)
        times = []
        for _ in range(5):
            start = time.perf_counter()
            for _ in range(10):
                b = a @ a[:256]
            b.sum().item()  # waits for a GPU
            times.append(time.perf_counter() - start)
        return min(times)

    return seconds(torch.bfloat16) * 1.5 < seconds(torch.float32)


def fit(
    model,
    data: Dataset,
    settings: TrainSettings,
    *,
    checkpoint=None,
    transform=None,
    device=None,
    progress=True,
) -> pd.DataFrame:
    """Train a classifier on ``data.train_images``.

    Args:
        model: changed in place; it stays on ``device``.
        checkpoint: a folder for the state after each epoch. Called again with the same arguments, ``fit`` goes on
            from there, to the same result to the bit on the same machine with as many threads.
        transform: applied to each augmented uint8 batch (N, C, H, W), for instance an encryption. The test images
            are used as they are.
        device: by default a GPU where there is one.
        progress: show a bar with loss and accuracy.

    Returns one row per epoch: epoch, lr (at its end), train_loss, train_accuracy (on augmented images, while
    learning), test_accuracy, seconds. CheckpointError where ``checkpoint`` holds another training or is damaged.
    """
    device = torch.device(device or default_device())
    model.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=settings.weight_decay, fused=True)
    state = {
        "settings": dataclasses.asdict(settings),
        "data": data.name,
        "autocast": bf16_is_faster(device),
        "rows": [],
    }
    if checkpoint is not None:
        state = _resume(Path(checkpoint), model, optimizer, state)
    images, labels = data.train_images.to(device), data.train_labels.to(device)
    n_steps = len(images) // settings.batch_size  # per epoch; an incomplete last batch is left out
    if n_steps == 0:
        raise ValueError(f"There are {len(images)} training images, fewer than one batch of {settings.batch_size}.")
    rows, done = state["rows"], len(state["rows"])
    bar = tqdm(
        total=n_steps * settings.epochs, initial=n_steps * done, disable=not progress, unit="step", mininterval=1
    )
    try:
        for epoch in range(done, settings.epochs):
            start = time.perf_counter()
            # One generator per epoch, so that resuming needs no state of random numbers.
            generator = torch.Generator(device).manual_seed(settings.seed * 1_000_003 + epoch)
            order = torch.randperm(len(images), generator=generator, device=device)
            totals = torch.zeros(2, device=device)
            model.train()
            for step in range(n_steps):
                chosen = order[step * settings.batch_size : (step + 1) * settings.batch_size]
                batch = augment(
                    images[chosen],
                    generator,
                    crop_padding=settings.crop_padding,
                    flip=settings.flip,
                    jitter=settings.jitter,
                    erase=settings.erase,
                )
                if transform is not None:
                    batch = transform(batch)
                batch = normalise(batch, data.mean, data.std).contiguous(memory_format=torch.channels_last)
                for group in optimizer.param_groups:
                    group["lr"] = settings.lr((epoch * n_steps + step + 1) / (settings.epochs * n_steps))
                with torch.autocast(device.type, torch.bfloat16, enabled=state["autocast"]):
                    output = model(batch)
                    loss = F.cross_entropy(output, labels[chosen], label_smoothing=settings.label_smoothing)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                totals += torch.stack([loss.detach().float(), (output.argmax(1) == labels[chosen]).float().mean()])
                if step % 20 == 19:
                    loss_so_far, accuracy_so_far = (totals / (step + 1)).tolist()
                    bar.set_description(f"epoch {epoch + 1}: loss {loss_so_far:.3f}, accuracy {accuracy_so_far:.1%}")
                bar.update()
            train_loss, train_accuracy = (totals / n_steps).tolist()
            rows.append(
                {
                    "epoch": epoch + 1,
                    "lr": settings.lr((epoch + 1) / settings.epochs),
                    "train_loss": train_loss,
                    "train_accuracy": train_accuracy,
                    "test_accuracy": accuracy(
                        model,
                        data.test_images,
                        data.test_labels,
                        mean=data.mean,
                        std=data.std,
                        autocast=state["autocast"],
                    ),
                    "seconds": time.perf_counter() - start,
                }
            )
            if checkpoint is not None:
                _save(Path(checkpoint), model, optimizer, state)
    except KeyboardInterrupt:
        way_on = f"run it again to go on from {Path(checkpoint).name}" if checkpoint else "it had no checkpoint folder"
        raise KeyboardInterrupt(f"Training stopped after {len(rows)} of {settings.epochs} epochs; {way_on}.") from None
    finally:
        bar.close()
    model.eval()
    return pd.DataFrame(rows)


def trained_model(scale, *, seed=0, device=None, progress=True):
    """The model of a scale, trained on plain images, and its history: from the book, from the cache, or trained now.

    Args:
        scale: "quick", "small" or "paper", or a ``scales.Scale``.
        seed: of the initial weights and of the training.

    Returns (model in eval mode, history as ``fit`` returns it).
    """
    from .scales import SCALES  # scales are made of this module's settings

    scale = SCALES[scale] if isinstance(scale, str) else scale
    settings = dataclasses.replace(scale.train, seed=seed)
    model = new_model(scale, seed)
    recipe = json.dumps([scale.dataset, scale.model, dataclasses.asdict(settings)], sort_keys=True)
    name = f"{scale.name}-p{scale.model['patch_size']}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}-seed{seed}"
    for folder in (MODELS, cache_dir() / "models"):
        if (folder / f"{name}.json").exists():
            model.load_state_dict(safetensors.torch.load_file(folder / f"{name}.safetensors"))
            history = pd.DataFrame(json.loads((folder / f"{name}.json").read_text())["history"])
            return model.to(device or default_device()).eval(), history
    data = load_dataset(scale.dataset)
    history = fit(
        model, data, settings, checkpoint=cache_dir() / "checkpoints" / name, device=device, progress=progress
    )
    save_model(cache_dir() / "models" / name, model, history, json.loads(recipe))
    return model, history


def new_model(scale, seed: int = 0) -> ConvMixer:
    """The untrained ConvMixer of a scale, its initial weights drawn from ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ConvMixer(**scale.model)


def save_model(path, model, history: pd.DataFrame, recipe) -> None:
    """Write path.safetensors and path.json (recipe and history), each at one stroke, the JSON last."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()}
    _write(path.with_name(path.name + ".safetensors"), safetensors.torch.save(tensors))
    card = {"recipe": recipe, "torch": torch.__version__, "history": history.to_dict("records")}
    _write(path.with_name(path.name + ".json"), json.dumps(card, indent=1).encode())


def _save(folder, model, optimizer, state):
    # The tensors go to a new file first, and then the JSON that names it: a crash between leaves the epoch before.
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{name}": tensor.contiguous() for name, tensor in model.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": tensor.contiguous() for name, tensor in values.items()}
    name = f"epoch-{len(state['rows']):03d}.safetensors"
    data = safetensors.torch.save(tensors)
    _write(folder / name, data)
    found = {**state, "tensors": name, "sha256": hashlib.sha256(data).hexdigest()}
    _write(folder / "state.json", json.dumps(found, indent=1).encode())
    for old in folder.glob("epoch-*.safetensors"):
        if old.name != name:
            old.unlink()


def _resume(folder, model, optimizer, state):
    """Load what ``_save`` wrote into model and optimizer, and return its state; ``state`` itself if there is none."""
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
    per_parameter = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, what = name.split(".")
            per_parameter.setdefault(int(index), {})[what] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": per_parameter})
    return found


def _write(path, data: bytes) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)
