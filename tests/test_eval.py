"""eval.py as a user runs it, on video files: in this process for speed, in others where a process is what is tested."""

import csv
import dataclasses
import functools
import importlib.util
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

import eval as eval_command
from videomae_jax import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEForVideoClassification
from videomae_jax.data.clips import FinetuningClips, MultiViewClips
from videomae_jax.data.randaugment import GEOMETRIC, OPERATIONS, RandAugment
from videomae_jax.data.video import write_video
from videomae_jax.evaluation.multiview import videos_at_a_time, views_of
from videomae_jax.training.downstream import DownstreamRecipe
from videomae_jax.training.finetuning import Finetuning
from videomae_jax.training.init_from import find_encoder
from videomae_jax.training.mesh import make_mesh
from videomae_jax.training.metrics import read_metrics
from videomae_jax.training.mixing import Mixing
from videomae_jax.training.optimizer import finetuning_optimizer
from videomae_jax.training.state import Trainer

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


@pytest.fixture(autouse=True)
def on_one_device(monkeypatch):
    """Of the eight that tests have: what is computed on all of them takes longest to compile."""
    monkeypatch.setattr(eval_command, "make_mesh", functools.partial(make_mesh, devices=jax.devices()[:1]))


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
    sized = config if config == "quickstart_finetune" else f"{config}:size=tiny"
    keys = dict(init_from=encoder)
    if config == "quickstart_finetune":
        keys = dict(init_from="scratch", eval__steps=2)
    results = run(sized, clips, tmp_path, **keys)
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
    card = (tmp_path / "model" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: videomae-jax\n") and "for: dark, light." in card
    began = "random weights" if keys["init_from"] == "scratch" else "the weights of another model"
    assert f"| from | {began} |" in card
    assert re.search(rf"\| top1, test, 6 videos, \d+ x \d+ views \| {results['top1']:.4g} \|", card)


def kept(workdir):
    return {file: file.stat().st_mtime_ns for file in workdir.rglob("*") if file.is_file()}


def test_a_finished_run_says_so_and_does_nothing(clips, encoder, tmp_path, capsys):
    keys = dict(init_from=encoder, augment__randaugment=None)
    results = run("ucf101_finetune:size=tiny", clips, tmp_path, **keys)
    before = {file: time for file, time in kept(tmp_path).items() if file.name not in ("recipe.json", "classes.txt")}
    assert run("ucf101_finetune:size=tiny", clips, tmp_path, **keys) == results
    after = kept(tmp_path)
    assert {file: after[file] for file in before} == before
    said = capsys.readouterr().out
    assert "is finished: all 2 steps are done" in said
    assert "the test is done" in said
    # Another test of the same model is made.
    again = run("ucf101_finetune:size=tiny", clips, tmp_path, **keys, test__segments=2)
    assert again["settings"]["segments"] == 2
    assert read_metrics(tmp_path)[-1]["step"] == 2
    with pytest.raises(ValueError, match="belongs to another run: .*optim.layer_decay is 0.7 there and 0.5 here"):
        run("ucf101_finetune:size=tiny", clips, tmp_path, **keys, optim__layer_decay=0.5)


def test_test_mode_measures_a_trained_model_as_the_run_did(clips, encoder, tmp_path):
    keys = dict(augment__randaugment=None)
    trained = run("ucf101_finetune:size=tiny", clips, tmp_path / "run", init_from=encoder, **keys)
    tested = run("ucf101_finetune:size=tiny", clips, tmp_path / "test", init_from=tmp_path / "run", mode="test", **keys)
    assert {name: value for name, value in tested.items() if name != "settings"} == {
        name: value for name, value in trained.items() if name != "settings"
    }
    rows = list(csv.DictReader((tmp_path / "test" / "predictions.csv").open()))
    assert [Path(row["path"]).name for row in rows] == [f"{index}.mp4" for index in range(14, 20)]
    assert [row["label"] for row in rows] == [CLASSES[index % 2] for index in range(14, 20)]
    assert sum(row["label"] == row["predicted"] for row in rows) / 6 == pytest.approx(tested["top1"] / 100)
    for name in ("confusion.csv", "confusion.png", "classes.csv"):
        assert (tmp_path / "test" / name).stat().st_size > 0


@pytest.mark.full
def test_an_averaged_model_is_the_one_that_is_kept_and_measured(clips, encoder, tmp_path):
    keys = dict(init_from=encoder, augment__randaugment=None, optim__base_lr=1.0, optim__warmup_epochs=0.0)
    run("ucf101_finetune:size=tiny", clips, tmp_path / "plain", **keys)
    run("ucf101_finetune:size=tiny", clips, tmp_path / "held", **keys, optim__ema_decay=0.999)
    before = VideoMAEForPreTraining.from_pretrained(encoder).videomae.embeddings.projection.kernel[...]
    plain, held = (
        params_of(tmp_path / name)["videomae"]["embeddings"]["projection"]["kernel"] for name in ("plain", "held")
    )
    # Two updates, of which the average took a thousandth and then another.
    moved = np.abs(held - before).max() / np.abs(plain - before).max()
    assert 0 < moved < 0.003


@pytest.mark.parametrize("mode", ["linear_probe", "attentive_probe"])
def test_a_probe_leaves_the_encoder_as_it_is(mode, clips, encoder, tmp_path):
    run(f"{mode}:size=tiny", clips, tmp_path, init_from=encoder)
    before = nnx.to_pure_dict(nnx.split(VideoMAEForPreTraining.from_pretrained(encoder).videomae)[1])
    after = params_of(tmp_path)
    if mode == "linear_probe":
        del before["layernorm"]  # a norm after the pooling has its place
    jax.tree.map(np.testing.assert_array_equal, after["videomae"], before)
    assert np.abs(after["classifier"]["bias"]).max() > 0


def test_blocks_that_are_frozen_by_their_number_stay(clips, encoder, tmp_path):
    keys = dict(optim__freeze=r"embeddings|encoder/layer/[01]/", optim__warmup_epochs=0.0, augment__randaugment=None)
    run("ucf101_finetune:size=tiny", clips, tmp_path, init_from=encoder, **keys)
    before = nnx.to_pure_dict(nnx.split(VideoMAEForPreTraining.from_pretrained(encoder).videomae)[1])
    after = params_of(tmp_path)["videomae"]
    jax.tree.map(np.testing.assert_array_equal, after["embeddings"], before["embeddings"])
    kernel, old = (tree["encoder"]["layer"]["attention"]["qkv"]["kernel"] for tree in (after, before))
    np.testing.assert_array_equal(kernel[:2], old[:2])
    assert (np.abs(kernel[2:] - old[2:]).max(axis=(1, 2, 3)) > 0).all()


def test_adapters_are_merged_into_a_plain_model(clips, encoder, tmp_path):
    keys = dict(optim__adapter_rank=4, optim__warmup_epochs=0.0, augment__randaugment=None, total_steps=3)
    run("ucf101_finetune:size=tiny", clips, tmp_path, init_from=encoder, **keys)
    before = nnx.to_pure_dict(nnx.split(VideoMAEForPreTraining.from_pretrained(encoder).videomae)[1])
    after = params_of(tmp_path)["videomae"]
    jax.tree.map(np.testing.assert_array_equal, after["embeddings"], before["embeddings"])
    kernel, old = (tree["encoder"]["layer"]["mlp"]["output"]["kernel"] for tree in (after, before))
    assert (np.linalg.matrix_rank(np.asarray(kernel - old, np.float64), tol=1e-5) <= 4).all()
    assert np.abs(kernel - old).max() > 0


def test_several_classes_a_video(clips, encoder, tmp_path):
    write_manifest(tmp_path / "labels.csv", [[clips / f"{i}.mp4", "even|light"[: 4 + 6 * (i % 2)]] for i in range(8)])
    keys = dict(problem_type="multi_label_classification", augment__label_smoothing=0.0, augment__randaugment=None)
    paths = dict(data__path=tmp_path / "labels.csv", data__val_path=tmp_path / "labels.csv")
    results = run("ucf101_finetune:size=tiny", clips, tmp_path / "run", init_from=encoder, **keys, **paths)
    assert results["num_videos"] == 8
    assert 0 <= results["map"] <= 100
    config = VideoMAEConfig.from_pretrained(tmp_path / "run")
    assert (list(config.id2label.values()), config.problem_type) == (["even", "light"], "multi_label_classification")


def test_numbers(clips, encoder, tmp_path):
    write_manifest(tmp_path / "labels.csv", [[clips / f"{i}.mp4", 0.1 * i] for i in range(8)])
    keys = dict(problem_type="regression", augment__randaugment=None) | {
        f"augment__{key}": 0.0 for key in ("label_smoothing", "mixup", "cutmix")
    }
    paths = dict(data__path=tmp_path / "labels.csv", data__val_path=tmp_path / "labels.csv")
    results = run("ucf101_finetune:size=tiny", clips, tmp_path / "run", init_from=encoder, **keys, **paths)
    assert results["num_videos"] == 8
    assert np.isfinite([results["mse"], results["mae"], results["r2"]]).all()


def test_unreadable_test_videos_count_as_wrong_unless_told_otherwise(clips, encoder, tmp_path, capsys):
    (tmp_path / "broken.mp4").write_text("no video")
    rows = [[clips / "14.mp4", "dark"], [tmp_path / "broken.mp4", "dark"], [clips / "15.mp4", "light"]]
    write_manifest(tmp_path / "test.csv", rows)
    keys = dict(init_from=encoder, augment__randaugment=None, data__test_path=tmp_path / "test.csv")
    results = run("ucf101_finetune:size=tiny", clips, tmp_path / "run", **keys)
    assert (results["num_videos"], results["num_broken"]) == (3, 1)
    assert results["top1"] <= 100 * 2 / 3 + 1e-6
    assert "1 video cannot be read and counts as wrong" in capsys.readouterr().out
    assert "broken.mp4" in (tmp_path / "run" / "broken_videos.csv").read_text()
    skipped = run("ucf101_finetune:size=tiny", clips, tmp_path / "run", **keys, test__skip_broken=True)
    assert (skipped["num_videos"], skipped["num_broken"]) == (2, 1)
    assert skipped["top1"] == pytest.approx(results["top1"] * 3 / 2)


def test_a_linear_probe_tells_separable_videos_apart(clips, encoder, tmp_path):
    keys = dict(init_from=encoder, total_steps=60, optim__warmup_epochs=5.0)
    assert run("linear_probe:size=tiny", clips, tmp_path, **keys)["top1"] == 100


def test_a_linear_probe_guesses_labels_that_say_nothing(encoder, tmp_path):
    rng = np.random.default_rng(0)
    for name, count in (("train", 24), ("val", 80)):
        rows = [[f"{name}{index}.mp4", "ab"[rng.integers(2)]] for index in range(count)]
        for path, _ in rows:
            write_video(tmp_path / path, rng.integers(0, 256, (6, 16, 16, 3)).astype(np.uint8), fps=25)
        write_manifest(tmp_path / f"{name}.csv", rows)
    keys = dict(init_from=encoder, total_steps=60, optim__warmup_epochs=5.0)
    results = run("linear_probe:size=tiny", tmp_path, tmp_path / "run", **keys)
    low, high = stats.binom.interval(0.999, 80, 0.5)
    assert low <= results["top1"] / 100 * 80 <= high


@pytest.mark.parametrize(
    ("config", "keys", "wanted"),
    [
        ("ucf101_finetune:size=tiny", {}, "config.init_from says what to begin with, and is missing"),
        ("ucf101_finetune:size=tiny", dict(init_from="nowhere"), "init_from=nowhere: nowhere does not exist"),
        (
            "ucf101_finetune",
            dict(init_from="ENCODER"),
            r"another model than config.model \(base\): hidden_size 128.* --config FILE.py:size=tiny\.$",
        ),
        (
            "ucf101_finetune:size=tiny",
            dict(init_from="ENCODER", model__tubelet_size=1),
            r"config.model \(tiny\): tubelet_size 2 \(the recipe: 1\)\.$",
        ),
        ("ucf101_finetune:size=tiny", dict(init_from="ENCODER", mode="test"), "has no classifier to test"),
        ("ucf101_finetune:size=tiny", dict(init_from="scratch", mode="test"), "needs a trained model"),
        ("linear_probe:size=tiny", dict(init_from="scratch"), "needs a trained model"),
        ("ucf101_finetune:size=tiny", dict(init_from="scratch", mode="tune"), "config.mode must be one of finetune"),
        (
            "ucf101_finetune:size=tiny",
            dict(init_from="scratch", data__path="nope"),
            "data.path: data path 'nope'",
        ),
        ("ucf101_finetune:size=tiny", dict(init_from="scratch", optim__freeze="("), "no regular expression"),
        (
            "ucf101_finetune:size=tiny",
            dict(init_from="scratch", optim__optimizer="lion"),
            "adamw, sgd, got 'lion'",
        ),
        ("ucf101_finetune:size=tiny", dict(init_from="scratch", optim__optimizer="sgd"), "config.optim.b2 is AdamW's"),
        ("ucf101_finetune:size=tiny", dict(init_from="scratch", optim__adapter_rank=4), "adapters of random weights"),
        ("ucf101_finetune:size=tiny", dict(init_from="ENCODER", optim__adapter_rank=500), "rank of adapters"),
        ("ucf101_finetune:size=tiny", dict(init_from="ENCODER", optim__freeze="blocks"), "matches no parameter"),
        ("linear_probe:size=tiny", dict(init_from="ENCODER", optim__freeze="x"), "leaves the encoder as it is"),
        ("ucf101_finetune:size=tiny", dict(init_from="scratch", augment__mixup=-1.0), "mixup must be a positive alpha"),
        ("ucf101_finetune:size=tiny", dict(init_from="scratch", augment__randaugment="rand"), "expected a name like"),
        ("ucf101_finetune:size=tiny", dict(init_from="scratch", model__image_size=(17, 16)), "image height 17"),
        ("ucf101_finetune:size=tiny", dict(init_from="scratch", problem_type="regression"), "no classes to mix"),
        ("knn:size=tiny", dict(init_from="ENCODER", knn__neighbours=15), "neighbours=15 are more than the 14 videos"),
    ],
)
def test_bad_input_is_one_clear_error_before_the_first_step(config, keys, wanted, clips, encoder, tmp_path):
    keys = {key: str(encoder) if value == "ENCODER" else value for key, value in keys.items()}
    with pytest.raises(ValueError, match=wanted):
        run(config, clips, tmp_path / "run", **keys)
    assert not (tmp_path / "run" / "recipe.json").exists()


def test_an_encoder_of_no_size_says_which_there_are(clips, tmp_path):
    config = dataclasses.replace(ENCODER, num_hidden_layers=2)
    VideoMAEForPreTraining(config, rngs=nnx.Rngs(0)).save_pretrained(tmp_path / "shallow")
    wanted = r"num_hidden_layers 2 .* No size \(tiny, small.*\) has this encoder: pre-train one that has, or set these"
    with pytest.raises(ValueError, match=wanted):
        run("ucf101_finetune:size=tiny", clips, tmp_path / "run", init_from=tmp_path / "shallow")


def test_labels_that_are_wrong_are_errors(clips, encoder, videos, tmp_path):
    keys, wrong = dict(init_from=encoder), tmp_path / "wrong.csv"
    run("ucf101_finetune:size=tiny", clips, tmp_path / "run", **keys, augment__randaugment=None)

    def fails(wanted, rows=None, **others):
        if rows is not None:
            write_manifest(wrong, [[clips / f"{index}.mp4", label] for index, label in enumerate(rows)])
        with pytest.raises(ValueError, match=wanted):
            run("ucf101_finetune:size=tiny", clips, tmp_path / "other", **keys | others)

    trained = dict(mode="test", init_from=tmp_path / "run", data__val_path=wrong)
    fails("line 3: label '2' is not in .0, 1.*2 known classes .dark, light", [0, 2, 1], **trained)
    fails("label 'grey' is not one of", ["dark", "grey"], **trained)
    fails("label 'grey' is not one of", ["dark", "grey"], data__val_path=wrong)
    fails("has 1 classes; a classifier needs at least two", ["dark", "dark"], data__path=wrong, data__val_path=wrong)
    fails(
        "mirrored clips would have wrong labels: 2 classes say a direction .'left', 'right'.",
        data__path=videos,
        data__val_path=videos,
    )
    write_manifest(wrong, [[clips / "0.mp4"], [clips / "1.mp4"]], header=("path",))
    fails("config.data.path: .* has 0 classes; a classifier needs at least two", data__path=wrong)
    fails("none of the 2 videos of .* has a label", data__val_path=wrong)
    fails("none of the 2 videos of .* has a label", **trained)
    # Numbers of classes are what the original's lists have.
    write_manifest(wrong, [[clips / f"{index}.mp4", index % 2] for index in range(4)])
    named = run("ucf101_finetune:size=tiny", clips, tmp_path / "numbers", **keys | trained)
    assert named["num_videos"] == 4


def test_a_run_without_its_model_and_checkpoints_begins_anew_with_the_same_weights(clips, encoder, tmp_path):
    keys = dict(init_from=encoder, augment__randaugment=None)
    run("ucf101_finetune:size=tiny", clips, tmp_path, **keys)
    first = params_of(tmp_path)
    for folder in ("checkpoints", "model"):
        shutil.rmtree(tmp_path / folder)
    run("ucf101_finetune:size=tiny", clips, tmp_path, **keys)
    jax.tree.map(np.testing.assert_array_equal, params_of(tmp_path), first)


def test_an_empty_class_is_said(clips, encoder, tmp_path, capsys):
    write_manifest(tmp_path / "gap.csv", [[clips / f"{index}.mp4", 2 * (index % 2)] for index in range(8)])
    paths = dict(data__path=tmp_path / "gap.csv", data__val_path=tmp_path / "gap.csv")
    run("knn:size=tiny", clips, tmp_path / "run", init_from=encoder, **paths)
    said = capsys.readouterr().out
    assert "1 of 3 classes have no training videos: 1" in said
    assert "1 class has no test videos: 1" in said


def test_neighbours_say_what_votes_and_which_videos_are_short(clips, encoder, tmp_path, capsys):
    run("knn:size=tiny", clips, tmp_path / "run", init_from=encoder, test__segments=10)
    said = capsys.readouterr().out
    assert f"model     {encoder}, its encoder's pooled tokens\n" in said
    assert re.search(r"data      14 videos of .*train.csv \(train\), 6 videos of .*val.csv \(test\)\n", said)
    assert "6 of 6 videos have fewer frames than the 10 segments" in said


def words(config, clips, workdir, **keys):
    """The command line of `run`."""
    paths = {"data.path": clips / "train.csv", "data.val_path": clips / "val.csv"}
    options = {**SMALL, **paths, **{key.replace("__", "."): value for key, value in keys.items()}}
    return [
        *(sys.executable, "eval.py", "--config", f"configs/{config.replace(':', '.py:')}", "--workdir", str(workdir)),
        *(f"--config.{key}={value}" for key, value in options.items()),
    ]


@pytest.mark.full
def test_a_killed_run_goes_on_to_the_same_numbers(clips, encoder, tmp_path):
    keys = dict(init_from=encoder, total_steps=4, checkpoint_steps=1, eval__steps=2)
    keys |= dict(optim__ema_decay=0.9, optim__accumulation=2, optim__warmup_epochs=10.0)
    config = "ucf101_finetune:size=tiny"
    for name in ("whole", "killed"):
        run_of = words(config, clips, tmp_path / name, **keys)
        if name == "killed":
            process = subprocess.Popen(run_of, cwd=ROOT, stdout=subprocess.PIPE, text=True)
            next(line for line in process.stdout if line.startswith("step 3/4"))
            process.send_signal(signal.SIGKILL)
            process.communicate()
            assert not (tmp_path / name / "model").exists()
        done = subprocess.run(run_of, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert "continuing from step" in done.stdout
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    assert "val_top1" in losses(tmp_path / "whole")[1]
    for folder in ("model", "best"):
        whole, killed = (tmp_path / name / folder / "model.safetensors" for name in ("whole", "killed"))
        assert whole.read_bytes() == killed.read_bytes()
    results = [(tmp_path / name / "results.json").read_text() for name in ("whole", "killed")]
    assert results[0] == results[1]


PROCESS = """
import sys
from pathlib import Path
import jax
port, index, processes, devices = map(int, sys.argv[1:5])
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", devices)
if processes > 1:
    jax.distributed.initialize(f"127.0.0.1:{port}", processes, index)
sys.path.insert(0, "tests")
from test_eval import run
clips, model, workdir, batch_size = (*map(Path, sys.argv[5:8]), int(sys.argv[8]))
views = dict(test__segments=2, test__crops=3, test__batch_size=batch_size)
run("ucf101_finetune:size=tiny", clips, workdir, mode="test", init_from=model, **views)
"""


@pytest.mark.full
def test_the_same_result_on_any_devices_processes_and_batches(clips, encoder, tmp_path):
    keys = dict(init_from=encoder, augment__randaugment=None, total_steps=8, optim__base_lr=0.05)
    run("ucf101_finetune:size=tiny", clips, tmp_path / "run", **keys)
    (tmp_path / "broken.mp4").write_text("no video")
    rows = [[clips / f"{index}.mp4", CLASSES[index % 2]] for index in range(10)]
    (tmp_path / "test").mkdir()
    write_manifest(tmp_path / "test" / "train.csv", rows)
    write_manifest(tmp_path / "test" / "val.csv", [*rows, [tmp_path / "broken.mp4", "dark"]])

    def tested(name, *, processes=1, devices=1, batch_size):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        arguments = (processes, devices, tmp_path / "test", tmp_path / "run", tmp_path / name, batch_size)
        running = [
            subprocess.Popen(
                [sys.executable, "-c", PROCESS, *map(str, (port, index, *arguments))],
                **dict(cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True),
            )
            for index in range(processes)
        ]
        for process in running:
            said, _ = process.communicate(timeout=300)
            assert process.returncode == 0, said
        rows = list(csv.DictReader((tmp_path / name / "predictions.csv").open()))
        return json.loads((tmp_path / name / "results.json").read_text()), rows

    wanted, videos = tested("one", batch_size=4)
    assert (wanted["num_videos"], wanted["num_broken"], len(videos)) == (11, 1, 11)
    for name, how in (
        ("eight devices", dict(devices=8, batch_size=8)),
        ("two processes", dict(processes=2, devices=2, batch_size=4)),
        ("large batch", dict(batch_size=32)),
    ):
        results, rows = tested(name, **how)
        for score in ("top1", "mean_class_accuracy", "num_videos", "num_broken"):
            assert results[score] == wanted[score], (name, score)
        assert results["loss"] == pytest.approx(wanted["loss"], abs=1e-5)
        assert [(row["path"], row["predicted"]) for row in rows] == [(row["path"], row["predicted"]) for row in videos]


def test_every_key_of_a_recipe_arrives(clips, tmp_path):
    """What is built of a recipe whose every value is unlike the default."""
    keys = {
        "augment.crop": "multi_scale",
        "augment.flip": True,
        "augment.randaugment": "rand-m3-n1-inc1",
        "augment.geometric": False,
        "augment.erasing": 0.3,
        "augment.mixup": 0.4,
        "augment.cutmix": 0.6,
        "augment.mix_probability": 0.7,
        "augment.mix_switch": 0.2,
        "augment.label_smoothing": 0.05,
        "data.views": 3,
        "data.stride": 6,
        "optim.freeze": "embeddings",
        "seed": 11,
        "compute_dtype": "bfloat16",
        "test.batch_size": 9,
        "model.drop_path_rate": 0.15,
        "model.head_dropout_prob": 0.35,
    }
    values = {key.replace(".", "__"): value for key, value in keys.items()}
    recipe = DownstreamRecipe.from_config(recipe_of("ucf101_finetune:size=tiny", clips, init_from="scratch", **values))
    config = eval_command.trained_config(recipe, None, ("a", "b", "c"))
    assert (config.drop_path_rate, config.head_dropout_prob, config.num_labels) == (0.15, 0.35, 3)
    assert (config.use_mean_pooling, config.attentive_pooling, config.clip_size) == (True, False, (4, 16, 16))
    assert Finetuning.of_recipe(recipe, config) == Finetuning(
        config,
        flip=True,
        erasing=0.3,
        mixing=Mixing(mixup=0.4, cutmix=0.6, probability=0.7, switch=0.2),
        label_smoothing=0.05,
        frozen="embeddings",
        adapter_rank=None,
        seed=11,
        dtype=jnp.dtype("bfloat16"),
    )
    made = eval_command.training_clips(recipe, config)
    colours = tuple(name for name in OPERATIONS if name not in GEOMETRIC)
    distort = RandAugment(3.0, 1, 0.0, operations=colours)
    assert made == FinetuningClips(4, 6, 3, (16, 16), distort, "multi_scale")
    assert views_of(recipe, config, 7, 2) == MultiViewClips(4, 6, 7, 2, (16, 16))
    assert videos_at_a_time(recipe, make_mesh(data=-1, fsdp=1, tensor=1)) == 16  # on eight devices


def test_training_is_by_the_recipes_optimizer_and_validation_by_its_videos(clips, encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(eval_command, "make_mesh", make_mesh)
    trained = {}

    def trainer(*fields):
        made = Trainer(*fields)
        trained.update(accumulation=made.accumulation, ema_decay=made.ema_decay)
        return made

    def optimizer(schedule, optim):
        trained.update(optim=optim, rate=float(schedule(0)))
        return finetuning_optimizer(schedule, optim)

    monkeypatch.setattr(eval_command, "Trainer", trainer)
    monkeypatch.setattr(eval_command, "finetuning_optimizer", optimizer)
    keys = dict(optim__accumulation=2, optim__ema_decay=0.5, optim__layer_decay=0.6, mesh__data=4, mesh__fsdp=2)
    keys |= dict(data__batch_size=16, eval__videos=4, optim__warmup_epochs=0.0)
    run("ucf101_finetune:size=tiny", clips, tmp_path, init_from=encoder, augment__randaugment=None, **keys)
    assert (trained["accumulation"], trained["ema_decay"], trained["optim"].layer_decay) == (2, 0.5, 0.6)
    assert trained["rate"] == pytest.approx(5e-4 * 16 / 256)
    assert read_metrics(tmp_path)[-1]["val_num_videos"] == 4


def test_what_a_checkpoint_brings_is_kept_where_it_fits(clips, encoder, tmp_path, capsys):
    def loaded(config, checkpoint, classes=CLASSES):
        recipe = DownstreamRecipe.from_config(recipe_of(config, clips, init_from=checkpoint))
        opened = find_encoder(recipe)
        config = eval_command.trained_config(recipe, opened, classes)
        return nnx.to_pure_dict(nnx.split(Finetuning.of_recipe(recipe, config).load(opened))[1])

    saved = VideoMAEConfig.from_size("tiny", image_size=16, num_frames=4, use_mean_pooling=True)
    saved = dataclasses.replace(saved, id2label=dict(enumerate(CLASSES)))
    others = {"other": "xyz", "more": ("light", "grey", "dark"), "numbers": "012"}
    models = {"same": saved} | {
        name: dataclasses.replace(saved, id2label=dict(enumerate(names))) for name, names in others.items()
    }
    for name, config in models.items():
        model = VideoMAEForVideoClassification(config, rngs=nnx.Rngs(5))
        model.fc_norm.scale[...] += 1
        model.save_pretrained(tmp_path / name)
        models[name] = nnx.to_pure_dict(nnx.split(model)[1])
    same = loaded("ucf101_finetune:size=tiny", tmp_path / "same")
    jax.tree.map(np.testing.assert_array_equal, same, models["same"])
    assert "classifier" not in capsys.readouterr().out
    other = loaded("ucf101_finetune:size=tiny", tmp_path / "other")
    np.testing.assert_array_equal(other["fc_norm"]["scale"], models["other"]["fc_norm"]["scale"])
    assert other["classifier"]["kernel"].shape == (128, 2)
    assert "a new one is trained" in capsys.readouterr().out
    # As V2 goes from the classifier of Kinetics-710 to Kinetics-400.
    some = loaded("ucf101_finetune:size=tiny", tmp_path / "more")
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_array_equal(ours, theirs[..., [2, 0]]),
        some["classifier"],
        models["more"]["classifier"],
    )
    assert "classifier" not in capsys.readouterr().out
    # Numbers may be of other classes.
    assert loaded("ucf101_finetune:size=tiny", tmp_path / "numbers", "01")["classifier"]["kernel"].shape == (128, 2)
    assert "a new one is trained" in capsys.readouterr().out
    probe = loaded("linear_probe:size=tiny", tmp_path / "same")
    np.testing.assert_array_equal(probe["fc_norm"]["scale"], 1)
    assert np.abs(probe["classifier"]["kernel"] - models["same"]["classifier"]["kernel"]).max() > 0


def test_models_whose_classes_have_no_names(clips, tmp_path, capsys):
    config = VideoMAEConfig.from_size("tiny", image_size=16, num_frames=4, use_mean_pooling=True, num_labels=4)
    VideoMAEForVideoClassification(config, rngs=nnx.Rngs(0)).save_pretrained(tmp_path / "four")
    VideoMAEForVideoClassification(config.adapt(num_labels=2), rngs=nnx.Rngs(0)).save_pretrained(tmp_path / "two")
    write_manifest(tmp_path / "numbers.csv", [[clips / f"{index}.mp4", index % 3] for index in range(6)])
    keys = dict(mode="test", test__segments=1, test__crops=1)
    results = run(
        "ucf101_finetune:size=tiny",
        clips,
        tmp_path / "a",
        **keys | dict(init_from=tmp_path / "four", data__val_path=tmp_path / "numbers.csv"),
    )
    assert results["num_videos"] == 6
    with pytest.raises(ValueError, match="names 2 classes, and init_from=.*four has 4 without names"):
        run("ucf101_finetune:size=tiny", clips, tmp_path / "b", **keys | dict(init_from=tmp_path / "four"))
    run("ucf101_finetune:size=tiny", clips, tmp_path / "c", **keys | dict(init_from=tmp_path / "two"))
    assert "taken to be the data's, 0 dark, 1 light\n" in capsys.readouterr().out


@pytest.mark.full
def test_a_test_is_of_the_models_own_problem_and_says_where_frames_differ(clips, encoder, tmp_path, capsys):
    keys = dict(augment__randaugment=None)
    run("ucf101_finetune:size=tiny", clips, tmp_path / "run", init_from=encoder, **keys)
    tested = dict(mode="test", init_from=tmp_path / "run")
    with pytest.raises(ValueError, match="was trained for single_label_classification: set problem_type"):
        run("ucf101_finetune:size=tiny", clips, tmp_path / "a", **tested, problem_type="multi_label_classification")
    run("ucf101_finetune:size=tiny", clips, tmp_path / "a", **tested, data__stride=2)
    assert "trained on frames 1 apart, and is tested on frames 2 apart" in capsys.readouterr().out
    # The same command with other weights is another test.
    weights = tmp_path / "run" / "model" / "model.safetensors"
    other = tmp_path / "other"
    run("ucf101_finetune:size=tiny", clips, other, init_from=encoder, **keys, seed=1)
    weights.write_bytes((other / "model" / "model.safetensors").read_bytes())
    capsys.readouterr()
    run("ucf101_finetune:size=tiny", clips, tmp_path / "a", **tested, data__stride=2)
    assert "the test is done" not in capsys.readouterr().out
