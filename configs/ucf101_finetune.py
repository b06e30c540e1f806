"""VideoMAE fine-tuning on UCF101, 9.5 thousand videos.

    python eval.py --config configs/ucf101_finetune.py --config.init_from=runs/ucf101_pretrain
    python eval.py --config configs/ucf101_finetune.py --config.init_from=MCG-NJU/videomae-base

recipe=script: V1 scripts/ucf101/*/finetune.sh, pre-trained on UCF101 itself; top-1 of base 91.3. From Kinetics-400 the
paper reports 96.1 and no recipe.
recipe=v2: VideoMAE V2's script for giant, from a model fine-tuned on Kinetics-710; 99.6.
tiny has base's numbers and is for trying out.
"""

from videomae_jax.training.downstream import Published, published
from videomae_jax.training.recipe import parse_options

BASE = Published(100, 128, 5e-4, min_lr=1e-5, layer_decay=0.7, drop_path_rate=0.2, head_dropout_prob=0.5)
RECIPES = {
    "script": {"base": BASE, "tiny": BASE},
    "v2": {"giant": Published(50, 24, 1e-3, layer_decay=0.9, drop_path_rate=0.35, head_dropout_prob=0.5)},
}


def get_config(options: str = ""):
    chosen = parse_options(options, size=("base", "giant", "tiny"), recipe=tuple(RECIPES))
    config = published(chosen.recipe, chosen.size, RECIPES)
    config.data.path = "data/ucf101/train.csv"
    config.data.val_path = "data/ucf101/val.csv"
    config.data.stride = 4
    return config
