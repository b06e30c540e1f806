"""Steps that were begun and are not looked at yet: devices work behind Python's back."""

import collections
import math

import jax

DEPTH = 2  # steps that devices may be behind: of more, the batches would pile up on them


class InFlight:
    """Waits for steps in their order, and counts those that were skipped, one after the other.

    Attributes:
      skipped: how many of the last steps that were looked at had no finite loss, in a row.
    """

    def __init__(self):
        self.skipped = 0
        self._losses: collections.deque[jax.Array] = collections.deque()

    def add(self, loss: jax.Array) -> None:
        """Takes the loss of a step that was begun, and waits until no more than `DEPTH` of them run."""
        self._losses.append(loss)
        while len(self._losses) > DEPTH:
            self._wait()

    def settle(self) -> None:
        """Waits for all."""
        while self._losses:
            self._wait()

    def _wait(self) -> None:
        self.skipped = 0 if math.isfinite(self._losses.popleft()) else self.skipped + 1
