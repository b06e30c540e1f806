import math

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from videomae_jax import VideoMAEConfig, VideoMAEForPreTraining
from videomae_jax.training.optimizer import adamw, decays, warmup_cosine


def cosine_scheduler(base, final, total, warmup):
    """The original's table (V1 utils.py:385-406), for one step an epoch."""
    steps = np.arange(total - warmup)
    cosine = [final + 0.5 * (base - final) * (1 + math.cos(math.pi * i / len(steps))) for i in steps]
    return np.concatenate([np.linspace(0, base, warmup), cosine])


def test_schedule_is_the_originals_at_every_step():
    schedule = warmup_cosine(peak_lr=1.2e-3, min_lr=8e-5, warmup_steps=20, total_steps=100)
    ours = [float(schedule(step)) for step in range(100)]
    np.testing.assert_allclose(ours, cosine_scheduler(1.2e-3, 8e-5, 100, 20), rtol=1e-5, atol=1e-9)


def test_schedule_without_warmup_starts_at_the_peak():
    schedule = warmup_cosine(peak_lr=1.0, min_lr=0.0, warmup_steps=0, total_steps=10)
    assert float(schedule(0)) == 1.0


def test_updates_are_those_of_torch_adamw():
    rng = np.random.default_rng(0)
    start, grads = rng.normal(size=(3, 4)).astype("f"), rng.normal(size=(5, 3, 4)).astype("f")
    theirs = torch.nn.Parameter(torch.tensor(start))
    torch_optimizer = torch.optim.AdamW(
        [theirs], lr=1e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.05, clip_norm=None
    )
    optimizer = adamw(lambda step: 1e-2, b1=0.9, b2=0.95, weight_decay=0.05, clip_norm=None)
    ours = {"kernel": jnp.asarray(start)}
    state = optimizer.init(ours)
    for grad in grads:
        theirs.grad = torch.tensor(grad)
        torch_optimizer.step()
        updates, state = optimizer.update({"kernel": jnp.asarray(grad)}, state, ours)
        ours = jax.tree.map(jnp.add, ours, updates)
    np.testing.assert_allclose(ours["kernel"], theirs.detach().numpy(), atol=1e-6)


def test_decay_spares_biases_norms_and_the_mask_token():
    model = nnx.eval_shape(
        lambda: VideoMAEForPreTraining(VideoMAEConfig.from_size("tiny", image_size=32), rngs=nnx.Rngs(0))
    )
    flags = jax.tree_util.tree_leaves_with_path(decays(nnx.to_pure_dict(nnx.split(model)[1])))
    decayed = {path[-1].key for path, flag in flags if flag}
    spared = {path[-1].key for path, flag in flags if not flag}
    assert decayed == {"kernel"}
    assert spared == {"bias", "scale", "q_bias", "v_bias", "mask_token"}
