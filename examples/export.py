"""A trained network as an ONNX file, and ten plain images for it: something to try the commands on.

    python examples/export.py plain.onnx photos

The network is the book's small one, the images are of its test set; a file's name begins with what it shows.
"""

import argparse
import io
import sys
import warnings
from pathlib import Path

import torch
from PIL import Image

import cmxlib
from cmxlib.paths import sentence, write_bytes

parser = argparse.ArgumentParser(description="Write a trained network as ONNX, and ten plain images.")
parser.add_argument("model", type=Path)
parser.add_argument("folder", type=Path)
args = parser.parse_args()

data = cmxlib.load_dataset("fontdigits")
model, _ = cmxlib.trained_model("quick")
warnings.simplefilter("ignore", DeprecationWarning)  # the newer exporter gives as good a file, in thrice the time
file = io.BytesIO()
torch.onnx.export(
    model.cpu().eval(),
    (torch.zeros(2, 3, 32, 32),),
    file,
    input_names=["images"],
    output_names=["logits"],
    dynamic_axes={"images": {0: "n"}},
    dynamo=False,
)
try:
    write_bytes(args.model, file.getvalue())
    args.folder.mkdir(parents=True, exist_ok=True)
    for label in range(10):
        image = data.test_images[data.test_labels == label][0]
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(args.folder / f"{data.classes[label]}.png")
except OSError as error:
    sys.exit(f"export: {sentence(error)}")
print(f"{args.model} takes images normalised by --mean {' '.join(f'{x:.4f}' for x in data.mean)}", end=" ")
print(f"--std {' '.join(f'{x:.4f}' for x in data.std)}; ten of them are in {args.folder}.")
