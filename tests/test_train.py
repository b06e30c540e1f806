"""train.py as a user runs it, on video files: in this process for speed, in others where that is what is tested."""

import csv
import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest
from train_command import ROOT, command, kill_at, losses, run_here, train, train_here

from videomae_jax import VideoMAEForPreTraining
from videomae_jax.training.metrics import read_metrics

pytestmark = pytest.mark.usefixtures("builtin_clips")  # the quickstart's, not those of the user's cache

CONFIGS = ["quickstart", *sorted(path.stem for path in (ROOT / "configs").glob("*_pretrain.py"))]


def files(folder):
    return sorted(folder.glob("*/*.mp4"))


def fail(config, workdir, *words, **keys):
    """The message of a command that must fail before its first step, without a traceback."""
    status, printed, errors = run_here([*command(config, workdir, **keys), *words])
    assert status == 1
    assert "Traceback" not in errors
    assert "step " not in printed
    (message,) = [text for text in errors.split("train.py: error: ")[1:]]
    return " ".join(message.split())


@pytest.mark.parametrize("config", CONFIGS)
def test_every_config_runs_two_steps(config, videos, tmp_path):
    sized = "quickstart.py" if config == "quickstart" else f"{config}.py:size=tiny"
    train_here(sized, tmp_path, data__path=videos / "train.csv", data__val_path=videos, total_steps=2)
    first, last = read_metrics(tmp_path)
    assert (first["step"], last["step"]) == (1, 2)
    assert np.isfinite([last["loss"], last["relative_loss"], last["val_relative_loss"]]).all()
    assert VideoMAEForPreTraining.from_pretrained(tmp_path).config.num_frames == 4
    assert (tmp_path / "images" / "val_0000002.png").stat().st_size > 0
    assert json.loads((tmp_path / "recipe.json").read_text())["total_steps"] == 2
    best = json.loads((tmp_path / "best" / "validation.json").read_text())
    assert (best["step"], best["score"]) == (2, -last["val_loss"])
    assert VideoMAEForPreTraining.from_pretrained(tmp_path / "best").config.num_frames == 4
    card = (tmp_path / "model" / "README.md").read_text()
    assert "pre-trained\n" in card and "| length | 2 steps |" in card
    assert f"| loss, val videos, one clip each | {last['val_loss']:.4g} |" in card
    assert str(videos) not in card and str(tmp_path) not in card


def test_views_accumulation_masks_and_bfloat16_go_together(videos, tmp_path):
    run = dict(data__path=videos, data__views=2, optim__accumulation=2, compute_dtype="bfloat16", total_steps=2)
    masks = dict(mask__kind="frame", mask__ratio=0.5, mask__decoder_kind="none", mask__decoder_ratio=0.0)
    printed = train_here("quickstart.py", tmp_path, model__num_frames=8, model__norm_pix_loss=True, **run, **masks)
    assert ", bfloat16 on " in printed
    assert "frame 0.5, really 0.5000: 256 of 512 tokens visible, 256 decoded" in printed
    assert "4 clips x 2 views" in printed
    assert np.isfinite(read_metrics(tmp_path)[-1]["val_relative_loss"])


@pytest.mark.full
def test_a_run_killed_at_any_point_goes_on_to_the_same_numbers(videos, tmp_path):
    run = dict(data__path=videos, data__val_path=videos, total_steps=6, checkpoint_steps=2, log_steps=1, eval__steps=3)
    train("quickstart.py", tmp_path / "whole", **run)
    for line in ("compiled", "step 1/6", "step 3/6", "  val_loss", "step 6/6"):
        kill_at(line, command("quickstart.py", tmp_path / "killed", **run))
    train("quickstart.py", tmp_path / "killed", **run)
    assert [row["step"] for row in losses(tmp_path / "whole")] == [1, 2, 3, 4, 5, 6]
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "killed")]
    assert weights[0] == weights[1]


@pytest.mark.full
def test_means_between_two_lines_survive_an_interruption(videos, tmp_path):
    run = dict(data__path=videos, data__val_path="", total_steps=6, log_steps=3, checkpoint_steps=2)
    train("quickstart.py", tmp_path / "whole", **run)
    kill_at("step 3/6", command("quickstart.py", tmp_path / "killed", **run))
    train("quickstart.py", tmp_path / "killed", **run)
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")


