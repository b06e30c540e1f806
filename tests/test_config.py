import dataclasses

import jax
import pytest
import torch
import transformers
from flax import nnx

from videomae_jax import VideoMAEConfig, VideoMAEForPreTraining
from videomae_jax.config import SIZES


def num_parameters(config: VideoMAEConfig) -> int:
    """Counted on shapes alone, nothing is allocated."""
    model = nnx.eval_shape(lambda: VideoMAEForPreTraining(config, rngs=nnx.Rngs(0)))
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.split(model)[1]))


def test_defaults_are_those_of_transformers():
    ours, theirs = dataclasses.asdict(VideoMAEConfig()), transformers.VideoMAEConfig().to_dict()
    theirs["qkv_bias"] = theirs.pop("qv_bias")
    shared = ours.keys() & theirs.keys()
    assert {name: ours[name] for name in shared} == {name: theirs[name] for name in shared}
    assert ours.keys() - shared == {"decoder_norm_eps", "position_embedding_type", "image_mean", "image_std"}


def test_the_default_model_has_the_published_number_of_parameters():
    assert num_parameters(VideoMAEConfig()) == 94_209_408


def test_base_has_a_norm_after_the_encoder_besides():
    assert num_parameters(VideoMAEConfig.from_size("base")) == 94_209_408 + 1_536


@pytest.mark.parametrize("size", SIZES)
def test_every_size_has_as_many_parameters_as_in_transformers(size):
    # The number depends on the cube and not on the clip, and transformers fills its position tables in Python loops.
    config = VideoMAEConfig.from_size(size, image_size=28 if size == "giant" else 32, num_frames=2)
    with torch.device("meta"):
        theirs = transformers.VideoMAEForPreTraining(transformers.VideoMAEConfig(**dataclasses.asdict(config)))
    assert num_parameters(config) == theirs.num_parameters()


# Encoder width, depth, heads, decoder width, depth, heads, numbers predicted for a token: papers of V1 and V2, tables
# of architectures, and their scripts.
@pytest.mark.parametrize(
    "size, published",
    [
        ("small", (384, 12, 6, 192, 4, 3, 1536)),
        ("base", (768, 12, 12, 384, 4, 6, 1536)),
        ("large", (1024, 24, 16, 512, 12, 8, 1536)),
        ("huge", (1280, 32, 16, 640, 12, 8, 1536)),
        ("huge_v2", (1280, 32, 16, 512, 4, 8, 1536)),
        ("giant", (1408, 40, 16, 512, 4, 8, 1176)),
    ],
)
def test_sizes_are_the_published_ones(size, published):
    config = VideoMAEConfig.from_size(size)
    encoder = (config.hidden_size, config.num_hidden_layers, config.num_attention_heads)
    decoder = (config.decoder_hidden_size, config.decoder_num_hidden_layers, config.decoder_num_attention_heads)
    assert (*encoder, *decoder, config.patch_dim) == published


@pytest.mark.parametrize("size", SIZES)
def test_sizes_have_the_norms_of_the_original(size):
    config = VideoMAEConfig.from_size(size)
    assert (config.layer_norm_eps, config.decoder_norm_eps, config.use_mean_pooling) == (1e-6, 1e-6, False)


def test_base_clip_has_1568_tokens_of_1536_numbers():
    config = VideoMAEConfig.from_size("base")
    assert config.grid == (8, 14, 14)
    assert config.num_patches == 1568
    assert config.patch_dim == 1536


def test_any_clip_whose_sides_divide():
    config = VideoMAEConfig(
        image_size=(48, 80), patch_size=(8, 16), num_frames=12, tubelet_size=3, num_channels=7, num_attention_heads=8
    )
    assert config.clip_size == (12, 48, 80)
    assert config.patch == (3, 8, 16)
    assert config.grid == (4, 6, 5)
    assert config.num_patches == 4 * 6 * 5
    assert config.patch_dim == 3 * 8 * 16 * 7


