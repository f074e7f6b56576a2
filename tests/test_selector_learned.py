"""Rankings by distances that `Model2Vec` learned."""

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
from t2v_hub.distance import distance, distance_standard_error
from t2v_hub.embedding import jackknife_standard_error
from t2v_hub.errors import EmbeddingMismatchError, EmptyCatalogError, SettingsError
from t2v_hub.model2vec import Model2Vec
from t2v_hub.selector import AutoSelector, ModelSelector

SPACE = make_space(40, beta=1e-6)
ELSEWHERE = make_space(40, beta=1e-3)


def task(seed, *, space=SPACE, **options):
    values = np.exp(np.random.default_rng(seed).normal(-9, 1.5, 40))
    return make_embedding(values, seed=seed, space=space, **{"task": f"task{seed}", **options})


SOURCES = {"org/a": task(101, n_groups=8), "org/b": task(102, n_groups=8), "org/unknown": None}
TARGET = task(1, task="target", n_groups=10, noise=0.05)


@pytest.fixture(scope="module")
def fit():
    """Learned from errors on eight tasks, on which the checkpoint of unknown data does best."""
    tasks = [task(seed) for seed in range(10, 18)]
    rng = np.random.default_rng(0)
    errors = np.clip(rng.normal([0.4, 0.35, 0.1], 0.05, (8, 3)), 0, 1)
    return Model2Vec.fit(
        tasks, errors, candidates=list(SOURCES), sources=SOURCES, temperature=0.05, strength=0.1
    )


@pytest.fixture
def catalog(tmp_path):
    new = task(103, task="new", n_groups=8)
    return make_catalog(
        tmp_path / "catalog",
        [
            Candidate("org/a", embeddings=[SOURCES["org/a"]]),
            Candidate("org/b", embeddings=[SOURCES["org/b"]]),
            Candidate("org/unknown"),
            Candidate("org/new", embeddings=[new, task(104, task="another", n_groups=8)]),
            Candidate("org/bare", upstream_accuracy=0.7),
            Candidate("org/barer", upstream_accuracy=0.9),
        ],
    )


def by_id(ranking):
    return {item.candidate.id: item for item in ranking}


def test_candidates_of_the_fit_stand_by_what_it_learned(fit, catalog):
    """Also those whose training data nobody measured: that is what learning is for."""
    ranking = ModelSelector(catalog, distance=fit).rank(TARGET)

    learned = dict(zip(fit.candidates, fit.distances(TARGET), strict=True))
    items = by_id(ranking)
    for id, value in learned.items():
        assert items[id].distance == pytest.approx(value, rel=1e-12)
        assert items[id].is_learned
        assert items[id].reason == "distance learned from errors on other tasks"
    assert ranking[0].candidate.id == "org/unknown"
    assert (ranking.distance, ranking.alpha, ranking.n_learned_from) == ("model2vec", fit.alpha, 3)
    assert items["org/a"].source_task == "task101"
    assert items["org/unknown"].source_task is None


def test_others_stand_by_their_nearest_source_on_the_same_scale(fit, catalog):
    """Adding a candidate needs no new fit."""
    item = by_id(ModelSelector(catalog, distance=fit).rank(TARGET))["org/new"]
    plain = {
        e.task.id: distance(e, TARGET, name="relative", alpha=fit.alpha)
        for e in catalog["org/new"].embeddings
    }

    assert item.distance == min(plain.values())
    assert item.source_task == min(plain, key=plain.get)
    assert not item.is_learned
    assert item.complexity is not None


def test_those_without_either_come_last_by_prior(fit, catalog):
    """As without learning."""
    ranking = ModelSelector(catalog, distance=fit).rank(TARGET)

    assert ranking.ranked[-2:] == ("org/barer", "org/bare")
    assert ranking.n_without_embedding == 2
    assert [item.distance for item in ranking][-2:] == [None, None]
    known = [item.distance for item in ranking][:-2]
    assert known == sorted(known)


def test_learned_distances_have_the_targets_standard_error(fit, catalog):
    """How they move with other images of the task, worked out by moving the task."""
    item = by_id(ModelSelector(catalog, distance=fit).rank(TARGET))["org/unknown"]
    fisher = TARGET.fisher.astype(np.float64)
    moved = [
        fit.distances(replace(TARGET, fisher=(fisher * (1 + d)).astype(np.float32)), {"org/unknown": None})[0]
        for d in TARGET.deviations.astype(np.float64)
    ]

    assert item.standard_error == pytest.approx(float(jackknife_standard_error(np.array(moved))), rel=1e-5)


