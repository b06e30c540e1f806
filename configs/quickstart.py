"""Pre-training in minutes, on two CPU cores, without data: photographs seen through camera moves.

python train.py --config configs/quickstart.py
"""

from videomae_jax.training.recipe import parse_options, pretraining


def get_config(options: str = ""):
    parse_options(options)
    config = pretraining("tiny")
    config.total_steps = 1200
    config.total_epochs = 100.0
    config.compute_dtype = "float32"
    config.log_steps = 50
    config.checkpoint_steps = 200

    config.model.image_size = (48, 48)
    config.model.patch_size = 2
    config.model.num_frames = 8
    config.model.tubelet_size = 4
    config.model.num_hidden_layers = 2
    config.model.decoder_hidden_size = 64
    config.model.decoder_num_attention_heads = 2
    config.model.decoder_intermediate_size = 256
    config.model.norm_pix_loss = False
    config.model.position_embedding_type = "sincos_3d"

    config.mask.decoder_kind = "running_cell"
    config.mask.decoder_ratio = 0.75

    config.data.path = "builtin:train"
    config.data.val_path = "builtin:val"
    config.data.batch_size = 16
    config.data.stride = 2
    config.data.flip = True
    config.data.workers = 0

    config.optim.base_lr = 4.8e-2
    config.optim.min_lr = 1.6e-4
    config.optim.warmup_epochs = 5.0
    config.optim.clip_norm = 0.1

    config.eval.steps = 400
    config.eval.clips = 32
    return config
