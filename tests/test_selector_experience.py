"""The prior from recorded errors: effects against least squares, what is left out, and the order."""

import json

import numpy as np
import pytest
from error_tables import by_lstsq, gapped
from factories import make_catalog, make_embedding, make_space

from t2v_hub.catalog import Candidate, Catalog, Result
from t2v_hub.model2vec import Model2Vec
from t2v_hub.selector import Experience, ModelSelector
from t2v_hub.selector.effects import Cell, additive_effects
from t2v_hub.selector.refined import prior_order

SPACE = make_space(40)
TARGET = make_embedding(seed=9, space=SPACE, n_filters=40, task="org/Target", n_groups=8)
SOURCE = make_embedding(seed=1, space=SPACE, n_filters=40, task="Org/Source", n_groups=8)
NAMES = ("org/a", "org/b", "org/c", "org/d")


def cells_of(table, weights=None):
    """The cells of a table with gaps."""
    weights = np.ones_like(table) if weights is None else weights
    return [Cell(r, c, table[r, c], weights[r, c]) for r, c in np.argwhere(~np.isnan(table)).tolist()]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("shape", [(1, 2), (2, 9), (12, 5), (40, 30)])
def test_effects_are_those_of_penalised_least_squares(shape, share):
    """With and without gaps and weights, against the design matrix written out."""
    rng = np.random.default_rng(shape[0])
    table = rng.uniform(size=shape) if shape[0] < 3 else gapped(rng, shape, share)
    weights = rng.choice([1.0, 0.5, 1 / 3], size=shape)

    plain = additive_effects(cells_of(table), n_rows=shape[0], n_columns=shape[1])
    weighted = additive_effects(cells_of(table, weights), n_rows=shape[0], n_columns=shape[1])

    np.testing.assert_allclose(plain, by_lstsq(table), atol=2e-9)
    np.testing.assert_allclose(weighted, by_lstsq(table, weights), atol=2e-9)


def test_two_groups_that_never_met_are_each_centred():
    """Least squares alone does not say how the groups compare; the penalty says alike."""
    table = np.full((4, 4), np.nan)
    table[:2, :2] = [[0.1, 0.2], [0.3, 0.4]]
    table[2:, 2:] = [[0.9, 0.5], [0.8, 0.6]]

    effects = additive_effects(cells_of(table), n_rows=4, n_columns=4)

    np.testing.assert_allclose(effects, np.array([-1, 1, 1, -1]) * 2 / 3, atol=1e-9)


def test_equal_evidence_gives_equal_effects_whatever_the_order():
    """To the last bit, or candidates that are alike would not tie."""
    rng, m = np.random.default_rng(4), 8
    table = gapped(rng, (m, 6), 0.3)
    order = rng.permutation(6)
    both = np.full((2 * m, 12), np.nan)
    both[:m, :6], both[m:, 6:] = table, table[::-1, order]

    effects = additive_effects(cells_of(both), n_rows=2 * m, n_columns=12)

    assert effects[:6][order].tolist() == effects[6:].tolist()


@pytest.mark.parametrize("m", [1, 2, 7, 50])
def test_without_gaps_m_tasks_leave_m_of_m_plus_one_parts_of_the_mean(m):
    """One task says half of what it shows, many nearly all."""
    rng = np.random.default_rng(m)
    table = rng.uniform(size=(m, 6))
    mean = ((table - table.mean(axis=1, keepdims=True)) / table.std(axis=1, keepdims=True)).mean(axis=0)

    effects = additive_effects(cells_of(table), n_rows=m, n_columns=6)

    np.testing.assert_allclose(effects, mean * m / (m + 1), atol=2e-9)


def test_a_checkpoint_is_not_blamed_for_the_company_it_was_measured_in():
    """Its mean is that of the worse one, for it met only the best; side by side it wins."""
    table = np.array([[0.2, 0.5, 0.8, np.nan]] * 10 + [[0.2, np.nan, np.nan, 0.25]] * 10)
    values = (table - np.nanmean(table, axis=1, keepdims=True)) / np.nanstd(table, axis=1, keepdims=True)

    effects = additive_effects(cells_of(table), n_rows=20, n_columns=4)

    assert np.nanmean(values, axis=0)[3] > np.nanmean(values, axis=0)[1]
    assert effects[0] < effects[3]
    assert effects[3] - effects[0] < effects[2] - effects[0]


