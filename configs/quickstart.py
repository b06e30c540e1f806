"""Pre-training in minutes, on two CPU cores, without data: photographs seen through camera moves.

    python train.py --config configs/quickstart.py
    python train.py --config configs/quickstart.py:goal=moves --workdir runs/quickstart_moves

What is other than in the published recipe, so that something emerges in minutes:

- 3-D positions, in which neighbours in every direction look alike;
- the decoder works on a random part of what is hidden (V2's dual masking);
- a small model, a high learning rate.

goal=pictures is for looking at reconstructions: tokens of 2 x 2 pixels and 4 frames, in a grid of 2 x 32 x 32, of which
a tenth shows where things are; raw pixels as targets, whose loss can be compared with predictors that need no model;
clipped gradients.
goal=moves is for `quickstart_finetune.py`, which tells the camera's moves apart: 8 frames, 4 apart, so that neighbours
differ; the published tokens of 2 frames, in a grid of 4 x 4 x 4, a quarter of which is seen. Clips are not mirrored,
since moves have a direction.
"""

from videomae_jax.training.recipe import parse_options, pretraining


def get_config(options: str = ""):
    chosen = parse_options(options, goal=("pictures", "moves"))
    config = pretraining("tiny")
    config.total_epochs = 20.0
    config.compute_dtype = "float32"
    config.log_steps = 50
    config.checkpoint_steps = 100

    config.model.position_embedding_type = "sincos_3d"
    config.mask.decoder_kind = "random"

    config.data.path = "builtin:train"
    config.data.val_path = "builtin:val"
    config.data.workers = 0

    config.eval.steps = 350
    config.eval.clips = 30
    return for_pictures(config) if chosen.goal == "pictures" else for_moves(config)


def for_pictures(config):
    config.total_steps = 700
    config.model.norm_pix_loss = False
    config.model.image_size = (64, 64)
    config.model.patch_size = (2, 2)
    config.model.num_frames = 8
    config.model.tubelet_size = 4
    config.model.num_hidden_layers = 2
    config.mask.decoder_ratio = 0.9
    config.data.stride = 2
    config.data.batch_size = 8
    config.data.views = 2
    config.data.flip = True
    config.optim.base_lr = 3e-3 * 256 / 8
    config.optim.min_lr = 1e-5 * 256 / 8
    config.optim.warmup_epochs = 1.4
    config.optim.clip_norm = 0.1
    return config


def for_moves(config):
    config.total_steps = 2000
    config.model.image_size = (32, 32)
    config.model.num_frames = 8
    config.mask.ratio = 0.75
    config.mask.decoder_ratio = 0.5
    config.data.stride = 4
    config.data.batch_size = 16
    config.data.views = 4
    config.optim.base_lr = 1e-3 * 256 / 16
    config.optim.min_lr = 1e-5 * 256 / 16
    config.optim.warmup_epochs = 1.4
    return config
