"""VideoMAE pre-training on Kinetics-400.

    python train.py --config configs/k400_pretrain.py:size=base,recipe=script --config.data.path=k400/train.csv

recipe=script: the released scripts (V1 scripts/kinetics/*/pretrain.sh), which gave the published weights on 32 to 64
V100 GPUs. Top-1 on K400 after fine-tuning: small 79.0, base 81.5 (800 epochs: 80.0), large 85.2, huge 86.6.
recipe=paper: the paper's table 9: 800 epochs of 1024 clips, mirrored clips, 4 decoder blocks for every size. Base:
80.0; about 27 hours on 64 V100 GPUs.
giant has no V1 recipe and takes huge's numbers; tiny is for trying out.
"""

from videomae_jax.training.recipe import parse_options, pretraining

BATCH_SIZES = {"base": 2048, "small": 1024, "large": 512, "huge": 1024, "giant": 1024, "tiny": 1024}


def get_config(options: str = ""):
    chosen = parse_options(options, size=tuple(BATCH_SIZES), recipe=("script", "paper"))
    config = pretraining(chosen.size)
    config.data.path = "data/k400/train.csv"
    config.data.stride = 4
    if chosen.recipe == "script":
        config.total_epochs = 1600.0
        config.data.batch_size = BATCH_SIZES[chosen.size]
    else:
        config.total_epochs = 800.0
        config.data.batch_size = 1024
        config.data.flip = True
        config.model.decoder_num_hidden_layers = 4
    return config
