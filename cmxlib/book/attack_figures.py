"""Plots of the recorded attacks, from rows; `figures.draw_recorded` saves them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..lock import checks
from .style import BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY, STEPS, Looks, curves, guide, marks, subplots
from .summaries import ATTACKERS, adversarial_table, check_rows, equal_budgets, of_measure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

SIZES: Looks = {
    f"{size} × {size}{more}": (colour, marker, line)
    for size, colour, marker in ((2, SKY, "o"), (4, BLUE, "s"), (8, "black", "D"))
    for more, line in (("", "-"), (", orthogonal", "--"))
}
PUBLIC: Looks = {  # the attacker's public images
    "same data set": (GREEN, "^", "-"),
    "other classes": (BLUE, "o", "-"),
    "100 images": (SKY, "v", "-"),
    "photos": (ORANGE, "s", "-"),
    "FontDigits": (RED, "D", "-"),
}
THEFTS = {  # what is done with a stolen model: in words, and how it is drawn
    "everything": ("fine-tune everything", BLUE, "o", "-"),
    "embedding anew": ("learn the embedding anew", GREEN, "^", "-"),
    "embedding": ("fine-tune the embedding", GREEN, "v", ":"),
    "embedding, then everything": ("the embedding anew, then everything", "black", "D", "-"),
    "statistics": ("key from statistics, no labels", PINK, "P", "-"),
    "statistics, gradient": ("flips from statistics, places by gradient", PINK, "*", ":"),
    "gradient": ("key by gradient search", ORANGE, "s", "-"),
    "hill climbing": ("key by hill climbing", RED, "D", "-"),
    "random keys": ("best of random keys", SKY, "v", "-"),
    "filters": ("key from the filters", RED, "X", "-"),
    "from nothing": ("a new network, no theft", GREY, "o", "--"),
}
REPAIRS: Looks = {
    "new key for each image": (GREEN, "^", "-"),
    "key by position": (BLUE, "o", "-"),
    "flips of single bits": (ORANGE, "s", "-"),
    "single bits": (RED, "D", "-"),
}


def attacks(rows: pd.DataFrame, *, patch_size: int = 4) -> Figure:
    """Share of the key that an attacker finds from encrypted images alone, from rows of the table `attack_images`.

    By steps, by block size, and by the attacker's public images, all but the second for blocks of ``patch_size``; mean
    over draws, and twice its standard error as a band.
    """
    checks.whole(patch_size, "patch_size", 1)
    rows = of_measure(rows, "share_recovered", "public", "neighbours", "patch_size", "steps", "n_encrypted")
    rows = rows[rows.neighbours.astype(bool)]
    near, at = rows[rows.public == "same data set"], rows[rows.patch_size == patch_size]
    more = near.steps.map({"shuffle+flip": "", "orthogonal": ", orthogonal"})  # of other steps: no name
    sizes, pair = near.patch_size.astype(str), at[at.steps == "shuffle+flip"].replace("fontdigits", "FontDigits")
    near = near.assign(size=sizes + " × " + sizes + more)
    figure, [axes] = subplots(1, 3, figsize=(11, 4), sharey=True)
    for axis, part, by, looks, title in (
        (axes[0], near[near.patch_size == patch_size], "steps", STEPS, f"by steps, blocks of {patch_size}"),
        (axes[1], near, "size", SIZES, "by block size, shuffle+flip (dashed: orthogonal)"),
        (axes[2], pair, "public", PUBLIC, f"by public images, shuffle+flip, blocks of {patch_size}"),
    ):
        axis.set_xscale("log")
        curves(axis, part, "n_encrypted", by, looks, errorbar=("se", 2))  # the ranges of so many would hide one another
        axis.set(title=title, xlabel="encrypted images seen", ylim=(-4, 104))
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2, fontsize="small")
    axes[0].set_ylabel("share of the key found, %")
    return figure


def visibility(rows: pd.DataFrame) -> Figure:
    """How alike images and encrypted images are, by block size and steps, from rows of the table `visibility`."""
    check_rows(rows, "measure", "value", "patch_size", "steps")
    measures = {"ssim": "SSIM", "psnr": "PSNR, dB", "contrast_correlation": "correlation of contrasts"}
    figure, [axes] = subplots(1, len(measures), figsize=(10, 3.2), sharex=True)
    for axis, (measure, label) in zip(axes, measures.items(), strict=True):
        part = rows[rows.measure == measure].astype({"patch_size": int})
        marks(axis, part, "patch_size", "steps", STEPS, dodge=0.48, legend=axis is axes[0])
        if measure != "psnr":
            axis.axhline(0, color=GREY, linewidth=0.8)
        axis.set(ylabel=label, xlabel="block size")
    axes[0].legend(fontsize="small")
    return figure


def stolen_model(rows: pd.DataFrame) -> Figure:
    """What a thief gets out of an encrypted model, from rows of the table `stolen_model`.

    Accuracy against the number of plain images, with the budget that a method had at every number; and against the
    seconds of one attack, where several budgets were measured. Mean and range over draws; dotted: the encrypted model
    as it is, without a key.
    """
    shown = of_measure(rows, "accuracy", "method", "n_plain", "budget")
    budgets = shown[shown.method.isin(THEFTS)].groupby("n_plain").budget.nunique()
    count = budgets.idxmax() if len(budgets) else 0
    spent = rows[rows.measure == "attack_seconds"].groupby(["method", "n_plain", "budget"]).value.mean().rename("spent")
    several = shown[shown.n_plain == count].join(spent, on=["method", "n_plain", "budget"])
    several = several[several.groupby("method").budget.transform("nunique") > 1]
    words, looks = {name: way[0] for name, way in THEFTS.items()}, {way[0]: way[1:] for way in THEFTS.values()}
    figure, [axes] = subplots(1, 2, figsize=(10, 4), sharey=True)
    no_key = 100 * shown[shown.method == "no key"].value.mean()
    for axis, part, x in ((axes[0], equal_budgets(shown), "n_plain"), (axes[1], several, "spent")):
        axis.set_xscale("log")
        curves(axis, part.assign(method=part.method.map(words)), x, "method", looks)
        axis.axhline(no_key, color=GREY, linestyle=":")
    axes[0].annotate("no key", (0, no_key), (4, -3), ("axes fraction", "data"), "offset points", va="top")
    axes[0].set(xlabel="plain images that the thief holds", ylabel="accuracy, %", ylim=(0, 100))
    axes[1].set(xlabel="seconds of the attack", title=f"{count:,} plain images")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize="small")
    return figure


def adversarial(rows: pd.DataFrame, *, patch_size: int = 4, eps: int = 8) -> Figure:
    """Accuracy of the victim on adversarial examples, by who encrypts and what their maker has, from the table's rows.

    By steps of the cipher, the strongest attack of each; mean over keys with the 95 % interval over images. Dashed: on
    unchanged images; dotted: guessing; crosses: random noise.
    """
    check_rows(rows, "patch_size", "eps")
    checks.whole(patch_size, "patch_size", 1)
    checks.whole(eps, "eps", 0)
    table = adversarial_table(rows[(rows.patch_size == patch_size) & rows.eps.isin([0, eps])])
    known = [names for names in ATTACKERS if names in set(zip(table.setting, table.knowledge, strict=True))]
    figure, [[axis]] = subplots(figsize=(10, 1.3 + 0.45 * len(known)))
    made = table[~table.attack.isin(["none", "noise"])].sort_values("accuracy")
    made = made.drop_duplicates(["setting", "knowledge", "steps"])
    looks = {**STEPS, "none": (GREY, "o", "-")}
    shifts = dict(zip((steps for steps in looks if steps in set(made.steps)), (0, -0.15, 0, 0.15), strict=False))
    for steps in reversed(looks):
        part = made[made.steps == steps]
        places = [known.index(names) for names in zip(part.setting, part.knowledge, strict=True)]
        ends = np.abs(part[["low", "high"]].to_numpy().T - part.accuracy.to_numpy())
        look = {"color": looks[steps][0], "marker": looks[steps][1], "linestyle": "", "capsize": 3}
        if len(part):
            shifted = np.array(places) + shifts[steps]
            axis.errorbar(part.accuracy, shifted, xerr=ends, label=steps.replace("none", "no encryption"), **look)
    noise = table[table.attack == "noise"]
    axis.plot(noise.accuracy, [0] * len(noise), "x", color=GREY, label="random noise")
    guide(axis, table[table.attack == "none"].accuracy.mean(), line="--")
    guide(axis, 10)
    axis.set_yticks(range(len(known)), [ATTACKERS[names] for names in known])
    axis.set(xlabel=f"accuracy, %, changes of up to {eps} grey levels", xlim=(-2, 102), ylim=(len(known) - 0.5, -0.5))
    axis.set_title("who encrypts: what the attacker has", loc="right", x=-0.02)
    axis.legend(
        loc="upper right", bbox_to_anchor=(1, -0.16), ncols=5, fontsize="small", columnspacing=1, handletextpad=0.3
    )
    return figure


def repairs(rows: pd.DataFrame) -> Figure:
    """What attackers find under the repairs, by number of encrypted images, from rows of the table `repairs`.

    Left: encrypted images alone; right: with the encrypted model too. Above: share of the key; below: SSIM of what
    decryption with the estimate shows. Mean over draws, and twice its standard error as a band.
    """
    check_rows(rows, "measure", "value", "attack", "seen", "repair")
    figure, axes = subplots(2, 2, figsize=(9, 5.4), sharex=True, sharey="row")
    for column, attack in zip(axes.T, ("ciphertext only", "ciphertext and model"), strict=True):
        for axis, measure in zip(column, ("share_recovered", "ssim"), strict=True):
            axis.set_xscale("log")
            part = rows[(rows.attack == attack) & (rows.measure == measure)]
            curves(axis, part, "seen", "repair", REPAIRS, errorbar=("se", 2))
            for line in axis.lines:  # where lines lie on one another, each can still be seen
                size = 13 - 3 * list(REPAIRS).index(line.get_label())
                line.set(markersize=size, linewidth=size / 3)
        column[-1].set_xlabel("encrypted images seen")
    axes[0, 0].set(title="encrypted images alone", ylabel="share of the key found, %", ylim=(-4, 104))
    axes[0, 1].set_title("with the encrypted network")
    axes[1, 0].set(ylabel="SSIM of decrypted images × 100", ylim=(None, 104))
    axes[0, 0].legend(*axes[0, 1].get_legend_handles_labels(), loc="upper left", fontsize="small")
    return figure


RECORDED = {
    "attack_images": attacks,
    "visibility": visibility,
    "stolen_model": stolen_model,
    "adversarial": adversarial,
    "repairs": repairs,
}
