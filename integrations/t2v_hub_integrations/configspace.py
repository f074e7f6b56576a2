"""ConfigSpace and SMAC: a ranking as the prior of a categorical, and as the first configurations."""

import copy
import warnings
from typing import TYPE_CHECKING

from t2v_hub import ModelSelector, Ranking
from t2v_hub.errors import FewCandidatesWarning, SettingsError
from t2v_hub_integrations.candidates import Candidates
from t2v_hub_integrations.dependency import missing

try:
    from ConfigSpace import CategoricalHyperparameter, Configuration, ConfigurationSpace
    from ConfigSpace.exceptions import ForbiddenValueError
    from ConfigSpace.util import deactivate_inactive_hyperparameters
except ModuleNotFoundError as error:
    raise missing(error, "ConfigSpace", extra="configspace") from error

if TYPE_CHECKING:
    from smac.runhistory import RunHistory

__all__ = ["failed_checkpoints", "initial_configurations", "ranked_categorical", "ranked_space"]

NAME = "checkpoint"
"""What the hyperparameter is called."""


def ranked_categorical(
    selection: Candidates | Ranking | ModelSelector, *, top_k: int | None = 20, name: str = NAME
) -> CategoricalHyperparameter:
    """The checkpoint as a hyperparameter: each is drawn as often as `Ranking.weights` says.

    Choices are sorted, so every ranking of the same candidates gives the same ones; the default is the best.

    Args:
        selection: What `Candidates.of` takes.
        top_k: How many of the ranking are choices; None for all.
        name: Of the hyperparameter.

    Raises:
        EmptyCatalogError: The ranking has no candidate.
        SettingsError: ``top_k`` is no whole number >= 1.
    """
    candidates = Candidates.of(selection, top_k=top_k)
    weights = candidates.weights
    return CategoricalHyperparameter(
        name,
        candidates.choices,
        default_value=candidates.ranked[0],
        weights=[weights[id] for id in candidates.choices],
    )


def ranked_space(
    selection: Candidates | Ranking | ModelSelector,
    space: ConfigurationSpace | None = None,
    *,
    top_k: int | None = 20,
    name: str = NAME,
    seed: int | None = None,
) -> ConfigurationSpace:
    """A space with the checkpoint among its hyperparameters, see `ranked_categorical`.

    Where it is there already, as in the space of a stored search that goes on, it stays as it is: SMAC would
    take any other space for another search. The new ranking then still orders `initial_configurations`.

    Args:
        selection: What `Candidates.of` takes.
        space: The other hyperparameters; not changed. None for none.
        top_k: How many of the ranking are choices; None for all.
        name: Of the hyperparameter.
        seed: Of what is drawn from the space; None for that of ``space``.

    Returns:
        A copy of ``space`` with the hyperparameter in it.

    Raises:
        EmptyCatalogError: The ranking has no candidate.
        SettingsError: ``top_k`` is no whole number >= 1, or another kind of hyperparameter has the name.

    Warns:
        FewCandidatesWarning: Candidates of the ranking are none of a stored space's choices; it names them.
    """
    space = ConfigurationSpace() if space is None else copy.deepcopy(space)
    if seed is not None:
        space.seed(seed)
    if name not in space:
        space.add(ranked_categorical(selection, top_k=top_k, name=name))
        return space
    choices = _choices(space, name)
    left_out = [id for id in Candidates.of(selection, top_k=top_k).ranked if id not in choices]
    if left_out:
        warnings.warn(
            f"{name!r} is in the space already and keeps its {len(choices)} choices. {_named(left_out)} not "
            f"among them and cannot be searched; start another search for them.",
            FewCandidatesWarning,
            stacklevel=2,
        )
    return space


def initial_configurations(
    space: ConfigurationSpace,
    selection: Candidates | Ranking | ModelSelector,
    *,
    n: int,
    name: str = NAME,
) -> list[Configuration]:
    """The first candidates in ranked order, every other hyperparameter at its default.

    For the ``additional_configs`` of a SMAC initial design. SMAC evaluates them after the configurations of
    the design itself, so ``n_configs=0`` makes them the first.

    Args:
        space: With the checkpoint among its hyperparameters, see `ranked_space`.
        selection: What `Candidates.of` takes; it may be another ranking than the space was made with.
        n: How many; half of the trials at most is a good share.
        name: Of the hyperparameter.

    Returns:
        A new list, for SMAC adds to it. It is shorter than ``n`` where there are fewer candidates that are
        choices and that the space's clauses do not forbid.

    Raises:
        EmptyCatalogError: The ranking has no candidate.
        SettingsError: ``n`` is no whole number >= 1, or the space has no such categorical.

    Warns:
        FewCandidatesWarning: Candidates were passed over, named, or there are fewer than ``n``.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise SettingsError(f"n must be a whole number >= 1; got {n!r}.")
    choices = _choices(space, name)
    defaults = {key: hyperparameter.default_value for key, hyperparameter in space.items()}
    configurations: list[Configuration] = []
    passed_over = []
    for id in Candidates.of(selection).ranked:
        if len(configurations) == n:
            break
        if id not in choices:
            passed_over.append(id)
            continue
        try:
            configuration = deactivate_inactive_hyperparameters({**defaults, name: id}, space)
            configuration.check_valid_configuration()
        except ForbiddenValueError:
            passed_over.append(id)
        else:
            configurations.append(configuration)
    if passed_over or len(configurations) < n:
        why = f"{_named(passed_over)} no choice of {name!r} or forbidden with the defaults. "
        warnings.warn(
            f"{n} configurations were asked for; here are {len(configurations)}. "
            f"{why if passed_over else ''}The rest of the ranking goes on in order.",
            FewCandidatesWarning,
            stacklevel=2,
        )
    return configurations


def failed_checkpoints(runhistory: "RunHistory", *, name: str = NAME) -> dict[str, str]:
    """Why a checkpoint never worked, by its id: those with a crashed trial and none that succeeded.

    SMAC goes on after a trial that raises, but only with ``Scenario(crash_cost=…)``, for example 1.0 where
    the cost is an error: its own default is infinite, and the model that it then fits cannot take that.

    Args:
        runhistory: ``facade.runhistory`` of the search.
        name: Of the hyperparameter.

    Returns:
        The last line of what its first crashed trial raised.
    """
    crashed: dict[str, str] = {}
    succeeded = set()
    for key, value in runhistory.items():
        id = str(runhistory.get_config(key.config_id)[name])
        if value.status.name == "SUCCESS":
            succeeded.add(id)
        elif value.status.name == "CRASHED":
            trace = str((value.additional_info or {}).get("traceback", "")).strip()
            crashed.setdefault(id, trace.splitlines()[-1] if trace else "SMAC kept no reason")
    return {id: why for id, why in crashed.items() if id not in succeeded}


def _choices(space: ConfigurationSpace, name: str) -> tuple[str, ...]:
    if name not in space:
        raise SettingsError(
            f"The space has no hyperparameter {name!r}. Make it with ranked_space(selection, space)."
        )
    hyperparameter = space[name]
    if not isinstance(hyperparameter, CategoricalHyperparameter):
        raise SettingsError(
            f"The space's {name!r} must be categorical, for its values are ids of checkpoints; it is a "
            f"{type(hyperparameter).__name__}. Pass another name=."
        )
    return tuple(str(choice) for choice in hyperparameter.choices)


def _named(ids: list[str]) -> str:
    one = len(ids) == 1
    return f"{len(ids)} {'candidate' if one else 'candidates'} ({', '.join(ids)}) {'is' if one else 'are'}"
