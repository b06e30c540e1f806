import jax
import numpy as np
import pytest
from flax import nnx

from videomae_jax.training.mesh import batch_sharding
from videomae_jax.training.state import accumulate


def run(trainer, batch, steps=3):
    """The state and the losses after some steps on one batch."""
    step = trainer.compile_step(len(batch["sample"]), views=1)
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
    (first, losses), (second, same) = run(make_trainer(), batch), run(make_trainer(), batch)
    assert losses == same
    assert all(map(np.array_equal, jax.tree.leaves(first), jax.tree.leaves(second)))


@pytest.mark.parametrize("axes", [dict(fsdp=8), dict(fsdp=2, tensor=2), dict(tensor=2)])
def test_any_mesh_trains_the_same(make_trainer, batch, axes):
    state, losses = run(make_trainer(data=8), batch)
    other, other_losses = run(make_trainer(**axes), batch)
    np.testing.assert_allclose(losses, other_losses, rtol=1e-5)
    # Adam divides by the root of tiny second moments: rounding shows up to a share of the learning rate.
    assert_close(state.params, other.params, atol=3e-4)


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
