import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from videomae_jax.training.mesh import batch_sharding
from videomae_jax.training.state import SKIPPED, accumulate
from videomae_jax.training.tasks import Pretraining


def run(trainer, batch, steps=3, **options):
    """The state and the losses after some steps on one batch."""
    step = trainer.compile_step(len(batch["sample"]), views=1, **options)
    state, losses = trainer.init_state(), []
    for _ in range(steps):
        state, loss = step(state, jax.device_put(batch, batch_sharding(trainer.mesh)))
        losses.append(float(loss))
    return state, losses


def assert_close(left, right, atol):
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=atol)


def test_the_loss_falls_on_a_batch_seen_again_and_again(make_trainer, batch):
    _, losses = run(make_trainer(), batch, steps=30)
    assert losses[-1] < 0.98 * losses[0]


def test_two_runs_with_the_same_seed_are_identical(make_trainer, batch):
    (first, losses), (second, same) = (run(make_trainer(), batch, deterministic=True) for _ in range(2))
    assert losses == same
    assert all(map(np.array_equal, jax.tree.leaves(first), jax.tree.leaves(second)))


MESHES = [dict(devices=1), dict(), dict(data=4, fsdp=2), dict(data=2, fsdp=2, tensor=2), dict(fsdp=8)]
IN_SHORT = [(3, 2)]  # which mesh, with how much accumulation; the others in full


def gradients(trainer, batch, params):
    """Of one more step, on the host."""
    with jax.set_mesh(trainer.mesh):
        clips = jax.device_put(batch, batch_sharding(trainer.mesh))
        grad = jax.grad(lambda params, batch: trainer.loss(params, params, batch), has_aux=True)
        grads, _ = jax.jit(accumulate, static_argnums=(0, 3))(grad, params, clips, trainer.accumulation)
    return jax.device_get(grads)


@pytest.fixture
def on_eight(make_trainer, batch):
    """State, losses and gradients where each of eight devices has the whole model."""
    trainer = make_trainer(data=8, learning_rate=1e-4)
    state, losses = run(trainer, batch, steps=5)
    return state, losses, gradients(trainer, batch, state.params)


@pytest.mark.parametrize(
    ("axes", "accumulation"),
    [
        pytest.param(axes, parts, marks=() if (number, parts) in IN_SHORT else pytest.mark.full)
        for number, axes in enumerate(MESHES)
        for parts in (1, 2)
    ],
    ids=str,
)
def test_any_mesh_trains_the_same(make_trainer, batch, on_eight, axes, accumulation):
    state, losses, grads = on_eight
    trainer = make_trainer(**axes, accumulation=accumulation, learning_rate=1e-4)
    with jax.set_mesh(trainer.mesh):
        other, other_losses = run(trainer, batch, steps=5)
    np.testing.assert_allclose(other_losses, losses, rtol=1e-5)
    assert_close(gradients(trainer, batch, other.params), grads, atol=1e-5)
    assert max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(grads)) > 1e-2
    # Adam divides by the root of tiny second moments: where gradients are rounding alone, so is the direction. The
    # key's bias has none at all; here it shows in the first moves of what starts at zero.
    assert_close(other.params, state.params, atol=1e-5)
    start = trainer.init_state().params
    moved = [
        float(np.abs(np.asarray(a) - b).max())
        for a, b in zip(*map(jax.tree.leaves, (state.params, start)), strict=True)
    ]
    assert max(moved) > 4e-4


def test_moments_lie_where_their_parameters_lie(make_trainer):
    state = make_trainer(fsdp=4, tensor=2).init_state()
    kernel = state.params["videomae"]["encoder"]["layer"]["mlp"]["output"]["kernel"]
    (moment,) = [
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state)
        if jax.tree_util.keystr(path).endswith("mu['videomae']['encoder']['layer']['mlp']['output']['kernel']")
    ]
    assert moment.sharding == kernel.sharding
    assert kernel.addressable_shards[0].data.size == kernel.size / 8


def test_accumulation_gives_the_whole_batchs_gradient(make_trainer, task, batch):
    params = make_trainer().init_state().params
    graphdef = make_trainer().graphdef
    grad = jax.grad(lambda params, batch: task.loss(nnx.merge(graphdef, params), batch), has_aux=True)
    whole, parts = (jax.jit(accumulate, static_argnums=(0, 3))(grad, params, batch, n) for n in (1, 4))
    assert_close(whole, parts, atol=1e-5)


