"""Compiled programs on disk: a run that goes on, or its like, starts without compiling again."""

import jax
from jax.sharding import Mesh

from videomae_jax.cache import cache_folder


def keep_programs(mesh: Mesh) -> None:
    """Has JAX keep what it compiles for accelerators in this package's cache.

    Not where the user said where to (`JAX_COMPILATION_CACHE_DIR`). Programs for CPUs are compiled in seconds, and may
    not run on the next CPU.
    """
    if mesh.devices.flat[0].platform != "cpu" and jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "programs"))
