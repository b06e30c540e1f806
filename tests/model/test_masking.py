import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videomae_jax.model.masking import Mask, Masking, ids_from_mask, mask_from_ids, resolve_mask

pytestmark = pytest.mark.usefixtures("quick_compilation")
GRID = (8, 14, 14)
PUBLISHED = Masking("tube", 0.9, "none", 0, GRID)
seeds = st.integers(0, 2**31 - 1)
# Every new shape compiles, hence few examples on few grids.
few = settings(max_examples=20, deadline=None)


@st.composite
def masks(draw) -> Mask:
    """Any valid mask over a small grid."""
    kind = draw(st.sampled_from(["tube", "random", "frame", "running_cell"]))
    if kind == "running_cell":
        return Mask(kind, draw(st.sampled_from([0.25, 0.5, 0.75])), draw(st.sampled_from([(3, 4, 6), (6, 2, 2)])))
    t, h, w = grid = draw(st.sampled_from([(4, 3, 5), (3, 2, 2)]))
    units = {"tube": h * w, "random": t * h * w, "frame": t}[kind]
    hidden = draw(st.integers(1, units - 1)) + draw(st.floats(0.01, 0.99))
    return Mask(kind, hidden / units, grid)


@functools.partial(jax.jit, static_argnums=(0, 1))
def draw(mask, num, seed=0):
    """What a Mask or a Masking draws for `num` clips; compiled as one program, which takes less time here."""
    keys = jax.random.split(jax.random.key(seed), num)
    return mask(keys) if isinstance(mask, Masking) else jax.vmap(mask)(keys)


def draw_many(mask, num, seed=0):
    """`num` clips' masks, [num t h*w]."""
    t, h, w = mask.grid
    return np.asarray(draw(mask, num, seed)).reshape(num, t, h * w)


@few
@given(masks(), seeds)
def test_as_many_tokens_are_hidden_as_the_kind_promises(mask, seed):
    t, h, w = mask.grid
    promised = {
        "tube": t * int(mask.ratio * h * w),
        "random": int(mask.ratio * t * h * w),
        "frame": int(mask.ratio * t) * h * w,
        "running_cell": round(mask.ratio * t * h * w),
    }
    hidden = mask(jax.random.key(seed))
    assert hidden.dtype == bool
    assert hidden.shape == (t * h * w,)
    assert hidden.sum() == mask.num_masked == promised[mask.kind]
    assert mask.effective_ratio == mask.num_masked / (t * h * w)


@few
@given(masks(), seeds)
def test_ids_ascend_and_share_the_tokens_out(mask, seed):
    visible, masked = Masking(mask.kind, mask.ratio, "none", 0, mask.grid)(jax.random.split(jax.random.key(seed), 3))
    assert masked.shape == (3, mask.num_masked)
    for ids in (visible, masked):
        assert (np.diff(ids, axis=1) > 0).all()
    everything = np.sort(np.concatenate([visible, masked], axis=1), axis=1)
    np.testing.assert_array_equal(everything, np.broadcast_to(np.arange(np.prod(mask.grid)), everything.shape))


@few
@given(st.sampled_from([1, 5, 11]), st.tuples(*[st.permutations(range(12))] * 3))
def test_bool_mask_and_ids_are_two_spellings(num_masked, orders):
    hidden = np.array(orders) < num_masked
    ids = ids_from_mask(hidden, num_masked)
    np.testing.assert_array_equal(ids.masked, [np.flatnonzero(row) for row in hidden])
    np.testing.assert_array_equal(ids.visible, [np.flatnonzero(~row) for row in hidden])
    np.testing.assert_array_equal(mask_from_ids(ids.masked, 12), hidden)
    np.testing.assert_array_equal(mask_from_ids(ids.visible, 12), ~hidden)


@pytest.mark.parametrize("kind", ["tube", "random", "frame", "running_cell"])
def test_a_mask_is_a_function_of_its_key_compiled_or_not(kind):
    mask, key = Mask(kind, 0.5, (4, 4, 4)), jax.random.key(3)
    np.testing.assert_array_equal(mask(key), jax.jit(mask)(jax.random.clone(key)))


