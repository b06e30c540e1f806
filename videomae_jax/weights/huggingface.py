"""The names of Hugging Face's checkpoints on disk (transformers v4, and what 5.23 writes)."""

import dataclasses

from videomae_jax.weights.layouts import CONV3D, LINEAR, QKV, SAME, TOKEN, Layout


@dataclasses.dataclass(frozen=True)
class Rule:
    """One parameter of ours, its names in the checkpoint, and the layout between them.

    In a stack's rule our array has a leading axis L and the names have a `{i}` for the layer.
    """

    ours: str
    theirs: tuple[str, ...]
    layout: Layout

    @property
    def stacked(self) -> bool:
        """Whether our array has a leading axis over layers."""
        return "{i}" in self.theirs[0]


def _dense(ours: str, theirs: str) -> tuple[Rule, Rule]:
    return Rule(f"{ours}/kernel", (f"{theirs}.weight",), LINEAR), Rule(f"{ours}/bias", (f"{theirs}.bias",), SAME)


def _norm(ours: str, theirs: str) -> tuple[Rule, Rule]:
    return Rule(f"{ours}/scale", (f"{theirs}.weight",), SAME), Rule(f"{ours}/bias", (f"{theirs}.bias",), SAME)


def _stack(ours: str, theirs: str) -> tuple[Rule, ...]:
    ours, theirs = f"{ours}/layer", f"{theirs}.{{i}}"
    attention = f"{theirs}.attention.attention"
    return (
        *_norm(f"{ours}/layernorm_before", f"{theirs}.layernorm_before"),
        Rule(f"{ours}/attention/qkv/kernel", tuple(f"{attention}.{n}.weight" for n in ("query", "key", "value")), QKV),
        Rule(f"{ours}/attention/qkv/q_bias", (f"{attention}.q_bias",), SAME),
        Rule(f"{ours}/attention/qkv/v_bias", (f"{attention}.v_bias",), SAME),
        *_dense(f"{ours}/attention/output", f"{theirs}.attention.output.dense"),
        *_norm(f"{ours}/layernorm_after", f"{theirs}.layernorm_after"),
        *_dense(f"{ours}/mlp/intermediate", f"{theirs}.intermediate.dense"),
        *_dense(f"{ours}/mlp/output", f"{theirs}.output.dense"),
    )


ENCODER = (
    Rule("embeddings/projection/kernel", ("embeddings.patch_embeddings.projection.weight",), CONV3D),
    Rule("embeddings/projection/bias", ("embeddings.patch_embeddings.projection.bias",), SAME),
    *_stack("encoder", "encoder.layer"),
    *_norm("layernorm", "layernorm"),
)

PRETRAINING = (
    *(Rule(f"videomae/{rule.ours}", tuple(f"videomae.{n}" for n in rule.theirs), rule.layout) for rule in ENCODER),
    Rule("encoder_to_decoder/kernel", ("encoder_to_decoder.weight",), LINEAR),
    Rule("mask_token", ("mask_token",), TOKEN),
    *_stack("decoder/decoder_layers", "decoder.decoder_layers"),
    *_norm("decoder/norm", "decoder.norm"),
    *_dense("decoder/head", "decoder.head"),
)

HEAD = (*_norm("fc_norm", "fc_norm"), *_dense("classifier", "classifier"))

RULES = {rule.ours: rule for rule in (*ENCODER, *PRETRAINING, *HEAD)}
