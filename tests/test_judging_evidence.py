"""Recorded results as tables: what counts, and what is left out and said."""

import numpy as np
import pytest
from factories import make_embedding

from t2v_hub.catalog import Candidate, Result
from t2v_hub.judging import evidence_of


def results(errors, *, n=10, **changes):
    """Results of ``{task: {candidate: {seed: error}}}``."""
    return [
        Result(task, name, error, n=n, seed=seed, **changes)
        for task, cells in errors.items()
        for name, cell in cells.items()
        for seed, error in cell.items()
    ]


WHOLE = {
    "t1": {"a": {0: 0.1, 1: 0.2}, "b": {0: 0.3, 1: 0.4}},
    "t2": {"a": {0: 0.5, 1: 0.6}, "b": {0: 0.7, 1: 0.8}},
}


def test_results_stand_where_they_belong():
    """A transposed table would still look like one."""
    (found,) = evidence_of(results(WHOLE, n_test=50))

    assert found.tasks == ("t1", "t2")
    assert found.truth.candidates == ("a", "b")
    np.testing.assert_array_equal(found.truth.errors, [[[0.1, 0.2], [0.3, 0.4]], [[0.5, 0.6], [0.7, 0.8]]])
    np.testing.assert_array_equal(found.truth.n_test, [50, 50])
    assert (found.size, found.n_splits, found.n_groups) == (10, 2, 2)
    assert (found.assumed, found.left_out.incomplete, found.left_out.own) == ((), 0, 0)


def test_the_order_of_the_results_does_not_matter():
    """They come from many runs."""
    shuffled = results(WHOLE)
    np.random.default_rng(0).shuffle(shuffled)

    (one,), (other,) = evidence_of(results(WHOLE)), evidence_of(shuffled)

    np.testing.assert_array_equal(one.truth.errors, other.truth.errors)
    assert one.truth.candidates == other.truth.candidates


def test_a_candidate_that_lacks_a_split_is_left_out_for_the_task():
    """Splits differ in difficulty: a mean over fewer of them is another quantity."""
    gaps = {**WHOLE, "t1": {**WHOLE["t1"], "c": {0: 0.01}}}

    (found,) = evidence_of(results(gaps))

    assert found.truth.candidates == ("a", "b")
    assert found.left_out.incomplete == 1


def test_splits_are_kept_where_that_keeps_the_most_results():
    """One task with a single split must not cost the others their splits, nor one of ten splits all tasks."""
    ten = {f"t{i}": {c: dict.fromkeys(range(10), 0.1) for c in "ab"} for i in range(3)}
    short = {"short": {c: {0: 0.1} for c in "ab"}}
    holed = {f"h{i}": {c: dict.fromkeys(set(range(10)) - {i}, 0.1) for c in "ab"} for i in range(3)}

    (with_short,) = evidence_of(results({**ten, **short}))
    (with_holes,) = evidence_of(results(holed))

    assert (with_short.n_splits, with_short.tasks) == (10, ("t0", "t1", "t2"))
    assert with_short.left_out.tasks == ("short",)
    assert (with_holes.n_splits, with_holes.tasks) == (9, ("h0", "h1", "h2"))


EMBEDDED = make_embedding(task="t1")
RENAMED = make_embedding(task="a copy of t1")


@pytest.mark.parametrize(
    ("task", "trained"),
    [
        ("t1", Candidate("c", source="t1")),
        ("T1", Candidate("c", source="t1")),
        ("t1", Candidate("c", source="T1")),
        ("T1", Candidate("c", embeddings=[EMBEDDED])),
        ("t1", Candidate("c", embeddings=[RENAMED])),
    ],
)
def test_a_candidate_is_not_judged_on_what_it_was_trained_on(task, trained):
    """It would be a free win; the Hub does not tell capitals apart."""
    with_c = {name: {**cells, "c": {0: 0.0, 1: 0.0}} for name, cells in WHOLE.items()}
    own = results({task: with_c["t1"]}, embedding=RENAMED.digest)
    known_of = {"c": trained, "d": Candidate("d", source="t2")}

    (found,) = evidence_of([*own, *results({"t2": with_c["t2"]})], candidates=known_of)

    assert found.tasks == (task, "t2")
    np.testing.assert_array_equal(found.truth.available, [[True, True, False], [True, True, True]])
    assert found.left_out.own == 1


