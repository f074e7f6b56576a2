"""Optuna: checkpoints in ranked order first, studies that go on, checkpoints that do not load."""

import json
import pickle
import subprocess
import sys
import textwrap
import warnings
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from digits_pool import DATA
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler, BruteForceSampler, QMCSampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from benchmarks.search import Tuned, Tunings
from t2v_hub.errors import EmptyCatalogError, FewCandidatesWarning, SettingsError
from t2v_hub_integrations import Candidates
from t2v_hub_integrations.optuna import (
    RankedCheckpointSampler,
    enqueue_ranked,
    failures,
    load_suggested,
    suggest_checkpoint,
)

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _quiet():
    """Optuna prints a line for each trial."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


@pytest.fixture(scope="session")
def ranking(digits_pool):
    """Six candidates for the new task, best first."""
    return digits_pool.selector().rank()


def of(ranking, *places):
    """Another ranking, of the candidates that stand at these places, in this order."""
    return replace(ranking, items=tuple(ranking.items[place] for place in places))


def objective_of(selection, **options):
    """A smooth function of a learning rate and the length of the checkpoint's id; nothing is loaded."""

    def objective(trial):
        checkpoint = suggest_checkpoint(trial, selection, **options)
        rate = trial.suggest_float("rate", 1e-5, 1e-1, log=True)
        return len(checkpoint) % 7 - abs(rate - 1e-3)

    return objective


def tried(study):
    return [trial.params["checkpoint"] for trial in study.get_trials(deepcopy=False)]


def new_study(sampler=None, **options):
    return optuna.create_study(direction="maximize", sampler=sampler or TPESampler(seed=0), **options)


# What is enqueued


def test_the_first_half_of_the_trials_is_tried_in_ranked_order(ranking):
    """The order of a ranking reaches Optuna only by which trials come first."""
    study = new_study()

    found = enqueue_ranked(study, ranking, n_trials=8, top_k=6)
    study.optimize(objective_of(found), n_trials=8)

    assert found.enqueued == ranking.ranked[:4]
    assert tuple(tried(study)[:4]) == ranking.ranked[:4]
    assert found.choices == ranking.choices
    assert found.ranked == ranking.ranked
    assert len(found) == 6
    assert ranking.ranked[0] in found
    assert all(trial.distributions["checkpoint"].choices == ranking.choices for trial in study.trials)


@pytest.mark.parametrize(
    ("n_trials", "share", "n"),
    [(8, 0.5, 4), (5, 0.5, 2), (1, 0.5, 1), (40, 0.5, 6), (4, 1, 4), (100, 0.03, 3), (10, 0.3, 3)],
)
def test_never_more_than_the_share_of_the_budget_is_enqueued(ranking, n_trials, share, n):
    """What the ranking does not know is left to the search."""
    found = enqueue_ranked(new_study(), ranking, n_trials=n_trials, top_k=6, share=share)

    assert found.enqueued == ranking.ranked[:n]


def test_extra_parameters_are_fixed_in_the_enqueued_trials_only(ranking):
    """A bad draw of the learning rate would make a good checkpoint look bad."""
    study = new_study()

    enqueue_ranked(study, ranking, n_trials=6, top_k=6, extra={"rate": 2e-3})
    study.optimize(objective_of(ranking), n_trials=6)

    rates = [trial.params["rate"] for trial in study.trials]
    assert rates[:3] == [2e-3] * 3
    assert 2e-3 not in rates[3:]


def test_a_script_that_runs_again_enqueues_nothing_twice(ranking):
    """Whoever resumes a study runs the same script."""
    study = new_study()
    enqueue_ranked(study, ranking, n_trials=6, top_k=6)
    study.optimize(objective_of(ranking), n_trials=2)

    again = enqueue_ranked(study, ranking, n_trials=6, top_k=6)

    assert again.enqueued == ()
    assert len(study.trials) == 3


def test_only_the_first_candidates_are_choices(ranking):
    """A search seldom learns anything about thousands of choices."""
    study = new_study()

    found = enqueue_ranked(study, ranking, n_trials=20, top_k=3)
    study.optimize(objective_of(ranking), n_trials=12)  # the whole ranking is passed on

    assert found.choices == tuple(sorted(ranking.ranked[:3]))
    assert set(tried(study)) == set(ranking.ranked[:3])


