import argparse
import builtins
import json
import pickle
import shutil

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from videomae_jax.weights.files import digest, find_weights, read_arrays, write_arrays

ARRAYS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b.bias": np.ones(4, np.float32)}
TENSORS = {name: torch.from_numpy(array) for name, array in ARRAYS.items()}


def assert_arrays(found, wanted=ARRAYS):
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert found[name].dtype == wanted[name].dtype
        np.testing.assert_array_equal(found[name], wanted[name])


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_written_arrays_come_back(suffix, tmp_path):
    arrays = ARRAYS | {"turned": np.arange(6, dtype=np.float32).reshape(2, 3).T}  # not contiguous
    write_arrays(tmp_path / f"x{suffix}", arrays)
    assert_arrays(read_arrays(tmp_path / f"x{suffix}")[0], arrays)


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_shards_are_put_together(suffix, tmp_path):
    shards = {name: f"part-{i}{suffix}" for i, name in enumerate(ARRAYS)}
    for name, shard in shards.items():
        if suffix == ".bin":
            torch.save({name: TENSORS[name]}, tmp_path / shard)
        else:
            save_file({name: ARRAYS[name]}, tmp_path / shard)
    index = tmp_path / ("model.safetensors.index.json" if suffix == ".safetensors" else "pytorch_model.bin.index.json")
    index.write_text(json.dumps({"weight_map": shards}))
    assert find_weights(tmp_path) == index
    assert_arrays(read_arrays(index)[0])
    before = digest(index)
    shutil.copy(tmp_path / shards["a.weight"], tmp_path / shards["b.bias"])
    assert digest(index) != before
    (tmp_path / shards["a.weight"]).unlink()
    with pytest.raises(ValueError, match=f"index.json names part-0{suffix}, which is not there"):
        read_arrays(index)


@pytest.mark.parametrize("container", [None, "model", "module", "state_dict"])
def test_containers_of_training_runs_are_opened(container, tmp_path):
    content = dict(TENSORS) if container is None else {container: TENSORS, "epoch": 7, "optimizer": {"state": {}}}
    torch.save(content, tmp_path / "x.pth")
    arrays, arguments = read_arrays(tmp_path / "x.pth")
    assert_arrays(arrays)
    assert arguments == {}


def test_arguments_of_the_run_are_read(tmp_path):
    torch.save({"model": TENSORS, "args": argparse.Namespace(num_frames=32, lr=1e-3)}, tmp_path / "x.pth")
    arrays, arguments = read_arrays(tmp_path / "x.pth")
    assert_arrays(arrays)
    assert arguments == {"num_frames": 32, "lr": 1e-3}


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod."])
def test_names_of_wrapped_models_are_unwrapped(prefix, tmp_path):
    torch.save({"model": {prefix + name: tensor for name, tensor in TENSORS.items()}}, tmp_path / "x.pth")
    assert_arrays(read_arrays(tmp_path / "x.pth")[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_of_torch_become_fp32(dtype, tmp_path):
    torch.save({name: tensor.to(dtype) for name, tensor in TENSORS.items()}, tmp_path / "x.bin")
    assert_arrays(read_arrays(tmp_path / "x.bin")[0])


def test_bfloat16_safetensors_are_read(tmp_path):
    save_file({"a": ARRAYS["a.weight"].astype(ml_dtypes.bfloat16)}, tmp_path / "x.safetensors")
    np.testing.assert_array_equal(
        read_arrays(tmp_path / "x.safetensors")[0]["a"].astype(np.float32), ARRAYS["a.weight"]
    )


class Trap:
    """Pickled, it writes a file when it is opened by pickle."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return (type(self.file).touch, (self.file,))


def test_a_pickle_runs_nothing(tmp_path):
    torch.save({"model": TENSORS, "args": Trap(tmp_path / "sprung")}, tmp_path / "x.pth")
    with pytest.raises(
        ValueError, match="x.pth cannot be read as arrays alone: there is a getattr in it. If you trust"
    ):
        read_arrays(tmp_path / "x.pth")
    assert not (tmp_path / "sprung").exists()
    with open(tmp_path / "x.pth", "rb"), pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "x.pth", weights_only=True)  # the trap is a trap, torch says so too


@pytest.mark.parametrize("content", [{"model": 3}, [torch.ones(2)], {"a": torch.ones(2), "b": "text"}, {}], ids=str)
def test_a_pickle_of_something_else_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="x.pth holds no dict of arrays, neither by itself nor as model, module"):
        read_arrays(tmp_path / "x.pth")


@pytest.mark.parametrize("content", [b"", b"garbage e"])
def test_files_of_nothing_are_named(content, tmp_path):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(ValueError, match="x.pth cannot be read as arrays alone: it is broken, or not PyTorch's"):
        read_arrays(tmp_path / "x.pth")


@pytest.mark.parametrize("content", ["{", "{}", "[]", '{"weight_map": {}}'])
def test_a_broken_index_is_named(content, tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ValueError, match="model.safetensors.index.json"):
        read_arrays(tmp_path / "model.safetensors.index.json")


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth"])
def test_a_file_that_cannot_be_written_stays(name, tmp_path, monkeypatch):
    write_arrays(tmp_path / name, ARRAYS)

    def full(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr("torch.save", full)
    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        write_arrays(tmp_path / name, {"other": np.zeros(3, np.float32)})
    assert_arrays(read_arrays(tmp_path / name)[0])
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth"])
def test_a_cut_file_is_named(name, tmp_path):
    write_arrays(tmp_path / name, ARRAYS)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=f"{tmp_path / name} (is broken|cannot be read)"):
        read_arrays(tmp_path / name)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "x.h5").touch()
    with pytest.raises(ValueError, match="x.h5: weights end in .safetensors, .pth"):
        read_arrays(tmp_path / "x.h5")


def test_torchs_files_without_torch(tmp_path, monkeypatch):
    write_arrays(tmp_path / "x.pth", ARRAYS)
    write_arrays(tmp_path / "x.safetensors", ARRAYS)
    imported = builtins.__import__

    def without_torch(name, *args, **kwargs):
        if name == "torch":
            raise ImportError(name)
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_torch)
    with pytest.raises(ImportError, match="x.pth is PyTorch's kind of file, and PyTorch is not installed: pip install"):
        read_arrays(tmp_path / "x.pth")
    assert_arrays(read_arrays(tmp_path / "x.safetensors")[0])


def test_the_only_weights_of_a_folder_are_found(tmp_path):
    with pytest.raises(ValueError, match=f"{tmp_path} has none of model.safetensors, .*index.json.$"):
        find_weights(tmp_path)
    (tmp_path / "recipe.json").touch()
    with pytest.raises(ValueError, match=f"{tmp_path} is a run that has not finished"):
        find_weights(tmp_path)
    (tmp_path / "results.json").touch()
    with pytest.raises(ValueError, match=f"{tmp_path} is a run that keeps no model"):
        find_weights(tmp_path)
    (tmp_path / "results.json").unlink()
    (tmp_path / "recipe.json").unlink()
    (tmp_path / "checkpoint-799.pth").touch()
    assert find_weights(tmp_path) == tmp_path / "checkpoint-799.pth"
    (tmp_path / "checkpoint-1599.pth").touch()
    with pytest.raises(ValueError, match="but checkpoint-1599.pth, checkpoint-799.pth; name one of them"):
        find_weights(tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    assert find_weights(tmp_path) == tmp_path / "pytorch_model.bin"
    (tmp_path / "model.safetensors").touch()
    assert find_weights(tmp_path) == tmp_path / "model.safetensors"
