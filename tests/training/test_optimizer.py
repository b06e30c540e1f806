import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from videomae_jax import VideoMAEConfig, VideoMAEForPreTraining
from videomae_jax.training.optimizer import WarmupCosine, adamw, decays


def cosine_scheduler(base, final, total, warmup):
    """The original's table (V1 utils.py:385-406), for one step an epoch."""
    steps = np.arange(total - warmup)
    cosine = [final + 0.5 * (base - final) * (1 + math.cos(math.pi * i / len(steps))) for i in steps]
    return np.concatenate([np.linspace(0, base, warmup), cosine])


def test_schedule_is_the_originals_at_every_step():
    schedule = WarmupCosine(peak_lr=1.2e-3, min_lr=8e-5, warmup_steps=20, total_steps=100)
    ours = [float(schedule(step)) for step in range(100)]
    np.testing.assert_allclose(ours, cosine_scheduler(1.2e-3, 8e-5, 100, 20), rtol=1e-5, atol=1e-9)


def test_schedule_without_warmup_starts_at_the_peak():
    assert float(WarmupCosine(peak_lr=1.0, min_lr=0.0, warmup_steps=0, total_steps=10)(0)) == 1.0


def test_rates_grow_with_the_batch_and_steps_follow_the_epochs(recipe):
    # V1's ViT-B on K400: 1,600 epochs of 240,000 videos, 2,048 a step.
    data = dataclasses.replace(recipe.data, batch_size=2048, views=4)
    schedule = WarmupCosine.of_recipe(dataclasses.replace(recipe, data=data, total_epochs=1600), num_videos=240_000)
    assert (schedule.peak_lr, schedule.min_lr) == (pytest.approx(1.2e-3), pytest.approx(8e-5))
    assert (schedule.total_steps, schedule.warmup_steps) == (187_500, 4688)


def test_total_steps_win_and_warmup_keeps_its_share(recipe):
    schedule = WarmupCosine.of_recipe(dataclasses.replace(recipe, total_steps=1000), num_videos=7)
    assert (schedule.total_steps, schedule.warmup_steps) == (1000, 50)


def test_a_run_of_warmup_alone_is_an_error(recipe):
    with pytest.raises(ValueError, match="10 steps, 13 of them warm-up: raise total_epochs=30"):
        WarmupCosine.of_recipe(dataclasses.replace(recipe, total_epochs=30, total_steps=10), num_videos=7)


def updates_of_both(optim, grads):
    """A parameter after steps of ours and of torch.optim.AdamW."""
    start = np.random.default_rng(0).normal(size=(3, 4)).astype("f")
    theirs = torch.nn.Parameter(torch.tensor(start))
    torch_optimizer = torch.optim.AdamW(
        [theirs], lr=1e-2, betas=(optim.b1, optim.b2), eps=1e-8, weight_decay=optim.weight_decay
    )
    optimizer, ours = adamw(lambda step: 1e-2, optim), {"kernel": jnp.asarray(start)}
    state = optimizer.init(ours)
    for grad in grads:
        theirs.grad = torch.tensor(grad)
        if optim.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_([theirs], optim.clip_norm)
        torch_optimizer.step()
        updates, state = optimizer.update({"kernel": jnp.asarray(grad)}, state, ours)
        ours = jax.tree.map(jnp.add, ours, updates)
    return ours["kernel"], theirs.detach().numpy()


@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_updates_are_those_of_torch_adamw(recipe, clip_norm):
    scales = np.array([0.01, 3, 0.1, 1, 0.02], "f")[:, None, None]
    grads = scales * np.random.default_rng(1).normal(size=(5, 3, 4)).astype("f")
    ours, theirs = updates_of_both(dataclasses.replace(recipe.optim, clip_norm=clip_norm), grads)
    np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_decay_spares_biases_norms_and_the_mask_token():
    model = nnx.eval_shape(
        lambda: VideoMAEForPreTraining(VideoMAEConfig.from_size("tiny", image_size=32), rngs=nnx.Rngs(0))
    )
    flags = jax.tree_util.tree_leaves_with_path(decays(nnx.to_pure_dict(nnx.split(model)[1])))
    decayed = {path[-1].key for path, flag in flags if flag}
    spared = {path[-1].key for path, flag in flags if not flag}
    assert decayed == {"kernel"}
    assert spared == {"bias", "scale", "q_bias", "v_bias", "mask_token"}
