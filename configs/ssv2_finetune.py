"""VideoMAE fine-tuning on Something-Something V2: clips of whole videos, none mirrored: labels say left and right.

    python eval.py --config configs/ssv2_finetune.py:size=base,recipe=script --config.init_from=runs/ssv2_pretrain

recipe=script: the released scripts (V1 scripts/ssv2/*/finetune.sh), which gave the published weights: top-1 small 66.8,
base 70.8 (2 x 3 views, after 2400 epochs of pre-training). After 800 epochs base was fine-tuned with
data.batch_size=512, data.views=1 and total_epochs=50: 69.6.
recipe=paper: the paper's appendix; top-1 of large 74.3. That two operations of RandAugment are drawn, which it does not
say, is ours.
recipe=v2: VideoMAE V2's scripts; top-1 of giant 77.0.
tiny has base's numbers and is for trying out.
"""

from videomae_jax.training.downstream import Published, published
from videomae_jax.training.recipe import parse_options

BASE = Published(30, 384, 5e-4)
RECIPES = {
    "script": {"base": BASE, "small": Published(40, 384, 1e-3, layer_decay=0.7), "tiny": BASE},
    "paper": {
        "base": Published(40, 512, 5e-4),
        "small": Published(40, 512, 1e-3, layer_decay=0.7),
        "large": Published(30, 512, 5e-4, drop_path_rate=0.2, head_dropout_prob=0.5),
    },
    "v2": {
        "base": Published(25, 256, 2e-3, layer_decay=0.65),
        "large": Published(20, 192, 5e-4, drop_path_rate=0.2),
        "huge": Published(20, 128, 5e-4, layer_decay=0.8, drop_path_rate=0.2),
        "giant": Published(20, 96, 3e-4, layer_decay=0.9, drop_path_rate=0.25),
    },
}


def get_config(options: str = ""):
    sizes = ("base", "small", "large", "huge", "giant", "tiny")
    chosen = parse_options(options, size=sizes, recipe=tuple(RECIPES))
    config = published(chosen.recipe, chosen.size, RECIPES)
    config.data.path = "data/ssv2/train.csv"
    config.data.val_path = "data/ssv2/val.csv"
    config.data.stride = None
    config.augment.flip = False
    config.test.segments = 2
    if chosen.recipe == "paper":
        config.augment.randaugment = "rand-m9-mstd0.5-inc1"
    return config
