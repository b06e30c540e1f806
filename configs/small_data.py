"""Fine-tuning with a few hundred videos and one GPU, from a published checkpoint.

    python eval.py --config configs/small_data.py --config.init_from=MCG-NJU/videomae-base \
        --config.data.path=videos/train.csv --config.data.val_path=videos/val.csv

The numbers are ours, not published ones, and were not measured. So that a small set does not overfit, the encoder's
blocks stay as they are but for adapters of rank 8 (method=adapters), or all of it is trained, lower blocks less
(method=finetune). Four distortions of each clip, mixup and cutmix, strong dropout. Clips are mirrored: set
augment.flip=False where classes have a direction.
"""

from videomae_jax.training.downstream import finetuning
from videomae_jax.training.recipe import parse_options


def get_config(options: str = ""):
    chosen = parse_options(options, size=("base", "small", "large", "tiny"), method=("adapters", "finetune"))
    config = finetuning(chosen.size)
    config.total_epochs = 50.0
    config.log_steps = 10
    config.checkpoint_steps = 200
    config.model.drop_path_rate = 0.2
    config.model.head_dropout_prob = 0.5
    config.data.path = "data/mine/train.csv"
    config.data.val_path = "data/mine/val.csv"
    config.data.batch_size = 8
    config.data.stride = 4
    config.data.views = 4
    config.eval.steps = 100
    config.optim.base_lr = 1e-2
    config.optim.min_lr = 1e-5
    if chosen.method == "adapters":
        config.optim.adapter_rank = 8
        config.optim.layer_decay = 1.0
    else:
        config.optim.layer_decay = 0.65
    return config
