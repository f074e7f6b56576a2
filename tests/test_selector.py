"""`ModelSelector` and `AutoSelector`: the order, its uncertainty, and what is refused."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from factories import make_catalog, make_embedding, make_space

from t2v_hub.catalog import Candidate, Catalog
from t2v_hub.distance import (
    asymmetric_distance,
    distance,
    distance_standard_error,
    symmetric_distance,
)
from t2v_hub.embedding import TaskEmbedding
from t2v_hub.errors import EmbeddingMismatchError, EmptyCatalogError, SettingsError
from t2v_hub.selector import AutoSelector, ModelSelector, order
from t2v_hub.selector.comparison import Comparison

SPACE = make_space(60)
BASE = np.exp(np.random.default_rng(0).normal(-9, 1.5, 60))


def at(closeness, *, seed=0, **options):
    """An embedding that is the further from `BASE` the larger ``closeness`` is."""
    away = np.random.default_rng(seed).normal(0, 1, 60)
    return make_embedding(BASE * np.exp(closeness * away), seed=seed, space=SPACE, **options)


TARGET = at(0.0, task="target", n_groups=10, noise=0.05)


def ids(ranking):
    return [item.candidate.id for item in ranking]


@pytest.mark.parametrize("name", ["symmetric", "asymmetric", "relative", "entropy", "kl"])
def test_candidates_are_ordered_by_distance_and_measured_in_full(tmp_path, name):
    """The matrix is float16; what is shown is the distance of the embeddings themselves."""
    sources = {f"org/{i}": at(0.2 * i, seed=i, n_groups=10, noise=0.05) for i in range(1, 6)}
    catalog = make_catalog(tmp_path, [Candidate(id, embeddings=[item]) for id, item in sources.items()])

    ranking = ModelSelector(catalog, distance=name).rank(TARGET)

    assert ids(ranking) == sorted(sources, key=lambda id: distance(sources[id], TARGET, name=name))
    for item in ranking:
        source = sources[item.candidate.id]
        assert item.distance == distance(source, TARGET, name=name)
        error = distance_standard_error(source, TARGET, name=name)
        assert item.standard_error == pytest.approx(error, rel=1e-12)
        assert item.interval == pytest.approx((item.distance - 1.96 * error, item.distance + 1.96 * error))
    assert [item.rank for item in ranking] == [1, 2, 3, 4, 5]


def test_a_ranking_knows_how_many_images_were_measured(tmp_path):
    """The size of the data set says nothing of how sure the order is."""
    catalog = make_catalog(tmp_path, [Candidate("org/a", embeddings=[at(0.5, seed=1)])])

    ranking = ModelSelector(catalog).rank(at(0.0, n_samples=20))

    assert ranking.n_measured == 20
    assert ranking.task.n_samples == 1000
    assert "20 of 1,000 images" in str(ranking)


@pytest.mark.parametrize("name", ["relative", "asymmetric"])
def test_what_a_distance_takes_off_for_complexity_is_told(tmp_path, name):
    """`alpha d(source, t0)` is what the explanation shows."""
    source = at(0.5, seed=1)
    catalog = make_catalog(tmp_path, [Candidate("org/a", embeddings=[source])])

    [item] = ModelSelector(catalog, distance=name, alpha=0.3).rank(TARGET)

    assert item.distance == distance(source, TARGET, name=name, alpha=0.3)
    assert item.complexity == pytest.approx(distance(source, TARGET, name=name, alpha=0) - item.distance)
    assert ModelSelector(catalog, distance="symmetric").rank(TARGET)[0].complexity is None


def test_by_default_how_large_an_embedding_is_does_not_count(tmp_path):
    """A source of many classes has a small one; the paper's distance, by name, ranks its experts last."""
    small = make_embedding(at(0.3, seed=1).fisher / 1000, space=SPACE, task="many classes")
    catalog = make_catalog(
        tmp_path,
        [Candidate("org/many", embeddings=[small]), Candidate("org/far", embeddings=[at(0.8, seed=2)])],
    )
    of_one_mean = [
        replace(item, fisher=(1e-4 * item.fisher / item.fisher.mean(dtype=np.float64)).astype(np.float32))
        for item in (small, TARGET)
    ]
    expected = asymmetric_distance(*of_one_mean, alpha=0.15)

    for selector in (ModelSelector(catalog), AutoSelector.from_task(TARGET, catalog=catalog)):
        ranking = selector.rank(TARGET)
        assert (selector.distance, selector.alpha) == ("relative", 0.15)
        assert ids(ranking) == ["org/many", "org/far"]
        assert ranking[0].distance == pytest.approx(expected, rel=1e-5)
    assert ids(ModelSelector(catalog, distance="asymmetric").rank(TARGET)) == ["org/far", "org/many"]