def test_a_selector_and_candidates_serve_as_well(digits_pool, ranking):
    """An adapter takes whichever is at hand."""
    selector = digits_pool.selector()
    candidates = Candidates.of(ranking, top_k=3)

    assert enqueue_ranked(new_study(), selector, n_trials=4, top_k=6).enqueued == ranking.ranked[:2]
    assert enqueue_ranked(new_study(), candidates, n_trials=4).enqueued == ranking.ranked[:2]
    assert suggest_checkpoint(new_study().ask(), selector) in ranking.choices
    with pytest.warns(FewCandidatesWarning, match="20 candidates were asked for and the ranking has 6"):
        enqueue_ranked(new_study(), selector, n_trials=4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_trials": 0}, "n_trials must be a whole number >= 1, the budget of the search; got 0"),
        ({"n_trials": 2.5}, "n_trials must be a whole number >= 1"),
        ({"n_trials": True}, "n_trials must be a whole number >= 1"),
        ({"n_trials": 4, "share": 0}, r"share must be a number in \(0, 1\], .*; got 0"),
        ({"n_trials": 4, "share": 1.1}, r"share must be a number in \(0, 1\]"),
        ({"n_trials": 4, "share": float("nan")}, r"share must be a number in \(0, 1\]"),
        ({"n_trials": 4, "extra": {"checkpoint": "a"}}, "extra fixes 'checkpoint', which the ranking is to"),
    ],
)
def test_numbers_that_cannot_be_are_refused(ranking, options, message):
    """They would be turned into some budget without a word."""
    study = new_study()

    with pytest.raises(SettingsError, match=message):
        enqueue_ranked(study, ranking, top_k=6, **options)
    assert not study.trials


def test_an_empty_ranking_says_what_to_do(ranking):
    """Optuna would speak of empty choices."""
    with pytest.raises(EmptyCatalogError, match="nothing to search among"):
        enqueue_ranked(new_study(), ranking[:0], n_trials=4)
    with pytest.raises(EmptyCatalogError, match="nothing to search among"):
        RankedCheckpointSampler(ranking[:0], n_trials=4)


# What is suggested


def test_a_trial_can_be_repeated(ranking):
    """`objective(study.best_trial)` is how Optuna's users repeat the best one."""
    study = new_study()
    study.optimize(objective_of(ranking), n_trials=3)

    assert objective_of(ranking)(study.best_trial) == study.best_value
    assert objective_of(of(ranking, 0))(study.best_trial) == study.best_value
    assert objective_of(ranking)(optuna.trial.FixedTrial(study.best_params)) == study.best_value


def test_a_parameter_of_another_kind_is_named(ranking):
    """Optuna would say no more than that distributions differ."""
    study = new_study()
    study.optimize(lambda trial: trial.suggest_float("checkpoint", 0, 1), n_trials=1)
    message = "a parameter 'checkpoint' already, which is no choice among checkpoints: FloatDistribution"

    with pytest.raises(SettingsError, match=message):
        enqueue_ranked(study, ranking, n_trials=4, top_k=6)
    with pytest.raises(SettingsError, match="Take another name, parameter=…, or another study"):
        suggest_checkpoint(study.ask(), ranking)
    assert suggest_checkpoint(study.ask(), ranking, parameter="expert") in ranking.choices


# Studies that go on


def memory(folder):
    storage = InMemoryStorage()
    return lambda: storage


def sqlite(folder):
    return lambda: RDBStorage(f"sqlite:///{folder}/study.db")


def journal(folder):
    return lambda: JournalStorage(JournalFileBackend(str(folder / "study.log")))


STORAGES = pytest.mark.parametrize("storage", [memory, sqlite, journal])


@pytest.mark.parametrize("places", [(5, 4, 3, 2, 1, 0), (0, 1, 2)], ids=["other order", "fewer"])
def test_optuna_refuses_other_choices_for_a_study(ranking, places):
    """Why choices are sorted and a study keeps its own: fails when Optuna no longer needs that."""
    study = new_study()
    study.optimize(lambda trial: len(trial.suggest_categorical("checkpoint", ranking.ranked)), n_trials=1)
    others = of(ranking, *places).ranked

    with pytest.raises(ValueError, match="does not support dynamic value space"):
        study.optimize(lambda trial: len(trial.suggest_categorical("checkpoint", others)), n_trials=1)


