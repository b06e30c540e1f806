"""From a `VideoSource` to batches of clips, with Grain.

The order is a permutation of the videos in each epoch, a function of the seed, for ever. A sample's place in
that order, its *global sample index*, decides everything random about it, so the bytes of a batch depend
neither on the number of workers or processes nor on where a run was interrupted; no state of the iterator
needs saving.

Workers are processes started with "spawn": they import the main module again, so a script that uses them
starts its work under `if __name__ == "__main__":`. Close the iterator to end them.
"""

import itertools
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import grain
import numpy as np
from absl import flags
from jaxtyping import Float32, Int32, Int64, UInt8, UInt32

from videomae_jax.data.clips import Clips
from videomae_jax.data.cores import num_cores
from videomae_jax.data.frames import VideoReadError
from videomae_jax.data.labels import Label, LabelArray
from videomae_jax.data.sources import VideoSource

MAX_ATTEMPTS = 100
PATIENCE = 600.0  # seconds, with videos that are all gone
MAX_PART = 16  # videos that are loaded in one go, into one array
MAX_PART_BYTES = 2**26

_WAITING = threading.Lock()


class TrainBatch(TypedDict):
    """What `train_batches` yields: `b` samples of this process, each S clips of a video.

    `label` is a class or, of sources with another problem type, a row of numbers. `sample` is the global sample index.
    `broken` has one "path<TAB>reason" line for each video that could not be read and was replaced, else "".
    """

    video: UInt8[np.ndarray, "b S T H W 3"]
    label: Int32[np.ndarray, "b"] | Float32[np.ndarray, "b K"]
    sample: UInt32[np.ndarray, "b"]
    broken: np.ndarray


class HeldoutBatch(TypedDict):
    """What `heldout_batches` yields: `b` videos of this process, each with S clips.

    `label` is as in `TrainBatch`, also of videos that could not be read; -1 where only reading them tells.
    `sample` is the video's place in the source. `num_frames` is the length of the video, 0 where it could not be read.
    `weight` is 1, or 0 where the clip must not count: a repeat that fills the last batch, or a video that could not be
    read (black, and named in `broken` as "path<TAB>reason").
    """

    video: UInt8[np.ndarray, "b S T H W 3"]
    label: Int32[np.ndarray, "b"] | Float32[np.ndarray, "b K"]
    sample: UInt32[np.ndarray, "b"]
    num_frames: Int32[np.ndarray, "b"]
    broken: np.ndarray
    weight: Float32[np.ndarray, "b"]


def train_batches(
    source: VideoSource,
    clips: Clips,
    *,
    seed: int,
    start_step: int,
    stop_step: int,
    batch_size: int,
    workers: int,
    rows: Sequence[int] | None = None,
) -> grain.DatasetIterator[TrainBatch]:
    """Batches of random clips.

    Args:
      source: the videos.
      clips: makes the clips of a video.
      seed: 0 to 2**32 - 1; decides the order and all crops.
      start_step: the batch to begin with; the batches from there on are those of an uninterrupted run.
      stop_step: the batch to end before.
      batch_size: samples of one step over all hosts.
      workers: processes that decode, at most one a core; 0 decodes in threads of this one.
      rows: this host's share of every batch, increasing numbers in [0, batch_size); None for all.

    Raises:
      ValueError: a number out of its range.
      VideoReadError: while iterating, when 100 videos drawn in a row cannot be read.
    """
    if not 0 <= seed < 2**32 or workers < 0:
        raise ValueError(f"seed must be from 0 to 2**32 - 1 and workers at least 0, got seed={seed}, workers={workers}")
    load = _LoadOrReplace(source, clips, seed)
    order = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat()
    samples = order.map_with_index(_with_position)[start_step * batch_size : stop_step * batch_size]
    own, local_batch = _own_rows(samples, batch_size, rows)
    return _from_workers(own, load, local_batch, workers) if workers else _from_threads(own, load, local_batch)


