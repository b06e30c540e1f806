"""The command line of train.py and eval.py: `--config FILE.py[:options] [--config.KEY=VALUE ...] [--workdir DIR]`."""

import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags


def run(main: Callable[[ConfigDict, Path], None]) -> None:
    """Parses the command line and calls `main(config, workdir)`.

    What the user can mend is one message without a traceback, and exit status 1.
    """
    config_flag = config_flags.DEFINE_config_file("config", None, "the recipe, a file of configs/", lock_config=True)
    workdir_flag = flags.DEFINE_string("workdir", None, "the run's folder; default: runs/<config name>")
    flags.mark_flag_as_required("config")

    def parse(argv: list[str]) -> list[str]:
        try:
            return flags.FLAGS(argv)
        except (flags.Error, ValueError, TypeError, KeyError, AttributeError, OSError) as error:
            _fail(_first_line(error))

    def checked_main(leftover: list[str]) -> None:
        logging.set_verbosity(logging.WARNING)  # Orbax tells every step of a checkpoint
        config = config_flag.value
        try:
            _check_words(sys.argv[1:], leftover[1:], config)
            main(config, Path(workdir_flag.value or _default_workdir(sys.argv[1:])))
        except (ValueError, ImportError) as error:
            if not _raised_by_us(error):
                raise
            _fail(str(error))

    app.run(checked_main, flags_parser=parse)


def _check_words(argv: list[str], leftover: list[str], config: ConfigDict) -> None:
    if leftover:
        raise ValueError(
            f"unexpected words on the command line: {' '.join(leftover)}. "
            "Values follow an equals sign, as in --config.data.flip=False."
        )
    for word in argv:
        key = re.match(r"--?config\.([\w.]+)", word)
        if key and isinstance(_lookup(config, key[1]), ConfigDict | dict):
            raise ValueError(
                f"{word}: {key[1]} is a section; set its keys one by one, as in --config.{key[1]}.KEY=VALUE."
            )


def _lookup(config: ConfigDict, key: str):
    for name in key.split("."):
        config = config[name]
    return config


def _default_workdir(argv: list[str]) -> str:
    words = " ".join(argv)
    file = re.search(r"--?config[= ]([^ :]+)", words)[1]
    return f"runs/{Path(file).stem}"


def _raised_by_us(error: Exception) -> bool:
    """Whether the error is one of our own checks: any other is a fault of ours and needs its traceback."""
    innermost = traceback.extract_tb(error.__traceback__)[-1].filename
    return "videomae_jax" in innermost or Path(innermost).parent.name == "configs" or innermost.endswith("train.py")


def _first_line(error: Exception) -> str:
    return str(error.args[0] if error.args else error).strip()


def _fail(message: str) -> None:
    print(f"{Path(sys.argv[0]).name}: error: {message}", file=sys.stderr)
    sys.exit(1)
