"""The second stage without networks: which candidates are read, when it ends, and how they are ordered."""

import numpy as np
import pytest
from scipy.stats import zscore

from t2v_hub.errors import CheckpointError, InsufficientMemoryError, SettingsError
from t2v_hub.features.store import Features
from t2v_hub.scores import h_score, leep, logistic_loss, logme, ridge_loss, ridge_outcomes
from t2v_hub.selector import second_stage as room
from t2v_hub.selector.second_stage import Limits, second_stage

LABELS = np.arange(60) % 3


def features(quality, *, seed=0, head=True):
    """Features whose classes are the farther apart the larger ``quality``; predictions of four classes."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(60, 5)) + quality * np.eye(5)[LABELS]
    logits = np.column_stack([values[:, :3], np.zeros(60)])
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return Features(values.astype(np.float32), p.astype(np.float32) if head else None)


class Reader:
    """Gives features by id; some fail. Remembers what it was asked for."""

    def __init__(self, found, clock=None):
        self.found, self.clock, self.asked = found, clock, []

    def __call__(self, id):
        self.asked.append(id)
        if self.clock is not None:
            self.clock.now += 10.0
        if isinstance(self.found[id], Exception):
            raise self.found[id]
        return self.found[id]


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def run(found, by_prior="", *, k=None, budget_s=None, score="ridge_accuracy", clock=None, effects=None):
    reader = Reader(found, clock)
    limits = Limits(k, budget_s, score, 600)
    loaded, done = second_stage(
        list(found),
        list(by_prior),
        read=reader,
        labels=LABELS,
        limits=limits,
        effects=effects,
        progress=False,
    )
    return loaded, done, reader.asked


GOOD = {
    id: features(quality, seed=seed)
    for seed, (id, quality) in enumerate(zip("abcdef", (0, 1.5, 0.8, 1.1, 2.5, 0.3), strict=True))
}
BROKEN = CheckpointError("it is broken")


def test_only_the_shortlist_is_read():
    """A checkpoint is a download."""
    loaded, done, asked = run(GOOD, "fb", k=3)

    assert asked == ["a", "f", "b"]
    assert (done.n_loaded, done.n_images, done.score) == (3, 60, "ridge_accuracy")
    assert {one.id for one in loaded} == {"a", "b", "f"}
    assert done.failed == {}


@pytest.mark.parametrize(
    ("score", "value"),
    [
        ("ridge_accuracy", lambda own: ridge_outcomes(own.features, LABELS).mean()),
        ("ridge_loss", lambda own: -ridge_loss(own.features, LABELS)),
        ("logistic_loss", lambda own: -logistic_loss(own.features, LABELS)),
        ("logme", lambda own: logme(own.features, LABELS)),
        ("h_score", lambda own: h_score(own.features, LABELS)),
        ("leep", lambda own: leep(own.predictions, LABELS)),
    ],
)
def test_loaded_candidates_are_ordered_by_the_score(score, value):
    """In its own direction; predicted errors are the ridge probe's whatever the order."""
    loaded, done, _ = run(GOOD, k=6, score=score)

    assert [one.id for one in loaded] == sorted(GOOD, key=lambda id: -value(GOOD[id]))
    assert done.score == score
    for one in loaded:
        assert abs(one.score) == pytest.approx(abs(value(GOOD[one.id])))
        assert one.outcomes.hits.tolist() == ridge_outcomes(GOOD[one.id].features, LABELS).tolist()


def standard(values):
    """SciPy's, which divides by n."""
    return zscore(np.array(values))


@pytest.mark.parametrize("effects", [None, {}, {"b": -2.0, "e": 1.0, "unloaded": 9.0}])
def test_the_combined_score_is_the_mean_of_three_and_a_quarter_of_the_results(effects):
    """In standard deviations over those that were loaded; one without results counts as the average."""
    loaded, done, _ = run(GOOD, k=6, score="combined", effects=effects)

    def by(function):
        return standard([function(one.features, LABELS) for one in GOOD.values()])

    expected = (by(logme) - by(ridge_loss) - by(logistic_loss)) / 3
    if effects:
        expected -= standard([effects.get(id, 0.0) for id in GOOD]) / 4
    assert {one.id: one.score for one in loaded} == pytest.approx(dict(zip(GOOD, expected, strict=True)))
    assert [one.id for one in loaded] == sorted(GOOD, key=lambda id: -expected[list(GOOD).index(id)])
    assert done.score == "combined"


def test_results_on_other_tasks_decide_between_equals():
    """What nothing else tells apart."""
    same = features(2)

    loaded, _, _ = run(dict.fromkeys("cab", same), k=3, score="combined", effects={"b": -0.5})

    assert [one.id for one in loaded] == ["b", "c", "a"]


def test_the_combined_score_of_one_says_nothing():
    """There is nothing to stand beside."""
    loaded, _, _ = run(GOOD, k=1, score="combined", effects={"a": -1.0})

    assert [one.score for one in loaded] == [0.0]


def test_a_candidate_without_a_head_has_no_leep_and_stands_last():
    """A blank is no bad score, and no failure; its error is known all the same."""
    loaded, done, _ = run(
        {**GOOD, "b": features(3, head=False), "e": features(4, head=False)}, k=6, score="leep"
    )

    assert [one.score is None for one in loaded] == [False] * 4 + [True] * 2
    assert [one.id for one in loaded[4:]] == ["e", "b"]
    assert done.failed == {}


