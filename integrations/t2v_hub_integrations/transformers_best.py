"""`best_model`: what a search found, trained, in hand and in the trainer."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import AutoModelForImageClassification, PreTrainedModel, TrainerState
from transformers.trainer_utils import BestRun, get_last_checkpoint

from t2v_hub.errors import SettingsError, SkippedCheckpointsWarning

if TYPE_CHECKING:
    from transformers import BaseImageProcessor, Trainer

    from t2v_hub_integrations.transformers_search import CheckpointSearch

_STATE = "trainer_state.json"


@dataclass(frozen=True)
class BestModel:
    """The best trial's model, trained.

    Attributes:
        model: In evaluation mode, its classes named.
        image_processor: Prepares images for it, as in training.
        checkpoint: Id of the candidate that it started from.
        objective: Of the best trial.
        hyperparameters: Of the best trial.
        retrained: Whether it was trained again; else its weights are those that the trial saved.
        failures: Why other candidates did not load in the search, or failed in all of their trials on Ray,
            by id.
    """

    model: PreTrainedModel
    image_processor: "BaseImageProcessor"
    checkpoint: str
    objective: float
    hyperparameters: Mapping[str, Any]
    retrained: bool
    failures: Mapping[str, str]


def best_model(
    search: "CheckpointSearch",
    trainer: "Trainer",
    best_run: BestRun | list[BestRun] | None,
    *,
    retrain: bool | None,
) -> BestModel:
    """See `CheckpointSearch.best_model`."""
    if not isinstance(best_run, BestRun) or "checkpoint" not in best_run.hyperparameters:
        raise SettingsError(
            f"best_model needs the one BestRun that hyperparameter_search(**search.search_kwargs) returns, "
            f"with the checkpoint among its hyperparameters; got {best_run!r}. Of several runs choose one."
        )
    search.trials.failed_elsewhere.update(_failures_of_ray(best_run))
    id = str(best_run.hyperparameters["checkpoint"])
    saved = None if retrain else _saved(search, trainer, best_run)
    if saved is None and retrain is False:
        raise SettingsError(
            f"Trial {best_run.run_id} saved no weights under {trainer.args.output_dir!r}. Pass retrain=True, "
            f'or search with save_strategy="epoch".'
        )
    processor = search.trials.use(id)
    _set_arguments(search, trainer, best_run)
    if saved is None:
        trainer.train()
        model: Any = trainer.model
    else:
        model = _take_over(trainer, saved)
        if not Path(id).exists():
            model.config._name_or_path = id  # as the card names it; else a folder, of which it says nothing
    trainer.processing_class = trainer.callback_handler.processing_class = processor
    if search.failures:
        named = ", ".join(map(repr, list(search.failures)[:5]))
        warnings.warn(
            f"{len(search.failures)} of {len(search.candidates)} candidates did not load, or failed in every "
            f"trial, and were passed over in the search: {named}. BestModel.failures says why.",
            SkippedCheckpointsWarning,
            stacklevel=3,
        )
    objective: Any = best_run.objective
    return BestModel(
        model.eval(),
        processor,
        id,
        objective,
        dict(best_run.hyperparameters),
        saved is None,
        search.failures,
    )


@dataclass(frozen=True)
class _Saved:
    """Weights that the best trial saved, its own for certain.

    Attributes:
        folder: Where they are.
        seconds: How long the trial took until then.
    """

    folder: Path
    seconds: float


def _saved(search: "CheckpointSearch", trainer: "Trainer", best_run: BestRun) -> _Saved | None:
    """What the best trial saved; None where there is nothing that is its own for certain."""
    if best_run.run_summary is not None:  # Ray's, which knows where it keeps them
        [trial] = [trial for trial in best_run.run_summary.trials if trial.trial_id == best_run.run_id]
        last = None if trial.checkpoint is None else get_last_checkpoint(trial.checkpoint.to_directory())
        if last is None or not _is_of_objective(search, Path(last), best_run):
            return None
        return _Saved(Path(last), float(trial.last_result["time_total_s"]))
    started = search.trials.started(int(best_run.run_id))
    run = Path(str(trainer.args.output_dir)) / f"run-{best_run.run_id}"
    last = get_last_checkpoint(str(run)) if run.is_dir() else None
    if last is None or started is None:
        return None
    folder = Path(last)
    best = TrainerState.load_from_json(str(folder / _STATE)).best_model_checkpoint
    if trainer.args.load_best_model_at_end and best is not None:
        folder = Path(best)
    state = folder / _STATE
    seconds = state.stat().st_mtime - started if state.is_file() else -1.0
    # An earlier search may have left a run of the same number behind.
    return None if seconds < 0 else _Saved(folder, seconds)


def _is_of_objective(search: "CheckpointSearch", folder: Path, best_run: BestRun) -> bool:
    """Whether saved weights are those that the objective was measured on: they may be of an earlier step."""
    log = TrainerState.load_from_json(str(folder / _STATE)).log_history
    measured = [entry for entry in log if any(name.startswith("eval_") for name in entry)]
    objective: Any = best_run.objective
    return bool(measured) and math.isclose(search.compute_objective(measured[-1]), objective, rel_tol=1e-9)


def _take_over(trainer: "Trainer", saved: _Saved) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForImageClassification.from_pretrained(saved.folder)
    model.to(trainer.args.device)  # type: ignore[arg-type]  # its stub wants a class
    trainer.model = trainer.model_wrapped = trainer.callback_handler.model = model
    trainer.optimizer = trainer.lr_scheduler = None
    state = TrainerState.load_from_json(str(saved.folder / _STATE))  # the card tells how it was trained
    # What Trainer itself adds after the last save; without it the card has no results.
    state.log_history.append(
        {"train_runtime": saved.seconds, "epoch": state.epoch or 0.0, "step": state.global_step}
    )
    state.is_hyper_param_search = False  # it is over
    trainer.state = state
    return model


def _set_arguments(search: "CheckpointSearch", trainer: "Trainer", best_run: BestRun) -> None:
    """The best trial's hyperparameters, as the trainer itself sets them for a trial."""
    if search.backend == "ray":
        values = {name: value for name, value in best_run.hyperparameters.items() if name != "checkpoint"}
    else:
        import optuna

        # What a space returns need not be what it asked the trial for.
        values = search.own_space(optuna.trial.FixedTrial(dict(best_run.hyperparameters)))
    for name, value in values.items():
        old = getattr(trainer.args, name, None)
        if hasattr(trainer.args, name):
            setattr(trainer.args, name, value if old is None else type(old)(value))
    trainer._train_batch_size = trainer.args.train_batch_size  # which the loader of images goes by
    trainer.create_accelerator_and_postprocess()


def _failures_of_ray(best_run: BestRun) -> dict[str, str]:
    """Why no trial of a checkpoint came to a result, by its id: one may also have run out of memory once."""
    if best_run.run_summary is None:
        return {}
    import ray

    failures, worked = {}, set()
    for trial in best_run.run_summary.trials:
        id = str(trial.config["checkpoint"])
        if "objective" in (trial.last_result or {}):
            worked.add(id)
        elif trial.status == "ERROR":
            file = trial.error_file if ray.is_initialized() else None  # it lies in the session's folder
            told = Path(file).read_text(encoding="utf-8").strip() if file else "its trial failed"
            failures[id] = told.splitlines()[-1]
    return {id: why for id, why in failures.items() if id not in worked}
