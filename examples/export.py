"""A trained network as an ONNX file, and ten plain images for it: something to try the commands on.

    python examples/export.py plain.onnx photos

The network is the book's small one, the images are of its test set; a file's name begins with what it shows. Nothing
is overwritten.
"""

import argparse
import io
import sys
import warnings
from pathlib import Path

import torch
from PIL import Image

import cmxlib
from cmxlib.paths import printable, told, write_bytes


def export(model: Path, folder: Path) -> None:
    """Write the network to ``model``, which ends in .onnx, and the images into ``folder``."""
    if model.suffix.lower() != ".onnx":
        raise ValueError(f"{model} would hold an ONNX model: name a file that ends in .onnx.")
    data = cmxlib.load_dataset("fontdigits")
    images = {folder / f"{name}.png": data.test_images[data.test_labels == label][0]
              for label, name in enumerate(data.classes)}  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)  # an error before anything is written
    for path in (model, *images):
        if path.exists() or path.is_symlink():
            raise FileExistsError(f"{path} exists already: name another output, or delete it first.")
    network, _ = cmxlib.trained_model("quick")
    warnings.simplefilter("ignore", DeprecationWarning)  # the newer exporter gives as good a file, in thrice the time
    file = io.BytesIO()
    torch.onnx.export(
        network.cpu().eval(),
        (torch.zeros(2, 3, 32, 32),),
        file,
        input_names=["images"],
        output_names=["logits"],
        dynamic_axes={"images": {0: "n"}},
        dynamo=False,
    )
    write_bytes(model, file.getvalue(), over=False)
    for path, image in images.items():
        file = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "PNG")
        write_bytes(path, file.getvalue(), over=False)
    mean, std = (" ".join(f"{x:.4f}" for x in values) for values in (data.mean, data.std))
    sys.stdout.reconfigure(errors="backslashreplace")  # where a terminal lacks a letter
    print(printable(f"{model} takes images normalised by --mean {mean} --std {std}; ten of them are in {folder}."))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write a trained network as ONNX, and ten plain images.")
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    sys.exit(told(lambda: export(args.model, args.folder), "export"))
