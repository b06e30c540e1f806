"""Built-in videos to pick from."""

import csv
from pathlib import Path

import numpy as np

from videomae_jax.data.builtin import FPS, manifest
from videomae_jax.data.video import read_video, write_video

MOVES = ("pan_left", "zoom_in", "rotate_cw", "tilt_up")


def write_films(folder: Path) -> list[Path]:
    """Writes a film of each photograph that training does not show: some camera moves, one after the other.

    Returns:
      The files, in the order of their names.
    """
    table = manifest("val")
    with table.open(encoding="utf-8") as file:
        clips = {(row["photograph"], row["label"]): table.parent / row["path"] for row in csv.DictReader(file)}
    films = {photograph: folder / f"{photograph}.mp4" for photograph, _ in sorted(clips)}
    for photograph, film in films.items():
        write_video(film, np.concatenate([read_video(clips[photograph, move]) for move in MOVES]), FPS)
    return list(films.values())
