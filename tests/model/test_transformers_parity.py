"""Our models against transformers' on random weights, each loading what the other saved, over a spread of configs.

N(0, 0.3) is added to every parameter: at its initialisation alone a model hides faults, a wrong number of heads
changes its outputs by 3e-6. What the comparisons notice is tested in test_transformers_faults.py.
"""

import copy
from collections.abc import Iterator

import jax
import numpy as np
import pytest
import torch
from both_libraries import LABELS, TINY, as_torch, assert_close, inputs, noisy_theirs, ours_and_theirs
from flax import nnx

from videomae_jax import VideoMAEConfig, VideoMAEForVideoClassification, VideoMAEModel

FLAGS = dict(output_hidden_states=True, output_attentions=True)
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


@pytest.fixture(scope="module", params=CHANGES)
def config(request) -> Iterator[VideoMAEConfig]:
    """The square one is compiled as users do, the others in half the time (see `quick_compilation`)."""
    jax.clear_caches()  # which do not tell the two apart
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", request.param != "square")
    yield TINY.adapt(position_grid=None, **CHANGES[request.param])
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module")
def pretraining(config, tmp_path_factory):
    return ours_and_theirs(config, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def classification(config, tmp_path_factory):
    return ours_and_theirs(config, tmp_path_factory.mktemp("model"), VideoMAEForVideoClassification)


def assert_states_are_close(ours, theirs, depth):
    """Hidden states and attentions, of which there are as many as transformers has."""
    assert tuple(ours) == tuple(theirs)
    assert len(ours.hidden_states) == len(theirs.hidden_states) == depth + 1
    assert len(ours.attentions) == len(theirs.attentions) == depth
    for name in ("hidden_states", "attentions"):
        for mine, wanted in zip(ours[name], theirs[name], strict=True):
            assert_close(mine, wanted)


def assert_output_and_gradients_are_torchs(ours, theirs, call, expected, folder):
    """The loss, the logits, and the gradient of every parameter, none of which is zero everywhere."""
    graphdef, state = nnx.split(ours)

    @jax.jit
    def output_and_gradients(params):
        def loss(params):
            output = call(nnx.merge(graphdef, params))
            return output.loss, output

        (_, output), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        return output, gradients

    output, gradients = output_and_gradients(nnx.to_pure_dict(state))
    assert_close(output.loss, expected.loss)
    assert_close(output.logits, expected.logits)

    theirs.zero_grad()
    expected.loss.backward()
    as_weights = copy.deepcopy(theirs)  # saved so, their gradients come back under our names and in our order
    with torch.no_grad():
        for weight, parameter in zip(as_weights.parameters(), theirs.parameters(), strict=True):
            weight.copy_(parameter.grad)
    as_weights.save_pretrained(folder)
    wanted = nnx.to_pure_dict(nnx.split(type(ours).from_pretrained(folder))[1])
    assert jax.tree.structure(gradients) == jax.tree.structure(wanted)
    for (path, mine), gradient in zip(jax.tree.leaves_with_path(gradients), jax.tree.leaves(wanted), strict=True):
        assert abs(gradient).max() > 0, path
        np.testing.assert_allclose(mine, gradient, rtol=0, atol=1e-4 * abs(gradient).max(), err_msg=str(path))


def test_config_is_read_as_it_was(config, pretraining, classification):
    assert pretraining[0].config == classification[0].config == config


def test_pretraining_predicts_the_same_from_the_same_states(config, pretraining):
    ours, theirs = pretraining
    clips, mask = inputs(config)
    output, expected = ours(clips, mask, **FLAGS), theirs(*as_torch(clips, mask), **FLAGS)
    assert_states_are_close(output, expected, config.num_hidden_layers)
    assert_close(output.logits, expected.logits)
    assert_close(output.loss, expected.loss)


def test_gradients_of_the_pretraining_loss_are_torchs(config, pretraining, tmp_path):
    ours, theirs = pretraining
    clips, mask = inputs(config)
    visible, masked = np.stack([np.flatnonzero(~row) for row in mask]), np.stack([np.flatnonzero(row) for row in mask])
    assert_output_and_gradients_are_torchs(
        ours,
        theirs,
        lambda model: model(clips, visible_ids=visible, masked_ids=masked),
        theirs(*as_torch(clips, mask)),
        tmp_path,
    )


def test_the_encoder_sees_the_same_in_every_layer(config, pretraining):
    ours, theirs = pretraining
    clips, _ = inputs(config)
    output, expected = ours.videomae(clips, **FLAGS), theirs.videomae(as_torch(clips), **FLAGS)
    assert_states_are_close(output, expected, config.num_hidden_layers)
    assert_close(output.last_hidden_state, expected.last_hidden_state)


def test_classification_scores_the_same_from_the_same_states(config, classification):
    ours, theirs = classification
    clips, _ = inputs(config, batch=3)
    output, expected = ours(clips, LABELS, **FLAGS), theirs(as_torch(clips), torch.tensor(LABELS), **FLAGS)
    assert_states_are_close(output, expected, config.num_hidden_layers)
    assert_close(output.logits, expected.logits)
    assert_close(output.loss, expected.loss)


@pytest.mark.parametrize("config", ["square", "first_token_without_query_and_value_biases"], indirect=True)
def test_gradients_of_the_classification_loss_are_torchs(config, classification, tmp_path):
    ours, theirs = classification
    clips, _ = inputs(config, batch=3)
    expected = theirs(as_torch(clips), torch.tensor(LABELS))
    assert_output_and_gradients_are_torchs(ours, theirs, lambda model: model(clips, LABELS), expected, tmp_path)


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
