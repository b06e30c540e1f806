import warnings

import numpy as np
import pytest

from videomae_jax.app import uploads
from videomae_jax.app.uploads import LIMITS, MAX_HEIGHT, MAX_WIDTH, TAKEN, check_upload, without_folder
from videomae_jax.data.video import VideoFile, write_video


def black(file, num_frames, height=16, width=16, fps=25.0):
    write_video(file, np.zeros((num_frames, height, width, 3), np.uint8), fps)
    return file


def refusal(file):
    with pytest.raises(ValueError) as refused:
        check_upload(file)
    message = str(refused.value)
    assert message.startswith(f"{file.name} cannot be used as a video: ") and message.endswith(f"takes {TAKEN}.")
    assert str(file.parent) not in message
    return message


@pytest.mark.parametrize("suffix", ["mp4", "mov", "webm", "mkv", "avi"])
def test_every_kind_of_file_that_is_named_is_taken(tmp_path, suffix):
    file = tmp_path / f"clip.{suffix}"
    # Files come under the wrong names, too.
    black(tmp_path / ("clip.mkv" if suffix == "webm" else f"clip.{suffix}"), 3).rename(file)
    assert check_upload(file) == []


def test_videos_at_the_limits_are_taken_and_beyond_them_refused(tmp_path):
    assert check_upload(black(tmp_path / "long.mp4", 6, fps=0.1)) == []
    assert "it lasts 70 seconds, more than 60" in refusal(black(tmp_path / "longer.mp4", 7, fps=0.1))
    assert check_upload(black(tmp_path / "many.mp4", LIMITS.frames, fps=60)) == []
    assert "it has 3,601 frames, more than 3,600" in refusal(black(tmp_path / "more.mp4", LIMITS.frames + 1, fps=200))
    # Upright films are as wide as others are high.
    assert check_upload(black(tmp_path / "large.mp4", 1, MAX_WIDTH, MAX_HEIGHT)) == []
    larger = refusal(black(tmp_path / "larger.mp4", 1, MAX_HEIGHT + 2, MAX_WIDTH))
    assert "its frames have 2560 x 1442 pixels, more than 3,686,400 in all" in larger


def test_what_is_no_video_is_refused(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").touch()
    whole = black(tmp_path / "whole.mp4", 50, 64, 64).read_bytes()
    (tmp_path / "broken.mp4").write_bytes(whole[: len(whole) // 2])
    for name in ("text.mp4", "empty.mp4", "broken.mp4", "nowhere.mp4"):
        refusal(tmp_path / name)


def test_lists_of_other_files_are_not_followed(tmp_path):
    secret = black(tmp_path / "secret.mp4", 3)
    (tmp_path / "list.m3u8").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST"
    )
    (tmp_path / "list.mp4").write_text(f"ffconcat version 1.0\nfile {secret.name}\n")
    for name in ("list.m3u8", "list.mp4"):
        with VideoFile(tmp_path / name) as followed:
            assert followed.num_frames == 3
        refusal(tmp_path / name)


def test_a_video_that_was_cut_off_is_taken_and_said(tmp_path, monkeypatch):
    file = tmp_path / "cut.mkv"
    noise = np.random.default_rng(0).integers(0, 256, (50, 64, 64, 3), np.uint8)
    write_video(file, noise, 25)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

    def opened(*arguments):
        warnings.warn("unclosed event loop", ResourceWarning, stacklevel=1)  # as another thread may
        return VideoFile(*arguments)

    monkeypatch.setattr(uploads, "VideoFile", opened)
    (problem,) = check_upload(file)
    assert problem.startswith("cut.mkv is cut off or damaged: ")


def test_other_errors_pass(tmp_path):
    with pytest.raises(ValueError, match="^mine$"), without_folder(tmp_path):
        raise ValueError("mine")
