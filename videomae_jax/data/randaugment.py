"""RandAugment for clips: a few random changes of colour and place, the same ones for all frames.

Every frame comes out as Pillow would make it, to the last bit. Changes of single grey levels are looked up in tables,
all frames at once; only what moves pixels goes through Pillow frame by frame.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Self

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

GEOMETRIC = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
OPERATIONS = (
    *("autocontrast", "equalize", "invert", "posterize", "solarize", "solarize_add"),
    *("color", "contrast", "brightness", "sharpness"),
    *GEOMETRIC,
)
MAX_MAGNITUDE = 10.0
FILL = (128, 128, 128)  # what comes into view where a frame is moved
LEVELS = np.arange(256)

Clip = UInt8[np.ndarray, "T H W 3"]
# A table gives each grey level a new one.
Table = UInt8[np.ndarray, "256"]
TablePerFrame = UInt8[np.ndarray, "T 256"]
TablePerChannel = UInt8[np.ndarray, "T 256 3"]


class Operation(NamedTuple):
    """One change of a clip: its name in OPERATIONS, its magnitude from 0 to 10, and its direction, 1 or -1.

    "autocontrast", "equalize" and "invert" have neither magnitude nor direction, "posterize", "solarize" and
    "solarize_add" no direction.
    """

    name: str
    magnitude: float
    sign: int

    def __call__(self, frames: Clip) -> Clip:
        """Changes all frames alike; the given ones stay as they are."""
        return _FUNCTIONS[self.name](frames, self.magnitude / MAX_MAGNITUDE, self.sign)


@dataclass(frozen=True)
class RandAugment:
    """Draws operations with replacement and applies each, or leaves it, to all frames of a clip alike.

    The defaults are the original's for fine-tuning, "rand-m7-n4-mstd0.5-inc1".

    Attributes:
      magnitude: mean of the magnitudes, 0 to 10.
      num_ops: how many operations are drawn for a clip.
      magnitude_std: standard deviation of the magnitudes; they end at 0 and 10.
      probability: of a drawn operation to be applied.
      operations: what to draw from. Leave out GEOMETRIC where labels depend on directions or places.

    Raises:
      ValueError: a number is out of its range, or an operation is unknown.

    Source: rand_augment.py of the original, with the resampling and the fill that `_aug_frame` in its kinetics.py and
    `create_random_augment` in video_transforms.py lead to.
    """

    magnitude: float = 7.0
    num_ops: int = 4
    magnitude_std: float = 0.5
    probability: float = 0.5
    operations: tuple[str, ...] = OPERATIONS

    def __post_init__(self) -> None:
        if not self.operations or not set(self.operations) <= set(OPERATIONS):
            raise ValueError(f"operations must be some of {OPERATIONS}, got {self.operations}")
        if not (
            0 <= self.magnitude <= MAX_MAGNITUDE
            and self.num_ops >= 0
            and self.magnitude_std >= 0
            and 0 <= self.probability <= 1
        ):
            raise ValueError(
                "RandAugment needs a magnitude from 0 to 10, a probability from 0 to 1, num_ops and magnitude_std of "
                f"at least 0, got {self}"
            )

    @classmethod
    def from_name(cls, name: str, operations: tuple[str, ...] = OPERATIONS) -> Self:
        """RandAugment by the name that timm gives it, such as "rand-m7-n4-mstd0.5-inc1".

        The parts after "rand" are, in any order: m, the magnitude (10 if not given); n, the number of operations (2);
        mstd, the magnitudes' standard deviation (0); and inc1, which must be given: we know none but the operations
        that grow stronger with the magnitude.

        Raises:
          ValueError: a part of the name is unknown or missing, or RandAugment refuses its number.
        """
        kind, *parts = name.split("-")
        if kind != "rand" or "inc1" not in parts:
            raise ValueError(f"expected a name like 'rand-m7-n4-mstd0.5-inc1', with 'rand' and 'inc1', got {name!r}")
        numbers = {"m": 10.0, "n": 2, "mstd": 0.0}
        parts.remove("inc1")
        for part in parts:
            match = re.fullmatch(r"(m|mstd)(\d+(?:\.\d+)?)|(n)(\d+)", part)
            if match is None:
                raise ValueError(
                    f"{part!r} in {name!r} is unknown: the parts after 'rand' are m<number>, n<whole number>, "
                    "mstd<number> and inc1"
                )
            key, number = filter(None, match.groups())
            numbers[key] = int(number) if key == "n" else float(number)
        return cls(numbers["m"], numbers["n"], numbers["mstd"], operations=operations)

    def __call__(self, frames: Clip, rng: np.random.Generator) -> Clip:
        """The augmented clip; the given one where no operation is applied."""
        for operation in self.draw(rng):
            frames = operation(frames)
        return frames

    def draw(self, rng: np.random.Generator) -> list[Operation]:
        """What a clip goes through: at most `num_ops` operations, in their order."""
        drawn = []
        for name in rng.choice(self.operations, self.num_ops):
            magnitude = min(max(rng.normal(self.magnitude, self.magnitude_std), 0.0), MAX_MAGNITUDE)
            sign = 1 - 2 * int(rng.integers(2))
            if rng.random() < self.probability:
                drawn.append(Operation(str(name), magnitude, sign))
        return drawn


def _autocontrast(frames: Clip, strength: float, sign: int) -> Clip:
    rows = frames.reshape(len(frames), frames.shape[1], -1)  # whole rows are faster to compare than pixels
    low, high = (
        extreme(extreme(rows, 1).reshape(len(frames), -1, 3), 1)[:, None].astype(float) for extreme in (np.min, np.max)
    )  # [T 1 3]
    spread = high > low
    scale = 255 / np.where(spread, high - low, 255)
    offset = np.where(spread, -low * scale, 0)
    return _look_up_per_channel(frames, np.clip(LEVELS[:, None] * scale + offset, 0, 255).astype(np.uint8))


def _equalize(frames: Clip, strength: float, sign: int) -> Clip:
    counts = np.array([[cv2.calcHist([frame], [c], None, [256], [0, 256]) for c in range(3)] for frame in frames])
    counts = counts.reshape(-1, 256).astype(np.int64)  # [T*3 256]
    brightest = 255 - np.argmax(counts[:, ::-1] > 0, 1, keepdims=True)
    step = (counts.sum(1, keepdims=True) - np.take_along_axis(counts, brightest, 1)) // 255
    darker = np.cumsum(counts, 1) - counts
    tables = np.minimum((step // 2 + darker) // np.maximum(step, 1), 255)
    tables = np.where(step > 0, tables, LEVELS).astype(np.uint8)
    return _look_up_per_channel(frames, tables.reshape(-1, 3, 256).swapaxes(1, 2))


def _invert(frames: Clip, strength: float, sign: int) -> Clip:
    return _look_up(frames, (255 - LEVELS).astype(np.uint8))


def _posterize(frames: Clip, strength: float, sign: int) -> Clip:
    """Keeps the 4 to 0 highest bits; newer Pillows refuse to keep none, which is black."""
    kept_bits = 4 - int(strength * 4)
    return _look_up(frames, (LEVELS >> (8 - kept_bits) << (8 - kept_bits)).astype(np.uint8))


def _solarize(frames: Clip, strength: float, sign: int) -> Clip:
    """Inverts levels of at least 256 down to 0."""
    threshold = 256 - int(strength * 256)
    return _look_up(frames, np.where(LEVELS < threshold, LEVELS, 255 - LEVELS).astype(np.uint8))


def _solarize_add(frames: Clip, strength: float, sign: int) -> Clip:
    """Adds up to 110 to levels below 128."""
    return _look_up(frames, np.where(LEVELS < 128, LEVELS + int(strength * 110), LEVELS).astype(np.uint8))


def _color(frames: Clip, strength: float, sign: int) -> Clip:
    grey = cv2.cvtColor(_grey(frames), cv2.COLOR_GRAY2RGB)
    return _blend(grey.reshape(frames.shape), frames, _factor(strength, sign))


def _contrast(frames: Clip, strength: float, sign: int) -> Clip:
    means = _grey(frames).reshape(len(frames), -1).mean(1)
    tables = [_blend_table(int(mean + 0.5), _factor(strength, sign)) for mean in means]
    return _look_up_per_frame(frames, np.stack(tables))


def _brightness(frames: Clip, strength: float, sign: int) -> Clip:
    return _look_up(frames, _blend_table(0, _factor(strength, sign)))


def _sharpness(frames: Clip, strength: float, sign: int) -> Clip:
    kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
    # All frames in one picture; the rows in which neighbours meet are borders, and Pillow leaves borders as they are.
    smooth = cv2.filter2D(frames.reshape(-1, *frames.shape[2:]), -1, kernel).reshape(frames.shape)
    smooth[:, [0, -1]] = frames[:, [0, -1]]
    smooth[:, :, [0, -1]] = frames[:, :, [0, -1]]
    return _blend(smooth, frames, _factor(strength, sign))


def _rotate(frames: Clip, strength: float, sign: int) -> Clip:
    angle = sign * strength * 30  # degrees
    return _picture_by_picture(frames, lambda picture: picture.rotate(angle, Image.BICUBIC, fillcolor=FILL))


def _shear_x(frames: Clip, strength: float, sign: int) -> Clip:
    return _affine(frames, (1, sign * strength * 0.3, 0, 0, 1, 0))


def _shear_y(frames: Clip, strength: float, sign: int) -> Clip:
    return _affine(frames, (1, 0, 0, sign * strength * 0.3, 1, 0))


def _translate_x(frames: Clip, strength: float, sign: int) -> Clip:
    return _affine(frames, (1, 0, sign * strength * 0.45 * frames.shape[2], 0, 1, 0))


def _translate_y(frames: Clip, strength: float, sign: int) -> Clip:
    return _affine(frames, (1, 0, 0, 0, 1, sign * strength * 0.45 * frames.shape[1]))


_FUNCTIONS: dict[str, Callable[[Clip, float, int], Clip]] = {
    "autocontrast": _autocontrast,
    "equalize": _equalize,
    "invert": _invert,
    "posterize": _posterize,
    "solarize": _solarize,
    "solarize_add": _solarize_add,
    "color": _color,
    "contrast": _contrast,
    "brightness": _brightness,
    "sharpness": _sharpness,
    "rotate": _rotate,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
}


def _factor(strength: float, sign: int) -> float:
    """0.1 to 1.9; 1 changes nothing."""
    return 1 + sign * (strength * 0.9)


def _look_up(frames: Clip, table: Table) -> Clip:
    return cv2.LUT(frames.reshape(len(frames), -1), table).reshape(frames.shape)


def _look_up_per_frame(frames: Clip, tables: TablePerFrame) -> Clip:
    return np.concatenate([_look_up(frame[None], table) for frame, table in zip(frames, tables, strict=True)])


def _look_up_per_channel(frames: Clip, tables: TablePerChannel) -> Clip:
    return np.stack([cv2.LUT(frame, table[None]) for frame, table in zip(frames, tables, strict=True)])


def _blend(
    zero: UInt8[np.ndarray, "*shape"], one: UInt8[np.ndarray, "*shape"], factor: float
) -> UInt8[np.ndarray, "*shape"]:
    """`zero` for factor 0, `one` for 1, and on in that direction, by Pillow's own arithmetic."""
    pictures = (Image.fromarray(pixels.reshape(len(pixels), -1)) for pixels in (zero, one))
    return np.array(Image.blend(*pictures, factor)).reshape(one.shape)


def _blend_table(zero: int, factor: float) -> Table:
    levels = LEVELS.astype(np.uint8)[None]
    return _blend(np.full_like(levels, zero), levels, factor)[0]


def _grey(frames: Clip) -> UInt8[np.ndarray, "T*H W"]:
    """All frames below each other in Pillow's grey."""
    return np.asarray(Image.fromarray(frames.reshape(-1, *frames.shape[2:])).convert("L"))


def _affine(frames: Clip, matrix: tuple[float, ...]) -> Clip:
    """Moves pixels; `matrix` leads from where (x, y) they are seen to where they come from."""
    return _picture_by_picture(
        frames, lambda picture: picture.transform(picture.size, Image.AFFINE, matrix, Image.BICUBIC, fillcolor=FILL)
    )


def _picture_by_picture(frames: Clip, change: Callable[[Image.Image], Image.Image]) -> Clip:
    return np.stack([np.asarray(change(Image.fromarray(frame))) for frame in frames])
