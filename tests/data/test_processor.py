import json
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoImageProcessor
from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil

from videomae_jax import VideoMAEConfig, VideoMAEFeatureExtractor, VideoMAEImageProcessor, VideoMAEModel
from videomae_jax.data.clips import CenterClip
from videomae_jax.data.pipeline import heldout_batches
from videomae_jax.data.sources import VideoSource
from videomae_jax.data.video import VideoFile, VideoReadError, read_video, write_video

ROOT = Path(__file__).parents[2]
RAW = dict(do_rescale=False, do_normalize=False)
SIZES = [
    {"shortest_edge": 40},
    {"shortest_edge": 20},
    {"shortest_edge": 40, "longest_edge": 50},
    {"shortest_edge": 17, "longest_edge": 23},
    {"height": 41, "width": 33},
    {"max_height": 40, "max_width": 45},
]
SAVED = dict(do_center_crop=False, size={"height": 20, "width": 30}, resample=3, image_mean=[0.1, 0.2, 0.3])


def noise(*shape, seed=0, dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(dtype)


def smooth(frames, height, width):
    """Frames whose pixels tell where they come from."""
    t, y, x = np.mgrid[:frames, :height, :width]
    channels = [128 + 120 * np.sin(x / 9 + c + t) * np.cos(y / 7) for c in range(3)]
    return np.stack(channels, -1).astype(np.uint8)


def theirs(videos, *, options, **call):
    """What transformers makes of it, channels last; its frames come out one by one, and of whatever type."""
    out = VideoMAEImageProcessorPil(**options)(videos, return_tensors="np", **call)["pixel_values"]
    return np.moveaxis(np.asarray(out), 2, -1).astype(np.float32)


def assert_same_as_theirs(videos, *, their_videos=None, call=None, **options):
    call = call or {}
    want = theirs(videos if their_videos is None else their_videos, options=options, **call)
    got = VideoMAEImageProcessor(**options)(videos, **call).pixel_values
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, want)


# The pixels of transformers.


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("frame", [(37, 53), (53, 37), (240, 320), (320, 240), (20, 90), (24, 24), (12, 400), (20, 51)])
def test_sizes_and_crops_are_transformers(frame, size):
    videos = list(noise(2, *frame, 3))
    assert_same_as_theirs(videos, size=size, crop_size={"height": 32, "width": 36})
    assert_same_as_theirs(videos, size=size, do_center_crop=False)


@given(
    height=st.integers(5, 90),
    width=st.integers(5, 90),
    size=st.one_of(
        st.fixed_dictionaries({"shortest_edge": st.integers(5, 60)}),
        st.fixed_dictionaries({"shortest_edge": st.integers(5, 60), "longest_edge": st.integers(30, 60)}),
        st.fixed_dictionaries({"height": st.integers(1, 60), "width": st.integers(1, 60)}),
        st.fixed_dictionaries({"max_height": st.integers(30, 60), "max_width": st.integers(30, 60)}),
    ),
    crop=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    resample=st.sampled_from(Image.Resampling),
    flags=st.lists(st.booleans(), min_size=4, max_size=4),
    form=st.sampled_from(["uint8", "whole", "fractions", "double", "gray"]),
)
@settings(max_examples=300, deadline=None)
def test_any_options_are_transformers(height, width, size, crop, resample, flags, form):
    frames = noise(2, 3, height, width)
    frames = {
        "uint8": frames,
        "whole": frames.astype(np.float32),
        "fractions": (frames / 255).astype(np.float32),
        "double": frames / 255,
        "gray": frames[:, :1],
    }[form]
    options = dict(zip(["do_resize", "do_center_crop", "do_rescale", "do_normalize"], flags, strict=True))
    statistics = dict(image_mean=0.4, image_std=0.3) if form == "gray" else dict(image_mean=[0.485, 0.456, 0.406])
    call = dict(input_data_format="channels_first")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        want = theirs(
            [list(frames)],
            options=dict(size=size, crop_size=crop, resample=resample, **options, **statistics),
            **call,
        )
        ours = VideoMAEImageProcessor(size=size, crop_size=crop, resample=resample, **options, **statistics)
        np.testing.assert_allclose(ours([list(frames)], **call).pixel_values, want, rtol=1e-6, atol=1e-6)


def test_defaults_are_transformers():
    saved = VideoMAEImageProcessorPil().to_dict()
    ours = VideoMAEImageProcessor().to_dict()
    assert {name: ours[name] for name in saved} == json.loads(json.dumps(saved))
    assert_same_as_theirs(list(smooth(3, 120, 160)))


