import ctypes
import subprocess
import sys

import pytest

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
