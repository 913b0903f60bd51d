"""Start the server with an encrypted model, ask it as the client, and stop it: one command for both.

    python examples/serve/start.py locked.onnx photos --key my.key

They are two processes: the server's is given the model alone, the key's file is named to the client's alone.
"""

import argparse
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent


@contextmanager
def serving(model: str) -> Iterator[tuple[str, int]]:
    """(URL, process number) of a server that runs until the block ends."""
    command = [sys.executable, str(HERE / "server.py"), model]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            url = server.stdout.readline().strip()
            if not url:
                raise SystemExit("The server did not start; what it says stands above.")
            yield url, server.pid
        finally:
            server.terminate()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Start the server with an encrypted model, and ask it as the client.")
    parser.add_argument("model")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="what client.py takes after the URL")
    args = parser.parse_args()
    if not args.rest:
        parser.error("name the images, and the --key")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of what ends the server
    try:
        with serving(args.model) as (url, _):
            status = subprocess.call([sys.executable, str(HERE / "client.py"), url, *args.rest])
    except KeyboardInterrupt:
        status = 130
    sys.exit(status if status >= 0 else 128 - status)  # of a client that a signal ended, as a shell says it
