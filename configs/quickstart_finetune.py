"""Fine-tuning in minutes, on two CPU cores, without data: which way does the camera move? (`make demo-eval`)

    python eval.py --config configs/quickstart_finetune.py --config.init_from=runs/quickstart_moves
    python eval.py --config configs/quickstart_finetune.py --config.init_from=scratch --workdir runs/quickstart_scratch

One frame says nothing about a move, and the moves have a direction: no mirrored clips, nothing that rotates, shears or
shifts frames. Photographs of the validation videos are not among those of the training videos.
"""

from videomae_jax.training.downstream import finetuning
from videomae_jax.training.recipe import parse_options


def get_config(options: str = ""):
    parse_options(options)
    config = finetuning("tiny")
    config.total_steps = 500
    config.total_epochs = 20.0
    config.compute_dtype = "float32"
    config.log_steps = 50
    config.checkpoint_steps = 100

    config.model.image_size = (32, 32)
    config.model.num_frames = 8
    config.model.position_embedding_type = "sincos_3d"
    config.model.drop_path_rate = 0.0

    config.data.path = "builtin:train"
    config.data.val_path = "builtin:val"
    config.data.batch_size = 16
    config.data.stride = 4
    config.data.workers = 0

    # Smaller crops change what little a zoom or a turn shows.
    config.augment.crop = "multi_scale"
    config.augment.flip = False
    config.augment.randaugment = None
    config.augment.erasing = 0.0
    config.augment.mixup = 0.0
    config.augment.cutmix = 0.0
    config.augment.label_smoothing = 0.0

    config.optim.base_lr = 4e-4 * 256 / 16
    config.optim.min_lr = 1e-6 * 256 / 16
    config.optim.warmup_epochs = 1.0
    config.optim.layer_decay = 1.0

    config.eval.steps = 100
    config.test.segments = 1
    config.test.crops = 1
    config.test.batch_size = 16
    return config
