"""Samples are drawn over the whole data, reproducibly, and their weights undo the allocation."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2v_hub.data import ImageTask
from t2v_hub.data.sampling import allocate
from t2v_hub.embedding import TaskInfo
from t2v_hub.errors import (
    DataError,
    ImageError,
    InsufficientMemoryError,
    SampleSizeError,
    SettingsError,
    SkippedImagesWarning,
)

COUNTS = [600, 300, 80, 15, 5]


def task_of(codes: np.ndarray, read: Callable[[int], object] = lambda position: None) -> ImageTask:
    several = codes.ndim == 2
    counts = codes.sum(axis=0) if several else np.bincount(codes)
    info = TaskInfo("made up", n_samples=len(codes), n_classes=len(counts), multi_label=several)
    return ImageTask(info, codes, counts.astype(np.int64), np.arange(len(codes)), read)


@pytest.fixture
def imbalanced() -> ImageTask:
    """Sorted by class, as folders are read."""
    return task_of(np.repeat(np.arange(5), COUNTS))


@pytest.mark.parametrize("how", ["natural", "balanced"])
def test_the_same_seed_draws_the_same_sample(imbalanced, how):
    """Everything random hangs on one seed."""
    first, second = (imbalanced.sample(100, seed=3, how=how) for _ in range(2))
    other = imbalanced.sample(100, seed=4, how=how)

    np.testing.assert_array_equal(first.positions, second.positions)
    assert set(first.positions) != set(other.positions)


def test_the_sample_of_a_seed_never_changes():
    """Published embeddings name their seed; another platform or version must draw the same images."""
    sample = task_of(np.repeat([0, 1], [30, 10])).sample(8, seed=0)

    assert sample.positions.tolist() == [15, 14, 34, 24, 30, 12, 16, 25]


def test_natural_samples_keep_the_proportions(imbalanced):
    """The Fisher is an average over the data's own distribution; rare classes keep two images."""
    sample = imbalanced.sample(100, seed=0)

    assert np.bincount(sample.labels).tolist() == [59, 29, 8, 2, 2]
    assert len(set(sample.positions.tolist())) == 100


def test_balanced_samples_are_equal_as_far_as_classes_reach(imbalanced):
    """A class of five images cannot give twenty; the others share what it lacks."""
    sample = imbalanced.sample(100, seed=0, how="balanced")

    assert np.bincount(sample.labels).tolist() == [27, 27, 26, 15, 5]


def test_samples_span_the_data(imbalanced):
    """The first images of sorted data are of one class, and those of a class are no sample of it."""
    sample = imbalanced.sample(200, seed=0)
    of_first_class = sample.positions[sample.labels == 0]

    assert 240 < of_first_class.mean() < 360


@pytest.mark.parametrize("how", ["natural", "balanced"])
def test_all_images_are_taken_once_where_the_sample_is_large_enough(imbalanced, how):
    """More draws than images must not repeat any."""
    sample = imbalanced.sample(5000, seed=1, how=how)

    assert sorted(sample.positions.tolist()) == list(range(1000))
    if how == "natural":
        assert sample.weights == pytest.approx(np.ones(1000))


@pytest.mark.parametrize(("how", "expected"), [("natural", "image"), ("balanced", "class")])
@pytest.mark.parametrize("max_samples", [7, 100])
def test_weighted_means_are_unbiased(imbalanced, how, expected, max_samples):
    """At least two images per class distort the sample; the weights must undo just that."""
    values = np.random.default_rng(0).normal(size=1000) + 3 * imbalanced.labels
    by_class = [values[imbalanced.labels == c].mean() for c in range(5)]
    truth = values.mean() if expected == "image" else np.mean(by_class)

    samples = [imbalanced.sample(max_samples, seed=seed, how=how) for seed in range(600)]
    means = np.array([np.average(values[s.positions], weights=s.weights) for s in samples])

    assert all(s.weights.mean() == pytest.approx(1) for s in samples)
    assert abs(means.mean() - truth) < 4 * means.std() / np.sqrt(len(means))


def test_every_image_of_a_class_is_equally_likely(imbalanced):
    """A bias towards early images would be a bias towards whatever the file is sorted by."""
    hits = np.zeros(1000)
    for seed in range(400):
        hits[imbalanced.sample(100, seed=seed).positions] += 1
    of_first_class = hits[:600] / 400

    assert of_first_class.mean() == pytest.approx(59 / 600)
    assert abs(np.corrcoef(of_first_class, np.arange(600))[0, 1]) < 0.15
    assert of_first_class.std() == pytest.approx(np.sqrt(0.1 * 0.9 / 400), rel=0.2)


