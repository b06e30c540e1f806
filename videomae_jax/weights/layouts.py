"""How one parameter of ours lies in a checkpoint's arrays: pairs of inverse functions, torch's order and back."""

import dataclasses
from collections.abc import Callable

import numpy as np
from einops import rearrange

from videomae_jax.config import VideoMAEConfig

Arrays = tuple[np.ndarray, ...]


@dataclasses.dataclass(frozen=True)
class Layout:
    """One array of ours against one or more of theirs."""

    to_theirs: Callable[[np.ndarray, VideoMAEConfig], Arrays]
    to_ours: Callable[[Arrays, VideoMAEConfig], np.ndarray]


SAME = Layout(lambda ours, config: (ours,), lambda theirs, config: theirs[0])

# [in, out] against torch's [out, in].
LINEAR = Layout(lambda ours, config: (ours.T,), lambda theirs, config: theirs[0].T)

# [D, 3, D] against three matrices, query, key and value.
QKV = Layout(
    lambda ours, config: tuple(ours[:, i].T for i in range(3)),
    lambda theirs, config: np.stack([matrix.T for matrix in theirs], axis=1),
)

# [E] against [1, 1, E].
TOKEN = Layout(lambda ours, config: (ours[None, None],), lambda theirs, config: theirs[0][0, 0])


def _conv_to_theirs(ours: np.ndarray, config: VideoMAEConfig) -> Arrays:
    u, p, q = config.patch
    return (rearrange(ours, "(u p q c) d -> d c u p q", u=u, p=p, q=q),)


# The patch embedding, [P, D] with the channel fastest, against Conv3d's [D, C, frames, height, width].
CONV3D = Layout(_conv_to_theirs, lambda theirs, config: rearrange(theirs[0], "d c u p q -> (u p q c) d"))
