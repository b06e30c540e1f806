"""Serves the page: to this machine alone, from one folder alone, and with nothing from elsewhere."""

import os
import tempfile
from pathlib import Path

import gradio as gr
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from videomae_jax.app.films import write_films
from videomae_jax.app.page import page
from videomae_jax.app.uploads import MAX_BYTES
from videomae_jax.data.processor import VideoMAEImageProcessor
from videomae_jax.model.videomae import VideoMAEForPreTraining, VideoMAEForVideoClassification

THEME = gr.themes.Default(font="sans-serif", font_mono="monospace")  # the fonts that Gradio ships lack bold letters
# Trimming downloads FFmpeg.
CSS = "button[aria-label='Trim video to selection'] {display: none}"
# Gradio's scripts need the rest; this is what keeps browsers from asking anybody else.
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"


def serve(
    classifier: tuple[VideoMAEForVideoClassification, VideoMAEImageProcessor],
    pretrained: tuple[VideoMAEForPreTraining, VideoMAEImageProcessor],
    port: int,
) -> None:
    """Serves the page to browsers on this machine until Ctrl-C. Uploads are deleted then, or after an hour or two.

    Args:
      classifier, pretrained: each model with its processor.
      port: of the address.

    Raises:
      OSError: the port is taken.
    """
    with tempfile.TemporaryDirectory(prefix="videomae_jax_app_") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # the only folder whose files are served
        films = Path(folder) / "films"
        films.mkdir()
        blocks = page(classifier, pretrained, write_films(films)).queue(max_size=20)
        try:
            blocks.launch(
                server_name="127.0.0.1",
                server_port=port,
                share=False,
                ssr_mode=False,
                max_file_size=MAX_BYTES,
                run_history=False,
                footer_links=[],
                theme=THEME,
                css=CSS,
                app_kwargs={"middleware": [Middleware(OnlyFromHere)]},
                quiet=True,
                prevent_thread_lock=True,
            )
        except OSError as error:
            raise OSError(f"port {port} is taken: say another with --port") from error
        print(f"the page is at http://127.0.0.1:{port}; Ctrl-C ends it", flush=True)
        blocks.block_thread()


class OnlyFromHere:
    """Adds to every answer that the page may load nothing from other servers."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Content-Security-Policy"] = POLICY
            await send(message)

        await self.app(scope, receive, send_with_policy)
