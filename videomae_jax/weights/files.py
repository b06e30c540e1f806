"""Arrays from files: safetensors, whole or in shards, and PyTorch's pickles, read without running anything in them."""

import argparse
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from videomae_jax.fields import read_json

WEIGHTS_FILE = "model.safetensors"
# In the order of preference; an index names the shards.
WEIGHTS_FILES = (
    WEIGHTS_FILE,
    f"{WEIGHTS_FILE}.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
PICKLES = (".pth", ".pt", ".bin")
# What a training run's file calls its weights: V1 and V2; their DeepSpeed runs; mmaction2.
CONTAINERS = ("model", "module", "state_dict")
# What torch.compile (V2's pre-training) and DistributedDataParallel put before every name.
WRAPPERS = ("_orig_mod.", "module.")


def find_weights(path: Path) -> Path:
    """The file with the weights: `path` itself, or the one in the folder.

    Raises:
      ValueError: a folder without one, or with several of its own naming.
    """
    if path.is_file():
        return path
    for name in WEIGHTS_FILES:
        if (path / name).is_file():
            return path / name
    if (path / "results.json").is_file():
        raise ValueError(f"{path} is a run that keeps no model: it measures another. Give what it began with.")
    if (path / "recipe.json").is_file():
        raise ValueError(f"{path} is a run that has not finished: its model is written at the end. Continue it.")
    others = sorted(file for file in path.iterdir() if file.suffix in (".safetensors", *PICKLES))
    if len(others) != 1:
        several = f", but {', '.join(file.name for file in others)}; name one of them" if others else ""
        raise ValueError(f"{path} has none of {', '.join(WEIGHTS_FILES)}{several}.")
    return others[0]


def digest(file: Path) -> str:
    """What tells weights from others: 16 digits of the SHA-256 of their file, or of all its shards.

    Raises:
      ValueError: an index of shards that are not there.
    """
    whole = hashlib.sha256()
    for part in _parts(file):
        with part.open("rb") as content:
            hashlib.file_digest(content, lambda: whole)
    return whole.hexdigest()[:16]


def _parts(file: Path) -> list[Path]:
    """The files that the weights are in: `file` itself, or the shards that it is an index of.

    Raises:
      ValueError: an index that names none, or one that is not there.
    """
    if not file.name.endswith(".index.json"):
        return [file]
    weight_map = read_json(file).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{file} has no weight_map with the names of the shards.")
    shards = sorted(set(weight_map.values()))
    missing = [shard for shard in shards if not (file.parent / shard).is_file()]
    if missing:
        raise ValueError(f"{file} names {', '.join(missing)}, which is not there.")
    return [file.parent / shard for shard in shards]


def read_arrays(file: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """All arrays of a file, and the arguments of the run that wrote it, if they are there.

    Raises:
      ValueError: another kind of file, a broken one, or one with more in it than arrays.
      ImportError: a pickle, without PyTorch.
    """
    if file.name.endswith(".index.json"):
        return {name: array for shard in _parts(file) for name, array in read_arrays(shard)[0].items()}, {}
    if file.suffix == ".safetensors":
        try:
            return load_file(file), {}
        except SafetensorError as error:
            raise ValueError(f"{file} is broken: {error}") from error
    if file.suffix in PICKLES:
        return _read_pickle(file)
    raise ValueError(f"{file}: weights end in .safetensors, {', '.join(PICKLES)} or .index.json.")


def _read_pickle(file: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    torch = import_torch(f"{file} is PyTorch's kind of file")
    try:
        # The original's files carry the arguments of the run; nothing else may be in them but arrays.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a pickle can break in any way
        other = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"there is a {other[1]} in it" if other else "it is broken, or not PyTorch's"
        raise ValueError(
            f"{file} cannot be read as arrays alone: {reason}. If you trust it, open it where it was made and save its "
            "state_dict with safetensors."
        ) from error
    arguments = content.get("args") if isinstance(content, Mapping) else None
    for name in CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
            break
    tensors = content.items() if isinstance(content, Mapping) else ()
    if not tensors or not all(isinstance(tensor, torch.Tensor) for _, tensor in tensors):
        raise ValueError(f"{file} holds no dict of arrays, neither by itself nor as {', '.join(CONTAINERS)}.")
    arrays = {name: (x.float() if x.is_floating_point() else x).numpy() for name, x in tensors}
    while wrapped := [prefix for prefix in WRAPPERS if all(name.startswith(prefix) for name in arrays)]:
        arrays = {name.removeprefix(wrapped[0]): array for name, array in arrays.items()}
    return arrays, vars(arguments) if isinstance(arguments, argparse.Namespace) else {}


def write_arrays(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes `.safetensors`, or PyTorch's pickle with the arrays as `model`, as the original's runs do.

    The file is complete or, when the writing fails, as it was.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    new = file.with_name(f"{file.name}.new")
    try:
        if file.suffix == ".safetensors":
            # Not save_file, whose files only their owner can read.
            new.write_bytes(save(arrays, metadata={"format": "pt"}))
        else:
            torch = import_torch(f"{file} is to be PyTorch's kind of file")
            torch.save({"model": {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}}, new)
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)


def import_torch(why: str):
    """PyTorch, which only its own files need."""
    try:
        import torch
    except ImportError as error:
        raise ImportError(f"{why}, and PyTorch is not installed: pip install torch (a CPU build will do).") from error
    return torch
