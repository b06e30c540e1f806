import hashlib
import multiprocessing
import pickle
import re
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videomae_jax.data import pipeline
from videomae_jax.data.clips import CenterClip, PretrainingClips
from videomae_jax.data.frames import Frames
from videomae_jax.data.pipeline import heldout_batches, train_batches
from videomae_jax.data.sources import VideoSource
from videomae_jax.data.video import VideoReadError, write_video

CLIP = {"num_frames": 4, "stride": 2, "image_size": (16, 24)}


def train(source, count, start_step=0, batch_size=6, workers=0, seed=5, views=1, **process):
    clips = PretrainingClips(**CLIP, views=views)
    steps = dict(start_step=start_step, stop_step=start_step + count)
    iterator = train_batches(source, clips, seed=seed, workers=workers, batch_size=batch_size, **steps, **process)
    with closing(iterator):
        return [{key: np.array(value) for key, value in batch.items()} for batch in iterator]


def heldout(source, num_videos, batch_size=4, **process):
    iterator = heldout_batches(source, CenterClip(**CLIP), num_videos=num_videos, batch_size=batch_size, **process)
    with closing(iterator):
        return [{key: np.array(value) for key, value in batch.items()} for batch in iterator]


def assert_equal(batches, others):
    assert len(batches) == len(others) > 0
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for key in batch:
            np.testing.assert_array_equal(batch[key], other[key], err_msg=key)


def join(batches, key):
    return np.concatenate([batch[key] for batch in batches])


def seen_videos(batches):
    """Which of the sound videos the pictures show, by their red."""
    red = join(batches, "video")[..., 0]
    return (red.reshape(len(red), -1).mean(axis=1) // 30).astype(int)


def test_train_batch_is_what_it_says(sound_source):
    (batch,) = train(sound_source, 1)
    assert batch["video"].shape == (6, 1, 4, 16, 24, 3) and batch["video"].dtype == np.uint8
    assert batch["label"].dtype == np.int32 and batch["sample"].dtype == np.uint32
    assert batch["sample"].tolist() == list(range(6))
    assert batch["broken"].tolist() == [""] * 6


def test_labels_belong_to_the_pictures(sound_source):
    batches = train(sound_source, 7)
    np.testing.assert_array_equal(join(batches, "label"), seen_videos(batches) % 3)


def test_clips_run_forward_at_the_stride(sound_source):
    green = join(train(sound_source, 3), "video")[:, 0, ..., 1].mean((2, 3))
    np.testing.assert_allclose(np.diff(green, axis=1), 16, atol=4)  # 8 levels a frame, every second frame


def test_views_are_crops_of_the_same_frames(sound_source):
    views, single = join(train(sound_source, 3, views=4), "video"), join(train(sound_source, 3), "video")
    np.testing.assert_array_equal(views[:, :1], single)
    green = views[..., 1].mean((3, 4))  # [B S T]: frame t is as green in every crop
    np.testing.assert_allclose(green, np.repeat(green[:, :1], 4, axis=1), atol=2)


def test_crops_differ_from_view_to_view(tmp_path):
    ramp = np.broadcast_to(np.arange(48, dtype=np.uint8)[None, None, :, None] * 5, (12, 36, 48, 3))
    write_video(tmp_path / "ramp.mp4", ramp, fps=25)
    source = VideoSource("ramp", (str(tmp_path / "ramp.mp4"),), np.zeros(1, np.int32), ("a",))
    (batch,) = train(source, 1, batch_size=1, views=8)
    assert len({view.tobytes() for view in batch["video"][0]}) > 4


def test_every_epoch_is_another_permutation(sound_source):
    seen = seen_videos(train(sound_source, 7)).reshape(6, 7)  # 42 samples are 6 epochs of 7 videos
    assert all(sorted(epoch) == list(range(7)) for epoch in seen.tolist())
    assert len(set(map(tuple, seen.tolist()))) > 3


def test_seed_decides_everything(sound_source):
    assert_equal(train(sound_source, 2), train(sound_source, 2))
    one, other = train(sound_source, 2), train(sound_source, 2, seed=6)
    assert not np.array_equal(join(one, "video"), join(other, "video"))


def test_resumed_run_continues_the_same_batches(source_with_broken):
    assert_equal(train(source_with_broken, 3, start_step=4), train(source_with_broken, 7)[4:])


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.full), 2])
def test_workers_change_no_byte(source_with_broken, workers):
    assert_equal(train(source_with_broken, 4, start_step=1, workers=workers), train(source_with_broken, 5)[1:])
    assert multiprocessing.active_children() == []


