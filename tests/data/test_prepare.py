"""What a prepared data set holds, and reading it."""

import io
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from videomae_jax.data import images, records
from videomae_jax.data import prepared as prepared_records
from videomae_jax.data.clips import PretrainingClips
from videomae_jax.data.frames import VideoReadError
from videomae_jax.data.pipeline import train_batches
from videomae_jax.data.prepare import main
from videomae_jax.data.shards import kept_frames
from videomae_jax.data.sources import open_source
from videomae_jax.data.video import read_video, write_video

LENGTHS = {"walk/1.mp4": 1, "walk/32.mp4": 32, "run/33.mp4": 33, "run/70.mp4": 70}


def moving(num_frames, height=40, width=60, seed=0):
    """A coarse picture that moves, for all codecs to follow; frame t is unlike the others."""
    picture = np.random.default_rng(seed).integers(0, 256, (12, 12, 3)).astype(np.uint8)
    picture = cv2.resize(picture, (4 * width, 4 * height), interpolation=cv2.INTER_CUBIC)
    return np.stack([picture[t : t + height, 2 * t : 2 * t + width] for t in range(num_frames)])


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Class folders `run` and `walk` with videos named by their number of frames."""
    folder = tmp_path_factory.mktemp("videos")
    for seed, (name, length) in enumerate(LENGTHS.items()):
        (folder / name).parent.mkdir(exist_ok=True)
        write_video(folder / name, moving(length, seed=seed), fps=25, crf=5)
    return folder


@pytest.fixture(scope="module")
def prepared(videos, tmp_path_factory):
    """Prepares once with each set of words, in which the source is called VIDEOS."""
    made = {}

    def make(*words):
        if words not in made:
            made[words] = tmp_path_factory.mktemp("made") / "small"
            words_ = [str(videos) if word == "VIDEOS" else word for word in words]
            main(["--out", str(made[words]), "--workers", "0", *words_])
        return made[words]

    return make


@pytest.fixture(scope="module")
def jpeg(prepared):
    return prepared("--train", "VIDEOS", "--short-side", "36")


@pytest.fixture(scope="module")
def h264(prepared):
    return prepared("--train", "VIDEOS", "--codec", "h264", "--quality", "12")


def by_id(source):
    return {video_id: index for index, video_id in enumerate(source.ids)}


def read_all(source, video_id):
    video, _ = source.open(by_id(source)[video_id])
    with video:
        return video.read(range(video.num_frames))


def opencv_decode(encoded):
    return cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def jpeg_oracle(frames, height, width, quality, decode=images.decode_jpeg):
    """What OpenCV makes of frames, on its own path: BGR, shrunk by averaging, encoded."""
    pictures = []
    for frame in frames:
        small = cv2.resize(np.ascontiguousarray(frame[..., ::-1]), (width, height), interpolation=cv2.INTER_AREA)
        _, encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])
        pictures.append(decode(encoded.tobytes()))
    return np.stack(pictures)


@pytest.mark.parametrize("name", LENGTHS)
def test_jpeg_frames_are_what_opencv_makes_of_them(jpeg, videos, name):
    got = read_all(open_source(str(jpeg)), name)
    assert got.shape == (LENGTHS[name], 36, 54, 3) and got.dtype == np.uint8
    np.testing.assert_array_equal(got, jpeg_oracle(read_video(videos / name), 36, 54, 90))


def test_quality_is_that_of_jpeg(prepared, videos):
    got = read_all(open_source(str(prepared("--train", "VIDEOS", "--quality", "35"))), "run/33.mp4")
    np.testing.assert_array_equal(got, jpeg_oracle(read_video(videos / "run/33.mp4"), 40, 60, 35))


@pytest.mark.parametrize("name", LENGTHS)
def test_h264_frames_are_close_to_the_video(h264, videos, name):
    got, video = read_all(open_source(str(h264)), name), read_video(videos / name)
    assert got.shape == video.shape
    assert np.abs(got.astype(int) - video).mean() < 3


def test_quality_is_the_rate_factor_of_h264(h264, prepared):
    def size(folder):
        return sum(file.stat().st_size for file in folder.glob("*array_record*"))

    coarse = prepared("--train", "VIDEOS", "--codec", "h264", "--quality", "45")
    read = [record["frames"] for record in tfds.builder_from_directory(coarse).as_data_source("train")]
    fine = [record["frames"] for record in tfds.builder_from_directory(h264).as_data_source("train")]
    assert sum(map(len, read)) < 0.6 * sum(map(len, fine))


def test_h264_records_are_made_for_fast_access(h264):
    for record in tfds.builder_from_directory(h264).as_data_source("train"):
        assert b"cabac=0" in record["frames"] and b"bframes=0" in record["frames"]  # x264 writes its options down
        with av.open(io.BytesIO(record["frames"])) as container:
            keys = [packet.is_keyframe for packet in container.demux(video=0) if packet.size]
        assert len(keys) <= 32 and np.diff([*np.flatnonzero(keys), len(keys)]).max() <= 16


@pytest.mark.parametrize("codec", ["jpeg", "h264"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_frames_are_those_of_the_whole_video(request, codec, data):
    source = open_source(str(request.getfixturevalue(codec)))
    name = data.draw(st.sampled_from(sorted(LENGTHS)))
    index = st.integers(0, LENGTHS[name] - 1)
    wanted = data.draw(st.lists(index, min_size=1, max_size=20))
    whole = read_all(source, name)
    video, _ = source.open(by_id(source)[name])
    np.testing.assert_array_equal(video.read(wanted), whole[wanted])
    increasing = sorted(set(wanted))
    np.testing.assert_array_equal(np.stack(list(video.frames(increasing))), whole[increasing])
    assert len(list(video.frames())) == LENGTHS[name]


def test_only_the_records_with_wanted_frames_are_read_and_only_these_are_decoded(jpeg, monkeypatch):
    source = open_source(str(jpeg))
    video, _ = source.open(by_id(source)["run/70.mp4"])
    read, decoded = [], []
    fetch = records.RecordFiles.__getitem__
    monkeypatch.setattr(records.RecordFiles, "__getitem__", lambda self, n: read.append(n) or fetch(self, n))
    decode = prepared_records.decode_jpeg
    monkeypatch.setattr(prepared_records, "decode_jpeg", lambda jpeg: decoded.append(jpeg) or decode(jpeg))
    video.read([31, 3])
    assert (len(read), len(decoded)) == (1, 2)
    video.read([31, 32, 69])
    assert (len(read), len(decoded)) == (1 + 3, 2 + 3)


def test_index_out_of_range_is_no_broken_video(jpeg):
    video, _ = open_source(str(jpeg)).open(0)
    with pytest.raises(ValueError, match="asked of .*small:train/") as caught:
        video.read([video.num_frames])
    assert not isinstance(caught.value, VideoReadError)


def test_source_has_ids_labels_and_classes(jpeg):
    source = open_source(f"{jpeg}:train")
    assert source.class_names == ("run", "walk")
    assert set(source.ids) == set(LENGTHS)
    assert source.paths == tuple(f"{jpeg}:train/{video_id}" for video_id in source.ids)
    assert [source.class_names[label] for label in source.labels] == [name.split("/")[0] for name in source.ids]
    assert source.num_frames.tolist() == [LENGTHS[name] for name in source.ids]
    for index, name in enumerate(source.ids):
        video, label = source.open(index)
        assert (video.num_frames, source.class_names[label]) == (LENGTHS[name], name.split("/")[0])
    assert open_source(str(jpeg)).paths == source.paths


def test_classes_are_the_known_ones(jpeg):
    source = open_source(str(jpeg), ("walk", "sit", "run"))
    assert source.class_names == ("walk", "sit", "run")
    for again in (source, pickle.loads(pickle.dumps(source))):
        assert [again.class_names[label] for label in again.labels] == [name.split("/")[0] for name in source.ids]
        assert again.open(0)[1] == again.labels[0] and again.labels.dtype == np.int32
    with pytest.raises(ValueError, match=r"'run' is not one of the 2 known classes \(walk, sit\)"):
        open_source(str(jpeg), ("walk", "sit"))
    with pytest.raises(ValueError, match=r"'run' is not one of the 1 known classes \(sit\); nor are 'walk'"):
        open_source(str(jpeg), ("sit",))


def test_anyone_reads_it_with_tfds(jpeg, h264, videos):
    builder = tfds.builder_from_directory(jpeg)
    assert builder.info.features["label"].names == ["run", "walk"]
    assert builder.info.splits["train"].num_examples == 1 + 1 + 2 + 3
    assert "short_side 36" in builder.info.description and "quality 90" in builder.info.description
    assert sorted(builder.info.metadata["splits"]["train"]["ids"]) == sorted(LENGTHS)
    found = {}
    for record in builder.as_data_source("train"):
        name = record["id"].decode()
        assert builder.info.features["label"].names[record["label"]] == name.split("/")[0]
        assert record["first_frame"] == len(found.setdefault(name, []))
        assert len(record["frames"]) <= 32
        found[name] += list(record["frames"])
    assert {name: len(frames) for name, frames in found.items()} == LENGTHS
    for name, frames in found.items():
        np.testing.assert_array_equal(
            np.stack(frames), jpeg_oracle(read_video(videos / name), 36, 54, 90, opencv_decode)
        )
    assert {record["id"].decode() for record in tfds.builder_from_directory(h264).as_data_source("train")} == set(
        LENGTHS
    )


def test_splits_share_the_classes_of_training(prepared, videos, tmp_path):
    lists = {"train": "path,label\nrun/70.mp4,run\nwalk/1.mp4,walk\n", "val": "path,label\nwalk/32.mp4,walk\n"}
    for split, text in lists.items():
        (videos / f"{split}.csv").write_text(text)
    folder = prepared("--train", str(videos / "train.csv"), "--val", str(videos / "val.csv"), "--name", "other")
    assert {file.name for file in folder.glob("*array_record*")} == {
        "other-train.array_record-00000-of-00001",
        "other-val.array_record-00000-of-00001",
    }
    train, val = open_source(f"{folder}:train"), open_source(f"{folder}:val")
    assert train.class_names == val.class_names == ("run", "walk")
    assert val.labels.tolist() == [1] and val.ids == ("32.mp4",)
    with pytest.raises(ValueError, match="splits train, val; say which: .*small:train"):
        open_source(str(folder))
    with pytest.raises(ValueError, match="no split or slice 'test'; it has train, val"):
        open_source(f"{folder}:test")


def test_there_is_one_class_a_video(jpeg):
    with pytest.raises(ValueError, match="small' is no such file: multi_label_.* prepared .* have one class a video"):
        open_source(str(jpeg), None, "multi_label_classification")


def test_integer_classes_are_indices_of_known_names(prepared, videos):
    (videos / "numbers.txt").write_text("run/33.mp4 2\nwalk/1.mp4 0\n")
    folder = str(prepared("--train", str(videos / "numbers.txt")))
    labels = {name: 2 if "33" in name else 0 for name in open_source(folder).ids}
    source = open_source(folder, ("sit", "walk", "run"))
    for again in (source, pickle.loads(pickle.dumps(source))):
        assert dict(zip(again.ids, again.labels.tolist(), strict=True)) == labels
        assert again.class_names == ("sit", "walk", "run")
    with pytest.raises(ValueError, match=r"label '2' is not in \[0, 1\], the numbers of the 2 known classes"):
        open_source(folder, ("sit", "walk"))


def test_slices_are_of_videos(jpeg):
    whole, half = open_source(f"{jpeg}:train"), open_source(f"{jpeg}:train[50%:]")
    assert half.ids == whole.ids[2:] and half.labels.tolist() == whole.labels[2:].tolist()
    for name in half.ids:
        np.testing.assert_array_equal(read_all(half, name), read_all(whole, name))
    again = pickle.loads(pickle.dumps(half))
    assert again.ids == half.ids and again.paths == half.paths


def test_videos_without_labels(prepared, videos):
    folder = prepared("--val", str(videos / "walk"))
    source = open_source(str(folder))
    assert source.class_names == () and source.labels.tolist() == [-1, -1]
    assert source.open(0)[1] == -1
    assert "label" not in source._records[0]
    assert "label" not in tfds.builder_from_directory(folder).info.features


def test_strides_of_a_mixture_stay(prepared, videos, tmp_path):
    (tmp_path / "mixture.csv").write_text(f"source,stride\n{videos}/walk,7\n{videos}/run,\n")
    source = open_source(str(prepared("--train", str(tmp_path / "mixture.csv"))))
    strides = {name: source.stride(index) for name, index in by_id(source).items()}
    assert strides == {name: 7 if name.startswith("walk") else None for name in LENGTHS}


@pytest.mark.parametrize("codec", ["jpeg", "h264"])
@pytest.mark.parametrize(
    ("sides", "short_side", "stored"),
    [((40, 60), 256, (40, 60)), ((60, 40), 20, (30, 20)), ((120, 161), 40, (40, 54)), ((50, 50), 50, (50, 50))],
)
def test_the_short_side_is_never_enlarged(tmp_path, codec, sides, short_side, stored):
    (tmp_path / "in").mkdir()
    write_folder(tmp_path / "in/video", moving(3, *sides))
    words = ["--short-side", str(short_side), "--codec", codec, "--workers", "0"]
    main(["--out", str(tmp_path / "out"), "--train", str(tmp_path / "in"), *words])
    assert read_all(open_source(str(tmp_path / "out")), "video").shape == (3, *stored, 3)


def write_folder(folder, frames):
    folder.mkdir()
    for number, frame in enumerate(frames):
        cv2.imwrite(str(folder / f"img_{number:05d}.png"), frame[..., ::-1])


def test_h264_of_odd_sides_loses_a_row_not_sharpness(tmp_path):
    stripes = np.where(np.arange(41) % 2, 180, 60).astype(np.uint8)
    frames = np.broadcast_to(stripes[:, None, None], (2, 41, 61, 3))
    (tmp_path / "in").mkdir()
    write_folder(tmp_path / "in/odd", frames)
    words = ["--codec", "h264", "--quality", "1", "--workers", "0"]
    main(["--out", str(tmp_path / "out"), "--train", str(tmp_path / "in"), *words])
    got = read_all(open_source(str(tmp_path / "out")), "odd")
    assert np.abs(got.astype(int) - frames[:, :40, :60]).mean() < 2.5


def write_uneven(path, times_ms):
    """A Matroska file whose frame t is 10 + 5 t bright and shown at a given time."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for t, shown in enumerate(times_ms):
            frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), 10 + 5 * t, np.uint8), format="rgb24")
            frame.pts, frame.time_base = shown, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def nearest_earlier(times, fps, max_seconds):
    """The same in words: at each moment k / fps the last frame that was shown by then."""
    kept, k = [], 0
    while k / fps <= times[-1] - times[0] and k / fps < max_seconds:
        kept.append(max(t for t in range(len(times)) if times[t] - times[0] <= k / fps + 1e-9))
        k += 1
    return kept


