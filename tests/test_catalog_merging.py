"""Merging catalogs that hold what cards say: it stays the word of a card, and a measurement counts more."""

from dataclasses import replace

import pytest
from factories import make_embedding
from test_catalog_sync import SPACE, add, card, connection, embedding

from t2v_hub import Catalog
from t2v_hub.catalog import Candidate, merge_catalogs
from t2v_hub.catalog.candidate import records_of
from t2v_hub.testing import LoopbackHub

NAMED = replace(SPACE, probe="timm/known")


@pytest.fixture
def hub():
    with LoopbackHub() as hub:
        yield hub


@pytest.fixture
def synced(hub, tmp_path):
    """What three cards on a Hub say, read as by somebody who knows the probe's name."""
    for number in range(3):
        add(hub, number)
    return Catalog.from_hub(tmp_path / "synced", space=NAMED, endpoint=hub.endpoint)


def records(catalog, id):
    return records_of(Catalog.load(catalog.path)[id].embeddings)


def test_cards_stay_cards_of_their_hub(hub, synced, tmp_path):
    """Else a company's checkpoint would be looked for on the public Hub, and no sync could mend it."""
    mine = Catalog(tmp_path / "mine")

    report = merge_catalogs(mine, [synced])

    assert (report.n_added, report.n_embeddings, report.left_out) == (3, 3, ())
    for number in range(3):
        assert records(mine, f"owner/m{number}") == records(synced, f"owner/m{number}")
        [read] = Catalog.load(mine.path)[f"owner/m{number}"].embeddings
        assert read.digest == synced[f"owner/m{number}"].embeddings[0].digest
    assert [space.probe for space in mine.spaces()] == ["timm/known"]
    assert mine.own_spaces() == {}, "nobody here vouched for that probe"
    assert not mine.is_local("owner/m0")
    assert len(mine.matrix(SPACE)) == 3
    hub.remove("owner/m1")
    assert mine.sync(connection=connection(hub)).n_removed == 1
    assert "owner/m1" not in mine


def test_a_space_keeps_the_name_that_its_probe_has_here(synced, tmp_path):
    """The other one's name may be a folder of another machine."""
    mine = Catalog(tmp_path / "mine")
    mine.add(
        Candidate("me/own"),
        embedding=make_embedding(seed=5, space=replace(SPACE, probe="/my/probe"), n_filters=40),
    )
    theirs = Catalog(tmp_path / "theirs")
    theirs.add(
        Candidate("their/own"),
        embedding=make_embedding(seed=6, space=replace(SPACE, probe="/their/probe"), n_filters=40),
    )

    merge_catalogs(mine, [theirs, synced])

    assert [space.probe for space in Catalog.load(mine.path).spaces()] == ["/my/probe"]
    assert [space.probe for space in mine.own_spaces()] == ["/my/probe"]


@pytest.mark.parametrize("prefer", ["other", "here"])
@pytest.mark.parametrize("measured", ["here", "there"])
def test_of_one_task_a_measurement_counts_more_than_a_card(synced, tmp_path, prefer, measured):
    """As when cards are read: whoever is preferred."""
    own = Catalog(tmp_path / "own")
    mine = replace(embedding(0), fisher=embedding(0).fisher * 2)
    own.add(Candidate("owner/m0"), embedding=mine)
    here, there = (own, synced) if measured == "here" else (synced, own)

    report = merge_catalogs(here, [there], prefer=prefer)

    [record] = records(here, "owner/m0")
    assert (record.digest, record.pack) == (mine.digest, None)
    assert Catalog.load(here.path)["owner/m0"].embeddings[0].digest == mine.digest
    assert not [conflict for conflict in report.conflicts if conflict.what.startswith("embedding")]


def test_a_damaged_pack_is_named_and_the_rest_is_taken(synced, tmp_path):
    """One bad file must not end a merge of thousands."""
    for path in synced.cards.glob("*.parquet"):
        path.write_bytes(b"damaged")

    report = merge_catalogs(Catalog(tmp_path / "mine"), [synced])

    assert report.n_added == 3
    assert report.n_embeddings == 0
    assert [reason.split(":")[0] for reason in report.left_out] == ["owner/m0", "owner/m1", "owner/m2"]


