"""A page about a run's model, for those who did not train it: `model/README.md`, as the Hugging Face Hub shows it."""

import json
from pathlib import Path
from typing import Any

from videomae_jax.config import CONFIG_FILE
from videomae_jax.hub import repository
from videomae_jax.training.downstream import SCRATCH
from videomae_jax.training.metrics import read_metrics
from videomae_jax.training.workdir import RESULTS_FILE, model_folder, write_whole

CARD_FILE = "README.md"
SHOWN = ("loss", "relative_loss", "relative_to_fill", "knn_top1", "top1", "top5", "mean_class_accuracy", "map", "mse")


def write_model_card(workdir: Path) -> None:
    """Writes the page of a finished run's model from what else lies in its folder. What was written there is replaced.

    It names no folder and no file of the machine.
    """
    folder = model_folder(workdir)
    recipe = json.loads((workdir / "recipe.json").read_text())
    config = json.loads((folder / CONFIG_FILE).read_text())
    (kind,) = config["architectures"]
    results = workdir / RESULTS_FILE
    results = json.loads(results.read_text()) if results.exists() else None
    classifies = "mode" in recipe
    trained = {"linear": "probed linearly", "attentive": "probed by attention"}.get(recipe.get("mode"), "fine-tuned")
    title = f"VideoMAE {recipe['model']['size']}, {trained if classifies else 'pre-trained'}"
    header = ["---", "library_name: videomae-jax", "tags: [video, videomae, jax]"]
    header += ["pipeline_tag: video-classification"] * classifies
    begun = None if recipe["init_from"] in (None, SCRATCH) else repository(recipe["init_from"])
    header += [f"base_model: {begun}"] * (begun is not None)
    sections = [
        "\n".join([*header, "---"]),
        f"# {title}",
        _what(recipe, config, classifies),
        f"## Use\n\n```python\n{_use(kind, classifies)}\n```",
        "## Trained with\n\n" + _table({"from": _beginning(recipe, begun)} | _training(recipe, config)),
        "## Measured\n\n" + (_table(measured) if (measured := _measured(workdir, results)) else "Nothing."),
        "## To be said by whoever shares it\n\nWhat the videos show and under which terms they may be used, what the "
        "model is good for and what it is not, and its licence"
        + (f", which that of {begun} may decide." if begun else "."),
    ]
    card, text = folder / CARD_FILE, "\n\n".join(sections) + "\n"
    if not card.exists() or card.read_text() != text:
        write_whole(card, text)


def _what(recipe: dict[str, Any], config: dict[str, Any], classifies: bool) -> str:
    if not classifies:
        return (
            "An encoder of videos and the decoder it was trained with, to reconstruct what is hidden of unlabelled "
            "videos ([VideoMAE](https://arxiv.org/abs/2203.12602)). It names no classes: fine-tune or probe it."
        )
    names = list(config["id2label"].values())
    listed = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    return f"A classifier of videos on an encoder of [VideoMAE](https://arxiv.org/abs/2203.12602), for: {listed}."


def _use(kind: str, classifies: bool) -> str:
    if classifies:
        return 'from videomae_jax import classify\n\nprint(classify("clip.mp4", "this folder, or its id on the Hub"))'
    return f'from videomae_jax import {kind}\n\nmodel = {kind}.from_pretrained("this folder, or its id on the Hub")'


def _beginning(recipe: dict[str, Any], begun: str | None) -> str:
    if recipe["init_from"] in (None, SCRATCH):
        return "random weights"
    return f"[{begun}](https://huggingface.co/{begun})" if begun else "the weights of another model"


def _training(recipe: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    data, optim = recipe["data"], recipe["optim"]
    apart = f"{data['stride']} apart" if data["stride"] else "spread over the video"
    rows = {
        "videos": recipe["training_videos"].split()[0],
        "clips": f"{config['num_frames']} frames {apart}, {config['image_size']} pixels",
        "length": f"{recipe['total_steps']} steps" if recipe["total_steps"] else f"{recipe['total_epochs']:g} epochs",
        "videos a step": data["batch_size"],
        "views of each": data["views"],
        "learning rate": f"{optim['base_lr']:g} for 256 videos a step",
        "weight decay": optim["weight_decay"],
        "seed": recipe["seed"],
    }
    if "mask" in recipe:
        rows["mask"] = f"{recipe['mask']['kind']} {recipe['mask']['ratio']:g}"
    return rows


def _measured(workdir: Path, results: dict[str, Any] | None) -> dict[str, str]:
    rows = read_metrics(workdir)
    last = rows[-1] if rows else {}
    measured = {}
    for name in SHOWN:
        for videos in ("train", "val", "test"):
            if isinstance(value := last.get(f"{videos}_{name}"), float):
                measured[f"{name}, {videos} videos, one clip each"] = f"{value:.4g}"
    if results is not None:
        views = f"{results['settings']['segments']} x {results['settings']['crops']} views"
        for name in SHOWN:
            if results.get(name) is not None:
                measured[f"{name}, test, {results['num_videos']} videos, {views}"] = f"{results[name]:.4g}"
    return measured


def _table(rows: dict[str, Any]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])
