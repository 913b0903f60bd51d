"""Training: one loop, with a checkpoint after each epoch."""

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F
from tqdm.auto import tqdm

from .augment import augment
from .checkpoint import load_checkpoint, save_checkpoint
from .data import Dataset
from .device import bf16_is_faster, default_device, pays_to_compile
from .evaluate import accuracy, normalise


@dataclass(frozen=True)
class TrainSettings:
    """How to train. ``crop_padding``, ``flip`` and ``rand_augment`` are those of ``augment``.

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
    rand_augment: int = 0
    seed: int = 0

    def lr(self, progress: float) -> float:
        """The learning rate when the share ``progress`` of all steps is done."""
        return float(np.interp(progress, [0, 2 / 5, 4 / 5, 1], [0, self.max_lr, self.max_lr / 20, 0]))


def fit(
    model,
    data: Dataset,
    settings: TrainSettings,
    *,
    checkpoint=None,
    transform=None,
    device=None,
    autocast=None,
    progress=True,
) -> pd.DataFrame:
    """Train a classifier on ``data.train_images``.

    Args:
        model: changed in place; it stays on ``device``.
        checkpoint: a folder for the state after each epoch. Called again with the same arguments, ``fit`` goes on
            from there, on a CPU to the same result to the bit on the same machine with as many threads.
        transform: applied to each augmented uint8 batch (N, C, H, W), for instance an encryption. The test images
            are used as they are.
        device: by default a GPU where there is one.
        autocast: compute in bfloat16 where torch's autocast does so; by default where that is faster.
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
        "autocast": bf16_is_faster(device) if autocast is None else autocast,
        "rows": [],
    }
    if checkpoint is not None:
        state = load_checkpoint(Path(checkpoint), model, optimizer, state)
    images, labels = data.train_images.to(device), data.train_labels.to(device)
    n_steps = len(images) // settings.batch_size  # per epoch; an incomplete last batch is left out
    if n_steps == 0:
        raise ValueError(f"There are {len(images)} training images, fewer than one batch of {settings.batch_size}.")
    rows, done = state["rows"], len(state["rows"])

    def ready(batch):
        return normalise(batch, data.mean, data.std).contiguous(memory_format=torch.channels_last)

    # By all steps, not those that are left, so that a training that goes on computes as it began.
    network = torch.compile(model) if pays_to_compile(device, n_steps * settings.epochs) else model
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
                    rand_augment=settings.rand_augment,
                )
                if transform is not None:
                    batch = transform(batch)
                batch = ready(batch)
                for group in optimizer.param_groups:
                    group["lr"] = settings.lr((epoch * n_steps + step + 1) / (settings.epochs * n_steps))
                with torch.autocast(device.type, torch.bfloat16, enabled=state["autocast"]):
                    output = network(batch)
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
                save_checkpoint(Path(checkpoint), model, optimizer, state)
    except KeyboardInterrupt:
        way_on = f"run it again to go on from {Path(checkpoint).name}" if checkpoint else "it had no checkpoint folder"
        raise KeyboardInterrupt(f"Training stopped after {len(rows)} of {settings.epochs} epochs; {way_on}.") from None
    finally:
        bar.close()
    model.eval()
    return pd.DataFrame(rows)
