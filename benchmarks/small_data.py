"""What pre-training is worth on a small data set, and the paper's ablations at the size that fits two CPU cores.

    python benchmarks/small_data.py --videos FOLDER --out benchmarks/results/small_data.json

FOLDER has `train.csv` and `val.csv`; without it, the built-in clips. For each seed a tiny ViT is pre-trained on the
training videos without their labels and fine-tuned with them, against one fine-tuned from random weights for as many
steps, and one for as many floating-point operations as pre-training and fine-tuning took together. Then the masks, the
ratios and the positions change, one at a time. Every run is one of `train.py` or `eval.py` in a folder below `--work`:
the same command goes on where it was interrupted.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from report import Row, processor_name, write_report

from videomae_jax.config import VideoMAEConfig
from videomae_jax.data import prepare
from videomae_jax.model.masking import Masking
from videomae_jax.training.metrics import read_metrics

ROOT = Path(__file__).parents[1]
PACKAGES = ["videomae-jax", "jax", "flax", "optax", "grain"]
SIDE = 64  # pixels of the prepared videos' shorter side; the model's clips are of half of that
PRETRAINING = ("configs/quickstart.py:goal=moves", "train.py")
FINETUNING = ("configs/quickstart_finetune.py", "eval.py")


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to pre-train. The first is that of all comparisons."""

    kind: str = "tube"
    ratio: float = 0.9
    positions: str = "sincos_3d"

    @property
    def name(self) -> str:
        return f"{self.kind}_{self.ratio:g}_{self.positions}"


# Frame masking hides whole frames: 7 of 8 for a ratio of 0.9. Tube masking hides 14 of 16 places of a frame then, and
# random masking 7 of 8 tokens for a ratio of 0.875: all three 87.5 %.
ABLATIONS = {
    "masks": (Variant(), Variant("random", 0.875), Variant("frame", 0.9)),
    "ratios": (Variant(ratio=0.5), Variant(ratio=0.75), Variant(), Variant(ratio=0.95)),
    "positions": (Variant(positions="sincos_1d"), Variant()),
}


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The runs, below one folder.

    Attributes:
      work: the folder.
      data: the prepared training and validation videos.
      pretraining_steps, finetuning_steps: of every run.
    """

    work: Path
    data: tuple[str, str]
    pretraining_steps: int
    finetuning_steps: int

    def pretrained(self, variant: Variant, seed: int) -> Path:
        """The folder of a pre-training run, which is run or finished now."""
        workdir = self.work / f"pretrain_{variant.name}_seed{seed}"
        self._run(
            PRETRAINING,
            workdir,
            {
                "seed": seed,
                "total_steps": self.pretraining_steps,
                "mask.kind": variant.kind,
                "mask.ratio": variant.ratio,
                "model.position_embedding_type": variant.positions,
                "eval.steps": self.pretraining_steps,
                "data.val_path": "",
            },
        )
        return workdir

    def finetuned(self, variant: Variant, seed: int) -> Path:
        """The folder of a fine-tuning run from a pre-training run of the same seed."""
        keys = {"init_from": self.pretrained(variant, seed), "model.position_embedding_type": variant.positions}
        return self._finetune(f"finetune_{variant.name}_seed{seed}", seed, self.finetuning_steps, keys)

    def from_scratch(self, seed: int, steps: int) -> Path:
        """The folder of a run from random weights: one learning rate for all layers, as these need."""
        keys = {"init_from": "scratch", "optim.layer_decay": 1.0}
        return self._finetune(f"scratch_{steps}_seed{seed}", seed, steps, keys)

    def _finetune(self, name: str, seed: int, steps: int, keys: dict) -> Path:
        every = max(steps // 10, 1)
        keys = {"seed": seed, "total_steps": steps, "eval.steps": every, "data.val_path": self.data[1], **keys}
        self._run(FINETUNING, self.work / name, keys)
        return self.work / name

    def _run(self, command: tuple[str, str], workdir: Path, keys: dict) -> None:
        config, script = command
        words = [f"--config.{key}={value}" for key, value in ({"data.path": self.data[0]} | keys).items()]
        log = workdir.with_suffix(".log")
        log.parent.mkdir(parents=True, exist_ok=True)
        print(f"{workdir.name} ...", flush=True)
        with log.open("a") as file:
            done = subprocess.run(
                [sys.executable, script, "--config", config, "--workdir", str(workdir.absolute()), *words],
                **dict(cwd=ROOT, stdout=file, stderr=subprocess.STDOUT),
            )
        if done.returncode:
            raise SystemExit(f"{script} failed, see {log}")


def top1(workdir: Path) -> float:
    """The accuracy that a run ended with, in percent."""
    return json.loads((workdir / "results.json").read_text())["top1"]


def curve(workdirs: list[Path]) -> dict[str, list[float]]:
    """Accuracy during fine-tuning: mean and standard deviation over runs."""
    rows = [[row for row in read_metrics(workdir) if "val_top1" in row] for workdir in workdirs]
    values = np.array([[row["val_top1"] for row in run] for run in rows])
    deviation = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1])
    return {"steps": [row["step"] for row in rows[0]], "mean": values.mean(axis=0).tolist(), "std": deviation.tolist()}


def operations(config: VideoMAEConfig, visible: int, decoded: int) -> int:
    """Multiplications of one clip's forward pass; `decoded` 0 for a classifier."""

    def stack(tokens, width, mlp, depth):
        return depth * (tokens * width * (4 * width + 2 * mlp) + 2 * tokens**2 * width)

    encoder = visible * config.patch_dim * config.hidden_size
    encoder += stack(visible, config.hidden_size, config.intermediate_size, config.num_hidden_layers)
    if not decoded:
        return encoder
    width, tokens = config.decoder_hidden_size, visible + decoded
    decoder = visible * config.hidden_size * width + decoded * width * config.patch_dim
    return encoder + decoder + stack(tokens, width, config.decoder_intermediate_size, config.decoder_num_hidden_layers)


