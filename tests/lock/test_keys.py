import copy
import hashlib
import os
import pickle
import stat
import subprocess
import sys
import traceback

import numpy as np
import pytest

from cmxlib import SecretKey


@pytest.fixture
def key():
    return SecretKey.for_experiment(7)


# Golden vectors: whoever saved a key must be able to decrypt with any later version, on any machine.
def test_golden_stream(key):
    assert key.stream(16, purpose="test").hex() == "4a6a18a83a2e5548242160316cc4e344"


def test_golden_permutation(key):
    assert key.permutation(12, purpose="shuffle").tolist() == [10, 5, 0, 6, 11, 2, 9, 4, 1, 3, 7, 8]


def test_golden_bits(key):
    assert key.bits(12, purpose="flip").astype(int).tolist() == [0, 1, 0, 1, 0, 1, 1, 1, 1, 0, 0, 1]


def test_golden_half(key):
    assert key.half(12, purpose="NP").astype(int).tolist() == [0, 0, 0, 1, 1, 0, 0, 1, 1, 0, 1, 1]


def test_golden_subkey(key):
    assert key.subkey("a").permutation(6, purpose="shuffle").tolist() == [3, 4, 0, 1, 5, 2]


def test_golden_orthogonal(key):
    expected = [
        [0.9379715744342827, -0.1783443258448068, 0.2973257926790643],
        [-0.332348175131794, -0.7067708929318359, 0.6245154885116152],
        [-0.098762422205204, 0.6845934606343361, 0.7222034184472299],
    ]
    np.testing.assert_allclose(key.orthogonal(3, purpose="orthogonal"), expected, rtol=0, atol=1e-12)


def test_golden_passphrase():
    key = SecretKey.from_passphrase("correct horse", salt="battery staple")
    assert key.permutation(12, purpose="shuffle").tolist() == [5, 2, 1, 6, 8, 4, 7, 11, 0, 3, 10, 9]
    assert key == SecretKey.from_passphrase("correct horse", salt=b"battery staple")
    assert key != SecretKey.from_passphrase("correct horse", salt=b"battery stable")
    typed = [SecretKey.from_passphrase(f"caf{e}", salt=f"caf{e} au lait") for e in ("\u00e9", "e\u0301")]
    assert typed[0] == typed[1]  # the same letters, as one keyboard and another type them


def test_draws_are_separated_by_purpose_size_and_key(key):
    assert key.stream(32, purpose="a") != key.stream(32, purpose="b")
    assert key.permutation(48, purpose="a").tolist() != key.permutation(48, purpose="b").tolist()
    assert key.permutation(48, purpose="a")[:12].tolist() != key.permutation(12, purpose="a").tolist()
    assert (
        key.permutation(48, purpose="a").tolist() != SecretKey.for_experiment(8).permutation(48, purpose="a").tolist()
    )
    assert key.subkey("a") != key.subkey("b")


def test_half_is_exact(key):
    assert key.half(101, purpose="x").sum() == 50


def test_orthogonal_is_orthogonal_with_both_signs_of_determinant():
    matrices = [SecretKey.for_experiment(seed).orthogonal(5, purpose="x") for seed in range(20)]
    for q in matrices:
        np.testing.assert_allclose(q @ q.T, np.eye(5), atol=1e-13)
    assert {round(np.linalg.det(q)) for q in matrices} == {-1, 1}


def test_generated_keys_differ():
    assert SecretKey.generate() != SecretKey.generate()


def test_repr_says_what_it_is_and_no_more(key):
    assert "experiments only" in repr(key)
    fresh = SecretKey.generate()
    assert fresh._secret.value.hex() not in repr(fresh) and repr(fresh._secret.value) not in repr(fresh)


def test_save_never_replaces_a_key(key, tmp_path):
    path = tmp_path / "my.key"
    key.save(path)
    with pytest.raises(FileExistsError, match="exists already"):
        SecretKey.generate().save(path)
    assert SecretKey.load(path) == key
    assert os.listdir(tmp_path) == ["my.key"]


def test_load_refuses_every_truncation(key, tmp_path):
    path = tmp_path / "my.key"
    key.save(path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"my\.key is not a complete cmxlib key file"):
            SecretKey.load(path)


