"""`RankedCandidate`: a candidate's place in a ranking, and the network to fine-tune."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from t2v_hub.catalog import Candidate
from t2v_hub.selector.address import address

if TYPE_CHECKING:
    import torch

PredictedFrom = Literal["images", "other tasks", "loaded candidates"]
"""What a predicted error comes from: the task's images, for candidates that were loaded; errors on other
tasks alone; or these beside the errors of loaded candidates on this one."""


@dataclass(frozen=True)
class RankedCandidate:
    """A candidate's place in a ranking.

    Attributes:
        candidate: The checkpoint.
        distance: From its nearest source task to the task at hand; None without an embedding in
            the task's space.
        standard_error: Of the distance; None where it is not known.
        prior: The checkpoint's upstream accuracy, one of the facts that `Candidate.prior` goes by;
            None where it is not known.
        interval: Distance less and plus 1.96 standard errors.
        tie_group: Number of the group, from 1, whose members' distances cannot be told apart from
            that of the group's first; of candidates that were loaded, whose predicted errors cannot.
        reason: Why it stands here, in a few words.
        rank: Its place among all that were ranked, from 1.
        source_task: Id of the nearest source task; None where there is none.
        complexity: What ``relative`` and ``asymmetric`` take off for the complexity of the source task;
            None for other distances, and for candidates so far down that their embedding was not opened.
        gap: How much further the next candidate is; None where it has no distance or there is none, and
            for candidates that were loaded, which are in another order.
        gap_error: Standard error of the gap; None where it is not known.
        tied: Ids of all in the tie group, this one included, best first.
        endpoint: Address of the Hub whose card told of it; None for what was added on this machine.
        is_learned: Whether the distance is one that `Model2Vec` learned; its standard error is then that of
            the task's images alone.
        score: What the second stage orders by; None for candidates that were not loaded, and for a score
            that needs the predictions of one that has no head.
        predicted_error: Share of the task's images that it is predicted to miss. Of candidates that were
            loaded, what a linear classifier on their features misses, leave-one-out; of others, what errors
            on other tasks let one expect (`Expectation`); None where these are not recorded.
        predicted_interval: Its 95 % interval: Wilson's, over images, of candidates that were loaded; of
            others by how much such predictions miss on recorded tasks.
        predicted_from: Which of these; None without a predicted error.
        experience: By how many standard deviations of a task's errors its own were above the average of the
            checkpoints on other tasks that are recorded in the catalog, shrunk towards 0 where these are few;
            negative is better. None where it has no recorded errors.
        n_experience: On how many tasks.
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
    is_learned: bool = False
    score: float | None = None
    predicted_error: float | None = None
    predicted_interval: tuple[float, float] | None = None
    predicted_from: PredictedFrom | None = None
    experience: float | None = None
    n_experience: int = 0

    @property
    def is_loaded(self) -> bool:
        """Whether the second stage loaded it."""
        return self.predicted_from == "images"

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
        endpoint, token = address(self.endpoint, endpoint=endpoint, token=token)
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
