"""`benchmark`: rows against independent ways to the same figures, verdicts against pools of known merit."""

import json
from dataclasses import replace

import numpy as np
import pytest
from factories import make_catalog, make_embedding, make_space
from pools import Pool
from scipy import stats

from t2v_hub.catalog import Candidate, Catalog, Result
from t2v_hub.distance import pairwise
from t2v_hub.errors import ResultsError, SettingsError
from t2v_hub.judging import Interval, benchmark, evidence_of
from t2v_hub.judging.nearness import nearness
from t2v_hub.judging.verdict import widened
from t2v_hub.model2vec import Model2Vec
from t2v_hub.selector import ModelSelector

FACTS = {
    "parameters": [3, 1, 2, 6, 5, 4],
    "upstream_accuracy": [0.5, 0.6, 0.9, 0.7, 0.8, 0.4],
    "downloads": [1, 2, 3, 4, 6, 5],
}


def rows_of(table):
    """The rows by name."""
    return {entry.name: entry for entry in table.entries}


def without_noise(**settings):
    """A pool whose splits are all alike, so that a row's errors say which candidate it chose."""
    return Pool(**{"noise": 0.0, "n_splits": 2, "facts": FACTS, **settings})


def picks(benchmark, pool):
    """Which candidate each row chose for each task, by its error."""
    (table,) = benchmark.tables
    tasks = [table.evidence.tasks.index(task.task.id) for task in pool.tasks]
    return {
        entry.name: [
            int(np.argmin(np.abs(pool.errors[t, :, 0] - entry.row.error[0, at])))
            for t, at in enumerate(tasks)
        ]
        for entry in table.entries
        if entry.name != "chance"
    }


def test_each_row_chooses_what_its_name_says(tmp_path):
    """Against arg-minima worked out here, from the numbers themselves."""
    pool = without_noise(by_merit=0.02)
    errors = pool.errors[..., 0]
    apart = {
        name: pairwise([*pool.sources, *pool.tasks], name=name)[: pool.n_candidates, pool.n_candidates :]
        for name in ("relative", "asymmetric", "symmetric")
    }
    others = [np.delete(errors, t, axis=0) for t in range(pool.n_tasks)]
    standard = [(o - o.mean(axis=1, keepdims=True)) / o.std(axis=1, keepdims=True) for o in others]

    found = picks(benchmark(pool.catalog(tmp_path), model2vec=False), pool)

    assert found == {
        "oracle": errors.argmin(axis=1).tolist(),
        "noise floor": errors.argmin(axis=1).tolist(),
        "best constant, other tasks": [int(o.mean(axis=0).argmin()) for o in others],
        "mean over the other tasks": [int(o.mean(axis=0).argmin()) for o in standard],
        "always org/net3": [3] * pool.n_tasks,
        "parameter count": [3] * pool.n_tasks,
        "upstream accuracy": [2] * pool.n_tasks,
        "downloads": [4] * pool.n_tasks,
        **{name: matrix.argmin(axis=0).tolist() for name, matrix in apart.items()},
    }


def test_learned_distances_are_those_of_a_fit_to_the_other_tasks(tmp_path):
    """One fit per task, done here by hand."""
    pool = without_noise(n_tasks=5, n_candidates=4, facts={})
    errors = pool.errors[..., 0]
    sources = dict(zip(pool.names, pool.sources, strict=True))
    expected = []
    for t, task in enumerate(pool.tasks):
        kept = [i for i in range(5) if i != t]
        model = Model2Vec.fit(
            [pool.tasks[i] for i in kept], errors[kept], candidates=pool.names, sources=sources
        )
        expected.append(int(model.distances(task).argmin()))

    found = picks(benchmark(pool.catalog(tmp_path)), pool)

    assert found["MODEL2VEC"] == expected


def test_no_row_sees_the_results_of_its_own_task(tmp_path):
    """Whatever a task's errors are, what is chosen for it must be the same."""
    pool = without_noise(n_tasks=6, by_merit=0.01)
    poisoned = without_noise(n_tasks=6, by_merit=0.01)
    poisoned.errors[2] = 1 - poisoned.errors[2]

    before = picks(benchmark(pool.catalog(tmp_path / "a")), pool)
    after = picks(benchmark(poisoned.catalog(tmp_path / "b")), poisoned)

    assert "MODEL2VEC" in before
    for name in set(before) - {"oracle", "noise floor"}:
        assert before[name][2] == after[name][2], name
    assert before["oracle"][2] != after["oracle"][2]


