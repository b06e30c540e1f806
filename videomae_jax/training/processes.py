"""Several processes as one run, on one machine or many: how they find each other, and what they tell each other."""

import os
import re
import sys
from collections.abc import Iterable

import jax
import numpy as np
from jax.experimental import multihost_utils

SHUTDOWN = {"shutdown_timeout_seconds": 30}  # with processes that do not end, when one does: it may have failed
# Where launchers that JAX knows say how many processes they started. Slurm's is that of the step: an interactive shell
# has the job's number too, and is alone.
LAUNCHED = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")


def connect(coordinator_address: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Joins the other processes of a run, before anything else is asked of JAX; does nothing where there are none.

    They are found on Slurm, Open MPI, GKE and TPU VMs, or by the arguments. Only the first process prints.

    Args:
      coordinator_address: `host:port` of the first process; any port that is free there.
      num_processes, process_id: how many there are, and which this one is. All three or none.

    Raises:
      ValueError: some of the three are missing or make no sense.
    """
    told = {"coordinator_address": coordinator_address, "num_processes": num_processes, "process_id": process_id}
    missing = [f"--{name}" for name, value in told.items() if value is None]
    if missing and len(missing) < len(told):
        raise ValueError(f"{' and '.join(missing)} missing: a process is told where the first one is, how many, which.")
    if not missing:
        if not re.fullmatch(r".+:\d+", coordinator_address) or not 0 <= process_id < num_processes:
            raise ValueError(
                "--coordinator_address must be host:port and --process_id from 0 to --num_processes - 1, got "
                f"{coordinator_address}, {process_id} and {num_processes}."
            )
        jax.distributed.initialize(**told, cluster_detection_method="deactivate", **SHUTDOWN)
    elif any(int(os.environ.get(name, 1)) > 1 for name in LAUNCHED):
        jax.distributed.initialize(local_device_ids=_devices_of_a_lone_task(), **SHUTDOWN)
    elif (jax.config.jax_platforms or "").startswith("tpu"):  # JAX says so itself, where it finds chips
        try:
            jax.distributed.initialize(**SHUTDOWN)
        except (ValueError, RuntimeError, OSError) as error:
            # A notebook's TPU has nobody to ask. Of a slice, no host could go on alone.
            print(f"note: this TPU's host is taken to be the only one: {error}", file=sys.stderr)
    if jax.process_index() > 0:
        sys.stdout = open(os.devnull, "w")


def _devices_of_a_lone_task() -> list[int] | None:
    """All GPUs of the node where Slurm started one task on each; JAX would give the task the first alone."""
    if re.fullmatch(r"1(\(x\d+\))?", os.environ.get("SLURM_STEP_TASKS_PER_NODE", "")):
        return list(range(int(os.environ.get("SLURM_GPUS_ON_NODE", 0)))) or None
    return None


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Returns when every process has come here; `name` is of the place."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def as_the_first(value: bool) -> bool:
    """The first process's value, on every process."""
    return bool(multihost_utils.broadcast_one_to_all(np.array(value)))


def all_agree(value: bool) -> bool:
    """Whether it is true on every process."""
    return bool(np.all(multihost_utils.process_allgather(np.array(value))))


def lines_of_all(lines: Iterable[str]) -> list[str]:
    """The lines of every process, on every process."""
    text = np.frombuffer("\n".join(lines).encode(errors="surrogateescape"), np.uint8)
    lengths = multihost_utils.process_allgather(np.array(len(text)))
    padded = np.zeros(lengths.max(), np.uint8)
    padded[: len(text)] = text
    texts = multihost_utils.process_allgather(padded)
    return [
        line
        for text, length in zip(texts, lengths, strict=True)
        for line in text[:length].tobytes().decode(errors="surrogateescape").split("\n")
        if line
    ]
