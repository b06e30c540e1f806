import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from flax.traverse_util import flatten_dict
from scipy import stats

from videomae_jax import VideoMAEForVideoClassification
from videomae_jax.training.adapters import LEAVES, add_adapters, merge_adapters

BLOCKS = "videomae/encoder/layer"
# Of the tiny model: two blocks, 32 wide, MLP 64 wide.
SHAPES = {
    "attention/qkv": ((2, 32, 3, 4), (2, 3, 4, 32)),
    "attention/output": ((2, 32, 4), (2, 4, 32)),
    "mlp/intermediate": ((2, 32, 4), (2, 4, 64)),
    "mlp/output": ((2, 64, 4), (2, 4, 32)),
}


@pytest.fixture
def graphdef_and_params(config):
    """A classification model whose parameters are all drawn, biases too."""
    graphdef, state = nnx.split(nnx.eval_shape(lambda: VideoMAEForVideoClassification(config, rngs=nnx.Rngs(0))))
    rng = np.random.default_rng(0)

    def draw(leaf):
        return jnp.asarray(0.1 * rng.normal(size=leaf.shape), jnp.float32)

    return graphdef, jax.tree.map(draw, nnx.to_pure_dict(state))


@pytest.fixture
def params(graphdef_and_params):
    return graphdef_and_params[1]


def flat(params):
    return flatten_dict(params, sep="/")


def trained(params):
    """Adapters after some training: B is no longer zero."""
    rng = np.random.default_rng(1)

    def train(path, leaf):
        return jnp.asarray(rng.normal(size=leaf.shape), jnp.float32) if path[-1].key == "lora_b" else leaf

    return jax.tree_util.tree_map_with_path(train, add_adapters(params, 4, jax.random.key(0)))


def test_every_kernel_of_the_blocks_gets_a_pair_and_nothing_else_changes(params):
    before = flat(params)
    adapted = flat(add_adapters(params, 4, jax.random.key(0)))
    new = {name: leaf.shape for name, leaf in adapted.items() if name not in before}
    pairs = {f"{BLOCKS}/{name}": shapes for name, shapes in SHAPES.items()}
    assert new == {
        f"{name}/lora_{x}": shape for name, pair in pairs.items() for x, shape in zip("ab", pair, strict=True)
    }
    assert all(adapted[name] is leaf for name, leaf in before.items())
    assert flat(params).keys() == before.keys()
    assert {leaf.dtype for leaf in adapted.values()} == {jnp.dtype("float32")}


def test_a_is_normal_with_the_deviation_of_its_inputs_and_b_is_zero(params):
    adapted = flat(add_adapters(params, 16, jax.random.key(0)))
    drawn = []
    for name in SHAPES:
        a, b = (np.asarray(adapted[f"{BLOCKS}/{name}/lora_{x}"]) for x in "ab")
        assert not b.any()
        assert stats.kstest(a.ravel() * np.sqrt(a.shape[1]), "norm").pvalue > 1e-3
        drawn.append(a.ravel())
    # All are drawn apart: from kernel to kernel, and from layer to layer and part to part of one.
    assert len(np.unique(np.concatenate(drawn))) > 0.99 * sum(map(len, drawn))
    other = flat(add_adapters(params, 16, jax.random.key(1)))
    assert not np.array_equal(other[f"{BLOCKS}/mlp/output/lora_a"], adapted[f"{BLOCKS}/mlp/output/lora_a"])


def test_an_adapted_model_starts_as_the_model_itself(params):
    merged = merge_adapters(add_adapters(params, 4, jax.random.key(0)))
    assert jax.tree.structure(merged) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, merged, params)


def test_merged_kernels_are_numpys_layer_by_layer(params):
    adapted = flat(trained(params))
    merged = flat(merge_adapters(trained(params)))
    assert merged.keys() == flat(params).keys()
    for name, leaf in merged.items():
        if not any(name == f"{BLOCKS}/{adapted_name}/kernel" for adapted_name in SHAPES):
            np.testing.assert_array_equal(leaf, flat(params)[name])
            continue
        kernel, a, b = (np.asarray(adapted[name.replace("kernel", part)]) for part in ("kernel", "lora_a", "lora_b"))
        for i in range(2):
            if "qkv" in name:
                expected = np.stack([kernel[i, :, c] + a[i, :, c] @ b[i, c] for c in range(3)], axis=1)
            else:
                expected = kernel[i] + a[i] @ b[i]
            np.testing.assert_allclose(leaf[i], expected, atol=1e-5)


