"""Drawings that stand before the code: what goes where, in boxes and arrows, for one idea each.

One hand for all: what is plain is blue with a full line, what a key has changed is orange with a broken one, so that a
drawing reads in grey too. Each is narrow, 4.4 inches, so that its words can be read on a page of 400 pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np

from ..learn.data import load_dataset
from ..lock import checks
from ..lock.keys import SecretKey
from ..lock.patch import PatchCipher
from .style import BLUE, GREY, ORANGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE = 100  # a drawing from left to right, in its own units
PLAIN = {"edgecolor": BLUE, "linestyle": "-"}
LOCKED = {"edgecolor": ORANGE, "linestyle": "--"}
NEUTRAL = {"edgecolor": GREY, "linestyle": "-"}


def canvas(high: float) -> tuple[Figure, Axes]:
    """An empty sheet, 100 units wide and ``high`` units high; (0, 0) is its lower left corner."""
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(4.4, 4.4 * high / WIDE), layout="none")
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, WIDE), ylim=(0, high))
    axis.axis("off")
    return figure, axis


def label(axis: Axes, x: float, y: float, words: str, **options: Any) -> None:
    axis.text(x, y, words, **({"ha": "center", "va": "center", "fontsize": 9} | options))


def box(axis: Axes, x: float, y: float, wide: float, high: float, words: str, look: dict) -> None:
    """A box around its middle (x, y)."""
    corner, style = (x - wide / 2, y - high / 2), "round,pad=0,rounding_size=1.2"
    filled = {"facecolor": mpl.colors.to_rgba(look["edgecolor"], 0.12), "linewidth": 1.6}
    axis.add_patch(mpl.patches.FancyBboxPatch(corner, wide, high, boxstyle=style, **filled, **look))
    label(axis, x, y, words)


def arrow(axis: Axes, start: tuple, end: tuple, words: str = "", aside: float = 3, bend: float = 0) -> None:
    """An arrow; its words stand ``aside`` of its middle: above where it runs to the side, at its right where it falls.
    bend: how far it bows, as a share of its length."""
    look = {"arrowstyle": "-|>", "mutation_scale": 11, "linewidth": 1.3, "color": "black", "shrinkA": 0, "shrinkB": 0}
    axis.add_patch(mpl.patches.FancyArrowPatch(start, end, connectionstyle=f"arc3,rad={bend}", **look))
    x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
    falls = abs(start[0] - end[0]) < abs(start[1] - end[1])
    label(axis, x + aside * falls, y + aside * (not falls), words, ha="left" if falls else "center", style="italic")


def _picture(axis: Axes, x: float, y: float, size: float, image: np.ndarray, look: dict, cut: int = 0) -> None:
    """An image (C, H, W) in [0, 1] around its middle, framed; ``cut`` into so many patches a side where it is not 0."""
    left, low = x - size / 2, y - size / 2
    axis.imshow(np.moveaxis(image, 0, -1), extent=(left, left + size, low, low + size), aspect="auto")
    for i in range(1, cut):
        at = i * size / cut
        axis.plot((left + at,) * 2, (low, low + size), color="white", linewidth=0.8)
        axis.plot((left, left + size), (low + at,) * 2, color="white", linewidth=0.8)
    axis.add_patch(mpl.patches.Rectangle((left, low), size, size, facecolor="none", linewidth=1.8, **look))


def _cells(axis: Axes, x: float, y: float, values: np.ndarray, size: float, signed: bool = False) -> None:
    """Numbers (rows, columns) as a grid of grey squares around its middle; signed: blue above 0, red below, white 0."""
    rows, columns = values.shape
    left, low = x - columns * size / 2, y - rows * size / 2
    colours = {"cmap": "RdBu", "vmin": -1.3, "vmax": 1.3} if signed else {"cmap": "gray", "vmin": 0, "vmax": 1}
    extent = (left, left + columns * size, low, low + rows * size)
    axis.pcolormesh(
        np.linspace(*extent[:2], columns + 1),
        np.linspace(extent[3], extent[2], rows + 1),
        values,
        edgecolor="#BBBBBB",
        linewidth=0.4,
        **colours,
    )


def _grids(axis: Axes, x: float, y: float, marked: Sequence[np.ndarray]) -> None:
    """Channels one behind the other around their middle, the first in front: grids with their marked places filled."""
    size, step = 15, 3
    for number, places in reversed(list(enumerate(marked))):
        shift = (number - (len(marked) - 1) / 2) * step
        edges = np.linspace(-size / 2, size / 2, len(places) + 1)
        colours = mpl.colors.ListedColormap(["white", BLUE])
        look = {"cmap": colours, "vmin": 0, "vmax": 1, "edgecolor": BLUE, "linewidth": 0.4}
        axis.pcolormesh(x + shift + edges, y + shift + edges, places, **look)


@cache
def _digit() -> tuple[np.ndarray, np.ndarray]:
    """A digit of the embedded set, and the same encrypted, (3, 32, 32) in [0, 1]."""
    image = load_dataset("fontdigits").test_images[3]
    cipher = PatchCipher(SecretKey.for_experiment(0), patch_size=4)
    return image.numpy() / 255, cipher.encrypt(image).numpy() / 255


def one_key() -> Figure:
    """The claim: images and model, both encrypted with one key, give the logits of the plain pair."""
    figure, axis = canvas(60)
    rows = ((47, _digit()[0], PLAIN, "plain\nnetwork"), (13, _digit()[1], LOCKED, "encrypted\nnetwork"))
    for y, image, look, network in rows:
        _picture(axis, 13, y, 20, image, look)
        box(axis, 50, y, 25, 18, network, look)
        box(axis, 87, y, 20, 18, "logits", PLAIN)
        arrow(axis, (25, y), (36, y))
        arrow(axis, (64, y), (75.5, y))
    for x in (13, 50):
        arrow(axis, (x, 36), (x, 24), "key", aside=2)
    label(axis, 87, 30, "=", fontsize=18)
    return figure


def convmixer(dim: int, depth: int, kernel_size: int, patch_size: int) -> Figure:
    """A ConvMixer for images of 32 pixels and ten classes, from the image (above) to the logits."""
    patch_size, kernel_size = checks.whole(patch_size, "patch_size", 1, 32), checks.whole(kernel_size, "kernel_size", 1)
    figure, axis = canvas(162)
    cut, left, right = 32 // patch_size, 22, 43
    nothing = np.zeros((cut, cut))
    around, one = nothing.copy(), nothing.copy()
    middle, reach = cut // 2, kernel_size // 2
    around[middle - reach : middle + reach + 1, middle - reach : middle + reach + 1] = 1
    one[-1, -1] = 1  # where those behind can be seen
    _picture(axis, left, 149, 22, _digit()[0], PLAIN, cut)
    _grids(axis, left, 112, [around, nothing, nothing, nothing])
    _grids(axis, left, 77, [one] * 4)
    _grids(axis, left, 42, [nothing + 1, nothing, nothing, nothing])
    for y, count, wide in ((17, 24, 1.1), (4, 10, 2.6)):
        _cells(axis, left, y, np.random.default_rng(count).uniform(0.2, 0.9, (1, count)), wide)
    size = f"{dim} channels of {cut} × {cut} positions"
    for y, words in (
        (149, "image: 3 channels of 32 × 32 pixels,\ncut into patches"),
        (112, f"{size},\none position for each patch;\nmarked: {kernel_size} × {kernel_size} in one channel"),
        (77, f"{size};\nmarked: one position in all channels"),
        (42, f"{size};\nmarked: all positions in one channel"),
        (17, f"{dim} numbers"),
        (4, "10 logits, one for each class"),
    ):
        label(axis, right, y, words, ha="left")
    for at, high, words in (
        (130.5, 9, "patch embedding:\neach patch alone"),
        (94.5, 6, "depthwise: mixes positions"),
        (59.5, 6, "pointwise: mixes channels"),
        (24.5, 8, "average over positions"),
        (10.5, 7, "linear classifier"),
    ):
        arrow(axis, (left, at + high / 2), (left, at - high / 2))
        label(axis, right, at, words, ha="left", weight="bold")
    arrow(axis, (8.5, 42), (8.5, 112), bend=-0.06)
    label(axis, 3, 77, f"mixing layer, {depth} times", rotation=90, style="italic")
    return figure


def patch_to_patch(patch: np.ndarray, cipher: PatchCipher) -> Figure:
    """A patch is read as a vector x, which becomes A x + b, and that is written as a patch again.

    patch: (3, p, p), values in [0, 1]; of few pixels, so that single entries can be seen.
    """
    checks.instance(cipher, PatchCipher, "cipher")
    patch = checks.array(patch, "patch")
    if patch.shape != (cipher.channels, cipher.patch_size, cipher.patch_size) or patch.dtype.kind != "f":
        raise ValueError(f"patch must be floats (C, p, p), as many as the {cipher.n} that the cipher takes.")
    figure, axis = canvas(56)
    (matrix, offset), size, y = cipher.matrix(), 2.7, 28
    x = np.asarray(patch, float).reshape(-1, 1)
    encrypted = matrix @ x + offset[:, None]
    top = y + len(x) * size / 2 + 4
    for at, image, look, words in ((8.0, x, PLAIN, "patch"), (91, encrypted, LOCKED, "encrypted\npatch")):
        _picture(axis, at, y, 12, image.reshape(patch.shape), look)
        label(axis, at, y - 12, words)
    for at, values, signed, words in (
        (22.5, x, False, "x"),
        (47.0, matrix, True, "A"),
        (69.7, offset[:, None], True, "b"),
        (76.8, encrypted, False, "x′"),
    ):
        _cells(axis, at, y, values, size, signed)
        label(axis, at, top, words, style="italic", fontsize=11)
    arrow(axis, (15, y), (20.5, y))
    arrow(axis, (79, y), (84, y))
    for at, sign in ((27.2, "→"), (66, "+"), (73.2, "=")):
        label(axis, at, y, sign, fontsize=11)
    for at, words in (
        (15.5, "colour by colour,\nrow by row"),
        (47, "one entry in each row:\nblue moves, red also negates"),
    ):
        label(axis, at, y - len(x) * size / 2 - 5, words, fontsize=8)
    return figure


def where_encrypted() -> Figure:
    """Through the encrypted network: what differs from the plain one, and where that ends."""
    figure, axis = canvas(60)
    parts = (
        (9.5, 17, "encrypted\nimage", LOCKED),
        (31, 17, "normalise", NEUTRAL),
        (49.5, 12, "first\nlayer", LOCKED),
        (72.5, 17, "all other\nlayers", PLAIN),
        (92.5, 13, "logits", PLAIN),
    )
    y = 32
    for x, wide, words, look in parts:
        box(axis, x, y, wide, 15, words, look)
    for start, end, passed in ((18, 22.5, "x′"), (39.5, 43.5, "u′"), (55.5, 64, "  z"), (81, 86, "")):
        arrow(axis, (start, y), (end, y), passed, aside=4)
    axis.plot((58.5, 58.5), (6, 56), color="black", linestyle=":", linewidth=1.5)
    label(axis, 56.5, 52, "depends on the key", ha="right", weight="bold", color="#9A6A00")
    label(axis, 61, 52, "all in plain", ha="left", weight="bold", color=BLUE)
    changed = "changed: x′ and u′, and of the network\nthe weights W′ and c′ of one layer"
    label(axis, 56.5, 13, changed, ha="right", fontsize=8)
    label(axis, 61, 13, "z and what follows:\nas without a key", ha="left", fontsize=8)
    return figure


def two_orders() -> Figure:
    """For two keys: the conventional order trains a network with each, the book's encrypts one network twice."""
    figure, axis = canvas(104)
    label(axis, 2, 100, "Conventional: encrypt, then train", ha="left", weight="bold")
    label(axis, 2, 47, "Proposed: train, then encrypt", ha="left", weight="bold")
    for middle in (76, 23):
        box(axis, 13, middle, 20, 14, "plain\nimages", PLAIN)
        for number, up in ((1, 11), (2, -11)):
            box(axis, 88, middle + up, 21, 14, f"network\nfor key {number}", LOCKED)
    for number, up in ((1, 11), (2, -11)):
        box(axis, 48, 76 + up, 22, 14, f"encrypted\nimages {number}", LOCKED)
        arrow(axis, (24, 76), (36, 76 + up))
        arrow(axis, (60, 76 + up), (76.5, 76 + up), "training")
        arrow(axis, (60, 23), (76.5, 23 + up))
        for x, middle in ((28.5, 76), (66.5, 23)):
            label(axis, x, middle + 1.3 * up, f"key {number}", style="italic")
    box(axis, 48, 23, 22, 14, "plain\nnetwork", PLAIN)
    arrow(axis, (24, 23), (36, 23), "training")
    return figure


def same_features() -> Figure:
    """One patch under two keys: two encrypted patches, two first layers, and the features of the plain network."""
    figure, axis = canvas(54)
    box(axis, 11, 22, 17, 14, "patch\nx", PLAIN)
    box(axis, 91, 22, 15, 14, "features\nz", PLAIN)
    for number, up in ((1, 12), (2, -12)):
        box(axis, 44, 22 + up, 18, 15, f"encrypted\nx′ ({number})", LOCKED)
        box(axis, 69, 22 + up, 19, 15, f"first layer\nW′ ({number})", LOCKED)
        arrow(axis, (20.5, 22), (34, 22 + up))
        label(axis, 25.5, 22 + 0.95 * up, f"key {number}", style="italic")
        arrow(axis, (54, 22 + up), (58.5, 22 + up))
        arrow(axis, (79.5, 22 + up), (89, 22 + up / 1.6))
    axis.plot((32, 32), (1, 53), color="black", linestyle=":", linewidth=1.5)
    label(axis, 16, 50, "the owner", weight="bold")
    label(axis, 66, 50, "what the service holds", weight="bold")
    return figure
