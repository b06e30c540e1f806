"""Our models against transformers' on random weights, each loading what the other saved.

N(0, 0.3) is added to every parameter: at its initialisation alone a model hides faults, a wrong number of heads
changes its outputs by 3e-6.
"""

import dataclasses

import jax
import numpy as np
import pytest
import torch
from both_libraries import TINY, as_torch, distance, inputs, noisy_theirs, ours_and_theirs
from einops import rearrange
from flax import nnx
from transformers.activations import ACT2FN

from videomae_jax import VideoMAEForPreTraining, VideoMAEForVideoClassification, VideoMAEModel
from videomae_jax.config import ACTIVATIONS
from videomae_jax.model import attention, layers
from videomae_jax.model.layers import ACTIVATION

pytestmark = pytest.mark.usefixtures("quick_compilation")
TOLERANCE = 1e-5
CHANGES = {
    "square": {},
    "rectangle_and_relu": dict(image_size=(16, 40), hidden_act="relu"),
    "norm_after_the_encoder": dict(use_mean_pooling=False, layer_norm_eps=1e-6),
    "gray": dict(num_channels=1),
    "seven_channels_in_one_layer": dict(num_channels=7, num_hidden_layers=1, decoder_num_hidden_layers=3),
    "raw_pixels_of_larger_patches": dict(norm_pix_loss=False, patch_size=16),
    "tubelets_of_one_frame_and_tanh": dict(tubelet_size=1, num_frames=3, hidden_act="gelu_new"),
    "first_token_without_query_and_value_biases": dict(qkv_bias=False, use_mean_pooling=False, num_labels=5),
    "other_heads": dict(num_attention_heads=16, decoder_num_attention_heads=1),
}
LABELS = np.array([1, -100, 2])


@pytest.fixture(scope="module", params=CHANGES.values(), ids=CHANGES)
def config(request):
    return TINY.adapt(position_grid=None, **request.param)


@pytest.fixture(scope="module")
def pretraining(config, tmp_path_factory):
    return ours_and_theirs(config, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def classification(config, tmp_path_factory):
    return ours_and_theirs(config, tmp_path_factory.mktemp("model"), VideoMAEForVideoClassification)


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory):
    """Of the plain configuration."""
    return ours_and_theirs(TINY, tmp_path_factory.mktemp("model"), VideoMAEForVideoClassification)


def assert_close(ours, theirs, tolerance=TOLERANCE):
    assert distance(ours, theirs) < tolerance


def assert_all_close(ours, theirs, depth, tolerance=TOLERANCE):
    """Hidden states and attentions, of which there are as many as transformers has."""
    assert len(ours.hidden_states) == len(theirs.hidden_states) == depth + 1
    assert len(ours.attentions) == len(theirs.attentions) == depth
    for name in ("hidden_states", "attentions"):
        for mine, wanted in zip(ours[name], theirs[name], strict=True):
            assert_close(mine, wanted, tolerance)


def test_config_is_read_as_it_was(config, pretraining, classification):
    assert pretraining[0].config == classification[0].config == config


def test_pretraining_predicts_the_same(config, pretraining):
    ours, theirs = pretraining
    clips, mask = inputs(config)
    output, expected = ours(clips, mask), theirs(*as_torch(clips, mask))
    assert_close(output.logits, expected.logits)
    assert_close(output.loss, expected.loss)


def test_the_encoder_sees_the_same_in_every_layer(config, pretraining):
    ours, theirs = pretraining
    clips, _ = inputs(config)
    flags = dict(output_hidden_states=True, output_attentions=True)
    output, expected = ours.videomae(clips, **flags), theirs.videomae(as_torch(clips), **flags)
    assert tuple(output) == tuple(expected) == ("last_hidden_state", "hidden_states", "attentions")
    assert_close(output.last_hidden_state, expected.last_hidden_state)
    assert_all_close(output, expected, config.num_hidden_layers)


def test_classification_scores_the_same(config, classification):
    ours, theirs = classification
    clips, _ = inputs(config, batch=3)
    output, expected = ours(clips, LABELS), theirs(as_torch(clips), torch.tensor(LABELS))
    assert_close(output.logits, expected.logits)
    assert_close(output.loss, expected.loss)


def test_models_with_a_mask_or_head_return_the_encoders_states(classifiers, tmp_path):
    clips, mask = inputs(TINY, batch=3)
    flags = dict(output_hidden_states=True, output_attentions=True)
    ours, theirs = ours_and_theirs(TINY, tmp_path)
    output, expected = ours(clips, mask, **flags), theirs(*as_torch(clips, mask), **flags)
    assert tuple(output) == tuple(expected) == ("loss", "logits", "hidden_states", "attentions")
    assert_all_close(output, expected, TINY.num_hidden_layers)
    assert_close(output.logits, expected.logits)
    encoded = theirs.videomae(*as_torch(clips, mask)).last_hidden_state
    assert_close(ours.videomae(clips, mask).last_hidden_state, encoded)

    ours, theirs = classifiers
    output, expected = ours(clips, **flags), theirs(as_torch(clips), **flags)
    assert tuple(output) == tuple(expected) == ("logits", "hidden_states", "attentions")
    assert_all_close(output, expected, TINY.num_hidden_layers)
    assert_close(output.logits, expected.logits)


