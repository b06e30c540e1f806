"""Writes a checkpoint of any dialect in another one.

    python -m videomae_jax.weights.convert SRC DST --to hf        # a folder that transformers and this package load
    python -m videomae_jax.weights.convert SRC DST.pth --to original

SRC is whatever `from_pretrained` takes. What its files do not tell is said by `--set num_attention_heads=3`.
"""

import argparse
import ast
import dataclasses
import sys
from pathlib import Path

from flax import nnx

from videomae_jax.commands import faults_as_lines
from videomae_jax.config import CONFIG_FILE, ORIGINAL, VideoMAEConfig, find_processor
from videomae_jax.data.processor import VideoMAEImageProcessor
from videomae_jax.fields import check_names
from videomae_jax.model.videomae import VideoMAEForPreTraining, VideoMAEForVideoClassification, VideoMAEModel
from videomae_jax.weights.arrays import to_checkpoint
from videomae_jax.weights.checkpoint import Checkpoint
from videomae_jax.weights.files import write_arrays
from videomae_jax.weights.original import ORIGINAL_FINETUNING, ORIGINAL_PRETRAINING
from videomae_jax.weights.pretrained import flat_params

Model = VideoMAEForPreTraining | VideoMAEForVideoClassification | VideoMAEModel

# What transformers has a number of its own for, or nothing: fields that move the last digits, and fields of training.
EPS = {VideoMAEForPreTraining: ("decoder_norm_eps",), VideoMAEForVideoClassification: ("head_norm_eps",)}
TRAINING = ("drop_path_rate", "head_dropout_prob")


def load(source: str, **overrides) -> tuple[Model, VideoMAEImageProcessor]:
    """The model that a checkpoint holds, with its classifier, with its decoder or the encoder alone; its processor.

    Where no processor is beside it, it is one for the model's clips, with the resize of its dialect.
    """
    checkpoint = Checkpoint.open(source, **overrides)
    cls = VideoMAEModel
    if checkpoint.has("classifier"):
        cls = VideoMAEForVideoClassification
    elif checkpoint.has("decoder"):
        cls = VideoMAEForPreTraining
    model = cls.from_checkpoint(checkpoint)
    folder = checkpoint.file.parent
    if find_processor(folder):
        return model, VideoMAEImageProcessor.from_pretrained(folder)
    return model, VideoMAEImageProcessor.for_model(model.config, resize_backend=checkpoint.dialect.resize)


def to_hf(model: Model, processor: VideoMAEImageProcessor, destination: Path) -> list[str]:
    """Writes the folder that transformers reads: config, weights and processor.

    Returns:
      What transformers will do otherwise, without changing more than the last digits.

    Raises:
      ValueError: transformers has no way to say a field of the model's config that changes what it computes.
    """
    problems = model.config.inexpressible(type(model).__name__)
    if problems:
        raise ValueError(
            f"transformers cannot express {', '.join(problems)}: it would compute something else without a word. "
            "save_pretrained writes the model for this package."
        )
    model.save_pretrained(destination)
    processor.save_pretrained(destination)
    theirs = VideoMAEConfig()
    return [
        f"{name}={getattr(model.config, name)} is {getattr(theirs, name)} in transformers"
        for name in (*EPS.get(type(model), ()), *TRAINING)
        if getattr(model.config, name) != getattr(theirs, name)
    ]


def to_original(model: Model, destination: Path) -> list[str]:
    """Writes the original's `.pth` (with PyTorch) or the same names in `.safetensors`.

    Returns:
      What the original's code has other numbers for.

    Raises:
      ValueError: a model that the original's code does not build.
    """
    config = model.config
    problems = [
        f"{name}={getattr(config, name)!r}"
        for name, only in (("position_embedding_type", "sincos_1d"), ("position_grid", None), ("hidden_act", "gelu"))
        if getattr(config, name) != only
    ]
    pretraining = isinstance(model, VideoMAEForPreTraining)
    if pretraining and config.use_mean_pooling:
        problems.append("use_mean_pooling=True (its pre-training model always has a norm after the encoder)")
    if config.attentive_pooling and isinstance(model, VideoMAEForVideoClassification):
        problems.append("attentive_pooling=True")
    if problems:
        raise ValueError(f"the original's code has no {', '.join(problems)}.")
    destination.parent.mkdir(parents=True, exist_ok=True)
    dialect = ORIGINAL_PRETRAINING if pretraining else ORIGINAL_FINETUNING
    write_arrays(destination, to_checkpoint(flat_params(nnx.split(model)[1]), dialect, config.patch))
    return [
        f"{name}={getattr(config, name)} is {ORIGINAL[name]} in the original"
        for name in ("layer_norm_eps", *EPS.get(type(model), ()))
        if getattr(config, name) != ORIGINAL[name]
    ]


def main(arguments: list[str]) -> None:
    """The command; what the user can mend is one line."""
    parser = argparse.ArgumentParser(prog="python -m videomae_jax.weights.convert", description=__doc__.split("\n")[0])
    parser.add_argument("source", metavar="SRC", help="a folder, a file or a Hugging Face Hub id")
    parser.add_argument("destination", metavar="DST", type=Path, help="a folder for hf; .pth or .safetensors")
    parser.add_argument("--to", required=True, choices=("hf", "original"), help="whose layout to write")
    parser.add_argument("--set", nargs="+", default=[], metavar="FIELD=VALUE", help="what SRC does not tell")
    options = parser.parse_args(arguments)
    overrides = dict(item.split("=", 1) for item in options.set if "=" in item)
    if len(overrides) != len(options.set):
        parser.error(f"--set takes FIELD=VALUE, got {' '.join(options.set)}")
    if options.to == "original" and options.destination.suffix not in (".pth", ".safetensors"):
        parser.error(f"the original's layout is a file, DST.pth or DST.safetensors, not {options.destination}")
    if options.to == "hf" and (options.destination.suffix in (".pth", ".safetensors") or options.destination.is_file()):
        parser.error(f"Hugging Face's layout is a folder, and {options.destination} is a file")
    written = options.destination / CONFIG_FILE if options.to == "hf" else options.destination
    replaced = written.exists()
    overrides = {name: _value(text) for name, text in overrides.items()}
    if options.destination.exists() and Path(options.source).exists() and options.destination.samefile(options.source):
        parser.error(f"{options.destination} would be written over itself")
    with faults_as_lines("convert"):
        check_names(overrides, (field.name for field in dataclasses.fields(VideoMAEConfig)), "there is no field")
        model, processor = load(options.source, **overrides)
        if options.to == "hf":
            notes = to_hf(model, processor, options.destination)
        else:
            notes = to_original(model, options.destination)
    if replaced:
        print(f"note: {options.destination} held a model, which is replaced")
    for note in notes:
        print(f"note: {note}")
    print(f"{type(model).__name__} of {options.source} is in {options.destination}")


def _value(text: str):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


if __name__ == "__main__":
    main(sys.argv[1:])
