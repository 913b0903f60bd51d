"""Secret keys, and the permutations, bits and matrices that are drawn from them.

The secret is 32 bytes. Everything else is read off a keystream of the ``cryptography`` package: HKDF-SHA256
(RFC 5869) derives a ChaCha20 key (RFC 8439) from the secret and a text that names the purpose, so that draws for
different purposes or sizes are independent. The stream is the same to the bit on every platform.
"""

import hmac
import math
import os
import re
from typing import Any

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ..paths import NOT_ENOUGH
from . import checks, keyfile
from .keyfile import SECRET_BYTES, Hidden

LARGEST_SEED = 2**64 - 1
LARGEST_MIXED = 3072  # entries of an orthogonal matrix, of a patch of 32: what takes n^3 steps is still some seconds
LARGEST_PERMUTATION = 10**7  # drawn one by one, in some ten seconds
_ORIGIN = re.compile("[a-z0-9 ]{1,80}")


class SecretKey:
    """A 256-bit secret. Make one with ``generate``, ``from_passphrase``, ``for_experiment`` or ``load``.

    Neither ``repr`` nor any error message nor a traceback with its variables shows the secret, and a key cannot be
    pickled; only ``save`` writes it down. A copy is the key itself, for a key never changes. Python can forget a key,
    but not wipe it: ``del key`` frees the memory as it is, so that a dump of the process may still hold the secret.

    Args:
        secret: 32 bytes.
        origin: where it comes from, for the reader: 1 to 80 lower-case letters, digits and spaces. "experiment N" is
            kept for the secret of ``for_experiment(N)``.
    """

    _origin = "unfinished"  # while it is made, a traceback may show it already

    def __init__(self, secret: bytes, origin: str):
        secret = Hidden(secret)
        if not isinstance(secret.value, bytes) or len(secret.value) != SECRET_BYTES:
            raise ValueError(
                f"A secret is {SECRET_BYTES} bytes; make one with SecretKey.generate() or SecretKey.from_passphrase()."
            )
        if not isinstance(origin, str) or not _ORIGIN.fullmatch(origin):
            raise ValueError(f"origin must be 1 to 80 lower-case letters, digits and spaces, but it is {origin!r}.")
        if not keyfile.may_be(origin, secret):
            raise ValueError(f"origin says {origin!r}, but the secret is not that of for_experiment: name another.")
        self._secret, self._origin = secret, origin

    @property
    def origin(self) -> str:
        """Where the key comes from: "generated", "passphrase", "experiment N", with "subkey" behind for a subkey."""
        return self._origin

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that tell this key from others, derived so that they say nothing else of the secret.

        Who sees it can check a guess of the whole secret, as who sees an encrypted image can.
        """
        return self._derive("fingerprint")[:8].hex()

    @classmethod
    def generate(cls) -> "SecretKey":
        """A fresh key: 256 bits from the operating system."""
        return cls(os.urandom(SECRET_BYTES), "generated")

    @classmethod
    def from_passphrase(cls, passphrase: str, *, salt: bytes | str) -> "SecretKey":
        """The key that scrypt (RFC 7914; N = 2^17, r = 8, p = 1) derives from a passphrase and a salt.

        Texts count as their form NFC, so that a letter and its accent may be typed as one or as two.
        The salt need not be secret, but should be random and differ from one use to the next (at least 8 bytes).
        Takes about half a second and 128 MiB by intention: guessing must be costly.
        """
        passphrase = Hidden(passphrase)
        salt = keyfile.utf8(salt, "salt", composed=True) if isinstance(salt, str) else salt
        if not isinstance(salt, bytes):
            raise TypeError(f"salt must be bytes or a text, but this is {type(salt).__name__}: use os.urandom(16).")
        if len(salt) < 8:
            raise ValueError("The salt is shorter than 8 bytes; use a longer one, for instance os.urandom(16).")
        return cls(keyfile.stretched(passphrase, salt).value, "passphrase")

    @classmethod
    def for_experiment(cls, seed: int) -> "SecretKey":
        """A key that anybody can reproduce from a small number: for experiments, never for protection."""
        seed = checks.whole(seed, "seed", 0, LARGEST_SEED)
        return cls(keyfile.experiment_secret(seed), f"experiment {seed}")

    def __repr__(self):
        if self.origin.startswith("experiment"):
            return f"<SecretKey {self.origin}: reproducible, for experiments only>"
        return f"<SecretKey {self.origin}: 256 secret bits>"

    def __eq__(self, other):
        return isinstance(other, SecretKey) and hmac.compare_digest(self._secret.value, other._secret.value)

    def __hash__(self):
        return hash(self._secret.value)

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self

    # -- on disk ---------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike, *, passphrase: str | None = None) -> None:
        """Write the key as a small text file that only its owner may read (mode 0600), encrypted by a passphrase where
        one is given.

        An existing file is never replaced: FileExistsError. Losing a key means losing what it locked.
        """
        passphrase = None if passphrase is None else Hidden(passphrase)
        keyfile.write(keyfile.place(path), self._secret, self.origin, passphrase)

    @classmethod
    def load(cls, path: str | os.PathLike, *, passphrase: str | None = None) -> "SecretKey":
        """Read a key that ``save`` wrote.

        ValueError where the file is malformed, truncated or altered, its origin included, where it is encrypted and no
        passphrase is given (PassphraseNeeded), or another one, or one is given and it is not encrypted; PermissionError
        where others may read it.
        """
        passphrase = None if passphrase is None else Hidden(passphrase)
        secret, origin = keyfile.read(keyfile.place(path), passphrase)
        return cls(secret.value, origin)

    # -- draws -----------------------------------------------------------------------------------------------

    def subkey(self, label: str) -> "SecretKey":
        """An independent key for the given label, for schemes that need many keys from one secret."""
        keyfile.utf8(label, "label")
        origin = self.origin if self.origin.endswith(" subkey") else f"{self.origin[:73]} subkey"
        return SecretKey(self._derive(f"subkey/{label}"), origin)

    def stream(self, n_bytes: int, *, purpose: str) -> bytes:
        """The first ``n_bytes`` of the keystream for ``purpose``."""
        _check_draw(n_bytes, purpose, "n_bytes")
        # A derived key encrypts nothing but this one stream, so the constant nonce is never used twice.
        cipher = Cipher(algorithms.ChaCha20(self._derive(f"stream/{purpose}"), bytes(16)), mode=None)
        try:
            return cipher.encryptor().update(bytes(n_bytes))
        except (MemoryError, OverflowError):
            raise MemoryError(f"{NOT_ENOUGH} for a keystream of {n_bytes:,} bytes: draw less.") from None

    def permutation(self, n: int, *, purpose: str) -> np.ndarray:
        """A uniform permutation of 0 .. n-1 (int64), by Fisher and Yates' shuffle with unbiased draws; n is at most
        10,000,000."""
        # A 64-bit word, reduced modulo m, is biased unless words from the incomplete last interval are rejected.
        # At m < 2^32 that happens once in 2^32 words, so the few spare words below are practically never used up.
        _check_draw(n, purpose, high=LARGEST_PERMUTATION)
        order = np.arange(n)
        words = iter(np.frombuffer(self.stream(8 * (n + 8), purpose=f"permutation/{purpose}/{n}"), "<u8").tolist())
        for i in range(n - 1, 0, -1):
            limit = 2**64 - 2**64 % (i + 1)
            j = next(word for word in words if word < limit) % (i + 1)
            order[i], order[j] = order[j], order[i]
        return order

    def bits(self, n: int, *, purpose: str) -> np.ndarray:
        """n independent fair bits (bool)."""
        _check_draw(n, purpose)
        stream = self.stream(math.ceil(n / 8), purpose=f"bits/{purpose}/{n}")
        return np.unpackbits(np.frombuffer(stream, np.uint8), count=n, bitorder="little").astype(bool)

    def half(self, n: int, *, purpose: str) -> np.ndarray:
        """A uniform choice of exactly n // 2 of n positions (bool, True where chosen)."""
        _check_draw(n, purpose, high=LARGEST_PERMUTATION)
        return self.permutation(n, purpose=f"half/{purpose}") < n // 2

    def orthogonal(self, n: int, *, purpose: str) -> np.ndarray:
        """A random orthogonal matrix (n, n), float64, uniform in the sense of Haar (Mezzadri, arXiv math-ph/0609050).

        Its keystream is the same everywhere; the matrix is so to float64 rounding. n is at most 3,072, which takes some
        ten seconds: the time grows as n^3.
        """
        _check_draw(n, purpose, low=1, high=LARGEST_MIXED)
        words = np.frombuffer(self.stream(16 * n * n, purpose=f"orthogonal/{purpose}/{n}"), "<u8").reshape(2, n, n)
        uniform = ((words >> 11) + 0.5) / 2**53  # in (0, 1), never 0 or 1
        normal = np.sqrt(-2 * np.log(uniform[0])) * np.cos(2 * np.pi * uniform[1])  # Box and Muller
        q, r = np.linalg.qr(normal)
        return q * np.sign(np.diag(r))  # without the signs, QR's convention would show in the distribution

    def _derive(self, info: str) -> bytes:
        return HKDF(hashes.SHA256(), SECRET_BYTES, salt=None, info=f"cmxlib/1/{info}".encode()).derive(
            self._secret.value
        )


def _check_draw(n, purpose, name="n", low=0, high=checks.LARGEST):
    checks.whole(n, name, low, high)
    keyfile.utf8(purpose, "purpose")  # a number would draw what its digits do


def check_key(key: Any) -> SecretKey:
    """``key``, when it is a SecretKey: what every cipher asks first."""
    if not isinstance(key, SecretKey):
        raise TypeError(
            f"key must be a SecretKey, but this is {type(key).__name__}: use SecretKey.load(path), "
            "SecretKey.generate() or SecretKey.from_passphrase(...)."
        )
    return key