@pytest.mark.parametrize("kind, distinct", [("tube", 50), ("random", 50), ("frame", 8), ("running_cell", 4)])
def test_keys_give_different_masks(kind, distinct):
    """Of 50, all are different for the first two; a frame mask of 7 of 8 has 8, a running cell 4 starts."""
    drawn = draw_many(Mask(kind, 0.5 if kind == "running_cell" else 0.9, GRID), 50)
    assert len(np.unique(drawn, axis=0)) == distinct


def test_published_tube_leaves_160_of_1568_tokens_the_same_in_every_frame():
    ids = draw(PUBLISHED, 32)
    assert ids.visible.shape == (32, 160)
    assert ids.masked.shape == (32, 1408)
    assert (PUBLISHED.num_visible, PUBLISHED.num_decoded) == (160, 1408)
    frames = np.asarray(ids.visible).reshape(32, 8, 20) - 196 * np.arange(8)[:, None]
    np.testing.assert_array_equal(frames, np.broadcast_to(frames[:, :1], frames.shape))
    assert ((frames >= 0) & (frames < 196)).all()


def test_ucf101s_tube_leaves_392_tokens():
    assert Mask("tube", 0.75, GRID).num_masked == 1568 - 392


@pytest.mark.parametrize("grid, ratio", [((4, 2, 3), 0.3), ((3, 4, 4), 0.95), (GRID, 0.9)])
def test_tube_is_the_same_in_all_frames(grid, ratio):
    drawn = draw_many(Mask("tube", ratio, grid), 50)
    np.testing.assert_array_equal(drawn, np.broadcast_to(drawn[:, :1], drawn.shape))


def test_random_differs_between_frames():
    drawn = draw_many(Mask("random", 0.9, GRID), 1)[0]
    assert len(np.unique(drawn, axis=0)) == 8
    assert len(np.unique(drawn.sum(axis=1))) > 1  # counts hold for the clip and not for a frame


@pytest.mark.parametrize("ratio, frames", [(0.9, 7), (0.5, 4), (0.3, 2), (0.125, 1)])
def test_frame_hides_whole_frames_and_says_how_many(ratio, frames):
    mask = Mask("frame", ratio, GRID)
    drawn = draw_many(mask, 10)
    assert mask.effective_ratio == frames / 8
    assert set(drawn.sum(axis=2).ravel()) == {0, 196}
    assert (drawn.all(axis=2).sum(axis=1) == frames).all()


def slow_running_cell(grid, ratio, start):
    """V2's running cell, a token at a time: a queue of ones and zeros that moves on by one place a frame."""
    t, h, w = grid
    m = int(4 * ratio)
    queue = [1] * m + [0] * (4 - m)
    hidden = np.zeros(grid, bool)
    for frame in range(t):
        cell = [queue[(k + start + frame + 1) % 4] for k in range(4)]
        for row in range(h):
            for column in range(w):
                hidden[frame, row, column] = cell[2 * (row % 2) + column % 2]
    return hidden.reshape(t, h * w)


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("grid", [(5, 4, 6), GRID])
def test_running_cell_is_v2s_from_each_of_its_four_starts(grid, ratio):
    drawn = draw_many(Mask("running_cell", ratio, grid), 100)
    counts = [(drawn == slow_running_cell(grid, ratio, start)).all(axis=(1, 2)).sum() for start in range(4)]
    assert sum(counts) == 100
    assert min(counts) >= 10  # of 25 expected; below that once in 10,000 seeds


def test_running_cell_decodes_every_place_in_two_of_any_four_frames():
    decoded = ~draw_many(Mask("running_cell", 0.5, GRID), 8)
    for first in range(5):
        assert (decoded[:, first : first + 4].sum(axis=1) == 2).all()


@pytest.mark.parametrize("kind, ratio", [("tube", 0.75), ("random", 0.6), ("frame", 0.5), ("running_cell", 0.25)])
def test_every_token_is_hidden_equally_often(kind, ratio):
    mask = Mask(kind, ratio, (4, 4, 4))
    often = draw_many(mask, 4000).mean(axis=0)
    share = mask.effective_ratio
    assert abs(often - share).max() < 5 * (share * (1 - share) / 4000) ** 0.5


