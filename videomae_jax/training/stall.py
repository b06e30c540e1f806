"""What to do when nothing comes: a worker or a storage that hangs would hang the run for ever."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from typing import TypeVar

from videomae_jax.data.pipeline import PATIENCE
from videomae_jax.data.sources import VideoSource

T = TypeVar("T")


def in_time(batches: Iterator[T], source: VideoSource) -> Iterator[T]:
    """Batches of a source. The process ends, as by `at_most`, when none comes for twice the pipeline's patience."""
    while True:
        with at_most(2 * PATIENCE, f"No batch came from the videos of {source.name}"):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


@contextlib.contextmanager
def at_most(seconds: float, what: str) -> Iterator[None]:
    """Ends the whole process, with exit status 1 and a message, if the body of a `with` takes longer.

    Nothing less would do: no thread can be made to stop. What was written before stays.

    Args:
      seconds: how long it may take.
      what: did not come then.
    """
    timer = threading.Timer(seconds, _give_up, [f"{what} for {seconds:.0f} s"])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _give_up(what: str) -> None:
    print(f"error: {what}. The same command goes on from the last checkpoint.", file=sys.stderr, flush=True)
    os._exit(1)