@pytest.mark.parametrize(
    "options",
    [
        dict(size=50, crop_size=31),
        dict(size=[40, 30], do_center_crop=False),
        dict(do_resize=False, crop_size=24),
        dict(do_resize=False, crop_size=(70, 60)),
        dict(do_resize=False, do_center_crop=False),
        dict(do_rescale=False),
        dict(do_normalize=False),
        dict(do_rescale=False, do_normalize=False),
        dict(rescale_factor=1 / 127.5, image_mean=1.0, image_std=1.0),
        dict(image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]),
        dict(image_mean=[0.485, 0.456, 0.406], image_std=0.25),
        dict(do_resize=None, size=None),
        dict(do_normalize=None, image_mean=None, image_std=None),
        *({"resample": resample} for resample in range(6)),
        dict(resample=Image.Resampling.LANCZOS),
    ],
    ids=str,
)
def test_options_are_transformers(options):
    assert_same_as_theirs(list(smooth(2, 47, 66)), **{"size": 36, "crop_size": 32} | options)


def test_options_of_one_call():
    processor = VideoMAEImageProcessor(size=64, crop_size=64)
    before, video = repr(processor), list(smooth(2, 47, 66))
    call = dict(size={"height": 20, "width": 22}, do_center_crop=False, image_mean=[0.1, 0.2, 0.3], do_rescale=False)
    np.testing.assert_array_equal(processor(video, **call)["pixel_values"], theirs(video, options={}, **call))
    assert repr(processor) == before
    np.testing.assert_array_equal(
        processor(video, do_center_crop=None).pixel_values, processor(video, do_center_crop=False).pixel_values
    )
    np.testing.assert_array_equal(
        processor(video, size=None, crop_size=None, image_mean=None).pixel_values, processor(video).pixel_values
    )


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "CMYK", "1", "P"])
@pytest.mark.parametrize("resized", [True, False])
def test_pictures_are_transformers(mode, resized):
    frames = [Image.fromarray(frame).convert(mode) for frame in smooth(2, 37, 53)]
    if mode in ("RGBA", "LA"):
        for frame in frames:
            frame.putalpha(Image.fromarray(noise(37, 53)))
    assert_same_as_theirs(frames, image_mean=0.5, image_std=0.5, crop_size=30, do_resize=resized)
    assert_same_as_theirs(frames, crop_size=30, size=36, do_resize=resized, do_convert_rgb=True)


