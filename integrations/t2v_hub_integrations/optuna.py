"""Optuna: a study that tries checkpoints in ranked order first, and goes on from there.

Optuna has no prior over the values of a choice, so the order of a ranking goes into which trials come first.
"""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

try:
    import optuna
except ModuleNotFoundError as error:
    from t2v_hub_integrations.dependency import missing

    raise missing(error, "optuna") from error

from t2v_hub import ModelSelector, Ranking
from t2v_hub.errors import CheckpointError, FewCandidatesWarning, SettingsError
from t2v_hub_integrations.candidates import Candidates, n_ranked
from t2v_hub_integrations.optuna_sampler import RankedCheckpointSampler
from t2v_hub_integrations.optuna_study import (
    TOP_K,
    StudyCandidates,
    broken,
    choices_of,
    failures,
    first,
    in_hand,
    kept_choices,
    mark,
    marked,
    ranking_id,
    remember_failure,
    stored_choices,
    trials_of,
    warn_of_left_out,
    within,
)

if TYPE_CHECKING:
    import torch

__all__ = [
    "RankedCheckpointSampler",
    "StudyCandidates",
    "enqueue_ranked",
    "failures",
    "load_suggested",
    "suggest_checkpoint",
]


def enqueue_ranked(
    study: optuna.Study,
    selection: StudyCandidates | Candidates | Ranking | ModelSelector,
    *,
    n_trials: int,
    top_k: int = TOP_K,
    parameter: str = "checkpoint",
    share: float = 0.5,
    extra: Mapping[str, Any] | None = None,
) -> StudyCandidates:
    """What the study searches among, after the first candidates were enqueued, best first.

    A trial that the study has already is not enqueued again, so a script may run twice; nor is a checkpoint
    that did not load in the study; one that could not be fetched is, for the Hub may answer now. Call it
    once, before several workers start.

    A study that goes on with another ranking keeps its choices: candidates that the ranking has no more stay
    among them, behind; new ones are left out, with a `FewCandidatesWarning`.

    Args:
        study: New, or to go on.
        selection: A ranking, a selector that is bound to a task, or candidates.
        n_trials: How many trials are to be made.
        top_k: How many candidates the study chooses among, at most.
        parameter: What the choice of the checkpoint is called.
        share: Of the trials that go by the ranking, at most; rounded down, but one trial at least.
        extra: Other parameters of these trials, such as a learning rate that is known to work; those that
            are not given are the sampler's.

    Raises:
        SettingsError: A number that cannot be, ``extra`` that names the checkpoint, or a study with
            another kind of parameter of this name.
        EmptyCatalogError: The ranking has no candidate.
    """
    budget = n_ranked(n_trials, share)
    fixed = dict(extra or {})
    if parameter in fixed:
        raise SettingsError(
            f"extra fixes {parameter!r}, which the ranking is to give. Leave it out, or enqueue that trial "
            f"with study.enqueue_trial."
        )
    found = StudyCandidates.of(study, selection, top_k=top_k, parameter=parameter)
    warn_of_left_out(found.left_out, n_choices=len(found), stacklevel=2)
    gone = broken(study)
    order = [id for id in within(found.candidates.ranked, found.choices) if id not in gone]
    ranking = ranking_id(found.candidates.ranked, parameter=parameter)
    n_before = len(trials_of(study))
    again = failures(study).keys() - gone - in_hand(study, parameter=parameter)
    for id in order[:budget]:
        once = id not in again  # what could not be fetched has a trial, which says nothing of it
        study.enqueue_trial({parameter: id, **fixed}, user_attrs=mark(ranking, id), skip_if_exists=once)
    new = {marked(trial.user_attrs, ranking=ranking) for trial in trials_of(study)[n_before:]}
    return replace(found, enqueued=tuple(id for id in order[:budget] if id in new))


def suggest_checkpoint(
    trial: optuna.trial.BaseTrial,
    selection: StudyCandidates | Candidates | Ranking | ModelSelector,
    *,
    top_k: int = TOP_K,
    parameter: str = "checkpoint",
) -> str:
    """Id of the checkpoint that a trial is to try.

    The choices are the study's own where it has any, whatever the ranking says now; else the first ``top_k``,
    sorted, so that another ranking of the same candidates can go on with the study.

    Args:
        trial: What the objective was called with; also a ``FixedTrial``, or a trial that is to be repeated.
        selection: As for `enqueue_ranked`, or what it returned.
        top_k: How many candidates a study without choices is to choose among, at most.
        parameter: What the choice is called.

    Raises:
        SettingsError: The study has another kind of parameter of this name.
        EmptyCatalogError: The ranking has no candidate.
    """
    study = trial.study if isinstance(trial, optuna.Trial) else None
    choices = None if study is None else stored_choices(study, parameter=parameter)
    if study is None and parameter in trial.distributions:
        choices = choices_of(trial.distributions[parameter], parameter=parameter)
    elif study is None and isinstance(selection, StudyCandidates):
        choices = selection.choices
    if choices is None:
        with warnings.catch_warnings():  # of each trial; who makes the study is told
            warnings.simplefilter("ignore", FewCandidatesWarning)
            choices = first(selection, top_k=top_k).choices
        if study is not None:
            choices = kept_choices(study, choices, parameter=parameter)
    return trial.suggest_categorical(parameter, choices)


def load_suggested(
    trial: optuna.trial.BaseTrial,
    selection: StudyCandidates | Candidates | Ranking | ModelSelector,
    data: object = None,
    *,
    parameter: str = "checkpoint",
    **options: Any,
) -> "torch.nn.Module":
    """The trial's checkpoint as a network that is ready to be fine-tuned.

    One that does not load prunes the trial, so that the search goes on; `failures` names it afterwards.

    Args:
        trial: After `suggest_checkpoint`.
        selection: As for `suggest_checkpoint`.
        data: Labelled images, for a fresh head with one output per class.
        parameter: What the choice is called.
        **options: Further arguments of `RankedCandidate.load`, such as ``cache_dir``.

    Raises:
        TrialPruned: The checkpoint does not load.
        SettingsError: The trial has no checkpoint yet.
    """
    if parameter not in trial.params:
        raise SettingsError(
            f"The trial has no {parameter!r} yet: call suggest_checkpoint(trial, …, parameter={parameter!r}) "
            f"before its checkpoint is loaded."
        )
    id = trial.params[parameter]
    if not isinstance(selection, StudyCandidates):
        candidates = Candidates.of(selection)
        selection = StudyCandidates(candidates, (*candidates.choices, id), parameter)
    try:
        return selection.load(id, data, **options)
    except CheckpointError as error:
        remember_failure(trial, id, error)
        raise optuna.TrialPruned(f"{id} does not load: {error}") from error
