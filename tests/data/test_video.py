import pickle

import av
import numpy as np
import pytest

from videomae_jax.data.video import VideoFile, VideoReadError, read_video, write_video

LEVEL_STEP = 5


def counter_frames(num_frames: int, height: int = 32, width: int = 48) -> np.ndarray:
    """Gray frames [T H W 3] that carry their own number as brightness, 5 levels apart."""
    levels = (10 + LEVEL_STEP * np.arange(num_frames)).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (num_frames, height, width, 3)).copy()


def frame_numbers(frames: np.ndarray) -> list[int]:
    """The numbers that `counter_frames` wrote into the frames."""
    return np.round((frames.mean((-3, -2, -1)) - 10) / LEVEL_STEP).astype(int).tolist()


def test_written_video_reads_back(tmp_path):
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (6, 4, 6, 3)).astype(np.uint8)
    frames = coarse.repeat(16, axis=1).repeat(16, axis=2)
    write_video(tmp_path / "a.mp4", frames, fps=30, crf=1)
    got = read_video(tmp_path / "a.mp4")
    assert got.shape == frames.shape and got.dtype == np.uint8
    # Colour is stored at half the resolution, so compare away from the edges of the squares.
    centers = np.s_[:, 8::16, 8::16]
    assert np.abs(got[centers].astype(int) - frames[centers]).max() <= 8


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("b_frames.mp4", "libx264", {"bf": "3", "g": "50"}),
        ("short_gops.mp4", "libx264", {"bf": "2", "g": "7", "sc_threshold": "0"}),
        ("open_gops.mkv", "libx264", {"bf": "3", "g": "9", "x264-params": "open-gop=1:scenecut=0"}),
        ("transport.ts", "libx264", {"g": "10"}),
        ("avi_has_no_presentation_times.avi", "libx264", {"bf": "2"}),
        ("no_times_at_all.h264", "libx264", {"bf": "2"}),
        ("mpeg4.avi", "mpeg4", {"bf": "2", "qmin": "2", "qmax": "2"}),
        ("mpeg2.mpg", "mpeg2video", {"bf": "2", "qmin": "2", "qmax": "2"}),
    ],
)
def test_frames_come_in_presentation_order(tmp_path, encode, name, codec, options):
    encode(tmp_path / name, counter_frames(40), codec, **options)
    with VideoFile(tmp_path / name) as video:
        assert video.num_frames == 40
        assert frame_numbers(video.read(range(40))) == list(range(40))
        for wanted in ([39], [0], [17, 3, 3, 38], [8, 9, 10], [20, 5]):
            assert frame_numbers(video.read(wanted)) == wanted


def test_a_seek_gives_the_same_pixels_as_decoding_everything(tmp_path, encode):
    frames = np.random.default_rng(1).integers(0, 256, (30, 32, 48, 3)).astype(np.uint8)
    encode(tmp_path / "a.mp4", frames, g="8", bf="2")
    everything = read_video(tmp_path / "a.mp4")
    for index in range(30):
        np.testing.assert_array_equal(read_video(tmp_path / "a.mp4", [index])[0], everything[index])


def test_decodes_only_from_key_frame_to_last_wanted(tmp_path, encode, monkeypatch):
    encode(tmp_path / "a.mp4", counter_frames(40), g="10", bf="0", sc_threshold="0", tune="zerolatency")
    decoded = []
    with VideoFile(tmp_path / "a.mp4") as video:
        decode = video._decode
        monkeypatch.setattr(video, "_decode", lambda: (decoded.append(frame) or frame for frame in decode()))
        video.read([23, 25])
    assert len(decoded) == 6  # frames 20 to 25


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotated_video_is_upright(tmp_path, encode, rotation):
    frames = np.zeros((3, 32, 48, 3), np.uint8)
    frames[:, :16, :24] = 255  # marks the top left corner
    encode(tmp_path / "a.mp4", frames, rotation=rotation)
    got = read_video(tmp_path / "a.mp4", [1])[0]
    np.testing.assert_allclose(got, np.rot90(frames[1], rotation // 90), atol=12)


def test_truncated_file_gives_the_frames_it_has(tmp_path, encode):
    frames = np.random.default_rng(0).integers(0, 256, (30, 32, 48, 3)).astype(np.uint8)
    encode(tmp_path / "whole.mkv", frames, bf="0")
    whole = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "half.mkv").write_bytes(whole[: len(whole) // 2])
    with VideoFile(tmp_path / "half.mkv") as video:
        assert 5 < video.num_frames < 25
        got = video.read(range(video.num_frames))
    np.testing.assert_array_equal(got, read_video(tmp_path / "whole.mkv")[: len(got)])


def write_text(path):
    path.write_text("this is no video\n" * 100)


def write_headless_mp4(path):
    write_video(path, counter_frames(20), fps=25)
    path.write_bytes(path.read_bytes()[:-200])  # the index is at the end


def write_garbled(path):
    write_video(path, np.random.default_rng(0).integers(0, 256, (8, 32, 48, 3)).astype(np.uint8), fps=25)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    data[start : start + 4000] = b"\xff" * 4000
    path.write_bytes(data)


@pytest.mark.parametrize(
    "make",
    [lambda path: None, lambda path: path.touch(), lambda path: path.mkdir(), write_text, write_headless_mp4],
)
def test_unreadable_file_is_named(tmp_path, make):
    path = tmp_path / "bad.mp4"
    make(path)
    with pytest.raises(VideoReadError) as caught:
        VideoFile(path)
    assert caught.value.path == str(path) and caught.value.reason
    assert str(path) in str(caught.value)


def test_a_codec_without_a_decoder_is_an_error_of_the_file(tmp_path):
    path = tmp_path / "odd.mp4"
    write_video(path, counter_frames(4), fps=25)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"xyz1"))
    with pytest.raises(VideoReadError, match="odd.mp4: FFmpeg has no decoder for its codec"):
        read_video(path)


def test_garbled_pictures_are_an_error(tmp_path):
    write_garbled(tmp_path / "bad.mp4")
    with pytest.raises(VideoReadError, match="bad.mp4"):
        read_video(tmp_path / "bad.mp4")


def test_file_without_pictures_is_an_error(tmp_path):
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(VideoReadError, match="no video stream"):
        VideoFile(tmp_path / "sound.wav")


@pytest.mark.parametrize("indices", [[5], [-1], [0, 9], []])
def test_index_out_of_range_is_no_broken_video(tmp_path, indices):
    write_video(tmp_path / "a.mp4", counter_frames(5), fps=25)
    with pytest.raises(ValueError) as caught:
        read_video(tmp_path / "a.mp4", indices)
    assert not isinstance(caught.value, VideoReadError)


def test_error_crosses_processes():
    error = pickle.loads(pickle.dumps(VideoReadError("a b.mp4", "it is empty")))
    assert (error.path, error.reason) == ("a b.mp4", "it is empty")
    assert "a b.mp4: it is empty" in str(error)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((2, 31, 48, 3), np.uint8), "31x48"),
        (np.zeros((2, 32, 48, 3), np.float32), "float32"),
        (np.zeros((2, 3, 32, 48), np.uint8), r"\[2, 3, 32, 48\]"),
        (np.zeros((0, 32, 48, 3), np.uint8), r"\[0, 32, 48, 3\]"),
    ],
)
def test_write_refuses_what_h264_cannot_store(tmp_path, frames, message):
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / "a.mp4", frames, fps=25)
