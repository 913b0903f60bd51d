"""Drawings of attacks, in the hand of `drawings`: who holds what, what is computed, what a key does to averages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np

from ..lock import checks
from .drawings import LOCKED, NEUTRAL, PLAIN, WIDE, arrow, box, canvas, label
from .style import BLUE, GREY, ORANGE, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_Attack = tuple[str, Sequence[tuple[str, dict]], str, str]  # name, what goes in, what is computed, what comes out

# Who holds what in the chapters' threat models; the owner stands first, to compare.
THINGS = (
    "encrypted\nimages",
    "plain images\nof others",
    "pairs",
    "an image of\nhis encrypted",
    "encrypted\nnetwork",
    "answers",
    "key",
)
HOLDERS = {
    "the owner": (0, 1, 2, 3, 4, 5, 6),
    "who looks": (0,),
    "ciphertext only": (0, 1),
    "known plaintext": (0, 2),
    "chosen plaintext": (3,),
    "thief (8)": (1, 4),
    "who asks (9)": (5,),
    "the service (10)": (0, 1, 4, 5),
}


def who_holds_what() -> Figure:
    """The attackers of the chapters, a line each, and what each of them has."""
    step, left = 7.5, 36
    high = step * len(HOLDERS) + 22
    figure, axis = canvas(high)
    columns = np.linspace(left, WIDE - 5, len(THINGS))
    for x, thing in zip(columns, THINGS, strict=True):
        label(axis, x, high - 19, thing, rotation=60, rotation_mode="anchor", ha="left", fontsize=8)
    for number, (holder, held) in enumerate(HOLDERS.items()):
        y = high - 24 - step * number
        label(axis, 2, y, holder, ha="left", weight="bold" if number == 0 else "normal")
        axis.plot((left - 4, WIDE - 2), (y - step / 2,) * 2, color="#DDDDDD", linewidth=0.8)
        for place, x in enumerate(columns):
            look = {"color": GREY, "markersize": 2} if place not in held else {"color": BLUE, "markersize": 8}
            axis.plot(x, y, "o", **(look | ({"color": ORANGE} if THINGS[place] == "key" and place in held else {})))
    return figure


def attacks_on_images() -> Figure:
    """Three ways from images to the key."""
    pictures = ("encrypted\nimages", LOCKED)
    return _flows(
        (
            "ciphertext only",
            (pictures, ("public images", PLAIN)),
            "covariances of both;\nthe A that takes\nM to M′",
            "key",
        ),
        (
            "known plaintext",
            (pictures, ("the same,\nin plain", PLAIN)),
            "which plain entry\nagrees with which\nencrypted one",
            "key",
        ),
        (
            "chosen plaintext",
            (("his own image:\nentries all differ", PLAIN), ("what becomes\nof it", LOCKED)),
            "where each\nvalue went",
            "key",
        ),
    )


def attacks_on_models() -> Figure:
    """Four ways from an encrypted model, without encrypted images, to a key or to a model that is open."""
    model, labelled = ("encrypted\nnetwork", LOCKED), ("labelled images", PLAIN)
    return _flows(
        ("hill climbing", (model, labelled), "changes a key entry\nby entry; keeps what\nlowers the loss", "a key"),
        ("gradient search", (model, labelled), "learns a soft\npermutation,\nthen rounds it", "a key"),
        (
            "statistics",
            (model, ("other images", PLAIN)),
            "the key that gives\nthe stored means\nand variances",
            "the flips\nof a key",
        ),
        ("retraining", (model, labelled), "goes on training\nthe first layer", "an open\nnetwork"),
    )


def who_encrypts() -> Figure:
    """Two settings of adversarial examples: where an image is encrypted, and where an attacker may change or see it."""
    figure, axis = canvas(104)
    asks, travels = (93, "gets\nanswers"), (48, "collects or changes\nencrypted images")
    for y, place, encrypts, frames, touches in (
        (75, "provider", 46, [("provider", 35, 84)], ((9, "changes\nplain images"), asks)),
        (22, "client", 33, [("client", 0.5, 43), ("service", 61, 84)], (travels,)),
    ):
        label(axis, 2, y + 24, f"The {place} encrypts", ha="left", weight="bold")
        for holder, left, right in frames:
            dotted = {"facecolor": "none", "edgecolor": GREY, "linestyle": ":", "linewidth": 1.3}
            axis.add_patch(mpl.patches.Rectangle((left, y - 10), right - left, 27, **dotted))
            label(axis, (left + right) / 2, y + 12.5, holder, color=GREY, style="italic")
        for x, wide, words, look in (
            (9, 15, "plain\nimage", PLAIN),
            (encrypts, 17, "encrypt", NEUTRAL),
            (72.5, 20, "encrypted\nnetwork", LOCKED),
            (93, 12, "logits", PLAIN),
        ):
            box(axis, x, y, wide, 14, words, look)
        for start, end in ((17, encrypts - 9), (encrypts + 9, 62), (83, 86.5)):
            arrow(axis, (start, y), (end, y))
        for x, words in (*touches, (72.5, "may be stolen,\nwithout the key")):
            arrow(axis, (x, y - 15), (x, y - (2 if x == 48 else 8)))
            label(axis, x, y - 18.5, words, fontsize=8)
    return figure


def _flows(*attacks: _Attack) -> Figure:
    """Attacks below one another: what goes in, what the attacker computes, what comes out."""
    step = 25
    high = step * len(attacks) + 6
    figure, axis = canvas(high)
    for x, words in ((16, "goes in"), (56, "the attacker computes"), (90, "comes out")):
        label(axis, x, high - 3, words, color=GREY, style="italic")
    for number, (name, inputs, computed, result) in enumerate(attacks):
        middle = high - 5 - step * number - 14
        label(axis, 56, middle + 11, name, weight="bold")
        for (words, look), y in zip(inputs, (middle + 5, middle - 6), strict=True):
            box(axis, 16, y, 28, 9, words, look)
            arrow(axis, (31, y), (38, middle + (y - middle) / 4))
        box(axis, 56, middle, 34, 15, computed, NEUTRAL)
        box(axis, 90, middle, 17, 10, result, PLAIN)
        arrow(axis, (73.5, middle), (81, middle))
    return figure


def turned_ellipses(values: np.ndarray, maps: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Two entries of many blocks, and the ellipse of their covariance, plain and under maps of these two.

    values: (N, 2), in [0, 1]; maps: {name: (A, b)}, A (2, 2), b (2,). Ellipses reach to two standard deviations.
    """
    checks.instance(maps, Mapping, "maps")
    values = checks.array(values, "values")
    if values.ndim != 2 or values.shape[1] != 2 or len(values) < 2 or values.dtype.kind != "f":
        raise ValueError(f"values must be floats (N, 2), of two blocks at least, but their shape is {values.shape}.")
    panels = {"plain": (np.eye(2), np.zeros(2))} | dict(maps)
    for pair in panels.values():
        if not isinstance(pair, tuple) or [checks.array(each, "A map").shape for each in pair] != [(2, 2), (2,)]:
            raise ValueError("maps must hold pairs (A, b), arrays of the shapes (2, 2) and (2,).")
    figure, [axes] = subplots(1, len(panels), figsize=(5, 1.9), sharex=True, sharey=True)
    for axis, (name, (matrix, offset)) in zip(axes, panels.items(), strict=True):
        x, colour = values @ matrix.T + offset, BLUE if name == "plain" else ORANGE
        variances, directions = np.linalg.eigh(np.cov(x.T))
        angle = np.degrees(np.arctan2(directions[1, 1], directions[0, 1]))
        wide, high = 4 * np.sqrt(variances[::-1])
        line = "-" if name == "plain" else "--"
        axis.plot(*x.T, ".", color=GREY, markersize=1, alpha=0.4)
        axis.add_patch(
            mpl.patches.Ellipse(x.mean(0), wide, high, angle=angle, facecolor="none", edgecolor=colour, ls=line, lw=2)
        )
        axis.set(title=name, aspect="equal", xticks=[0, 1], yticks=[0, 1])
        axis.tick_params(labelsize=8)
    axes[0].set_ylabel("second entry")
    figure.supxlabel("first entry", fontsize="medium")
    return figure
