"""`StudyCandidates`: which checkpoints an Optuna study searches among, and what it remembers of them."""

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

try:
    import optuna
except ModuleNotFoundError as error:
    from t2v_hub_integrations.dependency import missing

    raise missing(error, "optuna") from error

from t2v_hub import ModelSelector, Ranking
from t2v_hub.errors import CheckpointError, FewCandidatesWarning, ProbeUnreachableError, SettingsError
from t2v_hub_integrations.candidates import Candidates, unranked

if TYPE_CHECKING:
    import torch

TOP_K = 20
"""So many choices at most. Beyond, a search seldom learns anything about most of them."""

_CHOICES = "t2v_choices"
_RANKED = "t2v_ranked"
_FAILED = "t2v_failed"


@dataclass(frozen=True)
class StudyCandidates:
    """The checkpoints that a study searches among, and in which order they are worth a try.

    The first trial of a study fixes the choices of a parameter: Optuna refuses others, and another order of
    the same. So a study that goes on with another ranking keeps the choices that it has.

    Attributes:
        candidates: The first of the ranking, best first.
        choices: What the study chooses among, as `suggest_checkpoint` hands it to Optuna.
        parameter: What the choice is called in the study.
        enqueued: Which were enqueued now, best first.
    """

    candidates: Candidates
    choices: tuple[str, ...]
    parameter: str
    enqueued: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        study: optuna.Study,
        selection: "StudyCandidates | Candidates | Ranking | ModelSelector",
        *,
        top_k: int,
        parameter: str,
    ) -> Self:
        """What a study searches among; where it has no choices yet, it is to keep those of ``selection``.

        Raises:
            SettingsError: The study has a parameter of that name whose choices are no texts.
            EmptyCatalogError: The ranking has no candidate.
        """
        candidates = first(selection, top_k=top_k)
        return cls(candidates, kept_choices(study, candidates.choices, parameter=parameter), parameter)

    def __len__(self) -> int:
        return len(self.choices)

    def __contains__(self, id: object) -> bool:
        return id in self.choices

    @property
    def ranked(self) -> tuple[str, ...]:
        """The choices, best first; behind, sorted, those that the ranking does not have."""
        ids = self.candidates.ranked
        return within(ids, self.choices) + tuple(sorted(set(self.choices) - set(ids)))

    @property
    def left_out(self) -> tuple[str, ...]:
        """Ids of the ranking that are none of the study's choices, best first."""
        return tuple(id for id in self.candidates.ranked if id not in self.choices)

    def load(self, id: str, data: object = None, **options: Any) -> "torch.nn.Module":
        """A choice as a network that is ready to be fine-tuned, as `Candidates.load`.

        One that the ranking does not have is loaded by its id alone, in its newest revision.

        Raises:
            CandidateNotFoundError: It is none of the choices.
            CheckpointError: It does not load.
        """
        if id in self.choices and id not in self.candidates:
            return unranked(id, n_before=len(self.candidates)).load(data, **options)
        return self.candidates.load(id, data, **options)


def first(selection: "StudyCandidates | Candidates | Ranking | ModelSelector", *, top_k: int) -> Candidates:
    """The first ``top_k``."""
    if isinstance(selection, StudyCandidates):
        selection = selection.candidates
    return Candidates.of(selection, top_k=top_k)


def within(ids: Sequence[str], choices: Sequence[str]) -> tuple[str, ...]:
    """Those of ``ids`` that are among the choices, in their own order."""
    return tuple(id for id in ids if id in choices)


