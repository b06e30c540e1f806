import csv
import os

import numpy as np
import pytest

from videomae_jax.data import builtin
from videomae_jax.data.video import VideoFile, read_video


def smooth_photograph(height, width):
    """Horizontal position in red, vertical in green: a frame's colours tell where the camera looks."""
    y, x = np.mgrid[:height, :width]
    return np.stack([200 * x / width + 20, 200 * y / height + 20, 0 * x], -1).astype(np.uint8)


def film(photograph, move, seed=0, smallest=0.7):
    return builtin.film(photograph, move, np.random.default_rng(seed), smallest)


def measured_motion(move):
    """From first to last frame: the centre's way (x, y) in window sides, growth, turn in degrees."""
    frames = film(smooth_photograph(300, 400), move).astype(float)
    position = frames[..., :2] / 200 * (400, 300)
    side = np.hypot(*(position[0, 64, -1] - position[0, 64, 0]))
    centers = position[[0, -1]].mean((1, 2)) / side
    across = [position[t, :, -8:].mean((0, 1)) - position[t, :, :8].mean((0, 1)) for t in (0, -1)]
    sizes = np.hypot(*np.transpose(across))
    angles = np.degrees([np.arctan2(y, x) for x, y in across])
    return centers[1] - centers[0], sizes[1] / sizes[0], angles[1] - angles[0]


@pytest.mark.parametrize("move", builtin.CAMERA_MOVES)
def test_camera_moves_as_its_name_says(move):
    (right, down), growth, clockwise = measured_motion(move)
    expected = {
        "pan_left": right < -0.2,
        "pan_right": right > 0.2,
        "tilt_up": down < -0.2,
        "tilt_down": down > 0.2,
        "zoom_in": growth < 0.85,
        "zoom_out": growth > 1.15,
        "rotate_cw": clockwise > 10,
        "rotate_ccw": clockwise < -10,
    }
    assert expected.get(move, True)
    if not move.startswith(("pan", "shake")):
        assert abs(right) < 0.03
    if not move.startswith(("tilt", "shake")):
        assert abs(down) < 0.03
    if not move.startswith("zoom"):
        assert abs(growth - 1) < 0.03
    if not move.startswith("rotate"):
        assert abs(clockwise) < 2


def test_static_stands_still_and_shake_does_not():
    static = film(smooth_photograph(300, 400), "static", seed=1).astype(int)
    shake = film(smooth_photograph(300, 400), "shake", seed=1).astype(int)
    assert np.abs(np.diff(static, axis=0)).max() == 0
    assert np.abs(np.diff(shake, axis=0)).mean((1, 2, 3)).max() > 0.3


@pytest.mark.parametrize("move", builtin.CAMERA_MOVES)
@pytest.mark.parametrize("size", [(120, 300), (300, 120), (200, 200)])
def test_camera_never_leaves_the_photograph(move, size):
    photograph = smooth_photograph(*size)
    for seed in range(3):
        frames = film(photograph, move, seed).astype(int)
        # Inside, the position that the colours tell grows steadily along the rows; a reflection would turn it
        # back.
        steps = np.diff(frames[:, 64, ::8, :2], axis=1)
        travelled = np.abs(steps.sum(1))
        assert (np.abs(travelled - np.abs(steps).sum(1)) <= 6).all()


def test_the_window_is_at_least_as_large_as_asked_for():
    def shares(smallest):
        """The window's width over the photograph's, in many draws."""
        frames = [film(smooth_photograph(200, 200), "static", seed, smallest)[0].astype(float) for seed in range(40)]
        return np.array([(frame[64, -1, 0] - frame[64, 0, 0]) / 200 for frame in frames])

    # A window's largest side is 0.85 of the photograph's.
    for smallest in (0.35, 0.7):
        assert shares(smallest).min() == pytest.approx(0.85 * smallest, abs=0.05)
        assert shares(smallest).max() == pytest.approx(0.85, abs=0.05)


def test_clips_are_on_disk_as_the_manifests_say(builtin_clips):
    for split, names in builtin.PHOTOGRAPHS.items():
        path = builtin.manifest(split)
        rows = list(csv.DictReader(path.open()))
        assert len(rows) == len(names) * 10
        assert {row["photograph"] for row in rows} == {name.split(".")[0] for name in names}
        assert all(row["path"].split("/")[1] == row["label"] for row in rows)
    with VideoFile(path.parent / rows[0]["path"]) as video:
        assert video.num_frames == 32
        assert video.read([0, 31]).shape == (2, 128, 128, 3)


def test_training_clips_have_a_light_of_their_own_and_validation_clips_have_not(builtin_clips):
    def tint(split, photograph):
        """Red over blue of each clip of a photograph."""
        path = builtin.manifest(split)
        rows = [row for row in csv.DictReader(path.open()) if row["photograph"] == photograph]
        colours = [read_video(path.parent / row["path"], [0]).mean(axis=(0, 1, 2)) for row in rows]
        return np.array([red / blue for red, _, blue in colours])

    assert tint("train", "camera").std() > 0.2  # a gray photograph
    assert tint("train", "astronaut").std() > 0.2
    assert tint("val", "chelsea").std() < 0.2


def test_moving_clips_move_on_disk_and_static_ones_do_not(builtin_clips):
    path = builtin.manifest("val")
    change = {}
    for row in csv.DictReader(path.open()):
        first, last = read_video(path.parent / row["path"], [0, 15]).astype(int)
        change.setdefault(row["label"], []).append(np.abs(first - last).mean())
    worst_static = max(change.pop("static"))
    assert worst_static < 2
    assert min(map(min, change.values())) > 2 * worst_static


def test_written_once_and_whole(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VIDEOMAE_JAX_CACHE", str(tmp_path / "cache"))
    calls = []

    def write_clips(folder):
        calls.append(folder)
        assert folder != builtin.clips_folder()
        (folder / "train.csv").write_text("path\n")

    monkeypatch.setattr(builtin, "write_clips", write_clips)
    first, second = builtin.manifest("train"), builtin.manifest("train")
    assert first == second == builtin.clips_folder() / "train.csv" and first.exists()
    assert len(calls) == 1
    assert os.listdir(tmp_path / "cache") == [builtin.clips_folder().name]
    assert str(builtin.clips_folder()) in capsys.readouterr().out


def test_the_slower_of_two_processes_drops_its_copy(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDEOMAE_JAX_CACHE", str(tmp_path))

    def write_clips(folder):
        (folder / "train.csv").write_text("mine")
        builtin.clips_folder().mkdir()  # meanwhile the other process finishes
        (builtin.clips_folder() / "train.csv").write_text("theirs")

    monkeypatch.setattr(builtin, "write_clips", write_clips)
    assert builtin.manifest("train").read_text() == "theirs"
    assert os.listdir(tmp_path) == [builtin.clips_folder().name]


def test_an_interrupted_writer_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDEOMAE_JAX_CACHE", str(tmp_path))

    def write_clips(folder):
        (folder / "half.mp4").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(builtin, "write_clips", write_clips)
    with pytest.raises(KeyboardInterrupt):
        builtin.manifest("val")
    assert os.listdir(tmp_path) == []


def test_missing_scikit_image_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDEOMAE_JAX_CACHE", str(tmp_path))
    monkeypatch.setattr(builtin.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install scikit-image"):
        builtin.manifest("train")
