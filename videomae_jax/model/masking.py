"""Which tokens are hidden: masks drawn on the device from a key, with exact counts known before tracing."""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Key


class MaskIds(NamedTuple):
    """A mask as token ids, ascending, of static count."""

    visible: Int[Array, "B V"]
    masked: Int[Array, "B M"]


@dataclasses.dataclass(frozen=True)
class Mask:
    """One kind of mask over a (t, h, w) grid of tokens; call it with a key to draw one.

    - `tube` hides the same `int(ratio * h * w)` places in every latent frame;
    - `random` hides any `int(ratio * N)` tokens;
    - `frame` hides `int(ratio * t)` whole latent frames;
    - `running_cell` hides `4 * ratio` places of every 2 x 2 cell, moving on by one place a frame; the ratio is 0.25,
      0.5 or 0.75, and h and w are even.

    The first three take every ratio that hides at least one place, token or frame, and leaves one.

    Sources: V1 masking_generator.py:3-24, VideoMAE paper section 3.3, V2 masking_generator.py:11-28 and 80-113.

    Raises:
      ValueError: an unknown kind, or a ratio that the grid does not allow.
    """

    kind: str
    ratio: float
    grid: tuple[int, int, int]

    def __post_init__(self):
        t, h, w = self.grid
        units = {"tube": (h * w, "places of a frame"), "random": (t * h * w, "tokens"), "frame": (t, "latent frames")}
        if self.kind in units:
            count, name = units[self.kind]
            if not 0 < int(self.ratio * count) < count:
                raise ValueError(
                    f"A {self.kind} mask hides int(ratio * {count}) of {count} {name} and must hide and leave at least "
                    f"one: ratio must be in [{1 / count:.4g}, 1), got {self.ratio}."
                )
        elif self.kind == "running_cell":
            if self.ratio not in (0.25, 0.5, 0.75):
                raise ValueError(f"A running_cell mask hides 0.25, 0.5 or 0.75 of every cell, got {self.ratio}.")
            if h % 2 or w % 2:
                raise ValueError(f"A running_cell mask needs an even grid of tokens, got {h} x {w}.")
        else:
            raise ValueError(f"mask kind must be one of {', '.join([*units, 'running_cell'])}, got {self.kind!r}.")

    @property
    def num_masked(self) -> int:
        """M, the hidden tokens of a clip."""
        t, h, w = self.grid
        if self.kind == "tube":
            return t * int(self.ratio * h * w)
        if self.kind == "frame":
            return int(self.ratio * t) * h * w
        return int(self.ratio * t * h * w)

    @property
    def effective_ratio(self) -> float:
        """The share of tokens that is really hidden, after rounding down to whole units."""
        t, h, w = self.grid
        return self.num_masked / (t * h * w)

    def __call__(self, key: Key[Array, ""]) -> Bool[Array, " N"]:
        """Draws one clip's mask, True where hidden."""
        t, h, w = self.grid
        if self.kind == "tube":
            mask = jnp.broadcast_to(_choose(key, int(self.ratio * h * w), h * w), (t, h * w))
        elif self.kind == "frame":
            mask = jnp.broadcast_to(_choose(key, int(self.ratio * t), t)[:, None], (t, h * w))
        elif self.kind == "random":
            mask = _choose(key, self.num_masked, t * h * w)
        else:
            start = jax.random.randint(key, (), 0, 4)
            place = jnp.arange(4).reshape(2, 2)
            hidden = (place + start + jnp.arange(t)[:, None, None] + 1) % 4 < int(4 * self.ratio)
            mask = jnp.tile(hidden, (1, h // 2, w // 2))
        return mask.reshape(-1)


def _choose(key: Key[Array, ""], count: int, total: int) -> Bool[Array, " total"]:
    return jax.random.permutation(key, total) < count


@dataclasses.dataclass(frozen=True)
class Masking:
    """The masks of one pre-training recipe: the encoder's, and V2's second one for the decoder.

    With `decoder_kind="none"` the decoder reconstructs all that the encoder does not see. Otherwise it works only on
    the tokens that the decoder's mask leaves, hidden from the encoder or not (V2 modeling_pretrain.py:340-358).
    """

    kind: str
    ratio: float
    decoder_kind: str
    decoder_ratio: float
    grid: tuple[int, int, int]

    def __post_init__(self):
        if self.decoder_kind == "none" and self.decoder_ratio != 0:
            raise ValueError(f"decoder_ratio={self.decoder_ratio} needs a decoder_kind other than 'none'.")
        _ = self.encoder, self.decoder  # their checks, now rather than at the first step

    @property
    def encoder(self) -> Mask:
        return Mask(self.kind, self.ratio, self.grid)

    @property
    def decoder(self) -> Mask | None:
        return None if self.decoder_kind == "none" else Mask(self.decoder_kind, self.decoder_ratio, self.grid)

    @property
    def num_visible(self) -> int:
        """V, the tokens of a clip that the encoder sees."""
        return math.prod(self.grid) - self.encoder.num_masked

    @property
    def num_decoded(self) -> int:
        """M, the tokens of a clip that the decoder predicts."""
        return self.encoder.num_masked if self.decoder is None else math.prod(self.grid) - self.decoder.num_masked

    def __call__(self, keys: Key[Array, " B"]) -> MaskIds:
        """Draws a mask for each clip from its own key; `masked` are the tokens that the decoder works on."""
        if self.decoder is None:
            return ids_from_mask(jax.vmap(self.encoder)(keys), self.encoder.num_masked)
        encoder_keys, decoder_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
        hidden = ids_from_mask(jax.vmap(self.encoder)(encoder_keys), self.encoder.num_masked)
        dropped = ids_from_mask(jax.vmap(self.decoder)(decoder_keys), self.decoder.num_masked)
        return MaskIds(visible=hidden.visible, masked=dropped.visible)


def ids_from_mask(mask: Bool[Array, "B N"], num_masked: int) -> MaskIds:
    """Token ids of a bool mask with exactly `num_masked` True in every row."""
    order = jnp.argsort(mask, axis=1, stable=True)  # visible first, each part ascending
    num_visible = mask.shape[1] - num_masked
    return MaskIds(visible=order[:, :num_visible], masked=order[:, num_visible:])


def mask_from_ids(masked_ids: Int[Array, "B M"], num_patches: int) -> Bool[Array, "B N"]:
    """The bool mask that is True at `masked_ids`."""
    # Clip by clip, so that the compiler sees that none needs another's, on another device.
    return jax.vmap(lambda ids: jnp.zeros(num_patches, bool).at[ids].set(True))(masked_ids)


def resolve_mask(
    bool_masked_pos: Bool[Array, "B N"] | None,
    visible_ids: Int[Array, "B V"] | None,
    masked_ids: Int[Array, "B M"] | None,
    *,
    batch: int,
    num_patches: int,
) -> MaskIds | None:
    """The one mask that a caller gave, as ids; None when none was given.

    Raises:
      ValueError: both forms or half a pair given, a mask for another number of clips or tokens, numbers that are no
        mask and no ids, a bool mask under `jit` (its counts must be known before tracing), one whose rows hide
        different numbers of tokens, or one that leaves none to see. Under `jit` the values of ids are not looked at.
    """
    if bool_masked_pos is None:
        if (visible_ids is None) != (masked_ids is None):
            raise ValueError("visible_ids and masked_ids go together; only one of them was given.")
        if visible_ids is None:
            return None
        return _with_something_to_see(
            MaskIds(
                _checked_ids("visible_ids", visible_ids, batch, num_patches),
                _checked_ids("masked_ids", masked_ids, batch, num_patches),
            )
        )
    if visible_ids is not None or masked_ids is not None:
        raise ValueError("Pass either bool_masked_pos or visible_ids and masked_ids, not both.")
    if isinstance(bool_masked_pos, jax.core.Tracer):
        raise ValueError(
            "bool_masked_pos cannot be used under jit, where the number of hidden tokens must be static: "
            "pass visible_ids and masked_ids, for example those of masking.ids_from_mask(mask, num_masked)."
        )
    mask = np.asarray(bool_masked_pos)
    if mask.dtype != bool:
        # Scores, or the ids of the hidden tokens, would otherwise hide whatever is not zero.
        wanted = "bool_masked_pos must be bool, or integers that are 0 where visible and 1 where hidden"
        if not np.issubdtype(mask.dtype, np.integer):
            raise ValueError(f"{wanted}; got {mask.dtype}.")
        if not np.isin(mask, (0, 1)).all():
            raise ValueError(f"{wanted}; got {mask.dtype} of {mask.min()} to {mask.max()}.")
        mask = mask.astype(bool)
    if mask.shape != (batch, num_patches):
        raise ValueError(f"bool_masked_pos must be [B, N] = {[batch, num_patches]}, got {list(mask.shape)}.")
    counts = np.unique(mask.sum(axis=1))
    if len(counts) != 1:
        raise ValueError(f"Every clip must hide the same number of tokens; bool_masked_pos hides {counts.tolist()}.")
    return _with_something_to_see(ids_from_mask(mask, int(counts[0])))


def _checked_ids(name: str, ids: Int[Array, "B tokens"], batch: int, num_patches: int) -> Int[Array, "B tokens"]:
    ids = ids if isinstance(ids, jax.Array) else np.asarray(ids)
    if ids.ndim != 2 or ids.shape[0] != batch:
        raise ValueError(f"{name} must be [B, tokens] with B = {batch} clips, got {list(ids.shape)}.")
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        hint = " A bool mask is passed as bool_masked_pos." if ids.dtype == bool else ""
        raise ValueError(f"{name} must be integers, got {ids.dtype}.{hint}")
    if not isinstance(ids, jax.core.Tracer) and ids.size:
        lowest, highest = np.asarray(ids).min(), np.asarray(ids).max()
        if lowest < 0 or highest >= num_patches:
            raise ValueError(f"{name} must be in [0, {num_patches - 1}], got {lowest} to {highest}.")
    return ids.astype(np.int32)  # int8 may hold the ids and not N, with which JAX compares them


def _with_something_to_see(mask: MaskIds) -> MaskIds:
    if mask.visible.shape[1] == 0:
        raise ValueError("The mask hides every token; the encoder needs at least one to see.")
    return mask
