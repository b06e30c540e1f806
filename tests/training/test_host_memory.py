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
from videomae_jax.training.host_memory import compute_in_this_thread, settle_after_compiling
from videomae_jax.training.mesh import make_mesh

compute_in_this_thread()
jax.config.update("jax_platforms", "cpu")
step = jax.jit(lambda: jax.numpy.zeros(SIZE, "uint8")).lower().compile()
settle_after_compiling(make_mesh(data=1, fsdp=1, tensor=1, devices=jax.devices()[:1]))
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
    # Of its bytes, those in pages that are new: without the settling, all; with it, one step's or two's where what a
    # step took was not yet given back when the next one began.
    assert float(told.stdout) < 0.5


@pytest.mark.parametrize(("left", "warns"), [(255, True), (257, False)])
def test_a_step_that_takes_more_memory_than_is_left_is_said_to(left, warns, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(host_memory, "MEMORY_FILE", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text(f"MemFree:   1 kB\nMemAvailable:   {left * 1024} kB\n")
    x = jax.ShapeDtypeStruct((2**12, 2**12), "float32")  # two products of 64 MiB each lie there before the last
    step = jax.jit(lambda x: (x @ x.T) @ (x.T @ x)).lower(x).compile()
    mesh = make_mesh(data=2, fsdp=1, tensor=1, devices=jax.devices()[:2])
    assert step.memory_analysis().temp_size_in_bytes >> 20 == 128
    host_memory.warn_if_short(step, mesh)
    told = "warning: a step takes 0.2 GiB of memory, and 0.2 GiB are left. Where the machine ends this program, make"
    assert capsys.readouterr().out.startswith(told) == warns
