"""TFDS data sets that others made, written here as TFDS writes them, but without TensorFlow."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.proto import tf_example_pb2

from videomae_jax.data.check import check_video
from videomae_jax.data.clips import CenterClip
from videomae_jax.data.frames import VideoReadError
from videomae_jax.data.pipeline import heldout_batches
from videomae_jax.data.sources import open_source

LENGTHS = (3, 1, 5, 2, 4)
LABELS = (2, 0, 1, 1, -1)
CLASSES = ("swim", "high jump", "run")
VIDEO = {
    "pythonClassName": "tensorflow_datasets.core.features.video_feature.Video",
    "video": {"dtype": "uint8", "encodingFormat": "png", "shape": {"dimensions": ["-1", "16", "24", "3"]}},
}


def frames_of(v, channels=3):
    return np.random.default_rng(v).integers(0, 256, (LENGTHS[v], 16, 24, channels)).astype(np.uint8)


def png(frame):
    return cv2.imencode(".png", frame[..., ::-1])[1].tobytes()


def label_feature(names=CLASSES):
    return tfds.features.ClassLabel(names=list(names))


def write_set(folder, name, features, examples, shards=((0, 3), (3, 3), (3, 5)), split="train", video=None):
    """A data set as TFDS leaves it.

    Args:
      features: what it says of the features; where `video` is given, that feature's description is replaced.
      examples: functions that fill in the features of each record.
      shards: the ranges of records in each file.
    """
    folder.mkdir(parents=True)
    for number, (start, stop) in enumerate(shards):
        file = folder / f"{name}-{split}.array_record-{number:05d}-of-{len(shards):05d}"
        writer = ArrayRecordWriter(str(file), "group_size:1")
        for fill in examples[start:stop]:
            example = tf_example_pb2.Example()
            fill(example.features.feature)
            writer.write(example.SerializeToString())
        writer.close()
    infos = [tfds.core.SplitInfo(name=split, shard_lengths=[b - a for a, b in shards], num_bytes=0)]
    tfds.folder_dataset.write_metadata(data_dir=folder, features=features, split_infos=infos, check_data=False)
    if video is not None:
        described = json.loads((folder / "features.json").read_text())
        described["featuresDict"]["features"]["video"] = video
        (folder / "features.json").write_text(json.dumps(described))
    return str(folder)


def fill_pictures(v, name="video", label="label", encode=png):
    def fill(feature):
        feature[name].bytes_list.value.extend(map(encode, frames_of(v)))
        if label:
            feature[label].int64_list.value.append(LABELS[v])

    return fill


def write_numbered(folder):
    """Three classes without names."""
    features = {
        "video": tfds.features.Sequence(tfds.features.Image()),
        "action": tfds.features.ClassLabel(num_classes=3),
    }
    return write_set(folder, "numbered", features, [fill_pictures(v, label="action") for v in range(5)])


@pytest.fixture
def pictures(tmp_path):
    """As UCF101 in TFDS: a `Video`, which TFDS itself cannot read without TensorFlow."""
    features = {"video": tfds.features.Sequence(tfds.features.Image()), "label": label_feature()}
    return write_set(tmp_path / "ucf", "ucf", features, [fill_pictures(v) for v in range(5)], video=VIDEO)


def check(source, first=0):
    for index in range(len(source)):
        video, label = source.open(index)
        with video:
            expected = frames_of(first + index)
            assert video.num_frames == len(expected)
            np.testing.assert_array_equal(video.read(range(video.num_frames)), expected)
            assert (source.class_names[label] if label >= 0 else label) == (
                CLASSES[LABELS[first + index]] if LABELS[first + index] >= 0 else -1
            )


def test_videos_are_sequences_of_pictures(pictures):
    source = open_source(f"{pictures}:train")
    assert len(source) == 5 and source.class_names == CLASSES and source.labels is None
    assert source.paths == tuple(f"{pictures}:train/{v}" for v in range(5))
    check(source)
    assert open_source(pictures).paths == source.paths


def test_only_wanted_frames_are_decoded(pictures, monkeypatch):
    video, _ = open_source(pictures).open(2)
    decoded, decode = [], cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda *args: decoded.append(args) or decode(*args))
    np.testing.assert_array_equal(video.read([4, 1, 4]), frames_of(2)[[4, 1, 4]])
    assert len(decoded) == 2
    with pytest.raises(ValueError, match="train/2, which has frames 0 to 4"):
        video.read([5])


def test_slices_of_nothing_are_errors(pictures):
    with pytest.raises(ValueError, match=r"'train\[:0\]' is none of the \d+ that train has"):
        open_source(f"{pictures}:train[:0]")


def test_slices_are_of_records(pictures):
    check(open_source(f"{pictures}:train[2:]"), first=2)
    assert [len(open_source(f"{pictures}:train[{part}]")) for part in ("2:", ":60%", "-1:", "1:3")] == [3, 3, 1, 2]


def test_classes_are_the_known_ones(pictures):
    source = open_source(pictures, ("run", "walk", "swim", "high jump"))
    check(source)
    assert source.open(0)[1] == 0
    with pytest.raises(ValueError, match=r"'high jump' is not one of the 2 known classes"):
        open_source(pictures, ("run", "swim"))


def test_a_source_goes_to_other_processes(pictures):
    source = open_source(pictures)
    source.open(0)
    again = pickle.loads(pickle.dumps(source))
    check(again)
    assert source.digest() == again.digest()


def test_the_checker_counts_its_classes(pictures):
    found = [check_video(open_source(pictures), index).label for index in range(5)]
    assert found == [CLASSES[label] if label >= 0 else "" for label in LABELS]


def test_it_feeds_the_pipeline(pictures):
    clips = CenterClip(num_frames=2, stride=1, image_size=(16, 16))
    (batch,) = heldout_batches(open_source(pictures), clips, num_videos=5, batch_size=5)
    assert batch["label"].tolist() == list(LABELS) and batch["broken"].tolist() == [""] * 5


@pytest.mark.parametrize(
    ("feature", "name"),
    [
        (tfds.features.Tensor(shape=(None, 16, 24, 3), dtype=np.uint8), "clip"),
        (tfds.features.Tensor(shape=(None, 16, 24, 3), dtype=np.uint8, encoding="bytes"), "clip"),
        (tfds.features.Sequence(tfds.features.Image(shape=(16, 24, 3))), "clip"),
    ],
)
def test_tensors_and_sequences_of_images(tmp_path, feature, name):
    features = tfds.features.FeaturesDict(
        {name: feature, "label": label_feature(), "other": tfds.features.ClassLabel(num_classes=3)}
    )

    def fill(v):
        def fill_in(into):
            pixels = frames_of(v)
            if isinstance(feature, tfds.features.Sequence):
                into[name].bytes_list.value.extend(map(png, pixels))
            elif "bytes" in str(feature._encoding).lower():
                into[name].bytes_list.value.append(pixels.tobytes())
            else:
                into[name].int64_list.value.extend(pixels.ravel().tolist())
            into["label"].int64_list.value.append(LABELS[v])
            into["other"].int64_list.value.append(0)

        return fill_in

    check(open_source(write_set(tmp_path / "set", "set", features, [fill(v) for v in range(5)])))


@pytest.mark.parametrize("stored", ["tensor", "pictures"])
def test_gray_becomes_rgb(tmp_path, stored):
    gray = frames_of(2, channels=1)
    tensor = tfds.features.Tensor(shape=(5, 16, 24, 1), dtype=np.uint8)
    pictures_ = tfds.features.Sequence(tfds.features.Image(shape=(16, 24, 1)))

    def fill(feature):
        if stored == "tensor":
            feature["video"].int64_list.value.extend(gray.ravel().tolist())
        else:
            feature["video"].bytes_list.value.extend(cv2.imencode(".png", frame)[1].tobytes() for frame in gray)

    features = {"video": tensor if stored == "tensor" else pictures_}
    source = open_source(write_set(tmp_path / "gray", "gray", features, [fill], shards=((0, 1),), split="test"))
    assert source.labels.tolist() == [-1] and source.class_names == ()
    video, label = source.open(0)
    assert label == -1
    np.testing.assert_array_equal(video.read(range(5)), gray.repeat(3, axis=-1))
    clip = np.zeros((1, 5, 16, 24, 3), np.uint8)
    CenterClip(num_frames=5, stride=1, image_size=(16, 24))(video, None, np.random.default_rng(), clip)
    np.testing.assert_array_equal(clip[0, :4], gray[:4].repeat(3, axis=-1))


def test_the_only_class_label_counts_whatever_its_name(tmp_path):
    source = open_source(write_numbered(tmp_path / "set"))
    assert source.class_names == ("0", "1", "2")
    assert [source.open(index)[1] for index in range(5)] == list(LABELS)


def test_classes_without_names_are_indices_of_the_known_ones(tmp_path):
    folder = write_numbered(tmp_path / "set")
    source = open_source(folder, ("walk", *CLASSES))
    for again in (source, pickle.loads(pickle.dumps(source))):
        assert [again.open(index)[1] for index in range(5)] == list(LABELS)
    assert source.class_names == ("walk", *CLASSES)
    (tmp_path / "mixture.csv").write_text("source\nset\n")
    mixture = open_source(str(tmp_path / "mixture.csv"), CLASSES)
    assert [mixture.open(index)[1] for index in range(5)] == list(LABELS)
    with pytest.raises(ValueError, match=r"set: label '2' is not in \[0, 1\], the numbers of the 2 known classes"):
        open_source(folder, ("walk", "run"))


def test_all_unknown_classes_are_counted(pictures):
    with pytest.raises(ValueError, match="ucf: label 'swim' is not one of .*; nor are 'high jump'; correct"):
        open_source(pictures, ("run",))


@pytest.mark.parametrize("spelling", ["{}", "{}:train", "tfds:ucf:train"])
def test_there_is_one_class_a_video(pictures, spelling):
    with pytest.raises(ValueError, match="is no such file: regression needs .*TFDS data sets have one class a video"):
        open_source(spelling.format(pictures), None, "regression")


def test_sets_are_found_by_name(pictures, tmp_path, monkeypatch):
    (tmp_path / "all/ucf").mkdir(parents=True)
    for version in ("1.9.0", "1.10.0", "by_person/1.0.0"):
        shutil.copytree(pictures, tmp_path / "all/ucf" / version)
    os.unlink(tmp_path / "all/ucf/1.9.0/ucf-train.array_record-00000-of-00003")
    shutil.copytree(pictures, tmp_path / "all/kth/first/1.0.0")
    shutil.copytree(pictures, tmp_path / "all/kth/second/1.0.0")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "all"))
    (tmp_path / "mixture.csv").write_text("source\ntfds:ucf:train\ntfds:ucf/by_person\n")
    code = (
        "import sys; from videomae_jax.data.sources import open_source\n"
        "for path in ('tfds:ucf:train', 'tfds:ucf:1.10.0:train[1:]', 'tfds:ucf/by_person'):\n"
        "    source = open_source(path); print(len(source), source.paths[0], source.open(0)[0].num_frames)\n"
        f"print(len(open_source({str(tmp_path / 'mixture.csv')!r})))\n"
        "print('tensorflow' in sys.modules)\n"
        "for path in ('tfds:kth:train', 'tfds:ucf:3.0.0:train', 'tfds:ucf101/ucf101_1:train'):\n"
        "    try: open_source(path)\n"
        "    except ValueError as error: print(error)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    *found, which, version, missing = done.stdout.splitlines()
    assert found == [
        "5 tfds:ucf:train/0 3",
        "4 tfds:ucf:1.10.0:train[1:]/1 1",
        "5 tfds:ucf/by_person:train/0 3",
        "10",
        "False",
    ]
    assert which == "data path 'tfds:kth:train': say which, tfds:kth/first or tfds:kth/second"
    assert "no TFDS data set ucf:3.0.0 at " in version
    assert f"no TFDS data set ucf101/ucf101_1 at {tmp_path}/all/ucf101/ucf101_1; " in missing
    assert "tfds build ucf101/ucf101_1 --file_format=array_record, or set TFDS_DATA_DIR" in missing


def test_another_split_is_an_error(pictures):
    with pytest.raises(ValueError, match=r"no split or slice 'test'; it has train, and slices such as train\[:90%\]"):
        open_source(f"{pictures}:test")


def test_other_files_are_an_error_that_says_how_to_convert(pictures):
    info = Path(pictures, "dataset_info.json")
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    with pytest.raises(ValueError, match="is in tfrecord files, .* --out_file_format=array_record"):
        open_source(pictures)


def test_a_set_without_videos_is_an_error(tmp_path):
    features = {"image": tfds.features.Image(), "flow": tfds.features.Tensor(shape=(5, 4, 4, 2), dtype=np.uint8)}
    with pytest.raises(ValueError, match="needs one feature that is a video, .* it has none among flow, image"):
        open_source(write_set(tmp_path / "set", "set", features, [], shards=((0, 0),)))
    features = {name: tfds.features.Sequence(tfds.features.Image()) for name in ("left", "right")}
    with pytest.raises(ValueError, match="it has left, right among left, right"):
        open_source(write_set(tmp_path / "two", "two", features, [], shards=((0, 0),)))


def test_missing_files_are_named(pictures):
    Path(pictures, "ucf-train.array_record-00002-of-00003").unlink()
    with pytest.raises(ValueError, match="1 of 3 files of its split train are missing, .*00002-of-00003"):
        open_source(pictures)


def test_broken_records_are_broken_videos(tmp_path):
    features = {"video": tfds.features.Sequence(tfds.features.Image())}

    def bad_picture(feature):
        feature["video"].bytes_list.value.append(b"no picture")

    def no_frame(feature):
        feature["video"].bytes_list.value.extend([])

    folder = write_set(tmp_path / "set", "set", features, [bad_picture, no_frame], shards=((0, 2),), video=VIDEO)
    source = open_source(folder)
    with pytest.raises(VideoReadError, match="set:train/0: frame 0: it does not decode"):
        source.open(0)[0].read([0])
    with pytest.raises(VideoReadError, match="set:train/1: its feature video holds no frame"):
        source.open(1)
    (file,) = Path(folder).glob("*array_record*")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(VideoReadError, match="set:train/0: record 0 of .* cannot be read"):
        open_source(folder).open(0)


def test_a_video_that_opens_and_does_not_decode_keeps_its_label(tmp_path):
    def bad_picture(feature):
        feature["video"].bytes_list.value.extend([b"no picture"])
        feature["label"].int64_list.value.append(1)

    features = {"video": tfds.features.Sequence(tfds.features.Image()), "label": label_feature()}
    write_set(tmp_path / "set", "set", features, [fill_pictures(0), bad_picture], shards=((0, 2),))
    (tmp_path / "mixture.csv").write_text("source\nset\n")
    clips = CenterClip(num_frames=2, stride=1, image_size=(16, 16))
    for path in (tmp_path / "set", tmp_path / "mixture.csv"):
        source = open_source(str(path), ("run", "swim", "high jump"))
        (batch,) = heldout_batches(source, clips, num_videos=2, batch_size=2)
        assert batch["label"].tolist() == [0, 2] and batch["weight"].tolist() == [1, 0]
        assert batch["num_frames"].tolist() == [3, 0]
    (file,) = (tmp_path / "set").glob("*array_record*")
    file.write_bytes(file.read_bytes()[:100])
    (batch,) = heldout_batches(open_source(str(tmp_path / "mixture.csv")), clips, num_videos=2, batch_size=2)
    assert batch["label"].tolist() == [-1, -1] and batch["weight"].tolist() == [0, 0]


def test_mixtures_hold_tfds_sets(pictures, tmp_path):
    (tmp_path / "mixture.csv").write_text("source,stride\nucf:train[:2],3\nucf:train[4:],\n")
    source = open_source(str(tmp_path / "mixture.csv"))
    assert len(source) == 3 and source.labels is None and source.stride(0) == 3
    assert [source.class_names[source.open(index)[1]] for index in range(2)] == ["run", "swim"]


def test_mixtures_know_the_labels_of_other_sets_before_opening(pictures, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "list.csv").write_text("path,label\ntext.mp4,run\ntext.mp4,walk\n")
    (tmp_path / "mixture.csv").write_text("source\nucf:train\nlist.csv\n")
    source = open_source(str(tmp_path / "mixture.csv"))
    assert source.class_names == ("high jump", "run", "swim", "walk")
    clips = CenterClip(num_frames=2, stride=1, image_size=(16, 16))
    (batch,) = heldout_batches(source, clips, num_videos=7, batch_size=7)
    assert batch["label"].tolist() == [1, 2, 0, 0, -1, 1, 3] and batch["weight"].tolist() == [1] * 5 + [0] * 2
