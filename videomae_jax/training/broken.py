"""The videos of a run that could not be read: listed, counted, and fatal only when they are many."""

import csv
from collections.abc import Iterable
from pathlib import Path


class BrokenVideos:
    """Collects reports of unreadable videos in `broken_videos.csv` (path, reason), each video once."""

    def __init__(self, workdir: Path, num_videos: int, max_share: float):
        self.file = workdir / "broken_videos.csv"
        self._num_videos = num_videos
        self._max_share = max_share
        self._paths = set()
        if self.file.exists():
            with self.file.open(newline="") as lines:
                self._paths = {row["path"] for row in csv.DictReader(lines)}

    def __len__(self) -> int:
        return len(self._paths)

    def add(self, reports: Iterable[str]) -> None:
        """Takes a batch's reports, each none or more lines `path<TAB>reason`.

        Raises:
          ValueError: more than `max_share` of the videos are broken.
        """
        for line in "\n".join(reports).splitlines():
            if line and line.split("\t")[0] not in self._paths:
                self._add(*line.split("\t", 1))

    def _add(self, path: str, reason: str) -> None:
        self._paths.add(path)
        new = not self.file.exists()
        with self.file.open("a", newline="") as lines:
            writer = csv.writer(lines)
            if new:
                writer.writerow(["path", "reason"])
            writer.writerow([path, reason])
        print(f"broken video, replaced by another: {path}: {reason}", flush=True)
        if len(self) > self._max_share * self._num_videos:
            raise ValueError(
                f"{len(self)} of {self._num_videos} videos cannot be read, more than "
                f"data.max_broken_share={self._max_share}; they are listed in {self.file}. "
                "Repair or remove them, or raise data.max_broken_share."
            )
