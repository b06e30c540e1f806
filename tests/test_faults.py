"""What train.py does when something around it fails."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys

import psutil
import pytest
from train_command import ROOT, command, kill_at, losses, train, train_here

from videomae_jax.training.metrics import read_metrics

pytestmark = pytest.mark.usefixtures("builtin_clips")

LONG = dict(data__val_path="", total_steps=1000, checkpoint_steps=1000)


def start(words):
    return subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for_step(process, number):
    for line in process.stdout:
        if match := re.match(r"step +(\d+)/", line):
            if int(match[1]) >= number:
                return
    raise AssertionError(process.stderr.read())


def test_a_run_that_is_told_to_end_saves_itself_and_goes_on(videos, tmp_path):
    run = dict(data__path=videos, data__val_path="", total_steps=6, checkpoint_steps=1000)
    train("quickstart.py", tmp_path / "whole", **run)
    with start(command("quickstart.py", tmp_path / "ended", data__workers=1, **run)) as process:
        wait_for_step(process, 2)
        os.killpg(process.pid, signal.SIGTERM)  # as service managers do, which know no workers
        _, errors = process.communicate()
    assert process.returncode == 75, errors
    # What the worker was just handing over, Python may clean up and warn of after that.
    told = re.match(r"told to end; saved up to step (\d) of 6; the same command goes on from there\n", errors)
    assert told, errors
    saved = int(told[1])
    assert (tmp_path / "ended" / "checkpoints" / str(saved)).is_dir()
    assert f"continuing from step {saved}" in train("quickstart.py", tmp_path / "ended", **run)
    assert losses(tmp_path / "ended") == losses(tmp_path / "whole")


def test_a_damaged_checkpoint_and_a_spoilt_log_cost_no_more_than_the_steps_since_the_one_before(videos, tmp_path):
    run = dict(data__path=videos, data__val_path="", total_steps=6, checkpoint_steps=1)
    train("quickstart.py", tmp_path / "whole", **run)
    kill_at("step 4/6", command("quickstart.py", tmp_path / "damaged", **run))
    checkpoints = tmp_path / "damaged" / "checkpoints"
    # Two are kept; a third one may be there where the kill came before the oldest was removed.
    *_, before, newest = sorted(int(folder.name) for folder in checkpoints.iterdir() if folder.name.isdigit())
    for file in (checkpoints / str(newest)).rglob("*"):
        if file.is_file():
            os.truncate(file, file.stat().st_size // 2)
    log = tmp_path / "damaged" / "metrics.jsonl"
    os.truncate(log, log.stat().st_size - 20)
    printed = train("quickstart.py", tmp_path / "damaged", **run)
    assert f"the checkpoint of step {newest} is damaged and now {checkpoints}/damaged-{newest}: " in printed
    assert f"continuing from step {before}" in printed
    assert losses(tmp_path / "damaged") == losses(tmp_path / "whole")
    models = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("damaged", "whole")]
    assert models[0] == models[1]


def test_a_video_that_is_removed_on_the_way_is_replaced_and_listed(videos, tmp_path):
    shutil.copytree(videos, tmp_path / "videos")
    removed = min((tmp_path / "videos").glob("*/*.mp4"))
    run = dict(data__path=tmp_path / "videos" / "train.csv", data__val_path="", total_steps=6, checkpoint_steps=2)
    run |= dict(data__max_broken_share=0.2)
    kill_at("step 3/6", command("quickstart.py", tmp_path / "run", **run))
    removed.unlink()
    train_here("quickstart.py", tmp_path / "run", **run)
    assert read_metrics(tmp_path / "run")[-1]["step"] == 6
    with (tmp_path / "run" / "broken_videos.csv").open(newline="") as file:
        assert {row["path"] for row in csv.DictReader(file)} == {str(removed)}


@pytest.mark.full
def test_a_second_run_in_one_workdir_is_refused(videos, tmp_path):
    run = dict(data__path=videos, **LONG)
    with start(command("quickstart.py", tmp_path, **run)) as process:
        wait_for_step(process, 1)
        second = subprocess.run(command("quickstart.py", tmp_path, **run), cwd=ROOT, capture_output=True, text=True)
        process.kill()
    assert second.returncode == 1
    assert f"workdir {tmp_path} is in use by another run (process {process.pid} on " in second.stderr


def test_a_loss_that_is_not_finite_ends_the_run_with_a_diagnosis_and_keeps_the_last_checkpoint(videos, tmp_path):
    keys = dict(data__path=videos, max_skipped_steps=3, optim__clip_norm=1.0)
    # From step 2 on weights of 1e30 are a loss of infinity.
    run = LONG | keys | dict(optim__base_lr=1e32, optim__min_lr=1e32, optim__warmup_epochs=0, checkpoint_steps=1)
    run["total_steps"] = 4  # what the last steps came to is looked at when they are over
    ended = subprocess.run(command("quickstart.py", tmp_path, **run), cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert (
        "3 steps in a row had no finite loss or gradient and were skipped, max_skipped_steps. At step " in ended.stderr
    )
    assert re.search(
        r"the loss is (nan|inf); the gradient is not finite in \d+ of \d+ parameters, such as", ended.stderr
    )
    rows = read_metrics(tmp_path)
    assert rows[-1]["skipped_steps"] == 1 and rows[-1]["loss"] is None
    good = max(row["step"] for row in rows if not row["skipped_steps"])
    (last,) = re.findall(r"The last checkpoint is of step (\d+)", ended.stderr)
    assert int(last) <= good
    assert max(int(folder.name) for folder in (tmp_path / "checkpoints").iterdir()) == int(last)


WITH_LITTLE_PATIENCE = """
import runpy, sys
from videomae_jax.data import pipeline

pipeline.PATIENCE = 1.0
sys.argv = sys.argv[1:]
runpy.run_path("train.py", run_name="__main__")
"""


@pytest.mark.full
def test_a_storage_that_hangs_ends_the_run_by_name(videos, tmp_path):
    shutil.copytree(videos, tmp_path / "videos")
    for video in (tmp_path / "videos").glob("*/*.mp4"):
        video.unlink()
        os.mkfifo(video)  # to open it waits for somebody who writes
    words = command("quickstart.py", tmp_path / "run", data__path=tmp_path / "videos" / "train.csv", **LONG)[1:]
    ended = subprocess.run(
        [sys.executable, "-c", WITH_LITTLE_PATIENCE, *words], cwd=ROOT, capture_output=True, text=True
    )
    assert ended.returncode == 1
    assert f"error: No batch came from the videos of {tmp_path}/videos/train.csv for 2 s. The same" in ended.stderr


@pytest.mark.full
def test_a_worker_that_dies_ends_the_run_by_name(videos, tmp_path):
    run = dict(data__path=videos, data__workers=2, **LONG)
    with start(command("quickstart.py", tmp_path, **run)) as process:
        wait_for_step(process, 1)
        workers = [
            child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline())
        ]
        workers[0].kill()
        _, errors = process.communicate()
    assert process.returncode == 1
    assert "a process that decodes videos ended" in errors and "Traceback" not in errors, errors


def test_a_full_disk_ends_the_run_by_name(videos, tmp_path):
    # A limit on the size of files stands for the disk.
    words = command("quickstart.py", tmp_path, data__path=videos, **LONG | dict(checkpoint_steps=2))
    limited = ["bash", "-c", 'ulimit -f 100; exec "$@"', "bash", *words]
    ended = subprocess.run(limited, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1
    # The libraries say more before that.
    assert f"train.py: error: A checkpoint cannot be written to {tmp_path}/checkpoints: " in ended.stderr
