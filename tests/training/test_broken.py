import csv

import pytest

from videomae_jax.training.broken import BrokenVideos

TRAINING = [f"{name}.mp4" for name in "abcdefghij"]


def rows(workdir):
    with (workdir / "broken_videos.csv").open(newline="") as lines:
        return [(row["path"], row["reason"]) for row in csv.DictReader(lines)]


def test_each_broken_video_is_listed_once(tmp_path):
    broken = BrokenVideos(tmp_path, ["a, b.mp4", *TRAINING], max_share=0.5)
    broken.add(["", "a, b.mp4\tno video", ""])
    broken.add(["a, b.mp4\tno video\nc.mp4\tcut off"])
    assert len(broken) == 2
    assert rows(tmp_path) == [("a, b.mp4", "no video"), ("c.mp4", "cut off")]


def test_a_continued_run_knows_what_was_broken(tmp_path):
    BrokenVideos(tmp_path, TRAINING, 0.5).add(["a.mp4\tno video"])
    again = BrokenVideos(tmp_path, TRAINING, 0.5)
    again.add(["a.mp4\tno video", "b.mp4\tempty"])
    assert rows(tmp_path) == [("a.mp4", "no video"), ("b.mp4", "empty")]


def test_more_than_the_share_is_an_error_that_names_the_list(tmp_path):
    broken = BrokenVideos(tmp_path, TRAINING, max_share=0.2)
    broken.add(["a.mp4\tx", "b.mp4\tx"])
    with pytest.raises(ValueError, match=r"3 of 10 training videos .*data.max_broken_share=0.2.*broken_videos.csv"):
        broken.add(["c.mp4\tx"])


def test_what_was_mended_since_no_longer_counts(tmp_path):
    with pytest.raises(ValueError, match="3 of 10 training videos"):
        BrokenVideos(tmp_path, TRAINING, 0.2).add(["a.mp4\tx", "b.mp4\tx", "c.mp4\tx"])
    mended = BrokenVideos(tmp_path, TRAINING, 0.2)
    mended.add(["", "d.mp4\tx\nd.mp4\tx"])
    mended.add(["e.mp4\tx"])
    assert len(rows(tmp_path)) == 5
    with pytest.raises(ValueError, match="3 of 10 training videos"):
        mended.add(["c.mp4\tx"])


def test_names_of_files_may_be_anything(tmp_path):
    names = ["caf\udce9.mp4", "line\u2028separator.mp4", "new\rline.mp4"]
    broken = BrokenVideos(tmp_path, names, max_share=1.0)
    broken.add(["\n".join(f"{name}\tx" for name in names)])
    assert len(BrokenVideos(tmp_path, names, max_share=1.0)) == 3
    assert b"caf\xe9.mp4,x" in (tmp_path / "broken_videos.csv").read_bytes()


def test_held_out_videos_are_listed_but_end_no_run(tmp_path):
    broken = BrokenVideos(tmp_path, TRAINING, max_share=0.2)
    broken.add([f"held_out_{index}.mp4\tx" for index in range(9)])
    assert len(rows(tmp_path)) == 9


def test_no_list_without_broken_videos(tmp_path):
    BrokenVideos(tmp_path, TRAINING, 0.2).add(["", ""])
    assert not (tmp_path / "broken_videos.csv").exists()
