"""How many floating-point operations the models take: two for each multiplication of their matrix products.

What is added up, normalised or activated beside the products is left out, as is customary for model FLOPs. The paper's
tables count multiplications, half of these.
"""

from videomae_jax.config import VideoMAEConfig

# Forwards once; backwards twice that: the gradients of a product's two factors are a product each.
TRAINING = 3


def classification_flops(config: VideoMAEConfig, tokens: int) -> int:
    """Of one clip of so many tokens through the encoder and the linear head, forwards."""
    return _encoder(config, tokens) + 2 * config.hidden_size * config.num_labels


def pretraining_flops(config: VideoMAEConfig, visible: int, decoded: int) -> int:
    """Of one clip through encoder and decoder, forwards.

    Args:
      config: the model's.
      visible: tokens that the encoder sees.
      decoded: tokens that the decoder predicts.
    """
    width = config.decoder_hidden_size
    ends = 2 * (visible * config.hidden_size * width + decoded * width * config.patch_dim)
    blocks = _blocks(visible + decoded, width, config.decoder_intermediate_size, config.decoder_num_hidden_layers)
    return _encoder(config, visible) + ends + blocks


def _encoder(config: VideoMAEConfig, tokens: int) -> int:
    embedding = 2 * tokens * config.patch_dim * config.hidden_size
    return embedding + _blocks(tokens, config.hidden_size, config.intermediate_size, config.num_hidden_layers)


def _blocks(tokens: int, width: int, hidden: int, depth: int) -> int:
    weights = 4 * width + 2 * hidden  # query, key, value and output; the MLP
    return depth * 2 * tokens * width * (weights + 2 * tokens)
