"""What other protections cost: a file encrypted at rest, and the first layer under homomorphic encryption.

    pip install tenseal                          # homomorphic encryption, https://github.com/OpenMined/TenSEAL
    python examples/other_protections.py         # measures, writes results/other_protections.csv, and prints the table

All of it is about the network of scale paper with patches of 4 pixels, and about one image of 32 x 32 in three colours.
Seconds are of the processor, of one thread, the least of several rounds, so that what else runs counts little.
"""

import argparse
import importlib.metadata
import importlib.util
import os
import sys
import time

import pandas as pd
import torch
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cmxlib import PatchCipher, SecretKey, encrypt_model, load_dataset
from cmxlib.learn.evaluate import normalise
from cmxlib.lock.patch import to_blocks
from cmxlib.paths import checkout, told
from cmxlib.study import records
from cmxlib.study.scales import SCALES, trained_model

RESULTS = checkout() / "results" / "other_protections.csv"
PATCH, ROUNDS, SLOW_ROUNDS = 4, 7, 3
CKKS = {"poly_modulus_degree": 8192, "coeff_mod_bit_sizes": [60, 40, 60]}  # 128 bits of security, one product
SCALE_BITS = 40
BOOK, REST, HE = "this book", "encryption at rest", "homomorphic encryption"


def seconds(job, rounds=ROUNDS):
    """What ``job`` gives, and the least processor time that it took."""
    taken = []
    for _ in range(rounds):
        start = time.process_time()
        found = job()
        taken.append(time.process_time() - start)
    return found, min(taken)


def at_rest(path):
    """A file of weights under AES-256-GCM, in memory: all of it is encrypted, and opened again before any use."""
    key, nonce, plain = AESGCM(AESGCM.generate_key(256)), os.urandom(12), path.read_bytes()
    sealed, taken = seconds(lambda: nonce + key.encrypt(nonce, plain, None))
    opened, again = seconds(lambda: key.decrypt(sealed[:12], sealed[12:], None))
    assert opened == plain
    yield REST, "encrypt the weights", "seconds", taken
    yield REST, "decrypt the weights", "seconds", again
    yield REST, "the weights, plain", "bytes", len(plain)
    yield REST, "the weights, encrypted", "bytes", len(sealed)


def of_the_book(model, image, norm):
    """The cipher of this book, shuffle and flip, on the same image and the same network."""
    cipher = PatchCipher(SecretKey.for_experiment(0), PATCH)
    encrypted, taken = seconds(lambda: cipher.encrypt(image))
    locked, once = seconds(lambda: encrypt_model(model, cipher, **norm))
    with torch.no_grad():
        values = normalise(encrypted, **norm)
        found, layer = seconds(lambda: locked[0](values))
        difference = (found - model[0](normalise(image, **norm))).abs().max().item()
    yield BOOK, "encrypt an image", "seconds", taken
    yield BOOK, "encrypt the network", "seconds", once
    yield BOOK, "compute the first layer", "seconds", layer
    yield BOOK, "an image, encrypted", "bytes", encrypted.numel()
    yield BOOK, "what the first layer gives", "bytes", found.numel() * found.element_size()
    yield BOOK, "first layer", "largest difference", difference


def homomorphic(model, image, norm):
    """The first layer on an image under CKKS: one ciphertext for each entry of a patch, with a slot for each patch."""
    import tenseal

    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, n_threads=1, **CKKS)
    context.global_scale = 2**SCALE_BITS
    patches = to_blocks(normalise(image, **norm, dtype=torch.float64), PATCH)[0]  # (patches, n)
    weight = model[0].weight.detach().double().flatten(1).T  # (n, dim)
    n_patches, n = patches.shape
    values = tenseal.plain_tensor(patches.flatten().tolist(), [n_patches, 1, n])
    filters = tenseal.plain_tensor(weight.flatten().tolist(), list(weight.shape))
    packed = len(tenseal.ckks_vector(context, patches.flatten().tolist()).serialize())
    encrypted, taken = seconds(lambda: tenseal.ckks_tensor(context, values, batch=True), SLOW_ROUNDS)
    found, layer = seconds(lambda: encrypted.mm(filters), SLOW_ROUNDS)
    opened, again = seconds(found.decrypt, SLOW_ROUNDS)
    result = torch.tensor(opened.tolist()).view(n_patches, -1)
    yield HE, "encrypt an image", "seconds", taken
    yield HE, "compute the first layer", "seconds", layer
    yield HE, "decrypt what it gives", "seconds", again
    yield HE, "an image, encrypted, for this product", "bytes", len(encrypted.serialize())
    yield HE, "an image, encrypted, as small as it can be", "bytes", packed
    yield HE, "what the first layer gives", "bytes", len(found.serialize())
    yield HE, "first layer", "largest difference", (result - patches @ weight).abs().max().item()


def table(rows: pd.DataFrame) -> str:
    """The rows as the Markdown table of notebooks/protection.md."""
    lines = ["| Protection | What | Processor time or size |", "|---|---|---|"]
    for row in rows[rows.measure != "largest difference"].itertuples():
        value = f"{float(f'{1000 * row.value:.2g}'):,g} ms" if row.measure == "seconds" else f"{row.value:,.0f} bytes"
        lines.append(f"| {row.protection} | {row.what} | {value} |")
    return "\n".join(lines)


def main():
    if importlib.util.find_spec("tenseal") is None:
        raise ImportError("This needs tenseal, which is not installed: pip install tenseal.")
    records.commit()  # of the code that runs, before anything is written
    torch.set_num_threads(1)
    start = time.perf_counter()
    scale = SCALES["paper"]
    model = trained_model(scale, device="cpu")[0]
    data = load_dataset("fontdigits")
    given = model, data.test_images[:1], data.norm
    (path,) = (checkout() / "models").glob("paper-p4-*.safetensors")
    found = [*at_rest(path), *of_the_book(*given), *homomorphic(*given)]
    settings = {
        "patch_size": PATCH,
        "rounds": [ROUNDS, SLOW_ROUNDS],
        "threads": 1,
        "file": "AES-256-GCM",
        "ckks": CKKS | {"scale_bits": SCALE_BITS},
        **{name: importlib.metadata.version(name) for name in ("cryptography", "tenseal")},
    }
    origin = records.provenance(
        scale="paper", dataset=data.name, settings=settings, seeds=0, n_images=1, n_keys=1,
        seconds=time.perf_counter() - start,
    )  # fmt: skip
    names = ("protection", "what", "measure", "value")
    records.write(RESULTS, [dict(zip(names, row, strict=True)) for row in found], origin)
    print(table(pd.read_csv(RESULTS)))


if __name__ == "__main__":
    argparse.ArgumentParser(description="Measure what other protections cost, and record it.").parse_args()
    sys.exit(told(main, "other_protections"))
