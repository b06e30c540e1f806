"""kNN against DINO's own lines in PyTorch, and at chance and at certainty."""

import numpy as np
import pytest
import torch
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from videomae_jax import VideoMAEConfig, VideoMAEForPreTraining
from videomae_jax.data.clips import MultiViewClips
from videomae_jax.data.sources import VideoSource, open_source
from videomae_jax.data.video import write_video
from videomae_jax.evaluation.knn import CHUNK, knn_scores, vote
from videomae_jax.evaluation.multiview import MultiView
from videomae_jax.evaluation.predictions import Predictions
from videomae_jax.model.readout import pooled_features
from videomae_jax.training.mesh import batch_sharding, make_mesh

CONFIG = VideoMAEConfig.from_size(
    "tiny",
    image_size=32,
    num_frames=4,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    decoder_num_hidden_layers=1,
)


def random_bank(*, bank=50, videos=9, width=6, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    train = rng.normal(size=(bank, width)).astype(np.float32)
    return train, rng.integers(0, classes, bank), rng.normal(size=(videos, width)).astype(np.float32)


def dino(train, labels, features, classes, k, temperature):
    """eval_knn.py's vote, divided by its sum."""
    train, features = (torch.nn.functional.normalize(torch.tensor(x, dtype=torch.float64)) for x in (train, features))
    similarity, indices = (features @ train.T).topk(k)
    votes = torch.zeros(len(features), classes, dtype=torch.float64)
    votes.scatter_add_(1, torch.tensor(labels)[indices], (similarity / temperature).exp())
    return (votes / votes.sum(dim=1, keepdim=True)).numpy()


@pytest.mark.parametrize("neighbours, temperature", [(1, 0.07), (20, 0.07), (50, 0.07), (20, 1.0)])
def test_votes_are_dinos(neighbours, temperature):
    train, labels, features = random_bank(videos=CHUNK + 9)
    scores = knn_scores(train, labels, features, 4, neighbours=neighbours, temperature=temperature)
    assert (scores.shape, scores.dtype) == ((CHUNK + 9, 4), np.float32)
    np.testing.assert_allclose(scores, dino(train, labels, features, 4, neighbours, temperature), rtol=0, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), neighbours=st.sampled_from([1, 8]), temperature=st.floats(1e-4, 10))
def test_each_row_is_shares_and_lengths_do_not_count(seed, neighbours, temperature):
    train, labels, features = random_bank(seed=seed)
    scores = knn_scores(train, labels, features, 4, neighbours=neighbours, temperature=temperature)
    assert (scores >= 0).all()
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
    rng = np.random.default_rng(seed)
    longer = [x * 2.0 ** rng.integers(-20, 20, (len(x), 1)) for x in (train, features)]  # exact
    again = knn_scores(longer[0], labels, longer[1], 4, neighbours=neighbours, temperature=temperature)
    np.testing.assert_array_equal(again, scores)


def test_the_first_of_equally_near_neighbours_vote():
    train = np.repeat(np.eye(2, dtype=np.float32), [6, 6], axis=0)
    labels = np.array([3, 1, 2, 0, 0, 0] * 2)
    scores = knn_scores(train, labels, np.eye(2, dtype=np.float32), 4, neighbours=3, temperature=0.07)
    np.testing.assert_allclose(scores, [[0, 1 / 3, 1 / 3, 1 / 3]] * 2, atol=1e-6)


def test_nearer_neighbours_count_more_than_many():
    """Two at cosine 1 - 0.07 log 3 weigh less than one at 1."""
    cosine = 1 - 0.07 * np.log(3)
    other = [cosine, np.sqrt(1 - cosine**2)]
    scores = knn_scores([[1.0, 0], other, other], [0, 1, 1], [[2.0, 0]], 2, neighbours=3, temperature=0.07)
    np.testing.assert_allclose(scores, [[3 / 5, 2 / 5]], atol=1e-5)


def test_where_fewer_can_vote_than_are_asked_for_all_of_them_do():
    train, labels, features = random_bank()
    readable = np.arange(50) < 7

    def predictions(scores, labels, readable):
        names = tuple(f"{i}.mp4" for i in range(len(scores)))
        return Predictions(names, labels, scores, readable, np.full(len(scores), 16))

    bank = predictions(train, labels, readable)
    videos = predictions(features, np.zeros(9, int), np.ones(9, bool))
    voted = vote(bank, videos, 4, neighbours=20, temperature=0.07)
    np.testing.assert_allclose(voted.scores, dino(train[:7], labels[:7], features, 4, 7, 0.07), atol=1e-5)


def test_videos_without_a_label_do_not_vote():
    train, labels, features = random_bank()
    labels[::3] = -1
    kept = labels >= 0
    scores = knn_scores(train, labels, features, 4, neighbours=20, temperature=0.07)
    wanted = knn_scores(train[kept], labels[kept], features, 4, neighbours=20, temperature=0.07)
    np.testing.assert_array_equal(scores, wanted)


