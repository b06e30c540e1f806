import json
import subprocess
import sys

import pytest

from videomae_jax.evaluation.compare import compare, remarks


def run_in(folder, results, init_from="scratch", steps=0, **settings):
    folder.mkdir()
    settings = {"videos": "val.csv, 0123", "segments": 2, "crops": 3, "stride": 4, "skip_broken": False} | settings
    (folder / "results.json").write_text(json.dumps(results | {"settings": settings}))
    (folder / "recipe.json").write_text(json.dumps({"init_from": init_from}))
    if steps:
        (folder / "metrics.jsonl").write_text("".join(json.dumps({"step": step}) + "\n" for step in (1, steps)))
    return folder


def test_runs_side_by_side_with_the_scores_that_any_has(tmp_path):
    first = run_in(tmp_path / "a", {"top1": 61.234, "top5": None, "num_videos": 7}, "runs/pre", steps=30)
    second = run_in(tmp_path / "b", {"top1": 9.5, "top5": 50.0, "num_videos": 7})
    assert compare([first, second]) == [
        ["run", "init_from", "steps", "tested on", "top1", "top5", "num_videos"],
        [str(first), "runs/pre", "30", "val.csv, 0123, 2 x 3 views", "61.23", "-", "7"],
        [str(second), "scratch", "0", "val.csv, 0123, 2 x 3 views", "9.50", "50.00", "7"],
    ]


def test_a_folder_without_results_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"has no results.json: it is no run of eval.py, or not finished"):
        compare([tmp_path])


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"videos": "elsewhere/val.csv, 0123"}, []),
        ({"videos": "val.csv, 4567"}, ["videos"]),
        ({"skip_broken": True}, ["videos"]),
        ({"segments": 5}, ["views of them"]),
        ({"crops": 1}, ["views of them"]),
        ({"stride": 2, "videos": "val.csv, 4567"}, ["videos", "views of them"]),
    ],
)
def test_what_keeps_runs_from_being_compared_is_said(settings, what, tmp_path):
    runs = [run_in(tmp_path / "a", {}), run_in(tmp_path / "b", {}), run_in(tmp_path / "c", {}, **settings)]
    assert list(remarks(runs)) == [
        f"the runs were tested on different {each}, which may make their scores differ" for each in what
    ]


def test_the_command_prints_a_table(tmp_path):
    folder = run_in(tmp_path / "a", {"map": 12.0, "num_videos": 3})
    command = [sys.executable, "-m", "videomae_jax.evaluation.compare"]
    done = subprocess.run([*command, folder], capture_output=True, text=True, check=True)
    header, row = done.stdout.splitlines()
    assert header.split() == ["run", "init_from", "steps", "tested", "on", "map", "num_videos"]
    assert row.split() == [str(folder), "scratch", "0", *"val.csv, 0123, 2 x 3 views".split(), "12.00", "3"]
    other = run_in(tmp_path / "b", {"map": 11.0, "num_videos": 3}, videos="test.csv, 45")
    done = subprocess.run([*command, folder, other], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].startswith("note: the runs were tested on different videos")
    failed = subprocess.run([*command, tmp_path], capture_output=True, text=True)
    assert failed.returncode == 2
    assert "has no results.json" in failed.stderr
