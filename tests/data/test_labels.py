"""Labels as numbers: classes that are known from elsewhere, several classes a video, numbers."""

import csv
import io
import pickle
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from videomae_jax.config import PROBLEM_TYPES
from videomae_jax.data.sources import Mixture, open_source
from videomae_jax.data.video import write_video

MULTI, REGRESSION = "multi_label_classification", "regression"
MOVES = ("walk", "jump", "sit", "run")  # not sorted, as a checkpoint may have them


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Videos `a.mp4`, `b.mp4`, `c.mp4`."""
    folder = tmp_path_factory.mktemp("labels")
    for name in "abc":
        write_video(folder / f"{name}.mp4", np.zeros((2, 32, 48, 3), np.uint8), fps=25)
    return folder


def listing(root, text, name="list.csv"):
    (root / name).write_text(text, encoding="utf-8")
    return str(root / name)


def labelled(root, *labels, name="list.csv"):
    """A CSV file of `a.mp4` with each of the labels."""
    text = io.StringIO()
    csv.writer(text).writerows([("path", "label"), *(("a.mp4", label) for label in labels)])
    return listing(root, text.getvalue(), name)


def fails(message, *arguments):
    with pytest.raises(ValueError, match=message):
        open_source(*arguments)


# Letters, and what names have beside them; neither digits nor the separators of the file.
NAMES = st.text("abcXYZ é_-().'", min_size=1, max_size=6).map(str.strip).filter(bool)


@given(st.data())
def test_names_are_found_in_any_order_of_known_classes(root, data):
    own = data.draw(st.lists(NAMES, min_size=1, max_size=6))
    known = tuple(data.draw(st.permutations(sorted({*own, *data.draw(st.lists(NAMES, max_size=4))}))))
    source = open_source(labelled(root, *own), known)
    assert source.class_names == known and [known[label] for label in source.labels] == own
    assert source.problem_type == "single_label_classification"


@given(known=st.lists(NAMES, min_size=1, max_size=12, unique=True), data=st.data())
def test_integers_are_indices_of_known_names(root, known, data):
    labels = data.draw(st.lists(st.integers(0, len(known) - 1), min_size=1, max_size=5))
    padded = [f"{label:0{data.draw(st.integers(1, 3))}d}" for label in labels]
    original = listing(root, "".join(f"a.mp4 {label}\n" for label in padded), "list.txt")
    for path in (original, labelled(root, *padded)):
        source = open_source(path, tuple(known))
        assert source.labels.tolist() == labels and source.class_names == tuple(known)
        assert source.labels.dtype == np.int32


def test_integers_beyond_the_known_names_are_errors(root):
    message = (
        r"list\.txt, line 2: label '4' is not in \[0, 3\], the numbers of the 4 known classes "
        r"\(walk, jump, sit, \.\.\.\); nor are '12', '5', '6' and 1 more; correct"
    )
    fails(message, listing(root, "".join(f"a.mp4 {label}\n" for label in (3, 4, 12, 4, 5, 6, 7)), "list.txt"), MOVES)
    fails(
        r"line 3: label '2' is not in \[0, 1\], .* 2 known classes \(x, y\); correct", labelled(root, 1, 2), ("x", "y")
    )


def test_integers_among_known_integers_are_names(root):
    assert open_source(labelled(root, 7, "08"), ("8", "5", "7")).labels.tolist() == [2, 0]
    fails(r"line 2: label '1' is not one of the 3 known classes \(8, 5, 7\)", labelled(root, 1), ("8", "5", "7"))
    fails(r"line 3: label '11' is not one of the 10 known", labelled(root, 9, 11), tuple(map(str, range(10))))


def test_integers_that_are_names_among_others_stay_names(root):
    signs = ("hello", "2", "1")
    assert open_source(labelled(root, 1, 2), signs).labels.tolist() == [2, 1]
    fails("line 2: label '0' is not one of the 3 known classes", labelled(root, 0, 1), signs)
    assert open_source(labelled(root, 0), signs).labels.tolist() == [0]


def test_integers_beside_names_are_names(root):
    fails("line 2: label '0' is not one of the 4 known classes", labelled(root, 0, "sit"), MOVES)
    fails("line 2: label '0' is not one of .*; nor are 'fly'; correct", labelled(root, 0, "fly"), MOVES)


@pytest.mark.parametrize("wrong", ["-1", "100000", "1700000000", "9" * 5000])
def test_numbers_that_cannot_be_of_classes_are_errors_with_their_line(root, wrong):
    message = (
        rf"list\.csv, line 3: label '{wrong[:30]}.* is no number of a class, counted from 0 to at most 99999; leave"
    )
    for known in (None, MOVES):
        fails(message, labelled(root, 0, wrong, 1), known)
        fails(message, labelled(root, "0|1", f"2|{wrong}"), known, MULTI)
    fails(r"list\.txt, line 1: label '100000' is no number", listing(root, "a.mp4 100000\n", "list.txt"))
    # Beside names it is one.
    assert open_source(labelled(root, "low", wrong, "high")).class_names == tuple(sorted(("low", wrong, "high")))
    assert open_source(labelled(root, "000099999")).labels.tolist() == [99999]


def test_more_classes_than_known_are_named_and_fewer_are_fine(root):
    fails(
        r"line 3: label 'b' is not one of the 1 known classes \(a\); nor are 'c', 'd'; correct",
        labelled(root, *"abcd"),
        ("a",),
    )
    assert open_source(labelled(root, "sit"), MOVES).labels.tolist() == [2]


def test_folders_named_by_integers_are_indices_too(root, tmp_path):
    for name in ("1", "03"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.mp4").symlink_to(root / "a.mp4")
    assert open_source(str(tmp_path)).class_names == ("03", "1")
    assert open_source(str(tmp_path), MOVES).labels.tolist() == [3, 1]
    fails(r"folder .*03: label '03' is not in \[0, 1\]", str(tmp_path), ("x", "y"))


def test_unlabelled_videos_need_no_class(root):
    assert open_source(listing(root, "path\na.mp4\nb.mp4\n"), MOVES).labels.tolist() == [-1, -1]


def test_mixtures_number_each_part_among_the_known_classes(root):
    listing(root, "a.mp4 3\nb.mp4 0\n", "numbers.txt")
    labelled(root, "jump", "sit", name="names.csv")
    mixture = listing(root, "source\nnumbers.txt\nnames.csv\n", "mixture.csv")
    source = open_source(mixture, MOVES)
    assert isinstance(source, Mixture) and source.class_names == MOVES
    assert source.labels.tolist() == [3, 0, 1, 2] == [source.open(index)[1] for index in range(4)]
    fails(r"mixture.csv, line 2: .*numbers.txt, line 1: label '3' is not in \[0, 1\]", mixture, ("jump", "sit"))


def test_a_name_that_two_known_classes_share_moves_no_index(root):
    listing(root, "a.mp4 0\nb.mp4 1\na.mp4 2\n", "numbers.txt")
    source = open_source(listing(root, "source\nnumbers.txt\n", "mixture.csv"), ("same", "same", "x"))
    assert source.labels.tolist() == [0, 1, 2]


# Several classes a video.


@given(st.data())
def test_several_classes_are_ones_in_a_row(root, data):
    videos = data.draw(st.lists(st.lists(NAMES, max_size=4), min_size=1, max_size=6))
    path = labelled(root, *("|".join(classes) for classes in videos))
    own = sorted({name for classes in videos for name in classes})
    known = tuple(data.draw(st.permutations(sorted({*own, *data.draw(st.lists(NAMES, max_size=3))}))))
    for source, names in ((open_source(path, None, MULTI), tuple(own)), (open_source(path, known, MULTI), known)):
        assert source.class_names == names and source.labels.dtype == np.float32 and source.problem_type == MULTI
        oracle = np.array([[name in classes for name in names] for classes in videos], np.float32)
        np.testing.assert_array_equal(source.labels, oracle.reshape(len(videos), len(names)))


def test_several_integers_keep_their_numbers_or_are_indices(root):
    path = labelled(root, "01|3", "", " 0 | 3 ")
    rows = [[0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 1]]
    for known, names in ((None, ("0", "1", "2", "3")), (MOVES, MOVES)):
        source = open_source(path, known, MULTI)
        assert source.class_names == names and source.labels.tolist() == rows
    fails(r"line 2: label '3' is not in \[0, 2\]", path, MOVES[:3], MULTI)


def test_opening_gives_the_row_of_labels(root):
    path = listing(root, "path,label\nb.mp4,sit|walk\na.mp4,\n")
    source = open_source(path, MOVES, MULTI)
    for again in (source, pickle.loads(pickle.dumps(source))):
        for index, row in enumerate([[1, 0, 1, 0], [0, 0, 0, 0]]):
            video, label = again.open(index)
            with video:
                assert video.path == source.paths[index]
            assert label.dtype == np.float32 and label.tolist() == row == again.label(index).tolist()


def test_wrong_labels_of_several_classes(root):
    for label in ("|sit", "sit|", "sit||walk", "|"):
        fails(
            rf"line 2: label '{re.escape(label)}' has a \| without a class on both", labelled(root, label), None, MULTI
        )
    fails(
        r"list\.csv, line 3: label 'fly' is not one of the 4 known classes",
        labelled(root, "sit", "sit|fly"),
        MOVES,
        MULTI,
    )
    fails(
        "list.csv has the columns path; multi_label_.* needs one `label`", listing(root, "path\na.mp4\n"), None, MULTI
    )
    fails("line 2: .* has no label", labelled(root, ""))


def test_names_with_the_separator_are_one_class_otherwise(root):
    assert open_source(labelled(root, "sit|walk")).class_names == ("sit|walk",)


def test_mixtures_join_several_classes_by_name(root):
    labelled(root, "sit|walk", "", name="one.csv")
    labelled(root, "run|sit", "jump", name="two.csv")
    mixture = listing(root, "source,stride\none.csv,3\ntwo.csv,\n", "mixture.csv")
    source = open_source(mixture, None, MULTI)
    assert source.class_names == ("jump", "run", "sit", "walk") and source.problem_type == MULTI
    rows = [[0, 0, 1, 1], [0, 0, 0, 0], [0, 1, 1, 0], [1, 0, 0, 0]]
    assert source.labels.tolist() == rows and source.labels.dtype == np.float32
    for again in (source, pickle.loads(pickle.dumps(source))):
        assert [again.open(index)[1].tolist() for index in range(4)] == rows
    assert source.stride(0) == 3
    known = open_source(mixture, ("fly", *MOVES), MULTI)
    assert known.labels[:, 1:].tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 0, 0]]
    assert not known.labels[:, 0].any()


# Numbers.

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.integers(1, 4).flatmap(lambda R: st.lists(st.lists(FLOATS, min_size=R, max_size=R), min_size=1, max_size=5)))
def test_numbers_are_read_as_they_are(root, rows):
    source = open_source(labelled(root, *("|".join(map(repr, row)) for row in rows)), None, REGRESSION)
    np.testing.assert_array_equal(source.labels, np.array(rows, np.float32))
    assert source.labels.dtype == np.float32 and source.labels.ndim == 2 and source.problem_type == REGRESSION
    assert source.class_names == ("0", "1", "2", "3")[: len(rows[0])]
    np.testing.assert_array_equal(source.open(0)[1], source.labels[0])


def test_numbers_take_the_known_names(root):
    path = labelled(root, "0.5|-2", "1e3|7")
    source = open_source(path, ("valence", "arousal"), REGRESSION)
    assert source.class_names == ("valence", "arousal") and source.labels.tolist() == [[0.5, -2], [1000, 7]]
    fails(r"line 2: label '0\.5\|-2' is 2 numbers; every line must have 1", path, ("valence",), REGRESSION)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (("1", "fast"), r"line 3: label 'fast' must be finite numbers, 'fast' is none"),
        (("1|2", "3|nan"), r"line 3: label '3\|nan' must be finite numbers, 'nan' is none"),
        (("inf",), "line 2: label 'inf' must be finite"),
        (("-1e39",), "line 2: label '-1e39' must be finite"),  # beyond float32
        (("1|",), r"line 2: label '1\|' must be finite numbers, '' is none"),
        (("1", "1|2"), r"line 3: label '1\|2' is 2 numbers; every line must have 1"),
        (("1", ""), "line 3: .* has no label"),
    ],
)
def test_what_is_no_number_is_an_error(root, labels, message):
    fails(rf"list\.csv, {message}", labelled(root, *labels), None, REGRESSION)


def test_mixtures_of_numbers_have_as_many_in_every_part(root):
    labelled(root, "1.5", "2", name="one.csv")
    labelled(root, "-3", name="two.csv")
    labelled(root, "1|2", name="wide.csv")
    source = open_source(listing(root, "source\none.csv\ntwo.csv\n", "mixture.csv"), None, REGRESSION)
    assert source.labels.tolist() == [[1.5], [2], [-3]] and source.class_names == ("0",)
    assert source.open(2)[1].tolist() == [-3] and source.problem_type == REGRESSION
    fails(
        r"mixture.csv, line 3: .*wide.csv, line 2: label '1\|2' is 2 numbers; every line must have 1",
        listing(root, "source\none.csv\nwide.csv\n", "mixture.csv"),
        None,
        REGRESSION,
    )


# Which formats have them.


@pytest.mark.parametrize("problem_type", [MULTI, REGRESSION])
def test_other_formats_have_one_class_a_video(root, tmp_path, problem_type):
    kinetics = listing(root, "label,youtube_id,time_start,time_end,split\nx,a,0,10,train\n", "kinetics.csv")
    for path in (listing(root, "a.mp4 1\n", "list.txt"), kinetics):
        fails(
            f"has no such columns: {problem_type} needs a CSV file with the columns `path` and `label`",
            path,
            None,
            problem_type,
        )
    (tmp_path / "sit").mkdir()
    for path in (
        tmp_path,
        tmp_path / "missing.csv",
        root / "a.mp4",
        "builtin:train",
        "tfds:ucf101:train",
        f"{root}:1:train",
    ):
        fails(
            f"'{path}' is no such file: {problem_type} .*; lists, folders, .*one class", str(path), None, problem_type
        )
    mixture = listing(root, "source\nlist.txt\n", "mixture.csv")
    fails("mixture.csv, line 2: data path .*list.txt' has no such columns", mixture, None, problem_type)


def test_problem_types_are_those_of_hugging_face(root):
    fails(
        f"problem_type must be one of {', '.join(map(repr, PROBLEM_TYPES))}, got 'multi'",
        labelled(root, "1"),
        None,
        "multi",
    )
    for problem_type in PROBLEM_TYPES:
        assert open_source(labelled(root, "1"), None, problem_type).problem_type == problem_type


def test_digest_tells_rows_of_labels_apart(root):
    def digest(problem_type, *labels):
        return open_source(labelled(root, *labels), None, problem_type).digest()

    many = [f"c{number:04d}" for number in range(1100)]  # more than NumPy prints
    digests = [
        digest(MULTI, "x|y", "y"),
        digest(MULTI, "x", "x|y"),
        digest(MULTI, "|".join(many), "c0500"),
        digest(MULTI, "|".join(many), "c0501"),
        digest(REGRESSION, "1.0000001"),
        digest(REGRESSION, "1.0000002"),
        digest("single_label_classification", "1"),
        digest(REGRESSION, "1"),
    ]
    assert len(set(digests)) == len(digests)
    assert digest(MULTI, "y|x", "y") == digests[0]


def test_digest_of_single_labels_is_that_of_runs_begun_before(root):
    # Of "a.mp4 1\nb.mp4 0": a run's folder has it, and would refuse to go on with another.
    source = open_source(listing(root, "path,label\na.mp4,sit\nb.mp4,run\n"))
    assert source.digest() == "ce5e292a99747a34"
