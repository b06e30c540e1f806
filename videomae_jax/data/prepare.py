"""Turns videos into a TFDS data set in ArrayRecord files, made for fast reading.

    python -m videomae_jax.data.prepare --out k400_prepared --train k400/train.csv --val k400/val.csv
    python train.py --config configs/k400_pretrain.py --config.data.path=k400_prepared:train

Sources are spelled as in `data.path`. The same command continues a run that was interrupted, and redoes no finished
file. Videos that cannot be read are left out and listed in `broken_videos.csv`. With `--beam_runner` an engine that
Apache Beam knows does the work; the videos and the folder must be on a file system that all its machines see.
"""

import argparse
import csv
import dataclasses
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import tensorflow_datasets as tfds
from tqdm import tqdm

from videomae_jax.data.cores import num_cores
from videomae_jax.data.frames import VideoReadError
from videomae_jax.data.prepared import FORMAT, record_features
from videomae_jax.data.records import INFO_FILE
from videomae_jax.data.shards import (
    Broken,
    Options,
    Plan,
    Shard,
    Stored,
    read_report,
    work_folder,
    write_atomically,
    write_plan,
    write_shard,
)
from videomae_jax.data.sources import VideoSource, open_source
from videomae_jax.data.workers import write_shards

SPLITS = ("train", "val", "test")
DEFAULT_QUALITY = {"jpeg": 90, "h264": 18}
QUALITIES = {"jpeg": (1, 100), "h264": (0, 51)}


def prepare(
    folder: str | os.PathLike,
    sources: Mapping[str, str],
    options: Options,
    *,
    name: str | None = None,
    workers: int | None = None,
    max_broken_share: float = 0.05,
    beam_runner: str | None = None,
    beam_options: Sequence[str] = (),
) -> None:
    """Writes a data set, or what is still missing of it.

    Args:
      folder: where; it is made.
      sources: what `open_source` opens, by split: `train`, `val`, `test`. The classes are those of the first.
      options: how to store the videos.
      name: of the data set; None for the folder's.
      workers: processes, None for one a core; 0 to work in this one, which a video that kills the decoder then ends.
      max_broken_share: at most so many of the videos may be broken.
      beam_runner: what Apache Beam is to run it on; None for processes here.
      beam_options: more words for Beam's own command line.

    Raises:
      ValueError: a source cannot be opened, the folder was begun with other options or is being written, or too many
        videos are broken; what was written stays.
      RuntimeError: a file cannot be written.
    """
    pipeline = None if beam_runner is None else _beam_pipeline(beam_runner, beam_options)
    folder = os.path.abspath(folder)
    plan = make_plan(name or os.path.basename(folder), sources, options)
    with _claim(folder, plan):
        shards = plan.shards(folder)
        todo = [shard for shard in shards if not shard.is_written(plan.file_name(shard))]
        finished = Path(folder, INFO_FILE)
        if finished.exists() and not todo:
            print(f"{folder} is finished.")
            return
        finished.unlink(missing_ok=True)  # files of it are missing
        for left_behind in work_folder(folder).glob("*.tmp"):
            left_behind.unlink()
        write_plan(folder, plan)
        if not todo and _is_too_many(plan, broken := _broken(shards), max_broken_share):
            # The last run ended here, and since then they may have been mended.
            todo = list(dict.fromkeys(shard for shard, _ in broken))
        for shard in todo:
            # Whatever ends this run, no report may speak of a file that was written anew.
            shard.report_file.unlink(missing_ok=True)
        if pipeline is None:
            _run_here(plan, shards, todo, num_cores() if workers is None else workers)
        else:
            _run_on_beam(pipeline, todo)
        broken = _broken(shards)
        write_atomically(Path(folder, "broken_videos.csv"), os.fsencode(_table(broken)))
        if _is_too_many(plan, broken, max_broken_share):
            _, first = broken[0]
            raise ValueError(
                f"{len(broken)} of {sum(map(len, plan.sources.values()))} videos are broken, the first is "
                f"{first.path}: {first.reason}; all are listed in {folder}/broken_videos.csv. Mend them, or raise "
                "--max-broken-share as long as each split has some videos, and give the same command again"
            )
        reports = [(shard, *read_report(shard)) for shard in shards]
        _write_metadata(folder, plan, reports)
        (work_folder(folder) / "plan.pickle").unlink()
    _print_summary(folder, plan, reports, len(broken))


def make_plan(name: str, sources: Mapping[str, str], options: Options) -> Plan:
    """Opens the sources.

    Raises:
      ValueError: one cannot be opened, or its videos have no times and the options need them.
    """
    if not re.fullmatch(r"[A-Za-z_]\w*", name):
        raise ValueError(
            f"a data set's name is letters, digits and _, and begins with no digit, got {name!r}; give --name"
        )
    opened, class_names = {}, None
    for split, path in sources.items():
        opened[split] = open_source(path, class_names)
        class_names = opened[split].class_names if class_names is None else class_names
        if options.fps is not None or options.max_seconds is not None:
            _check_times(path, opened[split])
    ids = {split: _ids(source) for split, source in opened.items()}
    return Plan(name, options, class_names, opened, ids)


