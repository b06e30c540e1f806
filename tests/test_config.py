import copy
import dataclasses
import json
import pickle

import jax
import pytest
import torch
import transformers
from flax import nnx

from videomae_jax import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEImageProcessor
from videomae_jax.config import IMAGENET_MEAN, IMAGENET_STD, SIZES


def num_parameters(config: VideoMAEConfig) -> int:
    """Counted on shapes alone, nothing is allocated."""
    model = nnx.eval_shape(lambda: VideoMAEForPreTraining(config, rngs=nnx.Rngs(0)))
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.split(model)[1]))


OURS = {
    "decoder_norm_eps",
    "head_norm_eps",
    "drop_path_rate",
    "head_dropout_prob",
    "attentive_pooling",
    "position_embedding_type",
    "position_grid",
    "image_mean",
    "image_std",
}


def test_every_field_and_default_is_transformers():
    theirs = transformers.VideoMAEConfig()
    declared = {field.name for field in dataclasses.fields(theirs)}
    inherited = {field.name for field in dataclasses.fields(transformers.PreTrainedConfig)}
    fields = {field.name for field in dataclasses.fields(VideoMAEConfig)}
    wanted = (declared - inherited - {"qv_bias"}) | {"qkv_bias", "id2label", "problem_type"}
    assert fields == wanted | OURS
    ours = VideoMAEConfig()
    for name in wanted - {"qkv_bias"} | {"qv_bias", "num_labels", "label2id"}:
        assert getattr(ours, name) == getattr(theirs, name), name


@pytest.mark.parametrize("spelling", ["qkv_bias", "qv_bias"])
def test_both_spellings_of_the_biases(spelling):
    config = VideoMAEConfig(**{spelling: False})
    assert (config.qkv_bias, config.qv_bias) == (False, False)
    assert dataclasses.replace(config, **{spelling: True}) == VideoMAEConfig()
    assert VideoMAEConfig.from_dict({spelling: False}) == config


def test_labels_by_number_by_name_and_back():
    names = {"0": "jump", "1": "run", "2": "sit"}
    config = VideoMAEConfig(id2label=names)
    assert config.id2label == {0: "jump", 1: "run", 2: "sit"}
    assert config.label2id == {"jump": 0, "run": 1, "sit": 2}
    assert config.num_labels == 3
    assert VideoMAEConfig(label2id=config.label2id) == VideoMAEConfig(id2label=names, num_labels=3) == config
    assert hash(config) == hash(VideoMAEConfig(id2label=dict(reversed(names.items()))))
    assert json.loads(json.dumps(config.id2label)) == names


def test_labels_without_names_are_transformers():
    assert VideoMAEConfig(num_labels=4).id2label == transformers.VideoMAEConfig(num_labels=4).id2label


def test_json_is_read_by_transformers_and_comes_back(tmp_path):
    config = VideoMAEConfig(
        image_size=(32, 48),
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.2,
        hidden_act="relu",
        layer_norm_eps=1e-6,
        qkv_bias=False,
        use_mean_pooling=False,
        norm_pix_loss=False,
        id2label={0: "jump", 1: "run", 2: "sit"},
        problem_type="multi_label_classification",
    )
    config.save_pretrained(tmp_path / "ours")
    theirs = transformers.AutoConfig.from_pretrained(tmp_path / "ours")
    assert type(theirs) is transformers.VideoMAEConfig
    fields = {field.name for field in dataclasses.fields(config)}
    for name in fields - OURS - {"qkv_bias"} | {"label2id", "qv_bias"}:
        ours = getattr(config, name)
        assert getattr(theirs, name) == (list(ours) if isinstance(ours, tuple) else ours), name
    theirs.save_pretrained(tmp_path / "theirs")
    assert VideoMAEConfig.from_pretrained(tmp_path / "theirs") == VideoMAEConfig.from_pretrained(tmp_path / "ours")
    assert VideoMAEConfig.from_pretrained(tmp_path / "ours") == config


