import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from videomae_jax import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEForVideoClassification, VideoMAEModel
from videomae_jax.config import IMAGENET_MEAN, IMAGENET_STD
from videomae_jax.model.masking import Masking, mask_from_ids
from videomae_jax.model.patches import patchify

pytestmark = pytest.mark.usefixtures("quick_compilation")
TINY = VideoMAEConfig(
    image_size=32,
    patch_size=8,
    num_frames=8,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    decoder_hidden_size=16,
    decoder_num_hidden_layers=2,
    decoder_num_attention_heads=2,
    decoder_intermediate_size=32,
)  # 4 x 4 x 4 tokens


def pretraining_model(dtype=jnp.float32, **changes):
    return VideoMAEForPreTraining(dataclasses.replace(TINY, **changes), dtype=dtype, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def model() -> VideoMAEForPreTraining:
    return pretraining_model()


@pytest.fixture(scope="module")
def clips() -> np.ndarray:
    """Two clips of noise around their own colour, uint8."""
    rng = np.random.default_rng(0)
    colours = rng.integers(60, 190, (2, 1, 1, 1, 3))
    return (colours + rng.integers(-60, 60, (2, *TINY.clip_size, 3))).astype(np.uint8)


@pytest.fixture(scope="module")
def ids():
    """Tube 0.75: 16 visible and 48 masked tokens."""
    return Masking("tube", 0.75, "none", 0, TINY.grid)(jax.random.split(jax.random.key(0), 2))


@pytest.fixture(scope="module")
def dual_ids():
    """The tube's 16 visible tokens, and the 32 that V2's decoder works on."""
    return Masking("tube", 0.75, "running_cell", 0.5, TINY.grid)(jax.random.split(jax.random.key(0), 2))


def normalized(clips):
    return (clips / np.float32(255) - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_STD)


def token_cubes(clips):
    """[B, t, h, w, frames, height, width, C] in float64 and in [0, 1]."""
    B, (t, h, w), (u, p, q) = len(clips), TINY.grid, TINY.patch
    return (clips / 255).reshape(B, t, u, h, p, w, q, -1).transpose(0, 1, 3, 5, 2, 4, 6, 7)


def oracle_errors(clips, logits, decoded, norm_pix=True):
    """Each decoded token's squared error, from the paper's definition of its target, [B, M]."""
    cubes = token_cubes(clips)
    if norm_pix:
        inside = (4, 5, 6)  # every channel by itself
        deviation = cubes.std(axis=inside, keepdims=True, ddof=1)
        cubes = (cubes - cubes.mean(axis=inside, keepdims=True)) / (deviation + 1e-6)
    targets = cubes.reshape(len(clips), TINY.num_patches, -1)
    targets = np.stack([clip[tokens] for clip, tokens in zip(targets, decoded, strict=True)])
    return ((np.asarray(logits, np.float64) - targets) ** 2).mean(axis=-1)


def change_tokens(clips, hidden):
    """The clips with the pixels of tokens replaced where `hidden` [B, N] is True."""
    cubes = (255 * token_cubes(clips)).round().astype(np.uint8)
    where = np.asarray(hidden).reshape(*cubes.shape[:4], 1, 1, 1, 1)
    changed = np.where(where, 255 - cubes[:, ::-1, :, :, :, ::-1], cubes)
    return changed.transpose(0, 1, 4, 2, 5, 3, 6, 7).reshape(clips.shape)


@contextlib.contextmanager
def compilations():
    """A list with an entry for every program that XLA compiles meanwhile."""
    compiled = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_logits_are_the_masked_tokens_numbers(model, clips, ids):
    output = model(clips, visible_ids=ids.visible, masked_ids=ids.masked)
    assert output.logits.shape == (2, 48, 2 * 8 * 8 * 3)
    assert output.loss.shape == ()


def test_encoder_keeps_visible_tokens_only(model, clips, ids):
    assert model.videomae(clips).last_hidden_state.shape == (2, 64, 32)
    visible = model.videomae(clips, visible_ids=ids.visible, masked_ids=ids.masked)
    assert visible.last_hidden_state.shape == (2, 16, 32)


def test_every_norm_has_the_eps_of_its_place():
    """They are too small for the parity tests to see."""
    eps = dict(layer_norm_eps=0.1, decoder_norm_eps=0.2, head_norm_eps=0.3)
    model = nnx.eval_shape(lambda: pretraining_model(use_mean_pooling=False, **eps))
    classifier = nnx.eval_shape(
        lambda: VideoMAEForVideoClassification(dataclasses.replace(TINY, **eps), rngs=nnx.Rngs(0))
    )
    for stack in (model.videomae.encoder, model.decoder.decoder_layers, classifier.videomae.encoder):
        assert stack.layer.layernorm_before.epsilon == stack.layer.layernorm_after.epsilon == 0.1
    assert model.videomae.layernorm.epsilon == 0.1
    assert model.decoder.norm.epsilon == 0.2
    assert classifier.fc_norm.epsilon == 0.3 and classifier.videomae.layernorm is None


@pytest.mark.parametrize("norm_pix", [True, False])
def test_loss_is_the_papers(clips, ids, norm_pix):
    model = pretraining_model(norm_pix_loss=norm_pix)
    output = model(clips, visible_ids=ids.visible, masked_ids=ids.masked)
    expected = oracle_errors(clips, output.logits, ids.masked, norm_pix).mean()
    np.testing.assert_allclose(output.loss, expected, rtol=1e-5)


def test_loss_with_a_decoder_mask_is_v2s(model, clips, dual_ids):
    """V2: sum(error * hidden[decoded]) / sum(hidden[decoded]) over the whole batch."""
    output = model(clips, visible_ids=dual_ids.visible, masked_ids=dual_ids.masked)
    hidden = ~np.asarray(mask_from_ids(dual_ids.visible, TINY.num_patches))
    counted = np.stack([clip[tokens] for clip, tokens in zip(hidden, dual_ids.masked, strict=True)])
    assert 0 < counted.sum() < counted.size  # both kinds of decoded tokens are there
    errors = oracle_errors(clips, output.logits, dual_ids.masked)
    np.testing.assert_allclose(output.loss, (errors * counted).sum() / counted.sum(), rtol=1e-5)


def test_a_decoder_mask_that_drops_nothing_hidden_gives_v1s_loss(model, clips, ids):
    """V2's code with decoder ratio 0 is V1's: what the encoder does not see is decoded."""
    everything = jnp.broadcast_to(jnp.arange(64), (2, 64))
    output = model(clips, visible_ids=ids.visible, masked_ids=everything)
    hidden = np.asarray(mask_from_ids(ids.masked, 64))
    np.testing.assert_allclose(output.loss, oracle_errors(clips, output.logits, everything)[hidden].mean(), rtol=1e-5)


def test_pixels_that_are_not_decoded_do_not_matter(model, clips, dual_ids):
    neither = ~np.asarray(mask_from_ids(dual_ids.visible, 64) | mask_from_ids(dual_ids.masked, 64))
    assert neither.any()
    before, after = (
        model(video, visible_ids=dual_ids.visible, masked_ids=dual_ids.masked)
        for video in (clips, change_tokens(clips, neither))
    )
    np.testing.assert_array_equal(after.logits, before.logits)
    np.testing.assert_array_equal(after.loss, before.loss)


def test_the_model_sees_visible_tokens_alone(model, clips, ids):
    changed = change_tokens(clips, mask_from_ids(ids.masked, 64))
    before = model(clips, visible_ids=ids.visible, masked_ids=ids.masked)
    after = model(changed, visible_ids=ids.visible, masked_ids=ids.masked)
    np.testing.assert_array_equal(after.logits, before.logits)
    assert abs(after.loss - before.loss) > 1e-3


def test_the_model_sees_every_visible_token(model, clips, ids):
    for token in (0, 15):
        one = mask_from_ids(ids.visible[:, token : token + 1], 64)
        before, after = (
            model(video, visible_ids=ids.visible, masked_ids=ids.masked).logits
            for video in (clips, change_tokens(clips, one))
        )
        assert abs(after - before).max() > 1e-4


def test_clips_of_a_batch_do_not_see_each_other(model, clips, ids):
    together = model(clips, visible_ids=ids.visible, masked_ids=ids.masked)
    alone = model(clips[1:], visible_ids=ids.visible[1:], masked_ids=ids.masked[1:])
    np.testing.assert_allclose(together.logits[1:], alone.logits, atol=1e-5)


def test_bool_mask_and_ids_are_the_same_mask(model, clips, ids):
    by_ids = model(clips, visible_ids=ids.visible, masked_ids=ids.masked)
    by_mask = model(clips, mask_from_ids(ids.masked, 64))
    np.testing.assert_array_equal(by_mask.logits, by_ids.logits)
    np.testing.assert_array_equal(by_mask.loss, by_ids.loss)


def test_uint8_clips_give_what_normalised_floats_give(model, clips, ids):
    as_bytes = model(clips, visible_ids=ids.visible, masked_ids=ids.masked)
    as_floats = model(normalized(clips), visible_ids=ids.visible, masked_ids=ids.masked)
    np.testing.assert_allclose(as_bytes.logits, as_floats.logits, atol=1e-5)
    np.testing.assert_allclose(as_bytes.loss, as_floats.loss, rtol=1e-5)


def test_position_kinds_give_different_models(clips, ids):
    one, three = (
        pretraining_model(position_embedding_type=kind)(clips, visible_ids=ids.visible, masked_ids=ids.masked).logits
        for kind in ("sincos_1d", "sincos_3d")
    )
    assert abs(one - three).max() > 1e-2


def test_second_eager_call_compiles_nothing(clips, ids):
    config = dataclasses.replace(TINY, hidden_size=48, num_hidden_layers=1)  # of its own: the first call has to compile
    model = VideoMAEForPreTraining(config, rngs=nnx.Rngs(0))
    classifier = VideoMAEForVideoClassification(config, rngs=nnx.Rngs(0))
    mask, labels = np.asarray(mask_from_ids(ids.masked, 64)), np.array([0, 1])
    calls = (
        lambda: model(clips, mask),
        lambda: model.videomae(clips, mask),
        lambda: model(clips, mask, output_hidden_states=True, key=jax.random.key(0)),
        lambda: classifier(clips),
        lambda: classifier(clips, labels, output_attentions=True),
    )
    for call in calls:
        with compilations() as first:
            call()
        assert first
        with compilations() as second:
            call()
        assert second == []


def test_another_model_of_the_same_config_compiles_nothing(model, clips, ids):
    model(clips, visible_ids=ids.visible, masked_ids=ids.masked)
    other = VideoMAEForPreTraining(TINY, rngs=nnx.Rngs(1))
    with compilations() as compiled:
        output = other(clips, visible_ids=ids.visible, masked_ids=ids.masked)
    assert compiled == []
    assert output.loss != model(clips, visible_ids=ids.visible, masked_ids=ids.masked).loss


def test_changed_parameters_count_in_the_next_call(clips, ids):
    """What is cached is the program and not its weights."""
    model = pretraining_model()
    before = model(clips, visible_ids=ids.visible, masked_ids=ids.masked).logits
    model.decoder.head.bias[...] += 1
    after = model(clips, visible_ids=ids.visible, masked_ids=ids.masked).logits
    np.testing.assert_allclose(after, before + 1, atol=1e-5)


def test_models_run_under_jit(model, clips, ids):
    def loss(clips, ids):
        return model(clips, visible_ids=ids.visible, masked_ids=ids.masked).loss

    np.testing.assert_allclose(jax.jit(loss)(clips, ids), loss(clips, ids), rtol=1e-5)


@pytest.mark.parametrize("field", ["num_hidden_layers", "decoder_num_hidden_layers"])
def test_the_program_does_not_grow_with_depth(clips, ids, field):
    def lines(depth):
        graphdef, state = nnx.split(nnx.eval_shape(lambda: pretraining_model(**{field: depth})))

        def loss(params):
            return nnx.merge(graphdef, params)(clips, visible_ids=ids.visible, masked_ids=ids.masked).loss

        return len(jax.jit(jax.grad(loss)).lower(nnx.to_pure_dict(state)).as_text().splitlines())

    assert lines(6) == lines(3)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("has_norm", [False, True])
def test_tokens_come_in_the_compute_dtype_and_all_else_in_fp32(clips, ids, dtype, has_norm):
    changes = dict(use_mean_pooling=not has_norm, num_hidden_layers=1)
    model = nnx.eval_shape(lambda: pretraining_model(dtype, **changes))
    head = nnx.eval_shape(
        lambda: VideoMAEForVideoClassification(dataclasses.replace(TINY, **changes), dtype=dtype, rngs=nnx.Rngs(0))
    )
    assert (model.videomae.layernorm is not None) == has_norm
    flags = dict(output_hidden_states=True, output_attentions=True)
    outputs = [
        jax.eval_shape(lambda: model.videomae(clips, **flags)),
        jax.eval_shape(lambda: model(clips, visible_ids=ids.visible, masked_ids=ids.masked, **flags)),
        jax.eval_shape(lambda: head(clips, np.array([0, 1]), **flags)),
    ]
    for output in outputs:
        for name, values in output.items():
            wanted = dtype if name.endswith(("hidden_state", "hidden_states")) else jnp.float32
            assert {leaf.dtype for leaf in jax.tree.leaves(values)} == {jnp.dtype(wanted)}, name


def test_parameters_of_a_bfloat16_model_are_fp32():
    state = nnx.split(nnx.eval_shape(lambda: pretraining_model(jnp.bfloat16)))[1]
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype(jnp.float32)}