def test_a_candidate_stands_where_its_nearest_source_task_does(tmp_path):
    """Selection takes the minimum over sources, and says which it was."""
    other_space = make_embedding(BASE, space=make_space(60, beta=1.0), task="in another space")
    embeddings = [
        at(0.9, seed=1, task="far"),
        at(0.1, seed=2, task="near"),
        at(0.5, seed=3, task="middle"),
        other_space,
    ]
    catalog = make_catalog(tmp_path, [Candidate("org/a", embeddings=embeddings)])

    [item] = ModelSelector(catalog, distance="symmetric").rank(TARGET)

    assert item.source_task == "near"
    assert item.distance == symmetric_distance(embeddings[1], TARGET)
    assert item.reason == "nearest source task 'near'"


def test_candidates_without_an_embedding_come_last_by_prior(tmp_path):
    """A missing embedding is not a distance of 0, which would put it first."""
    elsewhere = make_embedding(BASE, space=make_space(60, beta=1.0))
    catalog = make_catalog(
        tmp_path,
        [
            Candidate("org/far", embeddings=[at(2.0, seed=1)]),
            Candidate("org/a-unknown"),
            Candidate("org/b-popular", downloads=100),
            Candidate("org/c-accurate", upstream_accuracy=0.7, downloads=3),
            Candidate("org/d-best", upstream_accuracy=0.8, embeddings=[elsewhere]),
            Candidate("org/e-unknown"),
            Candidate("org/f-largest", parameters=9),
            Candidate("org/g-large", parameters=8, upstream_accuracy=1.0, downloads=10**6),
        ],
    )

    ranking = ModelSelector(catalog, distance="symmetric").rank(TARGET)

    assert ids(ranking) == [
        "org/far",
        "org/f-largest",
        "org/g-large",
        "org/d-best",
        "org/c-accurate",
        "org/b-popular",
        "org/a-unknown",
        "org/e-unknown",
    ]
    assert [item.distance for item in ranking][1:] == [None] * 7
    assert [item.interval for item in ranking][1:] == [None] * 7
    assert ranking.n_without_embedding == 7
    assert [item.tie_group for item in ranking] == [1, 2, 3, 4, 5, 6, 7, 7]
    assert [item.rank for item in ranking] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert ranking[1].reason == "it has no embedding in this space"
    assert ids(ModelSelector(catalog).rank(TARGET, top_k=3)) == ids(ranking)[:3]


def test_candidates_of_one_source_tie_and_are_ordered_by_prior(tmp_path):
    """They share every image and all its noise: no more images could part them."""
    source = at(0.3, seed=1, task="imagenet")
    facts = {
        "org/a": {},
        "org/b": {},
        "org/c": {"downloads": 5},
        "org/d": {"upstream_accuracy": 0.7, "downloads": 1},
        "org/e": {"upstream_accuracy": 0.7, "downloads": 2},
        "org/f": {"upstream_accuracy": 0.9},
        "org/g": {"parameters": 5},
        "org/h": {"parameters": 7, "upstream_accuracy": 0.1},
        "org/i": {"parameters": 7, "upstream_accuracy": 0.2},
    }
    catalog = make_catalog(
        tmp_path, [Candidate(id, embeddings=[source], **known) for id, known in facts.items()]
    )

    ranking = ModelSelector(catalog).rank(TARGET)

    assert ids(ranking) == [f"org/{name}" for name in "ihgfedcab"]
    assert {item.distance for item in ranking} == {ranking[0].distance}
    assert {item.tie_group for item in ranking} == {1}
    assert ranking[0].tied == tuple(ids(ranking))
    assert (ranking[0].gap, ranking[0].gap_error) == (0.0, 0.0)