def test_our_own_fields_come_back_too(tmp_path):
    config = VideoMAEConfig(
        decoder_norm_eps=1e-3,
        head_norm_eps=1e-4,
        drop_path_rate=0.1,
        head_dropout_prob=0.5,
        use_mean_pooling=False,
        attentive_pooling=True,
        position_embedding_type="sincos_3d",
        position_grid=(8, 10, 12),
        image_mean=(0.1, 0.2, 0.3),
        image_std=(0.4, 0.5, 0.6),
    )
    config.save_pretrained(tmp_path)
    assert VideoMAEConfig.from_pretrained(tmp_path) == config


@pytest.mark.parametrize(
    "change, named",
    [
        (dict(position_embedding_type="sincos_3d"), "position_embedding_type='sincos_3d'"),
        (dict(position_grid=(4, 14, 14)), "position_grid=(4, 14, 14)"),
        (
            dict(norm_pix_loss=False, image_mean=(0.5,) * 3),
            "norm_pix_loss=False with image_mean=(0.5, 0.5, 0.5), image_std=(0.229, 0.224, 0.225)",
        ),
        (dict(norm_pix_loss=False, num_channels=1), "norm_pix_loss=False with num_channels=1"),
        (dict(patch_size=(16, 8)), "patch_size=(16, 8)"),
        (dict(use_mean_pooling=False, attentive_pooling=True), "attentive_pooling=True"),
    ],
)
def test_transformers_refuses_what_it_cannot_express(change, named, tmp_path):
    """It ignores fields that it does not know, and would compute something else without a word."""
    config = VideoMAEConfig(**change)
    assert config.inexpressible() == [named]
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="videomae_jax"):
        transformers.AutoConfig.from_pretrained(tmp_path)
    with torch.device("meta"), pytest.raises(KeyError, match="videomae_jax:gelu"):
        transformers.VideoMAEForPreTraining(transformers.VideoMAEConfig.from_pretrained(tmp_path))
    assert VideoMAEConfig.from_pretrained(tmp_path) == config


def test_transformers_can_express_its_own_statistics():
    config = VideoMAEConfig(norm_pix_loss=False, image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD)
    assert not config.inexpressible()


def test_the_target_says_nothing_of_a_classifier():
    config = VideoMAEConfig(norm_pix_loss=False, image_mean=(0.5,) * 3)
    assert config.inexpressible("VideoMAEForPreTraining") and not config.inexpressible("VideoMAEForVideoClassification")


def test_attentive_pooling_says_something_of_a_classifier_alone():
    config = VideoMAEConfig(use_mean_pooling=False, attentive_pooling=True)
    assert config.inexpressible("VideoMAEForVideoClassification") == ["attentive_pooling=True"]
    assert not config.inexpressible("VideoMAEForPreTraining") and not config.inexpressible("VideoMAEModel")


def test_attentive_pooling_takes_the_place_of_the_mean():
    with pytest.raises(
        ValueError, match="attentive_pooling=True takes the place of use_mean_pooling=True.*pass use_mean"
    ):
        VideoMAEConfig(attentive_pooling=True)


def test_other_clips_keep_the_trained_positions():
    config = VideoMAEConfig()
    assert config.adapt(image_size=(320, 256), num_frames=32).position_grid == (8, 14, 14)
    assert config.adapt(image_size=320).adapt(image_size=384).native_grid == (8, 14, 14)
    assert config.adapt(image_size=320).adapt(image_size=224) == config
    assert config.adapt(image_size=320, position_grid=None) == VideoMAEConfig(image_size=320)


def test_another_number_of_labels_forgets_their_names():
    config = VideoMAEConfig(id2label={0: "jump", 1: "run", 2: "sit"})
    assert config.adapt(num_labels=2) == VideoMAEConfig()
    assert config.adapt(num_labels=2, id2label={0: "a", 1: "b"}).label2id == {"a": 0, "b": 1}
    assert config.adapt(layer_norm_eps=1e-6).id2label == config.id2label
    assert config.adapt(num_labels=3).id2label == config.id2label


