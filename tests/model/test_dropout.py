"""Dropout and drop path: their functions, their places in the models, and whose keys decide."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from videomae_jax import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEForVideoClassification
from videomae_jax.model import layers, videomae
from videomae_jax.model.dropout import clip_keys, drop_path, dropout, split_keys
from videomae_jax.model.initialisation import xavier
from videomae_jax.model.layers import Stack

pytestmark = pytest.mark.usefixtures("quick_compilation")
TINY = VideoMAEConfig(
    image_size=16,
    patch_size=8,
    num_frames=4,
    hidden_size=16,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=24,
    decoder_hidden_size=16,
    decoder_num_hidden_layers=1,
    decoder_num_attention_heads=2,
    decoder_intermediate_size=16,
    num_labels=3,
    initializer_range=0.2,
)
HOW = {"kernel_init": xavier, "dtype": jnp.float32, "remat": "none"}  # 2 x 2 x 2 tokens
RANDOM = dict(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.2, drop_path_rate=0.3, head_dropout_prob=0.4)


def keys_of(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


@pytest.fixture(scope="module")
def clips() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, *TINY.clip_size, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def classifier():
    return VideoMAEForVideoClassification(dataclasses.replace(TINY, **RANDOM), rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def plain():
    """The same parameters, and nothing random."""
    return VideoMAEForVideoClassification(TINY, rngs=nnx.Rngs(0))


def test_dropout_drops_its_share_and_keeps_the_mean():
    x = jnp.ones((8, 100, 100))
    dropped = np.asarray(dropout(x, 0.3, keys_of(8)))
    assert set(np.unique(dropped)) == {0, np.float32(1 / 0.7)}
    assert abs((dropped == 0).mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / x.size)
    shares = (dropped == 0).mean(axis=(1, 2))
    assert abs(shares - 0.3).max() < 5 * np.sqrt(0.3 * 0.7 / 1e4) and len(set(shares)) > 1


def test_drop_path_keeps_or_drops_whole_clips_and_keeps_the_mean():
    x = jnp.ones((4000, 2, 3))
    dropped = np.asarray(drop_path(x, jnp.float32(0.2), keys_of(4000)))
    assert (dropped == dropped[:, :1, :1]).all()
    np.testing.assert_allclose(np.unique(dropped), [0, 1.25], rtol=1e-6)
    assert abs(dropped.mean() - 1) < 5 * np.sqrt(0.2 / 0.8 / 4000)


@pytest.mark.parametrize("function", [dropout, drop_path])
def test_without_keys_or_at_rate_zero_nothing_happens(function):
    x = jnp.arange(12.0).reshape(3, 4)
    assert function(x, 0.5, None) is x
    np.testing.assert_array_equal(function(x, 0.0, keys_of(3)), x)


def test_dtype_stays():
    x = jnp.ones((3, 4), jnp.bfloat16)
    assert dropout(x, 0.5, keys_of(3)).dtype == drop_path(x, jnp.float32(0.5), keys_of(3)).dtype == jnp.bfloat16


def test_one_key_is_split_over_the_clips_and_keys_of_clips_are_kept():
    key = jax.random.key(3)
    assert (clip_keys(key, 4) == jax.random.split(key, 4)).all()
    assert clip_keys(jax.random.split(key, 4), 4) is not None
    assert (clip_keys(jax.random.split(key, 4), 4) == jax.random.split(key, 4)).all()
    assert clip_keys(None, 4) is None


@pytest.mark.parametrize(
    "key, message",
    [
        (keys_of(3), r"one key or one a clip, \[B\] = \[2\], got \[3\]"),
        (keys_of(2)[None], r"got \[1, 2\]"),
        (jax.random.PRNGKey(0), "made by jax.random.key, got uint32"),
        (0, "made by jax.random.key, got int"),
    ],
)
def test_other_keys_are_an_error(key, message):
    with pytest.raises(ValueError, match=message):
        clip_keys(key, 2)


def test_split_keys_differ_and_are_each_clips_own():
    one, two = split_keys(keys_of(3), 2)
    assert len(set(map(tuple, jax.random.key_data(jnp.concatenate([one, two])).tolist()))) == 6
    np.testing.assert_array_equal(jax.random.key_data(split_keys(keys_of(3)[1:], 2)[0]), jax.random.key_data(one[1:]))


def test_drop_path_rates_rise_linearly_over_the_blocks():
    def rates(depth, rate):
        config = dataclasses.replace(TINY, num_hidden_layers=depth, drop_path_rate=rate)
        return nnx.eval_shape(lambda: Stack(config, **HOW, rngs=nnx.Rngs(0)))

    np.testing.assert_allclose(rates(5, 0.2).drop_path_rates, [0, 0.05, 0.1, 0.15, 0.2], rtol=1e-6)
    np.testing.assert_array_equal(rates(1, 0.2).drop_path_rates, [0])  # as torch.linspace and timm


@pytest.fixture(scope="module")
def stack():
    """Three blocks of rates 0, 0.4 and 0.8."""
    return Stack(dataclasses.replace(TINY, drop_path_rate=0.8), **HOW, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def states(stack):
    """Copies of a clip before and after each block."""
    x = jnp.tile(jax.random.normal(jax.random.key(0), (1, 2, 16)), (3000, 1, 1))
    return jax.jit(lambda x, keys: stack(x, keys, output_hidden_states=True))(x, keys_of(3000))[1]


def test_each_branch_is_dropped_at_its_blocks_rate(states):
    """A clip passes a block unchanged when both branches are dropped."""
    for before, after, rate in zip(states[:-1], states[1:], (0, 0.4, 0.8), strict=True):
        unchanged = float((after == before).all(axis=(1, 2)).mean())
        assert abs(unchanged - rate**2) <= 5 * np.sqrt(rate**2 * (1 - rate**2) / 3000)


def test_blocks_drop_independently(states):
    unchanged = [(after == before).all(axis=(1, 2)) for before, after in zip(states[1:-1], states[2:], strict=True)]
    share = float((unchanged[0] & unchanged[1]).mean())
    expected = 0.4**2 * 0.8**2
    assert abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / 3000)


def test_the_decoder_drops_no_paths():
    config = dataclasses.replace(TINY, **RANDOM)
    model = nnx.eval_shape(lambda: VideoMAEForPreTraining(config, rngs=nnx.Rngs(0)))
    assert model.decoder.decoder_layers.drop_path_rate == 0
    assert model.videomae.encoder.drop_path_rate == 0.3


def test_kept_branches_are_divided_by_the_share_that_is_kept(stack, states):
    """In the last block each branch is there five times, or not at all."""

    @jax.jit
    def outcomes(x):
        block = jax.tree.map(lambda leaf: leaf[-1], stack.layer)
        first = x + 5 * block.attention(block.layernorm_before(x))[0]
        second, both = (y + 5 * block.mlp(block.layernorm_after(y)) for y in (x, first))
        return jnp.stack([x, first, second, both])

    before, after = states[-2:]
    distances = abs(after - outcomes(before)).max(axis=(2, 3))
    assert (distances.min(axis=0) < 1e-4).all()
    counts = np.bincount(distances.argmin(axis=0), minlength=4)
    np.testing.assert_allclose(counts / 3000, [0.64, 0.16, 0.16, 0.04], atol=0.05)


def test_without_a_key_the_rates_do_not_matter(plain, classifier, clips):
    logits = plain(clips).logits
    np.testing.assert_array_equal(classifier(clips).logits, logits)
    np.testing.assert_array_equal(plain(clips, key=jax.random.key(0)).logits, logits)
    assert abs(classifier(clips, key=jax.random.key(0)).logits - logits).max() > 1e-4


def test_a_key_decides_all(classifier, clips):
    key = jax.random.key(1)
    once, again, other, split = (
        classifier(clips, key=k).logits for k in (key, key, jax.random.key(2), jax.random.split(key, 3))
    )
    np.testing.assert_array_equal(once, again)
    np.testing.assert_array_equal(once, split)
    assert (once != other).any(axis=1).all()


def test_what_a_clip_loses_does_not_depend_on_its_batch(classifier, clips):
    keys = keys_of(3)
    together = classifier(clips, key=keys).logits
    for row in range(3):
        alone = classifier(clips[row : row + 1], key=keys[row : row + 1]).logits[0]
        np.testing.assert_allclose(alone, together[row], atol=1e-7)
    order = np.array([2, 0, 1])
    np.testing.assert_allclose(classifier(clips[order], key=keys[order]).logits, together[order], atol=1e-7)


@pytest.mark.parametrize("kind", [VideoMAEForPreTraining, VideoMAEForVideoClassification])
def test_every_key_is_used_once(monkeypatch, clips, kind):
    """To make other keys or to draw: a part of a model that goes on with another's keys would drop what that drops."""
    used = []

    def noted(function, keys_at):
        def call(*args):
            jax.debug.callback(lambda keys: used.append(np.asarray(keys)), jax.random.key_data(args[keys_at]))
            return function(*args)

        return call

    for module in (videomae, layers):
        monkeypatch.setattr(module, "split_keys", noted(split_keys, 0))
        monkeypatch.setattr(module, "dropout", noted(dropout, 2))
    monkeypatch.setattr(layers, "drop_path", noted(drop_path, 2))
    model = kind(dataclasses.replace(TINY, **RANDOM, num_hidden_layers=2), rngs=nnx.Rngs(0))
    mask = [] if kind is VideoMAEForVideoClassification else [np.tile(np.arange(8) < 4, (3, 1))]
    jax.block_until_ready(model(clips, *mask, key=keys_of(3)))
    jax.effects_barrier()
    used = np.concatenate(used)
    # Seven uses in each block (two splits, three dropouts, two paths); the model's split, each stack's, the head's.
    blocks = 3 if mask else 2
    assert len(used) == 3 * (7 * blocks + 3)
    assert len(np.unique(used, axis=0)) == len(used)


