"""Classification's losses against transformers' on the same logits, and what labels may be."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from transformers.loss.loss_utils import ForSequenceClassificationLoss

from videomae_jax import VideoMAEConfig
from videomae_jax.model.losses import check_labels, classification_loss, masked_loss
from videomae_jax.model.masking import MaskIds

RNG = np.random.default_rng(0)
CONFIG = VideoMAEConfig(num_labels=5)
CLASSES = np.array([4, 0, 2, 2])
SEVERAL = (RNG.random((4, 5)) < 0.5).astype(np.float32)
NUMBERS = RNG.normal(size=(4, 5)).astype(np.float32)
LOGITS = 3 * RNG.normal(size=(4, 5)).astype(np.float32)
KINDS = {
    "classes": (CLASSES, None),
    "classes_of_int32": (CLASSES.astype(np.int32), None),
    "classes_of_which_some_do_not_count": (np.array([-100, 0, -100, 3]), None),
    "several_classes": (SEVERAL, None),
    "several_classes_softly": (RNG.random((4, 5)).astype(np.float32), None),
    "stated_classes": (CLASSES, "single_label_classification"),
    "stated_several_classes": (SEVERAL, "multi_label_classification"),
    "numbers": (NUMBERS, "regression"),
    "a_number": (NUMBERS[:, 0], None),
    "a_number_in_a_column": (NUMBERS[:, :1], None),
    "a_stated_number": (NUMBERS[:, 0], "regression"),
}


@pytest.mark.parametrize("labels, problem", KINDS.values(), ids=KINDS)
def test_loss_and_gradient_are_transformers(labels, problem):
    num_labels = 1 if labels.size == 4 and labels.dtype == np.float32 else 5
    config = VideoMAEConfig(num_labels=num_labels, problem_type=problem)
    check_labels(config, labels, batch=4)
    logits = LOGITS[:, :num_labels]
    loss, gradient = jax.value_and_grad(classification_loss, argnums=1)(config, logits, labels)
    their_logits = torch.tensor(logits, requires_grad=True)
    their_labels = torch.tensor(labels.astype(np.int64) if labels.dtype == np.int32 else labels)
    theirs = ForSequenceClassificationLoss(
        their_labels, their_logits, transformers.VideoMAEConfig(num_labels=num_labels, problem_type=problem)
    )
    theirs.backward()
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, theirs.detach(), rtol=1e-6)
    np.testing.assert_allclose(gradient, their_logits.grad, atol=1e-7)


def test_losses_of_bfloat16_logits_are_taken_in_fp32():
    logits = jnp.asarray(LOGITS, jnp.bfloat16)
    for labels in (CLASSES, SEVERAL):
        expected = classification_loss(CONFIG, logits.astype(jnp.float32), labels)
        assert classification_loss(CONFIG, logits, labels) == expected


def test_when_no_clip_counts_the_loss_is_zero():
    """torch's is NaN, which would end a run."""
    labels = np.full(4, -100)
    loss, gradient = jax.value_and_grad(classification_loss, argnums=1)(CONFIG, LOGITS, labels)
    assert loss == 0
    np.testing.assert_array_equal(gradient, 0)


def test_integers_are_numbers_where_the_problem_takes_floats():
    one = VideoMAEConfig(num_labels=1)
    stars = np.array([1, 5, 2, 3])
    check_labels(one, stars, batch=4)
    assert classification_loss(one, LOGITS[:, :1], stars) == classification_loss(one, LOGITS[:, :1], 1.0 * stars)
    several = dataclasses.replace(CONFIG, problem_type="multi_label_classification")
    for labels in (SEVERAL.astype(int), SEVERAL.astype(bool)):
        check_labels(several, labels, batch=4)
        assert classification_loss(several, LOGITS, labels) == classification_loss(several, LOGITS, SEVERAL)


ERRORS = {
    "too_few": (CLASSES[:3], {}, r"single_label_classification must have the shape \[4\], got \[3\]"),
    "a_column": (CLASSES[:, None], {}, r"must have the shape \[4\], got \[4, 1\]"),
    "integers_for_several_classes": (SEVERAL.astype(int), {}, r"got \[4, 5\]. Labels of several classes .* floats"),
    "floats_of_classes": (
        1.0 * CLASSES,
        dict(problem_type="single_label_classification"),
        "for single_label_classification must be integers, got float64",
    ),
    "floats_that_look_like_classes": (
        1.0 * CLASSES,
        {},
        r"multi_label_classification must have the shape \[4, 5\], got \[4\]",
    ),
    "too_few_classes": (SEVERAL[:, 1:], {}, r"multi_label_classification must have the shape \[4, 5\], got \[4, 4\]"),
    "numbers": (NUMBERS[:, 0], dict(problem_type="regression"), r"regression must have the shape \[4, 5\], got \[4\]"),
    "a_number": (NUMBERS, dict(num_labels=1), r"regression must have the shape \[4\] or \[4, 1\], got \[4, 5\]"),
    "a_class_too_many": (CLASSES + 1, {}, r"labels must be in \[0, 4\] \(num_labels - 1\), got 5"),
    "a_negative_class": (CLASSES - 1, {}, r"labels must be in \[0, 4\] .*, got -1"),
}


@pytest.mark.parametrize("labels, changes, message", ERRORS.values(), ids=ERRORS)
def test_unusable_labels_are_an_error(labels, changes, message):
    with pytest.raises(ValueError, match=message):
        check_labels(VideoMAEConfig(**{"num_labels": 5, **changes}), labels, batch=4)


def test_labels_under_jit_are_not_looked_at():
    jax.jit(lambda labels: check_labels(CONFIG, labels, batch=4))(CLASSES + 100)


def test_two_masks_that_leave_nothing_to_count_give_zero_and_no_nan():
    visible = np.array([[0, 3]])
    assert float(masked_loss(np.ones((1, 2), np.float32), MaskIds(visible, visible), num_patches=4)) == 0.0
