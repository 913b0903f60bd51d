"""A client that holds the key: it encrypts plain images and asks the server.

    python examples/serve/client.py http://127.0.0.1:8000 photos --key my.key

With --load SECONDS it asks again and again, from several threads, and says how many requests a second were answered.
"""

import argparse
import io
import json
import signal
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Thread

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once, and shows no traceback

import httpx
import numpy as np
import torch

from cmxlib import PatchCipher, SecretKey
from cmxlib.files.commands import load_key
from cmxlib.files.compare import plain_images
from cmxlib.lock.checks import shown
from cmxlib.paths import printable, sentence

LONGEST = 60  # seconds that an answer may take to come
LARGEST = 2**28  # bytes of it


class Client:
    """The key's side of the server at a URL. ValueError where the server's model was encrypted with another key."""

    def __init__(self, url: str, key: SecretKey):
        self._web, self._key = httpx.Client(base_url=url, timeout=LONGEST), key.fingerprint
        status, about, _ = self._answer("GET", "/")
        try:
            if status != 200:
                raise ValueError("a page that says what is wrong")
            theirs, patch, steps = (about[name] for name in ("key", "patch", "steps"))
            self.cipher = PatchCipher(key, patch, steps=tuple(steps))
        except (ValueError, TypeError, KeyError):
            raise ValueError(
                f"{url} is no server of an encrypted model: name the URL that server.py printed."
            ) from None
        if theirs != key.fingerprint:
            raise ValueError(f"The server's model was encrypted with the key {shown(theirs)}, not {key.fingerprint}.")

    def body(self, images: torch.Tensor) -> bytes:
        """What is sent for plain images (N, 3, H, W), uint8: their encrypted bytes, as a .npy."""
        file = io.BytesIO()
        np.save(file, self.cipher.encrypt(images).numpy())
        return file.getvalue()

    def ask(self, body: bytes) -> np.ndarray:
        """The logits (N, classes) for a body. ValueError with the server's own words where it refuses."""
        status, found, text = self._answer("POST", "/predict", content=body, headers={"X-Key": self._key})
        if status != 200:
            told = found["detail"] if isinstance(found, dict) and isinstance(found.get("detail"), str) else text
            raise ValueError(f"The server says ({status}): {told[:300]}")
        try:
            logits = np.array(found["logits"], np.float32)
            if logits.ndim != 2 or not logits.size or not np.isfinite(logits).all():
                raise ValueError("no logits, or none that are finite")
        except (ValueError, TypeError, KeyError, IndexError, OverflowError):
            raise ValueError(
                f"What came back from {self._web.base_url} are no logits of a model: is it the URL that server.py "
                "printed, and nothing between?"
            ) from None
        return logits

    def _answer(self, *request, **what):
        """(status, what its JSON holds or None, text) of an answer. TimeoutError where it does not end in time."""
        done: Future = Future()

        def wait():
            try:
                done.set_result(self._read(*request, **what))
            except BaseException as error:
                done.set_exception(error)

        Thread(target=wait, daemon=True).start()  # for httpx limits the time of each part, and not of all
        try:
            status, body = done.result(LONGEST)
        except TimeoutError:
            raise TimeoutError(
                f"{self._web.base_url} gave no whole answer in {LONGEST} seconds: try again, or send fewer images."
            ) from None
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            found = None
        return status, found, body.decode(errors="replace")

    def _read(self, *request, **what):
        body = bytearray()
        with self._web.stream(*request, **what) as answer:
            for part in answer.iter_bytes():
                body += part
                if len(body) > LARGEST:
                    raise ValueError(f"{self._web.base_url} answers more than {LARGEST:,} bytes: is it the right URL?")
        return answer.status_code, body


def load(client: Client, body: bytes, seconds: float, threads: int = 8) -> dict[str, float]:
    """Requests a second that are answered, and the seconds that an answer takes: median, and slowest 1 %."""
    begin = time.perf_counter()

    def work(_):
        times = []
        while not times or time.perf_counter() < begin + seconds:
            start = time.perf_counter()
            client.ask(body)
            times.append(time.perf_counter() - start)
        return times

    with ThreadPoolExecutor(threads) as pool:
        times = [each for found in pool.map(work, range(threads)) for each in found]
    taken = time.perf_counter() - begin
    return {"requests a second": len(times) / taken, "median": float(np.median(times)),
            "slowest 1 %": float(np.quantile(times, 0.99))}  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Encrypt plain images and have a server classify them.")
    parser.add_argument("url")
    parser.add_argument("images", type=Path)
    parser.add_argument("--key", type=Path, required=True)
    parser.add_argument("--load", type=float, metavar="SECONDS")
    args = parser.parse_args()
    if args.load is not None and not 0 < args.load < 1e6:
        parser.error(f"--load takes seconds, more than 0, not {args.load:g}")
    try:
        client = Client(args.url, load_key(args.key))
        images = plain_images(args.images, client.cipher.patch_size)
        logits = client.ask(body := client.body(images))
        if len(logits) != len(images):
            raise ValueError(f"The server gives {len(logits)} rows of logits, not {len(images)}: is the URL right?")
        print(f"classes: {', '.join(map(str, logits.argmax(1)))}")
        if args.load:
            print(json.dumps(load(client, body, args.load)))
    except (ValueError, TypeError, OSError) as error:
        sys.exit(f"client: {sentence(error)}")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        said = f"{args.url} gives no answer ({error}): name the URL that server.py printed."
        sys.exit(f"client: {printable(said)}")
