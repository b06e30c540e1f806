"""Memory of the host: what compiling took of it is given back; on CPUs, what a step took is kept for the next.

A step on CPUs takes hundreds of megabytes for a moment. Linux's C library gives such pieces back to the system at once,
and filling each new page with zeros for the next step costs a twentieth of its time. It keeps them when told to, but
only for the program's first thread.
"""

import contextlib
import ctypes

import jax
from jax.sharding import Mesh

# mallopt's parameters (malloc.h), and the largest that it takes.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
NEVER = 2**31 - 1


def compute_in_this_thread() -> None:
    """Has CPUs compute in the thread that asks for it; to be called before anything else is asked of JAX."""
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def settle_after_compiling(mesh: Mesh) -> None:
    """Gives back what compiling took, half a gigabyte; from then on, CPUs keep what steps take. On Linux alone."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # other systems' libraries have no such functions
        library = ctypes.CDLL(None)
        library.malloc_trim(0)
        if mesh.devices.flat[0].platform == "cpu":
            library.mallopt(MMAP_THRESHOLD, NEVER)
            library.mallopt(TRIM_THRESHOLD, NEVER)
