import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from videomae_jax import VideoMAEConfig
from videomae_jax.data.sources import VideoSource
from videomae_jax.data.video import VideoReadError, write_video
from videomae_jax.evaluation.reconstruction import Reconstruction, draw
from videomae_jax.model.masking import Masking
from videomae_jax.training.mesh import batch_sharding, make_mesh
from videomae_jax.training.tasks import Pretraining

CONFIG = VideoMAEConfig.from_size(
    "tiny", image_size=32, num_frames=4, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, norm_pix_loss=False
)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Five videos of coloured noise."""
    folder, rng = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    paths = tuple(str(folder / f"{index}.mp4") for index in range(5))
    for path in paths:
        blocks = rng.integers(0, 256, (8, 4, 4, 3)).repeat(8, axis=1).repeat(8, axis=2)
        write_video(path, blocks.astype(np.uint8), fps=25)
    return VideoSource("noise", paths, np.full(5, -1, np.int32), ())


def reconstruction(config=CONFIG, batch_size=8, num_clips=5, **masks):
    masks = {"kind": "tube", "ratio": 0.75, "decoder_kind": "none", "decoder_ratio": 0.0} | masks
    masking = Masking(**masks, grid=config.grid)
    task = Pretraining(config, masking, flip=True, seed=0, dtype=jnp.dtype("float32"))
    graphdef, state = nnx.split(task.create(jax.random.key(0)))
    sharding = batch_sharding(make_mesh(data=8, fsdp=1, tensor=1))
    reports = []
    measure = Reconstruction(
        task, graphdef, sharding, num_clips=num_clips, batch_size=batch_size, stride=1, report=reports.extend
    ).measure
    return measure, nnx.to_pure_dict(state), reports


def silent(params):
    """The parameters of a decoder that predicts zero whatever it sees."""
    return params | {"decoder": params["decoder"] | {"head": jax.tree.map(jnp.zeros_like, params["decoder"]["head"])}}


def test_loss_of_a_silent_model_is_the_mean_square_of_the_masked_pixels(source):
    measure, params, _ = reconstruction()
    numbers, _ = measure(silent(params), source)
    assert numbers["loss"] == pytest.approx(1 / 3, rel=0.15)  # noise, uniform in [0, 1]
    assert numbers["relative_loss"] == pytest.approx(4, rel=0.2)  # its mean square over its variance
    assert (
        numbers["loss"] / numbers["relative_to_fill"] > numbers["loss"] / numbers["relative_loss"]
    )  # no fill for noise


def test_numbers_do_not_depend_on_the_batch_size(source):
    numbers = []
    for batch_size in (8, 16):
        measure, params, _ = reconstruction(batch_size=batch_size)
        numbers.append(measure(params, source)[0])
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-5)


def test_the_same_model_gets_the_same_numbers_and_picture(source):
    measure, params, _ = reconstruction()
    (first, picture), (second, same) = measure(params, source), measure(params, source)
    assert first == second
    np.testing.assert_array_equal(picture, same)


def test_normalised_targets_are_compared_with_each_cubes_mean(source):
    measure, params, _ = reconstruction(dataclasses.replace(CONFIG, norm_pix_loss=True))
    numbers, picture = measure(silent(params), source)
    assert numbers["relative_loss"] == pytest.approx(1, rel=1e-5)
    assert "relative_to_fill" not in numbers
    assert picture.dtype == np.uint8


def test_all_that_is_hidden_is_measured_also_where_training_decodes_a_part(source):
    measure, params, _ = reconstruction()
    measure_dual, _, _ = reconstruction(decoder_kind="running_cell", decoder_ratio=0.5)
    assert measure(params, source)[0] == pytest.approx(measure_dual(params, source)[0], rel=1e-6)


def test_a_broken_video_is_reported_and_not_counted(source, tmp_path):
    (tmp_path / "broken.mp4").write_text("no video")
    partly = dataclasses.replace(source, paths=(*source.paths[:4], str(tmp_path / "broken.mp4")))
    whole = dataclasses.replace(source, paths=source.paths[:4], labels=source.labels[:4])
    measure, params, reports = reconstruction()
    numbers, _ = measure(params, partly)
    assert [report.split("\t")[0] for report in reports if report] == [str(tmp_path / "broken.mp4")]
    measure_whole, _, _ = reconstruction(num_clips=4)
    assert numbers == pytest.approx(measure_whole(params, whole)[0], rel=1e-5)


def test_nothing_readable_is_an_error(tmp_path):
    (tmp_path / "empty.mp4").touch()
    source = VideoSource("mine", (str(tmp_path / "empty.mp4"),), np.full(1, -1, np.int32), ())
    measure, params, _ = reconstruction()
    with pytest.raises(VideoReadError, match="mine: none of its clips can be read"):
        measure(params, source)


def test_picture_shows_what_is_seen_and_fills_in_the_rest(source):
    measure, params, _ = reconstruction()
    _, picture = measure(silent(params), source)
    gap, side, cell = 6, 160, 40
    frames = picture.reshape(5, side + gap, 6, side + gap, 3).swapaxes(1, 2).astype(int)  # [clip view Y X 3]
    middles = frames[:, :, cell // 2 : side : cell, cell // 2 : side : cell]  # of every patch, away from soft edges
    original, masked, reconstructed = middles[:, 0], middles[:, 1], middles[:, 2]
    hidden = (masked == 128).all(axis=-1)
    assert hidden.mean() == 0.75
    np.testing.assert_array_equal(masked[~hidden], original[~hidden])
    np.testing.assert_array_equal(reconstructed[~hidden], original[~hidden])
    assert (reconstructed[hidden] == 0).all()  # a silent model paints black


def test_draw_enlarges_small_frames_and_shows_gray_ones():
    views = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 50, 40, 1), np.uint8)
    assert draw(views, height=160, gap=6).shape == (2 * (200 + 6), 6 * (160 + 6), 3)