def test_groups_reach_as_far_as_their_leader_cannot_be_told_apart(tmp_path):
    """The walk restated: a new group begins where the difference from the leader is sure."""
    sources = {
        f"org/{i:02}": at(0.30 + 0.01 * i, seed=1, task=f"t{i}", n_groups=12, noise=0.05) for i in range(25)
    }
    catalog = make_catalog(tmp_path, [Candidate(id, embeddings=[item]) for id, item in sources.items()])
    ranking = ModelSelector(catalog, distance="symmetric").rank(TARGET)
    comparison = Comparison(TARGET)
    expected, leader = [], None
    for id in ids(ranking):
        value = comparison.measure(sources[id])
        if leader is None or value.distance - leader.distance >= 1.96 * value.difference_error(leader):
            leader = value
            expected.append([])
        expected[-1].append(id)

    actual = {}
    for item in ranking:
        actual.setdefault(item.tie_group, []).append(item.candidate.id)

    assert list(actual) == list(range(1, len(expected) + 1))
    assert list(actual.values()) == expected
    assert 1 < len(expected) < 25
    assert all(item.tied == tuple(actual[item.tie_group]) for item in ranking)


def sampled(rng, mean, *, n_images=400, n_groups=20):
    """A target measured on fresh images whose mean is known."""
    squares = mean * rng.gamma(0.5, 2.0, (n_images, len(mean)))
    fisher = squares.mean(axis=0)
    without = [np.delete(squares, np.s_[start::n_groups], axis=0).mean(axis=0) for start in range(n_groups)]
    return make_embedding(fisher, space=SPACE, deviations=np.stack(without) / fisher - 1)


def test_the_error_of_a_difference_is_its_spread_over_new_targets():
    """Most of the target's noise is shared by both distances, and cancels; adding it up claims ties."""
    rng = np.random.default_rng(3)
    exact = np.zeros((20, 60))
    first, second = at(0.6, seed=1, deviations=exact), at(0.62, seed=1, deviations=exact)
    differences, errors, naive = [], [], []
    for _ in range(200):
        comparison = Comparison(sampled(rng, BASE))
        one, other = comparison.measure(first), comparison.measure(second)
        differences.append(other.distance - one.distance)
        errors.append(one.difference_error(other))
        naive.append(math.hypot(one.standard_error, other.standard_error))

    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(differences), rel=0.15)
    assert np.mean(naive) > 5 * np.std(differences)


def test_sources_add_their_own_share_to_a_difference():
    """Two sources are two samples; the target here is exact."""
    target = at(0.0, deviations=np.zeros((10, 60)))
    sources = [at(0.3, seed=seed, n_groups=10, noise=0.1) for seed in (1, 2)]
    comparison = Comparison(target)
    one, other = map(comparison.measure, sources)

    shares = [distance_standard_error(source, target) for source in sources]
    assert one.difference_error(other) == pytest.approx(math.hypot(*shares))


def test_recorded_errors_stand_in_conservatively():
    """From a card only one number is known; what cancels is not, so the target's counts twice."""
    target = at(0.0, distance_standard_error=0.02)
    sources = [at(0.3, seed=seed, distance_standard_error=0.01) for seed in (1, 2)]
    comparison = Comparison(target)
    one, other = map(comparison.measure, sources)

    assert one.standard_error == pytest.approx(math.hypot(0.01, 0.02))
    assert one.difference_error(other) == pytest.approx(math.hypot(0.01, 0.01, 0.02, 0.02))


