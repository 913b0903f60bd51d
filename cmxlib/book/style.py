"""The one look of every plot, and how a plot is saved.

Colours are Okabe and Ito's, told apart by colour-blind readers; where colour carries meaning, markers, hatches or
labels carry it too, so that a figure reads in grey.
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np

from ..paths import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#666666"
STEP_COLOURS = {"shuffle": BLUE, "flip": ORANGE, "shuffle+flip": GREEN, "orthogonal": RED}
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


def subplots(*args: Any, **options: Any) -> Any:
    """`pyplot.subplots`, which is imported when the first figure is drawn: its import takes half a second."""
    import matplotlib.pyplot as plt

    return plt.subplots(*args, **options)


def close(figure: "Figure") -> None:
    """Let go of a figure that has been saved."""
    import matplotlib.pyplot as plt

    plt.close(figure)


def use_style() -> None:
    """Set the book's look for every figure that follows."""
    mpl.rcParams.update(STYLE)


def save(figure: "Figure", name: str, folder: Path) -> list[Path]:
    """Save a figure as ``name``.png and ``name``.svg in a folder, each at one stroke."""
    with mpl.rc_context(STYLE):
        _settle(figure)
        paths = []
        for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            file = io.BytesIO()
            figure.savefig(file, format=kind, dpi=150, metadata=metadata)
            paths.append(Path(folder) / f"{name}.{kind}")
            write_bytes(paths[-1], file.getvalue())
    return paths


def _settle(figure):
    """Lay the figure out for good. The solver's last digits differ from time to time, and SVG ids follow from them."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axis in figure.axes:
        axis.set_position(np.round(axis.get_position(original=True).bounds, 6))
