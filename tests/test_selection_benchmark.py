"""The benchmark of selection: its splits, its classifier, and that no row sees what it must not."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from scipy.stats import zscore
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from benchmarks.selection import embedding, keeping, measuring, policies, pool, report, settling
from benchmarks.selection.costs import Costs
from benchmarks.selection.experts import LARGE, SMALL, Checkpoint, planned
from benchmarks.selection.linear import linear_errors
from benchmarks.selection.pool import Embedded, Measured
from benchmarks.selection.tasks import SIZES, Task, splits
from t2v_hub.judging import GroundTruth, Judge
from t2v_hub.scores import BUILT_IN_SCORES
from t2v_hub.selector.combined import PARTS
from tests.factories import make_embedding, make_space


@pytest.fixture(autouse=True)
def _one_thread():
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)


def test_splits_are_stratified_and_leave_images_to_test_on():
    """As many of each class, another choice in each split, and the same for every candidate."""
    labels = np.repeat([0, 1, 2], [40, 24, 30])

    for size, wanted in (("5", [5, 5, 5]), ("20", [20, 20, 20]), ("half", [20, 12, 15])):
        found = splits(labels, size)

        assert len(found) == 10 and len({train.tobytes() for train in found}) == 10
        assert all(np.bincount(labels[train]).tolist() == wanted for train in found)
        assert [a.tolist() for a in found] == [b.tolist() for b in splits(labels, size)]


def test_a_size_that_leaves_too_few_to_test_on_has_no_splits():
    """Twenty of twenty-two images would leave two of a class."""
    assert splits(np.repeat([0, 1], [22, 60]), "20") == []
    assert splits(np.repeat([0, 1], [5, 60]), "half") == []


def test_the_linear_classifier_is_logistic_regression():
    """scikit-learn's, at the same penalty; errors of some 300 test images agree within one of them."""
    x, y = load_digits(return_X_y=True)
    x, y = x[:400].astype(np.float32), y[:400].astype(np.int64)
    trains = splits(y, "5", n_splits=3)
    penalty = 1e-2

    found = linear_errors(x, y, trains, penalty=penalty)

    for train, error in zip(trains, found, strict=True):
        centred = x - x[train].mean(axis=0)
        rows = centred / np.sqrt(np.square(centred[train]).sum(axis=1).mean())
        rows = np.column_stack([rows, np.ones(len(rows))])  # a bias that is penalised like the rest
        model = LogisticRegression(
            C=1 / (penalty * train.sum()), fit_intercept=False, tol=1e-10, max_iter=9999
        )
        expected = 1 - model.fit(rows[train], y[train]).score(rows[~train], y[~train])
        assert error == pytest.approx(expected, abs=1.01 / (~train).sum())
    assert (found > 0).all()


class Features:
    """Stands for a checkpoint: features and predictions that were made before."""

    def __init__(self, features, predictions):
        self.made = {"features": features, "predictions": predictions, "seconds": np.float32(0)}
        self.checkpoint = Checkpoint("one", Path("one.json"), None, (), True)

    def read(self, images):
        return self.made


