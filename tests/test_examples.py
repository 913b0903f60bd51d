"""README's shell session as it stands there, and the server: what it answers, and that it knows no key."""

import base64
import importlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
import torch

from cmxlib import SecretKey
from cmxlib.files.compare import plain_images
from cmxlib.files.graphs import OnnxFile
from cmxlib.paths import ROOT


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """The folder in which README's session ran, and what it printed."""
    (lines,) = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert lines.count("\n") <= 10
    folder = tmp_path_factory.mktemp("session")
    (folder / "examples").symlink_to(ROOT / "examples")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    python = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PATH": path, "PYTHONPATH": python}
    done = subprocess.run(["sh", "-e", "-c", lines], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout + done.stderr


@pytest.fixture(scope="module")
def client(session):
    """The example's client, with the key, and the process number of a server that runs."""
    sys.path.insert(0, str(ROOT / "examples" / "serve"))
    try:
        client, start = map(importlib.import_module, ("client", "start"))
    finally:
        sys.path.pop(0)
    with start.serving(str(session[0] / "locked.onnx")) as (url, process):
        yield client.Client(url, SecretKey.load(session[0] / "my.key")), process, client.load


def test_the_session_predicts_what_the_plain_model_does(session):
    folder, said = session
    assert "Equal: on 10 images, outputs differ by" in said and "Changed: 0 alone." in said
    predicted = re.findall(r"\.png: class (\d)", said)
    outputs = OnnxFile(folder / "plain.onnx").run(normalised(plain_images(folder / "photos", 4)))
    assert predicted == [str(int(found)) for found in outputs.argmax(1)]
    assert f"classes: {', '.join(predicted)}\n" in said
    assert sum(found == str(label) for label, found in enumerate(predicted)) >= 8
    assert plain_images(folder / "photos", 4).equal(plain_images(folder / "photos-again", 4))


def normalised(images):
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.5016, 0.5016, 0.4984), (0.1611, 0.1616, 0.1613)))
    return (images / 255 - mean) / std


def forms(key):
    """The secret as it could be found somewhere."""
    secret = key._secret.value
    return [secret, secret.hex().encode(), secret.hex().upper().encode(), base64.b64encode(secret).rstrip(b"="),
            base64.urlsafe_b64encode(secret).rstrip(b"=")]  # fmt: skip


def test_the_session_writes_the_key_into_its_file_alone(session):
    folder, said = session
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "my.key"]
    assert len(files) > 30
    secret = forms(SecretKey.load(folder / "my.key"))
    assert [path for path in files if any(form in path.read_bytes() for form in secret)] == []
    assert not any(form in said.encode() for form in secret)
    assert secret[1] in (folder / "my.key").read_bytes()


def test_the_server_answers_as_the_plain_model_would(session, client):
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = client[0].ask(client[0].body(images))
    plain = OnnxFile(session[0] / "plain.onnx").run(normalised(images))
    assert np.abs(found - plain.numpy()).max() < 1e-5 * plain.abs().max()


def memory(process):
    """The readable parts of a process's memory, one after another."""
    with open(f"/proc/{process}/maps") as maps, open(f"/proc/{process}/mem", "rb") as file:
        for line in maps:
            start, end = (int(number, 16) for number in line.split()[0].split("-"))
            if line.split()[1].startswith("r") and "[v" not in line:
                try:
                    file.seek(start)
                    yield file.read(end - start)
                except OSError:  # a part that the system does not give out
                    continue


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="a system that shows no memory of a process")
def test_the_key_never_reaches_the_servers_memory(session, client):
    client, process, _ = client
    client.ask(client.body(plain_images(session[0] / "photos", 4)))
    order = client.cipher.permutation
    looked_for = [*forms(SecretKey.load(session[0] / "my.key")), order.tobytes(), order.astype(np.uint8).tobytes(),
                  order.astype(np.int32).tobytes()]  # fmt: skip
    assert any(looked_for[0] in part for part in memory(os.getpid()))  # which holds it, so that it can be found
    parts = list(memory(process))
    assert sum(map(len, parts)) > 10**7
    fingerprint = client._key.encode()
    assert any(fingerprint in part for part in parts)  # and what the server knows is found in it
    assert not any(form in part for part in parts for form in looked_for)
    with open(f"/proc/{process}/environ", "rb") as environ, open(f"/proc/{process}/cmdline", "rb") as command:
        assert b"my.key" not in environ.read() + command.read()


