"""Devices as a mesh, and where every array lies on it. The models know nothing of this."""

import math
import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int64

P = PartitionSpec

# Path of a parameter -> its axes on the mesh; the first match wins, and every parameter must match one. `fsdp` splits
# a matrix along its input (or, where `tensor` has that, its output), `tensor` along attention heads and MLP columns.
# In a stack the leading axis is the layer. Optimizer moments have the paths of their parameters.
RULES: tuple[tuple[str, PartitionSpec], ...] = (
    # The pooler is no stack.
    (r"pooler/attention/(query|key|value)/kernel", P("fsdp", "tensor")),
    (r"pooler/attention/(query|value)/bias", P("tensor")),
    (r"pooler/mlp/intermediate/kernel", P("fsdp", "tensor")),
    (r"pooler/mlp/intermediate/bias", P("tensor")),
    (r"pooler/mlp/output/kernel", P("tensor", "fsdp")),
    (r"attention/qkv/kernel", P(None, "fsdp", None, "tensor")),
    (r"attention/qkv/[qv]_bias", P(None, "tensor")),
    (r"attention/output/kernel", P(None, "tensor", "fsdp")),
    (r"mlp/intermediate/kernel", P(None, "fsdp", "tensor")),
    (r"mlp/intermediate/bias", P(None, "tensor")),
    (r"mlp/output/kernel", P(None, "tensor", "fsdp")),
    (r"projection/kernel", P(None, "fsdp")),
    (r"(encoder_to_decoder|head|classifier)/kernel", P("fsdp", None)),
    (r"(attention/qkv|mlp/intermediate)/lora_a", P(None, "fsdp")),
    (r"attention/qkv/lora_b", P(None, None, None, "tensor")),
    (r"mlp/intermediate/lora_b", P(None, None, "tensor")),
    (r"output/lora_a", P(None, "tensor")),
    (r"output/lora_b", P(None, None, "fsdp")),
    (r"(bias|scale|mask_token|query)", P()),
)

BATCH = P(("data", "fsdp"))
AXIS_TYPES = (AxisType.Auto,) * 3  # the compiler splits arrays by the rules


def make_mesh(*, data: int, fsdp: int, tensor: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Devices as a mesh of axes `data`, `fsdp`, `tensor`; one of these may be -1 for the rest.

    Args:
      data, fsdp, tensor: devices along each axis.
      devices: all that there are by default.

    Raises:
      ValueError: sizes whose product is not the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = mesh_sizes(len(devices), data=data, fsdp=fsdp, tensor=tensor)
    # Unlike `jax.make_mesh`, also where a TPU slice's sides have to be split: no sides of 8 x 8 x 8 make 16 chips.
    placed = mesh_utils.create_device_mesh(tuple(sizes.values()), devices, allow_split_physical_axes=True)
    return Mesh(placed, tuple(sizes), axis_types=AXIS_TYPES)


def mesh_sizes(devices: int, **sizes: int) -> dict[str, int]:
    """The axes of a mesh of so many devices, with the rest in place of a -1; errors as in `make_mesh`."""
    free = [name for name, size in sizes.items() if size == -1]
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if len(free) > 1 or fixed < 1 or devices % fixed or (not free and fixed != devices):
        raise ValueError(
            f"mesh {sizes} does not fit {devices} devices: the sizes must multiply to {devices}, "
            "and one of them may be -1 for the rest."
        )
    if free:
        sizes[free[0]] = devices // fixed
    return sizes


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Clips are split over `data` and `fsdp`."""
    return NamedSharding(mesh, BATCH)


def batch_shards(mesh: Mesh) -> int:
    """The number of parts that a batch is split into."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def own_rows(mesh: Mesh, batch_size: int) -> Int64[np.ndarray, " b"]:
    """The rows of a batch that lie on devices of this process, which is to load them.

    Processes that share clips, split along `tensor`, have the same rows.
    """
    places = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
    return np.unique(np.concatenate([np.arange(batch_size)[place] for place in places.values()]))


def check_batch(mesh: Mesh, batch_size: int, accumulation: int) -> None:
    """Raises a ValueError unless every part of a batch that is accumulated divides over the devices."""
    parts = batch_shards(mesh) * accumulation
    if batch_size % parts:
        raise ValueError(
            f"data.batch_size={batch_size} does not divide over {batch_shards(mesh)} devices (mesh axes data and fsdp) "
            f"times optim.accumulation={accumulation}: use a multiple of {parts}."
        )


def compute_dtype(name: str) -> jnp.dtype:
    """The dtype of matrix products: with "auto", bfloat16 where the devices are made for it.

    Raises:
      ValueError: an unknown name.
    """
    if name == "auto":
        name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    if name not in ("float32", "bfloat16"):
        raise ValueError(f"compute_dtype must be 'auto', 'float32' or 'bfloat16', got {name!r}.")
    return jnp.dtype(name)


def shardings(tree, mesh: Mesh):
    """A sharding for every leaf of a tree of parameters or of a training state, by `RULES`; scalars are replicated.

    Raises:
      ValueError: a parameter without a rule, or a side that its mesh axis does not divide.
    """
    return jax.tree_util.tree_map_with_path(lambda path, leaf: _sharding(path, leaf, mesh), tree)


def path_name(path) -> str:
    """A parameter's path in a tree, as the rules have it: `classifier/kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _sharding(path, leaf, mesh: Mesh) -> NamedSharding:
    if leaf.ndim == 0:
        return NamedSharding(mesh, P())
    name = path_name(path)
    spec = next((spec for rule, spec in RULES if re.search(f"(^|/){rule}$", name)), None)
    if spec is None:
        raise ValueError(f"No sharding rule matches the parameter {name} of shape {leaf.shape}.")
    for side, axis in zip(leaf.shape, spec, strict=False):
        if axis is not None and side % mesh.shape[axis]:
            raise ValueError(
                f"mesh axis {axis}={mesh.shape[axis]} does not divide a side of {name}, shape {leaf.shape}: "
                f"choose a divisor of {side}."
            )
    return NamedSharding(mesh, spec)