@pytest.mark.parametrize("size", SIZES)
def test_no_score_sees_a_test_label(tmp_path, monkeypatch, size):
    """Poisoned test labels change the measured error and no bit of any score."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 26)
    features = (rng.normal(size=(4, 16))[labels] + rng.normal(size=(104, 16))).astype(np.float32)
    predictions = rng.dirichlet(np.ones(7), 104).astype(np.float32)
    (train,) = splits(labels, size, n_splits=1)
    monkeypatch.setattr(measuring, "splits", lambda labels, name: [train] if name == size else [])
    poisoned = np.where(train, labels, (labels + 1) % 4)
    task = Task("a/b", Path("b.parquet"), "a", "", True)

    results = []
    for folder, given in (("clean", labels), ("poisoned", poisoned)):
        measuring.measure(Features(features, predictions), task, np.zeros(0), given, tmp_path / folder)
        with np.load(tmp_path / folder / "a__b" / "one.npz") as file:
            results.append({name: file[name] for name in file.files if not name.endswith("seconds")})

    clean, changed = results
    assert {f"{size}/{name}" for name in BUILT_IN_SCORES} <= clean.keys()
    assert changed[f"{size}/error"] > clean[f"{size}/error"] + 0.3
    for name in clean.keys() - {f"{size}/error"}:
        np.testing.assert_array_equal(clean[name], changed[name])


def test_what_lacks_a_score_is_measured_again(tmp_path):
    """Scores are added; what was measured before goes on from where it stopped, or is whole."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 30)
    features = Features(rng.normal(size=(90, 4)).astype(np.float32), rng.dirichlet(np.ones(5), 90))
    task = Task("a/b", Path("b.parquet"), "a", "", True)
    path = tmp_path / "a__b" / "one.npz"
    measuring.measure(features, task, np.zeros(0), labels, tmp_path)
    whole, written = path.read_bytes(), path.stat().st_mtime_ns
    measuring.measure(features, task, np.zeros(0), labels, tmp_path)
    assert path.stat().st_mtime_ns == written
    with np.load(path) as file:
        found = {name: file[name] for name in file.files if "/logme" not in name}
    np.savez(path, **found)

    measuring.measure(features, task, np.zeros(0), labels, tmp_path)

    assert len(path.read_bytes()) == len(whole)


N_TASKS, N_CANDIDATES, N_SPLITS = 8, 5, 4


@pytest.fixture
def measured() -> Measured:
    rng = np.random.default_rng(1)
    tasks = tuple(Task(f"s{t // 2}/t{t}", Path("x"), f"s{t // 2}", "", True) for t in range(N_TASKS))
    candidates = tuple(
        Checkpoint(f"e{c}--base", Path("x"), "base" if c else None, ("s0/t0",) if c == 1 else (), True)
        for c in range(N_CANDIDATES)
    )
    errors = rng.uniform(0.1, 0.5, (N_TASKS, N_CANDIDATES, 1)) + rng.normal(
        0, 0.02, (N_TASKS, N_CANDIDATES, N_SPLITS)
    )
    errors[0, 1] = np.nan
    scores = {name: rng.random((N_TASKS, N_CANDIDATES, N_SPLITS)) for name in PARTS}
    names = tuple(one.name for one in candidates)
    truth = GroundTruth(errors, np.full(N_TASKS, 50.0), names, tuple(task.source for task in tasks))
    nothing = np.zeros((N_TASKS, N_CANDIDATES))
    parameters = rng.permutation(N_CANDIDATES).astype(float)
    return Measured("half", tasks, candidates, truth, scores, [], nothing, {}, parameters)


@pytest.fixture
def embedded(measured) -> Embedded:
    rng = np.random.default_rng(2)
    space = make_space([12, 20], beta=1e-6)

    def embedding_of(rng):
        return make_embedding(np.exp(rng.normal(-7, 1, 32)), space=space, prior=np.full(2, 1e-3))

    sources = {f"e{c}": embedding_of(rng) for c in range(1, N_CANDIDATES)}
    whole = [embedding_of(rng) for _ in range(N_TASKS)]
    each = [[embedding_of(rng) for _ in range(N_SPLITS)] for _ in range(N_TASKS)]
    domain = [rng.random((N_SPLITS, 3)) for _ in range(N_TASKS)]
    return Embedded(sources, whole, each, domain, {name: rng.random(3) for name in sources})


def poisoned(measured: Measured, t: int) -> Measured:
    """Other test errors for one target."""
    errors = measured.truth.errors.copy()
    errors[t] = np.where(np.isnan(errors[t]), np.nan, 1 - errors[t])
    return replace(measured, truth=replace(measured.truth, errors=errors))