def npy(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def huge():
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (2**40, 3, 4, 4)})
    return file.getvalue()


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "no .npy file"),
        (b"\x89PNG\r\n\x1a\n", 400, "no .npy file"),
        (npy(np.zeros((1, 3, 4, 4), np.uint8))[:-1], 400, "its bytes are not as many"),
        (huge(), 400, "its bytes are not as many"),
        (npy(np.array([print]), allow_pickle=True), 400, "send uint8 or float32"),
        (npy(np.zeros((1, 3, 4, 4))), 400, "send uint8 or float32"),
        (npy(np.zeros((1, 4, 4, 3), np.uint8)), 400, "send uint8 or float32"),
        (npy(np.zeros((0, 3, 4, 4), np.uint8)), 400, "send uint8 or float32"),
        (npy(np.zeros((1, 3, 6, 4), np.uint8)), 400, "Patches of 4 do not divide images of 6 x 4"),
        (npy(np.full((1, 3, 4, 4), np.nan, np.float32)), 400, "not finite"),
        (npy(np.zeros((1, 3, 64, 64), np.uint8)), 422, "send its own size"),
        (bytes(2**24 + 1), 413, "send fewer images"),
    ],
)
def test_bad_requests_get_clear_answers(client, body, status, said):
    with pytest.raises(ValueError, match=rf"^The server says \({status}\): .*{re.escape(said)}"):
        client[0].ask(body)


def test_another_key_is_told_on_both_sides(session, client):
    url = str(client[0]._web.base_url).rstrip("/")
    with pytest.raises(ValueError, match="encrypted with the key"):
        type(client[0])(url, SecretKey.for_experiment(1))
    answer = httpx.post(f"{url}/predict", content=npy(np.zeros((1, 3, 32, 32), np.uint8)))
    assert answer.status_code == 409 and "The images' key is None" in answer.json()["detail"]


def test_the_load_is_measured(session, client):
    found = client[2](client[0], client[0].body(plain_images(session[0] / "photos", 4)), seconds=0.5, threads=4)
    assert found["requests a second"] > 1 and 0 < found["median"] <= found["slowest 1 %"]


@pytest.fixture(scope="module")
def beside():
    """The example that measures other protections, as a module."""
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        return importlib.import_module("other_protections")
    finally:
        sys.path.pop(0)


def test_the_page_on_other_protections_says_what_the_rows_say(beside):
    rows, page = pd.read_csv(beside.RESULTS), (ROOT / "notebooks" / "protection.md").read_text(encoding="utf-8")
    assert beside.table(rows) in page
    of = rows.set_index(["protection", "what", "measure"]).value
    grown = (
        of[beside.HE, "an image, encrypted, for this product", "bytes"]
        / of[beside.BOOK, "an image, encrypted", "bytes"]
    )
    slower = of[beside.HE, "compute the first layer", "seconds"] / of[beside.BOOK, "compute the first layer", "seconds"]
    assert grown > 3000 and slower > 10_000
    assert (of.xs("largest difference", level="measure") < 1e-4).all()


def test_what_other_protections_are_compared_by_is_exact(beside, tmp_path):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 4, stride=4))
    image = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8)
    given = net, image, {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.25, 0.3)}
    (tmp_path / "weights").write_bytes(b"weights" * 9)
    found = {row[1:3]: row[3] for row in (*beside.at_rest(tmp_path / "weights"), *beside.of_the_book(*given))}
    assert found["the weights, encrypted", "bytes"] == 63 + 12 + 16 and found["an image, encrypted", "bytes"] == 192
    assert found["first layer", "largest difference"] < 1e-5
    pytest.importorskip("tenseal")
    found = {row[1:3]: row[3] for row in beside.homomorphic(*given)}
    assert found["first layer", "largest difference"] < 1e-4
