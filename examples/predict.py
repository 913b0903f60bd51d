"""What an encrypted ONNX model says of encrypted images. It needs no key, and nothing of cmxlib.

    python examples/predict.py locked.onnx locked

The record in both says which key they were encrypted with: where it is not the same one, the answers would be wrong.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

parser = argparse.ArgumentParser(description="Classify encrypted images by an encrypted ONNX model.")
parser.add_argument("model")
parser.add_argument("folder", type=Path)
args = parser.parse_args()

try:
    session = onnxruntime.InferenceSession(args.model, providers=["CPUExecutionProvider"])
except Exception as error:  # of the runtime, whose classes are its own
    sys.exit(f"{args.model} is no ONNX model that can be run: {str(error).splitlines()[0]}")
if (text := session.get_modelmeta().custom_metadata_map.get("cmxlib")) is None:
    sys.exit(f"{args.model} carries no record of a cipher: name a model that cmx encrypt-model wrote.")
record = json.loads(text)
mean, std = (np.array(record[name], np.float32).reshape(1, 3, 1, 1) for name in ("mean", "std"))
if not (paths := sorted(args.folder.glob("*.png"))):
    sys.exit(f"{args.folder} holds no .png: name the folder that cmx encrypt-images wrote.")
for path in paths:
    image = Image.open(path)
    found = json.loads(image.info.get("cmxlib", "{}"))
    if [found.get(name) for name in ("key", "steps", "patch", "encrypted")] != [
        record[name] for name in ("key", "steps", "patch", "encrypted")
    ]:
        sys.exit(f"{path} was not encrypted as {args.model} was: use the same key, --patch and --steps for both.")
    pixels = np.asarray(image, np.float32).transpose(2, 0, 1)[None] / 255
    (logits,) = session.run(None, {session.get_inputs()[0].name: (pixels - mean) / std})
    print(f"{path.name}: class {logits.argmax()}")
