"""`Candidates`: what every adapter takes from a ranking, and what it says where that cannot be."""

import subprocess
import sys

import pytest

from t2v_hub.errors import (
    CandidateNotFoundError,
    EmptyCatalogError,
    FewCandidatesWarning,
    MissingDependencyError,
    SettingsError,
)
from t2v_hub_integrations import Candidates
from t2v_hub_integrations.dependency import missing


def test_a_selector_a_ranking_and_candidates_give_the_same(digits_pool):
    """An adapter takes whichever is at hand."""
    selector = digits_pool.selector()
    ranking = selector.rank()

    assert Candidates.of(selector, top_k=3).ranked == ranking.ranked[:3]
    assert Candidates.of(ranking, top_k=3).ranked == ranking.ranked[:3]
    assert Candidates.of(Candidates.of(ranking), top_k=3).ranked == ranking.ranked[:3]
    assert Candidates.of(ranking).ranked == ranking.ranked
    assert Candidates.of(ranking).choices == tuple(sorted(ranking.ranked))


def test_weights_are_by_id_and_sum_to_one(digits_pool):
    """A search hands out its trials by them."""
    candidates = Candidates.of(digits_pool.selector(), top_k=4)

    assert tuple(candidates.weights) == candidates.ranked
    assert sum(candidates.weights.values()) == pytest.approx(1)
    assert list(candidates.weights.values()) == sorted(candidates.weights.values(), reverse=True)


def test_a_candidate_loads_by_its_id_with_a_head_for_the_data(digits_pool):
    """A trial knows nothing but the id that the search chose."""
    candidates = Candidates.of(digits_pool.selector())

    for id in candidates.choices[:2]:  # one of each library
        network = candidates.load(id, digits_pool.train)
        head = [module for module in network.modules() if hasattr(module, "out_features")][-1]

        assert head.out_features == 5
        assert network.training


def test_options_of_rank_reach_the_selector(digits_pool):
    """Otherwise a search could not be restricted without ranking by hand."""
    timm = Candidates.of(digits_pool.selector(), where={"library": "timm"})

    assert len(timm) == 3


def test_an_unknown_id_is_named(digits_pool):
    """A stored search may name a candidate of another ranking."""
    with pytest.raises(
        CandidateNotFoundError, match="'nobody/nothing' is none of the 6 candidates"
    ) as caught:
        Candidates.of(digits_pool.selector()).load("nobody/nothing")

    assert "Take one of Candidates.choices" in str(caught.value)


def test_an_empty_ranking_says_what_to_do(digits_pool):
    """A search over nothing would fail somewhere inside another library."""
    ranking = digits_pool.selector().rank(where=lambda candidate: False)

    with pytest.raises(EmptyCatalogError, match="nothing to search among. Loosen where="):
        Candidates.of(ranking)


def test_fewer_candidates_than_asked_for_are_all_taken_and_said(digits_pool):
    """The search can go on, but not unnoticed."""
    with pytest.warns(FewCandidatesWarning, match="20 candidates were asked for and the ranking has 6"):
        candidates = Candidates.of(digits_pool.selector(), top_k=20)

    assert len(candidates) == 6


@pytest.mark.parametrize("top_k", [0, -1, 2.5, True, "3"])
def test_a_number_of_candidates_that_cannot_be_is_refused(digits_pool, top_k):
    """It would be sliced to something else than was meant."""
    with pytest.raises(SettingsError, match="top_k must be a whole number >= 1"):
        Candidates.of(digits_pool.selector().rank(), top_k=top_k)


def test_options_for_a_ranking_that_is_made_are_refused(digits_pool):
    """They would be ignored in silence."""
    with pytest.raises(SettingsError, match="made already; refine, where cannot change it"):
        Candidates.of(digits_pool.selector().rank(), where={}, refine=2)


def test_something_else_than_a_ranking_is_refused():
    """A data set is what one would try first."""
    with pytest.raises(SettingsError, match=r"bound to a task \(AutoSelector.from_task\(data\)\); got list"):
        Candidates.of(["a/b"])


def test_an_absent_tool_is_named_with_its_install_line():
    """`No module named 'optuna'` says neither which package nor which extra."""
    error = missing(ModuleNotFoundError("No module named 'ray'", name="ray"), "ray", extra="ray")

    assert isinstance(error, MissingDependencyError)
    assert str(error) == "This needs ray, which is not installed: pip install 't2v-hub[ray]'."


def test_a_broken_installation_is_not_hidden():
    """Installing what is installed already would not help."""
    broken = ModuleNotFoundError("No module named 'sqlalchemy'", name="sqlalchemy")

    assert missing(broken, "optuna") is broken


def test_importing_the_package_imports_no_tool():
    """It would take seconds, or fail where one of them is absent."""
    tools = ["optuna", "ray", "autogluon", "ConfigSpace", "sklearn", "transformers", "timm", "torch"]
    code = f"import sys, t2v_hub_integrations; print(*({{*{tools}}} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == []
