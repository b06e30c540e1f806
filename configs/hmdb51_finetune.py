"""VideoMAE fine-tuning on HMDB51, 3.5 thousand videos.

    python eval.py --config configs/hmdb51_finetune.py --config.init_from=runs/hmdb51_pretrain
    python eval.py --config configs/hmdb51_finetune.py --config.init_from=MCG-NJU/videomae-base

recipe=paper: the paper's section 7, pre-trained on HMDB51 itself; no script was released. Top-1 of base 62.6 with
10 x 3 views. It does not say the head's dropout nor the last learning rate: they are UCF101's and Kinetics'. That two
operations of RandAugment are drawn is ours. From Kinetics-400 it reports 73.3 and no recipe.
recipe=v2: VideoMAE V2's script for giant, from a model fine-tuned on Kinetics-710; 88.1.
tiny has base's numbers and is for trying out.
"""

from videomae_jax.training.downstream import Published, published
from videomae_jax.training.recipe import parse_options

BASE = Published(50, 128, 1e-3, layer_decay=0.7, drop_path_rate=0.2, head_dropout_prob=0.5)
RECIPES = {
    "paper": {"base": BASE, "tiny": BASE},
    "v2": {"giant": Published(15, 24, 5e-4, layer_decay=0.9, drop_path_rate=0.35, head_dropout_prob=0.5)},
}


def get_config(options: str = ""):
    chosen = parse_options(options, size=("base", "giant", "tiny"), recipe=tuple(RECIPES))
    config = published(chosen.recipe, chosen.size, RECIPES)
    config.data.path = "data/hmdb51/train.csv"
    config.data.val_path = "data/hmdb51/val.csv"
    config.data.stride = 2
    if chosen.recipe == "paper":
        config.test.segments = 10
        config.augment.randaugment = "rand-m9-mstd0.5-inc1"
    return config
