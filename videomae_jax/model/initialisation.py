"""How new parameters are drawn: as the original draws them."""

import jax
from jax.nn.initializers import Initializer

# All linear layers of a pre-training model (V1 modeling_pretrain.py).
xavier: Initializer = jax.nn.initializers.xavier_uniform()

# PyTorch's default for Linear and Conv layers, U(+-1/sqrt(fan_in)): what the original leaves untouched.
torch_default: Initializer = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")

# Cut at one standard deviation, as the original cuts it (V1 modeling_pretrain.py:14-15).
mask_token: Initializer = jax.nn.initializers.truncated_normal(0.02, lower=-1.0, upper=1.0)


def torch_default_bias(fan_in: int) -> Initializer:
    """PyTorch's default for the bias of a layer with `fan_in` inputs, U(+-1/sqrt(fan_in))."""

    def init(key, shape, dtype=None, **_):
        bound = fan_in**-0.5
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init
