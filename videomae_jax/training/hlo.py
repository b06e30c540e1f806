"""XLA's text of a compiled program (`compiled.as_text()`), taken apart."""

import re
from typing import NamedTuple

INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (.*?) ([\w-]+)\((.*)$")
COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")


class Instruction(NamedTuple):
    """A line `name = result operation(operands), attributes`.

    Attributes:
      name: of the instruction.
      result: its type, `f32[8,128]{1,0}` or a tuple of such.
      operation: what is done.
      rest: the operands, a closing bracket, the attributes.
    """

    name: str
    result: str
    operation: str
    rest: str


Computations = dict[str, list[Instruction]]


def parse(program: str) -> tuple[Computations, str]:
    """The instructions of every computation, and the name of the one that is the program."""
    computations, entry, current = {}, None, None
    for line in program.splitlines():
        if header := COMPUTATION.match(line):
            current = computations.setdefault(header[2], [])
            entry = header[2] if header[1] else entry
        elif current is not None and (instruction := INSTRUCTION.match(line)):
            current.append(Instruction(*instruction.groups()))
    return computations, entry
