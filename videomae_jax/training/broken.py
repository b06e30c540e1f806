"""The videos of a run that could not be read: listed, counted, and fatal only when they are many."""

import csv
from collections.abc import Iterable
from pathlib import Path

import jax

from videomae_jax.training.processes import is_first, lines_of_all

ANY_NAME = "surrogateescape"  # names of files need not be UTF-8


class BrokenVideos:
    """Collects reports of unreadable videos in `broken_videos.csv` (path, reason), each video once.

    Args:
      workdir: the run's folder.
      training: paths of the training videos.
      max_share: of the training videos that may be broken.
    """

    def __init__(self, workdir: Path, training: Iterable[str], max_share: float):
        self.file = workdir / "broken_videos.csv"
        self._training = frozenset(training)
        self._max_share = max_share
        self._paths = set()  # all that are listed
        self._now: set[str] = set()  # training videos that this run came upon since it started: others may be mended
        self._own: list[str] = []  # of this process, not shared yet
        if self.file.exists():
            with self.file.open(newline="", encoding="utf-8", errors=ANY_NAME) as lines:
                self._paths = {row["path"] for row in csv.DictReader(lines)}

    def __len__(self) -> int:
        return len(self._paths)

    def add(self, reports: Iterable[str]) -> None:
        """Takes the reports of a batch that this process loaded, each none or more lines `path<TAB>reason`.

        Of several processes, each knows its own until they `share` them.

        Raises:
          ValueError: more than `max_share` of the training videos are broken.
        """
        lines = [line for report in reports for line in report.split("\n") if line]
        if jax.process_count() == 1:
            self._take(lines)
        else:
            self._own += lines

    def share(self) -> None:
        """Tells every process what the others found, where there are others; errors as in `add`."""
        if jax.process_count() > 1:
            lines, self._own = lines_of_all(self._own), []
            self._take(lines)

    def _take(self, lines: Iterable[str]) -> None:
        for path, reason in (line.split("\t", 1) for line in lines):
            if path not in self._paths:
                self._add(path, reason)
            if path in self._training:
                self._now.add(path)
        broken = len(self._now)
        if broken > self._max_share * len(self._training):
            raise ValueError(
                f"{broken} of {len(self._training)} training videos cannot be read, more than "
                f"data.max_broken_share={self._max_share}; they are listed in {self.file}. "
                "Repair them or raise data.max_broken_share, and go on. Without them it is another run, "
                "for a --workdir of its own."
            )

    def _add(self, path: str, reason: str) -> None:
        self._paths.add(path)
        if not is_first():
            return
        new = not self.file.exists()
        with self.file.open("a", newline="", encoding="utf-8", errors=ANY_NAME) as lines:
            writer = csv.writer(lines)
            if new:
                writer.writerow(["path", "reason"])
            writer.writerow([path, reason])
        print(f"unreadable video: {path}: {reason}", flush=True)
