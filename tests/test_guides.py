"""README and docs: commands are understood, links lead somewhere, flags and keys are complete, examples run."""

import argparse
import contextlib
import functools
import importlib.util
import io
import os
import re
import runpy
import shlex
import sys
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import transformers
from absl import flags
from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil

from videomae_jax.data.sources import open_source
from videomae_jax.data.video import write_video
from videomae_jax.training import command_line
from videomae_jax.training.downstream import DownstreamRecipe
from videomae_jax.training.recipe import Recipe

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMING_FROM = (ROOT / "docs" / "coming_from.md").read_text()
CLASSIFIER, AUTOENCODER = "MCG-NJU/videomae-base-finetuned-kinetics", "MCG-NJU/videomae-base"

# What argparse takes in run_mae_pretraining.py and run_class_finetuning.py of MCG-NJU/VideoMAE and
# OpenGVLab/VideoMAEv2.
BOTH = """batch_size epochs save_ckpt_freq model input_size drop_path opt opt_eps opt_betas clip_grad momentum
weight_decay weight_decay_end lr warmup_lr min_lr warmup_epochs warmup_steps color_jitter train_interpolation data_path
imagenet_default_mean_and_std num_frames sampling_rate output_dir log_dir device seed resume auto_resume no_auto_resume
start_epoch num_workers pin_mem no_pin_mem world_size local_rank dist_on_itp dist_url"""
PRETRAINING = "decoder_depth mask_type mask_ratio normlize_target use_checkpoint"
PRETRAINING_V2 = """tubelet_size with_checkpoint decoder_mask_type decoder_mask_ratio finetune data_root fname_tmpl
num_sample"""
FINETUNING = """update_freq tubelet_size fc_drop_rate drop attn_drop_rate disable_eval_during_finetuning model_ema
model_ema_decay model_ema_force_cpu layer_decay num_sample aa smoothing crop_pct short_side_size test_num_segment
test_num_crop reprob remode recount resplit mixup cutmix cutmix_minmax mixup_prob mixup_switch_prob mixup_mode finetune
model_key model_prefix init_scale use_checkpoint use_mean_pooling use_cls eval_data_path nb_classes num_segments
data_set save_ckpt no_save_ckpt eval dist_eval enable_deepspeed"""
FINETUNING_V2 = "with_checkpoint head_drop_rate data_root sparse_sample fname_tmpl start_idx validation"
FLAGS = set(f"{BOTH} {PRETRAINING} {PRETRAINING_V2} {FINETUNING} {FINETUNING_V2}".split())


def outside_fences(page):
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def commands(page):
    """The page's commands that begin with `python`, as words."""
    for command in re.findall(r"^    (python (?:.*\\\n)*.*)", outside_fences(page), re.MULTILINE):
        yield shlex.split(command.replace("\\\n", " "), comments=True)


# The flags that a command defines, beside absl's and other packages'.
OURS = re.compile(r"config(\.|$)|workdir$|coordinator_address$|num_processes$|process_id$|topology$|mfu$|videos$")

ALL_COMMANDS = sorted({tuple(words) for page in PAGES for words in commands(page)})


class Parsed(Exception):
    """What was understood of a command line."""


def parsed_config(words, run):
    """The config that a command of train.py, eval.py or plan would run with."""
    found, run_config = [], command_line.run_config
    errors = io.StringIO()
    with (
        mock.patch.object(sys, "argv", words),
        mock.patch.dict(os.environ),
        mock.patch.object(command_line, "run_config", lambda main: run_config(found.append)),
        contextlib.redirect_stderr(errors),
    ):
        try:
            run(run_name="__main__")
        except SystemExit:
            pass
        finally:
            for name in filter(OURS.match, list(flags.FLAGS)):
                delattr(flags.FLAGS, name)  # or the next command could not define it
    assert found, errors.getvalue()
    return found[0]


def parse_and_stop(parser, *arguments, parse=argparse.ArgumentParser.parse_args):
    raise Parsed(parse(parser, *arguments))


@pytest.mark.parametrize("words", ALL_COMMANDS, ids=" ".join)
def test_a_command_is_understood(words, monkeypatch):
    monkeypatch.chdir(ROOT)
    _, program, *rest = words
    if rest[:1] == ["..."]:  # whatever recipe
        rest[0] = "--config=configs/quickstart.py"
    if program in ("train.py", "eval.py"):
        config = parsed_config([program, *rest], functools.partial(runpy.run_path, program))
        (Recipe if program == "train.py" else DownstreamRecipe).from_config(config)
    elif program.startswith("benchmarks/"):
        text = Path(program).read_text()
        assert all(f'"{word}"' in text for word in rest if word.startswith("--"))
    else:
        assert program == "-m"
        module, *rest = rest
        run = functools.partial(runpy.run_module, module, alter_sys=False)
        if module == "pytest":
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the module has been imported already
            if module == "videomae_jax.training.plan":
                parsed_config([module, *rest], run)
                return
            monkeypatch.setattr(sys, "argv", [module, *rest])
            monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
            with pytest.raises(Parsed):
                run(run_name="__main__")


