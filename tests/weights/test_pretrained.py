import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import nnx
from safetensors.numpy import load_file, save_file

from videomae_jax import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEForVideoClassification, VideoMAEModel

CLASSES = [VideoMAEForPreTraining, VideoMAEModel, VideoMAEForVideoClassification]
TINY = VideoMAEConfig(
    image_size=(16, 32),
    patch_size=8,
    num_channels=1,
    num_frames=4,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    use_mean_pooling=False,
    decoder_hidden_size=16,
    decoder_num_hidden_layers=3,
    decoder_num_attention_heads=2,
    decoder_intermediate_size=32,
)


def new_model(cls=VideoMAEForPreTraining, **changes):
    return cls(dataclasses.replace(TINY, **changes), rngs=nnx.Rngs(0))


def parameters(model):
    return nnx.to_pure_dict(nnx.split(model)[1])


def assert_equal_parameters(one, other):
    assert jax.tree.structure(parameters(one)) == jax.tree.structure(parameters(other))
    jax.tree.map(np.testing.assert_array_equal, parameters(one), parameters(other))


@pytest.fixture
def saved(tmp_path):
    """A folder with a saved model, for the test to spoil."""
    new_model().save_pretrained(tmp_path)
    return tmp_path


def rewrite_weights(folder, change):
    """Puts what `change` makes of the arrays in place of a folder's weights."""
    arrays = load_file(folder / "model.safetensors")
    change(arrays)
    save_file(arrays, folder / "model.safetensors")


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("changes", [{}, dict(use_mean_pooling=True, qkv_bias=False)], ids=["all", "fewest"])
def test_saving_and_loading_keeps_every_bit(cls, changes, tmp_path):
    model = new_model(cls, **changes)
    model.save_pretrained(tmp_path / "new" / "folder")
    loaded = cls.from_pretrained(tmp_path / "new" / "folder")
    assert loaded.config == model.config
    assert_equal_parameters(loaded, model)


def test_config_keeps_every_field(tmp_path):
    ours = dict(position_embedding_type="sincos_3d", image_mean=(0.3,), image_std=(0.2,), decoder_norm_eps=1e-3)
    model = new_model(layer_norm_eps=1e-4, norm_pix_loss=False, **ours)
    model.save_pretrained(tmp_path)
    assert VideoMAEForPreTraining.from_pretrained(tmp_path).config == model.config


@pytest.mark.parametrize("cls", CLASSES)
def test_files_hold_the_names_and_shapes_that_transformers_writes(cls, tmp_path):
    new_model(cls).save_pretrained(tmp_path / "ours")
    theirs = getattr(transformers, cls.__name__)(transformers.VideoMAEConfig(**TINY.to_dict()))
    theirs.save_pretrained(tmp_path / "theirs")
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("ours", "theirs"))
    assert {name: array.shape for name, array in ours.items()} == {name: array.shape for name, array in theirs.items()}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_parameters_of_a_half_precision_checkpoint_become_fp32(dtype, saved):
    half = jnp.dtype(dtype)
    rewrite_weights(saved, lambda arrays: arrays.update({name: array.astype(half) for name, array in arrays.items()}))
    loaded, model = VideoMAEForPreTraining.from_pretrained(saved), new_model()
    assert {leaf.dtype for leaf in jax.tree.leaves(parameters(loaded))} == {jnp.dtype("float32")}
    rounded = jax.tree.map(lambda leaf: leaf.astype(half).astype("float32"), parameters(model))
    jax.tree.map(np.testing.assert_array_equal, parameters(loaded), rounded)


def test_query_and_value_bias_under_transformers_5s_name(saved):
    """It writes `qv_bias`, and says `qkv_bias` no more."""
    new_model(qkv_bias=False).save_pretrained(saved)
    content = json.loads((saved / "config.json").read_text())
    content["qv_bias"] = content.pop("qkv_bias")
    (saved / "config.json").write_text(json.dumps(content))
    assert VideoMAEForPreTraining.from_pretrained(saved).config.qkv_bias is False


def test_run_folder_stands_for_the_model_in_it(tmp_path):
    model = new_model()
    model.save_pretrained(tmp_path / "run" / "model")
    assert_equal_parameters(VideoMAEForPreTraining.from_pretrained(str(tmp_path / "run")), model)