@pytest.mark.full
def test_workers_change_no_byte_of_views(sound_source):
    assert_equal(train(sound_source, 2, views=4, workers=1), train(sound_source, 2, views=4))


@pytest.mark.full
def test_a_batch_of_many_parts_is_the_same_batch(sound_source):
    assert_equal(train(sound_source, 2, batch_size=42, workers=2), train(sound_source, 2, batch_size=42))


def test_hosts_share_every_global_batch(source_with_broken):
    whole = train(source_with_broken, 3)
    for rows in ((0, 1), (2, 5), (1, 3, 4)):  # also those that the mesh does not put side by side
        for batch, own in zip(whole, train(source_with_broken, 3, rows=rows), strict=True):
            for key in batch:
                np.testing.assert_array_equal(own[key], batch[key][list(rows)], err_msg=key)


@pytest.mark.parametrize("workers", [0, 1])
def test_videos_that_are_all_gone_are_waited_for(sound_source, tmp_path, workers):
    whole = train(sound_source, 7)
    folder = Path(sound_source.paths[0]).parent
    away = tmp_path / "away"
    iterator = train_batches(
        sound_source,
        PretrainingClips(**CLIP, views=1),
        seed=5,
        start_step=0,
        stop_step=7,
        batch_size=6,
        workers=workers,
    )
    batches = []
    with closing(iterator):
        for step, batch in enumerate(iterator):
            batches.append({key: np.array(value) for key, value in batch.items()})
            if step == 1:
                folder.rename(away)
                threading.Timer(2, away.rename, [folder]).start()
    assert_equal(batches, whole)


def test_videos_that_do_not_come_back_end_the_run_by_name(sound_source, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pipeline, "PATIENCE", 0.0)
    folder = Path(sound_source.paths[0]).parent
    folder.rename(tmp_path / "away")
    try:
        for load in (train, heldout):
            with pytest.raises(ValueError, match=f"The videos of {sound_source.name} are gone, .*{folder}"):
                load(sound_source, 3)
            # Not capfd, whose file loses its place when another reading thread prints while it is read.
            assert f"waiting for the videos of {sound_source.name}: {folder}" in capsys.readouterr().out
    finally:
        (tmp_path / "away").rename(folder)


def test_a_video_that_is_gone_alone_is_replaced(sound_source):
    video = Path(sound_source.paths[2])
    video.rename(f"{video}.away")
    try:
        batches = train(sound_source, 7)
    finally:
        Path(f"{video}.away").rename(video)
    assert {report.split("\t")[0] for report in join(batches, "broken") if report} == {str(video)}


def test_broken_video_is_replaced_with_its_own_true_label(sound_source, source_with_broken):
    sound, mended = train(sound_source, 7), train(source_with_broken, 7)
    was_broken = np.isin(seen_videos(sound), [2, 5])
    assert 0 < was_broken.sum() < 42
    np.testing.assert_array_equal(join(mended, "broken") != "", was_broken)
    np.testing.assert_array_equal(join(mended, "label"), seen_videos(mended) % 3)
    assert not np.isin(seen_videos(mended), [2, 5]).any()
    np.testing.assert_array_equal(join(mended, "video")[~was_broken], join(sound, "video")[~was_broken])


def test_broken_videos_are_reported_with_their_reason(source_with_broken):
    reports = [line for text in join(train(source_with_broken, 7), "broken") for line in str(text).splitlines()]
    assert {report.split("\t")[0] for report in reports} == {source_with_broken.paths[v] for v in (2, 5)}
    assert all(report.split("\t")[1] for report in reports)


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_readable_is_an_error_that_names_the_source(tmp_path, workers):
    paths = tuple(str(tmp_path / f"empty {v}.mp4") for v in range(3))
    for path in paths:
        Path(path).touch()
    source = VideoSource("my videos", paths, np.zeros(3, np.int32), ("a",))
    with pytest.raises(VideoReadError, match=r"empty \d.mp4: .*100 videos drawn from my videos"):
        train(source, 1, workers=workers)


