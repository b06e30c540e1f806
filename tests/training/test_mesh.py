import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from videomae_jax import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEForVideoClassification
from videomae_jax.config import SIZES
from videomae_jax.training.mesh import make_mesh, shardings


def parameters(size, cls=VideoMAEForPreTraining, **fields):
    clip = dict(image_size=112) if size == "giant" else dict(image_size=64)
    pooling = dict(use_mean_pooling=cls is VideoMAEForVideoClassification)
    config = VideoMAEConfig.from_size(size, **clip | pooling | fields)
    model = nnx.eval_shape(lambda: cls(config, rngs=nnx.Rngs(0)))
    return nnx.to_pure_dict(nnx.split(model)[1])


@pytest.mark.parametrize("cls", [VideoMAEForPreTraining, VideoMAEForVideoClassification])
@pytest.mark.parametrize("size", SIZES)
def test_every_parameter_of_every_size_has_a_place(size, cls):
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    for leaf in jax.tree.leaves(jax.tree.map(lambda x: x, shardings(parameters(size, cls), mesh))):
        assert leaf.mesh == mesh


ATTENTIVE = dict(cls=VideoMAEForVideoClassification, use_mean_pooling=False, attentive_pooling=True)


@pytest.mark.parametrize("size", SIZES)
def test_every_parameter_of_every_sizes_attentive_pooler_has_a_place(size):
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    for leaf in jax.tree.leaves(shardings(parameters(size, **ATTENTIVE), mesh)):
        assert leaf.mesh == mesh


def test_the_pooler_is_split_like_a_block_that_is_in_no_stack():
    pooler = shardings(parameters("tiny", **ATTENTIVE), make_mesh(data=1, fsdp=4, tensor=2))["pooler"]
    for name in ("query", "key", "value"):
        assert pooler["attention"][name]["kernel"].spec == P("fsdp", "tensor")
    assert pooler["attention"]["value"]["bias"].spec == pooler["attention"]["query"]["bias"].spec == P("tensor")
    assert pooler["mlp"]["intermediate"]["kernel"].spec == P("fsdp", "tensor")
    assert pooler["mlp"]["intermediate"]["bias"].spec == P("tensor")
    assert pooler["mlp"]["output"]["kernel"].spec == P("tensor", "fsdp")
    for replicated in (pooler["query"], pooler["mlp"]["output"]["bias"], pooler["layernorm_before"]["scale"]):
        assert replicated.spec == P()


def test_heads_and_mlp_columns_are_split_over_tensor_and_the_rest_of_a_matrix_over_fsdp():
    placed = shardings(parameters("tiny"), make_mesh(data=1, fsdp=4, tensor=2))
    layer = placed["videomae"]["encoder"]["layer"]
    assert layer["attention"]["qkv"]["kernel"].spec == P(None, "fsdp", None, "tensor")
    assert layer["mlp"]["output"]["kernel"].spec == P(None, "tensor", "fsdp")
    assert placed["mask_token"].spec == P()


def test_one_axis_takes_the_rest():
    assert dict(make_mesh(data=-1, fsdp=2, tensor=1).shape) == {"data": 4, "fsdp": 2, "tensor": 1}


@pytest.mark.parametrize("sizes", [(3, 1, 1), (-1, -1, 1), (2, 2, 1), (-1, 3, 1), (0, 1, 8), (16, 1, 1)])
def test_sizes_that_do_not_fit_are_an_error_that_names_them(sizes):
    data, fsdp, tensor = sizes
    with pytest.raises(ValueError, match=f"'data': {data}, .* does not fit 8 devices"):
        make_mesh(data=data, fsdp=fsdp, tensor=tensor)


def test_a_parameter_without_a_rule_is_an_error():
    with pytest.raises(ValueError, match="No sharding rule matches the parameter head/surprise"):
        shardings({"head": {"surprise": jnp.zeros((4, 4))}}, make_mesh(data=-1, fsdp=1, tensor=1))


def test_a_side_that_the_mesh_does_not_divide_is_an_error():
    with pytest.raises(ValueError, match=r"mesh axis fsdp=8 does not divide a side of head/kernel, shape \(12, 16\)"):
        shardings({"head": {"kernel": jnp.zeros((12, 16))}}, make_mesh(data=1, fsdp=8, tensor=1))


def test_the_sides_of_a_tpu_slice_are_split_where_they_have_to_be(tpus):
    mesh = make_mesh(data=-1, fsdp=16, tensor=1, devices=tpus("v5p:8x8x8"))
    assert dict(mesh.shape) == {"data": 32, "fsdp": 16, "tensor": 1}
    # What gathers weights lies together: 16 neighbours of the torus, 2 x 8 or less far apart.
    sides = [np.ptp([device.coords for device in row.flat], axis=0) + 1 for row in mesh.devices]
    assert all(math.prod(side) == 16 for side in sides)
