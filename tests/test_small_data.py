"""The benchmark of what pre-training is worth on small data."""

import importlib.util
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from videomae_jax.model.masking import Masking

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def benchmark():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        spec = importlib.util.spec_from_file_location("small_data", ROOT / "benchmarks" / "small_data.py")
        module = sys.modules["small_data"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


def test_the_masks_that_are_compared_hide_the_same_share(benchmark):
    for variant in benchmark.ABLATIONS["masks"]:
        mask = Masking(variant.kind, variant.ratio, "none", 0.0, (8, 6, 6)).encoder
        assert mask.effective_ratio == 0.75


@pytest.mark.parametrize("jobs", [1, 2])
def test_after_a_failure_nothing_more_is_begun_and_its_log_is_named(benchmark, jobs, tmp_path, monkeypatch, capsys):
    begun, all_began = [], threading.Barrier(jobs, timeout=60)

    def run(command, **_):
        begun.append(Path(command[command.index("--workdir") + 1]).name)
        all_began.wait()
        return subprocess.CompletedProcess(command, returncode=3)

    monkeypatch.setattr(benchmark.subprocess, "run", run)
    experiment = benchmark.Experiment(tmp_path, ("train", "val"), benchmark.shared_cores(jobs))
    with pytest.raises(SystemExit, match="train.py failed, see .*pretrain_3_tube_0.75_sincos_3d_seed[01].log"):
        benchmark.measure(experiment, range(3), range(2), (3, 6), ["masks"], jobs)
    assert sorted(begun) == [f"pretrain_3_tube_0.75_sincos_3d_seed{seed}" for seed in range(jobs)]
    assert f"{begun[0]} failed, see {tmp_path / begun[0]}.log" in capsys.readouterr().out
    assert experiment.cores.qsize() == jobs


@pytest.mark.full
def test_the_benchmark_runs_and_goes_on_where_it_was(benchmark, builtin_clips, tmp_path):
    out = tmp_path / "report.json"
    words = ["--out", out, "--work", tmp_path / "runs", "--seeds", 2, "--pretraining-steps", 3, "--finetuning-steps", 6]
    words += ["--jobs", 2, "--ablation-seeds", 1]
    command = [sys.executable, "benchmarks/small_data.py", *map(str, words), "--ablations", "positions"]
    for _ in range(2):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(out.read_text())
    values = {row["name"]: row["value"] for row in report["rows"]}
    assert report["ratios"] == {
        f"pretrained_minus_{name}": values[f"pretrained_{ours}_top1"] - values[f"scratch_{theirs}_top1"]
        for name, ours, theirs in (
            ("scratch", "long", "long"),
            ("scratch_same_compute", "short", "long"),
            ("scratch_short", "short", "short"),
        )
    }
    assert (values["seeds"], values["ablation_seeds"]) == (2, 1)
    assert not (tmp_path / "runs" / "finetune_2_from_1_tube_0.75_sincos_1d_seed1").exists()
    assert (tmp_path / "runs" / "finetune_2_from_1_tube_0.75_sincos_1d_seed0").exists()
    assert values["tube_0.75_sincos_1d_hidden"] == 75
    assert {"tube_0.75_sincos_1d_top1", "tube_0.75_sincos_1d_top1_std"} <= values.keys()
    assert report["curves"]["scratch_short"]["steps"] == [1, 2, 3, 4, 5, 6]
    assert values["long"] > values["short"] == 6
    assert (tmp_path / "runs" / f"scratch_{values['long']}_seed0" / "results.json").exists()
    assert out.with_suffix(".png").stat().st_size > 10_000
    # The second command found every run finished.
    assert "is finished" in (tmp_path / "runs" / "scratch_6_seed1.log").read_text()