def test_everything_that_does_not_fit_is_reported_at_once(saved):
    def spoil(arrays):
        del arrays["videomae.encoder.layer.1.attention.attention.key.weight"]
        del arrays["decoder.norm.bias"]
        arrays["decoder.decoder_layers.3.layernorm_before.bias"] = np.zeros(16, np.float32)
        arrays["cls_token"] = np.zeros(32, np.float32)
        arrays["encoder_to_decoder.weight"] = np.zeros((16, 33), np.float32)
        arrays["mask_token"] = np.zeros(16, np.float32)
        arrays["videomae.embeddings.patch_embeddings.projection.weight"] = np.zeros((32, 128), np.float32)

    rewrite_weights(saved, spoil)
    with pytest.raises(ValueError) as error:
        VideoMAEForPreTraining.from_pretrained(saved)
    first, *problems = str(error.value).splitlines()
    assert first == f"{saved / 'model.safetensors'}: the checkpoint (Hugging Face) does not fit the model:"
    assert sorted(problem.strip() for problem in problems) == [
        "missing: decoder.norm.bias",
        "missing: videomae.encoder.layer.1.attention.attention.key.weight",
        "shape: encoder_to_decoder.weight is [16, 33], the model has [16, 32]",
        "shape: mask_token is [16], the model has [1, 1, 16]",
        "shape: videomae.embeddings.patch_embeddings.projection.weight is [32, 128], the model has [32, 1, 2, 8, 8]",
        "unexpected: cls_token",
        "unexpected: decoder.decoder_layers.3.layernorm_before.bias",
    ]


def test_a_long_list_of_problems_is_cut_and_counted(saved):
    rewrite_weights(saved, lambda arrays: arrays.update({f"extra.{i}": np.zeros(1) for i in range(25)}))
    with pytest.raises(ValueError, match=r"unexpected: extra.*\n  \.\.\. and 5 more$"):
        VideoMAEForPreTraining.from_pretrained(saved)


def test_bias_for_the_key_is_never_skipped_in_silence(saved):
    """The model has none, and a checkpoint with one is of another model."""
    name = "videomae.encoder.layer.0.attention.attention.key.bias"
    rewrite_weights(saved, lambda arrays: arrays.update({name: np.zeros(32, np.float32)}))
    with pytest.raises(ValueError, match=f"unexpected: {name}"):
        VideoMAEForPreTraining.from_pretrained(saved)


def test_overrides_change_the_config(saved):
    loaded = VideoMAEForPreTraining.from_pretrained(saved, norm_pix_loss=False, num_frames=8)
    assert loaded.config == TINY.adapt(norm_pix_loss=False, num_frames=8)
    assert_equal_parameters(loaded, new_model())


def test_override_that_the_weights_do_not_fit_is_an_error(saved):
    with pytest.raises(ValueError, match=r"shape: decoder.head.weight is \[128, 16\], the model has \[256, 16\]"):
        VideoMAEForPreTraining.from_pretrained(saved, tubelet_size=4)


def test_override_out_of_range_is_the_configs_error(saved):
    with pytest.raises(ValueError, match="num_frames 5 is not divisible"):
        VideoMAEForPreTraining.from_pretrained(saved, num_frames=5)


def test_unknown_override_is_an_error(saved):
    with pytest.raises(ValueError, match="^VideoMAEConfig has no field num_frame. Do you mean num_frames"):
        VideoMAEForPreTraining.from_pretrained(saved, num_frame=8)


def test_loading_takes_a_compute_dtype(saved):
    loaded = VideoMAEForPreTraining.from_pretrained(saved, dtype=jnp.bfloat16)
    assert loaded.dtype == jnp.bfloat16
    assert_equal_parameters(loaded, new_model())


def test_transformers_recognises_a_model_it_can_run(saved):
    assert json.loads((saved / "config.json").read_text())["architectures"] == ["VideoMAEForPreTraining"]
    assert isinstance(transformers.AutoConfig.from_pretrained(saved), transformers.VideoMAEConfig)


def clips(config=TINY, seed=0):
    return np.random.default_rng(seed).normal(size=(2, *config.clip_size, config.num_channels)).astype(np.float32)


