import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from videomae_jax.data.sampling import (
    center_clip,
    dense_clip,
    dense_views,
    dense_windows,
    random_clip,
    spread_clip,
    uniform_clip,
    uniform_views,
)

clips = st.tuples(st.integers(1, 400), st.integers(1, 32), st.integers(1, 8))
uniform_clips = st.tuples(st.integers(1, 400), st.integers(1, 32))


def original_clips(num_video_frames, num_frames, stride):
    """Every clip the original may draw: its loop over 1-based offsets, one clip for each offset."""
    skip = num_frames * stride
    average = num_video_frames - skip + 1
    for draw in range(max(average, 1)):
        offset = draw + 1
        clip = []
        for _ in range(0, skip, stride):
            clip.append(offset - 1)
            if offset + stride < num_video_frames:
                offset += stride
        yield clip


@given(clips, st.integers(0, 2**32 - 1))
def test_random_clip_is_one_of_the_originals(clip, seed):
    got = random_clip(*clip, np.random.default_rng(seed))
    assert got.dtype == np.int64
    assert got.tolist() in list(original_clips(*clip))


@pytest.mark.parametrize("clip", [(40, 16, 2), (20, 16, 1), (70, 16, 4), (10, 16, 4), (1, 4, 1)])
def test_random_clip_reaches_all_of_the_originals(clip):
    rng = np.random.default_rng(0)
    got = {tuple(random_clip(*clip, rng)) for _ in range(300)}
    assert got == set(map(tuple, original_clips(*clip)))


@given(clips)
def test_center_clip_is_the_middle_one(clip):
    candidates = list(original_clips(*clip))
    assert center_clip(*clip).tolist() == candidates[(len(candidates) - 1) // 2]


def test_short_video_repeats_the_last_reachable_frame():
    assert center_clip(8, 6, 2).tolist() == [0, 2, 4, 6, 6, 6]


@pytest.mark.parametrize("clip", [(0, 16, 2), (10, 0, 2), (10, 16, 0)])
def test_nothing_to_sample_is_an_error(clip):
    with pytest.raises(ValueError, match=f"num_video_frames={clip[0]}, num_frames={clip[1]}, stride={clip[2]}"):
        random_clip(*clip, np.random.default_rng(0))
    with pytest.raises(ValueError, match="at least one"):
        center_clip(*clip)
    with pytest.raises(ValueError, match="at least one"):
        dense_clip(*clip)
    with pytest.raises(ValueError, match="at least one"):
        dense_views(*clip, 2)


@given(st.integers(1, 400), st.integers(1, 32))
def test_spread_clip_has_the_centres_of_equal_parts(num_video_frames, num_frames):
    got = spread_clip(num_video_frames, num_frames)
    assert got.dtype == np.int64
    # A frame lasts from its number to the next.
    centres = [(i + 0.5) * num_video_frames / num_frames for i in range(num_frames)]
    assert all(frame <= centre + 1e-9 and centre < frame + 1 + 1e-9 for frame, centre in zip(got, centres, strict=True))
    assert got[0] >= 0 and got[-1] < num_video_frames


def test_spread_clip_by_hand():
    assert spread_clip(16, 16).tolist() == list(range(16))
    assert spread_clip(100, 4).tolist() == [12, 37, 62, 87]
    assert spread_clip(3, 6).tolist() == [0, 0, 1, 1, 2, 2]
    assert spread_clip(1, 3).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="num_video_frames=9, num_frames=0"):
        spread_clip(9, 0)


def original_dense_clips(num_video_frames, num_frames, stride):
    """Every clip the original may draw for fine-tuning, frame by frame."""
    window = num_frames * stride
    if num_video_frames <= window:
        strided = num_video_frames // stride
        times = [i * (num_video_frames / (strided - 1)) if i > 0 else 0 for i in range(strided)]
        times += [num_video_frames] * (num_frames - strided)
        yield [int(min(time, num_video_frames - 1)) for time in times]
    for end in range(window, num_video_frames):
        start = end - window
        times = [start + i * (window / (num_frames - 1)) if i > 0 else start for i in range(num_frames)]
        yield [int(min(time, end - 1)) for time in times]


