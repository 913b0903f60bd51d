"""Files that chance has changed: every parser takes them, or refuses them with a ValueError or OSError.

Bytes of a good file are replaced, cut out, doubled or added, by hypothesis, which makes what it finds as small as it
can; texts of JSON are made of nothing too. `python -m tests.trust` tries more, and others guided by coverage.
"""

import contextlib
import io
import json
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from cmxlib import PatchCipher, SecretKey
from cmxlib.files import arrays, folders, models, pictures, record
from cmxlib.learn.checkpoint import CheckpointError, load_checkpoint, load_model, save_checkpoint, save_model
from cmxlib.lock import keyfile
from cmxlib.study import records
from cmxlib.study.grid import read_grid

from ..files.test_graphs import model as onnx_model
from . import kills
from .counts import COUNTS, FULL

EXAMPLES = 200 if FULL else 30
FUZZ = settings(max_examples=EXAMPLES, database=None, suppress_health_check=list(HealthCheck), derandomize=not FULL)
KEY = SecretKey.for_experiment(1)
CIPHER = PatchCipher(KEY, 4)
UNDER = record.source_key(KEY)
REFUSALS = (ValueError, OSError, CheckpointError)  # SafetensorError and the like are not among them


@st.composite
def changed(draw, good: bytes):
    """A good file with one to four changes."""
    data = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from([0, 1, 2, 4, 8, 64, len(good)])))
        kind = draw(st.sampled_from(["replace", "cut", "double", "bit", "words"]))
        if kind == "replace":
            data[start:end] = draw(st.binary(min_size=end - start, max_size=end - start)) if end - start < 99 else b""
        elif kind == "cut":
            del data[start:end]
        elif kind == "double":
            data[start:start] = data[start:end]
        elif kind == "bit" and start < len(data):
            data[start] ^= 1 << draw(st.integers(0, 7))
        else:
            words = [b"\0", b"\xff" * 4, b"\xff\xff\xff\x7f", b"-1", b"1e999", b'"', b"[", b"{", b"\n", b"../", b"NaN"]
            data[start:end] = draw(st.sampled_from(words))
    return bytes(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=9,
)