def test_tasks_on_which_all_are_equal_say_that_none_is_better():
    """No spread to divide by: a mean that is off by a rounding must not become a deviation."""
    same = [0.1 + 0.2, 0.3, 0.3]
    assert same[0] != same[1]

    assert additive_effects(cells_of(np.array([same, same])), n_rows=2, n_columns=3).tolist() == [0.0] * 3


def recorded(path, results, candidates=()):
    """A catalog with results, of candidates on one source task unless others are given."""
    shared = [Candidate(name, embeddings=[SOURCE]) for name in NAMES]
    catalog = make_catalog(path, candidates or shared)
    catalog.record_many(Result(*item[:3], **(item[3] if len(item) > 3 else {})) for item in results)
    return catalog


def on(task, *errors, names=NAMES, **facts):
    """Results of the first candidates on a task."""
    return [(task, name, error, facts) for name, error in zip(names, errors, strict=False)]


RESULTS = [
    *on("org/t1", 0.5, 0.4, 0.1, 0.2, seed=0),
    *on("org/t2", 0.3, 0.2, 0.1, seed=0),
    *on("org/t3", 0.9, 0.8, 0.5, 0.6, seed=0),
]


def test_what_a_catalog_says_is_the_effects_of_its_table(tmp_path):
    """Tasks by checkpoints, with a gap."""
    table = np.array([[0.5, 0.4, 0.1, 0.2], [0.3, 0.2, 0.1, np.nan], [0.9, 0.8, 0.5, 0.6]])

    found = Experience.of(recorded(tmp_path, RESULTS), TARGET)

    assert list(found.effects) == list(NAMES)
    np.testing.assert_allclose(list(found.effects.values()), by_lstsq(table), atol=2e-9)
    assert [found.n_tasks(name) for name in (*NAMES, "org/e")] == [3, 3, 3, 2, 0]
    assert found.tasks["org/d"] == {"org/t1", "org/t3"}
    assert found.n_tasks_of([Candidate("org/d"), Candidate("org/e")]) == 2


def test_seeds_are_averaged_first_and_a_task_counts_once(tmp_path):
    """However often, and with however many training images, it was repeated."""
    repeated = [
        *on("org/t1", 0.4, 0.5, 0.0, 0.2, seed=1),
        *on("org/t1", 0.6, 0.3, 0.2, 0.2, seed=2),
        *on("org/t2", 0.3, 0.2, 0.1, seed=0),
        *on("org/t3", 0.9, 0.8, 0.5, 0.6, seed=0, n=20),
        *on("ORG/T3", 0.7, 0.6, 0.3, seed=0, n=40),
    ]
    table = np.array(
        [
            [0.5, 0.4, 0.1, 0.2],
            [0.3, 0.2, 0.1, np.nan],
            [0.9, 0.8, 0.5, 0.6],
            [0.7, 0.6, 0.3, np.nan],
        ]
    )
    weights = np.array([[1] * 4, [1] * 4, [0.5, 0.5, 0.5, 1], [0.5] * 4])

    found = Experience.of(recorded(tmp_path, repeated), TARGET)

    np.testing.assert_allclose(list(found.effects.values()), by_lstsq(table, weights), atol=2e-9)
    assert [found.n_tasks(name) for name in NAMES] == [3, 3, 3, 2]


def test_what_does_not_count_changes_nothing(tmp_path):
    """The target's own errors above all; checkpoints on their own data, lone ones, strangers' claims."""
    clean = Experience.of(recorded(tmp_path / "clean", RESULTS), TARGET)
    poison = [
        *on("org/Target", 0.0, 1.0, 0.9, 0.9),
        *on("ORG/TARGET", 0.0, 1.0, 0.8, 0.7, seed=3),
        *on("org/SOURCE", 0.0, 0.9, 0.9, 0.1),
        ("org/lone", "org/a", 0.0),
        *on("org/claimed", 0.0, 1.0, 1.0, 1.0, origin="card", endpoint="https://hub.example"),
    ]
    catalog = recorded(tmp_path / "poisoned", [*RESULTS, *poison])
    catalog.record_many(
        [
            Result("alias", name, error, embedding=TARGET.digest)
            for name, error in (("org/a", 0), ("org/b", 1))
        ],
        embeddings=[TARGET],
    )

    found = Experience.of(catalog, TARGET)

    assert (found.effects, found.tasks) == (clean.effects, clean.tasks)


def test_what_a_card_names_as_the_source_counts_as_trained_on(tmp_path):
    """Also where nobody measured that data; of the others the errors there count."""
    candidates = [Candidate("org/a", source="org/T1"), *(Candidate(name) for name in NAMES[1:])]

    found = Experience.of(recorded(tmp_path, RESULTS, candidates), TARGET)

    assert [found.n_tasks(name) for name in NAMES] == [2, 3, 3, 2]


