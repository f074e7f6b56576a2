"""Pictures: what they show and what they refuse; how they look is for eyes."""

import dataclasses
import errno
import subprocess
import sys

import numpy as np
import pytest
from factories import make_catalog, make_embedding, make_space
from PIL import Image

from t2v_hub import storage
from t2v_hub.catalog import Candidate
from t2v_hub.distance import pairwise
from t2v_hub.errors import EmbeddingMismatchError, SettingsError, StorageError
from t2v_hub.plot import plot_distances, plot_ranking
from t2v_hub.selector import ModelSelector

SPACE = make_space(50)


def two_families(n):
    """Embeddings that alternate between two families of near tasks."""
    rng = np.random.default_rng(0)
    base = rng.normal(-9, 2, (2, 50))
    return [
        make_embedding(
            np.exp(base[i % 2] + rng.normal(0, 0.3, 50)),
            seed=i,
            space=SPACE,
            task=f"{'ab'[i % 2]}{i}",
            n_groups=8,
            noise=0.2,
        )
        for i in range(n)
    ]


def tick_labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_near_tasks_stand_side_by_side_with_their_names():
    """An alphabetical matrix hides its blocks."""
    embeddings = two_families(8)
    matrix = pairwise(embeddings)

    axes = plot_distances(embeddings).axes[0]
    names = tick_labels(axes.yaxis)
    place = [[item.task.id for item in embeddings].index(name) for name in names]
    drawn = np.asarray(axes.images[0].get_array())

    assert [name[0] for name in names] in (list("aaaabbbb"), list("bbbbaaaa"))
    assert tick_labels(axes.xaxis) == names
    apart = ~np.eye(8, dtype=bool)
    assert drawn[apart] == pytest.approx(matrix[np.ix_(place, place)][apart])
    assert [text.get_text() for text in axes.texts][1] == f"{matrix[place[0], place[1]]:.2f}"


@pytest.mark.parametrize(("n", "n_numbers"), [(1, 1), (2, 4), (16, 256), (17, 0)])
def test_numbers_are_written_where_they_can_be_read(n, n_numbers):
    """Up to 16 tasks."""
    assert len(plot_distances(two_families(n)).axes[0].texts) == n_numbers


def test_a_matrix_can_be_drawn_with_names_of_its_own():
    """Distances may come from elsewhere; an asymmetric one says which way it goes."""
    matrix = np.array([[-0.1, 0.3], [0.5, -0.2]])

    axes = plot_distances(matrix, names=["cats", "dogs"], name="asymmetric").axes[0]

    assert tick_labels(axes.yaxis) == ["cats", "dogs"]
    assert axes.get_ylabel() == "from (source)"
    assert axes.get_title(loc="left") == "Asymmetric distance"
    assert plot_distances(two_families(3)).axes[0].get_ylabel() == ""
    assert plot_distances(matrix).axes[0].get_title(loc="left") == "Distance"


def test_long_names_keep_both_ends():
    """Names of one organisation begin alike and end apart."""
    name = "organisation/" + "x" * 60 + "-fold-3"

    [label] = tick_labels(plot_distances(two_families(1), names=[name]).axes[0].yaxis)

    assert len(label) <= 40
    assert label.startswith("organisation/")
    assert label.endswith("-fold-3")


@pytest.fixture
def ranking(tmp_path):
    sources = two_families(9)
    catalog = make_catalog(
        tmp_path / "catalog",
        [Candidate(f"org/{item.task.id}", embeddings=[item]) for item in sources[1:]]
        + [Candidate("org/none")],
    )
    return ModelSelector(catalog, distance="symmetric").rank(sources[0])


def test_a_ranking_is_drawn_best_on_top_with_intervals_and_groups(ranking):
    """A tie is seen by its colour."""
    axes = plot_ranking(ranking).axes[0]
    bars = axes.containers

    assert tick_labels(axes.yaxis)[0] == f"1  {ranking[0].candidate.id.removeprefix('org/')}"
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    assert len(bars) == 8
    assert [bar.lines[0].get_xdata()[0] for bar in bars] == [item.distance for item in ranking][:8]
    [line] = bars[0].lines[2]
    assert line.get_segments()[0][:, 0] == pytest.approx(ranking[0].interval)
    colours = [bar.lines[0].get_color() for bar in bars]
    groups = [item.tie_group for item in ranking][:8]
    assert len(set(groups)) > 1
    assert all((colours[i] == colours[0]) == (groups[i] == groups[0]) for i in range(8))
    assert "1 more not shown" in axes.get_xlabel()


def with_ids(ranking, *ids):
    """The first candidates under other ids."""
    return dataclasses.replace(
        ranking,
        items=tuple(
            dataclasses.replace(item, candidate=dataclasses.replace(item.candidate, id=id))
            for item, id in zip(ranking.items, ids, strict=False)
        ),
    )


