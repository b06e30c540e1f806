"""The names in the original repositories' checkpoints, V1 and V2, and in V2's on the Hugging Face Hub.

V1 modeling_pretrain.py and modeling_finetune.py; V2 models/modeling_pretrain.py and models/modeling_finetune.py.
"""

from videomae_jax.config import ORIGINAL
from videomae_jax.weights.layouts import CONV3D, FUSED_QKV, LINEAR, TOKEN
from videomae_jax.weights.rules import Dialect, Rule, dense, inside, norm, stack

BLOCK = (
    *norm("layernorm_before", "norm1"),
    Rule("attention/qkv/kernel", ("attn.qkv.weight",), FUSED_QKV),
    Rule("attention/qkv/q_bias", ("attn.q_bias",)),
    Rule("attention/qkv/v_bias", ("attn.v_bias",)),
    *dense("attention/output", "attn.proj"),
    *norm("layernorm_after", "norm2"),
    *dense("mlp/intermediate", "mlp.fc1"),
    *dense("mlp/output", "mlp.fc2"),
)
ENCODER = (
    Rule("embeddings/projection/kernel", ("patch_embed.proj.weight",), CONV3D),
    Rule("embeddings/projection/bias", ("patch_embed.proj.bias",)),
    *stack("encoder", "blocks", BLOCK),
    *norm("layernorm", "norm"),
)
PRETRAINING = (
    *inside(ENCODER, "videomae/", "encoder."),
    Rule("encoder_to_decoder/kernel", ("encoder_to_decoder.weight",), LINEAR),
    Rule("mask_token", ("mask_token",), TOKEN),
    *stack("decoder/decoder_layers", "decoder.blocks", BLOCK),
    *norm("decoder/norm", "decoder.norm"),
    *dense("decoder/head", "decoder.head"),
)
FINETUNING = (
    *inside(ENCODER, "videomae/", ""),
    *norm("fc_norm", "fc_norm"),
    *dense("classifier", "head"),
)

ORIGINAL_PRETRAINING = Dialect("original, pre-training", PRETRAINING, ORIGINAL)
ORIGINAL_FINETUNING = Dialect("original, fine-tuning", FINETUNING, ORIGINAL)
V2_HUB = Dialect("VideoMAEv2 on the Hub", inside(FINETUNING, "", "model."), ORIGINAL)
