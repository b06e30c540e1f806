"""Clip makers on videos in memory."""

import pickle
from contextlib import closing

import cv2
import numpy as np
import pytest

from videomae_jax.data.clips import CenterClip, FinetuningClips, MultiViewClips, PretrainingClips
from videomae_jax.data.frames import Frames
from videomae_jax.data.pipeline import heldout_batches
from videomae_jax.data.randaugment import GEOMETRIC, OPERATIONS, RandAugment
from videomae_jax.data.sampling import dense_clip, uniform_clip
from videomae_jax.data.transforms import crop_resize, random_resized_crop

SIZE = (20, 24)
CLIP = {"num_frames": 4, "stride": 3, "image_size": SIZE}


class Memory(Frames):
    """A video in memory that remembers which frames were asked for."""

    def __init__(self, pixels):
        self.path, self.num_frames, self.pixels, self.asked = "memory", len(pixels), pixels, []

    def frames(self, indices=None):
        for index in range(self.num_frames) if indices is None else indices:
            self.asked.append(index)
            yield self.pixels[index]

    def close(self):
        pass


def noise(num_frames=40, height=30, width=50):
    pixels = np.random.default_rng(0).integers(0, 256, (num_frames, height // 5, width // 5, 3), np.uint8)
    return Memory(np.stack([cv2.resize(frame, (width, height)) for frame in pixels]))


def make(maker, video, stride=None):
    out = np.full(maker.shape, 77, np.uint8)
    maker(video, stride, rng(), out)
    return out


def rng():
    return np.random.default_rng(7)


MAKERS = [
    PretrainingClips(**CLIP, views=3),
    CenterClip(**CLIP),
    FinetuningClips(**CLIP, views=2, distort=RandAugment()),
    FinetuningClips(4, None, 2, SIZE, None),
    MultiViewClips(**CLIP, segments=5, crops=3),
    MultiViewClips(4, None, 2, 3, SIZE),
]


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: f"{type(maker).__name__} {maker.stride}")
@pytest.mark.parametrize("num_frames", [40, 3, 1])
def test_clips_have_their_shape_and_repeat_with_their_seed(maker, num_frames):
    video = noise(num_frames)
    clips = make(maker, video)
    assert clips.dtype == np.uint8 and clips.shape == maker.shape
    np.testing.assert_array_equal(make(pickle.loads(pickle.dumps(maker)), video), clips)
    assert len(set(video.asked[: len(video.asked) // 2])) == len(video.asked) // 2  # each frame is decoded once


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: f"{type(maker).__name__} {maker.stride}")
def test_the_stride_of_the_source_wins(maker):
    video = noise()
    make(maker, video, stride=5)
    steps = np.diff(video.asked)
    if isinstance(maker, MultiViewClips):
        assert not np.any(np.array(video.asked) % 5)  # its clips are of every fifth frame
    elif isinstance(maker, FinetuningClips):
        assert steps.sum() == 19  # from the first to the last of a window of 4 * 5 frames
    else:
        assert steps.tolist() == [5, 5, 5]


def test_finetuning_clips_are_sampled_distorted_cropped_in_this_order():
    video, distort = noise(), RandAugment(operations=tuple(set(OPERATIONS) - set(GEOMETRIC)), probability=1.0)
    clips = make(FinetuningClips(**CLIP, views=2, distort=distort), video)
    same = rng()
    frames = video.pixels[dense_clip(40, 4, 3, same)]
    for view in clips:
        distorted = distort(frames, same)
        box = random_resized_crop(30, 50, SIZE, same)
        expected = [crop_resize(frame, box, SIZE, antialias=False) for frame in distorted]
        np.testing.assert_array_equal(view, expected)
    assert not np.array_equal(*clips)


def test_finetuning_clips_of_the_whole_video():
    video = noise()
    make(FinetuningClips(4, None, 1, SIZE, None), video)
    assert video.asked == uniform_clip(40, 4, rng()).tolist()


@pytest.mark.parametrize("height, width", [(30, 50), (50, 30), (24, 24)])
def test_views_are_all_segments_with_all_their_crops(height, width):
    video = noise(height=height, width=width)
    views = make(MultiViewClips(4, 3, segments=2, crops=3, image_size=(20, 20)), video)
    # Of frames 0, 3, ..., 39 the first four and the last four; side by side along the longer side.
    expected = []
    for frames in (video.pixels[[0, 3, 6, 9]], video.pixels[[30, 33, 36, 39]]):
        scale = 20 / min(height, width)
        resized = [cv2.resize(frame, (int(scale * width), int(scale * height))) for frame in frames]
        spare = max(resized[0].shape[:2]) - 20
        for start in (0, int(spare / 2), spare):
            expected.append([x[start:, :] if height > width else x[:, start:] for x in resized])
    expected = [np.stack(clip)[:, :20, :20] for clip in expected]
    np.testing.assert_array_equal(views, expected)


def test_views_of_something_something_interleave():
    video = noise(num_frames=41)
    make(MultiViewClips(4, None, segments=2, crops=1, image_size=SIZE), video)
    assert video.asked == [0, 5, 10, 15, 20, 25, 30, 35]  # int(41 / 8 * n)


def test_a_test_set_of_views_is_padded_and_masked(source_with_broken):
    clips = MultiViewClips(**CLIP, segments=2, crops=3)
    batches = heldout_batches(source_with_broken, clips, num_videos=7, batch_size=4)
    with closing(batches):
        batches = list(batches)
    assert [batch["video"].shape for batch in batches] == [(4, 6, 4, *SIZE, 3)] * 2
    assert np.concatenate([batch["weight"] for batch in batches]).tolist() == [1, 1, 0, 1, 1, 0, 1, 0]
    assert np.concatenate([batch["label"] for batch in batches])[:7].tolist() == [0, 1, 2, 0, 1, 2, 0]
