"""What the devices send each other in a compiled program, read from its text."""

import math
import re
from collections import Counter
from typing import NamedTuple

from videomae_jax.training.hlo import Computations, parse

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
BITS = {"pred": 8, "bf16": 16}  # of the types that are not a letter and their number of bits

ARRAY = re.compile(r"\b(pred|bf16|[fsu]\d+)\[([\d,]*)\]")
CALLED = re.compile(r"(?:body|condition|calls|to_apply|true_computation|false_computation)=%?([\w.-]+)")


class Collective(NamedTuple):
    """One of a program's collectives.

    Attributes:
      kind: one of `KINDS`.
      size: bytes that one device gives or gets at each time, whichever are more.
      times: how often it runs; in a loop once for each round.
    """

    kind: str
    size: int
    times: int

    @property
    def moved(self) -> int:
        """Bytes that a device receives in all, in a ring of many: a sum is reduced first, then gathered."""
        return self.size * self.times * (2 if self.kind == "all-reduce" else 1)


def collectives(program: str) -> list[Collective]:
    """The collectives of a compiled program.

    Args:
      program: `compiled.as_text()`, XLA's HLO after optimisation. Loops are those of `lax.scan`: they count up to a
        constant.
    """
    computations, entry = parse(program)
    runs = Counter({entry: 1})
    found = {}
    for name in _callers_first(computations, entry):
        sizes = {}
        for instruction, result, operation, rest in computations[name]:
            sizes[instruction] = _bytes(result)
            kind = operation.removesuffix("-done")
            if kind in KINDS:
                operands = re.findall(r"%?([\w.-]+)", rest.split(")")[0])
                # What an asynchronous one began with is a tuple of operands and results; its end says the results.
                given = 0 if operation != kind else sum(sizes.get(operand, 0) for operand in operands)
                if name.startswith("all-reduce-scatter"):  # a TPU's, which keeps a part of the sum
                    kind = "reduce-scatter"
                # A TPU's compiler spreads one over the program's other work, in pieces of one channel.
                channel = re.search(r"channel_id=(\d+)", rest)
                key = f"{name} {instruction}" if channel is None else channel[1]
                found[key] = Collective(kind, max(sizes[instruction], given), runs[name])
            for called in _called(operation, rest):
                rounds = _rounds(computations, rest) if operation == "while" else 1
                runs[called] += runs[name] * rounds
    return list(found.values())


def _callers_first(computations: Computations, entry: str) -> list[str]:
    """Computations that run, each after all that call it."""
    order, seen = [], set()

    def visit(name: str) -> None:
        seen.add(name)
        for _, _, operation, rest in computations[name]:
            for called in _called(operation, rest):
                if called not in seen:
                    visit(called)
        order.append(name)

    visit(entry)
    return order[::-1]


def _called(operation: str, rest: str) -> list[str]:
    # The later parts of an asynchronous call name again what its start has begun; reductions call scalar sums.
    if operation.endswith(("-done", "-update")) or operation in KINDS:
        return []
    branches = re.search(r"branch_computations=\{(.*?)\}", rest)
    names = [] if branches is None else re.findall(r"[\w.-]+", branches[1])
    return names + CALLED.findall(rest)


def _rounds(computations: Computations, loop: str) -> int:
    """How often a loop's body runs: the largest constant of its condition."""
    condition = re.search(r"condition=%?([\w.-]+)", loop)[1]
    constants = [
        int(number[1])
        for _, _, operation, rest in computations[condition]
        if operation == "constant" and (number := re.match(r"(\d+)\)", rest))
    ]
    return max(constants, default=1)


def _bytes(result: str) -> int:
    arrays = ARRAY.findall(result)
    return sum(
        (BITS.get(dtype) or int(dtype[1:])) // 8 * math.prod(int(side) for side in sides.split(",") if side)
        for dtype, sides in arrays
    )
