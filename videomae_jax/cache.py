"""Where this package keeps what it made and may want again."""

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """`VIDEOMAE_JAX_CACHE`, or the user's cache; it may not exist."""
    return Path(os.environ.get("VIDEOMAE_JAX_CACHE") or platformdirs.user_cache_dir("videomae_jax"))
