"""`CardWriter`: the embedding of a data set in the cards of the checkpoints that were trained on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from t2v_hub.card import entry_values
from t2v_hub.embedding import Json, TaskEmbedding
from t2v_hub.enrich.data_sets import DataSet
from t2v_hub.enrich.journal import Journal
from t2v_hub.enrich.patience import Patience
from t2v_hub.enrich.report import CardOutcome, CardState
from t2v_hub.errors import (
    HubAccessError,
    HubUnreachableError,
    OptedOutError,
    RateLimitError,
    StorageError,
    T2VError,
)
from t2v_hub.hub.cards import push_entries
from t2v_hub.hub.connection import Connection
from t2v_hub.hub.facts import Facts
from t2v_hub.hub.requests import earlier_request
from t2v_hub.hub.sources import Source

if TYPE_CHECKING:
    from t2v_hub.hub import PushResult

_FINISHED = ("committed", "pull request", "unchanged", "declined", "merged")


@dataclass(frozen=True)
class CardWriter:
    """Writes embeddings into cards, each once.

    Attributes:
        link: What to ask through.
        journal: What is finished.
        patience: Counts how often the Hub is out of reach.
        create_pr: Whether to open a pull request where we may not write.
        catalog_only: Whether all cards are left alone.
        opted_out: Checkpoints whose card says ``task2vec: false``.
        progress: Whether to show bars.
    """

    link: Connection
    journal: Journal
    patience: Patience
    create_pr: bool
    catalog_only: bool
    opted_out: set[str]
    progress: bool

    def planned(self, facts: Facts, source: Source | None, data_set: str) -> CardOutcome:
        """What would become of a card, as far as is known before the data set is looked at."""
        if facts.id in self.opted_out:
            return CardOutcome(facts.id, data_set, "opted out")
        if self.catalog_only:
            return CardOutcome(facts.id, data_set, "catalog only")
        secret = _secret(facts, source, None)
        return CardOutcome(facts.id, data_set, "refused" if secret else "planned", reason=secret)

    def write(
        self,
        members: Sequence[tuple[Facts, Source | None]],
        embedding: TaskEmbedding,
        data_set: DataSet,
    ) -> list[CardOutcome]:
        """Write an embedding into the cards of checkpoints.

        Args:
            members: The checkpoints, and how each is known to be trained on the data set.
            embedding: Of the data set.
            data_set: The data set.

        Raises:
            HubError: The Hub asks to wait for too long, or is out of reach again and again.
            StorageError: The journal cannot be written.
        """
        bar = tqdm(members, desc=data_set.id, leave=False, disable=None if self.progress else True)
        return [self._finished(facts, source, embedding, data_set) for facts, source in bar]

    def _finished(
        self, facts: Facts, source: Source | None, embedding: TaskEmbedding, data_set: DataSet
    ) -> CardOutcome:
        planned = self.planned(facts, source, data_set.id)
        if planned.state != "planned":
            return planned
        if secret := _secret(facts, source, data_set):
            return CardOutcome(facts.id, data_set.id, "refused", reason=secret)
        entry = entry_values(embedding, role="finetune" if source is None else source.role)
        done = self.journal.card(facts.id, entry)
        if done is not None:
            return CardOutcome(facts.id, data_set.id, done["state"], done.get("url"))
        outcome = self._outcome(facts.id, entry, data_set.id)
        if outcome.state in _FINISHED:
            self.journal.keep_card(facts.id, entry, state=outcome.state, url=outcome.url)
        return outcome

    def _outcome(self, id: str, entry: Mapping[str, Json], data_set: str) -> CardOutcome:
        """Write an entry into one card; what fails is named."""
        try:
            outcome = self._written(id, entry, data_set)
        except (RateLimitError, StorageError):
            raise  # what follows would fare no better
        except HubUnreachableError as error:
            self.patience.out_of_reach(error)
            return CardOutcome(id, data_set, "failed", reason=str(error))
        except OptedOutError:
            outcome = CardOutcome(id, data_set, "opted out")
        except HubAccessError as error:
            hint = "" if self.create_pr else " A pull request would need --create-pr."
            outcome = CardOutcome(id, data_set, "refused", reason=f"{error}{hint}")
        except T2VError as error:
            outcome = CardOutcome(id, data_set, "failed", reason=str(error))
        self.patience.answered()
        return outcome

    def _written(self, id: str, entry: Mapping[str, Json], data_set: str) -> CardOutcome:
        """Commit an entry to one card, or open a pull request; no second one, however the first one ended."""
        message = f"Add Task2Vec embedding of {data_set}"
        try:
            done = self._push(id, entry, message, create_pr=False)
        except HubAccessError:
            if not self.create_pr:
                raise
            earlier = earlier_request(self.link, id, message, repo_type="model")
            if earlier is not None and not earlier.is_open:
                ended: CardState = "merged" if earlier.status == "merged" else "declined"
                return CardOutcome(id, data_set, ended, earlier.url)
            done = self._push(id, entry, message, create_pr=True)
        state: CardState = "committed" if done.changed else "unchanged"
        return CardOutcome(id, data_set, "pull request" if done.pull_request else state, done.pull_request)

    def _push(self, id: str, entry: Mapping[str, Json], message: str, *, create_pr: bool) -> "PushResult":
        return push_entries(
            id,
            [entry],
            repo_type="model",
            create_pr=create_pr,
            dry_run=False,
            revision=None,
            message=message,
            connection=self.link,
        )


def _secret(facts: Facts, source: Source | None, data_set: DataSet | None) -> str:
    """Why a public card must not tell what the checkpoint was trained on; empty where it may."""
    if facts.private:
        return ""
    if data_set is not None and data_set.private:
        return f"its card is public, and the data set {data_set.id!r} is private"
    if source is not None and source.private:
        return "its card is public, and what it was trained on is known from that of a private base model"
    return ""