def test_bfloat16_is_near_fp32(model, clips, ids):
    """bfloat16 has 8 bits: 0.4 % a rounding, and a few of them in a row."""
    exact = model(clips, visible_ids=ids.visible, masked_ids=ids.masked)
    rounded = pretraining_model(jnp.bfloat16)(clips, visible_ids=ids.visible, masked_ids=ids.masked)
    difference = jnp.std(rounded.logits - exact.logits) / jnp.std(exact.logits)
    assert 1e-4 < difference < 0.02
    np.testing.assert_allclose(rounded.loss, exact.loss, rtol=1e-2)


def test_targets_stay_fp32_in_a_bfloat16_model(clips, ids):
    output = pretraining_model(jnp.bfloat16)(clips, visible_ids=ids.visible, masked_ids=ids.masked)
    expected = oracle_errors(clips, output.logits, ids.masked).mean()
    np.testing.assert_allclose(output.loss, expected, rtol=1e-5)


def test_what_is_not_asked_for_is_not_computed(model, clips, ids):
    """All attention weights of a stack, [L B K V V], are in the program only for those who want them."""

    def program(**flags):
        def run(video):
            return model(video, visible_ids=ids.visible, masked_ids=ids.masked, **flags)

        return jax.jit(run).lower(clips).as_text()

    weights, tokens = "2x2x2x16x16x", "2x2x16x32x"  # L B K V V, L B V D
    assert weights not in program() and tokens not in program()
    assert tokens in program(output_hidden_states=True) and weights not in program(output_hidden_states=True)
    assert weights in program(output_attentions=True) and tokens not in program(output_attentions=True)


