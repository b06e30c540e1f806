"""How frames become what a model was trained on: `VideoMAEImageProcessor`, as in transformers."""

import dataclasses
import functools
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Num, UInt8
from PIL import Image

from videomae_jax.config import CONFIG_FILE, PROCESSOR_FILE, PROCESSOR_FILES, VideoMAEConfig, find_processor
from videomae_jax.data.inputs import DataFormat, FilePath, Frame, Video, is_path, list_videos, to_array
from videomae_jax.data.pillow import center_crop, rescale, resize, resized_size
from videomae_jax.data.sampling import center_clip, spread_clip
from videomae_jax.data.transforms import center_crop_box, crop_resize
from videomae_jax.data.video import VideoFile
from videomae_jax.fields import check_names, read_json
from videomae_jax.hub import locate

SIZES = (
    ("shortest_edge",),
    ("shortest_edge", "longest_edge"),
    ("height", "width"),
    ("max_height", "max_width"),
)


@jax.tree_util.register_pytree_node_class
class ProcessedVideos(dict):
    """What a processor returns: `pixel_values` by name, by attribute, and as `**` of a model's call."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def tree_flatten(self) -> tuple[tuple, tuple[str, ...]]:
        return tuple(self.values()), tuple(self)

    @classmethod
    def tree_unflatten(cls, names: tuple[str, ...], values: tuple) -> Self:
        return cls(zip(names, values, strict=True))


def _takes_none(cls: type) -> type:
    """Lets the constructor take None, which files have for what is not used, and help with a misspelt option."""
    init = cls.__init__

    @functools.wraps(init)
    def __init__(self, **options):
        init(self, **_given(options))

    cls.__init__ = __init__
    return cls


@_takes_none
@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoMAEImageProcessor:
    """Resizes, crops, rescales and normalises videos.

    Options and defaults are those of transformers' VideoMAEImageProcessor (5.23), and so are the pixels, to the last
    bit those of its Pillow backend (`VideoMAEImageProcessorPil`). The options under "ours" are what it does not have.
    As there, None is False for what is done or not; for the rest, it is the default.

    Attributes:
      do_resize, size, resample: resize to `shortest_edge`, to `shortest_edge` and at most `longest_edge`, to `height`
        and `width`, or into `max_height` and `max_width`; in pixels. A whole number is the shortest edge, two are
        height and width. `resample` is Pillow's filter.
      do_center_crop, crop_size: cut out the middle, `height` x `width` pixels; zeros around a smaller frame.
      do_rescale, rescale_factor: multiply. Off for pixels that are in [0, 1] already.
      do_normalize, image_mean, image_std: subtract and divide by; a number for each channel or one for all.
      do_convert_rgb: grey to three channels, transparency onto white.
      resize_backend: "pil", or "opencv" for what this package's own runs do: crop first (the largest centred box with
        the crop's aspect, less by crop / shortest_edge), then resize bytes with OpenCV, linearly or by area.
      num_frames: frames taken of a video file.
      frame_stride: their distance in frames of the file, around its middle; None spreads them over the whole file.

    Raises:
      ValueError: an unknown option, a value out of range, or options that do not fit together.
    """

    do_resize: bool = True
    size: Mapping[str, int] | Sequence[int] | int = dataclasses.field(default_factory=lambda: {"shortest_edge": 224})
    resample: Image.Resampling | int = Image.Resampling.BILINEAR
    do_center_crop: bool = True
    crop_size: Mapping[str, int] | Sequence[int] | int = 224
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_normalize: bool = True
    image_mean: float | Sequence[float] = (0.5, 0.5, 0.5)
    image_std: float | Sequence[float] = (0.5, 0.5, 0.5)
    do_convert_rgb: bool = False

    # Ours.
    resize_backend: Literal["pil", "opencv"] = "pil"
    num_frames: int = 16
    frame_stride: int | None = None

    def __post_init__(self):
        spellings = {
            "size": _sides("size", self.size, SIZES),
            "crop_size": _sides("crop_size", self.crop_size, (("height", "width"),)),
            "resample": _filter(self.resample),
            "image_mean": _statistics("image_mean", self.image_mean),
            "image_std": _statistics("image_std", self.image_std),
        }
        for name, value in spellings.items():
            object.__setattr__(self, name, value)
        self._check()

    def _check(self):
        for name, value in vars(self).items():
            if name.startswith("do_") and not isinstance(value, bool):
                raise ValueError(f"{name} must be True or False, got {value!r}.")
        if not _is_number(self.rescale_factor) or self.rescale_factor <= 0:
            raise ValueError(f"rescale_factor must be a positive number, got {self.rescale_factor!r}.")
        if np.min(self.image_std) <= 0:
            raise ValueError(f"image_std must be positive, got {self.image_std}.")
        if len({len(x) for x in (self.image_mean, self.image_std) if isinstance(x, tuple)}) > 1:
            raise ValueError(f"image_mean={self.image_mean} and image_std={self.image_std} are not equally many.")
        if not _is_count(self.num_frames):
            raise ValueError(f"num_frames must be a whole number of at least 1, got {self.num_frames!r}.")
        if self.frame_stride is not None and not _is_count(self.frame_stride):
            raise ValueError(f"frame_stride must be None or a whole number of at least 1, got {self.frame_stride!r}.")
        if self.resize_backend not in ("pil", "opencv"):
            raise ValueError(f"resize_backend must be 'pil' or 'opencv', got {self.resize_backend!r}.")
        if self.resize_backend == "opencv" and not (
            self.do_resize
            and self.do_center_crop
            and tuple(self.size) == ("shortest_edge",)
            and self.resample == Image.Resampling.BILINEAR
        ):
            raise ValueError(
                "resize_backend='opencv' crops and resizes in one and chooses between linear and area itself: it needs "
                "do_resize=True, do_center_crop=True, size={'shortest_edge': ...} and resample=2, got "
                f"do_resize={self.do_resize}, do_center_crop={self.do_center_crop}, size={self.size} and "
                f"resample={self.resample}. resize_backend='pil' takes any."
            )

    @classmethod
    def for_model(cls, config: VideoMAEConfig, **options: Any) -> Self:
        """The processor of a model's clips: its height, width, frames and statistics.

        Args:
          config: the model's.
          **options: the others.
        """
        _, height, width = config.clip_size
        of_model = {
            "size": {"shortest_edge": min(height, width)},
            "crop_size": {"height": height, "width": width},
            "image_mean": config.pixel_mean,
            "image_std": config.pixel_std,
            "num_frames": config.num_frames,
        }
        return cls(**of_model | options)

    @classmethod
    def from_pretrained(cls, name: str | Path, *, revision: str | None = None, **overrides: Any) -> Self:
        """The processor saved with a model, by us or by transformers, whatever else is in its file.

        Args:
          name: a folder with `preprocessor_config.json` (or transformers' `video_preprocessor_config.json`), a run's
            folder with `model/` in it, such a file, or a Hugging Face Hub id.
          revision: branch, tag or commit on the Hub.
          **overrides: options of this class.

        Raises:
          ValueError: no such file or Hub id, or a bad option in it.
        """
        path = locate(name, revision=revision, patterns=(*PROCESSOR_FILES, CONFIG_FILE))
        file = path if path.is_file() else find_processor(path)
        if file is None:
            raise ValueError(f"{path} has neither {' nor '.join(PROCESSOR_FILES)}.")
        content = read_json(file)
        config = file.parent / CONFIG_FILE
        if "num_frames" not in content and config.is_file() and (frames := read_json(config).get("num_frames")):
            content["num_frames"] = frames  # transformers' processors do not say
        try:
            known = {name: value for name, value in content.items() if name in _option_names()}
            saved = VideoMAEImageProcessor(**known)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
        return cls(**vars(saved) | _given(overrides))

    def to_dict(self) -> dict[str, Any]:
        """The options as JSON has them, with `image_processor_type` for transformers' AutoImageProcessor."""
        options = dataclasses.asdict(self).items()
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in options}
        return {"image_processor_type": VideoMAEImageProcessor.__name__, **plain}

    def save_pretrained(self, directory: str | Path) -> None:
        """Writes `preprocessor_config.json`, which transformers reads too; it does not know the options of ours.

        Args:
          directory: is made if need be.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / PROCESSOR_FILE).write_text(json.dumps(self.to_dict(), indent=2) + "\n")

    def preprocess(
        self,
        videos: Video | Sequence[Video],
        *,
        return_tensors: Literal["np", "jax"] = "np",
        data_format: DataFormat = "channels_last",
        input_data_format: DataFormat | None = None,
        **overrides: Any,
    ) -> ProcessedVideos:
        """Makes clips of videos.

        Args:
          videos: one or a list of them. A video is a list of frames (Pillow's images, arrays [H W C], [C H W] or
            [H W]), an array [T H W C] or [T C H W], or the path of a file; an array may also hold a batch of videos.
            A single frame is a video of one. Pixels are in [0, 255], or in [0, 1] with `do_rescale=False`.
          return_tensors: arrays of NumPy or of JAX.
          data_format: of the result, [B T H W C] or [B T C H W].
          input_data_format: of arrays that are given; None finds it out: on the first of the two axes that has 1, 3, 4
            or as many channels as there are statistics.
          **overrides: options of this class, for this call.

        Returns:
          `pixel_values`, float32.

        Raises:
          ValueError: something else than videos, or videos that do not become clips of one size.
          VideoReadError: a file that cannot be read.
        """
        if return_tensors not in ("np", "jax"):
            raise ValueError(
                f"return_tensors must be 'np' or 'jax', got {return_tensors!r}. For another framework take 'np' and "
                "convert, as with torch.from_numpy."
            )
        for name, value, choices in (
            ("data_format", data_format, ("channels_last", "channels_first")),
            ("input_data_format", input_data_format, ("channels_last", "channels_first", None)),
        ):
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}.")
        chosen = VideoMAEImageProcessor(**vars(self) | _given(overrides))

        videos = list_videos(videos)
        _check_alike("has {} frames", [(chosen.num_frames,) if is_path(video) else (len(video),) for video in videos])
        clips = [chosen._fitted(video, input_data_format) for video in videos]
        _check_alike("comes out as {1}x{2} pixels of {3} channels", [clip.shape for clip in clips])
        if chosen.do_rescale and any(map(_looks_rescaled, clips)):
            warnings.warn(
                "These videos look rescaled to [0, 1] already, and are now rescaled again. Pass do_rescale=False.",
                stacklevel=2,
            )
        pixel_values = np.stack([chosen._normalized(clip) for clip in clips])
        if data_format == "channels_first":
            pixel_values = np.ascontiguousarray(np.moveaxis(pixel_values, -1, 2))
        return ProcessedVideos(pixel_values=jnp.asarray(pixel_values) if return_tensors == "jax" else pixel_values)

    __call__ = preprocess

    def _fitted(self, video: FilePath | Sequence[Frame], data_format: DataFormat | None) -> Num[np.ndarray, "T H W C"]:
        """The frames of a video, resized and cropped."""
        if is_path(video):
            frames = self._read(video)
        else:
            channels = {1, 3, 4, *([len(self.image_mean)] if isinstance(self.image_mean, tuple) else [])}
            frames = [to_array(frame, data_format, channels, rgb=self.do_convert_rgb) for frame in video]
        frames = [self._fit(frame) for frame in frames]
        shapes = {"x".join(map(str, frame.shape)) for frame in frames}
        if len(shapes) > 1:
            raise ValueError(
                f"The frames of a video come out as {', '.join(sorted(shapes))} (height, width, channels). "
                "do_center_crop=True or size={'height': ..., 'width': ...} make their sizes equal, do_convert_rgb=True "
                "their channels."
            )
        return np.stack(frames)

    def _read(self, path: FilePath) -> UInt8[np.ndarray, "T H W 3"]:
        with VideoFile(path) as video:
            if self.frame_stride is None:
                return video.read(spread_clip(video.num_frames, self.num_frames))
            return video.read(center_clip(video.num_frames, self.num_frames, self.frame_stride))

    def _fit(self, frame: Num[np.ndarray, "H W C"]) -> Num[np.ndarray, "h w C"]:
        """A frame resized and cropped."""
        out_size = self.crop_size["height"], self.crop_size["width"]
        if self.resize_backend == "opencv":
            if frame.dtype != np.uint8 or frame.shape[-1] != 3:
                raise ValueError(
                    f"resize_backend='opencv' takes frames of uint8 with 3 channels, as videos have them, got "
                    f"{frame.dtype} with {frame.shape[-1]}. resize_backend='pil' takes others."
                )
            box = center_crop_box(*frame.shape[:2], out_size, scale=min(out_size) / self.size["shortest_edge"])
            return crop_resize(frame, box, out_size)
        if self.do_resize:
            frame = resize(frame, resized_size(*frame.shape[:2], self.size), self.resample)
        return center_crop(frame, out_size) if self.do_center_crop else frame

    def _normalized(self, clip: Num[np.ndarray, "T H W C"]) -> Float32[np.ndarray, "T H W C"]:
        if self.do_rescale:
            clip = rescale(clip, self.rescale_factor)
        if self.do_normalize:
            # Other precisions than single keep theirs, as in transformers.
            clip = clip if np.issubdtype(clip.dtype, np.floating) else clip.astype(np.float32)
            for name in ("image_mean", "image_std"):
                value = getattr(self, name)
                if isinstance(value, tuple) and len(value) != clip.shape[-1]:
                    raise ValueError(
                        f"{name} has {len(value)} numbers, but the frames have {clip.shape[-1]} channels. "
                        "do_convert_rgb=True makes grey and transparent frames RGB; a single number is for any."
                    )
            clip = (clip - np.array(self.image_mean, clip.dtype)) / np.array(self.image_std, clip.dtype)
        return clip.astype(np.float32, copy=False)


class VideoMAEFeatureExtractor(VideoMAEImageProcessor):
    """The old name of `VideoMAEImageProcessor`, still on the cards of models."""

    def __init__(self, **options: Any):
        warnings.warn(
            "VideoMAEFeatureExtractor is the old name of VideoMAEImageProcessor.", FutureWarning, stacklevel=2
        )
        super().__init__(**options)


def _option_names() -> list[str]:
    return [field.name for field in dataclasses.fields(VideoMAEImageProcessor)]


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, with False for a None of what is done or not, and without other Nones that are no value."""
    check_names(options, _option_names(), "VideoMAEImageProcessor has no option")
    given = {}
    for name, value in options.items():
        if value is None and name.startswith("do_"):
            value = False
        if value is not None or name == "frame_stride":
            given[name] = value
    return given


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _sides(name: str, value: Any, allowed: tuple[tuple[str, ...], ...]) -> dict[str, int]:
    """One spelling of a size: a dictionary with the keys of `allowed`, in that order."""
    sides = value
    if isinstance(value, int):
        sides = dict.fromkeys(allowed[0], value)
    elif isinstance(value, (tuple, list)) and len(value) == 2:
        sides = dict(zip(("height", "width"), value, strict=True))
    keys = next((keys for keys in allowed if isinstance(sides, Mapping) and set(keys) == set(sides)), None)
    if keys is None or not all(map(_is_count, sides.values())):
        choices = " or ".join("{" + ", ".join(f"'{key}': ..." for key in keys) + "}" for keys in allowed)
        raise ValueError(f"{name} must be {choices} in whole pixels, got {value!r}.")
    return {key: sides[key] for key in keys}


def _filter(value: Any) -> int:
    try:
        return Image.Resampling(value).value
    except ValueError:
        known = ", ".join(f"{member.value} ({member.name.lower()})" for member in Image.Resampling)
        raise ValueError(f"resample must be one of Pillow's filters {known}, got {value!r}.") from None


def _statistics(name: str, value: Any) -> float | tuple[float, ...]:
    numbers = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if not numbers or not all(map(_is_number, numbers)):
        raise ValueError(f"{name} must be a number, or a list with one for each channel, got {value!r}.")
    return numbers if isinstance(value, (tuple, list)) else value


def _check_alike(what: str, shapes: list[tuple[int, ...]]) -> None:
    odd = next((number for number, shape in enumerate(shapes) if shape != shapes[0]), None)
    if odd is not None:
        raise ValueError(
            f"Video 0 {what.format(*shapes[0])} and video {odd} {what.format(*shapes[odd])}: clips of different sizes "
            "cannot be one array. Make them equal, or process the videos one by one."
        )


def _looks_rescaled(clip: Num[np.ndarray, "T H W C"]) -> bool:
    return np.issubdtype(clip.dtype, np.floating) and clip.min() >= 0 and 0 < clip.max() <= 1
