"""Miniature copies of the four data sets, written in the formats of their official files."""

import json
import warnings

import cv2
import numpy as np
import pytest

from videomae_jax.data.sources import open_source

SSV2_CLASSES = {"Pushing something from left to right": "1", "Approaching something with your camera": "0"}


def write(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return str(path)


def pairs(source, root):
    names = [source.class_names[label] if label >= 0 else None for label in source.labels]
    return [(path.removeprefix(f"{root}/"), name) for path, name in zip(source.paths, names, strict=True)]


def fails(path, message):
    with pytest.raises(ValueError, match=message):
        open_source(str(path))


@pytest.fixture
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


KINETICS = """label,youtube_id,time_start,time_end,split
air drumming,-3ILKcVe5mE,26,36,train
"passing American football (in game)",_aB-cD_1234,0,10,train
"""
KINETICS_NAMES = ("-3ILKcVe5mE_000026_000036.mp4", "_aB-cD_1234_000000_000010.mp4")


@pytest.mark.parametrize(
    ("annotation", "videos"),
    [
        ("train.csv", KINETICS_NAMES),
        ("train.csv", ("-3ILKcVe5mE.mp4", "_aB-cD_1234.mp4")),
        ("train.csv", [f"train/{name}" for name in KINETICS_NAMES]),
        ("annotations/train.csv", [f"train/{name}" for name in KINETICS_NAMES]),
        (
            "annotations/kinetics_train.csv",
            [f"videos_train/air_drumming/{KINETICS_NAMES[0]}", "videos_train/_aB-cD_1234.mp4"],
        ),
        (
            "train.csv",
            [f"air drumming/{KINETICS_NAMES[0]}", f"passing_American_football_(in_game)/{KINETICS_NAMES[1]}"],
        ),
    ],
)
def test_kinetics(tmp_path, no_warnings, annotation, videos):
    for video in videos:
        write(tmp_path / video)
    source = open_source(write(tmp_path / annotation, KINETICS))
    assert source.class_names == ("air drumming", "passing American football (in game)")
    assert pairs(source, tmp_path) == list(zip(videos, source.class_names, strict=True))


def test_kinetics_with_licences_and_without_labels(tmp_path, no_warnings):
    write(tmp_path / "abcdefghijk_000001_000011.mp4")
    header = "youtube_id,time_start,time_end,split"
    licences = write(tmp_path / "val.csv", f"label,{header},is_cc\nyoga,abcdefghijk,1,11,val,0\n")
    assert pairs(open_source(licences), tmp_path) == [("abcdefghijk_000001_000011.mp4", "yoga")]
    test = open_source(write(tmp_path / "test.csv", f"{header}\nabcdefghijk,1,11,test\n"))
    assert pairs(test, tmp_path) == [("abcdefghijk_000001_000011.mp4", None)] and test.class_names == ()
    classes = ("swim", "yoga")
    assert open_source(licences, classes).labels.tolist() == [1]


def test_kinetics_leaves_missing_videos_out_and_keeps_their_classes(tmp_path):
    write(tmp_path / KINETICS_NAMES[1])
    train = write(tmp_path / "train.csv", KINETICS + "yoga,gone5678901,3,13,train\n")
    with pytest.warns(UserWarning) as caught:
        source = open_source(train)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert str(caught[0].message).endswith(
        "2 of 3 videos are not there and left out, the first -3ILKcVe5mE_000026_000036.mp4 (line 2)"
    )
    assert source.class_names == ("air drumming", "passing American football (in game)", "yoga")
    assert source.labels.tolist() == [1]


def test_kinetics_takes_the_copy_in_the_class_folder(tmp_path, no_warnings):
    header, line, _ = KINETICS.splitlines()
    for folder in ("air_drumming", "drumming"):
        write(tmp_path / "train" / folder / KINETICS_NAMES[0])
    train = write(tmp_path / "train.csv", f"{header}\n{line}\n")
    assert pairs(open_source(train), tmp_path / "train") == [(f"air_drumming/{KINETICS_NAMES[0]}", "air drumming")]
    write(tmp_path / "train_256" / "air_drumming" / KINETICS_NAMES[0])
    fails(train, r"train\.csv, line 2: which video is meant, .*/train/air_dr.* or .*/train_256/")


def test_kinetics_errors(tmp_path):
    train = tmp_path / "annotations" / "train.csv"
    write(tmp_path / "other" / KINETICS_NAMES[0])
    write(train, KINETICS)
    fails(
        train, rf"train\.csv: none of its 2 .*-3ILKcVe5mE_000026_000036.mp4.*{tmp_path}/annotations .*{tmp_path}/ in tr"
    )
    header = KINETICS.splitlines()[0]
    write(train, f"{header}\n")
    fails(train, r"train\.csv has a header and no videos")
    write(train, f"{KINETICS}yoga,x,y,13,train\n")
    fails(train, r"train\.csv, line 4: time_start and time_end must be seconds, got 'yoga,x,y,13,train'")
    write(train, f"{KINETICS}yoga,x,3,13\n")
    fails(train, r"train\.csv, line 4: 'yoga,x,3,13' does not fit the header")
    write(train, f"{KINETICS}yoga,,3,13,train\n")
    fails(train, r"train\.csv, line 4: .* does not fit the header")
    write(train, f"{KINETICS},x,3,13,train\n")
    fails(train, r"train\.csv, line 4: .* has no label")


def test_a_manifest_with_paths_is_no_kinetics_file(tmp_path, no_warnings):
    write(tmp_path / "a.mp4")
    path = write(tmp_path / "train.csv", "path,label,youtube_id,time_start,time_end\na.mp4,yoga,x,1,11\n")
    assert pairs(open_source(path), tmp_path) == [("a.mp4", "yoga")]


def ssv2_item(video, text):
    return {"id": video, "label": "pushing a cup", "template": text, "placeholders": ["a cup"]}


SSV2_TRAIN = [
    ssv2_item("78687", "Pushing [something] from left to right"),
    ssv2_item("42326", "Approaching [something] with your camera"),
]


@pytest.mark.parametrize(
    ("annotation", "labels", "videos"),
    [
        ("train.json", "labels.json", "20bn-something-something-v2"),
        ("labels/train.json", "labels/labels.json", "20bn-something-something-v2"),
        ("something-something-v2-train.json", "something-something-v2-labels.json", "20bn-something-something-v2"),
        ("something-something-v2-validation.json", "labels/something-something-v2-labels.json", ""),
        ("labels/validation.json", "labels/labels.json", ""),
        ("labels/validation.json", "labels/labels.json", "labels"),
    ],
)
def test_ssv2(tmp_path, annotation, labels, videos):
    write(tmp_path / videos / "78687.webm")
    write(tmp_path / videos / "42326.mp4")
    write(tmp_path / labels, json.dumps(SSV2_CLASSES))
    source = open_source(write(tmp_path / annotation, json.dumps(SSV2_TRAIN)))
    assert source.class_names == ("Approaching something with your camera", "Pushing something from left to right")
    assert pairs(source, tmp_path / videos) == [
        ("78687.webm", "Pushing something from left to right"),
        ("42326.mp4", "Approaching something with your camera"),
    ]


def test_ssv2_as_folders_of_pictures(tmp_path):
    for video in ("78687", "42326"):
        for number in (1, 2, 3):
            picture = tmp_path / "20bn-something-something-v2" / video / f"img_{number:05}.png"
            write(picture)
            cv2.imwrite(str(picture), np.zeros((4, 4, 3), np.uint8))
    write(tmp_path / "labels.json", json.dumps(SSV2_CLASSES))
    source = open_source(write(tmp_path / "train.json", json.dumps(SSV2_TRAIN)))
    assert [source.open(index)[0].num_frames for index in (0, 1)] == [3, 3]
    assert [source.open(index)[1] for index in (0, 1)] == [1, 0]


def test_ssv2_test_set_has_no_labels(tmp_path):
    write(tmp_path / "20bn-something-something-v2" / "1420.webm")
    source = open_source(write(tmp_path / "test.json", '[{"id":"1420"}]'))
    assert source.labels.tolist() == [-1] and source.class_names == ()


def test_ssv2_errors(tmp_path):
    train, labels = tmp_path / "train.json", tmp_path / "labels.json"
    write(train, json.dumps(SSV2_TRAIN))
    fails(train, rf"train\.json needs the list of classes, .*{labels}, .*{tmp_path}/labels/labels\.json")
    write(labels, '["Approaching"]')
    fails(train, r"labels\.json must have an object")
    write(labels, json.dumps({**SSV2_CLASSES, "Throwing something": "3"}))
    fails(train, r"labels\.json: the 3 classes are not numbered 0 to 2")
    write(labels, '{\n"Approaching something with your camera": "0",,\n}')
    fails(train, r"labels\.json, line 2: no JSON")
    write(labels, json.dumps({"Approaching something with your camera": "0"}))
    fails(train, r"train\.json, entry 1 \(id 78687\): class 'Pushing something from left to right' is not in")
    write(labels, json.dumps(SSV2_CLASSES))
    videos = tmp_path / "20bn-something-something-v2"
    fails(train, rf"train\.json: its videos, such as 78687.webm, were not found; looked in {videos}, .*, {tmp_path},")
    write(videos / "78687.webm")
    fails(train, r"train\.json: 1 of 2 files do not exist \(entry 2 \(id 42326\): .*42326\.webm\)")
    fails(labels, "labels.json is no annotation file of Something-Something V2")
    write(train, json.dumps([*SSV2_TRAIN, {"id": "7"}]))
    fails(train, r"train\.json, entry 3 \(id 7\) has no template")
    train.write_bytes(b"\xff\xfe\x00\x81")
    fails(train, r"train\.json is no UTF-8 text")
    for text in ("[]", '[{"template": "x"}]', "[1]"):
        write(train, text)
        fails(train, r"train\.json is no annotation file of Something-Something V2")


UCF101 = ("ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi", "YoYo/v_YoYo_g25_c05.avi", "Archery/v_Archery_g08_c02.avi")


def write_ucf101(folder):
    write(folder / "classInd.txt", "1 ApplyEyeMakeup\r\n2 YoYo\r\n3 Archery\r\n")
    train = write(folder / "trainlist01.txt", "".join(f"{name} {n}\r\n" for n, name in enumerate(UCF101, start=1)))
    test = write(folder / "testlist01.txt", f"{UCF101[2]}\n{UCF101[0]}\n")
    return train, test


@pytest.mark.parametrize("videos", ["UCF-101", "ucfTrainTestlist/UCF-101", "", "ucfTrainTestlist"])
def test_ucf101(tmp_path, videos):
    train, test = write_ucf101(tmp_path / "ucfTrainTestlist")
    for name in UCF101:
        write(tmp_path / videos / name)
    source = open_source(train)
    assert source.class_names == ("ApplyEyeMakeup", "YoYo", "Archery")
    assert [path for path, _ in pairs(source, tmp_path / videos)] == list(UCF101)
    assert source.labels.tolist() == [0, 1, 2]
    for classes in (None, source.class_names):
        assert open_source(test, classes).labels.tolist() == [2, 0]


def test_ucf101_errors(tmp_path):
    folder = tmp_path / "ucfTrainTestlist"
    train, _ = write_ucf101(folder)
    fails(
        train, rf"trainlist01\.txt: its videos, such as {UCF101[0]}, were not found; looked in .*{tmp_path}/UCF-101, "
    )
    write(tmp_path / "UCF-101" / UCF101[0])
    fails(train, rf"trainlist01\.txt: 2 of 3 files do not exist \(line 2: {tmp_path}/UCF-101/YoYo/")
    for line, message in (
        ("YoYo/v_YoYo_g01_c01.avi 1", "says class 1, classInd.txt says 2"),
        ("Yo/v_Yo_g01_c01.avi 1", "class 'Yo' is not in classInd.txt"),
        ("Yo.avi 1 2", "is not of the form"),
        ("YoYo/more/v.avi 2", "is not of the form"),
        ("YoYo/v.txt 2", "is not of the form"),
    ):
        write(folder / "trainlist01.txt", f"{UCF101[0]} 1\n{line}\n")
        fails(train, rf"trainlist01\.txt, line 2: .*{message}")
    for line in ("3 YoYo", "YoYo", "2 Yo Yo"):
        write(folder / "classInd.txt", f"1 ApplyEyeMakeup\n{line}\n")
        fails(train, rf"classInd\.txt, line 2: expected `2 class`, got '{line}'")
    (folder / "classInd.txt").unlink()
    fails(train, rf"trainlist01\.txt is named as UCF101's .*{folder}/classInd\.txt; .* rename")


HMDB51 = {
    # Names as they are: with characters that shells and URLs do not like. Lines end in a space.
    "smile_test_split1.txt": "#20_Rhythm_smile_h_nm_np1_fr_goo_0.avi 1 \nLost(1)_smile_u_cm_np1_fr_med_5.avi 2 \n",
    "brush_hair_test_split1.txt": "April_09_brush_hair_u_nm_np1_ba_goo_0.avi 1 \nA&B_brush_hair_u_nm_np2_le_0.avi 0 \n",
    "smile_test_split2.txt": "#20_Rhythm_smile_h_nm_np1_fr_goo_0.avi 2 \n",
}


def write_hmdb51(root, videos):
    for name, text in HMDB51.items():
        write(root / "testTrainMulti_7030_splits" / name, text)
        for line in text.splitlines():
            write(root / videos / name.split("_test_")[0] / line.split()[0])
    return f"{root}/testTrainMulti_7030_splits"


@pytest.mark.parametrize("videos", ["hmdb51_org", "hmdb51", "videos", "", "testTrainMulti_7030_splits"])
def test_hmdb51(tmp_path, videos):
    folder = write_hmdb51(tmp_path, videos)
    train = open_source(f"{folder}:1:train")
    assert train.class_names == ("brush_hair", "smile")
    assert pairs(train, tmp_path / videos) == [
        ("brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi", "brush_hair"),
        ("smile/#20_Rhythm_smile_h_nm_np1_fr_goo_0.avi", "smile"),
    ]
    test = open_source(f"{folder}:1:test", train.class_names)
    assert pairs(test, tmp_path / videos) == [("smile/Lost(1)_smile_u_cm_np1_fr_med_5.avi", "smile")]
    assert open_source(f"{folder}/:2:test").class_names == ("smile",)


def test_hmdb51_errors(tmp_path):
    folder = write_hmdb51(tmp_path, "elsewhere")
    fails(folder, f"split files of HMDB51, 1, 2; say which and which part: {folder}:1:train or {folder}:1:test")
    fails(f"{folder}:3:train", "has no split '3'; it has 1, 2")
    fails(f"{folder}:1:val", "'val' is no part of HMDB51; end in :1:train or :1:test")
    fails(f"{tmp_path}:1:train", f"{tmp_path} has no files CLASS_test_split1.txt")
    fails(f"{tmp_path}/nowhere:1:train", "nowhere has no files")
    fails(f"{folder}:2:train", "split 2 have no videos for train")
    fails(
        f"{folder}:1:train", rf"such as brush_hair/April.*, were not found; looked in {tmp_path}/hmdb51_org, .*{folder}"
    )
    write(tmp_path / "hmdb51_org/smile/#20_Rhythm_smile_h_nm_np1_fr_goo_0.avi")
    fails(
        f"{folder}:1:train",
        r"1 of 2 files do not exist \(brush_hair_test_split1.txt line 1: .*/hmdb51_org/brush_hair/A",
    )
    for line in ("a.avi", "a.avi 3", "a.txt 1"):
        write(tmp_path / "testTrainMulti_7030_splits/smile_test_split1.txt", f"b.avi 1 \n{line}\n")
        fails(f"{folder}:1:train", rf"smile_test_split1\.txt, line 2: '{line}' is not of the form")