class TestNewClassifier:
    """On pre-training weights, whose config.json says use_mean_pooling=False for the norm after the encoder."""

    def test_pools_by_mean_and_says_so(self, saved):
        with pytest.warns(UserWarning) as caught:
            model = VideoMAEForVideoClassification.from_pretrained(saved, num_labels=7)
        (warning,) = caught
        message = str(warning.message)
        assert message.startswith(f"{saved / 'model.safetensors'}: ")
        assert "not used: encoder norm (2 arrays), decoder (51 arrays)" in message
        assert "new and untrained: classifier, fc_norm; " in message
        assert "the new classifier pools by mean" in message and "token 0" in message
        assert warning.filename == __file__
        assert (model.config.use_mean_pooling, model.config.num_labels) == (True, 7)
        assert model.videomae.layernorm is None and model.fc_norm is not None

    def test_has_the_encoder_of_the_checkpoint(self, saved):
        with pytest.warns(UserWarning):
            model = VideoMAEForVideoClassification.from_pretrained(saved)
        wanted = parameters(new_model())["videomae"]
        wanted.pop("layernorm")
        jax.tree.map(np.testing.assert_array_equal, parameters(model)["videomae"], wanted)

    def test_is_drawn_from_the_rngs_and_small(self, saved):
        def classifier(rngs=None):
            model = VideoMAEForVideoClassification.from_pretrained(saved, rngs=rngs)
            np.testing.assert_array_equal(model.fc_norm.scale[...], 1)
            np.testing.assert_array_equal(model.classifier.bias[...], 0)
            return np.asarray(model.classifier.kernel[...])

        with pytest.warns(UserWarning):
            kernels = [classifier(), classifier(nnx.Rngs(0)), classifier(nnx.Rngs(1))]
        np.testing.assert_array_equal(kernels[0], kernels[1])
        assert (kernels[0] != kernels[2]).all()
        assert 0 < abs(kernels[0]).max() < 1e-3

    @pytest.mark.parametrize("saved_as", [False, True])
    def test_takes_the_first_token_only_when_told(self, saved_as, tmp_path):
        new_model(use_mean_pooling=saved_as).save_pretrained(tmp_path)
        if saved_as:  # there is no norm for it
            with pytest.raises(ValueError, match="missing: videomae.layernorm.weight"):
                VideoMAEForVideoClassification.from_pretrained(tmp_path, use_mean_pooling=False)
            return
        with pytest.warns(UserWarning, match="not used: decoder") as caught:
            model = VideoMAEForVideoClassification.from_pretrained(tmp_path, use_mean_pooling=False)
        assert "pools by mean" not in str(caught[0].message)
        assert model.fc_norm is None and model.videomae.layernorm is not None

    def test_is_no_news_where_the_checkpoint_has_one(self, tmp_path, recwarn):
        model = new_model(VideoMAEForVideoClassification)  # token 0, and trained so
        model.save_pretrained(tmp_path)
        loaded = VideoMAEForVideoClassification.from_pretrained(tmp_path)
        assert loaded.config.use_mean_pooling is False
        assert_equal_parameters(loaded, model)
        assert not [str(warning.message) for warning in recwarn]


