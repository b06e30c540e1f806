"""Features of videos, for what is to be learned from them: temporal localisation, retrieval, probes.

    python -m videomae_jax.inference.features CHECKPOINT FOLDER --out features

writes one NPZ a video of the folder and its sub-folders, `FOLDER/a/b.mp4` to `features/a/b.mp4.npz`, with the arrays
of `Features`. What is there already is left alone, so that the same command goes on where it was interrupted.
"""

import argparse
import sys
from pathlib import Path
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Float, Float32, Float64
from tqdm import tqdm

from videomae_jax.commands import faults_as_lines
from videomae_jax.data.files import is_video
from videomae_jax.data.frames import VideoReadError
from videomae_jax.data.processor import VideoMAEImageProcessor
from videomae_jax.data.video import VideoFile
from videomae_jax.inference.opened import opened
from videomae_jax.inference.windows import stride_of, windows_of
from videomae_jax.model.readout import Model, pooled_features
from videomae_jax.model.videomae import VideoMAEForPreTraining, VideoMAEForVideoClassification, VideoMAEModel

Of = Literal["clip", "frame", "token"]
KINDS = (VideoMAEModel, VideoMAEForPreTraining, VideoMAEForVideoClassification)


class Features(NamedTuple):
    """Features of S windows of a video.

    Attributes:
      start, end: seconds from the video's first frame.
      features: [S D], [S t D] or [S t h w D], by what they are of; with layers [S layers ...].
    """

    start: Float64[np.ndarray, " S"]
    end: Float64[np.ndarray, " S"]
    features: Float32[np.ndarray, "S *layers_and_grid D"]


def extract_features(
    video: str | Path,
    model: Model | str | Path,
    *,
    processor: VideoMAEImageProcessor | None = None,
    of: Of = "clip",
    layers: tuple[int, ...] | None = None,
    stride: int | None = None,
    hop: int | None = None,
) -> Features:
    """What a model's encoder makes of every part of a video.

    Args:
      video: a file.
      model: any of the three, or where to load it from.
      processor: None for the one beside the checkpoint. A model that is loaded already does not bring its own.
      of: "clip" for one vector a window, which is what a classifier sees, or the mean of the tokens; "frame" for the
        mean of each latent frame's tokens; "token" for every token.
      layers: the blocks after which to look, 1 the first, 0 for the embeddings before it, -1 the last; None for the
        encoder's output, after its norm.
      stride: frames of the video from one frame of a clip to the next; None for that of the processor.
      hop: frames of the video from one window to the next; None for windows that touch.

    Raises:
      ValueError: another `of`, a layer that is not there, no stride.
      VideoReadError: the file cannot be read.
    """
    if of not in ("clip", "frame", "token"):
        raise ValueError(f"of must be 'clip', 'frame' or 'token', got {of!r}.")
    model, processor = opened(model, processor, *KINDS)
    config = model.config
    for layer in layers or ():
        if not -config.num_hidden_layers - 1 <= layer <= config.num_hidden_layers:
            raise ValueError(f"layers are 0 (the embeddings) to {config.num_hidden_layers}, got {layer}.")
    starts, ends, features = [], [], []
    with VideoFile(video) as file:
        for start, end, clips in windows_of(
            file, config.num_frames, stride_of(stride, processor), hop, config.clip_size[1:]
        ):
            starts, ends = starts + start, ends + end
            features.append(np.asarray(_features(model, clips, of, layers), np.float32))
    return Features(np.array(starts), np.array(ends), np.concatenate(features))


def _features(model: Model, clips: np.ndarray, of: Of, layers: tuple[int, ...] | None) -> Float[Array, "S *rest D"]:
    if layers is None and of == "clip":
        return pooled_features(model, clips)
    encoder = model if isinstance(model, VideoMAEModel) else model.videomae
    output = encoder(clips, output_hidden_states=layers is not None)
    if layers is None:
        return _means(output.last_hidden_state, of, model.config.grid)
    return jnp.stack([_means(output.hidden_states[layer], of, model.config.grid) for layer in layers], axis=1)


def _means(tokens: Float[Array, "S N D"], of: Of, grid: tuple[int, int, int]) -> Float[Array, "S *grid D"]:
    t, h, w = grid
    tokens = rearrange(tokens.astype(jnp.float32), "s (t h w) d -> s t h w d", t=t, h=h, w=w)
    return tokens.mean(axis={"clip": (1, 2, 3), "frame": (2, 3), "token": ()}[of])


def main(arguments: list[str]) -> None:
    """The command; what the user can mend is one line, and a video that cannot be read is named at the end."""
    parser = argparse.ArgumentParser(
        prog="python -m videomae_jax.inference.features", description=__doc__.split("\n")[0]
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a run's folder, a file or a Hugging Face Hub id")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="of video files, and of folders of such")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write to")
    parser.add_argument("--of", choices=("clip", "frame", "token"), default="clip", help="one vector for each (clip)")
    parser.add_argument("--layers", type=int, nargs="+", help="blocks after which to look (the encoder's output)")
    parser.add_argument("--stride", type=int, help="frames from one frame of a clip to the next (the checkpoint's)")
    parser.add_argument("--hop", type=int, help="frames from one window to the next (windows that touch)")
    options = parser.parse_args(arguments)
    with faults_as_lines("features"):
        broken = write_features(options)
    if broken:
        sys.exit("\n".join([f"features: {len(broken)} videos cannot be read", *map(str, broken)]))


def write_features(options: argparse.Namespace) -> list[VideoReadError]:
    """Writes the features of every video that has none yet, and tells which videos cannot be read."""
    if not options.folder.is_dir():
        raise ValueError(f"{options.folder} is no folder; give the folder that the videos are in")
    videos = sorted(file for file in options.folder.rglob("*") if is_video(file.name) and file.is_file())
    if not videos:
        raise ValueError(f"there is no video file in {options.folder}")
    model, processor = opened(options.checkpoint, None, *KINDS)
    how = {name: getattr(options, name) for name in ("of", "stride", "hop")}
    layers, broken = None if options.layers is None else tuple(options.layers), []
    for video in tqdm(videos, unit="video", disable=None):
        out = options.out / f"{video.relative_to(options.folder)}.npz"
        if out.exists():
            continue
        try:
            features = extract_features(video, model, processor=processor, layers=layers, **how)
        except VideoReadError as error:
            broken.append(error)
            continue
        out.parent.mkdir(parents=True, exist_ok=True)
        unfinished = out.with_suffix(".part")
        with unfinished.open("wb") as file:
            np.savez(file, **features._asdict())
        unfinished.replace(out)
    print(f"features of {len(videos) - len(broken)} videos are in {options.out}")
    return broken


if __name__ == "__main__":
    main(sys.argv[1:])
