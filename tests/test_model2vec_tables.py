"""Results in a catalog as what `Model2Vec` learns from, against loops over the results."""

import statistics
import subprocess
import sys

import numpy as np
import pytest

from t2v_hub.catalog import Candidate, Catalog, Result
from t2v_hub.distance import distance
from t2v_hub.errors import CatalogFileError, ResultsError, SettingsError
from t2v_hub.model2vec import Model2Vec, error_table, fit_catalog
from tests.factories import make_catalog, make_embedding, make_space

SPACE, OTHER = make_space([8, 8], beta=1e-6), make_space([8, 8], beta=1.0)


def embedding(name, *, seed=None, space=SPACE, **options):
    seed = sum(name.encode()) if seed is None else seed
    return make_embedding(seed=seed, n_filters=16, space=space, task=name, prior=[1e-3, 1e-3], **options)


TASKS = {f"task{t}": embedding(f"task{t}", seed=t) for t in range(6)}
SOURCES = {f"org/m{i}": embedding(f"source{i}", seed=100 + i) for i in range(4)}


def rows(n=20, seeds=3, gaps=0.2):
    """Results of every checkpoint on every task and seed but some."""
    rng = np.random.default_rng(0)
    return [
        Result(task, checkpoint, float(rng.uniform()), n=n, seed=seed, embedding=TASKS[task].digest)
        for task in TASKS
        for checkpoint in SOURCES
        for seed in range(seeds)
        if rng.uniform() > gaps
    ]


@pytest.fixture
def catalog(tmp_path):
    candidates = [Candidate(name, embeddings=[source]) for name, source in SOURCES.items()]
    return make_catalog(tmp_path / "catalog", candidates)


def cell(table, task, checkpoint):
    ids = [item.task.id for item in table.tasks]
    return table.errors[ids.index(task), table.candidates.index(checkpoint)]


def test_errors_are_means_over_seeds(catalog):
    """Against the standard library, cell by cell; a cell without a result is NaN."""
    results = [r for r in rows(gaps=0.5) if r.task != "task1" or r.checkpoint != "org/m1"]
    catalog.record_many(results, embeddings=TASKS.values())

    table = error_table(catalog, SPACE)

    assert {task.digest for task in table.tasks} == {task.digest for task in TASKS.values()}
    assert table.candidates == tuple(SOURCES)
    assert table.sources == SOURCES
    for task in TASKS:
        for checkpoint in SOURCES:
            errors = [r.error for r in results if (r.task, r.checkpoint) == (task, checkpoint)]
            expected = statistics.fmean(errors) if errors else np.nan
            np.testing.assert_allclose(cell(table, task, checkpoint), expected, rtol=1e-14)
    assert np.isnan(cell(table, "task1", "org/m1"))
    assert table.n_results == len(results)
    assert table.n_comparing == sum(
        len({r.checkpoint for r in results if r.task == task}) >= 2 for task in TASKS
    )


def test_a_fit_from_a_catalog_is_the_fit_to_its_table(catalog):
    """Whatever is learned, it is `Model2Vec.fit` on what was recorded."""
    results = rows(gaps=0.0)
    catalog.record_many(results, embeddings=TASKS.values())
    errors = [
        [statistics.fmean(r.error for r in results if (r.task, r.checkpoint) == (t, c)) for c in SOURCES]
        for t in TASKS
    ]
    for settings in ({}, {"bias": "offset", "alpha": 0.3, "strength": 0.01, "temperature": 0.1}):
        expected = Model2Vec.fit(
            list(TASKS.values()), errors, candidates=list(SOURCES), sources=SOURCES, **settings
        )

        actual = fit_catalog(catalog, SPACE.id, **settings)

        target = embedding("new", seed=50)
        np.testing.assert_allclose(actual.distances(target), expected.distances(target), rtol=1e-9)
        assert (actual.temperature, actual.strength, actual.bias) == pytest.approx(
            (expected.temperature, expected.strength, expected.bias)
        )


def test_groups_are_made_of_ids(catalog):
    """Tasks of one source must be left out together, or a fit is judged on what it has seen."""
    catalog.record_many(rows(gaps=0.0), embeddings=TASKS.values())
    groups = []

    def group_of(task):
        groups.append(task)
        return "all"

    with pytest.raises(SettingsError, match="Cross-validation needs tasks of at least 3 groups"):
        fit_catalog(catalog, SPACE, group_of=group_of)
    assert set(groups) == set(TASKS)


