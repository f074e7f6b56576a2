"""`Ranking`: candidates, best first, and how sure their order is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, overload

from t2v_hub.catalog import Candidate
from t2v_hub.distance import DistanceName
from t2v_hub.embedding import Json, Space, TaskInfo
from t2v_hub.errors import MissingDependencyError, SettingsError
from t2v_hub.selector.origin import Origin

if TYPE_CHECKING:
    import pandas
    import torch

SCHEMA = "t2v-ranking/1"


@dataclass(frozen=True)
class RankedCandidate:
    """A candidate's place in a ranking.

    Attributes:
        candidate: The checkpoint.
        distance: From its nearest source task to the task at hand; None without an embedding in
            the task's space.
        standard_error: Of the distance; None where it is not known.
        prior: The checkpoint's upstream accuracy; None where it is not known.
        interval: Distance less and plus 1.96 standard errors.
        tie_group: Number of the group, from 1, whose members' distances cannot be told apart from
            that of the group's first.
        reason: Why it stands here, in a few words.
        rank: Its place among all that were ranked, from 1.
        source_task: Id of the nearest source task.
        complexity: What the asymmetric distance takes off for the complexity of the source task;
            None for other distances, and for candidates so far down that their embedding was not opened.
        gap: How much further the next candidate is; None where it has no distance or there is none.
        gap_error: Standard error of the gap; None where it is not known.
        tied: Ids of all in the tie group, this one included, best first.
        endpoint: Address of the Hub whose card told of it; None for what was added on this machine.
    """

    candidate: Candidate
    distance: float | None
    standard_error: float | None
    prior: float | None
    interval: tuple[float, float] | None
    tie_group: int
    reason: str
    rank: int
    source_task: str | None = None
    complexity: float | None = None
    gap: float | None = None
    gap_error: float | None = None
    tied: tuple[str, ...] = ()
    endpoint: str | None = None

    def load(
        self,
        data: object = None,
        *,
        revision: str | None = None,
        endpoint: str | None = None,
        token: str | bool | None = None,
        cache_dir: Path | str | None = None,
    ) -> "torch.nn.Module":
        """The checkpoint as a network that is ready to be fine-tuned.

        Args:
            data: Labelled images, anything that `t2v_hub.data.load` takes; the network then gets a
                fresh head with one output per class, and the names of the classes.
            revision: Commit to load; the candidate's own by default.
            endpoint: Address of the Hub; by default the one whose card told of the checkpoint.
            token: Access token. By default the one that ``hf auth login`` left, but only for the Hub that it
                is for: a catalog, which others may have made, can name any address.
            cache_dir: Where to keep what is fetched, in place of the Hugging Face cache.

        Raises:
            CheckpointError: The checkpoint does not load; the message says why.
        """
        from t2v_hub.probe import load_checkpoint

        candidate = self.candidate
        if endpoint is None and self.endpoint is not None:
            endpoint = self.endpoint
            token = False if token is None and not _is_default(endpoint) else token
        names: Sequence[str] | None = None
        n_classes: int | None = None
        if data is not None:
            from t2v_hub.data import load as load_data

            info = load_data(data).info
            names, n_classes = (info.class_names, None) if info.class_names else (None, info.n_classes)
        return load_checkpoint(
            candidate.id,
            library=candidate.library,
            revision=candidate.revision if revision is None else revision,
            class_names=names,
            n_classes=n_classes,
            endpoint=endpoint,
            token=token,
            cache_dir=cache_dir,
        )


@dataclass(frozen=True, repr=False)
class Ranking(Sequence[RankedCandidate]):
    """Candidates, best first; an immutable sequence that prints as a table.

    Attributes:
        items: The candidates with their places.
        task: The task at hand.
        space: The space in which it was compared.
        distance: Name of the distance.
        alpha: Weight of the complexity term, where the distance has one.
        n_considered: Candidates in the catalog.
        n_filtered: Those that ``where`` left out.
        n_without_embedding: Those of the rest without a readable embedding in the space; they come
            after all others, by prior.
        n_tied_beyond: Candidates after the last that cannot be told apart from the last group.
        skipped: What could not be read, in words.
        n_measured: Images of the task that were measured, of the ``task.n_samples`` in the data set;
            None where it is not known.
        origin: Where the candidates come from; None where a catalog was given.
    """

    items: tuple[RankedCandidate, ...]
    task: TaskInfo
    space: Space
    distance: DistanceName
    alpha: float
    n_considered: int
    n_filtered: int = 0
    n_without_embedding: int = 0
    n_tied_beyond: int = 0
    skipped: tuple[str, ...] = ()
    n_measured: int | None = None
    origin: Origin | None = None

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> RankedCandidate: ...
    @overload
    def __getitem__(self, index: slice) -> "Ranking": ...
    def __getitem__(self, index: int | slice) -> "RankedCandidate | Ranking":
        if isinstance(index, slice):
            return replace(self, items=self.items[index])
        return self.items[index]

    def __str__(self) -> str:
        from t2v_hub.selector.words import table

        return table(self)

    def __repr__(self) -> str:
        best = f", best={self.items[0].candidate.id!r}" if self.items else ""
        return f"Ranking(task={self.task.id!r}, n_candidates={len(self)}{best})"

    def explain(self, i: int = 0) -> str:
        """Why ``ranking[i]`` stands where it stands, in words, and what would change that.

        Args:
            i: Counts from 0, as indices do: the best is 0. (``t2v rank --explain`` counts from 1.)

        Raises:
            SettingsError: ``i`` is no whole number from 0 to ``len(ranking) - 1``.
        """
        from t2v_hub.selector.words import explanation

        if not self.items:
            raise SettingsError("There is nothing to explain: no candidate is in this ranking.")
        if isinstance(i, bool) or not isinstance(i, int) or not 0 <= i < len(self):
            raise SettingsError(
                f"explain counts from 0: i must be a whole number from 0 (the best) to {len(self) - 1}, not "
                f"{i!r}."
            )
        return explanation(self, i)

    @property
    def ranked(self) -> tuple[str, ...]:
        """Ids of the candidates, best first."""
        return tuple(item.candidate.id for item in self.items)

    @property
    def choices(self) -> tuple[str, ...]:
        """Ids of the candidates, sorted; the same for every ranking of the same candidates."""
        return tuple(sorted(self.ranked))

    @property
    def weights(self) -> tuple[float, ...]:
        """How much of a search each candidate deserves, aligned with `ranked`; they sum to 1.

        ``1/place`` for places 1, 2, 3 …, averaged over each tie group and divided by the sum: equal
        inside a tie group, smaller from group to group, never 0. They say what is worth trying
        first; they are no probabilities of being best.
        """
        totals: dict[int, list[float]] = {}
        for place, item in enumerate(self.items, start=1):
            totals.setdefault(item.tie_group, []).append(1.0 / place)
        means = {group: math.fsum(shares) / len(shares) for group, shares in totals.items()}
        raw = [means[item.tie_group] for item in self.items]
        total = math.fsum(raw)
        return tuple(weight / total for weight in raw)

    def to_dict(self) -> dict[str, Json]:
        """The ranking as plain values that JSON can hold; what is not known or not finite is None.

        The schema is named by ``schema``; fields may join it, none changes its meaning under one name.
        """
        return {
            "schema": SCHEMA,
            "task": {
                "id": self.task.id,
                "config": self.task.config,
                "split": self.task.split,
                "revision": self.task.revision,
                "n_samples": self.task.n_samples,
                "n_measured": self.n_measured,
                "n_classes": self.task.n_classes,
            },
            "space": self.space.id,
            "probe": self.space.probe,
            "distance": self.distance,
            "alpha": self.alpha if self.distance == "asymmetric" else None,
            "n_considered": self.n_considered,
            "n_filtered": self.n_filtered,
            "n_without_embedding": self.n_without_embedding,
            "n_tied_beyond": self.n_tied_beyond,
            "origin": None if self.origin is None else _origin_to_dict(self.origin),
            "skipped": list(self.skipped),
            "candidates": [
                _item_to_dict(item, weight) for item, weight in zip(self.items, self.weights, strict=True)
            ],
        }

    def to_pandas(self) -> "pandas.DataFrame":
        """One row per candidate, with the fields of `to_dict`.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        try:
            import pandas
        except ModuleNotFoundError as error:
            if error.name != "pandas":
                raise
            raise MissingDependencyError(
                "Ranking.to_pandas needs pandas, which is not installed: pip install 't2v-hub[pandas]'. "
                "Ranking.to_dict needs nothing."
            ) from error
        columns = _item_to_dict(_EMPTY, 0.0).keys()
        rows = [_item_to_dict(item, weight) for item, weight in zip(self.items, self.weights, strict=True)]
        return pandas.DataFrame(rows, columns=list(columns))


