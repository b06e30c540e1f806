"""How much of the machine there is for this process."""

import os


def num_cores() -> int:
    """Cores that this process may run on: fewer than the machine has in containers and under `taskset`."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