def test_what_a_checkpoint_was_trained_on_does_not_count(tmp_path):
    """By the task of its embedding, in whatever space, or by its source; the case of ids is nothing."""
    same = embedding("task3", seed=3)
    catalog = make_catalog(
        tmp_path / "catalog",
        [
            Candidate("org/m0", embeddings=[embedding("TASK1"), SOURCES["org/m0"]]),
            Candidate("org/m1", source="Task2"),
            Candidate("org/m2", embeddings=[embedding("task4", space=OTHER)]),
            Candidate("org/m3", embeddings=[same]),
        ],
    )
    results = rows(gaps=0.0)
    catalog.record_many(results, embeddings=TASKS.values())

    table = error_table(catalog, SPACE)

    own = {("task1", "org/m0"), ("task2", "org/m1"), ("task4", "org/m2"), ("task3", "org/m3")}
    for task in TASKS:
        for checkpoint in SOURCES:
            assert np.isnan(cell(table, task, checkpoint)) == ((task, checkpoint) in own)
    assert table.n_own == 3 * len(own)
    assert table.n_results == len(results) - table.n_own
    assert table.sources["org/m1"] is None and table.sources["org/m2"] is None


def test_a_renamed_copy_of_the_training_data_is_known_by_its_embedding(tmp_path):
    """What a result calls the task, and what its embedding does, both count."""
    catalog = make_catalog(tmp_path / "catalog", [Candidate("org/m0", embeddings=[TASKS["task0"]])])
    names = {"renamed": TASKS["task0"], "Task0": TASKS["task1"], "task2": TASKS["task2"]}
    results = [Result(name, c, 0.5, embedding=task.digest) for name, task in names.items() for c in SOURCES]
    catalog.record_many(results, embeddings=names.values())

    table = error_table(catalog, SPACE)

    measured = {task.digest: row for task, row in zip(table.tasks, ~np.isnan(table.errors), strict=True)}
    for name, task in names.items():
        assert measured[task.digest].tolist() == [name == "task2", True, True, True]
    assert table.n_own == 2


def test_of_several_sources_the_nearest_on_average_is_taken(tmp_path):
    """By the distance `relative`, another implementation, and only to tasks that it was measured on."""
    rng = np.random.default_rng(0)
    near = [task.fisher * np.exp(rng.normal(0, 0.3, 16)) for task in TASKS.values()]
    pool = [make_embedding(f, task=f"s{k}", space=SPACE, prior=[1e-3, 1e-3]) for k, f in enumerate(near)]
    elsewhere = embedding("s9", seed=300, space=OTHER)
    catalog = make_catalog(tmp_path / "catalog", [Candidate("org/m0", embeddings=[elsewhere, *pool])])
    chosen = set()
    for start in range(5):
        tasks = [TASKS[f"task{(start + k) % 6}"] for k in range(2)]
        results = [Result(t.task.id, c, 0.5, embedding=t.digest) for t in tasks for c in ("org/m0", "org/x")]
        more = [Result(t.task.id, "org/x", 0.5, embedding=t.digest) for t in TASKS.values()]
        catalog.remove_results(catalog.results())
        catalog.record_many([*results, *more], embeddings=TASKS.values())
        means = [np.mean([distance(s, t, name="relative", alpha=0.15) for t in tasks]) for s in pool]

        table = error_table(catalog, SPACE, alpha=0.15)

        assert table.sources["org/m0"] == pool[int(np.argmin(means))]
        chosen.add(table.sources["org/m0"].task.id)
    assert len(chosen) > 1


def test_a_tasks_embedding_is_the_one_of_the_most_images(tmp_path):
    """Results of several splits may name several; those of other spaces do not count."""
    catalog = Catalog(tmp_path)
    small, large = (embedding("task0", seed=k, n_samples=n) for k, n in ((1, 100), (2, 400)))
    other = embedding("task0", seed=3, space=OTHER, n_samples=900)
    for seed, measured in enumerate((large, small, other)):
        for checkpoint in SOURCES:
            catalog.record(measured, checkpoint, 0.5, seed=seed)

    table = error_table(catalog, SPACE)

    assert [task.digest for task in table.tasks] == [large.digest]
    assert table.n_results == 12


def test_embeddings_of_tasks_are_found_elsewhere(tmp_path):
    """Given ones, then those of candidates that were trained on that data; what has none is named."""
    catalog = make_catalog(tmp_path / "catalog", [Candidate("org/s", embeddings=[embedding("Org/Stored")])])
    for task in ("org/stored", "given", "lacking"):
        for checkpoint in ("org/a", "org/b"):
            catalog.record(task, checkpoint, 0.5)
    given = [embedding("Given", seed=1), embedding("given", seed=2, space=OTHER)]

    table = error_table(catalog, SPACE, embeddings=given)

    assert {task.digest for task in table.tasks} == {given[0].digest, embedding("Org/Stored").digest}
    assert table.without_embedding == ("lacking",)
    assert table.n_results == 4


