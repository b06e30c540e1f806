"""Memory of the host: what compiling took of it is given back; on CPUs, what a step takes is kept for the next.

A step on CPUs takes hundreds of megabytes for a moment. Linux's C library gives such pieces back to the system at once,
and filling each new page with zeros for the next step costs a twentieth of its time. It keeps them when told to, but
only for the program's first thread.
"""

import contextlib
import ctypes
import re
from pathlib import Path

import jax
from jax.sharding import Mesh

# mallopt's parameters (malloc.h), and the largest that it takes.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
NEVER = 2**31 - 1
MEMORY_FILE = Path("/proc/meminfo")


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


def warn_if_short(step: jax.stages.Compiled, mesh: Mesh) -> None:
    """Says so where a step on CPUs takes more than is left: Linux ends such a program without a word."""
    if mesh.devices.flat[0].platform != "cpu" or not MEMORY_FILE.exists():
        return
    needed = step.memory_analysis().temp_size_in_bytes * len(mesh.local_devices)
    left = 1024 * int(re.search(r"MemAvailable: +(\d+) kB", MEMORY_FILE.read_text())[1])
    if needed > left:
        print(
            f"warning: a step takes {needed / 2**30:.1f} GiB of memory, and {left / 2**30:.1f} GiB are left. Where the "
            "machine ends this program, make optim.accumulation larger or data.batch_size smaller.",
            flush=True,
        )