def test_equal_scores_stand_as_in_the_first_stage():
    """Nothing else is known of them."""
    same = features(2)

    loaded, _, _ = run(dict.fromkeys("cab", same), k=3)

    assert [one.id for one in loaded] == ["c", "a", "b"]
    assert [one.tie_group for one in loaded] == [1, 1, 1]


def test_the_next_one_takes_the_place_of_one_that_fails():
    """Asked for three, a user gets three."""
    _, done, asked = run({**GOOD, "a": BROKEN, "f": BROKEN}, "fe", k=3)

    assert asked == ["a", "b", "f", "e", "c"]
    assert done.failed == {"a": "it is broken", "f": "it is broken"}
    assert done.n_loaded == 3
    assert not done.gave_up


def test_ten_failures_in_a_row_end_it():
    """Without a connection a pool of thousands would fail for hours."""
    _, done, asked = run({str(i): BROKEN for i in range(30)}, k=3)

    assert len(asked) == 10
    assert (done.n_loaded, done.gave_up, done.against_prior) == (0, True, None)


def test_memory_that_does_not_suffice_ends_it_with_its_own_error():
    """The next one would not fit either, and a ranking of those that do would be one by size."""
    with pytest.raises(InsufficientMemoryError, match="too large"):
        run({"a": InsufficientMemoryError("too large")}, k=1)


@pytest.mark.parametrize(("budget", "n"), [(0.0, 1), (10.0, 1), (10.5, 2), (35, 4), (1e6, 6)])
def test_no_further_candidate_is_read_when_the_time_is_used(monkeypatch, budget, n):
    """One is read in any case: with none the time would buy nothing."""
    clock = Clock()
    monkeypatch.setattr(room, "monotonic", clock)

    _, done, asked = run(GOOD, budget_s=budget, clock=clock)

    assert len(asked) == n
    assert done.seconds == 10 * n


def test_the_time_runs_from_when_it_is_said_to_have_begun(monkeypatch):
    """Reading the task's images is part of what a user waits for."""
    clock = Clock()
    monkeypatch.setattr(room, "monotonic", clock)
    limits = Limits(None, 25.0, "ridge_accuracy", 600)

    _, done = second_stage(
        list(GOOD), [], read=Reader(GOOD, clock), labels=LABELS, limits=limits, began=90.0, progress=False
    )

    assert (done.n_loaded, done.seconds) == (2, 30.0)


def test_both_limits_hold(monkeypatch):
    """Whichever comes first."""
    clock = Clock()
    monkeypatch.setattr(room, "monotonic", clock)

    assert len(run(GOOD, k=2, budget_s=1e6, clock=clock)[2]) == 2
    assert len(run(GOOD, k=5, budget_s=25, clock=clock)[2]) == 3


def test_a_budget_is_not_used_up_by_failures_alone(monkeypatch):
    """At least one is loaded."""
    clock = Clock()
    monkeypatch.setattr(room, "monotonic", clock)

    _, done, asked = run({**GOOD, "a": BROKEN, "b": BROKEN}, budget_s=0, clock=clock)

    assert asked == ["a", "b", "c"]
    assert done.n_loaded == 1


def test_the_first_is_held_against_the_candidate_of_the_highest_prior():
    """What the ranking is worth beyond what anybody could have said without it."""
    loaded, done, _ = run(GOOD, "ca", k=6)
    first, other = (ridge_outcomes(GOOD[id].features, LABELS) for id in ("e", "c"))

    assert loaded[0].id == "e"
    assert done.against_prior.id == "c"
    assert done.against_prior.difference.value == pytest.approx((first - other).mean())
    assert done.against_prior.difference.standard_error == pytest.approx(
        np.std(first - other, ddof=1) / 60**0.5
    )
    assert run(GOOD, "ba", k=1)[1].against_prior.difference is None
    assert run({**GOOD, "c": BROKEN}, "ca", k=3)[1].against_prior.id == "c"
    assert run(GOOD, "", k=3)[1].against_prior is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((-1, None, "logme", 600), "refine must be a whole number >= 0, how many candidates to load; got -1"),
        ((True, None, "logme", 600), "refine must be a whole number >= 0.*got True"),
        ((2.0, None, "logme", 600), "refine must be a whole number >= 0.*got 2.0"),
        ((1, -1, "logme", 600), "budget_s must be a number of seconds >= 0, or None for no limit; got -1"),
        ((1, float("nan"), "logme", 600), "budget_s must be .* got nan"),
        ((1, float("inf"), "logme", 600), "budget_s must be .* got inf"),
        ((1, "60", "logme", 600), "budget_s must be .* got '60'"),
        ((1, True, "logme", 600), "budget_s must be .* got True"),
        ((0, None, "sfda", 600), "There is no score 'sfda'. Choose one of: combined, logme, leep, nce"),
        ((1, None, "logme", 1), "max_images must be a whole number >= 2; got 1"),
        ((1, None, "logme", 9.0), "max_images must be a whole number >= 2; got 9.0"),
    ],
)
def test_limits_that_cannot_work_are_named(arguments, words):
    """Before anything is loaded."""
    with pytest.raises(SettingsError, match=words):
        Limits.checked(*arguments)


def test_without_a_number_and_without_a_time_nothing_is_loaded():
    """The default: a ranking downloads nothing."""
    assert Limits.checked(0, None, "logme", 600) is None
    assert Limits.checked(0, 5, "logme", 600) == Limits(None, 5.0, "logme", 600)
    assert Limits.checked(3, None, "logme", 600) == Limits(3, None, "logme", 600)