@pytest.mark.parametrize("name", ["symmetric", "asymmetric"])
def test_no_result_on_the_target_changes_a_ranking(tmp_path, name):
    """It would be told what it is to find out."""
    bare = ModelSelector(recorded(tmp_path / "bare", []), distance=name).rank(TARGET)
    told = recorded(tmp_path / "told", on("org/target", 0.9, 0.5, 0.1, 0.3))
    ranking = ModelSelector(told, distance=name).rank(TARGET)

    assert ranking.to_dict() == bare.to_dict()
    assert str(ranking) == str(bare)
    assert ranking.n_experience == 0


FACTS = {
    "org/a": {"upstream_accuracy": 0.9},
    "org/b": {"upstream_accuracy": 0.8},
    "org/c": {},
    "org/d": {},
    "org/e": {"upstream_accuracy": 0.7},
    "org/f": {"parameters": 3},
    "org/g": {},
}
BEST_FIRST = ("org/c", "org/d", "org/f", "org/e", "org/g", "org/b", "org/a")


def test_a_shortlist_takes_the_best_by_results_and_then_goes_by_free_facts(tmp_path):
    """The favourites of results are often of one kind; the first is what one would take without a ranking."""
    anchor = Candidate("org/z", embeddings=[SOURCE], upstream_accuracy=0.0, source="org/z")
    catalog = recorded(tmp_path, [], [*(Candidate(id, **facts) for id, facts in FACTS.items()), anchor])
    without = prior_order(catalog)
    catalog.record_many(Result(task, name, error, **facts) for task, name, error, facts in RESULTS)

    found = prior_order(catalog, Experience.of(catalog, TARGET))

    assert without == ["org/f", "org/a", "org/b", "org/e", "org/z"]
    assert found == ["org/c", *without, "org/d"]


@pytest.mark.parametrize("embeddings", [(), (SOURCE,)])
def test_the_prior_goes_by_recorded_errors_first(tmp_path, embeddings):
    """Between equal distances and without any; what was never measured counts as the average."""
    candidates = [Candidate(id, embeddings=embeddings, **facts) for id, facts in FACTS.items()]
    anchor = Candidate("org/z", embeddings=[SOURCE], upstream_accuracy=0.0, source="org/z")
    catalog = recorded(tmp_path, [], [*candidates, anchor])
    before = ModelSelector(catalog).rank(TARGET)
    catalog.record_many(Result(task, name, error, **facts) for task, name, error, facts in RESULTS)

    ranking = ModelSelector(catalog).rank(TARGET)

    effects = Experience.of(catalog, TARGET).effects
    assert effects["org/c"] < effects["org/d"] < 0 < effects["org/b"] < effects["org/a"]
    expected = ("org/f", "org/a", "org/b", "org/e", "org/c", "org/d", "org/g")
    assert tuple(id for id in before.ranked if id != "org/z") == expected
    assert tuple(id for id in ranking.ranked if id != "org/z") == BEST_FIRST
    for item in ranking:
        assert item.experience == effects.get(item.candidate.id)
    assert {item.candidate.id: item.n_experience for item in ranking}["org/d"] == 2
    assert ranking.ranked[:4] == ModelSelector(catalog).rank(TARGET, top_k=4).ranked


def test_candidates_without_a_distance_tie_only_where_their_experience_is_equal(tmp_path):
    """A tie group is what cannot be told apart."""
    results = [*on("org/t1", 0.1, 0.1, 0.5), *on("org/t2", 0.2, 0.2, 0.3)]
    bare = [Candidate(name) for name in NAMES]
    anchor = Candidate("org/z", embeddings=[SOURCE])

    ranking = ModelSelector(recorded(tmp_path, results, [anchor, *bare])).rank(TARGET)

    assert ranking.ranked == ("org/z", "org/a", "org/b", "org/d", "org/c")
    assert [item.tie_group for item in ranking] == [1, 2, 2, 3, 4]


