"""How large the well-known data sets become when they are prepared, and how long that takes: the table in docs/data.md.

python benchmarks/data_sets.py benchmarks/results/data.json
"""

import json
import sys
from pathlib import Path
from typing import NamedTuple

MEASURED_PIXELS = 340 * 256  # of the frames in benchmarks/data.py


class DataSet(NamedTuple):
    """Videos as they are published: numbers, mean seconds, frames a second, height and width once prepared."""

    name: str
    videos: int
    seconds: float
    fps: float
    height: int
    width: int


DATA_SETS = (
    DataSet("Kinetics-400", 240_436, 10, 30, 256, 340),
    DataSet("Kinetics-710", 658_340, 10, 30, 256, 340),
    DataSet("Something-Something V2", 168_913, 4, 12, 240, 427),
    DataSet("UCF101", 13_320, 7.2, 25, 240, 320),
    DataSet("HMDB51", 6_766, 3.1, 30, 240, 320),
)


def table(results: Path) -> str:
    """Rows of Markdown."""
    rows = {row["name"]: row["value"] for row in json.loads(results.read_text())["rows"]}
    lines = ["| data set | frames | JPEG | hours | H.264 | hours |", "|---|---|---|---|---|---|"]
    for data_set in DATA_SETS:
        frames = data_set.videos * data_set.seconds * data_set.fps
        pixels = data_set.height * data_set.width / MEASURED_PIXELS
        cells = [
            f"{data_set.name}, {data_set.videos:,} x {data_set.seconds} s at {data_set.fps}",
            f"{frames / 1e6:.1f} M",
        ]
        for codec in ("jpeg", "h264"):
            gigabytes = frames * pixels * rows[f"prepared_{codec}_bytes_a_frame"] / 1e9
            hours = frames * pixels * rows[f"prepare_{codec}_ms_a_frame"] / 3.6e6
            cells += [f"{gigabytes:,.0f} GB", f"{hours:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(Path(sys.argv[1])), end="")
