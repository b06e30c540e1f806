"""Folders of pictures as videos."""

import io

import cv2
import numpy as np
import pytest
import skimage.data
from PIL import Image

from videomae_jax.data.frames import VideoReadError
from videomae_jax.data.images import FrameFolder, decode_image, decode_jpeg

FRAMES = np.random.default_rng(0).integers(0, 256, (12, 10, 14, 3), np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Pictures 5 to 16 of 10 x 14 pixels, whose names sort otherwise than their numbers, and other files."""
    for number, frame in enumerate(FRAMES, start=5):
        Image.fromarray(frame).save(tmp_path / f"img_{number}.png")
    (tmp_path / "notes_3.txt").write_text("x")
    (tmp_path / "._img_4.png").write_text("left by macOS")
    Image.fromarray(FRAMES[0]).save(tmp_path / "poster.png")
    return tmp_path


def test_frames_are_in_the_order_of_their_numbers(folder):
    with FrameFolder(folder) as video:
        assert video.num_frames == 12 and video.path == str(folder)
        np.testing.assert_array_equal(video.read(range(12)), FRAMES)
        np.testing.assert_array_equal(np.stack(list(video.frames())), FRAMES)
        np.testing.assert_array_equal(video.read([7, 0, 7]), FRAMES[[7, 0, 7]])


def test_a_span_counts_from_its_first_picture(folder):
    with FrameFolder(folder, (7, 4)) as video:
        assert video.num_frames == 4
        np.testing.assert_array_equal(video.read([3, 0]), FRAMES[[5, 2]])
    with pytest.raises(VideoReadError, match="no picture of number 17"):
        FrameFolder(folder, (14, 4))


def test_the_last_number_of_a_name_counts(tmp_path):
    for number in (2, 10, 1):
        Image.fromarray(FRAMES[number]).save(tmp_path / f"clip7_{number:03}.bmp")
    np.testing.assert_array_equal(FrameFolder(tmp_path).read(range(3)), FRAMES[[1, 2, 10]])


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_lossy_pictures_decode_as_in_pillow(tmp_path, suffix):
    smooth = cv2.resize(FRAMES[0], (64, 48), interpolation=cv2.INTER_CUBIC)
    Image.fromarray(smooth).save(tmp_path / f"1.{suffix}", quality=95)
    expected = np.asarray(Image.open(tmp_path / f"1.{suffix}").convert("RGB"))
    # Two builds of the same library, that of JPEG with another rounding.
    np.testing.assert_allclose(FrameFolder(tmp_path).read([0])[0], expected, atol=3)


def test_gray_and_turned_pictures_become_upright_rgb(tmp_path):
    Image.fromarray(FRAMES[0, ..., 0]).save(tmp_path / "1.png")
    np.testing.assert_array_equal(decode_image((tmp_path / "1.png").read_bytes()), np.repeat(FRAMES[0, ..., :1], 3, 2))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(FRAMES[0]).save(tmp_path / "2.png", exif=exif)
    np.testing.assert_array_equal(decode_image((tmp_path / "2.png").read_bytes()), np.rot90(FRAMES[0], -1))


@pytest.mark.parametrize("content", [b"", b"no picture", b"\xff\xd8\xff\xe0 cut off"])
def test_what_does_not_decode_is_named(folder, content):
    (folder / "img_9.png").write_bytes(content)
    video = FrameFolder(folder)
    assert len(video.read([0, 1])) == 2
    with pytest.raises(VideoReadError, match="img_9.png: it does not decode") as error:
        video.read([0, 4])
    assert error.value.path == str(folder)


def test_pictures_of_two_sizes_are_no_video(folder):
    Image.fromarray(FRAMES[0, :8]).save(folder / "img_9.png")
    with pytest.raises(VideoReadError, match="change size"):
        FrameFolder(folder).read([0, 4])


def test_indices_are_checked(folder):
    for indices in ([], [12], [-1], [[0]]):
        with pytest.raises(ValueError, match="indices must|frames .* asked of"):
            FrameFolder(folder).read(indices)


def test_folders_without_frames_are_errors(tmp_path, folder):
    with pytest.raises(VideoReadError, match="No such file"):
        FrameFolder(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(VideoReadError, match="no numbered picture"):
        FrameFolder(tmp_path / "empty")
    Image.fromarray(FRAMES[0]).save(folder / "other_09.png")
    with pytest.raises(VideoReadError, match="img_9.png and other_09.png have the same number"):
        FrameFolder(folder)


@pytest.mark.parametrize("quality", [60, 90])
def test_fast_jpeg_is_about_as_near_to_a_photograph_as_pillows(quality):
    photograph, file = skimage.data.astronaut()[:256, :340], io.BytesIO()
    Image.fromarray(photograph).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    decoded = decode_jpeg(file.getvalue()), Image.open(file)
    errors = [np.square(np.asarray(image, float) - photograph).mean() for image in decoded]
    assert errors[0] < 1.3 * errors[1] < 40


@pytest.mark.parametrize("damage", [lambda jpeg: b"", lambda jpeg: b"none", lambda jpeg: jpeg[: len(jpeg) // 2]])
def test_damaged_jpeg_is_an_error(damage):
    jpeg = cv2.imencode(".jpg", FRAMES[0])[1].tobytes()
    assert decode_jpeg(jpeg).shape == (10, 14, 3)
    with pytest.raises(ValueError):
        decode_jpeg(damage(jpeg))
