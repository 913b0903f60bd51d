"""Training: one loop, with a checkpoint after each epoch, by one process or by several:

torchrun --standalone --nproc-per-node 2 -m cmxlib.learn.train --dataset cifar10 --epochs 25 --out model
"""

import argparse
import dataclasses
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import NoneType
from typing import TYPE_CHECKING

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # while torch is imported, Ctrl-C shows no traceback

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..files.commands import path
from ..lock import checks
from ..paths import expanded, need, told, writable
from .augment import augment
from .checkpoint import (
    check_target,
    check_unused,
    check_values,
    checksum,
    held,
    load_checkpoint,
    model_checksum,
    save_checkpoint,
    save_model,
)
from .convmixer import ConvMixer
from .data import Dataset, load_dataset
from .device import bf16_is_faster, memory_for, pays_to_compile, usable
from .evaluate import accuracy, logits_of, normalise
from .ranks import in_parallel, mean_of_ranks, process_group, rank_device, ranks, same_buffers, wait_for_all

if TYPE_CHECKING:
    import pandas as pd

PROBE = 16  # images by which a checkpoint tells one transform from another


@dataclass(frozen=True)
class TrainSettings:
    """How to train. ``crop_padding``, ``flip`` and ``rand_augment`` are those of ``augment``.

    The rate follows the reference recipe of ConvMixer's authors: linear from 0 to ``max_lr`` at 2/5 of all steps, to
    max_lr / 20 at 4/5, and to 0 at the end. Everything random follows from ``seed``. TypeError or ValueError for
    values that make no sense.
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

    def __post_init__(self):
        whole = {"epochs": (1,), "batch_size": (1,), "crop_padding": (0,), "rand_augment": (0, 30), "seed": (0, 2**40)}
        numbers = {"max_lr": (1e-12,), "weight_decay": (0,), "label_smoothing": (0, 0.999)}
        for check, fields in ((checks.whole, whole), (checks.number, numbers)):
            for name, limits in fields.items():
                object.__setattr__(self, name, check(getattr(self, name), name, *limits))
        object.__setattr__(self, "flip", checks.truth(self.flip, "flip"))

    def lr(self, progress: float) -> float:
        """The learning rate when the share ``progress`` of all steps, from 0 to 1, is done."""
        progress = checks.number(progress, "progress", 0, 1)
        return float(np.interp(progress, [0, 2 / 5, 4 / 5, 1], [0, self.max_lr, self.max_lr / 20, 0]))


@torch.inference_mode(False)
@torch.enable_grad()
def fit(
    model: nn.Module,
    data: Dataset,
    settings: TrainSettings,
    *,
    checkpoint: str | os.PathLike | None = None,
    transform: Callable[[torch.Tensor], torch.Tensor] | None = None,
    device: str | torch.device | None = None,
    autocast: bool | None = None,
    sync_norm: bool = False,
    progress: bool = True,
) -> "pd.DataFrame":
    """Train a classifier on ``data.train_images``.

    Args:
        model: of normalised images, with logits (N, classes), all parameters float32, float64 or bfloat16; changed in
            place, and it stays on ``device``.
        checkpoint: a folder for the state after each epoch. Called again with the same arguments, ``fit`` goes on
            from there, whatever weights that are trained the model has by then, on a CPU to the same result to the bit
            on the same machine with as many threads. Another process that trains there at the same time waits.
        transform: applied to each augmented batch (N, C, H, W), for instance an encryption. The test images are used
            as they are. With a checkpoint, it must do the same with the same images each time; what it draws from
            torch's global generator does not count.
        device: by default a GPU where there is one.
        autocast: compute in bfloat16 where torch's autocast does so; by default where that is faster.
        sync_norm: in ``ranks.process_group``, where each process trains on its share of a batch: normalise by the
            statistics of the whole batch, in each BatchNorm2d.
        progress: show a bar with loss and accuracy.

    Returns one row per epoch: epoch, lr (at its end), train_loss, train_accuracy (on augmented images, while
    learning), test_accuracy, seconds. CheckpointError where ``checkpoint`` is damaged, cannot be written, or holds
    another training: other settings, images, transform or layers. FloatingPointError where the loss or a weight is not
    finite any more, MemoryError where there is not enough memory, OSError where the disk is full; the checkpoint is
    then of the epoch before.
    """
    pandas = need("pandas", "book")
    for value, kind, name in (
        (model, nn.Module, "model"),
        (data, Dataset, "data"),
        (settings, TrainSettings, "settings"),
    ):
        checks.instance(value, kind, name)
    if not (transform is None or callable(transform)):
        raise TypeError(f"transform must be a function of a batch of images, but this is {type(transform).__name__}.")
    types = {parameter.dtype for parameter in model.parameters()}
    if types not in ({torch.float32}, {torch.float64}, {torch.bfloat16}):
        found = ", ".join(sorted(map(str, types))) or "none"
        raise ValueError(
            f"A model is trained in float32, float64 or bfloat16, but its parameters are {found}: "
            f"{'use model.float()' if types else 'give one that has some'}."
        )
    n_steps = len(data.train_images) // settings.batch_size  # per epoch; an incomplete last batch is left out
    if n_steps == 0:
        raise ValueError(
            f"There are {len(data.train_images)} training images, fewer than one batch of {settings.batch_size}."
        )
    rank, n_ranks = ranks()
    if settings.batch_size % n_ranks:
        raise ValueError(f"batch_size must be a multiple of the {n_ranks} processes, but it is {settings.batch_size}.")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("No parameter of the model is trained: call requires_grad_() on it, or on some of its layers.")
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise ValueError("The model was made in torch.inference_mode(), and so has no gradients: make it outside.")
    if not isinstance(checkpoint, (str, os.PathLike, NoneType)):
        raise TypeError(f"checkpoint must be the path of a folder, but this is {checks.shown(checkpoint)}.")
    for choice, name in ((autocast, "autocast"), (sync_norm, "sync_norm"), (progress, "progress")):
        if not (name == "autocast" and choice is None):
            checks.instance(choice, bool, name)
    check_values(model)
    device = usable(rank_device() if device is None else device)
    model.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=settings.weight_decay, fused=True)
    state = {"autocast": autocast, "rows": []}
    folder = None if checkpoint is None else expanded(checkpoint)
    with nullcontext() if folder is None or rank else held(folder):  # rank 0 alone writes there
        wait_for_all()
        if folder is not None:
            state |= _identity(model, data, settings, transform, device)
            state = load_checkpoint(folder, model, optimizer, state)
        if not _finite(model):
            raise ValueError("The model holds weights that are not finite (NaN or infinity): load or make it anew.")
        if state["autocast"] is None:  # a checkpoint keeps what was chosen when its training began
            state["autocast"] = bf16_is_faster(device)
        network = in_parallel(model, device, sync_norm)
        with memory_for("training", settings.batch_size), _batch_blamed(settings.batch_size // n_ranks):
            _train(model, network, data, settings, optimizer, state, folder, transform, device, progress and not rank)
    return pandas.DataFrame(state["rows"])


@contextmanager
def _batch_blamed(n_images: int) -> Iterator[None]:
    """ValueError, with the way out, where a layer normalises by the one value that a channel has in a batch."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ValueError(
            f"A layer of the model normalises by the values of a batch, of which it gets one a channel from {n_images} "
            "image: raise batch_size."
        ) from error