@pytest.mark.parametrize("name", RANDOM)
def test_every_rate_counts(plain, clips, name):
    model = VideoMAEForVideoClassification(dataclasses.replace(TINY, **{name: 0.5}), rngs=nnx.Rngs(0))
    assert abs(model(clips, key=jax.random.key(0)).logits - plain(clips).logits).max() > 1e-5


def test_attentions_are_those_before_dropout(classifier, clips):
    for weights in classifier(clips, output_attentions=True, key=jax.random.key(0)).attentions:
        np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-6)


def test_gradients_with_everything_random_are_finite_and_recomputed_with_the_same_keys(classifier, clips):
    """The backward pass computes each block again: with other keys its gradient would not be the loss's slope."""
    graphdef, state = nnx.split(classifier)
    params, keys = nnx.to_pure_dict(state), keys_of(3)

    @jax.jit
    @jax.value_and_grad
    def slope(params):
        return nnx.merge(graphdef, params)(clips, np.array([0, 1, 2]), key=keys).loss

    gradient = slope(params)[1]
    assert all(jnp.isfinite(leaf).all() and abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))
    step = 3e-3
    norm = jnp.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(gradient)))
    up, down = (
        slope(jax.tree.map(lambda p, g, sign=sign: p + sign * step * g / norm, params, gradient))[0] for sign in (1, -1)
    )
    np.testing.assert_allclose((up - down) / (2 * step), norm, rtol=1e-2)
