import numpy as np
import pytest

from videomae_jax.evaluation.confusion import draw_confusion

GREY = (225, 225, 225)


def heat_map(picture, num_classes):
    """What is inside the black frame, as cells [K K Y X 3]; and where the frame's upper left corner is."""
    black = (picture == 0).all(axis=-1)
    rows, columns = (np.flatnonzero(lines > 0.9 * lines.max()) for lines in (black.sum(axis=1), black.sum(axis=0)))
    inside = picture[rows[0] + 1 : rows[-1], columns[0] + 1 : columns[-1]]
    side = len(inside)
    assert inside.shape == (side, side, 3) and side % num_classes == 0
    cell = side // num_classes
    return inside.reshape(num_classes, cell, num_classes, cell, 3).swapaxes(1, 2), (rows[0], columns[0])


def is_plain(cells):
    return (cells == cells[:, :, :1, :1]).all(axis=(-3, -2, -1))


def numbered(num_classes):
    return [f"class {number}" for number in range(num_classes)]


def test_cells_are_the_darker_the_more_of_a_rows_videos_are_in_them():
    matrix = np.array([[4, 0, 0], [1, 3, 4], [0, 0, 0]])
    cells, _ = heat_map(draw_confusion(matrix, numbered(3)), 3)
    corners = cells[:, :, 0, 0].tolist()
    assert corners[0] == [[8, 48, 107], [255, 255, 255], [255, 255, 255]]
    lightness = [sum(colour) for colour in corners[1]]
    assert corners[1][2] == [107, 174, 214]
    assert lightness[0] > lightness[1] > lightness[2]
    assert {tuple(colour) for colour in corners[2]} == {GREY}


def test_counts_are_written_where_there_is_room():
    for num_classes, has_counts in ((20, True), (21, False)):
        matrix = 7 * np.eye(num_classes, dtype=int)
        cells, _ = heat_map(draw_confusion(matrix, numbered(num_classes)), num_classes)
        np.testing.assert_array_equal(is_plain(cells), matrix == 0 if has_counts else np.ones_like(matrix, bool))
    ones, sevens = (draw_confusion(count * np.eye(3, dtype=int), numbered(3)) for count in (1, 7))
    assert ones.shape == sevens.shape and (ones != sevens).any()


def test_counts_are_white_on_dark_cells_and_black_on_light_ones():
    cells, _ = heat_map(draw_confusion(np.array([[1, 8], [1, 1]]), numbered(2)), 2)
    lightest, darkest = cells.sum(axis=-1).max(axis=(2, 3)), cells.sum(axis=-1).min(axis=(2, 3))
    assert darkest[0, 0] < 100 and lightest[0, 1] > 3 * 230
    assert (darkest[1] < 100).all()  # black, on the middle shade


def test_names_are_beside_their_rows_and_below_their_columns():
    names = ["walk", "run", "hop", "jump up"]
    picture = draw_confusion(np.eye(4, dtype=int), names)
    cells, (top, left) = heat_map(picture, 4)
    cell = cells.shape[2]
    rows, columns = (slice(start + 1, start + 1 + 4 * cell) for start in (top, left))
    beside, below = picture[rows, left - 70 : left - 1], picture[top + 4 * cell + 3 :, columns][:69]
    np.testing.assert_array_equal(np.rot90(beside), below)
    assert (beside < 100).any(axis=(1, 2)).reshape(4, cell).any(axis=1).all()
    for number in range(3):
        other = draw_confusion(np.eye(4, dtype=int), [*names[:number], "sit", *names[number + 1 :]])
        changed = np.argwhere((other[rows, :left] != picture[rows, :left]).any(axis=-1))
        assert set(changed[:, 0] // cell) == {number}


def test_axes_and_shades_are_explained_also_beside_a_small_map():
    picture = draw_confusion(np.eye(1, dtype=int), ["walk"])
    _, (top, left) = heat_map(picture, 1)
    legend = picture[10:28]
    darkest = np.flatnonzero((legend == (8, 48, 107)).all(axis=(0, 2)))
    assert len(darkest) == 1  # the end of the bar
    after = np.flatnonzero((legend[:, darkest[0] + 1 :] < 100).any(axis=(0, 2)))
    assert 30 < np.ptp(after) and after[-1] + darkest[0] + 1 < picture.shape[1] - 5  # "100 %", whole
    assert (picture[top : top + 44, 10:28] < 100).any()  # "true"
    assert (picture[-28:-10] < 100).any()  # "predicted"


def test_many_classes_are_numbered():
    for num_classes, are_named in ((50, True), (51, False)):
        matrix = np.eye(num_classes, dtype=int)
        pictures = [draw_confusion(matrix, [letter * 9] * num_classes) for letter in "ab"]
        are_same = pictures[0].shape == pictures[1].shape and (pictures[0] == pictures[1]).all()
        assert are_same != are_named


@pytest.mark.parametrize(("num_classes", "ticks"), [(51, 11), (100, 20), (101, 3), (710, 15)])
def test_some_of_many_classes_have_their_number(num_classes, ticks):
    picture = draw_confusion(np.eye(num_classes, dtype=int), [""] * num_classes)
    cells, (top, left) = heat_map(picture, num_classes)
    assert cells.shape[2] == max(2, 800 // num_classes)
    beside = picture[top - 8 : top + num_classes * cells.shape[2] + 8, left - 20 : left - 2]
    has_ink = (beside < 200).any(axis=(1, 2))
    assert np.count_nonzero(np.diff(has_ink.astype(int)) == 1) == ticks


@pytest.mark.parametrize(
    ("name", "drawn"),
    [
        ("Übung, café", "Ubung, cafe"),
        ("走る", "1"),
        ("caf\udce9", "1"),
        ("", "1"),
        ("a\nb", "a b"),
        ("x" * 99, "x" * 90),
    ],
)
def test_names_are_written_in_letters_that_can_be_drawn(name, drawn):
    pictures = [draw_confusion(np.eye(2, dtype=int), ["walk", text]) for text in (name, drawn)]
    np.testing.assert_array_equal(*pictures)


def test_long_names_are_cut_and_say_so():
    narrow, cut, same = (draw_confusion(np.eye(9, dtype=int), [text] * 9) for text in ("x" * 20, "x" * 90, "x" * 99))
    np.testing.assert_array_equal(cut, same)
    assert 50 < cut.shape[1] - narrow.shape[1] < 150