def test_labels_do_not_change():
    config = VideoMAEConfig(num_labels=3)
    for change in (lambda: config.id2label.update({3: "x"}), lambda: config.id2label.__setitem__(0, "x")):
        with pytest.raises(TypeError, match="labels of a config do not change; config.adapt"):
            change()
    for copied in (pickle.loads(pickle.dumps(config)), copy.deepcopy(config)):
        assert copied == config and hash(copied) == hash(config)


@pytest.mark.parametrize(
    "processor, mean, std",
    [
        (dict(image_mean=[0.5] * 3, image_std=[0.25] * 3), (0.5,) * 3, (0.25,) * 3),
        (dict(image_mean=0.5, image_std=0.25), (0.5,) * 3, (0.25,) * 3),
        (dict(image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]), None, None),
        (dict(image_mean=[0.5] * 3, image_std=[0.25] * 3, do_normalize=False), (0.0,) * 3, (1.0,) * 3),
        (dict(image_mean=None), (0.5,) * 3, (0.5,) * 3),
    ],
    ids=["lists", "numbers", "imagenet", "none", "transformers' defaults"],
)
def test_statistics_are_the_processors(processor, mean, std, tmp_path):
    transformers.VideoMAEConfig().save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    config = VideoMAEConfig.from_pretrained(tmp_path)
    assert (config.image_mean, config.image_std) == (mean, std)


def test_model_and_processor_read_the_same_statistics(tmp_path):
    transformers.VideoMAEConfig().save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"size": 224}')
    config, processor = (cls.from_pretrained(tmp_path) for cls in (VideoMAEConfig, VideoMAEImageProcessor))
    assert (config.pixel_mean, config.pixel_std) == (processor.image_mean, processor.image_std)
    (tmp_path / "preprocessor_config.json").rename(tmp_path / "video_preprocessor_config.json")
    config, processor = (cls.from_pretrained(tmp_path) for cls in (VideoMAEConfig, VideoMAEImageProcessor))
    assert (config.pixel_mean, config.pixel_std) == (processor.image_mean, processor.image_std) == ((0.5,) * 3,) * 2


@pytest.mark.parametrize("content", ["{", "[]", '{"image_mean": "grey"}'])
def test_a_broken_processor_is_named(content, tmp_path):
    transformers.VideoMAEConfig().save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(content)
    with pytest.raises(ValueError, match="preprocessor_config.json"):
        VideoMAEConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_a_broken_config_is_named(content, tmp_path):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=f"{tmp_path}/config.json"):
        VideoMAEConfig.from_pretrained(tmp_path)


def test_a_file_may_be_named(tmp_path):
    VideoMAEConfig(num_labels=3).save_pretrained(tmp_path)
    assert VideoMAEConfig.from_pretrained(tmp_path / "config.json").num_labels == 3


def test_labels_without_names_in_a_file(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "videomae", "num_labels": 7}')
    assert VideoMAEConfig.from_pretrained(tmp_path).num_labels == 7


def test_statistics_of_the_config_win(tmp_path):
    VideoMAEConfig(image_mean=(0.1,) * 3, image_std=(0.2,) * 3).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(dict(image_mean=[0.5] * 3, image_std=[0.5] * 3)))
    assert VideoMAEConfig.from_pretrained(tmp_path).pixel_mean == (0.1,) * 3


class TestHeadsOfViTS:
    """transformers' converter wrote 16 for the published 6."""

    @pytest.fixture
    def small(self, tmp_path):
        transformers.VideoMAEConfig(
            hidden_size=384, num_attention_heads=16, intermediate_size=1536, decoder_num_hidden_layers=12
        ).save_pretrained(tmp_path)
        return tmp_path

    def test_are_corrected_with_a_warning(self, small):
        with pytest.warns(UserWarning, match="says 16 attention heads.* trained with 6.* num_attention_heads=16"):
            assert VideoMAEConfig.from_pretrained(small).num_attention_heads == 6

    @pytest.mark.filterwarnings("error")
    def test_are_left_when_asked_for(self, small):
        config = VideoMAEConfig.from_pretrained(small, num_attention_heads=16)
        assert config.num_attention_heads == 16
        config.save_pretrained(small)
        assert VideoMAEConfig.from_pretrained(small) == config


