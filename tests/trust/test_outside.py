"""Fifty bad inputs that an outside tester listed before the first run: each is refused in a sentence or done right.

Within a minute, without a traceback, with nothing lost and no secret shown.
"""

import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import unicodedata
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image
from safetensors.torch import save_file

from cmxlib import ConvMixer, Dataset, PatchCipher, Scale, SecretKey, TrainSettings, fit, load_dataset, trained_model
from cmxlib.attacks.matching import share_recovered
from cmxlib.attacks.on_images import chosen_plaintext
from cmxlib.book.answers import is_right
from cmxlib.book.challenge import load_lock
from cmxlib.files import folders, models, pictures, record
from cmxlib.lock.conventional import make_cipher
from cmxlib.paths import ROOT
from cmxlib.study import records

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
TOLD = ["--mean", *map(str, MEAN), "--std", *map(str, STD)]
TINY = ["--dataset", "fontdigits", "--dim", "4", "--depth", "1", "--batch-size", "500", "--epochs", "3"]
POSIX, LINUX = os.name == "posix", sys.platform == "linux"
CASES = []


def case(name: str, where: bool = True):
    """Registers a test under a name; ``where``: whether the system has what it needs."""
    skip = pytest.mark.skipif(not where, reason="another system")
    return lambda run: CASES.append(pytest.param(run, id=name, marks=skip)) or run


# -- helpers ----------------------------------------------------------------------------------------------------------


def environment(**more):
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", **more}


def limited(**limits):
    """For preexec_fn: limits of the system, such as FSIZE=1000."""

    def run():
        import resource

        for name, most in limits.items():
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))

    return run


def python(*args, status=(0,), words=(), env=None, seconds=60, **how):
    """What a command says, when it ends in time with one of these statuses, with these words and no traceback."""
    how = {"stdin": subprocess.DEVNULL} | how if "input" not in how else how
    command = [sys.executable, *map(str, args)]
    done = subprocess.run(command, capture_output=True, env=environment(**(env or {})), timeout=seconds, **how)
    said = (done.stdout + done.stderr).decode(errors="replace")
    assert "Traceback" not in said, said[-1500:]
    assert done.returncode in status, (done.returncode, said[-1500:])
    for word in words:
        assert word.lower() in said.lower(), said[-1500:]
    return said


def cmx(*args, **how):
    return python("-m", "cmxlib", *args, **how)


def new_key(folder, name="my.key", **how):
    key = SecretKey.generate()
    key.save(folder / name, **how)
    return key, folder / name


