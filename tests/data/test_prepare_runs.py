"""Runs of `prepare`: interrupted, with broken videos, two at once, on Beam."""

import csv
import importlib.util
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest

from videomae_jax.data import prepare as prepare_module
from videomae_jax.data import shards
from videomae_jax.data.check import main as check_main
from videomae_jax.data.prepare import main, prepare
from videomae_jax.data.shards import Options, write_shard
from videomae_jax.data.sources import VideoSource, open_source
from videomae_jax.data.video import write_video

NUM_VIDEOS = 12
OPTIONS = Options("jpeg", 24, 90, None, None, 4, 2)
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Two class folders of six videos each, of different lengths."""
    folder = tmp_path_factory.mktemp("videos")
    rng = np.random.default_rng(0)
    for v in range(NUM_VIDEOS):
        path = folder / "ab"[v % 2] / f"{v}.mp4"
        path.parent.mkdir(exist_ok=True)
        write_video(path, rng.integers(0, 256, (3 + v, 32, 48, 3)).astype(np.uint8), fps=25)
    return folder


def words(folder, videos, *more):
    sizes = ["--short-side", "24", "--frames-per-record", "4", "--videos-per-shard", "2"]
    return ["--out", str(folder), "--train", str(videos), "--val", str(videos / "a"), *sizes, *more]


@pytest.fixture(scope="module")
def undisturbed(videos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "small"
    main(words(folder, videos, "--workers", "0"))
    return folder


def content(folder):
    """All files of a data set, and of what a run leaves beside it, by name."""
    files = [file for file in Path(folder).rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def error_of(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert caught.value.code == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    return error


def test_a_run_leaves_no_other_files(undisturbed):
    files = [f"small-train.array_record-{n:05d}-of-00006" for n in range(6)]
    files += [f"small-val.array_record-{n:05d}-of-00003" for n in range(3)]
    reports = [f"prepare/train-{n:05d}.json" for n in range(6)] + [f"prepare/val-{n:05d}.json" for n in range(3)]
    metadata = ["dataset_info.json", "features.json", "label.labels.txt", "metadata.json", "broken_videos.csv"]
    assert set(content(undisturbed)) == {*files, *reports, *metadata, "prepare/options.json", "prepare/lock"}


def test_shards_mix_the_classes(undisturbed):
    labels = open_source(f"{undisturbed}:train").labels.tolist()
    assert labels != sorted(labels)


@pytest.mark.parametrize("workers", [pytest.param("1", marks=pytest.mark.full), "3"])
def test_processes_write_the_same_bytes(undisturbed, videos, tmp_path, workers):
    main(words(tmp_path / "small", videos, "--workers", workers))
    assert content(tmp_path / "small") == content(undisturbed)


def start(folder, videos):
    command = [sys.executable, "-m", "videomae_jax.data.prepare", *words(folder, videos, "--workers", "1")]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_run_killed_twice_ends_with_the_same_data_set(undisturbed, videos, tmp_path):
    folder = tmp_path / "small"
    kept = {}
    for reports in (1, 4):
        run = start(folder, videos)
        until = time.monotonic() + 60
        while len(list(folder.glob("prepare/*-0*.json"))) < reports:
            assert run.poll() is None and time.monotonic() < until, run.communicate()[0]
            time.sleep(0.001)
        run.send_signal(signal.SIGKILL)
        run.communicate()
        assert run.returncode == -signal.SIGKILL and not (folder / "dataset_info.json").exists()
        finished = [file.stem for file in folder.glob("prepare/*-0*.json")]
        for file in folder.glob("*array_record*"):  # none is half written
            assert file.read_bytes() == (undisturbed / file.name).read_bytes()
        kept |= {file: file.stat().st_mtime_ns for file in folder.glob("prepare/*-0*.json")}
        assert reports <= len(finished) < 9
    (folder / "prepare" / "left behind.tmp").write_text("half")
    run = start(folder, videos)
    assert run.wait(60) == 0, run.communicate()[0]
    assert content(folder) == content(undisturbed)
    assert {file: file.stat().st_mtime_ns for file in kept} == kept


@pytest.mark.full
def test_workers_end_with_the_run(videos, tmp_path):
    run = start(tmp_path / "small", videos)
    until = time.monotonic() + 60
    while not (children := psutil.Process(run.pid).children()) or not list(tmp_path.glob("small/prepare/*-0*.json")):
        assert run.poll() is None and time.monotonic() < until
        time.sleep(0.001)
    run.kill()
    run.communicate()
    gone, alive = psutil.wait_procs(children, timeout=20)
    assert gone and not alive


def test_a_finished_run_does_nothing(undisturbed, videos, capsys):
    before = {file: file.stat().st_mtime_ns for file in undisturbed.glob("*")}
    main(words(undisturbed, videos, "--workers", "0"))
    assert capsys.readouterr().out == f"{undisturbed} is finished.\n"
    assert {file: file.stat().st_mtime_ns for file in undisturbed.glob("*")} == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--quality", "80"], "quality was 90, now 80; give the same, or another --out"),
        (["--codec", "h264"], "codec was jpeg, now h264; quality was 90, now 18;"),
        (["--name", "other"], "name was small, now other"),
        (["--test", "VIDEOS/b"], "test was None, now 6 videos "),
        (["--train", "VIDEOS/b"], "train was 12 videos .*, now 6 videos .*; classes was "),
    ],
)
def test_changed_options_are_refused(undisturbed, videos, capsys, change, message):
    change = [word.replace("VIDEOS", str(videos)) for word in change]
    before = content(undisturbed)
    if change[0] == "--train":
        change += ["--val", str(videos / "b")]
    error = error_of(capsys, *words(undisturbed, videos, "--workers", "0"), *change)
    assert re.search(f"was begun otherwise: .*{message}", error), error
    assert content(undisturbed) == before


def test_the_videos_may_move(undisturbed, videos, tmp_path, capsys):
    shutil.copytree(videos, tmp_path / "moved")
    main(words(undisturbed, tmp_path / "moved", "--workers", "0"))
    assert "is finished" in capsys.readouterr().out
    main(words(tmp_path / "small", tmp_path / "moved", "--workers", "0"))
    assert content(tmp_path / "small") == content(undisturbed)


def test_a_folder_with_other_files_is_refused(videos, tmp_path, capsys):
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "thesis.tex").touch()
    assert "is not empty: it has thesis.tex; give another --out" in error_of(capsys, *words(tmp_path / "small", videos))


def test_two_runs_at_once_are_refused(videos, tmp_path, capsys):
    folder = tmp_path / "small"
    run = start(folder, videos)
    until = time.monotonic() + 60
    while not (folder / "prepare" / "options.json").exists():
        assert run.poll() is None and time.monotonic() < until
        time.sleep(0.001)
    run.send_signal(signal.SIGSTOP)
    try:
        assert "is being written by another run" in error_of(capsys, *words(folder, videos, "--workers", "0"))
    finally:
        run.send_signal(signal.SIGCONT)
    assert run.wait(60) == 0


def broken_rows(folder):
    with open(folder / "broken_videos.csv", newline="") as file:
        return list(csv.reader(file))


def test_broken_videos_are_listed_and_left_out(videos, tmp_path):
    shutil.copytree(videos, tmp_path / "in")
    (tmp_path / "in/a/0.mp4").write_text("no video")
    garbled = tmp_path / "in/b/11.mp4"  # breaks after some frames were stored
    data = bytearray(garbled.read_bytes())
    start = data.index(b"mdat") + len(data) // 2
    data[start : start + 4000] = b"\xff" * 4000
    garbled.write_bytes(data)
    words_ = ["--frames-per-record", "2", "--videos-per-shard", "2", "--workers", "0", "--max-broken-share", "0.2"]
    main(["--out", str(tmp_path / "out"), "--train", str(tmp_path / "in"), *words_])
    header, *rows = broken_rows(tmp_path / "out")
    assert header == ["split", "path", "reason"]
    assert {(split, path) for split, path, _ in rows} == {
        ("train", str(tmp_path / "in/a/0.mp4")),
        ("train", str(garbled)),
    }
    assert all(reason for _, _, reason in rows)
    source = open_source(str(tmp_path / "out"))
    assert len(source) == NUM_VIDEOS - 2 and not {"a/0.mp4", "b/11.mp4"} & set(source.ids)
    for index in range(len(source)):
        video, _ = source.open(index)
        assert len(list(video.frames())) == video.num_frames == 3 + int(Path(source.ids[index]).stem)


def test_too_many_broken_videos_are_an_error_that_keeps_the_rest(videos, tmp_path, capsys):
    shutil.copytree(videos, tmp_path / "in")
    (tmp_path / "in/a/0.mp4").write_text("no video")
    arguments = words(tmp_path / "out", tmp_path / "in", "--workers", "0")
    error = error_of(capsys, *arguments)
    assert "2 of 18 videos are broken, the first is" in error and "or raise --max-broken-share" in error
    assert len(broken_rows(tmp_path / "out")) == 3 and not (tmp_path / "out/dataset_info.json").exists()
    written = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("*array_record*")}
    main([*arguments, "--max-broken-share", "0.12"])
    assert {file: file.stat().st_mtime_ns for file in written} == written
    assert len(open_source(f"{tmp_path / 'out'}:val")) == 5


def test_mended_videos_are_read_again(undisturbed, videos, tmp_path, capsys):
    shutil.copytree(videos, tmp_path / "in")
    (tmp_path / "in/a/0.mp4").write_text("no video")
    arguments = words(tmp_path / "small", tmp_path / "in", "--workers", "0")
    error_of(capsys, *arguments)
    reports = {file: file.stat().st_mtime_ns for file in (tmp_path / "small/prepare").glob("*-0*.json")}
    shutil.copy(videos / "a/0.mp4", tmp_path / "in/a/0.mp4")
    main(arguments)
    assert content(tmp_path / "small") == content(undisturbed)
    assert sum(file.stat().st_mtime_ns != written for file, written in reports.items()) == 2


def test_a_file_written_anew_and_its_old_report_never_meet(videos, tmp_path, capsys, monkeypatch):
    shutil.copytree(videos, tmp_path / "in")
    (tmp_path / "in/a/0.mp4").write_text("no video")
    arguments = words(tmp_path / "small", tmp_path / "in", "--workers", "0")
    error_of(capsys, *arguments)
    shutil.copy(videos / "a/0.mp4", tmp_path / "in/a/0.mp4")

    write = shards.write_atomically

    def killed_before_a_report(file, content):
        if file.name.startswith(("train-", "val-")):
            raise KeyboardInterrupt
        write(file, content)

    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="130"):
        patch.setattr(shards, "write_atomically", killed_before_a_report)
        main(arguments)
    main([*arguments, "--max-broken-share", "0.5"])
    source = open_source(f"{tmp_path / 'small'}:train")
    for index in range(len(source)):
        video, _ = source.open(index)
        assert len(list(video.frames())) == video.num_frames


def test_nothing_but_broken_videos_is_an_error(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for v in range(3):
        (tmp_path / f"in/{v}.mp4").write_text("no video")
    words_ = ["--max-broken-share", "1", "--workers", "0"]
    error = error_of(capsys, "--out", str(tmp_path / "out"), "--val", str(tmp_path / "in"), *words_)
    assert "3 of 3 videos are broken" in error


def test_a_shard_of_broken_videos_is_no_trouble(videos, tmp_path):
    shutil.copytree(videos, tmp_path / "in")
    for v in range(2, 12, 2):
        (tmp_path / f"in/a/{v}.mp4").write_text("no video")
    words_ = ["--videos-per-shard", "1", "--workers", "0", "--max-broken-share", "0.9"]
    main(["--out", str(tmp_path / "out"), "--train", str(tmp_path / "in"), *words_])
    source = open_source(str(tmp_path / "out"))
    assert sorted(source.ids) == sorted(["a/0.mp4", *(f"b/{v}.mp4" for v in range(1, 12, 2))])
    for index in range(len(source)):
        video, label = source.open(index)
        assert len(list(video.frames())) == video.num_frames
        assert source.class_names[label] == source.ids[index][0]


def test_whatever_one_video_does_is_its_own_trouble(videos, tmp_path, monkeypatch):
    encode = shards.encode_jpeg
    monkeypatch.setattr(
        shards, "encode_jpeg", lambda frame, quality: {}["x"] if len(frame) == 10 else encode(frame, quality)
    )
    shutil.copytree(videos, tmp_path / "in")
    for name, sizes in (("odd", [(10, 12), (10, 12)]), ("changing", [(20, 20), (20, 20), (20, 24)])):
        (tmp_path / "in/a" / name).mkdir()
        for number, (height, width) in enumerate(sizes):
            cv2.imwrite(str(tmp_path / "in/a" / name / f"{number}.png"), np.zeros((height, width, 3), np.uint8))
    prepare(tmp_path / "out", {"train": str(tmp_path / "in")}, OPTIONS, workers=0, max_broken_share=0.5)
    reasons = {Path(path).name: reason for _, path, reason in broken_rows(tmp_path / "out")[1:]}
    assert reasons == {"odd": "KeyError: 'x'", "changing": "its frames change size on the way"}
    assert len(open_source(str(tmp_path / "out"))) == NUM_VIDEOS


def test_files_appear_when_they_are_whole_and_the_metadata_last(videos, tmp_path, monkeypatch):
    out, seen = tmp_path / "out", []
    serialize, write = shards.serialize_record, prepare_module.write_atomically

    def serializing(*arguments):
        seen.append(len(list(out.glob("*array_record*"))) - len(list(out.glob("prepare/*-0*.json"))))
        return serialize(*arguments)

    def writing(file, content):
        assert not (out / "dataset_info.json").exists()
        write(file, content)

    monkeypatch.setattr(shards, "serialize_record", serializing)
    monkeypatch.setattr(prepare_module, "write_atomically", writing)
    prepare(out, {"train": str(videos)}, OPTIONS, workers=0)
    assert set(seen) == {0} and (out / "dataset_info.json").exists()


@dataclass(frozen=True, eq=False)
class Deadly(VideoSource):
    """A source with a video that ends the process that reads it: each time, or the first time only."""

    deadly: str = ""
    once: str = ""

    def open(self, index):
        if self.paths[index].endswith(self.deadly) and not (self.once and os.path.exists(self.once)):
            if self.once:
                Path(self.once).touch()
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().open(index)


def deadly(videos, monkeypatch, **attributes):
    source = open_source(str(videos))
    source = Deadly(source.name, source.paths, source.labels, source.class_names, deadly="/4.mp4", **attributes)
    monkeypatch.setattr(prepare_module, "open_source", lambda path, class_names: source)


def test_a_video_that_ends_its_process_is_broken(videos, tmp_path, monkeypatch):
    deadly(videos, monkeypatch)
    prepare(tmp_path / "out", {"train": str(videos)}, OPTIONS, workers=2, max_broken_share=0.1)
    ((_, path, reason),) = broken_rows(tmp_path / "out")[1:]
    assert path.endswith("/4.mp4") and reason == "reading it ended the process with signal 11 (SIGSEGV)"
    source = open_source(str(tmp_path / "out"))
    assert len(source) == NUM_VIDEOS - 1 and "a/4.mp4" not in source.ids


@pytest.mark.full
def test_a_process_that_died_once_is_no_broken_video(undisturbed, videos, tmp_path, monkeypatch):
    deadly(videos, monkeypatch, once=str(tmp_path / "died"))
    counted, write_shards = [], prepare_module.write_shards
    monkeypatch.setattr(
        prepare_module,
        "write_shards",
        lambda todo, workers, at_video: write_shards(todo, workers, lambda: counted.append(1)),
    )
    prepare(tmp_path / "small", {"train": str(videos)}, OPTIONS, workers=1)
    assert len(counted) == NUM_VIDEOS
    assert (tmp_path / "died").exists() and broken_rows(tmp_path / "small")[1:] == []
    for file, expected in content(undisturbed).items():
        if "train" in file:
            assert content(tmp_path / "small")[file] == expected


def test_a_shard_that_cannot_be_written_is_an_error(videos, tmp_path, monkeypatch, capsys):
    (tmp_path / "small/prepare").mkdir(parents=True)
    (tmp_path / "small/prepare/train-00002.json").mkdir()  # it cannot become a file
    (tmp_path / "small/prepare/train-00002.json/x").touch()
    monkeypatch.setattr(prepare_module.Shard, "report_file", property(lambda shard: tmp_path / "no such report"))
    error = error_of(capsys, *words(tmp_path / "small", videos, "--workers", "1"))
    assert "shard 2 of train cannot be written: " in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--quality", "0"], "--quality of jpeg is 1 to 100, got 0"),
        (["--codec", "h264", "--quality", "90"], "--quality of h264 is 0 to 51, got 90"),
        (["--fps", "0"], "argument --fps: invalid positive float value: '0'"),
        (["--fps", "nan"], "argument --fps: invalid positive float value: 'nan'"),
        (["--short-side", "2.5"], "argument --short-side: invalid positive int value: '2.5'"),
        (["--workers", "-1"], "argument --workers: must be a whole number from 0 on, got '-1'"),
        (["--max-broken-share", "-0.1"], "argument --max-broken-share: must be from 0 to 1, got '-0.1'"),
        (["--max-broken-share", "nan"], "argument --max-broken-share: must be from 0 to 1, got 'nan'"),
        (["--qualtiy", "3"], "unrecognized arguments: --qualtiy 3"),
    ],
)
def test_words_that_make_no_sense_are_refused(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path / "out"), "--train", "builtin:train", *arguments])
    assert message in capsys.readouterr().err


def test_a_source_is_needed(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path / "out")])
    assert "give at least one of --train, --val, --test" in capsys.readouterr().err
    assert "nowhere' does not exist" in error_of(capsys, "--out", str(tmp_path / "out"), "--train", "/nowhere")
    assert "got '2 sets'; give --name" in error_of(capsys, "--out", str(tmp_path / "2 sets"), "--train", "/nowhere")


def test_a_shard_says_what_it_holds(undisturbed):
    reports = [json.loads(file.read_text()) for file in sorted((undisturbed / "prepare").glob("train-*.json"))]
    source = open_source(f"{undisturbed}:train")
    stored = [tuple(row) for report in reports for row in report["stored"]]
    labels, frames = source.labels.tolist(), source.num_frames.tolist()
    assert stored == [(*row, 0) for row in zip(source.ids, labels, frames, strict=True)]


@pytest.mark.skipif(
    importlib.util.find_spec("apache_beam") is None,
    reason='Apache Beam is not installed: pip install "videomae-jax[beam]"',
)
def test_beam_writes_the_same_bytes(undisturbed, videos, tmp_path):
    beam = ["--beam_runner", "DirectRunner", "--beam_options", "--direct_num_workers=1"]
    main(words(tmp_path / "small", videos, *beam))
    assert content(tmp_path / "small") == content(undisturbed)


@pytest.mark.skipif(importlib.util.find_spec("apache_beam") is not None, reason="Apache Beam is installed")
def test_beam_that_is_not_installed_is_an_error_that_says_how(videos, tmp_path, capsys):
    error = error_of(capsys, *words(tmp_path / "small", videos, "--beam_runner", "DirectRunner"))
    assert error == 'error: --beam_runner needs Apache Beam: pip install "videomae-jax[beam]"'
    assert not (tmp_path / "small").exists()


def test_what_beam_gets_is_small(videos, tmp_path, monkeypatch):
    """Beam sends each shard's work to a machine; the plan waits in the folder."""
    sent = []
    monkeypatch.setattr(prepare_module, "_beam_pipeline", lambda runner, words: (runner, tuple(words)))

    def run(pipeline, todo):
        assert pipeline == ("FlinkRunner", ("--a", "--b=1"))
        sent.extend(pickle.dumps(shard) for shard in todo)
        for shard in sent:
            write_shard(pickle.loads(shard))

    monkeypatch.setattr(prepare_module, "_run_on_beam", run)
    beam = ["--beam_runner", "FlinkRunner", "--beam_options", "--a", "--b=1"]
    main(words(tmp_path / "small", videos, *beam))
    assert len(sent) == 9 and max(map(len, sent)) < 500
    assert len(open_source(f"{tmp_path / 'small'}:train")) == NUM_VIDEOS