def test_other_models_configs_are_refused(tmp_path):
    transformers.ViTConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"config.json is of a 'vit' model, not of VideoMAE"):
        VideoMAEConfig.from_pretrained(tmp_path)


def test_errors_of_a_saved_config_name_the_file(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "videomae", "hidden_act": "mish"}')
    with pytest.raises(ValueError, match=rf"{tmp_path}/config.json: hidden_act must be one of 'gelu', .* got 'mish'"):
        VideoMAEConfig.from_pretrained(tmp_path)


def test_the_default_model_has_the_published_number_of_parameters():
    assert num_parameters(VideoMAEConfig()) == 94_209_408


def test_base_has_a_norm_after_the_encoder_besides():
    assert num_parameters(VideoMAEConfig.from_size("base")) == 94_209_408 + 1_536


@pytest.mark.parametrize("size", SIZES)
def test_every_size_has_as_many_parameters_as_in_transformers(size):
    # The number depends on the cube and not on the clip, and transformers fills its position tables in Python loops.
    config = VideoMAEConfig.from_size(size, image_size=28 if size == "giant" else 32, num_frames=2)
    with torch.device("meta"):
        theirs = transformers.VideoMAEForPreTraining(transformers.VideoMAEConfig(**config.to_dict()))
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
        (dict(hidden_act="mish"), r"hidden_act must be one of 'gelu', .*, got 'mish'"),
        (dict(problem_type="ranking"), r"problem_type must be one of None, 'regression', .*, got 'ranking'"),
        (dict(problem_type="single_label_classification", num_labels=1), r"needs more than one class"),
        (dict(hidden_dropout_prob=1.0), r"hidden_dropout_prob must be less than 1, got 1.0"),
        (dict(drop_path_rate=-0.1), r"drop_path_rate .* got -0.1"),
        (dict(position_grid=(8, 14)), r"position_grid must be three whole numbers .* got \(8, 14\)"),
        (
            dict(position_embedding_type="sincos_3d", decoder_hidden_size=24),
            r"decoder_hidden_size must be .* 16, got 24",
        ),
        (dict(num_labels=0), r"num_labels must be a whole number of at least 1, got 0"),
        (dict(num_labels=3, id2label={0: "a"}), r"num_labels=3, but id2label names 1 classes"),
        (dict(id2label={0: "a", 2: "b"}), r"id2label must number the classes from 0 without gaps, .* \[0, 2\]"),
        (dict(id2label={"jump": "a"}), r"id2label must number the classes from 0, got the numbers \['jump'\]"),
        (dict(label2id={"a": "first"}), r"id2label must number the classes from 0, got the numbers \['first'\]"),
        (dict(id2label={0: "a"}, label2id={"b": 0}), r"label2id is not the inverse of id2label"),
        (dict(layer_norm_eps=-1.0), r"layer_norm_eps must be a number of at least 0, got -1.0"),
        (dict(layer_norm_eps="1e-6"), r"layer_norm_eps .* got '1e-6'"),
        (dict(norm_pix_loss="no"), r"norm_pix_loss must be True or False, got 'no'"),
        (dict(tubelet_size=True), r"tubelet_size .* got True"),
        (dict(image_mean=0.5), r"image_mean must be a list of numbers, one for each channel, got 0.5"),
        (dict(image_mean=(float("nan"),) * 3), r"image_mean must be a list of numbers"),
        (dict(id2label=["a", "b"]), r"id2label must be a dict, got \['a', 'b'\]"),
        (dict(patch_sise=8), r"VideoMAEConfig has no field patch_sise. Do you mean patch_size\?"),
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
    with pytest.raises(ValueError, match="no field num_frame. Do you mean num_frames"):
        VideoMAEConfig.from_size("tiny", num_frame=8)