def bad(value):
    train, _, _ = random_bank()
    train[7] = value
    return train


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(neighbours=51), "neighbours must be from 1 to 50, the labelled train_features, got 51"),
        (dict(neighbours=0), "neighbours must be from 1 to 50, .* got 0"),
        (dict(train_labels=np.r_[0, np.full(49, -1)], neighbours=2), "neighbours must be from 1 to 1, .* got 2"),
        (dict(train_labels=np.full(50, -1)), "none of the 50 train_features has a label"),
        (dict(train_labels=np.zeros(49, int)), r"one label for each of 50 train_features, got the shape \[49\]"),
        (dict(train_labels=np.full(50, 4)), r"train_labels must be in \[0, 3\] \(num_classes - 1\), or -1 .* got 4"),
        (dict(train_labels=np.full(50, -2)), "or -1 for none, got -2"),
        (dict(train_features=bad(0)), r"train_features must have a direction, but .* train_features\[7\] is 0.0"),
        (dict(train_features=bad(np.nan)), r"train_features\[7\] is nan"),
        (dict(train_features=bad(np.inf)), r"train_features\[7\] is inf"),
        (dict(features=np.zeros((2, 6))), r"features must have a direction, but .* features\[0\] is 0.0"),
        (dict(features=np.ones((2, 5))), r"\[bank D\] and \[V D\], got \[50, 6\] and \[2, 5\]"),
        (dict(train_features=np.ones(50), features=np.ones(9)), r"\[bank D\] and \[V D\], got \[50\] and \[9\]"),
        (dict(temperature=0.0), "temperature must be positive, got 0.0"),
        (dict(temperature=float("nan")), "temperature must be positive, got nan"),
    ],
)
def test_what_cannot_vote_is_an_error(change, message):
    train, labels, features = random_bank()
    arguments = dict(train_features=train, train_labels=labels, features=features) | dict(
        num_classes=4, neighbours=20, temperature=0.07
    )
    with pytest.raises(ValueError, match=message):
        knn_scores(**arguments | change)


@pytest.fixture(scope="module")
def encode():
    """Features and labels of a source, by a random encoder."""
    graphdef, state = nnx.split(VideoMAEForPreTraining(CONFIG, rngs=nnx.Rngs(0)))
    clips = MultiViewClips(CONFIG.num_frames, 4, 1, 1, CONFIG.clip_size[1:])
    sharding = batch_sharding(make_mesh(data=8, fsdp=1, tensor=1))
    views = MultiView(graphdef, sharding, clips, 16, lambda broken: None, pooled_features)
    return lambda source: views.measure(nnx.to_pure_dict(state), source)


def test_shuffled_labels_are_guessed_at_chance(encode, builtin_clips):
    """Features of a random encoder, and 100 times new labels, each class as likely as any other for each video."""
    train, val = open_source("builtin:train"), open_source("builtin:val")
    bank, features = encode(train).scores, encode(val).scores
    classes, rng, right = len(train.class_names), np.random.default_rng(0), 0
    for _ in range(100):
        labels, wanted = rng.integers(0, classes, len(bank)), rng.integers(0, classes, len(features))
        scores = knn_scores(bank, labels, features, classes, neighbours=20, temperature=0.07)
        right += (scores.argmax(axis=1) == wanted).sum()
    low, high = stats.binom.interval(0.999, 100 * len(features), 1 / classes)
    assert low <= right <= high


def test_separable_features_are_told_apart_without_a_mistake(encode, tmp_path):
    """Videos of three colours with a little noise, through a random encoder."""
    rng, paths = np.random.default_rng(0), []
    colours = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200]])
    labels = np.arange(30, dtype=np.int32) % 3
    for index, label in enumerate(labels):
        paths.append(str(tmp_path / f"{index}.mp4"))
        frames = colours[label] + rng.integers(-30, 30, 3) + rng.integers(-10, 10, (16, 32, 32, 3))
        write_video(paths[-1], frames.astype(np.uint8), fps=25)
    (tmp_path / "3.mp4").write_text("no video")
    (tmp_path / "22.mp4").write_text("no video")
    names = ("red", "green", "blue")
    bank = encode(VideoSource("colours", tuple(paths[:20]), labels[:20], names))
    videos = encode(VideoSource("colours", tuple(paths[20:]), labels[20:], names))
    predictions = vote(bank, videos, 3, neighbours=5, temperature=0.07)
    readable = np.arange(20, 30) != 22
    np.testing.assert_array_equal(predictions.readable, readable)
    assert predictions.scores.shape == (10, 3)
    np.testing.assert_array_equal(predictions.scores.argmax(axis=1)[readable], labels[20:][readable])
    assert (predictions.paths, predictions.labels.tolist()) == (tuple(paths[20:]), labels[20:].tolist())
