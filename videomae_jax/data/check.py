"""Decodes all videos of a source and says what there is and what is wrong.

    python -m videomae_jax.data.check SOURCE [--workers 8] [--num-frames 16 --stride 4] [--out videos.csv]

SOURCE is what `data.path` of a recipe takes. The exit status is 0 when all videos are readable, 1 when some are not.
"""

import argparse
import csv
import io
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import NoReturn

import numpy as np

from videomae_jax.commands import warnings_as_lines
from videomae_jax.data.cores import num_cores
from videomae_jax.data.frames import VideoReadError
from videomae_jax.data.sources import VideoSource, open_source

CRASHED = "crashed the decoder"
_PROGRAM = "python -m videomae_jax.data.check"
_NUM_SIZES = 5  # how many of the sizes and rates are listed
_NUM_VIDEOS = 20  # and of the videos with one kind of problem


@dataclass
class Checked:
    """What decoding a video to its end told; None where it did not come to it or the video has no times.

    Attributes:
      label: its class, or empty.
      seconds: from its first frame until its last one's end.
      problem: why it is broken, or in what way it is damaged though readable; else empty.
      is_broken: whether some frame, or all of it, cannot be read.
    """

    path: str
    label: str
    frames: int | None = None
    seconds: float | None = None
    fps: float | None = None
    height: int | None = None
    width: int | None = None
    problem: str = ""
    is_broken: bool = False


COLUMNS = tuple(field.name for field in fields(Checked) if field.name != "is_broken")


def check_video(source: VideoSource, index: int) -> Checked:
    """Decodes one video to its end."""
    checked = Checked(source.paths[index], _class_name(source, index))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            video, label = source.open(index)
            checked.label = source.class_names[label] if label >= 0 else ""
            with video:
                checked.frames = video.num_frames
                for frame in video.frames():
                    checked.height, checked.width = checked.height or frame.shape[0], checked.width or frame.shape[1]
                    if frame.shape[:2] != (checked.height, checked.width):
                        raise VideoReadError(checked.path, "its frames change size on the way")
                if hasattr(video, "frame_rate"):
                    checked.fps = video.frame_rate
                    checked.seconds = video.num_frames / video.frame_rate
        except VideoReadError as error:
            checked.problem, checked.is_broken = error.reason, True
        except Exception as error:  # whatever one file does must not end the look at the others
            checked.problem, checked.is_broken = f"{type(error).__name__}: {error}", True
    checked.problem = checked.problem or "; ".join(str(warning.message) for warning in caught)
    return checked


def check(source: VideoSource, workers: int) -> Iterator[tuple[int, Checked]]:
    """Each video's index and what was found, in the order in which they are done.

    Each of the worker processes has one video at a time. When it dies, that video is what killed it, and another
    process takes its place.

    Raises:
      RuntimeError: the worker processes die before they have a video.
    """
    context, todo = get_context("spawn"), iter(range(len(source)))
    working = {}
    try:
        for _ in range(min(workers, len(source))):
            _start_worker(context, source, working)
        while working:
            for pipe in wait(list(working)):
                process, index = working.pop(pipe)
                try:
                    result = pipe.recv()
                except (EOFError, ConnectionResetError):
                    process.join()
                    pipe.close()
                    if index is None:
                        raise RuntimeError(f"worker processes do not start, exit code {process.exitcode}") from None
                    result = Checked(source.paths[index], _class_name(source, index), problem=CRASHED, is_broken=True)
                    _start_worker(context, source, working)
                else:
                    following = next(todo, None)
                    with suppress(BrokenPipeError):  # told by the next `recv`
                        pipe.send(following)
                    if following is None:
                        process.join()
                        pipe.close()
                    else:
                        working[pipe] = process, following
                if index is not None:
                    yield index, result
    finally:
        for process, _ in working.values():
            process.kill()
            process.join()


def _start_worker(context, source: VideoSource, working: dict) -> None:
    pipe, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, source), daemon=True)
    # Ctrl-C is the main process's to handle. A new process inherits that it ignores it.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process.start()
    finally:
        signal.signal(signal.SIGINT, handler)
    theirs.close()  # so that the pipe ends when the process does
    working[pipe] = process, None


def _work(pipe: Connection, source: VideoSource) -> None:
    result = None  # ready
    while True:
        pipe.send(result)
        index = pipe.recv()
        if index is None:
            return
        result = check_video(source, index)


def _class_name(source: VideoSource, index: int) -> str:
    label = -1 if source.labels is None else int(source.labels[index])
    return source.class_names[label] if label >= 0 else ""


