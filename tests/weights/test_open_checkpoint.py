"""What a checkpoint's model is, from what its files tell."""

import argparse
import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from flax import nnx

from videomae_jax import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEForVideoClassification, VideoMAEModel
from videomae_jax.model.positions import position_table
from videomae_jax.weights.arrays import DIALECTS, to_checkpoint
from videomae_jax.weights.checkpoint import Checkpoint
from videomae_jax.weights.files import write_arrays
from videomae_jax.weights.pretrained import flat_params

BY_NAME = {dialect.name: dialect for dialect in DIALECTS}
TINY = dict(
    image_size=(16, 24), patch_size=8, num_frames=4, hidden_size=12, intermediate_size=20, num_hidden_layers=2
) | dict(num_attention_heads=3, decoder_hidden_size=8, decoder_num_hidden_layers=1, decoder_intermediate_size=16)
TINY |= dict(decoder_num_attention_heads=2)
EPS = dict(layer_norm_eps=1e-6, decoder_norm_eps=1e-6, head_norm_eps=1e-6)


def arrays_of(cls, config, dialect):
    params = flat_params(nnx.split(cls(config, rngs=nnx.Rngs(0)))[1])
    return to_checkpoint(params, BY_NAME[dialect], config.patch)


def torch_tensors(arrays):
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


@pytest.mark.parametrize("size", ["small", "base", "large", "huge", "huge_v2", "giant"])
def test_published_sizes_are_told_by_their_widths(size, tmp_path):
    """One block stands for all: only the depth is another."""
    config = VideoMAEConfig.from_size(size, num_hidden_layers=1, decoder_num_hidden_layers=1)
    model = nnx.eval_shape(lambda: VideoMAEForPreTraining(config, rngs=nnx.Rngs(0)))
    params = {path: np.zeros(leaf.shape, np.float32) for path, leaf in flat_params(nnx.split(model)[1]).items()}
    write_arrays(tmp_path / "x.safetensors", to_checkpoint(params, BY_NAME["original, pre-training"], config.patch))
    with pytest.warns(UserWarning, match="x.safetensors does not say, and is taken for the published") as caught:
        assert Checkpoint.open(tmp_path / "x.safetensors").config == config
    guesses = ("num_attention_heads", "decoder_num_attention_heads", "image_size", "num_frames")
    said = ", ".join(f"{name}={getattr(config, name)}" for name in guesses)
    assert said in str(caught[0].message)
    told = {name: getattr(config, name) for name in guesses}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Checkpoint.open(tmp_path / "x.safetensors", **told).config == config


@pytest.mark.parametrize("pools", [True, False], ids=["mean", "first token"])
@pytest.mark.parametrize("biases", [True, False], ids=["biases", "no biases"])
def test_shapes_tell_the_rest(pools, biases, tmp_path):
    config = VideoMAEConfig(**TINY, **EPS, use_mean_pooling=pools, qkv_bias=biases, num_labels=7, num_channels=2)
    arrays = arrays_of(VideoMAEForVideoClassification, config, "original, fine-tuning")
    write_arrays(tmp_path / "x.safetensors", arrays)
    checkpoint = Checkpoint.open(tmp_path / "x.safetensors", num_attention_heads=3, image_size=(16, 24), num_frames=4)
    told = ("hidden_size num_hidden_layers intermediate_size patch_size tubelet_size num_channels qkv_bias").split()
    for name in [*told, *EPS, "use_mean_pooling", "num_labels", "image_size", "num_frames", "position_grid"]:
        assert getattr(checkpoint.config, name) == getattr(config, name), name
    assert checkpoint.has("classifier") and not checkpoint.has("decoder")
    assert checkpoint.has("fc_norm") == pools and checkpoint.has("encoder norm") != pools


def test_an_attentive_pooler_is_told_by_its_arrays(tmp_path):
    config = VideoMAEConfig(**TINY, use_mean_pooling=False, attentive_pooling=True)
    write_arrays(tmp_path / "x.safetensors", arrays_of(VideoMAEForVideoClassification, config, "Hugging Face"))
    checkpoint = Checkpoint.open(tmp_path / "x.safetensors", num_attention_heads=3, image_size=(16, 24), num_frames=4)
    assert checkpoint.config.attentive_pooling and not checkpoint.config.use_mean_pooling
    assert checkpoint.has("pooler") and checkpoint.has("encoder norm") and not checkpoint.has("fc_norm")