@pytest.mark.parametrize("leave", ["task", "source"])
def test_no_policy_sees_the_targets_own_errors(measured, embedded, leave):
    """What is learned for a target comes from the others alone, from its source's only where asked."""

    def orders(given):
        first = policies.available(given, policies.embedding_distances(given, embedded, "asymmetric"))
        yield policies.learned_distances(given, embedded, leave=leave, bias="offset")
        yield policies.effects(given, leave=leave)[..., None]
        if leave == "source":
            yield policies.regression(given, {"asymmetric": first}, mean=True)
            yield policies.by_combined(given, first, 3, policies.effects(given, leave=leave))

    for t in (0, 3):
        clean, changed = list(orders(measured)), list(orders(poisoned(measured, t)))

        for before, after in zip(clean, changed, strict=True):
            np.testing.assert_array_equal(before[t], after[t])
            assert not np.array_equal(np.delete(before, t, 0), np.delete(after, t, 0), equal_nan=True)


def test_the_first_k_are_put_in_the_order_of_the_second_stage():
    """And all others stay behind them, in the first's order."""
    first = np.array([3.0, 1.0, 2.0, 9.0, np.nan])[None, :, None]
    second = np.array([1.0, 3.0, 2.0, 0.0, 0.0])[None, :, None]

    scores = policies.refined(first, second, 3)[0, :, 0]

    assert np.argsort(scores[:4]).tolist() == [0, 2, 1, 3]
    assert np.isnan(scores[4])


def test_no_more_than_k_are_loaded_where_an_order_has_ties():
    """All experts of one base have as many parameters; the pool's order decides among them."""
    first = np.array([1.0, 0.0, 1.0, np.nan, 1.0])[None, :, None]
    second = np.array([3.0, 2.0, 1.0, 0.0, 0.0])[None, :, None]

    places = policies.by_index(first)[0, :, 0]
    scores = policies.refined(first, second, 2)[0, :, 0]

    np.testing.assert_array_equal(places, [1, 0, 2, np.nan, 3])
    assert np.argsort(scores[[0, 1, 2, 4]]).tolist()[:2] == [1, 0]
    assert np.flatnonzero(scores < 1e3).tolist() == [0, 1]


def test_the_combined_score_is_a_rankings(measured):
    """Of the loaded alone: of the first three of an order, what `rank` would make of the same scores."""
    rng = np.random.default_rng(3)
    shape = measured.truth.errors.shape
    measured = replace(measured, scores={name: rng.normal(size=shape) for name in PARTS})
    order = policies.available(measured, rng.normal(size=shape))
    effects = rng.normal(size=shape[:2])

    plain = policies.by_combined(measured, order, 3)
    with_results = policies.by_combined(measured, order, 3, effects)

    loaded = np.argsort(np.where(np.isnan(order), np.inf, order)[0, :, 0])[:3]
    # Smaller is better in the benchmark whatever the score's own direction.
    by_score = np.mean([zscore(measured.scores[name][0, loaded, 0]) for name in PARTS], axis=0)
    by_both = by_score + zscore(effects[0, loaded]) / 4
    for found, expected in ((plain, by_score), (with_results, by_both)):
        assert loaded[np.argsort(found[0, loaded, 0])].tolist() == loaded[np.argsort(expected)].tolist()
        assert set(np.argsort(np.nan_to_num(found[0, :, 0], nan=np.inf))[:3]) == set(loaded)


@pytest.mark.parametrize("leave", ["task", "source"])
def test_effects_are_those_of_a_ranking(measured, leave):
    """Least squares with a penalty on candidates, by an independent solver, on the other tasks alone."""
    errors = measured.truth.mean

    found = policies.effects(measured, leave=leave, without="s2")

    for t, task in enumerate(measured.tasks):
        rows, values = [], []
        for u, other in enumerate(measured.tasks):
            same = other.name == task.name if leave == "task" else other.source == task.source
            if same or other.source == "s2":
                continue
            known = np.flatnonzero(~np.isnan(errors[u]))
            values += list((errors[u, known] - errors[u, known].mean()) / errors[u, known].std())
            for c in known:
                rows.append(np.eye(N_TASKS)[u].tolist() + np.eye(N_CANDIDATES)[c].tolist())
        penalty = np.hstack([np.zeros((N_CANDIDATES, N_TASKS)), np.eye(N_CANDIDATES)])
        design, target = np.vstack([rows, penalty]), np.append(values, np.zeros(N_CANDIDATES))
        expected = np.linalg.lstsq(design, target, rcond=None)[0][N_TASKS:]
        np.testing.assert_allclose(found[t], expected, atol=1e-8)


