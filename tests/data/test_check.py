import csv
import multiprocessing
import os
import re
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest

from videomae_jax.data import check as checking
from videomae_jax.data.check import CRASHED, Checked, check, check_video, main, report
from videomae_jax.data.frames import Frames
from videomae_jax.data.sources import VideoSource
from videomae_jax.data.video import write_video


class KillingSource(VideoSource):
    """Its videos 2 and 4 end the process that opens them, as a decoder does that reads where it must not."""

    def open(self, index: int) -> tuple[Frames, int]:
        if index in (2, 4):
            os.kill(os.getpid(), signal.SIGSEGV if index == 2 else signal.SIGKILL)
        return super().open(index)


class UnpickledNowhere(VideoSource):
    """No other process can be started with it."""

    def __reduce__(self):
        return os._exit, (3,)


def write_clip(path: Path, num_frames: int, fps: float = 25, height: int = 32, width: int = 48) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = np.random.default_rng(0).integers(0, 256, (num_frames, height, width, 3)).astype(np.uint8)
    write_video(path, frames, fps=fps)


def cut_off(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Class a: 50 frames, 70 frames upended, cut off. Class b: a folder of pictures, a text."""
    folder = tmp_path / "videos"
    write_clip(folder / "a" / "1.mp4", 50)
    write_clip(folder / "a" / "2.mp4", 70, fps=10, height=64, width=32)
    write_clip(folder / "a" / "3.mkv", 40)
    cut_off(folder / "a" / "3.mkv")
    (folder / "b" / "pictures").mkdir(parents=True)
    for number in range(3):
        cv2.imwrite(str(folder / "b" / "pictures" / f"img_{number}.png"), np.zeros((32, 48, 3), np.uint8))
    (folder / "b" / "text.mp4").write_text("no video")
    return folder


def read_rows(file: Path) -> dict[str, dict[str, str]]:
    with open(file, newline="") as lines:
        return {Path(row["path"]).name: row for row in csv.DictReader(lines)}


def test_files_of_a_list_that_are_not_there_are_broken(tmp_path, folder, capsys):
    (tmp_path / "list.csv").write_text("path,label\nvideos/a/1.mp4,a\nvideos/gone.mp4,a\nvideos/gone too.mp4,b\n")
    assert main([str(tmp_path / "list.csv"), "--workers", "1"]) == 1
    out, errors = capsys.readouterr()
    assert re.match(r"warning: .*list\.csv: 2 of 3 files do not exist", errors)
    assert "broken: 2\n" in out and "gone.mp4: " in out and "gone too.mp4: " in out


def test_the_command_tells_what_there_is(tmp_path, folder, capsys):
    assert main([str(folder), "--workers", "2", "--out", str(tmp_path / "out.csv")]) == 1
    out = capsys.readouterr().out
    assert f"5 videos of {folder}, 2 classes" in out
    assert "videos a class:       2 to 3, median 2.5" in out
    assert "classes without any" not in out
    assert "broken: 1\n" in out and "text.mp4: InvalidDataError" in out
    assert "damaged, but readable: 1\n" in out and "3.mkv is cut off" in out
    assert "shorter than 16 frames at stride 4: 3\n" in out and "1.mp4: 50 frames" in out
    assert "32x48 (3), 64x32 (1)" in out
    assert "25 (2), 10 (1)" in out
    rows = read_rows(tmp_path / "out.csv")
    assert list(rows) == ["1.mp4", "2.mp4", "3.mkv", "pictures", "text.mp4"]
    assert rows["1.mp4"] == {
        "path": str(folder / "a" / "1.mp4"),
        "label": "a",
        "frames": "50",
        "seconds": "2.0",
        "fps": "25.0",
        "height": "32",
        "width": "48",
        "problem": "",
    }
    assert (rows["2.mp4"]["seconds"], rows["2.mp4"]["height"], rows["2.mp4"]["width"]) == ("7.0", "64", "32")
    assert 5 < int(rows["3.mkv"]["frames"]) < 40 and "cut off" in rows["3.mkv"]["problem"]
    assert (rows["pictures"]["label"], rows["pictures"]["frames"], rows["pictures"]["seconds"]) == ("b", "3", "")
    assert rows["text.mp4"]["frames"] == "" and rows["text.mp4"]["problem"]


def test_status_is_zero_when_all_are_readable(tmp_path, capsys):
    write_clip(tmp_path / "1.mp4", 20)
    assert main([str(tmp_path), "--num-frames", "5", "--stride", "4"]) == 0
    out = capsys.readouterr().out
    assert "1 videos of" in out and "0 classes" in out and "videos a class" not in out
    assert "shorter than 5 frames at stride 4: 0" in out and "broken: 0" in out
    assert main([str(tmp_path), "--num-frames", "7", "--stride", "3"]) == 0
    assert "shorter than 7 frames at stride 3: 1" in capsys.readouterr().out


def test_a_process_that_dies_costs_its_video_alone(sound_source):
    source = KillingSource("killing", sound_source.paths, sound_source.labels, sound_source.class_names)
    found = dict(check(source, workers=2))
    assert sorted(found) == list(range(7))
    for index, checked in found.items():
        assert checked.path == source.paths[index]
        assert checked.label == "abc"[index % 3]
        assert (checked.problem, checked.is_broken) == ((CRASHED, True) if index in (2, 4) else ("", False))
        assert checked.frames == (None if index in (2, 4) else 24)
    assert not multiprocessing.active_children()


@pytest.mark.full
def test_processes_that_do_not_start_are_no_fault_of_the_videos(sound_source):
    source = UnpickledNowhere("bad", sound_source.paths, sound_source.labels, sound_source.class_names)
    with pytest.raises(RuntimeError, match="do not start, exit code 3"):
        list(check(source, workers=2))
    assert not multiprocessing.active_children()


def test_rows_are_in_the_order_of_the_source(tmp_path, folder, monkeypatch):
    found = [(index, Checked(str(index), "", 1)) for index in (3, 0, 2, 1)]
    monkeypatch.setattr(checking, "check", lambda source, workers: (pair for pair in found))
    assert main([str(folder), "--out", str(tmp_path / "out.csv")]) == 0
    assert list(read_rows(tmp_path / "out.csv")) == ["0", "1", "2", "3"]


def test_ctrl_c_keeps_what_was_found(tmp_path, folder, monkeypatch, capsys):
    def interrupt(found, total):
        if len(found) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(checking, "_show_progress", interrupt)
    assert main([str(folder), "--workers", "1", "--out", str(tmp_path / "out.csv")]) == 130
    assert list(read_rows(tmp_path / "out.csv")) == ["1.mp4", "2.mp4"]
    captured = capsys.readouterr()
    assert "interrupted after 2 of 5 videos" in captured.err and not captured.out
    assert not multiprocessing.active_children()


def test_frames_that_do_not_decode_are_found(tmp_path):
    path = tmp_path / "a.mp4"
    write_clip(path, 30)
    data = bytearray(path.read_bytes())
    middle = data.index(b"mdat") + len(data) // 2
    data[middle : middle + 3000] = b"\xff" * 3000
    path.write_bytes(data)
    checked = check_video(VideoSource("one", (str(path),), np.array([-1], np.int32), ()), 0)
    assert checked.is_broken and checked.problem
    assert (checked.frames, checked.label) == (30, "")


def test_what_nobody_foresaw_is_the_videos_problem(sound_source, monkeypatch):
    monkeypatch.setattr(VideoSource, "open", lambda self, index: 1 / 0)
    checked = check_video(sound_source, 0)
    assert checked.is_broken and checked.problem == "ZeroDivisionError: division by zero"


def test_report_names_empty_classes_and_cuts_long_lists():
    source = VideoSource("many", tuple(map(str, range(30))), np.zeros(30, np.int32), ("a", "b", "c"))
    found = [Checked(str(n), "a", 99, 3600.0, n + 1.0, 10 + n, 20, "it is cut off") for n in range(30)]
    lines = "\n".join(report(source, found, 16, 4))
    assert "videos a class:       0 to 30, median 0" in lines
    assert "classes without any:  2: b, c" in lines
    assert "3600.00 to 3600.00, median 3600.00; 30.00 hours in all" in lines
    assert "10x20 (1), 11x20 (1), 12x20 (1), 13x20 (1), 14x20 (1) and 25 more" in lines
    assert "damaged, but readable: 30\n    0: it is cut off" in lines
    assert "    19: it is cut off\n    and 10 more; --out FILE.csv gets all" in lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{0}/none"], "none' does not exist"),
        (["{0}", "--workers", "0"], "--workers: must be a whole number from 1 on, got '0'"),
        (["{0}", "--stride", "two"], "--stride: must be"),
        (["{0}", "--out", "{0}/none/out.csv"], "none/out.csv"),
        ([], "SOURCE"),
    ],
)
def test_wrong_arguments_are_one_line(tmp_path, capsys, arguments, message):
    write_clip(tmp_path / "1.mp4", 2)
    with pytest.raises(SystemExit) as caught:
        main([argument.format(tmp_path) for argument in arguments])
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_short_is_by_the_strides_of_the_source():
    strides = np.array([0, 2, 4], np.int32)
    source = VideoSource("three", ("a", "b", "c"), np.full(3, -1, np.int32), (), strides)
    found = [Checked(path, "", frames=32, seconds=1.0, fps=32.0, height=8, width=8) for path in "abc"]
    lines = report(source, found, num_frames=16, stride=2)
    where = next(number for number, line in enumerate(lines) if "shorter" in line)
    assert lines[where] == "  shorter than 16 frames at stride 2 or the source's own: 1" and "c: " in lines[where + 1]