def test_tasks_with_one_candidate_say_nothing_about_choosing():
    (found,) = evidence_of(results({**WHOLE, "lonely": {"a": {0: 0.1, 1: 0.1}}}))

    assert found.tasks == ("t1", "t2")
    assert found.left_out.tasks == ("lonely",)


def test_each_number_of_training_images_has_its_table():
    """Who is best may change with it."""
    few, many = results(WHOLE, n=10), results({t: WHOLE[t] for t in ("t1", "t2")}, n=None)

    found = evidence_of([*few, *many])

    assert [table.size for table in found] == [None, 10]
    assert all(table.tasks == ("t1", "t2") for table in found)


def test_tasks_that_share_no_number_are_judged_together():
    """Everybody's data sets differ in size; errors are compared within a task only."""
    (found,) = evidence_of([*results({"t1": WHOLE["t1"]}, n=70), *results({"t2": WHOLE["t2"]}, n=3000)])

    assert found.tasks == ("t1", "t2")
    assert (found.n, found.size) == ((70, 3000), None)


def test_a_task_beside_the_shared_numbers_is_not_lost():
    """The last table holds every task once, at the number with the most results."""
    lone = {"t3": WHOLE["t1"]}
    extra = results({"t1": {"a": {0: 0.9}, "b": {0: 0.9}}}, n=20)

    shared, own = evidence_of([*results(WHOLE), *results(lone, n=999), *extra])

    assert (shared.tasks, shared.size) == (("t1", "t2"), 10)
    assert (own.tasks, own.n) == (("t1", "t2", "t3"), (10, 10, 999))


def test_a_later_result_of_a_split_replaces_the_earlier():
    (found,) = evidence_of([*results(WHOLE), Result("t1", "a", 0.9, n=10, seed=0)])

    assert found.truth.errors[0, 0, 0] == 0.9
    assert found.left_out.repeated == 1


def test_test_images_that_are_not_known_are_assumed_and_said():
    mixed = [*results({"t1": WHOLE["t1"]}, n_test=30), *results({"t2": WHOLE["t2"]})]

    (found,) = evidence_of(mixed)

    np.testing.assert_array_equal(found.truth.n_test, [30, 100])
    assert found.assumed == ("t2",)


def test_owners_group_tasks():
    """Ten tasks from one lab's collection are not ten pieces of evidence."""
    renamed = {"lab/x": WHOLE["t1"], "lab/y": WHOLE["t2"], "mine": WHOLE["t1"]}

    (found,) = evidence_of(results(renamed), group_by="owner")

    assert found.truth.sources == ("lab", "lab", "mine")
    assert found.n_groups == 2


def test_too_little_gives_no_table():
    """One task, or one candidate, compares nothing."""
    assert evidence_of([]) == ()
    assert evidence_of(results({"t1": WHOLE["t1"]})) == ()
    assert evidence_of(results({task: {"a": cells["a"]} for task, cells in WHOLE.items()})) == ()


def test_fewer_tasks_leave_out_what_only_the_others_had():
    three = {**WHOLE, "t3": {c: {0: 0.2, 1: 0.3} for c in "ac"}}
    (found,) = evidence_of(results(three))

    part = found.of_tasks([0, 1])

    assert part.tasks == ("t1", "t2")
    assert part.truth.candidates == ("a", "b")
    np.testing.assert_array_equal(part.truth.errors, found.truth.errors[:2, :2])
