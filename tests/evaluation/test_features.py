import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from videomae_jax import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEForVideoClassification, VideoMAEModel
from videomae_jax.data.clips import CenterClip, MultiViewClips
from videomae_jax.data.sources import VideoSource
from videomae_jax.data.video import VideoReadError, write_video
from videomae_jax.evaluation.features import Features, pooled_features
from videomae_jax.training.mesh import batch_sharding, make_mesh

CONFIG = VideoMAEConfig.from_size(
    "tiny",
    image_size=16,
    num_frames=4,
    hidden_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=48,
    decoder_num_hidden_layers=1,
    initializer_range=0.3,
)
CLIPS = CenterClip(CONFIG.num_frames, 1, CONFIG.clip_size[1:])


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


def features_of(model, *, clips=CLIPS, batch_size=8, num_videos=11):
    """A model's `Features`, its parameters, and what it reports."""
    graphdef, state = nnx.split(model)
    reports = []
    features = Features(
        graphdef,
        batch_sharding(make_mesh(data=8, fsdp=1, tensor=1)),
        clips,
        batch_size=batch_size,
        num_videos=num_videos,
        report=reports.extend,
    )
    return features, nnx.to_pure_dict(state), reports


def clip_of(source, index, clips=CLIPS):
    """A video's clips, read one by one."""
    out = np.empty(clips.shape, np.uint8)
    video, _ = source.open(index)
    with video:
        clips(video, None, np.random.default_rng(0), out)
    return out


@pytest.fixture(scope="module")
def model():
    return VideoMAEForPreTraining(CONFIG, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def clips() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, *CONFIG.clip_size, 3)).astype(np.uint8)


def normed(x, eps=1e-6):
    x = np.asarray(x, np.float64)
    return (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + eps)


@pytest.mark.parametrize("cls", [VideoMAEModel, VideoMAEForPreTraining])
def test_of_an_encoder_it_is_the_mean_of_its_normed_tokens(cls, clips):
    model = cls(CONFIG, rngs=nnx.Rngs(0))
    encoder = model if cls is VideoMAEModel else model.videomae
    blocks = encoder(clips, output_hidden_states=True).hidden_states[-1]
    pooled = pooled_features(model, clips)
    assert pooled.dtype == jnp.float32
    np.testing.assert_allclose(pooled, normed(blocks).mean(axis=1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "attentive", "first token"])
def test_of_a_classifier_it_is_what_the_classifier_sees(pooling, clips):
    fields = dict(use_mean_pooling=pooling == "mean", attentive_pooling=pooling == "attentive")
    model = VideoMAEForVideoClassification(dataclasses.replace(CONFIG, **fields), rngs=nnx.Rngs(0))
    pooled = pooled_features(model, clips)
    np.testing.assert_allclose(model.classifier(pooled), model(clips).logits, rtol=0, atol=1e-6)
    tokens = model.videomae(clips).last_hidden_state
    wanted = {
        "mean": lambda: normed(np.asarray(tokens).mean(axis=1)),
        "attentive": lambda: model.pooler(tokens),
        "first token": lambda: tokens[:, 0],
    }
    np.testing.assert_allclose(pooled, wanted[pooling](), rtol=0, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "attentive", "first token", "no classifier"])
def test_it_is_fp32_whatever_the_model_computes_in(pooling, clips):
    fields = dict(use_mean_pooling=pooling == "mean", attentive_pooling=pooling == "attentive")
    cls = VideoMAEModel if pooling == "no classifier" else VideoMAEForVideoClassification
    model = nnx.eval_shape(lambda: cls(dataclasses.replace(CONFIG, **fields), dtype=jnp.bfloat16, rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(model)
    shape = jax.eval_shape(lambda params: pooled_features(nnx.merge(graphdef, params), clips), state)
    assert (shape.shape, shape.dtype) == ((2, 32), jnp.float32)


def test_every_video_once_in_order_with_its_label(model, source):
    features, params, reports = features_of(model)
    measured, labels = features.measure(params, source)
    assert (measured.shape, measured.dtype, labels.dtype) == ((11, 32), np.float32, np.int32)
    np.testing.assert_array_equal(labels, source.labels)
    singly = [pooled_features(model, clip_of(source, index))[0] for index in range(11)]
    np.testing.assert_allclose(measured, singly, rtol=0, atol=1e-5)
    assert not any(reports)


def test_a_part_of_the_videos_is_spread_over_the_source(model, source):
    features, params, _ = features_of(model)
    whole, labels = features.measure(params, source)
    some, some_labels = dataclasses.replace(features, num_videos=4).measure(params, source)
    np.testing.assert_array_equal(some_labels, labels[[0, 2, 5, 8]])
    np.testing.assert_allclose(some, whole[[0, 2, 5, 8]], rtol=0, atol=1e-6)


def test_views_of_a_video_are_averaged(model, source):
    clips = MultiViewClips(CONFIG.num_frames, 1, segments=2, crops=3, image_size=CONFIG.clip_size[1:])
    features, params, _ = features_of(model, clips=clips)
    measured, _ = features.measure(params, source)
    views = clip_of(source, 3, clips)
    assert len(np.unique(views.reshape(6, -1), axis=0)) == 6
    np.testing.assert_allclose(measured[3], pooled_features(model, views).mean(axis=0), rtol=0, atol=1e-5)


def test_one_program_is_compiled_for_all_batches_and_parameters(model, source):
    features, params, _ = features_of(model)
    features.measure(params, source)
    features.measure(jax.tree.map(lambda leaf: 2 * leaf, params), source)
    assert features._features._cache_size() == 1


def test_a_broken_video_is_reported_and_left_out(model, source, tmp_path):
    (tmp_path / "broken.mp4").write_text("no video")
    paths = (*source.paths[:4], str(tmp_path / "broken.mp4"), *source.paths[5:])
    features, params, reports = features_of(model)
    measured, labels = features.measure(params, dataclasses.replace(source, paths=paths))
    # Twice: it is also among those that fill the last batch.
    assert {report.split("\t")[0] for report in reports if report} == {str(tmp_path / "broken.mp4")}
    np.testing.assert_array_equal(labels, np.delete(source.labels, 4))
    np.testing.assert_array_equal(measured, np.delete(features.measure(params, source)[0], 4, axis=0))


def test_nothing_readable_is_an_error(model, tmp_path):
    source = VideoSource("mine", (str(tmp_path / "missing.mp4"),), np.zeros(1, np.int32), ("a",))
    features, params, _ = features_of(model)
    with pytest.raises(VideoReadError, match="mine: none of its videos can be read"):
        features.measure(params, source)
