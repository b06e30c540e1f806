"""Where a model is: a folder or file here, or an id on the Hugging Face Hub."""

import re
from collections.abc import Sequence
from pathlib import Path

import huggingface_hub

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
HUB_FILE = re.compile(r"([\w.-]+/[\w.-]+)/(.+\.\w+)")


def locate(name: str | Path, *, revision: str | None = None, patterns: Sequence[str]) -> Path:
    """The local path of a model.

    Args:
      name: a file; a folder; a run's folder, which stands for the `model/` in it; an id on the Hub, `owner/name`; or
        a file there, `owner/name/folder/file.pth`. What is on the Hub is downloaded once into huggingface_hub's cache.
      revision: branch, tag or commit on the Hub.
      patterns: the files wanted of a Hub id.

    Raises:
      ValueError: nothing is there, or the Hub cannot be reached.
    """
    path = Path(name).expanduser()
    if path.is_dir() and not (path / "config.json").is_file() and (path / "model" / "config.json").is_file():
        return path / "model"
    if path.exists():
        return path
    in_repository = HUB_FILE.fullmatch(str(name))
    if not in_repository and not HUB_ID.fullmatch(str(name)):
        raise ValueError(f"{name} does not exist.")
    try:
        if in_repository:
            return Path(huggingface_hub.hf_hub_download(*in_repository.groups(), revision=revision))
        return Path(huggingface_hub.snapshot_download(str(name), revision=revision, allow_patterns=list(patterns)))
    except (huggingface_hub.errors.HfHubHTTPError, OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].removeprefix("Got: ").rstrip(".")
        raise ValueError(
            f"{name} is no file or folder here, and the Hugging Face Hub does not give it: {reason}. Offline, download "
            "the model elsewhere and pass its folder."
        ) from error


def repository(name: str | Path) -> str | None:
    """The repository on the Hub that a name of a model stands for; None where it is a file or folder here."""
    if Path(name).expanduser().exists():
        return None
    in_repository = HUB_FILE.fullmatch(str(name))
    if in_repository:
        return in_repository[1]
    return str(name) if HUB_ID.fullmatch(str(name)) else None
