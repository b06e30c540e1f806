"""What the tables of names are written in. Each dialect of checkpoints is a tuple of rules, one a parameter of ours.

Our side is the path of a parameter in a model that has everything, encoder (`videomae/`), decoder and classifier; a
stack of blocks has one array a parameter, with a leading axis L, and `{i}` in the checkpoint's names.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

from videomae_jax.weights.layouts import LINEAR, SAME, Layout


@dataclasses.dataclass(frozen=True)
class Rule:
    """One parameter of ours, its names in the checkpoint, and the layout between them."""

    ours: str
    theirs: tuple[str, ...]
    layout: Layout = SAME

    @property
    def stacked(self) -> bool:
        """Whether our array has a leading axis over layers."""
        return "{i}" in self.theirs[0]


Rules = tuple[Rule, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Dialect:
    """One way of naming a checkpoint's arrays.

    Attributes:
      name: what to call it in messages.
      rules: the parameters it can hold.
      fields: of the config, where the file says nothing.
      resize: what its models were trained and tested with (`VideoMAEImageProcessor`).
      tables: stored position tables, which are computed and not read.
      idle: arrays that change nothing and are left out.
    """

    name: str
    rules: Rules
    fields: dict[str, Any] = dataclasses.field(default_factory=dict)
    resize: str = "opencv"
    tables: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()


def dense(ours: str, theirs: str) -> Rules:
    """A linear layer."""
    return Rule(f"{ours}/kernel", (f"{theirs}.weight",), LINEAR), Rule(f"{ours}/bias", (f"{theirs}.bias",))


def norm(ours: str, theirs: str) -> Rules:
    """A LayerNorm."""
    return Rule(f"{ours}/scale", (f"{theirs}.weight",)), Rule(f"{ours}/bias", (f"{theirs}.bias",))


def inside(rules: Iterable[Rule], ours: str, theirs: str) -> Rules:
    """The rules of a part, with what stands before its paths and names."""
    return tuple(Rule(ours + rule.ours, tuple(theirs + name for name in rule.theirs), rule.layout) for rule in rules)


def stack(ours: str, theirs: str, block: Rules) -> Rules:
    """The blocks of one stack."""
    return inside(block, f"{ours}/layer/", f"{theirs}.{{i}}.")