def test_learned_distances_have_this_prior_too(tmp_path):
    """For candidates that the fit does not know."""
    tasks = [make_embedding(seed=seed, space=SPACE, n_filters=40) for seed in (20, 21)]
    fit = Model2Vec.fit(
        tasks,
        np.array([[0.1, 0.2], [0.3, 0.2]]),
        candidates=["org/x", "org/y"],
        sources={"org/x": SOURCE},
        temperature=0.1,
        strength=1.0,
    )
    known = [Candidate("org/x", embeddings=[SOURCE]), Candidate("org/y")]
    others = [Candidate(id, **facts) for id, facts in FACTS.items()]
    catalog = recorded(tmp_path, RESULTS, [*known, *others])

    ranking = ModelSelector(catalog, distance=fit).rank(TARGET)

    assert set(ranking.ranked[:2]) == {"org/x", "org/y"}
    assert ranking.ranked[2:] == BEST_FIRST


def test_damaged_results_are_named_and_stop_no_ranking(tmp_path):
    """The candidates beside them are still there."""
    catalog = recorded(tmp_path, RESULTS)
    (catalog.path / "results.parquet").write_bytes(b"PAR1 and nothing more")

    ranking = ModelSelector(catalog).rank(TARGET)

    assert ranking.ranked == NAMES
    assert ranking.n_experience == 0
    [reason] = ranking.skipped
    assert "results.parquet' cannot be read" in reason
    assert f"Could not be read, and was left out (1):\n  {reason}" in str(ranking)


def test_the_words_say_where_the_prior_comes_from(tmp_path):
    """In the head, in a column, and in the explanation of each."""
    candidates = [Candidate(name, embeddings=[SOURCE]) for name in (*NAMES, "org/e")]
    catalog = recorded(tmp_path, RESULTS, [*candidates, Candidate("org/f")])
    effects = Experience.of(catalog, TARGET).effects

    ranking = ModelSelector(catalog).rank(TARGET)
    text = str(ranking)
    why = {item.candidate.id: ranking.explain(i) for i, item in enumerate(ranking)}

    words = "Prior       errors on 3 recorded tasks, then parameters, then upstream accuracy, then downloads"
    assert f"\n{words}\n" in text
    assert "elsewhere: errors on other tasks recorded here, in standard deviations from the average" in text
    [heading, first] = [line.split() for line in text.splitlines() if line.startswith(("rank", "   1"))]
    assert heading[-3:] == ["elsewhere", "parameters", "upstream"]
    assert first[-3:] == [f"{effects['org/c']:+.2f}", "–", "–"]
    size = f"{-effects['org/c']:.1f}"
    assert (
        f"Prior: on 3 other tasks recorded here its errors were {size} deviations below the" in why["org/c"]
    )
    size = f"{effects['org/a']:.1f}"
    assert f"on 3 other tasks recorded here its errors were {size} deviations above the" in why["org/a"]
    assert "no errors on other tasks are recorded here, which counts as the average" in why["org/e"]
    assert "ordered by prior: errors on 3 recorded tasks, then parameters" in why["org/f"]


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        ((0.1, 0.1), "on 1 other task recorded here its errors were about the average"),
        ((0.1, 0.2), "on 1 other task recorded here its errors were 0.5 deviations below the average"),
    ],
)
def test_one_task_is_one_task(tmp_path, errors, words):
    """And half of what it shows; equal errors are no deviation of -0.0."""
    ranking = ModelSelector(recorded(tmp_path, on("org/t1", *errors))).rank(TARGET)

    assert words in ranking.explain(0)
    assert "Prior       errors on 1 recorded task, then" in str(ranking)


def test_plain_values_hold_the_experience(tmp_path):
    """Fields joined the schema; none changed its meaning."""
    ranking = ModelSelector(recorded(tmp_path, RESULTS)).rank(TARGET)

    values = json.loads(json.dumps(ranking.to_dict(), allow_nan=False))

    assert values["schema"] == "t2v-ranking/1"
    assert values["n_experience"] == 3
    assert [item["experience"] for item in values["candidates"]] == [item.experience for item in ranking]
    assert [item["n_experience"] for item in values["candidates"]] == [3, 2, 3, 3]


def test_results_of_checkpoints_that_are_not_ranked_are_no_prior_of_these(tmp_path):
    """A head that claims recorded tasks would be wrong where none of them decides."""
    others = [Candidate("org/y", embeddings=[SOURCE]), Candidate("org/x")]

    ranking = ModelSelector(recorded(tmp_path, RESULTS, others)).rank(TARGET)

    assert ranking.n_experience == 0
    assert "Prior  " not in str(ranking)
    assert "elsewhere" not in str(ranking)


def test_an_empty_catalog_knows_nothing(tmp_path):
    """No file, no checkpoint, no division by nothing."""
    found = Experience.of(Catalog(tmp_path), TARGET)

    assert (found.effects, found.tasks, found.skipped) == ({}, {}, ())