def test_tube_hides_places_independently_of_one_another():
    """Any two places are both hidden as often as drawing without putting back says, here 6/16 * 5/15."""
    tube = draw_many(Mask("tube", 6 / 16, (1, 4, 4)), 4000)[:, 0].astype(np.float64)
    together = (tube.T @ tube / len(tube))[~np.eye(16, dtype=bool)]
    share = 6 / 16 * 5 / 15
    assert abs(together - share).max() < 5 * (share * (1 - share) / 4000) ** 0.5


@pytest.mark.parametrize(
    "kind, ratio, grid, message",
    [
        ("tube", 0, GRID, r"tube .* 196 places of a frame .* \[0.005102, 1\), got 0"),
        ("tube", 1.0, GRID, "tube .* got 1.0"),
        ("tube", -0.5, GRID, "tube .* got -0.5"),
        ("tube", 0.2, (8, 2, 2), "tube .* 4 places of a frame .* got 0.2"),
        ("random", 0.0, GRID, "random .* 1568 tokens .* got 0.0"),
        ("random", 1.5, GRID, "random .* got 1.5"),
        ("frame", 0.1, GRID, r"frame .* 8 latent frames .* \[0.125, 1\), got 0.1"),
        ("frame", 0.9, (1, 14, 14), "frame .* 1 latent frames .* got 0.9"),
        ("running_cell", 0.4, GRID, "running_cell .* 0.25, 0.5 or 0.75 .* got 0.4"),
        ("running_cell", 0.5, (8, 7, 14), "running_cell .* even grid .* got 7 x 14"),
        ("running_cell", 0.5, (8, 14, 7), "running_cell .* even grid .* got 14 x 7"),
        ("tubes", 0.9, GRID, "kind must be one of tube, random, frame, running_cell, got 'tubes'"),
    ],
)
def test_unusable_mask_says_what_is_valid(kind, ratio, grid, message):
    with pytest.raises(ValueError, match=message):
        Mask(kind, ratio, grid)


def test_decoder_mask_chooses_what_the_decoder_works_on():
    masking = Masking("tube", 0.9, "running_cell", 0.75, GRID)
    ids = draw(masking, 16)
    assert ids.visible.shape == (16, 160)
    assert ids.masked.shape == (16, masking.num_decoded) == (16, 392)
    decoded = np.asarray(mask_from_ids(ids.masked, 1568)).reshape(16, 8, 196)
    starts = [~slow_running_cell(GRID, 0.75, start) for start in range(4)]
    assert all(any((clip == start).all() for start in starts) for clip in decoded)


def test_the_two_masks_of_a_clip_are_independent():
    ids = draw(Masking("tube", 0.5, "tube", 0.5, (1, 4, 4)), 4000)
    visible, decoded = (np.asarray(mask_from_ids(part, 16)) for part in ids)
    both = (visible & decoded).mean(axis=0)
    assert abs(both - 0.25).max() < 5 * (0.25 * 0.75 / 4000) ** 0.5


def test_masking_checks_both_masks_at_once():
    with pytest.raises(ValueError, match="tube .* got 1.0"):
        Masking("tube", 1.0, "none", 0, GRID)
    with pytest.raises(ValueError, match="running_cell .* got 0.6"):
        Masking("tube", 0.9, "running_cell", 0.6, GRID)


def test_decoder_ratio_without_a_decoder_mask_is_an_error():
    with pytest.raises(ValueError, match="decoder_ratio=0.5 needs a decoder_kind"):
        Masking("tube", 0.9, "none", 0.5, GRID)


def resolve(bool_masked_pos=None, visible_ids=None, masked_ids=None):
    return resolve_mask(bool_masked_pos, visible_ids, masked_ids, batch=2, num_patches=4)


MASK = np.array([[True, False, True, True], [True, True, True, False]])
VISIBLE, MASKED = np.array([[1], [3]]), np.array([[0, 2, 3], [0, 1, 2]])


