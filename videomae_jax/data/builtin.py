"""Small real-image clips for trying things out without a data set: photographs seen through ten camera moves.

The photographs are those inside the scikit-image wheel, so nothing is downloaded. The label is the camera's move: one
frame says nothing about it, only motion does. Validation shows photographs that training never does. Training clips
are filmed in light of various colours, validation clips in white. Flips and rotations as augmentation would change the
labels.
"""

import csv
import importlib.util
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image

from videomae_jax.cache import cache_folder
from videomae_jax.data.cores import num_cores
from videomae_jax.data.video import write_video

CAMERA_MOVES = (
    *("static", "pan_left", "pan_right", "tilt_up", "tilt_down"),
    *("zoom_in", "zoom_out", "rotate_cw", "rotate_ccw", "shake"),
)
# Scenes and things. Left out are surfaces (brick, grass, gravel), printed pages and the star field, whose hidden parts
# nothing visible tells, and drawings and test charts. Validation has scenes that everybody recognises.
PHOTOGRAPHS = {
    "train": (
        *("astronaut.png", "camera.png", "cell.png", "clock_motion.png", "coins.png"),
        *("ihc.png", "moon.png", "motorcycle_left.png", "retina.jpg"),
    ),
    "val": ("chelsea.png", "coffee.png", "rocket.jpg"),
}
NUM_FRAMES = 32
FPS = 25
SIZE = 128
VARIANTS = 6
# The smallest window, over the largest that the photograph has room for. Training sees parts of its few photographs, so
# that they are not learnt by heart; validation shows scenes that can be recognised.
SMALLEST = {"train": 0.35, "val": 0.7}
# A new number whenever the clips change, so that old ones in the cache are not mistaken for them.
_VERSION = 2


def manifest(split: str) -> Path:
    """The manifest (path, label, photograph) of the built-in clips of one split; writes all clips at first
    use.

    They go to the user's cache folder, or below the environment variable VIDEOMAE_JAX_CACHE where it is set.

    Raises:
      ValueError: `split` is neither "train" nor "val".
      ImportError: scikit-image is not installed.
    """
    if split not in PHOTOGRAPHS:
        raise ValueError(f"there are no built-in clips 'builtin:{split}'; use builtin:train or builtin:val")
    folder = clips_folder()
    if not folder.exists():
        _write_once(folder)
    return folder / f"{split}.csv"


def clips_folder() -> Path:
    """Where the built-in clips lie once they are written."""
    return cache_folder() / f"camera_moves-v{_VERSION}"


