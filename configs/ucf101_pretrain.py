"""VideoMAE pre-training on UCF101 alone, 9.5 thousand videos.

    python train.py --config configs/ucf101_pretrain.py --config.data.path=ucf101/train.csv

Source: V1 scripts/ucf101/videomae_vit_base_patch16_224_tubemasking_ratio_0.75_epoch_3200/pretrain.sh; about 30 hours on
8 GPUs. Masks 75 %, with twice the learning rate of the large data sets. Top-1 after fine-tuning: 91.3 (from scratch:
51.4).
"""

from videomae_jax.training.recipe import parse_options, pretraining


def get_config(options: str = ""):
    chosen = parse_options(options, size=("base", "tiny"))
    config = pretraining(chosen.size)
    config.total_epochs = 3200.0
    config.mask.ratio = 0.75
    config.data.path = "data/ucf101/train.csv"
    config.data.batch_size = 192
    config.data.stride = 4
    config.optim.base_lr = 3e-4
    return config
