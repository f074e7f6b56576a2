"""`enrich`: from a filter on the Hub to a catalog, and to cards with embeddings."""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tqdm.auto import tqdm

from t2v_hub.catalog import Catalog
from t2v_hub.data.sampling import check_count
from t2v_hub.embedding import TaskEmbedding
from t2v_hub.enrich.cards import CardWriter
from t2v_hub.enrich.data_sets import Measurer
from t2v_hub.enrich.journal import Journal
from t2v_hub.enrich.patience import Patience
from t2v_hub.enrich.report import CardOutcome, DataSetOutcome, EnrichReport
from t2v_hub.errors import HubUnreachableError, RateLimitError, SettingsError, T2VError
from t2v_hub.executors import Executor, make_executor
from t2v_hub.hub.connection import Connection, repository_path
from t2v_hub.hub.facts import Facts, candidate_of, facts_of
from t2v_hub.hub.listing import FACTS, Listing, card_block
from t2v_hub.hub.sources import (
    MAX_STEPS,
    Groups,
    Known,
    Source,
    group_by_data_set,
    missing_bases,
    training_data_set,
)
from t2v_hub.storage import home

if TYPE_CHECKING:
    from t2v_hub.task2vec import Task2Vec

Members = Mapping[str, Sequence[tuple[Facts, Source | None]]]
"""Checkpoints by the data set that they were trained on, and how that is known."""

_BASES = 200  # base models that are looked up in one step, of at most eight


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
    executor: Executor | str | None = None,
    connection: Connection | None = None,
    progress: bool = True,
    tell: Callable[[DataSetOutcome | CardOutcome], object] | None = None,
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
        catalog_only: Leave all cards alone. A public card is left alone in any case where it would tell of
            a private data set or base model.
        dry_run: Only say what would be done.
        max_scan: Images of a data set that are streamed at most.
        folder: Where finished work is kept; one below ``T2V_HOME`` for each Hub and space by default. Only
            one run at a time can work in it.
        executor: Where to measure, as for `Task2Vec.embed_many`: workers read the data sets, with the Hub's
            address and token of their own environment. Hub and cards are asked and written from here.
            None for this process.
        connection: What to ask through; its endpoint must be that of ``HF_ENDPOINT``, from which data sets
            are streamed.
        progress: Whether to show bars (on a terminal).
        tell: Called with each outcome as soon as it is known; the report has them all.

    Raises:
        SettingsError: Options that cannot work, or not together.
        HubError: The listing cannot be had, or the Hub is out of reach for long; what was finished is kept.
        StorageError: The disk is full, read-only or closed to us, or another run works in the folder.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise SettingsError(f"limit must be a whole number >= 1, not {limit!r}.")
    check_count("max_scan", max_scan)
    if create_pr and catalog_only:
        raise SettingsError("create_pr and catalog_only exclude each other: leave one of them out.")
    link = connection or Connection(patience_s=3600.0, progress=progress)
    space = task2vec.space()
    place = Path(folder) if folder is not None else home() / "enrich" / _host(link.endpoint) / space.id
    journal, patience, opted_out = Journal(place, endpoint=link.endpoint), Patience(), set[str]()
    run = _Run(
        link=link,
        space=space.id,
        catalog=Catalog() if catalog is None else catalog,
        journal=journal,
        patience=patience,
        measurer=Measurer(
            link,
            task2vec,
            space,
            journal,
            patience,
            max_scan,
            None if executor is None else make_executor(executor),
        ),
        cards=CardWriter(
            link,
            journal,
            patience,
            create_pr=create_pr,
            catalog_only=catalog_only,
            opted_out=opted_out,
            progress=progress,
        ),
        progress=progress,
        tell=tell,
    )
    if dry_run:
        return run.whole(filters, limit, dry_run=True)
    with journal.alone():
        return run.whole(filters, limit, dry_run=False)


def _host(endpoint: str) -> str:
    """A folder's name for a Hub."""
    parts = urlsplit(endpoint)
    return re.sub(r"[^\w.-]+", "-", f"{parts.netloc.rpartition('@')[2]}{parts.path}").strip("-") or "hub"