def picture(path, seed=0, size=(16, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(values).save(path, "PNG")
    return values


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def encrypt(source, target, key, patch_size=4):
    cipher = PatchCipher(key, patch_size)
    assert not folders.run(source, target, pictures.Job(cipher, record.of(key, cipher), record.source_key(key))).failed


def weights():
    torch.manual_seed(0)
    return {"stem.weight": torch.randn(8, 3, 4, 4), "stem.bias": torch.randn(8), "head.weight": torch.randn(2, 8)}


def lock(source, target, key):
    return models.encrypt(source, target, key, models.Asked(patch=4, mean=MEAN, std=STD))


def text_of_record(key, **changes):
    found = {"version": 2, "key": key.fingerprint, "steps": ["shuffle", "flip"], "patch": 4, "encrypted": True}
    found |= {"mean": MEAN, "std": STD, "layers": ["stem"], **changes}
    return json.dumps({name: value for name, value in found.items() if value is not None})


def graph(path, metadata=None, behind=(), **how):
    """An ONNX model: a convolution of patches of 4, its mean over the image, and other nodes behind."""
    rng = np.random.default_rng(0)
    held = {"stem.weight": rng.standard_normal((8, 3, 4, 4)), "stem.bias": rng.standard_normal(8)}
    nodes = [
        helper.make_node("Conv", ["images", *held], ["patches"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("ReduceMean", ["patches"], ["mean" if behind else "logits"], axes=[2, 3], keepdims=0),
        *behind,
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in (("images", [None, 3, 16, 16]), ("logits", [None, 8]))]  # fmt: skip
    tensors = [onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in held.items()]
    made = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path, **how)


def endless():
    """A Loop that goes on for 2^63 steps."""
    kinds = (("i", TensorProto.INT64, []), ("go", TensorProto.BOOL, []), ("x", TensorProto.FLOAT, [None, 8]))
    takes = [helper.make_tensor_value_info(*kind) for kind in kinds]
    gives = [helper.make_tensor_value_info(f"{name}_", *kind) for name, *kind in kinds[1:]]
    steps = [helper.make_node("Identity", [name], [f"{name}_"]) for name in ("go", "x")]
    body = helper.make_graph(steps, "body", takes, gives)
    held = (("most", TensorProto.INT64, 2**63 - 1), ("yes", TensorProto.BOOL, True))
    constants = [helper.make_node("Constant", [], [name], value=helper.make_tensor("v", kind, [], [value]))
                 for name, kind, value in held]  # fmt: skip
    return [*constants, helper.make_node("Loop", ["most", "yes", "mean"], ["logits"], body=body)]


def cached(tmp_path):
    """The environment of a cache that all cases share and that has FontDigits."""
    found = {"CMX_CACHE": str(tmp_path.parent / "cache")}
    with patch.dict(os.environ, found):
        load_dataset("fontdigits")
    return found


def train(tmp_path, out, **how):
    command = ["-m", "cmxlib.learn.train", *TINY, "--out", tmp_path / out, "--checkpoint", tmp_path / f"{out}-epochs"]
    return python(*command, env=cached(tmp_path), **how)


@contextmanager
def training(tmp_path, out):
    """A training that runs, once its first epoch is kept."""
    command = [sys.executable, "-m", "cmxlib.learn.train", *TINY, "--out", tmp_path / out, "--checkpoint",
               tmp_path / f"{out}-epochs"]  # fmt: skip
    env, end = environment(**cached(tmp_path)), time.monotonic() + 60
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        try:
            while not (tmp_path / f"{out}-epochs" / "state.json").exists():
                assert time.monotonic() < end and running.poll() is None
                time.sleep(0.02)
            yield running
        finally:
            running.kill()


def random_data(n=64):
    images = torch.randint(0, 256, (n, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(n) % 2
    return Dataset("two", images, labels, images, labels, ("a", "b"), MEAN, STD)


def closed_stderr(*args):
    """A program whose standard error is closed."""
    return ["-c", "import os, sys; os.close(2); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])", *args]


# -- keys -------------------------------------------------------------------------------------------------------------


@case("a passphrase that is no UTF-8")
def _(tmp_path):
    _, path = new_key(tmp_path, passphrase="café")
    env = {"PYTHONIOENCODING": "utf-8:strict"}  # as a locale such as en_US.UTF-8 has it
    said = cmx("key", "show", path, status=(1,), words=["passphrase"], input=b"caf\xe9\n", env=env,
               start_new_session=True)  # fmt: skip
    assert "0xe9" not in said  # a byte of it


@case("a key's text in place of its file's name")
def _(tmp_path):
    _, path = new_key(tmp_path)
    text = path.read_text()
    picture(tmp_path / "a.png")
    said = cmx("encrypt-images", tmp_path / "a.png", tmp_path / "b.png", "--patch", 4, "--key", text, status=(1, 2))
    assert text.split()[-3] not in said


@case("a key's text given to SecretKey.load")
def _(tmp_path):
    text = new_key(tmp_path)[1].read_text()
    with pytest.raises((ValueError, OSError)) as error:
        SecretKey.load(text)
    assert text.split()[-3] not in str(error.value)


@case("two key files in one")
def _(tmp_path):
    both = tmp_path / "both.key"
    both.write_bytes(b"".join(new_key(tmp_path, name)[1].read_bytes() for name in ("a", "b")))
    both.chmod(0o600)
    cmx("key", "show", both, status=(1,), words=["behind its last line"])


# -- images -----------------------------------------------------------------------------------------------------------


@case("a folder to decrypt whose first file is cut off")
def _(tmp_path):
    key, path = new_key(tmp_path)
    plain = [picture(tmp_path / "in" / f"{i}.png", i) for i in range(3)]
    encrypt(tmp_path / "in", tmp_path / "locked", key)
    first = tmp_path / "locked" / "0.png"
    first.write_bytes(first.read_bytes()[:20])
    cmx("decrypt-images", tmp_path / "locked", tmp_path / "out", "--key", path, status=(1,), words=["0.png"])
    assert all(np.array_equal(pixels(tmp_path / "out" / f"{i}.png"), plain[i]) for i in (1, 2))


@case("an encrypted image whose record was moved behind its pixels")
def _(tmp_path):
    key, path = new_key(tmp_path)
    picture(tmp_path / "a.png")
    encrypt(tmp_path / "a.png", tmp_path / "b.png", key)
    data, chunks, at = (tmp_path / "b.png").read_bytes(), {}, 8
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4])
        chunks[data[at + 4 : at + 8]] = data[at:end]
        at = end
    moved = data[:8] + b"".join(chunks[kind] for kind in (b"IHDR", b"IDAT", b"tEXt", b"IEND"))
    (tmp_path / "moved.png").write_bytes(moved)
    cmx("encrypt-images", tmp_path / "moved.png", tmp_path / "twice.png", "--patch", 4, "--key", path, status=(1,),
        words=["encrypted already"])  # fmt: skip


@case("an encrypted array in Fortran's order")
def _(tmp_path):
    key, path = new_key(tmp_path)
    plain = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8), np.uint8)
    np.save(tmp_path / "a.npy", plain)
    encrypt(tmp_path / "a.npy", tmp_path / "b.npy", key)
    np.save(tmp_path / "b.npy", np.asfortranarray(np.load(tmp_path / "b.npy")))
    cmx("decrypt-images", tmp_path / "b.npy", tmp_path / "c.npy", "--key", path)
    assert np.array_equal(np.load(tmp_path / "c.npy"), plain)


@case("an array beside which stands the record of a PNG")
def _(tmp_path):
    key, path = new_key(tmp_path)
    picture(tmp_path / "a.png")
    encrypt(tmp_path / "a.png", tmp_path / "b.png", key)
    np.save(tmp_path / "b.npy", pixels(tmp_path / "b.png").transpose(2, 0, 1))
    (tmp_path / "b.npy.json").write_text(pictures.recorded(tmp_path / "b.png").text())
    said = cmx("decrypt-images", tmp_path / "b.npy", tmp_path / "c.npy", "--key", path, status=(1,), words=["record"])
    assert "NoneType" not in said
    assert not (tmp_path / "c.npy").exists()


@case("a folder of images with standard error closed", POSIX)
def _(tmp_path):
    _, path = new_key(tmp_path)
    picture(tmp_path / "in" / "a.png")
    python(*closed_stderr("-m", "cmxlib", "encrypt-images", tmp_path / "in", tmp_path / "out", "--patch", "4", "--key",
                          path))  # fmt: skip
    assert pictures.recorded(tmp_path / "out" / "a.png").encrypted


@case("names of files that are no UTF-8, or of two lines", LINUX)
def _(tmp_path):
    _, path = new_key(tmp_path)
    names = [os.fsdecode(b"caf\xe9.png"), "two\nlines.png"]
    plain = {name: picture(tmp_path / "in" / name, i) for i, name in enumerate(names)}
    cmx("encrypt-images", tmp_path / "in", tmp_path / "locked", "--patch", 4, "--key", path)
    cmx("decrypt-images", tmp_path / "locked", tmp_path / "out", "--key", path)
    assert all(np.array_equal(pixels(tmp_path / "out" / name), plain[name]) for name in names)


@case("a folder whose encryption was killed", POSIX)
def _(tmp_path):
    key, path = new_key(tmp_path)
    plain = [picture(tmp_path / "in" / f"{i}.png", i, (64, 64)) for i in range(400)]
    out = tmp_path / "out"
    command = ["-m", "cmxlib", "encrypt-images", tmp_path / "in", out, "--patch", "4", "--key", path, "--workers", "1"]
    with subprocess.Popen([sys.executable, *command], env=environment(), stderr=subprocess.DEVNULL) as running:
        while running.poll() is None and len(list(out.glob("[0-9]*.png"))) < 100:
            time.sleep(0.005)
        running.kill()
    python(*command)
    assert sorted(os.listdir(out)) == sorted(f"{i}.png" for i in range(400))
    found = torch.from_numpy(np.stack([pixels(out / f"{i}.png") for i in range(400)])).permute(0, 3, 1, 2)
    assert torch.equal(PatchCipher(key, 4).decrypt(found), torch.from_numpy(np.stack(plain)).permute(0, 3, 1, 2))


@case("a pipe among the images of a folder", POSIX)
def _(tmp_path):
    _, path = new_key(tmp_path)
    picture(tmp_path / "in" / "z.png")
    os.mkfifo(tmp_path / "in" / "x.png")
    cmx("encrypt-images", tmp_path / "in", tmp_path / "out", "--patch", 4, "--key", path, status=(1,), words=["x.png"])
    assert (tmp_path / "out" / "z.png").exists()


@case("a phone's JPEG of two pictures")
def _(tmp_path):
    _, path = new_key(tmp_path)
    one, two = (Image.fromarray(picture(tmp_path / f"{i}.png", i)) for i in range(2))
    one.save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[two])
    cmx("encrypt-images", tmp_path / "phone.jpg", tmp_path / "b.png", "--patch", 4, "--key", path, status=(1,),
        words=["frames"])  # fmt: skip


