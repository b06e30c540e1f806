"""eval.py as a user runs it, on video files: in this process for speed, in others where a process is what is tested."""

import csv
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

import eval as eval_command
from videomae_jax import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEForVideoClassification
from videomae_jax.data.video import write_video
from videomae_jax.training.metrics import read_metrics

ROOT = Path(__file__).parents[1]
PROBES = ["attentive_probe", "knn", "linear_probe"]
CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("*_finetune.py")) + ["small_data", *PROBES]
CLASSES = ("dark", "light")

# A clip and a batch for a test; numbers are dotted keys of the recipe.
SMALL = {
    "data.batch_size": 8,
    "data.workers": 0,
    "data.stride": 1,
    "model.image_size": (16, 16),
    "model.num_frames": 4,
    "eval.steps": 1000,
    "log_steps": 1,
    "total_steps": 2,
    "test.batch_size": 3,
    "knn.neighbours": 3,
}
ENCODER = VideoMAEConfig.from_size("tiny", image_size=16, num_frames=4, decoder_num_hidden_layers=1)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Ten dark and ten light videos of 8 frames, and manifests of three quarters and of the others."""
    folder, rng = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    rows = []
    for index in range(20):
        low = 140 if index % 2 else 20
        frames = np.kron(rng.integers(low, low + 90, (8, 3, 4, 3)), np.ones((1, 8, 8, 1))).astype(np.uint8)
        write_video(folder / f"{index}.mp4", frames, fps=25)
        rows.append([f"{index}.mp4", CLASSES[index % 2]])
    for name, part in (("train", rows[:14]), ("val", rows[14:])):
        write_manifest(folder / f"{name}.csv", part)
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A tiny pre-training model, untrained, of N(0, 0.1) weights: its features differ from clip to clip."""
    folder = tmp_path_factory.mktemp("encoder")
    VideoMAEForPreTraining(ENCODER, rngs=nnx.Rngs(0)).save_pretrained(folder)
    return folder


def write_manifest(path, rows, header=("path", "label")):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def recipe_of(config, clips, **keys):
    """A config of the recipes, small; `keys` are dotted, with a double underscore for the dot."""
    name, _, options = config.partition(":")
    spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    recipe = module.get_config(options)
    paths = {"data.path": str(clips / "train.csv"), "data.val_path": str(clips / "val.csv")}
    values = {key.replace("__", "."): str(value) if isinstance(value, Path) else value for key, value in keys.items()}
    recipe.update_from_flattened_dict({**SMALL, **paths, **values})
    return recipe


def run(config, clips, workdir, **keys):
    eval_command.main(recipe_of(config, clips, **keys), workdir)
    results = workdir / "results.json"
    return json.loads(results.read_text()) if results.exists() else None


def losses(workdir):
    """What must not depend on when and where a run was interrupted: every number but the speed."""
    speed = ("clips_per_second", "step_ms", "data_wait_fraction")
    return [{name: value for name, value in row.items() if name not in speed} for row in read_metrics(workdir)]


def params_of(folder):
    return nnx.to_pure_dict(nnx.split(VideoMAEForVideoClassification.from_pretrained(folder))[1])


@pytest.mark.parametrize("config", CONFIGS)
def test_every_config_runs_two_steps_and_a_test(config, clips, encoder, tmp_path):
    results = run(f"{config}:size=tiny", clips, tmp_path, init_from=encoder)
    assert (results["num_videos"], results["top5"]) == (6, None)
    assert 0 <= results["top1"] <= 100
    if config == "knn":
        return
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2]
    last = read_metrics(tmp_path)[-1]
    assert np.isfinite([last["loss"], last["val_loss"], last["grad_norm"]]).all()
    assert last["grad_norm"] > 0
    for folder in (tmp_path, tmp_path / "best"):
        model = VideoMAEForVideoClassification.from_pretrained(folder)
        assert model.config.id2label == {0: "dark", 1: "light"}
        assert model.config.num_frames == 4