def test_frame_rate_is_by_the_times_of_the_frames(tmp_path):
    times = [0, 30, 70, 150, 160, 170, 400, 440, 500, 520, 600, 640, 700, 990, 1000]
    (tmp_path / "in").mkdir()
    write_uneven(tmp_path / "in/uneven.mkv", times)
    words = ["--fps", "8", "--max-seconds", "0.8", "--workers", "0"]
    main(["--out", str(tmp_path / "out"), "--train", str(tmp_path / "in"), *words])
    got = read_all(open_source(str(tmp_path / "out")), "uneven.mkv")
    kept = np.round((got.mean((1, 2, 3)) - 10) / 5).astype(int).tolist()
    assert kept == nearest_earlier(np.array(times) / 1000, 8, 0.8)


@settings(max_examples=200, deadline=None)
@given(
    gaps=st.lists(st.integers(1, 300), max_size=30),
    fps=st.sampled_from([1, 2, 4, 5, 8, 10, 12.5, 20, 25]),
    max_seconds=st.sampled_from([0.5, 1, 2.5, 100]),
    start=st.sampled_from([0, 1400]),
)
def test_kept_frames_follow_the_clock(gaps, fps, max_seconds, start):
    times = (start + np.cumsum([0, *gaps])) / 1000
    assert kept_frames(times, 1000, fps, max_seconds).tolist() == nearest_earlier(times, fps, max_seconds)


