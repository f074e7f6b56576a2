"""Which column holds the images, and which the labels."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from t2v_hub.errors import ColumnError, LabelError

IMAGE_NAMES = ("image", "img", "pixel_values")
LABEL_NAMES = ("label", "labels", "target", "class")


@dataclass(frozen=True)
class Columns:
    """The two columns of a labelled data set.

    Attributes:
        image: Column of the images.
        label: Column of the labels.
        class_names: Names by label where the column knows them (`datasets.ClassLabel`).
    """

    image: str
    label: str
    class_names: tuple[str, ...] | None


def choose_columns(
    features: Mapping[str, object], *, image_column: str | None = None, label_column: str | None = None
) -> Columns:
    """The columns of images and labels: as named, or the only ones that can be meant.

    Images are in the only column of type `datasets.Image`, else in the one named image, img or
    pixel_values. Labels are in the only column of `datasets.ClassLabel` or lists of it, else in the
    one named label, labels, target or class.

    Raises:
        ColumnError: A column is absent or ambiguous; the message lists the columns.
        LabelError: The column named for the labels holds something else.
    """
    image = _image_column(features, image_column)
    if label_column is not None and label_column == image:
        raise ColumnError(
            f"The column {image!r} cannot hold the images and the labels. {_listing(features)} "
            "Name two of them with image_column= and label_column=."
        )
    label = _label_column(features, label_column, image)
    names = getattr(_element(features[label]), "names", None)
    return Columns(image, label, tuple(names) if names else None)


def _image_column(features: Mapping[str, object], named: str | None) -> str:
    if named is None:
        return _only(
            "image",
            features,
            [name for name, feature in features.items() if _is(feature, "Image")],
            [name for name in IMAGE_NAMES if name in features and _may_hold_images(features[name])],
            "a datasets.Image column, or one named " + ", ".join(IMAGE_NAMES),
        )
    _require(features, named, "image_column")
    if not _may_hold_images(features[named]):
        raise ColumnError(
            f"The column {named!r} holds {_kind(features[named])}, not one image per row. "
            f"{_listing(features)} Name another one with image_column=."
        )
    return named


def _label_column(features: Mapping[str, object], named: str | None, image: str) -> str:
    others = {name: feature for name, feature in features.items() if name != image}
    if named is None:
        return _only(
            "label",
            features,
            [name for name, feature in others.items() if _is(_element(feature), "ClassLabel")],
            [name for name in LABEL_NAMES if name in others and _may_hold_labels(others[name])],
            "a datasets.ClassLabel column, or one named " + ", ".join(LABEL_NAMES),
        )
    _require(features, named, "label_column")
    if not _may_hold_labels(features[named]):
        raise LabelError(
            f"The column {named!r} holds {_kind(features[named])}, not labels. {_listing(features)} "
            "Labels are classes, integers, strings or lists of them; name their column with label_column=."
        )
    return named


def _only(
    noun: str, features: Mapping[str, object], by_type: list[str], by_name: list[str], wanted: str
) -> str:
    found = by_type or by_name
    if len(found) == 1:
        return found[0]
    if found:
        raise ColumnError(
            f"Several columns may hold the {noun}s: {_quoted(found)}. {_listing(features)} "
            f"Name one with {noun}_column=, for example {noun}_column={found[0]!r}."
        )
    raise ColumnError(
        f"No {noun} column found; looked for {wanted}. {_listing(features)} Name one with {noun}_column=."
    )


def _require(features: Mapping[str, object], named: str, argument: str) -> None:
    if named not in features:
        raise ColumnError(f"There is no column {named!r} ({argument}). {_listing(features)}")


def _listing(features: Mapping[str, object]) -> str:
    columns = ", ".join(f"{name!r} ({_kind(feature)})" for name, feature in features.items())
    return f"The columns are {columns or 'none'}."


def _kind(feature: object) -> str:
    if _is(feature, "List", "LargeList"):
        return f"lists of {_kind(_element(feature))}"
    if _is(feature, "Value"):
        return str(getattr(feature, "dtype", "values"))
    return type(feature).__name__


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)


# The types of `datasets` are told by name, so that this module need not import it.
def _is(feature: object, *types: str) -> bool:
    return type(feature).__name__ in types


def _element(feature: object) -> object:
    """What a list holds; the feature itself where it is none."""
    return getattr(feature, "feature", feature) if _is(feature, "List", "LargeList") else feature


def _may_hold_images(feature: object) -> bool:
    if _is(feature, "Image", "Array2D", "Array3D"):
        return True
    if isinstance(feature, Mapping):
        return bool({"bytes", "path"} & set(feature))
    if _is(feature, "List", "LargeList"):  # arrays as nested lists, but not lists of images
        element = _element(feature)
        while _is(element, "List", "LargeList"):
            element = _element(element)
        return _is(element, "Value") and _element(feature) is not element
    dtype = str(getattr(feature, "dtype", ""))
    return _is(feature, "Value") and ("string" in dtype or "binary" in dtype)


def _may_hold_labels(feature: object) -> bool:
    element = _element(feature)
    return _is(element, "ClassLabel", "Value", "Untyped")


@dataclass(frozen=True)
class Untyped:
    """A column of a stream that does not say what it holds; it may hold labels."""
