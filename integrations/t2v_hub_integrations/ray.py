"""Ray: a search with Tune that tries checkpoints in ranked order first, and Ray's workers for bulk work.

::

    candidates = Candidates.of(AutoSelector.from_task(data), top_k=20)
    tuner = tune.Tuner(
        train,  # begins with candidates.load(config["checkpoint"], data)
        param_space={**ranked_space(candidates), "lr": tune.loguniform(1e-5, 1e-2)},
        tune_config=tune.TuneConfig(
            metric="accuracy",
            mode="max",
            num_samples=40,
            search_alg=ranked_search_alg(candidates, n_trials=40),
        ),
    )
    results = tuner.fit()
    print(results.get_best_result().config, failures(results))
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

try:
    from ray import tune
except ModuleNotFoundError as error:
    from t2v_hub_integrations.dependency import missing

    raise missing(error, "ray") from error

from ray.exceptions import RayTaskError
from ray.tune.search.basic_variant import BasicVariantGenerator

from t2v_hub import ModelSelector, Ranking
from t2v_hub.errors import SettingsError
from t2v_hub_integrations.candidates import Candidates, n_ranked
from t2v_hub_integrations.ray_executor import RayExecutor

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from ray.tune.search.optuna import OptunaSearch

__all__ = ["RayExecutor", "failures", "ranked_search_alg", "ranked_space"]

TOP_K = 20
"""So many choices at most. Beyond, a search seldom learns anything about most of them."""

Backend = Literal["random", "optuna"]


def ranked_space(
    selection: Candidates | Ranking | ModelSelector, *, top_k: int = TOP_K, parameter: str = "checkpoint"
) -> dict[str, Any]:
    """The choice among the first candidates, for ``param_space``.

    Args:
        selection: A ranking, a selector that is bound to a task, or candidates.
        top_k: How many candidates the search chooses among, at most.
        parameter: What the choice is called; ``"train_loop_config/checkpoint"`` nests it.

    Returns:
        ``{parameter: tune.choice(ids)}``, sorted by id, so that the space is the same for every ranking of
        the same candidates.

    Raises:
        EmptyCatalogError: The ranking has no candidate.
    """
    return _nested({parameter: tune.choice(list(Candidates.of(selection, top_k=top_k).choices))})


def ranked_search_alg(
    selection: Candidates | Ranking | ModelSelector,
    *,
    n_trials: int,
    backend: Backend = "random",
    sampler: "BaseSampler | None" = None,
    top_k: int = TOP_K,
    parameter: str = "checkpoint",
    share: float = 0.5,
    extra: Mapping[str, Any] | None = None,
    seed: int | None = None,
) -> "BasicVariantGenerator | OptunaSearch":
    """A search whose first trials take the checkpoints in ranked order, for ``search_alg``.

    ``random`` is Tune's own search: all other parameters are drawn at random, and so is the checkpoint once
    the ranked trials are through. ``optuna`` draws them with Optuna's sampler.

    Args:
        selection: As for `ranked_space`; it must be the same there.
        n_trials: ``num_samples`` of the search.
        backend: What draws.
        sampler: An Optuna sampler; it makes the backend ``optuna``, whose default is TPE.
        top_k: As for `ranked_space`.
        parameter: As for `ranked_space`.
        share: Of the trials that go by the ranking, at most; rounded down, but one trial at least.
        extra: Other parameters of these trials, such as a learning rate that is known to work (``random``
            only), named as ``parameter`` is; those that are not given are drawn.
        seed: Of what is drawn. A sampler that is passed has its own.

    Raises:
        SettingsError: A number that cannot be, an unknown backend, or options that do not go together.
        EmptyCatalogError: The ranking has no candidate.
        MissingDependencyError: Optuna is not installed.
    """
    if backend not in ("random", "optuna"):
        raise SettingsError(f"There is no backend {backend!r}; choose 'random' or 'optuna'.")
    n_first = n_ranked(n_trials, share)
    candidates = Candidates.of(selection, top_k=top_k)
    if backend == "optuna" or sampler is not None:
        if extra:
            raise SettingsError(
                f"Optuna's search takes no partial points, so extra={dict(extra)!r} cannot be kept. Leave it "
                f"out, or choose backend='random'."
            )
        return _optuna_search(
            candidates, n_trials=n_trials, sampler=sampler, parameter=parameter, share=share, seed=seed
        )
    fixed = dict(extra or {})
    if parameter in fixed:
        raise SettingsError(
            f"extra fixes {parameter!r}, which the ranking is to give. Leave it out; a search with that "
            f"checkpoint alone needs no ranking."
        )
    points = [_nested({parameter: id, **fixed}) for id in candidates.ranked[:n_first]]
    return BasicVariantGenerator(points_to_evaluate=points, random_state=seed)


def failures(results: "tune.ResultGrid", *, parameter: str = "checkpoint") -> dict[str, str]:
    """Why a checkpoint never worked, by its id: each of whose trials some ended in an error and none well.

    A checkpoint that does not load (`Candidates.load` raises) ends its trial so: without a metric, so that
    it cannot win. The search goes on.

    Args:
        results: Of ``Tuner.fit``.
        parameter: What the choice of the checkpoint is called.
    """
    found: dict[str, str] = {}
    worked = set()
    for result in (results[i] for i in range(len(results))):
        config: Any = result.config or _stored_config(results, result.path)
        for key in parameter.split("/"):
            config = config.get(key) if isinstance(config, dict) else None
        if result.error is None:
            worked.add(str(config))
            continue
        cause = getattr(result.error, "cause", None) if isinstance(result.error, RayTaskError) else None
        found.setdefault(str(config), str(cause or result.error))
    return {id: why for id, why in found.items() if id not in worked}


def _optuna_search(
    candidates: Candidates,
    *,
    n_trials: int,
    sampler: "BaseSampler | None",
    parameter: str,
    share: float,
    seed: int | None,
) -> "OptunaSearch":
    from ray.tune.search.optuna import OptunaSearch

    from t2v_hub_integrations.optuna import RankedCheckpointSampler  # says so where Optuna is absent

    ranked = RankedCheckpointSampler(
        candidates,
        sampler,
        n_trials=n_trials,
        top_k=len(candidates),
        parameter=parameter,
        share=share,
        seed=seed,
    )
    return OptunaSearch(sampler=ranked)


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """``{"a/b": 1}`` as Tune's configurations have it, ``{"a": {"b": 1}}``."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        *above, last = name.split("/")
        inner = nested
        for key in above:
            inner = inner.setdefault(key, {})
        inner[last] = value
    return nested


def _stored_config(results: "tune.ResultGrid", path: str) -> object:
    """The configuration of a trial that died before it could report anything."""
    try:
        with results.filesystem.open_input_stream(f"{path}/params.json") as file:
            return json.loads(file.read())
    except (OSError, ValueError):
        return None
