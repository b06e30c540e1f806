import dataclasses
import shutil

import cv2
import numpy as np
import pytest

from videomae_jax.data import builtin
from videomae_jax.data.sources import open_source
from videomae_jax.data.video import write_video


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_video(path, np.zeros((2, 32, 48, 3), np.uint8), fps=25)
    return path


@pytest.fixture
def root(tmp_path, clip):
    """Class folders `jump`, `running fast` (nested) and `sit` with one video each, and other files."""
    for name in ("sit/1.mp4", "running fast/person 2/2.MP4", "jump/3.mp4"):
        (tmp_path / name).parent.mkdir(parents=True)
        shutil.copy(clip, tmp_path / name)
    (tmp_path / "jump" / "notes.txt").write_text("x")
    (tmp_path / "jump" / "._3.mp4").write_text("left by macOS")
    (tmp_path / "empty").mkdir()
    return tmp_path


def manifest(root, text):
    (root / "list.csv").write_text(text, encoding="utf-8")
    return str(root / "list.csv")


def pairs(source):
    return [(path, source.class_names[label]) for path, label in zip(source.paths, source.labels, strict=True)]


def test_csv_with_names_sorts_the_classes(root):
    source = open_source(manifest(root, "label,path,source\nsit,sit/1.mp4,a film\n\njump,jump/3.mp4,sit\n"))
    assert source.class_names == ("jump", "sit")
    assert source.labels.tolist() == [1, 0] and source.labels.dtype == np.int32
    assert pairs(source) == [(str(root / "sit/1.mp4"), "sit"), (str(root / "jump/3.mp4"), "jump")]
    assert len(source) == 2


def test_csv_with_integers_keeps_them(root):
    source = open_source(manifest(root, "path,label\nsit/1.mp4,3\njump/3.mp4,01\n"))
    assert source.labels.tolist() == [3, 1]
    assert source.class_names == ("0", "1", "2", "3")


def test_csv_of_a_spreadsheet_has_a_byte_order_mark(root):
    source = open_source(manifest(root, "\ufeffpath,label\nsit/1.mp4,sit\n"))
    assert source.class_names == ("sit",)


def test_csv_without_labels(root):
    source = open_source(manifest(root, "path\nsit/1.mp4\njump/3.mp4\n"))
    assert source.labels.tolist() == [-1, -1] and source.class_names == ()


def test_path_label_lines_may_have_spaces_in_the_path(root):
    source = open_source(manifest(root, "running fast/person 2/2.MP4 1\nsit/1.mp4\t0\n"))
    assert source.paths[0] == str(root / "running fast/person 2/2.MP4")
    assert source.labels.tolist() == [1, 0]


def test_absolute_paths_stay(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    source = open_source(manifest(elsewhere, f"path\n{root / 'sit/1.mp4'}\n"))
    assert source.paths == (str(root / "sit/1.mp4"),)


def test_class_folders(root):
    source = open_source(str(root))
    assert source.class_names == ("jump", "running fast", "sit")
    assert pairs(source) == [
        (str(root / "jump/3.mp4"), "jump"),
        (str(root / "running fast/person 2/2.MP4"), "running fast"),
        (str(root / "sit/1.mp4"), "sit"),
    ]


def test_flat_folder_has_no_labels(root):
    source = open_source(str(root / "sit"))
    assert source.paths == (str(root / "sit/1.mp4"),) and source.labels.tolist() == [-1]


def test_class_order_is_the_known_ones(root):
    classes = ("sit", "walk", "running fast", "jump")
    assert open_source(str(root), classes).labels.tolist() == [3, 2, 0]
    assert open_source(manifest(root, "path,label\nsit/1.mp4,sit\n"), classes).labels.tolist() == [0]
    assert open_source(manifest(root, "sit/1.mp4 007\n"), tuple(map(str, range(9)))).labels.tolist() == [7]


def test_builtin_clips_keep_the_order_of_the_moves(builtin_clips):
    train = open_source("builtin:train")
    val = open_source("builtin:val", train.class_names)
    assert train.class_names == builtin.CAMERA_MOVES
    for source in (train, val):
        assert all(f"/{move}/" in path for path, move in pairs(source))
        assert np.bincount(source.labels).tolist() == [len(source) // 10] * 10
    assert not {p.split("/")[-1] for p in train.paths} & {p.split("/")[-1] for p in val.paths}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("path,label\n", "no videos"),
        ("video,label\nsit/1.mp4,sit\n", r"line 1: 'video,label' .* column `path`"),
        ("sit/1.mp4 0\njump/3.mp4\n", r"line 2: 'jump/3.mp4' does not end in an integer label"),
        ("sit/1.mp4 sit\n", "line 1: .* does not end in an integer label"),
        ("path,label\nsit/1.mp4,sit\njump/3.mp4,\n", r"line 3: 'jump/3.mp4,' has no label"),
        ("path,label\nsit/1.mp4\n", "line 2: 'sit/1.mp4' does not fit the header 'path,label'"),
        ("path,label\na,b.mp4,sit\n", "line 2: .* quote"),
        (
            "path\nx1\nsit/1.mp4\nx2\nx3\nx4\n",
            r"4 of 5 files do not exist \(line 2: .*x1; line 4: .*x2; line 5: .*x3\); at most 0% may be missing \(max_",
        ),
    ],
)
def test_manifest_errors_name_the_line_and_the_fix(root, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        open_source(manifest(root, text))
    assert "list.csv" in str(caught.value)


def test_unknown_labels_are_errors(root):
    with pytest.raises(ValueError, match=r"line 2: label 'sit' is not one of the 1 known classes \(jump\)"):
        open_source(manifest(root, "path,label\nsit/1.mp4,sit\n"), ("jump",))
    with pytest.raises(ValueError, match="folder .*running fast: label 'running fast'"):
        open_source(str(root), ("jump", "sit"))
    with pytest.raises(ValueError, match="line 1: label '4'"):
        open_source(manifest(root, "sit/1.mp4 4\n"), ("0", "1"))


def test_other_places_without_videos_are_errors(root, clip):
    with pytest.raises(ValueError, match="nowhere' does not exist"):
        open_source(str(root / "nowhere"))
    with pytest.raises(ValueError, match="empty has no videos"):
        open_source(str(root / "empty"))
    with pytest.raises(ValueError, match="single video"):
        open_source(str(clip))
    with pytest.raises(ValueError, match="builtin:test"):
        open_source("builtin:test")
    (root / "list.bin").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ValueError, match="no UTF-8 text"):
        open_source(str(root / "list.bin"))
    shutil.copy(clip, root / "loose.mp4")
    with pytest.raises(ValueError, match="1 videos such as loose.mp4"):
        open_source(str(root))


