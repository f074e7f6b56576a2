"""AutoGluon MultiModal: the ranking as arguments of ``MultiModalPredictor.fit``.

AutoGluon itself is not imported: it pins older versions of much that others use, and its arguments are
dictionaries. Read and tried with ``autogluon.multimodal`` 1.6.3; 1.4 and 1.5 want the same, but need
transformers below 5, beside which t2v_hub cannot be installed.
"""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import timm
from huggingface_hub import constants
from timm.models import is_model

from t2v_hub import ModelSelector, RankedCandidate, Ranking
from t2v_hub.errors import EmptyCatalogError, FewCandidatesWarning, SettingsError, SkippedCheckpointsWarning
from t2v_hub_integrations.candidates import Candidates
from t2v_hub_integrations.dependency import missing
from t2v_hub_integrations.timm import repository_of

try:
    from ray import tune
except ModuleNotFoundError as error:
    raise missing(error, "ray", extra="autogluon") from error

__all__ = ["AutoGluonNames", "failed_checkpoints", "hpo_kwargs"]

KEY = "model.timm_image.checkpoint_name"
"""The hyperparameter of AutoGluon that says which image network is fine-tuned."""

WEIGHTS = "pytorch_model.bin"
"""The file of a folder that AutoGluon reads weights from."""

_NAMED = 20  # so many names in a warning; a catalog may hold thousands of another library


def hpo_kwargs(
    selection: Candidates | Ranking | ModelSelector,
    *,
    top_k: int = 20,
    n_trials: int | None = None,
    n_ranked: int | None = None,
    hyperparameters: Mapping[str, object] | None = None,
    searcher: Literal["random", "bayes"] = "random",
    seed: int = 0,
) -> dict[str, dict[str, object]]:
    """Arguments of ``MultiModalPredictor.fit`` for a search among the best candidates, in ranked order first.

    Args:
        selection: What `Candidates.of` takes.
        top_k: Among how many candidates; those that AutoGluon cannot load do not count, see
            `AutoGluonNames`.
        n_trials: How many networks are trained; None for as many as there are candidates.
        n_ranked: How many of these are the first candidates in ranked order. None for as many as there are
            where the checkpoint is all that is searched, else for half of the trials.
        hyperparameters: Further ones of AutoGluon, fixed or searched (``ray.tune`` spaces), such as
            ``{"optim.lr": tune.loguniform(1e-5, 1e-2)}``.
        searcher: AutoGluon's name of what chooses the rest: at ``random``, or ``bayes`` for HyperOpt. It
            takes complete points only, so the checkpoint must be all that it searches.
        seed: Of the searcher.

    Returns:
        ``hyperparameters`` and ``hyperparameter_tune_kwargs``. Both are new and may be changed: the scheduler
        is ``FIFO``, which ends no trial early.

    Raises:
        EmptyCatalogError: The ranking has no candidate, or none that AutoGluon can load.
        SettingsError: A number is no whole number >= 1, there are to be more ranked trials than trials, the
            checkpoint is among ``hyperparameters``, or ``bayes`` is to search others too.

    Warns:
        SkippedCheckpointsWarning: Candidates that AutoGluon cannot load were passed over; it names them.
        FewCandidatesWarning: There are fewer than ``top_k``.
    """
    others = dict(hyperparameters or {})
    if KEY in others:
        raise SettingsError(f"{KEY} is what the ranking decides; leave it out of hyperparameters=.")
    searched = [key for key, value in others.items() if isinstance(value, tune.search.sample.Domain)]
    if searcher not in ("random", "bayes"):
        raise SettingsError(f"searcher must be 'random' or 'bayes', AutoGluon's names; got {searcher!r}.")
    if searcher == "bayes" and searched:
        raise SettingsError(
            f"AutoGluon's 'bayes' wants first points that are complete, and a ranking says nothing about "
            f"{', '.join(searched)}. Use searcher='random', or fix their values."
        )
    for name, value in (("top_k", top_k), ("n_trials", n_trials), ("n_ranked", n_ranked)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise SettingsError(f"{name} must be a whole number >= 1; got {value!r}.")
    names = _names(selection, top_k=top_k, stacklevel=3)
    n_trials = len(names.names) if n_trials is None else n_trials
    if n_ranked is None:
        n_ranked = (n_trials + 1) // 2 if searched else n_trials
    if n_ranked > n_trials:
        raise SettingsError(f"There are {n_trials} trials, so n_ranked={n_ranked} of them cannot be ranked.")
    points = [{KEY: name} for name in tuple(names.names.values())[:n_ranked]]
    random_state = "random_state" if searcher == "random" else "random_state_seed"
    return {
        "hyperparameters": {**others, KEY: tune.choice(sorted(names.names.values()))},
        "hyperparameter_tune_kwargs": {
            "searcher": searcher,
            "scheduler": "FIFO",
            "num_trials": n_trials,
            "searcher_init_args": {"points_to_evaluate": points, random_state: seed},
        },
    }


@dataclass(frozen=True)
class AutoGluonNames:
    """What AutoGluon calls the candidates of a ranking, and which it cannot load.

    Its ``timm_image`` loads what the installed timm can make: checkpoints of timm on the Hub that
    ``HF_ENDPOINT`` names. Of local folders it reads those that it wrote itself, with the weights of a
    headless network in `WEIGHTS`; no safetensors. Networks of transformers it takes for text
    and documents only.

    Attributes:
        names: AutoGluon's name by the candidate's id, best first; never empty.
        left_out: Why others cannot be loaded, by their ids, best first.
    """

    names: Mapping[str, str]
    left_out: Mapping[str, str]

    @classmethod
    def of(
        cls, selection: Candidates | Ranking | ModelSelector, *, top_k: int | None = 20
    ) -> "AutoGluonNames":
        """The first ``top_k`` that AutoGluon can load; None for all.

        Args:
            selection: What `Candidates.of` takes.
            top_k: How many.

        Raises:
            EmptyCatalogError: There is none.

        Warns:
            SkippedCheckpointsWarning: Some before the last were passed over.
            FewCandidatesWarning: There are fewer than ``top_k``.
        """
        return _names(selection, top_k=top_k, stacklevel=3)


def failed_checkpoints(path: Path | str) -> tuple[str, ...]:
    """AutoGluon's names of checkpoints that never worked: with a trial that failed and none that ended well.

    A trial that raises does not end the search. AutoGluon deletes what it wrote of it; that it failed is in
    the state that Ray keeps beside the predictor.

    Args:
        path: Folder of the predictor, ``predictor.path``.

    Raises:
        SettingsError: There is no search's state in it that can be read.
    """
    states = sorted(Path(path).glob("experiment_state-*.json"))  # named by their time
    if not states:
        raise SettingsError(f"{str(path)!r} has no state of a search; pass predictor.path of one that ended.")
    failed: dict[str, bool] = {}
    try:
        for text, _ in json.loads(states[-1].read_bytes())["trial_data"]:
            trial = json.loads(text)
            name, ended_badly = str(trial["config"][KEY]), trial["status"] == "ERROR"
            failed[name] = failed.get(name, True) and ended_badly
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"The state of the search in {str(states[-1])!r} cannot be read.") from error
    return tuple(sorted(name for name, is_so in failed.items() if is_so))


