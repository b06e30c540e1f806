"""Checks that configs and processors share: names that are not theirs, and files of JSON."""

import difflib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def check_names(names: Iterable[str], known: Iterable[str], whose: str) -> None:
    """Raises a ValueError for a name that is not known, with the one that was probably meant."""
    known = list(known)
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
            raise ValueError(f"{whose} {name}.{f' Do you mean {close[0]}?' if close else ''}")


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
      ValueError: the file holds something else.
    """
    try:
        content = json.loads(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds no JSON object, but {content!r:.50}.")
    return content