@given(clips, st.integers(0, 2**32 - 1))
def test_dense_clip_is_one_of_the_originals(clip, seed):
    got = dense_clip(*clip, np.random.default_rng(seed))
    assert got.dtype == np.int64
    assert got.tolist() in list(original_dense_clips(*clip))


@pytest.mark.parametrize("clip", [(80, 16, 4), (64, 16, 4), (65, 16, 4), (66, 16, 4), (31, 16, 4), (3, 16, 4)])
def test_dense_clip_reaches_all_of_the_originals(clip):
    rng = np.random.default_rng(0)
    got = {tuple(dense_clip(*clip, rng)) for _ in range(300)}
    assert got == set(map(tuple, original_dense_clips(*clip)))


@given(clips)
def test_dense_clip_without_chance_is_the_middle_one(clip):
    candidates = list(original_dense_clips(*clip))
    assert dense_clip(*clip).tolist() == candidates[(len(candidates) - 1) // 2]


def test_dense_clip_by_hand():
    assert dense_clip(300, 4, 25).tolist() == [99, 132, 165, 198]
    assert dense_clip(10, 6, 2).tolist() == [0, 2, 5, 7, 9, 9]  # 0, 2.5, 5, 7.5, 10, and 10 again
    assert dense_clip(3, 4, 4).tolist() == [2, 2, 2, 2]


def original_segments(num_video_frames, num_frames):
    """For each frame of a clip, the frames of the video that the original draws it from."""
    average = num_video_frames // num_frames
    if average > 0:
        return [list(range(i * average, (i + 1) * average)) for i in range(num_frames)]
    return [[0]] * num_frames


@given(uniform_clips, st.integers(0, 2**32 - 1))
def test_uniform_clip_has_one_frame_of_each_segment(clip, seed):
    got = uniform_clip(*clip, np.random.default_rng(seed))
    assert got.dtype == np.int64
    assert all(frame in segment for frame, segment in zip(got, original_segments(*clip), strict=True))


def test_uniform_clip_reaches_all_frames_of_each_segment_by_themselves():
    rng = np.random.default_rng(0)
    got = np.stack([uniform_clip(23, 5, rng) for _ in range(300)])
    assert [sorted(set(frames)) for frames in got.T.tolist()] == original_segments(23, 5)
    assert len({tuple(clip % 4) for clip in got}) > 200


@given(uniform_clips)
def test_uniform_clip_without_chance_has_the_middle_ones(clip):
    middles = [segment[(len(segment) - 1) // 2] for segment in original_segments(*clip)]
    assert uniform_clip(*clip).tolist() == middles


def test_uniform_clip_by_hand():
    assert uniform_clip(50, 4).tolist() == [5, 17, 29, 41]
    assert uniform_clip(15, 16).tolist() == [0] * 16
    assert uniform_clip(16, 16).tolist() == list(range(16))


def original_dense_views(num_video_frames, num_frames, stride, num_segments):
    frames = list(range(0, num_video_frames, stride))
    while len(frames) < num_frames:
        frames.append(frames[-1])
    step = max((len(frames) - num_frames) / (num_segments - 1), 0)
    return [frames[int(k * step) : int(k * step) + num_frames] for k in range(num_segments)]


@given(clips, st.integers(2, 10))
def test_dense_views_are_the_originals(clip, num_segments):
    got = dense_views(*clip, num_segments)
    assert got.dtype == np.int64
    assert got.tolist() == original_dense_views(*clip, num_segments)


@given(clips)
def test_one_dense_view_is_the_middle_one_of_three(clip):
    assert dense_views(*clip, 1).tolist() == dense_views(*clip, 3)[1:2].tolist()


def test_dense_views_by_hand():
    assert dense_views(40, 4, 4, 3).tolist() == [[0, 4, 8, 12], [12, 16, 20, 24], [24, 28, 32, 36]]
    assert dense_views(9, 4, 4, 2).tolist() == [[0, 4, 8, 8]] * 2
    assert dense_views(29, 4, 4, 1).tolist() == [[8, 12, 16, 20]]


def original_uniform_views(num_video_frames, num_frames):
    """Its two clips are every other frame of twice as many."""
    tick = num_video_frames / float(num_frames)
    frames = [int(tick / 2.0 + tick * i) for i in range(num_frames)] + [int(tick * i) for i in range(num_frames)]
    frames.sort()
    return [frames[0::2], frames[1::2]]


@given(uniform_clips)
def test_two_uniform_views_are_the_originals(clip):
    got = uniform_views(*clip, 2)
    assert got.dtype == np.int64
    assert got.tolist() == original_uniform_views(*clip)


@given(st.integers(1, 50), st.integers(1, 32), st.integers(1, 10))
def test_uniform_views_divide_each_tick(frames_per_view, num_frames, num_segments):
    got = uniform_views(frames_per_view * num_frames * num_segments, num_frames, num_segments)
    steps = [[i * num_segments + k for i in range(num_frames)] for k in range(num_segments)]
    assert got.tolist() == (frames_per_view * np.array(steps)).tolist()


def test_uniform_views_by_hand():
    assert uniform_views(50, 4, 3).tolist() == [[0, 12, 25, 37], [4, 16, 29, 41], [8, 20, 33, 45]]
    assert uniform_views(3, 4, 1).tolist() == [[0, 0, 1, 2]]


@given(clips, st.integers(1, 10))
def test_all_clips_stay_within_the_video_and_go_forward(clip, num_segments):
    num_video_frames, num_frames, _ = clip
    dense = dense_views(*clip, num_segments)
    uniform = uniform_views(*clip[:2], num_segments)
    assert dense.shape == uniform.shape == (num_segments, num_frames)
    for got in (dense_clip(*clip), uniform_clip(*clip[:2]), *dense, *uniform):
        assert len(got) == num_frames
        assert got[0] >= 0 and got[-1] < num_video_frames and (np.diff(got) >= 0).all()


@pytest.mark.parametrize("numbers", [(0, 16), (10, 0)])
def test_no_frames_to_spread_are_an_error(numbers):
    with pytest.raises(ValueError, match=f"num_video_frames={numbers[0]}, num_frames={numbers[1]}"):
        uniform_clip(*numbers)
    with pytest.raises(ValueError, match=f"num_video_frames={numbers[0]}, num_frames={numbers[1]}"):
        uniform_views(*numbers, 2)


def test_no_segments_are_an_error():
    with pytest.raises(ValueError, match="num_segments=0"):
        dense_views(10, 16, 4, 0)
    with pytest.raises(ValueError, match="num_segments=0"):
        uniform_views(10, 16, 0)


@given(st.integers(1, 300), st.integers(1, 16), st.integers(1, 8), st.integers(1, 40))
def test_windows_cover_a_video_from_its_first_frame_to_its_last(num_video_frames, num_frames, stride, hop):
    windows = dense_windows(num_video_frames, num_frames, stride, hop)
    span = stride * (num_frames - 1) + 1
    # What follows the last frame of the last clip is what lies between any two of its frames.
    assert windows[0, 0] == 0 and num_video_frames - stride <= windows[-1, -1] <= num_video_frames - 1
    gaps = np.diff(windows[:, 0])
    assert (gaps[:-1] == hop).all() and (gaps[-1:] <= hop).all() and (gaps > 0).all()
    if windows[-1, 0] % hop:
        assert windows[-1, -1] == num_video_frames - 1
    if hop <= stride * num_frames:
        assert (np.append(windows[1:, 0], num_video_frames) <= windows[:, 0] + stride * num_frames).all()
    if num_video_frames >= span:
        assert (np.diff(windows, axis=1) == stride).all()
    else:
        assert len(windows) == 1
        np.testing.assert_array_equal(windows[0], np.minimum(stride * np.arange(num_frames), num_video_frames - 1))


def test_windows_that_touch_do_not_overlap_where_they_fill_the_video():
    np.testing.assert_array_equal(dense_windows(8, 4, 2, 8), [[0, 2, 4, 6]])
    np.testing.assert_array_equal(dense_windows(16, 4, 2, 8), [[0, 2, 4, 6], [8, 10, 12, 14]])
    np.testing.assert_array_equal(dense_windows(15, 4, 2, 8), [[0, 2, 4, 6], [8, 10, 12, 14]])
    np.testing.assert_array_equal(dense_windows(17, 4, 2, 8), [[0, 2, 4, 6], [8, 10, 12, 14], [10, 12, 14, 16]])


def test_windows_that_do_not_move_are_an_error():
    with pytest.raises(ValueError, match="at least one frame apart, got hop=0"):
        dense_windows(10, 4, 1, 0)
