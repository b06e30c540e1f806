"""What a model makes of whole videos: one vector each, for probes and for finding neighbours."""

import dataclasses
import functools
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float32, Int32, PyTree, UInt8

from videomae_jax.data.clips import Clips
from videomae_jax.data.pipeline import heldout_batches
from videomae_jax.data.sources import VideoSource
from videomae_jax.data.video import VideoReadError
from videomae_jax.model.videomae import VideoMAEForPreTraining, VideoMAEForVideoClassification, VideoMAEModel

Model = VideoMAEModel | VideoMAEForPreTraining | VideoMAEForVideoClassification


def pooled_features(
    model: Model, video: UInt8[Array, "B T H W C"] | Float[Array, "B T H W C"]
) -> Float32[Array, "B D"]:
    """One vector for each clip, of all its tokens: what a classifier sees, or else the mean of the encoder's output.

    That output comes after the encoder's final norm, where the model has one.
    """
    encoder = model if isinstance(model, VideoMAEModel) else model.videomae
    tokens = encoder(video).last_hidden_state
    if isinstance(model, VideoMAEForVideoClassification):
        return model.pool(tokens)
    return tokens.mean(axis=1, dtype=jnp.float32)


@dataclasses.dataclass(frozen=True)
class Features:
    """Measures the features of a source's videos; each is the mean over the clips that are made of it.

    Attributes:
      graphdef: the model without its parameters.
      sharding: how a batch lies on the devices.
      clips: makes the clips of a video.
      batch_size: videos at a time, over all devices, of each one clip at a time.
      num_videos: how many; of all videos where there are fewer.
      report: takes each batch's list of unreadable videos.
    """

    graphdef: nnx.GraphDef
    sharding: jax.sharding.Sharding
    clips: Clips
    batch_size: int
    num_videos: int
    report: Callable[[Iterable[str]], None]

    def measure(self, params: PyTree, source: VideoSource) -> tuple[Float32[np.ndarray, "V D"], Int32[np.ndarray, "V"]]:
        """Features and labels of the videos that can be read, in the order of `heldout_batches`.

        Raises:
          VideoReadError: none of them can be read.
        """
        features, labels = [], []
        for batch in heldout_batches(source, self.clips, num_videos=self.num_videos, batch_size=self.batch_size):
            self.report(batch["broken"])
            counted = batch["weight"] > 0
            video = jax.device_put(batch["video"], self.sharding)
            features.append(jax.device_get(self._features(params, video))[counted])
            labels.append(batch["label"][counted])
        if not any(map(len, labels)):
            raise VideoReadError(source.name, "none of its videos can be read")
        return np.concatenate(features), np.concatenate(labels)

    @functools.cached_property
    def _features(self):
        def features(params, video):  # [B S T H W C]
            model = nnx.merge(self.graphdef, params)
            # One view after the other, so that memory does not grow with their number.
            views = jax.lax.map(functools.partial(pooled_features, model), video.swapaxes(0, 1))
            return views.mean(axis=0)

        return jax.jit(features)
