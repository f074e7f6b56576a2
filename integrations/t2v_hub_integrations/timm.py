"""timm: the network of the best candidate with its transforms, and timm's names in the order of a task."""

import fnmatch
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets

from t2v_hub import Candidate, RankedCandidate, Ranking
from t2v_hub.data import load
from t2v_hub.errors import CheckpointError, EmptyCatalogError, FewCandidatesWarning, SettingsError
from t2v_hub.selector import Where, checkpoint_of, condition
from t2v_hub_integrations.candidates import Candidates
from t2v_hub_integrations.choosing import (
    Ready,
    Selection,
    candidates_for,
    codes_of,
    first_that_loads,
    ready_for,
)
from t2v_hub_integrations.dependency import missing

try:
    import timm
except ModuleNotFoundError as error:
    raise missing(error, "timm") from error

if TYPE_CHECKING:
    from torch import nn

_ADD = "Only timm's checkpoints count here; `t2v catalog add timm/resnet18.a1_in1k` adds one."
# They would load other weights than the candidate's, or another head than the data needs.
_OURS = frozenset(
    ("pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "num_classes", "model_name")
)
# Of a checkpoint's own configuration: where weights would be fetched from.
_SOURCES = ("url", "file", "source", "hf_hub_id", "hf_hub_filename", "custom_load", "state_dict")


@dataclass(frozen=True, eq=False)
class TimmModel:
    """A network that is ready to be fine-tuned, and what goes with it.

    Attributes:
        model: In training mode, with a fresh head of one output per class.
        checkpoint: Id of the candidate whose weights it has.
        class_names: Of the outputs, in order; numbers as text where the data names none.
        codes: Place of each label of the data's column among the outputs, which is not the label itself where
            a class does not occur or labels are no numbers from 0. Of a `datasets.Dataset` with one label
            each; else empty.
        data_config: As of `timm.data.resolve_model_data_config`: the checkpoint's own size, mean and so on.
        train_transform: From a PIL image to its input, augmented as `timm.data.create_transform` does.
        eval_transform: The same without augmentation.
        ranking: timm's candidates, best first; and those of which no card says whose they are.
        failures: Why candidates that stand before it do not load, by their ids.
    """

    model: "nn.Module"
    checkpoint: str
    class_names: tuple[str, ...]
    codes: Mapping[object, int]
    data_config: Mapping[str, Any]
    train_transform: Callable[[Any], Any]
    eval_transform: Callable[[Any], Any]
    ranking: Ranking
    failures: Mapping[str, str]


def create_model_for(
    ds: object,
    selection: Selection = None,
    *,
    pretrained: bool = True,
    where: Where | None = None,
    refine: int = 0,
    settings: Mapping[str, Any] | None = None,
    data_options: Mapping[str, Any] | None = None,
    **timm_kwargs: Any,
) -> TimmModel:
    """The best of timm's candidates for a data set as a network, with a fresh head and its transforms.

    Args:
        ds: Labelled images, anything that `t2v_hub.data.load` takes.
        selection: A catalog or its folder, a selector, a ranking, or a function that makes one of these two
            from ``ds``; None for the candidates on the Hub. Those of other libraries are left out; where no
            card says the library, loading tells.
        pretrained: False draws all weights of the same network afresh, for comparison.
        where: Which candidates to consider, as of `ModelSelector.rank`; not for a ranking.
        refine: How many of them to load for the second stage, as of `ModelSelector.rank`; not for a ranking.
        settings: Arguments of `AutoSelector.from_task`, where ``ds`` is embedded here.
        data_options: Arguments of `t2v_hub.data.load`, such as ``{"split": "train"}``.
        **timm_kwargs: Arguments of `timm.create_model`, such as ``drop_path_rate`` or ``in_chans``; weights
            are adapted as timm does it.

    Raises:
        DataError: The data cannot be used; subclasses say why.
        EmptyCatalogError: There is no candidate, or none of timm's.
        CheckpointError: None of them loads.
        SettingsError: An argument that this function decides itself.

    Warns:
        SkippedCheckpointsWarning: Candidates did not load and were passed over.
    """
    own = sorted(timm_kwargs.keys() & _OURS)
    if own:
        raise SettingsError(
            f"{', '.join(own)} would set what the candidate and the data decide. Leave that out, or call "
            f"timm.create_model yourself."
        )
    task = load(ds, **(data_options or {}))
    source = ds if isinstance(ds, str | Path) and not data_options else task  # a card may hold an embedding
    ready = ready_for(source, selection, settings=settings)
    # A ranking that is made already is not narrowed by rank() but here.
    restriction = where if isinstance(ready, Ranking | Candidates) else _may_be_timms(where)
    try:
        candidates = candidates_for(source, ready, where=restriction, refine=refine)
    except EmptyCatalogError as error:
        raise EmptyCatalogError(f"{error} {_ADD}") from error
    ranking = _kept(candidates.ranking, lambda candidate: candidate.library in ("timm", None))
    info = task.info
    names = info.class_names or tuple(map(str, range(info.n_classes)))
    done = first_that_loads(ranking, lambda item: _network(item, names, pretrained, timm_kwargs))
    config = _data_config(done.loaded, timm_kwargs)
    train, evaluation = (_of_data("create_transform")(**config, is_training=flag) for flag in (True, False))
    return TimmModel(
        model=done.loaded,
        checkpoint=done.item.candidate.id,
        class_names=names,
        codes=codes_of(ds, task) if isinstance(ds, datasets.Dataset) and not task.multi_label else {},
        data_config=config,
        train_transform=train,
        eval_transform=evaluation,
        ranking=ranking,
        failures=done.failures,
    )


@dataclass(frozen=True)
class TimmNames:
    """Names that `timm.create_model` takes, in the order of a task.

    Attributes:
        ranked: Those that the ranking knows, best first.
        unknown: Those that it does not, sorted by name; nothing is known of their order.
        candidates: The ranked candidate that a name stands for.
    """

    ranked: tuple[str, ...]
    unknown: tuple[str, ...]
    candidates: Mapping[str, RankedCandidate]

    @property
    def names(self) -> tuple[str, ...]:
        """All of them: what is known, then what is not."""
        return self.ranked + self.unknown


def rank_timm_models(
    selection: Ready, names: Sequence[str] | None = None, *, filter: str | Sequence[str] = ""
) -> TimmNames:
    """The order of timm's pretrained networks for a task.

    A name of timm's registry stands for the candidate with its weights: ``resnet18.a1_in1k`` for
    ``timm/resnet18.a1_in1k``, and ``resnet18`` for the default ones of that architecture.

    Candidates that are not in the registry, and of which no card says that they are timm's, are left out.

    Args:
        selection: A ranking, or a selector that is bound to a task.
        names: Which names to order; None for ``timm.list_models(filter, pretrained=True)`` and, by the names
            ``hf-hub:org/name`` and ``local-dir:folder``, the ranking's own timm checkpoints.
        filter: Patterns such as ``"resnet*"``, as of `timm.list_models`; of checkpoints that are not in
            timm's registry they match the last part of the id.

    Raises:
        EmptyCatalogError: The ranking has no candidate of timm's.
        SettingsError: A name that timm does not know, or a filter that leaves none.

    Warns:
        FewCandidatesWarning: The ranking knows none of the names.
    """
    found = _kept(Candidates.of(selection).ranking, _is_timms)
    patterns = [filter] if isinstance(filter, str) else list(filter)
    patterns = [pattern for pattern in patterns if pattern]
    if names is None:
        listed = timm.list_models(patterns or "", pretrained=True)
        repositories = {name: _repository(name) for name in listed}
    else:
        repositories = _checked(names)
        if patterns:
            kept = set(timm.list_models(patterns, pretrained=True))
            bare = {name.split(".", 1)[0] for name in kept}
            repositories = {
                name: id
                for name, id in repositories.items()
                if name in kept or ("." not in name and name in bare)
            }
    by_repository: dict[str, list[str]] = {}
    for name, repository in repositories.items():
        if repository is not None:
            by_repository.setdefault(repository, []).append(name)
    candidates: dict[str, RankedCandidate] = {}
    for item in found:
        own = by_repository.get(repository_of(item.candidate.id), [])
        address = _address(item.candidate)
        if not own and names is None and address is not None and not _is_registered(item.candidate):
            last = address.rstrip("/").rpartition("/")[2]
            if not patterns or any(fnmatch.fnmatch(last, pattern) for pattern in patterns):
                own = [address]
        for name in own:
            candidates.setdefault(name, item)
    unknown = tuple(sorted(repositories.keys() - candidates.keys()))
    if not candidates and not unknown:
        raise SettingsError(
            f"No name is left by filter={filter!r}. timm.list_models({filter!r}, pretrained=True) shows what "
            f"it matches."
        )
    if not candidates:
        warnings.warn(
            f"The ranking knows none of these {len(unknown)} names; they are in alphabetical order, which "
            f"says nothing. Add their checkpoints to the catalog: `t2v catalog add timm/{unknown[0]}`.",
            FewCandidatesWarning,
            stacklevel=2,
        )
    return TimmNames(tuple(candidates), unknown, candidates)


def _network(
    item: RankedCandidate, names: Sequence[str], pretrained: bool, options: Mapping[str, Any]
) -> "nn.Module":
    """The candidate's network, built again with options where there are such."""
    model: Any = item.load()  # whole, finite, safetensors only
    if not hasattr(model, "pretrained_cfg"):
        raise CheckpointError(
            f"{item.candidate.id!r} is a {type(model).__name__}, no timm network. Name its library in the "
            f"catalog or in its card (library_name)."
        )
    if options or not pretrained:
        files = checkpoint_of(item.candidate).files()
        architecture = str(files.config["architecture"])
        arguments = {**files.model_args, "num_classes": model.num_classes, **options}
        own = {key: value for key, value in dict(model.pretrained_cfg).items() if key not in _SOURCES}
        own |= {"num_classes": model.num_classes, "state_dict": model.state_dict()}
        try:
            model = timm.create_model(architecture, pretrained=pretrained, pretrained_cfg=own, **arguments)
        except (RuntimeError, TypeError, ValueError, AssertionError) as error:
            raise CheckpointError(
                f"timm cannot build {architecture!r} for {item.candidate.id!r} with "
                f"{', '.join(options) or 'these arguments'}: {error}"
            ) from error
    model.reset_classifier(len(names))
    own = {key: value for key, value in dict(model.pretrained_cfg).items() if key != "state_dict"}
    model.pretrained_cfg = {**own, "num_classes": len(names), "label_names": list(names)}
    network: nn.Module = model.train()
    return network


def _data_config(model: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Of the network as it was built: its own, but for the channels and the size that were asked for."""
    config: dict[str, Any] = _of_data("resolve_model_data_config")(model)
    channels, *size = config["input_size"]
    asked = options.get("img_size")
    if asked is not None:
        size = [asked, asked] if isinstance(asked, int) else list(asked)
    wanted = options.get("in_chans") or channels
    if wanted != channels:  # each is like the mean of the colours, as timm adapts the weights
        for name in ("mean", "std"):
            config[name] = (sum(config[name]) / channels,) * wanted
    return {**config, "input_size": (wanted, *size)}


def _of_data(name: str) -> Any:
    return vars(timm.data)[name]  # whose stubs do not export it


def _may_be_timms(where: Where | None) -> Where:
    """What holds for candidates of timm's, and for those of which only their files can say it."""
    fits = condition(where)
    return lambda candidate: candidate.library in ("timm", None) and fits(candidate)


def _kept(ranking: Ranking, fits: Callable[[Candidate], bool]) -> Ranking:
    kept = tuple(item for item in ranking if fits(item.candidate))
    if not kept:
        raise EmptyCatalogError(
            f"None of the {len(ranking)} candidates is a timm checkpoint. Take another catalog, or add some. "
            f"{_ADD}"
        )
    return replace(ranking, items=kept)


def _is_timms(candidate: Candidate) -> bool:
    return candidate.library == "timm" or (candidate.library is None and _is_registered(candidate))


def _is_registered(candidate: Candidate) -> bool:
    """Whether its weights are those of a name in timm's registry."""
    name = repository_of(candidate.id).rpartition("/")[2]
    return timm.is_model(name.split(".", 1)[0]) and _repository(name) == repository_of(candidate.id)


def _repository(name: str) -> str | None:
    """Where on the Hub the weights of a name of timm's are; None where they are not, or it knows none."""
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:  # a tag that its architecture does not have
        return None
    if config is None or not config.hf_hub_id:
        return None
    repository = str(config.hf_hub_id)
    return repository + name if repository.endswith("/") else repository


def repository_of(id: str) -> str:
    """The repository on the Hub that an id of a candidate means, without prefix and revision."""
    id = id.removeprefix("hf-hub:").removeprefix("hf_hub:").split("@", 1)[0]
    return id if "/" in id else _repository(id) or id


def _checked(names: Sequence[str]) -> dict[str, str | None]:
    if isinstance(names, str) or not names:
        raise SettingsError(f"names must be a list of timm's names, at least one; got {names!r}.")
    strange = [
        name for name in names if not isinstance(name, str) or not timm.is_model(name.split(".", 1)[0])
    ]
    repositories = {name: _repository(name) for name in names if name not in strange}
    strange += [
        name for name in repositories if "." in name and repositories[name] is None and not _has(name)
    ]
    if strange:
        raise SettingsError(
            f"timm {timm.__version__} has no pretrained network {strange[0]!r}, nor {len(strange) - 1} more "
            f"of these names. timm.list_models(pretrained=True) lists all."
        )
    return repositories


def _has(name: str) -> bool:
    return name in timm.list_models(pretrained=True)


def _address(candidate: Candidate) -> str | None:
    """What `timm.create_model` takes for a checkpoint that is not in its registry; None for a lone file."""
    path = Path(candidate.id).expanduser()
    if path.exists():
        return f"local-dir:{path}" if path.is_dir() else None
    return "hf-hub:" + candidate.id.removeprefix("hf-hub:").removeprefix("hf_hub:")
