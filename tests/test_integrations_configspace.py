"""ConfigSpace and SMAC with a ranking: what is drawn, what comes first, what a stored search keeps."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from ConfigSpace import (
    CategoricalHyperparameter,
    Configuration,
    ConfigurationSpace,
    EqualsCondition,
    Float,
    ForbiddenAndConjunction,
    ForbiddenEqualsClause,
    Integer,
)
from scipy.stats import chisquare

from t2v_hub.errors import CheckpointError, EmptyCatalogError, FewCandidatesWarning, SettingsError
from t2v_hub_integrations.configspace import (
    failed_checkpoints,
    initial_configurations,
    ranked_categorical,
    ranked_space,
)

EXAMPLE = Path(__file__).parent.parent / "examples" / "configspace_smac.py"
RATE = Float("rate", (1e-4, 1e-1), log=True, default=1e-3)


@pytest.fixture(scope="module")
def ranking(digits_pool):
    return digits_pool.selector().rank()


def test_each_checkpoint_is_drawn_as_often_as_its_weight(ranking):
    """Only then is the ranking a prior, and not merely a list of names."""
    space = ranked_space(ranking, top_k=None, seed=0)
    n = 6000

    drawn = Counter(str(one["checkpoint"]) for one in space.sample_configuration(n))
    counts = [drawn[id] for id in ranking.ranked]

    assert chisquare(counts, np.array(ranking.weights) * n).pvalue > 0.01
    assert chisquare(counts, np.full(len(ranking), n / len(ranking))).pvalue < 1e-9


def test_choices_are_sorted_and_the_best_is_the_default(ranking):
    """The choices must not depend on the order, and a search's default configuration is worth a good one."""
    hyperparameter = ranked_categorical(ranking, top_k=4, name="model")

    assert hyperparameter.name == "model"
    assert hyperparameter.choices == tuple(sorted(ranking.ranked[:4]))
    assert hyperparameter.default_value == ranking.ranked[0]
    weights = dict(zip(hyperparameter.choices, hyperparameter.probabilities, strict=True))
    assert [weights[id] for id in ranking.ranked[:4]] == pytest.approx(list(ranking[:4].weights))


def test_one_candidate_is_a_search_too(ranking):
    """The rest of the space may still be worth searching."""
    space = ranked_space(ranking[:1], ConfigurationSpace(space=[RATE]), top_k=1, seed=1)

    assert {str(one["checkpoint"]) for one in space.sample_configuration(5)} == {ranking.ranked[0]}


def test_the_callers_space_stays_as_it_was(ranking):
    """It may serve another search."""
    space = ConfigurationSpace(space=[RATE])

    full = ranked_space(ranking, space, top_k=None)

    assert list(space) == ["rate"]
    assert set(full) == {"checkpoint", "rate"}


def test_first_configurations_are_in_ranked_order_with_defaults(ranking):
    """They are what the search spends its first trials on."""
    space = ranked_space(ranking, ConfigurationSpace(space=[RATE]), top_k=None)

    first = initial_configurations(space, ranking, n=3)

    assert [str(one["checkpoint"]) for one in first] == list(ranking.ranked[:3])
    assert [one["rate"] for one in first] == pytest.approx([1e-3] * 3)
    for one in first:
        one.check_valid_configuration()


def test_first_configurations_obey_conditions_and_clauses(ranking):
    """A configuration that the space calls illegal would end the search before it starts."""
    best, second, third = ranking.ranked[:3]
    space = ranked_space(
        ranking, ConfigurationSpace(space=[RATE, Integer("frozen", (0, 4), default=2)]), top_k=None
    )
    space.add(EqualsCondition(space["frozen"], space["checkpoint"], second))
    space.add(
        ForbiddenAndConjunction(
            ForbiddenEqualsClause(space["checkpoint"], third), ForbiddenEqualsClause(space["rate"], 1e-3)
        )
    )

    with pytest.warns(FewCandidatesWarning, match=r"1 candidate \(.*\) is no choice of 'checkpoint' or forb"):
        first = initial_configurations(space, ranking, n=3)

    assert [str(one["checkpoint"]) for one in first] == [best, second, ranking.ranked[3]]
    assert ["frozen" in one for one in first] == [False, True, False]


