"""README's shell session as it stands there, and the server: what it answers, and that it knows no key."""

import base64
import contextlib
import functools
import http.server
import importlib.util
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import numpy as np
import onnx
import pandas as pd
import pytest
import torch
import uvicorn
from fastapi.testclient import TestClient
from PIL import Image

from cmxlib import SecretKey
from cmxlib.files.compare import plain_images
from cmxlib.files.graphs import OnnxFile
from cmxlib.paths import ROOT

from .files.conftest import cmx as cmx
from .trust.test_outside import encrypt, endless, graph, picture, text_of_record


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
        (npy(np.zeros((2, 3, 4, 4), np.uint8)).replace(b"(2, 3, 4, 4)", b"(2,3,-4,-4) "), 400, "send uint8 or float32"),
        (npy(np.full((1, 3, 4, 4), 200, np.float32)), 400, "divide grey levels by 255"),
        (npy(np.full((1, 3, 4, 4), 1e38, np.float32)), 400, "divide grey levels by 255"),
        (npy(np.full((1, 3, 4, 4), -0.5, np.float32)), 400, "divide grey levels by 255"),
        (npy(np.zeros((1, 3, 6, 4), np.uint8)), 400, "Patches of 4 do not divide images of 6 x 4"),
        (npy(np.full((1, 3, 4, 4), np.nan, np.float32)), 400, "not finite"),
        (npy(np.zeros((1, 3, 64, 64), np.uint8)), 422, "send its own size"),
        (bytes(2**24 + 1), 413, "send fewer images"),
    ],
)
def test_bad_requests_get_clear_answers(client, body, status, said):
    with pytest.raises(ValueError, match=rf"^The server says \({status}\): .*{re.escape(said)}"):
        client[0].ask(body)


def test_a_truth_value_in_a_shape_is_the_number_that_numpy_takes_it_for(client):
    body = npy(np.zeros((1, 3, 32, 32), np.uint8))
    odd = body.replace(b"(1, 3, 32, 32)", b"(True,3,32,32)")
    assert odd != body and np.array_equal(client[0].ask(odd), client[0].ask(body))


