"""Secret keys, and the permutations, bits and matrices that are drawn from them.

The secret is 32 bytes. Everything else is read off a keystream of the ``cryptography`` package: HKDF-SHA256
(RFC 5869) derives a ChaCha20 key (RFC 8439) from the secret and a text that names the purpose, so that draws for
different purposes or sizes are independent. The stream is the same to the bit on every platform.
"""

import hashlib
import hmac
import math
import os
import re
import tempfile
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

SECRET_BYTES = 32
_FILE = re.compile(
    r"cmxlib secret key, version 1\norigin: ([a-z0-9 ]+)\nsecret: ([0-9a-f]{64})\ncheck: ([0-9a-f]{16})\n"
)


class SecretKey:
    """A 256-bit secret. Make one with ``generate``, ``from_passphrase``, ``for_experiment`` or ``load``.

    Neither ``repr`` nor any error message shows the secret; only ``save`` writes it down.
    """

    def __init__(self, secret: bytes, origin: str):
        if not isinstance(secret, bytes) or len(secret) != SECRET_BYTES:
            raise ValueError(
                f"A secret is {SECRET_BYTES} bytes; make one with SecretKey.generate() or SecretKey.from_passphrase()."
            )
        self._secret = secret
        self.origin = origin

    @classmethod
    def generate(cls) -> "SecretKey":
        """A fresh key: 256 bits from the operating system."""
        return cls(os.urandom(SECRET_BYTES), "generated")

    @classmethod
    def from_passphrase(cls, passphrase: str, *, salt: bytes | str) -> "SecretKey":
        """The key that scrypt (RFC 7914; N = 2^17, r = 8, p = 1) derives from a passphrase and a salt.

        The salt need not be secret, but should be random and differ from one use to the next (at least 8 bytes).
        Takes about half a second and 128 MiB by intention: guessing must be costly.
        """
        salt = salt.encode() if isinstance(salt, str) else salt
        if not passphrase:
            raise ValueError("The passphrase is empty; give one that is hard to guess.")
        if len(salt) < 8:
            raise ValueError("The salt is shorter than 8 bytes; use a longer one, for instance os.urandom(16).")
        secret = Scrypt(salt=salt, length=SECRET_BYTES, n=2**17, r=8, p=1).derive(passphrase.encode())
        return cls(secret, "passphrase")

    @classmethod
    def for_experiment(cls, seed: int) -> "SecretKey":
        """A key that anybody can reproduce from a small number: for experiments, never for protection."""
        if seed < 0:
            raise ValueError(f"The seed of an experiment key must not be negative, but it is {seed}.")
        return cls(hashlib.sha256(b"cmxlib experiment key %d" % seed).digest(), f"experiment {seed}")

    def __repr__(self):
        if self.origin.startswith("experiment"):
            return f"<SecretKey {self.origin}: reproducible, for experiments only>"
        return f"<SecretKey {self.origin}: 256 secret bits>"

    def __eq__(self, other):
        return isinstance(other, SecretKey) and hmac.compare_digest(self._secret, other._secret)

    def __hash__(self):
        return hash(self._secret)

    # -- on disk ---------------------------------------------------------------------------------------------

    def save(self, path) -> None:
        """Write the key as a small text file that only its owner may read (mode 0600).

        An existing file is never replaced: FileExistsError. Losing a key means losing what it locked.
        """
        path = Path(path)
        text = (
            f"cmxlib secret key, version 1\norigin: {self.origin}\n"
            f"secret: {self._secret.hex()}\ncheck: {_checksum(self._secret)}\n"
        )
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # created with mode 0600
        try:
            with os.fdopen(handle, "w", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, path)  # unlike a rename, this fails where a file stands already
        except FileExistsError:
            raise FileExistsError(f"{path} exists already; choose another name, for a key must not be lost.") from None
        finally:
            os.unlink(temporary)

    @classmethod
    def load(cls, path) -> "SecretKey":
        """Read a key that ``save`` wrote. ValueError where the file is malformed, truncated or altered."""
        try:
            text = Path(path).read_bytes().decode("ascii")
        except UnicodeDecodeError:
            text = ""
        found = _FILE.fullmatch(text.replace("\r\n", "\n"))
        if not found:
            raise ValueError(f"{path} is not a complete cmxlib key file; restore it from a copy.")
        secret = bytes.fromhex(found[2])
        if not hmac.compare_digest(found[3], _checksum(secret)):
            raise ValueError(f"{path} is damaged: its check does not match; restore it from a copy.")
        return cls(secret, found[1])

    # -- draws -----------------------------------------------------------------------------------------------

    def subkey(self, label: str) -> "SecretKey":
        """An independent key for the given label, for schemes that need many keys from one secret."""
        return SecretKey(self._derive(f"subkey/{label}"), self.origin)

    def stream(self, n_bytes: int, *, purpose: str) -> bytes:
        """The first ``n_bytes`` of the keystream for ``purpose``."""
        # A derived key encrypts nothing but this one stream, so the constant nonce is never used twice.
        cipher = Cipher(algorithms.ChaCha20(self._derive(f"stream/{purpose}"), bytes(16)), mode=None)
        return cipher.encryptor().update(bytes(n_bytes))

    def permutation(self, n: int, *, purpose: str) -> np.ndarray:
        """A uniform permutation of 0 .. n-1 (int64), by Fisher and Yates' shuffle with unbiased draws."""
        # A 64-bit word, reduced modulo m, is biased unless words from the incomplete last interval are rejected.
        # At m < 2^32 that happens once in 2^32 words, so the few spare words below are practically never used up.
        order = np.arange(n)
        words = iter(np.frombuffer(self.stream(8 * (n + 8), purpose=f"permutation/{purpose}/{n}"), "<u8").tolist())
        for i in range(n - 1, 0, -1):
            limit = 2**64 - 2**64 % (i + 1)
            j = next(word for word in words if word < limit) % (i + 1)
            order[i], order[j] = order[j], order[i]
        return order

    def bits(self, n: int, *, purpose: str) -> np.ndarray:
        """n independent fair bits (bool)."""
        stream = self.stream(math.ceil(n / 8), purpose=f"bits/{purpose}/{n}")
        return np.unpackbits(np.frombuffer(stream, np.uint8), count=n, bitorder="little").astype(bool)

    def half(self, n: int, *, purpose: str) -> np.ndarray:
        """A uniform choice of exactly n // 2 of n positions (bool, True where chosen)."""
        return self.permutation(n, purpose=f"half/{purpose}") < n // 2

    def orthogonal(self, n: int, *, purpose: str) -> np.ndarray:
        """A random orthogonal matrix (n, n), float64, uniform in the sense of Haar (Mezzadri, arXiv math-ph/0609050).

        Its keystream is the same everywhere; the matrix is so to float64 rounding.
        """
        words = np.frombuffer(self.stream(16 * n * n, purpose=f"orthogonal/{purpose}/{n}"), "<u8").reshape(2, n, n)
        uniform = ((words >> 11) + 0.5) / 2**53  # in (0, 1), never 0 or 1
        normal = np.sqrt(-2 * np.log(uniform[0])) * np.cos(2 * np.pi * uniform[1])  # Box and Muller
        q, r = np.linalg.qr(normal)
        return q * np.sign(np.diag(r))  # without the signs, QR's convention would show in the distribution

    def _derive(self, info: str) -> bytes:
        return HKDF(hashes.SHA256(), SECRET_BYTES, salt=None, info=f"cmxlib/1/{info}".encode()).derive(self._secret)


def _checksum(secret: bytes) -> str:
    return hashlib.sha256(b"cmxlib key check" + secret).hexdigest()[:16]
