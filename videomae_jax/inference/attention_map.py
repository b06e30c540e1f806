"""Where a model looks: how much attention the tokens of a video get, over space and time.

python -m videomae_jax.inference.attention_map CHECKPOINT VIDEO --out attention.png
"""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from videomae_jax.commands import faults_as_lines
from videomae_jax.data.inputs import Video
from videomae_jax.data.processor import VideoMAEImageProcessor
from videomae_jax.inference.drawing import SUFFIXES, draw
from videomae_jax.inference.opened import opened
from videomae_jax.model.inputs import clip_grid
from videomae_jax.model.patches import patchify, to_bytes, unit_pixels, unpatchify
from videomae_jax.model.readout import Model
from videomae_jax.model.videomae import VideoMAEForPreTraining, VideoMAEForVideoClassification, VideoMAEModel


class AttentionMap(NamedTuple):
    """A clip and where a model looks in it.

    Attributes:
      frames: the clip as the model got it, 0 to 255.
      weights: the share of a block's attention that each token gets, the mean over heads and over all tokens that look;
        they sum to 1, and are 1/N each where a model looks everywhere alike.
    """

    frames: UInt8[np.ndarray, "T H W C"]
    weights: Float32[np.ndarray, "t h w"]


def attention_map(
    video: Video,
    model: Model | str | Path,
    *,
    processor: VideoMAEImageProcessor | None = None,
    layer: int = -1,
) -> AttentionMap:
    """How much attention each token of a video gets in one of the encoder's blocks.

    Args:
      video: a file, or frames as the processor takes them.
      model: any of the three, or where to load it from.
      processor: None for the one beside the checkpoint, or else one for the model's clips.
      layer: the block, 0 the first, -1 the last.

    Raises:
      ValueError: a layer that is not there, several videos.
      VideoReadError: a file that cannot be read.
    """
    model, processor = opened(model, processor, VideoMAEModel, VideoMAEForPreTraining, VideoMAEForVideoClassification)
    config = model.config
    if not -config.num_hidden_layers <= layer < config.num_hidden_layers:
        raise ValueError(f"layers are 0 to {config.num_hidden_layers - 1}, got {layer}.")
    clip = processor(video, return_tensors="jax").pixel_values
    if len(clip) != 1:
        raise ValueError(f"attention_map takes one video, got {len(clip)}.")
    encoder, grid = model if isinstance(model, VideoMAEModel) else model.videomae, clip_grid(config, clip)
    weights = encoder(clip, output_attentions=True).attentions[layer][0].mean(axis=(0, 1))
    pixels = unit_pixels(patchify(clip, config.patch), config.pixel_mean, config.pixel_std)
    frames = to_bytes(unpatchify(pixels, config.patch, grid))[0]
    return AttentionMap(np.asarray(frames), np.asarray(weights).reshape(grid))


def overlaid(result: AttentionMap) -> UInt8[np.ndarray, "T H W 3"]:
    """The frames in grey under colours, from blue, the least attention of the clip, to red, the most."""
    T, H, W, _ = result.frames.shape
    least, most = result.weights.min(), result.weights.max()
    levels = np.round(255 * (result.weights - least) / max(most - least, 1e-12)).astype(np.uint8)
    levels = levels.repeat(T // len(levels), axis=0)
    pictures = []
    for frame, level in zip(result.frames, levels, strict=True):
        smooth = cv2.resize(level, (W, H), interpolation=cv2.INTER_LINEAR)
        colours = cv2.applyColorMap(smooth, cv2.COLORMAP_JET)[..., ::-1]
        grey = frame.mean(axis=-1, keepdims=True)
        pictures.append((0.5 * grey + 0.5 * colours).round().astype(np.uint8))
    return np.stack(pictures)


def main(arguments: list[str]) -> None:
    """The command; what the user can mend is one line."""
    parser = argparse.ArgumentParser(
        prog="python -m videomae_jax.inference.attention_map", description=__doc__.split("\n")[0]
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a run's folder, a file or a Hugging Face Hub id")
    parser.add_argument("video", metavar="VIDEO", help="a video file")
    parser.add_argument("--layer", type=int, default=-1, help="the block, from 0; -1 is the last (-1)")
    parser.add_argument("--out", type=Path, default=Path("attention.png"), help=f"a {', '.join(SUFFIXES)} file")
    options = parser.parse_args(arguments)
    if options.out.suffix not in SUFFIXES:
        parser.error(f"--out must end in {', '.join(SUFFIXES)}, got {options.out}")
    with faults_as_lines("attention_map"):
        result = attention_map(options.video, options.checkpoint, layer=options.layer)
        draw(options.out, [("original", result.frames), (f"attention in block {options.layer}", overlaid(result))])
    alike = 1 / result.weights.size
    print(f"tokens get {result.weights.min() / alike:.2f} to {result.weights.max() / alike:.2f} times an even share")
    print(options.out)


if __name__ == "__main__":
    main(sys.argv[1:])
