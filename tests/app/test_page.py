"""The page, served by its command, in headless Chromium."""

import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request

import numpy as np
import pytest
from PIL import Image

from videomae_jax.app.timeline import timeline
from videomae_jax.app.uploads import MAX_BYTES
from videomae_jax.data.builtin import CAMERA_MOVES
from videomae_jax.inference.drawing import strip
from videomae_jax.inference.reconstruct import reconstruct

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver on the path"),
]
pytest.importorskip("gradio", reason="Gradio is not installed; make test-full does it")

from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

PATIENCE = 120  # seconds
# Says whom the server talks to, and runs the command.
SERVER = """
import runpy, sys

def note(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        host = arguments[0] if event == "socket.getaddrinfo" else arguments[1]
        print("asks", host, file=sys.stderr, flush=True)

sys.addaudithook(note)
sys.argv[0] = "app"
runpy.run_module("videomae_jax.app", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def server(runs, builtin_cache, tmp_path_factory):
    """The page's address. At the end, what the server has printed and left behind is looked at."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--classifier", runs / "finetuned", "--pretrained", runs / "pretrained", "--port", str(port)]
    (folder / "tmp").mkdir()
    environment = os.environ | {"TMPDIR": str(folder / "tmp"), "VIDEOMAE_JAX_CACHE": str(builtin_cache)}
    with (
        (folder / "errors").open("w") as errors,
        subprocess.Popen(
            [sys.executable, "-c", SERVER, *words], env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        try:
            address = f"http://127.0.0.1:{port}"
            for line in process.stdout:
                if address in line:
                    break
            assert process.poll() is None, (folder / "errors").read_text()
            yield address
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=PATIENCE)
    said = (folder / "errors").read_text()
    # Of what was asked for by path, and of nothing else.
    assert said.count("Traceback") == said.count("InvalidPathError: "), said
    asked = set(re.findall(r"^asks (.*)$", said, re.MULTILINE))
    assert asked and all("127.0.0.1" in host or "localhost" in host for host in asked), asked
    assert not [path for path in (folder / "tmp").rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for word in (
        *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"),
        *("disable-component-update", "disable-sync", "window-size=1280,1000"),
        f"user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def browser(chromium, server):
    """Chromium, with the page fresh."""
    chromium.get(server)
    appears(chromium, "input[type=file]")
    return chromium


@pytest.fixture
def real_clip(builtin_cache):
    (file,) = builtin_cache.glob("*/val/pan_left/chelsea_0.mp4")
    return file


def until(browser, condition):
    return WebDriverWait(browser, PATIENCE).until(lambda _: condition())


def appears(browser, css):
    return until(browser, lambda: browser.find_elements(By.CSS_SELECTOR, css))[0]


def upload(browser, file):
    browser.find_element(By.CSS_SELECTOR, "input[type=file]").send_keys(str(file))


def classes(browser):
    """The names below the heading, the likeliest one first; none while there is no answer."""
    return [x.text for x in browser.find_elements(By.CSS_SELECTOR, "dt")]


def top_class(browser):
    return appears(browser, "[data-testid=label-output-value]").text


def click(browser, css, text):
    (found,) = [element for element in browser.find_elements(By.CSS_SELECTOR, css) if element.text == text]
    found.click()


def picture(browser, other_than=None):
    """The address and the pixels of the picture of the reconstruction."""

    def source():
        found = [x.get_attribute("src") for x in browser.find_elements(By.CSS_SELECTOR, "[role=tabpanel] img")]
        return next((src for src in found if src and "/file=" in src and src != other_than), None)

    address = until(browser, source)
    with urllib.request.urlopen(address) as answer:
        return address, np.asarray(Image.open(io.BytesIO(answer.read())))


def expected(pretrained, file, ratio, kind):
    model, processor = pretrained
    result = reconstruct(model, file, processor=processor, mask_ratio=ratio, kind=kind)
    hidden = f"{result.mask.mean():.0%} hidden, {kind}"
    return strip(
        [
            ("original", result.original),
            (hidden, result.masked),
            (f"reconstruction: {result.how}", result.reconstruction),
        ]
    )


def same(found, wanted):
    return found.shape == wanted.shape and np.abs(found.astype(int) - wanted).max() <= 2  # another process rounds anew


def test_a_clip_is_classified_and_reconstructed_by_ratio_and_kind(browser, classifier, pretrained, real_clip):
    upload(browser, real_clip)
    best = list(timeline(real_clip, *classifier).overall)
    assert top_class(browser) == best[0] and classes(browser) == best
    click(browser, "button[role=tab]", "Reconstruction")
    address, pixels = picture(browser)
    assert same(pixels, expected(pretrained, real_clip, 0.9, "tube"))

    slider = browser.find_element(By.CSS_SELECTOR, "input[type=range]")
    slider.send_keys(Keys.HOME)
    assert float(slider.get_attribute("value")) == 0.05
    # The lowest ratio hides nothing of so small a grid, which is a message; the next ones do.
    slider.send_keys(*[Keys.ARROW_RIGHT] * 9)
    address, pixels = picture(browser, other_than=address)
    until(browser, lambda: same(picture(browser)[1], expected(pretrained, real_clip, 0.5, "tube")))
    address, _ = picture(browser)
    click(browser, "label", "random")
    _, pixels = picture(browser, other_than=address)
    assert same(pixels, expected(pretrained, real_clip, 0.5, "random"))


def test_a_built_in_film_is_picked_and_cleared(browser, builtin_cache):
    appears(browser, "button.gallery-item").click()
    assert top_class(browser) in CAMERA_MOVES
    browser.find_element(By.CSS_SELECTOR, "button[aria-label=Clear]").click()
    until(browser, lambda: not browser.find_elements(By.CSS_SELECTOR, "[data-testid=label-output-value]"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("text.mp4", "text.mp4 cannot be used as a video: "),
        ("broken.mp4", "broken.mp4 cannot be used as a video: "),
        ("large.mp4", 'File(s) exceed the maximum allowed size of 50.0 Mb: "large.mp4"'),
    ],
)
def test_what_cannot_be_used_gets_a_message(browser, real_clip, tmp_path, name, message):
    file = tmp_path / name
    whole = real_clip.read_bytes()
    file.write_bytes({"text.mp4": b"no video", "broken.mp4": whole[: len(whole) // 2], "large.mp4": whole}[name])
    if name == "large.mp4":
        os.truncate(file, MAX_BYTES + 1)
    upload(browser, file)
    until(browser, lambda: message in appears(browser, ".toast-body").text)
    assert "Traceback" not in browser.page_source
    # And another one can be tried.
    until(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "input[type=file]"))
    upload(browser, real_clip)
    assert top_class(browser) in CAMERA_MOVES


def test_the_browser_asks_this_server_alone(browser, server, real_clip):
    upload(browser, real_clip)
    top_class(browser)
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    asked = [url for url in asked if urllib.parse.urlsplit(url).scheme in ("http", "https", "ws", "wss")]
    assert len(asked) > 10 and [url for url in asked if not url.startswith(f"{server}/")] == []
    with urllib.request.urlopen(server) as answer:
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'self' ")


def ask(address, body=None, headers=None):
    """Status and text of an answer."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, body, headers or {})) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")


def send(server, content, name="clip.mp4"):
    """Uploads a file without a browser: status and text."""
    head = f'--part\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    body = head.encode() + content + b"\r\n--part--\r\n"
    return ask(f"{server}/gradio_api/upload", body, {"Content-Type": "multipart/form-data; boundary=part"})


def classify(server, path):
    """Whether the page, asked without a browser, classifies the file of this path; all that it answers."""
    dependencies = json.loads(ask(f"{server}/config")[1])["dependencies"]
    (event,) = [d["id"] for d in dependencies if len(d["inputs"]) == 1 and len(d["outputs"]) == 2]
    data = [{"path": str(path), "meta": {"_type": "gradio.FileData"}}]
    body = json.dumps({"data": data, "fn_index": event, "session_hash": "stranger"}).encode()
    ask(f"{server}/gradio_api/queue/join", body, {"Content-Type": "application/json"})
    _, answer = ask(f"{server}/gradio_api/queue/data?session_hash=stranger")
    return '"success":true' in answer, answer


def test_no_file_of_the_machine_can_be_read(server, runs, real_clip):
    status, text = send(server, real_clip.read_bytes())
    (uploaded,) = json.loads(text)
    assert status == 200 and ask(f"{server}/gradio_api/file={uploaded}")[0] == 200, "what was uploaded can be"
    config = runs / "finetuned" / "model" / "config.json"
    up = "../" * uploaded.count("/")
    for path in ("/etc/passwd", config, real_clip, "pyproject.toml", f"{os.path.dirname(uploaded)}/{up}etc/passwd"):
        status, text = ask(f"{server}/gradio_api/file={urllib.parse.quote(str(path))}")
        assert status == 403 and "root:" not in text and "hidden_size" not in text, path
    assert classify(server, uploaded)[0]
    for path in ("/etc/passwd", real_clip):
        succeeds, answer = classify(server, path)
        assert not succeeds and "process_completed" in answer


def test_the_server_counts_the_bytes_itself(server):
    status, text = send(server, bytes(MAX_BYTES + 1))
    assert status == 413 and str(MAX_BYTES) in text
