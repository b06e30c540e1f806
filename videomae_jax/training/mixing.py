"""Mixup and CutMix on the device: every clip of a batch mixed with the clip opposite, and their targets alike."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key


@dataclasses.dataclass(frozen=True)
class Mixing:
    """Mixes the batch with itself in reverse; one lambda, the clips' own share, for the whole batch.

    Mixup (arXiv 1710.09412) blends whole clips. CutMix (arXiv 1905.04899) puts one box of the other clip into every
    frame; its lambda is the share of the frame outside the box as it was cut, without what lies beyond the edges.

    Args:
      mixup: alpha of lambda's distribution Beta(alpha, alpha); 0: no mixup.
      cutmix: the same for CutMix.
      probability: of a batch to be mixed, 0 to 1.
      switch: of CutMix rather than mixup where both are on, 0 to 1.

    Source: timm's `Mixup` with mode "batch", which V1 fine-tunes with (mixup.py). V1 cuts its box out of frames and
    rows instead of rows and columns, since timm's indices are made for images; here a box is a box. There each device
    draws for its own share of the batch; here what is drawn does not depend on the devices.

    Raises:
      ValueError: a number out of its range.
    """

    mixup: float
    cutmix: float
    probability: float
    switch: float

    def __post_init__(self):
        for name in ("mixup", "cutmix"):
            alpha = getattr(self, name)
            if not 0 <= alpha < math.inf:
                raise ValueError(f"{name} must be a positive alpha, or 0 for none, got {alpha}.")
        for name in ("probability", "switch"):
            share = getattr(self, name)
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {share}.")

    @property
    def mixes(self) -> bool:
        """Whether there is anything to do."""
        return self.mixup > 0 or self.cutmix > 0

    def __call__(
        self, key: Key[Array, ""], video: Float[Array, "B T H W C"], targets: Float[Array, "B K"]
    ) -> tuple[Float[Array, "B T H W C"], Float[Array, "B K"]]:
        """The mixed clips and targets, in their dtypes; of an odd batch the middle clip is mixed with itself.

        Args:
          key: one for the whole batch.
          video: normalised clips.
          targets: a distribution over the classes for each clip, as of `soft_targets`.
        """
        if not self.mixes:
            return video, targets
        weight, lam = self._draw(key, *video.shape[2:4])
        return _with_reversed(video, weight[..., None]), _with_reversed(targets, lam)

    def _draw(self, key: Key[Array, ""], height: int, width: int) -> tuple[Float[Array, "H W"], Float[Array, ""]]:
        """The weights of a clip's own pixels and of its own target, 0 to 1."""
        use_key, lam_key, box_key = jax.random.split(key, 3)
        share = self.switch if self.mixup and self.cutmix else float(self.cutmix > 0)
        mixes, cuts = jax.random.uniform(use_key, (2,)) < jnp.array([self.probability, share])
        alpha = jnp.where(cuts, self.cutmix, self.mixup)
        lam = jnp.where(mixes, jax.random.beta(lam_key, alpha, alpha), 1.0)
        own = ~_box(box_key, lam, height, width)
        return jnp.where(cuts, own, lam), jnp.where(cuts, own.mean(), lam)


def _box(key: Key[Array, ""], lam: Float[Array, ""], height: int, width: int) -> Bool[Array, "H W"]:
    """True inside a box with 1 - lambda of the area, about any pixel, as far as it lies in the frame."""
    y, x = jax.random.randint(key, (2,), 0, jnp.array([height, width]))
    return _span(y, lam, height)[:, None] & _span(x, lam, width)


def _span(centre: Int[Array, ""], lam: Float[Array, ""], side: int) -> Bool[Array, " side"]:
    # In timm's integers: half the length, rounded down twice, before the centre and as much from it on.
    half = jnp.floor(side * jnp.sqrt(1 - lam)).astype(jnp.int32) // 2
    places = jnp.arange(side)
    return (places >= centre - half) & (places < centre + half)


def _with_reversed(x: Float[Array, "B *shape"], weight: Float[Array, "..."]) -> Float[Array, "B *shape"]:
    """Every row by `weight` and the one opposite by the rest, computed in fp32."""
    own, other = x.astype(jnp.float32), x[::-1].astype(jnp.float32)
    return (own * weight + other * (1 - weight)).astype(x.dtype)


def soft_targets(labels: Int[Array, " B"], num_labels: int, smoothing: float) -> Float[Array, "B K"]:
    """Labels as distributions over the classes: 1 - s of each is its label's, s is spread over all (timm's `one_hot`).

    Raises:
      ValueError: a smoothing that is no share.
    """
    if not 0 <= smoothing <= 1:
        raise ValueError(f"label smoothing must be in [0, 1], got {smoothing}.")
    return jax.nn.one_hot(labels, num_labels) * (1 - smoothing) + smoothing / num_labels
