"""What pre-training is worth on a small data set, and the paper's ablations at the size that fits two CPU cores.

    python benchmarks/small_data.py --videos FOLDER --out benchmarks/results/small_data.json

FOLDER has `train.csv` and `val.csv`; without it, the built-in clips. For each seed a tiny ViT is pre-trained on the
training videos without their labels and fine-tuned with them, against one trained from random weights for as many steps
as the fine-tuning ("short"), and one for as many floating-point operations as both stages took together ("long"); so
long the pre-trained one is fine-tuned, too. Then the masks, the ratios and the positions change, one at a time, with a
third of the steps of both stages. Every run is one of `train.py` or `eval.py` in a folder below `--work`: the same
command goes on where it was interrupted.
"""

import argparse
import dataclasses
import json
import os
import queue
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
from report import Row, processor_name, write_report

from videomae_jax.config import VideoMAEConfig
from videomae_jax.data import prepare
from videomae_jax.model.flops import classification_flops, pretraining_flops
from videomae_jax.model.masking import Masking
from videomae_jax.training.metrics import read_metrics

ROOT = Path(__file__).parents[1]
PACKAGES = ["videomae-jax", "jax", "flax", "optax", "grain"]
SIDE = 64  # pixels of the prepared videos' shorter side
PIXELS = 48  # of the model's clips, in 6 x 6 places
FRAMES, STRIDE = 16, 2
PRETRAINING = ("configs/quickstart.py:goal=moves", "train.py")
FINETUNING = ("configs/quickstart_finetune.py", "eval.py")


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to pre-train. The first is that of all comparisons."""

    kind: str = "tube"
    ratio: float = 0.75
    positions: str = "sincos_3d"

    @property
    def name(self) -> str:
        return f"{self.kind}_{self.ratio:g}_{self.positions}"


# Frame masking hides whole latent frames: 6 of 8 for a ratio of 0.75, just as much as the others.
ABLATIONS = {
    "masks": (Variant(), Variant("random"), Variant("frame")),
    "ratios": (Variant(ratio=0.5), Variant(), Variant(ratio=0.9), Variant(ratio=0.95)),
    "positions": (Variant(positions="sincos_1d"), Variant()),
}


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The runs, below one folder, several at once.

    Attributes:
      work: the folder.
      data: the prepared training and validation videos.
      cores: the processor cores that each of the runs at a time has to itself; taken and put back by the runs.
      failures: what went wrong; after the first nothing more is begun.
    """

    work: Path
    data: tuple[str, str]
    cores: queue.SimpleQueue
    failures: list[str] = dataclasses.field(default_factory=list)

    def pretrained(self, seed: int, variant: Variant, steps: tuple[int, int]) -> Path:
        """The folder of a fine-tuning run from a pre-training run; both are run or finished now."""
        keys = {
            "seed": seed,
            "total_steps": steps[0],
            "mask.kind": variant.kind,
            "mask.ratio": variant.ratio,
            "model.position_embedding_type": variant.positions,
            "eval.steps": steps[0],
            "data.val_path": "",
        }
        pretraining = self._run(PRETRAINING, f"pretrain_{steps[0]}_{variant.name}_seed{seed}", keys)
        name = pretraining.name.replace("pretrain", f"finetune_{steps[1]}_from")
        keys = {"init_from": pretraining, "model.position_embedding_type": variant.positions}
        return self._finetune(name, seed, steps[1], keys)

    def from_scratch(self, seed: int, steps: int) -> Path:
        """The folder of a run from random weights."""
        return self._finetune(f"scratch_{steps}_seed{seed}", seed, steps, {"init_from": "scratch"})

    def _finetune(self, name: str, seed: int, steps: int, keys: dict) -> Path:
        every = max(steps // 10, 1)
        keys = {"seed": seed, "total_steps": steps, "eval.steps": every, "data.val_path": self.data[1], **keys}
        return self._run(FINETUNING, name, keys)

    def _run(self, command: tuple[str, str], name: str, keys: dict) -> Path:
        config, script = command
        clips = {"model.image_size": f"({PIXELS}, {PIXELS})", "model.num_frames": FRAMES, "data.stride": STRIDE}
        keys = {"data.path": self.data[0], **clips, **keys}
        workdir, log = self.work / name, self.work / f"{name}.log"
        cores = self.cores.get()
        try:
            if self.failures:
                raise SystemExit(self.failures[0])
            print(f"{name} ...", flush=True)
            os.sched_setaffinity(0, cores)  # of this thread, and what it starts
            with log.open("a") as file:
                done = subprocess.run(
                    [sys.executable, script, "--config", config, "--workdir", str(workdir)]
                    + [f"--config.{key}={value}" for key, value in keys.items()],
                    cwd=ROOT,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
            if done.returncode:
                # Said at once, since the other runs of now are still waited for.
                print(f"{name} failed, see {log}", flush=True)
                self.failures.append(f"{script} failed, see {log}")
                raise SystemExit(self.failures[0])
        finally:
            self.cores.put(cores)
        return workdir


def shared_cores(jobs: int) -> queue.SimpleQueue:
    """This machine's cores in as many parts as there are runs at a time."""
    cores, parts = sorted(os.sched_getaffinity(0)), queue.SimpleQueue()
    for job in range(jobs):
        parts.put(set(cores[job::jobs]))
    return parts


def top1(workdir: Path) -> float:
    """The accuracy that a run ended with, in percent."""
    return json.loads((workdir / "results.json").read_text())["top1"]


def curve(workdirs: list[Path]) -> dict[str, list[float]]:
    """Accuracy during fine-tuning: mean and standard deviation over runs."""
    rows = [[row for row in read_metrics(workdir) if "val_top1" in row] for workdir in workdirs]
    values = np.array([[row["val_top1"] for row in run] for run in rows])
    deviation = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1])
    return {"steps": [row["step"] for row in rows[0]], "mean": values.mean(axis=0).tolist(), "std": deviation.tolist()}