def _item_to_dict(item: RankedCandidate, weight: float) -> dict[str, Json]:
    candidate = item.candidate
    interval: list[Json] | None = None
    if item.interval is not None:
        interval = [_finite(bound) for bound in item.interval]
    return {
        "rank": item.rank,
        "id": candidate.id,
        "revision": candidate.revision,
        "library": candidate.library,
        "distance": _finite(item.distance),
        "standard_error": _finite(item.standard_error),
        "interval": interval,
        "tie_group": item.tie_group,
        "weight": weight,
        "prior": _finite(item.prior),
        "source": candidate.source,
        "source_task": item.source_task,
        "complexity": _finite(item.complexity),
        "gap": _finite(item.gap),
        "gap_error": _finite(item.gap_error),
        "reason": item.reason,
        "parameters": candidate.parameters,
        "licence": candidate.licence,
        "downloads": candidate.downloads,
        "likes": candidate.likes,
        "gated": candidate.gated,
        "endpoint": item.endpoint,
    }


def _origin_to_dict(origin: Origin) -> dict[str, Json]:
    report = origin.report
    return {
        "catalog": origin.path,
        "endpoint": None if report is None else report.endpoint,
        "synced_at": None if report is None else report.synced_at,
        "failure": origin.failure,
    }


def _is_default(endpoint: str) -> bool:
    """Whether an address is the one that a client takes by default, which the stored token is for."""
    from huggingface_hub import constants

    return endpoint.rstrip("/") == constants.ENDPOINT.rstrip("/")


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


_EMPTY = RankedCandidate(Candidate("none"), None, None, None, None, 0, "", 0)
