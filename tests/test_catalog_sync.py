"""`Catalog.sync` and `Catalog.from_hub`: what the cards on a Hub say, read into a catalog."""

import json
import multiprocessing
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
from factories import make_embedding, make_space

from t2v_hub import Catalog, ModelSelector
from t2v_hub.card import Readme, entry_values, space_tag
from t2v_hub.catalog import Candidate
from t2v_hub.catalog.pack import open_pack
from t2v_hub.distance import distances
from t2v_hub.embedding import HalfVector, TaskInfo
from t2v_hub.errors import CatalogFileError, EmbeddingFileError, HubError, HubUnreachableError
from t2v_hub.hub import Connection
from t2v_hub.testing import LoopbackHub

SPACE = make_space(40)
TARGET = make_embedding(seed=99, space=SPACE, n_filters=40, n_groups=15)


@pytest.fixture
def hub():
    with LoopbackHub() as hub:
        yield hub


def connection(hub, **changes):
    return Connection(
        **{
            "endpoint": hub.endpoint,
            "token": hub.token,
            "sleep": lambda _: None,
            "progress": False,
            **changes,
        }
    )


def embedding(number, space=SPACE):
    return make_embedding(
        seed=number, space=space, n_filters=space.n_filters, task=f"org/data{number}",
        distance_standard_error=0.004,
    )  # fmt: skip


def card(*embeddings, role="finetune", extra=(), head="license: mit\n"):
    entries = [*(entry_values(one, role=role) for one in embeddings), *extra]
    tags = ["task2vec", *{space_tag(str(values["space"])) for values in entries}]
    return Readme.parse(f"---\n{head}---\n# Model\n".encode()).changed(append=entries, add_tags=tags)


def add(hub, number, *, name=None, **options):
    name = name or f"owner/m{number}"
    hub.add_repo(name, {"README.md": card(embedding(number))}, **options)
    return name


def test_an_empty_folder_becomes_a_catalog_in_one_request(hub, tmp_path):
    for number in range(12):
        add(hub, number, downloads=number, likes=2, parameters=1000 + number, library_name="timm")
    hub.add_repo("owner/plain", {"README.md": "# no embedding"})

    catalog = Catalog.from_hub(tmp_path, space=SPACE, endpoint=hub.endpoint, token=hub.token)

    assert len(hub.requests) == 1
    assert len(catalog) == 12
    candidate = catalog["owner/m3"]
    facts = (candidate.downloads, candidate.likes, candidate.parameters, candidate.library, candidate.licence)
    assert facts == (3, 2, 1003, "timm", "mit")
    assert candidate.revision == hub.head("owner/m3")
    assert candidate.source == "org/data3"
    assert candidate.embeddings[0].task.id == "org/data3"
    [report] = catalog.synced()
    assert (report.n_listed, report.n_read, report.n_requests, report.skipped) == (12, 12, 1, ())
    assert report.age == "just now"


def test_a_ranking_from_cards_is_that_of_the_embeddings(hub, tmp_path):
    for number in range(30):
        add(hub, number)
    catalog = Catalog.from_hub(tmp_path, endpoint=hub.endpoint)
    hub.stop()  # nothing more is asked

    ranking = ModelSelector(catalog, distance="symmetric").rank(TARGET)

    decoded = [HalfVector.encode(embedding(n).fisher).decode() for n in range(30)]
    expected = distances(TARGET, np.stack(decoded))
    assert ranking.ranked == tuple(f"owner/m{n}" for n in np.argsort(expected))
    for item in ranking:
        number = int(item.candidate.id.removeprefix("owner/m"))
        assert item.distance == pytest.approx(expected[number], abs=1e-6)
        assert item.standard_error > 0.004
        assert item.source_task == f"org/data{number}"
    again = ModelSelector(Catalog.load(tmp_path), distance="symmetric").rank(TARGET)
    assert again.ranked == ranking.ranked


