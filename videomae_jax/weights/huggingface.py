"""The names in Hugging Face's checkpoints: on disk in transformers 4 and from 5.23 on; and in 5.0 to 5.22."""

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


def _model(block: Rules) -> Rules:
    return (
        *inside(_encoder(block), "videomae/", "videomae."),
        Rule("encoder_to_decoder/kernel", ("encoder_to_decoder.weight",), LINEAR),
        Rule("mask_token", ("mask_token",), TOKEN),
        *stack("decoder/decoder_layers", "decoder.decoder_layers", block),
        *norm("decoder/norm", "decoder.norm"),
        *dense("decoder/head", "decoder.head"),
        *norm("fc_norm", "fc_norm"),
        *dense("classifier", "classifier"),
    )


BLOCK = _block("q_bias", "v_bias")
BLOCK_V5 = _block("query.bias", "value.bias")

HUGGINGFACE = Dialect("Hugging Face", _model(BLOCK))
HUGGINGFACE_ENCODER = Dialect("Hugging Face, encoder alone", inside(_encoder(BLOCK), "videomae/", ""))
HUGGINGFACE_V5 = Dialect("Hugging Face 5.0 to 5.22", _model(BLOCK_V5))
HUGGINGFACE_V5_ENCODER = Dialect("Hugging Face 5.0 to 5.22, encoder alone", inside(_encoder(BLOCK_V5), "videomae/", ""))
