"""Our parameters to a checkpoint's arrays and back, by a dialect's rules, with every array accounted for.

Parameters are a flat dict, path -> array, with the paths of `rules`.
"""

import dataclasses
import functools
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from videomae_jax.weights.huggingface import (
    HUGGINGFACE,
    HUGGINGFACE_ENCODER,
    HUGGINGFACE_V5,
    HUGGINGFACE_V5_ENCODER,
)
from videomae_jax.weights.layouts import Patch
from videomae_jax.weights.mmaction2 import MMACTION2, MMACTION2_BACKBONE
from videomae_jax.weights.original import ORIGINAL_FINETUNING, ORIGINAL_PRETRAINING, V2_HUB
from videomae_jax.weights.rules import Dialect, Rule

DIALECTS = (
    HUGGINGFACE,
    HUGGINGFACE_ENCODER,
    HUGGINGFACE_V5,
    HUGGINGFACE_V5_ENCODER,
    ORIGINAL_PRETRAINING,
    ORIGINAL_FINETUNING,
    V2_HUB,
    MMACTION2,
    MMACTION2_BACKBONE,
)
# Parts that a model may start afresh, or leave in the checkpoint, as a whole.
RENEWABLE = ("decoder", "fc_norm", "pooler", "classifier")
OPTIONAL = ("encoder norm", *RENEWABLE)
SHOWN = 20  # problems listed in a message


def part_of(path: str) -> str:
    """The part of a model that a parameter belongs to."""
    if path.startswith("videomae/"):
        return "encoder norm" if path.startswith("videomae/layernorm/") else "encoder"
    first = path.split("/")[0]
    return first if first in RENEWABLE else "decoder"


@functools.cache
def _rules_by_name(dialect: Dialect) -> Mapping[str, Rule]:
    return {name: rule for rule in dialect.rules for name in rule.theirs}


def rule_of(name: str, dialect: Dialect) -> Rule | None:
    """The rule that an array of a checkpoint falls under, if any."""
    rules = _rules_by_name(dialect)
    return rules.get(name) or rules.get(_of_any_layer(name))


def is_idle(name: str, dialect: Dialect) -> bool:
    """Whether an array changes nothing."""
    return name in dialect.idle or _of_any_layer(name) in dialect.idle


def _of_any_layer(name: str) -> str:
    return re.sub(r"\.\d+\.", ".{i}.", name, count=1)


def recognise(names: list[str]) -> Dialect:
    """The dialect that knows the most of these names.

    Raises:
      ValueError: none knows the patch embedding, which every VideoMAE has.
    """
    dialect = max(DIALECTS, key=lambda dialect: sum(rule_of(name, dialect) is not None for name in names))
    rules = (rule_of(name, dialect) for name in names)
    if not any(rule is not None and rule.ours == "videomae/embeddings/projection/kernel" for rule in rules):
        known = "; ".join(dialect.name for dialect in DIALECTS)
        raise ValueError(f"no VideoMAE, its first arrays are {', '.join(names[:5])}. Known are: {known}.")
    return dialect


def parts_in(arrays: Mapping[str, np.ndarray], dialect: Dialect) -> Counter[str]:
    """How many arrays of each part a checkpoint has."""
    rules = (rule_of(name, dialect) for name in arrays)
    return Counter(part_of(rule.ours) for rule in rules if rule is not None)