def test_a_transparent_colour_of_a_palette_becomes_white():
    frame = Image.fromarray(noise(20, 30) // 64).convert("P")
    frame.info["transparency"] = int(np.asarray(frame)[0, 0])
    options = dict(do_convert_rgb=True, do_resize=False, do_center_crop=False)
    assert_same_as_theirs([frame], **options)
    assert VideoMAEImageProcessor(**options)(frame).pixel_values[0, 0, 0, 0].tolist() == [1, 1, 1]


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_arrays_become_rgb_as_in_transformers(channels, dtype):
    video = noise(2, 20, 30, channels) if dtype == np.uint8 else noise(2, 20, 30, channels).astype(dtype) / 255
    assert_same_as_theirs(list(video), do_convert_rgb=True, crop_size=20, size=24, do_rescale=dtype == np.uint8)


@pytest.mark.parametrize("resized", [True, False])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_pixels_that_are_scaled_already(dtype, resized):
    video = list((noise(2, 37, 53, 3) / 255).astype(dtype))
    assert_same_as_theirs(video, do_rescale=False, do_resize=resized, size=32, crop_size=30)


@pytest.mark.parametrize("dtype", [np.int16, np.int64, np.uint16, np.float32, bool])
def test_whole_numbers_of_any_type(dtype):
    video = noise(2, 37, 53, 3).astype(dtype)
    assert_same_as_theirs(list(video), size=32, crop_size=30)
    assert_same_as_theirs(list(video), do_resize=False, crop_size=30)


def test_frames_of_different_sizes():
    frames = [*noise(1, 37, 53, 3), *noise(1, 90, 40, 3)]
    assert_same_as_theirs(frames, size=32, crop_size=32)


def test_neither_transformers_nor_torch_is_needed():
    code = (
        "import sys; sys.modules |= {'torch': None, 'transformers': None}; import numpy; import videomae_jax; "
        "print(videomae_jax.VideoMAEImageProcessor()(numpy.ones((2, 24, 30, 3), 'uint8')).pixel_values.shape)"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert out.strip() == "(1, 2, 224, 224, 3)"


# The forms of videos.


def test_every_form_of_a_batch_is_the_same():
    processor = VideoMAEImageProcessor(size=20, crop_size=16)
    batch = noise(2, 3, 24, 30, 3)
    want = processor([list(video) for video in batch]).pixel_values
    np.testing.assert_array_equal(want, theirs([list(video) for video in batch], options=dict(size=20, crop_size=16)))
    first = np.moveaxis(batch, -1, 2)
    forms = {
        "array": batch,
        "array, channels first": first,
        "list of arrays": list(batch),
        "tuple of lists": tuple(list(video) for video in first),
        "pictures": [[Image.fromarray(frame) for frame in video] for video in batch],
        "mixed": [batch[0], [Image.fromarray(frame) for frame in batch[1]]],
        "jax": jnp.asarray(batch),
        "torch": torch.from_numpy(first),
        "list of lists of torch": [[torch.from_numpy(frame) for frame in video] for video in first],
    }
    for name, videos in forms.items():
        np.testing.assert_array_equal(processor(videos).pixel_values, want, err_msg=name)
    for name, video in {"list": list(batch[0]), "array": batch[0], "torch": torch.from_numpy(first[0])}.items():
        np.testing.assert_array_equal(processor(video).pixel_values, want[:1], err_msg=name)
    for name, frame in {"array": batch[0, 0], "picture": Image.fromarray(batch[0, 0])}.items():
        np.testing.assert_array_equal(processor(frame).pixel_values, want[:1, :1], err_msg=name)


def test_gray_arrays_without_a_channel_axis():
    options = dict(size=20, crop_size=16, image_mean=0.5, image_std=0.5)
    video = noise(2, 24, 30)
    assert_same_as_theirs([list(video)], **options)
    np.testing.assert_array_equal(
        VideoMAEImageProcessor(**options)(list(video)).pixel_values, theirs([list(video)], options=options)
    )
    coloured = VideoMAEImageProcessor(size=20, crop_size=16, do_convert_rgb=True)(video[0]).pixel_values
    assert coloured.shape == (1, 1, 16, 16, 3)


@pytest.mark.parametrize("shape", [(3, 20, 30), (20, 30, 3), (1, 20, 30), (4, 20, 30), (20, 30, 4)])
def test_the_channels_are_found_as_in_transformers(shape):
    assert_same_as_theirs([noise(*shape)], image_mean=0.5, image_std=0.5, size=20, crop_size=16)


@pytest.mark.parametrize("shape", [(3, 20, 3), (4, 20, 3), (3, 20, 4), (1, 20, 3)])
def test_of_two_axes_that_may_be_channels_the_first_is_as_in_transformers(shape):
    with pytest.warns(UserWarning, match="may have its channels first or last"):
        assert_same_as_theirs([noise(*shape)], do_resize=False, do_normalize=False, crop_size=16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call = dict(input_data_format="channels_last")
        assert_same_as_theirs([noise(*shape)], do_resize=False, do_normalize=False, crop_size=16, call=call)


def test_seven_channels():
    video = noise(2, 24, 30, 7)
    statistics = dict(image_mean=[0.1 * c for c in range(7)], image_std=[0.2 + 0.1 * c for c in range(7)])
    got = VideoMAEImageProcessor(size=20, crop_size=16, **statistics)(video).pixel_values
    for c in range(7):
        one = dict(image_mean=statistics["image_mean"][c], image_std=statistics["image_std"][c])
        want = theirs(list(video[..., c : c + 1]), options=dict(size=20, crop_size=16, **one))
        np.testing.assert_array_equal(got[..., c : c + 1], want)
    plain = VideoMAEImageProcessor(size=20, crop_size=16, image_mean=0, image_std=1)
    with pytest.raises(ValueError, match=r"shape \[24, 30, 7\] has 1 or 3 or 4 channels neither .*input_data_format="):
        plain(video)
    assert plain(video, input_data_format="channels_last").pixel_values.shape == (1, 2, 16, 16, 7)
    first = np.moveaxis(video, -1, 1)
    np.testing.assert_array_equal(VideoMAEImageProcessor(size=20, crop_size=16, **statistics)(first).pixel_values, got)


def test_what_comes_back():
    processor, video = VideoMAEImageProcessor(size=20, crop_size=(16, 18)), noise(2, 3, 24, 30, 3)
    batch = processor(video)
    assert list(batch) == ["pixel_values"] and isinstance(batch, dict)
    assert batch.pixel_values is batch["pixel_values"] and isinstance(batch.pixel_values, np.ndarray)
    assert batch.pixel_values.shape == (2, 3, 16, 18, 3) and batch.pixel_values.dtype == np.float32
    with pytest.raises(AttributeError, match="pixel_value"):
        batch.pixel_value  # noqa: B018
    first = processor(video, data_format="channels_first").pixel_values
    np.testing.assert_array_equal(first, np.moveaxis(batch.pixel_values, -1, 2))
    assert first.flags.c_contiguous
    on_device = processor.preprocess(video, return_tensors="jax")
    assert isinstance(on_device.pixel_values, jax.Array)
    np.testing.assert_array_equal(on_device.pixel_values, batch.pixel_values)
    doubled = jax.jit(lambda batch: jax.tree.map(lambda x: 2 * x, batch))(on_device)
    np.testing.assert_array_equal(doubled.pixel_values, 2 * batch.pixel_values)
    assert not processor(video, **RAW).pixel_values.dtype == np.uint8


def test_a_model_takes_it():
    config = VideoMAEConfig.from_size("tiny", image_size=16, num_frames=4, num_hidden_layers=1)
    processor = VideoMAEImageProcessor.for_model(config)
    output = VideoMAEModel(config, rngs=nnx.Rngs(0))(**processor(noise(4, 24, 30, 3), return_tensors="jax"))
    assert output.last_hidden_state.shape == (1, config.num_patches, config.hidden_size)


# Files.


@pytest.fixture(scope="module")
def video_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("video") / "video.mp4"
    write_video(path, smooth(50, 48, 80), fps=25)
    return path


def test_files_are_read_over_their_whole_length(video_file):
    processor = VideoMAEImageProcessor(size=40, crop_size=32, num_frames=5)
    want = processor(read_video(video_file, [5, 15, 25, 35, 45])).pixel_values
    np.testing.assert_array_equal(processor(video_file).pixel_values, want)
    np.testing.assert_array_equal(processor([str(video_file), video_file]).pixel_values, np.concatenate([want, want]))
    frames = list(read_video(video_file, [5, 15, 25, 35, 45]))
    np.testing.assert_array_equal(processor([video_file, frames]).pixel_values, np.concatenate([want, want]))


def test_files_are_read_in_their_middle_at_a_stride(video_file):
    processor = VideoMAEImageProcessor(size=40, crop_size=32, num_frames=4, frame_stride=6)
    want = processor(read_video(video_file, [13, 19, 25, 31])).pixel_values
    np.testing.assert_array_equal(processor(video_file).pixel_values, want)
    whole = processor(video_file, frame_stride=None, num_frames=2).pixel_values
    np.testing.assert_array_equal(whole, processor(read_video(video_file, [12, 37])).pixel_values)


def test_a_file_has_its_channels_last_whatever_the_arrays_have(video_file):
    processor = VideoMAEImageProcessor(size=40, crop_size=32, num_frames=2)
    array = np.moveaxis(read_video(video_file, [12, 37]), -1, 1)
    got = processor([video_file, array], input_data_format="channels_first").pixel_values
    np.testing.assert_array_equal(got[0], got[1])


@pytest.mark.parametrize("path", ["no/such/video.mp4", Path("no/such/video.mp4"), ["no/such/video.mp4"], "."])
def test_a_file_that_is_not_there(path):
    with pytest.raises(VideoReadError, match="no/such/video.mp4|Is a directory"):
        VideoMAEImageProcessor()(path)


# OpenCV.


def heldout_clips(paths, **options):
    source = VideoSource("videos", tuple(map(str, paths)), np.zeros(len(paths), np.int32), ("a",))
    return next(heldout_batches(source, CenterClip(**options), num_videos=len(paths), batch_size=len(paths)))["video"][
        :, 0
    ]


@pytest.mark.parametrize("out_size", [(32, 32), (40, 40), (44, 44), (24, 40), (40, 24), (96, 96)])
def test_opencv_makes_the_clips_of_our_runs(video_file, out_size):
    config = VideoMAEConfig.from_size("tiny", image_size=out_size, patch_size=4, num_frames=4)
    clips = heldout_clips([video_file], num_frames=4, stride=3, image_size=out_size)
    processor = VideoMAEImageProcessor.for_model(config, resize_backend="opencv", frame_stride=3)
    np.testing.assert_array_equal(processor(video_file, **RAW).pixel_values, clips)
    normalized = (clips.astype(np.float32) / 255 - np.float32(config.pixel_mean)) / np.float32(config.pixel_std)
    np.testing.assert_allclose(processor(video_file).pixel_values, normalized, atol=1e-6)
    other = processor(video_file, **RAW, resize_backend="pil").pixel_values
    assert (other != clips).any()


def test_opencv_takes_a_smaller_middle_where_the_shortest_edge_is_longer_than_the_crop():
    frame = noise(1, 100, 160, 3)
    processor = VideoMAEImageProcessor(size=100, crop_size=80, resize_backend="opencv")
    np.testing.assert_array_equal(processor(frame, **RAW).pixel_values[0], frame[:, 10:90, 40:120])
    wider = processor(frame, **RAW, size=50).pixel_values
    np.testing.assert_array_equal(wider, processor(frame, **RAW, size=80).pixel_values, "never larger than the frame")


@pytest.mark.parametrize(
    "frame", [noise(24, 30, 3) / 255, noise(24, 30, 4), noise(24, 30), noise(24, 30, 3, dtype=int)]
)
def test_opencv_takes_bytes_of_three_channels_alone(frame):
    processor = VideoMAEImageProcessor(size=20, crop_size=20, resize_backend="opencv")
    with pytest.raises(ValueError, match="takes frames of uint8 with 3 channels.*'pil' takes others"):
        processor(frame)


def test_opencv_takes_pictures_made_rgb():
    frame = Image.fromarray(noise(24, 30))
    processor = VideoMAEImageProcessor(size=24, crop_size=24, resize_backend="opencv", do_convert_rgb=True, **RAW)
    np.testing.assert_array_equal(processor(frame).pixel_values[0, 0, ..., 2], np.asarray(frame)[:, 3:27])


@pytest.mark.parametrize(
    "options",
    [dict(do_resize=False), dict(do_center_crop=False), dict(size=(224, 224)), dict(resample=3)]
    + [dict(size={"shortest_edge": 224, "longest_edge": 300})],
    ids=str,
)
def test_opencv_refuses_what_it_cannot_do(options):
    with pytest.raises(ValueError, match="resize_backend='opencv' .* needs"):
        VideoMAEImageProcessor(resize_backend="opencv", **options)
    with pytest.raises(ValueError, match="resize_backend='opencv' .* needs"):
        VideoMAEImageProcessor(resize_backend="opencv")(noise(24, 30, 3), **options)


# Saving and loading.


def test_round_trip(tmp_path):
    processor = VideoMAEImageProcessor(**SAVED, do_convert_rgb=True, num_frames=8, frame_stride=4)
    processor.save_pretrained(tmp_path / "new" / "folder")
    loaded = VideoMAEImageProcessor.from_pretrained(tmp_path / "new" / "folder")
    assert loaded == processor and repr(loaded) == repr(processor) and "resample=3" in repr(loaded)
    assert VideoMAEImageProcessor.from_pretrained(tmp_path / "new" / "folder" / "preprocessor_config.json") == processor
    changed = VideoMAEImageProcessor.from_pretrained(tmp_path / "new" / "folder", frame_stride=None, size=32)
    assert changed.frame_stride is None and changed.size == {"shortest_edge": 32} and changed.num_frames == 8
    assert processor == pickle.loads(pickle.dumps(processor)) != changed


def test_the_model_of_a_run(tmp_path):
    config = VideoMAEConfig.from_size("tiny", image_size=(32, 48), num_frames=8, image_mean=(0.1, 0.2, 0.3))
    processor = VideoMAEImageProcessor.for_model(config, resize_backend="opencv", frame_stride=4)
    config.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    assert VideoMAEImageProcessor.from_pretrained(tmp_path) == processor
    assert VideoMAEImageProcessor.for_model(config, num_frames=4).num_frames == 4
    assert processor.to_dict() == {
        "image_processor_type": "VideoMAEImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": 32},
        "resample": 2,
        "do_center_crop": True,
        "crop_size": {"height": 32, "width": 48},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.229, 0.224, 0.225],
        "do_convert_rgb": False,
        "resize_backend": "opencv",
        "num_frames": 8,
        "frame_stride": 4,
    }


@pytest.mark.parametrize("reader", [AutoImageProcessor, VideoMAEImageProcessorPil])
def test_transformers_reads_what_we_save(tmp_path, reader):
    ours = VideoMAEImageProcessor(**SAVED, frame_stride=4)
    ours.save_pretrained(tmp_path / "ours")
    read = reader.from_pretrained(tmp_path / "ours")
    video = list(smooth(2, 47, 66))
    want = np.moveaxis(read(video, return_tensors="np")["pixel_values"], 2, -1)
    np.testing.assert_array_equal(ours(video).pixel_values, want)
    read.save_pretrained(tmp_path / "theirs")
    assert VideoMAEImageProcessor.from_pretrained(tmp_path / "theirs") == ours


def test_transformers_reads_what_a_run_leaves(tmp_path):
    config = VideoMAEConfig.from_size("tiny", image_size=32)
    VideoMAEImageProcessor.for_model(config, resize_backend="opencv", frame_stride=4).save_pretrained(tmp_path)
    read = AutoImageProcessor.from_pretrained(tmp_path)
    video = list(smooth(2, 47, 66))
    want = VideoMAEImageProcessor.from_pretrained(tmp_path, resize_backend="pil")(video).pixel_values
    np.testing.assert_array_equal(np.moveaxis(read(video, return_tensors="np")["pixel_values"], 2, -1), want)


@pytest.mark.parametrize("reader", [VideoMAEImageProcessor, VideoMAEFeatureExtractor])
@pytest.mark.filterwarnings("ignore:.*old name")
def test_we_read_what_transformers_saves(tmp_path, reader):
    VideoMAEImageProcessorPil(**SAVED).save_pretrained(tmp_path)
    ours = reader.from_pretrained(tmp_path)
    assert type(ours) is reader
    video = list(smooth(2, 47, 66))
    np.testing.assert_array_equal(ours(video).pixel_values, theirs(video, options=SAVED))


def write_json(folder, content, name="preprocessor_config.json"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_old_files(tmp_path):
    content = {
        "feature_extractor_type": "VideoMAEFeatureExtractor",
        "processor_class": None,
        "do_resize": True,
        "size": 192,
        "crop_size": 160,
        "do_center_crop": None,
        "resample": None,
        "image_mean": [0.485, 0.456, 0.406],
    }
    want = VideoMAEImageProcessor(size=192, crop_size=160, do_center_crop=False, image_mean=[0.485, 0.456, 0.406])
    assert VideoMAEImageProcessor.from_pretrained(write_json(tmp_path, content)) == want
    assert want.size == {"shortest_edge": 192} and want.crop_size == {"height": 160, "width": 160}


def test_the_file_of_transformers_video_processor(tmp_path):
    content = {
        "video_processor_type": "VideoMAEVideoProcessor",
        "do_sample_frames": False,
        "do_convert_rgb": True,
        "num_frames": None,
        "fps": None,
        "size": {"shortest_edge": 192},
        "return_metadata": False,
    }
    write_json(tmp_path, content, "video_preprocessor_config.json")
    want = VideoMAEImageProcessor(do_convert_rgb=True, size=192)
    assert VideoMAEImageProcessor.from_pretrained(tmp_path) == want
    write_json(tmp_path, {"size": 160})
    assert VideoMAEImageProcessor.from_pretrained(tmp_path) == VideoMAEImageProcessor(size=160)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "is no JSON: Expecting"),
        ("[1]", "holds no JSON object"),
        ({"size": {"width": 3}}, "size must be"),
        ({"resample": 9}, "resample must be"),
        ({"image_std": [0.5, 0, 0.5]}, "image_std must be positive"),
        ({"resize_backend": "opencv", "do_resize": False}, "resize_backend='opencv'"),
    ],
)
def test_a_bad_file_is_named_with_its_field(tmp_path, content, complaint):
    with pytest.raises(ValueError, match=rf"preprocessor_config.json:? {complaint}"):
        VideoMAEImageProcessor.from_pretrained(write_json(tmp_path, content))


