"""Encrypting images: shuffle and flip, against copying the same bytes and against the plain way."""

import torch

from cmxlib.lock.keys import SecretKey
from cmxlib.lock.patch import PatchCipher

from . import reference
from .rows import no_gpu, row
from .timing import in_turns, in_turns_apart

IN_A_ROW = 10  # few would make copying look slow


def random_images(n):
    return torch.randint(256, (n, 3, 32, 32), dtype=torch.uint8)


def ours(n):
    images, cipher = random_images(n), PatchCipher(SecretKey.for_experiment(0))
    return lambda: cipher.encrypt(images)


def copy(n):
    images = random_images(n)
    twin = torch.empty_like(images)
    return lambda: twin.copy_(images)


def plain(n):
    floats, cipher = random_images(n).float() / 255, PatchCipher(SecretKey.for_experiment(0))
    return lambda: reference.encrypt(floats, cipher.permutation, cipher.flipped, cipher.block_size)


def measure(quick):
    n, repeats = (10, 1) if quick else (10_000, 11)
    contenders = {make.__name__: (make, (n,)) for make in (ours, copy, plain)}
    times = in_turns_apart(contenders, repeats, not quick, IN_A_ROW)
    at = {"patch_size": 4, "repeats": repeats, "note": f"{n} images, {1 if quick else IN_A_ROW} times in a row"}
    found = [
        row(
            "encryption, times a copy",
            times["ours"] / times["copy"],
            10,
            at_most=True,
            ours=times["ours"],
            reference=times["copy"],
            against="copying the same bytes",
            **at,
        ),
        row(
            "encryption, times quicker",
            times["plain"] / times["ours"],
            4,
            ours=times["ours"],
            reference=times["plain"],
            against="reshape, permute, index, reshape back, in float32",
            **at,
        ),
    ]
    if not torch.cuda.is_available():
        return [*found, no_gpu("encryption on a GPU, share of the copy's rate", "at least 0.6")]
    on_gpu, cipher = random_images(10 * n).cuda(), PatchCipher(SecretKey.for_experiment(0))
    twin = torch.empty_like(on_gpu)
    times = in_turns({"ours": lambda: cipher.encrypt(on_gpu), "reference": lambda: twin.copy_(on_gpu)}, repeats)
    share = times["reference"] / times["ours"]
    against = "copying the same bytes on the GPU"
    return [*found, row("encryption on a GPU, share of the copy's rate", share, 0.6, **times, against=against, **at)]
