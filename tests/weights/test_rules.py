import jax
import numpy as np
import pytest
from flax import nnx

from videomae_jax import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEForVideoClassification, VideoMAEModel
from videomae_jax.weights import layouts
from videomae_jax.weights.arrays import DIALECTS, from_checkpoint, parts_in, recognise, to_checkpoint
from videomae_jax.weights.huggingface import HUGGINGFACE
from videomae_jax.weights.pretrained import flat_params

PATCH = (2, 4, 2)  # frames, height, width: all different from each other and from the number of channels
CONFIG = VideoMAEConfig(
    image_size=8,
    patch_size=PATCH[1:],
    num_frames=2,
    hidden_size=12,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=20,
    decoder_hidden_size=10,
    decoder_num_hidden_layers=2,
    decoder_num_attention_heads=2,
    decoder_intermediate_size=14,
    num_labels=5,
)


def shapes(cls, **changes):
    """The paths and shapes of a model's parameters."""
    model = nnx.eval_shape(lambda: cls(CONFIG.adapt(**changes), rngs=nnx.Rngs(0)))
    return {path: leaf.shape for path, leaf in flat_params(nnx.split(model)[1]).items()}


def everything():
    """A model with all that a checkpoint can hold."""
    heads = shapes(VideoMAEForVideoClassification)
    heads |= shapes(VideoMAEForVideoClassification, use_mean_pooling=False, attentive_pooling=True)
    return shapes(VideoMAEForPreTraining, use_mean_pooling=False) | heads


def test_every_parameter_has_a_rule_and_every_rule_a_parameter():
    assert everything().keys() == {rule.ours for rule in HUGGINGFACE.rules}


def test_an_encoder_alone_is_the_encoder_of_the_others():
    whole = shapes(VideoMAEForPreTraining)
    assert shapes(VideoMAEModel) == {path: shape for path, shape in whole.items() if path.startswith("videomae/")}


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_no_two_rules_share_a_name_or_a_path(dialect):
    names = [name for rule in dialect.rules for name in rule.theirs]
    paths = [rule.ours for rule in dialect.rules]
    assert len(names) == len(set(names)) and len(paths) == len(set(paths))


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_every_dialect_is_recognised_and_comes_back_bit_by_bit(dialect):
    paths = {rule.ours for rule in dialect.rules}
    wanted = {path: shape for path, shape in everything().items() if path in paths}
    rng = np.random.default_rng(0)
    params = {path: rng.normal(size=shape).astype(np.float32) for path, shape in wanted.items()}
    arrays = to_checkpoint(params, dialect, PATCH)
    assert recognise(list(arrays)) is dialect
    fitted = from_checkpoint(arrays, dialect, wanted, PATCH)
    assert not fitted.new and not fitted.unused
    assert fitted.params.keys() == params.keys()
    jax.tree.map(np.testing.assert_array_equal, fitted.params, params)
    again = to_checkpoint(fitted.params, dialect, PATCH)
    assert again.keys() == arrays.keys()
    jax.tree.map(np.testing.assert_array_equal, again, arrays)


def test_parts_are_counted():
    params = {path: np.zeros(shape) for path, shape in everything().items()}
    counts = parts_in(to_checkpoint(params, HUGGINGFACE, PATCH), HUGGINGFACE)
    # 2 of the patch embedding, 15 a block; 2 and 4 besides the decoder's blocks; a query, 2 norms, 5 and 4 matrices and
    # biases of the pooler's attention and MLP.
    assert counts == {
        "encoder": 2 + 15 * 3,
        "encoder norm": 2,
        "decoder": 2 + 15 * 2 + 4,
        "fc_norm": 2,
        "pooler": 1 + 4 + 5 + 4,
        "classifier": 2,
    }


def test_a_dialect_without_a_name_says_so():
    (dialect,) = (dialect for dialect in DIALECTS if dialect.name == "original, fine-tuning")
    with pytest.raises(ValueError, match="'original, fine-tuning' cannot hold mask_token"):
        to_checkpoint({"mask_token": np.zeros(10)}, dialect, PATCH)


def test_other_models_are_not_recognised():
    with pytest.raises(ValueError, match="no VideoMAE, its first arrays are vit.weight, fc_norm.weight"):
        recognise(["vit.weight", "fc_norm.weight"])


@pytest.mark.parametrize(
    "layout, shape",
    [
        (layouts.SAME, (5,)),
        (layouts.LINEAR, (5, 7)),
        (layouts.QKV, (5, 3, 5)),
        (layouts.FUSED_QKV, (5, 3, 5)),
        (layouts.TOKEN, (5,)),
        (layouts.CONV3D, (CONFIG.patch_dim, 5)),
    ],
    ids=["same", "linear", "qkv", "fused_qkv", "token", "conv3d"],
)
def test_layouts_come_back(layout, shape):
    ours = np.arange(np.prod(shape)).reshape(shape)
    np.testing.assert_array_equal(layout.to_ours(layout.to_theirs(ours, PATCH)), ours)


def test_qkv_is_three_matrices_in_torchs_order():
    ours = np.random.default_rng(0).normal(size=(4, 3, 4))
    x = np.random.default_rng(1).normal(size=4)
    together = np.einsum("d,dcf->cf", x, ours)
    for number, matrix in enumerate(layouts.QKV.to_theirs(ours, PATCH)):
        np.testing.assert_allclose(matrix @ x, together[number])
    (fused,) = layouts.FUSED_QKV.to_theirs(ours, PATCH)
    np.testing.assert_allclose((fused @ x).reshape(3, 4), together)


def test_patch_embedding_has_torchs_axes():
    """[out, channels, frames, height, width], told apart by a patch whose sides all differ."""
    (theirs,) = layouts.CONV3D.to_theirs(np.arange(CONFIG.patch_dim * 5).reshape(-1, 5), PATCH)
    assert theirs.shape == (5, 3, 2, 4, 2)
    frame, row, column, channel, out = 1, 2, 1, 0, 3
    assert theirs[out, channel, frame, row, column] == (((frame * 4 + row) * 2 + column) * 3 + channel) * 5 + out
