"""Every plot of the book. Those of recorded results are drawn from rows, and saved as PNG and SVG."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np

from ..paths import checkout
from ..study import records
from . import attack_figures
from .style import BLUE, GREEN, GREY, ORANGE, RED, STEP_COLOURS, STYLE, close, save, subplots
from .style import use_style as use_style  # chapters take it from here
from .summaries import conventional_table, duration, speed_table, summary

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def image_grid(
    rows: list[list],
    row_titles: Sequence[str] | None = None,
    column_titles: Sequence[str] | None = None,
    size: float = 1.1,
) -> "Figure":
    """Images in a grid.

    Args:
        rows: a list of lists of images (C, H, W), uint8 or float in [0, 1] (values outside are clipped), C 1 or 3.
        row_titles, column_titles: as many texts.
        size: of one image, in inches.
    """
    n_rows, n_columns = len(rows), max(len(row) for row in rows)
    figure, axes = subplots(
        n_rows, n_columns, figsize=(size * n_columns + (1.2 if row_titles else 0.1), size * n_rows + 0.3), squeeze=False
    )
    for r, row in enumerate(rows):
        for c, axis in enumerate(axes[r]):
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            if c < len(row):
                picture = np.moveaxis(np.asarray(row[c]), 0, -1)
                picture = picture if picture.dtype == np.uint8 else picture.clip(0, 1)
                axis.imshow(picture.squeeze(), cmap="gray" if picture.shape[-1] == 1 else None)
        if row_titles:
            axes[r, 0].set_ylabel(row_titles[r], rotation=0, ha="right", va="center")
    for axis, title in zip(axes[0], column_titles or [], strict=False):
        axis.set_title(title)
    return figure


def filters(weight: Any, row_titles: Sequence[str] | None = None, size: float = 0.7) -> "Figure":
    """Embedding filters (N, C, p, p) as pictures in a row, or several such sets below one another.

    Each filter is scaled by itself to [0, 1], with 0 at mid grey.
    """
    sets = weight if isinstance(weight, (list, tuple)) else [weight]
    rows = []
    for filters_of_a_row in sets:
        w = np.asarray(filters_of_a_row.detach().cpu().double())
        rows.append(list(0.5 + 0.5 * w / np.abs(w).max((1, 2, 3), keepdims=True)))
    return image_grid(rows, row_titles, size=size)


def _by_patch_size(rows):
    """[(patch size, title, rows)], the coarsest patches first; where there is one size alone, no title."""
    sizes = sorted(rows.patch_size.dropna().unique().astype(int), reverse=True)
    return [(size, f"patches of {size}" if len(sizes) > 1 else "", rows[rows.patch_size == size]) for size in sizes]


def training_curves(rows: "pd.DataFrame") -> "Figure":
    """Loss and accuracy by epoch, from rows of the table `training` (or the same columns of a history).

    Rows of several patch sizes give a line of panels each.
    """
    parts = _by_patch_size(rows) if "patch_size" in rows else [(None, "", rows)]
    figure, panels = subplots(len(parts), 2, figsize=(8, 2.8 * len(parts)), squeeze=False)
    for (left, right), (_, title, part) in zip(panels, parts, strict=True):
        wide = part.pivot_table(index="epoch", columns="measure", values="value")
        left.plot(wide.index, wide.train_loss, color=BLUE, marker="o", markersize=3)
        left.set(xlabel="epoch", ylabel="training loss")
        for name, label, colour, line in (
            ("train_accuracy", "training images, augmented", BLUE, "--"),
            ("test_accuracy", "test images", ORANGE, "-"),
        ):
            right.plot(wide.index, 100 * wide[name], line, color=colour, marker="o", markersize=3, label=label)
        right.set(xlabel="epoch", ylabel="accuracy, %")
        right.legend()
        for axis in (left, right):
            axis.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
            axis.set_title(title)
    return figure


def wrong_keys(rows: "pd.DataFrame") -> "Figure":
    """How accuracy is spread over wrong keys, by steps, from rows of the table `keys`; dashed: the right key.

    Rows of several patch sizes give a panel each.
    """
    import seaborn  # takes a second

    rows = rows[rows.measure == "accuracy"].assign(percent=lambda r: 100 * r.value)
    parts = _by_patch_size(rows)
    order = [steps for steps in STEP_COLOURS if steps in set(rows.steps)]
    figure, panels = subplots(len(parts), figsize=(7, (0.6 + 0.75 * len(order)) * len(parts)), squeeze=False)
    # seaborn scatters points by NumPy's global numbers: alike each time here, and for the caller as they were.
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    for axis, (_, title, part) in zip(panels[:, 0], parts, strict=True):
        wrong = part[part.case == "wrong key"]
        seaborn.stripplot(
            wrong, x="percent", y="steps", hue="steps", order=order, palette=STEP_COLOURS, size=3, alpha=0.6, ax=axis
        )
        for place, steps in enumerate(order):
            here = wrong[wrong.steps == steps].percent
            axis.plot([here.mean()] * 2, [place - 0.3, place + 0.3], color="black", linewidth=1.5, zorder=3)
            label = f"mean {here.mean():.1f} %, n = {len(here)}"
            axis.annotate(label, (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize="small")
        right = part[part.case == "correct key"].percent.mean()
        axis.axvline(right, color=GREY, linestyle="--")
        axis.annotate("correct key", (right, -0.45), (-4, 0), textcoords="offset points", ha="right", color=GREY)
        axis.axvline(10, color=GREY, linestyle=":")
        axis.annotate("guessing", (10, -0.45), (4, 0), textcoords="offset points", color=GREY)
        axis.set(xlabel="accuracy, %", ylabel="", xlim=(0, 100), ylim=(len(order) - 0.5, -0.6), title=title)
    np.random.set_state(before)  # noqa: NPY002
    return figure


def anatomy(rows: "pd.DataFrame") -> "Figure":
    """Accuracy against the number of wrong entries in the key, from rows of the table `anatomy`: mean and range.

    Rows of several patch sizes give a panel each.
    """
    parts = _by_patch_size(rows)
    width = 7 if len(parts) == 1 else 4.2 * len(parts)
    figure, panels = subplots(1, len(parts), figsize=(width, 3.4), squeeze=False, sharey=True)
    kinds = (
        ("positions", "wrong positions", BLUE, "o"),
        ("signs", "wrong flips", ORANGE, "s"),
        ("both", "both", GREEN, "^"),
    )
    for axis, (size, title, part) in zip(panels[0], parts, strict=True):
        for kind, label, colour, marker in kinds:
            groups = part[part.kind == kind].groupby("wrong").value
            points = np.array([(wrong, *(100 * np.array([v.mean(), v.min(), v.max()]))) for wrong, v in groups]).T
            axis.fill_between(points[0], points[2], points[3], color=colour, alpha=0.15, linewidth=0)
            axis.plot(points[0], points[1], color=colour, marker=marker, markersize=4, label=label)
        axis.axhline(10, color=GREY, linestyle=":")
        axis.set(xlabel=f"wrong entries of the key, of {3 * size**2}", ylim=(0, 100), title=title)
    panels[0, 0].set_ylabel("accuracy, %")
    panels[0, 0].legend()
    return figure


def blocks(rows: "pd.DataFrame") -> "Figure":
    """Plain and wrong-key accuracy by patch and block size, from rows of the table `blocks`."""
    rows = rows[rows.measure == "accuracy"]
    figure, axis = subplots(figsize=(7, 3))
    pairs = sorted({(p, b) for p, b in zip(rows.patch_size, rows.block_size, strict=True)})
    for case, colour, marker in (("plain", GREY, "o"), ("wrong key", RED, "s"), ("no key", BLUE, "^")):
        found = [
            summary(100 * rows[(rows.patch_size == p) & (rows.block_size == b) & (rows.case == case)].value)
            for p, b in pairs
        ]
        means = [f["mean"] for f in found]
        spread = [[f["mean"] - f["min"] for f in found], [f["max"] - f["mean"] for f in found]]
        axis.errorbar(
            range(len(pairs)), means, spread, color=colour, marker=marker, linestyle="", capsize=3, label=case
        )
    axis.set_xticks(range(len(pairs)), [f"patch {p}\nblock {b}" for p, b in pairs])
    axis.axhline(10, color=GREY, linestyle=":")
    axis.set(ylabel="accuracy, %", ylim=(0, 100))
    axis.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))
    return figure


def conventional(rows: "pd.DataFrame") -> "Figure":
    """Accuracy with the correct key, wrong keys and none, by method, from rows of the table `conventional`; at the
    right the loss in points against plain, and the number of seeds."""
    table = conventional_table(rows)
    rows = rows[rows.measure == "accuracy"]
    place = {method: index for index, method in enumerate(table.method)}
    figure, axis = subplots(figsize=(7, 1.2 + 0.4 * len(place)))
    for case, colour, marker, shift in (
        ("plain", GREY, "D", 0),
        ("correct key", BLUE, "o", 0),
        ("wrong key", RED, "x", -0.15),
        ("no key", ORANGE, "^", 0.15),
    ):
        part = rows[rows.case == case]
        axis.plot(
            100 * part.value, part.method.map(place) + shift, color=colour, marker=marker, linestyle="", label=case
        )
    for row in table[table.loss.notna()].itertuples():
        text = f"{row.loss:z.1f} points, n = {row.seeds}" if row.method != "plain" else "loss; n: seeds"
        axis.annotate(
            text, (1.01, place[row.method]), xycoords=("axes fraction", "data"), va="center", fontsize="small"
        )
    axis.axvline(table.correct[place["plain"]], color=GREY, linestyle="--")
    axis.axvline(10, color=GREY, linestyle=":")
    axis.set_yticks(range(len(place)), list(place))
    axis.set(xlabel="accuracy, %", xlim=(0, 100), ylim=(len(place) - 0.5, -0.5))
    axis.legend(ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1))
    return figure


def cost(rows: "pd.DataFrame") -> "Figure":
    """Seconds of each job, on a logarithmic axis, from rows of the table `cost`: every trial, and the median."""
    jobs = rows[rows.measure == "seconds"].groupby("case", sort=False).value
    figure, axis = subplots(figsize=(7, 0.8 + 0.4 * len(jobs)))
    for place, (_, seconds) in enumerate(jobs):
        axis.plot(seconds, [place] * len(seconds), color=BLUE, marker="o", markersize=4, linestyle="", alpha=0.5)
        axis.plot([seconds.median()] * 2, [place - 0.3, place + 0.3], color="black", linewidth=1.5)
        label = duration(seconds.median())
        axis.annotate(label, (seconds.max(), place), (8, 0), textcoords="offset points", va="center")
    axis.set_yticks(range(len(jobs)), [name.replace(", ", ",\n") for name, _ in jobs])
    axis.set(xscale="log", xlabel="seconds", ylim=(len(jobs) - 0.5, -0.5))
    axis.margins(x=0.15)
    return figure


def where_time_goes(rows: "pd.DataFrame") -> "Figure":
    """Milliseconds of each kind of layer in a training step, ours beside stock modules, from rows of `benchmarks`.

    One panel a patch size.
    """
    layers = speed_table(rows[rows.case == "layer"]).reset_index()
    parts = _by_patch_size(layers)
    figure, panels = subplots(1, len(parts), figsize=(4.2 * len(parts), 2.9), sharey=True, squeeze=False)
    for axis, (size, _, part) in zip(panels[0], parts, strict=True):
        part = part.reset_index()
        for offset, column, colour, hatch, name in (
            (-0.2, "stock", ORANGE, "//", "stock modules"),
            (0.2, "cmxlib", BLUE, "", "cmxlib"),
        ):
            axis.barh(part.index + offset, 1e3 * part[column], 0.38, color=colour, hatch=hatch, label=name)
        axis.set_yticks(part.index, part.layer)
        axis.set(title=f"patches of {size}", xlabel="ms of a training step")
    panels[0, 0].invert_yaxis()
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


RECORDED = {
    "benchmarks": where_time_goes,
    "training": training_curves,
    "keys": wrong_keys,
    "anatomy": anatomy,
    "blocks": blocks,
    "conventional": conventional,
    "cost": cost,
}


def draw_recorded(scale: str, folder: Path | None = None) -> list[Path]:
    """Draw the figure of each table that is recorded at a scale, and save it in that scale's folder of figures.

    Below each stands what it was measured over.
    """
    paths = []
    for table, draw in (RECORDED | attack_figures.RECORDED).items():
        if records.table_path(scale, table).exists():
            rows = records.read(scale, table)
            with mpl.rc_context(STYLE):
                figure = draw(rows)
                figure.supxlabel(measured_over(rows), fontsize="small", color=GREY)
                paths += save(figure, table, folder or records.figures_dir(scale))
                close(figure)
    return paths


def measured_over(rows: "pd.DataFrame") -> str:
    """In a line, what rows were measured over: data set, scale, images, keys (of each draw), draws, seeds."""
    seeds = sorted({seed for text in rows.seeds for seed in text.split()})
    names = {"cifar10": "CIFAR-10", "fontdigits": "FontDigits"}
    parts = [
        f"{'/'.join(names.get(name, name) for name in rows.dataset.unique())}, scale {'/'.join(rows.scale.unique())}"
    ]
    draws = rows.draw.nunique() if "draw" in rows else 0
    for counts, name in (([rows.n_images.max()], "image"), (sorted(set(rows.n_keys)), "key"), ([draws], "draw")):
        counted = [f"{count:,}" for count in counts if count]
        parts += [f"{' or '.join(counted)} {name}{'' if counted == ['1'] else 's'}"] if counted else []
    return ", ".join([*parts, f"seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}"])


def claim(paths: Sequence[tuple], classes: Sequence[str]) -> "Figure":
    """The book's claim in one picture: one row for each way of an image through a model.

    Args:
        paths: tuples of (name, image (3, H, W) uint8, filters W (N, 3, p, p), probabilities (classes,)). Of the
            filters, those twelve are shown that are largest in the first row. Predictions that agree with the first
            row's are drawn in green, others in red and hatched.
        classes: the names of the classes.
    """
    chosen = paths[0][2].detach().flatten(1).norm(dim=1).argsort(descending=True)[:12].cpu()
    first = int(np.asarray(paths[0][3]).argmax())
    figure, axes = subplots(
        len(paths), 3, figsize=(8, 1.5 * len(paths) + 0.3), squeeze=False, gridspec_kw={"width_ratios": [1, 2.2, 2]}
    )
    titles = "image", "filters of the first layer", "predicted probability, %"
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title)
    for row, (name, image, weight, probabilities) in zip(axes, paths, strict=True):
        for axis, picture in zip(row, (np.moveaxis(np.asarray(image), 0, -1), _mosaic(weight[chosen])), strict=False):
            axis.imshow(picture)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", labelpad=8)
        percent = 100 * np.asarray(probabilities, float)
        best = int(percent.argmax())
        bars = row[2].bar(range(len(classes)), percent, color="#BBBBBB")
        bars[best].set(color=GREEN) if best == first else bars[best].set(facecolor=RED, hatch="///", edgecolor="white")
        row[2].bar_label(bars, [f"{classes[i]}: {percent[i]:.0f} %" if i == best else "" for i in range(len(classes))])
        row[2].set(ylim=(0, 122), yticks=[0, 50, 100])
        row[2].set_xticks(range(len(classes)), classes, rotation=0 if max(map(len, classes)) < 3 else 60)
    return figure


def _mosaic(weight, columns=6, gap=1):
    """Filters (N, 3, p, p) side by side in one picture, each scaled by itself as in ``filters``."""
    w = np.asarray(weight.detach().cpu().double())
    w = 0.5 + 0.5 * w / np.abs(w).max((1, 2, 3), keepdims=True)
    n, _, p, _ = w.shape
    step = p + gap
    picture = np.ones((-(-n // columns) * step - gap, columns * step - gap, 3))
    for i, one in enumerate(w):
        top, left = i // columns * step, i % columns * step
        picture[top : top + p, left : left + p] = np.moveaxis(one, 0, -1)
    return picture


def draw_claim(folder: Path | None = None) -> list[Path]:
    """Draw ``claim`` from the model and data of the quick scale, and save it as claim.png and claim.svg."""
    from ..learn.data import load_dataset
    from ..learn.evaluate import logits
    from ..lock.keys import SecretKey
    from ..lock.model import encrypt_model, find_embedding
    from ..lock.patch import PatchCipher
    from ..study.scales import trained_model

    data, (model, _) = load_dataset("fontdigits"), trained_model("quick")
    norm = data.norm
    plain_filters = find_embedding(model)[1].weight
    cipher = PatchCipher(SecretKey.for_experiment(0), plain_filters.shape[-1])
    encrypted_model = encrypt_model(model, cipher, **norm)
    filters_now = find_embedding(encrypted_model)[1].weight
    images, labels = data.test_images[:100], data.test_labels[:100]
    encrypted_images = cipher.encrypt(images)
    ways = (
        ("plain image,\nplain model", images, model, plain_filters),
        ("encrypted image,\nencrypted model", encrypted_images, encrypted_model, filters_now),
        ("plain image,\nencrypted model\n(no key)", images, encrypted_model, filters_now),
    )
    found = [logits(net, pictures, **norm).softmax(1) for _, pictures, net, _ in ways]
    # Where the plain model is right and, without the key, the encrypted one wrong: the image that is clearest to it.
    usual = (found[0].argmax(1) == labels) & (found[2].argmax(1) != labels)
    i = int((usual * found[0].amax(1)).argmax())
    with mpl.rc_context(STYLE):
        figure = claim(
            [(name, pictures[i], weight, p[i]) for (name, pictures, _, weight), p in zip(ways, found, strict=True)],
            data.classes,
        )
        paths = save(figure, "claim", folder or checkout() / "figures")
        close(figure)
    return paths
