"""Errors that results on other tasks let one expect: closed forms, loops over lstsq, coverage, and words."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from error_tables import by_lstsq, gapped, results_of
from factories import make_catalog, make_embedding, make_space
from scipy import stats

from t2v_hub.catalog import Candidate, Result
from t2v_hub.selector import Experience, ModelSelector
from t2v_hub.selector.effects import Errors
from t2v_hub.selector.expectation import Expectation

MEASURED = Path(__file__).parents[1] / "benchmarks" / "selection" / "measured.parquet"
SPACE = make_space(40)
TARGET = make_embedding(seed=9, space=SPACE, n_filters=40, task="org/target", n_groups=8)
SOURCE = make_embedding(seed=1, space=SPACE, n_filters=40, task="org/source", n_groups=8)
NAMES = ("org/c0", "org/c1", "org/c2", "org/c3")


def expectation_of(table):
    return Expectation.of(Errors.of(results_of(table)))


@pytest.mark.parametrize("n_tasks", [3, 7, 30])
def test_where_all_checkpoints_are_alike_it_is_the_interval_of_one_more_draw(n_tasks):
    """Student's prediction interval of a further value, as scipy's quantile has it."""
    level = np.random.default_rng(n_tasks).normal(0.5, 0.03, n_tasks)
    mean, error = level.mean(), level.std(ddof=1) * math.sqrt(1 + 1 / n_tasks)

    found = expectation_of(np.tile(level[:, None], (1, 4)))

    expected = stats.t.interval(0.95, n_tasks - 1, loc=mean, scale=error)
    for id in NAMES:
        assert found.of_checkpoint(id).error == pytest.approx(mean)
        assert found.of_checkpoint(id).interval == pytest.approx(expected)


def typical(table):
    """Effects by lstsq, and the level and the spread of a table's tasks, each by a loop."""
    effects, spreads = by_lstsq(table), np.nanstd(table, axis=1)
    levels = [np.nanmean(row - spread * effects) for row, spread in zip(table, spreads, strict=True)]
    return effects, np.mean(levels), np.mean(spreads)


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_the_interval_is_what_the_other_tasks_miss_of_each(share):
    """Task by task: left out, fitted again by numpy, predicted, compared."""
    table = 0.4 + 0.2 * gapped(np.random.default_rng(3), (9, 7), share)
    squares, within = [], []
    for t in range(9):
        others = np.delete(table, t, axis=0)
        known = ~np.isnan(table[t]) & ~np.isnan(others).all(axis=0)
        measured = ~np.isnan(others).all(axis=0)
        effects = np.zeros(7)
        effects[measured], level, spread = typical(others[:, measured])
        left = (table[t] - spread * effects)[known]
        squares.append(np.mean((left - level) ** 2))
        within.append(left.var(ddof=1))
    effects, level, spread = typical(table)

    found = expectation_of(table)

    assert found.standard_error == pytest.approx(math.sqrt(np.mean(squares) * 80 / 81))
    assert found.within == pytest.approx(math.sqrt(np.mean(within)))
    assert found.margin == pytest.approx(stats.t.ppf(0.975, 8) * found.standard_error)
    for c in range(7):
        assert found.of_checkpoint(f"org/c{c}").error == pytest.approx(level + spread * effects[c])


def drawn(rng, n_tasks, n_checkpoints, *, level=0.06, unlike=0.0, share=0.3):
    """An additive table with noise and gaps, and the last task apart: what is to be predicted."""
    merit = rng.normal(0, 1, n_checkpoints)
    spread = 0.03 * np.exp(unlike * rng.normal(size=(n_tasks + 1, 1)))
    noise = 0.6 * rng.normal(size=(n_tasks + 1, n_checkpoints))
    table = np.clip(rng.normal(0.5, level, (n_tasks + 1, 1)) + spread * (merit + noise), 0, 1)
    gaps = rng.uniform(size=(n_tasks, n_checkpoints)) < share
    gaps[:, :2] = False
    return np.where(gaps, np.nan, table[:-1]), table[-1]


