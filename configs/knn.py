"""The vote of the nearest training videos in an encoder's features: nothing is trained.

    python eval.py --config configs/knn.py --config.init_from=runs/ucf101_pretrain

Features are means over the tokens of the middle clip, compared by their angle; votes are weighted as in DINO
(eval_knn.py: 20 neighbours, temperature 0.07).
"""

from videomae_jax.training.downstream import probing
from videomae_jax.training.recipe import parse_options


def get_config(options: str = ""):
    chosen = parse_options(options, size=("base", "small", "large", "huge", "giant", "tiny"))
    config = probing(chosen.size, "knn")
    config.data.path = "data/ucf101/train.csv"
    config.data.val_path = "data/ucf101/val.csv"
    config.data.stride = 4
    config.test.segments = 1
    config.test.crops = 1
    return config