def test_load_refuses_alteration_and_shows_no_secret(key, tmp_path):
    path = tmp_path / "my.key"
    key.save(path)
    secret = key._secret.value.hex()
    altered = ("0" if secret[0] != "0" else "1") + secret[1:]
    path.write_text(path.read_text().replace(secret, altered))
    with pytest.raises(ValueError, match="damaged") as caught:
        SecretKey.load(path)
    assert altered not in str(caught.value)
    path.write_bytes(b"\xff\x00")
    with pytest.raises(ValueError, match="is no cmxlib key file"):
        SecretKey.load(path)


def test_load_of_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        SecretKey.load(tmp_path / "none.key")


def version_1(path, origin, secret):
    """A file as the first version wrote it, whose check covers the secret alone."""
    check = hashlib.sha256(b"cmxlib key check" + secret).hexdigest()[:16]
    path.write_text(f"cmxlib secret key, version 1\norigin: {origin}\nsecret: {secret.hex()}\ncheck: {check}\n")
    path.chmod(0o600)
    return path


def test_an_altered_origin_is_told(key, tmp_path):
    path = tmp_path / "my.key"
    key.save(path)
    for origin in ("generated", "experiment 8", "experiment 7 subkey", "passphrase"):
        path.write_text(path.read_text().replace("origin: experiment 7\n", f"origin: {origin}\n"))
        with pytest.raises(ValueError, match=r"damaged"):
            SecretKey.load(path)
        path.unlink()
        key.save(path)


def test_files_of_version_1_load_and_an_altered_origin_is_told_where_it_can_be(key, tmp_path):
    secret, fresh = key._secret.value, SecretKey.generate()._secret.value
    for origin, known in (("experiment 7", secret), ("generated", fresh), ("passphrase", fresh)):
        loaded = SecretKey.load(version_1(tmp_path / "old.key", origin, known))
        assert loaded == SecretKey(known, origin) and loaded.origin == origin
        loaded.save(tmp_path / "new.key")
        assert "version 2" in (tmp_path / "new.key").read_text()
        (tmp_path / "new.key").unlink()
    for origin, known in (
        ("generated", secret),
        ("passphrase", secret),
        ("experiment 8", secret),
        ("experiment 7", fresh),
    ):
        with pytest.raises(ValueError, match="its secret is of another origin"):
            SecretKey.load(version_1(tmp_path / "old.key", origin, known))


@pytest.mark.parametrize(
    "make",
    [
        lambda: SecretKey.for_experiment(np.int64(3)),
        lambda: SecretKey.for_experiment(2**64 - 1),
        lambda: SecretKey.for_experiment(2**64 - 1).subkey("a").subkey("b"),
        lambda: SecretKey(bytes(32), "a" * 80).subkey("a"),
        lambda: SecretKey(bytes(32), "toy 1"),
        lambda: SecretKey.from_passphrase("words", salt=b"12345678"),
        SecretKey.generate,
    ],
)
def test_what_can_be_made_can_be_saved_and_loaded(make, tmp_path):
    key, path = make(), tmp_path / "my.key"
    key.save(path)
    loaded = SecretKey.load(path)
    assert loaded == key and loaded.origin == key.origin and repr(loaded) == repr(key)
    assert os.listdir(tmp_path) == ["my.key"] and (os.name != "posix" or stat.S_IMODE(path.stat().st_mode) == 0o600)
    with pytest.raises(AttributeError):
        key.origin = "Something else"


@pytest.mark.parametrize("seed", [True, np.float64(2), 1.0, None, np.bool_(True)])
def test_seeds_are_whole_numbers(seed):
    with pytest.raises(TypeError, match="seed must be a whole number"):
        SecretKey.for_experiment(seed)


@pytest.mark.parametrize(
    "origin", ["", "Mine", "schlüssel", "two\nlines", "a" * 81, None, b"generated", "experiment 1"]
)
def test_origins_are_checked_when_a_key_is_made(origin):
    with pytest.raises(ValueError, match="origin"):
        SecretKey(bytes(32), origin)


