import numpy as np
import pytest
from flax import nnx
from PIL import Image

from videomae_jax import VideoMAEForPreTraining, VideoMAEImageProcessor
from videomae_jax.inference.attention_map import AttentionMap, attention_map, main, overlaid

video = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)


def test_weights_are_the_models_and_sum_to_one(brightness):
    clip = VideoMAEImageProcessor.for_model(brightness.config)(video, return_tensors="jax").pixel_values
    attentions = brightness(clip, output_attentions=True).attentions
    for layer in (0, 1, -1):
        result = attention_map(video, brightness, layer=layer)
        np.testing.assert_allclose(result.weights.reshape(-1), attentions[layer][0].mean(axis=(0, 1)), atol=1e-6)
        assert result.weights.shape == (2, 4, 4) and result.weights.sum() == pytest.approx(1, abs=1e-5)
        np.testing.assert_array_equal(result.frames, video)


def test_any_of_the_models_will_do(brightness):
    autoencoder = VideoMAEForPreTraining(brightness.config, rngs=nnx.Rngs(0))
    whole, encoder = (attention_map(video, model).weights for model in (autoencoder, autoencoder.videomae))
    np.testing.assert_array_equal(whole, encoder)


def test_the_most_attention_is_red_and_the_least_is_blue():
    weights = np.zeros((2, 4, 4), np.float32)
    weights[1, 3, 3] = 1
    picture = overlaid(AttentionMap(np.full((4, 32, 32, 3), 128, np.uint8), weights)).astype(int)
    red, _, blue = np.moveaxis(picture, -1, 0)
    assert (blue[:2] > red[:2]).all()
    assert red[2, -1, -1] > blue[2, -1, -1] and red[3, -1, -1] > blue[3, -1, -1]
    assert blue[3, 0, 0] > red[3, 0, 0]


def test_the_command_draws(checkpoint, dark_then_bright, tmp_path, capsys):
    main([str(checkpoint), str(dark_then_bright), "--layer", "0", "--out", str(tmp_path / "map.png")])
    assert "times an even share" in capsys.readouterr().out
    assert Image.open(tmp_path / "map.png").height > 2 * 160
    with pytest.raises(SystemExit, match="attention_map: layers are 0 to 1, got 2"):
        main([str(checkpoint), str(dark_then_bright), "--layer", "2"])
