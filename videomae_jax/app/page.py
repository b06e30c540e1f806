"""The page: what is on it, and what happens when."""

import html
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gradio as gr
import numpy as np
import pandas as pd
from jaxtyping import UInt8

from videomae_jax.app.timeline import timeline
from videomae_jax.app.uploads import TAKEN, check_upload, without_folder
from videomae_jax.data.processor import VideoMAEImageProcessor
from videomae_jax.inference.drawing import strip
from videomae_jax.inference.reconstruct import reconstruct
from videomae_jax.model.videomae import VideoMAEForPreTraining, VideoMAEForVideoClassification

KINDS = ("tube", "random", "frame")  # running cells are for decoders, and know three ratios only
FRAMES = 4  # of a clip, side by side: more make captions too small to read
HOUR = 3600  # seconds


def page(
    classifier: tuple[VideoMAEForVideoClassification, VideoMAEImageProcessor],
    pretrained: tuple[VideoMAEForPreTraining, VideoMAEImageProcessor],
    films: list[Path],
) -> gr.Blocks:
    """Lays the page out.

    Args:
      classifier, pretrained: what it shows at work, each model with its processor.
      films: videos to pick from.
    """

    def show_classes(upload: str | None) -> tuple[dict[str, float] | None, pd.DataFrame | None]:
        if upload is None:
            return None, None
        file = Path(upload)
        with _said_on_the_page(file):
            for problem in check_upload(file):
                gr.Warning(html.escape(problem))
            found = timeline(file, *classifier)
        *starts, end = found.seconds
        steps = [
            {"seconds": second, "probability": score, "class": label}
            for label, scores in found.scores.items()
            for start, stop, score in zip(starts, [*starts[1:], end], scores, strict=True)
            for second in (start, stop)
        ]
        return found.overall, pd.DataFrame(steps)

    def show_reconstruction(upload: str | None, ratio: float, kind: str) -> UInt8[np.ndarray, "Y X 3"] | None:
        if upload is None:
            return None
        file, (model, processor) = Path(upload), pretrained
        with _said_on_the_page(file):
            check_upload(file)
            result = reconstruct(model, file, processor=processor, mask_ratio=ratio, kind=kind)
        some = np.linspace(0, len(result.original) - 1, FRAMES).round().astype(int)
        return strip(
            [
                ("original", result.original[some]),
                (f"{result.mask.mean():.0%} hidden, {kind}", result.masked[some]),
                (f"reconstruction: {result.how}", result.reconstruction[some]),
            ]
        )

    with gr.Blocks(title="VideoMAE", analytics_enabled=False, delete_cache=(HOUR, HOUR)) as blocks:
        gr.Markdown(
            "# VideoMAE\nWhat a classifier says of a video, and what a pre-trained model makes of one that is mostly "
            "hidden."
        )
        with gr.Row():
            with gr.Column(scale=2):
                video = gr.Video(label="Video", sources=["upload"], height=300)
                gr.Markdown(f"{TAKEN}.")
                gr.Examples([[str(film)] for film in films], video, label="Or one of these")
            with gr.Column(scale=3):
                with gr.Tab("Classes"):
                    overall = gr.Label(label="Whole video", num_top_classes=5)
                    along = gr.LinePlot(
                        x="seconds", y="probability", color="class", y_lim=[0, 1], label="Along the video"
                    )
                with gr.Tab("Reconstruction"):
                    ratio = gr.Slider(0.05, 0.95, value=0.9, step=0.05, label="Mask ratio")
                    kind = gr.Radio(KINDS, value="tube", label="Masking kind")
                    pictures = gr.Image(
                        show_label=False,
                        height=600,
                        format="png",
                        interactive=False,
                        buttons=["download", "fullscreen"],
                    )

        # One computation at a time, whoever asks for it; and no names in the API, whose forms ask for files by path.
        alone = dict(concurrency_limit=1, concurrency_id="models", api_visibility="private")
        reconstruction = dict(fn=show_reconstruction, inputs=[video, ratio, kind], outputs=pictures, **alone)
        classes = video.change(show_classes, video, [overall, along], **alone)
        classes.success(**reconstruction)
        classes.failure(lambda: None, outputs=video, api_visibility="private")  # and with it what was shown before
        gr.on([ratio.change, kind.change], trigger_mode="always_last", **reconstruction)
    return blocks


@contextmanager
def _said_on_the_page(file: Path) -> Iterator[None]:
    """What the user can mend is a message on the page; what it is about is the upload's name."""
    try:
        with without_folder(file):
            yield
    except ValueError as error:
        raise gr.Error(html.escape(str(error)), print_exception=False) from error
