"""Faults that a model can have and still run, each of which the comparisons with transformers must notice."""

import dataclasses
from operator import attrgetter

import numpy as np
import pytest
from both_libraries import TINY, TOLERANCE, as_torch, assert_close, distance, inputs, ours_and_theirs
from einops import rearrange
from flax import nnx

from videomae_jax import VideoMAEForPreTraining, VideoMAEForVideoClassification

pytestmark = pytest.mark.usefixtures("quick_compilation")
ENCODER, DECODER = "videomae.encoder.layer", "decoder.decoder_layers.layer"


@pytest.fixture(scope="module")
def classification(tmp_path_factory):
    """Ours, what it is called with, and what transformers' model says to it."""
    ours, theirs = ours_and_theirs(TINY, tmp_path_factory.mktemp("model"), VideoMAEForVideoClassification)
    clips, _ = inputs(TINY)
    return ours, (clips,), theirs(as_torch(clips))


@pytest.fixture(scope="module")
def pretraining(tmp_path_factory):
    """The same, with a norm after the encoder. Faults are looked for in the logits: a loss of noise hides them."""
    config = dataclasses.replace(TINY, use_mean_pooling=False)
    ours, theirs = ours_and_theirs(config, tmp_path_factory.mktemp("model"))
    clips, mask = inputs(config)
    return ours, (clips, mask), theirs(*as_torch(clips, mask))


def swap_query_and_key(layer):
    def fault(model):
        kernel = attrgetter(layer)(model).attention.qkv.kernel
        kernel[...] = kernel[...][:, :, np.array([1, 0, 2])]

    return fault


def drop(name):
    def fault(model):
        parameter = attrgetter(name)(model)
        parameter[...] = 0 * parameter[...]

    return fault


def reverse(name):
    """Takes the inputs in another order."""

    def fault(model):
        parameter = attrgetter(name)(model)
        parameter[...] = parameter[...][::-1]

    return fault


def reorder_pixels(order):
    def fault(model):
        u, p, q = TINY.patch
        kernel = model.videomae.embeddings.projection.kernel
        kernel[...] = rearrange(kernel[...], f"(u p q c) d -> {order} d", u=u, p=p, q=q)

    return fault


BIASES_OF_A_BLOCK = (
    "attention.qkv.q_bias",
    "attention.qkv.v_bias",
    "attention.output.bias",
    "mlp.intermediate.bias",
    "mlp.output.bias",
    "layernorm_before.bias",
    "layernorm_after.bias",
)
CLASSIFICATION_FAULTS = {
    "query_and_key_swapped": swap_query_and_key(ENCODER),
    **{f"{name}_dropped": drop(f"{ENCODER}.{name}") for name in BIASES_OF_A_BLOCK},
    "patch_embeddings_bias_dropped": drop("videomae.embeddings.projection.bias"),
    "pooled_norms_bias_dropped": drop("fc_norm.bias"),
    "classifiers_bias_dropped": drop("classifier.bias"),
    "height_and_width_of_pixels_swapped": reorder_pixels("(u q p c)"),
    "channels_slowest": reorder_pixels("(c u p q)"),
    "frames_after_height": reorder_pixels("(p u q c)"),
}
PRETRAINING_FAULTS = {
    "query_and_key_swapped": swap_query_and_key(DECODER),
    **{f"{name}_dropped": drop(f"{DECODER}.{name}") for name in BIASES_OF_A_BLOCK},
    "encoders_norms_bias_dropped": drop("videomae.layernorm.bias"),
    "decoders_norms_bias_dropped": drop("decoder.norm.bias"),
    "heads_bias_dropped": drop("decoder.head.bias"),
    "encoder_to_decoder_reversed": reverse("encoder_to_decoder.kernel"),
    "mask_token_dropped": drop("mask_token"),
}


def assert_noticed(faulty, arguments, expected):
    assert distance(faulty(*arguments).logits, expected.logits) > 1000 * TOLERANCE


@pytest.mark.parametrize("fault", CLASSIFICATION_FAULTS.values(), ids=CLASSIFICATION_FAULTS)
def test_a_fault_of_the_classifier_is_a_thousand_tolerances(classification, fault):
    ours, arguments, expected = classification
    faulty = nnx.clone(ours)
    assert_close(faulty(*arguments).logits, expected.logits)
    fault(faulty)
    assert_noticed(faulty, arguments, expected)


@pytest.mark.parametrize("fault", PRETRAINING_FAULTS.values(), ids=PRETRAINING_FAULTS)
def test_a_fault_of_the_autoencoder_is_a_thousand_tolerances(pretraining, fault):
    ours, arguments, expected = pretraining
    faulty = nnx.clone(ours)
    assert_close(faulty(*arguments).logits, expected.logits)
    fault(faulty)
    assert_noticed(faulty, arguments, expected)


def test_another_number_of_heads_is_a_thousand_tolerances(classification, pretraining, tmp_path):
    ours, arguments, expected = classification
    ours.save_pretrained(tmp_path / "classification")
    faulty = VideoMAEForVideoClassification.from_pretrained(tmp_path / "classification", num_attention_heads=8)
    assert_noticed(faulty, arguments, expected)

    ours, arguments, expected = pretraining
    ours.save_pretrained(tmp_path / "pretraining")
    faulty = VideoMAEForPreTraining.from_pretrained(tmp_path / "pretraining", decoder_num_attention_heads=4)
    assert_noticed(faulty, arguments, expected)