def test_without_errors_only_equal_distances_tie(tmp_path):
    """Not knowing is no evidence of a tie, nor of an order."""
    near, twin, far = at(0.3, seed=1), at(0.3, seed=1, task="a twin"), at(0.3001, seed=1)
    catalog = make_catalog(
        tmp_path,
        [
            Candidate(f"org/{name}", embeddings=[item])
            for name, item in (("a", near), ("b", twin), ("c", far))
        ],
    )

    ranking = ModelSelector(catalog, distance="symmetric").rank(at(0.0, task="target"))

    assert [item.tie_group for item in ranking] == [1, 1, 2]
    assert [item.standard_error for item in ranking] == [None] * 3
    assert [item.interval for item in ranking] == [None] * 3
    assert ranking[1].gap > 0
    assert ranking[1].gap_error is None


def test_top_k_is_the_beginning_of_the_whole_ranking(tmp_path):
    """With the group that the cut goes through told apart from the rest."""
    catalog = make_catalog(
        tmp_path,
        [
            Candidate(
                f"org/{i}", embeddings=[at(0.3 + 0.0001 * i, seed=1, task=f"t{i}", n_groups=8, noise=0.2)]
            )
            for i in range(6)
        ]
        + [Candidate("org/far", embeddings=[at(2.0, seed=9, n_groups=8)])],
    )
    selector = ModelSelector(catalog, distance="symmetric")

    whole, part = selector.rank(TARGET), selector.rank(TARGET, top_k=2)

    assert ids(part) == ids(whole)[:2]
    assert part[1].tied == whole[1].tied
    assert len(part[1].tied) == 6
    assert part.n_tied_beyond == 4
    assert whole.n_tied_beyond == 0
    assert (part[1].gap, part[1].gap_error) == (whole[1].gap, whole[1].gap_error)
    assert whole[-1].gap is None
    assert len(selector.rank(TARGET, top_k=100)) == 7


def test_far_candidates_have_their_recorded_errors(tmp_path, monkeypatch):
    """Opening thousands of embeddings takes seconds; far down, typical errors do."""
    monkeypatch.setattr(order, "_MAX_MEASURED", 2)
    target = at(0.0, n_groups=10, distance_standard_error=0.003)
    catalog = make_catalog(
        tmp_path,
        [
            Candidate(f"org/{i}", embeddings=[at(0.3 * i, seed=i, n_groups=8, distance_standard_error=0.004)])
            for i in range(1, 5)
        ],
    )

    ranking = ModelSelector(catalog, distance="symmetric").rank(target)

    assert ids(ranking) == ["org/1", "org/2", "org/3", "org/4"]
    assert [item.standard_error for item in ranking][2:] == [pytest.approx(0.005)] * 2
    assert ranking[0].standard_error != pytest.approx(0.005)
    exact = symmetric_distance(catalog["org/4"].embeddings[0], target)
    assert ranking[3].distance == pytest.approx(exact, abs=1e-4)


def test_a_damaged_embedding_ends_no_ranking(tmp_path):
    """It counts as absent, and is named; also when it is damaged after the matrix was made."""
    catalog = make_catalog(
        tmp_path, [Candidate(f"org/{i}", embeddings=[at(0.3 * i, seed=i, n_groups=8)]) for i in (1, 2, 3)]
    )
    files = {
        id: tmp_path / "embeddings" / catalog[id].embeddings.records[0].file_name for id in ("org/1", "org/2")
    }
    files["org/1"].write_bytes(b"damaged")
    selector = ModelSelector(catalog, distance="symmetric")

    before = selector.rank(TARGET)
    files["org/2"].write_bytes(b"damaged")
    after = selector.rank(TARGET)

    assert ids(before) == ids(after) == ["org/2", "org/3", "org/1"]
    assert before[2].reason == "its embedding cannot be read"
    assert before.n_without_embedding == 1
    assert [line[:7] for line in before.skipped] == ["org/1: "]
    assert [line[:7] for line in after.skipped] == ["org/1: ", "org/2: "]
    assert after[0].distance == pytest.approx(before[0].distance, abs=1e-4)
    assert after[0].standard_error is None


