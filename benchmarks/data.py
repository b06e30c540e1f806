"""How many clips a second one core makes, ours against the original's loader.

    pip install ".[benchmark]"
    python benchmarks/data.py --videos FOLDER --out benchmarks/results/data.json

Every way makes 16 x 224 x 224 clips, every fourth frame of a random place in a random video, on one core, in rounds:
each round runs every way once, so that what else the machine does falls on all. A way's time is the median over the
rounds; a ratio is the median of the rounds' ratios.

- original: VideoMAE's data set for pre-training, written after its steps, in PyTorch's DataLoader, batches of 8:
  decord's VideoReader, one thread, whole frames; a Pillow image of each; the multi-scale crop, cut and resized by
  Pillow; all frames in one array; a float tensor of it, over 255; each channel less its mean, over its deviation; a
  tube mask.
- decord alone: its first step.
- ours: `train_batches`, the whole Grain pipeline, to batches of 8, uint8: on the files as they are; on the same
  prepared as JPEG frames and as short-GOP H.264 by `videomae_jax.data.prepare` with its defaults; with four crops of
  each decoded clip; for fine-tuning, with RandAugment and a random resized crop.

Without --videos it makes its own, of photographs seen through camera moves. Peak memory is that of a process of its own
that makes 200 clips.
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import cv2
import decord
import numpy as np
import skimage.data
import torch
from PIL import Image
from report import Row, processor_name, write_report

from videomae_jax.config import IMAGENET_MEAN, IMAGENET_STD
from videomae_jax.data.clips import Clips, FinetuningClips, PretrainingClips
from videomae_jax.data.files import is_video
from videomae_jax.data.pipeline import train_batches
from videomae_jax.data.randaugment import RandAugment
from videomae_jax.data.sources import open_source
from videomae_jax.data.transforms import multi_scale_crop
from videomae_jax.data.video import write_video

FRAMES, STRIDE, SIDE = 16, 4, 224
VIEWS = 4
BATCH = 8
COPIES = 32  # files


class OriginalDataset(torch.utils.data.Dataset):
    """VideoMAE's data set for pre-training, step by step: kinetics.py, transforms.py and masking_generator.py of it."""

    def __init__(self, folder: Path):
        self.files = sorted(map(str, folder.iterdir()))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, np.ndarray]:
        video = decord.VideoReader(self.files[index], num_threads=1)  # it decodes ahead until it is let go
        frames = video.get_batch(random_clip(len(video))).asnumpy()
        images = [Image.fromarray(frame).convert("RGB") for frame in frames]
        box = multi_scale_crop(*frames.shape[1:3], (SIDE, SIDE), np.random.default_rng())
        corners = box.x, box.y, box.x + box.width, box.y + box.height
        images = [image.crop(corners) for image in images]
        images = [image.resize((SIDE, SIDE), Image.BILINEAR) for image in images]
        stacked = np.concatenate(images, axis=2)  # [H W (T 3)]
        pixels = torch.from_numpy(stacked).permute(2, 0, 1).contiguous().float().div(255)
        for channel, mean, std in zip(pixels, IMAGENET_MEAN * FRAMES, IMAGENET_STD * FRAMES, strict=True):
            channel.sub_(mean).div_(std)
        mask = np.hstack([np.zeros(20), np.ones(176)])
        np.random.shuffle(mask)
        clip = pixels.view(FRAMES, 3, SIDE, SIDE).transpose(0, 1)
        return clip, np.tile(mask, (FRAMES // 2, 1)).flatten()


def random_clip(num_frames: int) -> range:
    first = np.random.randint(num_frames - FRAMES * STRIDE + 1)
    return range(first, first + FRAMES * STRIDE, STRIDE)


def original(folder: Path) -> Callable[[int, int], int]:
    """The original's way: its data set in PyTorch's loader."""
    dataset = OriginalDataset(folder)

    def run(seed: int, count: int) -> int:
        np.random.seed(seed)
        indices = np.random.randint(len(dataset), size=count).tolist()
        loader = torch.utils.data.DataLoader(dataset, batch_size=BATCH, sampler=indices)
        return sum(len(clips) for clips, _ in loader)

    return run


def decord_alone(folder: Path) -> Callable[[int, int], int]:
    """Decoding alone, as the original does it."""
    files = sorted(map(str, folder.iterdir()))

    def run(seed: int, count: int) -> int:
        np.random.seed(seed)
        for index in np.random.randint(len(files), size=count):
            video = decord.VideoReader(files[index], num_threads=1)
            video.get_batch(random_clip(len(video))).asnumpy()
        return count

    return run


def pipeline(path: Path, clips: Clips) -> Callable[[int, int], int]:
    """A way that makes batches of clips."""
    source = open_source(str(path))

    def run(seed: int, count: int) -> int:
        steps = {"start_step": 0, "stop_step": count // BATCH, "batch_size": BATCH}
        with closing(train_batches(source, clips, seed=seed, workers=0, **steps)) as batches:
            made = sum(batch["video"].shape[0] * batch["video"].shape[1] for batch in batches)
        assert made == count // BATCH * BATCH * clips.shape[0]
        return made

    return run


def ways(data: Path) -> dict[str, Callable[[int, int], int]]:
    """What is measured: functions of a seed and a number of decoded clips that return how many clips they made."""
    size = (SIDE, SIDE)
    one, four = (PretrainingClips(FRAMES, STRIDE, views, size) for views in (1, VIEWS))
    finetuning = FinetuningClips(FRAMES, STRIDE, 1, size, RandAugment())
    raw, jpeg, h264 = data / "raw", data / "jpeg", data / "h264"
    return {
        "original": original(raw),
        "decord_only": decord_alone(raw),
        "raw": pipeline(raw, one),
        "prepared_h264": pipeline(h264, one),
        "prepared": pipeline(jpeg, one),
        f"raw_{VIEWS}_views": pipeline(raw, four),
        f"prepared_{VIEWS}_views": pipeline(jpeg, four),
        "raw_finetuning": pipeline(raw, finetuning),
        "prepared_finetuning": pipeline(jpeg, finetuning),
    }


def collect(videos: Path | None, data: Path) -> int:
    """Copies videos to COPIES files in `data`/raw, or films its own. Returns their bytes."""
    raw = data / "raw"
    raw.mkdir()
    originals = [] if videos is None else [file for file in sorted(videos.iterdir()) if is_video(file.name)]
    if videos is None:
        for number in range(2):
            originals.append(data / f"{number}.mp4")
            write_video(originals[-1], filmed(number), fps=25, crf=23)
    for number in range(COPIES):
        file = originals[number % len(originals)]
        shutil.copy(file, raw / f"{number:02}{file.suffix}")
    return sum(file.stat().st_size for file in raw.iterdir())


def filmed(number: int) -> np.ndarray:
    """Ten seconds of 340x256, from a walk over a photograph."""
    photograph = cv2.resize(getattr(skimage.data, ("astronaut", "chelsea")[number])(), (1020, 768))
    turns = np.linspace(0, 2 * np.pi, 300)
    places = np.stack([340 + 300 * np.cos(turns), 256 + 200 * np.sin(2 * turns)], 1).astype(int)
    return np.stack([photograph[y : y + 256, x : x + 340] for x, y in places])


def prepare(data: Path, codec: str) -> float:
    """Prepares `data`/raw as `data`/`codec`. Returns seconds."""
    command = [sys.executable, "-m", "videomae_jax.data.prepare", "--train", data / "raw", "--out", data / codec]
    start = time.perf_counter()
    subprocess.run([*command, "--codec", codec, "--workers", "1"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def peak_memory(data: Path, way: str) -> float:
    """Mebibytes at most of a process that makes 200 clips in this way."""
    command = [sys.executable, __file__, "--peak-of", way, "--data", data]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--videos", type=Path, help="folder of videos; without it, two that this makes")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--clips", type=int, default=16, help="decoded clips a round, a multiple of 8; prepared: 4 times"
    )
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    if args.peak_of:
        ways(args.data)[args.peak_of](0, 200)
        # Not `ru_maxrss`, which a process inherits.
        print(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
        return

    with tempfile.TemporaryDirectory(prefix="benchmark_data_") as folder:
        data = Path(folder)
        raw_bytes = collect(args.videos, data)
        rows = []
        for codec in ("jpeg", "h264"):
            seconds = prepare(data, codec)
            frames = int(open_source(str(data / codec)).num_frames.sum())
            size = sum(file.stat().st_size for file in (data / codec).rglob("*") if file.is_file())
            rows += [
                Row(f"prepare_{codec}_ms_a_frame", 1000 * seconds / frames, "ms"),
                Row(f"prepared_{codec}_bytes_a_frame", size / frames, "bytes"),
                Row(f"prepared_{codec}_over_raw_bytes", size / raw_bytes, "x"),
            ]
        functions = ways(data)
        times = {name: [] for name in functions}  # milliseconds a clip
        for round_ in range(-1, args.rounds):
            for name, run in functions.items():
                start = time.perf_counter()
                made = run(round_ + 1, args.clips * (4 if name.startswith("prepared") else 1))
                if round_ >= 0:  # the first round warms up
                    times[name].append(1000 * (time.perf_counter() - start) / made)
            print(f"round {round_ + 1} of {args.rounds}", file=sys.stderr)
        rows += [Row(f"{name}_ms", statistics.median(values), "ms a clip") for name, values in times.items()]
        rows.append(
            Row("prepared_clips_per_second_per_core", 1000 / statistics.median(times["prepared"]), "clips a second")
        )
        rows += [Row(f"{name}_peak_memory", peak_memory(data, name), "MiB") for name in functions]

    def over(name: str, of: str) -> float:
        return statistics.median(b / a for a, b in zip(times[name], times[of], strict=True))

    ratios = {f"{name}_over_original": over(name, "original") for name in times if name != "original"}
    packages = ["videomae-jax", "av", "opencv-python-headless", "grain", "tensorflow-datasets", "decord", "pillow"]
    write_report(args.out, f"one core of {processor_name()}", [*packages, "torch", "numpy"], rows, ratios)


if __name__ == "__main__":
    main()
