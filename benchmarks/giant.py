"""Pre-training ViT-g on Kinetics-710 with 64 to 512 TPUs, planned: the table in docs/scaling.md.

    pip install libtpu
    python benchmarks/giant.py --out benchmarks/results/giant.json

compiles the training step for every slice, some minutes each and with no TPU at hand, and keeps what
`videomae_jax.training.plan` says. It goes on where it was interrupted. What is to be decoded and read comes from
`benchmarks/results/data.json`.
"""

import argparse
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from data_sets import DATA_SETS
from report import Row, write_report

(K710,) = (data_set for data_set in DATA_SETS if data_set.name == "Kinetics-710")
SLICES = ("v5e:8x8", "v5e:8x16", "v5e:16x16", "v5p:8x8x8")  # v5e has none of more than 256 chips
CONFIG, FSDP, MFU = "configs/k400_pretrain.py:size=giant,recipe=v2", 16, 0.4
FRAMES, STRIDE, VIEWS, FRAMES_PER_RECORD = 16, 4, 4, 32
PACKAGES = ["videomae-jax", "jax", "jaxlib", "libtpu"]
DATA = Path(__file__).parent / "results" / "data.json"


class Figures(NamedTuple):
    """What a plan comes to.

    Attributes:
      chips, hosts: of the slice.
      parts: `optim.accumulation`.
      memory: GiB of each chip, compiled.
      received: GB that each chip receives in a step, compiled.
      seconds: a step takes, at the assumed MFU.
      hours: the whole run takes.
      videos: to decode in a second.
    """

    chips: int
    hosts: int
    parts: int
    memory: float
    received: float
    seconds: float
    hours: float
    videos: float


UNITS = Figures("", "", "", "GiB", "GB a step", "s a step", "hours", "videos/s")


def plan(topology: str) -> dict[str, str]:
    """The lines of a slice's plan by their first words."""
    words = ["--config", CONFIG, f"--config.mesh.fsdp={FSDP}", "--topology", topology, "--videos", str(K710.videos)]
    command = [sys.executable, "-m", "videomae_jax.training.plan", *words, "--mfu", str(MFU)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(line.split(maxsplit=1) for line in done.stdout.splitlines())


def figures(told: dict[str, str]) -> Figures:
    """What the lines of a plan say."""
    chips, hosts, peak = map(int, re.match(r"(\d+) .*? of (\d+) hosts, each (\d+) TFLOP/s", told["mesh"]).groups())
    work = float(re.search(r"([\d.,]+) TFLOP a step", told["work"])[1].replace(",", ""))
    steps = int(told["steps"].split()[0].replace(",", ""))
    seconds = work / (MFU * peak * chips)
    return Figures(
        chips,
        hosts,
        parts=int(re.search(r"optim.accumulation=(\d+)|$", told.get("fits", ""))[1] or 1),
        memory=float(told["compiled"].split()[0]),
        received=sum(float(size) for size in re.findall(r"([\d.]+) GB", told["traffic"])),
        seconds=seconds,
        hours=steps * seconds / 3600,
        videos=int(told["batch"].split()[0]) / seconds,
    )


def table(plans: Path, data: Path = DATA) -> str:
    """Rows of Markdown.

    Args:
      plans: what this script wrote.
      data: what `benchmarks/data.py` wrote.
    """
    measured = {row["name"]: row["value"] for row in json.loads(data.read_text())["rows"]}
    # A clip's frames begin anywhere in a record, and records are read whole.
    read = FRAMES_PER_RECORD * (1 + (FRAMES - 1) * STRIDE / FRAMES_PER_RECORD)
    lines = [
        "| slice | chips, hosts | parts | memory | received | step | hours | videos | cores | read |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for topology, told in json.loads(plans.read_text())["plans"].items():
        found = figures(told)
        cells = [
            topology,
            f"{found.chips}, {found.hosts}",
            str(found.parts),
            f"{found.memory:.1f} GiB",
            f"{found.received:.1f} GB",
            f"{found.seconds:.2f} s",
            f"{found.hours:.1f}",
            f"{found.videos:,.0f}/s",
            str(math.ceil(found.videos * VIEWS * measured["prepared_4_views_ms"] / 1000)),
            f"{found.videos * read * measured['prepared_jpeg_bytes_a_frame'] / 1e9:.1f} GB/s",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, metavar="FILE", required=True, help="for the plans")
    out = parser.parse_args().out
    plans = json.loads(out.read_text())["plans"] if out.exists() else {}
    for topology in SLICES:
        plans[topology] = plans.get(topology) or plan(topology)
        rows = [
            Row(f"{topology}_{name}", value, unit)
            for topology, told in plans.items()
            for name, value, unit in zip(Figures._fields, figures(told), UNITS, strict=True)
        ]
        write_report(out, "TPUs compiled for, none at hand", PACKAGES, rows, {}, {"plans": plans})
    print(table(out), end="")


if __name__ == "__main__":
    main()
