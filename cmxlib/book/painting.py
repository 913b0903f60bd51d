"""Pictures painted by NumPy and Pillow, in milliseconds: what the interactive pieces show.

A plot by Matplotlib takes a tenth of a second, too long for something that is to follow a slider.
"""

import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps

SIDE, SMALL, GAP, LINE = 192, 96, 8, 20  # in pixels: a large and a small picture, between two of them, a line of text
BLUE, ORANGE, GREY = (0, 114, 178), (230, 159, 0), (150, 150, 150)  # as in style.py
RED = (178, 24, 43)  # of what is below 0, as in the figures of matrices


def read(content: bytes) -> Image.Image:
    """The picture in a file's bytes, upright and in RGB; ValueError, a sentence without its subject, where none is."""
    try:
        return ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    except Exception:  # a file can be broken in many ways
        raise ValueError("is no picture that can be read: choose a PNG or JPEG file.") from None


def fitted(picture: Image.Image) -> torch.Tensor:
    """A picture as uint8 (3, H, W), shrunk to at most SIDE pixels, and cut so that blocks of 8 fill it."""
    picture.thumbnail((SIDE, SIDE))
    width, height = (length // 8 * 8 for length in picture.size)
    if not (width and height):
        raise ValueError("is too narrow: choose a picture of at least 8 × 8 pixels.")
    return torch.from_numpy(np.array(picture.crop((0, 0, width, height)))).permute(2, 0, 1)


def enlarged(image: Any, side: int = SIDE) -> Image.Image:
    """An image (3, H, W), uint8, each pixel enlarged to a square so that ``side`` is filled as far as it goes."""
    picture = Image.fromarray(np.ascontiguousarray(np.moveaxis(np.asarray(image), 0, -1)))
    factor = max(side // max(picture.size), 1)
    return picture.resize((factor * picture.width, factor * picture.height), Image.Resampling.NEAREST)


def signed(values: np.ndarray, cell: int, top: float | None = None) -> Image.Image:
    """Numbers (rows, columns) as squares of ``cell`` pixels: blue above 0, red below, full colour at ``top``."""
    strength = np.abs(values)[..., None] / (top or np.abs(values).max())
    colours = 255 - strength * (255 - np.where(values[..., None] > 0, BLUE, RED))
    return enlarged(np.moveaxis(colours.round().astype(np.uint8), -1, 0), cell * max(values.shape))


def matrix(values: np.ndarray, side: int) -> Image.Image:
    """A square matrix as ``signed`` in a frame, its columns named as plain and its rows as encrypted entries."""
    n = len(values)
    square = ImageOps.expand(signed(values, max(side // n, 1)), 1, GREY)
    canvas = Image.new("RGB", (square.width + LINE, square.height + LINE), "white")
    canvas.paste(square, (LINE, 0))
    for words, turn in (("plain entry", 0), ("encrypted entry", 90)):
        axis = Image.new("RGB", (square.width, LINE), "white")
        pen, middle, ends = ImageDraw.Draw(axis), square.width / 2, ("0", str(n - 1))
        left, right = ends if not turn else reversed(ends)
        pen.text((1, 1), left, "black", _font(11))
        pen.text((square.width - 1, 1), right, "black", _font(11), anchor="ra")
        pen.text((middle, 1), f"{words} →" if not turn else f"← {words}", "black", _font(11), anchor="ma")
        canvas.paste(axis.rotate(turn, expand=True), (0, 0) if turn else (LINE, square.height))
    return canvas


def weights_of_filter(weights: np.ndarray, size: int, marked: int | None = None) -> Image.Image:
    """A filter (3 * size * size,) as three squares, for red, green and blue; one entry may be marked by a frame."""
    cell, top = SMALL // size, np.abs(weights).max()
    squares = [signed(channel, cell, top) for channel in weights.reshape(3, size, size)]
    if marked is not None:
        channel, down, right = np.unravel_index(marked, (3, size, size))
        corners = right * cell, down * cell, (right + 1) * cell - 1, (down + 1) * cell - 1
        ImageDraw.Draw(squares[channel]).rectangle(corners, outline="black", width=3)
    return row([ImageOps.expand(square, 1, GREY) for square in squares])


def bars(values: np.ndarray, colours: Any, width: int, top: float | None = None) -> Image.Image:
    """Bars in groups (groups, bars) with colours (groups, bars), from a line at 0; below it the groups' numbers."""
    top, low = top or max(values.max(), 0), min(values.min(), 0)
    step, scale = width / len(values), (SMALL - LINE) / (top - low)
    zero = LINE // 2 + top * scale
    canvas = Image.new("RGB", (width, SMALL + LINE // 2), "white")
    draw = ImageDraw.Draw(canvas)
    for group, (heights, shades) in enumerate(zip(values, colours, strict=True)):
        thick = 0.8 * step / len(heights)
        for bar, (height, shade) in enumerate(zip(heights, shades, strict=True)):
            left, end = group * step + bar * thick, zero - height * scale
            draw.rectangle((left, min(zero, end), left + thick - 1, max(zero, end)), shade)
        draw.text((group * step + 0.4 * step, SMALL - LINE // 2 + 4), str(group), "black", _font(10), anchor="ma")
    draw.line((0, zero, width, zero), "black")
    return canvas


def text(words: str, size: int = 13) -> Image.Image:
    """A line of text."""
    canvas = Image.new("RGB", (int(_font(size).getlength(words)) + 1, LINE), "white")
    ImageDraw.Draw(canvas).text((0, 1), words, "black", _font(size))
    return canvas


def row(parts: list, titles: Sequence[str] | None = None, gap: int = GAP) -> Image.Image:
    """Pictures side by side, each below its title."""
    if titles:
        parts = [column([text(title), part]) for title, part in zip(titles, parts, strict=True)]
    canvas = Image.new("RGB", (sum(part.width + gap for part in parts) - gap, max(p.height for p in parts)), "white")
    left = 0
    for part in parts:
        canvas.paste(part, (left, 0))
        left += part.width + gap
    return canvas


def column(parts: list) -> Image.Image:
    """Pictures below one another."""
    gap = GAP // 2
    canvas = Image.new("RGB", (max(part.width for part in parts), sum(p.height + gap for p in parts) - gap), "white")
    top = 0
    for part in parts:
        canvas.paste(part, (0, top))
        top += part.height + gap
    return canvas


@cache
def _font(size):
    return ImageFont.truetype(Path(mpl.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)