# where

CANDIDATES = [
    Candidate("org/a", library="timm", licence="mit", parameters=10, gated=False, upstream_accuracy=0.5),
    Candidate("org/b", library="timm", licence="apache-2.0", parameters=20, gated=True),
    Candidate("org/c", library="transformers", licence="other", parameters=30, downloads=7),
    Candidate("org/d"),
]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (None, "abcd"),
        ({}, "abcd"),
        ({"library": "timm"}, "ab"),
        ({"licence": ["mit", "apache-2.0"]}, "ab"),
        ({"licence": {"mit"}, "library": "timm"}, "a"),
        ({"parameters": 20}, "b"),
        ({"parameters": [10, 30]}, "ac"),
        ({"parameters": (None, 20)}, "ab"),
        ({"parameters": (20, None)}, "bc"),
        ({"parameters": (15, 25.5)}, "b"),
        ({"parameters": (None, None)}, "abc"),
        ({"upstream_accuracy": (0.5, 1)}, "a"),
        ({"downloads": (0, None)}, "c"),
        ({"gated": False}, "a"),
        ({"id": "org/d"}, "d"),
        (lambda candidate: candidate.parameters is None, "d"),
        ({"licence": "proprietary"}, ""),
    ],
)
def test_where_keeps_what_it_says(tmp_path, where, expected):
    """A fact that is not known matches nothing: an unknown licence is not a permissive one."""
    candidates = [
        Candidate(**{**vars(item), "embeddings": [at(0.1 * i, seed=i)]})
        for i, item in enumerate(CANDIDATES, 1)
    ]

    ranking = ModelSelector(make_catalog(tmp_path, candidates)).rank(TARGET, where=where)

    assert "".join(sorted(id[-1] for id in ids(ranking))) == expected
    assert (ranking.n_considered, ranking.n_filtered) == (4, 4 - len(expected))


@pytest.mark.parametrize(
    ("where", "words"),
    [
        (
            {"license": "mit"},
            "no field 'license'. Choose from: id, revision, library, source, licence, parameters",
        ),
        ({"embeddings": []}, "no field 'embeddings'"),
        (
            {"licence": ("mit", "apache-2.0")},
            "is a tuple, which means a range .* For one of several values use a list",
        ),
        ({"parameters": (1, 2, 3)}, "which means a range"),
        ({"parameters": ("1", None)}, "which means a range"),
        ({"parameters": "30M"}, r"parameters must be a number, or a range \(lowest, highest\)"),
        ({"library": 3}, "library must be text"),
        ({"library": ["timm", None]}, "library must be text, or a list of such; got None"),
        ({"gated": None}, "gated must be True or False.*not known never match"),
        ("timm", "where must be a function of a Candidate or a mapping .* not str"),
    ],
)
def test_a_where_that_cannot_match_is_refused(tmp_path, where, words):
    """A slip would otherwise leave nothing to rank, without a word."""
    selector = ModelSelector(make_catalog(tmp_path, [Candidate("org/a", embeddings=[at(0.1)])]))

    with pytest.raises(SettingsError, match=words):
        selector.rank(TARGET, where=where)


# What is refused


