import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from videomae_jax import VideoMAEForPreTraining
from videomae_jax.model.flops import classification_flops
from videomae_jax.training.finetuning import FROZEN, Finetuning
from videomae_jax.training.mesh import make_mesh
from videomae_jax.training.mixing import Mixing
from videomae_jax.training.state import Trainer
from videomae_jax.training.tasks import clip_keys
from videomae_jax.weights.arrays import DIALECTS, to_checkpoint
from videomae_jax.weights.checkpoint import Checkpoint
from videomae_jax.weights.pretrained import flat_params

NO_MIXING = Mixing(0.0, 0.0, 1.0, 0.5)


@pytest.fixture
def classifier(config):
    return dataclasses.replace(
        config,
        use_mean_pooling=True,
        id2label=dict(enumerate("abcde")),
        problem_type="single_label_classification",
        initializer_range=0.2,
    )


@pytest.fixture
def finetuning(classifier):
    return Finetuning(
        classifier,
        flip=False,
        erasing=0.0,
        mixing=NO_MIXING,
        label_smoothing=0.1,
        frozen=None,
        adapter_rank=None,
        seed=3,
        dtype=jnp.dtype("float32"),
    )


def test_every_key_of_a_step_is_another(finetuning, labelled):
    """Those that flip, erase, go into the model, and mix."""
    seen = []

    class Recorded(Mixing):
        def __call__(self, key, video, targets):
            seen.append(jax.random.key_data(key)[None])
            return video, targets

    def record(keys, video, *_):
        seen.append(jax.random.key_data(keys))
        return video

    with pytest.MonkeyPatch.context() as patch:
        for name in ("random_flip", "random_erase"):
            patch.setattr(f"videomae_jax.training.finetuning.{name}", record)
        task = dataclasses.replace(finetuning, flip=True, erasing=0.5, mixing=Recorded(1.0, 0.0, 1.0, 0.5))
        seen.append(jax.random.key_data(task.prepare(labelled)["key"]))
    seen.append(jax.random.key_data(clip_keys(task.seed, labelled["sample"])))
    all_keys = np.concatenate([np.asarray(part) for part in seen])
    assert len(all_keys) == 16 + 16 + 1 + 16 + 8
    assert len(np.unique(all_keys, axis=0)) == len(all_keys)


@pytest.fixture
def labelled():
    rng = np.random.default_rng(0)
    return {
        "video": rng.integers(0, 256, (8, 2, 4, 32, 32, 3), np.uint8),
        "label": rng.integers(0, 5, 8).astype(np.int32),
        "sample": np.arange(100, 108, dtype=np.uint32),
    }


def test_views_become_clips_with_their_videos_smoothed_label(finetuning, labelled):
    prepared = jax.jit(finetuning.prepare)(labelled)
    assert prepared["video"].dtype == jnp.uint8  # nothing needs floats: the model normalises
    np.testing.assert_array_equal(prepared["video"], labelled["video"].reshape(16, 4, 32, 32, 3))
    wanted = np.full((16, 5), 0.1 / 5, np.float32)
    wanted[np.arange(16), np.repeat(labelled["label"], 2)] += 0.9
    np.testing.assert_allclose(prepared["target"], wanted, atol=1e-7)
    keys = jax.random.key_data(prepared["key"])
    assert len(np.unique(keys, axis=0)) == 16


def test_what_is_random_for_a_clip_depends_on_its_sample_alone(finetuning, labelled):
    task = dataclasses.replace(finetuning, flip=True, erasing=0.5)
    prepared = jax.jit(task.prepare)(labelled)
    part = jax.jit(task.prepare)({name: values[2:5] for name, values in labelled.items()})
    np.testing.assert_allclose(part["video"], prepared["video"][4:10], atol=1e-6)
    np.testing.assert_array_equal(jax.random.key_data(part["key"]), jax.random.key_data(prepared["key"][4:10]))
    other = jax.jit(dataclasses.replace(task, seed=4).prepare)(labelled)
    assert np.abs(other["video"] - prepared["video"]).max() > 0.1