def test_a_stored_space_keeps_its_choices_under_another_ranking(ranking, tmp_path):
    """SMAC takes a changed space for another search, and old trials would be lost."""
    ranked_space(ranking[:4], ConfigurationSpace(space=[RATE]), top_k=4).to_json(tmp_path / "space.json")
    stored = ConfigurationSpace.from_json(tmp_path / "space.json")
    other = ranking[::-1]

    with pytest.warns(FewCandidatesWarning, match=r"keeps its 4 choices. 2 candidates \(.*\) are not among"):
        again = ranked_space(other, stored, top_k=None)
    with pytest.warns(
        FewCandidatesWarning, match="3 configurations were asked for; here are 3. 2 candidates"
    ):
        first = initial_configurations(again, other, n=3)

    assert again == stored
    assert [str(one["checkpoint"]) for one in first] == list(ranking.ranked[3:0:-1])


def test_fewer_candidates_than_first_configurations_is_said(ranking):
    """The search can go on, but not unnoticed."""
    space = ranked_space(ranking, top_k=None)

    with pytest.warns(FewCandidatesWarning, match="9 configurations were asked for; here are 6"):
        assert len(initial_configurations(space, ranking, n=9)) == 6


@pytest.mark.parametrize("n", [0, -2, 1.5, True, None])
def test_a_number_of_configurations_that_cannot_be_is_refused(ranking, n):
    """It would be compared with a length and never reached."""
    with pytest.raises(SettingsError, match="n must be a whole number >= 1"):
        initial_configurations(ranked_space(ranking, top_k=None), ranking, n=n)


def test_a_space_without_the_checkpoint_says_how_to_make_one(ranking):
    """A name that was misspelt is the likely reason."""
    with pytest.raises(SettingsError, match="no hyperparameter 'checkpoint'. Make it with ranked_space"):
        initial_configurations(ConfigurationSpace(space=[RATE]), ranking, n=1)


def test_another_hyperparameter_of_the_name_is_refused(ranking):
    """A number cannot name a checkpoint."""
    with pytest.raises(
        SettingsError, match="'rate' must be categorical.* it is a UniformFloat.*another name"
    ):
        ranked_space(ranking, ConfigurationSpace(space=[RATE]), top_k=None, name="rate")


def test_an_empty_ranking_says_what_to_do(digits_pool):
    """ConfigSpace would fail on an empty list of choices."""
    with pytest.raises(EmptyCatalogError, match="nothing to search among"):
        ranked_categorical(digits_pool.selector().rank(where=lambda candidate: False))


def test_fewer_candidates_than_asked_for_is_said(ranking):
    """Whoever asked for 20 should know that the search is over six."""
    with pytest.warns(FewCandidatesWarning, match="20 candidates were asked for and the ranking has 6"):
        space = ranked_space(ranking)

    assert isinstance(space["checkpoint"], CategoricalHyperparameter)
    assert space["checkpoint"].size == 6


@pytest.mark.parametrize(
    ("absent", "said"),
    [
        ("ConfigSpace", "MissingDependencyError: This needs ConfigSpace.*'t2v-hub\\[configspace\\]'"),
        ("ConfigSpace.util", "ModuleNotFoundError: absent"),
    ],
)
def test_only_its_own_absence_is_told_with_an_install_line(absent, said):
    """Installing what is installed already would not help."""
    code = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name == {absent!r}:
            raise ModuleNotFoundError("absent", name=name)
sys.meta_path.insert(0, Absent())
import t2v_hub_integrations.configspace
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert re.search(said, done.stderr), done.stderr


@pytest.fixture
def smac():
    """SMAC, which the development environment has."""
    import smac

    return smac


def search(smac, space, error, folder, *, n_trials, first=(), **options):
    """A search of SMAC, ended; its first trials are the configurations given."""
    facade = smac.HyperparameterOptimizationFacade
    scenario = smac.Scenario(
        space, n_trials=n_trials, deterministic=True, crash_cost=1.0, output_directory=folder, name="search"
    )
    design = facade.get_initial_design(scenario, n_configs=0, additional_configs=list(first))
    running = facade(scenario, error, initial_design=design, logging_level=40, **options)
    running.optimize()
    return running


