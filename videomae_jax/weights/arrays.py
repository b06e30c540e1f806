"""Our nested dict of parameters to a checkpoint's flat dict of arrays and back, by a table of rules."""

from collections.abc import Mapping

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from videomae_jax.config import VideoMAEConfig
from videomae_jax.weights.huggingface import RULES


def to_huggingface(params: dict, config: VideoMAEConfig) -> dict[str, np.ndarray]:
    """Hugging Face's names and torch's order for all of our parameters."""
    arrays = {}
    for path, ours in flatten_dict(params, sep="/").items():
        rule, ours = RULES[path], np.asarray(ours)
        if not rule.stacked:
            arrays.update(zip(rule.theirs, rule.layout.to_theirs(ours, config), strict=True))
            continue
        for i, layer in enumerate(ours):
            names = (name.format(i=i) for name in rule.theirs)
            arrays.update(zip(names, rule.layout.to_theirs(layer, config), strict=True))
    return arrays


def from_huggingface(arrays: Mapping[str, np.ndarray], wanted: dict, config: VideoMAEConfig) -> dict:
    """Our nested dict from a checkpoint's arrays.

    Args:
      arrays: name -> array, all of the checkpoint.
      wanted: the nested dict to fill, of anything with a `shape`.
      config: the model's.

    Raises:
      ValueError: names missing from the checkpoint or left over in it, or shapes that differ; all of them at once.
    """
    leaves = flatten_dict(wanted, sep="/")
    shapes = {path: np.broadcast_to(np.float32(0), leaf.shape) for path, leaf in leaves.items()}
    needed = to_huggingface(unflatten_dict(shapes, sep="/"), config)
    problems = [f"missing: {name}" for name in needed if name not in arrays]
    problems += [f"unexpected: {name}" for name in arrays if name not in needed]
    problems += [
        f"shape: {name} is {list(arrays[name].shape)}, the model has {list(array.shape)}"
        for name, array in needed.items()
        if name in arrays and arrays[name].shape != array.shape
    ]
    if problems:
        shown = "\n  ".join(problems[:20]) + (f"\n  ... and {len(problems) - 20} more" if len(problems) > 20 else "")
        raise ValueError(f"the checkpoint does not fit the model:\n  {shown}")
    filled = {}
    for path, leaf in leaves.items():
        rule = RULES[path]
        layers = range(leaf.shape[0]) if rule.stacked else (None,)
        names = [[name.format(i=i) for name in rule.theirs] for i in layers]
        parts = [rule.layout.to_ours(tuple(np.asarray(arrays[name]) for name in layer), config) for layer in names]
        filled[path] = np.stack(parts) if rule.stacked else parts[0]
    return unflatten_dict(filled, sep="/")