@pytest.mark.parametrize("group_by", ["task", "owner"])
def test_ties_are_broken_without_the_results_of_the_task_and_its_group(tmp_path, group_by):
    """All sources are equally far, so results decide; poisoned ones on the same task or owner must not."""
    found = {}
    for poisoned in (False, True):
        pool = Pool(n_tasks=9, by_merit=0.02)
        pool.sources = [pool.sources[0]] * pool.n_candidates
        if poisoned:
            own = slice(0, None, 3) if group_by == "owner" else slice(0, 1)
            pool.errors[own] = 1 - pool.errors[own]
        catalog = pool.catalog(tmp_path / str(poisoned))
        (evidence,) = evidence_of(catalog.results(), group_by=group_by)
        near = nearness(catalog, evidence, results=catalog.results(), group_by=group_by)
        places = near.scores([catalog[id] for id in evidence.truth.candidates], name="relative")
        found[poisoned] = {evidence.tasks[t]: row.tolist() for t, row in zip(near.tasks, places, strict=True)}

    assert found[True]["org0/task0"] == found[False]["org0/task0"] == [0, 1, 2, 3, 4, 5]
    if group_by == "owner":  # a third of all errors: for the other owners they do decide
        assert found[True]["org1/task1"] != found[False]["org1/task1"]
    n_tasks = {experience.n_tasks("org/net0") for experience in near.experience.values()}
    assert n_tasks == {6 if group_by == "owner" else 8}


def test_places_by_distance_are_those_of_a_ranking(tmp_path):
    """What is judged is what a selector says: results elsewhere and facts break ties, the rest is last."""
    pool = Pool(n_candidates=6, facts=FACTS)
    candidates = pool.candidates()
    candidates[1] = replace(candidates[1], embeddings=candidates[0].embeddings)  # a tie, broken by prior
    candidates[3] = replace(candidates[3], embeddings=())
    candidates[4] = replace(candidates[4], embeddings=())
    candidates[5] = replace(candidates[5], embeddings=[pool.sources[5], pool.sources[3]])
    catalog = make_catalog(tmp_path, candidates)
    catalog.record_many(pool.results(), embeddings=pool.tasks)
    (table,) = benchmark(catalog, model2vec=False).tables
    ids = table.evidence.truth.candidates
    bare = make_catalog(tmp_path / "bare", candidates)
    orders = set()

    for name in ("relative", "asymmetric", "symmetric"):
        for results, known in ((catalog.results(), catalog), ((), bare)):
            near = nearness(catalog, table.evidence, results=results)
            scores = near.scores([catalog[id] for id in ids], name=name)
            for row, task in zip(scores, near.tasks.values(), strict=True):
                ranked = ModelSelector(known, distance=name).rank(task).ranked
                assert [ids[c] for c in np.argsort(row)] == list(ranked)
                assert len(set(row)) == len(ids)
                orders.add((name, task.task.id, ranked))
    assert len(orders) > 2 * pool.n_tasks  # what is recorded does decide


def test_the_selector_helps_where_near_sources_do(tmp_path):
    """And the judge says so in words and numbers."""
    (table,) = benchmark(Pool(facts=FACTS).catalog(tmp_path), model2vec=False).tables

    verdict = table.verdict
    rows = rows_of(table)
    assert verdict.answer == "helps"
    assert verdict.difference.high < 0
    assert verdict.difference.value == pytest.approx(
        100 * (rows[verdict.task_aware].figures.error.value - rows[verdict.free].figures.error.value)
    )
    assert verdict.text.startswith(f"It helps: choosing by {verdict.task_aware} makes ")
    assert (
        f"{-verdict.difference.value:.2f} fewer errors per 100 images than {verdict.free!r}" in verdict.text
    )


def test_the_selector_harms_where_near_sources_do(tmp_path):
    """An answer that can only be yes is none."""
    (table,) = benchmark(Pool(by_distance=-0.05, by_merit=0.03).catalog(tmp_path), model2vec=False).tables

    assert table.verdict.answer == "harms"
    assert table.verdict.difference.low > 0
    assert " more errors per 100 images than 'best constant" in table.verdict.text


