"""Where the time of a step goes: a trace for TensorBoard or Perfetto, and a table by part of the model.

    python benchmarks/step_profile.py --kind pretrain --size base --batch 2 --trace runs/profile

The table adds up the times of all operations, of every thread on CPUs and of every stream on GPUs, by the part that
they belong to and by what they are. Beside it is the floor of the step: its model FLOPs at the rate of large matrix
products. (The script is not called `profile`, which Python has a module of its own for.)
"""

import argparse
import re
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import get_args

import jax
from sides import Kind, Ours, model_flops

from videomae_jax.training.hlo import Computations, Instruction, parse

STEPS = 3
PARTS = ("prepare", "encoder", "decoder", "loss", "optimizer")
OP_NAME = re.compile(r'op_name="([^"]*)"')
CONTROL = ("while", "conditional", "call")  # their bodies' operations have times of their own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=get_args(Kind), default="pretrain")
    parser.add_argument("--size", default="base")
    parser.add_argument("--batch", type=int, default=2, metavar="CLIPS")
    parser.add_argument("--trace", type=Path, default=Path("runs/profile"), metavar="FOLDER")
    arguments = parser.parse_args()

    ours = Ours()
    rate = ours.matmul_rate()
    step, _ = ours.step(arguments.kind, arguments.size, arguments.batch)
    step()
    seconds = []
    with jax.profiler.trace(str(arguments.trace)):
        for _ in range(STEPS):
            begin = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - begin)
    times = times_by_part(newest_trace(arguments.trace), ours.program)
    total = sum(times.values())
    print(f"{'part':10} {'what':16} {'way':10} {'ms a step':>10} {'share':>6}")
    for (part, what, way), nanoseconds in times.most_common():
        print(f"{part:10} {what:16} {way:10} {nanoseconds / STEPS / 1e6:10.1f} {nanoseconds / total:6.1%}")
    took, floor = statistics.median(seconds), model_flops(arguments.kind, arguments.size) * arguments.batch / rate
    print(f"\nstep {1000 * took:.0f} ms with the profiler on; floor {1000 * floor:.0f} ms at {rate / 1e9:.0f} GFLOP/s")
    print(f"trace in {arguments.trace}")


def newest_trace(folder: Path) -> Path:
    """The file of the last trace in a folder."""
    return max(folder.rglob("*.xplane.pb"), key=lambda file: file.stat().st_mtime)


def times_by_part(trace: Path, program: str) -> Counter[tuple[str, str, str]]:
    """Nanoseconds of the program's operations by part, by what they are, and by the way they belong to."""
    computations, _ = parse(program)
    labels = {
        instruction.name: label(instruction, computations, neighbours(instructions))
        for instructions in computations.values()
        for instruction in instructions
        if instruction.operation not in CONTROL
    }
    times = Counter()
    for plane in jax.profiler.ProfileData.from_file(str(trace)).planes:
        for line in plane.lines:
            for event in line.events:
                # On CPUs an event is called as the instruction is; on GPUs it is a kernel, and says of which one.
                name = event.name if event.name in labels else dict(event.stats).get("hlo_op")
                if name in labels:
                    times[labels[name]] += event.duration_ns
    return times


def neighbours(instructions: list[Instruction]) -> str:
    """The commonest name of a computation's operations: that of one which has none, since it was made of several."""
    names = Counter(name for each in instructions for name in OP_NAME.findall(each.rest) if "/" in name)
    return names.most_common(1)[0][0] if names else ""


def label(instruction: Instruction, computations: Computations, default: str) -> tuple[str, str, str]:
    """The part of the model, what is done, and the way: forwards, backwards or again."""
    _, _, operation, rest = instruction
    called = re.search(r"calls=%?([\w.-]+)", rest)
    inner = computations.get(called[1], []) if called else []
    names = OP_NAME.findall(rest) or [name for each in inner for name in OP_NAME.findall(each.rest)]
    name = max((name for name in names if "/" in name), key=len, default=default)
    part = next((part for part in PARTS if re.search(rf"\b{part}\b", name)), "other")
    where = next((where for where in ("attention", "mlp") if re.search(rf"\b{where}\b", name)), "")
    is_product = "dot" in operation or "gemm" in rest or any(each.operation == "dot" for each in inner)
    what = f"{where} {'product' if is_product else 'other'}".strip()
    way = "again" if "rematted_computation" in name else "backwards" if "transpose(" in name else "forwards"
    return part, what, way


if __name__ == "__main__":
    main()
