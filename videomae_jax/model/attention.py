"""Scaled dot-product attention: one function, computed as suits the platform, the dtype and the shape."""

import dataclasses
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from videomae_jax.model.sharding import CLIPS_AND_HEADS, splits
from videomae_jax.model.tiled_attention import attend_in_tiles

Attend = Callable[[Array, Array, Array], Array]
# From how many tokens on a TPU's kernel is used; fewer make a small matrix of scores.
LONG = 512
# Queries or keys that a TPU's kernel takes at a time, at most.
LARGEST_BLOCK = 512


def attend(
    query: Float[Array, "B N K H"], key: Float[Array, "B N K H"], value: Float[Array, "B N K H"]
) -> Float[Array, "B N K H"]:
    """Every token attends to every other; softmax in fp32, scale 1/sqrt(H).

    On a mesh (`jax.set_mesh`) with the axes `data`, `fsdp` and `tensor`, every device attends for its own clips and
    heads. JAX's default device decides on the implementation where no mesh is set: to run on the CPU of a machine with
    an accelerator, use `jax.default_device`.
    """
    chosen = backend(platform(), query)
    if chosen not in OPAQUE or jax.sharding.get_abstract_mesh().empty:
        return chosen(query, key, value)
    if splits(query.shape[0], query.shape[2]):
        spec = CLIPS_AND_HEADS
        chosen = jax.shard_map(chosen, in_specs=(spec, spec, spec), out_specs=spec, check_vma=False)
    elif chosen is attend_on_tpu:
        chosen = attend_plainly
    return chosen(query, key, value)


def attention_weights(query: Float[Array, "B Q K H"], key: Float[Array, "B N K H"]) -> Float[Array, "B K Q N"]:
    """How much every query takes of every token, fp32; each row sums to 1.

    For those who look at the weights, drop some of them or have few; `attend` never has all of them at once.
    """
    query = query * query.shape[-1] ** -0.5
    return jax.nn.softmax(jnp.einsum("BQKH,BNKH->BKQN", query, key, preferred_element_type=jnp.float32))


def mix(weights: Float[Array, "B K Q N"], value: Float[Array, "B N K H"]) -> Float[Array, "B Q K H"]:
    """The values by these weights."""
    mixed = jnp.einsum("BKQN,BNKH->BQKH", weights.astype(value.dtype), value, preferred_element_type=jnp.float32)
    return mixed.astype(value.dtype)


def platform() -> str:
    """Where this is going to run: on the devices of the mesh that is set (`jax.set_mesh`), else on JAX's default."""
    device = jax.sharding.get_abstract_mesh().abstract_device or jax.config.jax_default_device
    if device is None:
        return jax.default_backend()
    return device if isinstance(device, str) else device.platform


def backend(platform: str, query: Float[Array, "B N K H"]) -> Attend:
    """The fastest way of attending that this platform has for queries of this shape and dtype."""
    B, N, _, H = query.shape
    if not isinstance(B, int):
        return attend_plainly  # `jax.export` for any number of clips, and perhaps for other platforms than this
    if platform == "cpu":
        return attend_in_tiles
    if platform == "tpu" and N >= LONG:
        return attend_on_tpu
    if platform == "gpu" and query.dtype in (jnp.bfloat16, jnp.float16) and H % 8 == 0 and H <= 128 and _is_ampere():
        return attend_with_cudnn
    return attend_plainly


def attend_plainly(query, key, value):
    """XLA's own products, with all the scores of a layer in memory at once."""
    return jax.nn.dot_product_attention(query, key, value, implementation="xla")


def attend_with_cudnn(query, key, value):
    """cuDNN's flash attention."""
    return jax.nn.dot_product_attention(query, key, value, implementation="cudnn")


def attend_on_tpu(query, key, value):
    """JAX's flash attention for TPUs."""
    from jax.experimental.pallas.ops.tpu import flash_attention as tpu_flash  # takes a while, and only TPUs need it

    B, N, _, H = query.shape
    lanes = tpu_flash.NUM_LANES
    padding = -N % lanes  # the kernel takes whole lanes of keys
    block = max(size for size in range(lanes, LARGEST_BLOCK + 1, lanes) if (N + padding) % size == 0)
    blocks = tpu_flash.BlockSizes(
        **{field.name: block for field in dataclasses.fields(tpu_flash.BlockSizes)} | {"block_b": 1}
    )
    tokens = [jnp.pad(x.swapaxes(1, 2), ((0, 0), (0, 0), (0, padding), (0, 0))) for x in (query, key, value)]
    # Tokens attend within their own segment: padding, the second, is not seen.
    segment = jnp.broadcast_to(jnp.arange(N + padding) >= N, (B, N + padding)).astype(jnp.int32)
    mixed = tpu_flash.flash_attention(
        *tokens, segment_ids=tpu_flash.SegmentIds(segment, segment), sm_scale=H**-0.5, block_sizes=blocks
    )
    return mixed[:, :, :N].swapaxes(1, 2)


# The compiler cannot split a kernel, or a loop over heads, over devices: each would do all clips.
OPAQUE = (attend_in_tiles, attend_on_tpu)


def _is_ampere() -> bool:
    """Whether these are CUDA devices new enough for cuDNN's kernels; an AMD device's capability is no number."""
    return all(
        re.fullmatch(r"\d+\.\d+", capability) and float(capability) >= 8
        for capability in (str(device.compute_capability) for device in jax.local_devices(backend="gpu"))
    )