def test_only_changed_cards_are_read_again(hub, tmp_path):
    for number in range(10):
        add(hub, number)
    catalog = Catalog.from_hub(tmp_path, endpoint=hub.endpoint)
    hub.commit("owner/m3", {"README.md": card(embedding(33))})
    add(hub, 50)
    hub.remove("owner/m5")
    hub.commit("owner/m6", {"README.md": "# gone"})
    hub.clear_requests()

    report = catalog.sync(connection=connection(hub))

    assert hub.requests[0].query["expand"] == ["sha"]
    assert len(hub.requests) == 3
    assert (report.n_listed, report.n_read, report.n_removed, report.n_requests) == (9, 2, 2, 3)
    assert "owner/m5" not in catalog
    assert "owner/m6" not in catalog
    assert catalog["owner/m3"].embeddings[0].task.id == "org/data33"
    assert len(ModelSelector(catalog).rank(TARGET)) == 9
    hub.clear_requests()
    assert catalog.sync(connection=connection(hub)).n_read == 0
    assert len(hub.requests) == 1


def test_many_changed_cards_are_read_by_listing(hub, tmp_path):
    for number in range(60):
        add(hub, number)
    catalog = Catalog.from_hub(tmp_path, endpoint=hub.endpoint)
    for number in range(55):
        hub.commit(f"owner/m{number}", {"README.md": card(embedding(100 + number))})
    hub.clear_requests()

    report = catalog.sync(connection=connection(hub))

    assert (report.n_read, len(hub.requests)) == (55, 2)
    assert catalog["owner/m54"].embeddings[0].task.id == "org/data154"
    assert catalog["owner/m55"].embeddings[0].task.id == "org/data55"


