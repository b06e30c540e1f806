"""ViT-B at full size on real clips, and files from the wild; where the project's shared data is at hand."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_train import kill_at, losses
from videomae_jax.data.video import VideoReadError, read_video

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(not DATA.exists(), reason=f"real videos are not at hand in {DATA}"),
]


def test_vit_base_killed_on_real_clips_goes_on_to_the_same_losses(tmp_path):
    def command(workdir):
        keys = {
            "data.path": DATA / "cammoves" / "train.csv",
            "data.batch_size": 2,
            "data.stride": 2,
            "total_steps": 4,
            "log_steps": 1,
            "checkpoint_steps": 1,
            "eval.clips": 2,
        }
        words = [f"--config.{key}={value}" for key, value in keys.items()]
        return [sys.executable, "train.py", "--config", "configs/k400_pretrain.py", *words, "--workdir", str(workdir)]

    subprocess.run(command(tmp_path / "whole"), cwd=ROOT, check=True)
    for line in ("step 1/4", "step 3/4"):
        kill_at(line, command(tmp_path / "killed"))
    subprocess.run(command(tmp_path / "killed"), cwd=ROOT, check=True)
    assert [row["step"] for row in losses(tmp_path / "whole")] == [1, 2, 3, 4]
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")


def test_odd_files_are_read_or_refused_by_name():
    refused = []
    for path in sorted(path for path in (DATA / "oddities").rglob("*") if path.suffix != ".md" and path.is_file()):
        try:
            assert read_video(path).shape[-1] == 3
        except VideoReadError as error:
            assert str(path) in str(error)
            refused.append(path.name)
    assert refused == ["corrupted.mp4"]
