"""The benchmark of steps, and the profile of one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(script, *words):
    command = [sys.executable, f"benchmarks/{script}.py", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.full
def test_steps_are_measured_against_transformers(tmp_path):
    out = tmp_path / "step.json"
    sides = ["--sides", "ours", "single_masking", "transformers"]
    run("step", "--sizes", "tiny", "--batches", 1, 100_000, "--rounds", 2, *sides, "--out", out)
    report = json.loads(out.read_text())
    assert report.keys() >= {"device", "versions", "date", "rows", "ratios"}
    kinds = ("pretrain", "finetune", "inference")
    # 100,000 clips fit nowhere.
    assert report["ratios"].keys() == {f"{kind}_over_transformers" for kind in kinds} | {"dual_over_single_masking"}
    rows = {row["name"]: row["value"] for row in report["rows"]}
    for kind in kinds:
        for side in ("ours", "transformers"):
            seconds = rows[f"{kind}_{side}_step"] / 1000
            assert rows[f"{kind}_{side}_clips_per_second"] == pytest.approx(1 / seconds)
            assert rows[f"{kind}_{side}_peak_memory"] > 100
            assert rows[f"{kind}_{side}_mfu"] > 0


@pytest.mark.full
def test_a_profile_says_where_the_time_goes(tmp_path):
    printed = run("step_profile", "--size", "tiny", "--batch", 1, "--trace", tmp_path)
    rows = [line.split() for line in printed.splitlines()[1:] if line.endswith("%")]
    shares = {part: sum(float(row[-1][:-1]) for row in rows if row[0] == part) for part in {row[0] for row in rows}}
    assert shares.keys() >= {"encoder", "decoder", "loss", "optimizer"}
    assert sum(shares.values()) == pytest.approx(100, abs=0.1 * len(rows))
    assert shares["encoder"] + shares["decoder"] > 80
    assert list(tmp_path.rglob("*.xplane.pb"))
