"""What an encrypted ONNX model says of encrypted images. It needs no key, and nothing of cmxlib.

    python examples/predict.py locked.onnx locked

The record in both says which key they were encrypted with: where it is not the same one, the answers would be wrong.
"""

import argparse
import json
import os
import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once, and shows no traceback

import numpy as np
import onnxruntime
from PIL import Image

parser = argparse.ArgumentParser(description="Classify encrypted images by an encrypted ONNX model.")
parser.add_argument("model")
parser.add_argument("folder", type=Path)
args = parser.parse_args()

onnxruntime.set_default_logger_severity(4)  # what is wrong is raised, too
if not os.path.isfile(args.model):  # a pipe would be waited for
    sys.exit(f"{args.model} is no ONNX model that can be run: it is no file.")
try:
    session = onnxruntime.InferenceSession(args.model, providers=["CPUExecutionProvider"])
except Exception as error:  # of the runtime, whose classes are its own
    sys.exit(f"{args.model} is no ONNX model that can be run: {str(error).splitlines()[0]}")
if (text := session.get_modelmeta().custom_metadata_map.get("cmxlib")) is None:
    sys.exit(f"{args.model} carries no record of a cipher: name a model that cmx encrypt-model wrote.")
try:
    record = json.loads(text)
    cipher = [record[name] for name in ("key", "steps", "patch", "encrypted")]
    mean, std = (np.array(record[name], np.float32).reshape(1, 3, 1, 1) for name in ("mean", "std"))
    if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
        raise ValueError("with these every answer would be the same")
except (ValueError, KeyError, TypeError):
    sys.exit(f"{args.model} has a damaged record of its cipher: restore it from a copy.")
if not (paths := sorted(args.folder.glob("*.png")) if os.path.isdir(args.folder) else []):
    sys.exit(f"{args.folder} is no folder that holds .png files: name the one that cmx encrypt-images wrote.")
for path in paths:
    if not path.is_file():
        sys.exit(f"{path} is no file: name a folder of images.")
    try:
        with Image.open(path) as image:
            found = json.loads(image.info.get("cmxlib", "{}"))
            same = cipher == [found.get(name) for name in ("key", "steps", "patch", "encrypted")]
            pixels = np.asarray(image.convert("RGB"), np.float32).transpose(2, 0, 1)[None] / 255
    except Exception:  # whatever a decoder says of a damaged file
        sys.exit(f"{path} is no image, or is damaged: encrypt the plain one again.")
    if not same:
        sys.exit(f"{path} was not encrypted as {args.model} was: use the same key, --patch and --steps for both.")
    try:
        logits, *_ = session.run(None, {session.get_inputs()[0].name: (pixels - mean) / std})
    except Exception:  # of the runtime: a size that this network does not take
        height, width = pixels.shape[2:]
        takes = " x ".join(str(size) for size in session.get_inputs()[0].shape)
        sys.exit(
            f"{args.model}, which takes {takes}, does not take {path} as 1 x 3 x {height} x {width}: give "
            "encrypt-images its size, or export it for one image, or any number, at a time."
        )
    if not np.isfinite(logits).all():
        sys.exit(f"{args.model} gives no finite numbers for {path}: train or export it anew.")
    try:
        print(f"{path.name}: class {logits.argmax()}", flush=True)
    except OSError as error:  # a full disk, or nobody who reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(f"The answers could not be written: {error.strerror}.")
