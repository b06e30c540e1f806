import numpy as np
import pytest
from flax import nnx
from flax.traverse_util import flatten_dict

from videomae_jax import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEModel
from videomae_jax.weights import huggingface, layouts

CONFIG = VideoMAEConfig(image_size=8, patch_size=(4, 2), num_channels=3, num_frames=2, use_mean_pooling=False)


@pytest.mark.parametrize("cls", [VideoMAEForPreTraining, VideoMAEModel])
def test_every_parameter_has_a_rule_and_every_rule_a_parameter(cls):
    model = nnx.eval_shape(lambda: cls(CONFIG, rngs=nnx.Rngs(0)))
    params = flatten_dict(nnx.to_pure_dict(nnx.split(model)[1]), sep="/")
    rules = huggingface.PRETRAINING if cls is VideoMAEForPreTraining else huggingface.ENCODER
    assert params.keys() == {rule.ours for rule in rules}


def test_no_two_rules_share_a_name():
    for rules in (huggingface.ENCODER, huggingface.PRETRAINING):
        names = [name for rule in rules for name in rule.theirs]
        assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "layout, shape",
    [
        (layouts.SAME, (5,)),
        (layouts.LINEAR, (5, 7)),
        (layouts.QKV, (5, 3, 5)),
        (layouts.TOKEN, (5,)),
        (layouts.CONV3D, (CONFIG.patch_dim, 5)),
    ],
    ids=["same", "linear", "qkv", "token", "conv3d"],
)
def test_layouts_come_back(layout, shape):
    ours = np.arange(np.prod(shape)).reshape(shape)
    np.testing.assert_array_equal(layout.to_ours(layout.to_theirs(ours, CONFIG), CONFIG), ours)


def test_qkv_is_three_matrices_in_torchs_order():
    ours = np.random.default_rng(0).normal(size=(4, 3, 4))
    x = np.random.default_rng(1).normal(size=4)
    together = np.einsum("d,dcf->cf", x, ours)
    for number, matrix in enumerate(layouts.QKV.to_theirs(ours, CONFIG)):
        np.testing.assert_allclose(matrix @ x, together[number])


def test_patch_embedding_has_torchs_axes():
    """[out, channels, frames, height, width], told apart by a patch whose sides all differ."""
    (theirs,) = layouts.CONV3D.to_theirs(np.arange(CONFIG.patch_dim * 5).reshape(-1, 5), CONFIG)
    assert theirs.shape == (5, 3, 2, 4, 2)
    frame, row, column, channel, out = 1, 2, 1, 0, 3
    assert theirs[out, channel, frame, row, column] == (((frame * 4 + row) * 2 + column) * 3 + channel) * 5 + out
