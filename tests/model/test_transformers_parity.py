"""Our models against transformers' on random weights, each loading what the other saved.

N(0, 0.3) is added to every parameter: at its initialisation alone a model hides faults, a wrong number of heads
changes its outputs by 3e-6.
"""

import dataclasses
import json

import jax
import numpy as np
import pytest
import torch
import transformers
from flax import nnx

from videomae_jax import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEModel
from videomae_jax.model.masking import Masking, mask_from_ids

TINY = VideoMAEConfig(
    image_size=32,
    patch_size=8,
    num_frames=4,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=48,
    decoder_hidden_size=24,
    decoder_num_hidden_layers=2,
    decoder_num_attention_heads=2,
    decoder_intermediate_size=40,
)
CHANGES = {
    "square": {},
    "rectangle": dict(image_size=(16, 40)),
    "norm_after_the_encoder": dict(use_mean_pooling=False, layer_norm_eps=1e-6),
    "gray": dict(num_channels=1),
    "raw_pixels": dict(norm_pix_loss=False),
    "tubelets_of_one_frame": dict(tubelet_size=1, num_frames=3),
    "no_query_and_value_biases": dict(qkv_bias=False),
    "other_heads": dict(num_attention_heads=16, decoder_num_attention_heads=1),
}


def noisy_theirs(config):
    fields = json.loads(json.dumps(dataclasses.asdict(config)))  # tuples as transformers would read them
    fields["qv_bias"] = fields.pop("qkv_bias")
    known = transformers.VideoMAEConfig().to_dict()
    torch.manual_seed(0)
    theirs = transformers.VideoMAEForPreTraining(
        transformers.VideoMAEConfig(**{name: value for name, value in fields.items() if name in known})
    )
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return theirs


def ours_and_theirs(config, folder):
    """One model, in both libraries."""
    theirs = noisy_theirs(config)
    theirs.save_pretrained(folder)
    return VideoMAEForPreTraining.from_pretrained(folder), theirs


@pytest.fixture(scope="module", params=CHANGES.values(), ids=CHANGES)
def config(request):
    return dataclasses.replace(TINY, **request.param)


@pytest.fixture(scope="module")
def models(config, tmp_path_factory):
    return ours_and_theirs(config, tmp_path_factory.mktemp("model"))


def inputs(config):
    """Two normalised clips, and a mask of three tokens in four."""
    clips = np.random.default_rng(1).normal(size=(2, *config.clip_size, config.num_channels)).astype(np.float32)
    ids = Masking("random", 0.75, "none", 0, config.grid)(jax.random.split(jax.random.key(0), 2))
    return clips, np.asarray(mask_from_ids(ids.masked, config.num_patches))


def as_torch(clips, mask):
    return torch.tensor(clips).permute(0, 1, 4, 2, 3), torch.tensor(mask)


def assert_close(ours, theirs, tolerance=1e-5):
    """Relative to the largest number."""
    theirs = theirs.detach().numpy()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * abs(theirs).max())


def test_config_is_read_as_it_was(config, models):
    assert models[0].config == config


def test_pretraining_predicts_the_same(models):
    ours, theirs = models
    clips, mask = inputs(ours.config)
    output, expected = ours(clips, mask), theirs(*as_torch(clips, mask))
    assert output.logits.shape == expected.logits.shape
    assert_close(output.logits, expected.logits)
    assert_close(output.loss, expected.loss)


def test_the_encoder_sees_the_same(models):
    ours, theirs = models
    clips, mask = inputs(ours.config)
    expected = theirs.videomae(as_torch(clips, mask)[0]).last_hidden_state
    assert_close(ours.videomae(clips).last_hidden_state, expected)


def test_the_encoder_sees_the_same_in_visible_tokens(tmp_path):
    ours, theirs = ours_and_theirs(TINY, tmp_path)
    clips, mask = inputs(TINY)
    expected = theirs.videomae(*as_torch(clips, mask)).last_hidden_state
    assert_close(ours.videomae(clips, mask).last_hidden_state, expected)


def assert_transformers_loads(ours, theirs, folder):
    """What we save comes back in transformers as the model that it was, to the bit and without a word."""
    ours.save_pretrained(folder)
    again, report = type(theirs).from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    assert again.state_dict().keys() == theirs.state_dict().keys()
    for name, array in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[name], array), name
    for name in theirs.config.to_dict().keys() - {"_name_or_path", "architectures", "dtype"}:
        assert getattr(again.config, name) == getattr(theirs.config, name), name


def test_transformers_loads_what_we_save(models, tmp_path):
    assert_transformers_loads(*models, tmp_path)


def test_transformers_loads_an_encoder_alone(tmp_path):
    theirs = noisy_theirs(TINY).videomae
    theirs.save_pretrained(tmp_path / "theirs")
    assert_transformers_loads(VideoMAEModel.from_pretrained(tmp_path / "theirs"), theirs, tmp_path / "ours")


def test_gradients_of_the_loss_are_torchs(tmp_path):
    config = dataclasses.replace(TINY, use_mean_pooling=False)
    ours, theirs = ours_and_theirs(config, tmp_path / "weights")
    clips, mask = inputs(ours.config)
    theirs(*as_torch(clips, mask)).loss.backward()
    with torch.no_grad():  # saved as weights, their gradients come back under our names and in our order
        for parameter in theirs.parameters():
            parameter.copy_(parameter.grad)
    theirs.save_pretrained(tmp_path / "gradients")
    expected = nnx.to_pure_dict(nnx.split(VideoMAEForPreTraining.from_pretrained(tmp_path / "gradients"))[1])

    graphdef, state = nnx.split(ours)
    visible, masked = np.stack([np.flatnonzero(~row) for row in mask]), np.stack([np.flatnonzero(row) for row in mask])

    def loss(params):
        return nnx.merge(graphdef, params)(clips, visible_ids=visible, masked_ids=masked).loss

    gradients = jax.jit(jax.grad(loss))(nnx.to_pure_dict(state))
    assert jax.tree.structure(gradients) == jax.tree.structure(expected)
    for (path, gradient), wanted in zip(jax.tree.leaves_with_path(gradients), jax.tree.leaves(expected), strict=True):
        assert abs(wanted).max() > 0, path
        np.testing.assert_allclose(gradient, wanted, rtol=0, atol=1e-4 * abs(wanted).max(), err_msg=str(path))
