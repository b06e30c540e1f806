"""Starts a page for the browser, on this machine alone.

python -m videomae_jax.app --classifier runs/quickstart_finetune --pretrained runs/quickstart
"""

import argparse
import signal
import sys

from videomae_jax.commands import faults_as_lines
from videomae_jax.inference.opened import opened
from videomae_jax.model.videomae import VideoMAEForPreTraining, VideoMAEForVideoClassification


def main(arguments: list[str]) -> None:
    """The command; what the user can mend is one line."""
    parser = argparse.ArgumentParser(prog="python -m videomae_jax.app", description=__doc__.split("\n")[0])
    parser.add_argument("--classifier", required=True, metavar="CHECKPOINT", help="a fine-tuned run, folder or Hub id")
    parser.add_argument("--pretrained", required=True, metavar="CHECKPOINT", help="a pre-trained one, with its decoder")
    parser.add_argument("--port", type=int, default=7860, help="of the page's address (7860)")
    options = parser.parse_args(arguments)
    try:
        from videomae_jax.app.server import serve
    except ModuleNotFoundError as error:
        sys.exit(f"app: the page needs {error.name}: pip install '.[app]'")
    with faults_as_lines("app"):
        classifier = opened(options.classifier, None, VideoMAEForVideoClassification)
        pretrained = opened(options.pretrained, None, VideoMAEForPreTraining)
        serve(classifier, pretrained, options.port)


def end_as_with_ctrl_c() -> None:
    """Also when told to end, and when the terminal is closed: uploads are deleted then. `nohup` remains in force."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


if __name__ == "__main__":
    end_as_with_ctrl_c()
    main(sys.argv[1:])