@case("a disk that fills while an image is replaced", POSIX)
def _(tmp_path):
    key, path = new_key(tmp_path)
    picture(tmp_path / "a.png", size=(64, 64))
    encrypt(tmp_path / "a.png", tmp_path / "b.png", key, 8)
    before, names = (tmp_path / "b.png").read_bytes(), os.listdir(tmp_path)
    cmx("encrypt-images", tmp_path / "a.png", tmp_path / "b.png", "--patch", 4, "--key", path, "--force", status=(1,),
        words=["b.png"], preexec_fn=limited(FSIZE=1000))  # fmt: skip
    assert (tmp_path / "b.png").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == sorted(names)


@case("a folder with an accent where the locale is ASCII", LINUX)
def _(tmp_path):
    _, path = new_key(tmp_path)
    picture(tmp_path / "été" / "œuf.png")
    env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    cmx("encrypt-images", tmp_path / "été", tmp_path / "où", "--patch", 4, "--key", path, env=env)
    assert (tmp_path / "où" / "œuf.png").exists()


@case("24 open files at most", LINUX)
def _(tmp_path):
    _, path = new_key(tmp_path)
    for i in range(80):
        picture(tmp_path / "in" / f"{i}.png", i)
    command = ["encrypt-images", tmp_path / "in", tmp_path / "out", "--patch", 4, "--key", path, "--workers", 2]
    cmx(*command, status=(0, 1), preexec_fn=limited(NOFILE=24))
    cmx(*command)
    assert len(os.listdir(tmp_path / "out")) == 80