def recipe_of(workdir: Path) -> dict:
    """What a run was asked for."""
    return json.loads((workdir / "recipe.json").read_text())


def hidden_share(finetuning: Path) -> float:
    """What the mask of this run's pre-training really hides: a whole number of places."""
    recipe = recipe_of(Path(recipe_of(finetuning)["init_from"]))
    grid = VideoMAEConfig.from_size(**recipe["model"]).grid
    return Masking(**recipe["mask"], grid=grid).encoder.effective_ratio


def same_compute_steps(finetuning: Path) -> int:
    """Fine-tuning steps that take as many operations as this run and its pre-training together."""
    recipe = recipe_of(finetuning)
    recipes = [recipe_of(Path(recipe["init_from"])), recipe]
    config = VideoMAEConfig.from_size(**recipes[0]["model"])
    masking = Masking(**recipes[0]["mask"], grid=config.grid)
    steps = [recipe["total_steps"] * recipe["data"]["batch_size"] * recipe["data"]["views"] for recipe in recipes]
    clip = [
        pretraining_flops(config, masking.num_visible, masking.num_decoded),
        classification_flops(config, config.num_patches),
    ]
    return recipes[1]["total_steps"] + round(steps[0] * clip[0] * recipes[1]["total_steps"] / (steps[1] * clip[1]))