@dataclass
class _Run:
    """One run."""

    link: Connection
    space: str
    catalog: Catalog
    journal: Journal
    patience: Patience
    measurer: Measurer
    cards: CardWriter
    progress: bool
    tell: Callable[[DataSetOutcome | CardOutcome], object] | None = None
    unasked: dict[str, str] = field(default_factory=dict)

    def whole(self, filters: Sequence[str], limit: int, *, dry_run: bool) -> EnrichReport:
        """The run from its listing to its report."""
        start = time.monotonic()
        listing = Listing(self.link, filters, FACTS, limit=limit, sort="downloads")
        facts = self._listed(listing)
        known = self._with_bases(facts)
        groups, cards = self._grouped(facts, known)
        data_sets: dict[str, DataSetOutcome] = {}
        cards_of: dict[str, list[CardOutcome]] = {}
        self._told(*cards)
        if not dry_run:
            self._keep(facts[id] for id in (*groups.without, *(card.id for card in cards)))
        members = {
            name: [(facts[id], training_data_set(facts[id], known)) for id in ids]
            for name, ids in groups.by_data_set.items()
        }
        for name, outcome, written in self._planned(members) if dry_run else self._done(members):
            data_sets[name] = outcome
            cards_of[name] = written
        cards += [card for name in members for card in cards_of[name]]
        return EnrichReport(
            n_listed=len(facts),
            n_through_base=groups.n_through_base,
            data_sets=tuple(data_sets[name] for name in members),
            cards=tuple(cards),
            without=groups.without,
            skipped=tuple(listing.skipped),
            space=self.space,
            catalog=str(self.catalog.path),
            seconds=time.monotonic() - start,
        )

    def _planned(self, members: Members) -> Iterator[tuple[str, DataSetOutcome, list[CardOutcome]]]:
        """What would become of each data set and its cards."""
        for name, group in members.items():
            reused = self.journal.embedding(name, None) is not None
            outcome = DataSetOutcome(name, len(group), "reused" if reused else "planned")
            planned = [self.cards.planned(one, source, name) for one, source in group]
            self._told(outcome, *planned)
            yield name, outcome, planned

    def _done(self, members: Members) -> Iterator[tuple[str, DataSetOutcome, list[CardOutcome]]]:
        """What becomes of each data set and its cards, as soon as it has."""
        bar = tqdm(total=len(members), desc="Data sets", disable=None if self.progress else True)
        sizes = {name: len(group) for name, group in members.items()}
        with bar, closing(self.measurer.embeddings(sizes)) as found:
            for name, (data_set, embedding, outcome) in found:
                self._told(outcome)
                self._keep((one for one, _ in members[name]), embedding, source=data_set.id)
                written: list[CardOutcome] = []
                if embedding is not None:
                    written = self.cards.write(members[name], embedding, data_set)
                    self._told(*written)
                bar.update()
                yield name, outcome, written

    def _told(self, *outcomes: DataSetOutcome | CardOutcome) -> None:
        if self.tell is not None:
            for outcome in outcomes:
                self.tell(outcome)

    def _listed(self, listing: Listing) -> dict[str, Facts]:
        facts: dict[str, Facts] = {}
        for row in listing:
            found = facts_of(row)
            if found is None or found.disabled:
                listing.skipped.append(f"{row.get('id')!r:.80}: disabled, or without a usable id")
                continue
            facts[found.id] = found
            if card_block(row) is False:
                self.cards.opted_out.add(found.id)
        self.patience.answered()
        return facts

    def _keep(
        self, each: Iterable[Facts], embedding: TaskEmbedding | None = None, *, source: str | None = None
    ) -> None:
        """Add checkpoints to the catalog; what others found out about them stays."""
        embeddings = [] if embedding is None else [embedding]
        candidates = [candidate_of(one, embeddings, source=source) for one in each]
        self.catalog.extend(candidates, across_revisions=True)

    def _with_bases(self, facts: Mapping[str, Facts]) -> Known:
        """All facts, and those of the base models that are needed to find data sets, step by step."""
        known: dict[str, Facts | None] = {}
        for _ in range(MAX_STEPS):
            missing = missing_bases(facts.values(), known)
            wanted = [id for id in missing if id.casefold() not in self.unasked][:_BASES]
            if not wanted:
                break
            for id in tqdm(wanted, desc="Base models", disable=None if self.progress else True):
                self._ask(id, known)
        return Known(facts.values(), known)

    def _ask(self, id: str, known: dict[str, Facts | None]) -> None:
        """Look up one base model."""
        parameters = [("expand", name) for name in FACTS]
        try:
            row = self.link.json(repository_path("model", id), parameters, what=f"The model {id!r}")
        except RateLimitError:
            raise  # what follows would fare no better
        except HubUnreachableError as error:
            self.unasked[id.casefold()] = f"its base model {id!r} could not be asked: {error}"
            self.patience.out_of_reach(error)
            return
        except T2VError:  # an answer: it is not there, or not for us
            known[id] = None
        else:
            known[id] = facts_of(row)
        self.patience.answered()

    def _grouped(self, facts: Mapping[str, Facts], known: Known) -> tuple[Groups, list[CardOutcome]]:
        """Checkpoints by data set, without those whose data set could turn out to be another one."""
        groups = group_by_data_set(facts.values(), known)
        failed: dict[str, str] = {}
        for id, missing in groups.missing.items():
            reasons = [self.unasked[base.casefold()] for base in missing if base.casefold() in self.unasked]
            if reasons:
                failed[id] = reasons[0]
        if failed:
            groups = group_by_data_set((one for one in facts.values() if one.id not in failed), known)
        return groups, [CardOutcome(id, "", "failed", reason=reason) for id, reason in failed.items()]
