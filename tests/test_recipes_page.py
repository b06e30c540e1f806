"""docs/recipes.md has every recipe there is, with its own numbers, and keys that exist."""

import itertools
import re
import runpy
from pathlib import Path

import pytest

from videomae_jax.config import VideoMAEConfig

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "recipes.md").read_text()
# How the heads of the tables begin.
COLUMNS = {
    "recipe | epochs | videos x views | learning rate | mask |": "pretraining",
    "recipe | epochs | videos x views | learning rate | layer decay |": "finetuning",
    "recipe | epochs | videos | learning rate | stride |": "probing",
}


def get_config(file, options=""):
    return runpy.run_path(str(ROOT / "configs" / f"{file}.py"))["get_config"](options)


def is_there(file, options):
    try:
        get_config(file, options)
    except ValueError as error:
        assert "has no size=" in str(error)
        return False
    return True


def options_of(row):
    """The option words of a row of the table of options: [["size=base", "size=small"], ["recipe=script"]]."""
    found = re.findall(r"`(\w+)=([\w|\\]+)`", row)
    return [[f"{name}={value}" for value in values.split("\\|")] for name, values in found]


def cells(config, kind):
    """What a row of a table says of a recipe, from the recipe."""
    data, optim = config.data, config.optim
    epochs = f"{config.total_epochs:g}" if config.total_steps is None else f"{config.total_steps} steps"
    rate = f"{optim.base_lr * data.batch_size / 256:.3g}"
    stride = str(data.stride) if data.stride else "whole video"
    if kind == "pretraining":
        mask = f"{config.mask.kind} {config.mask.ratio:g}"
        if config.mask.decoder_kind != "none":
            mask += f", {config.mask.decoder_kind} {config.mask.decoder_ratio:g}"
        model = VideoMAEConfig.from_size(**config.model.to_dict())
        decoder = f"{model.decoder_num_hidden_layers} x {model.decoder_hidden_size}"
        return [epochs, f"{data.batch_size} x {data.views}", rate, mask, decoder, stride]
    tested = f"{config.test.segments} x {config.test.crops}"
    if kind == "probing":
        # Neighbours vote without training.
        trained = [epochs, str(data.batch_size), rate] if config.mode != "knn" else ["-"] * 3
        return [*trained, stride, tested]
    drop = f"{config.model.drop_path_rate:g}, {config.model.head_dropout_prob:g}"
    return [epochs, f"{data.batch_size} x {data.views}", rate, f"{optim.layer_decay:g}", drop, stride, tested]


def tables():
    """Each table's kind and its rows: file, options, cells. A row may be of several sizes, `size=base\\|small`."""
    for head, kind in COLUMNS.items():
        for table in re.findall(rf"^\| {re.escape(head)}.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE):
            for line in table.splitlines():
                name, *values = (cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|")))
                file, _, options = name.strip("`").partition(":")
                choices = [
                    [f"{key}={value}" for value in listed.split("\\|")]
                    for key, listed in re.findall(r"(\w+)=([\w|\\]+)", options)
                ]
                for words in itertools.product(*choices):
                    yield kind, file, ",".join(words), values


def test_the_numbers_of_every_row_are_the_recipes():
    for kind, file, options, values in tables():
        expected = cells(get_config(file, options), kind)
        assert values[: len(expected)] == expected, f"{file}:{options}"


def test_every_recipe_is_a_row_and_says_whether_it_was_run():
    rows = [(file, options) for _, file, options, _ in tables()]
    assert len(rows) == len(set(rows))
    every = dict(re.findall(r"^\| `configs/(\w+)\.py` \|(.*)", PAGE, re.MULTILINE))
    for file, line in every.items():
        for words in itertools.product(*options_of(line)):
            options = ",".join(words)
            if "size=tiny" not in words and is_there(file, options):
                assert (file, options) in rows
    for _, file, _, (*_, ours) in tables():
        assert ours == "not run" or file.startswith("quickstart")


def test_the_table_of_options_has_every_recipe_and_option():
    rows = dict(re.findall(r"^\| `(configs/\w+\.py)` \|(.*)", PAGE, re.MULTILINE))
    assert rows.keys() == {f"configs/{path.name}" for path in (ROOT / "configs").glob("*.py")}
    for file, row in rows.items():
        options = options_of(row)
        # Not every recipe was published for every size.
        there = [words for words in itertools.product(*options) if is_there(Path(file).stem, ",".join(words))]
        assert {word for words in there for word in words} == {word for words in options for word in words}


@pytest.mark.parametrize(
    ("begin", "end", "file"),
    [
        ("## Keys of pre-training", "## Keys of fine-tuning", "k400_pretrain"),
        ("## Keys of fine-tuning", "have them all", "k400_finetune"),
    ],
)
def test_keys_of_the_tables_are_keys_of_the_recipes(begin, end, file):
    config = get_config(file)
    section = PAGE[PAGE.index(begin) : PAGE.index(end)]
    keys = [
        key.removesuffix(".*")
        for row in section.splitlines()
        if row.startswith("| `")
        for key in re.findall(r"`([\w.*]+)`", row.split("|")[1])
    ]
    assert len(keys) > 8
    for key in keys:
        value = config
        for name in key.split("."):
            value = value[name] if name in value else pytest.fail(f"{key} is no key")