def test_what_cannot_be_said_is_not_said(tmp_path):
    """Where distance means nothing, of 40 pools few may seem to be helped, and none of five tasks."""
    answers = []
    for seed in range(40):
        pool = Pool(n_tasks=8, n_candidates=4, n_splits=2, by_distance=0.0, noise=0.03, seed=seed)
        (table,) = benchmark(pool.catalog(tmp_path / str(seed)), model2vec=False).tables
        answers.append(table.verdict.answer)
    small = Pool(n_tasks=5, n_candidates=30, by_distance=0.1).catalog(tmp_path / "small")
    (few,) = benchmark(small, model2vec=False).tables

    assert answers.count("helps") <= 4
    assert answers.count("undecided") >= 32
    assert few.verdict.difference.high < 0
    assert few.verdict.answer == "undecided"
    assert "An interval over 5 tasks cannot be trusted; record results on at least 6" in few.verdict.text


@pytest.mark.parametrize("seed", range(4))
def test_an_open_question_says_what_would_answer_it(tmp_path, seed):
    """The half width of an interval falls with the square root of the number of tasks."""
    pool = Pool(n_tasks=8, by_distance=0.004, noise=0.03, seed=seed)

    (table,) = benchmark(pool.catalog(tmp_path), model2vec=False).tables

    found = table.verdict.difference
    needed = 8 * ((found.high - found.low) / 2 / found.value) ** 2
    words = f"results on about {np.ceil(needed):.0f} tasks would show it; there are 8."
    too_many = "more than 1,000 tasks would be needed; there are 8."
    assert table.verdict.answer == "undecided"
    assert table.verdict.text.startswith("Cannot be said: choosing by ")
    assert table.verdict.text.endswith(too_many if needed > 1000 else words)


def test_long_names_are_cut_in_text_alone(tmp_path):
    """A checkpoint may be a path; a program needs all of it."""
    pool = Pool(n_tasks=6, facts={"downloads": [9, 0, 0, 0, 0, 0]})
    pool.names[0] = "/data/" + "x" * 60 + "/best-of-all"

    found = benchmark(pool.catalog(tmp_path), model2vec=False)

    (line,) = [line for line in str(found).splitlines() if line.startswith("always /data")]
    assert "…" in line
    assert "/best-of-all" in line
    assert len(line) < 110
    assert f"always {pool.names[0]}" in rows_of(found.tables[0])


def test_rows_that_choose_alike_are_no_open_question(tmp_path):
    """More tasks would not help."""
    pool = without_noise(n_tasks=7, n_candidates=2)
    pool.sources[0] = pool.sources[1]

    (table,) = benchmark(make_same(pool, tmp_path), model2vec=False).tables

    assert table.verdict.difference == Interval(0.0, 0.0, 0.0)
    assert "other candidates could tell them apart" in table.verdict.text


def make_same(pool, path):
    """Distances are all equal and priors decide, as they do in the free rows."""
    catalog = make_catalog(path, pool.candidates())
    pool.errors[:, 1] = pool.errors[:, 0] - 0.05
    catalog.record_many(pool.results(), embeddings=pool.tasks)
    return catalog


def test_intervals_over_few_tasks_cover_what_they_say():
    """Percentile intervals of six normal differences miss their mean twice as often as they may."""
    rng = np.random.default_rng(0)
    missed = np.zeros(2)
    for _ in range(1500):
        values = rng.normal(0.0, 1.0, 6)
        means = rng.choice(values, (1000, 6)).mean(axis=1)
        plain = Interval(float(values.mean()), *map(float, np.percentile(means, [2.5, 97.5])))
        for which, interval in enumerate((plain, widened(plain, 6))):
            missed[which] += not interval.low <= 0 <= interval.high
    share = missed / 1500

    assert share[0] > 0.09
    assert 0.035 <= share[1] <= 0.075


def test_a_widened_interval_is_students():
    """Where the bootstrap is the normal approximation, t and its degrees of freedom must come out."""
    values = np.random.default_rng(1).normal(3.0, 2.0, 9)
    error = values.std() / 3  # of the mean, as resampling has it: divided by n, not n - 1
    z = stats.norm.ppf(0.975)
    mean = float(values.mean())

    found = widened(Interval(mean, mean - z * error, mean + z * error), 9)

    expected = stats.t.interval(0.95, 8, loc=mean, scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected)
    assert widened(Interval(1.0, 1.0, 1.0), 1) == Interval(1.0, 1.0, 1.0)


