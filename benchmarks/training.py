"""Training: a step, a step with its augmentation, and the memory that it takes."""

import torch
from torch.nn import functional as F

from cmxlib.learn.augment import augment
from cmxlib.learn.convmixer import ConvMixer
from cmxlib.learn.data import Dataset
from cmxlib.learn.evaluate import normalise
from cmxlib.learn.train import bf16_is_faster

from . import reference
from .rows import no_gpu, row
from .timing import in_turns_apart, matrix_rate, peak_memory

STOCK = "stock modules, NCHW float32, eager"
MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
CPU = torch.device("cpu")


N_STEPS = 4  # in a row, as in training


def sizes(quick):
    """(arguments of ConvMixer, batch size, repeats)."""
    return ({"dim": 16, "depth": 1}, 4, 1) if quick else ({"dim": 256, "depth": 8}, 128, 5)


def pointwise_flop(dim, depth, patch_size, **_):
    """Floating-point operations of the pointwise layers for one 32 x 32 image, forward and both gradients."""
    return 3 * 2 * dim * dim * (32 // patch_size) ** 2 * depth


def fast_step(model, optimizer, images, labels):
    """The step of ``cmxlib.learn.train.fit`` on a normalised batch."""
    device = images.device
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16_is_faster(device)):
        loss = F.cross_entropy(model(images), labels, label_smoothing=0.1)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def fast(settings):
    """Our network with its optimizer."""
    model = ConvMixer(**settings)
    return model, torch.optim.AdamW(model.parameters(), 1e-3, fused=True)


def stock(settings):
    """The same network of stock modules, with its optimizer."""
    model = reference.stock(ConvMixer(**settings))
    return model, torch.optim.AdamW(model.parameters(), 1e-3)


def steps(make, step, settings, batch):
    """A function that does one training step on data at hand."""
    trained, images, labels = make(settings), torch.randn(batch, 3, 32, 32), torch.randint(10, (batch,))
    return lambda: step(*trained, images, labels)


def measure(quick):
    settings, batch, repeats = sizes(quick)
    rate = matrix_rate(torch.bfloat16 if bf16_is_faster(CPU) else torch.float32, repeats=3 if quick else 20)
    found = [row("rate of matrix products", rate / 1e9, unit="GFLOP/s")]
    for patch_size, goal in ((4, 5), (2, 7))[: 1 if quick else 2]:
        sized = settings | {"patch_size": patch_size}
        times = in_turns_apart(
            {
                "ours": (steps, (fast, fast_step, sized, batch)),
                "reference": (steps, (stock, reference.train_step, sized, batch)),
            },
            repeats,
            not quick,
            N_STEPS,
        )
        bound = rate / pointwise_flop(**sized)
        at = {"patch_size": patch_size, "repeats": repeats, "note": f"{1 if quick else N_STEPS} steps at a time"}
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
    found += [epoch(settings | {"patch_size": 4}, batch, repeats, 2 if quick else 12, quick)]
    if not torch.cuda.is_available():
        found += [
            no_gpu("p 2, 25 epochs to 92.6 %, seconds after compilation", "at most 60"),
            no_gpu("p 2, to 94 %, seconds after compilation", "at most 240"),
        ]
    return found


def random_data(n):
    """n images with labels, in memory as uint8."""
    images, labels = torch.randint(256, (n, 3, 32, 32), dtype=torch.uint8), torch.randint(10, (n,))
    return Dataset("random images", images, labels, images[:1], labels[:1], (), MEAN, STD)


def fast_epoch(settings, batch, n_steps):
    """A function that does steps with everything that an epoch of ours does to make its batches."""
    trained, data, generator = fast(settings), random_data(10_000), torch.Generator().manual_seed(0)

    def run():
        for chosen in torch.randperm(10_000, generator=generator)[: batch * n_steps].split(batch):
            augmented = augment(data.train_images[chosen], generator, crop_padding=4, flip=True)
            fast_step(*trained, normalise(augmented, MEAN, STD), data.train_labels[chosen])

    return run


def stock_epoch(settings, batch, n_steps, repeats):
    """The same with PIL transforms in a DataLoader, whose start, before the first batch, is not counted."""
    trained, n = stock(settings), batch * (n_steps * (repeats + 1) + 8)
    batches = iter(reference.loader(random_data(n), batch))

    def run():
        for _ in range(n_steps):
            reference.train_step(*trained, *next(batches))

    return run


def epoch(settings, batch, repeats, n_steps, quick):
    """Whole epochs of CIFAR-10, computed from a few steps."""
    times = in_turns_apart(
        {
            "ours": (fast_epoch, (settings, batch, n_steps)),
            "reference": (stock_epoch, (settings, batch, n_steps, repeats)),
        },
        repeats,
        not quick,
    )
    full = 50_000 // batch / n_steps
    times = {name: value * full for name, value in times.items()}
    return row(
        "epoch with augmentation, times quicker",
        times["reference"] / times["ours"],
        6,
        **times,
        against=f"{STOCK}, PIL transforms, DataLoader with 2 workers",
        patch_size=settings["patch_size"],
        repeats=repeats,
        note=f"from {n_steps} steps at a time",
    )


def measure_memory(quick):
    settings, _, _ = sizes(quick)
    settings |= {"patch_size": 2}
    batch = 4 if quick else 256
    setup = f"from benchmarks.training import *\nsettings, batch = {settings}, {batch}"
    ours = peak_memory(f"{setup}\nstep = steps(fast, fast_step, settings, batch)", "step(), step()")
    theirs = peak_memory(f"{setup}\nstep = steps(stock, reference.train_step, settings, batch)", "step(), step()")
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