@STORAGES
def test_a_study_that_goes_on_with_another_ranking_keeps_its_choices(ranking, storage, tmp_path):
    """Other choices raise in Optuna, and an enqueued name that is none of them ends the run."""
    storage = storage(tmp_path)
    study = new_study(storage=storage(), study_name="search")
    before = of(ranking, 0, 1, 2, 3)
    enqueue_ranked(study, before, n_trials=4, top_k=4)
    study.optimize(objective_of(before, top_k=4), n_trials=4)
    after = of(ranking, 5, 3, 2, 4)

    study = optuna.load_study(study_name="search", storage=storage(), sampler=TPESampler(seed=1))
    message = r"among 4 checkpoints .* 2 of the ranking's candidates are none of them and are left out: "
    with pytest.warns(FewCandidatesWarning, match=message) as caught:
        found = enqueue_ranked(study, after, n_trials=20, top_k=4)
    study.optimize(objective_of(after, top_k=4), n_trials=12)

    new, third, second = ranking.ranked[5], ranking.ranked[3], ranking.ranked[2]
    assert len(caught) == 1
    assert f"{new}, {ranking.ranked[4]}. A new study can take them" in str(caught[0].message)
    assert Path(caught[0].filename) == Path(__file__)
    assert found.left_out == (new, ranking.ranked[4])
    assert found.enqueued == (third, second)
    assert found.choices == before.choices
    assert found.ranked == (third, second, *sorted(ranking.ranked[:2]))
    assert tried(study)[4:6] == [third, second]
    assert set(tried(study)) <= set(before.choices)
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)


@STORAGES
def test_choices_that_are_enqueued_but_not_tried_yet_are_kept_too(ranking, storage, tmp_path):
    """The enqueued names would be outside the choices of whoever comes with a newer ranking."""
    storage = storage(tmp_path)
    enqueue_ranked(new_study(storage=storage(), study_name="search"), of(ranking, 0, 1), n_trials=4, top_k=2)

    study = optuna.load_study(study_name="search", storage=storage())
    study.optimize(objective_of(of(ranking, 5, 4)), n_trials=3)

    assert tried(study)[:2] == list(ranking.ranked[:2])


def test_choices_in_an_order_of_their_own_are_kept(ranking):
    """A study that began without us need not be sorted."""
    study = new_study()
    own = ranking.ranked[:4]
    study.enqueue_trial({"checkpoint": own[0]})
    study.optimize(lambda trial: len(trial.suggest_categorical("checkpoint", own)), n_trials=1)

    found = enqueue_ranked(study, of(ranking, 3, 1), n_trials=4, top_k=2)
    study.optimize(objective_of(found), n_trials=2)

    assert found.choices == own
    assert tried(study)[1:] == [ranking.ranked[3], ranking.ranked[1]]


def test_a_ranking_that_shares_nothing_with_the_study_enqueues_nothing(ranking):
    """The search goes on as Optuna would, and says so."""
    study = new_study()
    study.optimize(objective_of(of(ranking, 0, 1)), n_trials=1)

    with pytest.warns(FewCandidatesWarning, match="4 of the ranking's candidates are none of them"):
        found = enqueue_ranked(study, of(ranking, 2, 3, 4, 5), n_trials=8, top_k=4)
    study.optimize(objective_of(found), n_trials=2)

    assert found.enqueued == ()
    assert set(tried(study)) <= set(ranking.ranked[:2])


def test_what_another_wrote_into_the_study_is_not_trusted(ranking):
    """A study may come from elsewhere."""
    study = new_study()
    study.set_user_attr("t2v_choices:checkpoint", {"a": 1})
    study.enqueue_trial({}, user_attrs={"t2v_ranked": 3, "t2v_failed": ["x"]})

    found = enqueue_ranked(study, ranking, n_trials=4, top_k=6)

    assert found.choices == ranking.choices
    assert found.enqueued == ranking.ranked[:2]
    assert failures(study) == {}


GO_ON = """
import json, optuna, sys
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from t2v_hub import Catalog, ModelSelector, TaskEmbedding
from t2v_hub_integrations.optuna import RankedCheckpointSampler, enqueue_ranked, suggest_checkpoint

optuna.logging.set_verbosity(optuna.logging.ERROR)
catalog, target, kind, folder, n, enqueue = sys.argv[1:]
where = {"sqlite": lambda: RDBStorage(f"sqlite:///{folder}/study.db"),
         "journal": lambda: JournalStorage(JournalFileBackend(f"{folder}/study.log"))}
ranking = ModelSelector(Catalog.load(catalog), task=TaskEmbedding.load(target)).rank()
sampler = RankedCheckpointSampler(ranking, n_trials=6, top_k=6, share=1, seed=0) if enqueue == "no" else None
study = optuna.load_study(study_name="search", storage=where[kind](), sampler=sampler)
found = enqueue_ranked(study, ranking, n_trials=4, top_k=6) if enqueue == "yes" else ranking

def objective(trial):
    return len(suggest_checkpoint(trial, found)) + trial.suggest_float("rate", 1e-5, 1e-1, log=True)

study.optimize(objective, n_trials=int(n))
print(json.dumps({"enqueued": getattr(found, "enqueued", ()), "choices": found.choices}))
"""


