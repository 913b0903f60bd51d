"""The file of a secret key, and what keeps a secret out of sight.

Four lines of text: the version, the origin, the secret and a check of all three. Version 1 checked the secret alone; in
version 3 the secret is encrypted by a passphrase (ChaCha20-Poly1305, RFC 8439, its key by scrypt from a salt that
stands in the file, the origin authenticated with it).
"""

import hashlib
import hmac
import os
import re
import shlex
import stat
import unicodedata
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from ..paths import expanded

SECRET_BYTES = 32
_START, _MARK = b"cmxlib secret key", b"\xef\xbb\xbf"  # how a file begins; what some editors put before
_UTF16 = (b"\xff\xfec\0m\0x\0", b"\xfe\xff\0c\0m\0x")  # how it begins where an editor saved it so
_FILE = re.compile(
    rb"cmxlib secret key, version ([12])\norigin: ([a-z0-9 ]{1,80})\nsecret: ([0-9a-f]{64})\ncheck: ([0-9a-f]{16})\n"
)
_SEALED = re.compile(
    rb"cmxlib secret key, version 3\norigin: ([a-z0-9 ]{1,80})\nsalt: ([0-9a-f]{32})\nsecret: ([0-9a-f]{96})\n"
)


class PassphraseNeeded(ValueError):
    """A key file cannot be read without its passphrase."""


class Hidden:
    """Holds what must not be seen: tracebacks, debuggers and loggers that show variables show no more than this."""

    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value

    def __repr__(self):
        return "<hidden>"

    def __reduce__(self):
        raise TypeError("A secret cannot be pickled, for a pickle shows it: use SecretKey.save(path) and load(path).")


def experiment_secret(seed: int) -> bytes:
    """The secret of ``SecretKey.for_experiment(seed)``, which everybody can make."""
    return hashlib.sha256(b"cmxlib experiment key %d" % seed).digest()


def may_be(origin: str, secret: Hidden) -> bool:
    """Whether a secret can be of an origin: "experiment N" has one secret only, and nothing else is called so."""
    found = re.fullmatch("experiment ([0-9]+)( subkey)?", origin)
    if not found or found[2]:
        return bool(found) or not origin.startswith("experiment")
    return hmac.compare_digest(experiment_secret(int(found[1])), secret.value)


def stretched(passphrase: Hidden, salt: bytes) -> Hidden:
    """The 32 bytes that scrypt (RFC 7914; N = 2^17, r = 8, p = 1) derives: half a second and 128 MiB a guess.

    The passphrase is brought into Unicode's form NFC, for keyboards and systems type one letter in several."""
    typed = Hidden(utf8(passphrase.value, "passphrase", composed=True))
    if not typed.value:
        raise ValueError("The passphrase is empty; give one that is hard to guess.")
    return Hidden(Scrypt(salt=salt, length=SECRET_BYTES, n=2**17, r=8, p=1).derive(typed.value))


def utf8(text: Any, name: str, *, composed: bool = False) -> bytes:
    """The bytes of a text, composed: of its form NFC. TypeError where it is none, ValueError where UTF-8 cannot hold
    it."""
    text = Hidden(text)
    if not isinstance(text.value, str):
        raise TypeError(f"{name} must be a text, but this is {type(text.value).__name__}.")
    try:
        return (unicodedata.normalize("NFC", text.value) if composed else text.value).encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} holds half a character (a surrogate): give a text that UTF-8 can hold.") from None


def place(path: str | os.PathLike) -> Path:
    """The path of a key file. TypeError where it is no path, ValueError where it can name no file."""
    found = expanded(path)
    if not os.fspath(path):
        raise ValueError("'' is no name of a file: give the path of the key's file.")
    return found


def write(path: Path, secret: Hidden, origin: str, passphrase: Hidden | None = None) -> None:
    """Write a key file that only its owner may read, encrypted where a passphrase is given. FileExistsError where
    ``path`` stands already, IsADirectoryError where it is a folder."""
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path} is a folder: name a file in it.")
    if passphrase is None:
        text = Hidden(
            f"cmxlib secret key, version 2\norigin: {origin}\n"
            f"secret: {secret.value.hex()}\ncheck: {_check(secret, origin, b'2')}\n".encode()
        )
    else:
        salt = os.urandom(16)
        sealed = _cipher(passphrase, salt).value.encrypt(_NONCE, secret.value, origin.encode())
        text = Hidden(
            f"cmxlib secret key, version 3\norigin: {origin}\nsalt: {salt.hex()}\nsecret: {sealed.hex()}\n".encode()
        )
    try:
        _write_new(path, text)
    except FileExistsError:
        raise FileExistsError(f"{path} exists already; choose another name, for a key must not be lost.") from None
    except OSError as error:
        raise type(error)(f"{path} cannot be written: {error.strerror}; name a file in another folder.") from None