def heldout_batches(
    source: VideoSource,
    clips: Clips,
    *,
    num_videos: int,
    batch_size: int,
    rows: Sequence[int] | None = None,
) -> grain.DatasetIterator[HeldoutBatch]:
    """The clips of videos spread evenly over the source, once each.

    Every host gets the same number of full batches, decoded in threads: starting workers takes longer than the few
    clips.

    Args:
      num_videos: how many; all of them where the source has fewer.
      The others are those of `train_batches`.

    Raises:
      ValueError: a number out of its range.
    """
    num_videos = min(num_videos, len(source))
    padded = -(-num_videos // batch_size) * batch_size
    own, local_batch = _own_rows(grain.MapDataset.range(padded), batch_size, rows)
    return _from_threads(own, _LoadOrMask(source, clips, num_videos), local_batch)


@dataclass(frozen=True)
class _LoadOrReplace(grain.transforms.Map):
    """Loads a part of a batch, and other videos for those that cannot be read."""

    source: VideoSource
    clips: Clips
    seed: int

    def map(self, part: tuple[Int64[np.ndarray, "n"], Int64[np.ndarray, "n"]]) -> TrainBatch:
        samples, indices = part
        videos = np.empty((len(samples), *self.clips.shape), np.uint8)
        loaded = [self._load(*where) for where in zip(samples.tolist(), indices.tolist(), videos, strict=True)]
        labels, broken = zip(*loaded, strict=True)
        return {
            "video": videos,
            "label": _stack(labels),
            "sample": samples.astype(np.uint32),
            "broken": np.array(broken),
        }

    def _load(self, sample: int, index: int, out: UInt8[np.ndarray, "S T H W 3"]) -> tuple[Label, str]:
        """Fills `out` and returns the label and the reports of what could not be read."""
        errors, drawn = [], index
        for attempt in range(MAX_ATTEMPTS):
            if attempt > 0:
                drawn = int(np.random.default_rng((self.seed, sample, attempt)).integers(len(self.source)))
            try:
                video, label = self.source.open(drawn)
                with video:
                    rng = np.random.default_rng((self.seed, sample))
                    self.clips(video, self.source.stride(drawn), rng, out)
            except VideoReadError as error:
                if _came_back(self.source, drawn):
                    return self._load(sample, index, out)
                errors.append(error)
                continue
            return label, "\n".join(map(_report, errors))
        raise VideoReadError(
            errors[-1].path,
            f"{errors[-1].reason}; so it is with {MAX_ATTEMPTS} videos drawn from {self.source.name} in a row",
        )


@dataclass(frozen=True)
class _LoadOrMask(grain.transforms.Map):
    """Loads a part of a batch; videos that cannot be read, and repeats, have no weight."""

    source: VideoSource
    clips: Clips
    num_videos: int

    def map(self, places: Int64[np.ndarray, "n"]) -> HeldoutBatch:
        indices = places % self.num_videos * len(self.source) // self.num_videos
        videos = np.empty((len(places), *self.clips.shape), np.uint8)
        loaded = [self._load(*where) for where in zip(indices.tolist(), videos, strict=True)]
        labels, num_frames, broken = zip(*loaded, strict=True)
        return {
            "video": videos,
            "label": _stack(labels),
            "sample": indices.astype(np.uint32),
            "num_frames": np.array(num_frames, np.int32),
            "broken": np.array(broken),
            "weight": np.float32((places < self.num_videos) & (np.array(broken) == "")),
        }

    def _load(self, index: int, out: UInt8[np.ndarray, "S T H W 3"]) -> tuple[Label, int, str]:
        """Fills `out` and returns the label, the number of frames and the report of what could not be read."""
        label = self.source.label(index)
        try:
            video, label = self.source.open(index)
            with video:
                self.clips(video, self.source.stride(index), np.random.default_rng(0), out)
                return label, video.num_frames, ""
        except VideoReadError as error:
            if _came_back(self.source, index):
                return self._load(index, out)
            out[:] = 0
            return label, 0, _report(error)


def _came_back(source: VideoSource, index: int) -> bool:
    """Whether a video that could not be read is to be tried again: it was gone with all others, and they are back.

    One after the other would be taken for broken, where a disk or a mount goes for a while.

    Raises:
      ValueError: they did not come back.
    """
    if source.is_there(index):
        return False
    until = time.monotonic() + PATIENCE
    with _WAITING:  # one thread says so, the others wait for it
        if not source.is_there(index):
            print(f"waiting for the videos of {source.name}: {source.paths[index]} and all others are gone", flush=True)
        while not source.is_there(index):
            if time.monotonic() >= until:
                raise ValueError(
                    f"The videos of {source.name} are gone, and have not come back in {PATIENCE:.0f} s: "
                    f"{source.paths[index]} and all others. Bring them back, and go on."
                )
            time.sleep(1)
    return True


def _stack(labels: Sequence[Label]) -> LabelArray:
    return np.array(labels, np.float32 if np.ndim(labels[0]) else np.int32)


def _with_position(sample: int, index: int) -> tuple[int, int]:
    return sample, index


def _report(error: VideoReadError) -> str:
    # What parts a report from the next one, and path from reason, may be in the name of a file, too.
    path, reason = (text.translate({ord(mark): " " for mark in "\t\n"}) for text in (error.path, error.reason))
    return f"{path}\t{reason}"


def _own_rows(samples: grain.MapDataset, batch_size: int, rows: Sequence[int] | None) -> tuple[grain.MapDataset, int]:
    """What `rows` of every batch are, and how many a batch."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if rows is None:
        return samples, batch_size
    rows = tuple(int(row) for row in rows)
    if not rows or rows[0] < 0 or rows[-1] >= batch_size or any(a >= b for a, b in itertools.pairwise(rows)):
        raise ValueError(f"rows must be increasing numbers from 0 to {batch_size - 1}, at least one, got {rows}")
    return grain.MapDataset.source(_Rows(samples, batch_size, rows)), len(rows)


@dataclass(frozen=True)
class _Rows:
    """The same rows of every batch, one after the other."""

    samples: grain.MapDataset
    batch_size: int
    rows: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.samples) // self.batch_size * len(self.rows)

    def __getitem__(self, place: int) -> object:
        batch, row = divmod(place, len(self.rows))
        return self.samples[batch * self.batch_size + self.rows[row]]


def _from_threads(
    samples: grain.MapDataset, load: _LoadOrReplace | _LoadOrMask, batch_size: int
) -> grain.DatasetIterator:
    # Decoding and resizing happen outside Python's lock, a part of a batch in each thread.
    threads = num_cores()
    part = _part_size(batch_size, load.clips, at_most=-(-batch_size // threads))
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)
    parts = samples.batch(part).map(load).to_iter_dataset(options)
    return iter(parts if part == batch_size else parts.batch(batch_size // part, batch_fn=_concatenate))


def _from_workers(
    samples: grain.MapDataset, load: _LoadOrReplace, batch_size: int, workers: int
) -> grain.DatasetIterator:
    if not flags.FLAGS.is_parsed():
        # Grain reads absl flags when it starts workers, which only `absl.app.run` has parsed: not notebooks, not tests.
        flags.FLAGS.mark_as_parsed()
    # A worker makes parts of a batch, this process puts them together, one batch ahead: a whole batch can be
    # gigabytes, and would keep a single worker busy for minutes while the others fill memory with later ones.
    part = _part_size(batch_size, load.clips, at_most=MAX_PART)
    in_worker = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    options = grain.MultiprocessingOptions(num_workers=min(workers, num_cores()), per_worker_buffer_size=1)
    parts = samples.batch(part).map(load).to_iter_dataset(in_worker)
    parts = parts.mp_prefetch(options, worker_init_fn=_end_with_parent)
    # A copy, also of a single part: it lies in memory that is shared with a worker.
    batches = parts.batch(batch_size // part, batch_fn=_concatenate)
    return iter(grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=1))


def _part_size(batch_size: int, clips: Clips, at_most: int) -> int:
    """The most videos, of which a batch has a whole multiple, in MAX_PART, MAX_PART_BYTES and `at_most`."""
    limit = min(batch_size, at_most, MAX_PART, max(MAX_PART_BYTES // math.prod(clips.shape), 1))
    return max(size for size in range(1, limit + 1) if batch_size % size == 0)


def _end_with_parent(worker: int, workers: int) -> None:
    # Whoever tells a whole group of processes to end means the run, which needs its workers until it has saved itself.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

    # A parent that was killed cannot end its workers, and they would wait for it for ever.
    def wait():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _concatenate(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