def start(digits_pool, folder, kind, *, n, enqueue):
    """A script of a user in a new process."""
    target = folder / "target.safetensors"
    if not target.exists():
        digits_pool.target.save(target)
    script = folder / "script.py"
    script.write_text(GO_ON)
    arguments = [str(digits_pool.catalog), str(target), kind, str(folder), str(n), "yes" if enqueue else "no"]
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", str(script), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_study_goes_on_in_a_new_process(digits_pool, ranking, kind, tmp_path):
    """Nothing may hang on what the first process knew."""
    storage = {"sqlite": sqlite, "journal": journal}[kind](tmp_path)
    before = of(ranking, 3, 1, 4)
    study = new_study(storage=storage(), study_name="search")
    enqueue_ranked(study, before, n_trials=4, top_k=3)
    study.optimize(objective_of(before, top_k=3), n_trials=2)

    process = start(digits_pool, tmp_path, kind, n=5, enqueue=True)
    out, err = process.communicate(timeout=300)

    assert process.returncode == 0, err[-3000:]
    told = json.loads(out)
    assert told["choices"] == sorted(before.ranked)
    # Of its first two of the choices, 1 and 3, both were enqueued before.
    assert told["enqueued"] == []
    study = optuna.load_study(study_name="search", storage=storage())
    assert len(study.trials) == 7
    assert set(tried(study)) <= set(before.ranked)


# Checkpoints that do not load


@pytest.fixture
def broken(ranking, tmp_path):
    """The same ranking, whose first candidate is gone."""
    item = ranking.items[0]
    gone = replace(item, candidate=replace(item.candidate, id=str(tmp_path / "gone")))
    return replace(ranking, items=(gone, *ranking.items[1:]))


def test_a_checkpoint_that_does_not_load_is_pruned_and_named(broken, digits_pool):
    """One broken repository must not end a search of a night."""
    study = new_study()
    found = enqueue_ranked(study, broken, n_trials=4, top_k=6)
    loaded = []

    def objective(trial):
        suggest_checkpoint(trial, found)
        loaded.append(load_suggested(trial, found, digits_pool.train))
        return 1.0

    study.optimize(objective, n_trials=2)

    assert [trial.state for trial in study.trials] == [TrialState.PRUNED, TrialState.COMPLETE]
    gone = broken.ranked[0]
    assert list(failures(study)) == [gone]
    assert f"Cannot load checkpoint '{gone}'" in failures(study)[gone]
    assert [head.out_features for head in loaded[0].modules() if hasattr(head, "out_features")][-1] == 5


def test_a_checkpoint_that_did_not_load_is_not_ranked_again(broken, digits_pool):
    """It would take a trial of each run that goes on with the study."""
    study = new_study()
    trial = study.ask({"checkpoint": CategoricalDistribution(broken.choices)})
    study.tell(trial, state=TrialState.FAIL)
    study.enqueue_trial({"checkpoint": broken.ranked[0]})
    trial = study.ask()
    suggest_checkpoint(trial, broken)
    with pytest.raises(optuna.TrialPruned, match=r"gone does not load: Cannot load checkpoint .*gone"):
        load_suggested(trial, broken)
    study.tell(trial, state=TrialState.PRUNED)

    found = enqueue_ranked(study, broken, n_trials=6, top_k=6, extra={"rate": 0.1})
    study.sampler = RankedCheckpointSampler(broken, n_trials=20, top_k=6, seed=0)
    study.optimize(objective_of(found), n_trials=6)

    assert found.enqueued == broken.ranked[1:4]
    assert tried(study)[2:7] == list(broken.ranked[1:])


def test_a_choice_that_the_ranking_has_no_more_is_loaded_by_its_id(ranking, digits_pool):
    """The study may still draw it."""
    study = new_study()
    study.optimize(objective_of(ranking), n_trials=1)
    found = enqueue_ranked(study, of(ranking, 0), n_trials=2, top_k=1)
    study.enqueue_trial({"checkpoint": ranking.ranked[5]})
    trials = [study.ask(), study.ask()]

    for trial, id in zip(trials, (ranking.ranked[0], ranking.ranked[5]), strict=True):
        assert suggest_checkpoint(trial, found) == id
        for selection in (found, ranking[:1]):
            network = load_suggested(trial, selection, digits_pool.train)
            heads = [module for module in network.modules() if hasattr(module, "out_features")]
            assert heads[-1].out_features == 5