def _ids(source: VideoSource) -> tuple[str, ...]:
    """Names of videos that do not depend on where the source lies: the paths below the folder that all share."""
    folder = os.path.dirname(os.path.commonprefix(source.paths))
    names = [os.path.relpath(path, folder) if folder else path for path in source.paths]
    if source.spans is not None:
        spans = [f"[{first}+{count}]" if count else "" for first, count in source.spans.tolist()]
        names = [name + span for name, span in zip(names, spans, strict=True)]
    used = set()
    for position, name in enumerate(names):
        number = 1
        while names[position] in used:
            number += 1
            names[position] = f"{name}#{number}"
        used.add(names[position])
    return tuple(names)


def _check_times(path: str, source: VideoSource) -> None:
    try:
        video, _ = source.open(0)
    except VideoReadError:
        return
    with video:
        if not hasattr(video, "times"):
            raise ValueError(f"{path}: {video.path} has no times, which --fps and --max-seconds need; leave them out")


@contextmanager
def _claim(folder: str, plan: Plan) -> Iterator[None]:
    """Holds the folder for this run alone.

    Raises:
      ValueError: another run holds it, or it was begun with something else.
    """
    work_folder(folder).mkdir(parents=True, exist_ok=True)
    with open(work_folder(folder) / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"{folder} is being written by another run; wait for it, or end it") from error
        _check_same(folder, plan)
        yield


def _check_same(folder: str, plan: Plan) -> None:
    given = {"name": plan.name, **dataclasses.asdict(plan.options)}
    for split in SPLITS:
        source = plan.sources.get(split)
        given[split] = source and f"{len(source)} videos {source.digest()}"
    given["classes"] = hashlib.sha256("\n".join(plan.class_names).encode()).hexdigest()[:16]
    file = work_folder(folder) / "options.json"
    if not file.exists():
        others = set(os.listdir(folder)) - {"prepare"}
        if others:
            raise ValueError(f"{folder} is not empty: it has {sorted(others)[0]}; give another --out")
        write_atomically(file, json.dumps(given, indent=1).encode())
        return
    begun = json.loads(file.read_bytes())
    changed = [f"{key} was {begun.get(key)}, now {value}" for key, value in given.items() if begun.get(key) != value]
    if changed:
        raise ValueError(f"{folder} was begun otherwise: {'; '.join(changed)}; give the same, or another --out")


def _run_here(plan: Plan, shards: list[Shard], todo: list[Shard], workers: int) -> None:
    counts = {shard: len(plan.videos(shard)) for shard in shards}
    done = sum(counts.values()) - sum(counts[shard] for shard in todo)
    with tqdm(total=sum(counts.values()), initial=done, unit="video", smoothing=0.05) as bar:
        write_shards(todo, workers, bar.update)


def _beam_pipeline(runner: str, words: Sequence[str]):
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise ValueError('--beam_runner needs Apache Beam: pip install "videomae-jax[beam]"') from error
    # Without words of its own Beam would take those of this command.
    return beam.Pipeline(runner=runner, options=PipelineOptions(list(words)))


def _run_on_beam(pipeline, todo: list[Shard]) -> None:
    import apache_beam as beam

    with pipeline:
        # Reshuffling lets the engine give each shard to another machine.
        _ = pipeline | beam.Create(todo) | beam.Reshuffle() | beam.Map(write_shard)


def _broken(shards: list[Shard]) -> list[tuple[Shard, Broken]]:
    return [(shard, video) for shard in shards for video in read_report(shard)[1]]


def _is_too_many(plan: Plan, broken: list[tuple[Shard, Broken]], max_share: float) -> bool:
    count = Counter(shard.split for shard, _ in broken)
    nothing_left = any(count[split] == len(source) for split, source in plan.sources.items())
    return nothing_left or len(broken) > max_share * sum(map(len, plan.sources.values()))


