"""What a downstream run begins with: a checkpoint, and the config of the classifier that is made of it."""

from pathlib import Path
from typing import Any

from videomae_jax.config import SIZES, VideoMAEConfig
from videomae_jax.training.downstream import SCRATCH, DownstreamRecipe
from videomae_jax.weights.checkpoint import Checkpoint

# What a size says of the encoder; a checkpoint of another one is refused.
SIZE_FIELDS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
# What a checkpoint's encoder was trained with, and no recipe may change.
TRAINED_FIELDS = ("patch_size", "tubelet_size", "num_channels", "position_embedding_type", "qkv_bias", "hidden_act")


def open_checkpoint(name: str | Path) -> Checkpoint:
    """A checkpoint by the recipe's `init_from`.

    Raises:
      ValueError: none is there, or no VideoMAE's.
    """
    try:
        return Checkpoint.open(name)
    except ValueError as error:
        raise ValueError(f"init_from={name}: {error}") from None


def find_encoder(recipe: DownstreamRecipe) -> Checkpoint | None:
    """The checkpoint whose encoder a recipe begins with; None for random weights.

    Raises:
      ValueError: none is there, or its encoder is another than the recipe's.
    """
    if recipe.init_from == SCRATCH:
        return None
    checkpoint = open_checkpoint(recipe.init_from)
    if checkpoint.config.num_channels != 3:
        raise ValueError(
            f"init_from={recipe.init_from} has {checkpoint.config.num_channels} channels; videos are read in RGB, 3."
        )
    model = _given(recipe)
    wanted = VideoMAEConfig.from_size(**model)
    changes = [
        f"{field} {getattr(checkpoint.config, field)} (the recipe: {getattr(wanted, field)})"
        for field in (*SIZE_FIELDS, *(field for field in TRAINED_FIELDS if field in model))
        if getattr(checkpoint.config, field) != getattr(wanted, field)
    ]
    if changes:
        own, hint = _size_of(checkpoint.config), ""
        if own is None:
            hint = (
                f" No size ({', '.join(SIZES)}) has this encoder: pre-train one that has, or set these fields of "
                "config.model in a config file of your own."
            )
        elif own != _size_of(wanted):
            hint = f" Most configs take a size as an option: --config FILE.py:size={own}."
        raise ValueError(
            f"init_from={recipe.init_from} holds another model than config.model ({model['size']}): "
            f"{', '.join(changes)}.{hint}"
        )
    return checkpoint


def _size_of(config: VideoMAEConfig) -> str | None:
    """The first size whose encoder is a config's."""
    encoder = [getattr(config, field) for field in SIZE_FIELDS]
    return next((name for name, size in SIZES.items() if [size[field] for field in SIZE_FIELDS] == encoder), None)


def classifier_config(recipe: DownstreamRecipe, checkpoint: Checkpoint | None, **fields: Any) -> VideoMAEConfig:
    """The config of a checkpoint's model, or of a new one of the recipe's size, with what the recipe says.

    Args:
      recipe: its section `model` names a size, and fields of the config, None for the checkpoint's.
      checkpoint: None for a new model.
      **fields: of the config, beside those of the recipe.
    """
    changes = _given(recipe) | fields
    if checkpoint is None:
        return VideoMAEConfig.from_size(**changes)
    del changes["size"]
    return checkpoint.config.adapt(**changes)


def trained_config(
    recipe: DownstreamRecipe, checkpoint: Checkpoint | None, class_names: tuple[str, ...]
) -> VideoMAEConfig:
    """The classifier's: the checkpoint's encoder or a new one, with the classes of the data."""
    attentive = recipe.mode == "attentive"
    return classifier_config(
        recipe,
        checkpoint,
        id2label=dict(enumerate(class_names)),
        problem_type=recipe.problem_type,
        use_mean_pooling=not attentive,
        attentive_pooling=attentive,
    )


def _given(recipe: DownstreamRecipe) -> dict[str, Any]:
    return {field: value for field, value in recipe.model.items() if value is not None}
