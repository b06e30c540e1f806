"""How raw frames become what a model was trained on."""

import json
from pathlib import Path

from videomae_jax.config import VideoMAEConfig

PROCESSOR_FILE = "preprocessor_config.json"


def write_processor(config: VideoMAEConfig, directory: Path) -> None:
    """Writes `preprocessor_config.json` as transformers' VideoMAEImageProcessor reads it."""
    _, height, width = config.clip_size
    content = {
        "image_processor_type": "VideoMAEImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": min(height, width)},
        "resample": 2,  # PIL's number for bilinear
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(config.pixel_mean),
        "image_std": list(config.pixel_std),
    }
    (directory / PROCESSOR_FILE).write_text(json.dumps(content, indent=2) + "\n")
