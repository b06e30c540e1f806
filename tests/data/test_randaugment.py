from collections import Counter
from math import sqrt

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from videomae_jax.data.randaugment import GEOMETRIC, OPERATIONS, Operation, RandAugment


def grey_outside(image, matrix):
    return image.transform(image.size, Image.AFFINE, matrix, resample=Image.BICUBIC, fillcolor=(128, 128, 128))


def added(image, amount):
    return image.point([min(255, i + amount) if i < 128 else i for i in range(256)] * 3)


def posterized(image, bits):
    return ImageOps.posterize(image, bits) if bits > 0 else Image.new("RGB", image.size)


# What the original asks of Pillow, at the level m from 0 to 10 and with the sign s.
PILLOW = {
    "autocontrast": lambda i, m, s: ImageOps.autocontrast(i),
    "equalize": lambda i, m, s: ImageOps.equalize(i),
    "invert": lambda i, m, s: ImageOps.invert(i),
    "posterize": lambda i, m, s: posterized(i, 4 - int(m / 10.0 * 4)),
    "solarize": lambda i, m, s: ImageOps.solarize(i, 256 - int(m / 10.0 * 256)),
    "solarize_add": lambda i, m, s: added(i, int(m / 10.0 * 110)),
    "color": lambda i, m, s: ImageEnhance.Color(i).enhance(1.0 + s * (m / 10.0 * 0.9)),
    "contrast": lambda i, m, s: ImageEnhance.Contrast(i).enhance(1.0 + s * (m / 10.0 * 0.9)),
    "brightness": lambda i, m, s: ImageEnhance.Brightness(i).enhance(1.0 + s * (m / 10.0 * 0.9)),
    "sharpness": lambda i, m, s: ImageEnhance.Sharpness(i).enhance(1.0 + s * (m / 10.0 * 0.9)),
    "rotate": lambda i, m, s: i.rotate(s * (m / 10.0 * 30.0), resample=Image.BICUBIC, fillcolor=(128, 128, 128)),
    "shear_x": lambda i, m, s: grey_outside(i, (1, s * (m / 10.0 * 0.3), 0, 0, 1, 0)),
    "shear_y": lambda i, m, s: grey_outside(i, (1, 0, 0, s * (m / 10.0 * 0.3), 1, 0)),
    "translate_x": lambda i, m, s: grey_outside(i, (1, 0, s * (m / 10.0 * 0.45) * i.width, 0, 1, 0)),
    "translate_y": lambda i, m, s: grey_outside(i, (1, 0, 0, 0, 1, s * (m / 10.0 * 0.45) * i.height)),
}


def some_clips():
    rng = np.random.default_rng(0)
    y, x, c = np.mgrid[:37, :52, :3]
    waves = np.stack([110 + 90 * np.sin(x / (7 + t) + c) * np.cos(y / 5) for t in range(4)])
    narrow = rng.integers([40, 90, 3], [200, 91, 250], (3, 30, 41, 3))  # one channel is all of one level
    return {
        "waves": waves.astype(np.uint8),
        "noise": rng.integers(0, 256, (3, 48, 33, 3)).astype(np.uint8),
        "narrow": narrow.astype(np.uint8),
        # Dark and nearly even frames: little to equalize, and for some too few pixels.
        "rare": np.where(rng.random((5, 40, 50, 3)) < 0.01, rng.integers(0, 256, (5, 40, 50, 3)), 7).astype(np.uint8),
        "tiny": rng.integers(0, 256, (3, 2, 5, 3)).astype(np.uint8),
        "black": np.zeros((2, 16, 16, 3), np.uint8),
        "every other column": rng.integers(0, 256, (3, 24, 80, 3)).astype(np.uint8)[:, :, ::2],
    }


