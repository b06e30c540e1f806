"""The config of a checkpoint that has none of ours: from the arrays' shapes, and from what lies with them."""

import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from videomae_jax.config import CONFIG_FILE, SIZES, VideoMAEConfig, statistics_beside
from videomae_jax.weights.arrays import rule_of
from videomae_jax.weights.rules import Dialect

# Fields of V2's config.json on the Hub, and ours.
HUB_FIELDS = {
    "img_size": "image_size",
    "patch_size": "patch_size",
    "in_chans": "num_channels",
    "num_frames": "num_frames",
    "tubelet_size": "tubelet_size",
    "embed_dim": "hidden_size",
    "depth": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "qkv_bias": "qkv_bias",
    "use_mean_pooling": "use_mean_pooling",
    "layer_norm_eps": "layer_norm_eps",
}


def infer_config(
    file: Path,
    arrays: Mapping[str, np.ndarray],
    dialect: Dialect,
    told: Mapping[str, Any],
    overrides: Mapping[str, Any],
) -> VideoMAEConfig:
    """The config that the arrays' shapes tell; the rest as published, with a warning that says what was assumed.

    Raises:
      ValueError: no video model's arrays, or a width that no published model has and nothing that tells its heads.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    depths: Counter[str] = Counter()
    for name, array in arrays.items():
        if rule := rule_of(name, dialect):
            shapes[rule.ours] = array.shape
            depths[rule.ours.split("/layer/")[0]] += rule.ours.endswith("layernorm_before/scale")
    if len(shapes["videomae/embeddings/projection/kernel"]) != 5 or not depths["videomae/encoder"]:
        raise ValueError(
            "this is no video model: its patch embedding has the shape "
            f"{list(shapes['videomae/embeddings/projection/kernel'])}, not [D, C, frames, height, width], or it has no "
            "blocks."
        )
    width, channels, tubelet, *patch = shapes["videomae/embeddings/projection/kernel"]
    fields = dict(
        num_channels=channels,
        tubelet_size=tubelet,
        patch_size=tuple(patch),
        hidden_size=width,
        num_hidden_layers=depths["videomae/encoder"],
        intermediate_size=shapes["videomae/encoder/layer/mlp/intermediate/kernel"][0],
        qkv_bias="videomae/encoder/layer/attention/qkv/q_bias" in shapes,
        use_mean_pooling="videomae/layernorm/scale" not in shapes,
        attentive_pooling="pooler/query" in shapes,
    )
    published = [size for name, size in SIZES.items() if name != "tiny"]
    fields = {**next((size for size in published if size["hidden_size"] == width), {}), **fields}
    assumed = ["num_attention_heads"]
    if "encoder_to_decoder/kernel" in shapes and depths["decoder/decoder_layers"]:
        decoder_width = shapes["encoder_to_decoder/kernel"][0]
        published_heads = {size["decoder_hidden_size"]: size["decoder_num_attention_heads"] for size in published}
        fields |= dict(
            decoder_hidden_size=decoder_width,
            decoder_num_hidden_layers=depths["decoder/decoder_layers"],
            decoder_num_attention_heads=published_heads.get(decoder_width),
            decoder_intermediate_size=shapes["decoder/decoder_layers/layer/mlp/intermediate/kernel"][0],
        )
        assumed.append("decoder_num_attention_heads")
    if "classifier/kernel" in shapes:
        fields["num_labels"] = shapes["classifier/kernel"][0]
    fields |= dialect.fields | {"use_mean_pooling": fields["use_mean_pooling"]} | told
    assumed += ["image_size", "num_frames"]
    # What nothing else tells of the trained model, the caller may. Where the clip is told, another one is a change.
    fields |= {name: overrides[name] for name in assumed if name in overrides and name not in told}
    heads = [name for name in assumed if name.endswith("heads")]
    if any(fields.get(name) is None for name in heads):
        raise ValueError(
            f"no published model has the width {width}, or its decoder's, and the arrays do not tell how many heads it "
            f"has: pass {' and '.join(heads)}."
        )
    config = VideoMAEConfig(**fields).adapt(**overrides)
    guesses = [f"{name}={getattr(config, name)}" for name in assumed if name not in told and name not in overrides]
    if guesses:
        warnings.warn(
            f"{file} does not say, and is taken for the published {', '.join(guesses)}. Pass what is otherwise.",
            stacklevel=4,
        )
    return config


def run_fields(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The clip that a run of the original was trained on: its arguments `input_size` and `num_frames`."""
    names = {"input_size": "image_size", "num_frames": "num_frames"}
    return {ours: arguments[theirs] for theirs, ours in names.items() if theirs in arguments}


def hub_fields(content: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """V2's `model_config` in a file of the Hub.

    Raises:
      ValueError: parts of V2's model that no published recipe uses and that are not built.
    """
    for name in ("cos_attn", "init_values", "use_learnable_pos_emb", "qk_scale"):
        if content.get(name):
            raise ValueError(f"{name}={content[name]} in {CONFIG_FILE} is not built.")
    fields = {ours: content[theirs] for theirs, ours in HUB_FIELDS.items() if theirs in content}
    fields |= statistics_beside(file, fields.get("num_channels", 3))
    return fields | {"head_norm_eps": fields.get("layer_norm_eps", 1e-6)}


def check_table(file: Path, table: np.ndarray, config: VideoMAEConfig) -> None:
    """Raises a ValueError unless a stored table is the published one for the config's clip."""
    # Its first column is the sine of the token's number; a learned one's is not.
    number = np.arange(table.shape[1])
    t, h, w = config.native_grid
    if table.shape[1] != t * h * w:
        raise ValueError(
            f"{file} has positions for {table.shape[1]} tokens, the config for {t}x{h}x{w}: pass image_size and "
            "num_frames that it was trained with."
        )
    if not np.allclose(table[0, :, 0], np.sin(number), atol=1e-5):
        raise ValueError(f"{file} has learned positions; only the published sine-cosine table is built.")
