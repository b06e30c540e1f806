"""A model with the processor of its videos."""

from pathlib import Path
from typing import TypeVar

from flax import nnx

from videomae_jax.data.files import is_video
from videomae_jax.data.processor import VideoMAEImageProcessor
from videomae_jax.model.videomae import VideoMAEForPreTraining, VideoMAEForVideoClassification
from videomae_jax.weights.convert import load

# What to do about another kind of model.
HINTS = {
    VideoMAEForVideoClassification: " Fine-tune it first, with eval.py.",
    VideoMAEForPreTraining: " It needs the decoder, which fine-tuning leaves out: give the pre-training run.",
}

Wanted = TypeVar("Wanted", bound=nnx.Module)


def opened(
    model: nnx.Module | str | Path, processor: VideoMAEImageProcessor | None, *kinds: type[Wanted]
) -> tuple[Wanted, VideoMAEImageProcessor]:
    """A model of one of some kinds, and its processor.

    Args:
      model: a model, or whatever `from_pretrained` takes: a run's folder, a file, a Hub id.
      processor: None for the one beside the checkpoint, or of a model's clips.
      kinds: its classes that will do.

    Raises:
      ValueError: another kind of model, none that can be loaded, or a video.
    """
    name = "the model"
    if isinstance(model, str | Path):
        name = model
        if is_video(Path(model).name) and Path(model).is_file():
            raise ValueError(f"{model} is a video, and stands where the checkpoint belongs.")
        model, beside = load(model)
        processor = processor or beside
    if not isinstance(model, kinds):
        wanted = " or ".join(f"a {kind.__name__}" for kind in kinds)
        hint = HINTS.get(kinds[0], "") if len(kinds) == 1 else ""
        raise ValueError(f"{name} is a {type(model).__name__}; this takes {wanted}.{hint}")
    return model, processor or VideoMAEImageProcessor.for_model(model.config)
