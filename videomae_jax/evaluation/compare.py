"""Results of runs side by side.

python -m videomae_jax.evaluation.compare runs/finetuned runs/from_scratch
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from videomae_jax.training.metrics import read_metrics
from videomae_jax.training.workdir import RESULTS_FILE

SHOWN = ("top1", "top5", "mean_class_accuracy", "map", "mse", "mae", "r2", "loss", "num_videos")


def compare(workdirs: Sequence[Path]) -> list[list[str]]:
    """A table: a header, and a row for each run with what it began from, its steps, its test and its scores.

    Raises:
      ValueError: a folder without results.
    """
    runs = [_results(workdir) for workdir in workdirs]
    scores = [name for name in SHOWN if any(results.get(name) is not None for results in runs)]
    rows = [["run", "init_from", "steps", "tested on", *scores]]
    for workdir, results in zip(workdirs, runs, strict=True):
        recipe = json.loads((workdir / "recipe.json").read_text())
        steps = max((row["step"] for row in read_metrics(workdir)), default=0)
        settings = results["settings"]
        tested = f"{settings['videos']}, {settings['segments']} x {settings['crops']} views"
        shown = (_shown(results.get(name)) for name in scores)
        rows.append([str(workdir), str(recipe["init_from"]), str(steps), tested, *shown])
    return rows


def remarks(workdirs: Sequence[Path]) -> Iterator[str]:
    """What must be known of runs before their scores are compared.

    Raises:
      ValueError: a folder without results.
    """
    settings = [_results(workdir)["settings"] for workdir in workdirs]
    videos = [(setting["videos"].rpartition(", ")[2], setting["skip_broken"]) for setting in settings]
    views = [(setting["segments"], setting["crops"], setting["stride"]) for setting in settings]
    for what, tested in {"videos": videos, "views of them": views}.items():
        if len(set(tested)) > 1:
            yield f"the runs were tested on different {what}, which may make their scores differ"


def _results(workdir: Path) -> dict:
    file = workdir / RESULTS_FILE
    if not file.is_file():
        raise ValueError(f"{workdir} has no {RESULTS_FILE}: it is no run of eval.py, or not finished.")
    return json.loads(file.read_text())


def _shown(value: float | int | None) -> str:
    return "-" if value is None else str(value) if isinstance(value, int) else f"{value:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m videomae_jax.evaluation.compare", description="Results of runs side by side."
    )
    parser.add_argument("workdirs", nargs="+", type=Path, metavar="WORKDIR", help="the folder of a run of eval.py")
    workdirs = parser.parse_args().workdirs
    try:
        rows = compare(workdirs)
    except ValueError as error:
        parser.error(str(error))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for remark in remarks(workdirs):
        print(f"note: {remark}")


if __name__ == "__main__":
    main()
