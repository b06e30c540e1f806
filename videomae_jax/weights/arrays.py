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
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def from_huggingface(arrays: Mapping[str, np.ndarray], wanted: dict, config: VideoMAEConfig) -> dict:
    """Our nested dict from a checkpoint's arrays.

    Args:
      arrays: name -> array, all of the checkpoint.
      wanted: the nested dict to fill, of anything with a `shape`.
      config: the model's.

    Raises:
      ValueError: names missing from the checkpoint or left over in it, or shapes that differ; all of them at once.
    """
    left, filled, problems = dict(arrays), {}, []
    for path, leaf in flatten_dict(wanted, sep="/").items():
        rule = RULES[path]
        layers = range(leaf.shape[0]) if rule.stacked else (None,)
        names = [[name.format(i=i) for name in rule.theirs] for i in layers]
        missing = [name for layer in names for name in layer if name not in left]
        if missing:
            problems += [f"missing: {name}" for name in missing]
            continue
        try:
            parts = [rule.layout.to_ours(tuple(np.asarray(left.pop(n)) for n in layer), config) for layer in names]
            array = np.stack(parts) if rule.stacked else parts[0]
        except ValueError as error:  # arrays that do not stack or rearrange: the wrong shape
            problems.append(f"shape: {names[0][0]}: {error}")
            continue
        if array.shape != tuple(leaf.shape):
            problems.append(f"shape: {names[0][0]} gives {array.shape}, the model has {tuple(leaf.shape)}")
        filled[path] = array
    problems += [f"unexpected: {name}" for name in left]
    if problems:
        shown = "\n  ".join(problems[:20]) + (f"\n  ... and {len(problems) - 20} more" if len(problems) > 20 else "")
        raise ValueError(f"the checkpoint does not fit the model:\n  {shown}")
    return unflatten_dict(filled, sep="/")
