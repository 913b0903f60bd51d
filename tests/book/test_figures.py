"""Figures say what their rows say: what the eye would check, checked in the artists and pixels."""

import inspect

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cmxlib.book import chapters, claims, figures, readme
from cmxlib.book.figures import draw_recorded
from cmxlib.study import records
from cmxlib.study.tables import TABLES

mpl.use("Agg")


@pytest.fixture(autouse=True)
def closed():
    yield
    mpl.pyplot.close("all")


def ways(*best, n_filters=16):
    """Ways of an image for `claim`: all alike but for the class that is predicted."""
    image, weight = torch.zeros(3, 8, 8, dtype=torch.uint8), torch.arange(n_filters * 48.0).view(n_filters, 3, 4, 4)
    return [(f"way {c}", image, weight, torch.eye(4)[c]) for c in best]


def test_the_claim_marks_which_predictions_agree():
    figure = figures.claim(ways(2, 2, 1), tuple("abcd"))
    bars = [figure.axes[column].patches for column in (2, 5, 8)]
    marks = [
        (mpl.colors.to_hex(row[c].get_facecolor()).upper(), row[c].get_hatch())
        for row, c in zip(bars, (2, 2, 1), strict=True)
    ]
    assert marks == [(figures.BLUE, None), (figures.BLUE, None), (figures.ORANGE, "///")]
    labels = [[text.get_text() for text in figure.axes[column].texts if text.get_text()] for column in (2, 5, 8)]
    assert labels == [["c: 100 %"], ["c: 100 %"], ["b: 100 %"]]


def test_the_claim_shows_the_same_filters_in_every_row():
    paths = ways(0, 0)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    paths[1] = (*paths[1][:2], paths[1][2] * torch.linspace(2, -2, 16).view(-1, 1, 1, 1)[order], paths[1][3])
    figure = figures.claim(paths, tuple("abcd"))
    chosen = paths[0][2].flatten(1).norm(dim=1).argsort(descending=True)[:12]
    for axis, (_, _, weight, _) in zip((figure.axes[1], figure.axes[4]), paths, strict=True):
        shown = axis.images[0].get_array()
        one = np.moveaxis(weight[chosen[0]].numpy(), 0, -1)
        assert np.allclose(shown[:4, :4], 0.5 + 0.5 * one / np.abs(one).max())
        assert (shown[4] == 1).all() and (shown[:, 4] == 1).all()  # the gap between filters


def test_saved_figures_are_the_same_files_each_time(tmp_path):
    files = [figures.save(figures.claim(ways(1, 0), tuple("abcd")), "claim", tmp_path / name) for name in "ab"]
    assert [path.name for path in files[0]] == ["claim.png", "claim.svg"]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]
    assert len(list((tmp_path / "a").iterdir())) == 2


def test_wrong_keys_stand_by_their_steps_beside_their_mean():
    rows = [("correct key", "shuffle", 0.9), ("wrong key", "shuffle", 0.2), ("wrong key", "shuffle", 0.4)]
    rows = pd.DataFrame([*rows, ("wrong key", "flip", 0.1)], columns=["case", "steps", "value"])
    axis = figures.wrong_keys(rows.assign(measure="accuracy", patch_size=4)).axes[0]
    points, bars = axis.collections
    assert np.allclose(points.get_offsets()[:, 0], [20, 40, 10])
    assert points.get_offsets()[:, 1].round().tolist() == [0, 0, 1]
    assert np.allclose([path.vertices.mean(0) for path in bars.get_paths()], [[30, 0], [10, 1]])
    words = {text.get_text(): text.xy[0] for text in axis.texts}
    assert words["correct key"] == 90 and words["guessing"] == 10
    assert words["mean 30.0 %, n = 2"] == words["mean 10.0 %, n = 1"] == 1.01  # beside the panel, where no line is


def test_a_study_that_stopped_on_the_way_is_drawn_as_far_as_it_came():
    rows = [("correct key", "shuffle", 0.9), ("wrong key", "shuffle", 0.2), ("correct key", "flip", 0.9)]
    rows = pd.DataFrame(rows, columns=["case", "steps", "value"]).assign(measure="accuracy", patch_size=4)
    words = [text.get_text() for text in figures.wrong_keys(rows).axes[0].texts]
    assert "mean 20.0 %, n = 1" in words and not any("nan" in text for text in words)
    for table in ("stolen_model", "attack_images", "repairs", "blocks", "anatomy", "visibility"):
        assert figures.RECORDED[table](records.read("small", table).head(3)).axes