# -- models -----------------------------------------------------------------------------------------------------------


@case("plain copies of the weights in a list of the checkpoint")
def _(tmp_path):
    _, path = new_key(tmp_path)
    model = weights()
    torch.save({"model": model, "ema": [value.clone() for value in model.values()]}, tmp_path / "a.pt")
    cmx("encrypt-model", tmp_path / "a.pt", tmp_path / "b.pt", "--patch", 4, *TOLD, "--key", path, status=(1,),
        words=["copy"])  # fmt: skip
    assert not (tmp_path / "b.pt").exists()


class Hostile:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@case("a checkpoint whose pickle runs a command")
def _(tmp_path):
    _, path = new_key(tmp_path)
    torch.save({**weights(), "extra": Hostile(f"echo > {tmp_path / 'ran'}")}, tmp_path / "a.pt")
    cmx("encrypt-model", tmp_path / "a.pt", tmp_path / "b.pt", "--patch", 4, *TOLD, "--key", path, status=(1,),
        words=["could run code"])  # fmt: skip
    assert not (tmp_path / "ran").exists()


@case("verify on an array of the other order of bytes")
def _(tmp_path):
    key, path = new_key(tmp_path)
    torch.save(weights(), tmp_path / "a.pt")
    lock(tmp_path / "a.pt", tmp_path / "b.pt", key)
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((2, 3, 8, 8)).astype(">f4"))
    said = cmx("verify", tmp_path / "a.pt", tmp_path / "b.pt", "--key", path, "--images", tmp_path / "x.npy",
               status=(0, 1))  # fmt: skip
    assert "Equal" in said or "x.npy" in said