def test_pages_are_followed_and_repetitions_dropped(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("t2v_hub.hub.listing.PAGE", 7)
    for number in range(30):
        add(hub, number)

    report = Catalog(tmp_path).sync(connection=connection(hub))

    assert (report.n_listed, report.n_requests) == (30, 5)


def test_spaces_and_filters_are_kept_apart(hub, tmp_path):
    other = make_space(9)
    hub.add_repo("owner/a", {"README.md": card(embedding(1), head="pipeline_tag: image-classification\n")})
    hub.add_repo("owner/b", {"README.md": card(embedding(2), embedding(3, other))})
    hub.add_repo("owner/c", {"README.md": card(embedding(4, other))})
    catalog = Catalog(tmp_path)

    catalog.sync(space=SPACE, connection=connection(hub))
    assert set(catalog.spaces()) == {SPACE}
    assert [c.id for c in catalog] == ["owner/a", "owner/b"]

    catalog.sync(space=other.id, connection=connection(hub))
    assert catalog.spaces() == {SPACE: 2, other: 2}
    assert len(catalog["owner/b"].embeddings) == 2

    filtered = Catalog(tmp_path / "filtered")
    filtered.sync(filter="image-classification", connection=connection(hub))
    assert [c.id for c in filtered] == ["owner/a"]
    hub.remove("owner/b")
    catalog.sync(space=SPACE, connection=connection(hub))
    catalog.sync(space=other, connection=connection(hub))
    assert [c.id for c in catalog] == ["owner/a", "owner/c"]
    assert len(catalog.synced(space=SPACE)) == 1


def test_what_was_added_here_stays(hub, tmp_path):
    """A local embedding is the better one, and facts that only its owner knows are not lost."""
    add(hub, 1, name="owner/both")
    catalog = Catalog(tmp_path)
    catalog.add(Candidate("owner/both", upstream_accuracy=0.9), embedding=embedding(7))
    catalog.add(Candidate("here/only"), embedding=embedding(8))

    catalog.sync(connection=connection(hub))
    both = catalog["owner/both"]
    assert {e.task.id for e in both.embeddings} == {"org/data7", "org/data1"}
    assert (both.upstream_accuracy, both.licence) == (0.9, "mit")

    hub.remove("owner/both")
    catalog.sync(connection=connection(hub))
    assert [e.task.id for e in catalog["owner/both"].embeddings] == ["org/data7"]
    assert "here/only" in catalog


def test_tags_in_any_order_are_one_question(hub, tmp_path):
    """Another order must not read all cards again, nor be told that nothing was ever read."""
    head = "pipeline_tag: image-classification\nlibrary_name: timm\n"
    hub.add_repo("owner/a", {"README.md": card(embedding(1), head=head)})
    catalog = Catalog(tmp_path)
    catalog.sync(filter=["timm", "image-classification"], connection=connection(hub))

    again = catalog.sync(filter=["image-classification", "timm", "timm"], connection=connection(hub))

    assert (again.n_listed, again.n_read) == (1, 0)
    assert len(catalog.synced()) == 1


def test_bad_cards_are_skipped_and_named(hub, tmp_path):
    good = entry_values(embedding(1), role="finetune")
    hub.add_repo("owner/good", {"README.md": card(extra=[good])})
    hub.add_repo("owner/half", {"README.md": card(extra=[good, {**good, "spec": "t2v/7"}])})
    hub.add_repo("owner/bad", {"README.md": card(extra=[{**good, "digest": "sha256:0"}])})
    hub.add_repo("owner/self", {"README.md": card(embedding(3), role="self")})
    hub.add_repo("owner/text", {"README.md": "---\ntags: [task2vec]\ntask2vec: hello\n---\n"})
    hub.add_repo("owner/bomb", {"README.md": BOMB})

    catalog = Catalog(tmp_path)
    report = catalog.sync(connection=connection(hub))

    assert [c.id for c in catalog] == ["owner/good", "owner/half"]
    text = "\n".join(report.skipped)
    for words in (
        "owner/half: entry 2: its spec is 't2v/7'",
        "owner/bad: entry 1: its digest is not that of its data",
        "owner/self: an entry of the role self",
        "owner/text: task2vec is of type str, not a list",
    ):
        assert words in text
    assert catalog.sync(connection=connection(hub)).n_read == 0


def test_a_card_that_calls_one_probe_by_two_names_can_be_read(hub, tmp_path):
    entries = [entry_values(embedding(number), role="finetune") for number in (1, 2)]
    entries[1]["probe"] = "other/name"
    hub.add_repo("owner/a", {"README.md": card(extra=entries)})

    catalog = Catalog.from_hub(tmp_path, endpoint=hub.endpoint)

    assert {one.task.id for one in catalog["owner/a"].embeddings} == {"org/data1", "org/data2"}
    assert [space.probe for space in catalog.spaces()] in ([SPACE.probe], ["other/name"])


BOMB = (
    "---\ntags: [task2vec]\na: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True))
    + "task2vec: [*h]\n---\n"
)


@pytest.mark.parametrize(
    "odd",
    [
        {"self": 1, "task2vec": []},
        {"task2vec": [{"spec": "t2v/1", "data": "f16:" + "A" * 20_000_000}]},
        {"task2vec": {"deep": None}},
        None,
        5,
    ],
)  # fmt: skip
def test_a_hostile_row_spoils_no_listing(hub, tmp_path, odd):
    good = {
        "id": "owner/good",
        "sha": "a" * 40,
        "cardData": {"task2vec": [entry_values(embedding(1), role="finetune")]},
    }
    rows = [{"id": "evil/a", "sha": "b" * 40, "cardData": odd}, {"id": ["x"]}, 7, None, good, good]
    hub.faults.lie(r"/api/models$", json.dumps(rows).encode())

    catalog = Catalog(tmp_path)
    report = catalog.sync(connection=connection(hub))

    assert [c.id for c in catalog] == ["owner/good"]
    assert report.n_listed == 2


def test_a_page_that_is_too_large_is_taken_in_pieces(hub, tmp_path, monkeypatch):
    """One card must not stand between a searcher and all others."""
    monkeypatch.setattr("t2v_hub.hub.listing._MAX_PAGE_BYTES", 30_000)
    for number in range(9):
        add(hub, number)
    huge = "---\ntags: [task2vec]\njunk: " + "x" * 40_000 + "\n---\n"
    hub.add_repo("evil/huge", {"README.md": huge})
    for number in range(9, 18):
        add(hub, number)

    catalog = Catalog(tmp_path)
    report = catalog.sync(connection=connection(hub))

    assert len(catalog) == 18
    assert any("its card is larger than" in words for words in report.skipped)


@pytest.mark.parametrize("body", [b"", b"{}", b"<html>", b"[1", b"\xff"])
def test_a_server_that_is_no_hub_changes_nothing(hub, tmp_path, body):
    add(hub, 1)
    catalog = Catalog.from_hub(tmp_path, endpoint=hub.endpoint)
    before = (tmp_path / "candidates.parquet").read_bytes()
    hub.faults.lie(r"/api/models$", body, times=9)

    with pytest.raises(HubError):
        catalog.sync(connection=connection(hub))

    assert (tmp_path / "candidates.parquet").read_bytes() == before


def test_deep_nesting_is_a_card_that_cannot_be_parsed(hub, tmp_path):
    add(hub, 1)
    hub.faults.lie(r"/api/models$", b"[" * 200_000 + b"]" * 200_000, times=9)

    assert "cannot be parsed" in Catalog(tmp_path).sync(connection=connection(hub)).skipped[0]


def test_a_listing_without_end_is_left(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("t2v_hub.hub.listing._MAX_REQUESTS", 20)
    link = f'<{hub.endpoint}/api/models?cursor=1>; rel="next"'
    hub.faults.lie(r"/api/models$", b"[]", headers={"Link": link}, times=100)

    with pytest.raises(HubUnreachableError, match="lists without end"):
        Catalog(tmp_path).sync(connection=connection(hub))


def test_stale_listings_do_no_harm(hub, tmp_path):
    """A listing is a cache: it may show the state of an hour ago, and be right again later."""
    add(hub, 1)
    catalog = Catalog.from_hub(tmp_path, endpoint=hub.endpoint)
    hub.faults.stale_listings = True
    add(hub, 2)
    hub.commit("owner/m1", {"README.md": card(embedding(11))})

    catalog.sync(connection=connection(hub))
    assert [c.id for c in catalog] == ["owner/m1"]

    hub.faults.stale_listings = False
    catalog.sync(connection=connection(hub))
    assert [c.id for c in catalog] == ["owner/m1", "owner/m2"]
    assert catalog["owner/m1"].embeddings[0].task.id == "org/data11"


def test_gated_private_and_disabled(hub, tmp_path):
    add(hub, 1, gated="manual")
    add(hub, 2, private=True)
    add(hub, 3, disabled=True)
    reader = hub.user("reader")

    own, others = Catalog(tmp_path / "own"), Catalog(tmp_path / "others")
    own.sync(connection=connection(hub))
    others.sync(connection=connection(hub, token=reader))

    assert [c.id for c in own] == ["owner/m1", "owner/m2"]
    assert own["owner/m1"].gated is True
    assert [c.id for c in others] == ["owner/m1"]


def test_equal_vectors_are_kept_once(hub, tmp_path):
    """Hundreds of checkpoints share a data set."""
    for number in range(20):
        hub.add_repo(f"owner/m{number}", {"README.md": card(embedding(1))})

    catalog = Catalog.from_hub(tmp_path, endpoint=hub.endpoint)

    [path] = (tmp_path / "cards").glob("*.npy")
    assert np.load(path).shape == (1, 40)
    assert len(catalog) == 20
    ranking = ModelSelector(catalog).rank(TARGET)
    assert len({item.distance for item in ranking}) == 1
    assert {item.tie_group for item in ranking} == {1}


def test_small_packs_are_joined(hub, tmp_path, monkeypatch):
    """A sync a day must not leave a thousand files."""
    monkeypatch.setattr("t2v_hub.catalog.packing._GRACE_S", -1.0)
    catalog = Catalog(tmp_path)
    for number in range(14):
        add(hub, number)
        catalog.sync(connection=connection(hub))

    assert len(list((tmp_path / "cards").glob("*.npy"))) <= 9
    assert len(ModelSelector(catalog).rank(TARGET)) == 14
    assert [c.embeddings[0].task.id for c in Catalog.load(tmp_path)] == sorted(
        (f"org/data{n}" for n in range(14)), key=lambda name: f"owner/m{name[8:]}"
    )


@pytest.mark.parametrize("suffix", ["npy", "parquet"])
@pytest.mark.parametrize("damage", ["absent", "truncated", "text"])
def test_a_damaged_pack_is_named_and_can_be_read_again(hub, tmp_path, suffix, damage):
    add(hub, 1)
    catalog = Catalog.from_hub(tmp_path, endpoint=hub.endpoint)
    catalog.add(Candidate("here/only"), embedding=embedding(8))
    [path] = (tmp_path / "cards").glob(f"*.{suffix}")
    content = path.read_bytes()
    if damage == "absent":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"hello")

    with pytest.raises(EmbeddingFileError, match="catalog sync --again"):
        _ = catalog["owner/m1"].embeddings[0]
    ranking = ModelSelector(Catalog.load(tmp_path)).rank(TARGET)
    assert [item.distance is None for item in ranking] == [False, True]
    assert "catalog sync --again" in ranking.skipped[0]

    catalog.sync(again=True, connection=connection(hub))
    assert catalog["owner/m1"].embeddings[0].task.id == "org/data1"


def test_a_pack_whose_numbers_were_changed_is_found_out(hub, tmp_path):
    add(hub, 1)
    Catalog.from_hub(tmp_path, endpoint=hub.endpoint)
    [path] = (tmp_path / "cards").glob("*.npy")
    values = np.load(path)
    np.save(path, values[:, ::-1].copy())

    with pytest.raises(EmbeddingFileError, match="was changed on this disk"):
        _ = Catalog.load(tmp_path)["owner/m1"].embeddings[0]
    with pytest.raises(EmbeddingFileError, match="its name is none of a pack"):
        open_pack(tmp_path / "cards", "../../etc")


def test_an_index_of_before_can_still_be_read(tmp_path):
    """The column that names packs came later."""
    import pyarrow.parquet as pq

    catalog = Catalog(tmp_path)
    catalog.add(Candidate("a/b"), embedding=embedding(1))
    path = tmp_path / "candidates.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    import pyarrow as pa

    kind = pa.list_(
        pa.struct([f for f in table.schema.field("embeddings").type.value_type if f.name != "pack"])
    )
    for row in rows:
        for record in row["embeddings"]:
            record.pop("pack")
    schema = table.schema.set(table.schema.get_field_index("embeddings"), pa.field("embeddings", kind))
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)

    assert Catalog.load(tmp_path)["a/b"].embeddings[0] == embedding(1)


