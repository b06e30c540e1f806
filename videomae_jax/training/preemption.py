"""The end that a machine's owner announces with SIGTERM: a run saves itself and ends."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import TracebackType

import jax
from jax.experimental import multihost_utils

EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: to be tried again


class Preempted(BaseException):
    """The run was told to end. Its text says where it can go on. Like Ctrl-C, it is no error that anything may mend."""


@contextlib.contextmanager
def ending_when_told() -> Iterator[None]:
    """At SIGTERM raises `Preempted` for as long as a `with` lasts: what is not training has nothing to save.

    Where there are several processes, JAX listens instead.
    """

    def end(number: int, frame: object) -> None:
        raise Preempted("told to end")

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Preemption:
    """Listens for SIGTERM for as long as a `with` lasts.

    Of several processes one may get it: JAX listens in each, and has them agree on the step to end at.
    """

    def __init__(self):
        self._asked = False
        # Python lets only its main thread listen.
        self._listens = jax.process_count() == 1 and threading.current_thread() is threading.main_thread()

    def __enter__(self) -> "Preemption":
        if self._listens:
            self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._listens:
            signal.signal(signal.SIGTERM, self._before)

    def _ask(self, number: int, frame: object) -> None:
        self._asked = True

    def ends_at(self, step: int) -> bool:
        """Whether a run is to end after this step. To be asked at every step."""
        return self._asked or multihost_utils.reached_preemption_sync_point(step)
