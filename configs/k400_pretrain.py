"""VideoMAE pre-training on Kinetics-400.

    python train.py --config configs/k400_pretrain.py:size=base,recipe=script --config.data.path=k400/train.csv

recipe=script: the released scripts (V1 scripts/kinetics/*/pretrain.sh), which gave the published weights on 32 to 64
V100 GPUs. Top-1 on K400 after fine-tuning: small 79.0, base 81.5 (800 epochs: 80.0), large 85.2, huge 86.6.
recipe=paper: the paper's table 9: 800 epochs of 1024 clips, mirrored clips, 4 decoder blocks for every size. Base:
80.0; about 27 hours on 64 V100 GPUs.
recipe=v2: VideoMAE V2's scripts: half of what is hidden is decoded (running cell), four crops and masks of each decoded
clip, 4 decoder blocks of V2's widths. V2 pre-trained on 1.35 million videos: data.path may be a mixture.
giant has no V1 recipe and takes huge's numbers in the others; small has none in V2 and takes base's. tiny is for trying
out.
"""

from videomae_jax.training.recipe import parse_options, pretraining

SCRIPT_BATCH_SIZES = {"base": 2048, "small": 1024, "large": 512, "huge": 1024, "giant": 1024, "tiny": 1024}
V2_SIZES = {"large": "large_v2", "huge": "huge_v2"}
V2_BATCH_SIZES = {"large": 1536, "huge": 2048, "giant": 2048}


def get_config(options: str = ""):
    chosen = parse_options(options, size=tuple(SCRIPT_BATCH_SIZES), recipe=("script", "paper", "v2"))
    config = pretraining(chosen.size)
    config.data.path = "data/k400/train.csv"
    config.data.stride = 4
    if chosen.recipe == "script":
        config.total_epochs = 1600.0
        config.data.batch_size = SCRIPT_BATCH_SIZES[chosen.size]
    elif chosen.recipe == "paper":
        config.total_epochs = 800.0
        config.data.batch_size = 1024
        config.data.flip = True
        config.model.decoder_num_hidden_layers = 4
    else:
        config.total_epochs = 300.0 if chosen.size in V2_BATCH_SIZES else 200.0
        config.model.size = V2_SIZES.get(chosen.size, chosen.size)
        config.data.batch_size = V2_BATCH_SIZES.get(chosen.size, 1024)
        config.data.views = 4
        config.mask.decoder_kind = "running_cell"
        config.mask.decoder_ratio = 0.5
        config.optim.base_lr = 6e-4 if chosen.size == "giant" else 1e-3
        config.optim.warmup_epochs = config.total_epochs / 10
        config.optim.clip_norm = 0.02 if chosen.size == "giant" else None
    return config