def _write_metadata(folder: str, plan: Plan, reports: list[tuple[Shard, list[Stored], list[Broken], int]]) -> None:
    options = plan.options
    index, infos = {}, []
    for split in plan.sources:
        own = [(stored, size) for shard, stored, _, size in reports if shard.split == split]
        videos = [video for stored, _ in own for video in stored]
        index[split] = {
            "ids": [video.id for video in videos],
            "labels": [video.label for video in videos],
            "num_frames": [video.num_frames for video in videos],
            "strides": [video.stride for video in videos] if plan.sources[split].strides is not None else None,
        }
        lengths = [sum(-(-video.num_frames // options.frames_per_record) for video in stored) for stored, _ in own]
        infos.append(tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=sum(size for _, size in own)))
    metadata = {
        "format": FORMAT,
        **dataclasses.asdict(options),
        "class_names": plan.class_names,
        "splits": index,
    }
    described = ", ".join(f"{key} {value}" for key, value in dataclasses.asdict(options).items() if value is not None)
    info = tfds.core.DatasetInfo(
        builder=tfds.core.dataset_info.DatasetIdentity(
            name=plan.name, version=tfds.core.Version("1.0.0"), data_dir=folder, module_name=""
        ),
        description=f"Videos in records of {options.frames_per_record} frames, written by videomae_jax.data.prepare: "
        f"{described}. metadata.json has the names, labels and numbers of frames of all videos.",
        features=record_features(options.codec, plan.class_names),
        metadata=tfds.core.MetadataDict(metadata),
        disable_shuffling=True,
    )
    info.set_file_format("array_record")
    template = tfds.core.ShardedFileTemplate(data_dir=folder, dataset_name=plan.name, filetype_suffix="array_record")
    info.set_splits(tfds.core.SplitDict([info_.replace(filename_template=template) for info_ in infos]))
    # The file that says that the data set is there comes last.
    written = work_folder(folder) / "metadata"
    shutil.rmtree(written, ignore_errors=True)
    written.mkdir()
    info.write_to_directory(written)
    for file in sorted(written.iterdir(), key=lambda file: file.name == INFO_FILE):
        write_atomically(Path(folder, file.name), file.read_bytes())
    shutil.rmtree(written)


def _table(broken: list[tuple[Shard, Broken]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        [("split", "path", "reason"), *((shard.split, video.path, video.reason) for shard, video in broken)]
    )
    return text.getvalue()


def _print_summary(folder: str, plan: Plan, reports: list, broken: int) -> None:
    for split in plan.sources:
        own = [(stored, size) for shard, stored, _, size in reports if shard.split == split]
        videos = [video for stored, _ in own for video in stored]
        frames, size = sum(video.num_frames for video in videos), sum(size for _, size in own)
        print(f"{split:9} {len(videos)} videos, {frames} frames, {size / 1e6:.1f} MB, {size // frames} bytes a frame")
    if broken:
        print(f"{'broken':9} {broken} videos, listed in {folder}/broken_videos.csv")
    print(f"{'use':9} data.path={folder}:{next(iter(plan.sources))}")


def _options(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> Options:
    quality = DEFAULT_QUALITY[arguments.codec] if arguments.quality is None else arguments.quality
    low, high = QUALITIES[arguments.codec]
    if not low <= quality <= high:
        parser.error(f"--quality of {arguments.codec} is {low} to {high}, got {quality}")
    return Options(
        codec=arguments.codec,
        short_side=arguments.short_side,
        quality=quality,
        fps=arguments.fps,
        max_seconds=arguments.max_seconds,
        frames_per_record=arguments.frames_per_record,
        videos_per_shard=arguments.videos_per_shard,
    )


def _positive(kind: type):
    def parse(word: str):
        value = kind(word)
        if not 0 < value < float("inf"):
            raise ValueError
        return value

    parse.__name__ = f"positive {kind.__name__}"
    return parse


def _workers(word: str) -> int:
    if not word.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 on, got {word!r}")
    return int(word)


def _share(word: str) -> float:
    if not 0 <= float(word) <= 1:
        raise argparse.ArgumentTypeError(f"must be from 0 to 1, got {word!r}")
    return float(word)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m videomae_jax.data.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to write")
    for split in SPLITS:
        parser.add_argument(f"--{split}", metavar="SOURCE", help="a manifest, a folder, ..., as in data.path")
    parser.add_argument("--name", help="of the data set (default: the folder's)")
    parser.add_argument("--codec", choices=sorted(QUALITIES, reverse=True), default="jpeg")
    parser.add_argument("--short-side", type=_positive(int), default=256, help="pixels; never enlarged (default: 256)")
    parser.add_argument("--quality", type=int, help="of JPEG (default: 90), or H.264's constant rate factor (18)")
    parser.add_argument("--fps", type=_positive(float), help="frames a second, where a video has more (default: all)")
    parser.add_argument("--max-seconds", type=_positive(float), help="where longer videos end (default: nowhere)")
    parser.add_argument("--frames-per-record", type=_positive(int), default=32, help="(default: 32)")
    parser.add_argument("--videos-per-shard", type=_positive(int), default=32, help="(default: 32)")
    parser.add_argument("--workers", type=_workers, default=num_cores(), help="processes (default: one a core)")
    parser.add_argument("--max-broken-share", type=_share, default=0.05, help="(default: 0.05)")
    parser.add_argument("--beam_runner", help="DirectRunner, DataflowRunner, FlinkRunner, SparkRunner, ...")
    parser.add_argument("--beam_options", nargs=argparse.REMAINDER, default=(), help="all that follows is for Beam")
    arguments = parser.parse_args(words)
    sources = {split: getattr(arguments, split) for split in SPLITS if getattr(arguments, split)}
    if not sources:
        parser.error(f"give at least one of {', '.join(f'--{split}' for split in SPLITS)}")
    try:
        prepare(
            arguments.out,
            sources,
            _options(arguments, parser),
            name=arguments.name,
            workers=arguments.workers,
            max_broken_share=arguments.max_broken_share,
            beam_runner=arguments.beam_runner,
            beam_options=arguments.beam_options,
        )
    except (ValueError, OSError, RuntimeError) as error:
        parser.exit(1, f"error: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "interrupted; the same command goes on\n")


if __name__ == "__main__":
    main()