def misses(rng, errors, n=400):
    """Which of n images checkpoints of these errors miss; what is hard for one is hard for all."""
    hard = rng.uniform(size=n)
    return {id: (hard < error).astype(np.float64) for id, error in errors.items()}


@pytest.mark.parametrize("unlike", [0.0, 0.5])
@pytest.mark.parametrize("n_tasks", [5, 15])
def test_intervals_cover_what_they_say(n_tasks, unlike):
    """Of 400 new tasks, so a share of .95 is known to ±.02; of five recorded tasks it may be too much.

    The tasks' spreads are alike, or differ by a factor of 1.6. The loaded candidates were seen on 400 images.
    """
    rng = np.random.default_rng(n_tasks)
    covered, beside, widths = [], [], []
    for _ in range(400):
        table, new = drawn(rng, n_tasks, 8, unlike=unlike)
        found = expectation_of(table)
        ids = [f"org/c{c}" for c in range(8) if f"org/c{c}" in found.effects]
        errors = {id: new[int(id[-1])] for id in ids}
        anchored = found.beside(misses(rng, {id: errors[id] for id in ids[:3]}))
        inside = [abs(errors[id] - found.of_checkpoint(id).error) <= found.margin for id in ids]
        inside_3 = [abs(errors[id] - anchored.of_checkpoint(id).error) <= anchored.margin for id in ids[3:]]
        covered.append(np.mean(inside))
        beside.append(np.mean(inside_3))
        widths.append((found.margin, anchored.margin))

    assert 0.925 <= np.mean(covered) <= 0.975
    assert 0.925 <= np.mean(beside) <= (0.975 if n_tasks > 5 else 0.999)
    assert np.median([b / a for a, b in widths]) < 0.95


@pytest.mark.parametrize(
    ("size", "left_out", "expected"),
    [
        ("5", "task", (0.95, 0.95)),
        ("20", "task", (0.94, 0.96)),
        ("half", "task", (0.98, 0.95)),
        ("5", "source", (0.94, 0.86)),
        ("20", "source", (0.96, 0.88)),
        ("half", "source", (0.80, 0.87)),
    ],
)
def test_intervals_on_measured_tasks_hold_as_the_documentation_says(size, left_out, expected):
    """Each task, or all of its source, left out; alone, and beside five others seen on 300 images."""
    table = pq.read_table(MEASURED, filters=[("size", "=", size)])
    means = table.group_by(["task", "candidate"]).aggregate([("error", "mean")]).to_pylist()
    errors: dict[str, dict[str, float]] = {}
    for cell in sorted(means, key=lambda cell: (cell["task"], cell["candidate"])):
        if math.isfinite(cell["error_mean"]):  # a candidate is left out for what it was trained on
            errors.setdefault(cell["task"], {})[cell["candidate"]] = cell["error_mean"]
    rng = np.random.default_rng(0)
    alone, beside = [], []
    for task, own in errors.items():
        source = task.split("/")[0]
        others = [t for t in errors if t != task and (left_out == "task" or t.split("/")[0] != source)]
        found = Expectation.of(Errors.of(Result(t, c, e) for t in others for c, e in errors[t].items()))
        alone.append(np.mean([holds(found, id, error) for id, error in own.items()]))
        for _ in range(5):
            five = rng.choice(list(own), 5, replace=False)
            anchored = found.beside(misses(rng, {id: own[id] for id in five}, 300))
            rest = [id for id in own if id not in five]
            beside.append(np.mean([holds(anchored, id, own[id]) for id in rest]))

    assert (np.mean(alone), np.mean(beside)) == pytest.approx(expected, abs=0.015)


def holds(found, id, error):
    """Whether an error lies in the interval that was predicted; where nothing was, there is none."""
    predicted = found.of_checkpoint(id)
    return predicted is not None and predicted.interval[0] <= error <= predicted.interval[1]


