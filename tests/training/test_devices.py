import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from videomae_jax.training import devices
from videomae_jax.training.devices import Accelerator, accelerator, peak_flops


class Device:
    """A device as a mesh sees it."""

    def __init__(self, kind, number):
        self.device_kind, self.id = kind, number


def mesh_of(kind, count=4):
    return type("Mesh", (), {"devices": np.array([Device(kind, i) for i in range(count)]), "size": count})()


@pytest.mark.parametrize(
    ("kind", "each"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("TPU v5 lite", 197e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("TPU v5p", 459e12),
        ("TPU v5e", 197e12),
    ],
)
def test_the_peak_of_a_mesh_is_that_of_its_devices(kind, each):
    assert peak_flops(mesh_of(kind), jnp.dtype("bfloat16")) == 4 * each


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("cpu", "bfloat16"),
        ("NVIDIA H200", "float32"),
        ("NVIDIA L40", "bfloat16"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bfloat16"),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", "bfloat16"),
    ],
)
def test_a_peak_that_is_not_known_is_none(kind, dtype):
    assert peak_flops(mesh_of(kind), jnp.dtype(dtype)) is None


def test_every_kind_is_found_by_its_name():
    assert [accelerator(each.kind) for each in devices.ACCELERATORS] == list(devices.ACCELERATORS)


def test_peak_clips_are_those_of_nothing_but_products(make_trainer, monkeypatch):
    trainer = make_trainer()
    assert trainer.peak_clips is None
    trainer = dataclasses.replace(trainer, task=dataclasses.replace(trainer.task, dtype=jnp.dtype("bfloat16")))
    monkeypatch.setattr(devices, "ACCELERATORS", (Accelerator("cpu", 1e12, 1e9),))
    assert trainer.peak_clips * trainer.task.clip_flops == pytest.approx(1e12)
