"""The tables of docs and README that come from benchmarks say what these found."""

import json
import math
import re
import runpy
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from videomae_jax.data.prepare import main
from videomae_jax.data.video import write_video
from videomae_jax.training.recipe import Recipe
from videomae_jax.training.tasks import Pretraining

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "data.json"
SMALL_DATA = ROOT / "benchmarks" / "results" / "small_data.json"
STEP = ROOT / "benchmarks" / "results" / "step.json"
GIANT = ROOT / "benchmarks" / "results" / "giant.json"
README = (ROOT / "README.md").read_text()
DATA_PAGE = (ROOT / "docs" / "data.md").read_text()
SMALL_DATA_PAGE = (ROOT / "docs" / "small_data.md").read_text()
SCALING_PAGE = (ROOT / "docs" / "scaling.md").read_text()


def test_sizes_and_hours_of_the_data_sets_are_computed_from_the_results():
    table = runpy.run_path(str(ROOT / "benchmarks" / "data_sets.py"))["table"]
    assert table(RESULTS) in DATA_PAGE


def test_the_data_page_shows_the_results_of_its_benchmark():
    results = json.loads(RESULTS.read_text())
    rows = {row["name"]: row["value"] for row in results["rows"]}
    table = re.findall(r"^\| [^|]+ \| `(\w+)` \| ([\d.]+) \| ([\d.]+) \| (\d+) \|$", DATA_PAGE, re.MULTILINE)
    assert len(table) == 9
    for name, milliseconds, ratio, memory in table:
        assert milliseconds == f"{rows[f'{name}_ms']:.1f}"
        assert ratio == f"{results['ratios'].get(f'{name}_over_original', 1):.1f}"
        assert memory == f"{rows[f'{name}_peak_memory']:.0f}"
    assert f"{results['device']}, {results['date']}" in re.sub(r"\s+", " ", DATA_PAGE)
    text = re.sub(r"\s+", " ", README)
    assert f"VideoMAE's own loader makes a clip in {rows['original_ms']:.1f} ms" in text
    assert (
        f"this one in {rows['raw_ms']:.1f} from video files, in {rows['prepared_ms']:.1f} from prepared ones, and in "
        f"{rows['prepared_4_views_ms']:.1f} with four views of each" in text
    )


def test_the_page_shows_what_pretraining_was_worth_on_small_data():
    results = json.loads(SMALL_DATA.read_text())
    rows = {row["name"]: row["value"] for row in results["rows"]}
    line = re.compile(r"^\| [^|]+ \| `([\w.]+)` \|(?: [\d,]+ \|)* ([\d.]+) ± ([\d.]+) \|$", re.MULTILINE)
    table = line.findall(SMALL_DATA_PAGE)
    assert line.findall(README) == table[:4]
    measured = {name.removesuffix("_top1_std") for name in rows if name.endswith("_top1_std")}
    assert {name for name, *_ in table} == measured
    for name, mean, deviation in table:
        assert (mean, deviation) == (f"{rows[f'{name}_top1']:.1f}", f"{rows[f'{name}_top1_std']:.1f}"), name
    text = re.sub(r"\s+", " ", SMALL_DATA_PAGE)
    for name, words in (
        (
            "pretrained_minus_scratch",
            "{:.1f} points after 3,694 steps with labels, where the curve from random weights is flat",
        ),
        ("pretrained_minus_scratch_same_compute", "{:.1f} with the same compute in all"),
        ("pretrained_minus_scratch_short", "{:.1f} after 1,800 steps with labels"),
    ):
        assert words.format(results["ratios"][name]) in text
    for name in ("pretraining", "short", "long"):
        assert f"{rows[name]:,}" in SMALL_DATA_PAGE
    # It is flat: the last two fifths of its steps brought less than two points.
    curve = results["curves"]["scratch_long"]["mean"]
    assert curve[-1] - min(curve[-5:]) < 2
    assert f"{results['device']}, {results['date']}" in text
    assert (SMALL_DATA.with_suffix(".png")).stat().st_size > 10_000
    told = "worth {:.1f} points of top-1 after as many steps with labels, and {:.1f} with the same compute in all"
    ratios = [results["ratios"][f"pretrained_minus_scratch{same}"] for same in ("", "_same_compute")]
    assert told.format(*ratios) in re.sub(r"\s+", " ", README)


def test_the_readme_shows_how_fast_a_step_is():
    results = json.loads(STEP.read_text())
    rows = {row["name"]: row["value"] for row in results["rows"]}
    assert results["setting"] == {"sizes": ["base"], "batches": [2], "rounds": 5}
    table = re.findall(r"^\| [^|]+ \| `(pretrain|finetune|inference)` \| (.+) \|$", README, re.MULTILINE)
    assert len(table) == 3
    sides = ("ours", "transformers", "transformers_compiled")
    for kind, cells in table:
        assert cells.split(" | ") == [
            *(f"{rows[f'{kind}_{side}_step'] / 1000:.2f} s" for side in sides),
            *(f"{results['ratios'][f'{kind}_over_{side}']:.2f}" for side in sides[1:]),
            *(f"{rows[f'{kind}_{side}_peak_memory']:,.0f}" for side in sides[:2]),
        ]
        assert rows[f"{kind}_ours_peak_memory"] < rows[f"{kind}_transformers_peak_memory"]
    text = re.sub(r"\s+", " ", README)
    assert f"On two cores of an {results['device']}, {results['date']}, in float32" in text
    assert f"{results['ratios']['dual_over_single_masking']:.2f} times as fast" in text
    rates = [f"{rows[f'{side}_matmul']:.0f}" for side in sides[:2]]
    assert "large matrices are multiplied at {} GFLOP/s by XLA and at {} by PyTorch".format(*rates) in text


