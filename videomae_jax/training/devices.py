"""What accelerators can do, by their makers' data sheets: MFU is a share of it, and plans are made with it."""

import re
from typing import NamedTuple

import jax.numpy as jnp
from jax.sharding import Mesh


class Accelerator(NamedTuple):
    """What JAX calls a device: on TPU v2 and v3 a core, later a chip.

    Attributes:
      kind: its `device_kind`, of GPUs without their memory. In `ACCELERATORS` the first match counts.
      peak: dense bf16 products with fp32 sums, FLOP/s.
      memory: bytes, less what a TPU keeps for itself.
    """

    kind: str
    peak: float
    memory: float


GIB = 2**30
ACCELERATORS: tuple[Accelerator, ...] = (
    Accelerator("NVIDIA B200", 2250e12, 180e9),
    Accelerator("NVIDIA H200 NVL", 835e12, 141e9),
    Accelerator("NVIDIA H200", 989e12, 141e9),
    Accelerator("NVIDIA H100 PCIe", 756e12, 80e9),
    Accelerator("NVIDIA H100 NVL", 835e12, 94e9),
    Accelerator("NVIDIA H100", 989e12, 80e9),
    Accelerator("NVIDIA A100-SXM4-40GB", 312e12, 40e9),
    Accelerator("NVIDIA A100-PCIE-40GB", 312e12, 40e9),
    Accelerator("NVIDIA A100", 312e12, 80e9),
    Accelerator("NVIDIA L40S", 362e12, 48e9),
    Accelerator("NVIDIA L4", 121e12, 24e9),
    Accelerator("NVIDIA A10G", 70e12, 24e9),
    Accelerator("NVIDIA GeForce RTX 4090", 165e12, 24e9),
    Accelerator("NVIDIA GeForce RTX 3090", 71e12, 24e9),
    Accelerator("TPU v6 lite", 918e12, 31.25 * GIB),
    Accelerator("TPU v6e", 918e12, 31.25 * GIB),
    Accelerator("TPU v5 lite", 197e12, 15.75 * GIB),
    Accelerator("TPU v5e", 197e12, 15.75 * GIB),
    Accelerator("TPU v5", 459e12, 95.0 * GIB),
    Accelerator("TPU v5p", 459e12, 95.0 * GIB),
    Accelerator("TPU v4", 275e12, 31.75 * GIB),
    Accelerator("TPU v3", 61.5e12, 15.75 * GIB),
    Accelerator("TPU v2", 22.5e12, 7.75 * GIB),
)
# As in "NVIDIA H100 80GB HBM3" and "NVIDIA A100-SXM4-80GB". What else follows is another device: a laptop's, a part.
MEMORY = r"(( |-SXM\d-|-PCIE-)\d+GB( HBM\w+| PCIe)?)?"


def accelerator(kind: str) -> Accelerator | None:
    """By JAX's `device_kind`; None for one that is not known."""
    return next((each for each in ACCELERATORS if re.fullmatch(f"{re.escape(each.kind)}{MEMORY}", kind)), None)


def peak_flops(mesh: Mesh, dtype: jnp.dtype) -> float | None:
    """FLOP/s of all devices of a mesh together; None where it is not known, as for every dtype but bfloat16."""
    known = accelerator(mesh.devices.flat[0].device_kind)
    return None if known is None or dtype != jnp.bfloat16 else known.peak * mesh.size
