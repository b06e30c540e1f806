"""VideoMAE fine-tuning on Kinetics-400.

    python eval.py --config configs/k400_finetune.py:size=base,recipe=script --config.init_from=runs/k400_pretrain

recipe=script: the released scripts (V1 scripts/kinetics/*/finetune.sh), which gave the published weights: top-1 small
79.0, base 81.5, large 85.2, huge 86.6 (5 x 3 views, after 1600 epochs of pre-training). After 800 epochs base was
fine-tuned with data.batch_size=512, data.views=1, optim.base_lr=1e-3 and total_epochs=100: 80.0.
recipe=paper: the paper's appendix. That two operations of RandAugment are drawn, which it does not say, is ours.
recipe=v2: VideoMAE V2's scripts; top-1 of giant 87.2. On Kinetics-710 giant was fine-tuned with data.batch_size=96,
total_epochs=35, model.drop_path_rate=0.3 and optim.clip_norm=5.0: 83.8. recipe=v2_k710: from that model, with its
classifier's rows of these 400 classes, for which the names of all 710 must be in its config.json (id2label); 88.4.
tiny has base's numbers and is for trying out.
"""

from videomae_jax.training.downstream import Published, published
from videomae_jax.training.recipe import parse_options

BASE = Published(75, 384, 5e-4)
RECIPES = {
    "script": {
        "base": BASE,
        "small": Published(150, 384, 5e-4),
        "large": Published(35, 128, 2e-3),
        "huge": Published(50, 512, 1e-3, min_lr=1e-5, drop_path_rate=0.2, head_dropout_prob=0.5),
        "tiny": BASE,
    },
    "paper": {
        "base": Published(75, 512, 1e-3),
        "small": Published(150, 512, 1e-3, layer_decay=0.7),
        "large": Published(50, 512, 1e-3, drop_path_rate=0.2, head_dropout_prob=0.5),
        "huge": Published(50, 512, 1e-3, drop_path_rate=0.2, head_dropout_prob=0.5),
    },
    "v2": {
        "base": Published(90, 512, 7e-4),
        "large": Published(35, 192, 2e-3, drop_path_rate=0.2),
        "huge": Published(40, 128, 1e-3, layer_decay=0.8, drop_path_rate=0.2, head_dropout_prob=0.5),
        "giant": Published(30, 192, 1e-3, layer_decay=0.9, drop_path_rate=0.2, weight_decay=0.1),
    },
    "v2_k710": {
        "giant": Published(3, 96, 1e-5, layer_decay=0.9, drop_path_rate=0.25, weight_decay=0.1, warmup_epochs=1.0)
    },
}


def get_config(options: str = ""):
    sizes = ("base", "small", "large", "huge", "giant", "tiny")
    chosen = parse_options(options, size=sizes, recipe=tuple(RECIPES))
    config = published(chosen.recipe, chosen.size, RECIPES)
    config.data.path = "data/k400/train.csv"
    config.data.val_path = "data/k400/val.csv"
    config.data.stride = 4
    if chosen.recipe == "paper":
        config.augment.randaugment = "rand-m9-mstd0.5-inc1"
    return config
