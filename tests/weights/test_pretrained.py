import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from flax import nnx
from safetensors.numpy import load_file, save_file

from videomae_jax import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEModel
from videomae_jax.weights.pretrained import find_model

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


@pytest.mark.parametrize("cls", [VideoMAEForPreTraining, VideoMAEModel])
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


@pytest.mark.parametrize("cls", [VideoMAEForPreTraining, VideoMAEModel])
def test_files_hold_the_names_and_shapes_that_transformers_writes(cls, tmp_path):
    new_model(cls).save_pretrained(tmp_path / "ours")
    theirs = getattr(transformers, cls.__name__)(transformers.VideoMAEConfig(**dataclasses.asdict(TINY)))
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
    assert find_model(tmp_path / "run") == tmp_path / "run" / "model"
    assert_equal_parameters(VideoMAEForPreTraining.from_pretrained(str(tmp_path / "run")), model)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_folder_without_a_model_is_an_error_that_says_what_was_looked_for(saved, missing):
    (saved / missing).unlink()
    with pytest.raises(ValueError) as error:
        VideoMAEForPreTraining.from_pretrained(saved)
    assert str(error.value) == f"No config.json and model.safetensors in {saved} or {saved / 'model'}."


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
    assert first == f"{saved / 'model.safetensors'}: the checkpoint does not fit the model:"
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
    assert loaded.config == dataclasses.replace(TINY, norm_pix_loss=False, num_frames=8)
    assert_equal_parameters(loaded, new_model())


def test_another_activation_is_refused(saved):
    content = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(content | {"hidden_act": "relu"}))
    with pytest.raises(ValueError, match="hidden_act='relu'; only 'gelu' is built"):
        VideoMAEForPreTraining.from_pretrained(saved)


def test_override_that_the_weights_do_not_fit_is_an_error(saved):
    with pytest.raises(ValueError, match=r"shape: decoder.head.weight is \[128, 16\], the model has \[256, 16\]"):
        VideoMAEForPreTraining.from_pretrained(saved, tubelet_size=4)


def test_override_out_of_range_is_the_configs_error(saved):
    with pytest.raises(ValueError, match="num_frames 5 is not divisible"):
        VideoMAEForPreTraining.from_pretrained(saved, num_frames=5)


def test_unknown_override_is_an_error(saved):
    with pytest.raises(TypeError, match="num_frame"):
        VideoMAEForPreTraining.from_pretrained(saved, num_frame=8)


def test_loading_takes_a_compute_dtype(saved):
    loaded = VideoMAEForPreTraining.from_pretrained(saved, dtype=jnp.bfloat16)
    assert loaded.dtype == jnp.bfloat16
    assert_equal_parameters(loaded, new_model())


def test_transformers_recognises_a_model_it_can_run(saved):
    assert json.loads((saved / "config.json").read_text())["architectures"] == ["VideoMAEForPreTraining"]
    assert isinstance(transformers.AutoConfig.from_pretrained(saved), transformers.VideoMAEConfig)


@pytest.mark.parametrize("change", [dict(position_embedding_type="sincos_3d"), dict(image_mean=(0.4,))])
def test_transformers_does_not_take_a_model_that_it_cannot_express(saved, change):
    """It ignores fields that it does not know, and would run the model with its own table and statistics."""
    new_model(**change).save_pretrained(saved)
    assert json.loads((saved / "config.json").read_text())["model_type"] == "videomae_jax"
    with pytest.raises(ValueError, match="videomae_jax"):
        transformers.AutoConfig.from_pretrained(saved)
