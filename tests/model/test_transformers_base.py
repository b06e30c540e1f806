"""The published size against transformers; the other tests of both use models that compile in a second."""

import numpy as np
import pytest
import torch
from both_libraries import as_torch, distance, inputs, ours_and_theirs

from videomae_jax import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEForVideoClassification


@pytest.mark.full
@pytest.mark.parametrize("kind", [VideoMAEForPreTraining, VideoMAEForVideoClassification])
def test_a_base_model_is_the_same(kind, tmp_path):
    """Noise as large in a sum of 768 terms as elsewhere in one of 32."""
    config = VideoMAEConfig(use_mean_pooling=kind is VideoMAEForVideoClassification, num_labels=400)
    ours, theirs = ours_and_theirs(config, tmp_path, kind, noise=0.3 * (32 / 768) ** 0.5)
    clips, mask = inputs(config, batch=1)
    flags = dict(output_hidden_states=True)
    with torch.no_grad():
        if kind is VideoMAEForPreTraining:
            output, expected = ours(clips, mask, **flags), theirs(*as_torch(clips, mask), **flags)
        else:
            label = np.array([7])
            output, expected = ours(clips, label, **flags), theirs(as_torch(clips), torch.tensor(label), **flags)
    for mine, wanted in zip(output.hidden_states, expected.hidden_states, strict=True):
        assert distance(mine, wanted) < 1e-4
    assert distance(output.logits, expected.logits) < 1e-4
    assert distance(output.loss, expected.loss) < 1e-4