def test_clips_are_normalised_before_they_are_erased_and_mixed(finetuning, labelled, classifier):
    task = dataclasses.replace(finetuning, mixing=Mixing(0.8, 0.0, 1.0, 0.5))
    prepared = jax.jit(task.prepare)(labelled)
    clips = labelled["video"].reshape(16, 4, 32, 32, 3)
    normal = (clips / 255 - np.array(classifier.pixel_mean)) / np.array(classifier.pixel_std)
    targets = jax.jit(finetuning.prepare)(labelled)["target"]
    # One lambda for all: from a clip and the one opposite.
    own, other = normal - normal[::-1], prepared["video"] - normal[::-1]
    lam = (own * other).sum() / (own * own).sum()
    assert 0 < lam < 1
    np.testing.assert_allclose(prepared["video"], lam * normal + (1 - lam) * normal[::-1], atol=1e-4)
    np.testing.assert_allclose(prepared["target"], lam * targets + (1 - lam) * targets[::-1], atol=1e-4)
    again = jax.jit(task.prepare)(labelled | {"sample": labelled["sample"] + 8})
    assert np.abs(again["target"] - prepared["target"]).max() > 1e-3  # another step, another lambda


def test_the_loss_is_cross_entropy_with_soft_targets(finetuning, labelled):
    model, batch = finetuning.create(jax.random.key(0)), jax.jit(finetuning.prepare)(labelled)
    model.classifier.kernel[...] *= 1e3
    loss, logged = finetuning.loss(model, batch)
    logits = np.asarray(model(batch["video"]).logits, np.float64)
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(loss, -(np.asarray(batch["target"]) * logs).sum(axis=1).mean(), rtol=1e-5)
    assert logged["loss"] == loss


def test_drop_path_and_dropout_are_on_in_training(finetuning, labelled):
    batch = jax.jit(finetuning.prepare)(labelled)
    for change in (dict(drop_path_rate=0.5), dict(head_dropout_prob=0.5)):
        config = dataclasses.replace(finetuning.config, **change)
        model = dataclasses.replace(finetuning, config=config).create(jax.random.key(0))
        model.classifier.kernel[...] *= 1e3
        loss = finetuning.loss(model, batch)[0]
        without = -(batch["target"] * jax.nn.log_softmax(model(batch["video"]).logits)).sum(axis=1).mean()
        assert abs(loss - without) > 1e-4


@pytest.mark.parametrize(
    ("path", "shape", "frozen", "wanted"),
    [
        ("classifier/kernel", (32, 5), None, True),
        ("classifier/kernel", (32, 5), "classifier", False),
        ("videomae/encoder/layer/mlp/output/kernel", (2, 64, 32), None, [True, True]),
        ("videomae/encoder/layer/mlp/output/kernel", (2, 64, 32), "encoder", [False, False]),
        ("videomae/encoder/layer/mlp/output/kernel", (2, 64, 32), "layer/0/", [False, True]),
        ("videomae/encoder/layer/mlp/output/kernel", (2, 64, 32), "layer/1/attention", [True, True]),
        ("videomae/embeddings/projection/bias", (32,), r"^(?!classifier/)", False),
    ],
)
def test_what_is_trained_by_path(finetuning, path, shape, frozen, wanted):
    np.testing.assert_array_equal(dataclasses.replace(finetuning, frozen=frozen).trains(path, shape), wanted)


def test_a_training_video_without_a_label_is_an_error(finetuning, labelled):
    finetuning.check_batch(labelled)
    labels = labelled["label"].copy()
    labels[3] = -1
    with pytest.raises(ValueError, match="have no label, number 3 of the batch that begins with sample 100"):
        finetuning.check_batch(labelled | {"label": labels})


@pytest.mark.parametrize("frozen", ["blocks/0/", "."])
def test_a_freeze_that_means_nothing_or_leaves_nothing_is_an_error(finetuning, frozen):
    task = dataclasses.replace(finetuning, frozen=frozen)
    params = Trainer(finetuning, optax.sgd(0.1), make_mesh(data=-1, fsdp=1, tensor=1), 1).abstract_state.params
    with pytest.raises(ValueError, match="matches no parameter" if frozen != "." else "leaves nothing to train"):
        task.check_frozen(params)
    dataclasses.replace(finetuning, frozen="layer/0/").check_frozen(params)


def test_a_probe_works_forwards_and_what_is_half_frozen_is_not_counted(finetuning, classifier):
    forwards = classification_flops(classifier, classifier.num_patches)
    assert finetuning.clip_flops == 3 * forwards
    assert dataclasses.replace(finetuning, frozen=FROZEN["linear"]).clip_flops == forwards
    assert dataclasses.replace(finetuning, frozen="embeddings").clip_flops is None
    assert dataclasses.replace(finetuning, adapter_rank=2).clip_flops is None


