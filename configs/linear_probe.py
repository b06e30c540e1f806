"""A linear classifier on a frozen encoder, on Something-Something V2: the paper's protocol.

    python eval.py --config configs/linear_probe.py --config.init_from=runs/ssv2_pretrain

Source: the paper's appendix: SGD, clips cropped as in pre-training, nothing else; no script was released. Top-1 of
base 38.9; users who tried report 33.7 to 34.7. On other data sets: --config.data.stride=4 --config.test.segments=5.
The classifier sees the mean of the tokens, normed to mean 0 and variance 1.
"""

from videomae_jax.training.downstream import probing
from videomae_jax.training.recipe import parse_options


def get_config(options: str = ""):
    chosen = parse_options(options, size=("base", "small", "large", "huge", "giant", "tiny"))
    config = probing(chosen.size, "linear")
    config.total_epochs = 100.0
    config.data.path = "data/ssv2/train.csv"
    config.data.val_path = "data/ssv2/val.csv"
    config.data.batch_size = 1024
    config.optim.optimizer = "sgd"
    config.optim.base_lr = 0.1
    config.optim.min_lr = 0.0
    config.optim.warmup_epochs = 10.0
    config.optim.weight_decay = 0.0
    config.optim.b2 = None
    config.test.segments = 2
    return config
