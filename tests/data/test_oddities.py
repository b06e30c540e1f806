"""Odd files are read as the `ffmpeg` command reads them: those of the shared data, and others written here."""

import subprocess
import warnings
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from videomae_jax.data.video import VideoFile, VideoReadError, read_video, write_video

ODDITIES = Path(__file__).parents[3] / "shared" / "data" / "oddities"
FILES = sorted(path for path in ODDITIES.rglob("*") if path.is_file() and path.suffix != ".md")
BROKEN = "corrupted.mp4"
# Decoding and converting these pixels takes seconds.
SLOW = {"flipping_a_pancake.mkv", "av1_video.mkv", "testsrc2.mp4", "testsrc2_h265.mp4", "testsrc2_vp8.webm"}
SLOW |= {"testsrc2_vp9.webm", "testsrc2_mpeg4.avi", "bt709_full_range.mp4", "nasa_13013.mp4", "nasa_13013_hdr.mp4"}

with_oddities = pytest.mark.skipif(not FILES, reason=f"the odd files are not at hand in {ODDITIES}")


def odd_files() -> list:
    return [
        pytest.param(path, id=path.name, marks=[pytest.mark.full] * (path.name in SLOW))
        for path in FILES
        if path.name != BROKEN
    ]


def ffmpeg(*arguments: str | Path) -> bytes:
    executable = pytest.importorskip("imageio_ffmpeg", reason="no ffmpeg command to compare with").get_ffmpeg_exe()
    return subprocess.run([executable, "-v", "error", *map(str, arguments)], check=True, capture_output=True).stdout