def test_a_merged_kernel_does_what_torch_does_with_both(params):
    layer = trained(params)["videomae"]["encoder"]["layer"]
    merged = merge_adapters(trained(params))["videomae"]["encoder"]["layer"]
    x = np.random.default_rng(2).normal(size=(5, 32)).astype("f")
    first = {name: torch.tensor(np.asarray(leaf[0])) for name, leaf in layer["mlp"]["intermediate"].items()}
    theirs = torch.tensor(x) @ first["kernel"] + (torch.tensor(x) @ first["lora_a"]) @ first["lora_b"]
    np.testing.assert_allclose(x @ np.asarray(merged["mlp"]["intermediate"]["kernel"][0]), theirs, atol=1e-5)

    value = {name: torch.tensor(np.asarray(leaf)) for name, leaf in layer["attention"]["qkv"].items()}
    base = torch.tensor(x) @ value["kernel"][1, :, 2]
    theirs = base + (torch.tensor(x) @ value["lora_a"][1, :, 2]) @ value["lora_b"][1, 2]
    np.testing.assert_allclose(x @ np.asarray(merged["attention"]["qkv"]["kernel"][1, :, 2]), theirs, atol=1e-5)


def test_merging_is_in_full_precision_on_every_device(params):
    jaxpr = jax.make_jaxpr(merge_adapters)(add_adapters(params, 4, jax.random.key(0)))
    precisions = [eqn.params["precision"] for eqn in jaxpr.eqns if eqn.primitive.name == "dot_general"]
    assert precisions == [(jax.lax.Precision.HIGHEST,) * 2] * len(SHAPES)


def test_at_first_the_gradient_reaches_b_alone_among_the_adapters(graphdef_and_params, config):
    graphdef, params = graphdef_and_params
    clip = np.random.default_rng(0).integers(0, 256, (1, *config.clip_size, 3), np.uint8)

    def loss(adapted):
        return nnx.merge(graphdef, merge_adapters(adapted))(clip, labels=jnp.array([1])).loss

    grads = flat(jax.jit(jax.grad(loss))(add_adapters(params, 4, jax.random.key(0))))
    for name in SHAPES:
        a, b = (np.asarray(grads[f"{BLOCKS}/{name}/lora_{x}"]) for x in "ab")
        assert not a.any()
        assert (np.abs(b).max(axis=(-2, -1)) > 0).all()


def test_parameters_without_adapters_come_back_as_they_were(params):
    partial = params | {"classifier": {"kernel": None, "bias": params["classifier"]["bias"]}, "videomae": None}
    for tree in (params, partial):
        merged = merge_adapters(tree)
        assert flat(merged).keys() == flat(tree).keys()
        assert all(flat(merged)[name] is leaf for name, leaf in flat(tree).items())


def test_merging_leaves_what_it_is_given_as_it_was(params):
    adapted = trained(params)
    names = flat(adapted).keys()
    merge_adapters(adapted)
    assert flat(adapted).keys() == names
    kernel = f"{BLOCKS}/mlp/output/kernel"
    np.testing.assert_array_equal(flat(adapted)[kernel], flat(params)[kernel])


def test_adapters_are_told_by_their_names(params):
    adapted = add_adapters(params, 4, jax.random.key(0))
    names = [path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(adapted)]
    assert [names.count(leaf) for leaf in LEAVES] == [4, 4]


@pytest.mark.parametrize("rank", [0, -1, 32, 40])
def test_ranks_that_make_no_sense_are_errors(params, rank):
    with pytest.raises(ValueError, match=rf"at least 1.*got {rank}; {BLOCKS}/attention/qkv is 32 x 32: use at most 31"):
        add_adapters(params, rank, jax.random.key(0))


def test_the_narrowest_matrix_bounds_the_rank(params):
    params["videomae"]["encoder"]["layer"]["mlp"]["intermediate"]["kernel"] = jnp.zeros((2, 32, 8))
    with pytest.raises(ValueError, match=f"got 8; {BLOCKS}/mlp/intermediate is 32 x 8: use at most 7"):
        add_adapters(params, 8, jax.random.key(0))


def test_the_largest_rank_is_one_below_the_sides(params):
    adapted = flat(add_adapters(params, 31, jax.random.key(0)))
    assert adapted[f"{BLOCKS}/mlp/output/lora_b"].shape == (2, 31, 32)
