"""A classifier that attends to the tokens of a frozen encoder, on Something-Something V2.

    python eval.py --config configs/attentive_probe.py --config.init_from=runs/ssv2_pretrain

The head is that of V-JEPA's probes: one learned query, one block of cross-attention, a linear classifier. The numbers
are ours, not published ones. On other data sets: --config.data.stride=4 --config.test.segments=5.
"""

from videomae_jax.training.downstream import probing
from videomae_jax.training.recipe import parse_options


def get_config(options: str = ""):
    chosen = parse_options(options, size=("base", "small", "large", "huge", "giant", "tiny"))
    config = probing(chosen.size, "attentive")
    config.total_epochs = 20.0
    config.data.path = "data/ssv2/train.csv"
    config.data.val_path = "data/ssv2/val.csv"
    config.data.batch_size = 256
    config.augment.crop = "resized"
    config.optim.base_lr = 1e-3
    config.optim.min_lr = 0.0
    config.optim.warmup_epochs = 1.0
    config.optim.weight_decay = 0.01
    config.test.segments = 2
    return config
