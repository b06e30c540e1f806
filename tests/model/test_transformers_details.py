"""Our models against transformers' where one config shows it: problem types, activations, resampling, dropout."""

import dataclasses

import jax
import numpy as np
import pytest
import torch
from both_libraries import TINY, as_torch, assert_close, distance, inputs, noisy_theirs, ours_and_theirs
from einops import rearrange
from transformers.activations import ACT2FN

from videomae_jax import VideoMAEForPreTraining, VideoMAEForVideoClassification, VideoMAEModel
from videomae_jax.config import ACTIVATIONS
from videomae_jax.model import attention, layers
from videomae_jax.model.layers import ACTIVATION

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_an_encoder_with_a_mask_sees_the_same(tmp_path):
    ours, theirs = ours_and_theirs(TINY, tmp_path, VideoMAEModel)
    clips, mask = inputs(TINY)
    encoded = theirs(*as_torch(clips, mask)).last_hidden_state
    assert_close(ours(clips, mask).last_hidden_state, encoded)


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
