import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from videomae_jax.config import IMAGENET_MEAN, IMAGENET_STD
from videomae_jax.model.patches import normalize, patchify, pixel_targets, unit_pixels, unpatchify

sides = st.integers(1, 3)
triples = st.tuples(sides, sides, sides)


def numbered_clips(batch, grid, patch, channels):
    """Clips in which every number occurs once."""
    shape = (batch, *(n * p for n, p in zip(grid, patch, strict=True)), channels)
    return np.arange(np.prod(shape), dtype=np.int32).reshape(shape)


def rgb_clips(seed, batch=2):
    return np.random.default_rng(seed).integers(0, 256, (batch, 4, 8, 12, 3), np.uint8)


def normalized(clips):
    return (clips / np.float32(255) - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_STD)


@given(st.integers(1, 2), triples, triples, st.integers(1, 4))
def test_unpatchify_undoes_patchify(batch, grid, patch, channels):
    clips = numbered_clips(batch, grid, patch, channels)
    np.testing.assert_array_equal(unpatchify(patchify(clips, patch), patch, grid), clips)


@given(st.integers(1, 2), triples, triples, st.integers(1, 4))
def test_patchify_is_the_slow_loop(batch, grid, patch, channels):
    """`(t h w) (u p q c)`: t the slowest of the token's axes, the channel the fastest of its numbers'."""
    clips = numbered_clips(batch, grid, patch, channels)
    (t, h, w), (u, p, q) = grid, patch
    tokens = [
        clips[:, i * u : (i + 1) * u, j * p : (j + 1) * p, k * q : (k + 1) * q].reshape(batch, -1)
        for i in range(t)
        for j in range(h)
        for k in range(w)
    ]
    np.testing.assert_array_equal(patchify(clips, patch), np.stack(tokens, axis=1))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 2), st.integers(0, 100))
def test_a_linear_map_of_patches_is_torchs_strided_convolution(spatial, tubelet, seed):
    patch = (tubelet, spatial, spatial)
    rng = np.random.default_rng(seed)
    clips = rng.normal(size=(2, 2 * tubelet, 2 * spatial, 3 * spatial, 3))
    weight = rng.normal(size=(5, 3, *patch))
    theirs = torch.nn.functional.conv3d(
        torch.from_numpy(clips).permute(0, 4, 1, 2, 3), torch.from_numpy(weight), stride=patch
    )
    kernel = weight.transpose(2, 3, 4, 1, 0).reshape(-1, 5)
    ours = patchify(clips, patch) @ kernel
    np.testing.assert_allclose(ours, theirs.flatten(2).transpose(1, 2).numpy(), atol=1e-12)


def test_patchify_keeps_uint8():
    assert patchify(jnp.asarray(rgb_clips(0)), (2, 4, 4)).dtype == jnp.uint8


@pytest.mark.parametrize("seed", range(3))
def test_uint8_is_normalised_as_floats_were(seed):
    clips = rgb_clips(seed)
    ours = normalize(patchify(jnp.asarray(clips), (2, 4, 4)), IMAGENET_MEAN, IMAGENET_STD)
    np.testing.assert_allclose(ours, patchify(normalized(clips), (2, 4, 4)), atol=1e-6)


def test_floats_are_taken_as_normalised():
    patches = patchify(jnp.asarray(normalized(rgb_clips(0))), (2, 4, 4))
    np.testing.assert_array_equal(normalize(patches, IMAGENET_MEAN, IMAGENET_STD), patches)


def test_unit_pixels_of_uint8_and_of_normalised_floats_are_the_clip():
    clips = rgb_clips(1)
    expected = patchify(clips / np.float32(255), (2, 4, 4))
    for given_clips in (clips, normalized(clips)):
        pixels = unit_pixels(patchify(jnp.asarray(given_clips), (2, 4, 4)), IMAGENET_MEAN, IMAGENET_STD)
        assert pixels.dtype == jnp.float32
        np.testing.assert_allclose(pixels, expected, atol=1e-6)


def oracle_targets(clip, patch):
    """The paper's normalised targets of one clip in [0, 1]: every cube and channel by its own mean and deviation."""
    u, p, q = patch
    tokens = []
    for frame in range(0, clip.shape[0], u):
        for row in range(0, clip.shape[1], p):
            for column in range(0, clip.shape[2], q):
                cube = clip[frame : frame + u, row : row + p, column : column + q].astype(np.float64)
                mean = cube.mean(axis=(0, 1, 2))
                variance = ((cube - mean) ** 2).sum(axis=(0, 1, 2)) / (u * p * q - 1)
                tokens.append(((cube - mean) / (np.sqrt(variance) + 1e-6)).ravel())
    return np.stack(tokens)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("patch", [(2, 4, 4), (1, 2, 3)])
def test_normalised_targets_are_the_papers(patch, channels):
    clips = np.random.default_rng(0).random((2, 4, 8, 12, channels), np.float32)
    ours = pixel_targets(patchify(jnp.asarray(clips), patch), channels, norm_pix=True)
    np.testing.assert_allclose(ours, np.stack([oracle_targets(clip, patch) for clip in clips]), atol=1e-5)


def test_eps_of_the_targets_is_added_to_the_deviation():
    """Where a cube is nearly flat it decides: here the deviation is 1e-6 and the two ways differ by half."""
    pixels = np.float32(1e-6) * np.float32([-1, 0, 1])[None, None]
    ours = pixel_targets(jnp.asarray(pixels), 1, norm_pix=True)
    np.testing.assert_allclose(ours[0, 0], [-0.5, 0, 0.5], atol=1e-3)


def test_flat_cube_has_target_zero():
    """Half is exact in fp32, so nothing is left that 1e-6 could magnify."""
    np.testing.assert_array_equal(pixel_targets(jnp.full((1, 2, 24), 0.5), 3, norm_pix=True), np.zeros((1, 2, 24)))


def test_raw_targets_are_the_pixels():
    pixels = jnp.asarray(np.random.default_rng(0).random((2, 3, 24), np.float32))
    np.testing.assert_array_equal(pixel_targets(pixels, 3, norm_pix=False), pixels)