def test_a_trial_without_a_checkpoint_is_told_so(ranking):
    """A KeyError says neither what is missing nor which call brings it."""
    with pytest.raises(SettingsError, match=r"has no 'checkpoint' yet: call suggest_checkpoint\(trial"):
        load_suggested(new_study().ask(), ranking)


# The sampler


BASES = {
    "default": lambda: None,
    "group": lambda: TPESampler(multivariate=True, group=True, seed=1, n_startup_trials=2),
    "joint": lambda: TPESampler(multivariate=True, seed=1, n_startup_trials=2, constant_liar=True),
    "alone": lambda: TPESampler(multivariate=False, seed=1, n_startup_trials=2),
    "random": lambda: RandomSampler(seed=1),
    "qmc": lambda: QMCSampler(seed=1, warn_independent_sampling=False),
    "brute": lambda: BruteForceSampler(seed=1),
}


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("first", ["checkpoint", "rate"])
def test_the_sampler_begins_in_ranked_order_and_its_base_goes_on(ranking, base, first):
    """It serves where nothing can be enqueued, whatever draws the rest."""

    def objective(trial):
        for name in (first, "checkpoint", "rate"):
            if name == "checkpoint":
                value = len(suggest_checkpoint(trial, ranking)) % 7
            else:
                rate = trial.suggest_float("rate", 0.0, 1.0, step=0.1)
        return value - abs(rate - 0.3)

    sampler = RankedCheckpointSampler(ranking, BASES[base](), n_trials=12, top_k=6, share=0.34)
    study = new_study(sampler)
    study.optimize(objective, n_trials=12)

    assert tuple(tried(study)[:4]) == ranking.ranked[:4]
    assert len(study.trials) == 12
    turns = [trial.user_attrs.get("t2v_ranked") for trial in study.trials]
    assert [turn["checkpoint"] for turn in turns[:4]] == list(ranking.ranked[:4])
    assert turns[4:] == [None] * 8


class Recording(BaseSampler):
    """Notes what it is asked, and draws the same always."""

    def __init__(self):
        self.calls = []

    def infer_relative_search_space(self, study, trial):
        self.calls.append(("infer", trial.number))
        return {"rate": FloatDistribution(0, 1), "checkpoint": CategoricalDistribution(self.choices)}

    def sample_relative(self, study, trial, search_space):
        self.calls.append(("relative", trial.number, tuple(search_space)))
        return {name: {"rate": 0.25, "checkpoint": self.choices[-1]}[name] for name in search_space}

    def sample_independent(self, study, trial, param_name, param_distribution):
        self.calls.append(("independent", trial.number, param_name))
        return 3

    def before_trial(self, study, trial):
        self.calls.append(("before", trial.number))

    def after_trial(self, study, trial, state, values):
        self.calls.append(("after", trial.number, state, tuple(values)))

    def reseed_rng(self):
        self.calls.append(("reseed",))


def test_the_base_sampler_is_asked_for_everything_else(ranking):
    """A sampler that is not told of a trial's end, or not reseeded, goes wrong in silence."""
    base = Recording()
    base.choices = ranking.choices
    study = new_study(RankedCheckpointSampler(ranking, base, n_trials=2, top_k=6))

    def objective(trial):
        suggest_checkpoint(trial, ranking)
        trial.suggest_float("rate", 0, 1)
        return float(trial.suggest_int("depth", 1, 5))

    study.optimize(objective, n_trials=2)
    study.sampler.reseed_rng()

    assert base.calls == [
        ("before", 0),
        ("infer", 0),
        ("relative", 0, ("rate",)),
        ("independent", 0, "depth"),
        ("after", 0, TrialState.COMPLETE, (3.0,)),
        ("before", 1),
        ("infer", 1),
        ("relative", 1, ("rate", "checkpoint")),
        ("independent", 1, "depth"),
        ("after", 1, TrialState.COMPLETE, (3.0,)),
        ("reseed",),
    ]
    assert study.trials[0].params == {"checkpoint": ranking.ranked[0], "rate": 0.25, "depth": 3}
    assert study.trials[1].params == {"checkpoint": ranking.choices[-1], "rate": 0.25, "depth": 3}


def test_a_seed_repeats_the_trials_and_reaches_the_default_sampler(ranking):
    """Without it no search could be told from luck."""

    def params(**options):
        study = new_study(RankedCheckpointSampler(ranking, n_trials=20, top_k=6, **options))
        study.optimize(objective_of(ranking), n_trials=20)
        return [trial.params for trial in study.trials]

    assert params(seed=5) == params(seed=5)
    assert params(seed=5) != params(seed=6)
    assert params(seed=5) == params(base_sampler=TPESampler(seed=5))


