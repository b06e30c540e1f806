"""VideoMAE pre-training on HMDB51 alone, 3.5 thousand videos.

    python train.py --config configs/hmdb51_pretrain.py --config.data.path=hmdb51/train.csv

Source: the paper's section 7; no script was released. Masks 75 %, with twice the learning rate of the large data sets.
Top-1 after fine-tuning: 62.6 (from scratch: 18.0).
"""

from videomae_jax.training.recipe import parse_options, pretraining


def get_config(options: str = ""):
    chosen = parse_options(options, size=("base", "tiny"))
    config = pretraining(chosen.size)
    config.total_epochs = 4800.0
    config.mask.ratio = 0.75
    config.data.path = "data/hmdb51/train.csv"
    config.data.batch_size = 192
    config.data.stride = 2
    config.optim.base_lr = 3e-4
    return config
