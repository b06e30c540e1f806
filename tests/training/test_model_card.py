import json

import numpy as np

from videomae_jax import VideoMAEConfig, VideoMAEForVideoClassification
from videomae_jax.data.sources import VideoSource
from videomae_jax.training.downstream import finetuning
from videomae_jax.training.model_card import write_model_card
from videomae_jax.training.workdir import claim, model_folder


def test_a_model_that_began_on_the_hub_names_what_it_began_with(tmp_path):
    source = VideoSource("videos", ("1.mp4", "2.mp4"), np.array([0, 1], np.int32), ("a", "b"))
    recipe = finetuning("tiny")
    recipe.init_from = "owner/model/weights.pth"
    claim(tmp_path, recipe.to_dict(), source.class_names, source)
    config = VideoMAEConfig.from_size("tiny", id2label={0: "a", 1: "b"}).to_dict()
    model_folder(tmp_path).mkdir()
    described = config | {"architectures": [VideoMAEForVideoClassification.__name__]}
    (model_folder(tmp_path) / "config.json").write_text(json.dumps(described))
    write_model_card(tmp_path)
    card = (model_folder(tmp_path) / "README.md").read_text()
    assert "\nbase_model: owner/model\n---\n" in card
    assert "| from | [owner/model](https://huggingface.co/owner/model) |" in card
    assert "its licence, which that of owner/model may decide." in card