def test_clipping_does_not_count_frozen_blocks(finetuning, labelled):
    """The same update by the blocks' own gradients, whether others are frozen among them or not there at all."""
    mesh = make_mesh(data=-1, fsdp=1, tensor=1)
    task = dataclasses.replace(finetuning, frozen=r"embeddings|layer/0/|fc_norm|classifier")
    trainer = Trainer(task, optax.chain(optax.clip_by_global_norm(1e-6), optax.sgd(1.0)), mesh, 1)
    before = trainer.init_state()
    old = jax.tree.map(np.array, before.params)
    state, _ = trainer.compile_step(8, 2)(before, labelled)
    moved = jax.tree.map(lambda new, old: np.asarray(new) - old, state.params, old)
    norm = np.sqrt(sum((leaf.astype(np.float64) ** 2).sum() for leaf in jax.tree.leaves(moved)))
    assert norm == pytest.approx(1e-6, rel=0.05)


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("videomae/encoder/layer/mlp/output/kernel", False),
        ("videomae/encoder/layer/mlp/output/lora_a", True),
        ("videomae/encoder/layer/mlp/output/lora_b", True),
        ("videomae/embeddings/projection/kernel", False),
        ("fc_norm/scale", True),
        ("classifier/kernel", True),
    ],
)
def test_with_adapters_the_encoder_is_trained_through_them_alone(finetuning, path, wanted):
    assert dataclasses.replace(finetuning, adapter_rank=2).trains(path, (2, 4, 4)).all() == wanted


@pytest.mark.parametrize("accumulation", [pytest.param(2, marks=pytest.mark.full), 4])
def test_accumulation_changes_nothing_also_with_mixing(finetuning, labelled, accumulation):
    task = dataclasses.replace(finetuning, mixing=Mixing(0.8, 1.0, 1.0, 0.5), erasing=0.25)
    mesh = make_mesh(data=-1, fsdp=1, tensor=1)
    grown = {name: np.concatenate([values] * 4) for name, values in labelled.items()}
    grown["sample"] = np.arange(32, dtype=np.uint32)
    states = []
    for parts in (1, accumulation):
        trainer = Trainer(task, optax.sgd(0.1), mesh, parts)
        state, loss = trainer.compile_step(32, 2)(trainer.init_state(), grown)
        states.append((state.params, loss))
    np.testing.assert_allclose(states[0][1], states[1][1], rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), states[0][0], states[1][0])


def test_the_average_follows_by_its_decay(finetuning, labelled):
    mesh = make_mesh(data=-1, fsdp=1, tensor=1)
    trainer = Trainer(finetuning, optax.sgd(10.0), mesh, 1, ema_decay=0.75)
    state = trainer.init_state()
    step = trainer.compile_step(8, 2)
    average = jax.tree.map(np.array, state.params)
    for _ in range(3):
        state, _ = step(state, labelled)
        average = jax.tree.map(lambda old, new: 0.75 * old + 0.25 * np.asarray(new), average, state.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), state.ema, average)
    kept = trainer.model_params(state)
    jax.tree.map(np.testing.assert_array_equal, kept, state.ema)
    assert np.abs(kept["classifier"]["kernel"] - state.params["classifier"]["kernel"]).max() > 1e-4


def test_what_is_frozen_has_no_optimizer_state_and_no_average(finetuning, labelled):
    task = dataclasses.replace(finetuning, frozen=r"^(?!classifier/)")
    trainer = Trainer(task, optax.adam(1e-2), make_mesh(data=-1, fsdp=1, tensor=1), 1, ema_decay=0.5)
    state = trainer.init_state()
    before = jax.tree.map(np.array, state.params)
    assert len(jax.tree.leaves(state.ema)) == 2
    assert sum(leaf.size for leaf in jax.tree.leaves(state.opt_state)) == 2 * (32 * 5 + 5) + 1
    state, _ = trainer.compile_step(8, 2)(state, labelled)
    jax.tree.map(np.testing.assert_array_equal, state.params["videomae"], before["videomae"])
    assert np.abs(state.params["classifier"]["bias"]).max() > 0
    kept = trainer.model_params(state)
    assert isinstance(nnx.merge(trainer.graphdef, kept).classifier.bias[...], jax.Array)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_an_encoder_of_any_dialect_begins_a_finetuning(finetuning, config, dialect):
    model = VideoMAEForPreTraining(config, rngs=nnx.Rngs(1))
    params = flat_params(nnx.split(model)[1])
    theirs = {path: params[path] for path in params.keys() & {rule.ours for rule in dialect.rules}}
    checkpoint = Checkpoint(Path("theirs"), dialect, to_checkpoint(theirs, dialect, config.patch), config)
    loaded = nnx.to_pure_dict(nnx.split(finetuning.load(checkpoint))[1])
    encoder = nnx.to_pure_dict(nnx.split(model.videomae)[1])
    del encoder["layernorm"]  # a norm after the pooling has its place
    jax.tree.map(np.testing.assert_array_equal, loaded["videomae"], encoder)
