"""What is known of a candidate from two sides, joined."""

from collections.abc import Iterable, Mapping
from dataclasses import fields

from t2v_hub.catalog.candidate import Candidate, StoredEmbeddings, records_of
from t2v_hub.catalog.index import Index


def file_names(index: Index) -> set[str]:
    """Names of the files of embeddings that were added here."""
    records = (record for item in index.candidates.values() for record in records_of(item.embeddings))
    return {record.file_name for record in records if record.pack is None}


def spaces_in(candidates: Iterable[Candidate]) -> set[str]:
    """Ids of the spaces of their embeddings."""
    return {record.space for candidate in candidates for record in records_of(candidate.embeddings)}


def joined(old: Candidate, new: Candidate, *, across_revisions: bool) -> Candidate:
    """What is known of a candidate after ``new`` was added; see `Catalog.add`."""
    other = old.revision is not None and new.revision is not None and old.revision != new.revision
    if other and not across_revisions:
        return new
    assert isinstance(old.embeddings, StoredEmbeddings)
    assert isinstance(new.embeddings, StoredEmbeddings)
    records = {record.subject: record for record in old.embeddings.records}
    records |= {record.subject: record for record in new.embeddings.records}
    facts: Mapping[str, object] = {
        item.name: getattr(new, item.name) if getattr(new, item.name) is not None else getattr(old, item.name)
        for item in fields(Candidate)
    }
    embeddings = StoredEmbeddings(new.embeddings.folder, tuple(records.values()))
    return Candidate(**{**facts, "embeddings": embeddings})  # type: ignore[arg-type]  # as they were checked