def write_clips(folder: Path, variants: int = VARIANTS) -> int:
    """Writes `variants` clips of each photograph and move, then train.csv and val.csv; returns how many."""
    photographs = _photograph_folder()
    jobs = [
        (split, name, move, variant)
        for split, names in PHOTOGRAPHS.items()
        for name in names
        for move in CAMERA_MOVES
        for variant in range(variants)
    ]

    def write(job: tuple[str, str, str, int]) -> dict[str, str]:
        split, name, move, variant = job
        stem = Path(name).stem
        path = Path(split) / move / f"{stem}_{variant}.mp4"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        # Seeded by what the clip shows, so that adding a photograph leaves the other clips as they are.
        rng = np.random.default_rng([*name.encode(), CAMERA_MOVES.index(move), variant])
        with Image.open(photographs / name) as photograph:
            pixels = np.asarray(photograph.convert("RGB"))
        if split == "train":
            pixels = _in_another_light(pixels, rng)
        write_video(folder / path, film(pixels, move, rng, SMALLEST[split]), FPS, crf=20)
        return {"path": path.as_posix(), "label": move, "photograph": stem}

    with ThreadPoolExecutor(num_cores()) as pool:
        rows = list(pool.map(write, jobs))
    for split in PHOTOGRAPHS:
        with open(folder / f"{split}.csv", "w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, ["path", "label", "photograph"])
            table.writeheader()
            table.writerows(row for row, job in zip(rows, jobs, strict=True) if job[0] == split)
    return len(rows)


def film(
    photograph: UInt8[np.ndarray, "H W 3"], move: str, rng: np.random.Generator, smallest: float
) -> UInt8[np.ndarray, "32 128 128 3"]:
    """The photograph seen through one camera move; place, size and speed of the window are random.

    Args:
      photograph: what is filmed.
      move: one of `CAMERA_MOVES`.
      rng: draws the window.
      smallest: the window's smallest side, over the largest that stays inside the photograph.
    """
    height, width, _ = photograph.shape
    center, zoom, angle = _camera_path(move, rng)
    cos, sin = np.cos(angle), np.sin(angle)
    rotation = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)  # [32 2 2], clockwise on screen

    # Everything the camera sees, in window sides, gives the largest window that stays inside the photograph.
    corners = 0.5 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    seen = center[:, None] + zoom[:, None, None] * np.einsum("tij,cj->tci", rotation, corners)  # [32 4 2]
    low, high = seen.min((0, 1)), seen.max((0, 1))
    largest = min(*((width, height) / (high - low)), 0.85 * min(height, width))
    side = rng.uniform(smallest, 1) * largest
    place = rng.triangular(0, 0.5, 1, 2) * ((width, height) - side * (high - low)) - side * low

    # Filmed at twice the size and averaged 2x2: sharp, and free of the shimmer that a direct warp would show.
    film_size = 2 * SIZE
    scale = min(film_size / side, 1)
    small = cv2.resize(photograph, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    to_small = np.array([small.shape[1] / width, small.shape[0] / height])
    frames = np.empty((NUM_FRAMES, SIZE, SIZE, 3), np.uint8)
    for t in range(NUM_FRAMES):
        linear = to_small[:, None] * (side * zoom[t] / film_size) * rotation[t]
        middle = to_small * (place + side * center[t]) - 0.5  # pixel centres lie half a pixel inside
        offset = middle - linear @ np.full(2, (film_size - 1) / 2)
        view = cv2.warpAffine(
            small,
            np.column_stack([linear, offset]),
            (film_size, film_size),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT,
        )
        cv2.resize(view, (SIZE, SIZE), dst=frames[t], interpolation=cv2.INTER_AREA)
    return frames


def _camera_path(
    move: str, rng: np.random.Generator
) -> tuple[Float64[np.ndarray, "32 2"], Float64[np.ndarray, "32"], Float64[np.ndarray, "32"]]:
    """Centre (x, y) in window sides, window size relative to its largest, clockwise angle in radians."""
    progress = np.linspace(-0.5, 0.5, NUM_FRAMES)
    center, zoom, angle = np.zeros((NUM_FRAMES, 2)), np.ones(NUM_FRAMES), np.zeros(NUM_FRAMES)
    travel = rng.uniform(0.4, 0.8)
    match move:
        case "pan_left":
            center[:, 0] = -travel * progress
        case "pan_right":
            center[:, 0] = travel * progress
        case "tilt_up":
            center[:, 1] = -travel * progress
        case "tilt_down":
            center[:, 1] = travel * progress
        case "zoom_in":
            zoom = (1 + travel) ** -(progress + 0.5)
        case "zoom_out":
            zoom = (1 + travel) ** (progress - 0.5)
        case "rotate_cw":
            angle = travel * 2 * progress
        case "rotate_ccw":
            angle = -travel * 2 * progress
        case "shake":
            center = _hand_shake(rng)
    return center, zoom, angle


def _in_another_light(photograph: UInt8[np.ndarray, "H W 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "H W 3"]:
    # So few photographs have few colours: a model would learn these by heart instead of taking them from what it sees.
    return (photograph * rng.uniform(0.4, 1, 3)).astype(np.uint8)


def _hand_shake(rng: np.random.Generator) -> Float64[np.ndarray, "32 2"]:
    """A few window percents to and fro: three slow sines of random phase for each direction."""
    seconds = np.arange(NUM_FRAMES) / FPS
    hertz = rng.uniform([[1], [2.5], [4.5]], [[2.5], [4.5], [6]], (3, 2))
    phase = rng.uniform(0, 2 * np.pi, (3, 2))
    amplitude = rng.uniform(0.02, 0.035, (3, 2))
    return np.sum(amplitude * np.sin(2 * np.pi * hertz * seconds[:, None, None] + phase), axis=1)


def _write_once(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    print(f"writing the built-in clips to {folder} (once, well under a minute)", flush=True)
    # Written beside their place and renamed at the end: whoever finds the folder finds all of it, and of two
    # processes at once the slower one drops its copy.
    unfinished = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
    try:
        write_clips(unfinished)
        unfinished.chmod(0o755)
        try:
            unfinished.rename(folder)
        except OSError:
            if not folder.exists():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _photograph_folder() -> Path:
    skimage = importlib.util.find_spec("skimage")
    if skimage is None or skimage.origin is None:
        raise ImportError(
            "the built-in clips are made from the photographs inside the scikit-image wheel; "
            "install it with: pip install scikit-image"
        )
    return Path(skimage.origin).parent / "data"