@pytest.mark.parametrize("seed", range(3))
def test_every_run_of_the_sample_is_much_like_the_whole(imbalanced, seed):
    """Consecutive images are groups of the jackknife; one without a class would count as spread."""
    sample = imbalanced.sample(400, seed=seed)
    share = np.bincount(sample.labels, minlength=5) / 400
    for start in range(0, 381):
        block = np.bincount(sample.labels[start : start + 20], minlength=5)

        assert np.abs(block - 20 * share).max() <= 3


def test_leaving_classes_out_moves_no_other_image(imbalanced):
    """Keys hang on the position, so a dropped class does not change which images of others are drawn."""
    rest = imbalanced.labels != 4
    smaller = ImageTask(
        imbalanced.info,
        imbalanced.labels[rest],
        imbalanced.class_counts[:4],
        imbalanced.positions[rest],
        imbalanced.read,
    )
    taken = {p for p in imbalanced.sample(100, seed=0).positions.tolist() if p < 600}
    again = {p for p in smaller.sample(100, seed=0).positions.tolist() if p < 600}

    assert taken <= again or again <= taken


@given(
    st.lists(
        st.tuples(st.integers(1, 10**9), st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=30
    ),
    st.floats(0, 1),
)
def test_allocations_keep_their_bounds_and_sum(classes, fraction):
    """A part beyond its class would repeat an image; a wrong sum would not be the size asked for."""
    shares = np.array([share for share, _, _ in classes])
    lower = np.array([min(a, b) for _, a, b in classes])
    upper = np.array([max(a, b) for _, a, b in classes])
    total = int(lower.sum() + fraction * (upper.sum() - lower.sum()))

    parts = allocate(total, shares=shares, lower=lower, upper=upper)

    assert parts.sum() == total
    assert (parts >= lower).all()
    assert (parts <= upper).all()


def test_samples_of_several_labels_are_uniform():
    """Images with several labels belong to no one class."""
    codes = np.random.default_rng(0).random((200, 3)) < 0.4
    sample = task_of(codes).sample(50, seed=0)

    assert sample.labels.shape == (50, 3)
    assert sample.labels.dtype == np.float32
    np.testing.assert_array_equal(sample.labels, codes[sample.positions])
    assert sample.weights.tolist() == [1.0] * 50


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_samples": 4}, SampleSizeError, r"max_samples=4 is smaller than the 5 classes.*max_samples=10"),
        ({"max_samples": 0}, SettingsError, r"max_samples must be a whole number of at least 1; got 0"),
        ({"max_samples": 10.5}, SettingsError, r"got 10\.5"),
        ({"seed": -1}, SettingsError, r"seed must be a whole number of at least 0; got -1"),
        ({"how": "sorted"}, SettingsError, r"\"natural\" or \"balanced\"; got 'sorted'"),
    ],
)
def test_settings_that_cannot_work_are_refused(imbalanced, options, error, message):
    """Checked once at the door."""
    with pytest.raises(error, match=message):
        imbalanced.sample(**{"max_samples": 100, "seed": 0, **options})


def test_several_labels_cannot_be_balanced():
    """Equal numbers per class do not exist where classes overlap."""
    with pytest.raises(SettingsError, match=r'several labels.*sampling="natural"'):
        task_of(np.eye(4, dtype=bool)).sample(4, seed=0, how="balanced")


def prepare(image):
    return np.asarray(image.resize((4, 4))).transpose(2, 0, 1)


def reader(bad: set[int]) -> Callable[[int], object]:
    return lambda position: b"damaged" if position in bad else np.full((6, 5, 3), position % 256, np.uint8)


def test_decoding_gives_the_pixels_of_the_sample():
    """Images, labels and weights stay aligned."""
    decoded = task_of(np.repeat([0, 1], 20), reader(set())).sample(30, seed=0).decode(prepare)
    sample = task_of(np.repeat([0, 1], 20)).sample(30, seed=0)

    assert decoded.images.shape == (30, 3, 4, 4)
    np.testing.assert_array_equal(decoded.images[:, 0, 0, 0], sample.positions)
    np.testing.assert_array_equal(decoded.labels, sample.labels)
    assert decoded.n_skipped == 0
    assert decoded.skipped == ()


