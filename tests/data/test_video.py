import ctypes
import gc
import pickle

import av
import numpy as np
import psutil
import pytest

from videomae_jax.data.video import Limits, VideoFile, VideoReadError, read_video, write_video

LEVEL_STEP = 5


def counter_frames(num_frames: int, height: int = 32, width: int = 48) -> np.ndarray:
    """Gray frames [T H W 3] that carry their own number as brightness, 5 levels apart."""
    levels = (10 + LEVEL_STEP * np.arange(num_frames)).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (num_frames, height, width, 3)).copy()


def frame_numbers(frames: np.ndarray) -> list[int]:
    """The numbers that `counter_frames` wrote into the frames."""
    return np.round((frames.mean((-3, -2, -1)) - 10) / LEVEL_STEP).astype(int).tolist()


@pytest.mark.parametrize("size", [48, 64, 128])
def test_the_same_frames_make_the_same_file(size, tmp_path):
    """Whatever lies in memory: of small frames x264 made four and five files."""
    rng = np.random.default_rng(0)
    row, column = np.mgrid[:size, :size]
    angle = 2 * np.pi * np.linspace(-0.2, 0.8, 40)[:, None, None]
    x, y = size * (0.5 + 0.25 * np.cos(angle)), size * (0.5 + 0.25 * np.sin(angle))
    disc = np.clip(0.13 * size - np.hypot(column - x, row - y), 0, 1)[..., None]
    scene = (30, 40, 50) + np.array([10, 20, 30]) * (row / size)[..., None]
    frames = ((1 - disc) * scene + disc * (220, 200, 180)).astype(np.uint8)
    files = set()
    for _ in range(25):
        litter = [rng.integers(0, 255, rng.integers(1, 200_000), np.uint8) for _ in range(3)]
        write_video(tmp_path / "x.mp4", frames, fps=25)
        files.add((tmp_path / "x.mp4").read_bytes())
    assert len(files) == 1 and litter


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


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """Timestamps of the frames that the decoder gives out."""
    timestamps, decode = [], VideoFile._decode

    def listening(self, packets):
        for frame in decode(self, packets):
            timestamps.append(frame.pts)
            yield frame

    monkeypatch.setattr(VideoFile, "_decode", listening)
    return timestamps


@pytest.mark.parametrize(
    ("options", "wanted", "needed"),
    [
        # Every frame refers to the one before. The decoder holds some back, and gives them out without those after 25.
        ({"bf": "0"}, [23, 25], [20, 21, 22, 23, 24, 25]),
        # I20 P22 P24 P26 P28 P29 and between them B-frames, which nobody refers to.
        ({"bf": "1", "b_strategy": "0"}, [23, 24], [20, 22, 23, 24]),
        ({"bf": "1", "b_strategy": "0"}, [25], [20, 22, 24, 25]),
        ({"bf": "1", "b_strategy": "0"}, [3, 17], [0, 2, 3, 4, 6, 8, 9, 10, 12, 14, 16, 17]),
    ],
)
def test_decodes_only_what_wanted_frames_need(tmp_path, encode, decoded, options, wanted, needed):
    encode(tmp_path / "a.mp4", counter_frames(40), g="10", sc_threshold="0", **options)
    with VideoFile(tmp_path / "a.mp4") as video:
        assert frame_numbers(video.read(wanted)) == wanted
        numbers = np.searchsorted(video._timestamps, decoded).tolist()
    assert numbers == needed


def test_reads_no_packet_after_the_last_wanted(tmp_path, encode, monkeypatch):
    """The decoder holds frames back to put them in order; it gives them out when told that no more come."""
    encode(tmp_path / "a.mp4", counter_frames(20), bf="2", b_strategy="0")
    sent, packets = [], VideoFile._packets

    def listening(self):
        for packet in packets(self):
            sent.append(packet.pts)
            yield packet

    monkeypatch.setattr(VideoFile, "_packets", listening)
    with VideoFile(tmp_path / "a.mp4") as video:
        assert frame_numbers(video.read([0])) == [0]
    assert len(sent) == 1


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.flv"])
def test_a_seek_goes_to_the_key_frame(tmp_path, encode, decoded, name):
    encode(tmp_path / name, counter_frames(40), g="10", bf="2", b_strategy="0", sc_threshold="0")
    with VideoFile(tmp_path / name) as video:
        assert frame_numbers(video.read([20])) == [20]
        assert np.searchsorted(video._timestamps, decoded).tolist() == [20]


def test_interlaced_frames_are_decoded_one_and_all(tmp_path, encode, decoded):
    """Their fields may come in packets of their own, of which an index by frames knows only the first."""
    interlaced = {"bf": "1", "b_strategy": "0", "x264-params": "tff=1"}
    encode(tmp_path / "a.mp4", counter_frames(20), **interlaced)
    with VideoFile(tmp_path / "a.mp4") as video:
        assert frame_numbers(video.read([12])) == [12]
        numbers = np.searchsorted(video._timestamps, decoded).tolist()
    assert numbers[-13:] == list(range(13))