def report(source: VideoSource, found: list[Checked], num_frames: int, stride: int) -> list[str]:
    """Lines for people."""
    lines = [f"{len(found)} videos of {source.name}, {len(source.class_names)} classes"]
    if source.class_names:
        counts = Counter(checked.label for checked in found)
        per_class = [counts[name] for name in source.class_names]
        lines.append(f"  videos a class:       {_spread(per_class, '.10g')}")
        empty = [name for name in source.class_names if not counts[name]]
        if empty:
            lines.append(f"  classes without any:  {len(empty)}: {', '.join(empty)}")
    readable = [checked for checked in found if not checked.is_broken]
    seconds = [checked.seconds for checked in readable if checked.seconds is not None]
    if seconds:
        lines.append(f"  seconds:              {_spread(seconds, '.2f')}; {sum(seconds) / 3600:.2f} hours in all")
        lines.append(f"  frames a second:      {_most_common(f'{c.fps:.5g}' for c in readable if c.fps is not None)}")
    if readable:
        lines.append(f"  frames:               {_spread([checked.frames for checked in readable], '.10g')}")
        lines.append(f"  height x width:       {_most_common(f'{c.height}x{c.width}' for c in readable)}")
    short = [
        checked
        for index, checked in enumerate(found)
        if not checked.is_broken and checked.frames < num_frames * (source.stride(index) or stride)
    ]
    of_the_source = "" if source.strides is None else " or the source's own"
    lines += _listed(f"shorter than {num_frames} frames at stride {stride}{of_the_source}", short)
    lines += _listed("damaged, but readable", [checked for checked in readable if checked.problem])
    lines += _listed("broken", [checked for checked in found if checked.is_broken])
    return lines


def _spread(values: list[float], form: str) -> str:
    return f"{min(values):{form}} to {max(values):{form}}, median {np.median(values):{form}}"


def _most_common(values: Iterable[str]) -> str:
    counts = Counter(values)
    shown = [f"{value} ({count})" for value, count in counts.most_common(_NUM_SIZES)]
    return ", ".join(shown) + (f" and {len(counts) - _NUM_SIZES} more" if len(counts) > _NUM_SIZES else "")


def _listed(what: str, found: list[Checked]) -> list[str]:
    lines = [f"    {c.path}: {c.problem or f'{c.frames} frames'}" for c in found[:_NUM_VIDEOS]]
    rest = [f"    and {len(found) - _NUM_VIDEOS} more; --out FILE.csv gets all"] * (len(found) > _NUM_VIDEOS)
    return [f"  {what}: {len(found)}", *lines, *rest]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, got {text!r}")
    return int(text)


def main(arguments: list[str]) -> int:
    """The command; returns its exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be UTF-8
    parser = _Parser(prog=_PROGRAM, description=__doc__.split("\n")[0])
    parser.add_argument("source", metavar="SOURCE", help="what data.path of a recipe takes")
    parser.add_argument("--workers", type=_count, default=num_cores(), help="processes; one a core by default")
    parser.add_argument("--num-frames", type=_count, default=16, help="frames of a clip")
    parser.add_argument("--stride", type=_count, default=4, help="distance between the frames of a clip")
    parser.add_argument("--out", metavar="FILE.csv", help="gets one row a video")
    options = parser.parse_args(arguments)
    try:
        with warnings_as_lines():
            source = open_source(options.source, max_missing=1.0)
        # Now, rather than after hours of decoding.
        out = open(options.out, "w", newline="", encoding="utf-8", errors="surrogateescape") if options.out else None
    except (ValueError, OSError) as error:
        parser.error(str(error))
    found, interrupted = {}, False
    checking = check(source, options.workers)
    try:
        for index, checked in checking:
            found[index] = checked
            _show_progress(found, len(source))
    except KeyboardInterrupt:
        interrupted = True
    finally:
        checking.close()
    in_order = [found[index] for index in sorted(found)]
    if out:
        with out:
            _write_csv(out, in_order)
    if interrupted:
        print(f"\ninterrupted after {len(found)} of {len(source)} videos", file=sys.stderr)
        return 130
    print("\n".join(report(source, in_order, options.num_frames, options.stride)))
    return int(any(checked.is_broken for checked in in_order))


def _write_csv(out, found: list[Checked]) -> None:
    writer = csv.DictWriter(out, COLUMNS, extrasaction="ignore")
    writer.writeheader()
    for checked in found:
        writer.writerow(asdict(checked))


def _show_progress(found: dict[int, Checked], total: int) -> None:
    if sys.stderr.isatty():
        broken = sum(checked.is_broken for checked in found.values())
        end = "\n" if len(found) == total else ""
        print(f"\r{len(found)} of {total} videos, {broken} broken", end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
