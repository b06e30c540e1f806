"""Scores of whole videos: the mean over views of what a classifier says of each."""

import dataclasses
import functools
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, PyTree, UInt8

from videomae_jax.config import VideoMAEConfig
from videomae_jax.data.clips import MultiViewClips
from videomae_jax.data.frames import VideoReadError
from videomae_jax.data.pipeline import heldout_batches
from videomae_jax.data.sources import VideoSource
from videomae_jax.evaluation.scores import Predictions


@dataclasses.dataclass(frozen=True)
class MultiView:
    """Measures a classifier on videos, each by the same clips and crops every time.

    Attributes:
      config: the model's.
      graphdef: the model without its parameters.
      sharding: how a batch lies on the devices.
      clips: the views of a video.
      num_videos: how many videos, spread over the source; None for all.
      batch_size: videos at a time, over all devices; on them one view of each at a time.
      report: takes each batch's list of unreadable videos.
    """

    config: VideoMAEConfig
    graphdef: nnx.GraphDef
    sharding: NamedSharding
    clips: MultiViewClips
    num_videos: int | None
    batch_size: int
    report: Callable[[Iterable[str]], None]

    def measure(self, params: PyTree, source: VideoSource) -> Predictions:
        """What the model says of a source's videos, each counted once whatever the batch and the devices.

        Raises:
          VideoReadError: no video of the source can be read.
        """
        rows = {}
        for batch in self._batches(source):
            self.report(batch["broken"])
            arrays = {name: batch[name] for name in ("video", "label", "sample", "weight", "num_frames")}
            placed = {
                name: jax.make_array_from_process_local_data(self.sharding, array) for name, array in arrays.items()
            }
            # Every process gets the rows of all: whatever is made of them is the same on each.
            whole = jax.device_get(self._predict(params, placed))
            for row, sample in enumerate(whole["sample"].tolist()):
                # A repeat, which fills the last batch, has no weight, and neither has a video that cannot be read.
                if sample not in rows or whole["weight"][row]:
                    rows[sample] = {name: values[row] for name, values in whole.items()}
        if not any(row["weight"] for row in rows.values()):
            raise VideoReadError(source.name, "none of its videos can be read")
        ordered = [rows[sample] for sample in sorted(rows)]
        columns = {name: np.stack([row[name] for row in ordered]) for name in ordered[0]}
        return Predictions(
            paths=tuple(source.paths[sample] for sample in sorted(rows)),
            labels=columns["label"],
            scores=columns["scores"],
            readable=columns["weight"] > 0,
            num_frames=columns["num_frames"],
        )

    def _batches(self, source: VideoSource):
        return heldout_batches(
            source,
            self.clips,
            num_videos=len(source) if self.num_videos is None else self.num_videos,
            batch_size=self.batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    @functools.cached_property
    def _predict(self):
        everywhere = NamedSharding(self.sharding.mesh, PartitionSpec())

        def predict(params, batch):
            model = nnx.merge(self.graphdef, params)
            # View by view: memory is that of one view of each video.
            views = jax.lax.map(lambda view: self._scores(model, view), batch.pop("video").swapaxes(0, 1))
            return batch | {"scores": views.mean(axis=0)}

        return jax.jit(predict, out_shardings=everywhere)

    def _scores(self, model: nnx.Module, video: UInt8[Array, "B T H W C"]) -> Float[Array, "B K"]:
        """Probabilities, which are averaged rather than logits (V1 engine_for_finetuning.py:233-282), or numbers."""
        logits = model(video).logits.astype(jnp.float32)
        if self.config.problem_type == "single_label_classification":
            return jax.nn.softmax(logits)
        return jax.nn.sigmoid(logits) if self.config.problem_type == "multi_label_classification" else logits
