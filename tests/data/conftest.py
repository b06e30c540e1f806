"""Small video files for the data tests, written by the tests themselves."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from videomae_jax.data.sources import VideoSource
from videomae_jax.data.video import write_video


@pytest.fixture
def encode() -> Callable[..., None]:
    """Writes frames with any codec, x264 options and rotation (degrees) that `write_video` does not offer."""

    def write(path: Path, frames: np.ndarray, codec: str = "libx264", rotation: int = 0, **options: str) -> None:
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=25, options=options)
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = "yuv420p"
            if rotation:
                stream.set_display_rotation(rotation)
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())

    return write


@pytest.fixture(scope="session")
def sound_source(tmp_path_factory: pytest.TempPathFactory) -> VideoSource:
    """Seven readable videos of 24 frames; video v has label v % 3, and red // 30 of its pixels is v."""
    folder = tmp_path_factory.mktemp("sound")
    paths = []
    for v in range(7):
        frames = np.zeros((24, 36, 48, 3), np.uint8)
        frames[..., 0] = 30 * v + 15
        frames[..., 1] = 8 * np.arange(24)[:, None, None]
        paths.append(str(folder / f"{v}.mp4"))
        write_video(paths[-1], frames, fps=25)
    labels = np.arange(7, dtype=np.int32) % 3
    return VideoSource("sound", tuple(paths), labels, ("a", "b", "c"))


@pytest.fixture
def source_with_broken(sound_source: VideoSource, tmp_path: Path) -> VideoSource:
    """The sound videos with number 2 and 5 replaced by text files."""
    paths = list(sound_source.paths)
    for v in (2, 5):
        paths[v] = str(tmp_path / f"broken_{v}.mp4")
        Path(paths[v]).write_text("no video")
    return VideoSource("partly broken", tuple(paths), sound_source.labels, sound_source.class_names)
