"""`python -m tests.trust`: all of this folder at full length, and what large inputs take; it prints what was done and
writes RELIABILITY.md. A name or two of ``LOADS`` as arguments: those alone, and nothing is written.
"""

import contextlib
import io
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATH = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
GUIDED = (
    *("key_files", "images", "encrypted_images", "records", "arrays", "models", "headers_of_tensors"),
    *("checkpoints", "saved_models", "tables_of_rows", "sweeps"),
)
RUNS = 2_000  # of each, guided by coverage

# -- loads: each in a process of its own, whose peak of resident memory counts ------------------------------------


def many_images() -> str:
    import torch

    from cmxlib import ConvMixer, PatchCipher, SecretKey, logits

    images = torch.zeros(1_000_000, 3, 32, 32, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(1_000_000) % 256
    cipher = PatchCipher(SecretKey.for_experiment(0))
    for part in images.split(100_000):  # 100,000 at once
        part.copy_(cipher.encrypt(part))
    model = ConvMixer(8, 1, 3, 8).eval()
    found = logits(model, images, mean=(0.5,) * 3, std=(0.3,) * 3, batch_size=5000)
    assert len(found) == 1_000_000 and found.isfinite().all()
    return "encrypted and classified; the images themselves are 2.86 GiB"


def many_photos() -> str:
    import numpy as np
    from PIL import Image

    from cmxlib import __main__ as command

    os.mkdir("in")
    for n in range(10_000):
        Image.fromarray(np.full((256, 320, 3), n % 256, np.uint8)).save(f"in/{n:05}.png", compress_level=1)
    assert _cmx(command, "key", "new", "my.key") == 0
    options = ("--key", "my.key", "--patch", "16", "--workers", "2")
    for _ in range(2):  # the second time, all is done before
        assert _cmx(command, "encrypt-images", "in", "out", *options) == 0
    assert len(os.listdir("out")) == 10_000
    return "320 x 256, encrypted by two workers, and again, when all were done before"


def many_keys() -> str:
    from cmxlib import PatchCipher, SecretKey

    made = set()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        for n in range(10_000):
            key = SecretKey.generate()
            key.save(f"{folder}/{n}.key")
            made.add(SecretKey.load(f"{folder}/{n}.key").fingerprint)
            PatchCipher(key)
    assert len(made) == 10_000
    return "made, saved, loaded, and a cipher of each; all fingerprints differ"


def large_image() -> str:
    import numpy as np
    from PIL import Image

    from cmxlib import __main__ as command

    noise = np.random.default_rng(0).integers(0, 256, (4096, 4096, 3), np.uint8)
    Image.fromarray(noise).save("a.png", compress_level=0)
    assert _cmx(command, "key", "new", "my.key") == 0
    assert _cmx(command, "encrypt-images", "a.png", "b.png", "--key", "my.key", "--patch", "16") == 0
    assert _cmx(command, "decrypt-images", "b.png", "c.png", "--key", "my.key") == 0
    assert np.array_equal(np.asarray(Image.open("c.png")), noise)
    return "encrypted, and decrypted to the bit; its pixels are 48 MiB"


def large_checkpoint() -> str:
    from cmxlib import __main__ as command

    # Tensors of 256 MiB, as a sparse file; what is written of them is not sparse.
    size, tensors = 2**28, 40 if shutil.disk_usage(".").free > 15 * 2**30 else 16
    header, at = {}, 0
    shapes = {"stem.weight": [768, 3, 16, 16], "stem.bias": [768]}
    shapes |= {f"layer{n}.weight": [size // 4096, 1024] for n in range(tensors)}
    for name, shape in shapes.items():
        end = at + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    with open("a.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + at)
    assert _cmx(command, "key", "new", "my.key") == 0
    options = ("--key", "my.key", "--patch", "16", "--norm", "imagenet")
    assert _cmx(command, "encrypt-model", "a.safetensors", "b.safetensors", *options) == 0
    assert _cmx(command, "verify", "a.safetensors", "b.safetensors", "--key", "my.key") == 0
    assert os.path.getsize("b.safetensors") > at
    return f"{at / 2**30:.1f} GiB, encrypted and verified; {'more had no room' if tensors < 40 else 'a sparse file'}"


LOADS = {
    "1,000,000 images of 32 x 32": many_images,
    "a folder of 10,000 photos": many_photos,
    "10,000 keys": many_keys,
    "an image of 4096 x 4096": large_image,
    "a checkpoint of 10 GiB": large_checkpoint,
}


def _cmx(command, *arguments):
    with contextlib.redirect_stdout(io.StringIO()):
        return command.main(arguments)


def load(name: str) -> dict:
    """{"said", "GiB", "seconds"}: what a load did, the peak of memory of its largest process, and how long it took."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "tests.trust", "--load", name],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": PATH},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{name}: {done.stderr[-2000:]}")
        return json.loads(done.stdout.splitlines()[-1]) | {"seconds": time.perf_counter() - begun}


def _one_load(name):
    import resource

    said = LOADS[name]()
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    print(json.dumps({"said": said, "GiB": max(resource.getrusage(kind).ru_maxrss for kind in kinds) / 2**20}))


# -- all of it -----------------------------------------------------------------------------------------------------


def guided() -> dict[str, int]:
    """{test: files that atheris tried}; empty where it is not installed."""
    if find_spec("atheris") is None:
        return {}
    tried = {}
    for name in GUIDED:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "tests.trust.guided", f"test_{name}", str(RUNS)]
            done = subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": PATH}, capture_output=True)
        if done.returncode:
            raise RuntimeError(f"{name}: {done.stderr[-2000:].decode(errors='replace')}")
        tried[name] = int(done.stdout.splitlines()[-1])
        print(f"{tried[name]:,} files guided by coverage: {name}", flush=True)
    return tried


def main() -> int:
    os.environ |= {"CMX_TRUST": "full", "OMP_NUM_THREADS": "1"}
    begun = time.perf_counter()
    loads = {}  # first, for the peak of a process counts that of the one that it was forked from
    for name in LOADS:
        loads[name] = load(name)
        print(f"{name}: {loads[name]['GiB']:.2f} GiB at most, {loads[name]['seconds']:.0f} s", flush=True)
    by_coverage = guided()  # before much is imported here, for the same reason: libFuzzer ends what takes over 2 GiB
    import pytest
    import torch

    from .counts import COUNTS

    if status := pytest.main(["-q", "-p", "no:cacheprovider", str(Path(__file__).parent)]):
        return int(status)
    from . import test_bad_attacks, test_bad_commands, test_bad_input, test_bad_values, test_outside
    from .page import page

    tables = test_bad_input, test_bad_attacks, test_bad_values
    calls, commands = sum(len(table.ROWS) for table in tables), len(test_bad_commands.ROWS)
    system = f"{platform.system()}, Python {platform.python_version()}, torch {torch.__version__.partition('+')[0]}"
    taken = time.perf_counter() - begun
    text = page(COUNTS, calls, commands, len(test_outside.CASES), by_coverage, loads, system, taken)
    (ROOT / "RELIABILITY.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--load"]:
        _one_load(sys.argv[2])
    elif sys.argv[1:]:
        print(*(f"{name}: {load(name)}" for name in sys.argv[1:]), sep="\n")
    else:
        sys.exit(main())
