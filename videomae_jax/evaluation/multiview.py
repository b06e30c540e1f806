"""What a model says of whole videos: the mean over their views of what it says of each."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, PyTree, UInt8

from videomae_jax.config import VideoMAEConfig
from videomae_jax.data.clips import MultiViewClips
from videomae_jax.data.frames import VideoReadError
from videomae_jax.data.pipeline import HeldoutBatch, heldout_batches
from videomae_jax.data.sources import VideoSource
from videomae_jax.evaluation.predictions import Predictions
from videomae_jax.model.readout import class_scores
from videomae_jax.training.downstream import DownstreamRecipe
from videomae_jax.training.mesh import batch_sharding, batch_shards, own_rows, shardings
from videomae_jax.training.progress import say
from videomae_jax.training.stall import in_time

PerClip = Callable[[nnx.Module, UInt8[Array, "B T H W C"]], Float[Array, "B K"]]


@dataclasses.dataclass(frozen=True)
class MultiView:
    """Measures a model on videos, each by the same views every time.

    Attributes:
      graphdef: the model without its parameters.
      sharding: how a batch lies on the devices.
      clips: makes the S views of a video.
      batch_size: videos at a time, over all devices; of each, one view after the other is in the model.
      report: takes each batch's list of unreadable videos.
      per_clip: what is averaged over the views.
      num_videos: how many, spread over the source; None for all.
    """

    graphdef: nnx.GraphDef
    sharding: NamedSharding
    clips: MultiViewClips
    batch_size: int
    report: Callable[[Iterable[str]], None]
    per_clip: PerClip = class_scores
    num_videos: int | None = None

    def measure(self, params: PyTree, source: VideoSource) -> Predictions:
        """What the model says of a source's videos, each counted once whatever the batch, the devices, the processes.

        Raises:
          VideoReadError: no video of the source can be read.
        """
        rows, told_of_short = {}, False
        for batch in in_time(self._batches(source), source):
            self.report(batch["broken"])
            inputs = {
                name: jax.make_array_from_process_local_data(self.sharding, batch[name])
                for name in ("video", "label", "sample", "weight", "num_frames")
            }
            # Every process gets the rows of all: what is made of them is the same on each.
            whole = jax.device_get(self._measure(params, inputs))
            short = np.flatnonzero((whole["weight"] > 0) & (whole["num_frames"] < self.clips.segments))
            if short.size and not told_of_short:
                told_of_short = True
                path, length = source.paths[whole["sample"][short[0]]], whole["num_frames"][short[0]]
                # Now, not after hours: the results count all such videos.
                say("note", f"{path} has {length} frames for {self.clips.segments} segments: some clips are the same")
            for row, sample in enumerate(whole["sample"].tolist()):
                # A repeat, which fills the last batch, has no weight, nor has a video that cannot be read.
                if sample not in rows or whole["weight"][row]:
                    rows[sample] = {name: values[row] for name, values in whole.items()}
        samples = sorted(rows)
        columns = {name: np.stack([rows[sample][name] for sample in samples]) for name in rows[samples[0]]}
        if not columns["weight"].any():
            raise VideoReadError(source.name, "none of its videos can be read")
        return Predictions(
            paths=tuple(source.paths[sample] for sample in samples),
            labels=columns["label"],
            scores=columns["scores"],
            readable=columns["weight"] > 0,
            num_frames=columns["num_frames"],
        )

    def _batches(self, source: VideoSource) -> Iterator[HeldoutBatch]:
        return heldout_batches(
            source,
            self.clips,
            num_videos=len(source) if self.num_videos is None else self.num_videos,
            batch_size=self.batch_size,
            rows=own_rows(self.sharding.mesh, self.batch_size),
        )

    @functools.cached_property
    def _measure(self):
        def measure(params, batch):
            model = nnx.merge(self.graphdef, params)
            views = jax.lax.map(functools.partial(self.per_clip, model), batch["video"].swapaxes(0, 1))
            others = {name: values for name, values in batch.items() if name != "video"}
            return others | {"scores": views.mean(axis=0)}

        return jax.jit(measure, out_shardings=NamedSharding(self.sharding.mesh, PartitionSpec()))


def views_of(recipe: DownstreamRecipe, config: VideoMAEConfig, segments: int, crops: int) -> MultiViewClips:
    """What is made of a video that is measured."""
    return MultiViewClips(config.num_frames, recipe.data.stride, segments, crops, config.clip_size[1:])


def measuring(
    recipe: DownstreamRecipe,
    model: nnx.Module,
    mesh: Mesh,
    report: Callable[[Iterable[str]], None],
    per_clip: PerClip = class_scores,
) -> Callable[[VideoSource], Predictions]:
    """Measures a model on all the views that a recipe's test asks for."""
    graphdef, state = nnx.split(model)
    params = nnx.to_pure_dict(state)
    multi_view = MultiView(
        graphdef,
        batch_sharding(mesh),
        views_of(recipe, model.config, recipe.test.segments, recipe.test.crops),
        videos_at_a_time(recipe, mesh),
        report,
        per_clip,
    )
    return functools.partial(multi_view.measure, jax.device_put(params, shardings(params, mesh)))


def videos_at_a_time(recipe: DownstreamRecipe, mesh: Mesh) -> int:
    """Videos at a time, a multiple of what the batch is split over."""
    shards = batch_shards(mesh)
    return shards * -(-recipe.test.batch_size // shards)