@pytest.fixture(scope="module", autouse=True)
def here():
    """A folder for all examples of this file."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        yield
        os.chdir(before)


def taken_or_refused(read):
    COUNTS["fuzz executions"] += 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return read()
        except REFUSALS as error:
            assert type(error) is not UnicodeDecodeError and "\n" not in str(error)
            return None


def put(name, data):
    Path(name).write_bytes(data)
    os.chmod(name, 0o600)
    return Path(name)


def good_key():
    with contextlib.suppress(FileExistsError):
        KEY.save("good.key")
    return Path("good.key").read_bytes()


@FUZZ
@given(st.data())
def test_key_files(data):
    path = put("a.key", data.draw(changed(good_key()) | st.binary(max_size=300)))
    found = taken_or_refused(lambda: keyfile.read(path))
    assert found is None or (found[0].value, found[1]) == (KEY._secret.value, KEY.origin)


def image(kind, **options):
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


IMAGES = {kind: image(kind) for kind in pictures.FORMATS}


@settings(FUZZ, max_examples=EXAMPLES * len(IMAGES))
@given(st.sampled_from(list(IMAGES)), st.data())
def test_images(kind, data):
    job = pictures.Job(CIPHER, record.of(KEY, CIPHER), UNDER, force=True, pad=True)
    path = put("a.png", data.draw(changed(IMAGES[kind])))
    taken_or_refused(lambda: list(folders.convert(path, Path("b.png"), job)))
    assert not list(Path().glob(".b.png*"))


def locked_image():
    job = pictures.Job(CIPHER, record.of(KEY, CIPHER), UNDER, force=True)
    list(folders.convert(put("plain.png", IMAGES["PNG"]), Path("locked.png"), job))
    return Path("locked.png").read_bytes()


@FUZZ
@given(st.data())
def test_encrypted_images(data):
    path = put("a.png", data.draw(changed(locked_image())))

    def unlock():
        found = folders.first_record(path)
        cipher = PatchCipher(KEY, found.patch, steps=found.steps)
        list(
            folders.convert(
                path, Path("b.png"), pictures.Job(cipher, found.settings(), UNDER, decrypt=True, force=True)
            )
        )

    taken_or_refused(unlock)


@FUZZ
@given(JSON | st.dictionaries(st.sampled_from(["version", *record._KINDS]), JSON))
def test_records(found):
    taken_or_refused(lambda: record.parse(json.dumps(found), "a.png"))


def good_array():
    np.save("good.npy", np.random.default_rng(0).random((2, 3, 8, 8), np.float32))
    return Path("good.npy").read_bytes()


@FUZZ
@given(st.data())
def test_arrays(data):
    path = put("a.npy", data.draw(changed(good_array()[:200]) | changed(good_array())))
    taken_or_refused(
        lambda: arrays.convert(path, Path("b.npy"), pictures.Job(CIPHER, record.of(KEY, CIPHER), UNDER, force=True))
    )


STATE = {"a.weight": torch.rand(4, 3, 4, 4), "a.bias": torch.rand(4)}
ASKED = models.Asked(patch=4, mean=(0.5,) * 3, std=(0.3,) * 3)


def torch_file():
    file = io.BytesIO()
    torch.save(STATE, file)
    return file.getvalue()


MODELS = {
    ".safetensors": save(STATE),
    ".safetensors, its header": save(STATE, {"cmxlib": "{}"}),
    ".pt": torch_file(),
    ".onnx": onnx_model().SerializeToString(),
}


@settings(FUZZ, max_examples=EXAMPLES * len(MODELS))
@given(st.sampled_from(list(MODELS)), st.data())
def test_models(kind, data):
    good, suffix = MODELS[kind], kind.partition(",")[0]
    at = 240 if "header" in kind else len(good)
    path = put(f"a{suffix}", data.draw(changed(good[:at])) + good[at:])
    taken_or_refused(lambda: models.encrypt(path, Path(f"b{suffix}"), KEY, ASKED, force=True))


@FUZZ
@given(JSON)
def test_headers_of_tensors(header):
    text = json.dumps({"a.weight": header} if isinstance(header, dict) else header).encode()
    path = put("a.safetensors", len(text).to_bytes(8, "little") + text + bytes(64))
    taken_or_refused(lambda: models.opened(path).shapes())


def checkpoint():
    model = kills.model()
    optimizer = torch.optim.AdamW(model.parameters())
    sum(p.sum() for p in model.parameters()).backward()
    optimizer.step()
    state = dict.fromkeys(("settings", "data", "model", "transform", "autocast")) | {"rows": [{"epoch": 1}]}
    return model, optimizer, state


@FUZZ
@given(st.data())
def test_checkpoints(data):
    model, optimizer, state = checkpoint()
    os.makedirs("here", exist_ok=True)
    save_checkpoint(Path("here"), model, optimizer, state)
    file = Path("here") / data.draw(st.sampled_from(["state.json", "epoch-001.safetensors"]))
    good = file.read_bytes()
    made = JSON.map(lambda value: json.dumps(value).encode())
    some = st.dictionaries(st.sampled_from(list(json.loads(good)) if file.suffix == ".json" else ["x"]), JSON)
    partly = some.map(lambda value: json.dumps((json.loads(good) if file.suffix == ".json" else {}) | value).encode())
    file.write_bytes(data.draw(changed(good) | made | partly))
    found = taken_or_refused(lambda: load_checkpoint(Path("here"), model, optimizer, state))
    assert found is None or isinstance(found["rows"], list)


@FUZZ
@given(st.data())
def test_saved_models(data):
    pandas = pytest.importorskip("pandas")
    model = kills.model()
    save_model(Path("kept"), model, pandas.DataFrame([{"epoch": 1}]), {"a": 1})
    file = Path(data.draw(st.sampled_from(["kept.json", "kept.safetensors"])))
    good = file.read_bytes()
    made = JSON.map(lambda value: json.dumps(value).encode())
    file.write_bytes(data.draw(changed(good) | made))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    if taken_or_refused(lambda: load_model(Path("kept"), model)) is None:
        assert all(value.equal(before[name]) for name, value in model.state_dict().items())


ROW = dict.fromkeys(records.REQUIRED, "x") | {"value": "0.5"}
TABLE = ",".join(ROW) + "\n" + "\n".join([",".join(ROW.values())] * 3) + "\n"


@FUZZ
@given(changed(TABLE.encode()) | st.binary(max_size=100))
def test_tables_of_rows(text):
    path = put("t.csv", text)
    found = taken_or_refused(lambda: records._load(path))
    for row in found or []:
        float(row["value"])
        assert set(row) >= set(records.REQUIRED)


SWEEP = b"""base = "small"
name = "x"
tables = ["keys"]
[scale]
seeds = [0, 1]
train.epochs = 8
[axes]
"model.depth" = [4]
"""


@FUZZ
@given(changed(SWEEP))
def test_sweeps(text):
    with contextlib.suppress(TypeError):  # of a field's own type, which names it
        taken_or_refused(lambda: read_grid(put("a.toml", text)))
