"""Figures say what their rows say: what the eye would check, checked in the artists and pixels."""

import matplotlib as mpl
import numpy as np
import pytest
import torch

from cmxlib import figures

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
    assert marks == [(figures.GREEN, None), (figures.GREEN, None), (figures.RED, "///")]
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