@pytest.mark.parametrize("form", [np.asarray, jnp.asarray, np.ndarray.tolist], ids=["numpy", "jax", "list"])
def test_bool_mask_resolves_to_its_ids(form):
    visible, masked = resolve(form(MASK))
    np.testing.assert_array_equal(visible, VISIBLE)
    np.testing.assert_array_equal(masked, MASKED)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64], ids=str)
def test_a_mask_of_zeros_and_ones_resolves_to_its_ids(dtype):
    np.testing.assert_array_equal(resolve(MASK.astype(dtype)).masked, MASKED)


@pytest.mark.parametrize("form", [np.asarray, np.int8, jnp.asarray, np.ndarray.tolist], ids=lambda f: f.__name__)
def test_ids_resolve_to_themselves(form):
    visible, masked = resolve(visible_ids=form(VISIBLE), masked_ids=form(MASKED))
    assert visible.dtype == masked.dtype == np.int32
    np.testing.assert_array_equal(visible, VISIBLE)
    np.testing.assert_array_equal(masked, MASKED)


def test_no_mask_resolves_to_none():
    assert resolve() is None


def test_ids_resolve_under_jit():
    visible, masked = jax.jit(lambda visible, masked: resolve(None, visible, masked))(VISIBLE, MASKED)
    np.testing.assert_array_equal(visible, VISIBLE)
    np.testing.assert_array_equal(masked, MASKED)


def test_bool_mask_under_jit_says_what_to_pass():
    with pytest.raises(ValueError, match="under jit.* pass visible_ids and masked_ids"):
        jax.jit(resolve)(MASK)


def test_constant_bool_mask_under_jit_is_concrete_enough():
    masked = jax.jit(lambda offset: resolve(MASK).masked + offset)(1)
    np.testing.assert_array_equal(masked, MASKED + 1)


@pytest.mark.parametrize(
    "given_mask, message",
    [
        (dict(bool_masked_pos=np.eye(4, dtype=bool)[:2] | [[False] * 4, [True] * 4]), r"same number .* hides \[1, 4\]"),
        (dict(bool_masked_pos=MASK[:1]), r"\[B, N\] = \[2, 4\], got \[1, 4\]"),
        (dict(bool_masked_pos=MASK[:, :3]), r"\[B, N\] = \[2, 4\], got \[2, 3\]"),
        (dict(bool_masked_pos=MASK, visible_ids=VISIBLE, masked_ids=MASKED), "either .* not both"),
        (dict(bool_masked_pos=MASK, masked_ids=MASKED), "either .* not both"),
        (dict(visible_ids=VISIBLE), "only one of them"),
        (dict(masked_ids=MASKED), "only one of them"),
        (dict(visible_ids=VISIBLE[:1], masked_ids=MASKED), r"visible_ids .* B = 2 clips, got \[1, 1\]"),
        (dict(visible_ids=VISIBLE, masked_ids=MASKED[0]), r"masked_ids .* B = 2 clips, got \[3\]"),
        (dict(visible_ids=VISIBLE, masked_ids=MASKED + 1), r"masked_ids must be in \[0, 3\], got 1 to 4"),
        (
            dict(visible_ids=jnp.asarray(VISIBLE) - 2, masked_ids=MASKED),
            r"visible_ids must be in \[0, 3\], got -1 to 1",
        ),
        (dict(bool_masked_pos=MASK.astype(np.float32)), "must be bool, or integers that are 0 .* 1 .*; got float32"),
        (dict(bool_masked_pos=MASKED), "must be bool, or integers that are 0 .* 1 .*; got int64 of 0 to 3"),
        (dict(visible_ids=VISIBLE, masked_ids=MASKED.astype(float)), "masked_ids must be integers, got float64"),
        (dict(visible_ids=~MASK, masked_ids=MASK), "visible_ids must be integers, got bool. .* as bool_masked_pos"),
        (dict(bool_masked_pos=np.ones((2, 4), bool)), "hides every token"),
        (dict(visible_ids=VISIBLE[:, :0], masked_ids=MASKED), "hides every token"),
    ],
)
def test_unusable_mask_of_a_caller_is_an_error(given_mask, message):
    with pytest.raises(ValueError, match=message):
        resolve(**given_mask)
