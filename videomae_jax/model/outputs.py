"""What the models return: pytrees read by attribute, by name or by position, as in transformers.

Tokens (`last_hidden_state`, `hidden_states`) come in the model's compute dtype, whether or not it has a final norm; all
else (`loss`, `logits`, `attentions`) in fp32.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from jaxtyping import Array, Float


class ModelOutput(Mapping):
    """Attributes that are also a mapping of those that are not None, `output["logits"]`, in order, `output[0]`.

    As in transformers, a name that is None is not in the mapping.
    """

    def __getitem__(self, key: str | int | slice) -> Any:
        if not isinstance(key, str):
            return self.to_tuple()[key]
        if key not in list(self):
            raise KeyError(key)
        return getattr(self, key)

    def __iter__(self) -> Iterator[str]:
        return (field.name for field in dataclasses.fields(self) if getattr(self, field.name) is not None)

    def __len__(self) -> int:
        return len(list(iter(self)))

    def to_tuple(self) -> tuple[Any, ...]:
        """The fields that are not None, in order."""
        return tuple(self[name] for name in self)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class VideoMAEModelOutput(ModelOutput):
    """Output of the encoder.

    Attributes:
      last_hidden_state: the tokens after the last block, and the final norm where the model has one.
      hidden_states: L + 1 arrays when asked for: the embeddings with their positions, then the tokens after each
        block, before the final norm.
      attentions: L arrays when asked for: the softmax's weights in each block, fp32.
    """

    last_hidden_state: Float[Array, "B V D"]
    hidden_states: tuple[Float[Array, "B V D"], ...] | None = None
    attentions: tuple[Float[Array, "B K V V"], ...] | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class VideoMAEForPreTrainingOutput(ModelOutput):
    """Output of the masked autoencoder.

    Attributes:
      loss: the mean squared error of the masked tokens' pixels.
      logits: the predicted targets of the masked tokens.
      hidden_states, attentions: the encoder's, as in `VideoMAEModelOutput`.
    """

    loss: Float[Array, ""]
    logits: Float[Array, "B M P"]
    hidden_states: tuple[Float[Array, "B V D"], ...] | None = None
    attentions: tuple[Float[Array, "B K V V"], ...] | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class VideoClassifierOutput(ModelOutput):
    """Output of the classification model (transformers calls it `ImageClassifierOutput`).

    Attributes:
      loss: of the labels, where given.
      logits: a score for each class, or the regressed numbers; fp32.
      hidden_states, attentions: the encoder's, as in `VideoMAEModelOutput`.
    """

    loss: Float[Array, ""] | None
    logits: Float[Array, "B num_labels"]
    hidden_states: tuple[Float[Array, "B N D"], ...] | None = None
    attentions: tuple[Float[Array, "B K N N"], ...] | None = None
