"""A secret is where it belongs, in a key file of mode 0600, and nowhere else: not in what a session writes and prints,
not in the arguments of its processes, not in a traceback that shows variables, not in a pickle."""

import ast
import base64
import contextlib
import copy
import inspect
import json
import os
import pickle
import re
import shlex
import stat
import subprocess
import sys
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from cmxlib import ConvMixer, PatchCipher, SecretKey, fit, key_trials
from cmxlib.lock import keyfile, keys
from cmxlib.lock.use import Encrypt
from cmxlib.study import table as tables

from ..study.conftest import toy  # noqa: F401 (a fixture)
from . import kills
from .counts import COUNTS

WORDS = "correct horse battery staple"


def forms(secret: bytes) -> dict[str, bytes]:
    """The ways in which 32 bytes may be written down."""
    found = {"raw": secret, "hex": secret.hex().encode(), "capital hex": secret.hex().upper().encode()}
    for shift in range(3):  # base64 of a text in which the secret stands at any place
        whole = base64.b64encode(bytes(shift) + secret)[4 * (shift > 0) : -4]
        found |= {f"base64, {shift}": whole, f"URL base64, {shift}": whole.translate(bytes.maketrans(b"+/", b"-_"))}
    found["repr"] = repr(secret)[2:-1].encode()
    found["a list"] = re.sub(r"\s", "", str(list(secret)))[1:-1].encode()
    return found


def find(secrets: list[bytes], data: bytes) -> list[str]:
    """The forms in which any of them stands in the data, spaces and colons aside."""
    texts = data, re.sub(rb"[\s:]", b"", data)
    return [name for each in secrets for name, form in forms(each).items() if any(form in text for text in texts)]


def test_the_search_finds_what_is_there():
    secret = SecretKey.generate()._secret.value
    for form in forms(secret).values():
        assert find([secret], b"before" + form + b"after")
    assert find([secret], secret.hex(":").encode()) and find([secret], str(list(secret)).encode())
    assert find([secret], json.dumps({"key": base64.b64encode(secret).decode()}).encode())
    assert not find([secret], os.urandom(10**6))


def shown(error):
    """A traceback as tools print it that show all variables."""
    return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


def test_a_session_writes_and_prints_no_secret(key, cmx, toy, monkeypatch):  # noqa: F811
    """Keys, images, models, a training with checkpoint, key trials, a table of the study, and errors in all of them."""
    printed = []
    monkeypatch.setattr("getpass.getpass", lambda prompt: WORDS)

    def say(*arguments):
        printed.append("".join(map(str, cmx(*arguments))))

    say("key", "new", "a.key")
    say("key", "new", "sealed.key", "--passphrase")
    made = SecretKey.load("a.key")
    secrets = [made._secret.value, SecretKey.load("sealed.key", passphrase=WORDS)._secret.value]
    os.makedirs("in")
    for n in range(3):
        Image.fromarray(np.random.default_rng(n).integers(0, 256, (8, 8, 3), np.uint8)).save(f"in/{n}.png")
    np.save("a.npy", np.zeros((1, 3, 8, 8), np.uint8))
    model = ConvMixer(8, 1, 3, 4)
    save_file(model.state_dict(), "a.safetensors")
    torch.save(model.state_dict(), "a.pt")
    for locked in ("a.key", "sealed.key"):
        use = ("--key", locked)
        for name in ("in", "a.npy"):
            out = f"{locked}-{name}"
            say("encrypt-images", name, out, *use, "--patch", 4)
            say("decrypt-images", out, f"plain-{out}", *use, "--json")
            say("encrypt-images", name, out, *use, "--patch", 2)  # refused
        for name in ("a.safetensors", "a.pt"):
            out = f"{locked}-{name}"
            say("encrypt-model", name, out, *use, "--patch", 4, "--norm", "imagenet", "--json")
            say("verify", name, out, *use)
            say("decrypt-model", out, f"plain-{out}", *use)
        say("key", "show", locked, "--json")
        say("decrypt-images", f"{locked}-in", "other", "--key", "my.key")  # another key
    cipher = PatchCipher(made)
    data = toy.data()
    settings = toy.train
    fit(ConvMixer(**toy.model), data, settings, checkpoint="here", transform=Encrypt(cipher), progress=False)
    printed.append(key_trials(ConvMixer(**toy.model).eval(), data, cipher).to_string())
    tables.record(kills.TABLE, toy, say=printed.append)

    def fail():
        unlocked = made  # a variable of the user's
        raise_from = PatchCipher(unlocked, 3, block_size=2)
        return raise_from

    def fails(call):
        try:
            call()
        except Exception as error:
            printed.append(shown(error))
        else:
            raise AssertionError("no error")

    fails(fail)
    fails(lambda: pickle.dumps([made, cipher]))
    fails(lambda: json.dumps({"key": made}))
    fails(lambda: made.save("a.key"))
    fails(lambda: SecretKey.load("sealed.key", passphrase="wrong"))
    fails(lambda: made.permutation("x", purpose="y"))
    fails(lambda: fit(model, data, settings, transform=lambda x: cipher.encrypt(x[..., :3]), progress=False))
    printed += [repr(made), str(made), f"{made}", repr(copy.copy(made)), repr(copy.deepcopy({"key": made}))]
    printed += [repr(vars(made)), repr(vars(cipher)), repr(Encrypt(cipher)), json.dumps(made, default=str)]
    files = [path for path in Path().rglob("*") if path.is_file() and path.suffix != ".key"]
    Path("pickled").write_bytes(pickle.dumps(Encrypt(cipher)))
    for path in [*files, Path("pickled"), Path("sealed.key")]:
        assert not find(secrets, path.read_bytes()), path
        COUNTS["files searched"] += 1
    assert not find(secrets, "\n".join(printed).encode()) and WORDS not in "\n".join(printed)
    assert find(secrets, Path("a.key").read_bytes()) == ["hex"]  # there it belongs
    assert len(files) > 25 and len(printed) > 30
    COUNTS["texts searched"] += len(printed)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
