"""Plots of the recorded attacks, from rows; `figures.draw_recorded` saves them."""

from typing import TYPE_CHECKING

import numpy as np

from .style import BLUE, GREEN, GREY, ORANGE, RED, STEP_COLOURS, subplots
from .summaries import KNOWLEDGE, equal_budgets, wilson

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

STEP_MARKERS = {"shuffle": "o", "flip": "s", "shuffle+flip": "^", "orthogonal": "D"}
SKY, PINK = "#56B4E9", "#CC79A7"
PUBLIC = {  # the attacker's public images: colour and marker
    "same data set": (GREEN, "^"),
    "other classes": (BLUE, "o"),
    "100 images": (SKY, "v"),
    "photos": (ORANGE, "s"),
    "fontdigits": (RED, "D"),
}
THEFTS = {  # what is done with a stolen model: label, colour, marker, line
    "everything": ("fine-tune everything", BLUE, "o", "-"),
    "embedding anew": ("learn the embedding anew", GREEN, "^", "-"),
    "embedding": ("fine-tune the embedding", GREEN, "v", ":"),
    "embedding, then everything": ("the embedding anew, then everything", "black", "D", "-"),
    "statistics": ("key from statistics, no labels", PINK, "P", "-"),
    "statistics, gradient": ("flips from statistics, places by gradient", PINK, "*", ":"),
    "gradient": ("key by gradient search", ORANGE, "s", "-"),
    "hill climbing": ("key by hill climbing", RED, "D", "-"),
    "random keys": ("best of random keys", SKY, "v", "-"),
    "filters": ("key from the filters", RED, "x", ""),
    "from nothing": ("a new model, no theft", GREY, "o", "--"),
}


def attacks(rows: "pd.DataFrame", patch_size: int = 4) -> "Figure":
    """Share of the key that an attacker finds from encrypted images alone, from rows of the table `attack_images`.

    By steps, by patch size (dashed: orthogonal), and by the attacker's public images; mean and range over draws.
    patch_size: of the network, for the panels at the left and at the right.
    """
    rows = rows[(rows.measure == "share_recovered") & rows.neighbours]
    near = rows[rows.public == "same data set"]
    figure, (left, middle, right) = subplots(1, 3, figsize=(11, 3.6), sharey=True)
    for steps, colour in STEP_COLOURS.items():
        part = near[(near.steps == steps) & (near.patch_size == patch_size)]
        _curve(left, part, "n_encrypted", colour, STEP_MARKERS[steps], steps)
    for size, colour, marker in zip(sorted(near.patch_size.unique()), (SKY, BLUE, "black"), "osD", strict=False):
        for steps, line in (("shuffle+flip", "-"), ("orthogonal", "--")):
            part = near[(near.steps == steps) & (near.patch_size == size)]
            label = f"{size} × {size}" if line == "-" else None
            _curve(middle, part, "n_encrypted", colour, marker, label, line)
    for public, (colour, marker) in PUBLIC.items():
        part = rows[(rows.public == public) & (rows.steps == "shuffle+flip") & (rows.patch_size == patch_size)]
        _curve(right, part, "n_encrypted", colour, marker, public)
    left.set(title=f"by steps, patches of {patch_size}", ylabel="share of the key found, %", ylim=(-4, 104))
    middle.set_title("by patch size (dashed: orthogonal)")
    right.set_title(f"by public images, shuffle+flip, patches of {patch_size}")
    for axis in (left, middle, right):
        axis.set(xscale="log", xlabel="encrypted images seen")
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2, fontsize="small")
    return figure


def visibility(rows: "pd.DataFrame") -> "Figure":
    """How alike images and encrypted images are, by patch size and steps, from rows of the table `visibility`."""
    measures = {"ssim": "SSIM", "psnr": "PSNR, dB", "contrast_correlation": "correlation of contrasts"}
    sizes = sorted(rows.patch_size.unique())
    figure, axes = subplots(1, len(measures), figsize=(10, 3.2))
    for axis, (measure, label) in zip(axes, measures.items(), strict=True):
        for shift, (steps, colour) in zip((-0.24, -0.08, 0.08, 0.24), STEP_COLOURS.items(), strict=True):
            part = rows[(rows.measure == measure) & (rows.steps == steps)].set_index("patch_size").value
            axis.plot(
                np.arange(len(sizes)) + shift,
                part.reindex(sizes),
                color=colour,
                marker=STEP_MARKERS[steps],
                linestyle="",
                markersize=7,
                label=steps,
            )
        if measure != "psnr":
            axis.axhline(0, color=GREY, linewidth=0.8)
        axis.set_xticks(range(len(sizes)), [f"{size} × {size}" for size in sizes])
        axis.set(ylabel=label, xlabel="patch")
    axes[0].legend(fontsize="small")
    return figure


