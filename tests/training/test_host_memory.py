import ctypes
import subprocess
import sys

import jax
import pytest

from videomae_jax.training import host_memory
from videomae_jax.training.mesh import make_mesh

PROGRAM = """
import resource
import jax
from videomae_jax.training.host_memory import compute_in_this_thread, keep_steps_memory
from videomae_jax.training.mesh import make_mesh

compute_in_this_thread()
jax.config.update("jax_platforms", "cpu")
step = jax.jit(lambda: jax.numpy.zeros(SIZE, "uint8")).lower().compile()
keep_steps_memory(make_mesh(data=1, fsdp=1, tensor=1, devices=jax.devices()[:1]))
step().block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step().block_until_ready()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() / (10 * SIZE))
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library has no mallopt")
def test_what_a_step_takes_is_kept_for_the_next():
    command = [sys.executable, "-c", PROGRAM.replace("SIZE", str(2**27))]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    # Of its bytes, those in pages that are new: without the keeping, all; with it, one step's or two's where what a
    # step took was not yet given back when the next one began.
    assert float(told.stdout) < 0.5


@pytest.mark.parametrize(
    ("machine", "limit", "warns"), [(-1, "max", True), (1, "max", False), (99, -1, True), (99, 1, False)]
)
def test_a_step_that_takes_more_memory_than_is_left_is_said_to(machine, limit, warns, tmp_path, monkeypatch, capsys):
    x = jax.ShapeDtypeStruct((2**11, 2**11), "float32")
    step = jax.jit(lambda x: (x @ x.T) @ (x.T @ x)).lower(x).compile()
    mesh = make_mesh(data=2, fsdp=1, tensor=1, devices=jax.devices()[:2])
    needed = 2 * step.memory_analysis().temp_size_in_bytes >> 20  # MiB, of both devices
    (tmp_path / "meminfo").write_text(f"MemFree:   1 kB\nMemAvailable:   {(needed + machine) * 1024} kB\n")
    (tmp_path / "memory.max").write_text(limit if limit == "max" else str((needed + limit + 7) << 20))
    (tmp_path / "memory.current").write_text(str(7 << 20))
    monkeypatch.setattr(host_memory, "MACHINES", tmp_path / "meminfo")
    monkeypatch.setattr(host_memory, "CONTAINERS", tmp_path)
    host_memory.warn_if_short(step, mesh)
    told = f"warning: a step takes {needed:,} MiB of memory, and {needed - 1:,} MiB are left. Where the machine ends"
    said = capsys.readouterr().out
    assert needed >= 32 and (said.startswith(told) if warns else said == "")
