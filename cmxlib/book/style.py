"""The one look of every plot: its colours, the curves and rows of points that several plots share, and the saving.

Colours are Okabe and Ito's, told apart by colour-blind readers; where colour carries meaning, markers, hatches or
labels carry it too, so that a figure reads in grey. pyplot and seaborn take a second to import, and are when they draw.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np

from ..paths import write_bytes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#666666"
SKY, PINK = "#56B4E9", "#CC79A7"
Looks = Mapping[str, tuple[str, str, str]]  # what a name is drawn with: colour, marker, line
STEPS: Looks = {
    "shuffle": (BLUE, "o", "-"),
    "flip": (ORANGE, "s", "-"),
    "shuffle+flip": (GREEN, "^", "-"),
    "orthogonal": (RED, "D", "-"),
}
STYLE = {
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": "medium",
    "legend.frameon": False,
    "image.interpolation": "nearest",
    "svg.hashsalt": "cmxlib",  # the same rows give the same file
    "svg.fonttype": "none",
}


def use_style() -> None:
    """Set the book's look for every figure that follows."""
    mpl.rcParams.update(STYLE)


def subplots(*args: int, **options: Any) -> tuple[Figure, np.ndarray]:
    """`pyplot.subplots`, but always with an array (rows, columns) of axes."""
    import matplotlib.pyplot as plt

    return plt.subplots(*args, squeeze=False, **options)


def curves(axis: Axes, rows: pd.DataFrame, x: str, by: str, looks: Looks, **options: Any) -> None:
    """Mean of the rows' values in per cent against the column ``x``, their range as a band: a curve for each name in
    ``by`` that has a look, in the looks' order. Further options go to `seaborn.lineplot`."""
    import seaborn

    rows = rows[np.isfinite(rows.value) & rows[x].notna()]  # seaborn draws no others
    names, before = [name for name in looks if name in set(rows[by])], len(axis.lines)
    if not names:
        return
    colours, markers, lines = ({name: looks[name][part] for name in names} for part in range(3))
    dashes = {name: {"--": (4, 1.5), ":": (1, 1.5)}.get(line, "") for name, line in lines.items()}
    looked = {"hue_order": names, "style_order": names, "palette": colours, "markers": markers, "dashes": dashes}
    band: dict[str, Any] = {"err_kws": {"alpha": 0.12, "linewidth": 0}}
    options = {"errorbar": ("pi", 100), **options}
    rows = rows.assign(value=100 * rows.value)
    plain = {"legend": False, "markeredgewidth": 0}
    seaborn.lineplot(rows, x=x, y="value", hue=by, style=by, ax=axis, **looked, **band, **plain, **options)
    for line, name in zip(axis.lines[before:], names, strict=True):
        line.set_label(name)
    axis.set(xlabel="", ylabel="")


def marks(axis: Axes, rows: pd.DataFrame, x: str, by: str, looks: Looks, dodge: float, legend: bool = True) -> None:
    """Mean of the rows' values at each ``x``, a mark beside another for each name in ``by``, their range as a bar.
    dodge: from the first to the last of those beside one another, where the next x is 1 away."""
    import seaborn

    names = [name for name in looks if name in set(rows[by])]
    if not names:
        return
    colours, markers, _ = zip(*(looks[name] for name in names), strict=True)
    looked = {"hue_order": names, "palette": colours, "markers": list(markers), "markersize": 6, "linestyle": "none"}
    bar: dict[str, Any] = {"errorbar": ("pi", 100), "err_kws": {"linewidth": 1.5}, "capsize": 0.1}
    apart = {"dodge": len(names) > 1 and dodge}  # seaborn divides by the number of gaps
    seaborn.pointplot(rows, x=x, y="value", hue=by, ax=axis, legend=legend, **looked, **bar, **apart)
    axis.set(xlabel="", ylabel="")


def points(
    axis: Axes, rows: pd.DataFrame, x: str, y: str, colours: Mapping[str, str], middle: str, scale: str | None = None
) -> None:
    """Every row as a point at its ``x``, in the line of its name in ``y``, with a bar at their mean or median."""
    import seaborn.objects as so

    dots = so.Dot(pointsize=3, alpha=0.6, edgewidth=0)
    plot = so.Plot(rows.reset_index(drop=True), x=x, y=y)  # seaborn takes no index in which a row stands twice
    plot = plot.add(dots, so.Jitter(0.4, seed=0), color=y, legend=False)
    plot = plot.add(so.Dash(color="black", linewidth=1.5, width=0.6), so.Agg(middle), orient="y", legend=False)
    plot.scale(x=scale or so.Continuous(), y=so.Nominal(order=list(colours)), color=colours).on(axis).plot()
    axis.set(ylabel="", ylim=(len(colours) - 0.5, -0.6))


def beside(axis: Axes, words: Sequence[str]) -> None:
    """Words at the right of each line of a plot, outside it, where no point and no guide can be."""
    for place, text in enumerate(words):
        axis.annotate(text, (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize="small")


def guide(axis: Axes, value: float, words: str = "", line: str = ":", ha: str = "left") -> None:
    """A vertical line at a value in per cent; its words stand beside its upper end."""
    axis.axvline(value, color=GREY, linestyle=line, zorder=0)
    shift = 4 if ha == "left" else -4
    at = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
    axis.annotate(words, (value, 1), (shift, 0), ha=ha, va="top", color=GREY, **at)


def save(figure: Figure, name: str, folder: Path | str) -> list[Path]:
    """Save a figure as ``name``.png and ``name``.svg in a folder, each at one stroke, and close it."""
    import matplotlib.pyplot as plt

    paths = []
    with mpl.rc_context(STYLE):
        # Lay it out for good: the solver's last digits differ from time to time, and SVG ids follow from them.
        figure.set_dpi(150)  # as it will be saved: the widths of words depend on it
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for axis in figure.axes:
            axis.set_position(np.round(axis.get_position(original=True).bounds, 6))
        for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            file = io.BytesIO()
            figure.savefig(file, format=kind, dpi=150, metadata=metadata)
            paths.append(Path(folder) / f"{name}.{kind}")
            write_bytes(paths[-1], file.getvalue())
    plt.close(figure)
    return paths