def test_asking_for_more_changes_nothing(model, clips, ids):
    plain = model(clips, visible_ids=ids.visible, masked_ids=ids.masked)
    full = model(
        clips, visible_ids=ids.visible, masked_ids=ids.masked, output_hidden_states=True, output_attentions=True
    )
    assert plain.hidden_states is None and plain.attentions is None
    np.testing.assert_allclose(full.logits, plain.logits, atol=2e-6)
    assert [x.shape for x in full.hidden_states] == 3 * [(2, 16, 32)]
    assert [x.shape for x in full.attentions] == 2 * [(2, 2, 16, 16)]
    for weights in full.attentions:
        np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-6)


@pytest.mark.parametrize("norm_pix", [True, False])
@pytest.mark.parametrize("channels", [1, 3, 7])
def test_targets_of_any_channels_are_of_the_true_pixels(channels, norm_pix):
    """From bytes, and from floats normalised with statistics of the data set's own."""
    rng = np.random.default_rng(0)
    mean, std = tuple(rng.uniform(0.3, 0.6, channels).tolist()), tuple(rng.uniform(0.1, 0.4, channels).tolist())
    statistics = dict(num_channels=channels, image_mean=mean, image_std=std)
    model = nnx.eval_shape(lambda: pretraining_model(norm_pix_loss=norm_pix, **statistics))
    pixels = rng.integers(0, 256, (2, *TINY.clip_size, channels)).astype(np.uint8)
    everything = np.tile(np.arange(64), (2, 1))
    for clips in (pixels, ((pixels / 255 - mean) / std).astype(np.float32)):
        targets = model.targets(patchify(clips, TINY.patch))
        assert oracle_errors(pixels, targets, everything, norm_pix).max() < 1e-10


