"""What a run writes down: `metrics.jsonl`, TensorBoard events; and its speed."""

import json
import math
import os
import sys
import time
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from videomae_jax.training.processes import is_first

# tensorboardX would import torch where that is installed, for tensors that nobody here gives it: seconds, and torch's
# CUDA libraries in one process with JAX's.
if hide_torch := "torch" not in sys.modules:
    sys.modules["torch"] = None
try:
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.summary import image
finally:
    if hide_torch:
        del sys.modules["torch"]


class MetricsLog:
    """Writes one JSON object a line to `metrics.jsonl`, flushed, and the same numbers to TensorBoard.

    A continued run is cut back to the step it restored: what came after it is written again. Of several processes the
    first writes. What is not finite is null.

    Events are written here and now: in the thread of tensorboardX's `SummaryWriter`, Ctrl-C at the wrong moment leaves
    its queue asleep, and the run waits for it for ever.
    """

    def __init__(self, workdir: Path, restored_step: int):
        if not is_first():
            self._file, self._events = open(os.devnull, "a"), None
            return
        path = workdir / "metrics.jsonl"
        rows = [row for row in read_metrics(workdir) if row["step"] <= restored_step]
        kept = workdir / "metrics.jsonl.new"
        kept.write_text("".join(json.dumps(row) + "\n" for row in rows))
        kept.replace(path)
        self._file = path.open("a")
        self._events = EventsWriter(str(workdir / "events"))
        self._event(Event(step=restored_step + 1, session_log=SessionLog(status=SessionLog.START)))

    def write(self, step: int, values: dict[str, float]) -> None:
        """One line of numbers."""
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"step": step, **finite}) + "\n")
        self._file.flush()
        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._event(Event(step=step, summary=Summary(value=scalars)))

    def picture(self, step: int, name: str, picture: UInt8[np.ndarray, "H W 3"]) -> None:
        """A picture for TensorBoard."""
        self._event(Event(step=step, summary=image(name, picture, dataformats="HWC")))

    def _event(self, event: Event) -> None:
        if self._events:
            event.wall_time = time.time()
            self._events.write_event(event)
            self._events.flush()

    def close(self) -> None:
        self._file.close()
        if self._events:
            self._events.close()


def read_metrics(workdir: Path) -> list[dict[str, float]]:
    """The lines of a run's `metrics.jsonl`, up to one that a killed run or machine left unfinished."""
    path = workdir / "metrics.jsonl"
    rows = []
    for line in path.read_text(errors="replace").split("\n")[:-1] if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


class Clock:
    """Time of the steps since the last line, or the start, without what is not training, and how much of it waited for
    data."""

    def __init__(self):
        self.restart()

    def restart(self) -> None:
        """Begins a new line."""
        self._start = time.perf_counter()
        self._waited, self._steps = 0.0, 0

    def got_batch(self, asked: float) -> None:
        """Counts a step, and the time from `asked` (`time.perf_counter()`) until now as waiting for its batch."""
        self._waited += time.perf_counter() - asked
        self._steps += 1

    def rates(self, clips: int, peak_clips: float | None) -> dict[str, float]:
        """Speed over the steps, at least one, since the last line.

        Args:
          clips: of each step.
          peak_clips: clips a second if the devices did nothing but multiply the model's matrices, at their peak rate;
            None where that is not known. MFU is the share of it that is reached.
        """
        seconds = time.perf_counter() - self._start
        clips_per_second = self._steps * clips / seconds
        rates = {
            "clips_per_second": clips_per_second,
            "step_ms": 1000 * seconds / self._steps,
            "data_wait_fraction": self._waited / seconds,
        }
        return rates if peak_clips is None else rates | {"mfu": clips_per_second / peak_clips}