def test_heldout_shows_each_video_once(sound_source):
    batches = heldout(sound_source, num_videos=7)
    weight = join(batches, "weight")
    assert weight.dtype == np.float32 and weight.tolist() == [1] * 7 + [0]
    assert seen_videos(batches)[:7].tolist() == list(range(7)) == join(batches, "sample")[:7].tolist()
    assert join(batches, "label").tolist() == [0, 1, 2, 0, 1, 2, 0, 0]
    assert_equal(heldout(sound_source, num_videos=100), batches)


def test_heldout_spreads_over_the_source_and_takes_the_middle(sound_source):
    batches = heldout(sound_source, num_videos=3, batch_size=3)
    assert join(batches, "sample").tolist() == [0, 2, 4]
    # 24 frames leave 17 places for a clip of 8, the middle one begins at frame 8.
    green = join(batches, "video")[:, 0, ..., 1].mean((2, 3))
    np.testing.assert_allclose(green, [[64, 80, 96, 112]] * 3, atol=4)


def test_heldout_broken_video_does_not_count(source_with_broken):
    batches = heldout(source_with_broken, num_videos=7, batch_size=7)
    assert join(batches, "weight").tolist() == [1, 1, 0, 1, 1, 0, 1]
    assert [text.split("\t")[0] for text in join(batches, "broken") if text] == [
        source_with_broken.paths[2],
        source_with_broken.paths[5],
    ]
    assert not join(batches, "video")[[2, 5]].any()


class Counted(Frames):
    """A video that is nothing but its length."""

    def __init__(self, index: int):
        self.path, self.num_frames = str(index), 3 + index

    def frames(self, indices=None):
        raise NotImplementedError

    def close(self):
        pass


@dataclass(frozen=True, eq=False)
class CountedSource(VideoSource):
    def open(self, index):
        return Counted(index), self.label(index)

    def is_there(self, index):
        return True


@dataclass(frozen=True)
class WritesLength:
    """Clips of one pixel with the number of frames; the broken videos fail when they are decoded."""

    broken: frozenset[int]
    shape: tuple[int, ...] = (1, 1, 1, 1, 3)

    def __call__(self, video, stride, rng, out):
        out[:] = video.num_frames
        if int(video.path) in self.broken:
            raise VideoReadError(video.path, "broken")