def test_the_frame_rate_is_never_raised(prepared, videos):
    for fps in ("25", "30"):
        source = open_source(str(prepared("--train", "VIDEOS", "--fps", fps)))
        assert {name: int(source.num_frames[index]) for name, index in by_id(source).items()} == LENGTHS
    np.testing.assert_array_equal(kept_frames(np.arange(50) / 25, 25, 12.5, None), np.arange(0, 50, 2))


def test_longer_videos_end(prepared):
    source = open_source(str(prepared("--train", "VIDEOS", "--max-seconds", "1.32")))
    assert {name: int(source.num_frames[index]) for name, index in by_id(source).items()} == {
        name: min(length, 33) for name, length in LENGTHS.items()
    }


@pytest.mark.parametrize("word", ["--fps", "--max-seconds"])
def test_pictures_have_no_times(tmp_path, capsys, word):
    (tmp_path / "in").mkdir()
    write_folder(tmp_path / "in/video", moving(3))
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path / "out"), "--train", str(tmp_path / "in"), word, "5"])
    assert "video has no times, which --fps and --max-seconds need" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_spans_of_folders_are_videos_of_their_own(tmp_path):
    frames = moving(9)
    write_folder(tmp_path / "shot", frames)
    (tmp_path / "list.txt").write_text(f"{tmp_path}/shot 0 4\n{tmp_path}/shot 3 5\n{tmp_path}/shot 3 5\n")
    main(["--out", str(tmp_path / "out"), "--train", str(tmp_path / "list.txt"), "--workers", "0"])
    source = open_source(str(tmp_path / "out"))
    assert sorted(source.ids) == ["shot[0+4]", "shot[3+5]", "shot[3+5]#2"]
    for name, span in (("shot[0+4]", slice(0, 4)), ("shot[3+5]#2", slice(3, 8))):
        np.testing.assert_array_equal(read_all(source, name), jpeg_oracle(frames[span], 40, 60, 90))