def hidden_share(pretraining: Path) -> float:
    """What a run's mask really hides: a whole number of places."""
    recipe = json.loads((pretraining / "recipe.json").read_text())
    grid = VideoMAEConfig.from_size(**recipe["model"]).grid
    return Masking(**recipe["mask"], grid=grid).encoder.effective_ratio


def same_compute_steps(experiment: Experiment, pretraining: Path, finetuning: Path) -> int:
    """Fine-tuning steps that take as many operations as a run's pre-training and fine-tuning."""
    recipes = [json.loads((workdir / "recipe.json").read_text()) for workdir in (pretraining, finetuning)]
    config = VideoMAEConfig.from_size(**recipes[0]["model"])
    masking = Masking(**recipes[0]["mask"], grid=config.grid)
    decoded = config.num_patches - (masking.decoder.num_masked if masking.decoder else masking.encoder.num_masked)
    visible = config.num_patches - masking.encoder.num_masked
    clips = [recipe["data"]["batch_size"] * recipe["data"]["views"] for recipe in recipes]
    before = experiment.pretraining_steps * clips[0] * operations(config, visible, decoded)
    return experiment.finetuning_steps + round(before / (clips[1] * operations(config, config.num_patches, 0)))


def measure(experiment: Experiment, seeds: range, groups: list[str]) -> tuple[list[Row], dict[str, float], dict]:
    """Runs what is missing. Rows of accuracies, the differences, the curves."""
    best = Variant()
    finetuned = [experiment.finetuned(best, seed) for seed in seeds]
    scratch = [experiment.from_scratch(seed, experiment.finetuning_steps) for seed in seeds]
    steps = same_compute_steps(experiment, experiment.pretrained(best, seeds[0]), finetuned[0])
    longer = [experiment.from_scratch(seed, steps) for seed in seeds]
    named = {"pretrained": finetuned, "scratch": scratch, "scratch_same_compute": longer}
    rows = [Row("scratch_same_compute_steps", steps, "steps")]
    for group in groups:
        for variant in ABLATIONS[group]:
            named[variant.name] = [experiment.finetuned(variant, seed) for seed in seeds]
    for name, workdirs in named.items():
        values = [top1(workdir) for workdir in workdirs]
        rows.append(Row(f"{name}_top1", float(np.mean(values)), "%"))
        rows.append(Row(f"{name}_top1_std", float(np.std(values, ddof=1)) if len(values) > 1 else 0.0, "points"))
    for variant in {variant: None for group in groups for variant in ABLATIONS[group]}:
        rows.append(Row(f"{variant.name}_hidden", 100 * hidden_share(experiment.pretrained(variant, seeds[0])), "%"))
    means = {row.name: row.value for row in rows}
    differences = {
        "pretrained_minus_scratch": means["pretrained_top1"] - means["scratch_top1"],
        "pretrained_minus_scratch_same_compute": means["pretrained_top1"] - means["scratch_same_compute_top1"],
    }
    return rows, differences, {name: curve(workdirs) for name, workdirs in named.items()}


def plot(curves: dict, file: Path) -> None:
    """Accuracy over the steps of fine-tuning, with the spread over seeds."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for name, points in curves.items():
        steps, mean, deviation = (np.array(points[key]) for key in ("steps", "mean", "std"))
        (line,) = axes.plot(steps, mean, label=name.replace("_", " "))
        axes.fill_between(steps, mean - deviation, mean + deviation, color=line.get_color(), alpha=0.15)
    axes.set(xlabel="fine-tuning steps", ylabel="top-1 of the validation videos, %", xscale="log")
    axes.legend(fontsize="small")
    figure.savefig(file, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, metavar="FOLDER", help="with train.csv and val.csv (default: built-in)")
    parser.add_argument("--work", type=Path, default=Path("runs/small_data"), metavar="DIR", help="where the runs go")
    parser.add_argument("--out", type=Path, metavar="FILE", help="for the report; a plot is put beside it")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pretraining-steps", type=int, default=1500)
    parser.add_argument("--finetuning-steps", type=int, default=1000)
    parser.add_argument("--ablations", nargs="*", choices=tuple(ABLATIONS), default=list(ABLATIONS), metavar="NAME")
    arguments = parser.parse_args()
    data = ("builtin:train", "builtin:val")
    if arguments.videos is not None:
        prepared = arguments.work.absolute() / "data"
        sets = [f"--{name}={arguments.videos / f'{name}.csv'}" for name in ("train", "val")]
        prepare.main([f"--out={prepared}", *sets, f"--short-side={SIDE}", "--quality=95"])
        data = (f"{prepared}:train", f"{prepared}:val")
    experiment = Experiment(arguments.work, data, arguments.pretraining_steps, arguments.finetuning_steps)
    rows, differences, curves = measure(experiment, range(arguments.seeds), arguments.ablations)
    write_report(arguments.out, processor_name(), PACKAGES, rows, differences, {"curves": curves})
    if arguments.out is not None:
        plot(curves, arguments.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