def to_checkpoint(params: Mapping[str, np.ndarray], dialect: Dialect, patch: Patch) -> dict[str, np.ndarray]:
    """Names and arrays of a checkpoint from our parameters.

    Raises:
      ValueError: the dialect has no name for a parameter.
    """
    rules = {rule.ours: rule for rule in dialect.rules}
    nameless = [path for path in params if path not in rules]
    if nameless:
        raise ValueError(f"checkpoints of the dialect {dialect.name!r} cannot hold {listed(nameless)}")
    arrays = {}
    for path, ours in params.items():
        rule, ours = rules[path], np.asarray(ours)
        if not rule.stacked:
            arrays.update(zip(rule.theirs, rule.layout.to_theirs(ours, patch), strict=True))
            continue
        for i, layer in enumerate(ours):
            names = (name.format(i=i) for name in rule.theirs)
            arrays.update(zip(names, rule.layout.to_theirs(layer, patch), strict=True))
    return arrays


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A checkpoint's arrays under our paths, and what was left over on both sides.

    Attributes:
      params: path -> array.
      new: paths of the model that the checkpoint has nothing for.
      unused: part -> number of its arrays that the model has no place for.
    """

    params: dict[str, Any]
    new: list[str]
    unused: Counter[str]


def from_checkpoint(
    arrays: Mapping[str, np.ndarray],
    dialect: Dialect,
    wanted: Mapping[str, tuple[int, ...]],
    patch: Patch,
    *,
    ignore_mismatched_sizes: bool = False,
    as_array: Callable[[np.ndarray], Any] = np.asarray,
) -> Fitted:
    """Our parameters from a checkpoint.

    Args:
      arrays: name -> array, all of the checkpoint but what is never read.
      dialect: its names.
      wanted: path -> shape, all of the model.
      patch: frames, height and width of a token's pixels.
      ignore_mismatched_sizes: leave a parameter new when the checkpoint's has another shape.
      as_array: what is to become of each parameter; one at a time, to hold few of them twice.

    Raises:
      ValueError: names missing from the checkpoint or left over in it, or shapes that differ; all of them at once.
        A whole decoder or head may be missing or left over. The encoder's norm may be left over, and missing where a
        pooler is new that reads what comes out of it: trained models that pool by mean have none.
    """
    named = {rule.ours for rule in dialect.rules}
    views = {path: np.broadcast_to(np.float32(0), shape) for path, shape in wanted.items() if path in named}
    needed = to_checkpoint(views, dialect, patch)
    found, wanted_parts = parts_in(arrays, dialect), {part_of(path) for path in wanted}
    unused = Counter({part: found[part] for part in OPTIONAL if part in found and part not in wanted_parts})

    def part_in_use(name):
        rule = rule_of(name, dialect)
        return rule is None or part_of(rule.ours) not in unused

    new_pooler = "pooler" in wanted_parts and "pooler" not in found
    renewable = OPTIONAL if new_pooler else RENEWABLE
    new = [path for path in wanted if part_of(path) in renewable and part_of(path) not in found]
    new_names = {name for path in new if path in views for name in to_checkpoint({path: views[path]}, dialect, patch)}
    problems = [f"missing: {path}" for path in wanted if path not in named and path not in new]
    problems += [f"missing: {name}" for name in needed if name not in arrays and name not in new_names]
    problems += [f"unexpected: {name}" for name in arrays if name not in needed and part_in_use(name)]
    misfits = [name for name, array in needed.items() if name in arrays and arrays[name].shape != array.shape]
    if ignore_mismatched_sizes:
        new += sorted({rule_of(name, dialect).ours for name in misfits})
    else:
        problems += [
            f"shape: {name} is {list(arrays[name].shape)}, the model has {list(needed[name].shape)}" for name in misfits
        ]
    if problems:
        lines = listed(problems, "\n  ")
        raise ValueError(f"the checkpoint ({dialect.name}) does not fit the model:\n  {lines}")
    rules = {rule.ours: rule for rule in dialect.rules}
    params = {path: as_array(_read(rules[path], arrays, wanted[path])) for path in wanted if path not in new}
    return Fitted(params, new, unused)


def _read(rule: Rule, arrays: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    if not rule.stacked:
        return rule.layout.to_ours(tuple(arrays[name] for name in rule.theirs))
    layers = ([arrays[name.format(i=i)] for name in rule.theirs] for i in range(shape[0]))
    return np.stack([rule.layout.to_ours(tuple(layer)) for layer in layers])


def listed(items: list[str], separator: str = ", ") -> str:
    """A message's list, cut when it gets long."""
    more = [f"... and {len(items) - SHOWN} more"] if len(items) > SHOWN else []
    return separator.join(items[:SHOWN] + more)
