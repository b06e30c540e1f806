"""Low-rank adapters (LoRA, arXiv 2106.09685) beside the matrices of the encoder's blocks.

The model knows nothing of them: it runs with what `merge_adapters` returns, differentiated through where they are
trained, and that is what is saved. Parameters are nested dicts, as in `training.state`.
"""

import math

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Key, PyTree

BLOCKS = "videomae/encoder/layer"
ADAPTED = ("attention/qkv", "attention/output", "mlp/intermediate", "mlp/output")
LEAVES = ("lora_a", "lora_b")


def add_adapters(params: PyTree[Array], rank: int, key: Key[Array, ""]) -> PyTree[Array]:
    """Puts `lora_a` [L D r] and `lora_b` [L r F] beside every kernel [L D F] of the encoder's blocks.

    Query, key and value, in one kernel [L D 3 D], have a pair each: [L D 3 r] and [L 3 r D]. A is drawn from
    N(0, 1 / D) and B is zero: the adapted model starts as the model itself. Their product is not scaled (the paper's
    alpha is the rank); under Adam the learning rate does as much.

    Args:
      params: of a model whose encoder is `videomae`.
      rank: r, at least 1 and below both sides of every kernel.
      key: of A.

    Raises:
      ValueError: another rank.
    """
    flat = flatten_dict(params, sep="/")
    for name, kernel_key in zip(ADAPTED, jax.random.split(key, len(ADAPTED)), strict=True):
        layer = f"{BLOCKS}/{name}"
        depth, width, *parts, out = flat[f"{layer}/kernel"].shape
        if not 1 <= rank < min(width, out):
            raise ValueError(
                f"The rank of adapters must be at least 1 and below the sides of the matrices, got {rank}; "
                f"{layer} is {width} x {out}: use at most {min(width, out) - 1}, or train the matrices themselves."
            )
        flat[f"{layer}/lora_a"] = jax.random.normal(kernel_key, (depth, width, *parts, rank)) / math.sqrt(width)
        flat[f"{layer}/lora_b"] = jnp.zeros((depth, *parts, rank, out))
    return unflatten_dict(flat, sep="/")


def merge_adapters(params: PyTree[Array]) -> PyTree[Array]:
    """The parameters of the plain model: each kernel plus A B, in fp32. Without adapters they are what they were."""
    if not isinstance(params, dict):
        return params
    merged = {name: merge_adapters(child) for name, child in params.items() if name not in LEAVES}
    if "lora_a" in params:
        # In full fp32, where devices would round: what is merged for good is what was trained.
        product = jnp.einsum("LD...r,L...rF->LD...F", params["lora_a"], params["lora_b"], precision="highest")
        merged["kernel"] += product
    return merged