def test_no_argument_of_a_process_and_no_environment_holds_a_secret(key, cmx):
    """Of the command and of its workers, which are given the cipher to work with."""
    made = SecretKey.generate()
    made.save("a.key")
    os.mkdir("in")
    for n in range(80):
        Image.fromarray(np.zeros((128, 128, 3), np.uint8)).save(f"in/{n}.png")
    command = [sys.executable, "-m", "cmxlib", "encrypt-images", "in", "out", "--key", "a.key", "--patch", "4"]
    process = subprocess.Popen([*command, "--workers", "2"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seen = {}
    while process.poll() is None:
        for pid in [process.pid, *children(process.pid)]:
            with contextlib.suppress(OSError):
                seen[pid] = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
    assert process.returncode == 0 and len(seen) >= 3
    assert not find([made._secret.value], b"".join(seen.values()))
    COUNTS["processes searched"] += len(seen)


def children(pid):
    found = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += (task / "children").read_text().split()
    return [int(each) for child in found for each in (child, *children(child))]


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
def test_key_files_are_for_their_owner_alone_whatever_the_umask(key, cmx):
    before = os.umask(0)
    try:
        assert cmx("key", "new", "a b.key")[0] == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat("a b.key").st_mode) == 0o600
    os.chmod("a b.key", 0o644)
    status, _, said = cmx("key", "show", "a b.key")
    (mend,) = re.findall(r"run (chmod 600 .*?), and", said)
    assert status == 1
    subprocess.run(shlex.split(mend), check=True)  # what it says mends it
    assert cmx("key", "show", "a b.key")[0] == 0


@pytest.mark.parametrize("module", [keys, keyfile])
def test_secrets_are_compared_in_constant_time(module):
    """No == or != has a secret on either side: hmac.compare_digest takes as long whatever differs."""
    comparisons = [node for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.Compare)]
    wrong = [
        ast.unparse(node)
        for node in comparisons
        if any(isinstance(op, (ast.Eq, ast.NotEq)) for op in node.ops)
        and any(isinstance(side, ast.Attribute) and side.attr == "value" for side in (node.left, *node.comparators))
    ]
    assert not wrong and "hmac.compare_digest" in inspect.getsource(module)
