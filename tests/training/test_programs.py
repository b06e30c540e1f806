from types import SimpleNamespace

import jax
import numpy as np
import pytest

from videomae_jax.training.programs import keep_programs


def mesh_on(platform):
    return SimpleNamespace(devices=np.array([SimpleNamespace(platform=platform)]))


@pytest.fixture(autouse=True)
def restored():
    before = jax.config.jax_compilation_cache_dir
    yield
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.parametrize(
    ("platform", "said", "kept_in"),
    [("gpu", None, "cache/programs"), ("tpu", "/elsewhere", "/elsewhere"), ("cpu", None, None)],
)
def test_programs_for_accelerators_are_kept_where_the_user_says_or_in_the_cache(platform, said, kept_in, monkeypatch):
    monkeypatch.setenv("VIDEOMAE_JAX_CACHE", "/home/cache")
    jax.config.update("jax_compilation_cache_dir", said)
    keep_programs(mesh_on(platform))
    kept = jax.config.jax_compilation_cache_dir
    assert kept is kept_in if kept_in is None else kept.endswith(kept_in)
