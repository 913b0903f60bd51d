"""Plots of the book and its pictures of images; those of recorded results are drawn from rows, and saved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np

from ..lock import checks
from ..study import records
from . import attack_figures
from .style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    STEPS,
    STYLE,
    Looks,
    beside,
    curves,
    guide,
    marks,
    points,
    save,
    subplots,
)
from .style import use_style as use_style  # chapters take it from here
from .summaries import check_rows, conventional_table, duration, of_measure, speed_table

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from matplotlib.figure import Figure

KINDS: Looks = {  # of wrong entries in a key
    "wrong places": (BLUE, "o", "-"),
    "wrong flips": (ORANGE, "s", "-"),
    "both": (GREEN, "^", "-"),
}
CASES: Looks = {
    "plain": (GREY, "D", "-"),
    "correct key": (BLUE, "o", "-"),
    "wrong key": (RED, "x", "-"),
    "no key": (ORANGE, "^", "-"),
}
ACCURACIES: Looks = {"training images, augmented": (BLUE, "o", "--"), "test images": (ORANGE, "o", "-")}


def _picture(image):
    """(H, W, C) of an image (C, H, W), floats clipped to [0, 1]."""
    found = checks.array(image, "An image")
    if found.ndim != 3 or found.shape[0] not in (1, 3) or not found.size or found.dtype.kind not in "buif":
        raise ValueError(
            f"An image must be of the shape (C, H, W), C 1 or 3, but this is of {found.shape} and {found.dtype}."
        )
    picture = np.moveaxis(found, 0, -1)
    return picture if picture.dtype == np.uint8 else picture.clip(0, 1)


def image_grid(
    rows: Sequence[Sequence],
    row_titles: Sequence[str] | None = None,
    column_titles: Sequence[str] | None = None,
    size: float = 1.1,
) -> Figure:
    """Images in a grid.

    Args:
        rows: a list of lists of images (C, H, W), uint8 or float in [0, 1] (values outside are clipped), C 1 or 3.
        row_titles, column_titles: as many texts.
        size: of one image, in inches.

    TypeError or ValueError for what is no such list.
    """
    try:
        pictures = [[_picture(image) for image in row] for row in rows]
    except TypeError:
        raise TypeError(
            f"rows must be a list of lists of images (C, H, W), but this is {checks.shown(rows)}."
        ) from None
    if not any(pictures):
        raise ValueError("rows must hold an image at least.")
    n_rows, n_columns, size = len(pictures), max(map(len, pictures)), checks.number(size, "size", 0.1, 10)
    row_titles = _titles(row_titles, n_rows, "row")
    column_titles = _titles(column_titles, n_columns, "column")
    figure, axes = subplots(
        n_rows, n_columns, figsize=(size * n_columns + (1.2 if row_titles else 0.1), size * n_rows + 0.3)
    )
    for r, row in enumerate(pictures):
        for c, axis in enumerate(axes[r]):
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            if c < len(row):
                axis.imshow(row[c].squeeze(-1) if row[c].shape[-1] == 1 else row[c], cmap="gray")
        if row_titles:
            axes[r, 0].set_ylabel(row_titles[r], rotation=0, ha="right", va="center")
    for axis, title in zip(axes[0], column_titles, strict=False):
        axis.set_title(title)
    return figure


def _titles(value, n, of):
    """``value`` as a list of n titles, or [] where it is None."""
    found = [] if value is None else checks.items(value, n)
    if found is None or (value is not None and len(found) != n):
        raise ValueError(f"{of}_titles must hold a text for each {of}, so {n}, but they are {checks.shown(value)}.")
    return found


def filters(
    weight: torch.Tensor | Sequence[torch.Tensor], row_titles: Sequence[str] | None = None, size: float = 0.7
) -> Figure:
    """Embedding filters (N, C, p, p) as pictures in a row, or several such sets below one another.

    Each filter is scaled by itself to [0, 1], with 0 at mid grey.
    """
    sets = weight if isinstance(weight, (list, tuple)) else [weight]
    return image_grid([_scaled(one) for one in sets], row_titles, size=size)


def _scaled(weight: torch.Tensor) -> np.ndarray:
    """Filters, each scaled by itself to [0, 1], with 0 at mid grey."""
    w = checks.array(checks.tensor(weight, "weight"), "weight").astype(float)
    if w.ndim != 4 or not w.size or not np.isfinite(w).all():
        raise ValueError(f"weight must be finite filters (N, C, p, p), but its shape is {w.shape}.")
    return 0.5 + 0.5 * w / np.abs(w).max((1, 2, 3), keepdims=True)


def _by_patch_size(rows: pd.DataFrame) -> list[tuple[int, str, pd.DataFrame]]:
    """[(patch size, title, rows)], the coarsest patches first; where there is one size alone, no title."""
    sizes = sorted(rows.patch_size.dropna().unique().astype(int), reverse=True)
    if not sizes:
        raise ValueError("rows must hold some of what is drawn, each with its patch_size.")
    return [(size, f"patches of {size}" if len(sizes) > 1 else "", rows[rows.patch_size == size]) for size in sizes]


def training_curves(rows: pd.DataFrame) -> Figure:
    """Loss and accuracy by epoch, from rows of the table `training` (or the same columns of a history).

    Rows of several patch sizes give a line of panels each.
    """
    names = dict(zip(("train_accuracy", "test_accuracy"), ACCURACIES, strict=True))
    parts = _by_patch_size(rows) if "patch_size" in check_rows(rows, "measure", "value", "epoch") else [(0, "", rows)]
    figure, panels = subplots(len(parts), 2, figsize=(8, 2.8 * len(parts)))
    for (left, right), (_, title, part) in zip(panels, parts, strict=True):
        loss = of_measure(part, "train_loss").groupby("epoch").value.mean()
        left.plot(loss.index, loss, color=BLUE, marker="o", markersize=3)
        curves(right, part.assign(images=part.measure.map(names)), "epoch", "images", ACCURACIES, markersize=3)
        left.set(title=title, xlabel="epoch", ylabel="training loss")
        right.set(title=title, xlabel="epoch", ylabel="accuracy, %")
        right.legend()
        for axis in (left, right):
            axis.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
    return figure


def wrong_keys(rows: pd.DataFrame) -> Figure:
    """How accuracy is spread over wrong keys, by steps, from rows of the table `keys`; dashed: the right key.

    Rows of several patch sizes give a panel each.
    """
    rows = of_measure(rows, "accuracy", "steps", "case", "patch_size").assign(percent=lambda r: 100 * r.value)
    parts = _by_patch_size(rows)
    colours = {steps: STEPS[steps][0] for steps in STEPS if steps in set(rows.steps)}
    figure, panels = subplots(len(parts), 1, figsize=(7, (0.6 + 0.75 * len(colours)) * len(parts)))
    for axis, (_, title, part) in zip(panels[:, 0], parts, strict=True):
        wrong = part[part.case == "wrong key"]
        points(axis, wrong, "percent", "steps", colours, "mean")
        found = wrong.groupby("steps").percent.agg(["mean", "size"]).reindex(colours)
        beside(axis, [f"mean {mean:.1f} %, n = {n:.0f}" if n > 0 else "" for mean, n in found.to_numpy()])
        guide(axis, part[part.case == "correct key"].percent.mean(), "correct key", "--", "right")
        guide(axis, 10, "guessing")
        axis.set(xlabel="accuracy, %", xlim=(0, 100), title=title)
    return figure


def anatomy(rows: pd.DataFrame) -> Figure:
    """Accuracy against the number of wrong entries in the key, from rows of the table `anatomy`: mean and range.

    Rows of several patch sizes give a panel each.
    """
    names = dict(zip(("positions", "signs", "both"), KINDS, strict=True))
    parts = _by_patch_size(check_rows(rows, "value", "kind", "wrong", "patch_size").assign(kind=rows.kind.map(names)))
    figure, [panels] = subplots(1, len(parts), figsize=(max(7, 4.2 * len(parts)), 3.4), sharey=True)
    for axis, (size, title, part) in zip(panels, parts, strict=True):
        curves(axis, part, "wrong", "kind", KINDS)
        axis.axhline(10, color=GREY, linestyle=":")
        axis.set(xlabel=f"wrong entries of the key, of {3 * size**2}", ylim=(0, 100), title=title)
    panels[0].set_ylabel("accuracy, %")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def blocks(rows: pd.DataFrame) -> Figure:
    """Plain and wrong-key accuracy by patch and block size, from rows of the table `blocks`: mean and range."""
    rows = of_measure(rows, "accuracy", "case", "patch_size", "block_size").sort_values(["patch_size", "block_size"])
    rows = rows[rows.case != "correct key"]
    pairs = [f"patch {p}\nblock {b}" for p, b in zip(rows.patch_size, rows.block_size, strict=True)]
    figure, [[axis]] = subplots(figsize=(7, 3))
    marks(axis, rows.assign(pair=pairs, value=100 * rows.value), "pair", "case", CASES, dodge=0.3)
    axis.axhline(10, color=GREY, linestyle=":")
    axis.set(ylabel="accuracy, %", ylim=(0, 100))
    axis.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))
    return figure


def conventional(rows: pd.DataFrame) -> Figure:
    """Accuracy with the correct key, wrong keys and none, by method, from rows of the table `conventional`; at the
    right the loss in points against plain, and the number of seeds."""
    table = conventional_table(rows)
    place = {method: index for index, method in enumerate(table.method)}
    figure, [[axis]] = subplots(figsize=(7, 1.2 + 0.4 * len(table)))
    for (case, (colour, marker, _)), shift in zip(CASES.items(), (0, 0, -0.15, 0.15), strict=True):
        part = of_measure(rows[rows.case == case], "accuracy")
        places = part.method.map(place) + shift
        axis.plot(100 * part.value, places, color=colour, marker=marker, linestyle="", label=case)
    words = {row.method: f"{row.loss:z.2f} points, n = {row.seeds}" for row in table[table.loss.notna()].itertuples()}
    beside(axis, [(words | {"plain": "loss; n: seeds"}).get(method, "") for method in place])
    guide(axis, table.correct[place["plain"]], line="--")
    guide(axis, 10)
    axis.set_yticks(range(len(table)), table.method)
    axis.set(xlabel="accuracy, %", xlim=(0, 100), ylim=(len(table) - 0.5, -0.5))
    axis.legend(ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1))
    return figure


def cost(rows: pd.DataFrame) -> Figure:
    """Seconds of each job, on a logarithmic axis, from rows of the table `cost`: every trial, and the median."""
    rows = of_measure(rows, "seconds", "case")
    rows = rows.assign(case=rows.case.str.replace(", ", ",\n"))
    medians = rows.groupby("case", sort=False).value.median()
    figure, [[axis]] = subplots(figsize=(7, 0.8 + 0.4 * len(medians)))
    points(axis, rows, "value", "case", dict.fromkeys(medians.index, BLUE), "median", "log")
    beside(axis, [duration(seconds) for seconds in medians])
    axis.set(xlabel="seconds")
    return figure


def where_time_goes(rows: pd.DataFrame) -> Figure:
    """Milliseconds of each kind of layer in a training step, ours beside torch's, from rows of `benchmarks`.

    One panel a patch size.
    """
    parts = _by_patch_size(speed_table(rows).reset_index().query("case == 'layer'"))
    figure, [panels] = subplots(1, len(parts), figsize=(4.2 * len(parts), 2.9), sharey=True)
    for axis, (size, _, part) in zip(panels, parts, strict=True):
        places = np.arange(len(part))
        axis.barh(places - 0.2, 1e3 * part.stock, 0.38, color=ORANGE, hatch="//", label="torch's modules")
        axis.barh(places + 0.2, 1e3 * part.cmxlib, 0.38, color=BLUE, label="cmxlib")
        axis.set_yticks(places, part.layer)
        axis.set(title=f"patches of {size}", xlabel="ms of a training step")
    panels[0].invert_yaxis()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


RECORDED = {
    "benchmarks": where_time_goes,
    "training": training_curves,
    "keys": wrong_keys,
    "anatomy": anatomy,
    "blocks": blocks,
    "conventional": conventional,
    "cost": cost,
    **attack_figures.RECORDED,
}


def draw_recorded(scale: str, folder: Path | None = None) -> list[Path]:
    """Draw the figure of each table that is recorded at a scale, and save it in that scale's folder of figures.

    Below each stands what it was measured over.
    """
    paths = []
    for table, draw in RECORDED.items():
        if records.table_path(scale, table).exists():
            rows = records.read(scale, table)
            with mpl.rc_context(STYLE):
                figure = draw(rows)
                figure.supxlabel(measured_over(rows), fontsize="small", color=GREY)
            paths += save(figure, table, folder or records.figures_dir(scale))
    return paths


def measured_over(rows: pd.DataFrame) -> str:
    """In a line, what rows of a table were measured over: data set, scale, images, keys, draws, seeds."""
    check_rows(rows, "seeds", "dataset", "scale", "n_images", "n_keys")
    seeds = sorted({int(seed) for text in rows.seeds for seed in text.split()})
    names = {"cifar10": "CIFAR-10", "fontdigits": "FontDigits"}
    parts = [
        f"{'/'.join(names.get(name, name) for name in rows.dataset.unique())}, scale {'/'.join(rows.scale.unique())}"
    ]
    draws = rows.draw.nunique() if "draw" in rows else 0
    keys = [rows.key.nunique()] if "key" in rows else sorted(set(rows.n_keys))  # where each has rows of its own
    images = sorted({rows.n_images.min(), rows.n_images.max()})
    for counts, name, between in ((images, "image", " to "), (keys, "key", " or "), ([draws], "draw", "")):
        counted = [f"{count:,}" for count in counts if count]
        parts += [f"{between.join(counted)} {name}{'' if counted == ['1'] else 's'}"] if counted else []
        if name == "key" and draws > 1:  # each draw of an attack has a key of its own
            parts[-1] += " a draw"
    run = len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1))
    named = f"{seeds[0]} to {seeds[-1]}" if run else ", ".join(map(str, seeds))
    return ", ".join([*parts, f"seed{'s' * (len(seeds) > 1)} {named}"])


def claim(paths: Sequence[tuple], classes: Sequence[str]) -> Figure:
    """The book's claim in one picture: one row for each way of an image through a model.

    Args:
        paths: tuples of (name, image (3, H, W) uint8, filters W (N, 3, p, p), probabilities (classes,)). Of the
            filters, those twelve are shown that are largest in the first row. Predictions that agree with the first
            row's are drawn in blue, others in orange and hatched.
        classes: the names of the classes.
    """
    paths, classes = checks.items(paths, 100) or [], checks.items(classes, 1000) or []
    if not paths or not all(isinstance(path, tuple) and len(path) == 4 for path in paths):
        raise TypeError("paths must be tuples of (name, image, filters, probabilities), one at least.")
    if not all(isinstance(name, str) for name in classes):
        raise TypeError("classes must be texts.")
    for _, _, weight, probabilities in paths:
        one = checks.images(weight, 3, name="filters")
        if not (one.is_floating_point() and one.numel() and one.shape == paths[0][2].shape):
            raise ValueError("filters must be floats (N, 3, p, p), of one shape in all of paths.")
        if (found := checks.array(probabilities, "probabilities")).shape != (len(classes),) or found.dtype.kind != "f":
            raise ValueError(f"probabilities must be {len(classes)} floats, one for each of classes.")
    chosen = paths[0][2].detach().flatten(1).norm(dim=1).argsort(descending=True)[:12].cpu()
    first = int(checks.array(paths[0][3], "probabilities").argmax())
    figure, axes = subplots(
        len(paths), 3, figsize=(8, 1.5 * len(paths) + 0.3), gridspec_kw={"width_ratios": [1, 2.2, 2]}
    )
    titles = "image", "filters of the first layer", "predicted probability, %"
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title)
    for row, (name, image, weight, probabilities) in zip(axes, paths, strict=True):
        for axis, picture in zip(row, (_picture(image), _mosaic(weight[chosen])), strict=False):
            axis.imshow(picture)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", labelpad=8)
        percent = 100 * checks.array(probabilities, "probabilities").astype(float)
        best = int(percent.argmax())
        bars = row[2].bar(range(len(classes)), percent, color="#BBBBBB")
        bars[best].set(color=BLUE) if best == first else bars[best].set(
            facecolor=ORANGE, hatch="///", edgecolor="white"
        )
        row[2].bar_label(bars, [f"{classes[i]}: {percent[i]:.0f} %" if i == best else "" for i in range(len(classes))])
        row[2].set(ylim=(0, 122), yticks=[0, 50, 100])
        row[2].set_xticks(range(len(classes)), classes, rotation=0 if max(map(len, classes)) < 3 else 60)
    return figure


def _mosaic(weight: torch.Tensor) -> np.ndarray:
    """Filters (N, 3, p, p), six side by side, in one picture, each scaled by itself, with white between them."""
    n, _, p, _ = weight.shape
    step = p + 1
    picture = np.ones((-(-n // 6) * step - 1, 6 * step - 1, 3))
    for i, one in enumerate(_scaled(weight)):
        top, left = i // 6 * step, i % 6 * step
        picture[top : top + p, left : left + p] = np.moveaxis(one, 0, -1)
    return picture
