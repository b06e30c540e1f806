"""Clips on paper and on the screen: rows of frames, and moving pictures."""

import functools
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from videomae_jax.data.video import write_video

SUFFIXES = (".png", ".gif", ".mp4")
HEIGHT = 160  # pixels of a frame at least; smaller ones are enlarged by a whole factor
FRAMES = 8  # of a strip, at most
GAP, LINE = 6, 22  # pixels between frames, and of a line of text

Captioned = tuple[str, UInt8[np.ndarray, "T H W C"]]


def draw(file: Path, clips: Sequence[Captioned], fps: float = 8.0) -> None:
    """Draws clips with their captions into a file.

    Args:
      file: `.png` for a strip; `.gif` or `.mp4` for the clips side by side, moving.
      clips: of equal shape, with one or three channels.
      fps: frames a second of what moves.

    Raises:
      ValueError: another suffix.
    """
    if file.suffix not in SUFFIXES:
        raise ValueError(f"{file} must end in {', '.join(SUFFIXES)}.")
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".png":
        Image.fromarray(strip(clips)).save(file)
        return
    frames = side_by_side(clips)
    if file.suffix == ".mp4":
        write_video(file, frames, fps)
        return
    first, *others = map(Image.fromarray, frames)
    first.save(file, save_all=True, append_images=others, duration=round(1000 / fps), loop=0)


def strip(clips: Sequence[Captioned]) -> UInt8[np.ndarray, "Y X 3"]:
    """Some frames of each clip, from the first to the last, one row a clip below its caption."""
    rows = []
    for caption, clip in clips:
        chosen = np.linspace(0, len(clip) - 1, min(FRAMES, len(clip))).round().astype(int)
        row = np.concatenate([_white(_enlarged(frame), (GAP, GAP)) for frame in clip[chosen]], axis=1)
        rows += [_text(caption, row.shape[1]), row]
    return np.concatenate(rows)


def side_by_side(clips: Sequence[Captioned]) -> UInt8[np.ndarray, "T Y X 3"]:
    """The clips beside each other below their captions, with an even height and width, as videos need them."""
    enlarged = [np.stack([_enlarged(frame) for frame in clip]) for _, clip in clips]
    titles = [_text(caption, frames.shape[2]) for (caption, _), frames in zip(clips, enlarged, strict=True)]
    tallest = max(len(title) for title in titles)
    columns = []
    for title, frames in zip(titles, enlarged, strict=True):
        title = _white(title, (tallest - len(title), 0))
        column = np.concatenate([np.broadcast_to(title, (len(frames), *title.shape)), frames], axis=1)
        columns.append(_white(column, (0, GAP)))
    frames = np.concatenate(columns, axis=2)
    _, height, width, _ = frames.shape
    return _white(frames, (height % 2, width % 2))


def _enlarged(frame: UInt8[np.ndarray, "H W C"]) -> UInt8[np.ndarray, "Y X 3"]:
    height, width, channels = frame.shape
    scale = max(1, -(-HEIGHT // height))
    frame = frame if channels == 3 else np.repeat(frame[..., :1], 3, axis=-1)
    return cv2.resize(frame, (scale * width, scale * height), interpolation=cv2.INTER_CUBIC)


def _white(pictures: UInt8[np.ndarray, "*T Y X 3"], more: tuple[int, int]) -> UInt8[np.ndarray, "*T y x 3"]:
    """The pictures with so many white rows below and columns to the right."""
    before = ((0, 0),) * (pictures.ndim - 3)
    return np.pad(pictures, (*before, (0, more[0]), (0, more[1]), (0, 0)), constant_values=255)


def _text(text: str, width: int) -> UInt8[np.ndarray, "Y X 3"]:
    """Lines of text, broken where the width ends."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], longer] if _font().getlength(longer) <= width else [*lines, word]
    picture = Image.new("RGB", (width, LINE * max(len(lines), 1)), "white")
    for number, line in enumerate(lines):
        ImageDraw.Draw(picture).text((2, LINE * (number + 0.5)), line, "black", _font(), anchor="lm")
    return np.asarray(picture)


@functools.cache
def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(14)
