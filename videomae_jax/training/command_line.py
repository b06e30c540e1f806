"""The command line: `--config FILE.py[:options] [--config.KEY=VALUE ...] [--workdir DIR]`, and how a run ends."""

import ast
import errno
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from videomae_jax.training.host_memory import compute_in_this_thread
from videomae_jax.training.preemption import EXIT_STATUS, Preempted, ending_when_told
from videomae_jax.training.processes import connect

PACKAGE = Path(__file__).parents[1]
# Of the storage, not of the program.
STORAGE_ERRORS = (
    errno.ENOENT,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EIO,
    errno.ESTALE,
    errno.EACCES,
    errno.EFBIG,
)
SECTION = "this is a section of the config; set its keys one by one, as in --config.data.stride=2."


def run(main: Callable[[ConfigDict, Path], None]) -> None:
    """Parses the command line and calls `main(config, workdir)`, in each process of the run.

    Errors are as in `run_config`. A run that the machine's owner ended has the exit status `preemption.EXIT_STATUS`.
    """
    workdir = flags.DEFINE_string("workdir", None, "the run's folder; default: runs/<config name>")
    coordinator = flags.DEFINE_string("coordinator_address", None, "host:port of the first of several processes")
    processes = flags.DEFINE_integer("num_processes", None, "how many processes there are")
    process = flags.DEFINE_integer("process_id", None, "which of them this is, from 0")

    def in_workdir(config: ConfigDict) -> None:
        if "://" in (workdir.value or ""):
            raise ValueError(
                f"workdir {workdir.value} is in an object store, and a run's files are written a line at a time: give "
                "a folder, such as one that the store is mounted in."
            )
        folder = Path(workdir.value or f"runs/{_config_file(sys.argv).stem}").expanduser()
        try:
            with ending_when_told():
                compute_in_this_thread()
                connect(coordinator.value, processes.value, process.value)
                main(config, folder)
        except OSError as error:
            if error.errno not in STORAGE_ERRORS:
                raise
            raise ValueError(
                f"{error.filename or folder}: {error.strerror}. When that is mended, the same command goes on from the "
                "last checkpoint."
            ) from error

    run_config(in_workdir)


def run_config(main: Callable[[ConfigDict], None]) -> None:
    """Parses the command line and calls `main(config)`.

    What the user can mend is one message without a traceback, and exit status 1.
    """
    config_flag = config_flags.DEFINE_config_file("config", None, "the recipe, a file of configs/", lock_config=True)

    def parse(argv: list[str]) -> list[str]:
        asks_for_help = {"--help", "--helpfull"} & set(argv)
        if not asks_for_help:
            _config_file(argv)
        try:
            return flags.FLAGS(argv)
        except SystemExit:
            sys.exit(0 if asks_for_help else 1)  # absl calls help a failure
        except (KeyError, AttributeError) as error:
            _fail(f"unknown config key {_plain(error)} docs/recipes.md has the keys.")
        except (flags.Error, ValueError, TypeError) as error:
            # ml_collections hands an error of the config file on as a printed traceback; its last line says what.
            message = str(error).strip().splitlines()[-1].removeprefix("ValueError: ")
            _fail(f"{SECTION} ({message})" if "as a ConfigDict" in message else message)

    def checked_main(leftover: list[str]) -> None:
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files and classes need not be UTF-8
        logging.set_verbosity(logging.WARNING)  # Orbax tells every step of a checkpoint
        try:
            _check_words(leftover[1:], config_flag.value)
            main(config_flag.value)
        except (ValueError, ImportError) as error:
            if not _raised_by_us(error):
                raise
            _fail(str(error))
        except Preempted as ended:
            print(f"{ended}; the same command goes on from there", file=sys.stderr)
            sys.exit(EXIT_STATUS)
        except KeyboardInterrupt:
            print("\ninterrupted; the same command goes on from the last checkpoint", file=sys.stderr)
            sys.exit(130)

    app.run(checked_main, flags_parser=parse)


def _config_file(argv: list[str]) -> Path:
    """The file that `--config` names."""
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        option, equals, value = word.partition("=")
        if option in ("-config", "--config"):
            file = Path((value if equals else following).split(":")[0])
            break
    else:
        _fail("say which recipe to run: --config configs/quickstart.py")
    if not file.is_file():
        _fail(f"the config file {file} does not exist; configs/ holds the recipes.")
    return file


def _check_words(leftover: list[str], config: ConfigDict) -> None:
    if leftover:
        raise ValueError(
            f"unexpected words on the command line: {' '.join(leftover)}. "
            "Values follow an equals sign, as in --config.data.flip=False."
        )
    for word in sys.argv[1:]:
        key = re.match(r"--?config\.([\w.]+)", word)
        if key and isinstance(_lookup(config, key[1]), ConfigDict | dict):
            raise ValueError(f"{word}: {SECTION}")


def _lookup(config: ConfigDict, key: str):
    for name in key.split("."):
        config = config[name]
    return config


def _raised_by_us(error: Exception) -> bool:
    """Whether the error is one of our own checks: any other is a fault of ours and needs its traceback."""
    innermost = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    return innermost.is_relative_to(PACKAGE) or innermost.resolve() == Path(sys.argv[0]).resolve()


def _plain(error: Exception) -> str:
    text = str(error.args[0])
    try:
        # ml_collections wraps a KeyError in a KeyError, whose text is then quoted once more.
        text = str(ast.literal_eval(text))
    except (ValueError, SyntaxError):
        pass
    # Where a key looks like it, the text is: 'key' Did you mean "one" instead of "key"?
    key, hint, better = " ".join(text.split()).partition(" Did you mean ")
    return f"{key}.{hint}{better.split(' instead of')[0]}{'?' if hint else ''}"


def _fail(message: str) -> None:
    print(f"{Path(sys.argv[0]).name}: error: {message}", file=sys.stderr)
    sys.exit(1)
