"""A public checkpoint, opened: its arrays, the dialect of their names, and the config of its model."""

import dataclasses
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from videomae_jax.config import CONFIG_FILE, PROCESSOR_FILES, SIZES, VideoMAEConfig, statistics_beside
from videomae_jax.fields import read_json
from videomae_jax.hub import locate
from videomae_jax.weights.arrays import is_idle, parts_in, recognise, rule_of
from videomae_jax.weights.files import find_weights, read_arrays
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


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Weights in any of the dialects.

    Attributes:
      file: where the arrays come from.
      dialect: what its names follow.
      arrays: name -> array, all that tell the model's numbers.
      config: the model's.
    """

    file: Path
    dialect: Dialect
    arrays: Mapping[str, np.ndarray]
    config: VideoMAEConfig

    @classmethod
    def open(cls, name: str | Path, *, revision: str | None = None, **overrides: Any) -> Self:
        """Reads a file, a folder, a run's folder or a Hub id.

        The config comes from the `config.json` beside the weights; where there is none, from the arrays, the
        arguments of the run if the file has them, and the published sizes.

        Args:
          name: see `hub.locate`.
          revision: branch, tag or commit on the Hub.
          **overrides: fields of the config (`VideoMAEConfig.adapt`).

        Raises:
          ValueError: nothing there, another kind of file, a model that is not built here; it names the file.
        """
        path = _locate(name, revision)
        file = find_weights(path)
        arrays, arguments = read_arrays(file)
        try:
            dialect = recognise(list(arrays))
        except ValueError as error:
            raise ValueError(f"{file} is {error}") from None
        tables = [array for name, array in arrays.items() if name in dialect.tables]
        arrays = {n: array for n, array in arrays.items() if n not in dialect.tables and not is_idle(n, dialect)}
        # A file that is named may lie among others that have nothing to do with it.
        beside = file.parent / CONFIG_FILE
        content = read_json(beside) if beside.is_file() and (path.is_dir() or dialect.resize == "pil") else {}
        if content and "model_config" not in content:
            config = VideoMAEConfig.from_pretrained(beside, **overrides)
        else:
            try:
                told = _hub_fields(content["model_config"], beside) if content else _run_fields(arguments)
                config = _infer(file, arrays, dialect, told, overrides)
            except ValueError as error:
                raise ValueError(f"{file}: {error}") from None
        for table in tables:
            _check_table(file, table, config)
        return cls(file, dialect, arrays, config)

    def has(self, part: str) -> bool:
        """Whether there are arrays of a part: "encoder", "encoder norm", "decoder", "fc_norm" or "classifier"."""
        return part in parts_in(self.arrays, self.dialect)


def _locate(name: str | Path, revision: str | None) -> Path:
    """The local path. Many a Hub id has its weights twice, and only one of them is to be downloaded."""
    configs = (CONFIG_FILE, *PROCESSOR_FILES, "*.index.json")
    path = locate(name, revision=revision, patterns=(*configs, "model.safetensors", "model-*-of-*.safetensors"))
    if path.is_file() or any(path.glob("*.safetensors")):
        return path
    return locate(name, revision=revision, patterns=(*configs, "pytorch_model.bin", "pytorch_model-*-of-*.bin"))


def _infer(
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


def _run_fields(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The clip that a run of the original was trained on: its arguments `input_size` and `num_frames`."""
    names = {"input_size": "image_size", "num_frames": "num_frames"}
    return {ours: arguments[theirs] for theirs, ours in names.items() if theirs in arguments}


def _hub_fields(content: Mapping[str, Any], file: Path) -> dict[str, Any]:
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


def _check_table(file: Path, table: np.ndarray, config: VideoMAEConfig) -> None:
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