def test_damage_to_the_state_costs_a_reading_and_no_more(hub, tmp_path):
    add(hub, 1)
    catalog = Catalog.from_hub(tmp_path, endpoint=hub.endpoint)
    for content in (b"", b"{}", b'{"format": "t2v-hub/1", "scopes": [5]}', b"\xff"):
        (tmp_path / "hub.json").write_bytes(content)
        assert catalog.synced() == ()
        assert catalog.sync(connection=connection(hub)).n_read == 1
    with pytest.raises(CatalogFileError):
        Catalog.load(tmp_path / "nothing")


def test_a_catalog_that_was_opened_before_deletes_nothing(hub, tmp_path):
    """Two processes may open a catalog, and one of them read cards first."""
    for number in range(4):
        add(hub, number)
    early, late = Catalog(tmp_path), Catalog(tmp_path)
    late.sync(connection=connection(hub))

    early.sync(connection=connection(hub))

    assert all(candidate.embeddings[0] for candidate in early)
    assert len(ModelSelector(early).rank(TARGET)) == len(ModelSelector(Catalog(tmp_path)).rank(TARGET)) == 4


def test_a_catalog_stays_readable_while_another_process_reads_cards(hub, tmp_path):
    for number in range(4):
        add(hub, number)
    opened = Catalog.from_hub(tmp_path, endpoint=hub.endpoint)
    for number in range(4):
        hub.commit(f"owner/m{number}", {"README.md": card(embedding(50 + number))})
    Catalog(tmp_path).sync(connection=connection(hub))

    assert all(candidate.embeddings[0] for candidate in opened)
    assert not ModelSelector(opened).rank(TARGET).skipped


