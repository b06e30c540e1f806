"""The names in mmaction2's checkpoints (mmaction/models/backbones/vit_mae.py, heads/timesformer_head.py)."""

from videomae_jax.config import ORIGINAL
from videomae_jax.weights import original
from videomae_jax.weights.layouts import CONV3D
from videomae_jax.weights.rules import Dialect, Rule, dense, inside, norm, stack

BLOCK = (
    *(rule for rule in original.BLOCK if not rule.ours.startswith("mlp")),
    *dense("mlp/intermediate", "mlp.layers.0.0"),
    *dense("mlp/output", "mlp.layers.1"),
)
BACKBONE = (
    Rule("videomae/embeddings/projection/kernel", ("patch_embed.projection.weight",), CONV3D),
    Rule("videomae/embeddings/projection/bias", ("patch_embed.projection.bias",)),
    *stack("videomae/encoder", "blocks", BLOCK),
    *norm("videomae/layernorm", "norm"),
    *norm("fc_norm", "fc_norm"),
)
RECOGNIZER = (*inside(BACKBONE, "", "backbone."), *dense("classifier", "cls_head.fc_cls"))

MMACTION2 = Dialect("mmaction2", RECOGNIZER, ORIGINAL, tables=("backbone.pos_embed",))
MMACTION2_BACKBONE = Dialect("mmaction2, backbone alone", BACKBONE, ORIGINAL, tables=("pos_embed",))
