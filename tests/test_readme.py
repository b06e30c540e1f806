"""The README's Python is run, its commands and tables are checked."""

import re
import runpy
from pathlib import Path

import pytest
from flax import nnx

from videomae_jax import VideoMAEConfig, VideoMAEForPreTraining

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_example_runs(tmp_path, monkeypatch, capsys):
    config = VideoMAEConfig.from_size("tiny", image_size=32, num_frames=4)
    VideoMAEForPreTraining(config, rngs=nnx.Rngs(0)).save_pretrained(tmp_path / "runs" / "quickstart" / "model")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    assert "(1, 16, 384)" in capsys.readouterr().out


def test_the_table_has_every_recipe_and_its_options():
    rows = dict(re.findall(r"^\| `(configs/\w+\.py)` \|(.*)", README, re.MULTILINE))
    assert rows.keys() == {f"configs/{path.name}" for path in (ROOT / "configs").glob("*.py")}
    for file, row in rows.items():
        get_config = runpy.run_path(str(ROOT / file))["get_config"]
        for name, values in re.findall(r"`(\w+)=([\w|\\]+)`", row):
            for value in values.split("\\|"):
                get_config(f"{name}={value}")  # an error for an option that is not there


@pytest.mark.parametrize("target", re.findall(r"    make ([\w-]+)", README))
def test_every_make_target_is_there(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_keys_of_the_table_are_keys_of_the_recipes():
    from videomae_jax.training.recipe import pretraining

    config = pretraining("base")
    section = README[README.index("Keys worth knowing") : README.index("A run's folder")]
    keys = [
        key
        for row in section.splitlines()
        if row.startswith("| `")
        for key in re.findall(r"`([\w.]+)`", row.split("|")[1])
    ]
    assert len(keys) > 10
    for key in keys:
        value = config
        for name in key.split("."):
            value = value[name] if name in value else pytest.fail(f"{key} is no key")
