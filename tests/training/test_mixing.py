import dataclasses
import functools
import math
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from videomae_jax.training.mixing import Mixing, _box, soft_targets

MIXUP, CUTMIX = Mixing(0.8, 0.0, 1.0, 0.5), Mixing(0.0, 1.0, 1.0, 0.5)
BOTH, SOMETIMES = Mixing(0.8, 1.0, 1.0, 0.5), Mixing(0.2, 3.0, 0.6, 0.3)
SIZE = (12, 20)


def timm_box(cy, cx, lam, height, width):
    """(top, bottom, left, right) of timm's `rand_bbox` about a centre."""
    cut_h, cut_w = int(height * np.sqrt(1 - lam)), int(width * np.sqrt(1 - lam))
    top, bottom = np.clip([cy - cut_h // 2, cy + cut_h // 2], 0, height)
    left, right = np.clip([cx - cut_w // 2, cx + cut_w // 2], 0, width)
    return int(top), int(bottom), int(left), int(right)


def timm_batch(video, targets, weight, lam):
    """timm's `Mixup._mix_batch` with what was drawn: a lambda for mixup, a box of zeros in `weight` for CutMix."""
    video, flipped = video.copy(), video[::-1].copy()
    if ((weight == 0) | (weight == 1)).all():
        rows, columns = np.flatnonzero((weight == 0).any(1)), np.flatnonzero((weight == 0).any(0))
        if len(rows) > 0:
            box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
            video[:, :, *box] = flipped[:, :, *box]
            lam = 1 - len(rows) * len(columns) / weight.size
    else:
        video = video * lam + flipped * (1 - lam)
    return video, targets * lam + targets[::-1] * (1 - lam)


def clips(batch, dtype="float32"):
    rng = np.random.default_rng(batch)
    video = rng.normal(size=(batch, 2, *SIZE, 3)).astype("f")
    targets = rng.dirichlet(np.ones(5), batch).astype("f")
    return jnp.asarray(video, dtype), jnp.asarray(targets)


@functools.cache
def draws(mixing):
    """Weights [6000 H W] and lambdas of as many batches."""
    draw = jax.jit(jax.vmap(lambda key: mixing._draw(key, *SIZE)))
    return tuple(np.asarray(drawn) for drawn in draw(jax.random.split(jax.random.key(7), 6000)))


def is_cut(weight):
    return ((weight == 0) | (weight == 1)).all((-2, -1))


@pytest.mark.parametrize("mixing", [MIXUP, CUTMIX])
@pytest.mark.parametrize("batch", [4, 5])
def test_batches_are_mixed_as_timms(mixing, batch):
    video, targets = clips(batch)
    mix = jax.jit(mixing)
    mixed_areas = set()
    for key in jax.random.split(jax.random.key(batch), 4):
        weight, lam = (np.asarray(drawn) for drawn in mixing._draw(key, *SIZE))
        expected_video, expected_targets = timm_batch(np.asarray(video), np.asarray(targets), weight, lam)
        mixed, mixed_targets = mix(key, video, targets)
        np.testing.assert_allclose(mixed, expected_video, atol=1e-6)
        np.testing.assert_allclose(mixed_targets, expected_targets, atol=1e-6)
        mixed_areas.add((weight < 1).sum())
    assert max(mixed_areas) > 20


def test_pixels_of_a_cut_batch_are_those_of_one_clip():
    video, targets = clips(4)
    for key in jax.random.split(jax.random.key(0), 4):
        mixed = np.asarray(CUTMIX(key, video, targets)[0])
        assert ((mixed == video) | (mixed == video[::-1])).all()


@pytest.mark.parametrize("size", [(9, 14), (16, 7)])
@pytest.mark.parametrize("lam", [0.0, 0.3, 0.75, 0.97, 1.0])
def test_boxes_are_timms_about_every_pixel_alike(size, lam):
    count = 8000
    drawn = jax.vmap(lambda key: _box(key, jnp.float32(lam), *size))(jax.random.split(jax.random.key(3), count))
    counts = Counter(box.tobytes() for box in np.asarray(drawn))
    expected = Counter()
    for centre in np.ndindex(size):
        top, bottom, left, right = timm_box(*centre, lam, *size)
        mask = np.zeros(size, bool)
        mask[top:bottom, left:right] = True
        expected[mask.tobytes()] += 1 / math.prod(size)
    assert set(counts) == set(expected)
    for box, share in expected.items():
        assert abs(counts[box] / count - share) <= 5 * math.sqrt(share / count)


def test_lambda_of_a_cut_batch_is_the_share_outside_the_box_as_cut():
    weight, lam = draws(CUTMIX)
    np.testing.assert_allclose(lam, 1 - (weight == 0).sum((1, 2)) / weight[0].size, atol=1e-6)
    at_an_edge = (weight[:, [0, -1]] == 0).any((1, 2)) | (weight[:, :, [0, -1]] == 0).any((1, 2))
    assert 1000 < at_an_edge.sum() < 6000


@pytest.mark.parametrize("mixing", [MIXUP, BOTH, SOMETIMES])
def test_lambda_of_mixup_has_the_beta_distribution(mixing):
    weight, lam = draws(mixing)
    blended = ~is_cut(weight)
    assert (weight == lam[:, None, None])[blended].all()
    assert stats.kstest(lam[blended], "beta", (mixing.mixup, mixing.mixup)).pvalue > 1e-3


@pytest.mark.parametrize("mixing", [CUTMIX, BOTH, SOMETIMES])
def test_boxes_are_as_large_as_timms(mixing):
    weight, _ = draws(mixing)
    areas = (weight == 0).sum((1, 2))
    rng = np.random.default_rng(0)
    expected = []
    for lam in rng.beta(mixing.cutmix, mixing.cutmix, 6000):
        top, bottom, left, right = timm_box(rng.integers(SIZE[0]), rng.integers(SIZE[1]), lam, *SIZE)
        expected.append((bottom - top) * (right - left))
    expected = np.array(expected)
    assert stats.ks_2samp(areas[areas > 0], expected[expected > 0]).pvalue > 1e-3


@pytest.mark.parametrize("mixing", [BOTH, SOMETIMES])
def test_shares_of_batches(mixing):
    weight, lam = draws(mixing)
    blended, cut = (~is_cut(weight)).mean(), (weight == 0).any((1, 2)).mean()
    five_errors = 5 * math.sqrt(0.25 / 6000)
    assert abs(blended - mixing.probability * (1 - mixing.switch)) <= five_errors
    # The smallest boxes are empty.
    assert -0.04 - five_errors <= cut - mixing.probability * mixing.switch <= five_errors
    assert (lam[(weight == 1).all((1, 2))] == 1).all()


@pytest.mark.parametrize("mixing", [MIXUP, CUTMIX])
def test_where_one_alone_is_on_every_batch_is_its(mixing):
    weight, _ = draws(mixing)
    assert is_cut(weight).mean() == (mixing.cutmix > 0)
    assert (weight < 1).any((1, 2)).mean() > 0.95


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("mixing", [Mixing(0.8, 1.0, 0.0, 0.5), Mixing(0.0, 0.0, 1.0, 0.5)])
def test_what_is_not_mixed_stays_to_the_bit(mixing, dtype):
    video, targets = clips(4, dtype)
    for key in jax.random.split(jax.random.key(0), 3):
        same, same_targets = jax.jit(mixing)(key, video, targets)
        assert same.dtype == video.dtype
        np.testing.assert_array_equal(same, video)
        np.testing.assert_array_equal(same_targets, targets)


def test_half_precision_is_rounded_once():
    video, targets = clips(4, "bfloat16")
    key = jax.random.key(1)
    mixed, mixed_targets = jax.jit(MIXUP)(key, video, targets)
    assert (mixed.dtype, mixed_targets.dtype) == (jnp.bfloat16, jnp.float32)
    weight, lam = (np.asarray(drawn) for drawn in MIXUP._draw(key, *SIZE))
    exact, _ = timm_batch(np.asarray(video, "f"), np.asarray(targets), weight, lam)
    # bfloat16 has 8 bits: half a unit of the last, and fp32's own rounding.
    np.testing.assert_allclose(np.asarray(mixed, "f"), exact, rtol=2**-8, atol=1e-6)


def test_the_key_decides():
    video, targets = clips(4)
    mix = jax.jit(BOTH)
    keys = jax.random.split(jax.random.key(0), 4)
    lambdas = {np.asarray(mix(key, video, targets)[1]).tobytes() for key in [*keys, *keys]}
    assert len(lambdas) == 4


mix_most = jax.jit(Mixing(0.8, 1.0, 0.9, 0.5))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 6), min_size=5, max_size=5),
    st.floats(0, 1),
    st.integers(0, 2**31 - 1),
)
def test_mixed_targets_are_distributions(labels, smoothing, seed):
    targets = soft_targets(jnp.array(labels), 7, smoothing)
    _, mixed = mix_most(jax.random.key(seed), jnp.zeros((5, 1, 4, 4, 1)), targets)
    assert (np.asarray(mixed) >= 0).all()
    np.testing.assert_allclose(mixed.sum(axis=1), 1, atol=1e-6)
    # What two opposite clips have of each class is shared anew between them.
    np.testing.assert_allclose(mixed + mixed[::-1], targets + targets[::-1], atol=1e-6)


def test_soft_targets_are_timms():
    targets = soft_targets(jnp.array([2, 0]), 4, 0.1)
    assert targets.dtype == jnp.float32
    np.testing.assert_allclose(targets, [[0.025, 0.025, 0.925, 0.025], [0.925, 0.025, 0.025, 0.025]], atol=1e-7)
    np.testing.assert_array_equal(soft_targets(jnp.array([2, 0]), 3, 0.0), [[0, 0, 1], [1, 0, 0]])


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy_of_soft_targets_is_torchs_with_smoothing(smoothing):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(6, 5)).astype("f"), rng.integers(5, size=6)
    ours = -(soft_targets(jnp.asarray(labels), 5, smoothing) * jax.nn.log_softmax(logits)).sum(axis=1).mean()
    theirs = torch.nn.functional.cross_entropy(
        torch.tensor(logits), torch.tensor(labels), label_smoothing=smoothing
    ).item()
    assert float(ours) == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize("smoothing", [-0.1, 1.1, math.nan])
def test_smoothing_is_a_share(smoothing):
    with pytest.raises(ValueError, match=rf"smoothing must be in \[0, 1\], got {smoothing}"):
        soft_targets(jnp.array([0]), 3, smoothing)


@pytest.mark.parametrize(
    "name, value, wanted",
    [
        ("mixup", -0.1, "a positive alpha, or 0"),
        ("mixup", math.inf, "a positive alpha, or 0"),
        ("cutmix", -1, "a positive alpha, or 0"),
        ("cutmix", math.nan, "a positive alpha, or 0"),
        ("probability", 1.01, r"in \[0, 1\]"),
        ("probability", -0.5, r"in \[0, 1\]"),
        ("switch", 2, r"in \[0, 1\]"),
        ("switch", math.nan, r"in \[0, 1\]"),
    ],
)
def test_numbers_out_of_range_are_errors(name, value, wanted):
    with pytest.raises(ValueError, match=f"{name} must be {wanted}.*got {value}"):
        dataclasses.replace(MIXUP, **{name: value})
