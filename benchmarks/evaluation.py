"""Evaluation of many images, and what trying many wrong keys costs beside it."""

import torch

from cmxlib.learn.convmixer import ConvMixer
from cmxlib.learn.data import load_dataset
from cmxlib.learn.evaluate import logits
from cmxlib.learn.train import bf16_is_faster
from cmxlib.lock.keys import SecretKey
from cmxlib.lock.model import decrypt_model, encrypt_model
from cmxlib.lock.patch import PatchCipher
from cmxlib.study.scales import trained_model

from . import reference
from .rows import row
from .timing import in_turns, in_turns_apart
from .training import CPU, MEAN, STD, STOCK, sizes

NORM = {"mean": MEAN, "std": STD}


def fast(settings, images):
    model = ConvMixer(**settings).eval()
    return lambda: logits(model, images, **NORM, autocast=bf16_is_faster(CPU))


def stock(settings, images, batch_size=128):
    """Stock modules in float32: normalise a batch, apply the network, and no more."""
    model, (mean, std) = (
        reference.stock(ConvMixer(**settings).eval()),
        (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD)),
    )

    @torch.no_grad()
    def run():
        return torch.cat([model((batch / 255 - mean) / std) for batch in images.split(batch_size)])

    return run


def measure(quick):
    settings, _, repeats = sizes(quick)
    found = []
    for patch_size, n in ((4, 40),) if quick else ((4, 10_000), (2, 2_000)):
        sized = settings | {"patch_size": patch_size}
        images = torch.randint(256, (n, 3, 32, 32), dtype=torch.uint8)
        times = in_turns_apart(
            {"ours": (fast, (sized, images)), "reference": (stock, (sized, images))}, repeats, not quick
        )
        at = {"patch_size": patch_size, "repeats": repeats, "note": f"{n} images"}
        found.append(
            row("evaluation, times quicker", times["reference"] / times["ours"], 4, **times, against=STOCK, **at)
        )
    return found + ([] if quick else [agreement()])


def agreement():
    """How many predictions of a trained model differ from the stock modules' in float32, and by what margins."""
    model, _ = trained_model("quick", progress=False)
    data = load_dataset("fontdigits")
    norm = {"mean": data.mean, "std": data.std}
    ours = logits(model, data.test_images, **norm, autocast=bf16_is_faster(CPU))
    theirs = logits(reference.stock(model), data.test_images, **norm)
    differ = (ours.argmax(1) != theirs.argmax(1)).nonzero().flatten()
    top = theirs[differ].topk(2).values
    ties = "; ".join(f"image {i}: {a - b:.3f}" for i, (a, b) in zip(differ.tolist(), top.tolist(), strict=True))
    return row(
        "predicted classes that differ",
        len(differ),
        unit="images",
        against=STOCK,
        note=f"of {len(ours)} test images of FontDigits; by how much the reference prefers its class: {ties}",
    )


def measure_keys(quick):
    settings, _, repeats = sizes(quick)
    n = 40 if quick else 2_000
    model = encrypt_model(ConvMixer(**settings, patch_size=4).eval(), PatchCipher(SecretKey.for_experiment(0)), **NORM)
    images = torch.randint(256, (n, 3, 32, 32), dtype=torch.uint8)
    seeds = iter(range(1, 1_000_000))

    def fold():
        return decrypt_model(model, PatchCipher(SecretKey.for_experiment(next(seeds))), **NORM)

    times = in_turns(
        {"fold": fold, "forward": lambda: logits(model, images, **NORM, autocast=bf16_is_faster(CPU))}, repeats
    )
    return [
        row(
            "a wrong key's handling, share of its forward passes",
            times["fold"] / times["forward"],
            0.05,
            at_most=True,
            ours=times["fold"],
            reference=times["forward"],
            against=f"one evaluation of {n} images",
            patch_size=4,
            repeats=repeats,
        )
    ]