class TestAttentivePooler:
    def attentive(self, **changes):
        return new_model(VideoMAEForVideoClassification, attentive_pooling=True, **changes)

    @pytest.mark.parametrize("biases", [True, False])
    def test_saving_and_loading_keeps_every_bit(self, biases, tmp_path, recwarn):
        model = self.attentive(qkv_bias=biases)
        model.save_pretrained(tmp_path)
        loaded = VideoMAEForVideoClassification.from_pretrained(tmp_path)
        assert loaded.config == model.config and loaded.config.attentive_pooling
        assert_equal_parameters(loaded, model)
        assert not list(recwarn)

    def test_has_the_names_and_shapes_of_v_jepa_2(self, tmp_path):
        """But for the key's bias."""
        self.attentive().save_pretrained(tmp_path)
        config = transformers.VJEPA2Config(hidden_size=32, num_attention_heads=2, num_pooler_layers=0)
        config.num_hidden_layers = config.pred_num_hidden_layers = 1
        with torch.device("meta"):
            theirs = transformers.VJEPA2ForVideoClassification(config).state_dict()
        theirs = {name: tuple(array.shape) for name, array in theirs.items() if name.startswith("pooler.")}
        assert theirs.pop("pooler.cross_attention_layer.cross_attn.k_proj.bias") == (32,)
        theirs = {name: tuple(64 if side == 128 else side for side in shape) for name, shape in theirs.items()}  # MLP
        ours = load_file(tmp_path / "model.safetensors")
        assert {name: array.shape for name, array in ours.items() if name.startswith("pooler.")} == theirs

    def test_transformers_does_not_take_it_for_a_model_it_can_run(self, tmp_path):
        self.attentive().save_pretrained(tmp_path)
        with pytest.raises(ValueError, match="videomae_jax"):
            transformers.AutoConfig.from_pretrained(tmp_path)

    def test_is_new_on_pretraining_weights_and_reads_their_normed_tokens(self, saved):
        with pytest.warns(UserWarning) as caught:
            model = VideoMAEForVideoClassification.from_pretrained(saved, attentive_pooling=True, num_labels=7)
        (warning,) = caught
        assert str(warning.message) == (
            f"{saved / 'model.safetensors'}: not used: decoder (51 arrays); new and untrained: classifier, pooler."
        )
        assert model.config == TINY.adapt(attentive_pooling=True, num_labels=7)
        jax.tree.map(np.testing.assert_array_equal, parameters(model)["videomae"], parameters(new_model())["videomae"])
        assert float(abs(model.pooler.attention.key.kernel[...]).max()) > 0.01

    def test_is_new_on_weights_that_pool_by_mean_and_so_is_the_norm_it_reads(self, tmp_path):
        old = new_model(VideoMAEForVideoClassification, use_mean_pooling=True)
        old.save_pretrained(tmp_path)
        with pytest.warns(UserWarning, match="not used: fc_norm .2 arrays.; new and untrained: pooler, encoder norm.$"):
            model = VideoMAEForVideoClassification.from_pretrained(
                tmp_path, attentive_pooling=True, use_mean_pooling=False
            )
        np.testing.assert_array_equal(model.videomae.layernorm.scale[...], 1)
        np.testing.assert_array_equal(model.classifier.kernel[...], old.classifier.kernel[...])

    def test_that_is_trained_is_not_without_its_norm(self, tmp_path):
        self.attentive().save_pretrained(tmp_path)
        rewrite_weights(
            tmp_path, lambda arrays: [arrays.pop(f"videomae.layernorm.{name}") for name in ("weight", "bias")]
        )
        with pytest.raises(ValueError, match="missing: videomae.layernorm.weight"):
            VideoMAEForVideoClassification.from_pretrained(tmp_path)

    def test_is_whole_or_not_there(self, tmp_path):
        self.attentive().save_pretrained(tmp_path)
        rewrite_weights(tmp_path, lambda arrays: arrays.pop("pooler.query_tokens"))
        with pytest.raises(ValueError, match="missing: pooler.query_tokens$"):
            VideoMAEForVideoClassification.from_pretrained(tmp_path)

    def test_on_a_checkpoint_that_pools_by_mean_needs_to_be_told(self, tmp_path):
        new_model(use_mean_pooling=True).save_pretrained(tmp_path)
        with pytest.raises(ValueError, match="attentive_pooling=True .* pass use_mean_pooling=False"):
            VideoMAEForVideoClassification.from_pretrained(tmp_path, attentive_pooling=True)

    @pytest.mark.parametrize("cls, unused", [(VideoMAEModel, ", classifier .2 arrays.*"), (VideoMAEForPreTraining, "")])
    def test_is_left_by_models_without_one(self, cls, unused, tmp_path):
        self.attentive().save_pretrained(tmp_path)
        with pytest.warns(UserWarning, match="not used: pooler .14 arrays." + unused):
            cls.from_pretrained(tmp_path)