def stolen_model(rows: "pd.DataFrame") -> "Figure":
    """What a thief gets out of an encrypted model, from rows of the table `stolen_model`.

    Accuracy against the number of plain images, with the budget that a method had at every number; and against the
    seconds of one attack, where several budgets were measured. Mean and range over draws; dotted: the encrypted model
    as it is, without a key.
    """
    shown = rows[rows.measure == "accuracy"]
    seconds = rows[rows.measure == "attack_seconds"]
    figure, (left, right) = subplots(1, 2, figsize=(10, 4), sharey=True)
    for method, (label, colour, marker, line) in THEFTS.items():
        part = shown[shown.method == method]
        if part.empty:
            continue
        full = equal_budgets(part)
        _curve(left, full, "n_plain", colour, marker, label, line)
        n_budgets = part.groupby("n_plain").budget.nunique()
        if len(n_budgets) and n_budgets.max() > 1:
            count = n_budgets.idxmax()
            spent = seconds[(seconds.method == method) & (seconds.n_plain == count)].groupby("budget").value.mean()
            part = part[part.n_plain == count]
            _curve(right, part.assign(seconds=part.budget.map(spent)), "seconds", colour, marker, None, line)
            right.set_title(f"{count:,} plain images")
    no_key = 100 * shown[shown.method == "no key"].value.mean()
    for axis in (left, right):
        axis.axhline(no_key, color=GREY, linestyle=":")
        axis.set(xscale="log")
    left.annotate("no key", (0, no_key), (4, -3), ("axes fraction", "data"), "offset points", va="top")
    left.set(xlabel="plain images that the thief holds", ylabel="accuracy, %", ylim=(0, 100))
    right.set(xlabel="seconds of the attack")
    figure.legend(loc="outside right center", fontsize="small")
    return figure


def adversarial(rows: "pd.DataFrame") -> "Figure":
    """Accuracy of the encrypted pipeline on adversarial examples, by what their maker knows, from rows `adversarial`.

    With 95 % intervals over images; dashed: on unchanged images, dotted: guessing.
    """
    rows = rows[(rows.measure == "accuracy") & (rows.pipeline == "encrypted")]
    known = [name for name in KNOWLEDGE if name in set(rows.knowledge)]
    figure, axis = subplots(figsize=(9, 0.9 + 0.45 * len(known)))
    for attack, label, colour, marker, shift in (
        ("noise", "random noise", GREY, "x", 0),
        ("pgd", "PGD (gradients)", BLUE, "o", -0.13),
        ("square", "Square (answers)", ORANGE, "s", 0.13),
    ):
        part = rows[rows.attack == attack].groupby("knowledge", sort=False).agg({"value": "mean", "n_attacked": "min"})
        ends = np.array([wilson(*row) for row in part.itertuples(index=False)]).T
        places = [known.index(name) + shift for name in part.index]
        spread = np.abs(ends - part.value.to_numpy()) * 100
        axis.errorbar(
            100 * part.value, places, xerr=spread, color=colour, marker=marker, linestyle="", capsize=3, label=label
        )
    axis.axvline(100 * rows[rows.attack == "none"].value.mean(), color=GREY, linestyle="--")
    axis.axvline(10, color=GREY, linestyle=":")
    axis.set_yticks(range(len(known)), [KNOWLEDGE[name] for name in known])
    axis.set(xlabel="accuracy of the encrypted pipeline, %", xlim=(-2, 102), ylim=(len(known) - 0.5, -0.5))
    axis.set_title("what the attacker has", loc="right", x=-0.02)
    axis.legend(loc="lower right", fontsize="small")
    return figure


def repairs(rows: "pd.DataFrame") -> "Figure":
    """What attackers find under the repairs, by number of encrypted images, from rows of the table `repairs`.

    Left: encrypted images alone; right: with the encrypted model too. Above: share of the key; below: SSIM of what
    decryption with the estimate shows. Mean and range over draws.
    """
    styles = {  # colour, marker and its size: where lines lie on one another, each can still be seen
        "new key for each image": (GREEN, "^", 13),
        "key by position": (BLUE, "o", 10),
        "flips of single bits": (ORANGE, "s", 7),
        "single bits": (RED, "D", 4),
    }
    figure, axes = subplots(2, 2, figsize=(9, 5.4), sharex=True, sharey="row")
    for column, attack in zip(axes.T, ("ciphertext only", "ciphertext and model"), strict=True):
        for axis, measure in zip(column, ("share_recovered", "ssim"), strict=True):
            for repair, (colour, marker, size) in styles.items():
                part = rows[(rows.attack == attack) & (rows.measure == measure) & (rows.repair == repair)]
                if len(part):
                    _curve(axis, part, "seen", colour, marker, repair)
                    axis.lines[-1].set(markersize=size, linewidth=size / 3)
            axis.set(xscale="log")
        column[-1].set_xlabel("encrypted images seen")
    axes[0, 0].set(title="encrypted images alone", ylabel="share of the key found, %", ylim=(-4, 104))
    axes[0, 1].set_title("with the encrypted model")
    axes[1, 0].set_ylabel("SSIM of decrypted images × 100")
    axes[1, 1].legend(loc="lower right", fontsize="small")
    return figure


RECORDED = {
    "attack_images": attacks,
    "visibility": visibility,
    "stolen_model": stolen_model,
    "adversarial": adversarial,
    "repairs": repairs,
}


def _curve(axis, rows, by, colour, marker, label, line="-"):
    """Mean of the rows' values in per cent against a column, with the range over draws as a band."""
    groups = 100 * rows.groupby(by).value.agg(["mean", "min", "max"])
    axis.fill_between(groups.index, groups["min"], groups["max"], color=colour, alpha=0.1, linewidth=0)
    axis.plot(groups.index, groups["mean"], line or "None", color=colour, marker=marker, markersize=5, label=label)
