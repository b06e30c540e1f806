"""Recipes: what `configs/*_pretrain.py` may say, checked key by key, and how the command line changes it.

Those of `eval.py` are in `downstream`.
"""

import dataclasses
import types
from typing import Any, get_args, get_type_hints

from ml_collections import ConfigDict, config_dict

from videomae_jax.config import Remat

FLOATS = ("float32", "bfloat16")
MINIMUM = {"seed": 0, "workers": 0}  # of counts; 1 for all others


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """Videos in. For what a path may be see `data.sources.open_source`."""

    path: str
    val_path: str | None  # held-out clips, for the loss and pictures during training; empty for none
    test_path: str | None  # measured once, at the end; empty for none
    batch_size: int  # videos a step, over all devices
    stride: int  # video frames from one frame of a clip to the next, unless a mixture says otherwise
    views: int  # crops and masks of each decoded clip; they multiply the clips of a step, not the learning rate
    flip: bool  # mirror every other clip
    workers: int  # processes that decode, at most one a core; 0: threads only
    max_broken_share: float  # of the training videos may be unreadable before the run stops


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mask:
    """What the encoder does not see, and (V2) what the decoder does not do: see `model.masking.Masking`."""

    kind: str
    ratio: float
    decoder_kind: str
    decoder_ratio: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mesh:
    """Devices along each axis: see `training.mesh.make_mesh`."""

    data: int
    fsdp: int
    tensor: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optim:
    """AdamW with warm-up and cosine. Rates are for 256 clips a step and grow with the batch."""

    base_lr: float
    min_lr: float
    warmup_epochs: float  # of total_epochs; the same share when total_steps is set
    weight_decay: float
    b1: float
    b2: float
    clip_norm: float | None  # of the gradient, over all parameters
    accumulation: int  # parts of a batch that go through the devices one after the other
    mu_dtype: str  # of the first moments (momentum), "float32" or "bfloat16": a sixth of the state less


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Held-out loss, reconstruction pictures and the vote of neighbours during training."""

    steps: int  # steps from one to the next; there is always one at the end
    clips: int  # clips of each set
    knn_videos: int | None  # at most so many training videos vote for the classes of as many of val_path; None: no vote


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """One pre-training run."""

    seed: int
    total_epochs: float
    total_steps: int | None  # wins over total_epochs when set
    log_steps: int
    checkpoint_steps: int
    keep_checkpoints: int  # the last ones
    max_skipped_steps: int  # in a row, for a loss or gradient that is not finite, before the run stops
    init_from: str | None  # a run's folder or a model's, to go on from its weights
    compute_dtype: str  # "float32", "bfloat16", or "auto": bfloat16 on GPU and TPU
    remat: str  # what the backward pass finds in memory, one of config.Remat: less takes longer
    deterministic: bool  # GPUs come to the same bits every time; slower
    model: dict[str, Any]  # `size` and fields of VideoMAEConfig
    mask: Mask
    data: Data
    optim: Optim
    eval: Evaluation
    mesh: Mesh

    @classmethod
    def from_config(cls, config: ConfigDict) -> "Recipe":
        """Checks every key.

        Raises:
          ValueError: an unknown or missing key, a value of another type, or a count below 1; it names the key.
        """
        recipe = build(cls, config.to_dict(), "config")
        check_run(recipe)
        return recipe


def check_run(recipe: Any) -> None:
    """Raises a ValueError where what all recipes share makes no sense."""
    if "size" not in recipe.model:
        raise ValueError("config.model.size is missing.")
    if recipe.remat not in get_args(Remat):
        raise ValueError(f"config.remat must be one of {', '.join(get_args(Remat))}, got {recipe.remat!r}.")
    if recipe.optim.mu_dtype not in FLOATS:
        raise ValueError(f"config.optim.mu_dtype must be one of {', '.join(FLOATS)}, got {recipe.optim.mu_dtype!r}.")
    if recipe.total_epochs <= 0:
        raise ValueError(f"config.total_epochs must be positive, got {recipe.total_epochs}.")


def build(cls: type, values: dict[str, Any], where: str) -> Any:
    """A dataclass, and those in it, from a nested dict with just its fields.

    Raises:
      ValueError: an unknown or missing key, a value of another type, or a count below 1; it names the key.
    """
    hints = get_type_hints(cls)
    unknown, missing = sorted(set(values) - set(hints)), sorted(set(hints) - set(values))
    if unknown or missing:
        problems = [f"{where}.{name} is unknown" for name in unknown] + [
            f"{where}.{name} is missing" for name in missing
        ]
        raise ValueError(f"{'; '.join(problems)}. {where} has the keys {', '.join(hints)}.")
    built = {}
    for name, hint in hints.items():
        key, value = f"{where}.{name}", values[name]
        if dataclasses.is_dataclass(hint):
            value = build(hint, value, key)
        elif not _fits(value, hint):
            raise ValueError(f"{key} must be {getattr(hint, '__name__', hint)}, got {value!r}.")
        elif type(value) is int and hint is not float and cls is not Mesh and value < MINIMUM.get(name, 1):
            raise ValueError(f"{key} must be at least {MINIMUM.get(name, 1)}, got {value}.")
        built[name] = value
    return cls(**built)


def _fits(value: Any, hint: Any) -> bool:
    if isinstance(hint, types.UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    if hint is float:
        return isinstance(value, float | int) and not isinstance(value, bool)
    if hint is int and isinstance(value, bool):
        return False
    return isinstance(value, getattr(hint, "__origin__", hint))


def run(size: str) -> ConfigDict:
    """What all recipes share; `pretraining` and those of `downstream` begin with it."""
    config = ConfigDict()
    config.seed = 0
    config.total_epochs = config_dict.placeholder(float)
    config.total_steps = config_dict.placeholder(int)
    config.log_steps = 50
    config.checkpoint_steps = 1000
    config.keep_checkpoints = 2
    config.max_skipped_steps = 10
    config.init_from = config_dict.placeholder(str)
    config.compute_dtype = "auto"
    config.remat = "dots"
    config.deterministic = False

    config.model = ConfigDict()
    config.model.size = size

    config.data = ConfigDict()
    config.data.path = config_dict.placeholder(str)
    config.data.val_path = config_dict.placeholder(str)
    config.data.test_path = config_dict.placeholder(str)
    config.data.views = 1
    config.data.workers = 8
    config.data.max_broken_share = 0.05

    config.mesh = ConfigDict()
    config.mesh.data = -1
    config.mesh.fsdp = 1
    config.mesh.tensor = 1
    return config


def pretraining(size: str) -> ConfigDict:
    """What the original's pre-training recipes share (V1 run_mae_pretraining.py:19-118); a config says the rest."""
    config = run(size)
    config.total_epochs = 800.0

    config.model.image_size = (224, 224)
    config.model.num_frames = 16
    config.model.norm_pix_loss = True
    config.model.position_embedding_type = "sincos_1d"
    config.model.position_grid = config_dict.placeholder(tuple)
    config.model.use_mean_pooling = False  # has no norm after the encoder when True
    config.model.image_mean = config_dict.placeholder(tuple)
    config.model.image_std = config_dict.placeholder(tuple)

    config.mask = ConfigDict()
    config.mask.kind = "tube"
    config.mask.ratio = 0.9
    config.mask.decoder_kind = "none"
    config.mask.decoder_ratio = 0.0

    config.data.batch_size = 1024
    config.data.stride = 4
    config.data.flip = False

    config.optim = ConfigDict()
    config.optim.base_lr = 1.5e-4
    config.optim.min_lr = 1e-5
    config.optim.warmup_epochs = 40.0
    config.optim.weight_decay = 0.05
    config.optim.b1 = 0.9
    config.optim.b2 = 0.95
    config.optim.clip_norm = config_dict.placeholder(float)
    config.optim.accumulation = 1
    config.optim.mu_dtype = "float32"

    config.eval = ConfigDict()
    config.eval.steps = 5000
    config.eval.clips = 64
    config.eval.knn_videos = config_dict.placeholder(int)
    return config


def parse_options(options: str, **choices: tuple[str, ...]) -> types.SimpleNamespace:
    """The words after the colon of `--config FILE.py:size=large,recipe=paper`.

    Args:
      options: the words, possibly none.
      **choices: for every word its allowed values, the default first.

    Raises:
      ValueError: an unknown word or value.
    """
    chosen = {name: values[0] for name, values in choices.items()}
    for option in filter(None, options.split(",")):
        name, _, value = option.partition("=")
        if value not in choices.get(name, ()):
            allowed = "; ".join(f"{name}={'|'.join(values)}" for name, values in choices.items()) or "none"
            raise ValueError(f"{option!r} is not an option of this config. Options: {allowed}.")
        chosen[name] = value
    return types.SimpleNamespace(**chosen)
