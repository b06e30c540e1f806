"""Processes that write shards. One that a video kills takes no other video with it."""

import multiprocessing
import signal
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection, wait

from videomae_jax.data.shards import Shard, write_shard

MAX_DEATHS = 2  # of a process on one video, until it is not read: the first may have had another cause
_DONE = "done"


def write_shards(shards: Iterable[Shard], workers: int, at_video: Callable[[], None]) -> None:
    """Writes shards in processes of their own.

    Args:
      shards: which.
      workers: the number of processes; 0 to write them in this one, which then a video can end.
      at_video: called when a video was written, or found broken.

    Raises:
      RuntimeError: a shard cannot be written; not that a video cannot be read.
    """
    if workers == 0:
        for shard in shards:
            write_shard(shard, at_video=lambda video: at_video())
        return
    waiting, busy, idle = deque(shards), {}, []
    try:
        idle = [_Worker() for _ in range(min(workers, len(waiting)))]
        while waiting or busy:
            while waiting and idle:
                worker = idle.pop()
                worker.begin(waiting.popleft())
                busy[worker.connection] = worker
            for connection in wait(list(busy)):
                worker = busy.pop(connection)
                finished = worker.receive(at_video)
                if finished:
                    idle.append(worker)
                else:
                    busy[worker.connection] = worker
    finally:
        for worker in (*idle, *busy.values()):
            worker.end()


class _Worker:
    """A process, and the shard that it writes."""

    def __init__(self):
        self._start()

    def _start(self) -> None:
        # FFmpeg and OpenCV have threads, which a fork would cut off.
        context = multiprocessing.get_context("spawn")
        self.connection, others = context.Pipe()
        self._process = context.Process(target=_serve, args=(others,), daemon=True)
        self._process.start()
        others.close()

    def begin(self, shard: Shard) -> None:
        self._shard, self._deaths, self._unreadable, self._furthest = shard, Counter(), {}, -1
        self._again()

    def _again(self) -> None:
        self._video = None
        self.connection.send((self._shard, self._unreadable))

    def receive(self, at_video: Callable[[], None]) -> bool:
        """Takes one message; True: the shard is finished."""
        try:
            message = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self._bury()
            return False
        if isinstance(message, int):
            self._video = message
        if message == _DONE:
            return True
        if isinstance(message, str):
            raise RuntimeError(f"shard {self._shard.number} of {self._shard.split} cannot be written: {message}")
        if message > self._furthest:
            self._furthest = message
            at_video()
        return False

    def _bury(self) -> None:
        self._process.join()
        code = self._process.exitcode
        self.connection.close()
        cause = f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"
        if self._video is None:
            raise RuntimeError(f"a worker process ended with {cause} before it read a video")
        self._deaths[self._video] += 1
        if self._deaths[self._video] == MAX_DEATHS:
            self._unreadable[self._video] = f"reading it ended the process with {cause}"
        self._start()
        self._again()

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self.connection.close()


def _serve(connection: Connection) -> None:
    # An interrupt from the keyboard is for the process that started this one, which then ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            shard, unreadable = connection.recv()
        except EOFError:  # the one that gave the orders is gone
            return
        try:
            write_shard(shard, unreadable, connection.send)
            answer = _DONE
        except BrokenPipeError:
            return
        except OSError as error:  # the disk is full, or not there
            answer = str(error)
        except Exception:
            answer = traceback.format_exc()
        connection.send(answer)
