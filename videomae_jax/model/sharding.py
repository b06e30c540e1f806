"""How activations lie on a mesh (`jax.set_mesh`): the only thing that the models know of one."""

import jax
from jax.sharding import AxisType, PartitionSpec
from jaxtyping import Array, Float

# The mesh axes that clips and heads are split over (training/mesh.py).
CLIPS = PartitionSpec(("data", "fsdp"))
CLIPS_AND_HEADS = PartitionSpec(("data", "fsdp"), None, "tensor")


def splits(clips: int, heads: int | None = None) -> bool:
    """Whether the compiler splits arrays over the mesh that is set, and can split so many clips and heads evenly."""
    mesh = jax.sharding.get_abstract_mesh()
    if not {"data", "fsdp", "tensor"} <= set(mesh.axis_names) or any(kind != AxisType.Auto for kind in mesh.axis_types):
        return False
    return clips % (mesh.shape["data"] * mesh.shape["fsdp"]) == 0 and (heads or 0) % mesh.shape["tensor"] == 0


def splits_heads() -> bool:
    """Whether heads are split over the mesh that is set."""
    return jax.sharding.get_abstract_mesh().shape.get("tensor", 1) > 1


def with_own_clips(x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
    """The same tokens, with each device at its own clips.

    Where `fsdp` splits the matrices, the compiler would else leave them where they are and send activations around,
    which are many times larger.
    """
    return jax.lax.with_sharding_constraint(x, CLIPS) if splits(x.shape[0]) else x