def _identity(model, data, settings, transform, device) -> dict:
    """What must be the same for a training to be gone on with."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        images = _transformed(data.train_images[:PROBE].to(device, copy=True), transform)
    return {
        "settings": dataclasses.asdict(settings),
        "data": data.fingerprint(),
        "model": model_checksum(model),
        "transform": checksum({"images": images}),
    }


def _finite(model):
    return all(value.isfinite().all() for value in model.state_dict().values())


def _transformed(batch, transform):
    if transform is None:
        return batch
    made = checks.images(transform(batch), batch.shape[1], name="what transform returns")
    if len(made) != len(batch):
        raise ValueError(f"transform must keep the {len(batch)} images of a batch, but gave {len(made)}.")
    return made


def _train(model, network, data, settings, optimizer, state, folder, transform, device, progress) -> None:
    """Train from where ``state`` is, and add a row for each epoch to it. network: the model, as it is called."""
    images, labels = data.train_images.to(device), data.train_labels.to(device, torch.long)
    n_steps = len(images) // settings.batch_size
    (rank, n_ranks), share = ranks(), settings.batch_size // ranks()[1]
    rows, done, dtype = state["rows"], len(state["rows"]), next(model.parameters()).dtype

    def ready(batch):
        return normalise(batch, data.mean, data.std, dtype).contiguous(memory_format=torch.channels_last)

    # By all steps, not those that are left, so that a training that goes on computes as it began.
    network = torch.compile(network) if pays_to_compile(device, n_steps * settings.epochs) else network
    bar = need("tqdm.auto", "book").tqdm(
        total=n_steps * settings.epochs,
        initial=n_steps * done,
        disable=not progress or sys.stderr is None,
        unit="step",
        mininterval=1,
    )

    def go_on_if(finite, epoch, images_so_far):
        if not finite:
            kept = f"; {folder} keeps epoch {epoch}" if folder is not None and epoch else ""
            lower = f"lower max_lr, which is {settings.max_lr:g}"
            way_out = lower if math.isfinite(images_so_far) else "mend transform, which gave images that are NaN"
            raise FloatingPointError(
                f"The training was lost in epoch {epoch + 1}, where the loss or a weight is no finite number: "
                f"{way_out}, and choose another checkpoint folder{kept}."
            )

    try:
        for epoch in range(done, settings.epochs):
            start = time.perf_counter()
            # One generator per epoch, so that resuming needs no state of random numbers.
            generator = torch.Generator(device).manual_seed(settings.seed * 1_000_003 + epoch)
            order = torch.randperm(len(images), generator=generator, device=device)
            if n_ranks > 1:  # one order of images, and each rank's own draws for its share
                seeds = torch.randint(2**62, (n_ranks,), generator=generator, device=device)
                generator.manual_seed(int(seeds[rank]))
            totals = torch.zeros(3, device=device)  # loss, accuracy, and NaN where transform gave images that are none
            model.train()
            for step in range(n_steps):
                first = step * settings.batch_size + rank * share
                chosen = order[first : first + share]
                batch = augment(
                    images[chosen],
                    generator,
                    crop_padding=settings.crop_padding,
                    flip=settings.flip,
                    rand_augment=settings.rand_augment,
                )
                batch = _transformed(batch, transform)
                if epoch == done and not step and transform is not None:  # a look at each batch would have a GPU wait
                    checks.values(batch, "images that transform returns")
                batch = ready(batch)
                for group in optimizer.param_groups:
                    group["lr"] = settings.lr((epoch * n_steps + step + 1) / (settings.epochs * n_steps))
                with torch.autocast(device.type, torch.bfloat16, enabled=state["autocast"]):
                    output = logits_of(network(batch), len(data.classes))
                    loss = F.cross_entropy(output, labels[chosen], label_smoothing=settings.label_smoothing)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                right = (output.argmax(1) == labels[chosen]).float().mean()
                numbers = torch.zeros_like(right) if transform is None else 0 * batch.sum().float()
                totals += torch.stack([loss.detach().float(), right, numbers])
                if step % 20 == 19:
                    loss_so_far, accuracy_so_far, images_so_far = (totals / (step + 1)).tolist()
                    go_on_if(math.isfinite(loss_so_far), epoch, images_so_far)
                    bar.set_description(f"epoch {epoch + 1}: loss {loss_so_far:.3f}, accuracy {accuracy_so_far:.1%}")
                bar.update()
            train_loss, train_accuracy, images_so_far = mean_of_ranks(totals / n_steps).tolist()
            same_buffers(model)
            go_on_if(math.isfinite(train_loss) and _finite(model), epoch, images_so_far)
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
            if folder is not None and rank == 0:
                save_checkpoint(folder, model, optimizer, state)
    except KeyboardInterrupt:
        way_on = f"run it again to go on from {folder.name}" if folder else "it had no checkpoint folder"
        raise KeyboardInterrupt(f"Training stopped after {len(rows)} of {settings.epochs} epochs; {way_on}.") from None
    finally:
        bar.close()
        model.eval()


def main() -> None:
    """Train a ConvMixer on a data set of the book, as the arguments say, and save it."""
    parser = argparse.ArgumentParser(prog="cmxlib.learn.train", description=main.__doc__)
    parser.add_argument("--dataset", required=True, help="cifar10, cifar100 or fontdigits")
    parser.add_argument("--out", type=path, required=True, help="the model goes to OUT.safetensors and OUT.json")
    parser.add_argument("--checkpoint", type=path, help="a folder from which a stopped training goes on")
    parser.add_argument("--sync-norm", action="store_true", help="normalise by the whole batch, not a process's share")
    for name, size in {"dim": 256, "depth": 8, "kernel_size": 5, "patch_size": 4}.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=size)
    for field in dataclasses.fields(TrainSettings):
        how = {"required": True} if field.default is dataclasses.MISSING else {"default": field.default}
        kind = {"action": argparse.BooleanOptionalAction} if field.type is bool else {"type": field.type}
        parser.add_argument(f"--{field.name.replace('_', '-')}", **how, **kind)  # type: ignore[arg-type]
    args = vars(parser.parse_args())
    settings = TrainSettings(**{field.name: args[field.name] for field in dataclasses.fields(TrainSettings)})
    sizes = {name: args[name] for name in ("dim", "depth", "kernel_size", "patch_size")}
    check_target(args["out"])
    try:
        writable(folder := args["out"].parent)
    except OSError as error:
        why = error.strerror or "a file is in its place"
        raise OSError(f"No model can be written in {folder} ({why}): give another --out.") from error
    with process_group():
        data = load_dataset(args["dataset"])
        check_unused(args["out"], recipe := [data.name, sizes, dataclasses.asdict(settings)])
        torch.manual_seed(settings.seed)
        model = ConvMixer(**sizes, num_classes=len(data.classes), channels=data.train_images.shape[1])
        history = fit(model, data, settings, checkpoint=args["checkpoint"], sync_norm=args["sync_norm"])
        if ranks()[0] == 0:
            save_model(args["out"], model, history, recipe)
            print(history.to_string(index=False))


if __name__ == "__main__":
    sys.exit(told(main, "cmxlib.learn.train"))