def test_a_card_that_left_a_filter_stays_for_those_who_ask_without(hub, tmp_path):
    head = "pipeline_tag: image-classification\n"
    hub.add_repo("owner/a", {"README.md": card(embedding(1), head=head)})
    catalog = Catalog(tmp_path)
    catalog.sync(connection=connection(hub))
    catalog.sync(filter="image-classification", connection=connection(hub))
    hub.commit("owner/a", {"README.md": card(embedding(2))})
    catalog.sync(connection=connection(hub))

    report = catalog.sync(filter=["image-classification"], connection=connection(hub))

    assert catalog["owner/a"].embeddings[0].task.id == "org/data2"
    assert report.n_removed == 0
    hub.remove("owner/a")
    assert catalog.sync(connection=connection(hub)).n_removed == 1
    assert len(catalog) == 0


def test_two_hubs_in_one_catalog(hub, tmp_path):
    """Each is asked for itself; what one loses, the other keeps."""
    catalog = Catalog(tmp_path)
    with LoopbackHub() as other:
        add(hub, 1, name="org/same")
        add(other, 2, name="org/same")
        add(other, 3, name="org/other")
        catalog.sync(connection=connection(hub))
        catalog.sync(connection=connection(other))
        assert {e.task.id for e in catalog["org/same"].embeddings} == {"org/data1", "org/data2"}
        hub.remove("org/same")

        catalog.sync(connection=connection(hub))

        assert [e.task.id for e in catalog["org/same"].embeddings] == ["org/data2"]
        ranking = ModelSelector(catalog).rank(TARGET)
        assert {item.endpoint for item in ranking} == {other.endpoint}


