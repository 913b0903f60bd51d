import numpy as np
import pytest

from cmxlib.learn import fontdigits
from cmxlib.learn.fontdigits import TEST_FONTS, TRAIN_FONTS, draw_fontdigits


@pytest.fixture(scope="module")
def drawn():
    return draw_fontdigits(500, 200)


def test_shapes_types_and_balance(drawn):
    train_images, train_labels, test_images, test_labels = drawn
    assert train_images.shape == (500, 3, 32, 32) and test_images.shape == (200, 3, 32, 32)
    assert train_images.dtype == test_images.dtype == np.uint8
    assert train_labels.dtype == test_labels.dtype == np.int64
    assert np.bincount(train_labels).tolist() == [50] * 10
    assert np.bincount(test_labels).tolist() == [20] * 10


def test_the_seed_alone_decides(drawn):
    again, other = draw_fontdigits(500, 200), draw_fontdigits(500, 200, seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(drawn, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(drawn, other, strict=True))


def test_the_test_images_do_not_depend_on_the_training_images(drawn):
    fewer = draw_fontdigits(10, 200)
    assert np.array_equal(fewer[2], drawn[2]) and np.array_equal(fewer[3], drawn[3])


def test_labels_are_stable_over_platforms_and_versions(drawn):
    # PCG64 promises its stream; the pixels also hang on FreeType and are held only loosely.
    assert drawn[1][:12].tolist() == [1, 4, 9, 4, 5, 1, 8, 5, 0, 1, 2, 7]
    assert drawn[0].mean() == pytest.approx(126.7, abs=0.5)
    assert drawn[0].std() == pytest.approx(41.3, abs=0.5)


def test_fonts_of_the_test_images_are_unseen():
    assert not set(TRAIN_FONTS) & set(TEST_FONTS)
    assert len(set(TRAIN_FONTS)) == len(TRAIN_FONTS) and len(set(TEST_FONTS)) == len(TEST_FONTS)
    glyphs = fontdigits._glyphs(TRAIN_FONTS + TEST_FONTS).reshape(len(TRAIN_FONTS + TEST_FONTS), -1)
    assert len(np.unique(glyphs, axis=0)) == len(glyphs)  # nor is any the same font by another name


def test_every_font_has_ten_different_digits():
    glyphs = fontdigits._glyphs(TRAIN_FONTS + TEST_FONTS)
    for font in glyphs:
        ink = font.sum((1, 2))
        assert ink.min() > 30  # a blank glyph has none
        assert len(np.unique(font.reshape(10, -1), axis=0)) == 10  # a missing one is the same box ten times
        assert font[:, [0, -1]].max() == font[:, :, [0, -1]].max() == 0  # whole inside its square


def test_a_missing_font_names_the_way_out(monkeypatch):
    monkeypatch.setattr(fontdigits, "TEST_FONTS", ("absent",))
    with pytest.raises(RuntimeError, match=r"absent\.ttf.*install matplotlib"):
        draw_fontdigits(10, 10)


def test_mean_colour_does_not_tell_the_digit():
    # Ink is lighter or darker by chance. Thus no digit is brighter than another: what is left is chance, whose
    # standard error is about 0.003 here.
    images, labels, *_ = draw_fontdigits(5000, 10)
    brightness = images.mean((1, 2, 3)) / 255
    by_digit = [brightness[labels == digit].mean() for digit in range(10)]
    assert np.ptp(by_digit) < 0.02