def test_a_pickled_sampler_goes_on_as_it_would_have(ranking):
    """Ray Tune sends its searcher to other processes and stores it."""
    study = new_study(RankedCheckpointSampler(ranking, n_trials=20, top_k=6, seed=3))
    study.optimize(objective_of(ranking), n_trials=4)
    copy = optuna.create_study(direction="maximize")
    copy.add_trials(study.trials)
    copy.set_user_attr("t2v_choices:checkpoint", list(ranking.choices))
    copy.sampler = pickle.loads(pickle.dumps(study.sampler))

    for each in (study, copy):
        each.optimize(objective_of(ranking), n_trials=16)

    assert [trial.params for trial in copy.trials] == [trial.params for trial in study.trials]
    assert tuple(tried(copy)[:6]) == ranking.ranked


def test_an_enqueued_checkpoint_is_kept_and_not_taken_again(ranking):
    """Whoever enqueues by hand knows something that the ranking does not."""
    study = new_study(RankedCheckpointSampler(ranking, n_trials=8, top_k=6, seed=0))
    study.enqueue_trial({"checkpoint": ranking.ranked[1]})
    study.enqueue_trial({"rate": 0.05})
    study.optimize(objective_of(ranking), n_trials=5)

    assert tried(study) == [ranking.ranked[place] for place in (1, 0, 2, 3, 4)]
    assert study.trials[1].params["rate"] == 0.05


def test_enqueued_and_sampled_trials_share_the_budget(ranking):
    """Who does both would search by the ranking alone."""
    study = new_study(RankedCheckpointSampler(ranking, n_trials=8, top_k=6, seed=0))
    enqueue_ranked(study, ranking, n_trials=4, top_k=6)
    study.optimize(objective_of(ranking), n_trials=8)

    assert tuple(tried(study)[:4]) == ranking.ranked[:4]
    assert sum(trial.user_attrs.get("t2v_ranked") is not None for trial in study.trials) == 4


@STORAGES
def test_a_sampler_goes_on_where_an_earlier_one_stopped(ranking, storage, tmp_path):
    """A run that was killed must not spend its whole budget on the ranking when it is started again."""
    storage = storage(tmp_path)

    def run(order, n):
        study = optuna.create_study(
            study_name="search",
            storage=storage(),
            load_if_exists=True,
            sampler=RankedCheckpointSampler(order, n_trials=8, top_k=6, seed=0),
        )
        study.optimize(objective_of(order), n_trials=n)
        return study

    run(ranking, 3)
    study = run(ranking, 5)
    ranked = [trial.user_attrs.get("t2v_ranked") is not None for trial in study.trials]

    assert tuple(tried(study)[:4]) == ranking.ranked[:4]
    assert ranked == [True] * 4 + [False] * 4

    reverse = of(ranking, 5, 4, 3, 2, 1, 0)
    untried = [id for id in reverse.ranked if id not in tried(study)]
    study = run(reverse, 2)

    assert tried(study)[8 : 8 + len(untried)] == untried[:2]


def test_the_sampler_keeps_a_study_s_choices_and_says_once_what_is_left_out(ranking):
    """A name that is none of the choices would end the run."""
    study = new_study()
    study.enqueue_trial({"checkpoint": ranking.ranked[0]})
    study.optimize(objective_of(of(ranking, 0, 1, 2, 3)), n_trials=1)
    after = of(ranking, 4, 3, 5, 2)
    study.sampler = RankedCheckpointSampler(after, n_trials=20, top_k=4, seed=0)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        study.optimize(objective_of(after), n_trials=4)

    assert [w.category for w in caught] == [FewCandidatesWarning]
    assert "2 of the ranking's candidates are none of them and are left out" in str(caught[0].message)
    assert tried(study)[1:3] == [ranking.ranked[3], ranking.ranked[2]]
    assert set(tried(study)) <= set(ranking.ranked[:4])


def test_a_candidate_that_is_not_offered_is_not_given(ranking):
    """An objective may offer other choices than the sampler knows of."""
    own = ranking.choices[:2]
    study = new_study(RankedCheckpointSampler(ranking, n_trials=20, top_k=6, seed=0))
    study.optimize(lambda trial: len(trial.suggest_categorical("checkpoint", own)), n_trials=8)

    assert set(tried(study)) <= set(own)


def test_threads_take_no_candidate_twice(ranking):
    """`n_jobs` shares one sampler among threads."""
    study = new_study(RankedCheckpointSampler(ranking, n_trials=6, top_k=6, share=1, seed=0))
    study.optimize(objective_of(ranking), n_trials=6, n_jobs=4)

    assert sorted(tried(study)) == sorted(ranking.ranked)