def batches(source, workers):
    clips = PretrainingClips(num_frames=8, stride=2, views=1, image_size=(24, 24))
    with closing(
        train_batches(source, clips, seed=3, start_step=0, stop_step=3, batch_size=4, workers=workers)
    ) as iterator:
        return [{key: np.array(value) for key, value in batch.items()} for batch in iterator]


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.full)])
def test_workers_change_no_byte(jpeg, workers):
    source = open_source(str(jpeg))
    expected = batches(source, 0)
    assert [batch["broken"].tolist() for batch in expected] == [[""] * 4] * 3
    for batch, other in zip(batches(source, workers), expected, strict=True):
        for key in batch:
            np.testing.assert_array_equal(batch[key], other[key], err_msg=key)
    assert multiprocessing.active_children() == []


def test_a_source_travels_as_its_place(jpeg):
    source = open_source(str(jpeg), ("walk", "run"))
    read_all(source, "run/33.mp4")
    pickled = pickle.dumps(source)
    assert len(pickled) < 500
    again = pickle.loads(pickled)
    assert again.paths == source.paths and again.class_names == ("walk", "run")
    assert again.labels.tolist() == source.labels.tolist()


def test_few_files_stay_open(prepared, monkeypatch):
    source = open_source(str(prepared("--train", "VIDEOS", "--videos-per-shard", "1")))
    monkeypatch.setattr(records, "MAX_OPEN_FILES", 2)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        for name in LENGTHS:
            read_all(source, name)
            assert len(os.listdir("/proc/self/fd")) <= before + 2


