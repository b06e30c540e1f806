import dataclasses

import numpy as np
import pytest
import torch
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.videomae.modeling_videomae import get_sinusoid_encoding_table

from videomae_jax import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEModel
from videomae_jax.model.positions import position_table, resample

pytestmark = pytest.mark.usefixtures("quick_compilation")
GRID, DIM = (3, 4, 5), 64
TIME, HEIGHT, WIDTH = slice(0, 16), slice(16, 40), slice(40, 64)  # a quarter of the columns, and twice three eighths


@pytest.fixture
def table() -> np.ndarray:
    """The `sincos_3d` table as [t, h, w, D]."""
    return position_table("sincos_3d", GRID, DIM).reshape(*GRID, DIM)


@pytest.mark.parametrize("grid, dim", [((8, 14, 14), 96), ((2, 2, 3), 8), ((1, 1, 1), 2)])
def test_sincos_1d_is_transformers_table(grid, dim):
    theirs = get_sinusoid_encoding_table(np.prod(grid), dim)[0].numpy()
    np.testing.assert_array_equal(position_table("sincos_1d", grid, dim), theirs)


@given(st.integers(0, 97), st.integers(0, 47))
def test_sincos_1d_is_the_formula_of_the_flat_index(position, column):
    angle = position / 10000 ** (2 * (column // 2) / 48)
    expected = np.cos(angle) if column % 2 else np.sin(angle)
    assert position_table("sincos_1d", (2, 7, 7), 48)[position, column] == np.float32(expected)


@pytest.mark.parametrize("kind", ["sincos_1d", "sincos_3d"])
def test_tables_are_fp32(kind):
    table = position_table(kind, GRID, DIM)
    assert table.dtype == np.float32
    assert table.shape == (60, DIM)


def test_sincos_3d_is_separable(table):
    np.testing.assert_array_equal(table[..., TIME], np.broadcast_to(table[:, :1, :1, TIME], (*GRID, 16)))
    np.testing.assert_array_equal(table[..., HEIGHT], np.broadcast_to(table[:1, :, :1, HEIGHT], (*GRID, 24)))
    np.testing.assert_array_equal(table[..., WIDTH], np.broadcast_to(table[:1, :1, :, WIDTH], (*GRID, 24)))


@pytest.mark.parametrize("axis, columns", [(0, TIME), (1, HEIGHT), (2, WIDTH)])
def test_sincos_3d_encodes_each_axis_as_transformers_encodes_an_index(table, axis, columns):
    along = np.moveaxis(table, axis, 0)[:, 0, 0, columns]
    theirs = get_sinusoid_encoding_table(GRID[axis], along.shape[1])[0].numpy()
    np.testing.assert_array_equal(along, theirs)


def test_sincos_3d_tells_all_tokens_apart(table):
    assert len(np.unique(table.reshape(-1, DIM), axis=0)) == 60


def test_sincos_3d_makes_neighbours_in_every_direction_alike():
    """What it is for: the published table makes only neighbours along w alike."""

    def likeness(kind):
        table = position_table(kind, (8, 14, 14), 384).reshape(8, 14, 14, 384)
        far = np.mean(table[0, 0, 0] * table[4, 7, 7])
        here = table[3, 6, 6]
        return [float(np.mean(here * table[place]) - far) for place in ((4, 6, 6), (3, 7, 6), (3, 6, 7))]

    assert min(likeness("sincos_3d")) > 0.1
    assert min(likeness("sincos_1d")) < 0.1


@pytest.mark.parametrize("dim", [8, 24, 100])
def test_sincos_3d_refuses_widths_it_cannot_split(dim):
    with pytest.raises(ValueError, match=f"multiple of 16, got {dim}"):
        position_table("sincos_3d", GRID, dim)


def torchs(table, grid):
    """A [t, h, w, D] table on another grid: torch's bicubic in space, then its linear in time."""
    t, h, w = grid
    x = torch.tensor(table).permute(0, 3, 1, 2)  # [t D h w]
    x = torch.nn.functional.interpolate(x, size=(h, w), mode="bicubic", align_corners=False)
    x = x.permute(2, 3, 1, 0).reshape(h * w, -1, len(table))  # [hw D t]
    x = torch.nn.functional.interpolate(x, size=t, mode="linear", align_corners=False)
    return x.reshape(h, w, -1, t).permute(3, 0, 1, 2).numpy()


GRIDS = {
    "finer_in_all": (5, 7, 9),
    "twice_in_space": (3, 8, 10),
    "space": (3, 11, 10),
    "time": (8, 4, 5),
    "height": (3, 6, 5),
    "width": (3, 4, 3),
    "coarser_in_all": (2, 3, 3),
    "one_token": (1, 1, 1),
    "a_wide_one": (2, 2, 13),
}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_resampling_is_torchs(grid):
    table = np.random.default_rng(0).normal(size=(*GRID, 6))
    np.testing.assert_allclose(resample(table, grid), torchs(table, grid), rtol=0, atol=1e-12)


@pytest.mark.parametrize("native", [(1, 1, 1), (1, 2, 1), (2, 1, 3)])
def test_resampling_of_the_smallest_grids_is_torchs(native):
    table = np.random.default_rng(0).normal(size=(*native, 6))
    np.testing.assert_allclose(resample(table, (3, 4, 2)), torchs(table, (3, 4, 2)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["sincos_1d", "sincos_3d"])
def test_tables_are_resampled_before_they_are_rounded(kind):
    native = position_table(kind, GRID, DIM).reshape(*GRID, DIM)
    table = position_table(kind, (4, 6, 6), DIM, native=GRID)
    assert table.shape == (144, DIM) and table.dtype == np.float32
    np.testing.assert_allclose(table.reshape(4, 6, 6, DIM), torchs(native, (4, 6, 6)), atol=1e-6)


@pytest.mark.parametrize("kind", ["sincos_1d", "sincos_3d"])
def test_the_native_grid_keeps_its_table_to_the_bit(kind):
    np.testing.assert_array_equal(position_table(kind, GRID, DIM, native=GRID), position_table(kind, GRID, DIM))


sides = st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 6))


@given(sides, sides, st.floats(-3, 3))
def test_a_constant_table_stays_constant(native, grid, value):
    np.testing.assert_allclose(resample(np.full((*native, 1), value), grid), value, atol=1e-12)


@given(st.integers(1, 8), st.integers(1, 20))
def test_what_is_linear_in_time_stays_so_between_the_first_frame_and_the_last(native, frames):
    table = np.arange(native, dtype=float).reshape(native, 1, 1, 1)
    expected = np.clip((np.arange(frames) + 0.5) * native / frames - 0.5, 0, native - 1)
    np.testing.assert_allclose(resample(table, (frames, 1, 1)).ravel(), expected, atol=1e-12)


@given(sides, sides, st.integers(0, 99))
def test_height_and_width_are_alike(native, grid, seed):
    table = np.random.default_rng(seed).normal(size=(*native, 2))
    turned = resample(table.swapaxes(1, 2), (grid[0], grid[2], grid[1]))
    np.testing.assert_allclose(turned.swapaxes(1, 2), resample(table, grid), atol=1e-12)


@given(sides, sides, st.integers(0, 99), st.integers(0, 2))
def test_mirrored_tables_are_resampled_to_mirrored_ones(native, grid, seed, axis):
    table = np.random.default_rng(seed).normal(size=(*native, 2))
    mirrored = resample(np.flip(table, axis), grid)
    np.testing.assert_allclose(np.flip(mirrored, axis), resample(table, grid), atol=1e-12)


TINY = VideoMAEConfig(
    image_size=(32, 24),
    patch_size=8,
    num_frames=4,
    hidden_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=32,
    decoder_hidden_size=16,
    decoder_num_hidden_layers=1,
    decoder_num_attention_heads=2,
    decoder_intermediate_size=16,
)  # 2 x 4 x 3 tokens
BIGGER = dict(image_size=(40, 48), num_frames=6)


def positions_in(model, clip_size):
    """The positions that a model adds to its embeddings, [t, h, w, D]: black embedded is the bias."""
    states = model(np.zeros((1, *clip_size, 3), np.float32), output_hidden_states=True).hidden_states
    t, h, w = (side // patch for side, patch in zip(clip_size, TINY.patch, strict=True))
    return np.asarray(states[0] - model.embeddings.projection.bias[...]).reshape(t, h, w, -1)


@pytest.mark.parametrize("clip_size", [(4, 48, 24), (8, 32, 24)], ids=["space_as_mmaction2", "time"])
def test_the_encoder_resamples_its_table_to_the_clips(clip_size):
    model = VideoMAEModel(TINY, rngs=nnx.Rngs(0))
    native = get_sinusoid_encoding_table(24, 32)[0].numpy().reshape(2, 4, 3, 32)
    found = positions_in(model, clip_size)
    np.testing.assert_allclose(found, torchs(native, found.shape[:3]), atol=1e-5)


def test_a_model_adapted_to_a_size_is_the_model_called_on_it():
    bigger = TINY.adapt(**BIGGER)
    clips = np.random.default_rng(0).normal(size=(1, *bigger.clip_size, 3)).astype(np.float32)
    mask = np.arange(bigger.num_patches)[None] % 4 > 0
    adapted, native, fresh = (
        VideoMAEForPreTraining(config, rngs=nnx.Rngs(0))(clips, mask).logits
        for config in (bigger, TINY, dataclasses.replace(TINY, **BIGGER))
    )
    np.testing.assert_array_equal(adapted, native)
    assert abs(fresh - native).max() > 1e-2


def test_adapted_twice_is_adapted_once():
    """Back at its own size a model is what it was."""
    there_and_back = TINY.adapt(**BIGGER).adapt(image_size=TINY.image_size, num_frames=TINY.num_frames)
    assert there_and_back == TINY
    found = positions_in(VideoMAEModel(there_and_back, rngs=nnx.Rngs(0)), TINY.clip_size)
    np.testing.assert_allclose(found.reshape(24, 32), position_table("sincos_1d", TINY.grid, 32), atol=1e-6)
