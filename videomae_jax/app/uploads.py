"""Which videos the page takes, and what it says of others."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from videomae_jax.data.frames import VideoReadError
from videomae_jax.data.video import Limits, VideoFile

MAX_BYTES = 50 * 2**20  # the server counts them while they arrive
MAX_SECONDS = 60
MAX_WIDTH, MAX_HEIGHT = 2560, 1440  # or the same number of pixels in another shape
LIMITS = Limits(
    containers=("mp4", "mov", "webm", "matroska", "avi"), frames=60 * MAX_SECONDS, pixels=MAX_WIDTH * MAX_HEIGHT
)
TAKEN = (
    f"MP4, MOV, WebM, MKV and AVI files of at most {MAX_BYTES >> 20} MB, {MAX_SECONDS} seconds, {LIMITS.frames:,} "
    f"frames and {MAX_WIDTH} x {MAX_HEIGHT} pixels"
)


def check_upload(file: Path) -> list[str]:
    """Opens a file as the video that it should be, whatever its name says.

    Returns:
      What is wrong with a video that can be used all the same, such as one that was cut off.

    Raises:
      ValueError: it is no video, or exceeds a limit. The message names what was found and what is taken.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with without_folder(file), VideoFile(file, LIMITS) as video:
            seconds = video.times[-1] + 1 / video.frame_rate
            if seconds > MAX_SECONDS:
                raise VideoReadError(file, f"it lasts {seconds:.0f} seconds, more than {MAX_SECONDS}")
    # Other threads of a server warn, too.
    problems = [str(warning.message) for warning in caught if str(file) in str(warning.message)]
    return [problem.replace(str(file), file.name) for problem in problems]


@contextmanager
def without_folder(file: Path) -> Iterator[None]:
    """Makes errors name an upload as its owner knows it, and not where the server keeps it.

    Raises:
      ValueError: instead of a VideoReadError.
    """
    try:
        yield
    except VideoReadError as error:
        raise ValueError(f"{file.name} cannot be used as a video: {error.reason}. This page takes {TAKEN}.") from error
