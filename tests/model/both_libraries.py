"""Models and inputs for tests that hold ours against transformers'."""

import json
from pathlib import Path

import jax
import numpy as np
import torch
import transformers

from videomae_jax import VideoMAEConfig, VideoMAEForPreTraining
from videomae_jax.model.masking import Masking, mask_from_ids

TINY = VideoMAEConfig(
    image_size=32,
    patch_size=8,
    num_frames=4,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=48,
    decoder_hidden_size=24,
    decoder_num_hidden_layers=2,
    decoder_num_attention_heads=2,
    decoder_intermediate_size=40,
    num_labels=3,
)
LABELS = np.array([1, -100, 2])
TOLERANCE = 1e-5


def noisy_theirs(config: VideoMAEConfig, kind: type, noise: float = 0.3, attention: str = "eager"):
    """transformers' model of our class `kind`, with N(0, noise) added to every parameter."""
    fields = json.loads(json.dumps(config.to_dict()))  # tuples as transformers would read them
    fields["qv_bias"] = fields.pop("qkv_bias")
    known = transformers.VideoMAEConfig().to_dict()
    torch.manual_seed(0)
    their_config = transformers.VideoMAEConfig(**{name: value for name, value in fields.items() if name in known})
    theirs = getattr(transformers, kind.__name__)._from_config(their_config, attn_implementation=attention)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += noise * torch.randn_like(parameter)
    return theirs.eval()


def ours_and_theirs(config: VideoMAEConfig, folder: Path, kind: type = VideoMAEForPreTraining, **how):
    """One model, in both libraries; ours read from what transformers wrote."""
    theirs = noisy_theirs(config, kind, **how)
    theirs.save_pretrained(folder)
    ours = {"image_mean": config.image_mean, "image_std": config.image_std}  # what their file cannot say
    return kind.from_pretrained(folder, **ours), theirs


def inputs(config: VideoMAEConfig, batch: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Normalised clips, and a mask of three tokens in four."""
    clips = np.random.default_rng(1).normal(size=(batch, *config.clip_size, config.num_channels)).astype(np.float32)
    ids = Masking("random", 0.75, "none", 0, config.grid)(jax.random.split(jax.random.key(0), batch))
    return clips, np.asarray(mask_from_ids(ids.masked, config.num_patches))


def as_torch(clips: np.ndarray, mask: np.ndarray | None = None):
    """Clips and mask as transformers takes them."""
    clips = torch.tensor(clips).permute(0, 1, 4, 2, 3)
    return clips if mask is None else (clips, torch.tensor(mask))


def distance(ours, theirs) -> float:
    """The largest difference, relative to the largest number of theirs."""
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape
    return float(abs(np.asarray(ours) - theirs).max() / abs(theirs).max())


def assert_close(ours, theirs, tolerance: float = TOLERANCE) -> None:
    assert distance(ours, theirs) < tolerance
