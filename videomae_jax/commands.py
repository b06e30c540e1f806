"""How the commands, `python -m videomae_jax...`, say what is wrong: in a line of the standard error."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Warnings are for the user of a command, who has no use for the place in the code."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
        yield


@contextmanager
def faults_as_lines(command: str) -> Iterator[None]:
    """Warnings become lines, and what the user can mend ends the command with one, and with exit status 1."""
    try:
        with warnings_as_lines():
            yield
    except (ValueError, ImportError, OSError) as error:
        sys.exit(f"{command}: {error}")
