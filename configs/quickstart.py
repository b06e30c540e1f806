"""Pre-training in minutes, on two CPU cores, without data: photographs seen through camera moves.

python train.py --config configs/quickstart.py
"""

from videomae_jax.training.recipe import parse_options, pretraining


def get_config(options: str = ""):
    parse_options(options)
    config = pretraining("tiny")
    config.total_epochs = 40.0
    config.compute_dtype = "float32"
    config.log_steps = 20
    config.checkpoint_steps = 200

    config.model.image_size = (48, 48)
    config.model.num_frames = 8
    config.model.norm_pix_loss = False
    config.model.position_embedding_type = "sincos_3d"

    config.data.path = "builtin:train"
    config.data.val_path = "builtin:val"
    config.data.batch_size = 16
    config.data.stride = 2
    config.data.flip = True
    config.data.workers = 0

    config.optim.base_lr = 8e-3
    config.optim.warmup_epochs = 2.0

    config.eval.steps = 200
    return config