@settings(deadline=None, max_examples=40)
@given(
    count=st.integers(1, 23),
    processes=st.integers(1, 4),
    local=st.integers(1, 9),
    broken=st.frozensets(st.integers(0, 22)),
    several=st.booleans(),
)
def test_heldout_counts_each_video_once(count, processes, local, broken, several):
    labels = np.arange(count, dtype=np.int32) % 5
    labels = np.eye(5, dtype=np.float32)[labels] if several else labels
    source = CountedSource("counted", tuple(map(str, range(count))), labels, tuple("abcde"))
    options = dict(num_videos=count, batch_size=processes * local)
    shares = np.arange(processes * local).reshape(processes, local)
    shards = [list(heldout_batches(source, WritesLength(broken), **options, rows=rows)) for rows in shares]
    assert {len(shard) for shard in shards} == {-(-count // (processes * local))}
    batches = [batch for shard in shards for batch in shard]
    assert {len(batch[key]) for batch in batches for key in batch} == {local}
    sample, weight, num_frames = (join(batches, key) for key in ("sample", "weight", "num_frames"))
    assert sorted(sample[weight == 1].tolist()) == [index for index in range(count) if index not in broken]
    assert set(sample.tolist()) == set(range(count)) and set(weight.tolist()) <= {0, 1}
    is_broken = np.isin(sample, sorted(broken))
    np.testing.assert_array_equal(join(batches, "broken") != "", is_broken)
    np.testing.assert_array_equal(join(batches, "label"), labels[sample])
    assert join(batches, "label").dtype == labels.dtype and num_frames.dtype == np.int32
    np.testing.assert_array_equal(num_frames, np.where(is_broken, 0, 3 + sample.astype(int)))
    np.testing.assert_array_equal(join(batches, "video").max((1, 2, 3, 4, 5)), num_frames)


def test_rows_of_labels_belong_to_the_pictures(sound_source, source_with_broken):
    rows = np.arange(21, dtype=np.float32).reshape(7, 3) / 4
    for source in (sound_source, source_with_broken):
        batches = train(replace(source, labels=rows), 3, workers=int(source is sound_source))
        assert batches[0]["label"].shape == (6, 3) and batches[0]["label"].dtype == np.float32
        np.testing.assert_array_equal(join(batches, "label"), rows[seen_videos(batches)])
    heldout_labels = join(heldout(replace(source_with_broken, labels=rows), num_videos=7), "label")
    np.testing.assert_array_equal(heldout_labels, rows[[*range(7), 0]])


def test_heldout_tells_the_lengths_of_videos(source_with_broken):
    batches = heldout(source_with_broken, num_videos=7)
    assert join(batches, "num_frames").tolist() == [24, 24, 0, 24, 24, 0, 24, 24]
    assert join(batches, "label").tolist() == [0, 1, 2, 0, 1, 2, 0, 0]


def test_heldout_processes_get_equally_many_full_batches(sound_source):
    shards = [heldout(sound_source, 7, rows=rows) for rows in ((0, 1), (2, 3))]
    assert [len(batch["sample"]) for shard in shards for batch in shard] == [2] * 4
    counted = [join(shard, "sample")[join(shard, "weight") == 1] for shard in shards]
    assert sorted(np.concatenate(counted).tolist()) == list(range(7))


def test_numbers_out_of_range_are_refused(sound_source):
    for wrong in ({"seed": -1}, {"seed": 2**32}, {"workers": -1}):
        with pytest.raises(ValueError, match=f"seed must .* workers at least 0, got .*{list(wrong)[0]}"):
            train(sound_source, 1, **wrong)
    for rows in ((), (0, 0), (1, 0), (-1, 0), (0, 6)):
        with pytest.raises(ValueError, match=re.escape(f"from 0 to 5, at least one, got {rows}")):
            train(sound_source, 1, rows=rows)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        train(sound_source, 1, batch_size=0)


BATCHES_OF_A_SCRIPT = """
import hashlib, pickle, sys
from contextlib import closing
from videomae_jax.data.clips import PretrainingClips
from videomae_jax.data.pipeline import train_batches

if __name__ == "__main__":
    source, start_step, process = pickle.load(open(sys.argv[1], "rb")), int(sys.argv[2]), int(sys.argv[3])
    clips = PretrainingClips(num_frames=4, stride=2, views=1, image_size=(16, 24))
    steps = dict(start_step=start_step, stop_step=12, batch_size=6)
    share = dict(rows=[process, process + 2, process + 4])
    with closing(train_batches(source, clips, seed=5, workers=2, **steps, **share)) as batches:
        for batch in batches:
            print(*batch["sample"], hashlib.sha256(batch["video"].tobytes()).hexdigest(), flush=True)
"""


@pytest.mark.full
def test_killed_and_resumed_processes_share_the_data_as_undisturbed_ones(source_with_broken, tmp_path):
    (tmp_path / "source.pickle").write_bytes(pickle.dumps(source_with_broken))
    (tmp_path / "script.py").write_text(BATCHES_OF_A_SCRIPT)

    def start(step, process):
        command = [sys.executable, tmp_path / "script.py", tmp_path / "source.pickle", str(step), str(process)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    lines = [[], []]
    for process in (0, 1):
        with start(0, process) as running:
            lines[process] = [running.stdout.readline() for _ in range(4 + process)]
            running.kill()
    resumed = [start(len(lines[process]), process) for process in (0, 1)]
    for process, running in enumerate(resumed):
        lines[process] += running.communicate()[0].splitlines(keepends=True)
        assert running.returncode == 0

    whole = train(source_with_broken, 12)
    for process in (0, 1):
        shares = [
            (*batch["sample"][process::2], hashlib.sha256(batch["video"][process::2].tobytes()).hexdigest())
            for batch in whole
        ]
        assert [line.split() for line in lines[process]] == [list(map(str, share)) for share in shares]