@case("verify of a model with a quantised layer")
def _(tmp_path):
    key, path = new_key(tmp_path)
    head = torch.quantize_per_tensor(torch.randn(2, 8), 0.1, 0, torch.qint8)
    torch.save({**weights(), "head.weight": head}, tmp_path / "a.pt")
    lock(tmp_path / "a.pt", tmp_path / "b.pt", key)
    said = cmx("verify", tmp_path / "a.pt", tmp_path / "b.pt", "--key", path, status=(0, 1))
    assert "Equal" in said or "head.weight" in said


@case("decrypt-model by a record that names no layers")
def _(tmp_path):
    key, path = new_key(tmp_path)
    save_file(weights(), tmp_path / "b.safetensors", {"cmxlib": text_of_record(key, layers=None)})
    cmx("decrypt-model", tmp_path / "b.safetensors", tmp_path / "c.safetensors", "--key", path, status=(1,),
        words=["record"])  # fmt: skip
    assert not (tmp_path / "c.safetensors").exists()


@case("verify by a record without mean and std")
def _(tmp_path):
    key, path = new_key(tmp_path)
    save_file(weights(), tmp_path / "a.safetensors")
    save_file(weights(), tmp_path / "b.safetensors", {"cmxlib": text_of_record(key, mean=None, std=None)})
    cmx("verify", tmp_path / "a.safetensors", tmp_path / "b.safetensors", "--key", path, status=(1,),
        words=["b.safetensors"])  # fmt: skip


@case("a disk that fills while a model is replaced", POSIX)
def _(tmp_path):
    _, path = new_key(tmp_path)
    save_file(weights(), tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes(b"the old one")
    names = os.listdir(tmp_path)
    cmx("encrypt-model", tmp_path / "a.safetensors", tmp_path / "b.safetensors", "--patch", 4, *TOLD, "--key", path,
        "--force", status=(1,), words=["b.safetensors"], preexec_fn=limited(FSIZE=1000))  # fmt: skip
    assert (tmp_path / "b.safetensors").read_bytes() == b"the old one"
    assert sorted(os.listdir(tmp_path)) == sorted(names)


@case("another model's data where an ONNX model's would go")
def _(tmp_path):
    _, path = new_key(tmp_path)
    graph(tmp_path / "a.onnx", save_as_external_data=True, location="a.bin", size_threshold=0)
    (tmp_path / "b.onnx.data").write_bytes(b"another's")
    cmx("encrypt-model", tmp_path / "a.onnx", tmp_path / "b.onnx", *TOLD, "--key", path, status=(1,), words=["exists"])
    assert (tmp_path / "b.onnx.data").read_bytes() == b"another's"
    assert not (tmp_path / "b.onnx").exists()


@case("a pointer of Git LFS in place of a model")
def _(tmp_path):
    _, path = new_key(tmp_path)
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 1234\n"
    (tmp_path / "a.safetensors").write_text(text)
    cmx("encrypt-model", tmp_path / "a.safetensors", tmp_path / "b.safetensors", "--patch", 4, *TOLD, "--key", path,
        status=(1,), words=["a.safetensors is no complete safetensors file"])  # fmt: skip


# -- sweeps and the study ---------------------------------------------------------------------------------------------


def status_of(tmp_path, more, **how):
    file = tmp_path / "mine.toml"
    file.write_text(f'base = "quick"\nname = "mine"\ntables = ["training"]\n{more}\n')
    return cmx("study", "--status", "--sweep", file, **how)


@case("a sweep with a number of 5,000 digits")
def _(tmp_path):
    status_of(tmp_path, f"[scale]\nn_wrong = {'9' * 5000}", status=(1,), words=["mine.toml"])


@case("a sweep of networks of 10,000 layers")
def _(tmp_path):
    status_of(tmp_path, "[scale]\nmodel.depth = 10000", status=(0, 1))


@case("a sweep on a folder that is not there")
def _(tmp_path):
    folder = json.dumps(str(tmp_path / "photos"))
    status_of(tmp_path, f'[scale]\ndataset = {{name = "folder", root = {folder}, size = 8}}', status=(1,),
              words=["photos", "No such file"])  # fmt: skip


@case("a table of results with a quotation mark that never ends")
def _(tmp_path):
    row = dict.fromkeys(records.REQUIRED, "x") | {"value": 1.0, "seconds": 1}
    records.write(tmp_path / "t.csv", [row | {"value": n} for n in range(5000)])
    text = (tmp_path / "t.csv").read_text().replace("\nx", '\n"x', 1)
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match="not a whole table"):
        records.seconds_of_runs(tmp_path / "t.csv")


