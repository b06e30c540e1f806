import json
import struct
import threading
import time

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from videomae_jax.training.metrics import Clock, MetricsLog, read_metrics
from videomae_jax.training.progress import measured_line, progress_line


def write(workdir, restored_step, steps):
    log = MetricsLog(workdir, restored_step)
    for step in steps:
        log.write(step, {"loss": step / 2})
    log.close()


def test_one_object_a_line_flushed_at_once(tmp_path):
    log = MetricsLog(tmp_path, 0)
    log.write(5, {"loss": 0.25, "learning_rate": 1e-3})
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 5, "loss": 0.25, "learning_rate": 1e-3}
    log.close()


def test_a_continued_run_is_cut_back_to_its_checkpoint(tmp_path):
    write(tmp_path, 0, [10, 20, 30])
    write(tmp_path, 20, [30, 40])
    assert read_metrics(tmp_path) == [{"step": step, "loss": step / 2} for step in (10, 20, 30, 40)]


def test_a_line_cut_off_by_a_kill_is_dropped(tmp_path):
    write(tmp_path, 0, [10, 20])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 30, "lo')
    assert [row["step"] for row in read_metrics(tmp_path)] == [10, 20]
    write(tmp_path, 20, [30])
    assert [row["step"] for row in read_metrics(tmp_path)] == [10, 20, 30]


def test_lines_after_one_that_a_dying_machine_spoilt_are_dropped(tmp_path):
    write(tmp_path, 0, [10, 20])
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b"\0\0\xff\n" + b'{"step": 40, "loss": 1.0}\n')
    assert [row["step"] for row in read_metrics(tmp_path)] == [10, 20]


def test_what_is_not_finite_is_null(tmp_path):
    log = MetricsLog(tmp_path, 0)
    log.write(5, {"loss": float("nan"), "grad_norm": float("inf"), "skipped_steps": 5})
    log.close()
    assert read_metrics(tmp_path) == [{"step": 5, "loss": None, "grad_norm": None, "skipped_steps": 5}]


def test_tensorboard_gets_the_same_numbers_at_once(tmp_path):
    threads = threading.active_count()
    log = MetricsLog(tmp_path, 6)
    log.write(10, {"loss": 5.0, "accuracy": 0.75})
    log.picture(10, "clips", np.zeros((4, 6, 3), np.uint8))
    assert threading.active_count() == threads, "a thread's queue that Ctrl-C interrupts can hang the run's end"
    (file,) = tmp_path.glob("events.out.tfevents.*")
    version, start, numbers, picture = events_of(file)
    log.close()
    assert version.file_version == "brain.Event:2"
    assert start.step == 7 and start.session_log.status == SessionLog.START  # hides what a lost future wrote
    assert numbers.step == 10
    assert {value.tag: value.simple_value for value in numbers.summary.value} == {"loss": 5.0, "accuracy": 0.75}
    assert picture.step == 10 and picture.summary.value[0].tag == "clips"
    assert (picture.summary.value[0].image.height, picture.summary.value[0].image.width) == (4, 6)
    assert start.wall_time <= numbers.wall_time <= time.time()


def events_of(file):
    """The records of an events file: its length, a checksum of that, the event, a checksum of it."""
    content = file.read_bytes()
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        yield Event.FromString(content[12 : 12 + length])
        content = content[16 + length :]


def test_progress_line_says_where_the_run_is():
    row = dict(loss=0.5, relative_loss=0.75, learning_rate=1e-3, clips_per_second=12.3, step_ms=1000.0)
    line = progress_line(40, 4000, row | {"data_wait_fraction": 0.031})
    assert line == (
        "step   40/4000  loss 0.5000  relative 0.750  lr 1.00e-03  12.3 clips/s  data wait 3%  left 1:06:00"
    )
    assert "12.3 clips/s  MFU 41.2%  data" in progress_line(40, 4000, row | {"data_wait_fraction": 0.0, "mfu": 0.412})


def test_what_was_measured_is_a_line_with_whole_counts():
    assert measured_line({"val_top1": 61.66666, "val_num_videos": 180}) == "val_top1 61.6667  val_num_videos 180"


def test_mfu_is_the_share_of_the_clips_that_products_alone_would_allow():
    clock = Clock()
    for _ in range(3):
        clock.got_batch(asked=time.perf_counter())
    assert "mfu" not in clock.rates(clips=8, peak_clips=None)
    rates = clock.rates(clips=8, peak_clips=1e6)
    assert rates["mfu"] == rates["clips_per_second"] / 1e6
    assert rates["step_ms"] * rates["clips_per_second"] == pytest.approx(8000)