def ffmpeg_frames(path: Path, height: int, width: int) -> np.ndarray:
    """All frames [T H W 3] as the command decodes them, turned upright, none dropped or doubled."""
    raw = ffmpeg("-i", path, "-map", "0:v:0", "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


def assert_read_as_ffmpeg_does(path: Path) -> np.ndarray:
    frames = read_video(path)
    np.testing.assert_array_equal(frames, ffmpeg_frames(path, *frames.shape[1:3]))
    return frames


def assert_lasts_as_the_container_says(video: VideoFile, path: Path) -> None:
    with av.open(str(path), metadata_errors="ignore") as container:
        (stream, *_) = container.streams.video
        seconds = stream.duration * stream.time_base if stream.duration else (container.duration or 0) / 1e6
        rate = stream.average_rate or 25
    assert (np.diff(video.times) > 0).all() and video.times[0] == 0
    assert video.frame_rate == pytest.approx(float(rate), rel=1e-3)
    if path.suffix != ".mpg" and seconds:  # MPEG-PS and Matroska last as long as their sound
        assert len(video.times) / video.frame_rate == pytest.approx(float(seconds), rel=5e-3)


def moving_frames(num_frames: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A coloured noise picture [T H W 3] that moves; each frame is another."""
    picture = np.random.default_rng(0).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3)).astype(np.uint8)
    picture = picture.repeat(4, axis=0).repeat(4, axis=1)[:height, :width]
    return np.stack([np.roll(picture, 3 * index, axis=1) for index in range(num_frames)])


def write_at(path: Path, frames: np.ndarray, timestamps: list[int], pix_fmt: str = "yuv420p", **options: str) -> None:
    """H.264 whose frames are shown at these milliseconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = Fraction(1, 1000)
        for image, timestamp in zip(frames, timestamps, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = timestamp, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@with_oddities
@pytest.mark.parametrize("path", odd_files())
def test_an_odd_file_is_read_as_ffmpeg_does(path):
    # Bit for bit: conversion goes through the same filters, so there is nothing to tolerate.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frames = assert_read_as_ffmpeg_does(path)
    rng = np.random.default_rng(0)
    with VideoFile(path) as video:
        assert video.num_frames == len(frames)
        assert (video.height, video.width) == frames.shape[1:3]
        assert_lasts_as_the_container_says(video, path)
        last = len(frames) - 1
        subsets = [[last], [0], [last, 0, last], *(rng.integers(0, len(frames), size) for size in (1, 1, 2, 3, 8))]
        for wanted in subsets:
            np.testing.assert_array_equal(video.read(wanted), frames[wanted])
    for index in rng.integers(0, len(frames), 3):
        np.testing.assert_array_equal(read_video(path.read_bytes(), [index]), frames[[index]])


@with_oddities
@pytest.mark.parametrize("as_bytes", [False, True])
def test_the_broken_file_is_an_error(as_bytes):
    (path,) = (path for path in FILES if path.name == BROKEN)
    with pytest.raises(VideoReadError, match=r"of \d+ bytes: \w+" if as_bytes else f"{BROKEN}: \\w+"):
        read_video(path.read_bytes() if as_bytes else path)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_irregular_times_that_start_late(tmp_path, name):
    times = np.cumsum(np.random.default_rng(0).integers(1, 400, 40)) + 5000
    write_at(tmp_path / name, moving_frames(40), times.tolist(), bf="2", g="9")
    frames = assert_read_as_ffmpeg_does(tmp_path / name)
    assert len(frames) == 40
    with VideoFile(tmp_path / name) as video:
        np.testing.assert_allclose(video.times, (times - times[0]) / 1000, atol=1e-9)
        assert video.frame_rate == pytest.approx(39000 / (times[-1] - times[0]))
        for wanted in ([39, 3], [17], [0, 20, 20]):
            np.testing.assert_array_equal(video.read(wanted), frames[wanted])


@pytest.mark.parametrize("pix_fmt", ["gray", "gray10le", "yuvj420p", "yuv422p", "yuv444p", "yuv420p10le"])
def test_pixel_formats(tmp_path, pix_fmt):
    write_at(tmp_path / "a.mp4", moving_frames(5), [0, 40, 80, 120, 160], pix_fmt=pix_fmt)
    frames = assert_read_as_ffmpeg_does(tmp_path / "a.mp4")
    assert frames.shape == (5, 48, 64, 3)
    if pix_fmt.startswith("gray"):
        assert np.ptp(frames, axis=-1).max() == 0


def test_an_animated_gif(tmp_path):
    write_video(tmp_path / "a.mp4", moving_frames(7), fps=25)
    ffmpeg("-i", tmp_path / "a.mp4", tmp_path / "a.gif")
    assert len(assert_read_as_ffmpeg_does(tmp_path / "a.gif")) == 7


def test_interlaced(tmp_path):
    write_at(tmp_path / "a.mp4", moving_frames(4), [0, 40, 80, 120], "yuv420p", **{"x264-params": "tff=1"})
    assert_read_as_ffmpeg_does(tmp_path / "a.mp4")


# (a, b, c, d): the pixel (x, y) is shown at (a x + c y, b x + d y).
@pytest.mark.parametrize(
    "turn",
    [(1, 0, 0, 1), (-1, 0, 0, 1), (1, 0, 0, -1), (-1, 0, 0, -1), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, -1, 0)],
)
def test_turned_and_mirrored(tmp_path, turn):
    path = tmp_path / "a.mp4"
    write_video(path, moving_frames(2), fps=25)
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40  # version, times, id, duration, layer, volume come before the matrix
    a, b, c, d = np.array(turn) * 2**16
    assert np.frombuffer(data, ">i4", 9, start).tolist() == [2**16, 0, 0, 0, 2**16, 0, 0, 0, 2**30]
    data[start : start + 36] = np.array([a, b, 0, c, d, 0, 0, 0, 2**30], ">i4").tobytes()
    path.write_bytes(data)
    frames = read_video(path)
    assert frames.shape[1:3] == ((64, 48) if turn[0] == 0 else (48, 64))
    np.testing.assert_array_equal(frames, ffmpeg_frames(path, *frames.shape[1:3]))


def test_a_cut_off_mp4_gives_its_whole_frames_and_a_warning(tmp_path):
    whole, half = tmp_path / "whole.mp4", tmp_path / "half.mp4"
    write_video(tmp_path / "a.mp4", moving_frames(60), fps=25)
    ffmpeg("-i", tmp_path / "a.mp4", "-c", "copy", "-movflags", "faststart", whole)
    data = whole.read_bytes()
    half.write_bytes(data[: len(data) * 3 // 4])
    frames = read_video(whole)
    with pytest.warns(UserWarning, match=r"half.mp4 is cut off or damaged: \d+ of 60 frames"):
        got = read_video(half)
    assert 10 < len(got) < 60
    # B-frames after the cut leave gaps: each frame that is read is one of the whole video's, in order.
    places = [int(np.abs(frames.astype(int) - frame).sum((1, 2, 3)).argmin()) for frame in got]
    assert places == sorted(set(places))
    np.testing.assert_array_equal(got, frames[places])
    with pytest.warns(UserWarning, match=r"video of \d+ bytes is cut off"):
        np.testing.assert_array_equal(read_video(half.read_bytes(), [9, 2]), frames[[places[9], places[2]]])


@pytest.mark.parametrize("name", ["a.avi", "a.ts", "a.mkv", "a.webm"])
def test_other_containers_cut_off(tmp_path, encode, name):
    codec = "libvpx" if name.endswith("webm") else "mpeg4" if name.endswith("avi") else "libx264"
    encode(tmp_path / name, moving_frames(40), codec, bf="0")
    frames, data = read_video(tmp_path / name), (tmp_path / name).read_bytes()
    for part in (0.9, 0.75, 0.5)[: 2 if name == "a.avi" else 3]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            got = read_video(data[: int(len(data) * part)])
        assert 5 < len(got) < 40
        if name in ("a.mkv", "a.webm") and part == 0.5:
            with pytest.warns(UserWarning, match=r"is cut off or damaged: it ends after 0\.\d of 1\.6 s"):
                read_video(data[: len(data) // 2])
        np.testing.assert_array_equal(got, frames[: len(got)])


def test_a_recording_that_starts_between_key_frames(tmp_path, encode):
    """What refers to frames before the cut does not decode and does not count."""
    encode(tmp_path / "a.ts", moving_frames(60), bf="2", g="20", sc_threshold="0")
    data = (tmp_path / "a.ts").read_bytes()
    (tmp_path / "cut.ts").write_bytes(data[len(data) // 3 // 188 * 188 :])
    with VideoFile(tmp_path / "cut.ts") as video:
        assert 15 < video.num_frames < 60
        frames = video.read(range(video.num_frames))
        for wanted in ([video.num_frames - 1, 0], [7]):
            np.testing.assert_array_equal(video.read(wanted), frames[wanted])


def test_a_video_cut_out_without_encoding_anew(tmp_path, encode):
    """An edit list hides the frames from the key frame to where the video begins."""
    encode(tmp_path / "a.mp4", moving_frames(60), g="20", bf="2", sc_threshold="0")
    ffmpeg("-ss", "0.5", "-i", tmp_path / "a.mp4", "-c", "copy", tmp_path / "b.mp4")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frames = assert_read_as_ffmpeg_does(tmp_path / "b.mp4")
        np.testing.assert_array_equal(read_video(tmp_path / "b.mp4", [20, 4]), frames[[20, 4]])


@pytest.mark.parametrize("codec", ["mpeg4", "libxvid"])  # XviD packs two frames into one packet
@pytest.mark.parametrize("b_frames", ["0", "1", "2", "3"])
def test_b_frames_in_avi(tmp_path, monkeypatch, codec, b_frames):
    write_video(tmp_path / "a.mp4", moving_frames(60), fps=25)
    options = ["-c:v", codec, "-bf", b_frames, "-g", "12", "-q:v", "3"]
    ffmpeg("-i", tmp_path / "a.mp4", *options, tmp_path / "a.avi")
    packed = b"DivX503b1393p" in (tmp_path / "a.avi").read_bytes()
    assert packed == (codec == "libxvid" and b_frames != "0")
    frames = assert_read_as_ffmpeg_does(tmp_path / "a.avi")
    assert len(frames) > 55  # XviD leaves out the last ones
    decode = VideoFile._decode
    monkeypatch.setattr(VideoFile, "_decode", lambda *_: pytest.fail("decoded to count"))
    with VideoFile(tmp_path / "a.avi") as video:
        monkeypatch.setattr(VideoFile, "_decode", decode)
        rng = np.random.default_rng(0)
        np.testing.assert_allclose(video.times, np.arange(len(frames)) / 25)
        for wanted in (*np.arange(len(frames))[:, None], *rng.integers(0, len(frames), (5, 8))):
            np.testing.assert_array_equal(video.read(wanted), frames[wanted])
    np.testing.assert_array_equal(read_video((tmp_path / "a.avi").read_bytes(), [50, 7]), frames[[50, 7]])


def test_b_frames_that_the_header_denies(tmp_path):
    write_video(tmp_path / "a.mp4", moving_frames(30), fps=25)
    ffmpeg("-i", tmp_path / "a.mp4", "-c:v", "mpeg4", "-bf", "2", "-vtag", "DX50", tmp_path / "a.avi")
    data = bytearray((tmp_path / "a.avi").read_bytes())
    frames = assert_read_as_ffmpeg_does(tmp_path / "a.avi")
    # In the layer's header: bits up to its aspect ratio and control parameters, which hold low_delay.
    place = data.index(b"\0\0\x01\x20") + 4
    bits = f"{int.from_bytes(data[place : place + 4], 'big'):032b}"
    low_delay = 1 + 8 + 1 + 7 + 4 + 1 + 2
    assert bits[9] == "1" and bits[17:21] != "1111" and bits[21] == "1" and bits[low_delay] == "0"
    bits = bits[:low_delay] + "1" + bits[low_delay + 1 :]
    data[place : place + 4] = int(bits, 2).to_bytes(4, "big")
    (tmp_path / "a.avi").write_bytes(data)
    with VideoFile(tmp_path / "a.avi") as video:
        np.testing.assert_array_equal(video.read(range(30)), frames)
        np.testing.assert_array_equal(video.read([7]), frames[[7]])
        np.testing.assert_allclose(video.times, np.arange(30) / 25)


def test_pictures_without_content_in_avi(tmp_path):
    """Place holders where nothing moves: whether they show something, only decoding tells."""
    still = np.repeat(moving_frames(1, 32, 32), 30, axis=0)
    write_video(tmp_path / "a.mp4", still, fps=25)
    ffmpeg("-i", tmp_path / "a.mp4", "-c:v", "libxvid", "-bf", "2", "-g", "12", tmp_path / "a.avi")
    assert_read_as_ffmpeg_does(tmp_path / "a.avi")


@pytest.mark.parametrize(("name", "codec"), [("a.m1v", "mpeg1video"), ("a.m2v", "mpeg2video"), ("a.h264", "libx264")])
def test_bare_streams(tmp_path, name, codec):
    """FFmpeg numbers their frames anew after each seek."""
    write_video(tmp_path / "a.mp4", moving_frames(60), fps=25)
    ffmpeg("-i", tmp_path / "a.mp4", "-c:v", codec, "-bf", "2", "-g", "12", tmp_path / name)
    frames = assert_read_as_ffmpeg_does(tmp_path / name)
    with VideoFile(tmp_path / name) as video:
        np.testing.assert_array_equal(video.read([0, 5]), frames[[0, 5]])
        np.testing.assert_array_equal(video.read([50, 20]), frames[[50, 20]])


@pytest.mark.parametrize("content", [b"", b"this is no video\n" * 100, bytes(5000)])
def test_bytes_that_are_no_video(content):
    with pytest.raises(VideoReadError, match=f"video of {len(content)} bytes"):
        read_video(content)


def test_bytes_read_as_the_file_does(tmp_path, encode):
    for name in ("a.mp4", "a.h264"):  # a bare stream cannot seek, and is opened again
        encode(tmp_path / name, moving_frames(12), bf="2")
        content = (tmp_path / name).read_bytes()
        np.testing.assert_array_equal(read_video(content), read_video(tmp_path / name))
        with VideoFile(content) as video:
            np.testing.assert_array_equal(video.read([11, 4]), read_video(tmp_path / name, [11, 4]))
