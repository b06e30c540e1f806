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


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, at which uploads are deleted
    main(sys.argv[1:])