def test_one_split_is_judged_with_a_warning(tmp_path):
    """The oracle is then the luckiest, and there is no floor that says by how much."""
    pool = Pool(n_splits=1)

    (table,) = benchmark(pool.catalog(tmp_path), model2vec=False).tables

    assert not table.cross_fit
    assert "noise floor" not in rows_of(table)
    best = pool.errors[..., 0].min(axis=1)
    noise = 100 * np.mean(np.sqrt(best * (1 - best) / 200))
    assert f"uncertain by about {noise:.1f} points" in table.notes[0]
    assert "Record two splits or more" in table.notes[0]
    assert rows_of(table)["oracle"].figures.error.value == pytest.approx(best.mean())


def test_own_sources_are_left_out(tmp_path):
    """By the id of the source's embedding, or by the name of the source alone."""
    pool = Pool(n_tasks=6)
    candidates = pool.candidates()
    own = pool.at([0, 0], pool.tasks[0].task.id)
    candidates[0] = replace(candidates[0], embeddings=[own, pool.sources[0]])
    candidates[1] = replace(candidates[1], source=pool.tasks[1].task.id)
    catalog = make_catalog(tmp_path, candidates)
    catalog.record_many(pool.results(), embeddings=pool.tasks)

    (table,) = benchmark(catalog, model2vec=False).tables

    order = [table.evidence.tasks.index(task.task.id) for task in pool.tasks]
    absent = ~table.evidence.truth.available[order]
    assert list(zip(*np.nonzero(absent), strict=True)) == [(0, 0), (1, 1)]
    assert "2 pairs left out: the candidate was trained on the task" in table.notes


def test_rows_are_judged_on_the_same_tasks(tmp_path):
    """A row by distance on the tasks that have an embedding, beside others on all, would compare nothing."""
    pool = Pool(n_tasks=8)
    results = [replace(r, embedding=None) if r.task == pool.tasks[3].task.id else r for r in pool.results()]
    catalog = make_catalog(tmp_path, pool.candidates())
    catalog.record_many(results, embeddings=pool.tasks)

    (table,) = benchmark(catalog, model2vec=False).tables

    left = pool.tasks[3].task.id
    assert left not in table.evidence.tasks
    assert len(table.evidence.tasks) == 7
    note = f"left out, so that all rows are judged on the same tasks: {left} (no embedding)"
    assert note in table.notes


@pytest.mark.parametrize("n_embedded", [0, 2])
def test_without_embeddings_the_free_rows_stand_alone(tmp_path, n_embedded):
    """Two tasks with an embedding are no reason to throw ten away."""
    pool = Pool()
    embedded = {task.digest for task in pool.tasks[:n_embedded]}
    results = [r if r.embedding in embedded else replace(r, embedding=None) for r in pool.results()]
    catalog = make_catalog(tmp_path, pool.candidates())
    catalog.record_many(results, embeddings=pool.tasks[:n_embedded])

    (table,) = benchmark(catalog).tables

    assert len(table.evidence.tasks) == 12
    assert {entry.kind for entry in table.entries} == {"reference", "free"}
    assert table.space is None
    assert table.verdict.answer == "undecided"
    assert "no ranking by distance could be judged" in table.verdict.text
    why = f"too few tasks for rows by distance: {n_embedded} have" if n_embedded else "no space holds"
    assert any(note.startswith(why) for note in table.notes)


def test_results_from_elsewhere_find_embeddings_here(tmp_path):
    """Tables name no digests: a task's embedding is what was recorded, or what a candidate was trained on."""
    pool = Pool(n_tasks=8)
    trained = Candidate("org/other", embeddings=[pool.at([0, 0], pool.tasks[7].task.id.upper())])
    catalog = make_catalog(tmp_path / "a", [*pool.candidates(), trained])
    for task in pool.tasks[:7]:
        catalog.record(task, "org/other", 0.5, n=1)
    plain = pool.results(embedding=None)

    (table,) = benchmark(catalog, results=plain, model2vec=False).tables
    pool.tasks[7] = pool.at([0, 0], pool.tasks[7].task.id)
    recorded = benchmark(pool.catalog(tmp_path / "b"), model2vec=False).tables[0]

    assert len(table.evidence.tasks) == 8
    assert rows_of(table)["symmetric"].figures == rows_of(recorded)["symmetric"].figures


