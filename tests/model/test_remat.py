import contextlib
from typing import get_args

import jax
import numpy as np
import pytest
from flax import nnx
from jax.extend.core import jaxprs_in_params
from jax.sharding import AxisType

from videomae_jax import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEModel
from videomae_jax.config import Remat
from videomae_jax.model import attention
from videomae_jax.model.masking import Masking

CONFIG = VideoMAEConfig.from_size("tiny", image_size=32, num_frames=8)
REMATS = get_args(Remat)


def loss_and_params(remat):
    """A model's loss, a function of its parameters."""
    model = VideoMAEForPreTraining(CONFIG, remat=remat, rngs=nnx.Rngs(0))
    graphdef, state = nnx.split(model)
    mask = Masking("tube", 0.75, "none", 0.0, CONFIG.grid)(jax.random.split(jax.random.key(0), 4))
    video = np.random.default_rng(0).integers(0, 256, (4, *CONFIG.clip_size, 3), dtype=np.uint8)

    def loss(params):
        return nnx.merge(graphdef, params)(video, visible_ids=mask.visible, masked_ids=mask.masked).loss

    return loss, nnx.to_pure_dict(state)


@pytest.mark.parametrize("remat", REMATS)
def test_what_is_kept_changes_no_gradient(remat):
    (oracle_loss, oracle), (loss, gradients) = (
        jax.jit(jax.value_and_grad(loss))(params) for loss, params in map(loss_and_params, ("none", remat))
    )
    assert float(loss) == pytest.approx(float(oracle_loss), rel=1e-6)
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=1e-6), gradients, oracle)


def test_less_is_kept_from_none_over_dots_to_full():
    def kept(remat):
        _, backward = jax.vjp(*loss_and_params(remat))
        return sum(leaf.nbytes for leaf in jax.tree.leaves(backward))

    none, dots, full = map(kept, REMATS)
    assert none > 1.3 * dots > 1.3 * full


def operations(jaxpr):
    """The names of a program's operations, those of inner programs too, but for kernels'."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        if equation.primitive.name != "pallas_call":
            for inner in jaxprs_in_params(equation.params):
                yield from operations(inner)


@pytest.fixture
def forgotten():
    """Programs that were made for one platform are not taken for another's."""
    jax.clear_caches()
    yield
    jax.clear_caches()


# Three of each in a block: attention's tiles take `exp` forwards and backwards, and GELU's derivative does; JAX has a
# kernel for TPUs forwards, two backwards.
@pytest.mark.parametrize(("where", "operation"), [("cpu", "exp"), ("tpu", "pallas_call")])
@pytest.mark.parametrize("on_a_mesh", [False, True])
def test_attention_is_computed_again_with_full_alone(where, operation, on_a_mesh, forgotten, monkeypatch):
    monkeypatch.setattr(attention, "platform", lambda: where)
    monkeypatch.setattr(attention, "LONG", 1)
    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)

    def count(remat):
        loss, params = loss_and_params(remat)
        with jax.set_mesh(mesh) if on_a_mesh else contextlib.nullcontext():
            return list(operations(jax.make_jaxpr(jax.grad(loss))(params).jaxpr)).count(operation)

    none, dots, full = map(count, REMATS)
    # Two stacks: the encoder's and the decoder's.
    assert (none, dots, full) == (2 * 3, 2 * 3, 2 * 4)


def test_an_unknown_word_is_an_error():
    with pytest.raises(ValueError, match="remat must be one of none, dots, full, got 'some'"):
        VideoMAEModel(CONFIG, remat="some", rngs=nnx.Rngs(0))