def test_frames_of_a_file_are_as_many_as_the_models(tmp_path):
    """transformers' processors do not say how many; the config beside them does."""
    VideoMAEImageProcessorPil().save_pretrained(tmp_path)
    assert VideoMAEImageProcessor.from_pretrained(tmp_path).num_frames == 16
    VideoMAEConfig(num_frames=32).save_pretrained(tmp_path)
    assert VideoMAEImageProcessor.from_pretrained(tmp_path).num_frames == 32
    assert VideoMAEImageProcessor.from_pretrained(tmp_path, num_frames=8).num_frames == 8
    VideoMAEImageProcessor(num_frames=4).save_pretrained(tmp_path)
    assert VideoMAEImageProcessor.from_pretrained(tmp_path).num_frames == 4


def test_nothing_to_load(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="has neither preprocessor_config.json nor video_preprocessor_config.json"):
        VideoMAEImageProcessor.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="does not exist"):
        VideoMAEImageProcessor.from_pretrained(tmp_path / "nowhere")
    asked = {}

    def download(name, **options):
        asked.update(options, name=name)
        return str(write_json(tmp_path, {"size": 160}))

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert VideoMAEImageProcessor.from_pretrained("owner/name", revision="v1").size == {"shortest_edge": 160}
    assert asked == {
        "name": "owner/name",
        "revision": "v1",
        "allow_patterns": ["preprocessor_config.json", "video_preprocessor_config.json", "config.json"],
    }


