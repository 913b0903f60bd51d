"""Drawings of attacks: words lie on the sheet and apart, dots are where HOLDERS says, ellipses are those of A M A^T."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from cmxlib.book import flows
from cmxlib.book.style import ORANGE, STYLE

from .test_drawings import assert_words_are_on_the_sheet_and_apart


@pytest.mark.parametrize("draw", [flows.attacks_on_images, flows.attacks_on_models, flows.who_encrypts])
def test_words_of_flows_are_on_the_sheet_and_apart(draw):
    assert_words_are_on_the_sheet_and_apart(draw)


def test_the_owner_alone_holds_the_key():
    figure = flows.who_holds_what()
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    large = [dot for dot in dots if dot.get_markersize() > 2]
    assert len(dots) == len(flows.HOLDERS) * len(flows.THINGS)
    assert len(large) == sum(map(len, flows.HOLDERS.values()))
    assert sum(dot.get_color() == ORANGE for dot in dots) == 1
    plt.close(figure)


def test_an_ellipse_is_turned_as_its_cloud_is():
    values = np.random.default_rng(0).random((400, 2)) * (0.2, 1)
    with plt.rc_context(STYLE):
        figure = flows.turned_ellipses(values, {"shuffle": (np.eye(2)[::-1], np.zeros(2))})
    plain, shuffled = (axis.patches[0] for axis in figure.axes)
    assert np.isclose(plain.width, shuffled.width) and np.isclose(plain.height, shuffled.height)
    assert np.isclose(np.sin(np.radians(plain.angle - shuffled.angle)) ** 2, 1, atol=0.01)
    assert np.allclose(plain.center, shuffled.center[::-1])
    plt.close(figure)