def test_claims_of_cards_count_only_when_asked_for(tmp_path):
    """And never where there is a measurement of one's own."""
    catalog = Catalog(tmp_path)
    for name, task in list(TASKS.items())[:2]:
        catalog.record(task, "org/a", 0.5, n=20, seed=0)
        claims = [Result(name, c, 0.1, origin="card", endpoint="https://hub") for c in ("org/a", "org/b")]
        catalog.record_many(claims)

    own = error_table(catalog, SPACE)
    both = error_table(catalog, SPACE, n=20, origins=("run", "card"))
    cards = error_table(catalog, SPACE, origins=("card",), embeddings=TASKS.values())

    assert own.candidates == ("org/a",)
    np.testing.assert_array_equal(both.errors, [[0.5, 0.1]] * 2)
    np.testing.assert_array_equal(cards.errors, [[0.1, 0.1]] * 2)


def test_errors_with_other_numbers_of_images_are_not_mixed(catalog):
    """With more images every checkpoint is better: the mean would say who was measured on more."""
    catalog.record_many([*rows(n=5), *rows(n=20, gaps=0.5)], embeddings=TASKS.values())
    catalog.record("task0", "org/m0", 0.5)
    n_5, n_20 = (len(catalog.results(n=n)) for n in (5, 20))

    with pytest.raises(
        ResultsError,
        match=rf"there are n=unknown \(1 results\), n=5 \({n_5} results\), n=20 \({n_20} .*Choose",
    ):
        error_table(catalog, SPACE)
    with pytest.raises(ResultsError, match=r"no results with n=7 in '.*'; there are n=unknown .* Choose one"):
        error_table(catalog, SPACE, n=7)
    assert error_table(catalog, SPACE, n=20).n_results == n_20
    assert error_table(catalog, SPACE, results=catalog.results(n=5)).n_results == n_5


def test_too_little_to_learn_from_is_counted(catalog):
    """What there is, and what to record."""
    with pytest.raises(
        ResultsError, match=r"no results of the origin run in '.*'. Record some: Catalog.record"
    ):
        fit_catalog(catalog, SPACE)
    with pytest.raises(ResultsError, match=r"no results of the origin card or run given\. Record some"):
        fit_catalog(catalog, SPACE, results=[], origins=("run", "card"))
    catalog.record("task9", "org/m0", 0.5)
    with pytest.raises(ResultsError, match="of the origin card in .*, though 1 of another"):
        fit_catalog(catalog, SPACE, origins=("card",))
    for t in range(7):
        catalog.record(f"bare{t}", "org/m0", 0.5)
    with pytest.raises(
        ResultsError,
        match=r"None of the 8 tasks with results \(bare0, bare1, bare2, bare3, bare4 and 3 more\) has an emb",
    ):
        fit_catalog(catalog, SPACE)
    for task in list(TASKS.values())[:2]:
        for checkpoint in ("org/m0", "org/m1"):
            catalog.record(task, checkpoint, 0.5)
    catalog.record(SOURCES["org/m0"], "org/m0", 0.5)
    with pytest.raises(
        ResultsError,
        match=r"on at least 3 tasks .* there are 2 such tasks \(of 3 with an embedding; 8 more have no "
        r"embedding\), from 4 results of 2 checkpoints, of 1 more the checkpoint was trained on the task\. "
        r"Record more",
    ):
        fit_catalog(catalog, SPACE)

    model = fit_catalog(catalog, SPACE, temperature=0.1, strength=1.0)  # nothing is to be chosen
    assert model.candidates == ("org/m0", "org/m1")


def test_one_damaged_embedding_ends_nothing(catalog):
    """The task is left out, or the checkpoint counts as one whose training is not known; both are named."""
    catalog.record_many(rows(gaps=0.0), embeddings=TASKS.values())
    for bad in (TASKS["task2"], SOURCES["org/m1"]):
        path = catalog.embeddings_folder / f"{bad.digest.removeprefix('sha256:')}.safetensors"
        path.write_bytes(b"damaged")

    table = error_table(Catalog.load(catalog.path), SPACE)

    assert table.without_embedding == ("task2",)
    assert table.sources["org/m1"] is None
    assert len(table.skipped) == 2
    assert all("is not a usable embedding file" in reason for reason in table.skipped)


def test_damaged_results_are_an_error(catalog):
    """There is nothing else to learn from."""
    (catalog.path / "results.parquet").write_bytes(b"damaged")

    with pytest.raises(CatalogFileError, match=r"results\.parquet' cannot be read"):
        fit_catalog(catalog, SPACE)


def test_learning_from_a_catalog_imports_no_torch():
    """Only measuring needs it."""
    code = (
        "import sys; from t2v_hub.model2vec import fit_catalog; "
        "print([name for name in ('torch', 'transformers', 'datasets') if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
