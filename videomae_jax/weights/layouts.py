"""How one parameter of ours lies in a checkpoint's arrays: pairs of inverse functions, torch's order and back."""

import dataclasses
from collections.abc import Callable

import numpy as np
from einops import rearrange

Arrays = tuple[np.ndarray, ...]
Patch = tuple[int, int, int]  # frames, height, width of one token's pixels


@dataclasses.dataclass(frozen=True)
class Layout:
    """One array of ours against one or more of theirs."""

    to_theirs: Callable[[np.ndarray, Patch], Arrays]
    to_ours: Callable[[Arrays], np.ndarray]


SAME = Layout(lambda ours, patch: (ours,), lambda theirs: theirs[0])

# [in, out] against torch's [out, in].
LINEAR = Layout(lambda ours, patch: (ours.T,), lambda theirs: theirs[0].T)

# [D, 3, D] against three matrices, query, key and value.
QKV = Layout(
    lambda ours, patch: tuple(ours[:, i].T for i in range(3)),
    lambda theirs: np.stack([matrix.T for matrix in theirs], axis=1),
)

# [D, 3, D] against one [3 D, D], query above key above value.
FUSED_QKV = Layout(
    lambda ours, patch: (rearrange(ours, "d c f -> (c f) d"),),
    lambda theirs: rearrange(theirs[0], "(c f) d -> d c f", c=3),
)

# [E] against [1, 1, E].
TOKEN = Layout(lambda ours, patch: (ours[None, None],), lambda theirs: theirs[0][0, 0])


def _conv_to_theirs(ours: np.ndarray, patch: Patch) -> Arrays:
    u, p, q = patch
    return (rearrange(ours, "(u p q c) d -> d c u p q", u=u, p=p, q=q),)


# The patch embedding, [P, D] with the channel fastest, against Conv3d's [D, C, frames, height, width].
CONV3D = Layout(_conv_to_theirs, lambda theirs: rearrange(theirs[0], "d c u p q -> (u p q c) d"))
