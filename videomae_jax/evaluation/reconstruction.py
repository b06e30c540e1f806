"""Pre-training measured on fixed clips and masks: the loss against trivial predictors, and pictures."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, PyTree, UInt8

from videomae_jax.data.clips import CenterClip
from videomae_jax.data.pipeline import heldout_batches
from videomae_jax.data.sources import VideoSource
from videomae_jax.data.video import VideoReadError
from videomae_jax.model.completion import complete, distance_weighted
from videomae_jax.model.losses import token_errors
from videomae_jax.model.masking import MaskIds
from videomae_jax.model.patches import gather, patchify, to_bytes, unit_pixels, unpatchify
from videomae_jax.training.mesh import own_rows
from videomae_jax.training.stall import in_time
from videomae_jax.training.tasks import Pretraining, clip_keys
from videomae_jax.training.trivial import mean_colour

PICTURE_CLIPS = 6  # rows of a picture


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """Measures a model on the middle clips of videos, under masks that never change.

    Attributes:
      task: the model's task.
      graphdef: the model without its parameters.
      sharding: how a batch lies on the devices.
      num_clips: how many; of all videos where there are fewer.
      batch_size: clips at a time, over all devices.
      stride: video frames from one frame of a clip to the next.
      report: takes each batch's list of unreadable videos.
    """

    task: Pretraining
    graphdef: nnx.GraphDef
    sharding: NamedSharding
    num_clips: int
    batch_size: int
    stride: int
    report: Callable[[Iterable[str]], None]

    def measure(self, params: PyTree, source: VideoSource) -> tuple[dict[str, float], UInt8[np.ndarray, "H W 3"]]:
        """The loss on a source's clips, all that the encoder does not see decoded, and a picture of some of them.

        Returns:
          `loss`; `relative_loss`, over that of each clip's mean colour; for models of raw pixels `relative_to_fill`,
          over that of the distance-weighted mean of the visible cubes' colours. And the picture (`draw`).

        Raises:
          VideoReadError: no clip of the source can be read.
        """
        num_clips = min(self.num_clips, len(source))
        shown = set(np.linspace(0, num_clips - 1, PICTURE_CLIPS).astype(int))
        clip_errors, pictures, batches = [], [], in_time(self._batches(source), source)
        for first, batch in zip(itertools.count(step=self.batch_size), batches, strict=False):
            self.report(batch["broken"])
            inputs = {"video": batch["video"][:, 0], "sample": batch["sample"], "weight": batch["weight"]}
            inputs = jax.make_array_from_process_local_data(self.sharding, inputs)
            # Every process gets the rows of all: what is made of them is the same on each.
            weight, errors, *views = jax.device_get(self._reconstruct(params, **inputs))
            for row in np.flatnonzero(weight):
                clip_errors.append({name: values[row] for name, values in errors.items()})
                if first + row in shown or not pictures:
                    pictures.append(np.stack([view[row] for view in views]))
        if not clip_errors:
            raise VideoReadError(source.name, "none of its clips can be read")
        mean = {name: float(np.mean([errors[name] for errors in clip_errors])) for name in clip_errors[0]}
        metrics = {"loss": mean["model"], "relative_loss": mean["model"] / mean["mean_colour"]}
        if not self.task.config.norm_pix_loss:
            metrics["relative_to_fill"] = mean["model"] / mean["fill"]
        return metrics, draw(np.stack(pictures))

    def _batches(self, source: VideoSource) -> Iterator[dict]:
        config = self.task.config
        clips = CenterClip(config.num_frames, self.stride, config.clip_size[1:])
        rows = own_rows(self.sharding.mesh, self.batch_size)
        return heldout_batches(source, clips, num_videos=self.num_clips, batch_size=self.batch_size, rows=rows)

    @functools.cached_property
    def _reconstruct(self):
        """Which clips count; each one's error, for the model and the trivial predictors; the clip, what the model sees
        of it and what it makes of that.
        """
        task, config = self.task, self.task.config
        masking = dataclasses.replace(task.masking, decoder_kind="none", decoder_ratio=0.0)

        def reconstruct(params, video, sample, weight):
            model = nnx.merge(self.graphdef, params)
            mask = masking(clip_keys(task.seed, sample))
            predicted = model(video, visible_ids=mask.visible, masked_ids=mask.masked).logits
            targets = task.targets(model, video, mask)
            pixels = unit_pixels(patchify(video, config.patch), config.pixel_mean, config.pixel_std)
            colours = pixels.reshape(*pixels.shape[:2], -1, config.num_channels).mean(axis=2)
            fill = distance_weighted(gather(colours, mask.visible), mask.visible, mask.masked, config.grid)
            guesses = {
                "model": predicted,
                "mean_colour": mean_colour(targets, config.num_channels),
                "fill": jnp.tile(fill, config.patch_dim // config.num_channels),
            }
            errors = {name: token_errors(guess, targets).mean(axis=1) for name, guess in guesses.items()}
            return weight, errors, video, *self._views(pixels, predicted, mask)

        return jax.jit(reconstruct, out_shardings=NamedSharding(self.sharding.mesh, PartitionSpec()))

    def _views(self, pixels: Float[Array, "B N P"], predicted: Float[Array, "B M P"], mask: MaskIds):
        """Clips as the encoder sees them and as the decoder completes them, uint8 [B T H W C]."""
        config = self.task.config
        seen = pixels.at[jnp.arange(len(pixels))[:, None], mask.masked].set(0.5)
        completed = complete(pixels, predicted, mask, config, config.grid)
        return tuple(to_bytes(unpatchify(x, config.patch, config.grid)) for x in (seen, completed))


def draw(views: UInt8[np.ndarray, "S 3 T H W C"], *, height: int = 160, gap: int = 6) -> UInt8[np.ndarray, "Y X 3"]:
    """A picture with a row a clip: original | masked | reconstruction at an early frame, and again at a late one.

    Args:
      views: clips as they are, as the encoder sees them, and completed.
      height: at least so many pixels for a frame; smaller ones are enlarged by a whole factor.
      gap: white pixels between frames.
    """
    num_clips, _, T, H, W, C = views.shape
    scale = max(1, -(-height // H))
    rows = []
    for clip in range(num_clips):
        frames = [views[clip, view, frame] for frame in (T // 4, T - 1 - T // 4) for view in range(3)]
        frames = [frame if C == 3 else np.repeat(frame[..., :1], 3, axis=-1) for frame in frames]
        frames = [cv2.resize(frame, (scale * W, scale * H), interpolation=cv2.INTER_CUBIC) for frame in frames]
        rows.append(np.concatenate([np.pad(f, ((0, gap), (0, gap), (0, 0)), constant_values=255) for f in frames], 1))
    return np.concatenate(rows)
