"""Memory of the host: what compiling took of it is given back; on CPUs, what a step takes is kept for the next.

A step on CPUs takes hundreds of megabytes for a moment. Linux's C library gives such pieces back to the system at once,
and the next step waits for new pages to be filled with zeros. It keeps them when told to, but only for the program's
first thread.
"""

import contextlib
import ctypes
import re
from pathlib import Path

import jax
from jax.sharding import Mesh

# mallopt's parameters (malloc.h): what is free at the end of the heap, and how many pieces may lie outside of it.
TRIM_THRESHOLD, MMAP_MAX = -1, -4
NEVER = 2**31 - 1
MACHINES, CONTAINERS = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def compute_in_this_thread() -> None:
    """Has a CPU compute in the thread that asks for it; to be called before anything else is asked of JAX."""
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def free_compilers_memory() -> None:
    """Gives what compiling took back to the machine: half a gigabyte. On Linux alone."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # other systems have no such function
        ctypes.CDLL(None).malloc_trim(0)


def keep_steps_memory(mesh: Mesh) -> None:
    """From now on, what a step on CPUs took is kept for the next. On Linux alone."""
    if _is_of_cpus(mesh):
        with contextlib.suppress(AttributeError, OSError, TypeError):
            ctypes.CDLL(None).mallopt(MMAP_MAX, 0)
            ctypes.CDLL(None).mallopt(TRIM_THRESHOLD, NEVER)


def warn_if_short(step: jax.stages.Compiled, mesh: Mesh) -> None:
    """Says so where a step on CPUs takes more than is left: Linux ends such a program without a word."""
    figures, left = step.memory_analysis(), _left()
    if not _is_of_cpus(mesh) or figures is None or left is None:
        return
    needed = figures.temp_size_in_bytes * len(mesh.local_devices)
    if needed > left:
        print(
            f"warning: a step takes {needed / 2**20:,.0f} MiB of memory, and {left / 2**20:,.0f} MiB are left. Where "
            "the machine ends this program, make optim.accumulation larger or data.batch_size smaller.",
            flush=True,
        )


def _is_of_cpus(mesh: Mesh) -> bool:
    return mesh.devices.flat[0].platform == "cpu"


def _left() -> int | None:
    """Bytes that the machine, or this container, has left; None where nobody says."""
    left = []
    with contextlib.suppress(OSError, TypeError):  # another system
        left.append(1024 * int(re.search(r"MemAvailable: +(\d+) kB", MACHINES.read_text())[1]))
    with contextlib.suppress(OSError, ValueError):  # no container, or one without a limit: "max"
        limit, taken = (int((CONTAINERS / f"memory.{name}").read_text()) for name in ("max", "current"))
        left.append(limit - taken)
    return min(left, default=None)
