"""The configuration of a VideoMAE model, a frozen dataclass with Hugging Face's field names; the table of sizes."""

import dataclasses
import functools
import json
import math
import numbers
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from videomae_jax.fields import check_names, read_json
from videomae_jax.hub import locate
from videomae_jax.labels import inverse, labels_of

CONFIG_FILE = "config.json"
# Of the image processor, ours and transformers'; of transformers' video processor, where there is no other.
PROCESSOR_FILE = "preprocessor_config.json"
PROCESSOR_FILES = (PROCESSOR_FILE, "video_preprocessor_config.json")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu")
# Before the activation's name in files of models that transformers would run as others, whichever of its classes is
# asked to: no version of it knows such an activation.
NOT_FOR_TRANSFORMERS = "videomae_jax:"
# What training keeps of each block for the backward pass, which computes the rest again from the block's input:
# everything; the products with weights and attention's results; nothing.
Remat = Literal["none", "dots", "full"]
# Hugging Face's names: one class a clip, any number of them, numbers.
SINGLE_LABEL = "single_label_classification"
MULTI_LABEL = "multi_label_classification"
REGRESSION = "regression"
PROBLEM_TYPES = (REGRESSION, SINGLE_LABEL, MULTI_LABEL)


def _with_other_spellings(cls: type) -> type:
    """Lets the constructor take what transformers' takes beside the fields: `qv_bias`, `num_labels`, `label2id`."""
    init = cls.__init__

    @functools.wraps(init)
    def __init__(self, *, qv_bias=None, num_labels=None, label2id=None, **fields):
        check_names(fields, (field.name for field in dataclasses.fields(cls)), "VideoMAEConfig has no field")
        if qv_bias is not None:  # transformers 5's name
            fields["qkv_bias"] = qv_bias
        fields["id2label"] = labels_of(num_labels, fields.get("id2label"), label2id)
        init(self, **fields)

    cls.__init__ = __init__
    return cls