def test_our_own_tiny_is_no_published_model(tmp_path):
    config = VideoMAEConfig.from_size("tiny", image_size=32, num_hidden_layers=1, num_attention_heads=8)
    write_arrays(tmp_path / "x.safetensors", arrays_of(VideoMAEModel, config, "original, fine-tuning"))
    with pytest.raises(ValueError, match="no published model has the width 128"):
        Checkpoint.open(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "spoil", [lambda array: array[:, :, 0], None], ids=["an image model's patch embedding", "no blocks"]
)
def test_models_of_images_are_refused(spoil, tmp_path):
    arrays = arrays_of(VideoMAEModel, VideoMAEConfig(**TINY), "original, fine-tuning")
    if spoil is None:
        arrays = {name: array for name, array in arrays.items() if "blocks" not in name}
    else:
        arrays["patch_embed.proj.weight"] = spoil(arrays["patch_embed.proj.weight"])
    write_arrays(tmp_path / "x.safetensors", arrays)
    with pytest.raises(ValueError, match="x.safetensors: this is no video model: its patch embedding has the shape"):
        Checkpoint.open(tmp_path / "x.safetensors")


def test_a_named_file_may_lie_beside_the_config_of_another_model(tmp_path):
    config = VideoMAEConfig(**TINY, use_mean_pooling=False)
    write_arrays(tmp_path / "x.safetensors", arrays_of(VideoMAEForPreTraining, config, "original, pre-training"))
    (tmp_path / "config.json").write_text('{"model_type": "vivit"}')
    told = Checkpoint.open(
        tmp_path / "x.safetensors",
        num_attention_heads=3,
        decoder_num_attention_heads=2,
        image_size=(16, 24),
        num_frames=4,
    ).config
    assert told.hidden_size == 12
    with pytest.raises(ValueError, match="config.json is of a 'vivit' model"):
        Checkpoint.open(tmp_path)


def test_heads_that_nobody_published_must_be_told(tmp_path):
    config = VideoMAEConfig(**TINY, use_mean_pooling=False)
    write_arrays(tmp_path / "x.safetensors", arrays_of(VideoMAEForPreTraining, config, "original, pre-training"))
    with pytest.raises(ValueError, match="x.safetensors: no published model has the width 12, .* num_attention_heads"):
        Checkpoint.open(tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="pass num_attention_heads and decoder_num_attention_heads"):
        Checkpoint.open(tmp_path / "x.safetensors", num_attention_heads=3)
    with pytest.warns(
        UserWarning, match="taken for the published image_size=224, num_frames=16. Pass what is otherwise"
    ):
        told = Checkpoint.open(tmp_path / "x.safetensors", num_attention_heads=3, decoder_num_attention_heads=2).config
    assert (told.num_attention_heads, told.decoder_num_attention_heads) == (3, 2)


def test_the_runs_arguments_tell_the_clip(tmp_path):
    config = VideoMAEConfig(**TINY)
    tensors = torch_tensors(arrays_of(VideoMAEForVideoClassification, config, "original, fine-tuning"))
    arguments = argparse.Namespace(num_frames=32, input_size=320, lr=1e-3)
    torch.save({"module": tensors, "args": arguments}, tmp_path / "x.pth")
    told = Checkpoint.open(tmp_path / "x.pth", num_attention_heads=3).config
    assert (told.num_frames, told.image_size, told.position_grid) == (32, 320, None)
    shorter = Checkpoint.open(tmp_path / "x.pth", num_attention_heads=3, num_frames=16).config
    assert (shorter.num_frames, shorter.position_grid) == (16, (16, 40, 40))