def conventional_rows():
    rows = [("plain", 0, "plain", 0.9), ("LE", 0, "correct key", 0.85), ("LE", 0, "no key", 0.2)]
    rows += [("LE", 0, "wrong key", 0.1), ("LE", 0, "wrong key", 0.3)]
    return pd.DataFrame(rows, columns=["method", "seed", "case", "value"]).assign(measure="accuracy")


def test_conventional_methods_stand_where_their_rows_say():
    axis = figures.conventional(conventional_rows()).axes[0]
    points = {line.get_label(): line.get_xydata() for line in axis.lines}
    assert points["plain"].tolist() == [[90, 0]]
    assert points["correct key"].tolist() == [[85, 1]]
    assert points["no key"][:, 0].tolist() == [20] and points["wrong key"][:, 0].tolist() == [10, 30]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["plain", "LE"]
    assert "5.00 points, n = 1" in [text.get_text() for text in axis.texts]


def test_cost_shows_every_trial_and_the_median():
    rows = pd.DataFrame({"case": ["a"] * 3 + ["b"], "value": [1.0, 3.0, 2.0, 0.001], "measure": "seconds"})
    axis = figures.cost(rows).axes[0]
    points, bars = axis.collections
    assert np.allclose(points.get_offsets()[:, 0], [1, 3, 2, 0.001])
    assert points.get_offsets()[:, 1].round().tolist() == [0, 0, 0, 1]  # scattered within its line
    assert np.allclose([path.vertices.mean(0) for path in bars.get_paths()], [[2, 0], [0.001, 1]])
    assert [text.get_text() for text in axis.texts] == ["2 s", "1 ms"]
    left, middle, right = axis.transData.transform([(0.01, 0), (0.1, 0), (1, 0)])[:, 0]
    assert middle - left == pytest.approx(right - middle)  # a logarithmic axis


def test_a_figure_says_what_it_was_measured_over():
    origin = {
        "dataset": "cifar10",
        "scale": "small",
        "n_images": [10000, 2000],
        "n_keys": [0, 5],
        "seeds": ["0", "0 1"],
    }
    assert (
        figures.measured_over(pd.DataFrame(origin))
        == "CIFAR-10, scale small, 2,000 to 10,000 images, 5 keys, seeds 0, 1"
    )
    several = pd.DataFrame(origin | {"n_keys": [30, 200]})
    assert figures.measured_over(several) == "CIFAR-10, scale small, 2,000 to 10,000 images, 30 or 200 keys, seeds 0, 1"
    drawn = pd.DataFrame(origin | {"n_keys": 1, "draw": [0, 1]})
    assert figures.measured_over(drawn).endswith("2,000 to 10,000 images, 1 key a draw, 2 draws, seeds 0, 1")


def test_the_committed_figures_are_drawn_from_the_committed_rows(tmp_path):
    """Drawn anew, each figure is the committed one up to the last shades of grey; none is left over."""
    committed, drawn = set(), set()
    for scale in ("small", "paper"):
        drawn |= {path.relative_to(tmp_path) for path in draw_recorded(scale, tmp_path / scale)}
        folder = records.figures_dir(scale)
        committed |= {path.relative_to(folder.parent) for path in folder.glob("*.*")}
    assert drawn == committed, "run cmx study for the scale, which draws its figures"
    for name in sorted(path for path in drawn if path.suffix == ".png"):
        new, old = (np.asarray(Image.open(root / name).convert("L"), int) for root in (tmp_path, folder.parent))
        assert new.shape == old.shape and (abs(new - old) > 64).mean() < 1e-4, f"{name} is not that of its rows"


def test_every_table_is_drawn_or_judged_somewhere():
    """By a figure, a claim, a cell of a chapter, or a generated part of README or SCALING."""
    judged = {table for claim in claims.CLAIMS for table in claim.tables}
    cells = "\n".join(path.read_text(encoding="utf-8") for path in chapters.chapters())
    cells += inspect.getsource(readme).replace('"', r"\"")
    lost = {table.name for table in TABLES} - set(figures.RECORDED) - judged
    assert [name for name in sorted(lost) if f', \\"{name}\\")' not in cells] == []
