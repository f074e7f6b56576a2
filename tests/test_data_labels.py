"""Labels of any values become codes, names and counts."""

import numpy as np
import pyarrow as pa
import pytest

from t2v_hub.data.labels import encode_labels
from t2v_hub.errors import ClassSizeError, DataError, LabelError

NAN = float("nan")


@pytest.fixture(params=["list", "arrow"])
def as_column(request):
    if request.param == "list":
        return list
    return lambda values: pa.chunked_array([pa.array(values)[:2], pa.array(values)[2:]])


@pytest.mark.parametrize(
    ("values", "codes", "names"),
    [
        ([7, 3, 7, 3], [1, 0, 1, 0], ("3", "7")),
        ([10, 9, 10, 9], [1, 0, 1, 0], ("9", "10")),
        ([-5, 2**40, -5, 2**40], [0, 1, 0, 1], ("-5", str(2**40))),
        (["dog", "cat", "cat", "dog"], [1, 0, 0, 1], ("cat", "dog")),
        ([True, False, False, True], [1, 0, 0, 1], ("False", "True")),
        ([1.0, 0.0, 0.0, 1.0], [1, 0, 0, 1], ("0", "1")),
        ([1, -1, -1, 1], [1, 0, 0, 1], ("-1", "1")),
        ([b"b", b"a", b"a", b"b"], [1, 0, 0, 1], ("a", "b")),
    ],
)
def test_labels_of_any_values_become_codes(as_column, values, codes, names):
    """Data sets start at 1, leave gaps, or hold strings."""
    labels = encode_labels(as_column(values))

    assert labels.codes.tolist() == codes
    assert labels.codes.dtype == np.int64
    assert labels.names == names
    assert labels.counts.tolist() == [2, 2]


def test_wrapped_numbers_are_numbers():
    """Torch data sets give tensors and NumPy integers; as objects each would be a class of its own."""
    labels = encode_labels([np.int32(3), np.array(5), 3, np.float32(5)])

    assert labels.names == ("3", "5")


def test_classes_that_do_not_occur_get_no_code(as_column):
    """A filtered data set keeps all names, and a head for absent classes would distort the Fisher."""
    labels = encode_labels(as_column([3, 1, 1, 3]), class_names=["a", "b", "c", "d", "e"])

    assert labels.names == ("b", "d")
    assert labels.codes.tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize(
    ("values", "n"),
    [
        ([0, None, 1, 1, 0], 1),
        ([0, -1, 1, -1, 0], 2),
        (["a", None, "b", "a", "b"], 1),
        ([1.0, NAN, 0.0, NAN, 1.0], 2),
    ],
)
def test_missing_labels_are_counted(as_column, values, n):
    """Unlabelled images taken for a class of their own would be measured as one."""
    with pytest.raises(LabelError, match=rf"{n} of 5 labels in 'kind' are missing.*ds\.filter.*'kind'"):
        encode_labels(as_column(values), column="kind")


def test_minus_one_is_missing_where_the_classes_have_names():
    """`ClassLabel` uses -1 for unlabelled, even beside a single 1."""
    with pytest.raises(LabelError, match="2 of 4 labels"):
        encode_labels([-1, 1, 1, -1], class_names=["a", "b"])


def test_a_split_without_labels_is_called_that():
    """The hidden test split of a competition carries -1 throughout."""
    with pytest.raises(LabelError, match=r"All 3 labels .* missing .*no labels.*split="):
        encode_labels([-1, -1, -1])


def test_no_labels_at_all():
    """A filter that keeps nothing is a common mistake."""
    with pytest.raises(DataError, match=r"no images.*filters"):
        encode_labels([])


@pytest.mark.parametrize("value", [0.37, 2.5])
def test_numbers_that_are_not_whole_are_no_labels(as_column, value):
    """A regression target has as many classes as images."""
    with pytest.raises(LabelError, match=rf"not whole, such as {value}.*label_column="):
        encode_labels(as_column([0.0, 1.0, value]))


@pytest.mark.parametrize("value", [{"a": 1}, 3 + 2j])
def test_other_things_are_no_labels(value):
    """Detection targets are dictionaries."""
    with pytest.raises(LabelError, match=r"holds (dict|complex).*labels are integers"):
        encode_labels([value, value])


def test_one_class_is_no_task(as_column):
    """A head of one class has no gradient, so the embedding would be zero."""
    with pytest.raises(LabelError, match=r"two classes.*all 3 images have the one class 'cat'"):
        encode_labels(as_column(["cat"] * 3))


