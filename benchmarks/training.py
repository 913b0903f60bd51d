"""Training: a step, a step with its augmentation, and the memory that it takes."""

import torch
from torch.nn import functional as F

from cmxlib.augment import augment
from cmxlib.convmixer import ConvMixer
from cmxlib.data import Dataset
from cmxlib.evaluate import normalise
from cmxlib.train import bf16_is_faster, keep_freed_memory

from . import reference
from .rows import no_gpu, row
from .timing import in_turns, matrix_rate, peak_memory

STOCK = "stock modules, NCHW float32, eager"
MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
CPU = torch.device("cpu")


def sizes(quick):
    """(arguments of ConvMixer, batch size, repeats)."""
    return ({"dim": 16, "depth": 1}, 4, 1) if quick else ({"dim": 256, "depth": 8}, 128, 5)


def pointwise_flop(dim, depth, patch_size, **_):
    """Floating-point operations of the pointwise layers for one 32 x 32 image, forward and both gradients."""
    return 3 * 2 * dim * dim * (32 // patch_size) ** 2 * depth


def fast_step(model, optimizer, images, labels):
    """The step of ``cmxlib.train.fit`` on a normalised batch."""
    device = images.device
    keep_freed_memory()
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16_is_faster(device)):
        loss = F.cross_entropy(model(images), labels, label_smoothing=0.1)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def both(settings):
    """Our network and the same of stock modules, each with its optimizer."""
    ours = ConvMixer(**settings)
    theirs = reference.stock(ours)
    return (
        (ours, torch.optim.AdamW(ours.parameters(), 1e-3, fused=True)),
        (theirs, torch.optim.AdamW(theirs.parameters(), 1e-3)),
    )


def measure(quick):
    settings, batch, repeats = sizes(quick)
    rate = matrix_rate(torch.bfloat16 if bf16_is_faster(CPU) else torch.float32, repeats=3 if quick else 20)
    found = [row("rate of matrix products", rate / 1e9, unit="GFLOP/s")]
    for patch_size, goal in ((4, 5), (2, 7)):
        sized = settings | {"patch_size": patch_size}
        ours, theirs = both(sized)
        images, labels = torch.randn(batch, 3, 32, 32), torch.randint(10, (batch,))
        times = in_turns(
            {
                "ours": lambda: fast_step(*ours, images, labels),  # noqa: B023
                "reference": lambda: reference.train_step(*theirs, images, labels),  # noqa: B023
            },
            repeats,
        )
        bound = rate / pointwise_flop(**sized)
        at = {"patch_size": patch_size, "repeats": repeats}
        value = times["reference"] / times["ours"]
        found += [
            row("training step, times quicker", value, goal, **times, against=STOCK, **at),
            row("training, images a second", batch / times["ours"], unit="images/s", **at),
            row(
                "training, share of the bound",
                batch / times["ours"] / bound,
                0.4,
                ours=batch / times["ours"],
                reference=bound,
                unit="images/s",
                against="pointwise layers alone, at the rate of matrix products",
                **at,
            ),
        ]
    found += [epoch(settings | {"patch_size": 4}, batch, repeats, steps=2 if quick else 12)]
    if not torch.cuda.is_available():
        found += [
            no_gpu("p 2, 25 epochs to 92.6 %, seconds after compilation", "at most 60"),
            no_gpu("p 2, to 94 %, seconds after compilation", "at most 240"),
        ]
    return found


def epoch(settings, batch, repeats, steps):
    """Steps with everything that an epoch does to make its batches, data in memory as uint8 at the start."""
    n = batch * (steps * (repeats + 1) + 8)
    images, labels = torch.randint(256, (n, 3, 32, 32), dtype=torch.uint8), torch.randint(10, (n,))
    data = Dataset("random images", images, labels, images[:1], labels[:1], (), MEAN, STD)
    ours, theirs = both(settings)
    generator = torch.Generator().manual_seed(0)
    batches = iter(reference.loader(data, batch))  # its start, before the first batch, is not counted

    def fast():
        for chosen in torch.randperm(n, generator=generator)[: batch * steps].split(batch):
            augmented = augment(images[chosen], generator, crop_padding=4, flip=True)
            fast_step(*ours, normalise(augmented, MEAN, STD), labels[chosen])

    def plain():
        for _ in range(steps):
            reference.train_step(*theirs, *next(batches))

    times = in_turns({"ours": fast, "reference": plain}, repeats)
    full = 50_000 // batch / steps  # an epoch of CIFAR-10
    times = {name: value * full for name, value in times.items()}
    return row(
        "epoch with augmentation, times quicker",
        times["reference"] / times["ours"],
        6,
        **times,
        against=f"{STOCK}, PIL transforms, DataLoader with 2 workers",
        patch_size=settings["patch_size"],
        repeats=repeats,
        note=f"from {steps} steps at a time",
    )


def measure_memory(quick):
    settings, _, _ = sizes(quick)
    settings |= {"patch_size": 2}
    batch = 4 if quick else 256
    setup = "\n".join(
        [
            "from benchmarks.training import *",
            f"ours, theirs = both({settings})",
            f"x, y = torch.randn({batch}, 3, 32, 32), torch.randint(10, ({batch},))",
        ]
    )
    ours = peak_memory(setup, "for _ in range(2): fast_step(*ours, x, y)")
    theirs = peak_memory(setup, "for _ in range(2): reference.train_step(*theirs, x, y)")
    return [
        row(
            "memory of training, share of the reference's",
            ours / theirs,
            1,
            at_most=True,
            ours=ours,
            reference=theirs,
            unit="MB",
            against=STOCK,
            patch_size=2,
            note=f"by how much two steps at batch {batch} raise the peak resident memory of a process",
        )
    ]