def test_the_old_name():
    with pytest.warns(FutureWarning, match="VideoMAEImageProcessor"):
        old = VideoMAEFeatureExtractor(size=20, crop_size=16)
    assert isinstance(old, VideoMAEImageProcessor) and repr(old).startswith("VideoMAEFeatureExtractor(")
    video = list(smooth(2, 47, 66))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = old(video, do_rescale=False).pixel_values
    np.testing.assert_array_equal(got, VideoMAEImageProcessor(**vars(old))(video, do_rescale=False).pixel_values)
    assert old.to_dict() == VideoMAEImageProcessor(size=20, crop_size=16).to_dict()


# Mistakes.


def test_pixels_that_are_rescaled_twice_get_one_warning():
    processor, video = VideoMAEImageProcessor(size=20, crop_size=16), noise(2, 2, 24, 30, 3) / 255
    with pytest.warns(UserWarning, match="do_rescale=False") as caught:
        processor(video)
        processor(list(video[0]), do_resize=False)
    assert len(caught) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        processor(video, do_rescale=False)
        processor(noise(2, 24, 30, 3).astype(np.float32))
        processor(noise(2, 24, 30, 3).astype(np.float32), do_resize=False)
        processor(np.zeros((2, 24, 30, 3), np.float32), do_resize=False)


