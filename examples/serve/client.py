"""A client that holds the key: it encrypts plain images and asks the server.

    python examples/serve/client.py http://127.0.0.1:8000 photos --key my.key

With --load SECONDS it asks again and again, from several threads, and says how many requests a second were answered.
"""

import argparse
import io
import json
import sys
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import torch

from cmxlib import PatchCipher, SecretKey
from cmxlib.files.compare import plain_images


class Client:
    """The key's side of the server at a URL. ValueError where the server's model was encrypted with another key."""

    def __init__(self, url: str, key: SecretKey):
        self._web = httpx.Client(base_url=url, timeout=60)
        about = self._web.get("/").raise_for_status().json()
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
        if answer.status_code != 200:
            raise ValueError(f"The server says ({answer.status_code}): {answer.json()['detail']}")
        return np.array(answer.json()["logits"], np.float32)


def load(client: Client, body: bytes, seconds: float, threads: int = 8) -> dict[str, float]:
    """Requests a second that are answered, and the seconds that an answer takes: median, and slowest 1 %."""
    times: list[float] = []
    end = time.perf_counter() + seconds

    def work():
        while (start := time.perf_counter()) < end:
            client.ask(body)
            times.append(time.perf_counter() - start)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return {"requests a second": len(times) / seconds, "median": float(np.median(times)),
            "slowest 1 %": float(np.quantile(times, 0.99))}  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Encrypt plain images and have a server classify them.")
    parser.add_argument("url")
    parser.add_argument("images", type=Path)
    parser.add_argument("--key", type=Path, required=True)
    parser.add_argument("--load", type=float, metavar="SECONDS")
    args = parser.parse_args()
    try:
        client = Client(args.url, SecretKey.load(args.key))
        body = client.body(plain_images(args.images, client.cipher.patch_size))
        print(f"classes: {', '.join(str(found) for found in client.ask(body).argmax(1))}")
        if args.load:
            print(json.dumps(load(client, body, args.load)))
    except (ValueError, OSError, httpx.HTTPError, httpx.InvalidURL) as error:
        sys.exit(f"client: {error}")
