"""Drawings: all words lie on the sheet and none on another, so that what a change of words breaks is seen."""

from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pytest

from cmxlib import PatchCipher, SecretKey
from cmxlib.book import drawings
from cmxlib.book.style import STYLE

DRAWINGS = {
    "one_key": drawings.one_key,
    "convmixer": lambda: drawings.convmixer(dim=256, depth=8, kernel_size=5, patch_size=2),
    "patch_to_patch": lambda: drawings.patch_to_patch(
        np.linspace(0, 1, 12).reshape(3, 2, 2), PatchCipher(SecretKey.for_experiment(0), patch_size=2)
    ),
    "where_encrypted": drawings.where_encrypted,
    "two_orders": drawings.two_orders,
    "same_features": drawings.same_features,
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_words_are_on_the_sheet_and_apart(name):
    assert_words_are_on_the_sheet_and_apart(DRAWINGS[name])


def assert_words_are_on_the_sheet_and_apart(draw):
    with plt.rc_context(STYLE):
        figure = draw()
        figure.draw_without_rendering()
    [axis] = figure.axes
    boxes = [text.get_window_extent() for text in axis.texts if text.get_text().strip()]
    sheet = figure.bbox
    assert len(boxes) > 2
    assert all(sheet.x0 <= box.x0 and box.x1 <= sheet.x1 and sheet.y0 <= box.y0 and box.y1 <= sheet.y1 for box in boxes)
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    plt.close(figure)
