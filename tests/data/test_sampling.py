import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from videomae_jax.data.sampling import center_clip, random_clip, spread_clip

clips = st.tuples(st.integers(1, 400), st.integers(1, 32), st.integers(1, 8))


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