class TestOtherLabels:
    @pytest.fixture
    def classifier(self, tmp_path):
        config = TINY.adapt(use_mean_pooling=True, id2label={0: "jump", 1: "run", 2: "sit"})
        VideoMAEForVideoClassification(config, rngs=nnx.Rngs(0)).save_pretrained(tmp_path)
        return tmp_path

    def test_are_an_error_that_says_what_to_pass(self, classifier):
        with pytest.raises(ValueError) as error:
            VideoMAEForVideoClassification.from_pretrained(classifier, num_labels=5)
        message = str(error.value)
        assert "shape: classifier.weight is [3, 32], the model has [5, 32]" in message
        assert message.endswith("For other labels: ignore_mismatched_sizes=True.")

    def test_start_afresh_when_asked(self, classifier):
        with pytest.warns(UserWarning, match="new and untrained: classifier.$"):
            model = VideoMAEForVideoClassification.from_pretrained(
                classifier, num_labels=5, ignore_mismatched_sizes=True
            )
        assert model(clips()).logits.shape == (2, 5)
        assert model.config.id2label[4] == "LABEL_4"
        old = VideoMAEForVideoClassification.from_pretrained(classifier)
        jax.tree.map(np.testing.assert_array_equal, parameters(model)["videomae"], parameters(old)["videomae"])
        np.testing.assert_array_equal(model.fc_norm.scale[...], old.fc_norm.scale[...])

    def test_as_many_keep_the_weights(self, classifier, recwarn):
        model = VideoMAEForVideoClassification.from_pretrained(classifier, id2label={0: "a", 1: "b", 2: "c"})
        assert model.config.label2id == {"a": 0, "b": 1, "c": 2}
        assert not list(recwarn)

    def test_other_shapes_start_afresh_too(self, classifier):
        """As in transformers: an embedding of other channels, say."""
        with pytest.warns(UserWarning, match="new and untrained: videomae/embeddings/projection/kernel"):
            model = VideoMAEForVideoClassification.from_pretrained(
                classifier, num_channels=2, ignore_mismatched_sizes=True
            )
        assert model.config.num_channels == 2


def test_an_encoder_alone_gets_a_new_decoder_and_says_so(tmp_path):
    """The public ViT-H "pre-training" file has none."""
    new_model(VideoMAEModel).save_pretrained(tmp_path)
    with pytest.warns(
        UserWarning,
        match="it holds an encoder alone, and the decoder is new .* new and untrained: decoder.$",
    ):
        model = VideoMAEForPreTraining.from_pretrained(tmp_path)
    wanted = parameters(new_model(VideoMAEModel))
    jax.tree.map(np.testing.assert_array_equal, parameters(model)["videomae"], wanted)
    assert float(abs(model.decoder.head.kernel[...]).max()) > 0


def test_half_a_decoder_is_an_error(saved):
    def spoil(arrays):
        for name in [name for name in arrays if name.startswith("decoder.norm") or "decoder_layers.2" in name]:
            del arrays[name]

    rewrite_weights(saved, spoil)
    with pytest.raises(ValueError, match=r"(?s)missing: decoder.decoder_layers.2.*missing: decoder.norm.bias"):
        VideoMAEForPreTraining.from_pretrained(saved)


@pytest.mark.parametrize("cls", [VideoMAEForPreTraining, VideoMAEForVideoClassification])
def test_an_encoder_leaves_the_rest(cls, tmp_path):
    model = new_model(cls)
    model.save_pretrained(tmp_path)
    part = "decoder (51 arrays)" if cls is VideoMAEForPreTraining else "classifier (2 arrays)"
    with pytest.warns(UserWarning) as caught:
        encoder = VideoMAEModel.from_pretrained(tmp_path)
    assert str(caught[0].message) == f"{tmp_path / 'model.safetensors'}: not used: {part}."
    jax.tree.map(np.testing.assert_array_equal, parameters(encoder), parameters(model)["videomae"])


def test_too_few_or_too_many_layers_are_errors(saved):
    with pytest.raises(ValueError, match=r"missing: videomae.encoder.layer.2.layernorm_before.weight"):
        VideoMAEForPreTraining.from_pretrained(saved, num_hidden_layers=3)
    with pytest.raises(ValueError, match=r"unexpected: videomae.encoder.layer.1"):
        VideoMAEForPreTraining.from_pretrained(saved, num_hidden_layers=1)


