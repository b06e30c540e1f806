import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.videomae.modeling_videomae import get_sinusoid_encoding_table

from videomae_jax.model.positions import position_table

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
