import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from videomae_jax import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEForVideoClassification
from videomae_jax.model import attention, layers
from videomae_jax.model.flops import TRAINING, classification_flops, pretraining_flops
from videomae_jax.model.masking import Masking

# One layer each, since XLA counts a loop's body once; wide enough for the products to outweigh what is left out.
ONE_LAYER = VideoMAEConfig.from_size(
    "small", image_size=64, num_frames=8, num_hidden_layers=1, decoder_num_hidden_layers=1
)


@pytest.mark.parametrize(("size", "published"), [("small", 57), ("base", 180), ("large", 597), ("huge", 1192)])
def test_a_view_takes_what_the_paper_counts(size, published):
    config = VideoMAEConfig.from_size(size)
    assert classification_flops(config, config.num_patches) / 2e9 == pytest.approx(published, rel=0.01)


def test_pretraining_takes_what_the_visible_and_the_decoded_tokens_take():
    # Patch embedding 0.4, encoder 28, decoder 37, its head 1.7 GFLOP.
    assert pretraining_flops(VideoMAEConfig.from_size("base"), 160, 1408) / 1e9 == pytest.approx(67, abs=1)


def compiled_flops(function, *arguments):
    return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]


def test_the_compiler_counts_the_same(monkeypatch):
    # Without tiles, of which it would count one.
    monkeypatch.setattr(layers, "attend", attention.attend_plainly)
    masking = Masking("tube", 0.75, "none", 0.0, ONE_LAYER.grid)
    mask = masking(jax.random.split(jax.random.key(0), 2))
    video = jnp.zeros((2, *ONE_LAYER.clip_size, 3))

    pretraining = nnx.split(VideoMAEForPreTraining(ONE_LAYER, remat="none", rngs=nnx.Rngs(0)))
    classifier = nnx.split(VideoMAEForVideoClassification(ONE_LAYER, remat="none", rngs=nnx.Rngs(0)))

    def loss(state):
        return nnx.merge(pretraining[0], state)(video, visible_ids=mask.visible, masked_ids=mask.masked).loss

    ours = 2 * pretraining_flops(ONE_LAYER, mask.visible.shape[1], mask.masked.shape[1])
    assert compiled_flops(loss, pretraining[1]) == pytest.approx(ours, rel=0.05)
    assert compiled_flops(jax.grad(loss), pretraining[1]) == pytest.approx(TRAINING * ours, rel=0.05)

    ours = 2 * classification_flops(ONE_LAYER, ONE_LAYER.num_patches)
    logits = compiled_flops(lambda state: nnx.merge(classifier[0], state)(video).logits, classifier[1])
    assert logits == pytest.approx(ours, rel=0.05)