PROBLEMS = {
    "several_classes": (None, 3, np.float32([[0, 1, 1], [1, 0, 0], [0, 0, 0.5]])),
    "numbers": ("regression", 3, np.float32([[0.2, 1, -3], [1, 0, 0.5], [2, 2, -1]])),
    "a_number": (None, 1, np.float32([0.5, -2, 3])),
}


@pytest.mark.parametrize("problem, num_labels, labels", PROBLEMS.values(), ids=PROBLEMS)
def test_losses_of_other_problems_are_the_same(tmp_path, problem, num_labels, labels):
    config = TINY.adapt(problem_type=problem, num_labels=num_labels, num_hidden_layers=1)
    ours, theirs = ours_and_theirs(config, tmp_path, VideoMAEForVideoClassification)
    clips, _ = inputs(config, batch=3)
    output, expected = ours(clips, labels), theirs(as_torch(clips), torch.tensor(labels))
    assert_close(output.logits, expected.logits)
    assert_close(output.loss, expected.loss)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_transformers(name):
    x = np.linspace(-6, 6, 101).astype(np.float32)
    np.testing.assert_allclose(ACTIVATION[name](x), ACT2FN[name](torch.tensor(x)), atol=1e-6)
    assert ACTIVATION.keys() == set(ACTIVATIONS)


def test_clips_of_another_size_are_those_of_transformers_with_resampled_tables(tmp_path):
    """transformers has no resampling: its model of the larger size gets the smaller one's tables by torch's."""
    ours, theirs = ours_and_theirs(TINY, tmp_path)
    larger = TINY.adapt(image_size=(40, 56), num_frames=6)
    theirs_larger = noisy_theirs(dataclasses.replace(larger, position_grid=None), VideoMAEForPreTraining)
    theirs_larger.load_state_dict(theirs.state_dict())

    def resampled(table):
        (t, h, w), (T, H, W) = TINY.grid, larger.grid
        x = rearrange(table, "1 (t h w) d -> t d h w", t=t, h=h, w=w)
        x = torch.nn.functional.interpolate(x, size=(H, W), mode="bicubic", align_corners=False)
        x = rearrange(x, "t d h w -> (h w) d t")
        x = torch.nn.functional.interpolate(x, size=T, mode="linear", align_corners=False)
        return rearrange(x, "(h w) d t -> 1 (t h w) d", h=H)

    theirs_larger.videomae.embeddings.position_embeddings = resampled(theirs.videomae.embeddings.position_embeddings)
    theirs_larger.position_embeddings = resampled(theirs.position_embeddings)
    clips, mask = inputs(larger)
    assert_close(ours(clips, mask).logits, theirs_larger(*as_torch(clips, mask)).logits)


def test_dropout_is_where_transformers_has_it(tmp_path, monkeypatch):
    """Random zeros cannot be compared: both libraries get a dropout that changes known numbers by its rate."""

    def pattern(size, rate):
        return 1 + rate * np.sin(np.arange(size, dtype=np.float32))

    def ours_instead(x, rate, keys):
        return x if keys is None else x * pattern(x.shape[-1], rate)

    def theirs_instead(x, p=0.5, training=True, inplace=False):
        return x * torch.tensor(pattern(x.shape[-1], p)) if training else x

    for module in (attention, layers):
        monkeypatch.setattr(module, "dropout", ours_instead, raising=module is layers)
    monkeypatch.setattr(torch.nn.functional, "dropout", theirs_instead)
    config = TINY.adapt(hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.7, num_hidden_layers=1)
    ours, theirs = ours_and_theirs(config, tmp_path)
    clips, mask = inputs(config)
    calm = theirs(*as_torch(clips, mask)).logits
    changed = theirs.train()(*as_torch(clips, mask)).logits
    assert distance(calm.detach().numpy(), changed) > 1e-2
    assert_close(ours(clips, mask, key=jax.random.key(0)).logits, changed)


def assert_transformers_loads(ours, theirs, folder):
    """What we save comes back in transformers as the model that it was, to the bit and without a word."""
    ours.save_pretrained(folder)
    again, report = type(theirs).from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    assert again.state_dict().keys() == theirs.state_dict().keys()
    for name, array in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[name], array), name
    for name in theirs.config.to_dict().keys() - {"_name_or_path", "architectures", "dtype"}:
        assert getattr(again.config, name) == getattr(theirs.config, name), name


def test_transformers_loads_what_we_save(pretraining, tmp_path):
    assert_transformers_loads(*pretraining, tmp_path)


def test_transformers_loads_a_classification_model(classification, tmp_path):
    ours, theirs = classification
    theirs.config.problem_type = None  # transformers notes there what its first labels looked like
    assert_transformers_loads(ours, theirs, tmp_path)


