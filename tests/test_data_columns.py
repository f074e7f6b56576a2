"""Which column holds the images, and which the labels."""

import pytest
from datasets import Array3D, ClassLabel, Features, Image, List, Value

from t2v_hub.data.columns import choose_columns
from t2v_hub.errors import ColumnError, LabelError

KINDS = ClassLabel(names=["cat", "dog"])


@pytest.mark.parametrize(
    ("features", "image", "label"),
    [
        ({"photo": Image(), "kind": KINDS, "id": Value("int64")}, "photo", "kind"),
        ({"image": Value("binary"), "label": Value("int64")}, "image", "label"),
        ({"img": Value("string"), "labels": List(Value("int8"))}, "img", "labels"),
        ({"pixel_values": Array3D((3, 8, 8), "uint8"), "target": Value("string")}, "pixel_values", "target"),
        (
            {"image": {"bytes": Value("binary"), "path": Value("string")}, "class": Value("bool")},
            "image",
            "class",
        ),
        ({"image": List(List(Value("uint8"))), "label": KINDS}, "image", "label"),
        ({"photo": Image(), "tags": List(KINDS), "label_text": Value("string")}, "photo", "tags"),
        (
            {"photo": Image(), "image": Value("string"), "kind": KINDS, "label": Value("int64")},
            "photo",
            "kind",
        ),
        ({"image": Image(decode=False), "label": Value("null")}, "image", "label"),
    ],
)
def test_columns_are_found_by_type_and_then_by_name(features, image, label):
    """The type says more than a name; names help where the type was lost."""
    columns = choose_columns(Features(features))

    assert (columns.image, columns.label) == (image, label)


def test_class_names_come_with_the_column():
    """Lists of classes know their names too."""
    assert choose_columns(Features({"image": Image(), "tags": List(KINDS)})).class_names == ("cat", "dog")
    assert choose_columns(Features({"image": Image(), "label": Value("int64")})).class_names is None


def test_named_columns_win():
    """Naming a column is how an ambiguity is resolved."""
    features = Features({"a": Image(), "b": Image(), "coarse": KINDS, "fine": KINDS, "id": Value("int64")})

    columns = choose_columns(features, image_column="b", label_column="id")

    assert (columns.image, columns.label, columns.class_names) == ("b", "id", None)


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        (
            {"text": Value("string"), "label": KINDS},
            {},
            r"No image column.*'text' \(string\), 'label'.*image_column=",
        ),
        (
            {"a": Image(), "b": Image(), "label": KINDS},
            {},
            r"Several columns may hold the images: 'a', 'b'.*image_column=",
        ),
        ({"image": Value("binary"), "img": Value("binary"), "label": KINDS}, {}, r"Several .*'image', 'img'"),
        ({"image": Value("int64"), "label": KINDS}, {}, r"No image column"),
        (
            {"image": Image(), "text": Value("string")},
            {},
            r"No label column.*'text' \(string\).*label_column=",
        ),
        (
            {"image": Image(), "fine": KINDS, "coarse": KINDS},
            {},
            r"Several columns may hold the labels: 'fine', 'coarse'.*label_column=",
        ),
        ({"image": Image(), "label": KINDS, "tags": List(KINDS)}, {}, r"Several columns may hold the labels"),
        (
            {"image": Image(), "label": Value("int8"), "labels": Value("int8")},
            {},
            r"Several columns .*'label', 'labels'",
        ),
        ({"image": Image(), "target": Image()}, {"image_column": "image"}, r"No label column"),
        (
            {"image": Image(), "label": KINDS},
            {"image_column": "photo"},
            r"no column 'photo' \(image_column\)",
        ),
        ({"image": Image(), "label": KINDS}, {"label_column": "kind"}, r"no column 'kind' \(label_column\)"),
        (
            {"image": Image(), "label": KINDS},
            {"image_column": "label"},
            r"'label' holds ClassLabel, not one image",
        ),
        (
            {"image": List(Image()), "label": KINDS},
            {"image_column": "image"},
            r"holds lists of Image, not one image",
        ),
        (
            {"image": Image(), "label": KINDS},
            {"label_column": "image"},
            r"'image' cannot hold the images and the labels",
        ),
    ],
)
def test_absent_and_ambiguous_columns_are_named(features, options, message):
    """The error lists the columns and the argument that settles it."""
    with pytest.raises(ColumnError, match=message):
        choose_columns(Features(features), **options)


def test_a_column_of_something_else_holds_no_labels():
    """An image or a dictionary as label is a mistake, not a class."""
    with pytest.raises(LabelError, match=r"'mask' holds Image, not labels.*label_column="):
        choose_columns(
            Features({"image": Image(), "mask": Image()}), image_column="image", label_column="mask"
        )