def test_an_interrupted_run_says_how_to_go_on_and_keeps_its_last_checkpoint(videos, tmp_path):
    run = dict(data__path=videos, data__val_path="", total_steps=1000, checkpoint_steps=3)
    process = subprocess.Popen(
        command("quickstart.py", tmp_path, **run),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Shells start what runs in the background, such as these tests, deaf to Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    seen = next(line for line in process.stdout if line.startswith("step    4/1000"))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130, seen + errors
    assert errors.strip().splitlines()[-1] == "interrupted; the same command goes on from the last checkpoint"
    assert "Traceback" not in errors
    assert (tmp_path / "checkpoints" / "3").is_dir()


def test_a_finished_run_says_so_and_does_nothing(videos, tmp_path):
    train_here("quickstart.py", tmp_path, data__path=videos, total_steps=2)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert f"{tmp_path} is finished" in train_here("quickstart.py", tmp_path, data__path=videos, total_steps=2)
    # A set that was named only afterwards has no numbers to report.
    later = train_here("quickstart.py", tmp_path, data__path=videos, data__test_path=videos, total_steps=2)
    assert f"{tmp_path} is finished" in later
    for name in ("recipe.json", "lock"):  # say who was here last
        before[tmp_path / name] = (tmp_path / name).read_bytes()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


WITHOUT_OTHER_FRAMEWORKS = """
import builtins, runpy, sys

really = builtins.__import__

def import_others(name, *args, **kwargs):
    if name.split(".")[0] in ("torch", "tensorflow", "transformers"):
        raise ModuleNotFoundError(name)
    return really(name, *args, **kwargs)

builtins.__import__ = import_others
sys.argv = sys.argv[1:]
runpy.run_path("train.py", run_name="__main__")
"""


def test_training_needs_neither_torch_nor_tensorflow_nor_transformers(videos, tmp_path):
    words = command("quickstart.py", tmp_path, data__path=videos, total_steps=1)[1:]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_OTHER_FRAMEWORKS, *words], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert VideoMAEForPreTraining.from_pretrained(tmp_path)


@pytest.mark.full
def test_workers_change_nothing_and_end_with_a_killed_run(videos, tmp_path):
    run = dict(data__path=videos, total_steps=3)
    train("quickstart.py", tmp_path / "threads", **run)
    words = command("quickstart.py", tmp_path / "workers", data__workers=2, **run)
    workers = kill_at("step 1/3", words)
    assert len(workers) >= 2
    assert psutil.wait_procs(workers, timeout=60)[1] == []
    train("quickstart.py", tmp_path / "workers", data__workers=2, **run)
    assert losses(tmp_path / "workers") == losses(tmp_path / "threads")


def test_init_from_goes_on_from_the_weights_of_another_run(videos, tmp_path):
    train_here("quickstart.py", tmp_path / "first", data__path=videos, total_steps=2)
    run = dict(data__path=videos, total_steps=2, optim__base_lr=0.0, optim__min_lr=0.0)
    train_here("quickstart.py", tmp_path / "second", init_from=tmp_path / "first", **run)
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("first", "second")]
    assert weights[0] == weights[1]  # at learning rate 0 they stay what they were
    shutil.rmtree(tmp_path / "first")  # once the run has begun, it is needed no more
    assert "is finished" in train_here("quickstart.py", tmp_path / "second", init_from=tmp_path / "first", **run)