# -- training ---------------------------------------------------------------------------------------------------------


@case("fit where gradients are switched off")
def _(tmp_path):
    model, settings = ConvMixer(4, 1, 3, 4, 2), TrainSettings(2, 32)
    with torch.no_grad():
        try:
            rows = fit(model, random_data(), settings, progress=False)
        except (ValueError, RuntimeError) as error:
            assert "no_grad" in str(error)
        else:
            assert len(rows) == 2


class Tied(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = torch.nn.Linear(192, 192), torch.nn.Linear(192, 192)
        self.two.weight, self.head = self.one.weight, torch.nn.Linear(192, 2)

    def forward(self, x):
        return self.head(self.two(self.one(x.flatten(1)).relu()))


@case("fit of a model with tied weights, with a checkpoint")
def _(tmp_path):
    settings, data = TrainSettings(2, 32), random_data()
    try:
        rows = fit(Tied(), data, settings, progress=False, checkpoint=tmp_path / "epochs")
    except (ValueError, TypeError) as error:  # before the first epoch
        assert "one.weight" in str(error)
        assert not list((tmp_path / "epochs").glob("epoch*"))
    else:
        again = fit(Tied(), data, settings, progress=False, checkpoint=tmp_path / "epochs")
        assert again.equals(rows)


@case("a training with standard error closed", POSIX)
def _(tmp_path):
    python(*closed_stderr("-m", "cmxlib.learn.train", *TINY, "--out", tmp_path / "m"), env=cached(tmp_path))
    assert (tmp_path / "m.safetensors").exists()


@case("a training that is killed", POSIX)
def _(tmp_path):
    with training(tmp_path, "a") as running:
        running.kill()
    train(tmp_path, "a")
    train(tmp_path, "b")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


@case("a disk that fills at the first checkpoint", POSIX)
def _(tmp_path):
    train(tmp_path, "a", status=(1,), words=["a-epochs"], preexec_fn=limited(FSIZE=2000))
    train(tmp_path, "a")


@case("Ctrl-C in a training", POSIX)
def _(tmp_path):
    with training(tmp_path, "a") as running:
        running.send_signal(signal.SIGINT)
        said = running.communicate(timeout=60)[1].decode()
    assert running.returncode == 130
    assert "go on from a-epochs" in said
    assert "Traceback" not in said
    train(tmp_path, "a")


@case("help without docstrings")
def _(tmp_path):
    env = {"PYTHONOPTIMIZE": "2"}
    cmx("--help", words=["encrypt-images"], env=env)
    cmx("encrypt-model", "--help", words=["--image-size"], env=env)
    python("-m", "cmxlib.learn.train", "--help", words=["--epochs"], env=env)


# -- the book ---------------------------------------------------------------------------------------------------------


@case("new locks without a folder")
def _(tmp_path):
    python("-m", "cmxlib.book.challenge", status=(1, 2), words=["folder"], cwd=tmp_path)


@case("help on new locks")
def _(tmp_path):
    python("-m", "cmxlib.book.challenge", "--help", words=["usage"], cwd=tmp_path, seconds=20, env=cached(tmp_path))
    assert not (tmp_path / "--help").exists()


@case("a lock that was cut off")
def _(tmp_path):
    file = ROOT / "notebooks" / "challenge" / "lock1.safetensors"
    (tmp_path / file.name).write_bytes(file.read_bytes()[:1000])
    with pytest.raises((ValueError, OSError), match=r"lock1\.safetensors"):
        load_lock(1, tmp_path)


@case("the book without a checkout")
def _(tmp_path):
    shutil.copytree(ROOT / "cmxlib", tmp_path / "cmxlib", ignore=shutil.ignore_patterns("__pycache__"))
    cmx("book", status=(1,), words=["checkout", "clone"], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})


