"""Pre-training in minutes, on two CPU cores, without data: photographs seen through camera moves.

    python train.py --config configs/quickstart.py
    python train.py --config configs/quickstart.py:goal=moves --workdir runs/quickstart_moves

What is other than in the published recipe, so that something emerges in minutes:

- tokens of 2 x 2 pixels and 4 frames, in a grid of 2 x 32 x 32: a tenth of so many places shows where things are;
- raw pixels as targets, whose loss can be compared with predictors that need no model;
- 3-D positions, in which neighbours in every direction look alike;
- the decoder works on a random tenth of the tokens (V2's dual masking): 205 for each clip, not all 1,842 hidden ones;
- a small model, a high learning rate, clipped gradients.
"""

from videomae_jax.training.recipe import parse_options, pretraining


def get_config(options: str = ""):
    parse_options(options)
    config = pretraining("tiny")
    config.total_steps = 700
    config.total_epochs = 20.0
    config.compute_dtype = "float32"
    config.log_steps = 50
    config.checkpoint_steps = 100

    config.model.image_size = (64, 64)
    config.model.patch_size = 2
    config.model.num_frames = 8
    config.model.tubelet_size = 4
    config.model.num_hidden_layers = 2
    config.model.norm_pix_loss = False
    config.model.position_embedding_type = "sincos_3d"

    config.mask.decoder_kind = "random"
    config.mask.decoder_ratio = 0.9

    config.data.path = "builtin:train"
    config.data.val_path = "builtin:val"
    config.data.batch_size = 8
    config.data.views = 2
    config.data.stride = 2
    config.data.flip = True
    config.data.workers = 0

    config.optim.base_lr = 3e-3 * 256 / 8
    config.optim.min_lr = 1e-5 * 256 / 8
    config.optim.warmup_epochs = 1.4
    config.optim.clip_norm = 0.1

    config.eval.steps = 350
    config.eval.clips = 30
    return config
