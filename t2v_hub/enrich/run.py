"""`enrich`: from a filter on the Hub to a catalog, and to cards with embeddings."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from t2v_hub.card import entry_values
from t2v_hub.catalog import Catalog
from t2v_hub.embedding import Json, Space, TaskEmbedding
from t2v_hub.enrich.journal import Journal
from t2v_hub.enrich.report import CardOutcome, CardState, DataSetOutcome, DataSetState, EnrichReport
from t2v_hub.errors import (
    HubAccessError,
    HubNotFoundError,
    HubUnreachableError,
    OptedOutError,
    RateLimitError,
    SettingsError,
    T2VError,
)
from t2v_hub.hub.cards import push_entries
from t2v_hub.hub.connection import Connection, repository_path
from t2v_hub.hub.datasets import stored_embedding
from t2v_hub.hub.facts import Facts, candidate_of, facts_of
from t2v_hub.hub.listing import FACTS, Listing, card_block
from t2v_hub.hub.requests import earlier_request
from t2v_hub.hub.sources import MAX_STEPS, Known, group_by_data_set, missing_bases, training_data_set
from t2v_hub.storage import home

if TYPE_CHECKING:
    from t2v_hub.hub import PushResult
    from t2v_hub.task2vec import Task2Vec

_BASES = 200  # base models that are looked up in one step, of at most eight
_FAILURES = 5  # times in a row that the Hub may be out of reach


def enrich(
    task2vec: "Task2Vec",
    *,
    filters: Sequence[str] = ("image-classification",),
    limit: int = 500,
    catalog: Catalog | None = None,
    create_pr: bool = False,
    catalog_only: bool = False,
    dry_run: bool = False,
    max_scan: int = 10_000,
    folder: Path | str | None = None,
    endpoint: str | None = None,
    token: str | bool | None = None,
    connection: Connection | None = None,
    progress: bool = True,
) -> EnrichReport:
    """Embed what checkpoints on the Hub were trained on, and write that into a catalog and their cards.

    Checkpoints are grouped by the data set that their cards name, or the cards of the base models that they
    were fine-tuned from. Of each data set, the largest group first, a bounded sample is streamed once and
    embedded once; where its own card holds an embedding, that is taken. One that fails never ends the run.
    A run that was interrupted, or killed, goes on where it stopped when it is started again.

    Args:
        task2vec: What to embed with.
        filters: Tags that a checkpoint must have.
        limit: Checkpoints at most, the most downloaded first.
        catalog: Where candidates go; ``T2V_HOME/catalog`` by default. Checkpoints whose data set is unknown
            or out of reach join it without an embedding.
        create_pr: Open a pull request where you may not write; one at most, ever, for a data set and card.
        catalog_only: Leave all cards alone.
        dry_run: Only say what would be done.
        max_scan: Images of a data set that are streamed at most.
        folder: Where finished work is kept; below ``T2V_HOME`` by default.
        endpoint: Address of another Hub.
        token: Access token, where it is not the one that ``hf auth login`` left.
        connection: What to ask through, in place of ``endpoint`` and ``token``.
        progress: Whether to show bars (on a terminal).

    Raises:
        SettingsError: Options that cannot work, or not together.
        HubError: The listing cannot be had, or the Hub is out of reach for long; what was finished is kept.
        StorageError: The disk is full, read-only or closed to us.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise SettingsError(f"limit must be a whole number >= 1, not {limit!r}.")
    if create_pr and catalog_only:
        raise SettingsError("create_pr and catalog_only exclude each other: leave one of them out.")
    link = connection or Connection(endpoint=endpoint, token=token, patience_s=3600.0, progress=progress)
    space = task2vec.space()
    place = Path(folder) if folder is not None else home() / "enrich" / space.id
    run = _Run(
        link=link,
        task2vec=task2vec,
        space=space,
        catalog=Catalog() if catalog is None else catalog,
        journal=Journal(place),
        create_pr=create_pr,
        catalog_only=catalog_only,
        max_scan=max_scan,
        progress=progress,
    )
    return run.whole(filters, limit, dry_run=dry_run)