CLIPS = some_clips()


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_pillows_to_the_last_bit(name, clip):
    frames = CLIPS[clip]
    before = frames.copy()
    for magnitude in (0, 0.3, 2.5, 5.0, 6.1, 7.0, 7.5, 8.77, 10):
        for sign in (1, -1):
            got = Operation(name, magnitude, sign)(frames)
            assert got.dtype == np.uint8 and got.shape == frames.shape and got.flags.writeable
            for frame, got_frame in zip(frames, got, strict=True):
                expected = PILLOW[name](Image.fromarray(frame), magnitude, sign)
                np.testing.assert_array_equal(got_frame, np.asarray(expected), f"{magnitude} {sign}")
    np.testing.assert_array_equal(frames, before)


def test_a_clip_goes_through_what_is_drawn_one_after_the_other():
    randaugment = RandAugment()
    for seed in range(40):
        expected = [Image.fromarray(frame) for frame in CLIPS["waves"]]
        for name, magnitude, sign in randaugment.draw(np.random.default_rng(seed)):
            expected = [PILLOW[name](image, magnitude, sign) for image in expected]
        got = randaugment(CLIPS["waves"], np.random.default_rng(seed))
        np.testing.assert_array_equal(got, np.stack(expected))


def test_frames_that_are_alike_stay_alike():
    frames = np.repeat(CLIPS["noise"][:1], 4, 0)
    clips = [RandAugment(probability=1)(frames, np.random.default_rng(seed)) for seed in range(40)]
    assert all((clip == clip[:1]).all() for clip in clips)
    assert len({clip.tobytes() for clip in clips}) > 30


def test_draws():
    """Chances are those of the description, within five standard errors."""
    rng = np.random.default_rng(0)
    num_clips = 6000
    draws = [RandAugment().draw(rng) for _ in range(num_clips)]
    drawn = [operation for operations in draws for operation in operations]
    # Each of four is applied or not, by itself.
    counts = np.bincount([len(operations) for operations in draws], minlength=5) / num_clips
    np.testing.assert_allclose(counts, np.array([1, 4, 6, 4, 1]) / 16, atol=5 * sqrt(0.25 / num_clips))
    # All are equally likely, at the first place as at the last, and nothing hinders the same one twice.
    names = Counter(operation.name for operation in drawn)
    assert set(names) == set(OPERATIONS)
    share = 1 / len(OPERATIONS)
    for name in OPERATIONS:
        assert abs(names[name] / len(drawn) - share) < 5 * sqrt(share / len(drawn))
    pairs = [(a.name, b.name) for operations in draws for a, b in zip(operations, operations[1:], strict=False)]
    assert abs(np.mean([a == b for a, b in pairs]) - share) < 5 * sqrt(share / len(pairs))
    # Magnitudes are N(7, 0.5), each one by itself.
    magnitudes = np.array([operation.magnitude for operation in drawn])
    assert abs(magnitudes.mean() - 7) < 5 * 0.5 / sqrt(len(drawn))
    assert abs(magnitudes.std() - 0.5) < 5 * 0.5 / sqrt(2 * len(drawn))
    assert abs(np.mean(magnitudes < 6.5) - 0.1587) < 5 * sqrt(0.1587 * 0.8413 / len(drawn))
    assert all(len({operation.magnitude for operation in operations}) == len(operations) for operations in draws)
    signs = np.array([operation.sign for operation in drawn])
    assert set(signs) == {1, -1} and abs(signs.mean()) < 5 / sqrt(len(drawn))
    assert abs(np.corrcoef(signs, magnitudes)[0, 1]) < 5 / sqrt(len(drawn))


def test_magnitudes_are_cut_off():
    drawn = RandAugment(magnitude=5, magnitude_std=8, num_ops=2000, probability=1).draw(np.random.default_rng(0))
    magnitudes = np.array([operation.magnitude for operation in drawn])
    assert magnitudes.min() == 0 and magnitudes.max() == 10
    for end in (0, 10):  # P(N(5, 8) <= 0) = 0.266
        assert abs(np.mean(magnitudes == end) - 0.266) < 0.05


