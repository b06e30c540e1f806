"""The configuration of a VideoMAE model, a frozen dataclass with Hugging Face's field names; the table of sizes."""

import dataclasses
from typing import Any, Literal

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoMAEConfig:
    """Shape and behaviour of a VideoMAE model.

    Names and defaults are those of `transformers.VideoMAEConfig` (5.23); the fields under "ours" are what it cannot
    express, and their defaults mean Hugging Face's model.

    Raises:
      ValueError: a field out of range, or a clip whose sides are not divisible by the patch.
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
    layer_norm_eps: float = 1e-12  # the original: 1e-6
    qkv_bias: bool = True  # learned biases for query and value; the key never has one
    use_mean_pooling: bool = True
    decoder_hidden_size: int = 384
    decoder_num_hidden_layers: int = 4
    decoder_num_attention_heads: int = 6
    decoder_intermediate_size: int = 1536
    norm_pix_loss: bool = True

    # Ours.
    decoder_norm_eps: float = 1e-5  # LayerNorm after the decoder; the original: 1e-6
    position_embedding_type: Literal["sincos_1d", "sincos_3d"] = "sincos_1d"
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
                object.__setattr__(self, name, tuple(value))
                if len(value) != self.num_channels:
                    raise ValueError(f"{name}={value} needs one number for each of num_channels={self.num_channels}.")
        self._check()

    def _check(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int and not (isinstance(value, int) and value > 0):
                raise ValueError(f"{field.name} must be a whole number of at least 1, got {value!r}.")
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
        if self.position_embedding_type not in ("sincos_1d", "sincos_3d"):
            raise ValueError(
                f"position_embedding_type must be 'sincos_1d' or 'sincos_3d', got {self.position_embedding_type!r}."
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
        fields = dict(ORIGINAL, **SIZES[size])
        unknown = set(overrides) - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise ValueError(f"VideoMAEConfig has no field {', '.join(sorted(unknown))}.")
        return cls(**{**fields, **overrides})

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


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


# What every size of the original shares (V1 modeling_pretrain.py): LayerNorm eps 1e-6, a norm after the encoder.
ORIGINAL = dict(layer_norm_eps=1e-6, decoder_norm_eps=1e-6, use_mean_pooling=False)


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