def test_there_are_commands_on_most_pages():
    assert len(ALL_COMMANDS) > 50


def test_a_wrong_command_is_not_understood(monkeypatch):
    monkeypatch.chdir(ROOT)
    words = ["train.py", "--config", "configs/quickstart.py", "--config.optim.base_rl=1"]
    with pytest.raises(AssertionError, match="unknown config key"):
        parsed_config(words, functools.partial(runpy.run_path, "train.py"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_named_in_the_text_are_there(page):
    for module in re.findall(r"python\s+-m\s+(videomae_jax[\w.]+)", page.read_text()):
        assert importlib.util.find_spec(module), module


def anchors(page):
    """How GitHub names a page's headings."""
    headings = re.findall(r"^#+ (.*)", outside_fences(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", outside_fences(page)):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert f"(docs/{page.name})" in readme


def flag_tables():
    """Of each table of flags its heading and rows: flags, keys."""
    for heading, table in re.findall(r"^### (.*)\n\n\| flag \|.*\n\|[-|]+\n((?:\|.*\n)+)", COMING_FROM, re.MULTILINE):
        rows = [line.split("|")[1:3] for line in table.splitlines()]
        yield heading, [(re.findall(r"`--(\w+)`", names), re.findall(r"`([\w.-]+)`", keys)) for names, keys in rows]


def test_every_flag_of_the_originals_is_in_one_row():
    listed = [name for _, rows in flag_tables() for names, _ in rows for name in names]
    assert len(listed) == len(set(listed))
    assert set(listed) == FLAGS


def get_config(file):
    return runpy.run_path(str(ROOT / "configs" / f"{file}.py"))["get_config"]()


def has(config, key):
    for name in key.split("."):
        if name not in config:
            return False
        config = config[name]
    return True


def test_the_keys_beside_flags_and_arguments_are_keys_of_the_recipes():
    pretraining, finetuning = get_config("k400_pretrain"), get_config("k400_finetune")
    run_flags = ("--workdir", "--num_processes", "--process_id", "--coordinator_address")
    recipes = {
        "Both scripts": (pretraining, finetuning),
        "run_mae_pretraining.py": (pretraining,),
        "run_class_finetuning.py": (finetuning,),
    }
    tables = dict(flag_tables())
    assert tables.keys() == recipes.keys()
    for heading, rows in tables.items():
        for names, keys in rows:
            for key in keys:
                assert key in run_flags or any(has(config, key) for config in recipes[heading]), (names, key)
    (table,) = re.findall(r"^\| `TrainingArguments` \|.*\n\|[-|]+\n((?:\|.*\n)+)", COMING_FROM, re.MULTILINE)
    for row in table.splitlines():
        for key in re.findall(r"`([\w.-]+)`", row.split("|")[2]):
            assert key == "--workdir" or has(finetuning, key), key
        for name in re.findall(r"`(\w+)`", row.split("|")[1]):
            assert name in transformers.TrainingArguments.__dataclass_fields__, name


def test_the_examples_for_those_who_know_transformers(tmp_path, monkeypatch, capsys):
    config = dict(image_size=32, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    decoder = dict(decoder_hidden_size=32, decoder_num_hidden_layers=1, decoder_intermediate_size=32)
    named = transformers.VideoMAEConfig(**config, id2label={0: "abseiling", 1: "zumba"})
    transformers.VideoMAEForVideoClassification(named).save_pretrained(tmp_path / CLASSIFIER)
    plain = transformers.VideoMAEConfig(**config, **decoder, decoder_num_attention_heads=2)
    transformers.VideoMAEForPreTraining(plain).save_pretrained(tmp_path / AUTOENCODER)
    for name in (CLASSIFIER, AUTOENCODER):
        VideoMAEImageProcessorPil(size=32, crop_size=32).save_pretrained(tmp_path / name)
    write_video(tmp_path / "clip.mp4", np.random.default_rng(0).integers(0, 256, (64, 48, 64, 3), np.uint8), fps=24)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    for block in re.findall(r"```python\n(.*?)```", COMING_FROM, re.DOTALL):
        exec(compile(block, "coming_from.md", "exec"), {})
    label, loss = capsys.readouterr().out.splitlines()
    assert label in ("abseiling", "zumba")
    assert loss.endswith("(2, 24, 1536)")


def test_the_guide_splits_by_recording(tmp_path, monkeypatch):
    names = [f"{label}/{room}_{number}.mp4" for label in ("falling", "walking") for room in "abcd" for number in "12"]
    for name in names:
        (tmp_path / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / name).touch()
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "your_videos.md").read_text(), re.DOTALL)
    exec(compile(block, "your_videos.md", "exec"), {})
    sources = [open_source(f"videos/{split}.csv") for split in ("train", "val", "test")]
    assert [len(source) for source in sources] == [8, 4, 4]
    assert all(source.class_names == ("falling", "walking") for source in sources)
    rooms = [{Path(path).stem[0] for path in source.paths} for source in sources]
    assert set.union(*rooms) == set("abcd") and sum(map(len, rooms)) == 4