@pytest.fixture
def pictures(root):
    """Folders `pictures/a` with pictures 1 to 9 and `pictures/SomethingV2/b` with 1 to 5."""
    for name, count in (("a", 9), ("SomethingV2/b", 5)):
        (root / "pictures" / name).mkdir(parents=True)
        for number in range(1, count + 1):
            cv2.imwrite(
                str(root / "pictures" / name / f"img_{number:05}.jpg"), np.full((8, 8, 3), 20 * number, np.uint8)
            )
    return root


def num_frames(source):
    counts = []
    for index in range(len(source)):
        video, _ = source.open(index)
        with video:
            counts.append(video.num_frames)
    return counts


def test_opening_gives_the_video_and_its_label(root):
    source = open_source(str(root))
    video, label = source.open(1)
    with video:
        assert video.path == source.paths[1] and video.num_frames == 2 and label == 1 and type(label) is int
    assert source.stride(1) is None


def test_lists_of_v2_pretraining_mix_files_and_pictures(pictures):
    lines = "sit/1.mp4 0 -1\npictures/a 3 4\npictures/a 7 3\npictures/SomethingV2/b 1 5\n"
    source = open_source(manifest(pictures, lines))
    assert num_frames(source) == [2, 4, 3, 5] and source.labels.tolist() == [-1] * 4
    assert [source.stride(index) for index in range(4)] == [None, None, None, 2]
    video, _ = source.open(1)
    np.testing.assert_allclose(video.read(range(4))[:, 0, 0, 0], [60, 80, 100, 120], atol=2)


def test_lists_of_v2_are_told_apart_by_most_folders(pictures):
    for name in ("c", "d"):
        shutil.copytree(pictures / "pictures" / "a", pictures / "pictures" / name)
    lines = "pictures/a 9 0\npictures/c 9 3\npictures/d 9 1\n"
    (pictures / "pictures" / "a" / "img_00002.jpg").unlink()
    assert open_source(manifest(pictures, lines)).labels.tolist() == [0, 3, 1]
    with pytest.raises(ValueError, match="list.csv: the folders' pictures do not tell .*path and label"):
        open_source(manifest(pictures, "pictures/a 7 0\n"))
    with pytest.raises(ValueError, match="list.csv, line 2: 'pictures/c 3 0' names a clip of no pictures"):
        open_source(manifest(pictures, "pictures/d 3 4\npictures/c 3 0\nsit/1.mp4 0 -1\n"))


def test_lists_of_v2_finetuning_have_labels(pictures):
    source = open_source(manifest(pictures, "pictures/a 9 3\npictures/SomethingV2/b 5 1\n"))
    assert source.labels.tolist() == [3, 1] and num_frames(source) == [9, 5]
    assert source.class_names == ("0", "1", "2", "3")


