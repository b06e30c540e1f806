"""What every benchmark leaves: a table on the screen and one JSON object in a file."""

import datetime
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple


class Row(NamedTuple):
    name: str
    value: float
    unit: str


def write_report(
    out: Path | None,
    device: str,
    packages: list[str],
    rows: list[Row],
    ratios: dict[str, float],
    others: dict[str, Any] | None = None,
) -> None:
    """Prints the rows and ratios and writes them.

    Args:
      out: the file; None to print only.
      device: what it ran on.
      packages: those whose versions matter.
      rows: what was measured.
      ratios: or differences; larger is better for us.
      others: what else goes into the file.
    """
    width = max(len(name) for name in (*ratios, *(row.name for row in rows)))
    for row in rows:
        print(f"{row.name:{width}}  {row.value:10.2f} {row.unit}")
    for name, ratio in ratios.items():
        print(f"{name:{width}}  {ratio:10.2f}")
    if out is None:
        return
    report = {
        "device": device,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
        "date": datetime.date.today().isoformat(),
        "rows": [row._asdict() for row in rows],
        "ratios": ratios,
        **(others or {}),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n")


def processor_name() -> str:
    """The CPU's name, for reports."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
