"""Long runs of the pipeline: memory stays flat."""

import gc
import re
from contextlib import closing
from itertools import islice
from pathlib import Path

import psutil
import pytest

from videomae_jax.data.clips import PretrainingClips
from videomae_jax.data.pipeline import train_batches

BATCHES = 20_000
MIB = 2**20


def memory() -> int:
    """Bytes of this process and its workers that are no files: those become its own when another process ends."""
    gc.collect()
    process = psutil.Process()
    status = [Path(f"/proc/{one.pid}/status").read_text() for one in (process, *process.children(recursive=True))]
    return 1024 * sum(int(size) for text in status for size in re.findall(r"Rss(?:Anon|Shmem):\s+(\d+) kB", text))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells memory by kind")
@pytest.mark.full
@pytest.mark.parametrize("workers", [0, 2])
def test_memory_stays_flat(sound_source, workers):
    clips = PretrainingClips(num_frames=4, stride=2, views=1, image_size=(32, 32))
    steps = {"start_step": 0, "stop_step": BATCHES, "batch_size": 2}
    with closing(train_batches(sound_source, clips, seed=0, workers=workers, **steps)) as batches:
        used = []
        for _ in range(20):
            assert sum(1 for _ in islice(batches, BATCHES // 20)) == BATCHES // 20
            used.append(memory())
        assert next(batches, None) is None
    # Decoders come and go. But the least of the second half is no more than that of the first.
    assert min(used[10:]) - min(used[2:10]) < 4 * MIB, [round(bytes / MIB, 1) for bytes in used]
