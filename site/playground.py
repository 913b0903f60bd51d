"""What the playground of the web edition computes with: networks, pictures and recorded accuracies, as scripts.

Made of what the checkout holds whenever the site is built, and written beside its pages. Scripts, and not files to be
fetched, so that the page works when it is opened from a disk, too. The weights are the very file of `models/`; the
digits are drawn by `cmxlib.learn.fontdigits`, and the photographs are those of scikit-image that anybody may use: no
image of CIFAR-10 is among them.
"""

import base64
import json
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage import data as photos

from cmxlib import PatchCipher, SecretKey, encrypt_model, load_dataset, logits
from cmxlib.attacks.matching import share_recovered
from cmxlib.attacks.on_images import ciphertext_only, patch_moments
from cmxlib.book import painting, summaries
from cmxlib.paths import ROOT
from cmxlib.study.scales import trained_model

N_DIGITS = 100
WRONG_KEY = 1
CASES = ("plain", "correct key", "wrong key", "no key")
# Of the training images, as `load_dataset("cifar10")` has them; the site is built where CIFAR-10 is not at hand.
CIFAR10_MEAN = (0.4913996786151961, 0.48215840839460783, 0.44653091444546567)
CIFAR10_STD = (0.24703223246328196, 0.2434851280000556, 0.26158784172796445)
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def write(folder: Path) -> None:
    """Write the scripts and `still.png`, what stands in the playground's place before its script runs."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, made in (("digits", digits()), ("photos", photographs()), ("broken", broken())):
        text = f"globalThis.cmxData = Object.assign(globalThis.cmxData || {{}}, {json.dumps({name: made})});\n"
        (folder / f"{name}.js").write_text(text)
    still().save(folder / "still.png")


def digits() -> dict:
    """The network of the quick scale, with test images of FontDigits and their labels."""
    data = load_dataset("fontdigits")
    return {
        "weights": encoded(weights("quick")),
        **data.norm,
        "classes": [str(digit) for digit in range(10)],
        "images": encoded(data.test_images[:N_DIGITS].numpy().tobytes()),
        "labels": data.test_labels[:N_DIGITS].tolist(),
        "first": first(),
    }


def photographs() -> dict:
    """The network of the small scale, a photograph, and the accuracies recorded with CIFAR-10's images."""
    recorded = {}
    for steps, rows in summaries.main_table("small").groupby("steps"):
        mean = rows.set_index("case")["mean"]
        recorded[steps] = [float(mean[case]) for case in CASES]
    return {
        "weights": encoded(weights("small")),
        "mean": CIFAR10_MEAN,
        "std": CIFAR10_STD,
        "classes": CIFAR10_CLASSES,
        "images": encoded(small(photos.chelsea()).tobytes()),  # a cat by Stefan van der Walt, CC0
        "labels": [CIFAR10_CLASSES.index("cat")],
        "recorded": recorded,
    }


def broken() -> dict:
    """Chapter 7's attack on a photograph: keys estimated from so many of its encrypted tiles, with two others known."""
    cat = torch.from_numpy(photos.chelsea()[:288, :448].copy()).permute(2, 0, 1)
    others = torch.cat([tiles(photos.astronaut()), tiles(photos.coffee()[:384, :576])])
    cipher, public = PatchCipher(SecretKey.for_experiment(0)), patch_moments(others, 4)
    victims = tiles(photos.chelsea()[:288, :448])
    order, steps = torch.randperm(len(victims), generator=torch.Generator().manual_seed(0)), []
    for count in (1, 3, 10, 20, 30, 40, 50, 60, 80, 100, len(victims)):
        found = ciphertext_only(cipher.encrypt(victims[order[:count]]), public, 4, restarts=4)
        steps.append(
            {
                "count": count,
                "permutation": found.permutation.tolist(),
                "flipped": found.flipped.astype(int).tolist(),
                "share": share_recovered(found, cipher),
            }
        )
    return {"image": encoded(cat[:, ::2, 80:368:2].contiguous().numpy().tobytes()), "steps": steps}


def tiles(photo: np.ndarray, side: int = 32) -> torch.Tensor:
    """A photograph (height, width, 3) cut into tiles (N, 3, side, side)."""
    rows = torch.from_numpy(photo.copy()).permute(2, 0, 1).unfold(1, side, side).unfold(2, side, side)
    return rows.permute(1, 2, 0, 3, 4).flatten(0, 1).contiguous()


def weights(scale: str) -> bytes:
    (path,) = (ROOT / "models").glob(f"{scale}-p4-*.safetensors")
    return path.read_bytes()


def small(photo: np.ndarray) -> np.ndarray:
    """The middle of a photograph (H, W, 3) as (3, 32, 32), uint8."""
    height, width, _ = photo.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    cut = Image.fromarray(photo[top : top + side, left : left + side])
    return np.moveaxis(np.asarray(cut.resize((32, 32), Image.Resampling.BOX)), -1, 0)


def still() -> Image.Image:
    """What the playground shows first: a digit, encrypted, with the probabilities of each case."""
    number = first()
    label, parts = int(load_dataset("fontdigits").test_labels[number]), []
    for title, (shown, chances) in cases(number, 1).items():
        read = int(chances[0].argmax())
        colours = [[painting.GREY]] * len(chances[0])
        colours[read] = [painting.BLUE if read == label else painting.ORANGE]
        bars = painting.bars(chances[0].numpy()[:, None], colours, painting.SIDE, top=1)
        parts.append(
            painting.column([painting.text(title), painting.enlarged(shown[0]), painting.text(f"read as {read}"), bars])
        )
    return painting.row(parts)


@cache
def first() -> int:
    """The first digit that is read with the correct key alone, as most are: the one that the playground starts with."""
    right, labels = cases(0, N_DIGITS), load_dataset("fontdigits").test_labels[:N_DIGITS]
    read = {case: chances.argmax(1) == labels for case, (_, chances) in right.items()}
    return int((read["correct key"] & ~read["wrong key"] & ~read["no key"]).nonzero()[0])


def cases(start: int, count: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """For so many digits: the images that a network sees and the probabilities that it gives, by case."""
    data = load_dataset("fontdigits")
    model, _ = trained_model("quick", progress=False)
    images = data.test_images[start : start + count]
    right, wrong = (PatchCipher(SecretKey.for_experiment(seed)) for seed in (0, WRONG_KEY))
    locked = encrypt_model(model, right, **data.norm)
    seen = [(model, images), (locked, right.encrypt(images)), (locked, wrong.encrypt(images)), (locked, images)]
    return {
        case: (shown, logits(network, shown, **data.norm).softmax(1))
        for case, (network, shown) in zip(CASES, seen, strict=True)
    }


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()