@pytest.mark.parametrize("spelling", [96, [96], (96,), [96, 96], (96, 96)])
def test_spellings_of_a_square_are_equal(spelling):
    assert VideoMAEConfig(image_size=spelling) == VideoMAEConfig(image_size=96)
    assert VideoMAEConfig(image_size=192, patch_size=spelling).patch == (2, 96, 96)


def test_lists_become_hashable():
    lists = VideoMAEConfig(image_size=[32, 48], image_mean=[0.1, 0.2, 0.3], image_std=[1, 1, 1])
    tuples = VideoMAEConfig(image_size=(32, 48), image_mean=(0.1, 0.2, 0.3), image_std=(1, 1, 1))
    assert lists == tuples
    assert hash(lists) == hash(tuples)


def test_pixel_statistics_of_rgb_are_imagenets():
    config = VideoMAEConfig()
    assert config.pixel_mean == tuple(transformers.image_utils.IMAGENET_DEFAULT_MEAN)
    assert config.pixel_std == tuple(transformers.image_utils.IMAGENET_DEFAULT_STD)


def test_pixel_statistics_of_other_channels_leave_pixels_as_they_are():
    config = VideoMAEConfig(num_channels=2)
    assert (config.pixel_mean, config.pixel_std) == ((0, 0), (1, 1))


def test_given_pixel_statistics_win():
    config = VideoMAEConfig(num_channels=1, image_mean=(0.3,), image_std=(0.2,))
    assert (config.pixel_mean, config.pixel_std) == ((0.3,), (0.2,))


@pytest.mark.parametrize(
    "bad, message",
    [
        (dict(image_size=225), r"image height 225 .* divisible .* 16: image_size=225, patch_size=16"),
        (dict(image_size=(224, 100)), r"image width 100 .* image_size=\(224, 100\)"),
        (dict(image_size=0), r"image_size .* got 0"),
        (dict(image_size=(32, 32, 32)), r"image_size .* \(height, width\).* got \(32, 32, 32\)"),
        (dict(image_size="224"), r"image_size .* got '224'"),
        (dict(patch_size=0), r"patch_size .* got 0"),
        (dict(patch_size=[16.0, 16.0]), r"patch_size .* got \[16.0, 16.0\]"),
        (dict(num_frames=15), r"num_frames 15 .* divisible .* 2: .* num_frames=15, tubelet_size=2"),
        (dict(num_frames=16.0), r"num_frames .* got 16.0"),
        (dict(tubelet_size=0), r"tubelet_size .* got 0"),
        (dict(num_channels=0), r"num_channels .* got 0"),
        (dict(hidden_size=0), r"hidden_size .* got 0"),
        (dict(hidden_size=100), r"hidden_size=100 .* num_attention_heads=12"),
        (dict(num_hidden_layers=0), r"num_hidden_layers .* got 0"),
        (dict(num_attention_heads=-12), r"num_attention_heads .* got -12"),
        (dict(intermediate_size=0), r"intermediate_size .* got 0"),
        (dict(decoder_hidden_size=100), r"decoder_hidden_size=100 .* decoder_num_attention_heads=6"),
        (dict(decoder_num_hidden_layers=0), r"decoder_num_hidden_layers .* got 0"),
        (dict(position_embedding_type="learned"), r"position_embedding_type .* 'sincos_3d', got 'learned'"),
        (dict(image_mean=(0.5,)), r"image_mean=\(0.5,\) .* num_channels=3"),
        (dict(image_std=(0.5, 0.5)), r"image_std=\(0.5, 0.5\) .* num_channels=3"),
        (dict(image_std=(0.5, 0.5, 0)), r"image_std=\(0.5, 0.5, 0\) must be positive"),
    ],
    ids=str,
)
def test_bad_field_is_named(bad, message):
    with pytest.raises(ValueError, match=message):
        VideoMAEConfig(**bad)


def test_unknown_size_lists_the_known_ones():
    with pytest.raises(ValueError, match="size must be one of tiny, small, base, .*, got 'bse'"):
        VideoMAEConfig.from_size("bse")


def test_unknown_override_of_a_size_is_named():
    with pytest.raises(ValueError, match="no field hiden_size, num_frame"):
        VideoMAEConfig.from_size("tiny", num_frame=8, hiden_size=8)