def test_a_client_that_leaves_and_one_that_sends_no_http_stop_nothing(session):
    command = [sys.executable, str(ROOT / "examples" / "serve" / "server.py"), str(session[0] / "locked.onnx")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            url = httpx.URL(server.stdout.readline().strip())
            key = httpx.get(url).json()["key"].encode()
            half = b"POST /predict HTTP/1.1\r\nHost: a\r\nX-Key: %s\r\nContent-Length: 9999\r\n\r\nhalf" % key
            for sent in (half, bytes(2**18), b"GET / HTTP/1.1\r\nX: " + b"a" * 2**18):
                with socket.create_connection((url.host, url.port)) as connection, contextlib.suppress(OSError):
                    connection.sendall(sent)
                assert httpx.get(url).status_code == 200
        finally:
            server.terminate()
        assert "Traceback" not in server.stderr.read()


def test_a_request_that_does_not_come_is_not_waited_for(session, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples" / "serve")
    server = importlib.import_module("server")
    monkeypatch.setattr(server, "LONGEST", 0.5)
    running = uvicorn.Server(uvicorn.Config(server.application(str(session[0] / "locked.onnx")), log_level="warning"))
    key = SecretKey.load(session[0] / "my.key").fingerprint
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=running.run, args=([listening],))
        thread.start()
        for length, status in ((10**14, b"413"), (9999, b"408"), (10**14, b"413")):
            with socket.create_connection(listening.getsockname(), timeout=20) as connection:
                head = f"POST /predict HTTP/1.1\r\nHost: a\r\nX-Key: {key}\r\nContent-Length: {length}\r\n\r\nhalf"
                connection.sendall(head.encode())
                answer = b"".join(iter(functools.partial(connection.recv, 4096), b""))  # to its end: it is closed
                assert answer.startswith(b"HTTP/1.1 " + status) and b"send fewer images" in answer
        running.should_exit = True
        thread.join()


@pytest.mark.parametrize("command", ["server.py locked.onnx", "start.py locked.onnx photos --key my.key --load 60"])
@pytest.mark.skipif(os.name == "nt", reason="Windows sends no such signal to one process")
def test_ctrl_c_ends_them_without_a_traceback(session, command):
    """The server when it listens; the two together, as a terminal tells them, when the client has had an answer."""
    name, *arguments = command.split()
    with subprocess.Popen(
        [sys.executable, str(ROOT / "examples" / "serve" / name), *arguments],
        cwd=session[0],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout.readline().startswith(("http://", "classes: "))
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate(timeout=20)[1]  # which all that it started have closed then
    assert process.returncode in (0, 130, -signal.SIGINT) and not said


def damaged(model, **changes):
    """A model file's bytes with another record."""
    found = onnx.load_from_string(model)
    (prop,) = found.metadata_props
    prop.value = json.dumps({name: v for name, v in (json.loads(prop.value) | changes).items() if v is not None})
    return found.SerializeToString()


TENSEAL = importlib.util.find_spec("tenseal") is not None
PREDICT, SERVE, ASK = "predict.py", "serve/server.py", "serve/client.py http://127.0.0.1:1 photos --key my.key"


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        (f"{PREDICT} none.onnx locked", 1, "none.onnx is no ONNX model that can be run"),
        (f"{PREDICT} photos/0.png locked", 1, "photos/0.png is no ONNX model that can be run"),
        (f"{PREDICT} plain.onnx locked", 1, "carries no record of a cipher"),
        (f"{PREDICT} bad/no-mean.onnx locked", 1, "no-mean.onnx has a damaged record"),
        (f"{PREDICT} locked.onnx none", 1, "none is no folder that holds .png files"),
        (f"{PREDICT} locked.onnx bad", 1, "bad is no folder that holds .png files"),
        (f"{PREDICT} locked.onnx my.key", 1, "my.key is no folder that holds .png files"),
        (f"{PREDICT} locked.onnx photos", 1, "photos/0.png was not encrypted as locked.onnx was"),
        (f"{PREDICT} locked.onnx bad/half", 1, "bad/half/a.png is no image, or is damaged"),
        (f"{PREDICT} locked.onnx bad/large", 1, "does not take bad/large/a.png as 1 x 3 x 64 x 64"),
        (f"{SERVE} none.onnx", 1, "none.onnx is no ONNX model that can be run"),
        (f"{SERVE} bad/no-mean.onnx", 1, "no-mean.onnx has a damaged record"),
        (f"{PREDICT} bad/no-std.onnx locked", 1, "no-std.onnx has a damaged record"),
        (f"{SERVE} bad/no-std.onnx", 1, "no-std.onnx has a damaged record"),
        (f"{SERVE} bad/no-patch.onnx", 1, "no-patch.onnx has a damaged record"),
        (f"{SERVE} locked.onnx --port 99999", 1, "Port 99999 cannot be had"),
        (f"{SERVE} locked.onnx --port -1", 1, "Port -1 cannot be had"),
        (ASK, 1, "client: http://127.0.0.1:1 gives no answer"),
        (f"{ASK} --load -1", 2, "--load takes seconds, more than 0, not -1"),
        (f"{ASK} --load 0", 2, "--load takes seconds, more than 0, not 0"),
        *[("predict.py bad/pipe.onnx locked", 1, "it is no file")] * (os.name != "nt"),
        *[("predict.py locked.onnx bad/pipes", 1, "bad/pipes/x.png is no file")] * (os.name != "nt"),
        *[("serve/server.py bad/pipe.onnx", 1, "it is no file")] * (os.name != "nt"),
        ("export.py my.key/new.onnx new", 1, "export: my.key"),
        ("export.py my.key new", 1, "export: my.key would hold an ONNX model: name a file that ends in .onnx"),
        ("export.py plain.onnx new", 1, "export: plain.onnx exists already: name another output"),
        ("export.py new.onnx photos", 1, "export: photos/0.png exists already"),
        ("other_protections.py --help", 0, ""),
        ("serve/start.py --help", 0, ""),
        ("serve/start.py locked.onnx", 2, "name the images, and the --key"),
        *[("other_protections.py", 1, "This needs tenseal, which is not installed: pip")] * (not TENSEAL),
    ],
)
def test_an_example_says_what_is_wrong_with_what_it_is_given(session, cmx, script, monkeypatch, command, status, said):
    monkeypatch.chdir(session[0])
    if not os.path.exists("bad"):
        for folder in ("bad/half", "bad/large"):
            os.makedirs(folder)
        whole = Path("locked.onnx").read_bytes()
        for name, changes in {"mean": {"mean": None}, "std": {"std": [0, 0, 0]}, "patch": {"patch": 0}}.items():
            Path(f"bad/no-{name}.onnx").write_bytes(damaged(whole, **changes))
        Path("bad/half/a.png").write_bytes(Path("locked/0.png").read_bytes()[:900])
        Image.new("RGB", (64, 64)).save("bad/a.bmp")
        if hasattr(os, "mkfifo"):  # which would be waited for
            os.mkdir("bad/pipes")
            os.mkfifo("bad/pipe.onnx")
            os.mkfifo("bad/pipes/x.png")
        assert cmx("encrypt-images", "bad/a.bmp", "bad/large/a.png", "--key", "my.key", "--patch", 4)[0] == 0
    program, *arguments = command.split()
    found, told = script(f"examples/{program}", *arguments)
    assert found == status and said in told and "Traceback" not in told, told