def test_beside_loaded_candidates_the_level_is_that_of_least_squares():
    """With the spread of other tasks; those of which nothing is recorded elsewhere say nothing."""
    table = 0.4 + 0.2 * gapped(np.random.default_rng(5), (6, 5), 0.2)
    found = expectation_of(table)
    hits = np.random.default_rng(6).uniform(size=(3, 200)) < np.array([[0.1], [0.25], [0.3]])
    loaded = dict(zip(("org/c1", "org/c4", "org/new"), hits.astype(np.float64), strict=True))
    effects = np.array([found.effects["org/c1"], found.effects["org/c4"]])
    level = np.linalg.lstsq(np.ones((2, 1)), hits[:2].mean(axis=1) - found.spread * effects, rcond=None)[0][0]

    anchored = found.beside(loaded)

    assert anchored.level == pytest.approx(level)
    assert anchored.of_checkpoint("org/c0").error == pytest.approx(
        level + found.spread * found.effects["org/c0"]
    )
    images = stats.sem(hits[:2].mean(axis=0))
    expected = math.sqrt(found.within**2 * 1.5 + images**2)
    assert anchored.margin == pytest.approx(stats.t.ppf(0.975, found.n_tasks - 1) * expected)
    assert (anchored.n_anchors, found.n_anchors) == (2, 0)
    assert anchored.of_checkpoint("org/new") is None
    for too_few in ({}, {"org/c1": loaded["org/c1"]}, {id: loaded[id] for id in ("org/c1", "org/new")}):
        assert found.beside(too_few) is found


def test_the_level_is_not_taken_from_candidates_where_nothing_tells_how_they_differ():
    """Each task has one checkpoint in common with the others: there is no difference to be tried."""
    table = np.full((4, 9), np.nan)
    table[:, 0] = [0.5, 0.52, 0.48, 0.5]
    for t in range(4):
        table[t, [2 * t + 1, 2 * t + 2]] = [0.45, 0.55]

    found = expectation_of(table)

    assert (found.n_tasks, found.within, found.n_within) == (4, None, 0)
    loaded = misses(np.random.default_rng(0), {"org/c0": 0.2, "org/c1": 0.3})
    assert found.beside(loaded) is found


@pytest.mark.parametrize(
    "table",
    [
        np.full((0, 0), np.nan),
        np.array([[0.1, 0.2], [0.3, 0.4]]),
        np.array([[0.1, 0.2, np.nan], [0.3, 0.4, np.nan], [np.nan, 0.5, np.nan]]),  # one checkpoint: no task
        np.kron(np.eye(3), np.ones((1, 2))) * 0.2 + np.where(np.kron(np.eye(3), np.ones((1, 2))), 0, np.nan),
    ],
)
def test_of_fewer_than_three_tasks_that_tell_of_each_other_nothing_is_expected(table):
    """Two have one difference; and tasks without a checkpoint in common cannot be tried."""
    assert expectation_of(table) is None


def test_a_task_of_several_sizes_counts_once():
    """However many numbers of training images it was recorded with."""
    table = 0.4 + 0.2 * gapped(np.random.default_rng(8), (5, 4), 0.0)
    results = results_of(table)
    again = [dataclasses.replace(r, n=20) for r in results if r.task == "org/t0"]

    once = Expectation.of(Errors.of(results))
    twice = Expectation.of(Errors.of([*results, *again]))

    assert twice.n_tasks == 5
    assert (twice.level, twice.spread) == pytest.approx((once.level, once.spread))
    assert (twice.standard_error, twice.within) == pytest.approx((once.standard_error, once.within))


def test_tasks_with_one_known_checkpoint_tell_nothing_of_differences():
    """They count for the level alone, and there are fewer degrees of freedom beside loaded candidates."""
    table = np.full((7, 11), np.nan)
    table[:4, :3] = 0.5 + 0.1 * np.random.default_rng(1).normal(size=(4, 3))
    for t in range(4, 7):
        table[t, [0, t + 1]] = 0.45, 0.55  # the second is measured nowhere else

    found = expectation_of(table)
    anchored = found.beside(misses(np.random.default_rng(0), {"org/c0": 0.2, "org/c1": 0.3}))

    assert (found.n_tasks, found.n_within) == (7, 4)
    assert anchored.margin == pytest.approx(stats.t.ppf(0.975, 3) * anchored.standard_error)


