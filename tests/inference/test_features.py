import numpy as np
import pytest
from flax import nnx

from videomae_jax import VideoMAEForPreTraining, extract_features
from videomae_jax.data.video import read_video
from videomae_jax.inference.features import main
from videomae_jax.model.readout import pooled_features


def test_one_vector_a_window_is_what_the_classifier_sees(brightness, checkpoint, dark_then_bright):
    features = extract_features(dark_then_bright, checkpoint)
    assert features.features.shape == (7, 24) and features.features.dtype == np.float32
    second = read_video(dark_then_bright, range(8, 16, 2))[None]
    np.testing.assert_allclose(features.features[1], pooled_features(brightness, second)[0], atol=1e-5)
    assert features.start[1] == pytest.approx(0.8) and features.end[1] == pytest.approx(1.6)


def test_features_of_tokens_and_frames_are_the_encoders(brightness, dark_then_bright):
    tokens, frames = (extract_features(dark_then_bright, brightness, of=of, stride=2) for of in ("token", "frame"))
    assert tokens.features.shape == (7, 2, 4, 4, 24)
    clip = read_video(dark_then_bright, range(8, 16, 2))[None]
    encoded = brightness.videomae(clip).last_hidden_state
    np.testing.assert_allclose(tokens.features[1].reshape(32, 24), encoded[0], atol=1e-5)
    np.testing.assert_allclose(frames.features, tokens.features.mean(axis=(2, 3)), atol=1e-5)


def test_layers_are_the_hidden_states(brightness, dark_then_bright):
    features = extract_features(dark_then_bright, brightness, of="token", layers=(0, 2, -1), stride=2)
    assert features.features.shape == (7, 3, 2, 4, 4, 24)
    clip = read_video(dark_then_bright, range(8, 16, 2))[None]
    hidden = brightness.videomae(clip, output_hidden_states=True).hidden_states
    for place, layer in enumerate((0, 2, -1)):
        np.testing.assert_allclose(features.features[1, place].reshape(32, 24), hidden[layer][0], atol=1e-5)


def test_any_of_the_models_has_features(brightness, dark_then_bright):
    autoencoder = VideoMAEForPreTraining(brightness.config, rngs=nnx.Rngs(0))
    for model in (autoencoder, autoencoder.videomae):
        features = extract_features(dark_then_bright, model, stride=2)
        clip = read_video(dark_then_bright, range(0, 8, 2))[None]
        mean = autoencoder.videomae(clip).last_hidden_state.mean(axis=1)
        np.testing.assert_allclose(features.features[0], mean[0], atol=1e-5)


def test_what_is_not_there_says_so(brightness, dark_then_bright):
    with pytest.raises(ValueError, match="of must be 'clip', 'frame' or 'token', got 'video'"):
        extract_features(dark_then_bright, brightness, of="video", stride=2)
    for layer in (3, -4):
        with pytest.raises(ValueError, match=f"layers are 0 .the embeddings. to 2, got {layer}"):
            extract_features(dark_then_bright, brightness, layers=(layer,), stride=2)


def test_a_folder_is_written_video_by_video_and_gone_on_with(checkpoint, dark_then_bright, tmp_path, capsys):
    for place in ("a/one.mp4", "b/two.mp4"):
        (tmp_path / "videos" / place).parent.mkdir(parents=True)
        (tmp_path / "videos" / place).write_bytes(dark_then_bright.read_bytes())
    (tmp_path / "videos" / "b" / "broken.mp4").write_text("no video")
    words = [str(checkpoint), str(tmp_path / "videos"), "--out", str(tmp_path / "features"), "--of", "frame"]
    with pytest.raises(SystemExit, match="(?s)1 videos cannot be read.*broken.mp4"):
        main(words)
    files = sorted(file for file in (tmp_path / "features").rglob("*") if file.is_file())
    assert [str(file.relative_to(tmp_path / "features")) for file in files] == ["a/one.mp4.npz", "b/two.mp4.npz"]
    wanted = extract_features(dark_then_bright, checkpoint, of="frame")
    with np.load(files[0]) as stored:
        for name, values in wanted._asdict().items():
            np.testing.assert_array_equal(stored[name], values)
    written = [file.stat().st_mtime_ns for file in files]
    (tmp_path / "videos" / "b" / "broken.mp4").unlink()
    main(words)
    assert [file.stat().st_mtime_ns for file in files] == written
    assert "features of 2 videos are in" in capsys.readouterr().out


def test_a_folder_without_videos_is_an_error(checkpoint, tmp_path):
    with pytest.raises(SystemExit, match="features: there is no video file in"):
        main([str(checkpoint), str(tmp_path), "--out", str(tmp_path / "features")])
    with pytest.raises(SystemExit, match="features: .* is no folder; give the folder that the videos are in"):
        main([str(checkpoint), str(tmp_path / "clip.mp4"), "--out", str(tmp_path / "features")])
