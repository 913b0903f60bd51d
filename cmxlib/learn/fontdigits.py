"""FontDigits: a small stand-in for CIFAR-10 that is drawn, not downloaded.

32 x 32 colour images of the ten digits, in fonts that matplotlib ships, with random colours, size, place, rotation,
shear, background, distracting strokes and noise. It exists so that every chapter runs without a download. It is not a
benchmark: its accuracies say nothing about CIFAR-10 and are never called CIFAR-10's.

The digits are small and the strokes around them have the digits' own contrast and width. With large digits on a clean
ground, a network reads the digit from the mean colours of the patches alone; a wrong key leaves those means nearly as
they were, and would seem to protect nothing. Here the class hangs on what is inside the patches, as it does in photos.
"""

from pathlib import Path

import numpy as np

from ..lock import checks
from ..paths import need

SIDE = 32
MOST = 100_000  # images of a part, which some gigabytes hold while they are drawn
TRAIN_FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
    *("DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralBolIta", "cmr10", "cmti10", "cmtt10"),
)
TEST_FONTS = ("DejaVuSansMono", "DejaVuSerif-BoldItalic", "STIXGeneralItalic", "cmss10", "cmb10")

_GLYPH_HEIGHT = 20  # of a typical digit in its master drawing, in pixels
_GLYPH_SIDE = 36  # of the square that holds a master drawing, margin included