def test_settings_that_cannot_work_are_named(tmp_path):
    """At the door, before anything is measured."""
    catalog = make_catalog(tmp_path, [Candidate("org/a", embeddings=[at(0.1)])])
    with pytest.raises(
        SettingsError, match=r"no distance 'cosine'. Choose one of: asymmetric, asymmetric_kl"
    ):
        ModelSelector(catalog, distance="cosine")
    with pytest.raises(SettingsError, match="alpha must be a finite number >= 0, not -1"):
        ModelSelector(catalog, alpha=-1)
    with pytest.raises(SettingsError, match=r"needs a Catalog, not str. Open one with Catalog.load\(path\)"):
        ModelSelector(str(tmp_path))
    for top_k in (0, -1, 2.0, True):
        with pytest.raises(SettingsError, match="top_k must be a whole number >= 1"):
            ModelSelector(catalog).rank(TARGET, top_k=top_k)
    with pytest.raises(SettingsError, match=r"rank needs a task.*AutoSelector.from_task\(data\)"):
        ModelSelector(catalog).rank()
    with pytest.raises(SettingsError, match=r"no instances; use AutoSelector.from_task\(data\)"):
        AutoSelector()
    with pytest.raises(SettingsError, match="from_task needs a task"):
        AutoSelector.from_task(None, catalog=catalog)


def test_a_task_of_another_space_is_refused_with_the_closest_one(tmp_path):
    """Comparing across spaces gives numbers that mean nothing."""
    near = make_space(60, head={"loss": "softmax", "l2": 0.5})
    far = make_space(60, beta=1.0, family="empirical", probe="other")
    catalog = make_catalog(
        tmp_path,
        [
            Candidate("org/a", embeddings=[make_embedding(BASE, space=near)]),
            Candidate("org/b", embeddings=[make_embedding(BASE, space=far)]),
            Candidate("org/c", embeddings=[make_embedding(BASE, space=far)]),
        ],
    )
    words = rf"space {SPACE.id}, that of task 'target'.*closest of the 2 there, {near.id}, differs: "

    with pytest.raises(
        EmbeddingMismatchError, match=words + "head.l2: 0.01 against 0.5.*Embed the task in a space"
    ):
        ModelSelector(catalog).rank(TARGET)
    with pytest.raises(EmbeddingMismatchError, match=words):
        AutoSelector.from_task(TARGET, catalog=catalog)


@pytest.mark.parametrize("task", [TARGET, "a data set"])
def test_a_catalog_without_embeddings_says_how_to_add_some(tmp_path, task):
    """The first thing that a newcomer meets."""
    empty, bare = Catalog(tmp_path / "empty"), make_catalog(tmp_path / "bare", [Candidate("org/a")])
    with pytest.raises(EmptyCatalogError, match=r"There is no candidate in .*empty'.*`t2v catalog add`"):
        ModelSelector(empty).rank(task)
    with pytest.raises(
        EmptyCatalogError, match=r"None of the 1 candidates in .*bare' has an embedding.*t2v embed"
    ):
        ModelSelector(bare).rank(task)
    with pytest.raises(EmptyCatalogError, match="There is no candidate"):
        AutoSelector.from_task(task, catalog=tmp_path / "absent")


# From data


class StandIn:
    """In place of `Task2Vec`: records how it was made, embeds anything as `TARGET`."""

    made: list = []  # noqa: RUF012  # emptied by the fixture
    embedded: list = []  # noqa: RUF012

    def __init__(self, **settings):
        self.made.append(settings)

    @classmethod
    def for_space(cls, space, **settings):
        return cls(for_space=space, **settings)

    def embed(self, data):
        self.embedded.append(data)
        return TARGET


@pytest.fixture
def task2vec(monkeypatch):
    StandIn.made.clear()
    StandIn.embedded.clear()
    monkeypatch.setitem(sys.modules, "t2v_hub.task2vec", SimpleNamespace(Task2Vec=StandIn))
    return StandIn


@pytest.fixture
def catalog(tmp_path):
    rare = make_embedding(BASE, space=make_space(60, beta=1.0))
    return make_catalog(
        tmp_path / "catalog",
        [
            Candidate("org/a", embeddings=[at(0.3, seed=1), rare]),
            Candidate("org/b", embeddings=[at(0.1, seed=2)]),
        ],
    )


def test_data_is_embedded_in_the_most_common_space(catalog, task2vec):
    """There the most candidates have a distance."""
    data = object()

    ranking = ModelSelector(catalog).rank(data, top_k=1)

    assert ids(ranking) == ["org/b"]
    assert task2vec.made == [{"for_space": SPACE}]
    assert task2vec.embedded == [data]