def test_threads_share_the_files(prepared, monkeypatch):
    source = open_source(str(prepared("--train", "VIDEOS", "--videos-per-shard", "1")))
    monkeypatch.setattr(records, "MAX_OPEN_FILES", 1)
    whole = {name: read_all(source, name) for name in LENGTHS}
    with ThreadPoolExecutor(8) as pool:
        names = [*LENGTHS] * 20
        for name, got in zip(names, pool.map(lambda name: read_all(source, name), names), strict=True):
            np.testing.assert_array_equal(got, whole[name])


def copy_of(folder, target):
    subprocess.run(["cp", "-r", folder, target], check=True)
    return target


def test_missing_files_are_named(jpeg, tmp_path):
    folder = copy_of(jpeg, tmp_path / "copy")
    (folder / "small-train.array_record-00000-of-00001").unlink()
    with pytest.raises(ValueError, match="1 of 1 files of its split train are missing, .*00000-of-00001"):
        open_source(str(folder))


def test_metadata_of_another_set_is_an_error(jpeg, prepared, tmp_path):
    folder = copy_of(jpeg, tmp_path / "copy")
    metadata = json.loads((folder / "metadata.json").read_text())
    metadata["splits"]["train"]["num_frames"][0] += 64
    (folder / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match="they do not belong together"):
        open_source(str(folder))