@pytest.mark.skipif(sys.platform == "darwin", reason="its file names are UTF-8")
def test_names_of_files_need_not_be_utf_8(videos, tmp_path):
    (tmp_path / "in").mkdir()
    name = os.fsdecode(b"caf\xe9.mp4")
    shutil.copy(videos / "a/2.mp4", tmp_path / "in" / name)
    (tmp_path / "in" / f"broken {name}").write_text("no video")
    words_ = ["--workers", "1", "--max-broken-share", "0.5"]
    main(["--out", str(tmp_path / "out"), "--train", str(tmp_path / "in"), *words_])
    source = open_source(str(tmp_path / "out"))
    assert source.ids == (name,)
    assert len(list(source.open(0)[0].frames())) == 5
    assert os.fsencode(f"broken {name}") in (tmp_path / "out/broken_videos.csv").read_bytes()
    listed = tmp_path / "listed.csv"
    assert check_main([str(tmp_path / "in"), "--workers", "1", "--out", str(listed)]) == 1
    assert os.fsencode(name) in listed.read_bytes()


def test_a_finished_data_set_that_lost_a_file_gets_it_again(tmp_path):
    for name in "abcd":
        (tmp_path / "videos").mkdir(exist_ok=True)
        write_video(tmp_path / "videos" / f"{name}.mp4", np.full((3, 32, 32, 3), 20, np.uint8), fps=25)
    command = ["--out", str(tmp_path / "set"), "--train", str(tmp_path / "videos"), "--workers", "0"]
    command += ["--videos-per-shard", "2"]
    main(command)
    files = {file: file.read_bytes() for file in sorted((tmp_path / "set").iterdir()) if file.is_file()}
    lost, cut = [file for file in files if "array_record" in file.name]
    lost.unlink()
    cut.write_bytes(files[cut][:-100])
    main(command)
    assert {file: file.read_bytes() for file in files} == files
