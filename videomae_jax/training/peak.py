"""How fast devices multiply matrices at best, by their makers' data sheets: what MFU is a share of."""

import jax.numpy as jnp
from jax.sharding import Mesh

# Dense bf16 products with fp32 sums, FLOP/s, of what JAX calls a device: on TPU v2 and v3 a core, later a chip. By the
# beginning of `device_kind`; the first match counts.
BF16_PEAKS: tuple[tuple[str, float], ...] = (
    ("NVIDIA B200", 2250e12),
    ("NVIDIA H200 NVL", 835e12),
    ("NVIDIA H200", 989e12),
    ("NVIDIA H100 PCIe", 756e12),
    ("NVIDIA H100 NVL", 835e12),
    ("NVIDIA H100", 989e12),
    ("NVIDIA A100", 312e12),
    ("NVIDIA L40S", 362e12),
    ("NVIDIA L4", 121e12),
    ("NVIDIA A10G", 70e12),
    ("NVIDIA GeForce RTX 4090", 165e12),
    ("NVIDIA GeForce RTX 3090", 71e12),
    ("TPU v6 lite", 918e12),
    ("TPU v5 lite", 197e12),
    ("TPU v5", 459e12),
    ("TPU v4", 275e12),
    ("TPU v3", 61.5e12),
    ("TPU v2", 22.5e12),
)


def peak_flops(mesh: Mesh, dtype: jnp.dtype) -> float | None:
    """FLOP/s of all devices of a mesh together; None where it is not known, as for every dtype but bfloat16."""
    kind = mesh.devices.flat[0].device_kind
    peaks = [peak for name, peak in BF16_PEAKS if kind.startswith(name)]
    return peaks[0] * mesh.size if peaks and dtype == jnp.bfloat16 else None
