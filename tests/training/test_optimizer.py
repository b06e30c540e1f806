import dataclasses
import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict

from videomae_jax import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEForVideoClassification
from videomae_jax.training.adapters import add_adapters
from videomae_jax.training.optimizer import WarmupCosine, adamw, decays, finetuning_optimizer, layer_scales
from videomae_jax.weights.arrays import to_checkpoint
from videomae_jax.weights.original import ORIGINAL_FINETUNING


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


@pytest.mark.parametrize(("optimizer", "b2"), [("adamw", 0.95), ("sgd", None)])
def test_first_moments_in_bfloat16_are_rounded_and_nothing_else_is(optimizer, b2):
    params = {"classifier": {"kernel": jnp.linspace(-1, 1, 32).reshape(4, 8)}}
    grads = jax.tree.map(lambda x: jnp.sin(9 * x), params)
    moved = {}
    for dtype in ("float32", "bfloat16"):
        optim = but(FINETUNING, optimizer=optimizer, b2=b2, layer_decay=1.0, mu_dtype=dtype)
        update = finetuning_optimizer(lambda step: 1e-2, optim)
        state = update.init(params)
        for _ in range(3):
            updates, state = update.update(grads, state, params)
        moved[dtype] = updates["classifier"]["kernel"]
        moments = sorted(str(leaf.dtype) for leaf in jax.tree.leaves(state) if leaf.ndim == 2)
        assert moments == sorted([dtype, "float32"] if optimizer == "adamw" else [dtype])
    np.testing.assert_allclose(moved["bfloat16"], moved["float32"], rtol=2e-2)
    assert not np.array_equal(moved["bfloat16"], moved["float32"])


def test_decay_spares_biases_norms_and_the_mask_token():
    model = nnx.eval_shape(
        lambda: VideoMAEForPreTraining(VideoMAEConfig.from_size("tiny", image_size=32), rngs=nnx.Rngs(0))
    )
    flags = jax.tree_util.tree_leaves_with_path(decays(nnx.to_pure_dict(nnx.split(model)[1])))
    decayed = {path[-1].key for path, flag in flags if flag}
    spared = {path[-1].key for path, flag in flags if not flag}
    assert decayed == {"kernel"}
    assert spared == {"bias", "scale", "q_bias", "v_bias", "mask_token"}


# What a downstream recipe says (V1's fine-tuning, with rates for a few steps).
FINETUNING = SimpleNamespace(
    optimizer="adamw",
    weight_decay=0.05,
    b1=0.9,
    b2=0.999,
    clip_norm=None,
    accumulation=1,
    mu_dtype="float32",
    layer_decay=0.75,
)
PROBE = SimpleNamespace(
    optimizer="sgd",
    weight_decay=0.05,
    b1=0.9,
    b2=None,
    clip_norm=None,
    accumulation=1,
    mu_dtype="float32",
    layer_decay=1.0,
)


def but(optim, **changes):
    return SimpleNamespace(**vars(optim) | changes)


def classifier(config, **changes):
    """Shapes of a classification model's parameters."""
    config = dataclasses.replace(config, **changes)
    model = nnx.eval_shape(lambda: VideoMAEForVideoClassification(config, rngs=nnx.Rngs(0)))
    return nnx.to_pure_dict(nnx.split(model)[1])


def frozen(params, *prefixes):
    """The same tree without these parameters."""
    flat = flatten_dict(params, sep="/")
    return unflatten_dict({name: None if name.startswith(prefixes) else flat[name] for name in flat}, sep="/")


def v1_layer(name, depth):
    """The number of a parameter's layer by its name in V1 (optim_factory.py:24-46)."""
    if name.startswith("patch_embed"):
        return 0
    return int(name.split(".")[1]) + 1 if name.startswith("blocks") else depth + 1


