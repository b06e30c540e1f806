"""Compiled programs on disk, and the memory that compiling took.

A run that goes on, or its like, starts without compiling again.
"""

import contextlib
import ctypes

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


def free_compilers_memory() -> None:
    """Gives what compiling took back to the machine: half a gigabyte, which the C library of Linux keeps otherwise."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # other systems' have no such function
        ctypes.CDLL(None).malloc_trim(0)