def test_the_space_with_the_most_tasks_is_taken(tmp_path):
    """Embeddings of another probe say nothing here, and are not mixed in."""
    pool = Pool(n_tasks=6)
    other = make_space(8, probe_digest="sha256:" + "cd" * 32)
    candidates = [
        replace(c, embeddings=[*c.embeddings, make_embedding(seed=i, n_filters=8, space=other, task="x")])
        for i, c in enumerate(pool.candidates())
    ]
    catalog = make_catalog(tmp_path, candidates)
    extra = make_embedding(seed=9, n_filters=8, space=other, task=pool.tasks[0].task.id)
    catalog.record_many(pool.results(), embeddings=pool.tasks)
    catalog.record(extra, "org/net0", 0.4, n=7)

    (table,) = benchmark(catalog, n=100, model2vec=False).tables

    assert table.space == pool.space.id
    assert len(table.evidence.tasks) == 6


def test_a_damaged_embedding_is_named_and_the_rest_is_judged(tmp_path):
    """One bad file must not end a benchmark of a hundred candidates."""
    pool = Pool(n_tasks=6)
    catalog = pool.catalog(tmp_path)
    digest = pool.sources[2].digest.removeprefix("sha256:")
    (catalog.embeddings_folder / f"{digest}.safetensors").write_bytes(b"no")

    (table,) = benchmark(catalog, model2vec=False).tables

    assert any(note.startswith("could not be read: org/net2: ") for note in table.notes)
    assert "1 candidates without an embedding are last by distance, in order of prior" in table.notes


def test_facts_that_are_not_known_are_said(tmp_path):
    """A row of facts known of half of the pool is a row about the other half's absence."""
    some = {"parameters": [5, None, 7, None, None, None]}

    (table,) = benchmark(Pool(n_tasks=6, facts=some).catalog(tmp_path), model2vec=False).tables

    names = rows_of(table)
    assert "parameter count" in names
    assert not {"downloads", "upstream accuracy"} & set(names)
    assert "always org/net2" in names
    assert "parameter count: known of 2 of 6 candidates" in table.notes
    assert "downloads: known of 0 of 6 candidates" in table.notes


def test_a_favourite_that_is_left_out_gives_way_to_the_next(tmp_path):
    """The largest cannot be had for the task that it was trained on."""
    pool = without_noise(n_tasks=6)
    candidates = pool.candidates()
    candidates[3] = replace(candidates[3], source=pool.tasks[1].task.id)
    catalog = make_catalog(tmp_path, candidates)
    catalog.record_many(pool.results(), embeddings=pool.tasks)

    found = picks(benchmark(catalog, model2vec=False), pool)

    assert found["always org/net3, or the next"] == [3, 4, 3, 3, 3, 3]


def test_too_few_groups_for_learning_are_said(tmp_path):
    (table,) = benchmark(Pool(n_tasks=3).catalog(tmp_path)).tables

    assert "MODEL2VEC" not in rows_of(table)
    assert "MODEL2VEC needs 4 of them to learn from; there are 3" in " ".join(table.notes)


def test_owners_are_resampled_and_left_out_together(tmp_path):
    """Three labs' tasks are three pieces of evidence, whatever their number."""
    catalog = Pool(n_tasks=12, n_owners=3, by_distance=0.2).catalog(tmp_path)

    (table,) = benchmark(catalog, group_by="owner", model2vec=False).tables

    assert "best constant, other sources" in rows_of(table)
    assert table.evidence.n_groups == 3
    assert table.verdict.answer == "undecided"
    assert "over 3 owners cannot be trusted" in table.verdict.text
    assert "12 tasks of 3 owners" in str(benchmark(catalog, group_by="owner", model2vec=False))


def test_claims_of_cards_are_judged_only_when_asked_for(tmp_path):
    """Strangers report under their own protocols."""
    pool = Pool(n_tasks=6, n_splits=1)
    catalog = make_catalog(tmp_path, pool.candidates())
    catalog.record_many(
        [replace(r, origin="card", seed=None, n=None) for r in pool.results()], embeddings=pool.tasks
    )

    found = benchmark(catalog, origin="card", model2vec=False)

    assert len(found.tables) == 1
    assert "training images not known, 1 split, claimed by cards" in str(found)
    with pytest.raises(ResultsError, match="None of the 36 results is of the origin 'run'; all are of"):
        benchmark(catalog)


