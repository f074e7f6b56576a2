"""`RankedCheckpointSampler`: an Optuna sampler that tries checkpoints in ranked order first."""

import threading
from collections.abc import Sequence
from typing import Any

try:
    import optuna
except ModuleNotFoundError as error:
    from t2v_hub_integrations.dependency import missing

    raise missing(error, "optuna") from error

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from t2v_hub import ModelSelector, Ranking
from t2v_hub.errors import SettingsError
from t2v_hub_integrations.candidates import Candidates, n_ranked
from t2v_hub_integrations.optuna_study import (
    TOP_K,
    StudyCandidates,
    broken,
    first,
    kept_choices,
    marked,
    ranking_id,
    set_mark,
    taken_by,
    trials_of,
    warn_of_left_out,
    within,
)


class RankedCheckpointSampler(BaseSampler):
    """Checkpoints in ranked order for a share of the trials, and another sampler for all the rest.

    The first ``share`` of ``n_trials`` take the candidates that no trial of the study has taken, best first;
    a trial that failed, was pruned or never ended has taken its own. All other parameters, and the
    checkpoints of later trials, are the base sampler's. Nothing has to be enqueued, so it serves where
    one hands over a sampler only (``OptunaSearch`` of Ray Tune). A trial that was enqueued with a checkpoint
    keeps it; those of `enqueue_ranked` count as taken from the ranking.

    In the study, the choices must be those of `suggest_checkpoint` (or of `Candidates.choices`): a candidate
    that is not offered is not taken. Which trials had their turn stands in their user attributes.

    Several threads, or processes that share a storage, take no candidate twice as long as whoever reads the
    storage sees what was written before (SQLite, other databases, ``JournalStorage``): each writes down what
    it takes, looks again, and moves on where another took the same. They may take a candidate or two more
    than the share. It can be pickled; under one seed, one worker repeats its trials.

    Args:
        selection: A ranking, a selector that is bound to a task, or candidates.
        base_sampler: Of all that is not ranked; None for ``TPESampler(seed=seed)``.
        n_trials: How many trials the study is to have in all.
        top_k: How many candidates the study chooses among, at most.
        parameter: What the choice of the checkpoint is called.
        share: Of the trials, in (0, 1]; rounded down, but one trial at least.
        seed: Of the default base sampler.

    Raises:
        SettingsError: A number that cannot be, or a seed beside a sampler, which has its own.
        EmptyCatalogError: The ranking has no candidate.
    """

    def __init__(
        self,
        selection: StudyCandidates | Candidates | Ranking | ModelSelector,
        base_sampler: BaseSampler | None = None,
        *,
        n_trials: int,
        top_k: int = TOP_K,
        parameter: str = "checkpoint",
        share: float = 0.5,
        seed: int | None = None,
    ) -> None:
        if base_sampler is not None and seed is not None:
            raise SettingsError(
                f"seed={seed!r} is for the default base sampler; give it to "
                f"{type(base_sampler).__name__}(seed=…) instead."
            )
        self._n_ranked = n_ranked(n_trials, share)
        self._ranked = first(selection, top_k=top_k).ranked
        self._base = TPESampler(seed=seed) if base_sampler is None else base_sampler
        self._parameter = parameter
        self._ranking = ranking_id(self._ranked, parameter=parameter)
        self._has_warned = False
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def __str__(self) -> str:
        return f"{type(self).__name__}({self._base})"

    def reseed_rng(self) -> None:
        """Reseed the base sampler."""
        self._base.reseed_rng()

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Take the trial's candidate, if it is one of those that go by the ranking."""
        self._base.before_trial(study, trial)
        if self._parameter not in trial.system_attrs.get("fixed_params", {}):
            with self._lock:  # threads of one process wait for each other; processes look again
                self._take(study, trial)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The base sampler's, without the checkpoint where the ranking gives it."""
        space = self._base.infer_relative_search_space(study, trial)
        if self._given(study, trial) is None:
            return space
        return {name: distribution for name, distribution in space.items() if name != self._parameter}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """What the base sampler draws, of what it was asked for."""
        # TPESampler(group=True) of older versions draws what it inferred itself, the checkpoint too.
        drawn = self._base.sample_relative(study, trial, search_space)
        return {name: value for name, value in drawn.items() if name in search_space}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The trial's candidate, where it has one and is asked for it; else what the base sampler draws."""
        if param_name == self._parameter:
            given = self._given(study, trial)
            if given is not None and given in getattr(param_distribution, "choices", ()):
                return given
        return self._base.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """What the base sampler does."""
        self._base.after_trial(study, trial, state, values)

    def _given(self, study: optuna.Study, trial: FrozenTrial) -> str | None:
        # Of a trial as the storage has it now: what Optuna passes may be a copy from before `before_trial`.
        attributes = study._storage.get_trial_user_attrs(trial._trial_id)
        return marked(attributes, ranking=self._ranking)

    def _take(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Write down the trial's candidate: the first one free, that nobody took at the same time."""
        order = self._order(study)
        place = 0
        for _ in order:
            others = [other for other in trials_of(study) if other.number != trial.number]
            taken = set[str]().union(*(self._taken_by(other) for other in others))
            turns = {marked(other.user_attrs, ranking=self._ranking) for other in others} - {None}
            free = [id for id in order if id not in taken]
            if len(turns) >= self._n_ranked or place >= len(free):
                break
            set_mark(study, trial, self._ranking, free[place])
            rivals = [
                other.number
                for other in trials_of(study)
                if other.number != trial.number and free[place] in self._taken_by(other)
            ]
            if not rivals:
                return
            # All that see each other move on, each to another place; what they leave is free again.
            place = sum(number < trial.number for number in rivals)
        if self._given(study, trial) is not None:
            set_mark(study, trial, self._ranking, None)

    def _taken_by(self, trial: FrozenTrial) -> set[str]:
        return taken_by(trial, ranking=self._ranking, parameter=self._parameter)

    def _order(self, study: optuna.Study) -> tuple[str, ...]:
        choices = kept_choices(study, tuple(sorted(self._ranked)), parameter=self._parameter)
        order = within(self._ranked, choices)
        if not self._has_warned:
            self._has_warned = True
            left_out = [id for id in self._ranked if id not in choices]
            warn_of_left_out(left_out, n_choices=len(choices), stacklevel=1)
        gone = broken(study)
        return tuple(id for id in order if id not in gone)