SAME_PIXELS = {
    "pyramid.mp4": ("libx264", {"bf": "3", "x264-params": "b-pyramid=normal:b-adapt=0:scenecut=0"}),
    "strict_pyramid.mkv": ("libx264", {"bf": "3", "x264-params": "b-pyramid=strict:b-adapt=0:ref=4"}),
    "flat.ts": ("libx264", {"bf": "2", "x264-params": "b-pyramid=none:b-adapt=0"}),
    "interlaced.mp4": ("libx264", {"bf": "2", "x264-params": "tff=1"}),
    "open_gops.mp4": ("libx264", {"bf": "3", "x264-params": "open-gop=1:scenecut=0"}),
    "asp.mp4": ("mpeg4", {"bf": "2"}),
    "asp.mkv": ("mpeg4", {"bf": "3", "flags": "+qpel"}),
    "mpeg2.ts": ("mpeg2video", {"bf": "2"}),
    "mpeg2_interlaced.mpg": ("mpeg2video", {"bf": "2", "flags": "+ildct+ilme"}),
    "mpeg1.mpg": ("mpeg1video", {"bf": "2"}),
    "temporal_layers.mp4": ("libx265", {"x265-params": "temporal-layers=3:log-level=error"}),
    "b_frames.mkv": ("libx265", {"x265-params": "bframes=4:b-pyramid=1:log-level=error"}),
    "vp8.webm": ("libvpx", {"auto-alt-ref": "1", "lag-in-frames": "8"}),
    "vp9.webm": ("libvpx-vp9", {"auto-alt-ref": "1", "lag-in-frames": "8"}),
    "av1.mp4": ("libsvtav1", {"preset": "10"}),
}


@pytest.mark.parametrize("name", SAME_PIXELS)
def test_frames_left_out_change_no_pixel(tmp_path, encode, name):
    codec, options = SAME_PIXELS[name]
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (13, 17, 3)).astype(np.uint8).repeat(4, axis=0).repeat(4, axis=1)[:48, :64]
    frames = np.stack([np.roll(picture, (t, 3 * t), (0, 1)) for t in range(40)])
    frames += rng.integers(0, 30, frames.shape, dtype=np.uint8)
    encode(tmp_path / name, frames, codec, **{"g": "17", **options})
    with VideoFile(tmp_path / name) as video:
        everything = np.stack(list(video.frames()))
        assert len(everything) == 40
        for _ in range(25):
            wanted = rng.integers(0, 40, rng.integers(1, 6))
            np.testing.assert_array_equal(video.read(wanted), everything[wanted])


@pytest.mark.parametrize("b_frames", ["0", "3"])
def test_no_frame_is_read_from_where_an_intra_refresh_begins(tmp_path, encode, b_frames):
    """x264 marks such frames as key frames, but the pixels from there on would be wrong."""
    y, x = np.mgrid[:64, :96]
    frames = np.stack([np.stack([3 * x + 5 * t, 2 * y + 3 * t, x + y + 7 * t], -1) for t in range(60)]) % 256
    encode(tmp_path / "a.mp4", frames.astype(np.uint8), **{"intra-refresh": "1", "g": "12", "bf": b_frames})
    with VideoFile(tmp_path / "a.mp4") as video:
        assert len(video._keys) == 5
        everything = video.read(range(60))
        for index in range(60):
            np.testing.assert_array_equal(video.read([index])[0], everything[index])


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotated_video_is_upright(tmp_path, encode, rotation):
    frames = np.zeros((3, 32, 48, 3), np.uint8)
    frames[:, :16, :24] = 255  # marks the top left corner
    encode(tmp_path / "a.mp4", frames, rotation=rotation)
    got = read_video(tmp_path / "a.mp4", [1])[0]
    np.testing.assert_allclose(got, np.rot90(frames[1], rotation // 90), atol=12)


@pytest.mark.parametrize("rotation", [0, 90, 180])
def test_height_and_width_are_those_of_upright_frames(tmp_path, encode, rotation):
    encode(tmp_path / "a.mp4", counter_frames(3), rotation=rotation)
    with VideoFile(tmp_path / "a.mp4") as video:
        assert (video.height, video.width) == ((48, 32) if rotation == 90 else (32, 48))
        assert video.read([0, 2]).shape[1:3] == (video.height, video.width)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi", "a.h264"])
def test_times_and_rate(tmp_path, encode, name):
    encode(tmp_path / name, counter_frames(20), bf="2")
    with VideoFile(tmp_path / name) as video:
        assert video.times.dtype == np.float64
        np.testing.assert_allclose(video.times, np.arange(20) / 25, atol=1e-6)
        assert video.frame_rate == pytest.approx(25)


def test_a_single_frame_has_the_rate_of_the_header(tmp_path):
    write_video(tmp_path / "a.mp4", counter_frames(1), fps=10)
    with VideoFile(tmp_path / "a.mp4") as video:
        assert video.times.tolist() == [0.0]
        assert video.frame_rate == 10


def test_frames_one_by_one(tmp_path, encode):
    encode(tmp_path / "a.mp4", counter_frames(40), g="10", bf="2")
    with VideoFile(tmp_path / "a.mp4") as video:
        everything = list(video.frames())
        assert frame_numbers(np.stack(everything)) == list(range(40))
        assert frame_numbers(np.stack(list(video.frames([3, 17, 38])))) == [3, 17, 38]
        np.testing.assert_array_equal(video.read(range(40)), everything)
        with pytest.raises(ValueError, match="frames 40 to 40"):
            video.frames([40])


@pytest.mark.parametrize("name", ["a.mp4", "a.h264"])
def test_one_reading_at_a_time(tmp_path, encode, name):
    encode(tmp_path / name, counter_frames(10))
    with VideoFile(tmp_path / name) as video:
        frames = video.frames()
        assert frame_numbers(next(frames)) == 0
        assert video.height == 32  # known by now: not another reading
        assert frame_numbers(next(frames)) == 1
        video.read([5])
        with pytest.raises(ValueError, match="another reading of .*a"):
            next(frames)


def test_truncated_file_gives_the_frames_it_has(tmp_path, encode):
    frames = np.random.default_rng(0).integers(0, 256, (30, 32, 48, 3)).astype(np.uint8)
    encode(tmp_path / "whole.mkv", frames, bf="0")
    whole = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "half.mkv").write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match="half.mkv is cut off or damaged"), VideoFile(tmp_path / "half.mkv") as video:
        assert 5 < video.num_frames < 25
        got = video.read(range(video.num_frames))
    np.testing.assert_array_equal(got, read_video(tmp_path / "whole.mkv")[: len(got)])