def test_what_the_server_says_is_seen_where_both_are_started(session):
    """In processes of their own, as all examples are run by the session above."""
    command = [sys.executable, "examples/serve/start.py", "none.onnx", "photos", "--key", "my.key"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=session[0], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "none.onnx is no ONNX model that can be run" in done.stderr


@pytest.mark.parametrize("program", ["serve/start.py", "../sweeps/slurm.py", "../sweeps/ssh.py"])
def test_help_needs_no_docstrings(program):
    command = [sys.executable, "-OO", str(ROOT / "examples" / program), "--help"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0 and "usage: " in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("status", "kind", "body", "said"),
    [
        (502, "json", b'{"error": "bad gateway"}', r"The server says \(502\): .*bad gateway"),
        (502, "html", b"<h1>bad gateway</h1>", r"The server says \(502\): <h1>bad gateway"),
        *(
            (200, "json", body, "are no logits of a model")
            for body in (
                *(b'{"message": "hi"}', b"[1]", b"3", b'{"logits": [1.0, 2.0]}', b'{"logits": [[1, 2], [3]]}'),
                *(
                    b"",
                    b"[" * 100_000,
                    b'{"logits": [[NaN, 1.0]]}',
                    b'{"logits": [[]]}',
                    b'{"logits": [["a"]]}',
                    b'{"logits": [[1e999]]}',
                ),
            )
        ),
        (200, "html", b"<h1>log in</h1>", "are no logits of a model"),
    ],
)
def test_what_another_than_the_server_answers_is_no_class(session, client, monkeypatch, status, kind, body, said):
    """A proxy between, or a page to log in."""

    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Type", f"text/{kind}")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        thread = threading.Thread(target=proxy.handle_request)
        thread.start()
        with httpx.Client(base_url=f"http://127.0.0.1:{proxy.server_port}") as web:
            monkeypatch.setattr(client[0], "_web", web)
            with pytest.raises(ValueError, match=said):
                client[0].ask(b"x")
        thread.join()


@contextlib.contextmanager
def answering(**said):
    """The URL of a server that answers a method of HTTP with (status, body), to no end where one of them is None."""

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, body = said[self.command]
            if status is None:
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
            else:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
            self.wfile.write(body or b"")
            while body is None and not stopped.wait(0.1):
                self.wfile.write(b" ")

        do_POST = do_GET

        def log_message(self, *_):
            pass

    stopped = threading.Event()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            stopped.set()
            server.shutdown()


DEEP, NO_SERVER = b"[" * 100_000, "is no server of an encrypted model"


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ((200, b""), NO_SERVER),
        ((200, DEEP), NO_SERVER),
        ((200, {"steps": 5}), NO_SERVER),
        ((200, {"steps": "shuffle\x1b[2J"}), NO_SERVER),
        ((200, {"patch": 2000}), NO_SERVER),
        ((200, {"patch": 10**400}), NO_SERVER),
        ((500, {}), NO_SERVER),
        ((200, None), "gave no whole answer in 0.5 seconds"),
        ((None, None), "gave no whole answer in 0.5 seconds"),
    ],
)
def test_a_server_of_something_else_is_told(session, client, monkeypatch, about, said):
    status, body = about
    key = SecretKey.load(session[0] / "my.key")
    if isinstance(body, dict):
        body = json.dumps({"key": key.fingerprint, "patch": 4, "steps": ["shuffle"], **body}).encode()
    monkeypatch.setitem(type(client[0]).__init__.__globals__, "LONGEST", 0.5 if body is None else 60)
    with answering(GET=(status, body)) as url, pytest.raises((ValueError, TimeoutError), match=said):
        type(client[0])(url, key)


def test_logits_of_more_images_than_were_sent_are_no_classes(session, script):
    key = SecretKey.load(session[0] / "my.key").fingerprint
    about = json.dumps({"key": key, "patch": 4, "steps": ["shuffle"]}).encode()
    asked = "examples/serve/client.py", session[0] / "photos" / "0.png", "--key", session[0] / "my.key"
    with answering(GET=(200, about), POST=(200, b'{"logits": [[1, 2], [2, 1], [3, 4]]}')) as url:
        status, said = script(asked[0], url, *asked[1:])
    assert status == 1 and "gives 3 rows of logits, not 1" in said


