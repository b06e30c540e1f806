"""VideoMAE pre-training on Something-Something V2. No mirrored clips: labels say left and right.

    python train.py --config configs/ssv2_pretrain.py:size=base,recipe=script --config.data.path=ssv2/train.csv

recipe=script: the released scripts (V1 scripts/ssv2/*/pretrain.sh), 64 V100 GPUs. Top-1 on SSv2 after fine-tuning:
small 66.8, base 70.8 (800 epochs: 69.6).
recipe=paper: the paper's table 9: 800 epochs of 1024 clips. Base: 69.6, large 74.3 (the paper only); base took 19.5
hours on 64 V100 GPUs.
large has no script and takes base's numbers; tiny is for trying out.
"""

from videomae_jax.training.recipe import parse_options, pretraining


def get_config(options: str = ""):
    chosen = parse_options(options, size=("base", "small", "large", "tiny"), recipe=("script", "paper"))
    config = pretraining(chosen.size)
    config.data.path = "data/ssv2/train.csv"
    config.data.stride = 2
    if chosen.recipe == "script":
        config.total_epochs = 2400.0
        config.data.batch_size = 2048
    else:
        config.total_epochs = 800.0
        config.data.batch_size = 1024
        config.model.decoder_num_hidden_layers = 4
    return config