def test_frames_do_not_wait_for_the_garbage_collector(tmp_path, encode):
    encode(tmp_path / "a.mp4", counter_frames(40))

    def num_frames_alive() -> int:
        return sum(isinstance(thing, av.VideoFrame) for thing in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = num_frames_alive()
        with VideoFile(tmp_path / "a.mp4") as video:
            video.read(range(40))
        assert num_frames_alive() <= before + 2  # the first, and what the closed video still names
    finally:
        gc.enable()


@pytest.mark.full
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="only glibc says what is really used")
@pytest.mark.parametrize("as_bytes", [False, True])
def test_ten_thousand_readings_leave_nothing_behind(tmp_path, encode, as_bytes):
    encode(tmp_path / "a.mp4", counter_frames(12, 64, 64), bf="2", g="6")
    video = (tmp_path / "a.mp4").read_bytes() if as_bytes else tmp_path / "a.mp4"
    process = psutil.Process()

    def read(times: int) -> tuple[int, int]:
        for _ in range(times):
            with VideoFile(video) as opened:
                opened.read([9, 2])
                next(opened.frames())  # and abandoned
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what is free but kept is no leak
        return process.memory_info().rss, process.num_fds()

    memory, files = read(500)
    memory_after, files_after = read(10_000)
    assert memory_after - memory < 2**20  # 100 bytes a reading
    assert files_after == files


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


def test_frames_far_apart_are_decoded_from_their_own_key_frames(tmp_path, encode, monkeypatch):
    frames = counter_frames(50)
    encode(tmp_path / "a.mp4", np.concatenate([frames] * 6), g="10", bf="2")
    sent, packets = [], VideoFile._packets
    monkeypatch.setattr(VideoFile, "_packets", lambda self: (sent.append(packet) or packet for packet in packets(self)))
    with VideoFile(tmp_path / "a.mp4") as video:
        whole = video.read(range(300))
        assert len(sent) == 300  # each once
        for wanted in ([0, 299], range(5, 300, 60), [299, 3, 3, 150]):
            sent.clear()
            np.testing.assert_array_equal(video.read(wanted), whole[list(wanted)])
            assert len(sent) < 15 * len(set(wanted))


def test_limits_hold_whatever_the_header_says(tmp_path):
    small, large = tmp_path / "small.h264", tmp_path / "large.h264"
    write_video(small, counter_frames(3, 32, 48), fps=25)
    write_video(large, counter_frames(3, 320, 480), fps=25)
    grows = tmp_path / "grows.h264"
    grows.write_bytes(small.read_bytes() + large.read_bytes())
    with VideoFile(grows) as video:
        assert video.num_frames == 6
    limits = Limits(containers=("h264",), frames=6, pixels=48 * 32)
    with VideoFile(small, limits) as video:
        assert frame_numbers(video.read([0, 2])) == [0, 2]
    with pytest.raises(VideoReadError, match="480 x 320 pixels, more than 1,536 in all"):
        VideoFile(large, limits)
    with pytest.raises(VideoReadError, match="cannot read .*grows"):
        VideoFile(grows, limits)
    with pytest.raises(VideoReadError, match="has 6 frames, more than 5"):
        VideoFile(grows, limits._replace(frames=5, pixels=10**6))
    with pytest.raises(VideoReadError, match="cannot read .*small"):
        VideoFile(small, limits._replace(containers=("mp4",)))