def test_what_is_not_known_of_the_target_is_not_invented(fit, catalog):
    """A recorded typical error stands in; without one there is none."""
    recorded = task(1, distance_standard_error=0.01)

    items = by_id(ModelSelector(catalog, distance=fit).rank(recorded))
    bare = by_id(ModelSelector(catalog, distance=fit).rank(task(1)))

    assert items["org/unknown"].standard_error == 0.01
    assert bare["org/unknown"].standard_error is None
    assert bare["org/unknown"].interval is None


def test_without_evidence_the_ranking_is_the_default_one(catalog):
    """Distances, standard errors of strangers, ties: a fit that learned nothing changes nothing of them."""
    tasks, errors = [task(10), task(11)], np.full((2, 2), 0.5)
    sources = {id: SOURCES[id] for id in ("org/a", "org/b")}
    nothing = Model2Vec.fit(
        tasks, errors, candidates=list(sources), sources=sources, temperature=0.1, strength=math.inf
    )

    plain = by_id(ModelSelector(catalog).rank(TARGET))
    learned = by_id(ModelSelector(catalog, distance=nothing).rank(TARGET))

    for id in ("org/a", "org/b", "org/new"):
        assert learned[id].distance == pytest.approx(plain[id].distance, rel=1e-9)
    assert learned["org/new"].standard_error == plain["org/new"].standard_error
    assert learned["org/a"].standard_error < plain["org/a"].standard_error
    source = replace(SOURCES["org/a"], deviations=None)
    assert learned["org/a"].standard_error == pytest.approx(
        distance_standard_error(
            replace(source, measurement=replace(source.measurement, distance_standard_error=0.0)),
            TARGET,
            name="relative",
        ),
        rel=1e-5,
    )


def test_a_catalog_without_any_embedding_can_be_ranked(fit, tmp_path):
    """Errors alone are evidence."""
    catalog = make_catalog(tmp_path / "bare", [Candidate("org/unknown"), Candidate("org/a")])

    ranking = ModelSelector(catalog, distance=fit).rank(TARGET)

    assert ranking.ranked[0] == "org/unknown"
    assert len(ranking) == 2
    assert ranking.n_without_embedding == 0


def test_top_k_is_the_beginning_of_the_whole(fit, catalog):
    """As for other distances."""
    selector = ModelSelector(catalog, distance=fit)

    assert selector.rank(TARGET, top_k=2).ranked == selector.rank(TARGET).ranked[:2]


def test_the_words_say_that_it_was_learned(fit, catalog):
    """And from how much, and what the standard error leaves out."""
    ranking = ModelSelector(catalog, distance=fit).rank(TARGET)
    texts = {item.candidate.id: ranking.explain(i) for i, item in enumerate(ranking)}

    head = "Distance    model2vec (alpha 0.15), learned from errors of 3 checkpoints on other tasks, smaller"
    assert head in str(ranking)
    assert "2 without an embedding in this space or a learned distance (last, by prior)" in str(ranking)
    assert "from measured errors of 3 checkpoints on 8 other tasks. What other errors" in texts["org/unknown"]
    assert "Learned distance: " in texts["org/a"]
    assert "at relative distance" in texts["org/new"]
    assert "The learned distances do not know it" in texts["org/new"]
    below = "Below 0 is no error: alpha times the complexity is taken off, and what was learned moves"
    assert (below in str(ranking)) == any((item.distance or 0) < 0 for item in ranking)
    values = ranking.to_dict()
    assert (values["distance"], values["alpha"], values["n_learned_from"]) == ("model2vec", 0.15, 3)
    assert values["n_learned_tasks"] == 8
    older = ModelSelector(catalog, distance=replace(fit, n_tasks=0)).rank(TARGET)
    assert "from measured errors of 3 checkpoints on other tasks. What" in older.explain(0)
    assert [item["is_learned"] for item in values["candidates"]] == [item.is_learned for item in ranking]


def test_a_saved_fit_ranks_alike(fit, catalog, tmp_path):
    """It is learned once, and used for months."""
    again = Model2Vec.load(fit.save(tmp_path / "fit.safetensors"))

    assert ModelSelector(catalog, distance=again).rank(TARGET) == ModelSelector(catalog, distance=fit).rank(
        TARGET
    )


def test_ranking_by_learned_distances_imports_no_torch(fit, catalog, tmp_path):
    """As for stored embeddings."""
    TARGET.save(tmp_path / "target.safetensors")
    fit.save(tmp_path / "fit.safetensors")
    code = """
import sys
from t2v_hub import Catalog, ModelSelector, TaskEmbedding
from t2v_hub.model2vec import Model2Vec
selector = ModelSelector(Catalog.load(sys.argv[1]), distance=Model2Vec.load(sys.argv[2]))
ranking = selector.rank(TaskEmbedding.load(sys.argv[3]))
print(ranking), ranking.explain(0), ranking.to_dict()
print([name for name in ("torch", "transformers", "datasets", "timm", "sklearn") if name in sys.modules])
"""
    paths = (catalog.path, tmp_path / "fit.safetensors", tmp_path / "target.safetensors")

    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, paths)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )

    assert result.stdout.splitlines()[-1] == "[]"