def test_what_was_added_here_after_a_card_was_read_stays_too(hub, tmp_path):
    add(hub, 1)
    catalog = Catalog.from_hub(tmp_path, endpoint=hub.endpoint)
    catalog.add(Candidate("owner/m1", upstream_accuracy=0.9))
    hub.commit("owner/m1", {"README.md": card(embedding(2))})

    catalog.sync(connection=connection(hub))
    assert catalog["owner/m1"].upstream_accuracy == 0.9

    hub.remove("owner/m1")
    catalog.sync(connection=connection(hub))
    assert catalog["owner/m1"].upstream_accuracy == 0.9
    assert len(catalog["owner/m1"].embeddings) == 0


def test_a_change_that_a_page_did_not_show_is_read_the_next_time(hub, tmp_path):
    """Between a listing of commits and one of cards, pages may be older, or rows be skipped."""
    for number in range(60):
        add(hub, number)
    catalog = Catalog.from_hub(tmp_path, endpoint=hub.endpoint)
    for number in range(60):
        hub.commit(f"owner/m{number}", {"README.md": card(embedding(100 + number))})
    hub.faults.lie(r"expand=cardData", b"[]")

    assert catalog.sync(connection=connection(hub)).n_read == 0
    assert catalog.sync(connection=connection(hub)).n_read == 60
    assert catalog["owner/m7"].embeddings[0].task.id == "org/data107"


@pytest.mark.parametrize("status", [403, 422, 500])
def test_one_repository_that_fails_does_not_stop_the_others(hub, tmp_path, status):
    for number in range(4):
        add(hub, number)
    catalog = Catalog.from_hub(tmp_path, endpoint=hub.endpoint)
    for number in range(4):
        hub.commit(f"owner/m{number}", {"README.md": card(embedding(10 + number))})
    hub.faults.fail(status, times=6, path="/api/models/owner/m1$")

    report = catalog.sync(connection=connection(hub))

    assert report.n_read == 3
    assert report.skipped[0].startswith("owner/m1: ")
    assert catalog["owner/m1"].embeddings[0].task.id == "org/data1"
    hub.faults.clear()
    assert catalog.sync(connection=connection(hub)).n_read == 1