@pytest.mark.parametrize("probability", [0, 0.2, 1])
def test_probability_of_an_operation(probability):
    rng = np.random.default_rng(0)
    share = np.mean([len(RandAugment(probability=probability, num_ops=10).draw(rng)) for _ in range(500)]) / 10
    assert abs(share - probability) <= 5 * sqrt(probability * (1 - probability) / 5000)


def test_the_generator_decides_everything():
    randaugment = RandAugment()
    assert randaugment.draw(np.random.default_rng(3)) == randaugment.draw(np.random.default_rng(3))
    rng = np.random.default_rng(3)
    assert randaugment.draw(rng) != randaugment.draw(rng)


def test_operations_can_be_left_out():
    kept = tuple(name for name in OPERATIONS if name not in GEOMETRIC)
    assert len(OPERATIONS) == 15 and len(kept) == 10
    drawn = RandAugment(num_ops=2000, operations=kept).draw(np.random.default_rng(0))
    assert {operation.name for operation in drawn} == set(kept)


@pytest.mark.parametrize("name", GEOMETRIC)
def test_geometric_operations_move_pixels(name):
    frame = np.zeros((1, 40, 40, 3), np.uint8)
    frame[:, 15:25, 15:25] = 255
    moved = Operation(name, 10, 1)(frame)
    assert (moved[0, 0, :] == 128).any() or (moved[0, :, 0] == 128).any() or (moved[0, -1] == 128).any()


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name not in GEOMETRIC])
def test_other_operations_leave_pixels_where_they_are(name):
    frames = CLIPS["noise"]
    mirrored = Operation(name, 8, 1)(frames[:, ::-1, ::-1])
    np.testing.assert_array_equal(mirrored[:, ::-1, ::-1], Operation(name, 8, 1)(frames))


@pytest.mark.parametrize(
    "name, expected",
    [
        ("rand-m7-n4-mstd0.5-inc1", RandAugment()),
        ("rand-inc1", RandAugment(10, 2, 0)),
        ("rand-inc1-mstd1-n3-m8.5", RandAugment(8.5, 3, 1)),
        ("rand-m9-mstd0.5-inc1", RandAugment(9, 2, 0.5)),
    ],
)
def test_names(name, expected):
    assert RandAugment.from_name(name) == expected


def test_a_name_with_fewer_operations():
    randaugment = RandAugment.from_name("rand-m5-inc1", ("invert", "color"))
    assert randaugment == RandAugment(5, 2, 0, operations=("invert", "color"))


@pytest.mark.parametrize(
    "name, complaint",
    [
        ("augmix-m7-inc1", "'augmix-m7-inc1'"),
        ("rand-m7-n4-mstd0.5", "'inc1'"),
        ("rand-m7-n4-inc0", "'inc1'"),
        ("rand-m7-w0-inc1", "'w0'"),
        ("rand-m7-n2.5-inc1", "'n2.5'"),
        ("rand-m-inc1", "'m'"),
        ("rand-m7x-inc1", "'m7x'"),
        ("rand-m7-mstd-inc1", "'mstd'"),
        ("rand-m7--inc1", "''"),
        ("rand-m11-inc1", "magnitude=11"),
    ],
)
def test_names_that_are_not_known(name, complaint):
    with pytest.raises(ValueError, match=complaint):
        RandAugment.from_name(name)


@pytest.mark.parametrize(
    "wrong",
    [
        {"magnitude": -1},
        {"magnitude": 10.5},
        {"num_ops": -1},
        {"magnitude_std": -0.1},
        {"probability": 1.1},
        {"probability": -0.1},
        {"operations": ()},
        {"operations": ("invert", "blur")},
    ],
)
def test_what_cannot_be_is_refused(wrong):
    [(name, value)] = wrong.items()
    with pytest.raises(ValueError, match="operations must be some" if name == "operations" else f"{name}={value}"):
        RandAugment(**wrong)