@_with_other_spellings
@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoMAEConfig:
    """Shape and behaviour of a VideoMAE model.

    Names and defaults are those of `transformers.VideoMAEConfig` (5.23); the fields under "ours" are what it cannot
    express, and their defaults mean Hugging Face's model. As there, the constructor also takes `qv_bias` for
    `qkv_bias`, `num_labels` for a number of unnamed classes, and `label2id`. What transformers keeps in a config of how
    a model is called (`output_attentions`, `output_hidden_states`) is said at the call; what concerns PyTorch alone
    (`attn_implementation`, `return_dict`, `chunk_size_feed_forward`) is left out.

    Raises:
      ValueError: an unknown field or one out of range, or a clip whose sides are not divisible by the patch.
    """

    image_size: int | tuple[int, int] = 224  # pixels; (height, width) for a rectangle
    patch_size: int | tuple[int, int] = 16  # pixels; (height, width)
    num_channels: int = 3
    num_frames: int = 16
    tubelet_size: int = 2  # frames in one token
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"  # one of ACTIVATIONS; "gelu" is the exact one, with erf
    hidden_dropout_prob: float = 0.0  # after attention's output and after the MLP
    attention_probs_dropout_prob: float = 0.0
    initializer_range: float = 0.02  # deviation of a new classification model's linear layers
    layer_norm_eps: float = 1e-12  # the original: 1e-6
    qkv_bias: bool = True  # learned biases for query and value; the key never has one
    use_mean_pooling: bool = True
    decoder_hidden_size: int = 384
    decoder_num_hidden_layers: int = 4
    decoder_num_attention_heads: int = 6
    decoder_intermediate_size: int = 1536
    norm_pix_loss: bool = True
    id2label: Mapping[int, str] | None = None  # names of the classes; None: two unnamed ones, as in transformers
    problem_type: str | None = None  # one of PROBLEM_TYPES; None: what the labels look like

    # Ours.
    decoder_norm_eps: float = 1e-5  # LayerNorm after the decoder; the original: 1e-6
    head_norm_eps: float = 1e-5  # LayerNorm of the pooling: fc_norm, or the attentive pooler's; the original: 1e-6
    drop_path_rate: float = 0.0  # of the last encoder block; falls linearly to 0 at the first
    head_dropout_prob: float = 0.0  # before the classifier
    # The classifier sees what one learned query takes of all tokens (V-JEPA's attentive probe), instead of their mean.
    attentive_pooling: bool = False
    position_embedding_type: Literal["sincos_1d", "sincos_3d"] = "sincos_1d"
    position_grid: tuple[int, int, int] | None = None  # (t, h, w) of the table, resampled to others; None: the grid
    image_mean: tuple[float, ...] | None = None  # pixel statistics in [0, 1]; None: ImageNet's for RGB, else 0 and 1
    image_std: tuple[float, ...] | None = None

    def __post_init__(self):
        # JSON and command lines turn tuples into lists and 224 into (224,); keep one spelling, hashable.
        for name in ("image_size", "patch_size"):
            value = getattr(self, name)
            sides = tuple(value) if isinstance(value, (tuple, list)) else (value,)
            if len(sides) not in (1, 2) or not all(isinstance(side, int) and side > 0 for side in sides):
                raise ValueError(f"{name} must be one whole number or (height, width), at least 1, got {value!r}.")
            object.__setattr__(self, name, sides[0] if len(set(sides)) == 1 else sides)
        for name in ("image_mean", "image_std"):
            value = getattr(self, name)
            if value is not None:
                if not isinstance(value, (tuple, list)) or not all(map(_is_number, value)):
                    raise ValueError(f"{name} must be a list of numbers, one for each channel, got {value!r}.")
                object.__setattr__(self, name, tuple(value))
                if len(value) != self.num_channels:
                    raise ValueError(f"{name}={value} needs one number for each of num_channels={self.num_channels}.")
        self._check()
        if self.position_grid is not None:
            grid = tuple(self.position_grid)
            if len(grid) != 3 or not all(isinstance(side, int) and side > 0 for side in grid):
                raise ValueError(f"position_grid must be three whole numbers (t, h, w), got {self.position_grid!r}.")
            object.__setattr__(self, "position_grid", None if grid == self.grid else grid)

    def _check(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int and not (type(value) is int and value > 0):
                raise ValueError(f"{field.name} must be a whole number of at least 1, got {value!r}.")
            if field.type is float and not (_is_number(value) and value >= 0):
                raise ValueError(f"{field.name} must be a number of at least 0, got {value!r}.")
            if field.type is bool and not isinstance(value, bool):
                raise ValueError(f"{field.name} must be True or False, got {value!r}.")
        if min(self.pixel_std) <= 0:
            raise ValueError(f"image_std={self.image_std} must be positive.")
        for name, size, patch in zip(
            ("num_frames", "image height", "image width"), self.clip_size, self.patch, strict=True
        ):
            if size % patch:
                raise ValueError(
                    f"{name} {size} is not divisible by the patch's {patch}: "
                    f"image_size={self.image_size}, patch_size={self.patch_size}, "
                    f"num_frames={self.num_frames}, tubelet_size={self.tubelet_size}."
                )
        for width, heads in (
            ("hidden_size", "num_attention_heads"),
            ("decoder_hidden_size", "decoder_num_attention_heads"),
        ):
            if getattr(self, width) % getattr(self, heads):
                raise ValueError(f"{width}={getattr(self, width)} is not divisible by {heads}={getattr(self, heads)}.")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate", "head_dropout_prob"):
            if getattr(self, name) >= 1:
                raise ValueError(f"{name} must be less than 1, got {getattr(self, name)!r}.")
        for name, choices in (
            ("position_embedding_type", ("sincos_1d", "sincos_3d")),
            ("hidden_act", ACTIVATIONS),
            ("problem_type", (None, *PROBLEM_TYPES)),
        ):
            if getattr(self, name) not in choices:
                listed = ", ".join(map(repr, choices))
                raise ValueError(f"{name} must be one of {listed}, got {getattr(self, name)!r}.")
        if self.problem_type == SINGLE_LABEL and self.num_labels == 1:
            raise ValueError("problem_type='single_label_classification' needs more than one class; num_labels is 1.")
        if self.attentive_pooling and self.use_mean_pooling:
            raise ValueError(
                "attentive_pooling=True takes the place of use_mean_pooling=True, and needs a norm after the encoder, "
                "which models that pool by mean do without: pass use_mean_pooling=False."
            )
        if self.position_embedding_type == "sincos_3d":
            for name in ("hidden_size", "decoder_hidden_size"):
                if getattr(self, name) % 16:
                    raise ValueError(
                        f"position_embedding_type='sincos_3d' splits the width over t, h and w: {name} must be a "
                        f"multiple of 16, got {getattr(self, name)}."
                    )

    @classmethod
    def from_size(cls, size: str, **overrides: Any) -> "VideoMAEConfig":
        """The original's model of one size, pre-training variant (LayerNorm eps 1e-6, a norm after the encoder).

        Args:
          size: a name in `SIZES`; the V2 decoders of large and huge are the names ending in `_v2`.
          **overrides: fields of this class.
        """
        if size not in SIZES:
            raise ValueError(f"size must be one of {', '.join(SIZES)}, got {size!r}.")
        return cls(**{**ORIGINAL, **SIZES[size], **overrides})

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """A config from the content of a `config.json`, ours or transformers'; other keys in it are left out."""
        names = {field.name for field in dataclasses.fields(cls)} | {"qv_bias"}
        if content.get("id2label") is None:
            names |= {"num_labels", "label2id"}
        fields = {name: value for name, value in content.items() if name in names}
        if isinstance(fields.get("hidden_act"), str):
            fields["hidden_act"] = fields["hidden_act"].removeprefix(NOT_FOR_TRANSFORMERS)
        return cls(**fields)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON has them, with `label2id` as transformers writes it."""
        content = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        labels = {"id2label": {str(number): label for number, label in self.id2label.items()}}
        return content | labels | {"label2id": dict(self.label2id)}

    @classmethod
    def from_pretrained(cls, name: str | Path, *, revision: str | None = None, **overrides: Any) -> Self:
        """The config of a saved model, of ours or transformers', changed by `overrides` (`adapt`).

        Statistics of a `preprocessor_config.json` beside it become `image_mean` and `image_std`, which raw pixels and
        the loss need.

        Args:
          name: a folder with `config.json`, such a file, a run's folder with `model/` in it, or a Hugging Face Hub id.
          revision: branch, tag or commit on the Hub.

        Raises:
          ValueError: no such folder or Hub id, another kind of model, a bad field.
        """
        path = locate(name, revision=revision, patterns=(CONFIG_FILE, *PROCESSOR_FILES))
        file = path / CONFIG_FILE if path.is_dir() else path
        if not file.is_file():
            raise ValueError(f"{path} has no {CONFIG_FILE}.")
        content = read_json(file)
        if content.get("model_type") not in ("videomae", "videomae_jax"):
            raise ValueError(f"{file} is of a {content.get('model_type')!r} model, not of VideoMAE.")
        if "num_attention_heads" not in overrides:
            content = _with_heads(content, file)
        if content.get("image_mean") is None and content.get("image_std") is None:
            content = content | statistics_beside(file, content.get("num_channels", 3))
        try:
            config = cls.from_dict(content)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{file}: {error}") from None
        return config.adapt(**overrides)

    def adapt(self, **overrides: Any) -> Self:
        """The config of a trained model with other values.

        For another clip the trained position table is resampled from its own grid, unless `position_grid` says
        otherwise (None: a fresh table). Another number of labels forgets their names.
        """
        if overrides.get("num_labels", self.num_labels) != self.num_labels or "label2id" in overrides:
            overrides.setdefault("id2label", None)
        changed = dataclasses.replace(self, **overrides)
        if "position_grid" in overrides:
            return changed
        return dataclasses.replace(changed, position_grid=self.native_grid)

    def save_pretrained(self, directory: str | Path, *, architecture: str | None = None) -> None:
        """Writes `config.json`.

        transformers ignores fields that it does not know and would run a model with other position tables without a
        word, so such a model (`inexpressible`) is not called `videomae` there, and its activation has a name that
        transformers' classes stop at.

        Args:
          directory: is made if need be.
          architecture: the name of the model's class.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        content = {"architectures": None if architecture is None else [architecture], "model_type": "videomae"}
        content |= self.to_dict()
        if self.inexpressible(architecture):
            content |= {"model_type": "videomae_jax", "hidden_act": NOT_FOR_TRANSFORMERS + self.hidden_act}
        (directory / CONFIG_FILE).write_text(json.dumps(content, indent=2) + "\n")

    def inexpressible(self, architecture: str | None = None) -> list[str]:
        """What transformers has no way to say and what changes the numbers of a model: fields with their values.

        Args:
          architecture: the name of the model's class; None for any.
        """
        problems = []
        if self.position_embedding_type != "sincos_1d":
            problems.append(f"position_embedding_type={self.position_embedding_type!r}")
        if self.position_grid is not None:
            problems.append(f"position_grid={self.position_grid}")
        if self.attentive_pooling and architecture in (None, "VideoMAEForVideoClassification"):
            problems.append("attentive_pooling=True")
        if architecture not in (None, "VideoMAEForPreTraining"):
            return problems
        if isinstance(self.patch_size, tuple):
            problems.append(f"patch_size={self.patch_size}")
        # Its loss knows ImageNet's statistics alone, and no raw pixels but RGB's; normalised cubes do not depend on
        # them, but for the eps of 1e-6.
        if not self.norm_pix_loss and self.num_channels != 3:
            problems.append(f"norm_pix_loss=False with num_channels={self.num_channels}")
        elif not self.norm_pix_loss and (self.pixel_mean, self.pixel_std) != (IMAGENET_MEAN, IMAGENET_STD):
            problems.append(f"norm_pix_loss=False with image_mean={self.pixel_mean}, image_std={self.pixel_std}")
        return problems

    @property
    def qv_bias(self) -> bool:
        """transformers 5's name of `qkv_bias`."""
        return self.qkv_bias

    @property
    def num_labels(self) -> int:
        """How many classes (or regressed numbers) a classification model has."""
        return len(self.id2label)

    @property
    def label2id(self) -> Mapping[str, int]:
        """The number of each named class."""
        return inverse(self.id2label)

    @property
    def native_grid(self) -> tuple[int, int, int]:
        """(t, h, w) that the position table is made for."""
        return self.grid if self.position_grid is None else self.position_grid

    @property
    def clip_size(self) -> tuple[int, int, int]:
        """(T, H, W) of a clip: frames and pixels."""
        return (self.num_frames, *_pair(self.image_size))

    @property
    def patch(self) -> tuple[int, int, int]:
        """(frames, height, width) of the cube of pixels that becomes one token."""
        return (self.tubelet_size, *_pair(self.patch_size))

    @property
    def grid(self) -> tuple[int, int, int]:
        """(t, h, w): tokens along each side of a clip."""
        t, h, w = (size // patch for size, patch in zip(self.clip_size, self.patch, strict=True))
        return t, h, w

    @property
    def num_patches(self) -> int:
        """N, tokens in a clip."""
        t, h, w = self.grid
        return t * h * w

    @property
    def patch_dim(self) -> int:
        """P, numbers in one token's cube of pixels."""
        u, p, q = self.patch
        return u * p * q * self.num_channels

    @property
    def pixel_mean(self) -> tuple[float, ...]:
        """The per-channel mean that pixels in [0, 1] are normalised with."""
        default = IMAGENET_MEAN if self.num_channels == 3 else (0.0,) * self.num_channels
        return default if self.image_mean is None else self.image_mean

    @property
    def pixel_std(self) -> tuple[float, ...]:
        """The per-channel standard deviation that pixels in [0, 1] are normalised with."""
        default = IMAGENET_STD if self.num_channels == 3 else (1.0,) * self.num_channels
        return default if self.image_std is None else self.image_std


def find_processor(folder: Path) -> Path | None:
    """The file of a folder's processor, if there is one."""
    return next((folder / name for name in PROCESSOR_FILES if (folder / name).is_file()), None)


def statistics_beside(file: Path, num_channels: int) -> dict[str, tuple[float, ...]]:
    """`image_mean` and `image_std` of the processor beside a file, unless they are a config's default.

    Raises:
      ValueError: something else than numbers is in it.
    """
    processor = find_processor(file.parent)
    if processor is None:
        return {}
    content = read_json(processor)
    statistics = {}
    for name, default, neutral in (("image_mean", 0.5, 0.0), ("image_std", 0.5, 1.0)):
        value = content.get(name)
        value = default if value is None else value  # transformers' own
        value = value if content.get("do_normalize", True) else neutral
        values = tuple(value) if isinstance(value, (list, tuple)) else (value,) * num_channels
        if not all(map(_is_number, values)):
            raise ValueError(f"{processor}: {name} must be numbers, got {value!r}.")
        statistics[name] = values
    default = VideoMAEConfig(num_channels=num_channels)
    differ = (statistics["image_mean"], statistics["image_std"]) != (default.pixel_mean, default.pixel_std)
    fits = {len(values) for values in statistics.values()} == {num_channels}
    return statistics if differ and fits else {}


def _with_heads(content: dict[str, Any], file: Path) -> dict[str, Any]:
    """The config with the heads that ViT-S was trained with, where transformers' converter wrote others.

    The weights load with either number, and compute something else (transformers PR #22788; V1 modeling_finetune.py,
    vit_small_patch16_224). Configs written here say what they mean.
    """
    ours = "decoder_norm_eps" in content
    if ours or (content.get("hidden_size"), content.get("num_attention_heads")) != (384, 16):
        return content
    warnings.warn(
        f"{file} says 16 attention heads, as transformers' converter wrote for ViT-S; the published one was trained "
        "with 6, and is loaded so. Pass num_attention_heads=16 for a model that was trained with 16.",
        stacklevel=3,
    )
    return content | {"num_attention_heads": 6}


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


# What every size of the original shares (V1 modeling_pretrain.py): LayerNorm eps 1e-6, a norm after the encoder.
ORIGINAL = dict(layer_norm_eps=1e-6, decoder_norm_eps=1e-6, head_norm_eps=1e-6, use_mean_pooling=False)


def _size(width, depth, heads, mlp, decoder_width, decoder_depth, decoder_heads, patch=16):
    return dict(
        patch_size=patch,
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=mlp,
        decoder_hidden_size=decoder_width,
        decoder_num_hidden_layers=decoder_depth,
        decoder_num_attention_heads=decoder_heads,
        decoder_intermediate_size=4 * decoder_width,
    )


# Encoder width, depth, heads, MLP width; decoder width, depth, heads. V1's scripts/*/pretrain.sh and
# modeling_pretrain.py; `_v2` where V2's decoder differs (4 layers for every size, width 512 for huge).
# fmt: off
SIZES: dict[str, dict[str, int]] = {
    "tiny":     _size(128,   4,  4,  512,   64,  2,  2, patch=8),  # ours, for CPUs
    "small":    _size(384,  12,  6, 1536,  192,  4,  3),
    "base":     _size(768,  12, 12, 3072,  384,  4,  6),
    "large":    _size(1024, 24, 16, 4096,  512, 12,  8),
    "large_v2": _size(1024, 24, 16, 4096,  512,  4,  8),
    "huge":     _size(1280, 32, 16, 5120,  640, 12,  8),
    "huge_v2":  _size(1280, 32, 16, 5120,  512,  4,  8),
    "giant":    _size(1408, 40, 16, 6144,  512,  4,  8, patch=14),  # V2 only
}
# fmt: on