def test_the_window_sums_what_is_logged_since_it_was_emptied(make_trainer, batch):
    trainer = make_trainer()
    state, losses = run(trainer, batch, steps=3)
    assert float(state.window["steps"]) == 3
    np.testing.assert_allclose(float(state.window["loss"]), sum(losses), rtol=1e-6)
    emptied = state.with_empty_window()
    assert {float(value) for value in emptied.window.values()} == {0.0}
    trainer.compile_step(16, views=1)(
        emptied, jax.device_put(batch, batch_sharding(trainer.mesh))
    )  # the same shardings


def test_randomness_of_a_clip_is_a_function_of_its_sample_index(make_trainer, task, batch):
    trainer = make_trainer()
    model = nnx.merge(trainer.graphdef, trainer.init_state().params)
    loss = lambda batch: float(task.loss(model, batch)[0])  # noqa: E731
    order = np.random.default_rng(1).permutation(16)
    shuffled = {name: rows[order] for name, rows in batch.items()}
    assert loss(batch) == pytest.approx(loss(shuffled), rel=1e-6)
    assert loss(batch) != pytest.approx(loss(batch | {"sample": batch["sample"] + 1}), rel=1e-6)


class FailsSometimes(Pretraining):
    """Its loss, or its gradient alone, is not finite for some sample indices."""

    def loss(self, model, batch):
        loss, metrics = super().loss(model, batch)
        factor = jnp.where((batch["sample"] == 7).any(), jnp.nan, 1.0)
        loss = loss * jnp.where((batch["sample"] == 8).any(), jnp.inf, factor)
        kernel = model.decoder.head.kernel[...]
        loss = loss + jax.lax.cond(
            (batch["sample"] == 9).any(),
            lambda: jnp.sqrt(jnp.abs(kernel - jax.lax.stop_gradient(kernel)).sum()),  # 0, of infinite slope
            lambda: 0.0,
        )
        return loss, metrics | {"loss": loss}


@pytest.fixture
def failing(make_trainer, task):
    trainer = make_trainer()
    fails = FailsSometimes(**{field.name: getattr(task, field.name) for field in dataclasses.fields(task)})
    return dataclasses.replace(trainer, task=fails, ema_decay=0.9)


@pytest.mark.parametrize("sample", [7, 8, 9])
def test_a_step_whose_loss_or_gradient_is_not_finite_changes_nothing_but_its_number(failing, batch, sample):
    step = failing.compile_step(16, views=1)

    def clips(**other):
        return jax.device_put(batch | other, batch_sharding(failing.mesh))

    state, _ = step(failing.init_state(), clips())
    before = jax.tree.map(np.array, state)
    state, loss = step(state, clips(sample=np.array([sample, *range(200, 215)], np.uint32)))
    assert np.isnan(loss)
    for name in ("params", "opt_state", "ema"):
        changed = jax.tree.map(
            lambda old, new: not np.array_equal(old, new), getattr(before, name), getattr(state, name)
        )
        # The schedule's count alone: the learning rate is that of the step.
        assert sum(jax.tree.leaves(changed)) == (name == "opt_state"), name
    assert int(state.step) == 2
    counted = {name: float(value) for name, value in state.window.items()}
    assert counted == {name: float(value) for name, value in before.window.items()} | {SKIPPED: 1.0}
    state, loss = step(state, clips())
    assert np.isfinite(loss) and not np.array_equal(before.params["mask_token"], state.params["mask_token"])
    assert float(state.window["steps"]) == 2


def test_a_diagnosis_says_what_is_not_finite(failing, batch):
    state = failing.init_state()

    def diagnosis(sample):
        numbers = np.array([sample, *range(200, 215)], np.uint32)
        return failing.diagnose(state, jax.device_put(batch | {"sample": numbers}, batch_sharding(failing.mesh)))

    assert re.match(r"the loss is [\d.]+; the largest finite norm is [\d.]+, of \w+", diagnosis(100))
    number = len(jax.tree.leaves(state.params))
    assert f"the loss is nan; the gradient is not finite in {number} of {number} parameters" in diagnosis(7)
    assert f"the gradient is not finite in 1 of {number} parameters, such as decoder/head/kernel; the l" in diagnosis(9)
