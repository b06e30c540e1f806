"""What the models return: pytrees read by attribute, by name or by position, as in transformers."""

import dataclasses
from typing import Any

import jax
from jaxtyping import Array, Float


class ModelOutput:
    """Attributes, also as `output["logits"]`, and by position among those that are not None as `output[0]`."""

    def __getitem__(self, key: str | int) -> Any:
        if isinstance(key, str):
            return getattr(self, key)
        return self.to_tuple()[key]

    def to_tuple(self) -> tuple[Any, ...]:
        """The fields that are not None, in order."""
        values = (getattr(self, field.name) for field in dataclasses.fields(self))
        return tuple(value for value in values if value is not None)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class VideoMAEModelOutput(ModelOutput):
    """Output of the encoder."""

    last_hidden_state: Float[Array, "B V D"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class VideoMAEForPreTrainingOutput(ModelOutput):
    """Output of the masked autoencoder: the mean squared error and the predicted targets of the masked tokens."""

    loss: Float[Array, ""]
    logits: Float[Array, "B M P"]