@dataclass
class _Run:
    """One run."""

    link: Connection
    task2vec: "Task2Vec"
    space: Space
    catalog: Catalog
    journal: Journal
    create_pr: bool
    catalog_only: bool
    max_scan: int
    progress: bool
    opted_out: set[str] = field(default_factory=set)
    failures: int = 0

    def whole(self, filters: Sequence[str], limit: int, *, dry_run: bool) -> EnrichReport:
        """The run from its listing to its report."""
        start = time.monotonic()
        listing = Listing(self.link, filters, FACTS, limit=limit, sort="downloads")
        facts: dict[str, Facts] = {}
        for row in listing:
            found = facts_of(row)
            if found is None or found.disabled:
                listing.skipped.append(f"{row.get('id')!r:.80}: disabled, or without a usable id")
                continue
            facts[found.id] = found
            if card_block(row) is False:
                self.opted_out.add(found.id)
        known = self._with_bases(facts)
        groups = group_by_data_set(facts.values(), known)
        data_sets: list[DataSetOutcome] = []
        cards: list[CardOutcome] = []
        if not dry_run:
            self.catalog.extend(candidate_of(facts[id]) for id in groups.without)
        bar = tqdm(groups.by_data_set.items(), desc="Data sets", disable=None if self.progress else True)
        for data_set, members in bar:
            bar.set_postfix_str(data_set)
            each = [facts[id] for id in members]
            if dry_run:
                reused = self.journal.embedding(data_set, None) is not None
                data_sets.append(DataSetOutcome(data_set, len(each), "reused" if reused else "planned"))
                cards += [CardOutcome(one.id, data_set, self._planned(one.id)) for one in each]
                continue
            embedding, outcome = self._embedding(data_set, len(each))
            data_sets.append(outcome)
            embeddings = [] if embedding is None else [embedding]
            self.catalog.extend(candidate_of(one, embeddings, source=data_set) for one in each)
            if embedding is not None:
                cards += self._cards(each, embedding, data_set, known)
        return EnrichReport(
            n_listed=len(facts),
            n_through_base=groups.n_through_base,
            data_sets=tuple(data_sets),
            cards=tuple(cards),
            without=groups.without,
            skipped=tuple(listing.skipped),
            space=self.space.id,
            catalog=str(self.catalog.path),
            seconds=time.monotonic() - start,
        )

    def _with_bases(self, facts: Mapping[str, Facts]) -> dict[str, Facts | None]:
        """Facts of the base models that are needed to find data sets, step by step."""
        known: dict[str, Facts | None] = {}
        for _ in range(MAX_STEPS):
            wanted = missing_bases(facts.values(), known)[:_BASES]
            if not wanted:
                break
            for id in tqdm(wanted, desc="Base models", disable=None if self.progress else True):
                try:
                    parameters = [("expand", name) for name in FACTS]
                    path = repository_path("model", id)
                    known[id] = facts_of(self.link.json(path, parameters, what=f"The model {id!r}"))
                    self.failures = 0
                except (HubAccessError, HubNotFoundError, SettingsError):
                    known[id] = None
                except T2VError as error:
                    known[id] = None
                    self._out_of_reach(error)
        return known

    def _embedding(self, data_set: str, n_checkpoints: int) -> tuple[TaskEmbedding | None, DataSetOutcome]:
        """The embedding of a data set: kept, from its card, or measured now."""

        def outcome(state: DataSetState, reason: str = "") -> DataSetOutcome:
            return DataSetOutcome(data_set, n_checkpoints, state, reason)

        try:
            revision = self._revision(data_set)
            kept = self.journal.embedding(data_set, revision)
            if kept is not None and kept.space == self.space:
                return kept, outcome("reused")
            stored = stored_embedding(data_set, self.space, connection=self.link).embedding
            if stored is not None:
                self.journal.keep_embedding(data_set, stored)
                return stored, outcome("from its card")
            embedding = self.task2vec.embed(
                data_set, streaming=True, revision=revision, max_scan=self.max_scan, small_classes="drop"
            )
            self.failures = 0
        except HubUnreachableError as error:
            self._out_of_reach(error)
            return None, outcome("failed", str(error))
        except RateLimitError:
            raise  # what follows would fare no better
        except T2VError as error:
            return None, outcome("failed", str(error))
        if embedding.space != self.space:  # several labels per image make a space of its own
            return None, outcome("failed", "its images have several labels, which is another space")
        self.journal.keep_embedding(data_set, embedding)
        return embedding, outcome("embedded")

    def _revision(self, data_set: str) -> str | None:
        info = self.link.json(
            repository_path("dataset", data_set), [("expand", "sha")], what=f"The data set {data_set!r}"
        )
        sha = info.get("sha")
        return sha if isinstance(sha, str) else None

    def _cards(
        self,
        members: Sequence[Facts],
        embedding: TaskEmbedding,
        data_set: str,
        known: Mapping[str, Facts | None],
    ) -> list[CardOutcome]:
        """Write the embedding into the cards of checkpoints."""
        index = Known(members, known)
        outcomes = []
        for facts in tqdm(members, desc=data_set, leave=False, disable=None if self.progress else True):
            source = training_data_set(facts, index)
            role = "finetune" if source is None else source.role
            values = entry_values(embedding, role=role)
            digest = str(values["digest"])
            done = self.journal.card(facts.id, digest)
            if facts.id in self.opted_out:
                outcomes.append(CardOutcome(facts.id, data_set, "opted out"))
            elif self.catalog_only:
                outcomes.append(CardOutcome(facts.id, data_set, "catalog only"))
            elif done is not None:
                outcomes.append(CardOutcome(facts.id, data_set, done["state"], done.get("url")))
            else:
                outcome = self._card(facts.id, values, data_set)
                outcomes.append(outcome)
                if outcome.state in ("committed", "pull request", "unchanged", "declined"):
                    self.journal.keep_card(facts.id, digest, state=outcome.state, url=outcome.url)
        return outcomes

    def _card(self, id: str, values: Mapping[str, Json], data_set: str) -> CardOutcome:
        """Write an entry into one card."""
        message = f"Add Task2Vec embedding of {data_set}"
        try:
            try:
                done = self._push(id, values, message, create_pr=False)
            except HubAccessError:
                if not self.create_pr:
                    raise
                earlier = earlier_request(self.link, id, message, repo_type="model")
                if earlier is not None and not earlier.is_open:
                    return CardOutcome(id, data_set, "declined", earlier.url)
                done = self._push(id, values, message, create_pr=True)
            self.failures = 0
            state: CardState = "committed" if done.changed else "unchanged"
            return CardOutcome(
                id, data_set, "pull request" if done.pull_request else state, done.pull_request
            )
        except OptedOutError:
            return CardOutcome(id, data_set, "opted out")
        except HubAccessError as error:
            hint = "" if self.create_pr else " A pull request would need --create-pr."
            return CardOutcome(id, data_set, "refused", reason=f"{error}{hint}")
        except RateLimitError:
            raise
        except T2VError as error:
            self._out_of_reach(error)
            return CardOutcome(id, data_set, "failed", reason=str(error))

    def _push(self, id: str, values: Mapping[str, Json], message: str, *, create_pr: bool) -> "PushResult":
        return push_entries(
            id,
            [values],
            repo_type="model",
            create_pr=create_pr,
            dry_run=False,
            revision=None,
            message=message,
            connection=self.link,
        )

    def _planned(self, id: str) -> CardState:
        if id in self.opted_out:
            return "opted out"
        return "catalog only" if self.catalog_only else "planned"

    def _out_of_reach(self, error: T2VError) -> None:
        """End the run when the Hub is out of reach again and again."""
        if not isinstance(error, HubUnreachableError):
            return
        self.failures += 1
        if self.failures >= _FAILURES:
            raise error
