"""What a pre-trained model makes of a video that is mostly hidden.

    python -m videomae_jax.inference.reconstruct CHECKPOINT VIDEO --mask-ratio 0.9 --kind tube --out strip.png

The suffix of `--out` says what is drawn: `.png` for some frames side by side, `.gif` or `.mp4` for all of them.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, UInt8

from videomae_jax.commands import faults_as_lines
from videomae_jax.data.inputs import Video
from videomae_jax.data.processor import VideoMAEImageProcessor
from videomae_jax.inference.drawing import SUFFIXES, draw
from videomae_jax.inference.opened import opened
from videomae_jax.model.completion import Statistics, complete
from videomae_jax.model.inputs import clip_grid
from videomae_jax.model.masking import Mask, ids_from_mask
from videomae_jax.model.patches import patchify, to_bytes, unit_pixels, unpatchify
from videomae_jax.model.videomae import VideoMAEForPreTraining

HOW = {
    "visible": "colours and contrast from the visible patches",
    "true": "colours and contrast of the hidden patches themselves, not predicted",
    "raw": "raw pixels, predicted",
}


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """A clip, what a model saw of it, and what it made of that.

    Attributes:
      original, masked, reconstruction: frames in [0, 255]. Hidden is grey; visible pixels are the original's in all.
      mask: True where a token was hidden.
      loss: the model's, on this clip and mask.
      how: where the colours and the contrast of the hidden patches are from.
    """

    original: UInt8[np.ndarray, "T H W C"]
    masked: UInt8[np.ndarray, "T H W C"]
    reconstruction: UInt8[np.ndarray, "T H W C"]
    mask: Bool[np.ndarray, "t h w"]
    loss: float
    how: str


def reconstruct(
    model: VideoMAEForPreTraining | str | Path,
    video: Video,
    *,
    processor: VideoMAEImageProcessor | None = None,
    mask_ratio: float = 0.9,
    kind: str = "tube",
    seed: int = 0,
    statistics: Statistics = "visible",
) -> Reconstruction:
    """Hides most of a video from a model and has it reconstruct that.

    Most models predict patches without their mean and deviation (`norm_pix_loss`). With `statistics="visible"` these
    come from the visible patches around, and nothing in the picture is from what was hidden. With "true" they are the
    hidden patches' own, as in the original's demo, which makes any model look better than it is. Models of raw pixels
    predict them, and take neither.

    Args:
      model: pre-trained, or where to load it from.
      video: a file, or frames as the processor takes them.
      processor: None for the one beside the checkpoint, or else one for the model's clips.
      mask_ratio: the share that is hidden.
      kind: of mask, see `model.masking.Mask`.
      seed: of the mask.
      statistics: "visible" or "true".

    Raises:
      ValueError: a model without a decoder, another `statistics`, a mask that the clip does not allow.
      VideoReadError: a file that cannot be read.
    """
    if statistics not in ("visible", "true"):
        raise ValueError(f"statistics must be 'visible' or 'true', got {statistics!r}.")
    model, processor = opened(model, processor, VideoMAEForPreTraining)
    config = model.config
    clip = processor(video, return_tensors="jax").pixel_values
    if len(clip) != 1:
        raise ValueError(f"reconstruct takes one video, got {len(clip)}.")
    grid = clip_grid(config, clip)
    draw_mask = Mask(kind, mask_ratio, grid)
    hidden = draw_mask(jax.random.key(seed))
    mask = ids_from_mask(hidden[None], draw_mask.num_masked)
    output = model(clip, visible_ids=mask.visible, masked_ids=mask.masked)

    pixels = unit_pixels(patchify(clip, config.patch), config.pixel_mean, config.pixel_std)
    seen = jnp.where(hidden[None, :, None], 0.5, pixels)
    completed = complete(pixels, output.logits, mask, config, grid, statistics)
    views = (np.asarray(to_bytes(unpatchify(x, config.patch, grid)))[0] for x in (pixels, seen, completed))
    how = HOW[statistics if config.norm_pix_loss else "raw"]
    return Reconstruction(*views, mask=np.asarray(hidden).reshape(grid), loss=float(output.loss), how=how)


def main(arguments: list[str]) -> None:
    """The command; what the user can mend is one line."""
    parser = argparse.ArgumentParser(
        prog="python -m videomae_jax.inference.reconstruct", description=__doc__.split("\n")[0]
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a run's folder, a file or a Hugging Face Hub id")
    parser.add_argument("video", metavar="VIDEO", help="a video file")
    parser.add_argument("--mask-ratio", type=float, default=0.9, help="the share that is hidden (0.9)")
    parser.add_argument("--kind", default="tube", choices=("tube", "random", "frame", "running_cell"), help="of mask")
    parser.add_argument("--seed", type=int, default=0, help="of the mask (0)")
    parser.add_argument(
        "--statistics", default="visible", choices=("visible", "true"), help="of hidden patches: guessed, or their own"
    )
    parser.add_argument("--out", type=Path, default=Path("reconstruction.png"), help=f"a {', '.join(SUFFIXES)} file")
    options = parser.parse_args(arguments)
    if options.out.suffix not in SUFFIXES:
        parser.error(f"--out must end in {', '.join(SUFFIXES)}, got {options.out}")
    with faults_as_lines("reconstruct"):
        result = reconstruct(
            options.checkpoint,
            options.video,
            mask_ratio=options.mask_ratio,
            kind=options.kind,
            seed=options.seed,
            statistics=options.statistics,
        )
        hidden = f"{result.mask.mean():.0%} hidden, {options.kind}"
        draw(options.out, [("original", result.original), (hidden, result.masked), (result.how, result.reconstruction)])
    print(f"loss {result.loss:.4f} with {hidden}; reconstructed with {result.how}: {options.out}")


if __name__ == "__main__":
    main(sys.argv[1:])
