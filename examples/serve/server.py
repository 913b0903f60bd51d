"""A server that only ever sees an encrypted model and encrypted images: it knows no key, and nothing of cmxlib.

    python examples/serve/server.py locked.onnx --port 8000

GET / says how the model was encrypted. POST /predict takes encrypted images (N, 3, H, W), uint8 or float32, as the
bytes of a .npy file, and the fingerprint of their key in the header X-Key; it answers {"logits": [[...], ...]}. It
listens on this machine alone.
"""

import argparse
import asyncio
import io
import json
import math
import signal
import socket
from pathlib import Path

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once, and shows no traceback

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool

LARGEST = 16 * 2**20  # bytes of a request
LONGEST = 30  # seconds that a request may take to come, and as many its answer to be computed


def refused(text: str) -> SystemExit:
    """What ends the program, in one line: names may hold line ends, escape sequences or no characters at all."""
    return SystemExit("".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.split())))


def application(path: str) -> FastAPI:
    """The server of an encrypted ONNX model."""
    onnxruntime.set_default_logger_severity(4)  # what is wrong is raised, too
    if not Path(path).is_file():  # a pipe would be waited for
        raise refused(f"{path} is no ONNX model that can be run: it is no file.")
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
    except Exception as error:  # of the runtime, whose classes are its own
        reason = str(error).partition("\n")[0]
        raise refused(f"{path} is no ONNX model that can be run ({reason}): name one.") from None
    text = session.get_modelmeta().custom_metadata_map.get("cmxlib")
    if text is None:
        raise refused(f"{path} carries no record of a cipher: serve a model that cmx encrypt-model wrote.")
    try:
        record = json.loads(text)
        about_it = {said: record[said] for said in ("key", "steps", "patch")}
        json.dumps(about_it, ensure_ascii=False, allow_nan=False).encode()  # as it will be said
        mean, std = (np.array(record[name], np.float32).reshape(1, 3, 1, 1) for name in ("mean", "std"))
        useful = np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()
        if not useful or record["patch"] not in range(1, 2**20):
            raise ValueError("with these no answer could be right")
        reach = 3**0.5 * record["patch"]  # of the values in [0, 1] of a patch that is turned
        low, high = (-reach, reach) if "orthogonal" in record["steps"] else (0, 1)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise refused(f"{path} has a damaged record of its cipher: restore it from a copy.") from None
    app = FastAPI(title="An encrypted model")

    @app.get("/")
    def about() -> dict:
        return about_it

    @app.post("/predict")
    async def predict(request: Request) -> dict:
        if (key := request.headers.get("x-key")) is None:
            raise HTTPException(409, "The header X-Key is missing: give the fingerprint of the images' key.")
        if key != record["key"]:
            raise HTTPException(
                409, f"The images' key is {key[:40]}, the model's {record['key']}: encrypt the images with that one."
            )
        images = _array(await _body(request), record["patch"])
        if images.dtype == np.float32 and not low <= images.min() <= images.max() <= high:
            raise HTTPException(
                400, "Images of float32 are encrypted from values in [0, 1]: divide grey levels by 255, or send uint8."
            )
        values = images.astype(np.float32) / (255 if images.dtype == np.uint8 else 1)
        options = onnxruntime.RunOptions()
        watch = asyncio.get_running_loop().call_later(LONGEST, setattr, options, "terminate", True)
        try:
            logits, *_ = await run_in_threadpool(session.run, None, {name: (values - mean) / std}, options)
            finite = np.isfinite(logits := np.asarray(logits)).all()
        except Exception as error:  # of the runtime: mostly sizes that this network does not take
            if options.terminate:
                raise HTTPException(422, f"The model was not done in {LONGEST} seconds: send fewer images.") from None
            said = str(error).partition("\n")[0][:150]
            told = f"The model cannot be run on images {images.shape}: send its own size ({said})."
            raise HTTPException(422, told) from None
        finally:
            watch.cancel()
        if not finite:
            raise HTTPException(422, "The model gives no finite numbers for these images: serve one that was trained.")
        return {"logits": logits.tolist()}

    return app


async def _body(request):
    close = {"Connection": "close"}  # for what is still to come would be taken for the next request
    too_large = HTTPException(413, f"A request is at most {LARGEST:,} bytes: send fewer images at a time.", close)
    too_late = HTTPException(408, f"The request did not come in {LONGEST} seconds: send fewer images at a time.", close)
    # Somewhat more than is taken is read to its end: who is cut off while he sends may lose the answer.
    most, body, n = 2 * LARGEST, bytearray(), 0
    if int(request.headers.get("content-length", 0)) > most:  # the framework below has seen that it is a number
        raise too_large
    try:
        async with asyncio.timeout(LONGEST):
            async for part in request.stream():
                n += len(part)
                if n > most:
                    raise too_large
                if n <= LARGEST:
                    body += part
    except HTTPException:
        raise
    except TimeoutError:
        raise too_late from None
    except Exception:  # of the framework below
        raise HTTPException(400, "The client left before all was sent.") from None  # which nobody reads
    if n > LARGEST:
        raise too_large
    return bytes(body)


def _array(body, patch):
    """The images in the bytes of a .npy file; nothing is unpickled, and no more taken for there than came."""
    try:
        file = io.BytesIO(body)
        version = np.lib.format.read_magic(file)
        shape, fortran, kind = np.lib.format.read_array_header_1_0(file) if version == (1, 0) else ((), None, None)
        shape = tuple(map(int, shape))  # NumPy takes True for a number, too, and cannot use it for one
    except Exception:  # whatever the parser says of what somebody sent
        version = None
    if version != (1, 0):
        raise HTTPException(400, "The body is no .npy file of version 1.0: send what numpy.save writes.")
    if fortran or kind not in (np.uint8, np.float32) or len(shape) != 4 or shape[1] != 3 or min(shape) < 1:
        raise HTTPException(400, f"The array is {kind} {shape}: send uint8 or float32 (N, 3, H, W), in C order.")
    if shape[2] % patch or shape[3] % patch:
        raise HTTPException(400, f"Patches of {patch} do not divide images of {shape[2]} x {shape[3]}.")
    if len(body) - file.tell() != math.prod(shape) * kind.itemsize:
        raise HTTPException(400, f"The array says {shape}, but its bytes are not as many: send the whole file.")
    found = np.frombuffer(body, kind, offset=file.tell()).reshape(shape)
    if not np.isfinite(found).all():
        raise HTTPException(400, "The array holds values that are not finite.")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serve an encrypted ONNX model on this machine alone.")
    parser.add_argument("model")
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    args = parser.parse_args()
    app = application(args.model)
    try:
        listening = socket.create_server(("127.0.0.1", args.port))
    except (OSError, OverflowError) as error:
        raise refused(f"Port {args.port} cannot be had ({error}): leave --port out, or name another.") from None
    print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])