@case("a text for an answer")
def _(tmp_path):
    with pytest.raises(TypeError, match="numbers"):
        is_right("1.1", "3")


# -- examples and servers ---------------------------------------------------------------------------------------------


def locked_pair(tmp_path, name="a.png", metadata=None, behind=()):
    """An ONNX model with a record, and a folder with an image that was encrypted for it."""
    key, _ = new_key(tmp_path)
    graph(tmp_path / "m.onnx", {"cmxlib": metadata or text_of_record(key)}, behind)
    picture(tmp_path / "in" / name)
    encrypt(tmp_path / "in", tmp_path / "locked", key)
    return ROOT / "examples" / "predict.py", tmp_path / "m.onnx", tmp_path / "locked"


@case("a prediction on a file whose name is no UTF-8", LINUX)
def _(tmp_path):
    python(*locked_pair(tmp_path, os.fsdecode(b"caf\xe9.png")), words=["class"],
           env={"PYTHONIOENCODING": "utf-8:strict"})  # fmt: skip


@case("a prediction by a model whose record is nested deeply")
def _(tmp_path):
    python(*locked_pair(tmp_path, metadata="[" * 100_000), status=(1,), words=["damaged record"])


@case("a prediction by a model that never ends")
def _(tmp_path):
    python(*locked_pair(tmp_path, behind=endless()), status=(1,), words=["m.onnx"])


@case("a server that answers something else")
def _(tmp_path):
    key, path = new_key(tmp_path)
    picture(tmp_path / "a.png")
    body = json.dumps({"key": key.fingerprint, "patch": 4, "steps": 5}).encode()

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        client = ROOT / "examples" / "serve" / "client.py"
        try:
            said = python(client, url, tmp_path / "a.png", "--key", path, status=(1,), words=["server"])
        finally:
            server.shutdown()
    assert "iterable" not in said


@case("a model to serve whose record holds numbers beyond all floats")
def _(tmp_path):
    text = text_of_record(SecretKey.generate()).replace("0.5", "1" + "0" * 400)
    _, model, _ = locked_pair(tmp_path, metadata=text)
    python(ROOT / "examples" / "serve" / "server.py", model, status=(1,), words=["damaged record"])


# -- Python -----------------------------------------------------------------------------------------------------------


@case("a conventional cipher of images of 2^40 pixels")
def _(tmp_path):
    with pytest.raises((ValueError, MemoryError), match=r"smaller|image_size"):
        make_cipher("SUB", SecretKey.for_experiment(1), image_size=(2**20, 2**20))


@case("two classes of one name in two forms of Unicode", LINUX)
def _(tmp_path):
    for part in ("train", "test"):
        for i, form in enumerate(("NFC", "NFD")):
            picture(tmp_path / part / unicodedata.normalize(form, "café") / f"{i}.png", i)
    try:
        data = load_dataset("folder", root=tmp_path, size=8)
    except (ValueError, RuntimeError) as error:
        assert "caf" in str(error)
    else:
        assert len(data.classes) == 1


@case("an attack on encrypted grey levels as floats")
def _(tmp_path):
    cipher = PatchCipher(SecretKey.for_experiment(1), 4)
    try:
        found = chosen_plaintext(lambda images: cipher.encrypt(images).float())
    except ValueError as error:
        assert "[0, 1]" in str(error)
    else:
        assert share_recovered(found, cipher) == 1


@case("a cache whose folder of models is a file")
def _(tmp_path):
    (tmp_path / "models").write_text("")
    scale = Scale("mine", random_data(), {"dim": 4, "depth": 1, "kernel_size": 3, "patch_size": 4, "num_classes": 2},
                  TrainSettings(1, 32), 1)  # fmt: skip
    told = pytest.raises((OSError, RuntimeError), match=r"models.*(CMX_CACHE|name|folder)")
    with patch.dict(os.environ, {"CMX_CACHE": str(tmp_path)}), told:
        trained_model(scale, device="cpu", progress=False)


@pytest.mark.parametrize("run", CASES)
def test_outside(run, tmp_path):
    run(tmp_path)
