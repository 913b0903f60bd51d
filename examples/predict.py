"""What an encrypted ONNX model says of encrypted images. It needs no key, and nothing of cmxlib.

    python examples/predict.py locked.onnx locked

The record in both says which key they were encrypted with: where it is not the same one, the answers would be wrong.
"""

import argparse
import json
import os
import signal
import sys
import threading
from pathlib import Path

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once, and shows no traceback

import numpy as np
import onnxruntime
from PIL import Image

LONGEST = 30  # seconds that an image may take


def printable(text):
    """``text`` in one line, for a terminal: names may hold line ends, escape sequences or no characters at all."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.split()))


def end(text):
    sys.exit(printable(text))


sys.stdout.reconfigure(errors="backslashreplace")  # where a terminal lacks a letter
parser = argparse.ArgumentParser(description="Classify encrypted images by an encrypted ONNX model.")
parser.add_argument("model")
parser.add_argument("folder", type=Path)
args = parser.parse_args()

onnxruntime.set_default_logger_severity(4)  # what is wrong is raised, too
if not os.path.isfile(args.model):  # a pipe would be waited for
    end(f"{args.model} is no ONNX model that can be run: it is no file.")
try:
    session = onnxruntime.InferenceSession(args.model, providers=["CPUExecutionProvider"])
    takes = session.get_inputs()[0]
except Exception as error:  # of the runtime, whose classes are its own
    said = str(error).partition("\n")[0]
    end(f"{args.model} is no ONNX model that can be run: {said}")
if (text := session.get_modelmeta().custom_metadata_map.get("cmxlib")) is None:
    end(f"{args.model} carries no record of a cipher: name a model that cmx encrypt-model wrote.")
try:
    record = json.loads(text)
    cipher = [record[name] for name in ("key", "steps", "patch", "encrypted")]
    mean, std = (np.array(record[name], np.float32).reshape(1, 3, 1, 1) for name in ("mean", "std"))
    useful = np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()
    if not useful or record["patch"] not in range(1, 2**20):
        raise ValueError("with these every answer would be the same")
except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
    end(f"{args.model} has a damaged record of its cipher: restore it from a copy.")
if not (paths := sorted(args.folder.glob("*.png")) if os.path.isdir(args.folder) else []):
    end(f"{args.folder} is no folder that holds .png files: name the one that cmx encrypt-images wrote.")
for path in paths:
    if not path.is_file():
        end(f"{path} is no file: name a folder of images.")
    try:
        with Image.open(path) as image:
            found = json.loads(image.info.get("cmxlib", "{}"))
            same = cipher == [found.get(name) for name in ("key", "steps", "patch", "encrypted")]
            pixels = np.asarray(image.convert("RGB"), np.float32).transpose(2, 0, 1)[None] / 255
    except Exception:  # whatever a decoder says of a damaged file
        end(f"{path} is no image, or is damaged: encrypt the plain one again.")
    if not same:
        end(f"{path} was not encrypted as {args.model} was: use the same key, --patch and --steps for both.")
    options = onnxruntime.RunOptions()
    watch = threading.Timer(LONGEST, setattr, (options, "terminate", True))
    watch.start()
    try:
        logits = np.asarray(session.run(None, {takes.name: (pixels - mean) / std}, options)[0])
        finite = logits.size and np.isfinite(logits).all()
    except Exception as error:  # of the runtime: mostly a size that this network does not take
        if options.terminate:
            end(f"{args.model} was not done with {path} in {LONGEST} seconds: it may have no end.")
        height, width = pixels.shape[2:]
        size, said = " x ".join(map(str, takes.shape)), str(error).partition("\n")[0]
        end(
            f"{args.model}, which takes {size}, does not take {path} as 1 x 3 x {height} x {width}: give "
            f"encrypt-images its size, or export it for one image, or any number, at a time ({said})."
        )
    finally:
        watch.cancel()
    if not finite:
        end(f"{args.model} gives no finite numbers for {path}: train or export it anew.")
    try:
        print(f"{printable(path.name)}: class {logits.argmax()}", flush=True)
    except OSError as error:  # a full disk, or nobody who reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(f"The answers could not be written: {error.strerror}.")
