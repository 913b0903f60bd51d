"""`cmx key`: it names a key and never shows it; a file that a passphrase encrypts."""

import os
import subprocess
import sys

import pytest

from cmxlib import SecretKey
from cmxlib.lock.keyfile import PassphraseNeeded


def test_a_key_is_made_named_and_never_shown_or_replaced(key, cmx):
    status, said, _ = cmx("key", "new", "a.key", "--json")
    made = SecretKey.load("a.key")
    assert status == 0 and said == {"key": made.fingerprint, "origin": "generated"}
    assert os.stat("a.key").st_mode & 0o777 == 0o600
    for found in (cmx("key", "show", "a.key"), cmx("key", "new", "a.key"), cmx("key", "show", "a.key", "--json")):
        assert made._secret.value.hex() not in str(found)
    assert cmx("key", "show", "a.key")[1] == f"a.key holds the key {made.fingerprint}, generated.\n"
    assert "exists already" in cmx("key", "new", "a.key")[2] and SecretKey.load("a.key") == made


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_only_its_owner_may_read_a_key_whatever_the_umask(key, cmx):
    before = os.umask(0o777)
    try:
        assert cmx("key", "new", "a.key")[0] == 0
    finally:
        os.umask(before)
    assert os.stat("a.key").st_mode & 0o777 == 0o600


def test_where_nothing_can_be_typed_no_line_of_code_is_shown(key):
    command = [sys.executable, "-m", "cmxlib", "key", "new", "a.key", "--passphrase"]
    closed = [sys.executable, "-c", "import os, sys; os.close(0); os.execv(sys.executable, sys.argv[1:])", *command]
    for each in (command, closed) if os.name == "posix" else (command,):
        done = subprocess.run(each, stdin=subprocess.DEVNULL, capture_output=True, text=True, start_new_session=True)
        assert done.returncode == 1 and "No passphrase was given: type it" in done.stderr
        assert not [word for word in ("Traceback", "GetPassWarning", "getpass(") if word in done.stderr]


def test_the_end_of_a_line_of_windows_is_no_part_of_a_passphrase(key):
    command = [sys.executable, "-m", "cmxlib", "key", "new", "a.key", "--passphrase"]
    typed = b"open sesame\r\n" * 2
    assert subprocess.run(command, input=typed, capture_output=True, start_new_session=True).returncode == 0
    assert SecretKey.load("a.key", passphrase="open sesame")


def test_fingerprints_tell_keys_apart_and_stay(key):
    assert key.fingerprint == "4b3479a0c1addfaa"  # stands in files: it must never change
    assert len({SecretKey.for_experiment(n).fingerprint for n in range(100)}) == 100
    assert key.fingerprint not in key._secret.value.hex() and key.subkey("a").fingerprint != key.fingerprint


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "is not a complete cmxlib key file"), (b"\xff" * 200, "is no cmxlib key file"), (None, "No such file")],
)
def test_bad_key_files(key, cmx, content, said):
    if content is not None:
        with open(os.open("a.key", os.O_CREAT | os.O_WRONLY, 0o600), "wb") as file:
            file.write(content)
    assert said in cmx("key", "show", "a.key")[2]


def test_a_file_that_others_can_read_is_refused_with_the_way_out(key, cmx):
    os.chmod("my.key", 0o644)
    assert "run chmod 600 my.key" in cmx("key", "show", "my.key")[2]


def test_a_passphrase_is_asked_for_and_encrypts_the_file(key, cmx, monkeypatch):
    typed = iter(["sesame, open", "sesame, close"])
    monkeypatch.setattr("getpass.getpass", lambda prompt: next(typed))
    assert "The two passphrases differ" in cmx("key", "new", "a.key", "--passphrase")[2] and not os.path.exists("a.key")
    monkeypatch.setattr("getpass.getpass", lambda prompt: "sesame, open")
    assert cmx("key", "new", "a.key", "--passphrase")[0] == 0
    made = SecretKey.load("a.key", passphrase="sesame, open")
    with open("a.key") as file:
        text = file.read()
    assert made._secret.value.hex() not in text and "sesame" not in text
    assert made.fingerprint in cmx("key", "show", "a.key")[1]
    with pytest.raises(PassphraseNeeded, match="is encrypted: give its passphrase"):
        SecretKey.load("a.key")
    monkeypatch.setattr("getpass.getpass", lambda prompt: "another")
    assert "The passphrase is not that of a.key" in cmx("key", "show", "a.key")[2]
    altered = text.replace("origin: generated", "origin: passphrase")
    with open("a.key", "w") as file:
        file.write(altered)
    with pytest.raises(ValueError, match=r"not that of a\.key, or the file is damaged"):
        SecretKey.load("a.key", passphrase="sesame, open")
    assert "No passphrase was given" in cmx_without_input(cmx, monkeypatch)


def cmx_without_input(cmx, monkeypatch):
    def nothing(prompt):
        raise EOFError

    monkeypatch.setattr("getpass.getpass", nothing)
    return cmx("key", "show", "a.key")[2]
