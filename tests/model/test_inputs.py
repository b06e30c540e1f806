import jax.numpy as jnp
import numpy as np
import pytest
import torch

from videomae_jax import VideoMAEConfig
from videomae_jax.model.inputs import clip_grid

CONFIG = VideoMAEConfig(image_size=32, patch_size=(8, 4), num_frames=8)


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, jnp.bfloat16, np.float32, np.float64], ids=str)
def test_clips_of_any_size_that_the_patch_divides_have_a_grid(dtype):
    assert clip_grid(CONFIG, np.zeros((2, 8, 32, 32, 3), dtype)) == (4, 4, 8) == CONFIG.grid
    assert clip_grid(CONFIG, np.zeros((1, 2, 40, 4, 3), dtype)) == (1, 5, 1)
    assert clip_grid(CONFIG, jnp.zeros((1, 2, 40, 4, 3), jnp.uint8)) == (1, 5, 1)


SIDES = {
    "frames": ((2, 7, 32, 32, 3), "frames, 7, must be a multiple of the patch's 2, for example 6 or 8"),
    "height": ((2, 8, 30, 32, 3), "height, 30, must be a multiple of the patch's 8, for example 24 or 32"),
    "width": ((2, 8, 32, 33, 3), "width, 33, must be a multiple of the patch's 4, for example 32 or 36"),
    "small": ((2, 8, 32, 3, 3), "width, 3, must be a multiple of the patch's 4, for example 4;"),
    "empty": ((2, 0, 32, 32, 3), "frames, 0, must be a multiple of the patch's 2, for example 2;"),
}


@pytest.mark.parametrize("shape, message", SIDES.values(), ids=SIDES)
def test_a_side_that_the_patch_does_not_divide_is_an_error_that_says_what_would_do(shape, message):
    with pytest.raises(ValueError) as error:
        clip_grid(CONFIG, np.zeros(shape, np.uint8))
    assert message in str(error.value)
    assert str(list(shape)) in str(error.value)


def test_a_single_clip_is_told_how_to_be_a_batch():
    clip = np.zeros((8, 32, 32, 3), np.uint8)
    with pytest.raises(ValueError, match=r"\[B T H W C\], got \[8, 32, 32, 3\]. .* as pixel_values\[None\]"):
        clip_grid(CONFIG, clip)
    clip_grid(CONFIG, clip[None])


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_channels_are_an_error(channels):
    with pytest.raises(ValueError) as error:
        clip_grid(CONFIG, np.zeros((2, 8, 32, 32, channels), np.uint8))
    wanted = f"must be [B T H W C] with num_channels C = 3, got [2, 8, 32, 32, {channels}]."
    assert str(error.value) == f"pixel_values {wanted}"


@pytest.mark.parametrize("order, back", [((0, 1, 4, 2, 3), "(0, 1, 3, 4, 2)"), ((0, 4, 1, 2, 3), "(0, 2, 3, 4, 1)")])
@pytest.mark.parametrize("sides", [(8, 32, 32), (4, 16, 40)], ids=["native", "other"])
def test_channels_first_clips_are_told_how_to_be_transposed(sides, order, back):
    """transformers' order, and the original's."""
    clips = np.zeros((2, *sides, 3), np.uint8)
    with pytest.raises(ValueError) as error:
        clip_grid(CONFIG, clips.transpose(order))
    assert str(error.value).endswith(f" These look channels first; use pixel_values.transpose{back}.")
    assert clips.transpose(order).transpose(eval(back)).shape == clips.shape


@pytest.mark.parametrize("dtype", [np.int64, np.int8, bool, np.complex64], ids=str)
def test_other_numbers_than_bytes_and_floats_are_an_error(dtype):
    """Integers of 0 to 255 would otherwise be taken as normalised."""
    with pytest.raises(
        ValueError, match=r"must be uint8 in \[0, 255\], or floats normalised .*; got " + np.dtype(dtype).name
    ):
        clip_grid(CONFIG, np.zeros((2, 8, 32, 32, 3), dtype))


@pytest.mark.parametrize("clips", [[[0]], torch.zeros(2, 8, 32, 32, 3)], ids=["list", "Tensor"])
def test_what_is_no_array_is_an_error(clips):
    with pytest.raises(ValueError, match=f"must be a NumPy or JAX array, got {type(clips).__name__}"):
        clip_grid(CONFIG, clips)