# From data


class StandIn:
    """In place of `Task2Vec`: embeds anything as `TARGET`, in whatever space it was made for."""

    def __init__(self, made, space=SPACE):
        self.made, self._space = made, space

    def space(self, *, multi_label=False):
        return self._space

    def embed(self, data):
        self.made.append(data)
        return TARGET


@pytest.fixture
def made(monkeypatch):
    """What `Task2Vec` was made for, and what it embedded."""
    record = []

    class Task2Vec:
        @staticmethod
        def for_space(space, **settings):
            record.append(space.id)
            return StandIn(record, space)

        def __new__(cls, **settings):
            record.append(settings)
            return StandIn(record, ELSEWHERE)

    monkeypatch.setitem(sys.modules, "t2v_hub.task2vec", SimpleNamespace(Task2Vec=Task2Vec))
    return record


def test_data_is_embedded_in_the_space_that_was_learned_in(fit, catalog, made):
    """Not in that where most candidates have an embedding: there the fit says nothing."""
    for i in range(4):
        catalog.add(Candidate(f"org/other{i}"), embedding=task(200 + i, space=ELSEWHERE))
    data = object()

    ranking = ModelSelector(catalog, distance=fit).rank(data)
    selector = AutoSelector.from_task(data, catalog=catalog, distance=fit)

    assert made == [SPACE.id, data, SPACE.id, data]
    assert ranking.ranked[0] == selector.rank().ranked[0] == "org/unknown"
    assert ranking.n_without_embedding == 6
    assert selector.learned is fit
    assert "distance='model2vec'" in repr(selector)


def test_the_default_catalog_needs_no_embedding_either(fit, made, monkeypatch, tmp_path):
    """What a fit knows has a distance, whether or not the Hub can be asked."""
    monkeypatch.setenv("T2V_HOME", str(tmp_path))
    make_catalog(tmp_path / "catalog", [Candidate("org/unknown")])

    assert AutoSelector.from_task(TARGET, distance=fit).rank().ranked == ("org/unknown",)


def test_a_fit_of_another_space_is_refused(fit, catalog, made):
    """Its vectors are numbers of other filters, or of another measure."""
    other = task(1, space=ELSEWHERE, task="pets")
    words = (
        rf"learned in space {SPACE.id} .*, and task 'pets' is in space {ELSEWHERE.id}; they differ: .*beta"
    )

    with pytest.raises(EmbeddingMismatchError, match=words + r".*Task2Vec.for_space\(fit.space\)"):
        ModelSelector(catalog, distance=fit).rank(other)
    with pytest.raises(EmbeddingMismatchError, match=words):
        ModelSelector(catalog, distance=fit, task=other)
    with pytest.raises(EmbeddingMismatchError, match=words):
        AutoSelector.from_task(other, catalog=catalog, distance=fit)
    with pytest.raises(
        EmbeddingMismatchError, match=f"a task measured with these settings is in space {ELSEWHERE.id}"
    ):
        AutoSelector.from_task("data", catalog=catalog, distance=fit, probe="another")
    assert "data" not in made


def test_a_catalog_of_strangers_is_refused(fit, tmp_path):
    """Nothing would have a distance."""
    strangers = make_catalog(tmp_path / "strangers", [Candidate("org/x")])
    words = (
        r"None of the 1 candidates in .*strangers' is among the 3 that the distance was learned for, and none"
    )

    with pytest.raises(EmptyCatalogError, match=words):
        ModelSelector(strangers, distance=fit).rank(TARGET)
    with pytest.raises(EmptyCatalogError, match=words):
        AutoSelector.from_task("data", catalog=strangers, distance=fit)
    with pytest.raises(EmptyCatalogError, match="There is no candidate in"):
        ModelSelector(Catalog(tmp_path / "empty"), distance=fit).rank(TARGET)


def test_settings_that_do_not_go_with_a_fit_are_named(fit, catalog):
    """They would be ignored without a word."""
    assert ModelSelector(catalog, distance=fit, alpha=0.15).alpha == 0.15
    with pytest.raises(
        SettingsError, match=r"learned with alpha=0.15, and alpha=0.3 was given. Leave alpha out"
    ):
        ModelSelector(catalog, distance=fit, alpha=0.3)
    with pytest.raises(
        SettingsError, match=r"distance must be a name \(asymmetric, .*\) or a Model2Vec, not dict"
    ):
        ModelSelector(catalog, distance={})
