"""`from_pretrained` and `save_pretrained` of the models."""

import dataclasses
import functools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict

from videomae_jax.config import CONFIG_FILE, Remat, VideoMAEConfig
from videomae_jax.weights.arrays import Fitted, from_checkpoint, listed, part_of, to_checkpoint
from videomae_jax.weights.checkpoint import Checkpoint
from videomae_jax.weights.files import WEIGHTS_FILE, write_arrays
from videomae_jax.weights.huggingface import HUGGINGFACE, HUGGINGFACE_ENCODER


class PretrainedMixin:
    """Saving and loading for modules with a `config` and a constructor `(config, dtype=..., remat=..., rngs=...)`."""

    def save_pretrained(self, directory: str | Path) -> None:
        """Writes `config.json` and `model.safetensors`, under Hugging Face's names and in torch's array order.

        What was there stays when the weights cannot be written, and a config is never beside those of another model.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        params = flat_params(nnx.split(self)[1])
        dialect = HUGGINGFACE_ENCODER if _is_encoder(params) else HUGGINGFACE
        new = directory / f"new.{WEIGHTS_FILE}"
        write_arrays(new, to_checkpoint(params, dialect, self.config.patch))
        (directory / CONFIG_FILE).unlink(missing_ok=True)
        new.replace(directory / WEIGHTS_FILE)
        self.config.save_pretrained(directory, architecture=type(self).__name__)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        dtype: jnp.dtype = jnp.float32,
        remat: Remat = "dots",
        revision: str | None = None,
        ignore_mismatched_sizes: bool = False,
        rngs: nnx.Rngs | None = None,
        **config_overrides: Any,
    ) -> Self:
        """Loads a checkpoint of this package, of transformers, of the original's V1 and V2, or of mmaction2.

        Nothing is skipped in silence: what the checkpoint has and the model does not use (a decoder, a head), and
        what the model starts afresh (a decoder, a head), is said in a warning; anything else that does not fit is an
        error. A classifier on a checkpoint that has none pools by mean, whatever the checkpoint's config says, unless
        `attentive_pooling` is passed.

        Args:
          name: a folder with weights, a file (`.safetensors`, `.pth`, `.bin`), a run's folder, or a Hugging Face Hub
            id.
          dtype, remat: those of the model.
          revision: branch, tag or commit on the Hub.
          ignore_mismatched_sizes: start parameters of another shape afresh: a classifier of other labels, say.
          rngs: where new parameters are drawn from; seed 0 by default.
          **config_overrides: fields of the config to change, and `num_labels`. With another clip, positions are
            resampled from those of the trained one.

        Raises:
          ValueError: files missing or broken, or weights that do not fit the model.
          ImportError: PyTorch's kind of file, without PyTorch.
        """
        checkpoint = Checkpoint.open(name, revision=revision, **config_overrides)
        return cls.from_checkpoint(
            checkpoint,
            dtype=dtype,
            remat=remat,
            ignore_mismatched_sizes=ignore_mismatched_sizes,
            rngs=rngs,
            pools_as_told="use_mean_pooling" in config_overrides,
        )

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        *,
        dtype: jnp.dtype = jnp.float32,
        remat: Remat = "dots",
        ignore_mismatched_sizes: bool = False,
        rngs: nnx.Rngs | None = None,
        pools_as_told: bool = False,
    ) -> Self:
        """`from_pretrained` of a checkpoint that is open.

        Args:
          checkpoint: with the config that the model is to have.
          dtype, remat, ignore_mismatched_sizes, rngs: those of `from_pretrained`.
          pools_as_told: a new classifier, too, pools as the config says.

        Raises:
          ValueError: weights that do not fit the model.
        """
        config, notes = checkpoint.config, []
        graphdef, wanted = _abstract(cls, config, dtype, remat)
        new_head = "classifier/kernel" in wanted and not checkpoint.has("classifier")
        if new_head and not config.use_mean_pooling and not config.attentive_pooling and not pools_as_told:
            config = dataclasses.replace(config, use_mean_pooling=True)
            graphdef, wanted = _abstract(cls, config, dtype, remat)
            notes = [
                "the new classifier pools by mean; the checkpoint's use_mean_pooling=False, kept from its "
                "pre-training, would classify from token 0, one corner of the clip (pass it to have that)"
            ]
        try:
            fitted = from_checkpoint(
                checkpoint.arrays,
                checkpoint.dialect,
                {path: leaf.shape for path, leaf in wanted.items()},
                config.patch,
                ignore_mismatched_sizes=ignore_mismatched_sizes,
                as_array=functools.partial(jnp.asarray, dtype=jnp.float32),
            )
        except ValueError as error:
            hint = "" if "classifier" not in str(error) else "\nFor other labels: ignore_mismatched_sizes=True."
            raise ValueError(f"{checkpoint.file}: {error}{hint}") from None
        notes = [*_notes(fitted, list(wanted)), *notes]
        if notes:
            warnings.warn(f"{checkpoint.file}: {'; '.join(notes)}.", stacklevel=3)
        params = fitted.params | _draw(cls, config, fitted.new, (rngs or nnx.Rngs(0)).params())
        return nnx.merge(graphdef, _nested(params))


def flat_params(state: nnx.State) -> dict[str, Any]:
    """A model's parameters by their paths in `rules`, where an encoder alone is the `videomae/` of a whole model."""
    params = flatten_dict(nnx.to_pure_dict(state), sep="/")
    if any(path.startswith("videomae/") for path in params):
        return params
    return {f"videomae/{path}": leaf for path, leaf in params.items()}


def _nested(params: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `flat_params`."""
    prefix = "videomae/" if _is_encoder(params) else ""
    return unflatten_dict({path.removeprefix(prefix): leaf for path, leaf in params.items()}, sep="/")


def _is_encoder(params: dict[str, Any]) -> bool:
    return all(path.startswith("videomae/") for path in params)


def _abstract(cls: type, config: VideoMAEConfig, dtype: jnp.dtype, remat: Remat) -> tuple[nnx.GraphDef, dict[str, Any]]:
    """A model without its arrays: path -> shape and dtype."""
    graphdef, state = nnx.split(nnx.eval_shape(lambda: cls(config, dtype=dtype, remat=remat, rngs=nnx.Rngs(0))))
    return graphdef, flat_params(state)


def _draw(cls: type, config: VideoMAEConfig, paths: list[str], key: jax.Array) -> dict[str, jax.Array]:
    """New parameters, as the model's constructor draws them."""

    @jax.jit  # computes nothing but what it returns
    def draw(key):
        params = flat_params(nnx.split(cls(config, rngs=nnx.Rngs(key)))[1])
        return {path: params[path] for path in paths}

    return draw(key) if paths else {}


def _notes(fitted: Fitted, wanted: list[str]) -> Iterator[str]:
    """What was left over, in words."""
    unused = ", ".join(f"{part} ({count} arrays)" for part, count in fitted.unused.items())
    if unused:
        yield f"not used: {unused}"
    if any(part_of(path) == "decoder" for path in fitted.new):
        yield "it holds an encoder alone, and the decoder is new and untrained"
    if fitted.new:
        parts = {part_of(path): [other for other in wanted if part_of(other) == part_of(path)] for path in fitted.new}
        whole = [part for part, paths in parts.items() if set(paths) <= set(fitted.new)]
        single = [path for path in fitted.new if part_of(path) not in whole]
        yield f"new and untrained: {listed([*whole, *single])}"
