"""What all tests share: eight CPU devices, and built-in clips written once."""

import csv
import gc
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import settings

from videomae_jax.data import builtin
from videomae_jax.data.video import write_video

# Many tests compile the same small programs, here, in pytest's other workers and in processes of their own.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    compilation_cache = tempfile.TemporaryDirectory(prefix="videomae_jax_tests_")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = compilation_cache.name
os.environ |= {"JAX_PLATFORMS": "cpu", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
# XLA's threads for CPUs: each of eight devices blocks some while it waits for the others, for ever if none are left.
os.environ["NPROC"] = "64"
settings.register_profile("patient", deadline=None)  # how long an example takes says nothing on a shared machine
settings.load_profile("patient")
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def pytest_collection_finish() -> None:
    """Takes what was imported out of every later search for garbage, which is to stay short."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def forget_programs() -> Iterator[None]:
    """Frees what a file's tests compiled: thousands of programs are gigabytes, and slow down all that follows."""
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture(scope="session")
def builtin_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder with one clip of each built-in photograph and move instead of six."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIDEOMAE_JAX_CACHE", str(cache))
        builtin.clips_folder().mkdir()
        builtin.write_clips(builtin.clips_folder(), variants=1)
    return cache


@pytest.fixture
def builtin_clips(builtin_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes `builtin:train` and `builtin:val` those of `builtin_cache`."""
    monkeypatch.setenv("VIDEOMAE_JAX_CACHE", str(builtin_cache))
    return builtin_cache


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    """Two classes of four videos of drifting noise, 12 frames of 48 x 40, and a manifest."""
    folder, rng = tmp_path_factory.mktemp("videos"), np.random.default_rng(0)
    for index in range(8):
        path = folder / ("left" if index % 2 else "right") / f"video {index}.mp4"
        path.parent.mkdir(exist_ok=True)
        scene = np.kron(rng.integers(0, 256, (10, 12, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        write_video(path, np.stack([scene[8:48, shift : shift + 48] for shift in range(12)]), fps=25)
    with (folder / "train.csv").open("w", newline="") as file:
        paths = sorted(folder.glob("*/*.mp4"))
        csv.writer(file).writerows([["path", "label"], *([p.relative_to(folder), p.parent.name] for p in paths)])
    return folder