def test_damaged_images_are_skipped_counted_and_named():
    """One damaged image of a hundred never ends a run."""
    task = task_of(np.repeat([0, 1], [70, 30]), reader({17, 80}))

    with pytest.warns(SkippedImagesWarning, match=r"2 of 100 images .*left out: image .*cannot identify"):
        decoded = task.sample(100, seed=0).decode(prepare)

    assert len(decoded) == 98
    assert decoded.n_skipped == 2
    assert set(decoded.skipped) == {
        "image 17: cannot identify image file",
        "image 80: cannot identify image file",
    }
    assert not {17, 80} & set(decoded.images[:, 0, 0, 0].tolist())
    np.testing.assert_array_equal(decoded.labels, decoded.images[:, 0, 0, 0] >= 70)
    assert decoded.weights.mean() == pytest.approx(1)


@pytest.mark.parametrize(
    ("n", "n_bad", "max_skipped"), [(100, 6, 0.05), (20, 2, 0.05), (20, 2, 0.001), (10, 1, 0.05), (100, 1, 0)]
)
def test_too_many_damaged_images_are_an_error(n, n_bad, max_skipped):
    """A data set that is mostly damaged would be measured on what happens to be left."""
    task = task_of(np.arange(n) % 2, reader(set(range(n_bad))))

    with pytest.raises(
        ImageError, match=rf"Too many .*: {n_bad} so far.* of {n} may.*image \d: cannot identify"
    ):
        task.sample(n, seed=0).decode(prepare, max_skipped=max_skipped)


@pytest.mark.parametrize(("n", "max_skipped"), [(20, 0.05), (20, 0.001), (1, 1)])
def test_max_skipped_is_a_share(n, max_skipped):
    """One of twenty is always allowed, unless none was asked for."""
    task = task_of(np.arange(40) % 2, reader({0}))
    with pytest.warns(SkippedImagesWarning):
        task.sample(40, seed=0).decode(prepare, max_skipped=max_skipped)
    with pytest.raises(SettingsError, match=r"share from 0 to 1; got 1\.5"):
        task.sample(40, seed=0).decode(prepare, max_skipped=1.5)


def test_skips_may_not_leave_one_class():
    """A head for one class cannot be fitted."""
    task = task_of(np.repeat([0, 1], [38, 2]), reader({38, 39}))

    with pytest.raises(ImageError, match=r"Fewer than two classes are left of 40 .*because 2"):
        task.sample(40, seed=0).decode(prepare)


def test_images_that_cannot_be_prepared_are_skipped_but_mistakes_are_not():
    """An image of odd shape may fail to resize; a wrong type is a fault of the code."""
    task = task_of(np.arange(40) % 2, reader(set()))
    seen = []

    def fails_once(image):
        seen.append(image)
        if len(seen) == 3:
            raise ValueError("height and width must be > 0")
        return prepare(image)

    with pytest.warns(SkippedImagesWarning, match="height and width"):
        assert task.sample(40, seed=0).decode(fails_once).n_skipped == 1
    with pytest.raises(TypeError):
        task.sample(40, seed=0).decode(lambda image: image + 1)
    with pytest.raises(SettingsError, match=r"prepare must return uint8 .*float64"):
        task.sample(40, seed=0).decode(lambda image: prepare(image) / 255)


def test_normalised_images_are_no_raw_images():
    """All of them are normalised, so skipping them one by one would say the wrong thing."""
    task = task_of(np.arange(40) % 2, lambda position: np.full((4, 4, 3), -1.5))

    with pytest.raises(DataError, match="drop Normalize"):
        task.sample(40, seed=0).decode(prepare)


def test_pixels_that_do_not_fit_into_memory_are_an_error_of_ours(monkeypatch):
    """The message says how much is wanted and what to lower."""
    task = task_of(np.arange(40) % 2, reader(set()))

    def no_room(*_):
        raise MemoryError

    sample = task.sample(40, seed=0)
    monkeypatch.setattr("t2v_hub.data.task.np.empty", no_room)
    with pytest.raises(InsufficientMemoryError, match=r"40 images of shape \(3, 4, 4\).*Lower max_samples"):
        sample.decode(prepare)


def test_a_sample_gives_its_undecoded_images():
    """`encoded` counts within the sample, `read` within the data."""
    sample = task_of(np.arange(10) % 2, lambda position: position * 10).sample(4, seed=0)

    assert [sample.encoded(i) for i in range(4)] == [10 * p for p in sample.positions]


def test_the_task_prints_its_size(imbalanced):
    """What a notebook shows first."""
    assert repr(imbalanced) == "ImageTask('made up', n_samples=1000, n_classes=5)"
    several = replace(imbalanced.info, multi_label=True, n_samples=2000)
    assert "at_hand=1000, multi_label=True" in repr(replace(imbalanced, info=several))
