"""Every parameter of a new model against torch's own initialisers, used as the original uses them."""

import math

import numpy as np
import pytest
import torch
from flax import nnx
from flax.traverse_util import flatten_dict
from scipy.stats import ks_2samp

from videomae_jax import VideoMAEConfig, VideoMAEForPreTraining

pytestmark = pytest.mark.usefixtures("quick_compilation")
D, H, E, F = 64, 160, 48, 112  # encoder's and decoder's width, each with its MLP's
P = 2 * 16 * 16 * 3
CONFIG = VideoMAEConfig(
    image_size=32,
    num_frames=4,
    hidden_size=D,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=H,
    use_mean_pooling=False,
    decoder_hidden_size=E,
    decoder_num_hidden_layers=2,
    decoder_num_attention_heads=4,
    decoder_intermediate_size=F,
)


def xavier(inputs, outputs):
    """The bound, and torch's draw, of a Linear layer to which the original applies its initialisation."""
    return math.sqrt(6 / (inputs + outputs)), torch.nn.init.xavier_uniform_(torch.empty(outputs, inputs))


def untouched_conv(parameter):
    return 1 / math.sqrt(P), getattr(torch.nn.Conv3d(3, 4 * D, (2, 16, 16)), parameter)


def untouched_linear():
    return 1 / math.sqrt(D), torch.nn.Linear(D, E).weight


def mask_token():
    return 0.02, torch.nn.init.trunc_normal_(torch.empty(4096), std=0.02, a=-0.02, b=0.02)


def stack(path, width, hidden):
    return {
        f"{path}/layer/attention/qkv/kernel": lambda: xavier(width, 3 * width),  # one matrix for all three
        f"{path}/layer/attention/output/kernel": lambda: xavier(width, width),
        f"{path}/layer/mlp/intermediate/kernel": lambda: xavier(width, hidden),
        f"{path}/layer/mlp/output/kernel": lambda: xavier(hidden, width),
    }


DRAWN = {
    "videomae/embeddings/projection/kernel": lambda: untouched_conv("weight"),
    "videomae/embeddings/projection/bias": lambda: untouched_conv("bias"),
    **stack("videomae/encoder", D, H),
    "encoder_to_decoder/kernel": untouched_linear,
    "mask_token": mask_token,
    **stack("decoder/decoder_layers", E, F),
    "decoder/head/kernel": lambda: xavier(E, P),
}


def parameters(seed):
    model = VideoMAEForPreTraining(CONFIG, rngs=nnx.Rngs(seed))
    params = flatten_dict(nnx.to_pure_dict(nnx.split(model)[1]), sep="/")
    return {path: np.asarray(leaf) for path, leaf in params.items()}


@pytest.fixture(scope="module")
def drawn() -> dict[str, np.ndarray]:
    return parameters(seed=0)


@pytest.mark.parametrize("path", DRAWN)
def test_bound_is_the_originals(drawn, path):
    bound = DRAWN[path]()[0]
    largest = abs(drawn[path]).max()
    assert largest <= bound * (1 + 1e-6)
    assert largest > bound * (0.9 if drawn[path].size < 100 else 0.99)


@pytest.mark.parametrize("path", DRAWN)
def test_distribution_is_torchs(drawn, path):
    """Kolmogorov-Smirnov: a bound that is right with a spread that is not would fail too."""
    torch.manual_seed(0)
    theirs = DRAWN[path]()[1].detach().numpy().ravel()
    assert ks_2samp(drawn[path].ravel(), theirs).pvalue > 1e-3


@pytest.mark.parametrize("path", [path for path in DRAWN if path != "mask_token"])
def test_spread_is_that_of_the_uniform_distribution(drawn, path):
    bound = DRAWN[path]()[0]
    relative_error = 1 / math.sqrt(drawn[path].size)  # of a standard deviation measured on so many numbers, about
    assert abs(drawn[path].std() / (bound / math.sqrt(3)) - 1) < 4 * relative_error


def test_norms_start_as_the_identity_and_all_other_parameters_at_zero(drawn):
    rest = {path: leaf for path, leaf in drawn.items() if path not in DRAWN}
    for path, leaf in rest.items():
        np.testing.assert_array_equal(leaf, np.full_like(leaf, path.endswith("/scale")), err_msg=path)
    kinds = {path.split("/")[-1] for path in rest}
    assert kinds == {"scale", "bias", "q_bias", "v_bias"}
    assert len(rest) == 2 * 9 + 2 + 2 + 1  # two stacks, two norms, the head's bias


@pytest.mark.parametrize("path", [path for path in DRAWN if "/layer/" in path])
def test_layers_differ(drawn, path):
    layers = drawn[path].reshape(len(drawn[path]), -1)
    assert abs(np.corrcoef(layers) - np.eye(len(layers))).max() < 0.1


def test_parameters_of_equal_shape_differ(drawn):
    query, key, value = np.moveaxis(drawn["videomae/encoder/layer/attention/qkv/kernel"][0], 1, 0)
    output = drawn["videomae/encoder/layer/attention/output/kernel"][0]
    together = np.stack([matrix.ravel() for matrix in (query, key, value, output)])
    assert abs(np.corrcoef(together) - np.eye(4)).max() < 0.1


def test_seeds_differ_in_every_drawn_parameter(drawn):
    other = parameters(seed=1)
    assert all((other[path] != drawn[path]).any() for path in DRAWN)
    assert all((other[path] == drawn[path]).all() for path in drawn.keys() - DRAWN.keys())