def read(path: Path, passphrase: Hidden | None = None) -> tuple[Hidden, str]:
    """The secret and the origin in a key file; the errors are those of ``SecretKey.load``."""
    content = _content(path)
    if sealed := _SEALED.fullmatch(content.value):
        return _unsealed(path, sealed, passphrase)
    found = Hidden(_FILE.fullmatch(content.value))
    if not found.value:
        raise ValueError(f"{path} is not a complete cmxlib key file: {_why(content.value)}; restore it from a copy.")
    if passphrase is not None:
        raise ValueError(f"{path} is not encrypted: whoever reads it has the key. Load it without a passphrase.")
    version, origin = found.value[1], found.value[2].decode()
    secret = Hidden(bytes.fromhex(found.value[3].decode()))
    if not hmac.compare_digest(found.value[4].decode(), _check(secret, origin, version)):
        raise ValueError(f"{path} is damaged: its check does not match; restore it from a copy.")
    # Of version 1, an altered origin can be told where a secret is one that anybody can make from a small number.
    public = not origin.startswith("experiment") and any(
        hmac.compare_digest(experiment_secret(n), secret.value) for n in range(10_000)
    )
    if not may_be(origin, secret) or (version == b"1" and public):
        raise ValueError(
            f"{path} says {origin!r}, but its secret is of another origin: restore it from a copy, or make the key "
            "again with SecretKey.for_experiment, followed by subkey for a subkey."
        )
    return secret, origin


def _why(content):
    if not content:
        return "it is empty"
    if content.startswith(_MARK):
        return "a byte order mark stands before its first line, as editors of texts put it"
    if content.startswith(_UTF16):
        return "an editor of texts has saved it in UTF-16, not as it was"
    if any(form.fullmatch(content + b"\n") for form in (_FILE, _SEALED)):
        return "its last line lacks its end"
    if any(form.match(content) for form in (_FILE, _SEALED)):
        return "there is something behind its last line"
    return "its lines are not as save wrote them"


_NONCE = bytes(12)  # used once: each file has a salt, and so a cipher, of its own


def _cipher(passphrase, salt):
    return Hidden(ChaCha20Poly1305(stretched(passphrase, salt).value))


def _unsealed(path, found, passphrase):
    if passphrase is None:
        raise PassphraseNeeded(f"{path} is encrypted: give its passphrase, SecretKey.load(path, passphrase=...).")
    origin, salt, sealed = found[1], bytes.fromhex(found[2].decode()), bytes.fromhex(found[3].decode())
    try:
        secret = Hidden(_cipher(passphrase, salt).value.decrypt(_NONCE, sealed, origin))
    except InvalidTag:
        raise ValueError(f"The passphrase is not that of {path}, or the file is damaged.") from None
    if not may_be(origin.decode(), secret):
        raise ValueError(f"{path} says {origin.decode()!r}, but its secret is of another origin.")
    return secret, origin.decode()


def _check(secret: Hidden, origin: str, version: bytes) -> str:
    text = b"cmxlib key check" + (b"" if version == b"1" else b" 2 %s " % origin.encode())
    return hashlib.sha256(text + secret.value).hexdigest()[:16]


def _write_new(path: Path, data: Hidden) -> None:
    """Write a new file of mode 0600. A kill leaves nothing under any name but ``path``, and on Linux nothing at all:
    the file gets its name when it is whole and on the disk."""
    folder = os.open(path.parent, os.O_RDONLY) if hasattr(os, "O_TMPFILE") else None
    try:
        try:
            file, named = os.open(path.parent, os.O_TMPFILE | os.O_WRONLY, 0o600), False
        except (AttributeError, OSError):  # another system, or a file system without files that have no name
            file, named = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600), True
        try:
            with os.fdopen(file, "wb") as handle:
                if hasattr(os, "fchmod"):
                    os.fchmod(file, 0o600)  # whatever the umask took away
                handle.write(data.value)
                handle.flush()
                os.fsync(file)
                if not named:  # with a folder given, Python follows the link to the file without a name
                    os.link(f"/proc/self/fd/{file}", path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            if named:
                os.unlink(path)
            raise
        if folder is not None:
            os.fsync(folder)  # the name must be on the disk, too
    finally:
        if folder is not None:
            os.close(folder)


def _content(path: Path) -> Hidden:
    """At most 1 KiB of a regular file that nobody else can read: no pipe is waited for, no device read without end."""
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        if re.search("[0-9a-fA-F]{64}", str(path)):  # not repeated
            raise type(error)("The digits of a secret were given in place of its file's path: give that.") from None
        raise type(error)(f"{path}: {error.strerror}; give the path that save or cmx key new wrote.") from None
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"{path} is no regular file, so no cmxlib key file: give the path that save wrote.")
        content = Hidden(os.read(file, 1024).replace(b"\r\n", b"\n"))
        begins = _START.startswith(content.value.removeprefix(_MARK)[: len(_START)])
        if not (begins or content.value.startswith(_UTF16)):
            raise ValueError(f"{path} is no cmxlib key file: give the path that save or cmx key new wrote.")
        if os.name == "posix" and found.st_mode & 0o077:
            raise PermissionError(
                f"{path} can be read by others (mode {stat.S_IMODE(found.st_mode):04o}): "
                f"run chmod 600 {shlex.quote(str(path))}, and think of the key as known if others were there."
            )
        return content
    finally:
        os.close(file)
