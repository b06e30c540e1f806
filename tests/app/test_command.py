import signal
import socket
import sys

import pytest

from videomae_jax.app.__main__ import end_as_with_ctrl_c, main


def ending(*words):
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return str(end.value)


def test_without_gradio_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "videomae_jax.app.server", raising=False)
    said = ending("--classifier", "runs/finetuned", "--pretrained", "runs/pretrained")
    assert said == "app: the page needs gradio: pip install '.[app]'"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_it_ends_as_with_ctrl_c_unless_told_not_to(name):
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_DFL)
    try:
        end_as_with_ctrl_c()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        signal.signal(number, signal.SIG_IGN)
        end_as_with_ctrl_c()
        signal.raise_signal(number)
    finally:
        signal.signal(number, before)


@pytest.mark.full
def test_models_of_the_wrong_kind_are_one_line(runs):
    pytest.importorskip("gradio", reason="Gradio is not installed: make test-full")
    said = ending("--classifier", runs / "pretrained", "--pretrained", runs / "pretrained")
    assert said.startswith(f"app: {runs / 'pretrained'} is a VideoMAEForPreTraining; this takes a VideoMAEForVideoCl")
    said = ending("--classifier", runs / "finetuned", "--pretrained", runs / "nowhere")
    assert said.startswith("app: ") and "nowhere" in said


@pytest.mark.full
def test_a_port_that_is_taken_is_one_line(runs, builtin_clips, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # which the server sets, put back at the end
    pytest.importorskip("gradio", reason="Gradio is not installed: make test-full")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = ending("--classifier", runs / "finetuned", "--pretrained", runs / "pretrained", "--port", port)
    assert said == f"app: port {port} is taken: say another with --port"