def test_another_files_records_are_broken_videos(jpeg, prepared, tmp_path):
    folder = copy_of(jpeg, tmp_path / "copy")
    metadata = json.loads((folder / "metadata.json").read_text())
    metadata["splits"]["train"]["ids"].reverse()
    (folder / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(VideoReadError, match="is another one; the data set's files do not belong together"):
        read_all(open_source(str(folder)), "run/33.mp4")


def test_other_frames_of_the_same_video_are_an_error(jpeg, tmp_path):
    folder = copy_of(jpeg, tmp_path / "copy")
    metadata = json.loads((folder / "metadata.json").read_text())
    index = metadata["splits"]["train"]
    place = max(place for place, length in enumerate(index["num_frames"]) if length > 32)
    index["num_frames"][place - 1] += 32
    index["num_frames"][place] -= 32
    (folder / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(VideoReadError, match="its record of frame 0 is another one"):
        read_all(open_source(str(folder)), index["ids"][place])


def test_cut_off_files_are_broken_videos(jpeg, tmp_path):
    folder = copy_of(jpeg, tmp_path / "copy")
    (file,) = folder.glob("*array_record*")
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(VideoReadError, match="record . of .*small-train.array_record.* cannot be read"):
        read_all(open_source(str(folder)), "run/33.mp4")


def test_unfinished_folders_say_so(videos, tmp_path):
    (tmp_path / "out/prepare").mkdir(parents=True)
    (tmp_path / "out/prepare/options.json").write_text("{}")
    for path in (tmp_path / "out", f"{tmp_path / 'out'}:train"):
        with pytest.raises(ValueError, match="is not finished; give the same"):
            open_source(str(path))


def test_tensorflow_is_never_imported(videos, tmp_path):
    code = f"""
import sys
from videomae_jax.data.prepare import main
from videomae_jax.data.sources import open_source
if __name__ == "__main__":
    main(["--out", {str(tmp_path / "out")!r}, "--train", {str(videos / "walk")!r}, "--workers", "0"])
    open_source({str(tmp_path / "out")!r}).open(0)[0].read([0])
    print("tensorflow" in sys.modules)
"""
    (tmp_path / "prepare_some.py").write_text(code)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, tmp_path / "prepare_some.py"], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.splitlines()[-1] == "False"