def test_a_bound_selector_embeds_once_and_ranks_often(catalog, task2vec):
    """Embedding takes minutes, ranking a moment."""
    selector = AutoSelector.from_task("data", catalog=catalog.path, max_samples=50)

    assert selector.task is TARGET
    assert ids(selector.rank()) == ids(selector.rank(top_k=2)) == ["org/b", "org/a"]
    assert task2vec.made == [{"for_space": SPACE, "max_samples": 50}]
    assert task2vec.embedded == ["data"]
    assert "task='target'" in repr(selector)


def test_a_bound_selector_ranks_another_task_when_given_one(catalog):
    """The argument wins over the binding."""
    selector = AutoSelector.from_task(TARGET, catalog=catalog, distance="symmetric", alpha=0.5)

    assert (selector.distance, selector.alpha) == ("symmetric", 0.5)
    assert selector.rank(at(0.3, seed=1, task="other")).task.id == "other"
    assert selector.rank().task.id == "target"


def test_a_given_probe_is_what_the_task_is_embedded_with(catalog, task2vec):
    """Then the user answers for the space."""
    AutoSelector.from_task("data", catalog=catalog, probe="timm/resnet18", seed=3)

    assert task2vec.made == [{"probe": "timm/resnet18", "seed": 3}]


def test_the_default_catalog_is_below_home(catalog, task2vec, monkeypatch):
    """`t2v catalog add` writes there."""
    monkeypatch.setenv("T2V_HOME", str(catalog.path.parent))

    selector = AutoSelector.from_task(TARGET)

    assert selector.catalog.path == catalog.path
    assert selector.origin.report is None
    assert "cannot be reached" in selector.origin.failure
    said = f"Catalog     {catalog.path}: what was added on this machine; not brought up"
    assert said in str(selector.rank())


def test_nothing_is_embedded_for_nothing(catalog, task2vec):
    """An unusable setting must show before minutes of work."""
    with pytest.raises(SettingsError, match="no distance"):
        AutoSelector.from_task("data", catalog=catalog, distance="cosine")
    with pytest.raises(
        SettingsError, match="an embedding already; probe, seed cannot change how it was measured"
    ):
        AutoSelector.from_task(TARGET, catalog=catalog, probe="timm/resnet18", seed=1)

    assert task2vec.embedded == []


def test_ranking_stored_embeddings_imports_no_torch(catalog, tmp_path):
    """An AutoML system may ask a thousand times from machines without a GPU."""
    TARGET.save(tmp_path / "target.safetensors")
    code = """
import sys
from t2v_hub.catalog import Catalog
from t2v_hub.embedding import TaskEmbedding
from t2v_hub.selector import ModelSelector
ranking = ModelSelector(Catalog.load(sys.argv[1])).rank(TaskEmbedding.load(sys.argv[2]))
print(ranking), ranking.explain(0), ranking.to_dict()
print([name for name in ("torch", "transformers", "datasets", "pandas", "matplotlib") if name in sys.modules])
"""
    command = [sys.executable, "-c", code, str(catalog.path), str(tmp_path / "target.safetensors")]

    result = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]
    )

    assert result.stdout.splitlines()[-1] == "[]"


def test_an_embedding_is_read_only_where_it_is_shown(tmp_path, monkeypatch):
    """Standard errors of a thousand candidates that nobody sees would take seconds."""
    catalog = make_catalog(
        tmp_path, [Candidate(f"org/{i}", embeddings=[at(0.5 * i, seed=i, n_groups=8)]) for i in range(8)]
    )
    selector = ModelSelector(catalog, distance="symmetric")
    selector.rank(TARGET)
    opened, real = [], TaskEmbedding.load

    def load(path):
        opened.append(path)
        return real(path)

    monkeypatch.setattr(TaskEmbedding, "load", load)
    selector.rank(TARGET, top_k=2)

    assert len(opened) == 3  # and the one behind, for the gap
