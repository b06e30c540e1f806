import numpy as np
import pytest
from flax import nnx

import videomae_jax
from videomae_jax import VideoMAEForPreTraining, classify, classify_windows
from videomae_jax.data.sampling import dense_views
from videomae_jax.data.video import read_video
from videomae_jax.inference.classify import main


def test_the_whole_video_counts_and_not_its_beginning(checkpoint, dark_then_bright):
    best, other = classify(dark_then_bright, checkpoint)
    assert best.label == "bright" and other.label == "dark"
    assert best.score + other.score == pytest.approx(1)
    assert next(classify_windows(dark_then_bright, checkpoint)).scores[0].label == "dark"


def test_scores_are_the_mean_of_softmax_over_the_views(brightness, dark_then_bright):
    (label, score), _ = classify(dark_then_bright, brightness, stride=3, segments=4, crops=1)
    clips = [read_video(dark_then_bright, clip) for clip in dense_views(51, 4, 3, 4)]
    probabilities = nnx.softmax(brightness(np.stack(clips)).logits).mean(axis=0)
    assert score == pytest.approx(float(probabilities.max()), abs=1e-6)
    assert label == brightness.config.id2label[int(probabilities.argmax())]


def test_only_the_best_are_named(brightness, dark_then_bright):
    assert len(classify(dark_then_bright, brightness, stride=2, top=1)) == 1
    with pytest.raises(ValueError, match="top must be at least 1, got 0"):
        classify(dark_then_bright, brightness, stride=2, top=0)


def test_windows_go_on_to_the_last_frame_and_say_when(checkpoint, dark_then_bright):
    windows = list(classify_windows(dark_then_bright, checkpoint))
    # 51 frames at 10 a second in windows of 8 frames; the last one ends with the video.
    np.testing.assert_allclose([window.start for window in windows], [0, 0.8, 1.6, 2.4, 3.2, 4.0, 4.4], atol=1e-6)
    np.testing.assert_allclose([window.end for window in windows], [0.8, 1.6, 2.4, 3.2, 4.0, 4.8, 5.1], atol=1e-6)
    assert [window.scores[0].label for window in windows[:2]] == ["dark", "bright"]
    # Two of its four frames are dark, of the one before none.
    assert windows[-1].scores[0].score < windows[-2].scores[0].score


def test_windows_may_overlap_and_come_some_at_a_time(brightness, dark_then_bright):
    windows = list(classify_windows(dark_then_bright, brightness, stride=1, hop=1))
    assert len(windows) == 51 - 4 + 1
    frames = read_video(dark_then_bright)
    alone = brightness(frames[None, 30:34]).logits
    assert windows[30].scores[0].score == pytest.approx(float(nnx.softmax(alone).max()), abs=1e-5)


def test_a_video_shorter_than_a_window_is_one(brightness, dark_then_bright):
    (only,) = classify_windows(dark_then_bright, brightness, stride=20)
    assert (only.start, only.end) == (0, pytest.approx(5.1))


def test_what_cannot_be_classified_says_why(brightness, checkpoint, dark_then_bright, tmp_path):
    with pytest.raises(ValueError, match="the model's processor has no frame_stride: give stride="):
        next(classify_windows(dark_then_bright, brightness))
    with pytest.raises(ValueError, match="a model alone does not say how far apart .*: give stride="):
        classify(dark_then_bright, brightness)
    with pytest.raises(ValueError, match="stride 1 and one segment, got .* stride=0"):
        classify(dark_then_bright, checkpoint, stride=0)
    with pytest.raises(ValueError, match="stride 1 and one segment, got .* stride=0"):
        next(classify_windows(dark_then_bright, checkpoint, stride=0))
    with pytest.raises(ValueError, match=r"bright.mp4 is a video, and stands where the checkpoint belongs\."):
        classify(checkpoint, dark_then_bright)
    with pytest.raises(ValueError, match="windows must be at least one frame apart, got hop=0"):
        next(classify_windows(dark_then_bright, brightness, stride=2, hop=0))
    with pytest.raises(
        ValueError, match="is a VideoMAEForPreTraining; this takes a VideoMAEForVideoClassification. Fine-tune"
    ):
        classify(dark_then_bright, VideoMAEForPreTraining(brightness.config, rngs=nnx.Rngs(0)))
    with pytest.raises(videomae_jax.data.frames.VideoReadError, match="no-such.mp4"):
        classify(tmp_path / "no-such.mp4", brightness, stride=2)


def test_the_command_names_classes_of_the_whole_and_of_its_parts(checkpoint, dark_then_bright, capsys):
    main([str(checkpoint), str(dark_then_bright), "--top", "1"])
    assert capsys.readouterr().out.endswith("  bright\n")
    main([str(checkpoint), str(dark_then_bright), "--windows"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7
    assert lines[0].startswith("    0.00 s to     0.80 s  dark ") and ", bright 0." in lines[0]
    with pytest.raises(SystemExit, match="classify: cannot read nothing.mp4"):
        main([str(checkpoint), "nothing.mp4"])
