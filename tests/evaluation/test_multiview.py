import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from videomae_jax import VideoMAEConfig, VideoMAEForVideoClassification
from videomae_jax.data.clips import MultiViewClips
from videomae_jax.data.sources import VideoSource
from videomae_jax.data.video import VideoReadError, write_video
from videomae_jax.evaluation.multiview import MultiView
from videomae_jax.model.readout import pooled_features
from videomae_jax.training.mesh import batch_sharding, make_mesh

CONFIG = VideoMAEConfig.from_size(
    "tiny",
    image_size=16,
    num_frames=4,
    hidden_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=48,
    initializer_range=0.3,
    use_mean_pooling=True,
    num_labels=3,
    problem_type="single_label_classification",
)
CLIPS = MultiViewClips(CONFIG.num_frames, 1, segments=2, crops=3, image_size=CONFIG.clip_size[1:])


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Eleven videos of coloured noise, no two of them alike; video v has label v % 3, the last one none."""
    folder, rng = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    paths = tuple(str(folder / f"{index}.mp4") for index in range(11))
    for path in paths:
        blocks = rng.integers(0, 256, (16, 4, 6, 3)).repeat(8, axis=1).repeat(8, axis=2)
        write_video(path, blocks.astype(np.uint8), fps=25)
    labels = np.arange(11, dtype=np.int32) % 3
    labels[10] = -1
    return VideoSource("noise", paths, labels, ("a", "b", "c"))


def views_of(model, **changes):
    """A model's `MultiView`, its parameters, and what it reports."""
    graphdef, state = nnx.split(model)
    reports = []
    sharding = batch_sharding(make_mesh(data=8, fsdp=1, tensor=1))
    views = MultiView(graphdef, sharding, CLIPS, batch_size=8, report=reports.extend)
    return dataclasses.replace(views, **changes), nnx.to_pure_dict(state), reports


def clip_of(source, index, clips=CLIPS):
    """A video's clips, read one by one."""
    out = np.empty(clips.shape, np.uint8)
    video, _ = source.open(index)
    with video:
        clips(video, None, np.random.default_rng(0), out)
    return out


@pytest.fixture(scope="module")
def model():
    model = VideoMAEForVideoClassification(CONFIG, rngs=nnx.Rngs(0))
    model.classifier.kernel[...] *= 1e4  # so that it does tell videos apart
    return model


def test_every_video_once_in_order_with_the_mean_of_its_views_probabilities(model, source):
    views, params, reports = views_of(model)
    predictions = views.measure(params, source)
    assert (predictions.scores.shape, predictions.scores.dtype) == ((11, 3), np.float32)
    assert predictions.paths == source.paths
    np.testing.assert_array_equal(predictions.labels, source.labels)
    np.testing.assert_array_equal(predictions.num_frames, 16)
    assert predictions.readable.all()
    logits = np.stack([np.asarray(model(clip_of(source, index)).logits, np.float64) for index in range(11)])
    softmax = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(predictions.scores, softmax.mean(axis=1), rtol=0, atol=1e-5)
    of_mean_logits = np.exp(logits.mean(axis=1)) / np.exp(logits.mean(axis=1)).sum(axis=-1, keepdims=True)
    assert np.abs(softmax.mean(axis=1) - of_mean_logits).max() > 0.01  # the difference is one that would be seen
    assert not any(reports)


@pytest.mark.parametrize("batch_size", [8, 16])
@pytest.mark.parametrize("devices", [1, 8])
def test_neither_batch_nor_devices_change_anything(model, source, batch_size, devices):
    views, params, _ = views_of(model)
    wanted = views.measure(params, source)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:devices]).reshape(devices, 1, 1), ("data", "fsdp", "tensor"))
    other = dataclasses.replace(views, sharding=batch_sharding(mesh), batch_size=batch_size)
    got = other.measure(jax.device_put(params, jax.sharding.NamedSharding(mesh, jax.P())), source)
    np.testing.assert_allclose(got.scores, wanted.scores, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(got.labels, wanted.labels)


def test_several_classes_and_numbers_are_averaged_as_they_are(model, source):
    logits = np.stack([np.asarray(model(clip_of(source, index)).logits, np.float64) for index in range(11)])
    for problem_type, wanted in (
        ("multi_label_classification", 1 / (1 + np.exp(-logits))),
        ("regression", logits),
    ):
        other = VideoMAEForVideoClassification(dataclasses.replace(CONFIG, problem_type=problem_type), rngs=nnx.Rngs(0))
        views, _, _ = views_of(other)
        params = nnx.to_pure_dict(nnx.split(model)[1])
        scores = views.measure(params, source).scores
        np.testing.assert_allclose(scores, wanted.mean(axis=1), rtol=1e-5, atol=1e-5)


def test_a_part_of_the_videos_is_spread_over_the_source(model, source):
    views, params, _ = views_of(model)
    whole, some = views.measure(params, source), dataclasses.replace(views, num_videos=4).measure(params, source)
    assert some.paths == tuple(source.paths[index] for index in (0, 2, 5, 8))
    np.testing.assert_allclose(some.scores, whole.scores[[0, 2, 5, 8]], rtol=0, atol=1e-6)


def test_features_of_a_video_are_the_mean_of_its_views(model, source):
    views, params, _ = views_of(model, per_clip=pooled_features)
    clips = clip_of(source, 3)
    assert len(np.unique(clips.reshape(6, -1), axis=0)) == 6
    measured = views.measure(params, source).scores[3]
    np.testing.assert_allclose(measured, pooled_features(model, clips).mean(axis=0), rtol=0, atol=1e-5)


def test_one_program_is_compiled_for_all_batches_and_parameters(model, source):
    views, params, _ = views_of(model)
    views.measure(params, source)
    views.measure(jax.tree.map(lambda leaf: 2 * leaf, params), source)
    assert views._measure._cache_size() == 1


def test_a_broken_video_is_reported_and_keeps_its_place_and_label(model, source, tmp_path):
    (tmp_path / "broken.mp4").write_text("no video")
    paths = (*source.paths[:4], str(tmp_path / "broken.mp4"), *source.paths[5:])
    views, params, reports = views_of(model)
    predictions = views.measure(params, dataclasses.replace(source, paths=paths))
    # Twice: it is also among those that fill the last batch.
    assert {report.split("\t")[0] for report in reports if report} == {str(tmp_path / "broken.mp4")}
    np.testing.assert_array_equal(predictions.readable, np.arange(11) != 4)
    np.testing.assert_array_equal(predictions.labels, source.labels)
    assert (predictions.paths, predictions.num_frames[4]) == (paths, 0)
    wanted = views.measure(params, source).scores
    np.testing.assert_array_equal(np.delete(predictions.scores, 4, axis=0), np.delete(wanted, 4, axis=0))


def test_nothing_readable_is_an_error(model, tmp_path):
    (tmp_path / "empty.mp4").touch()
    source = VideoSource("mine", (str(tmp_path / "empty.mp4"),), np.zeros(1, np.int32), ("a",))
    views, params, _ = views_of(model)
    with pytest.raises(VideoReadError, match="mine: none of its videos can be read"):
        views.measure(params, source)