def test_the_name_of_a_probe_is_what_most_cards_say(hub, tmp_path):
    """What a space is, its settings say; what to fetch for it, a single stranger must not."""
    for number in range(3):
        add(hub, number)
    values = {**entry_values(embedding(9), role="finetune"), "probe": "evil/huge"}
    hub.add_repo("evil/a", {"README.md": card(extra=[values] * 5)})

    catalog = Catalog.from_hub(tmp_path, endpoint=hub.endpoint)

    assert [space.probe for space in catalog.spaces()] == [SPACE.probe]
    assert catalog.own_spaces() == {}


def test_a_few_cards_cannot_shut_out_the_others(hub, tmp_path):
    add(hub, 1)
    for number in range(3):
        spaces = [make_space(1, beta=float(1 + number * 100 + i)) for i in range(64)]
        entries = [
            entry_values(make_embedding([1.0], space=s, task=f"t{i}"), role="finetune")
            for i, s in enumerate(spaces)
        ]
        hub.add_repo(f"evil/m{number}", {"README.md": card(extra=entries)})

    catalog = Catalog(tmp_path)
    report = catalog.sync(connection=connection(hub))

    assert len(catalog["owner/m1"].embeddings) == 1
    assert len(catalog.spaces()) == 13
    assert "is one too many" in report.skipped[0]


def test_what_is_left_of_a_state_that_was_lost(hub, tmp_path):
    for number in range(3):
        add(hub, number)
    catalog = Catalog.from_hub(tmp_path, endpoint=hub.endpoint)
    (tmp_path / "hub.json").unlink()
    hub.remove("owner/m0")

    catalog.sync(connection=connection(hub))
    assert [c.id for c in catalog] == ["owner/m1", "owner/m2"]

    hub.remove("owner/m1")
    catalog.sync(connection=connection(hub))
    assert [c.id for c in catalog] == ["owner/m2"]


def test_two_splits_of_a_data_set_are_two_embeddings(hub, tmp_path):
    task = TaskInfo("org/data", 10, 2, split="train")
    both = [replace(embedding(n), task=replace(task, split=s)) for n, s in ((1, "train"), (2, "test"))]
    hub.add_repo("owner/a", {"README.md": card(*both)})
    catalog = Catalog.from_hub(tmp_path, endpoint=hub.endpoint)

    catalog.add(Candidate("owner/a", upstream_accuracy=0.5))

    assert {e.task.split for e in catalog["owner/a"].embeddings} == {"train", "test"}


def _sync_for_ever(endpoint: str, path: str, count: int) -> None:
    for _ in range(count):
        Catalog(path).sync(connection=Connection(endpoint=endpoint, token=False), again=True)


def test_a_process_that_is_killed_while_it_reads_cards_leaves_a_good_catalog(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("t2v_hub.catalog.packing._GRACE_S", -1.0)
    for number in range(40):
        add(hub, number)
    context = multiprocessing.get_context("fork")
    rng = np.random.default_rng(0)

    for _ in range(10):
        process = context.Process(target=_sync_for_ever, args=(hub.endpoint, str(tmp_path), 100))
        process.start()
        process.join(float(rng.uniform(0.05, 0.4)))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        catalog = Catalog(tmp_path)
        if len(catalog):
            assert len(ModelSelector(catalog).rank(TARGET)) == 40
            assert all(candidate.embeddings[0] for candidate in catalog)

    assert Catalog(tmp_path).sync(connection=connection(hub)).n_listed == 40
    assert len(Catalog(tmp_path)) == 40
    left = {path.stem for path in (tmp_path / "cards").iterdir()}
    assert len(left) == 1


def test_ages_are_told_in_words(hub, tmp_path, monkeypatch):
    import datetime

    from t2v_hub.catalog import state

    add(hub, 1)
    [report] = Catalog.from_hub(tmp_path, endpoint=hub.endpoint).synced()
    start = datetime.datetime.fromisoformat(report.synced_at)
    for seconds, words in (
        (30, "just now"),
        (61, "1 minute ago"),
        (7300, "2 hours ago"),
        (90_000, "1 day ago"),
    ):
        monkeypatch.setattr(state, "now", lambda s=seconds: start + datetime.timedelta(seconds=s))
        assert report.age == words