def test_the_dictionary_is_json_and_says_what_the_table_says(tmp_path):
    """Another program reads it."""
    found = benchmark(Pool(n_tasks=6, facts=FACTS).catalog(tmp_path), model2vec=False)

    values = json.loads(json.dumps(found.to_dict(), allow_nan=False))

    assert (values["schema"], values["origin"], values["group_by"]) == ("t2v-benchmark/1", "run", "task")
    (table,) = values["tables"]
    assert (table["n"], table["n_tasks"], table["n_candidates"], table["n_splits"]) == (100, 6, 6, 4)
    assert [row["name"] for row in table["rows"]] == [e.name for e in found.tables[0].entries]
    by_name = {row["name"]: row for row in table["rows"]}
    figures = rows_of(found.tables[0])["symmetric"].figures
    assert by_name["symmetric"]["regret_1"] == vars(figures.regret_1)
    assert by_name["always org/net3"]["tau"] == {"value": None, "low": None, "high": None}
    assert {row["kind"] for row in table["rows"]} == {"reference", "free", "task-aware"}
    assert table["verdict"]["difference"] == vars(found.tables[0].verdict.difference)


def test_the_tables_show_every_row_and_the_verdict(tmp_path):
    """What is printed is what was judged."""
    pool = Pool(n_tasks=6, n_candidates=6)
    pool.names[5] = "org/a|b"
    found = benchmark(Pool.catalog(with_accuracy(pool), tmp_path), model2vec=False)
    (table,) = found.tables
    lines, marked = str(found).splitlines(), found.to_markdown().splitlines()

    for entry in table.entries:
        (line,) = [line for line in lines if line.startswith(f"{entry.name}  ")]
        assert f" {entry.figures.error.value:.3f} " in line
        assert f"{entry.figures.regret_1.value:+.2f}" in line
    assert lines[0] == "6 tasks × 6 candidates, 100 training images, 4 splits"
    assert table.verdict.text in lines
    assert table.verdict.text in marked
    in_table = [line for line in marked if line.startswith("| ")]
    assert len(in_table) == 1 + len(table.entries)
    assert {line.replace(r"\|", "").count("|") for line in in_table} == {9}
    assert any(line.startswith(r"| always org/a\|b |") for line in in_table)
    assert all(f"- {note}" in lines and f"- {note}" in marked for note in table.notes)


def with_accuracy(pool):
    """The last candidate has the highest prior."""
    pool.facts = {"upstream_accuracy": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]}
    return pool


def test_tables_for_numbers_of_images_stand_one_below_the_other(tmp_path):
    pool = Pool(n_tasks=6)
    catalog = pool.catalog(tmp_path)
    catalog.record_many(pool.results(n=20), embeddings=pool.tasks)

    both, one = benchmark(catalog, model2vec=False), benchmark(catalog, n=20, model2vec=False)

    assert [table.evidence.size for table in both.tables] == [20, 100]
    assert [table.evidence.size for table in one.tables] == [20]
    assert str(one).split("\n\n\n")[0] == str(both).split("\n\n\n")[0]
    assert (
        repr(both) == f"Benchmark(n_tables=2, verdicts=[{', '.join(t.verdict.answer for t in both.tables)}])"
    )


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"results": []}, ResultsError, "There are no results to judge by in .*t2v catalog record"),
        ({"n": 7}, ResultsError, "No result was reached with 7 training images; .* these numbers: 100"),
        ({"origin": "hearsay"}, SettingsError, "origin must be one of run, card; got 'hearsay'"),
        ({"group_by": "colour"}, SettingsError, "group_by must be one of task, owner; got 'colour'"),
        ({"results": ["x"]}, SettingsError, "results must hold Result objects, not str"),
        ({"origin": "card"}, ResultsError, "None of the 144 results is of the origin 'card'; all are of"),
        (
            {"results": [Result("one", "a", 0.1), Result("one", "b", 0.2)]},
            ResultsError,
            r"at least two tasks.* got 2 results on 1 tasks \(one\) of 2 candidates \(a, b\)",
        ),
        (
            {"results": [Result("one", "a", 0.1), Result("two", "a", 0.2)]},
            ResultsError,
            r"results of two candidates .* got 2 results on 2 tasks \(one, two\) of 1 candidates \(a\)",
        ),
        (
            {
                "results": [Result(f"me/{t}", c, 0.1) for t in "xy" for c in "ab"],
                "group_by": "owner",
            },
            SettingsError,
            "leaves one group: all tasks are of the owner 'me'. Group by task",
        ),
    ],
)
def test_what_cannot_be_judged_is_refused_in_words(tmp_path, arguments, error, match):
    catalog = Pool(n_tasks=6, n_candidates=6).catalog(tmp_path)

    with pytest.raises(error, match=match):
        benchmark(catalog, **arguments)


def test_an_empty_catalog_says_how_to_record(tmp_path):
    with pytest.raises(ResultsError, match="There are no results to judge by"):
        benchmark(Catalog(tmp_path))