def test_longer_and_larger_clips_resample_the_trained_positions(saved):
    trained = VideoMAEForPreTraining.from_pretrained(saved)
    larger = VideoMAEForPreTraining.from_pretrained(saved, image_size=(32, 48), num_frames=8)
    assert larger.config.position_grid == TINY.grid
    x = clips(larger.config)
    seen = larger.videomae(x).last_hidden_state
    np.testing.assert_array_equal(seen, trained.videomae(x).last_hidden_state)
    fresh = VideoMAEForPreTraining.from_pretrained(saved, image_size=(32, 48), num_frames=8, position_grid=None)
    assert abs(fresh.videomae(x).last_hidden_state - seen).max() > 1e-3


def test_a_resampled_model_comes_back(saved, tmp_path):
    larger = VideoMAEForPreTraining.from_pretrained(saved, num_frames=8)
    larger.save_pretrained(tmp_path / "larger")
    assert VideoMAEForPreTraining.from_pretrained(tmp_path / "larger").config == larger.config
    with pytest.raises(KeyError, match="videomae_jax:gelu"):  # whichever class of transformers is asked
        transformers.VideoMAEForPreTraining.from_pretrained(tmp_path / "larger")


def test_what_was_there_stays_when_a_model_cannot_be_written(saved, monkeypatch):
    def full(*args):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_bytes", full)
        with pytest.raises(OSError, match="No space"):
            new_model(num_attention_heads=4).save_pretrained(saved)
    assert VideoMAEForPreTraining.from_pretrained(saved).config == TINY


def test_files_of_transformers_5_10_have_other_names_and_one_bias_more(tmp_path):
    """5.23 reads them; the keys' biases change nothing."""
    model = new_model(VideoMAEForVideoClassification, num_channels=3)
    model.save_pretrained(tmp_path)

    def rename(arrays):
        for name in list(arrays):
            if name.endswith(("q_bias", "v_bias")):
                whose = {"q": "query", "v": "value"}[name[-6]]
                arrays[f"{name[:-6]}{whose}.bias"] = arrays.pop(name) + 1
                if whose == "query":
                    arrays[f"{name[:-6]}key.bias"] = np.full(32, 3, np.float32)

    rewrite_weights(tmp_path, rename)
    loaded = VideoMAEForVideoClassification.from_pretrained(tmp_path)
    np.testing.assert_array_equal(loaded.videomae.encoder.layer.attention.qkv.q_bias[...], 1)
    np.testing.assert_array_equal(loaded.videomae.encoder.layer.attention.qkv.v_bias[...], 1)
    theirs = transformers.VideoMAEForVideoClassification.from_pretrained(tmp_path).eval()
    x = clips(loaded.config)
    expected = theirs(torch.tensor(x).permute(0, 1, 4, 2, 3)).logits.detach().numpy()
    np.testing.assert_allclose(loaded(x).logits, expected, rtol=0, atol=1e-5 * abs(expected).max())


def test_shards_of_transformers_are_put_together(tmp_path):
    config = transformers.VideoMAEConfig(**TINY.to_dict())
    theirs = transformers.VideoMAEForPreTraining(config)
    theirs.save_pretrained(tmp_path / "whole")
    theirs.save_pretrained(tmp_path / "shards", max_shard_size="50KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    whole, shards = (VideoMAEForPreTraining.from_pretrained(tmp_path / name) for name in ("whole", "shards"))
    assert_equal_parameters(whole, shards)


def test_statistics_of_the_processor_reach_raw_pixels(tmp_path):
    """A folder of transformers with mean and deviation 0.5: uint8 is what its processor would have made of it."""
    transformers.VideoMAEModel(transformers.VideoMAEConfig(**TINY.to_dict() | {"num_channels": 3})).save_pretrained(
        tmp_path
    )
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(dict(image_mean=[0.5] * 3, image_std=[0.5] * 3)))
    model = VideoMAEModel.from_pretrained(tmp_path)
    raw = np.random.default_rng(0).integers(0, 256, (1, *TINY.clip_size, 3), dtype=np.uint8)
    normalised = (raw / np.float32(255) - 0.5) / 0.5
    np.testing.assert_allclose(model(raw).last_hidden_state, model(normalised).last_hidden_state, rtol=0, atol=1e-5)
