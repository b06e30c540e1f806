"""Recipes of `eval.py`: what `configs/*_finetune.py`, the probes' and the like may say, checked key by key."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict, config_dict

from videomae_jax.config import MULTI_LABEL, PROBLEM_TYPES, REGRESSION, SINGLE_LABEL
from videomae_jax.training.recipe import Mesh, Optim, build, check_run, run

# What is trained: everything, a linear classifier, an attentive one; nothing, but votes of neighbours, or views.
PROBES = ("linear", "attentive")
TRAINING_MODES = ("finetune", *PROBES)
MODES = (*TRAINING_MODES, "knn", "test")
SCRATCH = "scratch"
NEIGHBOURS, TEMPERATURE = 20, 0.07  # DINO's
CROPS = ("resized", "multi_scale")
OPTIMIZERS = ("adamw", "sgd")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DownstreamData:
    """Videos and their labels. For what a path may be see `data.sources.open_source`."""

    path: str | None  # to train on; for neighbours, those that vote
    val_path: str | None  # watched during training, one clip a video; empty for none
    test_path: str | None  # for the result; empty: val_path
    batch_size: int  # videos a step, over all devices
    stride: int | None  # video frames from one frame of a clip to the next; None: clips of the whole video
    views: int  # distortions and crops of each decoded clip; they multiply the clips of a step, not the learning rate
    workers: int  # processes that decode, at most one a core; 0: threads only
    max_broken_share: float  # of the training videos may be unreadable before the run stops


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augment:
    """What happens to training clips."""

    crop: str  # "resized": random area and aspect; "multi_scale": as in pre-training
    flip: bool  # mirror every other clip; not where classes say left and right
    randaugment: str | None  # its name in timm, such as "rand-m7-n4-mstd0.5-inc1"
    geometric: bool  # whether RandAugment may rotate, shear and shift
    erasing: float  # share of clips that lose a box
    mixup: float  # alpha of the Beta distribution; 0: never
    cutmix: float
    mix_probability: float  # of a batch to be mixed
    mix_switch: float  # of cutmix, where both are on
    label_smoothing: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class DownstreamOptim(Optim):
    """`Optim`, and what fine-tuning adds."""

    optimizer: str  # "adamw" or "sgd", whose momentum is b1
    b2: float | None  # None for "sgd"
    layer_decay: float  # factor of the learning rate from one block to the one below it; 1: none
    ema_decay: float | None  # of the average of the weights that is then measured and kept; None: no average
    # A regular expression; parameters with a match in their path stay as they are: r"embeddings|encoder/layer/[0-5]/".
    freeze: str | None
    adapter_rank: int | None  # train low-rank adapters of the encoder's blocks instead of these; None: the blocks


@dataclasses.dataclass(frozen=True, kw_only=True)
class Validation:
    """The middle clip of validation videos, centrally cropped, during training."""

    steps: int  # steps from one to the next; there is always one at the end
    videos: int | None  # of them; None: all


@dataclasses.dataclass(frozen=True, kw_only=True)
class Test:
    """Views of a test video, whose scores are averaged."""

    segments: int  # clips over the video, in time
    crops: int  # of each clip, along the longer side
    batch_size: int  # videos at a time, over all devices; rounded up to a multiple of these
    skip_broken: bool  # leave unreadable videos out instead of counting them as wrong


@dataclasses.dataclass(frozen=True, kw_only=True)
class Neighbours:
    """The vote of the nearest training videos (DINO's eval_knn.py)."""

    neighbours: int
    temperature: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class DownstreamRecipe:
    """One run of `eval.py`."""

    mode: str  # one of MODES
    seed: int
    total_epochs: float
    total_steps: int | None  # wins over total_epochs when set
    log_steps: int
    checkpoint_steps: int
    keep_checkpoints: int
    max_skipped_steps: int
    init_from: str | None  # a run's folder, any checkpoint, or "scratch"; must be said
    compute_dtype: str  # "float32", "bfloat16", or "auto": bfloat16 on GPU and TPU
    remat: str  # what the backward pass finds in memory, one of config.Remat: less takes longer
    deterministic: bool  # GPUs come to the same bits every time; slower
    problem_type: str  # one of config.PROBLEM_TYPES
    model: dict[str, Any]  # `size` and fields of VideoMAEConfig; None: the checkpoint's
    data: DownstreamData
    augment: Augment
    optim: DownstreamOptim
    eval: Validation
    test: Test
    knn: Neighbours
    mesh: Mesh

    @classmethod
    def from_config(cls, config: ConfigDict) -> "DownstreamRecipe":
        """Checks every key.

        Raises:
          ValueError: an unknown or missing key, a value of another type or that makes no sense; it names the key.
        """
        recipe = build(cls, config.to_dict(), "config")
        check_run(recipe)
        augment, optim = recipe.augment, recipe.optim
        for key, value, choices in (
            ("mode", recipe.mode, MODES),
            ("problem_type", recipe.problem_type, PROBLEM_TYPES),
            ("augment.crop", augment.crop, CROPS),
            ("optim.optimizer", optim.optimizer, OPTIMIZERS),
        ):
            if value not in choices:
                raise ValueError(f"config.{key} must be one of {', '.join(choices)}, got {value!r}.")
        recipe._check_start()
        if not 0 < optim.layer_decay <= 1:
            raise ValueError(f"config.optim.layer_decay must be above 0 and at most 1, got {optim.layer_decay}.")
        if optim.ema_decay is not None and not 0 < optim.ema_decay < 1:
            raise ValueError(f"config.optim.ema_decay must be above 0 and below 1, got {optim.ema_decay}.")
        if recipe.knn.temperature <= 0:
            raise ValueError(f"config.knn.temperature must be positive, got {recipe.knn.temperature}.")
        if (optim.b2 is None) != (optim.optimizer == "sgd"):
            raise ValueError(
                f"config.optim.b2 is AdamW's and must be empty for SGD alone, got {optim.b2} for "
                f"optim.optimizer={optim.optimizer}."
            )
        try:
            re.compile(optim.freeze or "")
        except re.error as error:
            raise ValueError(f"config.optim.freeze={optim.freeze!r} is no regular expression: {error}.") from None
        if recipe.trains:
            recipe._check_augmentation()
        return recipe

    def _check_augmentation(self) -> None:
        augment = self.augment
        for key in ("erasing", "label_smoothing"):
            if not 0 <= getattr(augment, key) <= 1:
                raise ValueError(f"config.augment.{key} must be from 0 to 1, got {getattr(augment, key)}.")
        mixes = augment.mixup > 0 or augment.cutmix > 0
        if self.problem_type == REGRESSION and (mixes or augment.label_smoothing):
            raise ValueError(
                "config.problem_type=regression has no classes to mix or to smooth: set augment.mixup, augment.cutmix "
                "and augment.label_smoothing to 0."
            )
        if self.problem_type == MULTI_LABEL and augment.label_smoothing:
            raise ValueError(
                f"config.augment.label_smoothing={augment.label_smoothing} is for one class a video: set it to 0 for "
                "multi_label_classification."
            )

    def _check_start(self) -> None:
        if not self.init_from:
            raise ValueError(
                "config.init_from says what to begin with, and is missing: --config.init_from=RUN for the folder of a "
                "pre-training run, a checkpoint's file or folder, or a Hugging Face Hub id; "
                f"--config.init_from={SCRATCH} for random weights."
            )
        if self.init_from == SCRATCH and self.mode in ("test", "linear", "attentive"):
            raise ValueError(f"config.mode={self.mode} needs a trained model: init_from={SCRATCH} has none.")
        if self.init_from == SCRATCH and self.optim.adapter_rank:
            raise ValueError(
                f"config.optim.adapter_rank={self.optim.adapter_rank}: adapters of random weights would learn little; "
                "give a trained encoder with init_from, or leave it empty."
            )
        if self.mode == "test" and not (self.data.test_path or self.data.val_path):
            raise ValueError("config.mode=test needs videos: set data.test_path.")
        if self.mode != "test" and not self.data.path:
            raise ValueError("config.data.path is missing: the videos to train on, or whose neighbours vote.")
        if self.mode == "knn" and not (self.data.test_path or self.data.val_path):
            raise ValueError("config.mode=knn needs videos to classify: set data.val_path or data.test_path.")
        if self.mode == "knn" and self.problem_type != SINGLE_LABEL:
            raise ValueError(f"config.mode=knn votes for one class a video; problem_type is {self.problem_type}.")
        if self.mode not in ("finetune", "test") and (self.optim.freeze or self.optim.adapter_rank):
            raise ValueError(
                f"config.mode={self.mode} leaves the encoder as it is: optim.freeze and optim.adapter_rank are for "
                "mode=finetune."
            )
        if self.optim.freeze and self.optim.adapter_rank:
            raise ValueError(
                "config.optim.freeze and config.optim.adapter_rank exclude each other: adapters leave the encoder as "
                "it is."
            )
        if self.mode in PROBES and self.model["drop_path_rate"] > 0:
            raise ValueError(
                f"config.mode={self.mode} sees the whole encoder: set model.drop_path_rate=0.0 "
                f"(it is {self.model['drop_path_rate']})."
            )

    @property
    def trains(self) -> bool:
        """Whether there is something to train."""
        return self.mode in TRAINING_MODES


def finetuning(size: str) -> ConfigDict:
    """What the original's fine-tuning recipes share (V1 run_class_finetuning.py:27-205); a config says the rest."""
    config = run(size)
    config.total_epochs = 50.0
    config.mode = "finetune"
    config.problem_type = SINGLE_LABEL

    for field in ("image_size", "patch_size"):
        config.model[field] = config_dict.placeholder(tuple)
    for field in ("num_frames", "tubelet_size"):
        config.model[field] = config_dict.placeholder(int)
    config.model.position_embedding_type = config_dict.placeholder(str)
    config.model.drop_path_rate = 0.1
    config.model.head_dropout_prob = 0.0

    config.data.batch_size = 512
    config.data.stride = config_dict.placeholder(int)

    config.augment = ConfigDict()
    config.augment.crop = "resized"
    config.augment.flip = True
    config.augment.randaugment = config_dict.placeholder(str)
    config.augment.randaugment = "rand-m7-n4-mstd0.5-inc1"
    config.augment.geometric = True
    config.augment.erasing = 0.25
    config.augment.mixup = 0.8
    config.augment.cutmix = 1.0
    config.augment.mix_probability = 1.0
    config.augment.mix_switch = 0.5
    config.augment.label_smoothing = 0.1

    config.optim = ConfigDict()
    config.optim.optimizer = "adamw"
    config.optim.base_lr = 1e-3
    config.optim.min_lr = 1e-6
    config.optim.warmup_epochs = 5.0
    config.optim.weight_decay = 0.05
    config.optim.b1 = 0.9
    config.optim.b2 = config_dict.placeholder(float)
    config.optim.b2 = 0.999
    config.optim.clip_norm = config_dict.placeholder(float)
    config.optim.accumulation = 1
    config.optim.mu_dtype = "float32"
    config.optim.layer_decay = 0.75
    config.optim.ema_decay = config_dict.placeholder(float)
    config.optim.freeze = config_dict.placeholder(str)
    config.optim.adapter_rank = config_dict.placeholder(int)

    config.eval = ConfigDict()
    config.eval.steps = 1000
    config.eval.videos = config_dict.placeholder(int)

    config.test = ConfigDict()
    config.test.segments = 5
    config.test.crops = 3
    config.test.batch_size = 8
    config.test.skip_broken = False

    config.knn = ConfigDict()
    config.knn.neighbours = NEIGHBOURS
    config.knn.temperature = TEMPERATURE
    return config


class Published(NamedTuple):
    """What published fine-tuning recipes differ in."""

    total_epochs: int
    batch_size: int
    base_lr: float
    min_lr: float = 1e-6
    layer_decay: float = 0.75
    drop_path_rate: float = 0.1
    head_dropout_prob: float = 0.0
    weight_decay: float = 0.05
    views: int = 2
    warmup_epochs: float = 5.0


def published(recipe: str, size: str, table: Mapping[str, Mapping[str, Published]]) -> ConfigDict:
    """`finetuning` with the numbers of a table, recipe -> size -> numbers.

    Raises:
      ValueError: the recipe was not published for this size; it names those that were.
    """
    if size not in table[recipe]:
        raise ValueError(f"recipe={recipe} has no size={size}; it has {', '.join(table[recipe])}.")
    numbers, config = table[recipe][size], finetuning(size)
    config.total_epochs = float(numbers.total_epochs)
    config.model.drop_path_rate, config.model.head_dropout_prob = numbers.drop_path_rate, numbers.head_dropout_prob
    config.data.batch_size, config.data.views = numbers.batch_size, numbers.views
    for key in ("base_lr", "min_lr", "warmup_epochs", "layer_decay", "weight_decay"):
        config.optim[key] = getattr(numbers, key)
    return config


def probing(size: str, mode: str) -> ConfigDict:
    """Probes of a frozen encoder: clips are cropped as in pre-training, and nothing else happens to them."""
    config = finetuning(size)
    config.mode = mode
    config.model.drop_path_rate = 0.0
    config.augment.crop = "multi_scale"
    config.augment.flip = False
    config.augment.randaugment = None
    for key in ("erasing", "mixup", "cutmix", "label_smoothing"):
        config.augment[key] = 0.0
    config.optim.layer_decay = 1.0
    return config
