import dataclasses
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from videomae_jax import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEForVideoClassification, VideoMAEImageProcessor
from videomae_jax.data.video import read_video, write_video
from videomae_jax.inference.reconstruct import HOW, main, reconstruct

CONFIG = VideoMAEConfig(
    image_size=32,
    patch_size=8,
    num_frames=4,
    hidden_size=24,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=48,
    decoder_hidden_size=24,
    decoder_num_hidden_layers=1,
    decoder_num_attention_heads=2,
    decoder_intermediate_size=48,
)
video = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def model():
    return VideoMAEForPreTraining(CONFIG, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    model.save_pretrained(folder / "model")
    VideoMAEImageProcessor.for_model(CONFIG, frame_stride=4).save_pretrained(folder / "model")
    write_video(folder / "video.mp4", video.repeat(4, axis=0), fps=10)
    return folder


def pixels_hidden(result):
    """True for every pixel of a hidden token."""
    return np.asarray(result.mask).repeat(2, 0).repeat(8, 1).repeat(8, 2)


def test_the_visible_is_the_original_everywhere_and_the_hidden_is_grey(model):
    result = reconstruct(model, video, mask_ratio=0.75)
    np.testing.assert_array_equal(result.original, video)
    hidden = pixels_hidden(result)
    assert hidden.mean() == 0.75
    assert (result.mask[0] == result.mask[1]).all(), "tubes"
    for frames in (result.masked, result.reconstruction):
        np.testing.assert_array_equal(frames[~hidden], video[~hidden])
    assert (result.masked[hidden] == 128).all()
    assert result.how == HOW["visible"]


def test_the_picture_of_visible_statistics_uses_no_hidden_pixel(model):
    result = reconstruct(model, video)
    hidden = pixels_hidden(result)
    changed = np.where(hidden[..., None], 255 - video, video)
    other = reconstruct(model, changed)
    np.testing.assert_array_equal(other.reconstruction[hidden], result.reconstruction[hidden])
    assert other.loss != result.loss
    true, other = (reconstruct(model, frames, statistics="true") for frames in (video, changed))
    assert (true.reconstruction[hidden] != other.reconstruction[hidden]).mean() > 0.5
    assert true.how == HOW["true"] != result.how


def test_its_loss_and_its_prediction_are_the_models(model):
    result = reconstruct(model, video, kind="random", seed=3)
    clip = VideoMAEImageProcessor.for_model(CONFIG)(video, return_tensors="jax").pixel_values
    output = model(clip, jnp.asarray(result.mask.reshape(1, -1)))
    assert result.loss == pytest.approx(float(output.loss), rel=1e-6)


def test_raw_pixels_are_the_prediction_itself(model):
    raw = VideoMAEForPreTraining(dataclasses.replace(CONFIG, norm_pix_loss=False), rngs=nnx.Rngs(0))
    result = reconstruct(raw, video)
    assert result.how == HOW["raw"]
    clip = VideoMAEImageProcessor.for_model(CONFIG)(video, return_tensors="jax").pixel_values
    predicted = raw(clip, jnp.asarray(result.mask.reshape(1, -1))).logits[0]
    first = np.flatnonzero(result.mask)[0]
    t, y, x = np.unravel_index(first, result.mask.shape)
    cube = result.reconstruction[2 * t : 2 * t + 2, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8]
    wanted = np.round(255 * np.clip(predicted[0].reshape(2, 8, 8, 3), 0, 1))
    np.testing.assert_array_equal(cube, wanted)


def test_the_mask_is_the_seeds(model):
    masks = [reconstruct(model, video, seed=seed).mask for seed in (0, 0, 1)]
    assert (masks[0] == masks[1]).all() and (masks[0] != masks[2]).any()


def test_what_cannot_be_reconstructed_says_why(model, run):
    with pytest.raises(ValueError, match="statistics must be 'visible' or 'true', got 'mine'"):
        reconstruct(model, video, statistics="mine")
    with pytest.raises(ValueError, match="ratio must be in"):
        reconstruct(model, video, mask_ratio=1.0)
    with pytest.raises(ValueError, match="takes one video, got 2"):
        reconstruct(model, [video, video])
    classifier = VideoMAEForVideoClassification(CONFIG, rngs=nnx.Rngs(0))
    with pytest.raises(
        ValueError, match="is a VideoMAEForVideoClassification; this takes a VideoMAEForPreTraining. .* decoder"
    ):
        reconstruct(classifier, video)
    with pytest.raises(ValueError, match="nowhere"):
        reconstruct(run / "nowhere", video)


@pytest.mark.parametrize("suffix", [".png", ".gif", ".mp4"])
def test_the_command_draws(run, tmp_path, capsys, suffix):
    out = tmp_path / "new" / f"strip{suffix}"
    main([str(run), str(run / "video.mp4"), "--mask-ratio", "0.75", "--kind", "frame", "--out", str(out)])
    printed = capsys.readouterr().out
    assert "with 50% hidden, frame; reconstructed with " + HOW["visible"] in printed and str(out) in printed
    if suffix == ".mp4":
        assert len(read_video(out)) == 4
        return
    with Image.open(out) as picture:
        assert getattr(picture, "n_frames", 1) == (4 if suffix == ".gif" else 1)
        assert picture.height > (3 * 160 if suffix == ".png" else 160)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "strip.jpg"], "--out must end in .png, .gif, .mp4, got strip.jpg"),
        (["--mask-ratio", "0"], "reconstruct: A tube mask hides int(ratio * 16) of 16"),
    ],
)
def test_wrong_words_are_one_line(run, capsys, words, message):
    with pytest.raises(SystemExit) as end:
        main([str(run), str(run / "video.mp4"), *words])
    assert message in f"{end.value} {capsys.readouterr().err}"


def test_a_file_that_is_no_video_is_one_line(run, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    done = subprocess.run(
        [sys.executable, "-m", "videomae_jax.inference.reconstruct", run, tmp_path / "text.mp4"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("reconstruct: cannot read ") and "Traceback" not in done.stderr