def test_processes_take_no_candidate_twice(digits_pool, ranking, tmp_path):
    """They know of each other only by what the storage holds."""
    storage = journal(tmp_path)  # under load SQLite may end one of them with "database is locked"
    new_study(storage=storage(), study_name="search")

    workers = [start(digits_pool, tmp_path, "journal", n=3, enqueue=False) for _ in range(2)]
    for worker in workers:
        _, err = worker.communicate(timeout=300)
        assert worker.returncode == 0, err[-3000:]

    study = optuna.load_study(study_name="search", storage=storage())
    assert sorted(tried(study)) == sorted(ranking.ranked)


class Interleaved(InMemoryStorage):
    """Lets another worker act just before, or just after, a trial's candidate is written down."""

    def __init__(self, when):
        super().__init__()
        self.when, self.other = when, None

    def set_trial_user_attr(self, trial_id, key, value):
        other, self.other = self.other, None
        if other is not None and self.when == "before":
            other()
        super().set_trial_user_attr(trial_id, key, value)
        if other is not None and self.when == "after":
            other()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("begun", ["earlier", "later"])
def test_workers_that_choose_at_the_same_moment_move_on(ranking, when, begun):
    """Between a look at the storage and a note in it another may take the same; threads would wait."""
    storage = Interleaved(when)
    study = new_study(RankedCheckpointSampler(ranking, n_trials=6, top_k=6, share=1), storage=storage)
    rival = optuna.load_study(
        study_name=study.study_name,
        storage=storage,
        sampler=RankedCheckpointSampler(ranking, n_trials=6, top_k=6, share=1),
    )
    trials = []
    if begun == "earlier":  # the rival's trial is there, and has not chosen yet
        number = storage.create_new_trial(study._study_id)
        storage.other = lambda: trials.append(optuna.Trial(rival, number))
    else:
        storage.other = lambda: trials.append(rival.ask())

    trials.append(study.ask())
    trials += [study.ask() for _ in range(4)]

    assert sorted(suggest_checkpoint(trial, ranking) for trial in trials) == sorted(ranking.ranked)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_pruner_with_brackets_hides_no_trial(ranking):
    """Hyperband shows a sampler the trials of one bracket only."""
    pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=9)
    study = new_study(RankedCheckpointSampler(ranking, n_trials=12, top_k=6, seed=0), pruner=pruner)

    def objective(trial):
        value = objective_of(ranking)(trial)
        trial.report(value, 1)
        if trial.should_prune():
            raise optuna.TrialPruned
        return value

    study.optimize(objective, n_trials=12)

    assert tuple(tried(study)[:6]) == ranking.ranked


def test_a_seed_beside_a_sampler_is_refused(ranking):
    """It would be ignored."""
    with pytest.raises(SettingsError, match=r"give it to RandomSampler\(seed=…\) instead"):
        RankedCheckpointSampler(ranking, RandomSampler(), n_trials=4, top_k=6, seed=1)
    with pytest.raises(SettingsError, match="n_trials must be a whole number >= 1"):
        RankedCheckpointSampler(ranking, n_trials=0, top_k=6)


def test_the_sampler_is_named_with_its_base(ranking):
    """Optuna's messages name the sampler."""
    sampler = RankedCheckpointSampler(ranking, n_trials=4, top_k=6)

    assert str(sampler) == "RankedCheckpointSampler(TPESampler)"


def test_ray_tune_takes_the_sampler(ranking):
    """`OptunaSearch` has no points to begin with that leave parameters open, but it takes a sampler."""
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    space = {"checkpoint": tune.choice(list(ranking.choices)), "rate": tune.loguniform(1e-5, 1e-1)}
    sampler = RankedCheckpointSampler(ranking, n_trials=6, top_k=6, seed=0)
    search = OptunaSearch(space, metric="accuracy", mode="max", sampler=sampler)
    found = []
    for number in range(4):
        found.append(search.suggest(str(number))["checkpoint"])
        search.on_trial_complete(str(number), {"accuracy": 0.5, "training_iteration": 1})

    assert tuple(found[:3]) == ranking.ranked[:3]


# Without Optuna


ABSENT = "MissingDependencyError: This needs optuna, which is not installed: pip install 't2v-hub[optuna]'"