def draw_fontdigits(n_train: int = 8000, n_test: int = 2000, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Draw the data set.

    Returns train_images, train_labels, test_images, test_labels: uint8 of shape (n, 3, 32, 32) with values 0..255, and
    int64 of shape (n,) with the digit 0..9, in random order and equally many of each (to one). No font of the test
    images occurs in the training images.

    The same seed and sizes give the same images (PCG64), on every machine up to the rounding of sines and to the
    versions of FreeType and of the fonts. The test images do not depend on n_train.
    """
    n_train, n_test = checks.whole(n_train, "n_train", 1, MOST), checks.whole(n_test, "n_test", 1, MOST)
    seed = checks.whole(seed, "seed", 0)
    train = _draw(TRAIN_FONTS, n_train, np.random.Generator(np.random.PCG64([seed, 0])))
    test = _draw(TEST_FONTS, n_test, np.random.Generator(np.random.PCG64([seed, 1])))
    return *train, *test


def _draw(fonts: tuple[str, ...], n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    def uniform(low, high, *shape):
        return rng.uniform(low, high, size=(n, *shape)).astype(np.float32)

    def colour_step():
        """(n, 3): how a stroke differs from its ground. Lighter or darker by chance, in a random tint."""
        light = uniform(0.25, 0.45, 1) * rng.choice(np.float32([-1, 1]), size=(n, 1))
        tint = uniform(-0.2, 0.2, 3)
        return light + tint - tint.mean(axis=1, keepdims=True)

    def paint(images, mask):
        images += mask[:, None] * colour_step()[:, :, None, None]

    labels = (rng.permutation(n) % 10).astype(np.int64)
    glyphs = _glyphs(fonts)[rng.integers(len(fonts), size=n), labels]

    images = np.broadcast_to(uniform(0.3, 0.7, 3, 1, 1), (n, 3, SIDE, SIDE)).copy()
    images += _enlarge(uniform(-0.1, 0.1, 3, 5, 5))  # clouds of colour
    images += _enlarge(uniform(-0.1, 0.1, 1, 9, 9))  # finer grey ones
    for _ in range(3):
        paint(images, _stroke_mask(uniform))
    paint(images, _digit_mask(glyphs, uniform))
    images += 0.1 * (rng.random(images.shape, dtype=np.float32) - 0.5)
    return (images.clip(0, 1) * 255 + 0.5).astype(np.uint8), labels


def _glyphs(fonts: tuple[str, ...]) -> np.ndarray:
    """Master drawings, float32 (fonts, 10, side, side) in [0, 1], each digit centred. Drawn four times too large and
    averaged down, so that hinting, which differs between versions of FreeType, hardly matters."""
    Image, ImageDraw, ImageFont = (need(f"PIL.{name}", "files") for name in ("Image", "ImageDraw", "ImageFont"))
    folder = Path(need("matplotlib", "book").get_data_path()) / "fonts" / "ttf"
    side = 4 * _GLYPH_SIDE
    out = np.empty((len(fonts), 10, _GLYPH_SIDE, _GLYPH_SIDE), dtype=np.float32)
    for i, name in enumerate(fonts):
        try:
            # Digits are about 0.72 em high; the basic layout needs no library beyond FreeType.
            size = round(4 * _GLYPH_HEIGHT / 0.72)
            font = ImageFont.truetype(str(folder / f"{name}.ttf"), size, layout_engine=ImageFont.Layout.BASIC)
        except OSError as error:
            raise RuntimeError(
                f"FontDigits needs the font {name}.ttf, which this matplotlib lacks: "
                "install matplotlib from PyPI or conda-forge, which ship it."
            ) from error
        for digit in range(10):
            canvas = Image.new("L", (side, side))
            pen = ImageDraw.Draw(canvas)
            left, top, right, bottom = pen.textbbox((0, 0), str(digit), font=font)
            pen.text(((side - left - right) // 2, (side - top - bottom) // 2), str(digit), fill=255, font=font)
            out[i, digit] = np.asarray(canvas.reduce(4), dtype=np.float32) / 255
    return out


def _grid(a: np.ndarray) -> np.ndarray:
    return a[:, None, None]


_CENTRED = np.arange(SIDE, dtype=np.float32) - (SIDE - 1) / 2
_X, _Y = _CENTRED[None, None, :], _CENTRED[None, :, None]  # pixel centres, from the middle of the image


def _digit_mask(glyphs: np.ndarray, uniform) -> np.ndarray:
    """(n, 32, 32) in [0, 1]: each glyph scaled, rotated, sheared and shifted, sampled bilinearly."""
    scale = uniform(14, 18) / _GLYPH_HEIGHT
    angle, shear = np.deg2rad(uniform(-15, 15)), uniform(-0.2, 0.2)
    cos, sin = _grid(np.cos(angle) / scale), _grid(np.sin(angle) / scale)
    x, y = _X - _grid(uniform(-4, 4)), _Y - _grid(uniform(-4, 4))

    # Where each pixel of the image lies in the master drawing (column u, row v).
    v = cos * y - sin * x
    u = cos * x + sin * y + _grid(shear) * v
    middle, last = (_GLYPH_SIDE - 1) / 2, _GLYPH_SIDE - 1.001
    u, v = (u + middle).clip(0, last), (v + middle).clip(0, last)
    column, row = u.astype(np.int32), v.astype(np.int32)
    u, v = u - column, v - row
    at = _grid(np.arange(len(glyphs), dtype=np.int32)) * _GLYPH_SIDE**2 + row * _GLYPH_SIDE + column
    flat = glyphs.ravel()
    above = flat[at] * (1 - u) + flat[at + 1] * u
    below = flat[at + _GLYPH_SIDE] * (1 - u) + flat[at + _GLYPH_SIDE + 1] * u
    return above * (1 - v) + below * v


def _stroke_mask(uniform) -> np.ndarray:
    """(n, 32, 32) in [0, 1]: one short straight stroke an image, about as wide as a digit's."""
    angle = uniform(0, np.pi)
    cos, sin = _grid(np.cos(angle)), _grid(np.sin(angle))
    across = cos * _Y + sin * _X - _grid(uniform(-14, 14))
    along = cos * _X - sin * _Y - _grid(uniform(-14, 14))
    half_width, half_length = _grid(uniform(0.3, 1.0)), _grid(uniform(2, 5))
    return (half_width + 0.5 - np.abs(across)).clip(0, 1) * (np.abs(along) < half_length)


def _enlarge(coarse: np.ndarray) -> np.ndarray:
    """(..., g, g) -> (..., 32, 32), bilinear."""
    g = coarse.shape[-1]
    at = (np.arange(SIDE) + 0.5) / SIDE * (g - 1)
    weights = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(g))).astype(np.float32)
    return weights @ coarse @ weights.T
