"""The names and shapes that the published codes write, listed in `published/` with their source."""

from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from videomae_jax import VideoMAEForPreTraining, VideoMAEForVideoClassification
from videomae_jax.model.positions import position_table
from videomae_jax.weights.arrays import to_checkpoint
from videomae_jax.weights.checkpoint import Checkpoint
from videomae_jax.weights.files import write_arrays
from videomae_jax.weights.pretrained import flat_params

LISTS = sorted((Path(__file__).parent / "published").glob("*.txt"))
DIALECTS = {
    "huggingface_v4_pretrain": "Hugging Face",
    "huggingface_v4_classification": "Hugging Face",
    "huggingface_v5_pretrain": "Hugging Face 5.5 to 5.17",
    "huggingface_v5_classification": "Hugging Face 5.5 to 5.17",
    "original_pretrain": "original, pre-training",
    "original_finetune": "original, fine-tuning",
    "v2_hub": "VideoMAEv2 on the Hub",
    "mmaction2": "mmaction2",
}
HEADS = dict(num_attention_heads=3, decoder_num_attention_heads=2)
CLIP = dict(image_size=32, num_frames=4)


def published(file):
    """name -> shape."""
    lines = (line.rsplit(" ", 1) for line in file.read_text().splitlines() if not line.startswith("#"))
    return {name: tuple(map(int, shape.split("x"))) for name, shape in lines}


def random_arrays(shapes):
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    if "backbone.pos_embed" in arrays:
        arrays["backbone.pos_embed"] = position_table("sincos_1d", (2, 4, 4), 48)[None]
    return arrays


def test_every_dialect_has_a_list():
    assert {file.stem for file in LISTS} == DIALECTS.keys()


@pytest.mark.parametrize("file", LISTS, ids=lambda file: file.stem)
def test_all_that_is_published_is_read_and_comes_back_bit_by_bit(file, tmp_path):
    arrays = random_arrays(published(file))
    write_arrays(tmp_path / "x.safetensors", arrays)
    pretraining = any(name.startswith("decoder.") for name in arrays)
    cls = VideoMAEForPreTraining if pretraining else VideoMAEForVideoClassification
    clip = dict(image_size=224, num_frames=16) if file.stem == "original_pretrain" else CLIP
    checkpoint = Checkpoint.open(tmp_path / "x.safetensors", **HEADS, **clip)
    assert checkpoint.dialect.name == DIALECTS[file.stem]

    if file.stem == "v2_hub":  # without a classifier
        with pytest.warns(UserWarning, match="new and untrained: classifier.$"):
            model = cls.from_pretrained(tmp_path / "x.safetensors", **HEADS, **clip)
    else:
        model = cls.from_pretrained(tmp_path / "x.safetensors", **HEADS, **clip)
    params = flat_params(nnx.split(model)[1])
    if not checkpoint.has("classifier"):
        params = {path: array for path, array in params.items() if not path.startswith("classifier/")}
    again = to_checkpoint(params, checkpoint.dialect, model.config.patch)
    never_read = {name for name in arrays if name.endswith(("key.bias", "pos_embed"))}
    assert again.keys() == arrays.keys() - never_read
    for name, array in again.items():
        np.testing.assert_array_equal(array, arrays[name], err_msg=name)