@pytest.mark.parametrize(
    ("module", "absent", "message"),
    [
        ("optuna", "optuna", ABSENT),
        ("optuna_study", "optuna", ABSENT),
        ("optuna_sampler", "optuna", ABSENT),
        ("optuna", "colorlog", "ModuleNotFoundError: No module named 'colorlog'"),
    ],
)
def test_an_absent_optuna_is_named_and_a_broken_one_is_not_hidden(module, absent, message):
    """Installing what is installed already would not help."""
    code = textwrap.dedent(
        f"""
        import sys

        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name == {absent!r}:
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

        sys.meta_path.insert(0, Absent())
        import t2v_hub_integrations.{module}
        """
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)

    assert done.returncode == 1
    assert message in done.stderr.splitlines()[-1]


def test_a_checkpoint_that_could_not_be_fetched_is_tried_again(ranking):
    """The Hub was down for a minute; the best candidate must not be lost to the study for that."""
    away = replace(ranking[0], candidate=replace(ranking[0].candidate, id="org/away", library=None))
    mixed = replace(ranking, items=(away, *ranking.items[1:]))
    study = new_study()
    found = enqueue_ranked(study, mixed, n_trials=2, top_k=6)

    def objective(trial):
        suggest_checkpoint(trial, found)
        load_suggested(trial, found)
        return 0.0

    study.optimize(objective, n_trials=1)
    assert "the Hub did not answer" in failures(study)["org/away"]
    again, once_more = (enqueue_ranked(study, mixed, n_trials=2, top_k=6) for _ in range(2))

    assert (found.enqueued, again.enqueued, once_more.enqueued) == (("org/away",), ("org/away",), ())
    assert [trial.state for trial in study.trials] == [TrialState.PRUNED, TrialState.WAITING]

    study.optimize(objective_of(found), n_trials=1)  # now it loads
    assert study.trials[1].state == TrialState.COMPLETE
    assert enqueue_ranked(study, mixed, n_trials=2, top_k=6).enqueued == ()


def test_the_best_trial_of_a_study_with_other_choices_can_be_repeated(ranking):
    """``objective(FixedTrial(study.best_params))`` is what Optuna's own documentation ends with."""
    study = new_study()
    enqueue_ranked(study, of(ranking, 0, 1), n_trials=4, top_k=2)
    study.optimize(objective_of(of(ranking, 0, 1)), n_trials=1)
    with pytest.warns(FewCandidatesWarning):
        found = enqueue_ranked(study, of(ranking, 1, 2), n_trials=4, top_k=2)

    repeated = suggest_checkpoint(optuna.trial.FixedTrial({"checkpoint": ranking.ranked[0]}), found)

    assert repeated == ranking.ranked[0]
    assert repeated not in found.candidates


# The example and the benchmark


def test_the_example_searches_and_prints_what_it_found(digits_hub, tmp_path):
    """It is what people copy from."""
    arguments = ["--data", DATA, "--trials", "3", "--epochs", "1"]
    done = digits_hub.run(ROOT / "examples" / "optuna_search.py", arguments, tmp_path)

    lines = done.stdout.splitlines()
    assert lines[0].startswith("Tried first: digits/")
    assert lines[-1].startswith("Best of 3: digits/")


def test_the_benchmark_of_searches_finds_what_is_there(digits_pool, tmp_path):
    """What is paid for twice, or judged on what was searched on, would tell nothing."""
    command = [sys.executable, str(ROOT / "benchmarks" / "search.py"), "--folder", str(tmp_path), "--quick"]
    command += ["--catalog", str(digits_pool.catalog)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    assert done.returncode == 0, done.stderr[-3000:]
    path = tmp_path / "tunings.jsonl"
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({row["key"] for row in kept}) == len(kept) == 2 * 6 * 2
    assert all(0 <= row["test"] <= 1 and 0 <= row["validation"] <= 1 for row in kept)
    assert "1 tasks, 2 seeds, 2 repeats, 12 combinations; 24 new fine-tunings" in done.stdout
    assert done.stdout.count("| shuffled |") == 2
    of_seed = [[row for row in kept if row["key"].endswith(f"seed {seed}")] for seed in (0, 1)]
    best = [max(rows, key=lambda row: row["validation"])["validation"] for rows in of_seed]
    found = [
        {row["test"] for row in rows if row["validation"] == top}
        for rows, top in zip(of_seed, best, strict=True)
    ]
    means = {f"{50 * (one + two):.1f}" for one in found[0] for two in found[1]}
    assert any(f"everything: {mean} (" in done.stdout for mean in means)

    with path.open("a") as file:
        file.write('{"key": "torn')  # by a run that was killed
    tunings = Tunings(path)
    for row in kept:
        assert tunings(row["key"], lambda: pytest.fail("paid for twice")).test == row["test"]
    tunings("another", lambda: Tuned(0.5, 0.25))
    assert Tunings(path).kept["another"] == Tuned(0.5, 0.25)
