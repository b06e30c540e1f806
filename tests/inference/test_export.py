import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from flax import nnx

from videomae_jax import VideoMAEForPreTraining, VideoMAEImageProcessor
from videomae_jax.inference.export import export, main
from videomae_jax.model.readout import class_scores, pooled_features

RUN_WITHOUT_THIS_PACKAGE = """
import sys
sys.modules["videomae_jax"] = None  # an import of it fails
import jax.export, numpy as np

program = jax.export.deserialize(open(sys.argv[1], "rb").read())
np.save(sys.argv[3], program.call(np.load(sys.argv[2])))
"""

RUN_WITHOUT_JAX = """
import sys
sys.modules["videomae_jax"] = sys.modules["jax"] = None  # an import of them fails
import numpy as np, onnxruntime

(scores,) = onnxruntime.InferenceSession(sys.argv[1]).run(["scores"], {"frames": np.load(sys.argv[2])})
np.save(sys.argv[3], scores)
"""


def call(file, frames):
    return np.asarray(jax.export.deserialize(file.read_bytes()).call(frames))


def call_onnx(file, frames):
    (result,) = onnxruntime.InferenceSession(file).run(None, {"frames": frames})
    return result


@pytest.fixture(scope="module")
def onnx(checkpoint, tmp_path_factory):
    file = tmp_path_factory.mktemp("onnx") / "model.onnx"
    main([str(checkpoint), str(file)])
    return file


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    file = tmp_path_factory.mktemp("exported") / "new" / "model.stablehlo"
    main([str(checkpoint), str(file), "--platforms", "cpu", "tpu"])
    return file


def smooth(*shape):
    """Frames whose pixels are not far from their neighbours', as in videos."""
    B, T, H, W = shape
    t, y, x = np.ogrid[:T, :H, :W]
    waves = [np.sin(y / 7 + clip) + np.cos(x / 5 + t) + np.sin((x + y) / 11 * (clip + 1)) for clip in range(B)]
    return (np.stack([np.stack(waves), -np.stack(waves), np.cos(waves)], axis=-1) * 40 + 128).astype(np.uint8)


@pytest.mark.parametrize(("made", "program"), [("exported", RUN_WITHOUT_THIS_PACKAGE), ("onnx", RUN_WITHOUT_JAX)])
def test_it_runs_without_this_package(brightness, made, program, tmp_path, request):
    frames = smooth(2, 4, 32, 32)
    np.save(tmp_path / "frames.npy", frames)
    words = [request.getfixturevalue(made), tmp_path / "frames.npy", tmp_path / "scores.npy"]
    subprocess.run([sys.executable, "-c", program, *words], check=True, cwd=tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "scores.npy"), class_scores(brightness, frames), atol=1e-5)


@pytest.mark.parametrize("clips", [1, 3])
@pytest.mark.parametrize("size", [(48, 64), (64, 48), (100, 75), (20, 40)], ids=str)
def test_frames_of_any_size_are_fitted_as_the_processor_does(brightness, exported, clips, size):
    frames = smooth(clips, 4, *size)
    processor = VideoMAEImageProcessor.for_model(brightness.config)
    wanted = class_scores(brightness, processor(list(frames), return_tensors="jax").pixel_values)
    # The processor rounds resized pixels to bytes: half a grey level.
    np.testing.assert_allclose(call(exported, frames), wanted, atol=5e-3)


@pytest.mark.parametrize("shape", [(1, 4, 48, 64), (3, 4, 100, 75), (2, 4, 20, 40)], ids=str)
def test_onnx_does_as_stablehlo_does(exported, onnx, shape):
    np.testing.assert_allclose(call_onnx(onnx, smooth(*shape)), call(exported, smooth(*shape)), atol=1e-5)


def test_its_description_says_what_goes_in_and_what_comes_out(exported):
    description = json.loads(exported.with_name("model.stablehlo.json").read_text())
    assert description["labels"] == ["dark", "bright"] and description["result"] == "scores [B, labels]"
    assert (description["num_frames"], description["frame_stride"]) == (4, 2)
    assert description["platforms"] == ["cpu", "tpu"]


def test_onnx_has_a_description_too(exported, onnx):
    description, of_onnx = (json.loads(file.with_name(f"{file.name}.json").read_text()) for file in (exported, onnx))
    assert of_onnx == description | {"platforms": None}


def test_an_encoder_gives_its_vectors(brightness, tmp_path):
    model = VideoMAEForPreTraining(brightness.config, rngs=nnx.Rngs(0))
    export(model, tmp_path / "encoder.stablehlo", platforms=["cpu"])
    frames = smooth(2, 4, 32, 32)
    features = call(tmp_path / "encoder.stablehlo", frames)
    np.testing.assert_allclose(features, pooled_features(model, frames), atol=1e-4)
    export(model, tmp_path / "encoder.onnx")
    np.testing.assert_allclose(call_onnx(tmp_path / "encoder.onnx", frames), features, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(do_center_crop=False, size={"height": 32, "width": 32}), "only processors that resize, crop"),
        (dict(size={"height": 32, "width": 32}), "only processors that resize the shortest edge"),
    ],
)
def test_what_the_program_would_do_otherwise_is_refused(brightness, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        export(brightness, tmp_path / "model.stablehlo", processor=VideoMAEImageProcessor(**options), platforms=["cpu"])
    with pytest.raises(ValueError, match="platforms are some of cpu, cuda, rocm, tpu, got abacus"):
        export(brightness, tmp_path / "model.stablehlo", platforms=["abacus"])
    with pytest.raises(ValueError, match="file ends in .stablehlo or .onnx, not as .*model.tflite"):
        export(brightness, tmp_path / "model.tflite")
    with pytest.raises(ValueError, match="platforms are of StableHLO; .*model.onnx is ONNX"):
        export(brightness, tmp_path / "model.onnx", platforms=["cpu"])
    halved = VideoMAEForPreTraining(brightness.config, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="of models that compute in float32; this one does in .*bfloat16"):
        export(halved, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("library", "file", "message"),
    [
        ("jax2onnx", "model.onnx", r'ONNX is written by jax2onnx: pip install "\.\[onnx\]"'),
        ("flatbuffers", "model.stablehlo", r'StableHLO is written with flatbuffers: pip install "\.\[export\]"'),
    ],
)
def test_a_missing_library_is_named(library, file, message, brightness, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=message):
        export(brightness, tmp_path / file)
    assert not list(tmp_path.iterdir())
