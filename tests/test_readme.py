"""The Python of the README and of docs/models.md is run."""

import re
from pathlib import Path

import numpy as np
import pytest
import transformers
from flax import nnx
from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil

from videomae_jax import (
    VideoMAEConfig,
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VideoMAEImageProcessor,
)
from videomae_jax.data.video import write_video

ROOT = Path(__file__).parents[1]
PAGES = [(ROOT / page).read_text() for page in ("README.md", "docs/models.md")]


LABELS = ["abseiling", "eating spaghetti", "juggling balls", "playing cello", "surfing water", "zumba"]


def examples():
    """The pages' blocks of Python."""
    blocks = [block for page in PAGES for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL)]
    return dict(zip(("checkpoint", "videos", "run", "training"), blocks, strict=True))


def run(block, folder, monkeypatch):
    monkeypatch.chdir(folder)
    exec(compile(block, "example", "exec"), {})


def test_the_example_of_a_checkpoint_names_what_a_video_shows(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "checkpoints" / "videomae-base-finetuned-kinetics"
    config = transformers.VideoMAEConfig(
        image_size=32, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, id2label=dict(enumerate(LABELS))
    )
    transformers.VideoMAEForVideoClassification(config).save_pretrained(folder)
    VideoMAEImageProcessorPil(size=32, crop_size=32).save_pretrained(folder)
    write_video(tmp_path / "clip.mp4", np.random.default_rng(0).integers(0, 256, (24, 48, 64, 3), np.uint8), fps=24)
    block = examples()["checkpoint"]
    assert len(block.splitlines()) <= 10
    run(block, tmp_path, monkeypatch)
    lines = capsys.readouterr().out.splitlines()
    shares = [float(line.split("% ")[0]) for line in lines]
    assert len(lines) == 5 and {line.split("% ")[1] for line in lines} < set(LABELS)
    assert shares == sorted(shares, reverse=True) and 5 / 6 < sum(shares) / 100 < 1


def test_the_example_of_a_run_reconstructs(tmp_path, monkeypatch, capsys):
    config = VideoMAEConfig.from_size("tiny", image_size=32, num_frames=4)
    VideoMAEForPreTraining(config, rngs=nnx.Rngs(0)).save_pretrained(tmp_path / "runs" / "quickstart" / "model")
    run(examples()["run"], tmp_path, monkeypatch)
    assert "(1, 16, 384)" in capsys.readouterr().out
    with pytest.warns(UserWarning, match="not used: .*decoder.*new and untrained: classifier, fc_norm"):
        run(examples()["training"], tmp_path, monkeypatch)
    assert float(capsys.readouterr().out) == pytest.approx(np.log(6), rel=1e-3)  # it cannot tell six classes apart yet
    assert VideoMAEForVideoClassification.from_pretrained(tmp_path / "runs" / "classifier").config.num_labels == 6


def test_the_example_of_videos_classifies_them(tmp_path, monkeypatch, capsys):
    config = VideoMAEConfig.from_size("tiny", image_size=32, num_frames=4, id2label=dict(enumerate(LABELS)))
    folder = tmp_path / "runs" / "ucf101_finetune" / "model"
    VideoMAEForVideoClassification(config, rngs=nnx.Rngs(0)).save_pretrained(folder)
    VideoMAEImageProcessor.for_model(config, frame_stride=4).save_pretrained(folder)
    write_video(tmp_path / "clip.mp4", np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), np.uint8), fps=8)
    run(examples()["videos"], tmp_path, monkeypatch)
    scores, *windows, shape = capsys.readouterr().out.splitlines()
    assert scores.startswith("[Score(label=") and scores.count("label=") == 5
    assert [line.split(":")[0] for line in windows] == ["0.0 s to 2.0 s", "2.0 s to 4.0 s", "3.4 s to 5.0 s"]
    assert shape == "(3, 2, 128)"


@pytest.mark.parametrize("target", re.findall(r"    make ([\w-]+)", PAGES[0]))
def test_every_make_target_is_there(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
