"""A step of pre-training, of fine-tuning and of inference, ours against transformers' on PyTorch.

    pip install ".[benchmark]" transformers
    python benchmarks/step.py --out benchmarks/results/step.json
    python benchmarks/step.py --sizes small base large --batches 32 64 128 256 512 --out FILE

Each side does what a user of it would run: ours the training step of `train.py` and `eval.py` and the classifier;
theirs `VideoMAEForPreTraining` and `VideoMAEForVideoClassification` with SDPA and fused AdamW, as they are and under
`torch.compile`. A batch of random clips of 16 x 224 x 224 is on the device: uint8 for ours, which normalises them in
the step, normalised floats for theirs. Pre-training masks tubes of 0.9; fine-tuning has 400 classes, and neither
dropout nor augmentation. V2's dual masking, which leaves half of the tokens to the decoder, is compared with our own
step without it. On GPUs products are in bfloat16 (theirs by autocast), parameters and moments in float32; on
CPUs all is float32.

Every side of every case is a process of its own; they take turns, once in each round. A time is the median over the
rounds; a ratio is the median of the rounds' ratios, theirs to ours: above 1, ours is faster. Memory is the most that
the process (on CPUs) or its allocator (on GPUs) held. What does not fit in memory or cannot be compiled is left out,
and said. `mfu` is the share of the time that the model's products alone would take, at the rate of large square
matrices, PyTorch's or XLA's, whichever is higher. A GPU holds the sides of a case at the same time.
"""

import argparse
import contextlib
import multiprocessing
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any, get_args

from report import Row, write_report
from sides import SIDES, Kind, model_flops

PACKAGES = ["videomae-jax", "jax", "jaxlib", "flax", "optax", "torch", "transformers"]
WARM_UP = 2  # steps that are not timed


class Side:
    """One side in a process of its own: calls of its methods, and their results or why there is none."""

    def __init__(self, name: str):
        context = multiprocessing.get_context("spawn")
        self.name = name
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(name, theirs), daemon=True)
        self._process.start()

    def call(self, method: str, *arguments: Any) -> Any:
        """Raises a RuntimeError with the last line of what went wrong over there."""
        self._pipe.send((method, arguments))
        try:
            result, error = self._pipe.recv()
        except EOFError:
            raise RuntimeError("the process ended, perhaps for want of memory") from None
        if error is not None:
            raise RuntimeError(error)
        return result

    def close(self) -> None:
        """Ends the process and frees its memory."""
        self._process.terminate()
        self._process.join()


def serve(name: str, pipe) -> None:
    """Answers calls until the process is ended. A step stays here; others see how long it took."""
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # or nothing else fits beside it
    side, step = SIDES[name](), None
    while True:
        method, arguments = pipe.recv()
        try:
            if method == "prepare":
                step, result = side.step(*arguments)
                for _ in range(WARM_UP):
                    step()
            elif method == "run":
                begin = time.perf_counter()
                step()
                result = time.perf_counter() - begin
            elif method in ("device", "platform"):
                result = getattr(side, method)
            else:
                result = getattr(side, method)(*arguments)
            pipe.send((result, None))
        except Exception as error:  # whatever a framework raises when memory is short
            pipe.send((None, f"{type(error).__name__}: {str(error).strip().splitlines()[0]:.150}"))


def rivals(kind: Kind, wanted: list[str]) -> list[str]:
    """The wanted sides that there are of a kind: nobody else has dual masking, which is compared with single."""
    own = ("ours", "single_masking") if kind == "dual" else SIDES.keys() - {"single_masking"}
    return [name for name in wanted if name in own]


def measure(case: str, kind: Kind, size: str, batch: int, names: list[str], rounds: int, rate: float) -> tuple:
    """Rows and ratios of one case."""
    rows, ratios, times = [], {}, {}
    with contextlib.ExitStack() as stack:
        sides = []
        for name in names:
            side = stack.enter_context(contextlib.closing(Side(name)))
            try:
                compiling = side.call("prepare", kind, size, batch)
            except RuntimeError as error:
                print(f"{case}: {name} left out: {error}", file=sys.stderr, flush=True)
                continue
            sides.append(side)
            rows.append(Row(f"{case}_{name}_compile", compiling, "s"))
        for _ in range(rounds):
            for side in sides:
                times.setdefault(side.name, []).append(side.call("run"))
        rows += [Row(f"{case}_{side.name}_peak_memory", side.call("peak_memory") / 2**20, "MiB") for side in sides]
    for name, each in times.items():
        seconds, work = statistics.median(each), model_flops("pretrain" if name == "single_masking" else kind, size)
        rows.append(Row(f"{case}_{name}_step", 1000 * seconds, "ms"))
        rows.append(Row(f"{case}_{name}_clips_per_second", batch / seconds, "clips/s"))
        rows.append(Row(f"{case}_{name}_mfu", 100 * work * batch / seconds / rate, "%"))
    for name in times.keys() - {"ours"} if "ours" in times else ():
        each = [theirs / ours for theirs, ours in zip(times[name], times["ours"], strict=True)]
        ratios[f"{case}_over_{name}"] = statistics.median(each)
    return rows, ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["base"], metavar="SIZE")
    parser.add_argument("--batches", nargs="+", type=int, default=[2], metavar="CLIPS")
    parser.add_argument("--kinds", nargs="+", choices=get_args(Kind), default=get_args(Kind), metavar="KIND")
    parser.add_argument("--sides", nargs="+", choices=tuple(SIDES), default=tuple(SIDES), metavar="SIDE")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, metavar="FILE", help="for the report")
    arguments = parser.parse_args()

    rates, devices, platforms = {}, {}, {}
    for name in {"ours", "transformers"} & set(arguments.sides):
        with contextlib.closing(Side(name)) as side:
            devices[name], platforms[name] = side.call("device"), side.call("platform")
            rates[name] = side.call("matmul_rate")
    if len(set(platforms.values())) > 1:  # of TPUs PyTorch knows nothing
        sys.exit(f"step.py: the sides would run on different devices: {devices}. Name --sides ours single_masking.")
    rows = [Row(f"{name}_matmul", rate / 1e9, "GFLOP/s") for name, rate in rates.items()]
    ratios = {}
    for size in arguments.sizes:
        for kind in arguments.kinds:
            for batch in arguments.batches:
                first = size == arguments.sizes[0] and batch == arguments.batches[0]
                case = kind if first else f"{kind}_{size}_{batch}"
                names = rivals(kind, arguments.sides)
                more, others = measure(case, kind, size, batch, names, arguments.rounds, max(rates.values()))
                rows, ratios = rows + more, ratios | others
                print(", ".join(f"{name} {ratio:.2f}" for name, ratio in others.items()), flush=True)
    setting = {"sizes": arguments.sizes, "batches": arguments.batches, "rounds": arguments.rounds}
    write_report(arguments.out, " / ".join(sorted(set(devices.values()))), PACKAGES, rows, ratios, {"setting": setting})


if __name__ == "__main__":
    main()