class TestHub:
    """V2's folders on the Hugging Face Hub, with a config.json of their own."""

    CONTENT = dict(
        model_type="VideoMAEv2_Base",
        model_config=dict(
            img_size=24,
            patch_size=8,
            in_chans=3,
            num_classes=0,
            embed_dim=12,
            depth=2,
            num_heads=3,
            mlp_ratio=20 / 12,
            qkv_bias=True,
            qk_scale=None,
            drop_rate=0.0,
            layer_norm_eps=1e-6,
            init_values=0.0,
            use_learnable_pos_emb=False,
            tubelet_size=2,
            use_mean_pooling=True,
            num_frames=4,
            cos_attn=False,
        ),
    )

    @pytest.fixture
    def folder(self, tmp_path):
        config = VideoMAEConfig(**TINY | dict(image_size=24))
        arrays = arrays_of(VideoMAEModel, config, "VideoMAEv2 on the Hub")
        norm = {f"model.fc_norm.{name}": np.ones(12, np.float32) for name in ("weight", "bias")}
        write_arrays(tmp_path / "model.safetensors", arrays | norm)
        self.write(tmp_path)
        return tmp_path

    def write(self, folder, **changes):
        content = self.CONTENT | {"model_config": self.CONTENT["model_config"] | changes}
        (folder / "config.json").write_text(json.dumps(content))

    def test_is_read(self, folder):
        checkpoint = Checkpoint.open(folder)
        config = checkpoint.config
        assert (config.num_attention_heads, config.image_size, config.num_frames) == (3, 24, 4)
        assert (config.use_mean_pooling, config.layer_norm_eps, config.head_norm_eps) == (True, 1e-6, 1e-6)
        assert checkpoint.has("fc_norm") and not checkpoint.has("classifier")
        assert Checkpoint.open(folder, image_size=32).config.position_grid == (2, 3, 3)

    @pytest.mark.parametrize("change", [dict(cos_attn=True), dict(init_values=0.1), dict(use_learnable_pos_emb=True)])
    def test_what_is_not_built_is_refused(self, folder, change):
        self.write(folder, **change)
        ((name, value),) = change.items()
        with pytest.raises(ValueError, match=f"model.safetensors: {name}={value} in config.json is not built"):
            Checkpoint.open(folder)


class TestStoredTables:
    """mmaction2 stores the position table beside the weights."""

    TOLD = dict(num_attention_heads=3, image_size=(16, 24), num_frames=4)

    def write(self, folder, table):
        config = VideoMAEConfig(**TINY)
        arrays = arrays_of(VideoMAEForVideoClassification, config, "mmaction2")
        write_arrays(folder / "x.safetensors", arrays | {"backbone.pos_embed": table[None].astype(np.float32)})
        return folder / "x.safetensors"

    def test_the_published_one_is_computed_instead(self, tmp_path):
        file = self.write(tmp_path, position_table("sincos_1d", (2, 2, 3), 12))
        assert "backbone.pos_embed" not in Checkpoint.open(file, **self.TOLD).arrays

    def test_of_another_clip_is_an_error(self, tmp_path):
        file = self.write(tmp_path, position_table("sincos_1d", (2, 2, 3), 12))
        # 224 pixels in patches of 8, and 16 frames, unless it is told.
        with (
            pytest.warns(UserWarning),
            pytest.raises(ValueError, match="x.safetensors has positions for 12 tokens, the config for 8x28x28"),
        ):
            Checkpoint.open(file, num_attention_heads=3)

    def test_learned_ones_are_an_error(self, tmp_path):
        file = self.write(tmp_path, np.random.default_rng(0).normal(size=(12, 12)))
        with pytest.raises(ValueError, match="x.safetensors has learned positions"):
            Checkpoint.open(file, **self.TOLD)


def test_other_models_are_named(tmp_path):
    write_arrays(tmp_path / "model.safetensors", {"vit.weight": np.ones(3, np.float32)})
    with pytest.raises(ValueError, match="model.safetensors is no VideoMAE, its first arrays are vit.weight"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize("files", [("model.safetensors", "pytorch_model.bin"), ("pytorch_model.bin",)])
def test_one_kind_of_weights_is_downloaded(files, tmp_path, monkeypatch):
    """As a Hub that has these files, and gives those that are asked for."""
    config = VideoMAEConfig(**TINY)
    config.save_pretrained(tmp_path / "hub")
    arrays = arrays_of(VideoMAEModel, config, "Hugging Face, encoder alone")
    for file in files:
        write_arrays(tmp_path / "hub" / file, arrays)

    def download(name, revision, allow_patterns):
        assert (name, revision) == ("owner/model", "v1")
        (tmp_path / "cache").mkdir(exist_ok=True)
        for pattern in allow_patterns:
            for file in (tmp_path / "hub").glob(pattern):
                shutil.copy(file, tmp_path / "cache")
        return str(tmp_path / "cache")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    checkpoint = Checkpoint.open("owner/model", revision="v1")
    assert checkpoint.config == config
    assert {file.name for file in (tmp_path / "cache").iterdir()} == {"config.json", files[0]}