@pytest.mark.parametrize(
    ("ids", "labels", "cut"),
    [
        (("/data/experts/low-ink", "/data/experts/low-chalk"), ["low-ink", "low-chalk"], "/data/experts/"),
        (("org/a", "org/b/c"), ["a", "b/c"], "org/"),
        (("org/a", "other/a"), ["org/a", "other/a"], None),
        (("low-ink", "low-chalk"), ["low-ink", "low-chalk"], None),
    ],
)
def test_names_show_what_differs_and_the_title_what_was_cut(ranking, ids, labels, cut):
    """Paths of one folder are alike but for their ends; names are cut at a slash and nowhere else."""
    axes = plot_ranking(with_ids(ranking, *ids)).axes[0]

    assert tick_labels(axes.yaxis) == [f"{place}  {label}" for place, label in enumerate(labels, start=1)]
    assert axes.get_title(loc="left").partition("\nnames without ")[2] == (cut or "")


def test_the_legend_says_in_words_what_a_tie_is(ranking):
    """A group is told by its first, which is what its members were compared with."""
    first = {item.tie_group: item.rank for item in reversed(ranking) if len(item.tied) > 1}

    [legend] = plot_ranking(ranking).legends

    assert sorted(text.get_text() for text in legend.get_texts()) == [
        f"≈{rank}: cannot be told apart from number {rank}" for _, rank in sorted(first.items())
    ]


@pytest.mark.parametrize(
    ("matrix", "name", "limits", "label"),
    [
        ([[0, 0.3], [0.5, 0]], "symmetric", (0, 0.5), "symmetric distance"),
        ([[-0.2, 0.3], [-0.1, -0.2]], "asymmetric", (-0.1, 0.3), "asymmetric distance"),
        ([[0, 0], [0, 0]], None, (0, 1e-9), "distance"),
        ([[0.0]], None, (0, 1), "distance"),
    ],
)
def test_colours_start_at_zero_and_say_which_distance(matrix, name, limits, label):
    """A scale from the smallest value on makes near tasks look equal, and far ones opposite."""
    axes = plot_distances(np.array(matrix, float), name=name).axes[0]
    [bar] = axes.child_axes

    assert axes.images[0].get_clim() == pytest.approx(limits)
    assert bar.get_ylabel() == label


def test_a_long_ranking_is_cut(ranking):
    """A picture of a thousand bars shows none."""
    long = dataclasses.replace(ranking, items=ranking.items[:1] * 50)

    axes = plot_ranking(long).axes[0]

    assert len(axes.containers) == 40
    assert "10 more not shown" in axes.get_xlabel()


@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_pictures_are_saved_in_the_kind_that_the_name_says(tmp_path, ranking, kind):
    """And the caller gets the figure, to change or show."""
    one, other = tmp_path / f"one.{kind}", tmp_path / f"other.{kind}"

    plot_distances(two_families(4), one)
    plot_ranking(ranking, str(other))

    for path in (one, other):
        assert path.stat().st_size > 5000
    if kind == "png":
        width, height = Image.open(one).size
        assert 200 < width < 2000
        assert 200 < height < 2000


def test_what_cannot_be_drawn_is_named(tmp_path, ranking):
    """Before anything is written."""
    embeddings = two_families(2)
    other = make_embedding(seed=1, space=make_space(12))
    with pytest.raises(SettingsError, match=r"must be square, \(n, n\) with n >= 1; got \(2, 3\)"):
        plot_distances(np.ones((2, 3)))
    with pytest.raises(SettingsError, match=r"must be square"):
        plot_distances([])
    with pytest.raises(SettingsError, match="3 names for 2 tasks"):
        plot_distances(embeddings, names=["a", "b", "c"])
    with pytest.raises(SettingsError, match="1 of the distances are infinite or NaN"):
        plot_distances(np.array([[0, np.inf], [1, 0]]))
    with pytest.raises(EmbeddingMismatchError, match="different spaces"):
        plot_distances([*embeddings, other])
    with pytest.raises(
        SettingsError, match=r"what kind of picture '.*x.jpeg' is to be; end it in .png, .pdf, .svg"
    ):
        plot_distances(embeddings, tmp_path / "x.jpeg")
    with pytest.raises(SettingsError, match="no distance to draw: none of the 1 ranked candidates"):
        plot_ranking(ranking[-1:])

    assert [path.name for path in tmp_path.iterdir()] == ["catalog"]


def test_a_full_disk_leaves_no_half_picture(tmp_path, monkeypatch):
    """Pictures are written as all files are."""

    def fail(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage.os, "fsync", fail)
    with pytest.raises(StorageError, match="the disk is full"):
        plot_distances(two_families(2), tmp_path / "x.png")

    assert list(tmp_path.iterdir()) == []


def test_drawing_touches_no_global_state():
    """A caller's notebook keeps its backend and its figures."""
    code = "import sys, t2v_hub.plot; print('matplotlib.pyplot' in sys.modules, 'torch' in sys.modules)"

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.split() == ["False", "False"]