def test_models_of_one_seed_are_identical_and_of_two_differ():
    first, same, other = (jax.tree.leaves(nnx.split(VideoMAEModel(TINY, rngs=nnx.Rngs(seed)))[1]) for seed in (0, 0, 1))
    assert all((a == b).all() for a, b in zip(first, same, strict=True))
    assert any((a != b).any() for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("mask", [None, np.zeros((2, 64), bool)], ids=["none", "empty"])
def test_pretraining_without_a_mask_is_an_error(model, clips, mask):
    with pytest.raises(ValueError, match="needs a mask that hides tokens: pass bool_masked_pos, or visible_ids and"):
        model(clips, mask)


def test_unusable_mask_is_an_error_of_the_call(model, clips):
    with pytest.raises(ValueError, match=r"bool_masked_pos must be \[B, N\] = \[2, 64\], got \[2, 63\]"):
        model(clips, np.ones((2, 63), bool))
    with pytest.raises(ValueError, match="only one of them was given"):
        model.videomae(clips, visible_ids=np.zeros((2, 1), int))


@pytest.mark.parametrize("call", ["pretraining", "encoder", "classification"])
def test_unusable_clips_are_an_error_of_the_call(model, ids, call):
    clips = np.zeros((2, 8, 32, 30, 3), np.uint8)
    with pytest.raises(ValueError, match="width, 30, must be a multiple of the patch's 8"):
        if call == "classification":
            VideoMAEForVideoClassification(TINY, rngs=nnx.Rngs(0))(clips)
        else:
            {"pretraining": model, "encoder": model.videomae}[call](clips, np.zeros((2, 60), bool))