def torch_steps(start, grads, optim, rates, depth):
    """Parameters, by their names in V1, after steps of torch's optimizer with V1's groups."""
    params = {name: torch.nn.Parameter(torch.tensor(array)) for name, array in start.items()}
    groups = [
        {
            "params": [param],
            "lr_scale": optim.layer_decay ** (depth + 1 - v1_layer(name, depth)),
            "weight_decay": 0.0 if param.ndim == 1 or name.endswith(".bias") else optim.weight_decay,
        }
        for name, param in params.items()
    ]
    if optim.optimizer == "adamw":
        optimizer = torch.optim.AdamW(groups, lr=1.0, betas=(optim.b1, optim.b2), eps=1e-8)
    else:
        optimizer = torch.optim.SGD(groups, lr=1.0, momentum=optim.b1)
    for rate, grad in zip(rates, grads, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        for name, param in params.items():
            param.grad = torch.tensor(grad[name])
        if optim.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(params.values(), optim.clip_norm)
        optimizer.step()
    return {name: param.detach().numpy() for name, param in params.items()}


@pytest.mark.parametrize(
    "optim, missing",
    [
        (FINETUNING, ()),
        (but(FINETUNING, layer_decay=1.0), ()),
        (but(FINETUNING, clip_norm=3.0, weight_decay=0.5), ()),
        (FINETUNING, ("videomae/embeddings", "videomae/encoder/layer/mlp")),
        (but(FINETUNING, layer_decay=0.5), ("videomae",)),
        (PROBE, ()),
        (but(PROBE, clip_norm=3.0, b1=0.0), ("videomae",)),
        (but(PROBE, layer_decay=0.5), ()),
    ],
)
def test_finetuning_is_torchs_with_v1s_groups(config, optim, missing):
    shapes = frozen(classifier(config, num_hidden_layers=3), *missing)
    rng = np.random.default_rng(0)

    def draw(scale=1.0):
        return jax.tree.map(lambda leaf: jnp.asarray(scale * rng.normal(size=leaf.shape), jnp.float32), shapes)

    def v1(params):
        flat = {name: leaf for name, leaf in flatten_dict(params, sep="/").items() if leaf is not None}
        return {name: np.array(array) for name, array in to_checkpoint(flat, ORIGINAL_FINETUNING, config.patch).items()}

    params = draw()
    grads = [draw(scale) for scale in (0.01, 3.0, 0.1, 1.0, 0.02, 0.5)]
    schedule = WarmupCosine(peak_lr=0.02, min_lr=0.001, warmup_steps=2, total_steps=6)
    expected = torch_steps(v1(params), map(v1, grads), optim, cosine_scheduler(0.02, 0.001, 6, 2), depth=3)

    optimizer = finetuning_optimizer(schedule, optim)
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for grad in grads:
        updates, state = update(grad, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    ours = v1(params)
    assert ours.keys() == expected.keys()
    for name, array in ours.items():
        np.testing.assert_allclose(array, expected[name], atol=3e-6, err_msg=name)


def test_layer_decay_of_vit_base_written_out():
    params = classifier(VideoMAEConfig.from_size("base", use_mean_pooling=True))
    scales = flatten_dict(layer_scales(params, 0.75), sep="/")
    # 0.75 to the 13th, ..., 0.75.
    blocks = [0.0316764, 0.0422351, 0.0563135, 0.0750847, 0.1001129, 0.1334839]
    blocks += [0.1779785, 0.2373047, 0.3164063, 0.421875, 0.5625, 0.75]
    for name, scale in scales.items():
        if name.startswith("videomae/encoder/layer/"):
            np.testing.assert_allclose(scale.ravel(), blocks, rtol=2e-6)
        else:
            expected = {"videomae": 0.0237573}.get(name.split("/")[0], 1.0)
            np.testing.assert_allclose(scale, expected, rtol=2e-6)
    assert sorted({name.split("/")[0] for name in scales}) == ["classifier", "fc_norm", "videomae"]


def test_factors_broadcast_to_their_parameters_and_keep_their_dtype(config):
    params = classifier(config)
    for scale, param in zip(jax.tree.leaves(layer_scales(params, 0.5)), jax.tree.leaves(params), strict=True):
        assert scale.dtype == np.float32
        assert np.broadcast_shapes(scale.shape, param.shape) == param.shape
        assert scale.shape in ((), (2,) + (1,) * (len(param.shape) - 1))


def test_the_encoders_last_norm_belongs_to_the_head(config):
    scales = layer_scales(classifier(config, use_mean_pooling=False), 0.5)
    assert scales["videomae"]["layernorm"] == {"scale": 1, "bias": 1}
    assert scales["videomae"]["embeddings"]["projection"]["kernel"] == 0.125


def test_adapters_have_the_rate_of_their_block_and_no_decay(config):
    params = jax.eval_shape(lambda params: add_adapters(params, 2, jax.random.key(0)), classifier(config))
    alone = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf if path[-1].key.startswith("lora") or path[0].key == "classifier" else None, params
    )
    scales = flatten_dict(layer_scales(alone, 0.5), sep="/")
    present = {name: scale.ravel().tolist() for name, scale in scales.items() if scale is not None}
    assert len(present) == 10
    assert all(scale == ([0.25, 0.5] if "lora" in name else [1.0]) for name, scale in present.items())
    assert {path[-1].key for path, flag in jax.tree_util.tree_leaves_with_path(decays(alone)) if flag} == {"kernel"}


def test_decay_spares_a_poolers_query():
    assert decays({"pooler": {"query": 1.0, "output": {"kernel": 1.0}}}) == {
        "pooler": {"query": False, "output": {"kernel": True}}
    }


def test_an_embedding_without_trained_blocks_is_right_below_the_head(config):
    scales = layer_scales(frozen(classifier(config), "videomae/encoder"), 0.5)
    assert scales["videomae"]["embeddings"]["projection"]["bias"] == 0.5
    assert jax.tree.leaves(scales["videomae"]["encoder"]) == []


def test_without_layer_decay_nothing_is_added():
    params = {"classifier": {"kernel": jnp.ones((2, 3))}}
    plain = adamw(lambda step: 1e-3, FINETUNING)
    same = finetuning_optimizer(lambda step: 1e-3, but(FINETUNING, layer_decay=1.0))
    assert jax.tree.structure(same.init(params)) == jax.tree.structure(plain.init(params))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"optimizer": "lion"}, "optim.optimizer must be 'adamw' or 'sgd', got 'lion'"),
        ({"b2": None}, "optim.b2 is None, and AdamW needs one"),
        ({"layer_decay": 0.0}, "optim.layer_decay must be above 0 and at most 1.*got 0.0"),
        ({"layer_decay": 1.5}, "optim.layer_decay must be above 0 and at most 1.*got 1.5"),
        ({"layer_decay": math.nan}, "optim.layer_decay must be above 0 and at most 1.*got nan"),
    ],
)
def test_finetuning_without_sense_is_an_error(changes, message):
    with pytest.raises(ValueError, match=message):
        finetuning_optimizer(lambda step: 1e-3, but(FINETUNING, **changes))