def test_without_other_tasks_all_candidates_are_average(measured):
    """As in a ranking without experience."""
    alone = replace(measured, tasks=(measured.tasks[0],) * N_TASKS)

    assert not policies.effects(alone, leave="task").any()


def with_seconds(measured: Measured) -> Measured:
    """Random times of everything, and outcomes and scores of all names."""
    rng = np.random.default_rng(5)
    shape = measured.truth.errors.shape
    return replace(
        measured,
        scores={name: rng.random(shape) for name in BUILT_IN_SCORES},
        outcomes=[
            [(rng.random((N_SPLITS, 30)) < 0.5).astype(float) for _ in range(shape[1])]
            for _ in range(shape[0])
        ],
        seconds=rng.uniform(1, 2, shape[:2]),
        score_seconds={name: rng.uniform(0.1, 0.2, shape[:2]) for name in BUILT_IN_SCORES},
        embedding_seconds=rng.uniform(3, 4, (shape[0], shape[2])),
    )


def test_costs_are_those_of_the_candidates_that_are_loaded(measured):
    """Counted one target and split at a time; for random ones over all subsets."""
    timed = with_seconds(measured)
    each = timed.seconds + timed.score_seconds["logme"]
    order = policies.available(timed, timed.scores["logme"])
    price = Costs(timed)
    expected, random, every = [], [], []
    for t in range(N_TASKS):
        kept = [c for c in range(N_CANDIDATES) if (t, c) != (0, 1)]
        subsets = [sum(each[t, c] for c in pair) for pair in itertools.combinations(kept, 2)]
        random.append(np.mean(subsets))
        every.append(sum(each[t, c] for c in kept))
        for s in range(N_SPLITS):
            first = sorted(kept, key=lambda c: order[t, c, s])[:2]
            expected.append(sum(each[t, c] for c in first))

    found = price.shortlist(order, 2, ["logme"], embeds=True)

    assert found.loaded == 2
    assert found.seconds == pytest.approx(np.mean(expected) + timed.embedding_seconds.mean())
    assert price.at_random(2, "logme").seconds == pytest.approx(np.mean(random))
    everything = price.everything(["logme"])
    assert (everything.loaded, everything.seconds) == (N_CANDIDATES, pytest.approx(np.mean(every)))
    assert price.first_stage(embeds=False) == report.FREE
    assert price.first_stage(embeds=True).seconds == pytest.approx(timed.embedding_seconds.mean())
    without = Costs(replace(timed, embedding_seconds=None))
    assert np.isnan(without.first_stage(embeds=True).seconds)
    assert np.isnan(without.shortlist(order, 2, ["logme"], embeds=True).seconds)
    assert not np.isnan(without.shortlist(order, 2, ["logme"], embeds=False).seconds)


def test_every_row_says_what_it_costs(measured, embedded):
    """But those that no one can have."""
    timed = with_seconds(measured)
    stages = report.first_stages(timed, embedded)
    judge = Judge(timed.truth, n_bootstrap=10)

    judged = report.everything(judge, timed, stages)

    assert judged.rows.keys() - judged.costs.keys() == {"oracle", "noise floor"}
    for name, cost in judged.costs.items():
        loads = [k for k in report.LOADED[1:] if f" of {k}" in name or f"{k} at random" in name]
        wanted = loads[0] if loads else N_CANDIDATES if f"all {N_CANDIDATES}" in name else 0
        assert cost.loaded == wanted, name
        assert (cost.seconds > 0) == (wanted > 0 or name in (*stages, report.REGRESSION)) or name == "DOMAIN"
    text = report.rows.table(judge, list(judged.rows.values()), costs=judged.costs)
    assert "| DOMAIN |" in text and text.count(" 0 | 0.00 |") >= 4


