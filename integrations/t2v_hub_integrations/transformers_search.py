"""`checkpoint_search`: what `Trainer.hyperparameter_search` needs to search among ranked candidates."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import datasets
import torch
from transformers import PreTrainedModel

from t2v_hub import ModelSelector, Preprocessing, Ranking
from t2v_hub.data import load
from t2v_hub.errors import CheckpointError, SettingsError
from t2v_hub_integrations.candidates import Candidates
from t2v_hub_integrations.dependency import missing
from t2v_hub_integrations.transformers_best import BestModel, best_model
from t2v_hub_integrations.transformers_images import ImageCollator
from t2v_hub_integrations.transformers_trials import Trials

if TYPE_CHECKING:
    from transformers import Trainer
    from transformers.trainer_utils import BestRun

CHECKPOINT = "checkpoint"
"""What the choice is called among a trial's hyperparameters."""

Backend = Literal["optuna", "ray"]
Direction = Literal["maximize", "minimize"]
Space = Callable[[Any], Mapping[str, Any]]
Objective = Callable[[dict[str, float]], float]


@dataclass(frozen=True, eq=False)
class CheckpointSearch:
    """The parts of a `Trainer` that search among the candidates of a ranking; made by `checkpoint_search`.

    Attributes:
        candidates: What is searched among, best first.
        backend: Which tool searches.
        n_trials: How many trials.
        direction: Whether the objective is to be large or small.
        seed: Of the sampler.
        trials: The checkpoint whose trial it is, and what became of the others.
    """

    candidates: Candidates
    backend: Backend
    n_trials: int
    direction: Direction
    seed: int | None
    trials: Trials = field(repr=False)
    _space: Space | None = field(repr=False)
    _objective: Objective | None = field(repr=False)

    @property
    def failures(self) -> Mapping[str, str]:
        """Why candidates did not load, by id; after `best_model` also which failed in all trials on Ray."""
        return {**self.trials.failed_elsewhere, **self.trials.failures}

    @property
    def _searched(self) -> Candidates:
        """The candidates but for those that are known not to load: the `Trainer` has tried the first ones."""
        return self.candidates.without(self.trials.failures)

    @property
    def search_kwargs(self) -> dict[str, Any]:
        """Arguments of `Trainer.hyperparameter_search`: backend, budget, space, objective, and the order.

        For Optuna a sampler that tries the candidates in ranked order in the first half of the trials, for
        Ray a search algorithm that does. Add to them (``storage=…``, ``resources_per_trial=…``) at will.
        """
        common = {
            "backend": self.backend,
            "n_trials": self.n_trials,
            "direction": self.direction,
            "hp_space": self.hp_space,
            "compute_objective": self.compute_objective,
        }
        searched = self._searched
        if self.backend == "ray":
            from t2v_hub_integrations.ray import ranked_search_alg

            order = ranked_search_alg(searched, n_trials=self.n_trials, top_k=len(searched), seed=self.seed)
            return {**common, "search_alg": order, "raise_on_failed_trial": False}
        from t2v_hub_integrations.optuna import RankedCheckpointSampler

        sampler = RankedCheckpointSampler(
            searched, n_trials=self.n_trials, top_k=len(searched), seed=self.seed
        )
        return {**common, "sampler": sampler}

    def model_init(self, trial: Any = None) -> PreTrainedModel:
        """The model of a trial, with a fresh head; from now on batches are made for it.

        Args:
            trial: As `Trainer` hands it over. None, as for a `Trainer` that is made or that trains without a
                search, is the best candidate that loads, and after `best_model` that of the best trial.

        Raises:
            TrialPruned: The checkpoint does not load; with Optuna.
            CheckpointError: It does not load, with Ray; or none of all candidates does.
            SettingsError: Several processes search together with Optuna.
        """
        if trial is None:
            return self.trials.first()
        if self.backend == "ray":
            return self.trials.load(str(trial[CHECKPOINT]))
        import optuna

        from t2v_hub_integrations.optuna import suggest_checkpoint
        from t2v_hub_integrations.optuna_study import remember_failure

        if _n_processes() > 1:
            raise SettingsError(
                "The search runs in several processes (torchrun), which could not pass over a checkpoint "
                "that does not load. Search in one process, and train the best model in several; or search "
                "with backend='ray'."
            )
        id = suggest_checkpoint(trial, self._searched, top_k=len(self.candidates), parameter=CHECKPOINT)
        self.trials.start(int(trial.number))
        try:
            return self.trials.load(id)
        except CheckpointError as error:
            remember_failure(trial, id, error)
            raise optuna.TrialPruned(f"{id} does not load: {error}") from error

    def data_collator(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """A batch for the current trial's checkpoint, its images prepared as it wants them.

        Raises:
            SettingsError: No checkpoint was loaded, or workers of an earlier trial's loader still run.
            DataError: Rows that cannot be used; see `ImageCollator`.
        """
        return self.trials.batch(rows)

    def hp_space(self, trial: Any) -> dict[str, Any]:
        """Hyperparameters of a trial: the checkpoint, and those of the user's own space.

        Raises:
            SettingsError: The user's own space has a hyperparameter of that name.
        """
        own = self.own_space(trial)
        if self.backend == "ray":
            from t2v_hub_integrations.ray import ranked_space

            return {**ranked_space(self._searched, top_k=len(self.candidates)), **own}
        # The checkpoint is among the trial's parameters, since model_init; here are TrainingArguments only.
        return own

    def own_space(self, trial: Any) -> dict[str, Any]:
        """The user's own part of `hp_space`."""
        own = {} if self._space is None else dict(self._space(trial))
        if CHECKPOINT in own:
            raise SettingsError(
                f"hp_space gives {CHECKPOINT!r}, which the ranking gives already. Take it out there."
            )
        return own

    def compute_objective(self, metrics: dict[str, float]) -> float:
        """The user's own; else ``eval_accuracy``, or the loss where that is not measured (`accuracy`)."""
        if self._objective is not None:
            return self._objective(metrics)
        if "eval_accuracy" in metrics:
            return metrics["eval_accuracy"] if self.direction == "maximize" else 1 - metrics["eval_accuracy"]
        return -metrics["eval_loss"] if self.direction == "maximize" else metrics["eval_loss"]

    def best_model(
        self, trainer: "Trainer", best_run: "BestRun", *, retrain: bool | None = None
    ) -> BestModel:
        """The best trial's model, trained, in hand and in the trainer, which by itself keeps the last one.

        Afterwards ``trainer.evaluate``, ``save_model`` and ``push_to_hub`` are about it.

        Args:
            trainer: The one that searched.
            best_run: What ``trainer.hyperparameter_search`` returned.
            retrain: False takes the weights that the best trial saved, True trains again with its
                hyperparameters; None trains again where it saved none. With Optuna those are the last ones,
                or its best ones with ``load_best_model_at_end``; with Ray the last ones, where they are those
                that its objective was measured on.

        Raises:
            SettingsError: No single best run, or ``retrain=False`` where the trial saved no weights.
            CheckpointError: Its checkpoint does not load any more.

        Warns:
            SkippedCheckpointsWarning: Candidates did not load and were passed over in the search.
        """
        return best_model(self, trainer, best_run, retrain=retrain)


def checkpoint_search(
    selector: Candidates | Ranking | ModelSelector,
    ds: datasets.Dataset,
    *,
    top_k: int = 20,
    n_trials: int = 20,
    backend: Backend = "optuna",
    hp_space: Space | None = None,
    compute_objective: Objective | None = None,
    direction: Direction = "maximize",
    image_column: str | None = None,
    label_column: str | None = None,
    seed: int | None = 0,
    **options: Any,
) -> CheckpointSearch:
    """The parts of a `Trainer` that search among the best candidates for a data set.

    The trainer needs `model_init`, `data_collator` and ``TrainingArguments(remove_unused_columns=False)``.

    Args:
        selector: Bound to the task (`AutoSelector.from_task`); or a ranking, or candidates.
        ds: The data set that is trained on; evaluation sets have the same columns and classes.
        top_k: How many candidates are searched among, at most.
        n_trials: How many trials; the first half goes by the ranking, the rest by what was found.
        backend: Which tool searches.
        hp_space: Other hyperparameters of a trial, as ``hp_space`` of `Trainer.hyperparameter_search`.
            Without it only the checkpoint is searched for.
        compute_objective: As of `Trainer.hyperparameter_search`; by default the accuracy, or the loss.
        direction: ``minimize`` where the objective is to be small.
        image_column: Column of the images, where it is not evident.
        label_column: Column of the labels, where it is not evident.
        seed: Of the sampler.
        **options: Further arguments of `ModelSelector.rank`, such as ``where`` and ``refine``.

    Raises:
        SettingsError: An argument that cannot be.
        EmptyCatalogError: There is no candidate.
        MissingDependencyError: The backend is not installed.
        DataError: The data set has no images with one label each; subclasses say why.
    """
    if backend not in get_args(Backend):
        raise SettingsError(f"backend must be 'optuna' or 'ray'; got {backend!r}.")
    if direction not in get_args(Direction):
        raise SettingsError(f"direction must be 'maximize' or 'minimize'; got {direction!r}.")
    if isinstance(n_trials, bool) or not isinstance(n_trials, int) or n_trials < 1:
        raise SettingsError(f"n_trials must be a whole number >= 1; got {n_trials!r}.")
    _require(backend)
    candidates = Candidates.of(selector, top_k=top_k, **options)
    rows = ImageCollator.of(
        ds, preprocessing=Preprocessing(), image_column=image_column, label_column=label_column
    )
    task = load(ds, image_column=rows.image_column, label_column=rows.label_column)
    trials = Trials(candidates, task, rows)
    return CheckpointSearch(
        candidates, backend, n_trials, direction, seed, trials, hp_space, compute_objective
    )


def _n_processes() -> int:
    group = torch.distributed
    return group.get_world_size() if group.is_available() and group.is_initialized() else 1


def _require(backend: Backend) -> None:
    try:
        if backend == "ray":
            import ray.tune  # noqa: F401
        else:
            import optuna  # noqa: F401
    except ModuleNotFoundError as error:
        raise missing(error, backend) from error