def test_folders_of_pictures_are_videos_everywhere(pictures):
    assert open_source(manifest(pictures, "path,label\npictures/a,x\nsit/1.mp4,y\n")).labels.tolist() == [0, 1]
    loose = open_source(str(pictures / "pictures" / "SomethingV2"))
    assert num_frames(loose) == [5] and loose.class_names == ()
    classes = open_source(str(pictures))
    assert [name for _, name in pairs(classes)] == ["jump", "pictures", "pictures", "running fast", "sit"]
    assert num_frames(classes) == [2, 5, 9, 2, 2]
    with pytest.raises(ValueError, match="pictures of a single video"):
        open_source(str(pictures / "pictures" / "a"))


def test_mixture_gives_each_source_its_stride(pictures, builtin_clips):
    manifest(pictures, "sit/1.mp4 0 -1\npictures/SomethingV2/b 1 5\n")
    (pictures / "mix.csv").write_text("source,stride\nlist.csv,\nsit,3\nlist.csv,4\nbuiltin:val,\n")
    source = open_source(str(pictures / "mix.csv"))
    assert [source.stride(index) for index in range(5)] == [None, 2, 3, 4, 4]
    assert source.paths[:3] == tuple(
        str(pictures / name) for name in ("sit/1.mp4", "pictures/SomethingV2/b", "sit/1.mp4")
    )
    assert len(source) == 5 + len(open_source("builtin:val")) and source.name == str(pictures / "mix.csv")
    video, label = source.open(1)
    assert video.num_frames == 5 and label == -1


def test_a_split_of_what_is_not_prepared_says_so(root):
    with pytest.raises(
        ValueError, match=f"'{root}:train' does not exist; .*; {root} is there, but no prepared data set"
    ):
        open_source(f"{root}:train")


def test_mixture_joins_classes_by_name(root):
    (root / "two.csv").write_text("path,label\nsit/1.mp4,walk\nsit/1.mp4,jump\nsit/1.mp4,sit\n")
    (root / "one.csv").write_text("path,label\nsit/1.mp4,sit\njump/3.mp4,jump\n")
    (root / "mix.csv").write_text("source\none.csv\ntwo.csv\n")
    source = open_source(str(root / "mix.csv"))
    assert [name for _, name in pairs(source)] == ["sit", "jump", "walk", "jump", "sit"]
    assert source.class_names == ("jump", "sit", "walk")
    assert [source.open(index)[1] for index in range(5)] == source.labels.tolist()
    val = open_source(str(root / "mix.csv"), ("walk", "sit", "jump", "run"))
    assert val.labels.tolist() == [1, 2, 0, 2, 1] and val.class_names == ("walk", "sit", "jump", "run")
    with pytest.raises(ValueError, match="mix.csv, line 3: .*'walk' is not one of"):
        open_source(str(root / "mix.csv"), ("sit", "jump"))


def test_mixture_keeps_integer_labels(root):
    (root / "one.csv").write_text("path,label\nsit/1.mp4,2\njump/3.mp4,10\n")
    (root / "two.csv").write_text("path,label\nsit/1.mp4,11\n")
    (root / "mix.csv").write_text("source\none.csv\ntwo.csv\n")
    source = open_source(str(root / "mix.csv"))
    assert source.labels.tolist() == [2, 10, 11] and source.class_names == tuple(map(str, range(12)))


@pytest.mark.parametrize(
    "text, message",
    [
        ("source,stride\n", "has a header and no sources"),
        ("source,stride\nsit,0\n", "line 2: stride must be a positive integer"),
        ("source,stride\nsit,fast\n", "line 2: stride must be a positive integer"),
        ("source\nsit\nmix.csv\n", "line 3: mix.csv is this file itself"),
        ("source\nmissing\n", "line 2: data path .*missing' does not exist"),
        ("source,stride\nsit\n", "line 2: 'sit' does not fit the header"),
    ],
)
def test_mixtures_that_cannot_be_understood(root, text, message):
    (root / "mix.csv").write_text(text)
    with pytest.raises(ValueError, match=f"mix.csv.*{message}"):
        open_source(str(root / "mix.csv"))


def test_digest_tells_names_and_labels_apart_but_not_places(root):
    source = open_source(str(root))
    moved = dataclasses.replace(source, paths=tuple(f"elsewhere/{path}" for path in source.paths))
    assert moved.digest() == source.digest()
    assert dataclasses.replace(source, labels=source.labels[::-1]).digest() != source.digest()
    unlabelled = dataclasses.replace(source, labels=None)
    strides, spans = np.arange(3, dtype=np.int32), np.zeros((3, 2), np.int32)
    others = [
        source,
        unlabelled,
        dataclasses.replace(unlabelled, name="other"),
        dataclasses.replace(source, strides=strides),
        dataclasses.replace(source, strides=strides + 1),
        dataclasses.replace(source, spans=spans),
        dataclasses.replace(source, spans=spans + 1),
    ]
    assert len({other.digest() for other in others}) == len(others)
