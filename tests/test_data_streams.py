"""A stream is read once, and a random sample of every class stays in memory."""

import io

import numpy as np
import PIL.Image
import pytest
from datasets import ClassLabel, Dataset, Features, Image, IterableDataset, List, Value

from t2v_hub.data import load
from t2v_hub.data.sampling import draw_by_class
from t2v_hub.data.streams import scan
from t2v_hub.errors import ClassSizeError, ColumnError, DataError, LabelError, SettingsError

NAMES = ["ant", "bee", "cow"]


def png(value: int) -> bytes:
    file = io.BytesIO()
    PIL.Image.new("RGB", (4, 4), (value % 256, value // 256, 0)).save(file, "png")
    return file.getvalue()


def value_of(image: object) -> int:
    pixel = PIL.Image.open(io.BytesIO(image["bytes"])).getpixel((0, 0))
    return pixel[0] + 256 * pixel[1]


def table(codes: list[int]) -> Dataset:
    return Dataset.from_dict(
        {"image": [{"bytes": png(i), "path": None} for i in range(len(codes))], "label": codes},
        features=Features({"image": Image(), "label": ClassLabel(names=NAMES)}),
    )


def test_a_stream_that_fits_gives_the_sample_of_the_table():
    """The keys hang on the position, so the same images are drawn whichever way the data comes."""
    data = table([0] * 30 + [1] * 20 + [2] * 10)

    at_rest = load(data).sample(20, seed=5)
    streamed = load(data.to_iterable_dataset(), seed=5).sample(20, seed=5)

    np.testing.assert_array_equal(streamed.positions, at_rest.positions)
    np.testing.assert_array_equal(streamed.labels, at_rest.labels)
    assert [value_of(streamed.encoded(i)) for i in range(20)] == at_rest.positions.tolist()


def test_few_images_stay_in_memory_and_rare_classes_among_them():
    """A plain reservoir would lose the rare class, and without it the task is another one."""
    task = load(table([0] * 300 + [1] * 150 + [2] * 6).to_iterable_dataset(), max_kept=40, seed=0)
    held = np.bincount(task.labels)

    assert len(task) == 40
    assert held[2] == 6
    assert held[0] > held[1] > held[2]
    assert task.n_samples == 456
    assert task.class_counts.tolist() == [300, 150, 6]
    assert task.class_names == ("ant", "bee", "cow")


def test_weights_count_the_whole_stream():
    """Rare classes are over-represented in memory; means must be those of the stream all the same."""
    task = load(table([0] * 300 + [1] * 150 + [2] * 6).to_iterable_dataset(), max_kept=40)
    sample = task.sample(1000, seed=0)
    totals = np.bincount(sample.labels, weights=sample.weights) / sample.weights.sum()

    np.testing.assert_allclose(totals, np.array([300, 150, 6]) / 456)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rest", [[40] * 3, [4] * 60, [2] * 90, [400, 100, 20], [1000] * 2])
def test_twice_the_sample_in_memory_is_enough_to_draw_it(rest, seed):
    """Bulk enrichment keeps no more: what is drawn must be what all images would give, and weigh as much."""
    codes = np.repeat(np.arange(len(rest) + 1), [600, *rest])
    codes = np.random.default_rng(seed).permutation(codes)
    items = [({"bytes": b"%d" % i, "path": None}, int(code)) for i, code in enumerate(codes)]

    def draw(max_kept):
        found = scan(items, max_kept=max_kept, seed=seed, progress=False)
        at_hand = np.array(sorted(found.images))
        sample = draw_by_class(
            codes[at_hand], at_hand, np.bincount(codes), max_samples=200, seed=seed, how="natural"
        )
        return at_hand[sample.chosen], sample.weights

    positions, weights = draw(400)
    everywhere, expected = draw(len(codes))

    np.testing.assert_array_equal(positions, everywhere)
    np.testing.assert_allclose(weights, expected)


def test_large_images_do_not_fill_the_memory():
    """A sample of scans from microscopes, 50 MB each, would not fit otherwise."""
    items = [({"bytes": bytes(1000 + 400 * (i % 7)), "path": None}, i % 3) for i in range(3000)]
    items[5] = (PIL.Image.new("RGB", (64, 64)), 0)

    held = np.array(
        [
            sorted(scan(items, max_kept=2000, max_bytes=100_000, seed=seed, progress=False).images)
            for seed in range(9)
        ],
        dtype=object,
    )

    for positions in held:
        images = [items[i][0] for i in positions]
        assert 80_000 < sum(len(image["bytes"]) for image in images if isinstance(image, dict)) <= 100_000
        assert np.bincount([i % 3 for i in positions]).min() > 8
    assert np.mean(np.concatenate(held)) == pytest.approx(1500, abs=150)  # and not the first of the stream


def test_the_kept_images_are_a_random_sample_of_their_class():
    """The first of a stream are no sample of it."""
    data = table([0] * 100 + [1] * 100).to_iterable_dataset()
    hits = np.zeros(200)
    for seed in range(60):
        hits[load(data, max_kept=40, seed=seed).positions] += 1

    assert hits.sum() == 60 * 40
    for start in (0, 50, 100, 150):
        assert hits[start : start + 50].sum() == pytest.approx(600, abs=90)


def test_only_so_many_images_are_scanned():
    """A stream may have no end."""

    def endless():
        i = 0
        while True:
            yield {"image": {"bytes": png(i), "path": None}, "label": i % 2}
            i += 1

    features = Features({"image": Image(), "label": Value("int64")})
    task = load(IterableDataset.from_generator(endless, features=features), max_scan=50)

    assert task.n_samples == 50
    assert task.info.revision.startswith("sha256:")


def test_the_revision_names_what_was_scanned():
    """It keys the cache: other content or another length must be another revision."""
    data = table([0, 1] * 10)
    other = table([0, 1] * 9 + [1, 0])

    def revision(source, **options):
        return load(source.to_iterable_dataset(), **options).info.revision

    assert revision(data) == revision(data, seed=1)
    assert len({revision(data), revision(other), revision(data, max_scan=18)}) == 3


def test_streams_without_types_are_understood():
    """Generators yield images and labels, and say nothing about their types."""

    def items():
        for i in range(12):
            yield {"picture": PIL.Image.new("RGB", (4, 4), (i, 0, 0)), "label": "ab"[i % 2]}

    task = load(IterableDataset.from_generator(items))
    sample = task.sample(12, seed=0)

    assert task.class_names == ("a", "b")
    assert all(isinstance(sample.encoded(i), bytes) for i in range(12))
    reds = sample.decode(lambda image: np.asarray(image).transpose(2, 0, 1)).images[:, 0, 0, 0]
    np.testing.assert_array_equal(reds, sample.positions)


def test_streams_may_have_several_labels_per_image():
    """Such images belong to no one class, so they are kept uniformly."""

    def items():
        for i in range(60):
            yield {"image": {"bytes": png(i), "path": None}, "tags": [i % 3, (i + 1) % 3]}

    features = Features({"image": Image(), "tags": List(ClassLabel(names=NAMES))})
    task = load(IterableDataset.from_generator(items, features=features), max_kept=20)

    assert task.multi_label
    assert len(task) == 20
    assert task.class_counts.tolist() == [40, 40, 40]
    assert task.sample(10, seed=0).labels.sum(axis=1).tolist() == [2.0] * 10


def test_more_than_max_kept_stay_only_to_have_two_per_class():
    """A class of one image could not be drawn from."""

    def items():
        for i in range(200):
            yield {"image": {"bytes": png(i), "path": None}, "label": i % 20}

    features = Features({"image": Image(), "label": Value("int64")})
    task = load(IterableDataset.from_generator(items, features=features), max_kept=10)

    assert np.bincount(task.labels).tolist() == [2] * 20


def test_a_class_that_appears_late_is_kept():
    """Streams are often sorted by class; memory is then full of the others."""
    task = load(table([0] * 200 + [1] * 200 + [2] * 20).to_iterable_dataset(), max_kept=30)

    assert np.bincount(task.labels)[2] == 5


def test_small_classes_of_a_stream_can_be_dropped():
    """The images at hand then leave that class out too."""
    data = table([0] * 10 + [2] + [1] * 10).to_iterable_dataset()
    with pytest.raises(ClassSizeError, match="'cow'"):
        load(data)
    task = load(data, small_classes="drop")

    assert task.class_names == ("ant", "bee")
    assert 10 not in task.positions
    assert task.n_samples == 20


@pytest.mark.parametrize(
    ("codes", "error", "message"),
    [
        ([0, 1, -1, 1, 0], LabelError, r"1 of 5 labels in 'label' are missing"),
        ([0, 0, 0], LabelError, r"one class 'ant'"),
    ],
)
def test_labels_of_a_stream_are_checked(codes, error, message):
    """The same mistakes have the same errors as in a table."""
    with pytest.raises(error, match=message):
        load(table(codes).to_iterable_dataset())


def test_an_untyped_stream_that_is_empty_is_an_error():
    """There is no first image to tell the columns from."""
    with pytest.raises(DataError, match="the stream is empty"):
        load(IterableDataset.from_generator(lambda: iter(())))


def test_columns_of_a_stream_are_checked():
    """Also where the types are guessed from the first image."""

    def items():
        yield {"picture": PIL.Image.new("L", (1, 1)), "name": "a"}

    with pytest.raises(ColumnError, match="No label column"):
        load(IterableDataset.from_generator(items))


def test_a_stream_that_breaks_off_is_an_error_of_ours():
    """The connection may end after hours; the message says where."""

    def items():
        for i in range(7):
            yield {"image": {"bytes": png(i), "path": None}, "label": i % 2}
        raise ConnectionResetError("peer went away")

    features = Features({"image": Image(), "label": Value("int64")})

    with pytest.raises(DataError, match=r"broke off after 7 images: peer went away"):
        load(IterableDataset.from_generator(items, features=features))


@pytest.mark.parametrize("option", ["max_scan", "max_kept"])
def test_limits_must_be_counts(option):
    """None and 0 would mean something else to everyone."""
    with pytest.raises(SettingsError, match=rf"{option} must be a whole number of at least 1; got 0"):
        load(table([0, 1]).to_iterable_dataset(), **{option: 0})