def test_broken_videos_are_replaced_and_listed(videos, tmp_path):
    shutil.copytree(videos, tmp_path / "videos")
    broken = files(tmp_path / "videos")[3]
    broken.write_bytes(b"not a video")
    run = dict(data__path=tmp_path / "videos" / "train.csv", total_steps=4, data__max_broken_share=0.2)
    train_here("quickstart.py", tmp_path / "run", **run)
    with (tmp_path / "run" / "broken_videos.csv").open(newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == [str(broken)]
    assert read_metrics(tmp_path / "run")[-1]["broken_videos"] == 1


def test_too_many_broken_videos_end_the_run_with_their_list(videos, tmp_path):
    shutil.copytree(videos, tmp_path / "videos")
    for broken in files(tmp_path / "videos")[:3]:
        broken.write_bytes(b"not a video")
    run = dict(data__path=tmp_path / "videos" / "train.csv", total_steps=8)
    status, _, errors = run_here(command("quickstart.py", tmp_path / "run", **run))
    assert status == 1
    assert "cannot be read, more than data.max_broken_share=0.05" in errors
    assert "Traceback" not in errors


@pytest.mark.full
def test_a_finished_run_without_its_checkpoints_is_still_finished(videos, tmp_path):
    train("quickstart.py", tmp_path, data__path=videos, total_steps=1)
    shutil.rmtree(tmp_path / "checkpoints")
    assert "is finished" in train("quickstart.py", tmp_path, data__path=videos, total_steps=1)


def test_an_unreadable_test_set_costs_no_model(videos, tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.mp4").write_bytes(b"not a video")
    printed = train_here(
        "quickstart.py", tmp_path / "run", data__path=videos, data__test_path=tmp_path / "broken", total_steps=1
    )
    assert "none of its clips can be read" in printed
    assert VideoMAEForPreTraining.from_pretrained(tmp_path / "run")


@pytest.mark.full
def test_paths_may_have_spaces(videos, tmp_path):
    config = tmp_path / "my recipes" / "my quick.py"
    config.parent.mkdir()
    shutil.copy(ROOT / "configs" / "quickstart.py", config)
    words = command("quickstart.py", tmp_path / "a run", data__path=videos, data__val_path=videos, total_steps=1)
    words[words.index("configs/quickstart.py")] = str(config)
    subprocess.run(words, cwd=ROOT, check=True)
    assert VideoMAEForPreTraining.from_pretrained(tmp_path / "a run")


def test_a_workdir_of_another_model_is_refused(videos, tmp_path):
    train_here("quickstart.py", tmp_path, data__path=videos, total_steps=2)
    message = fail("quickstart.py", tmp_path, data__path=videos, total_steps=2, model__image_size=48)
    assert "belongs to another run: model.image_size is [32] there and [48] here" in message


@pytest.mark.parametrize(
    ("keys", "words", "wanted"),
    [
        (dict(data__path="nowhere.csv"), [], "config.data.path: data path 'nowhere.csv' does not exist"),
        (dict(data__path="nowhere.csv"), [], "python train.py --config configs/quickstart.py"),
        (dict(data__val_path="nowhere"), [], "config.data.val_path: data path 'nowhere' does not exist"),
        (dict(mask__ratio=1.0), [], "hides int(ratio * 256) of 256 places of a frame"),
        (dict(mask__kind="tubes"), [], "mask kind must be one of tube, random, frame, running_cell, got 'tubes'"),
        (dict(model__image_size=33), [], "image height 33 is not divisible by the patch's 2"),
        (dict(model__num_frames=7), [], "num_frames 7 is not divisible by the patch's"),
        (dict(optim__accumulation=3), [], "data.batch_size=4 does not divide over 1 devices"),
        (dict(mesh__fsdp=3), [], "does not fit 1 devices"),
        (dict(data__strid=2), [], "unknown config key 'strid'. Did you mean \"stride\""),
        (dict(compute_dtype="fp16"), [], "compute_dtype must be 'auto', 'float32' or 'bfloat16', got 'fp16'"),
        (dict(init_from="nowhere"), [], "init_from=nowhere: nowhere does not exist."),
        (dict(mesh="{'dat': 1}"), [], "this is a section of the config; set its keys one by one"),
        ({}, ["--config.data.flip", "False"], "unexpected words on the command line: False"),
        (dict(mask="tube"), [], "this is a section of the config; set its keys one by one"),
        (dict(modl__image_size=32), [], "unknown config key 'modl'. Did you mean \"model\"?"),
        (dict(total_epochs=0.0), [], "config.total_epochs must be positive, got 0.0"),
        (dict(remat="some"), [], "config.remat must be one of none, dots, full, got 'some'"),
        ({}, ["extra"], "unexpected words on the command line: extra"),
    ],
)
def test_bad_input_is_one_clear_message_before_the_first_step(videos, tmp_path, keys, words, wanted):
    assert wanted in fail("quickstart.py", tmp_path / "run", *words, **({"data__path": videos} | keys))


def test_an_unknown_option_of_a_config_lists_the_known_ones(tmp_path):
    message = fail("k400_pretrain.py:sise=base", tmp_path)
    assert "'sise=base' is not an option of this config. Options: size=base|small|large" in message


def test_a_config_file_that_is_not_there_is_named(tmp_path):
    assert "config file configs/nope.py does not exist" in fail("nope.py", tmp_path)


def test_a_workdir_in_an_object_store_is_refused():
    message = fail("quickstart.py", "gs://bucket/run")
    assert "workdir gs://bucket/run is in an object store" in message and "a folder, such as one" in message


def test_kinetics_without_kinetics_says_what_to_do(tmp_path):
    message = fail("k400_pretrain.py", tmp_path)
    assert "data path 'data/k400/train.csv' does not exist" in message
    assert "--config.data.path=PATH" in message
    assert "python train.py --config configs/quickstart.py" in message


def test_neighbours_vote_during_pretraining(videos, tmp_path):
    train_here("quickstart.py", tmp_path, data__path=videos, data__val_path=videos, total_steps=1, eval__knn_videos=6)
    share = read_metrics(tmp_path)[-1]["val_knn_top1"] / 100
    assert 0 <= share <= 1
    assert share * 6 == pytest.approx(round(share * 6))  # of six videos


def test_a_broken_video_does_not_vote_and_costs_no_run(videos, tmp_path):
    shutil.copytree(videos, tmp_path / "videos")
    next((tmp_path / "videos" / "left").iterdir()).write_text("no video")
    keys = dict(data__path=tmp_path / "videos" / "train.csv", data__max_broken_share=0.5, eval__knn_videos=8)
    train_here("quickstart.py", tmp_path / "run", data__val_path=videos, total_steps=1, **keys)
    assert "val_knn_top1" in read_metrics(tmp_path / "run")[-1]
    lines = ["path", *(str(path) for path in files(videos))]
    (tmp_path / "unlabelled.csv").write_text("\n".join(lines))
    message = fail("quickstart.py", tmp_path / "other", **keys, data__val_path=tmp_path / "unlabelled.csv")
    assert "data.val_path: none of the 8 videos" in message


def test_neighbours_without_validation_videos_are_an_error(videos, tmp_path):
    message = fail("quickstart.py", tmp_path, data__path=videos, data__val_path="", eval__knn_videos=6)
    assert "config.eval.knn_videos=6: neighbours vote for the classes of data.val_path" in message
