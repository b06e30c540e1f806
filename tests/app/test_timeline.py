import dataclasses

import numpy as np
import pytest

from videomae_jax.app.timeline import timeline
from videomae_jax.inference.classify import classify_windows


def test_the_best_classes_of_the_whole_are_followed_along_the_video(classifier, clip):
    model, processor = classifier
    found = timeline(clip, model, processor)
    windows = list(classify_windows(clip, model, processor=processor, top=10))
    assert found.seconds == [0, 2, 3.375, 5] == [*(window.start for window in windows), windows[-1].end]
    means = {label: np.mean([dict(window.scores)[label] for window in windows]) for label, _ in windows[0].scores}
    best = sorted(means, key=means.get, reverse=True)[:5]
    assert list(found.overall) == best == list(found.scores)
    for label in best:
        assert found.overall[label] == pytest.approx(means[label])
        assert found.scores[label] == [dict(window.scores)[label] for window in windows]


def test_a_model_of_whole_videos_sees_all_of_it_at_once(classifier, clip):
    model, processor = classifier
    found = timeline(clip, model, dataclasses.replace(processor, frame_stride=None), top=2)
    assert found.seconds == [0, 5] and len(found.overall) == 2
    (window,) = classify_windows(clip, model, processor=processor, stride=13, top=2)
    assert found.overall == pytest.approx(dict(window.scores))