@pytest.mark.parametrize("odd", [{"mean": [10**400] * 3}, {"patch": 10**400}, {"key": "DEEP"}])
@pytest.mark.parametrize("program", [PREDICT, SERVE])
def test_a_record_of_odd_numbers_is_damaged(session, script, tmp_path, program, odd):
    found = onnx.load_from_string((session[0] / "locked.onnx").read_bytes())
    (prop,) = found.metadata_props
    prop.value = json.dumps(json.loads(prop.value) | odd).replace('"DEEP"', DEEP.decode())
    onnx.save(found, tmp_path / "odd.onnx")
    status, told = script(f"examples/{program}", tmp_path / "odd.onnx", *[session[0] / "locked"] * (program == PREDICT))
    assert status == 1 and "odd.onnx has a damaged record" in told


def test_a_model_that_never_ends_is_not_run_for_ever(session, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples" / "serve")
    server = importlib.import_module("server")
    monkeypatch.setattr(server, "LONGEST", 0.5)
    key = SecretKey.load(session[0] / "my.key")
    graph(tmp_path / "m.onnx", {"cmxlib": text_of_record(key)}, endless())
    with TestClient(server.application(str(tmp_path / "m.onnx"))) as web:
        body = npy(np.zeros((1, 3, 16, 16), np.uint8))
        answer = web.post("/predict", content=body, headers={"X-Key": key.fingerprint})
    assert answer.status_code == 422 and "was not done in 0.5 seconds" in answer.json()["detail"]


def test_a_model_that_cannot_be_run_is_told_in_the_runtimes_words(session, script, tmp_path):
    found = onnx.load_from_string((session[0] / "locked.onnx").read_bytes())
    found.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "\x1b[2J\nn"
    onnx.save(found, tmp_path / "m.onnx")
    picture(tmp_path / "in" / "a.png", size=(64, 64))
    encrypt(tmp_path / "in", tmp_path / "locked", SecretKey.load(session[0] / "my.key"))
    status, said = script(f"examples/{PREDICT}", tmp_path / "m.onnx", tmp_path / "locked")
    assert status == 1 and said.count("\n") == 1
    assert "which takes \\x1b[2J n x 3 x 32 x 32, does not take" in said and "INVALID_ARGUMENT" in said


@pytest.mark.parametrize("program", [PREDICT, SERVE])
def test_a_model_without_inputs_cannot_be_run(session, script, tmp_path, program):
    found = onnx.load_from_string((session[0] / "locked.onnx").read_bytes())
    del found.graph.input[:], found.graph.node[:]
    found.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1]))
    value = onnx.helper.make_tensor("v", onnx.TensorProto.FLOAT, [1], [1.0])
    found.graph.node.append(onnx.helper.make_node("Constant", [], ["x"], value=value))
    onnx.save(found, tmp_path / "m.onnx")
    status, said = script(f"examples/{program}", tmp_path / "m.onnx", *[session[0] / "locked"] * (program == PREDICT))
    assert status == 1 and "m.onnx is no ONNX model that can be run" in said


@pytest.mark.parametrize("encoding", ["ascii", "utf-8:strict"])
def test_names_are_shown_as_the_terminal_can(session, tmp_path, encoding):
    names = ["é.png", "\x1b[2J\nred.png"]
    for name in names if os.name == "posix" else names[:1]:
        (tmp_path / name).write_bytes((session[0] / "locked" / "0.png").read_bytes())
    command = [sys.executable, str(ROOT / "examples" / "predict.py"), str(session[0] / "locked.onnx"), str(tmp_path)]
    env = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(command, env=env, capture_output=True)
    assert done.returncode == 0 and b"\x1b" not in done.stdout, done.stderr
    assert done.stdout.count(b"\n") == done.stdout.count(b"class") == len(os.listdir(tmp_path))


def test_another_key_is_told_on_both_sides(session, client):
    url = str(client[0]._web.base_url).rstrip("/")
    with pytest.raises(ValueError, match="encrypted with the key"):
        type(client[0])(url, SecretKey.for_experiment(1))
    answer = httpx.post(f"{url}/predict", content=npy(np.zeros((1, 3, 32, 32), np.uint8)))
    assert answer.status_code == 409 and "The header X-Key is missing" in answer.json()["detail"]


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