def test_transformers_loads_an_encoder_alone(tmp_path):
    theirs = noisy_theirs(TINY, VideoMAEModel)
    theirs.save_pretrained(tmp_path / "theirs")
    assert_transformers_loads(VideoMAEModel.from_pretrained(tmp_path / "theirs"), theirs, tmp_path / "ours")


def assert_gradients_are_torchs(kind, ours, theirs, loss, folder):
    """Of every parameter, when theirs have been computed by `backward`; none is zero everywhere."""
    with torch.no_grad():  # saved as weights, their gradients come back under our names and in our order
        for parameter in theirs.parameters():
            parameter.copy_(parameter.grad)
    theirs.save_pretrained(folder)
    expected = nnx.to_pure_dict(nnx.split(kind.from_pretrained(folder))[1])
    graphdef, state = nnx.split(ours)
    gradients = jax.jit(jax.grad(lambda params: loss(nnx.merge(graphdef, params))))(nnx.to_pure_dict(state))
    assert jax.tree.structure(gradients) == jax.tree.structure(expected)
    for (path, gradient), wanted in zip(jax.tree.leaves_with_path(gradients), jax.tree.leaves(expected), strict=True):
        assert abs(wanted).max() > 0, path
        np.testing.assert_allclose(gradient, wanted, rtol=0, atol=1e-4 * abs(wanted).max(), err_msg=str(path))


def test_gradients_of_the_pretraining_loss_are_torchs(tmp_path):
    config = dataclasses.replace(TINY, use_mean_pooling=False)
    ours, theirs = ours_and_theirs(config, tmp_path / "weights")
    clips, mask = inputs(config)
    theirs(*as_torch(clips, mask)).loss.backward()
    visible, masked = np.stack([np.flatnonzero(~row) for row in mask]), np.stack([np.flatnonzero(row) for row in mask])
    assert_gradients_are_torchs(
        VideoMAEForPreTraining,
        ours,
        theirs,
        lambda model: model(clips, visible_ids=visible, masked_ids=masked).loss,
        tmp_path / "gradients",
    )


def test_gradients_of_the_classification_loss_are_torchs(tmp_path):
    ours, theirs = ours_and_theirs(TINY, tmp_path / "weights", VideoMAEForVideoClassification)
    clips, _ = inputs(TINY, batch=3)
    theirs(as_torch(clips), torch.tensor(LABELS)).loss.backward()
    assert_gradients_are_torchs(
        VideoMAEForVideoClassification,
        ours,
        theirs,
        lambda model: model(clips, LABELS).loss,
        tmp_path / "gradients",
    )


# Faults that a model can have and still run, each of which these comparisons must notice.
def swap_query_and_key(model):
    kernel = model.videomae.encoder.layer.attention.qkv.kernel
    kernel[...] = kernel[...][:, :, np.array([1, 0, 2])]


def drop(name):
    def fault(model):
        layer = model.videomae.encoder.layer
        bias = {
            "q_bias": layer.attention.qkv.q_bias,
            "v_bias": layer.attention.qkv.v_bias,
            "output_bias": layer.attention.output.bias,
            "mlp_bias": layer.mlp.intermediate.bias,
            "patch_bias": model.videomae.embeddings.projection.bias,
        }[name]
        bias[...] = 0 * bias[...]

    return fault


def reorder_pixels(order):
    def fault(model):
        u, p, q = TINY.patch
        kernel = model.videomae.embeddings.projection.kernel
        kernel[...] = rearrange(kernel[...], f"(u p q c) d -> {order} d", u=u, p=p, q=q)

    return fault


FAULTS = {
    "query_and_key_swapped": swap_query_and_key,
    "query_bias_dropped": drop("q_bias"),
    "value_bias_dropped": drop("v_bias"),
    "attentions_output_bias_dropped": drop("output_bias"),
    "mlps_bias_dropped": drop("mlp_bias"),
    "patch_embeddings_bias_dropped": drop("patch_bias"),
    "height_and_width_of_pixels_swapped": reorder_pixels("(u q p c)"),
    "channels_slowest": reorder_pixels("(c u p q)"),
    "frames_after_height": reorder_pixels("(p u q c)"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_is_a_thousand_tolerances(classifiers, fault):
    ours, theirs = classifiers
    clips, _ = inputs(TINY, batch=3)
    expected = theirs(as_torch(clips)).logits
    faulty = nnx.clone(ours)
    assert_close(faulty(clips).logits, expected)
    fault(faulty)
    assert distance(faulty(clips).logits, expected) > 1000 * TOLERANCE


def test_another_number_of_heads_is_a_thousand_tolerances(classifiers, tmp_path):
    ours, theirs = classifiers
    clips, _ = inputs(TINY, batch=3)
    ours.save_pretrained(tmp_path)
    faulty = VideoMAEForVideoClassification.from_pretrained(tmp_path, num_attention_heads=8)
    assert distance(faulty(clips).logits, theirs(as_torch(clips)).logits) > 1000 * TOLERANCE