SINGLES = ["a", "b", "a", "c", "b", "d"]


def test_a_class_with_one_image_is_named():
    """Nothing can be learned and checked from one image; which class it is helps to repair it."""
    with pytest.raises(
        ClassSizeError, match=r"2 of 4 classes in 'label' have a single image: 'c', 'd'.*drop"
    ):
        encode_labels(SINGLES)


def test_classes_with_one_image_can_be_dropped_or_kept(as_column):
    """The caller decides; what is left has codes without gaps."""
    dropped = encode_labels(as_column(SINGLES), small_classes="drop")
    kept = encode_labels(as_column(SINGLES), small_classes="keep")

    assert dropped.names == ("a", "b")
    assert dropped.codes.tolist() == [0, 1, 0, 1]
    assert dropped.positions.tolist() == [0, 1, 2, 4]
    assert kept.counts.tolist() == [2, 2, 1, 1]


def test_dropping_must_leave_two_classes():
    """Otherwise the error about one class would come from nowhere."""
    with pytest.raises(LabelError, match=r"Fewer than two classes.*'b'.*keep"):
        encode_labels(["a", "a", "b"], small_classes="drop")


def test_many_small_classes_are_not_all_listed():
    """A message of a thousand names cannot be read."""
    with pytest.raises(ClassSizeError, match=r"20 of 20 .* and 15 more"):
        encode_labels(list(range(20)))


YES, NO = True, False
EXPECTED = [[YES, NO], [YES, YES], [NO, YES], [NO, NO]]


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        ([["x"], ["y", "x"], ["y"], []], ("x", "y")),
        ([[4], [4, 9], [9], []], ("4", "9")),
        ([[0, 1, 0], [0, 1, 1], [0, 0, 1], [0, 0, 0]], ("1", "2")),
        ([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0]], ("0", "1")),
        ([[NO, YES], [YES, YES], [YES, NO], [NO, NO]], ("0", "1")),
        ([[-1, 1], [1, 1], [1, -1], [-1, -1]], ("0", "1")),
    ],
    ids=str.split("strings integers multi-hot floats bools plus-minus"),
)
def test_lists_are_several_labels_per_image(as_column, rows, names):
    """Lists of labels and vectors of zeros and ones say the same; absent classes get no column."""
    labels = encode_labels(as_column(rows))
    expected = np.array(EXPECTED)
    if isinstance(rows[0][0], float | bool) or -1 in rows[0]:
        expected = expected[:, ::-1]

    assert labels.multi_label
    assert labels.names == names
    np.testing.assert_array_equal(labels.codes, expected)
    assert labels.counts.tolist() == [2, 2]


def test_lists_of_classes_have_names():
    """`List(ClassLabel)` holds codes; those of 0 and 1 are classes, not a vector."""
    labels = encode_labels([[0, 1], [1, 2], [0, 2]], class_names=["a", "b", "c"])

    assert labels.names == ("a", "b", "c")
    assert labels.codes.tolist() == [[YES, YES, NO], [NO, YES, YES], [YES, NO, YES]]


def test_vectors_may_be_arrays():
    """Torch data sets such as CelebA give a tensor per image."""
    labels = encode_labels([np.array([0, 1, 1]), np.array([1, 0, 1]), np.array([1, 1, 0])])

    assert labels.codes.tolist() == [[NO, YES, YES], [YES, NO, YES], [YES, YES, NO]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["x"], None, ["y"]], r"1 of 3 labels"),
        ([["x"], [None], ["y"]], r"1 of 3 labels"),
        ([[0, 1], [1, 0], None], r"1 of 3 labels"),
        ([[0, 1, -1], [1, 0, 0], [1, 1, 1]], r"1 of 3 labels"),
        ([[0.3, 0.7], [1.0, 0.0]], r"not whole, such as 0\.[37]"),
        ([[], []], r"none of 2 images has a label"),
        ([["x"], ["x"]], r"one class 'x'"),
        ([["x", "y"], ["x"]], r"1 of 2 classes .* single image: 'y'"),
    ],
)
def test_several_labels_are_checked_like_one(rows, message):
    """An uncertain attribute (-1) or a missing list is no 'no'."""
    with pytest.raises(LabelError, match=message):
        encode_labels(rows)


def test_dropping_a_small_class_keeps_the_image_with_several_labels():
    """The image still has its other labels."""
    labels = encode_labels([["x", "z"], ["y"], ["x"], ["y"]], small_classes="drop")

    assert labels.names == ("x", "y")
    assert labels.positions.tolist() == [0, 1, 2, 3]