def test_the_data_page_compares_the_codecs_as_measured():
    rows = {row["name"]: row["value"] for row in json.loads(RESULTS.read_text())["rows"]}
    assert "`h264` takes a quarter of the bytes and three times the time to read" in DATA_PAGE
    assert 3.5 < rows["prepared_jpeg_bytes_a_frame"] / rows["prepared_h264_bytes_a_frame"] < 4.5
    assert 2.5 < rows["prepared_h264_ms"] / rows["prepared_ms"] < 3.5


def test_the_plan_of_a_giant_follows_from_what_was_compiled_and_measured(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    giant = runpy.run_path(str(ROOT / "benchmarks" / "giant.py"))
    config = runpy.run_path(str(ROOT / "configs" / "k400_pretrain.py"))["get_config"]("size=giant,recipe=v2")
    task = Pretraining.of_recipe(Recipe.from_config(config))
    params = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(task.create, jax.random.key(0))))
    peak, memory = {"v5e": 197e12, "v5p": 459e12}, {"v5e": 15.75, "v5p": 95.0}  # FLOP/s and GiB of the data sheets
    plans = json.loads(GIANT.read_text())["plans"]
    assert [giant["figures"](told).chips for told in plans.values()] == [64, 128, 256, 512]
    steps = round(300 * 658_340 / 2048)
    for topology, told in plans.items():
        found, (kind, sides) = giant["figures"](told), topology.split(":")
        assert found.chips == math.prod(map(int, sides.split("x"))) == 4 * found.hosts
        assert told["model"].startswith(f"giant, {params:,} parameters, bfloat16, ")
        assert told["batch"] == "2048 videos x 4 views"
        assert told["steps"] == f"{steps:,} for 300 epochs of 658,340"
        seconds = 2048 * 4 * task.clip_flops / (0.4 * found.chips * peak[kind])
        assert found.seconds == pytest.approx(seconds, rel=1e-4)
        assert told["time"].startswith(f"{steps * seconds / 3600:,.1f} hours at an MFU of 40%")
        assert found.videos == pytest.approx(2048 / seconds, rel=1e-4)
        assert told["saved"] == f"{12 * params / 1e9:.2f} GB a checkpoint, 2 kept"
        assert 16 * params / 16 / 2**30 < found.memory < memory[kind]  # state and gradients, on 16 chips
        # Weights in bfloat16 for each part, forwards and again backwards, and as many gradients.
        assert 3 <= found.received / (found.parts * 2 * params / 1e9) < 4
        assert kind != "v5e" or 11.5 <= found.received / found.seconds < 12.5
    for word in ("model", "mesh", "batch", "work", "saved", "memory", "compiled", "traffic", "largest", "data"):
        assert f"\n    {word:9} {plans['v5e:16x16'][word]}\n" in README  # there with other videos, and as many a second
    text = re.sub(r"\s+", " ", SCALING_PAGE)
    assert giant["table"](GIANT) in SCALING_PAGE
    assert f"{12 * params / 1e9:.2f} GB a checkpoint" in text and f"{4 * params / 1e9:.2f} GB each for `model/`" in text
    assert f"{1000 * giant['figures'](plans['v5e:16x16']).seconds / 60:.0f} minutes of 256 chips" in text
    rows = {row["name"]: row["value"] for row in json.loads(RESULTS.read_text())["rows"]}
    assert f"{rows['prepared_4_views_ms']:.1f} ms a clip" in text and f"it is {rows['raw_4_views_ms']:.1f} ms" in text
    ((jpeg, hours),) = re.findall(r"\| Kinetics-710, [^|]+\|[^|]+\| ([\d,]+ GB) \| ([\d.]+) \|", DATA_PAGE)
    assert f"{jpeg} of prepared videos, made in {hours} hours of one core" in text
    for hosts, cores in re.findall(r"\| \d+, (\d+) \|(?:[^|]+\|){6} (\d+) \|", SCALING_PAGE):
        assert "two a host at most" in text and int(cores) / int(hosts) < 2.5


def test_others_can_read_prepared_videos_as_the_data_page_says(tmp_path, monkeypatch, capsys):
    for name in ("run/a.mp4", "sit/b.mp4"):
        (tmp_path / "videos" / name).parent.mkdir(parents=True)
        write_video(tmp_path / "videos" / name, np.zeros((40, 32, 48, 3), np.uint8), fps=25)
    main(["--out", str(tmp_path / "k400_prepared"), "--train", str(tmp_path / "videos"), "--workers", "0"])
    capsys.readouterr()
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", DATA_PAGE, re.DOTALL)
    exec(compile(block, "data.md", "exec"), {})
    assert capsys.readouterr().out in ("b'run/a.mp4' 0 32\n", "b'sit/b.mp4' 1 32\n")


@pytest.mark.full
def test_the_data_benchmark_runs_and_keeps_its_promises(tmp_path):
    pytest.importorskip("decord", reason="decord has no wheel for this machine")
    out = tmp_path / "data.json"
    command = [sys.executable, ROOT / "benchmarks" / "data.py", "--rounds", "1", "--clips", "8", "--out", out]
    subprocess.run(command, check=True, timeout=600)
    report = json.loads(out.read_text())
    assert report.keys() == {"device", "versions", "date", "rows", "ratios"}
    rows = {row["name"]: row["value"] for row in report["rows"]}
    assert {"prepared_clips_per_second_per_core", "decord_only_ms"} <= rows.keys()
    assert {"raw_over_original", "prepared_over_original"} <= report["ratios"].keys()
    assert all(row["unit"] and row["value"] > 0 for row in report["rows"])
