"""Encrypting images: shuffle and flip, against copying the same bytes and against the plain way."""

import torch

from cmxlib.cipher import PatchCipher
from cmxlib.keys import SecretKey

from . import reference
from .rows import no_gpu, row
from .timing import in_turns


def measure(quick):
    n, repeats = (10, 1) if quick else (10_000, 11)
    images = torch.randint(256, (n, 3, 32, 32), dtype=torch.uint8)
    copy = torch.empty_like(images)
    cipher = PatchCipher(SecretKey.for_experiment(0))
    floats = images.float() / 255
    times = in_turns(
        {
            "ours": lambda: cipher.encrypt(images),
            "copy": lambda: copy.copy_(images),
            "plain": lambda: reference.encrypt(floats, cipher.permutation, cipher.flipped, cipher.block_size),
        },
        repeats,
    )
    ours, at = times["ours"], {"patch_size": 4, "repeats": repeats, "note": f"{n} images"}
    found = [
        row(
            "encryption, times a copy",
            ours / times["copy"],
            10,
            at_most=True,
            ours=ours,
            reference=times["copy"],
            against="copying the same bytes",
            **at,
        ),
        row(
            "encryption, times quicker",
            times["plain"] / ours,
            4,
            ours=ours,
            reference=times["plain"],
            against="reshape, permute, index, reshape back, in float32",
            **at,
        ),
    ]
    if not torch.cuda.is_available():
        return [*found, no_gpu("encryption on a GPU, share of the copy's rate", "at least 0.6")]
    on_gpu = images.repeat(10, 1, 1, 1).cuda()
    twin = torch.empty_like(on_gpu)
    times = in_turns({"ours": lambda: cipher.encrypt(on_gpu), "reference": lambda: twin.copy_(on_gpu)}, repeats)
    share = times["reference"] / times["ours"]
    against = "copying the same bytes on the GPU"
    return [*found, row("encryption on a GPU, share of the copy's rate", share, 0.6, **times, against=against, **at)]