def test_a_copy_is_the_same_key_and_a_pickle_is_refused(key):
    assert copy.copy(key) is key and copy.deepcopy([key]) == [key]
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match=r"cannot be pickled.*SecretKey\.save"):
            pickle.dumps({"key": key}, protocol)


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="needs files without a name")
def test_a_save_killed_while_it_writes_leaves_nothing(tmp_path):
    """Stopped for good at each of its steps: before, while and after the secret is written."""
    for step, left in (("write", []), ("fsync", []), ("link", [])):
        code = f"""
import os, signal, sys
from cmxlib import SecretKey
from cmxlib.lock import keyfile
def stop(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
if {step!r} == "write":
    keyfile.os.fdopen = stop
else:
    setattr(keyfile.os, {step!r}, stop)
SecretKey.for_experiment(5).save(sys.argv[1])
"""
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "my.key")], capture_output=True)
        assert done.returncode == -9, done.stderr
        assert os.listdir(tmp_path) == left


def test_where_files_need_a_name_a_save_fails_as_a_whole(key, tmp_path, monkeypatch):
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    key.save(tmp_path / "my.key")
    assert SecretKey.load(tmp_path / "my.key") == key
    assert stat.S_IMODE((tmp_path / "my.key").stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        key.save(tmp_path / "my.key")

    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        key.save(tmp_path / "other.key")
    assert os.listdir(tmp_path) == ["my.key"] and SecretKey.load(tmp_path / "my.key") == key


@pytest.mark.skipif(os.name != "posix", reason="file modes, pipes and devices are POSIX")
class TestOddFiles:
    @pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
    def test_readable_by_others(self, key, tmp_path, mode):
        path = tmp_path / "my own.key"
        key.save(path)
        path.chmod(mode)
        with pytest.raises(PermissionError, match=rf"mode {mode:04o}.*chmod 600 '.*my own\.key'"):
            SecretKey.load(path)
        path.chmod(0o400)
        assert SecretKey.load(path) == key

    def test_no_regular_file(self, tmp_path):
        os.mkfifo(tmp_path / "pipe", 0o600)
        for path in (tmp_path / "pipe", tmp_path, "/dev/zero"):
            with pytest.raises(ValueError, match="no regular file"):
                SecretKey.load(path)

    def test_a_large_file_is_not_read(self, tmp_path):
        with open(tmp_path / "large.key", "wb") as file:
            file.truncate(10**12)  # a hole: no reader has the memory for it
        (tmp_path / "large.key").chmod(0o600)
        with pytest.raises(ValueError, match="is no cmxlib key file"):
            SecretKey.load(tmp_path / "large.key")


def test_no_traceback_shows_a_secret(tmp_path, monkeypatch):
    key = SecretKey.generate()
    secret, word = key._secret.value, "correct horse battery"
    saved = tmp_path / "my.key"
    key.save(saved)
    damaged = tmp_path / "damaged.key"
    damaged.write_text(saved.read_text().replace("check: ", "check: 0")[:-2] + "\n")
    damaged.chmod(0o600)

    def full(file):
        raise OSError(28, "No space left on device")

    def failing_save():
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            key.save(tmp_path / "other.key")

    cases = [
        lambda: key.save(saved),
        failing_save,
        lambda: SecretKey.load(damaged),
        lambda: SecretKey.load(version_1(tmp_path / "old.key", "experiment 7", key._secret.value)),
        lambda: SecretKey(key._secret.value, "Mine"),
        lambda: SecretKey(key._secret.value, "experiment 3"),
        lambda: SecretKey.from_passphrase("correct horse battery", salt=b"short"),
        lambda: SecretKey.from_passphrase("correct horse battery", salt=None),
        lambda: pickle.dumps(key),
        lambda: key.permutation("x", purpose="y"),
    ]
    for case in cases:
        with pytest.raises((OSError, ValueError, TypeError)) as caught:
            case()
        frames = traceback.walk_tb(caught.tb)
        shown = [
            repr(value)
            for frame, _ in frames
            if "cmxlib" in frame.f_code.co_filename
            for value in frame.f_locals.values()
        ]
        assert shown or case is cases[8]
        for text in (*shown, str(caught.value)):
            assert secret.hex() not in text and repr(secret) not in text and word not in text
