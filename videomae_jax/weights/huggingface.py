"""The names in Hugging Face's checkpoints.

On disk they are those of transformers 4 up to 5.5 and from 5.18 on. 5.5.1 to 5.17 write other names for the biases and
one more, of the keys (seen by saving with 5.0.0, 5.5.0, 5.5.1, 5.10.4, 5.17.0, 5.18.0 to 5.23.0); later ones keep
these names, without the keys', when they save such a file again.

transformers' VideoMAE has no attentive pooler: its names here are those of transformers' V-JEPA 2.
"""

from videomae_jax.weights.layouts import CONV3D, LINEAR, QKV, TOKEN
from videomae_jax.weights.rules import Dialect, Rule, Rules, dense, inside, norm, stack


def _block(q_bias: str, v_bias: str) -> Rules:
    return (
        *norm("layernorm_before", "layernorm_before"),
        Rule(
            "attention/qkv/kernel",
            (
                "attention.attention.query.weight",
                "attention.attention.key.weight",
                "attention.attention.value.weight",
            ),
            QKV,
        ),
        Rule("attention/qkv/q_bias", (f"attention.attention.{q_bias}",)),
        Rule("attention/qkv/v_bias", (f"attention.attention.{v_bias}",)),
        *dense("attention/output", "attention.output.dense"),
        *norm("layernorm_after", "layernorm_after"),
        *dense("mlp/intermediate", "intermediate.dense"),
        *dense("mlp/output", "output.dense"),
    )


def _encoder(block: Rules) -> Rules:
    return (
        Rule("embeddings/projection/kernel", ("embeddings.patch_embeddings.projection.weight",), CONV3D),
        Rule("embeddings/projection/bias", ("embeddings.patch_embeddings.projection.bias",)),
        *stack("encoder", "encoder.layer", block),
        *norm("layernorm", "layernorm"),
    )


POOLER = (
    Rule("query", ("query_tokens",), TOKEN),
    *norm("layernorm_before", "cross_attention_layer.layer_norm1"),
    *dense("attention/query", "cross_attention_layer.cross_attn.q_proj"),
    Rule("attention/key/kernel", ("cross_attention_layer.cross_attn.k_proj.weight",), LINEAR),
    *dense("attention/value", "cross_attention_layer.cross_attn.v_proj"),
    *norm("layernorm_after", "cross_attention_layer.layer_norm2"),
    *dense("mlp/intermediate", "cross_attention_layer.mlp.fc1"),
    *dense("mlp/output", "cross_attention_layer.mlp.fc2"),
)


def _model(block: Rules) -> Rules:
    return (
        *inside(_encoder(block), "videomae/", "videomae."),
        Rule("encoder_to_decoder/kernel", ("encoder_to_decoder.weight",), LINEAR),
        Rule("mask_token", ("mask_token",), TOKEN),
        *stack("decoder/decoder_layers", "decoder.decoder_layers", block),
        *norm("decoder/norm", "decoder.norm"),
        *dense("decoder/head", "decoder.head"),
        *norm("fc_norm", "fc_norm"),
        *inside(POOLER, "pooler/", "pooler."),
        *dense("classifier", "classifier"),
    )


BLOCK = _block("q_bias", "v_bias")
BLOCK_V5 = _block("query.bias", "value.bias")
# Adds the same to all scores of a query, which softmax does not see.
KEY_BIAS = "{i}.attention.attention.key.bias"

HUGGINGFACE = Dialect("Hugging Face", _model(BLOCK), resize="pil")
HUGGINGFACE_ENCODER = Dialect("Hugging Face, encoder alone", inside(_encoder(BLOCK), "videomae/", ""), resize="pil")
HUGGINGFACE_V5 = Dialect(
    "Hugging Face 5.5 to 5.17",
    _model(BLOCK_V5),
    resize="pil",
    idle=(f"videomae.encoder.layer.{KEY_BIAS}", f"decoder.decoder_layers.{KEY_BIAS}"),
)
HUGGINGFACE_V5_ENCODER = Dialect(
    "Hugging Face 5.5 to 5.17, encoder alone",
    inside(_encoder(BLOCK_V5), "videomae/", ""),
    resize="pil",
    idle=(f"encoder.layer.{KEY_BIAS}",),
)