def test_of_many_tasks_some_are_left_out_in_turn():
    """Each costs a fit; forty tell the width of an interval well enough."""
    table = 0.5 + 0.1 * np.random.default_rng(0).normal(0, 1, (90, 1)) + np.linspace(0, 0.1, 4)

    found = expectation_of(np.clip(table, 0, 1))

    assert found.n_tasks == 40
    assert found.standard_error == pytest.approx(0.1, rel=0.25)


def test_errors_stay_between_0_and_1():
    """However far a table may point."""
    table = np.array([[0.0, 0.1, 1.0], [0.0, 0.6, 1.0], [0.0, 0.0, 1.0], [0.0, 0.9, 1.0]])

    found = expectation_of(table)

    for c in range(3):
        error, (low, high) = found.of_checkpoint(f"org/c{c}")
        assert 0 <= low <= error <= high <= 1


RESULTS = [
    Result(task, id, error)
    for task, errors in {
        "org/t1": (0.5, 0.4, 0.1, 0.2),
        "org/t2": (0.3, 0.2, 0.1),
        "org/t3": (0.45, 0.4, 0.25, 0.3),
    }.items()
    for id, error in zip(NAMES, errors, strict=False)
]


def selector(path, results=RESULTS):
    """Of the four checkpoints, and one of which nothing is recorded."""
    catalog = make_catalog(path, [Candidate(id, embeddings=[SOURCE]) for id in (*NAMES, "org/new")])
    catalog.record_many(results)
    return ModelSelector(catalog)


def test_a_ranking_says_what_to_expect_and_from_what(tmp_path):
    """In values, in the table, in words; nothing of what was never measured."""
    chosen = selector(tmp_path)
    expected = Experience.of(chosen.catalog, TARGET).expectation

    ranking = chosen.rank(TARGET)
    items = {item.candidate.id: item for item in ranking}

    for id in NAMES:
        found = items[id]
        assert (found.predicted_error, found.predicted_interval) == expected.of_checkpoint(id)
        assert (found.predicted_from, found.is_loaded) == ("other tasks", False)
    new = items["org/new"]
    assert (new.predicted_error, new.predicted_interval, new.predicted_from) == (None, None, None)
    values = json.loads(json.dumps(ranking.to_dict(), allow_nan=False))["candidates"]
    assert [item["predicted_error"] for item in values] == [item.predicted_error for item in ranking]
    assert {item["predicted_from"] for item in values} == {"other tasks", None}
    best = items["org/c2"]
    error, (low, high) = best.predicted_error, best.predicted_interval
    text = str(ranking)
    assert low == 0  # cut, so the upper side is the width
    assert f"   1  org/c2      ~{100 * error:.1f} ± {100 * (high - error):.1f} %" in text
    assert "\n~: expected from its errors on other tasks; nothing of this task is in it." in text
    assert (
        f"Expected error: {100 * error:.1f} % (95 % interval 0.0 to {100 * high:.1f} %), from its errors on "
        f"3 other tasks; the level is taken from those tasks, so nothing of this one is in it."
    ) in ranking.explain(0)
    assert "Expected error" not in ranking.explain(list(items).index("org/new"))


def test_the_targets_own_errors_are_in_no_prediction(tmp_path):
    """It would be told what it is to find out."""
    poison = [Result("ORG/Target", id, error) for id, error in zip(NAMES, (0.0, 1.0, 0.9, 0.0), strict=True)]

    clean = selector(tmp_path / "clean").rank(TARGET)
    told = selector(tmp_path / "told", [*RESULTS, *poison]).rank(TARGET)

    assert clean[0].predicted_from == "other tasks"
    assert told.to_dict() == clean.to_dict()


def test_two_tasks_predict_nothing_and_show_nothing(tmp_path):
    """A column without an entry is noise."""
    ranking = selector(tmp_path, [r for r in RESULTS if r.task != "org/t3"]).rank(TARGET)

    assert ranking.n_experience == 2
    assert {item.predicted_error for item in ranking} == {None}
    assert "predicted error" not in str(ranking)
    assert "~" not in str(ranking)