@pytest.mark.parametrize("prefer", ["other", "here"])
def test_another_commit_takes_no_embedding_away(tmp_path, prefer):
    """The commit of a repository changes with its card: the first node of two wrote it, the second failed."""
    first, second = Catalog(tmp_path / "0"), Catalog(tmp_path / "1")
    first.add(Candidate("org/a", revision="1" * 40), embedding=embedding(0))
    second.add(Candidate("org/a", revision="2" * 40))
    mine = Catalog(tmp_path / "mine")

    report = merge_catalogs(mine, [first, second], prefer=prefer)

    found = Catalog.load(mine.path)["org/a"]
    assert found.revision == ("2" if prefer == "other" else "1") * 40
    assert found.embeddings[0].digest == embedding(0).digest
    assert [(conflict.what, conflict.kept) for conflict in report.conflicts] == [("revision", prefer)]


def readable(catalog):
    """Every embedding that the index names, read."""
    return {c.id: [one.digest for one in c.embeddings] for c in Catalog.load(catalog.path)}


@pytest.mark.parametrize("is_known", [True, False], ids=["read here", "merged before"])
@pytest.mark.parametrize("prefer", ["other", "here"])
def test_what_both_read_at_different_times_stays_readable(hub, synced, tmp_path, prefer, is_known):
    """One Hub's cards lie in other packs wherever they were read in other lots."""
    theirs = Catalog(tmp_path / "theirs")
    hub.remove("owner/m2")
    theirs.sync(space=NAMED, connection=connection(hub))
    add(hub, 2, name="owner/m2")
    theirs.sync(space=NAMED, connection=connection(hub))
    before = readable(synced)
    assert records(theirs, "owner/m0") != records(synced, "owner/m0")
    if not is_known:
        (synced.path / "hub.json").unlink()

    report = merge_catalogs(synced, [theirs], prefer=prefer)

    assert readable(synced) == before
    assert {(c.about, c.what) for c in report.conflicts} == {("owner/m2", "revision")}  # it was made anew
    assert report.left_out == ()
    assert records(synced, "owner/m0")[0].pack in {path.stem for path in synced.cards.glob("*.parquet")}


@pytest.mark.parametrize("prefer", ["other", "here"])
def test_one_embedding_as_a_file_there_and_from_a_card_here_stays_readable(synced, tmp_path, prefer):
    """Whoever added a card's embedding by hand measured nothing new; it must be there all the same."""
    theirs = Catalog(tmp_path / "theirs")
    theirs.add(Candidate("owner/m0"), embedding=synced["owner/m0"].embeddings[0])
    before = readable(synced)

    merge_catalogs(synced, [theirs], prefer=prefer)

    assert readable(synced) == before
    assert records(synced, "owner/m0")[0].pack is None


def test_what_is_damaged_here_and_whole_there_is_repaired(tmp_path):
    """Merging again completes a merge."""
    mine, theirs = Catalog(tmp_path / "mine"), Catalog(tmp_path / "theirs")
    for one in (mine, theirs):
        one.add(Candidate("org/a"), embedding=embedding(0))
    [path] = mine.embeddings_folder.iterdir()
    path.write_bytes(b"damaged")

    report = merge_catalogs(mine, [theirs])

    assert report.n_same == 1
    assert readable(mine) == {"org/a": [embedding(0).digest]}


def test_an_older_reading_does_not_replace_a_newer_one(hub, tmp_path):
    """The next sync would not look at that card again, for its commit is known."""
    add(hub, 0)
    old = Catalog.from_hub(tmp_path / "old", endpoint=hub.endpoint)
    hub.commit("owner/m0", {"README.md": card(embedding(7))})
    new = Catalog.from_hub(tmp_path / "new", endpoint=hub.endpoint)
    before = Catalog.load(new.path)["owner/m0"]

    report = merge_catalogs(new, [old], prefer="other")

    found = Catalog.load(new.path)["owner/m0"]
    assert [one.digest for one in found.embeddings] == [one.digest for one in before.embeddings]
    assert found.revision == before.revision == hub.head("owner/m0")
    assert {conflict.kept for conflict in report.conflicts} <= {"here"}
    other = Catalog(tmp_path / "fresh")
    merge_catalogs(other, [old, new])
    assert [one.task.id for one in Catalog.load(other.path)["owner/m0"].embeddings][-1] == "org/data7"
