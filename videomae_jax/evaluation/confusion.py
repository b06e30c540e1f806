"""A picture of which classes are taken for which."""

import functools
import math
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int64, UInt8
from PIL import Image, ImageDraw, ImageFont

NUM_NAMED = 50  # more classes are numbered,
NUM_COUNTED = 20  # and more than these get no counts

_SHADES = ((255, 255, 255), (107, 174, 214), (8, 48, 107))  # of the shares 0, 1/2 and 1
_NO_VIDEOS = (225, 225, 225)
_LONGEST_NAME = 240  # pixels
_FONT_SIZE, _LINE, _GAP = 13, 18, 10  # pixels
_UPRIGHT = Image.Transpose.ROTATE_90


def draw_confusion(matrix: Int64[np.ndarray, "K K"], class_names: Sequence[str]) -> UInt8[np.ndarray, "Y X 3"]:
    """A heat map whose rows are the true classes: the darker a cell, the more of its row's videos are in it.

    Up to 50 classes are named along both axes, more are numbered from 0; up to 20 have the counts in their cells.
    A class without videos has a grey row. Pillow's own font has the letters of ASCII alone: names are written without
    accents, and classes whose names have other letters get their number.

    Args:
      matrix: of `confusion_matrix`.
      class_names: K names.
    """
    num_classes, totals = len(matrix), matrix.sum(axis=1, keepdims=True)
    cell = 44 if num_classes <= NUM_COUNTED else 20 if num_classes <= NUM_NAMED else max(2, 800 // num_classes)
    shares = matrix / np.maximum(totals, 1)
    colours = np.where(totals[..., None] > 0, _shade(shares), np.uint8(_NO_VIDEOS))
    legend, names = _legend(), _names(_ticks(class_names), num_classes, cell)

    side, overhang = num_classes * cell, _LINE // 2
    left, top = names.width + _LINE + 3 * _GAP, _LINE + 3 * _GAP
    right, bottom = left + side, top + side
    size = max(right, _GAP + legend.width) + _GAP, bottom + names.width + _LINE + 3 * _GAP
    picture = Image.new("RGB", size, "white")
    picture.paste(legend, (_GAP, _GAP))
    picture.paste(_enlarged(colours, cell, cell), (left, top))
    picture.paste(names, (left - names.width - _GAP, top - overhang))
    picture.paste(names.transpose(_UPRIGHT), (left - overhang, bottom + _GAP))
    rows, columns = _text("true").transpose(_UPRIGHT), _text("predicted")
    picture.paste(rows, (_GAP, top + (side - rows.height) // 2))
    picture.paste(columns, (left + (side - columns.width) // 2, bottom + names.width + 2 * _GAP))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((left - 1, top - 1, right, bottom), outline="black")
    if num_classes <= NUM_COUNTED:
        for row, column in np.argwhere(matrix).tolist():
            middle = left + (column + 0.5) * cell, top + (row + 0.5) * cell
            ink = "white" if shares[row, column] > 0.5 else "black"
            draw.text(middle, str(matrix[row, column]), ink, _font(), anchor="mm")
    return np.asarray(picture)


def _shade(shares: Float[np.ndarray, "Y X"]) -> UInt8[np.ndarray, "Y X 3"]:
    levels = [np.interp(shares, (0, 0.5, 1), of_shades) for of_shades in zip(*_SHADES, strict=True)]
    return np.stack(levels, axis=-1).astype(np.uint8)


def _legend() -> Image.Image:
    before, after = _text("share of a row's videos:  0 %"), _text("100 %")
    bar = _enlarged(_shade(np.linspace(0, 1, 100)[None]), _LINE, 1)
    legend = Image.new("RGB", (before.width + bar.width + after.width + 2 * _GAP, _LINE), "white")
    legend.paste(before, (0, 0))
    legend.paste(bar, (before.width + _GAP, 0))
    legend.paste(after, (legend.width - after.width, 0))
    return legend


def _ticks(class_names: Sequence[str]) -> dict[int, str]:
    """What is written at which classes: their names; where these are many, some numbers."""
    num_classes = len(class_names)
    if num_classes <= NUM_NAMED:
        return {number: _drawable(name) or str(number) for number, name in enumerate(class_names)}
    step = 10 ** (len(str(num_classes - 1)) - 1) // 2
    return {number: str(number) for number in range(0, num_classes, step)}


def _drawable(name: str) -> str | None:
    """The name in letters that the font has and no longer than there is room; None where it has others."""
    letters = "".join(letter for letter in unicodedata.normalize("NFKD", name) if not unicodedata.combining(letter))
    if not letters.isascii():
        return None
    whole = short = " ".join(letters.split())
    while _font().getlength(short) > _LONGEST_NAME:
        whole = whole[:-1]
        short = f"{whole}..."
    return short


def _names(ticks: Mapping[int, str], num_classes: int, cell: int) -> Image.Image:
    """What is written beside the rows, flush right; half a line longer than these at both ends."""
    width = math.ceil(max(map(_font().getlength, ticks.values())))
    names = Image.new("RGB", (width, num_classes * cell + _LINE), "white")
    for number, name in ticks.items():
        middle = width, _LINE / 2 + (number + 0.5) * cell
        ImageDraw.Draw(names).text(middle, name, "black", _font(), anchor="rm")
    return names


def _text(text: str) -> Image.Image:
    image = Image.new("RGB", (math.ceil(_font().getlength(text)), _LINE), "white")
    ImageDraw.Draw(image).text((0, _LINE / 2), text, "black", _font(), anchor="lm")
    return image


@functools.cache
def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(_FONT_SIZE)


def _enlarged(colours: UInt8[np.ndarray, "Y X 3"], height: int, width: int) -> Image.Image:
    return Image.fromarray(colours.repeat(height, axis=0).repeat(width, axis=1))