@pytest.mark.parametrize(
    ("videos", "complaint"),
    [
        ([], "There is no video"),
        (np.zeros((0, 2, 24, 30, 3)), "There is no video"),
        ([[]], "Video 0 has no frame"),
        ([noise(2, 24, 30, 3), []], "Video 1 has no frame"),
        (np.zeros((0, 24, 30, 3)), "Video 0 has no frame"),
        (None, "Videos must be a path, .* got NoneType"),
        ({"a": 1}, "Videos must be a path, .* got dict"),
        ([1, 2], "Video 0 must be a path, .* got int"),
        ([[1, 2]], "A frame must be .* got int"),
        ([["a.png"]], "A frame must be .* got str"),
        ([noise(24, 30, 3), "a.mp4"], "A frame must be .* got str"),
        ([noise(24, 30, 3), noise(2, 24, 30, 3)], r"got one of shape \[2, 24, 30, 3\]"),
        (noise(5), r"got one of shape \[5\]"),
        (noise(1, 1, 2, 24, 30, 3), r"got one of shape \[1, 2, 24, 30, 3\]"),
        (noise(0, 30, 3), r"got one of shape \[0, 30, 3\]"),
        (noise(16, 24, 30), r"A frame of shape \[16, 24, 30\] has 1 or 3 or 4 channels neither first nor last"),
        ([noise(2, 24, 30, 3), noise(3, 24, 30, 3)], "Video 0 has 2 frames and video 1 has 3 frames"),
        ([noise(16, 24, 30, 3), noise(16, 24, 30, 3), noise(8, 24, 30, 3)], "Video 0 has 16 .* video 2 has 8 frames"),
        ([noise(2, 24, 30, 3), "a.mp4"], "Video 0 has 2 frames and video 1 has 16 frames"),
        (noise(24, 30), "image_mean has 3 numbers, but the frames have 1 channels.*do_convert_rgb=True"),
        (noise(24, 30, 4), "image_mean has 3 numbers, but the frames have 4 channels"),
        ([noise(24, 30, 3), noise(24, 30)], "come out as 16x16x1, 16x16x3 .*do_convert_rgb=True"),
        (noise(24, 30, 3) + 0.5, r"fractions must be in \[0, 1\] .* got 0.5 to 255.5"),
        (noise(24, 30, 3).astype(int) - 9, r"whole numbers must be in \[0, 255\] .* got -9 to 246"),
        (np.full((24, 30, 3), np.nan), "must be in"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
def test_mistaken_videos(videos, complaint):
    with pytest.raises(ValueError, match=complaint):
        VideoMAEImageProcessor(size=20, crop_size=16)(videos)


def test_a_frame_of_which_nothing_is_left():
    with pytest.raises(ValueError, match="A frame of 24x900 pixels cannot be resized to 0x10"):
        VideoMAEImageProcessor()(noise(24, 900, 3), size={"max_height": 10, "max_width": 10})


def test_sizes_that_do_not_stack():
    processor = VideoMAEImageProcessor(size=20, do_center_crop=False)
    with pytest.raises(ValueError, match="come out as 20x25x3, 20x40x3 .*do_center_crop=True"):
        processor([noise(24, 30, 3), noise(24, 48, 3)])
    with pytest.raises(ValueError, match="Video 0 comes out as 20x25 .* video 1 comes out as 20x40"):
        processor([noise(1, 24, 30, 3), noise(1, 24, 48, 3)])


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (dict(do_rezise=True), "has no option do_rezise. Do you mean do_resize?"),
        (dict(resize_backed="pil"), "has no option resize_backed. Do you mean resize_backend?"),
        (dict(qqq=1), "has no option qqq.$"),
        (dict(size={"shortest": 3}), r"size must be {'shortest_edge': ...} or .*got {'shortest': 3}"),
        (dict(size={"longest_edge": 3}), "size must be"),
        (dict(size={"shortest_edge": 0}), "size must be"),
        (dict(size={"height": 3, "width": 2.5}), "size must be"),
        (dict(size=(1, 2, 3)), "size must be"),
        (dict(size=True), "size must be"),
        (dict(crop_size={"shortest_edge": 3}), "crop_size must be {'height': ..., 'width': ...}"),
        (dict(crop_size=-3), "crop_size must be"),
        (dict(resample=9), "resample must be one of Pillow's filters 0 .nearest., .* got 9"),
        (dict(resample="bilinear"), "resample must be"),
        (dict(do_resize=1), "do_resize must be True or False, got 1"),
        (dict(do_convert_rgb="no"), "do_convert_rgb must be"),
        (dict(rescale_factor=0), "rescale_factor must be a positive number, got 0"),
        (dict(rescale_factor="1/255"), "rescale_factor must be"),
        (dict(image_mean=[]), "image_mean must be a number"),
        (dict(image_mean=[0.5, "a", 0.5]), "image_mean must be a number"),
        (dict(image_mean=float("nan")), "image_mean must be a number"),
        (dict(image_std=-0.5), "image_std must be positive"),
        (dict(image_std=[0.5, 0.0, 0.5]), "image_std must be positive"),
        (dict(image_mean=[0.5] * 4), "image_mean=.* and image_std=.* equally many"),
        (dict(resize_backend="cv2"), "resize_backend must be 'pil' or 'opencv', got 'cv2'"),
        (dict(num_frames=0), "num_frames must be a whole number of at least 1, got 0"),
        (dict(frame_stride=1.5), "frame_stride must be None or a whole number"),
    ],
    ids=str,
)
def test_mistaken_options(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        VideoMAEImageProcessor(**options)
    with pytest.raises(ValueError, match=complaint):
        VideoMAEImageProcessor()(noise(24, 30, 3), **options)


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (dict(return_tensors="pt"), "return_tensors must be 'np' or 'jax', got 'pt'.*torch.from_numpy"),
        (dict(return_tensors=None), "return_tensors must be 'np' or 'jax', got None"),
        (dict(data_format="NCHW"), "data_format must be one of 'channels_last', 'channels_first', got 'NCHW'"),
        (dict(input_data_format="last"), "input_data_format must be one of .* got 'last'"),
    ],
)
def test_mistaken_calls(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        VideoMAEImageProcessor()(noise(24, 30, 3), **call)


def test_a_processor_does_not_change():
    size = {"shortest_edge": 20}
    processor = VideoMAEImageProcessor(size=size)
    size["shortest_edge"] = 30
    assert processor.size == {"shortest_edge": 20}
    with pytest.raises(AttributeError, match="do_resize"):
        processor.do_resize = False


def test_a_file_is_decoded_only_where_asked(video_file, monkeypatch):
    read = []
    monkeypatch.setattr(VideoFile, "read", lambda self, indices: read.append(list(indices)) or smooth(2, 24, 30))
    VideoMAEImageProcessor(num_frames=2)(video_file)
    assert read == [[12, 37]]