def tried(running, *, origin=""):
    """Ids of the checkpoints that a search tried, in order."""
    configurations = [running.runhistory.get_config(key.config_id) for key in running.runhistory]
    return [str(one["checkpoint"]) for one in configurations if origin in one.origin]


def test_smac_tries_the_first_of_the_ranking_first(smac, ranking, tmp_path):
    """It evaluates additional configurations after those of its design, so the design must have none."""
    space = ranked_space(ranking, ConfigurationSpace(space=[RATE]), top_k=None)
    first = initial_configurations(space, ranking, n=3)

    running = search(smac, space, lambda one, seed=0: one["rate"], tmp_path, n_trials=5, first=first)

    assert tried(running)[:3] == list(ranking.ranked[:3])


def test_smac_draws_by_the_weights(smac, ranking, tmp_path):
    """Its random search samples the space; that is where the prior enters."""
    rates = [Float(f"rate{n}", (0, 1)) for n in range(3)]
    space = ranked_space(ranking, ConfigurationSpace(space=rates), top_k=None, seed=0)
    scenario = smac.Scenario(space, n_trials=200, deterministic=True, output_directory=tmp_path, seed=0)
    running = smac.RandomFacade(scenario, lambda one, seed=0: 0.5, logging_level=40)
    running.optimize()

    counts = Counter(tried(running))

    observed = [counts[id] for id in ranking.ranked]
    assert sum(observed) == 200
    assert chisquare(observed, np.array(ranking.weights) * 200).pvalue > 0.01
    assert chisquare(observed, np.full(len(ranking), 200 / len(ranking))).pvalue < 1e-4


def test_a_checkpoint_that_does_not_load_ends_no_search(smac, ranking, tmp_path):
    """One bad repository would else cost all that was tried before."""
    space = ranked_space(ranking, ConfigurationSpace(space=[RATE]), top_k=None)
    bad = ranking.ranked[1]

    def error(one, seed=0):
        if one["checkpoint"] == bad:
            raise CheckpointError("it holds no weights")
        if one["rate"] == pytest.approx(1e-3) and one["checkpoint"] == ranking.ranked[2]:
            raise FloatingPointError("it diverged, with this rate only")
        return 0.5

    first = initial_configurations(space, ranking, n=4)
    again = Configuration(space, {"checkpoint": ranking.ranked[2], "rate": 1e-2})
    running = search(smac, space, error, tmp_path, n_trials=8, first=[*first, again])

    assert len(tried(running)) == 8
    failed = failed_checkpoints(running.runhistory)
    assert list(failed) == [bad]
    assert failed[bad].endswith("CheckpointError: it holds no weights")


def test_smac_goes_on_with_a_stored_space_and_another_ranking(smac, ranking, tmp_path):
    """It knows its trials again by the space: with new weights it would ask what to do with the old run."""
    first_space = ranked_space(ranking, ConfigurationSpace(space=[RATE]), top_k=None, seed=1)
    first = initial_configurations(first_space, ranking, n=2)
    search(smac, first_space, lambda one, seed=0: 0.5, tmp_path, n_trials=4, first=first)
    stored = ConfigurationSpace.from_json(next(tmp_path.rglob("configspace.json")))

    other = ranking[::-1]
    space = ranked_space(other, stored, top_k=None)
    scenario = smac.Scenario.load(next(tmp_path.rglob("scenario.json")).parent)

    assert scenario.configspace == space
    assert [str(one["checkpoint"]) for one in initial_configurations(space, other, n=2)] == list(
        other.ranked[:2]
    )


def test_the_example_finds_a_checkpoint(smac, digits_hub, tmp_path):
    """It is what a user would copy."""
    from digits_pool import DATA

    done = digits_hub.run(EXAMPLE, ["--data", DATA, "--trials", "4", "--epochs", "2"], tmp_path)

    found = re.search(r"^best: (digits/\S+) at rate \S+, error ([\d.]+)%$", done.stdout, flags=re.MULTILINE)
    assert found is not None, done.stdout
    assert float(found[2]) < 80  # of five classes, guessing misses 80 %
    assert "never loaded" not in done.stdout