def test_the_seconds_of_an_embedding_are_read_from_beside_it(measured, embedded, tmp_path, monkeypatch):
    """Where they were recorded: embeddings from before have none."""

    class Task2Vec:
        def embed(self, data):
            return embedded.whole[0]

    monkeypatch.setattr(pool, "N_SPLITS", N_SPLITS)
    for task in measured.tasks:
        chosen = [(name, np.ones(3, bool)) for name in ("whole", *(f"half-{s}" for s in range(N_SPLITS)))]
        images = embedding.Pairs(np.zeros((3, 3, 4, 4), np.uint8), np.zeros(3, np.int64))
        embedding.embed_task(Task2Vec(), task, images, chosen, tmp_path)
        np.savez(tmp_path / task.key / "domain.npz", **{name: np.ones(3) for name, _ in chosen})
    (tmp_path / measured.tasks[2].key / "half-1.seconds").unlink()

    found = pool.read_embedded(replace(measured, candidates=()), tmp_path).seconds

    assert found.shape == (N_TASKS, N_SPLITS)
    assert np.argwhere(np.isnan(found)).tolist() == [[2, 1]]
    assert (found[0] >= 0).all()


def test_two_orders_take_turns():
    """Each adds the best that is not there yet; a candidate that is left out has no place."""
    a = np.array([0.0, 1.0, 2.0, 3.0, np.nan])[None, :, None]
    b = np.array([1.0, 3.0, 2.0, 0.0, np.nan])[None, :, None]

    places = policies.alternating(a, b)[0, :, 0]

    assert np.argsort(places[:4]).tolist() == [0, 3, 1, 2]
    assert np.isnan(places[4])


def test_a_random_shortlist_is_what_all_shortlists_give_on_average(measured):
    """Against every subset of two, one at a time."""
    judge = Judge(measured.truth, n_bootstrap=10)
    second = policies.available(measured, measured.scores["ridge_loss"])

    row = policies.random_shortlist(judge, "two", second, 2)

    for t in range(1, N_TASKS):
        subsets = itertools.combinations(range(N_CANDIDATES), 2)
        picks = [[min(pair, key=lambda c: second[t, c, s]) for s in range(N_SPLITS)] for pair in subsets]
        expected = np.mean([[measured.truth.errors[t, c, s] for s, c in enumerate(pick)] for pick in picks])
        assert row.error[:, t].mean() == pytest.approx(expected, rel=1e-9)


def test_every_source_of_two_tasks_has_an_expert_for_each_that_never_saw_it(tmp_path):
    """Own-source pairs are left out, and the target still has a near expert."""
    tasks = [
        Task(f"{s}/{t}", Path("x"), s, "", s != "b")
        for s, n in (("a", 7), ("b", 2), ("c", 1))
        for t in range(n)
    ]
    base = Checkpoint("mobilenetv1_100.coral_in1k", Path("x"), None, (), True)

    experts = planned(tasks, tmp_path, [base])

    assert [one.free for one in experts] == [True, True, True, False, False, True]
    for task in tasks:
        near = [one for one in experts if one.name.startswith(f"{task.source}-")]
        assert sum(task.name in one.tasks for one in near) == 1
        assert len(near) == {"a": 3, "b": 2, "c": 1}[task.source]


