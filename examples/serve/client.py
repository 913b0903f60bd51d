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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once, and shows no traceback

import httpx
import numpy as np
import torch

from cmxlib import PatchCipher, SecretKey
from cmxlib.files.commands import load_key
from cmxlib.files.compare import plain_images
from cmxlib.paths import sentence


class Client:
    """The key's side of the server at a URL. ValueError where the server's model was encrypted with another key."""

    def __init__(self, url: str, key: SecretKey):
        self._web = httpx.Client(base_url=url, timeout=60)
        answer = self._web.get("/").raise_for_status()
        about = answer.json() if "json" in answer.headers.get("content-type", "") else None
        if not isinstance(about, dict) or not {"key", "patch", "steps"} <= set(about):
            raise ValueError(f"{url} is no server of an encrypted model: name the URL that server.py printed.")
        if about["key"] != key.fingerprint:
            raise ValueError(f"The server's model was encrypted with the key {about['key']}, not {key.fingerprint}.")
        self.cipher, self._key = PatchCipher(key, about["patch"], steps=tuple(about["steps"])), key.fingerprint

    def body(self, images: torch.Tensor) -> bytes:
        """What is sent for plain images (N, 3, H, W), uint8: their encrypted bytes, as a .npy."""
        file = io.BytesIO()
        np.save(file, self.cipher.encrypt(images).numpy())
        return file.getvalue()

    def ask(self, body: bytes) -> np.ndarray:
        """The logits (N, classes) for a body. ValueError with the server's own words where it refuses."""
        answer = self._web.post("/predict", content=body, headers={"X-Key": self._key})
        found = answer.json() if "json" in answer.headers.get("content-type", "") else None
        if answer.status_code != 200:
            told = found["detail"] if isinstance(found, dict) and "detail" in found else answer.text[:200]
            raise ValueError(f"The server says ({answer.status_code}): {told}")
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
        body = client.body(plain_images(args.images, client.cipher.patch_size))
        print(f"classes: {', '.join(str(found) for found in client.ask(body).argmax(1))}")
        if args.load:
            print(json.dumps(load(client, body, args.load)))
    except (ValueError, TypeError, OSError) as error:
        sys.exit(f"client: {sentence(error)}")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        sys.exit(f"client: {args.url} gives no answer ({sentence(error)}): name the URL that server.py printed.")