def trials_of(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """All trials of a study, not to be changed.

    The storage is asked, as Optuna's own samplers do: a sampler may be given a study that shows some trials
    only (those of one bracket of ``HyperbandPruner``).
    """
    return study._storage.get_all_trials(study._study_id, deepcopy=False)


def choices_of(distribution: object, *, parameter: str) -> tuple[str, ...]:
    """The choices of a stored parameter.

    Raises:
        SettingsError: It is no choice among texts.
    """
    choices = getattr(distribution, "choices", ())
    if not choices or not all(isinstance(choice, str) for choice in choices):
        raise SettingsError(
            f"The study has a parameter {parameter!r} already, which is no choice among checkpoints: "
            f"{distribution}. Take another name, parameter=…, or another study."
        )
    return tuple(choices)


def stored_choices(study: optuna.Study, *, parameter: str) -> tuple[str, ...] | None:
    """What the study chooses among; None where no trial has chosen and nothing is agreed upon.

    Raises:
        SettingsError: The parameter is no choice among texts.
    """
    for trial in trials_of(study):
        if parameter in trial.distributions:
            return choices_of(trial.distributions[parameter], parameter=parameter)
    agreed = study._storage.get_study_user_attrs(study._study_id).get(f"{_CHOICES}:{parameter}")
    if isinstance(agreed, list) and agreed and all(isinstance(choice, str) for choice in agreed):
        return tuple(agreed)
    return None


def kept_choices(study: optuna.Study, choices: Sequence[str], *, parameter: str) -> tuple[str, ...]:
    """What the study chooses among; where that is open it keeps ``choices``, for other processes too."""
    if (stored := stored_choices(study, parameter=parameter)) is not None:
        return stored
    study._storage.set_study_user_attr(study._study_id, f"{_CHOICES}:{parameter}", list(choices))
    # Read again: another process may have been quicker or slower, and the last one to write is right.
    return stored_choices(study, parameter=parameter) or tuple(choices)


def warn_of_left_out(left_out: Sequence[str], *, n_choices: int, stacklevel: int) -> None:
    """One warning that names the first candidates that a study cannot take any more, if there are any."""
    if left_out:
        named = ", ".join(left_out[:5]) + (" …" if len(left_out) > 5 else "")
        warnings.warn(
            f"The study chooses among {n_choices} checkpoints since its first trial, which Optuna cannot "
            f"change; {len(left_out)} of the ranking's candidates are none of them and are left out: "
            f"{named}. A new study can take them.",
            FewCandidatesWarning,
            stacklevel=stacklevel + 1,
        )


def ranking_id(ranked: Sequence[str], *, parameter: str) -> str:
    """A short name of an order of candidates."""
    return hashlib.sha256(json.dumps([parameter, *ranked]).encode()).hexdigest()[:12]


def mark(ranking: str, id: str) -> dict[str, dict[str, str]]:
    """The user attribute of a trial that takes a candidate because it was its turn in a ranking."""
    return {_RANKED: {"ranking": ranking, "checkpoint": id}}


def marked(attributes: Mapping[str, object], *, ranking: str) -> str | None:
    """Which candidate a trial with these user attributes takes because it was its turn in this ranking."""
    attribute = attributes.get(_RANKED)
    if not isinstance(attribute, dict) or attribute.get("ranking") != ranking:
        return None
    id = attribute.get("checkpoint")
    return id if isinstance(id, str) else None


def set_mark(study: optuna.Study, trial: optuna.trial.FrozenTrial, ranking: str, id: str | None) -> None:
    """Writes down that a trial takes a candidate, or none, for all other processes to see."""
    value = None if id is None else mark(ranking, id)[_RANKED]
    study._storage.set_trial_user_attr(trial._trial_id, _RANKED, value)


def taken_by(trial: optuna.trial.FrozenTrial, *, ranking: str, parameter: str) -> set[str]:
    """Which candidates a trial has, or is to have."""
    fixed = trial.system_attrs.get("fixed_params", {})
    ids = (trial.params.get(parameter), fixed.get(parameter), marked(trial.user_attrs, ranking=ranking))
    return {id for id in ids if isinstance(id, str)}


def remember_failure(trial: optuna.trial.BaseTrial, id: str, error: CheckpointError) -> None:
    """Writes down that a checkpoint did not load in a trial, and whether it may load another time."""
    may_pass = isinstance(error.__cause__, ProbeUnreachableError)
    trial.set_user_attr(_FAILED, {"checkpoint": id, "error": str(error), "may_pass": may_pass})


def failures(study: optuna.Study) -> dict[str, str]:
    """Why checkpoints did not load in a study, by id, in the order in which that was found."""
    return {id: str(failure.get("error", "")) for id, failure in _failures(study).items()}


def broken(study: optuna.Study) -> set[str]:
    """Which checkpoints did not load in a study, and will not; one that could not be fetched may, later."""
    return {id for id, failure in _failures(study).items() if not failure.get("may_pass")}


def in_hand(study: optuna.Study, *, parameter: str) -> set[str]:
    """Which checkpoints have a trial that is complete, at work or enqueued."""
    ended_badly = (optuna.trial.TrialState.PRUNED, optuna.trial.TrialState.FAIL)
    trials = [trial for trial in trials_of(study) if trial.state not in ended_badly]
    return set[str]().union(*(taken_by(trial, ranking="", parameter=parameter) for trial in trials))


def _failures(study: optuna.Study) -> dict[str, Mapping[str, object]]:
    found: dict[str, Mapping[str, object]] = {}
    for trial in trials_of(study):
        attribute = trial.user_attrs.get(_FAILED)
        if isinstance(attribute, dict) and isinstance(attribute.get("checkpoint"), str):
            found[attribute["checkpoint"]] = attribute
    return found