def test_a_kept_table_is_judged_as_what_was_measured(measured, tmp_path):
    """From the file alone: the same errors, scores and first stages, so the same rows."""
    stages = {"asymmetric": np.random.default_rng(3).random(measured.truth.errors.shape)}
    scores = {name: np.random.default_rng(4).random(measured.truth.errors.shape) for name in BUILT_IN_SCORES}
    measured = replace(with_seconds(measured), scores=scores)

    keeping.keep(tmp_path / "kept.parquet", [(measured, stages)], {"command": "none"})
    found, found_stages = keeping.kept(tmp_path / "kept.parquet", "half")

    judges = [Judge(one.truth, n_bootstrap=50) for one in (measured, found)]
    for before, after in ((stages, found_stages), (scores, found.scores)):
        assert before.keys() == after.keys()
        for name in before:
            rows = [j.scored(name, values[name]) for j, values in zip(judges, (before, after), strict=True)]
            np.testing.assert_allclose(rows[0].error, rows[1].error, rtol=1e-6)
    assert found.sources == measured.sources
    assert [one.origin for one in found.candidates] == [one.origin for one in measured.candidates]
    np.testing.assert_array_equal(found.parameters, measured.parameters)
    np.testing.assert_allclose(found.seconds, measured.seconds, rtol=1e-6)
    np.testing.assert_allclose(found.embedding_seconds, measured.embedding_seconds, rtol=1e-6)
    assert found.score_seconds.keys() == BUILT_IN_SCORES.keys()
    for name, seconds in found.score_seconds.items():
        np.testing.assert_allclose(seconds, measured.score_seconds[name], rtol=1e-6)


@pytest.mark.parametrize("how", ["means", "none"])
def test_older_kept_tables_have_means_of_seconds_or_none(measured, tmp_path, how):
    """These are then what the table shows, or dashes."""
    path, timed = tmp_path / "kept.parquet", with_seconds(measured)
    keeping.keep(path, [(timed, {})], {})
    old = pq.read_table(path)
    record = json.loads(old.schema.metadata[b"selection"])
    if how == "means":
        record["facts"]["half"] |= {"seconds": [1.0] * N_CANDIDATES, "score_seconds": {"logme": 0.5}}
    old = old.drop_columns([name for name in old.column_names if name.startswith("seconds")])
    pq.write_table(old.replace_schema_metadata({"selection": json.dumps(record)}), path)

    found, _ = keeping.kept(path, "half")

    assert found.embedding_seconds is None
    cost = Costs(found).shortlist(
        policies.available(found, found.scores["logme"]), 2, ["logme"], embeds=False
    )
    assert cost.loaded == 2
    if how == "means":
        assert cost.seconds == pytest.approx(3.0)
    else:
        assert np.isnan(cost.seconds)


def test_the_first_stage_is_settled_by_a_kept_table_too(measured, embedded, tmp_path):
    """Another probe needs the errors, not the experts: of targets that it embedded, base by base."""
    names = [f"{origin}--{base}" for origin in ("a", "b") for base in ("mobilenetv1_100", "mobilenetv2_035")]
    experts = tuple(
        Checkpoint(name, Path("x"), (LARGE[1], SMALL)["035" in name], (), True) for name in ("pre", *names)
    )
    experts = (replace(experts[0], base=None), *experts[1:])
    errors = measured.truth.errors[:, :5]
    errors = np.where(np.isnan(errors), 0.3, errors)
    truth = replace(measured.truth, errors=errors, candidates=tuple(one.name for one in experts))
    every = {name: np.zeros_like(errors) for name in BUILT_IN_SCORES}
    nothing = np.zeros(errors.shape[:2])
    timed = dict.fromkeys(BUILT_IN_SCORES, nothing)
    given = replace(
        measured, candidates=experts, truth=truth, scores=every, score_seconds=timed, seconds=nothing,
        parameters=np.ones(5),
    )  # fmt: skip
    keeping.keep(tmp_path / "kept.parquet", [(given, {})], {})
    found, _ = keeping.kept(tmp_path / "kept.parquet", "half")
    folder = tmp_path / "embeddings"
    for task, splits_of in zip(found.tasks[:3], embedded.splits, strict=False):
        for split, one in enumerate(splits_of[:2]):
            embedding.write(one, folder / task.key / f"half-{split}.safetensors")

    part = settling.embedded(found, folder, 2)
    whole = settling.expert_truth(given, ("a", "b"), 2)
    kept = settling.expert_truth(part, ("a", "b"), 2)

    assert [task.name for task in part.tasks] == [task.name for task in measured.tasks[:3]]
    places = [*range(3), *range(N_TASKS, N_TASKS + 3)]
    np.testing.assert_allclose(kept.errors, whole.errors[places], rtol=1e-6)
    assert settling.embedded(found, tmp_path / "nothing", 2) is None