def _names(
    selection: Candidates | Ranking | ModelSelector, *, top_k: int | None, stacklevel: int
) -> AutoGluonNames:
    names: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for item in Candidates.of(selection).ranking:
        if len(names) == top_k:
            break
        obstacle = _obstacle(item)
        if obstacle is None:
            names[item.candidate.id] = _name(item)
        else:
            left_out[item.candidate.id] = obstacle
    if not names:
        raise EmptyCatalogError(
            f"AutoGluon can load none of the {len(left_out)} candidates: {_listed(left_out)}. Add "
            f"checkpoints of timm on the Hub to the catalog, such as timm/resnet18.a1_in1k."
        )
    if left_out:
        n = len(names) + len(left_out)
        warnings.warn(
            f"AutoGluon cannot load {len(left_out)} of the first {n} candidates; "
            f"passed over: {_listed(left_out)}.",
            SkippedCheckpointsWarning,
            stacklevel=stacklevel,
        )
    if top_k is not None and len(names) < top_k:
        warnings.warn(
            f"{top_k} candidates were asked for; AutoGluon can load {len(names)} of the ranking, and all "
            f"of them are taken.",
            FewCandidatesWarning,
            stacklevel=stacklevel,
        )
    return AutoGluonNames(names, left_out)


def _obstacle(item: RankedCandidate) -> str | None:
    """Why AutoGluon cannot load a candidate; None where nothing is known against it."""
    library, path = item.candidate.library, Path(item.candidate.id)
    id = item.candidate.id if path.exists() else repository_of(item.candidate.id)
    if library is None and not id.startswith("timm/"):
        return "its library is not known"
    if library not in (None, "timm"):
        return f"of {library}, and it takes image networks of timm"
    if path.is_dir():
        if (path / WEIGHTS).is_file():
            return None
        return f"a folder without {WEIGHTS}, and of folders it reads no safetensors"
    if path.exists():
        return "a file, and it reads folders and the Hub"
    if "/" not in id:
        return f"timm {timm.__version__} has no weights {id!r} on the Hub"
    if item.endpoint is not None and item.endpoint.rstrip("/") != constants.ENDPOINT.rstrip("/"):
        return f"on {item.endpoint}, and timm asks {constants.ENDPOINT}"
    architecture = id.removeprefix("timm/").partition(".")[0]
    if id.startswith("timm/") and not is_model(architecture):
        return f"timm {timm.__version__} has no {architecture!r}"
    return None


def _name(item: RankedCandidate) -> str:
    candidate = item.candidate
    if Path(candidate.id).is_dir():
        return str(Path(candidate.id).absolute())  # trials run in folders of their own
    revision = candidate.revision or candidate.id.partition("@")[2]
    return f"hf-hub:{repository_of(candidate.id)}" + (f"@{revision}" if revision else "")


def _listed(reasons: Mapping[str, str]) -> str:
    first = [f"{id} ({why})" for id, why in list(reasons.items())[:_NAMED]]
    return ", ".join(first) + (f" and {len(reasons) - _NAMED} more" if len(reasons) > _NAMED else "")
