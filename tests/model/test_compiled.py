import jax
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from videomae_jax import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEForVideoClassification
from videomae_jax.model.compiled import few_sizes
from videomae_jax.model.masking import Masking

CONFIG = VideoMAEConfig.from_size(
    "tiny",
    image_size=16,
    num_frames=4,
    hidden_size=40,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=48,
    decoder_num_hidden_layers=1,
    initializer_range=0.2,
)


@given(st.integers(0, 10_000))
def test_a_batch_is_filled_up_by_a_quarter_at_most(rows):
    size = few_sizes(rows)
    assert rows <= size <= 1.25 * rows
    assert few_sizes(size) == size


def test_there_are_few_sizes_and_the_usual_ones_are_among_them():
    sizes = {few_sizes(rows) for rows in range(1, 257)}
    assert len(sizes) == 28
    assert sizes >= {1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 20, 24, 32, 48, 64, 80, 96, 128, 192, 256}


@pytest.fixture(scope="module")
def clips():
    return np.random.default_rng(0).integers(0, 256, (18, *CONFIG.clip_size, 3), np.uint8)


def shapes_of_calls(model, monkeypatch, method, calls):
    """The batches that reach a method's program."""
    seen, really = [], getattr(type(model), method)

    def watch(self, clips, *args, **static):
        seen.append(clips.shape[0])
        return really(self, clips, *args, **static)

    monkeypatch.setattr(type(model), method, watch)
    return [call() for call in calls], seen


def test_classes_of_a_filled_batch_are_those_of_each_clip(clips, monkeypatch):
    model = VideoMAEForVideoClassification(CONFIG, rngs=nnx.Rngs(0))
    calls = [lambda n=n: model(clips[:n], output_hidden_states=True, output_attentions=True) for n in (18, 17, 11, 4)]
    outputs, seen = shapes_of_calls(model, monkeypatch, "_classify", calls)
    assert seen == [20, 20, 12, 4]
    for output, rows in zip(outputs, (18, 17, 11, 4), strict=True):
        assert {leaf.shape[0] for leaf in jax.tree.leaves(output)} == {rows}
        np.testing.assert_allclose(output.logits, outputs[0].logits[:rows], atol=1e-5)
        np.testing.assert_allclose(output.hidden_states[1], outputs[0].hidden_states[1][:rows], atol=1e-5)


def test_an_encoders_mask_and_keys_are_filled_up_too(clips, monkeypatch):
    model = VideoMAEForPreTraining(CONFIG, rngs=nnx.Rngs(0)).videomae
    keys = jax.random.split(jax.random.key(0), 9)
    ids = Masking("random", 0.5, "none", 0, CONFIG.grid)(keys)

    def encode(rows):
        return model(clips[rows], visible_ids=ids.visible[rows], masked_ids=ids.masked[rows], key=keys[rows])

    calls = [lambda rows=rows: encode(rows) for rows in (slice(0, 9), slice(0, 1), slice(8, 9))]
    (all_clips, first, last), seen = shapes_of_calls(model, monkeypatch, "_encode", calls)
    assert seen == [10, 1, 1]
    together = all_clips.last_hidden_state[np.array([0, 8])]
    np.testing.assert_allclose(together, np.concatenate([first.last_hidden_state, last.last_hidden_state]), atol=1e-5)


def test_nothing_is_filled_up_under_a_transformation_over_devices_or_where_a_loss_is_asked_for(clips, monkeypatch):
    model = VideoMAEForVideoClassification(CONFIG, rngs=nnx.Rngs(0))
    graphdef, state = nnx.split(model)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.device_put(clips, jax.NamedSharding(mesh, jax.P("data")))
    calls = [
        lambda: jax.jit(lambda clips: model(clips).logits)(clips[:9]),
        lambda: jax.jit(lambda state: nnx.merge(graphdef, state)(clips[:9]).logits)(state),
        lambda: model(clips[:9], np.zeros(9, np.int32)),
        lambda: model(split),
    ]
    _, seen = shapes_of_calls(model, monkeypatch, "_classify", calls)
    assert seen == [9, 9, 9, 18]