def measure(
    experiment: Experiment, seeds: range, ablation_seeds: range, steps: tuple[int, int], groups: list[str], jobs: int
) -> tuple[list[Row], dict[str, float], dict]:
    """Runs what is missing. Rows of accuracies, the differences, the curves.

    Args:
      experiment: the runs.
      seeds: of the comparison with random weights.
      ablation_seeds: of each of the ablations.
      steps: of pre-training and of fine-tuning; the ablations have a third of them.
      groups: the ablations wanted.
      jobs: how many runs at a time.
    """
    variants = list(dict.fromkeys(variant for group in groups for variant in ABLATIONS[group]))
    third = tuple(count // 3 for count in steps)
    pool = ThreadPoolExecutor(jobs)

    def each_seed(run: Callable, *arguments: Any) -> list[Future]:
        return [pool.submit(run, seed, *arguments) for seed in seeds]

    try:
        runs = {
            "pretrained_short": each_seed(experiment.pretrained, Variant(), steps),
            "scratch_short": each_seed(experiment.from_scratch, steps[1]),
        }
        more = same_compute_steps(runs["pretrained_short"][0].result())
        runs["scratch_long"] = each_seed(experiment.from_scratch, more)
        wait(runs["pretrained_short"])  # two runs in one folder would not do
        runs["pretrained_long"] = each_seed(experiment.pretrained, Variant(), (steps[0], more))
        # All variants with one seed, then with the next.
        ablations = {
            (variant, seed): pool.submit(experiment.pretrained, seed, variant, third)
            for seed in ablation_seeds
            for variant in variants
        }
        runs |= {variant.name: [ablations[variant, seed] for seed in ablation_seeds] for variant in variants}
        folders = {name: [run.result() for run in each] for name, each in runs.items()}
    finally:
        pool.shutdown(cancel_futures=True)

    rows = [Row("pretraining", steps[0], "steps"), Row("short", steps[1], "steps"), Row("long", more, "steps")]
    rows += [Row("seeds", len(seeds), "runs"), Row("ablation_seeds", len(ablation_seeds), "runs")]
    for name, workdirs in folders.items():
        values = [top1(workdir) for workdir in workdirs]
        rows.append(Row(f"{name}_top1", float(np.mean(values)), "%"))
        rows.append(Row(f"{name}_top1_std", float(np.std(values, ddof=1)) if len(values) > 1 else 0.0, "points"))
    names = [variant.name for variant in variants]
    rows += [Row(f"{name}_hidden", 100 * hidden_share(folders[name][0]), "%") for name in names]
    means = {row.name: row.value for row in rows}
    # The second is of the same compute; the first of as many steps with labels, enough for random weights to level off.
    differences = {
        "pretrained_minus_scratch": means["pretrained_long_top1"] - means["scratch_long_top1"],
        "pretrained_minus_scratch_same_compute": means["pretrained_short_top1"] - means["scratch_long_top1"],
        "pretrained_minus_scratch_short": means["pretrained_short_top1"] - means["scratch_short_top1"],
    }
    return rows, differences, {name: curve(workdirs) for name, workdirs in folders.items()}


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
    parser.add_argument("--ablation-seeds", type=int, help="of the ablations (default: as many)")
    parser.add_argument("--pretraining-steps", type=int, default=1500)
    parser.add_argument("--finetuning-steps", type=int, default=1800)
    parser.add_argument("--ablations", nargs="*", choices=tuple(ABLATIONS), default=list(ABLATIONS), metavar="NAME")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, each on its share of the cores")
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    if not 1 <= arguments.jobs <= cores:
        parser.error(f"--jobs must be from 1 to the {cores} cores of this machine, got {arguments.jobs}")
    if min(arguments.pretraining_steps, arguments.finetuning_steps) < 3:
        parser.error("the ablations have a third of the steps: give at least 3")
    work, data = arguments.work.absolute(), ("builtin:train", "builtin:val")
    work.mkdir(parents=True, exist_ok=True)
    if arguments.videos is not None:
        prepared = work / "data"
        sets = [f"--{name}={arguments.videos / f'{name}.csv'}" for name in ("train", "val")]
        prepare.main([f"--out={prepared}", *sets, f"--short-side={SIDE}", "--quality=95"])
        data = (f"{prepared}:train", f"{prepared}:val")
    experiment = Experiment(work, data, shared_cores(arguments.jobs))
    rows, differences, curves = measure(
        experiment,
        range(arguments.seeds),
        range(arguments.ablation_seeds or arguments.seeds),
        (arguments.pretraining_steps, arguments.finetuning_steps),
        arguments.ablations,
        arguments.jobs,
    )
    write_report(arguments.out, processor_name(), PACKAGES, rows, differences, {"curves": curves})
    if arguments.out is not None:
        plot(curves, arguments.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
