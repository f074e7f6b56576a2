"""`Catalog`: what it keeps, that it survives other processes, kills and damage, and its matrix."""

import dataclasses
import errno
import json
import math
import signal
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from catalog_harm import DAMAGES, all_at_once, files_in, fill_the_disk, killed, survivors
from factories import make_catalog, make_embedding, make_space
from filelock import FileLock

from t2v_hub import storage
from t2v_hub.catalog import Candidate, Catalog
from t2v_hub.catalog import catalog as catalog_module
from t2v_hub.catalog.candidate import StoredEmbeddings
from t2v_hub.distance import distances
from t2v_hub.embedding import HalfVector, TaskEmbedding
from t2v_hub.errors import (
    CandidateNotFoundError,
    CatalogFileError,
    EmbeddingFileError,
    SettingsError,
    StorageError,
)

FULL = Candidate(
    "timm/resnet18.a1_in1k",
    revision="abc",
    library="timm",
    source="imagenet-1k",
    embeddings=(make_embedding(seed=1), make_embedding(seed=2, space=make_space(beta=1.0))),
    parameters=11_689_512,
    licence="apache-2.0",
    downloads=12_345,
    likes=6,
    gated=False,
    upstream_accuracy=0.715,
)


def test_a_candidate_survives_the_disk(tmp_path):
    """Every fact and every embedding, to the bit."""
    make_catalog(tmp_path, [FULL])

    again = Catalog.load(tmp_path)[FULL.id]

    assert again == FULL
    assert tuple(again.embeddings) == FULL.embeddings
    assert again.embeddings[0].fisher.tobytes() == FULL.embeddings[0].fisher.tobytes()
    assert len(again.embeddings[:1]) == 1


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"id": " "}, "id must be a repository or a folder's path"),
        ({"id": None}, "id must be a repository"),
        ({"library": "keras"}, "library must be 'transformers' or 'timm'"),
        ({"licence": 3}, r"licence must be text \(or None\), not 3"),
        ({"parameters": -1}, "parameters must be a whole number >= 0"),
        ({"parameters": 1.5e6}, "parameters must be a whole number"),
        ({"downloads": True}, "downloads must be a whole number"),
        ({"likes": 1 << 70}, "likes must be a whole number"),
        ({"gated": "auto"}, "gated must be True, False or None"),
        ({"upstream_accuracy": 71.5}, r"a share in \[0, 1\], 0.761 rather than 76.1"),
        ({"upstream_accuracy": math.nan}, "upstream_accuracy must be a share"),
        (
            {"embeddings": make_embedding()},
            "embeddings must be a sequence of TaskEmbedding, also for a single one",
        ),
        ({"embeddings": ["e.safetensors"]}, "embeddings must be a sequence of TaskEmbedding"),
    ],
)
def test_facts_that_cannot_be_are_refused(facts, words):
    """An accuracy in percent would outrank every other one for ever."""
    with pytest.raises(SettingsError, match=words):
        Candidate(**{"id": "org/model", **facts})


def test_the_prior_goes_by_size_then_accuracy_then_downloads():
    """A small expert's accuracy on its own data must not outrank a large checkpoint's on ImageNet."""
    facts = [
        {"parameters": 9},
        {"parameters": 8, "upstream_accuracy": 0.9},
        {"parameters": 8, "upstream_accuracy": 0.8, "downloads": 7},
        {"parameters": 8, "upstream_accuracy": 0.8, "downloads": 6},
        {"parameters": 8, "upstream_accuracy": 0.8},
        {"parameters": 8, "downloads": 10**9},
        {"parameters": 0},
        {"upstream_accuracy": 1.0, "downloads": 10**9},
        {"upstream_accuracy": 0.0},
        {"downloads": 0},
        {"likes": 10**9},
    ]
    candidates = [Candidate("org/a", **known) for known in facts]

    shuffled = candidates[3:] + candidates[:3]
    assert sorted(shuffled, key=lambda c: c.prior, reverse=True) == candidates
    assert len({candidate.prior for candidate in candidates}) == len(candidates)
    assert [candidate.has_prior for candidate in candidates] == [True] * 10 + [False]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("IMAGENET-1K",), True),
        (("other", "task1"), True),
        (("Task2",), True),
        ((None, make_embedding(seed=1).digest), True),
        (("other", make_embedding(seed=3).digest), False),
        ((None,), False),
        ((), False),
    ],
)
@pytest.mark.parametrize("is_stored", [False, True])
def test_what_it_was_trained_on_is_known_by_id_or_embedding(tmp_path, names, expected, is_stored):
    """In any space; ids without regard to case, as the Hub has them."""
    candidate = make_catalog(tmp_path, [FULL])[FULL.id] if is_stored else FULL

    assert candidate.was_trained_on(*names) is expected
    assert not Candidate("org/a").was_trained_on(*names)


def test_a_catalog_begins_empty_and_writes_nothing_until_something_is_added(tmp_path):
    """Looking must not make folders."""
    catalog = Catalog(tmp_path / "new")

    assert len(catalog) == 0
    assert list(catalog) == []
    assert catalog.spaces() == {}
    assert not catalog.path.exists()


def test_load_wants_a_catalog_that_is_there(tmp_path):
    """A slip in the path must not look like an empty catalog."""
    with pytest.raises(CatalogFileError, match=r"no catalog in .*absent'.*Check the path, or start one"):
        Catalog.load(tmp_path / "absent")


def test_the_default_folder_is_below_home(monkeypatch, tmp_path):
    """One variable moves everything that we keep."""
    monkeypatch.setenv("T2V_HOME", str(tmp_path))

    assert Catalog().path == tmp_path / "catalog"


def test_candidates_are_found_by_id_in_the_order_of_ids(tmp_path):
    """The order of adding depends on which process was first."""
    catalog = make_catalog(tmp_path, [Candidate("org/b"), Candidate("org/a")])

    assert [candidate.id for candidate in catalog] == ["org/a", "org/b"]
    assert "org/a" in catalog
    assert "org/c" not in catalog
    assert repr(catalog) == f"Catalog({str(tmp_path)!r}, n_candidates=2, n_spaces=0)"
    with pytest.raises(CandidateNotFoundError, match=r"no candidate 'org/aa' among its 2. Similar: org/a"):
        catalog["org/aa"]
    with pytest.raises(CandidateNotFoundError, match="no candidate 'org/zz'"):
        catalog.remove("org/zz")


def test_adding_again_joins_what_is_known(tmp_path):
    """Facts come from one place and embeddings from another, in any order."""
    catalog = make_catalog(tmp_path, [Candidate("org/a", downloads=1, likes=2)])
    catalog.add(Candidate("org/a", downloads=5), embedding=make_embedding(seed=1, task="birds"))
    catalog.add(Candidate("org/a"), embedding=make_embedding(seed=2, task="cars"))
    catalog.add(Candidate("org/a"), embedding=make_embedding(seed=3, task="birds"))

    candidate = Catalog.load(tmp_path)["org/a"]

    assert (candidate.downloads, candidate.likes) == (5, 2)
    found = {embedding.task.id: embedding.measurement.seed for embedding in candidate.embeddings}
    assert found == {"birds": 3, "cars": 2}
    assert len(files_in(catalog)) == 2  # the replaced one is gone


def test_another_revision_replaces_the_candidate(tmp_path):
    """Other weights may have been trained on other data."""
    catalog = make_catalog(
        tmp_path, [Candidate("org/a", revision="1", likes=2, embeddings=[make_embedding(task="old")])]
    )
    catalog.add(Candidate("org/a", revision="2"))

    assert catalog["org/a"] == Candidate("org/a", revision="2")
    assert files_in(catalog) == set()


def test_only_candidates_can_be_added(tmp_path):
    """A name alone is the likeliest slip."""
    with pytest.raises(SettingsError, match="Only a Candidate can be added, not str"):
        Catalog(tmp_path).add("org/a")


def test_removing_keeps_embeddings_that_others_share(tmp_path):
    """Files are named by content: two checkpoints of one source have one."""
    embedding = make_embedding(task="imagenet")
    catalog = make_catalog(tmp_path, [Candidate(id, embeddings=[embedding]) for id in ("org/a", "org/b")])
    assert len(files_in(catalog)) == 1

    catalog.remove("org/a")
    assert catalog["org/b"].embeddings[0] == embedding
    catalog.remove("org/b")

    assert files_in(catalog) == set()
    assert len(Catalog.load(tmp_path)) == 0


def test_facts_of_a_candidate_can_be_changed_though_its_embedding_is_damaged(tmp_path):
    """Candidates from the catalog itself need not be read to be written back."""
    catalog = make_catalog(tmp_path, [Candidate("org/a", embeddings=[make_embedding()])])
    (file,) = files_in(catalog)
    (catalog.path / "embeddings" / file).write_bytes(b"damaged")

    catalog.add(dataclasses.replace(catalog["org/a"], downloads=7))

    assert Catalog.load(tmp_path)["org/a"].downloads == 7
    with pytest.raises(EmbeddingFileError, match="not a usable embedding file"):
        catalog["org/a"].embeddings[0]


def test_adding_an_embedding_again_heals_its_file(tmp_path):
    """Measuring again is the remedy that the error names."""
    candidate = Candidate("org/a", embeddings=[make_embedding()])
    catalog = make_catalog(tmp_path, [candidate])
    (file,) = files_in(catalog)
    (catalog.path / "embeddings" / file).write_bytes(b"damaged")

    catalog.add(candidate)

    assert catalog["org/a"].embeddings[0] == candidate.embeddings[0]


def test_spaces_are_counted_by_candidate_the_most_common_first(tmp_path):
    """Data is embedded in the first."""
    rare, common = make_space(beta=1.0), make_space(beta=2.0)
    catalog = make_catalog(
        tmp_path,
        [
            Candidate("org/a", embeddings=[make_embedding(seed=1, space=rare)]),
            Candidate(
                "org/b",
                embeddings=[make_embedding(seed=2, space=common), make_embedding(seed=3, space=common)],
            ),
            Candidate("org/c", embeddings=[make_embedding(seed=2, space=common)]),
            Candidate("org/d"),
        ],
    )

    assert list(Catalog.load(tmp_path).spaces().items()) == [(common, 2), (rare, 1)]
    catalog.remove("org/a")
    assert list(catalog.spaces()) == [common]


def test_merge_takes_all_and_names_what_it_could_not_read(tmp_path):
    """One bad file must not end a merge of thousands."""
    one = make_catalog(tmp_path / "one", [Candidate("org/a", likes=1), Candidate("org/b")])
    other = make_catalog(
        tmp_path / "other",
        [
            Candidate("org/a", downloads=9, embeddings=[make_embedding(seed=1)]),
            Candidate("org/c", embeddings=[make_embedding(seed=2), make_embedding(seed=3)]),
        ],
    )
    bad = other["org/c"].embeddings.records[0].file_name
    (other.path / "embeddings" / bad).write_bytes(b"damaged")

    left_out = one.merge(other)

    assert [candidate.id for candidate in one] == ["org/a", "org/b", "org/c"]
    assert (one["org/a"].likes, one["org/a"].downloads, len(one["org/a"].embeddings)) == (1, 9, 1)
    assert [embedding.task.id for embedding in one["org/c"].embeddings] == ["task3"]
    assert len(left_out) == 1
    assert left_out[0].startswith("org/c: ")
    assert bad in left_out[0]


def test_extend_adds_all_or_none(tmp_path):
    """Half of a list is what nobody asked for."""
    other = make_catalog(tmp_path / "other", [Candidate("org/b", embeddings=[make_embedding()])])
    (file,) = files_in(other)
    (other.path / "embeddings" / file).unlink()
    catalog = make_catalog(tmp_path / "one", [Candidate("org/z")])

    with pytest.raises(EmbeddingFileError, match="no embedding file"):
        catalog.extend([Candidate("org/a"), other["org/b"]])

    assert [candidate.id for candidate in Catalog.load(catalog.path)] == ["org/z"]


def test_loading_opens_no_embedding(tmp_path, monkeypatch):
    """Three thousand files take seconds; most are never looked at."""
    catalog = make_catalog(tmp_path, [FULL])

    def fail(*arguments):
        raise AssertionError("an embedding was opened")

    monkeypatch.setattr(TaskEmbedding, "load", fail)
    again = Catalog.load(tmp_path)

    assert list(again.spaces().values()) == [1, 1]
    assert again[FULL.id] == catalog[FULL.id]
    assert repr(again[FULL.id].embeddings) == "<2 stored embeddings: 'task1', 'task2'>"


def test_thousands_of_candidates_load_fast(tmp_path):
    """A command that lists them should not keep anyone waiting."""
    space = make_space(8)
    shared = [make_embedding(seed=seed, n_filters=8, space=space) for seed in range(20)]
    make_catalog(
        tmp_path, [Candidate(f"org/{i:04}", embeddings=[shared[i % 20]], parameters=i) for i in range(3000)]
    )

    catalog = Catalog.load(tmp_path)

    assert len(catalog) == 3000
    assert catalog.spaces() == {space: 3000}
    assert len(catalog.matrix(space)) == 20


# Damage


def rewrite_index(catalog, *, metadata=None, **columns):
    """The index with other metadata or with other values in all rows."""
    path = catalog.path / "candidates.parquet"
    table = pq.read_table(path)
    for name, value in columns.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(
            place, table.schema.field(name), pa.array([value] * len(table), table.schema.field(name).type)
        )
    if metadata is not None:
        table = table.replace_schema_metadata({b"t2v_catalog": json.dumps(metadata).encode()})
    pq.write_table(table, path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"metadata": {"format": "t2v-catalog/2"}},
            "format 't2v-catalog/2', not 't2v-catalog/1'.*upgrade: pip install",
        ),
        ({"metadata": "text"}, "has the format None"),
        ({"metadata": {"format": "t2v-catalog/1", "spaces": {}}}, "of the unknown space"),
        ({"metadata": {"format": "t2v-catalog/1"}}, "cannot be read: 'spaces'"),
        (
            {"metadata": {"format": "t2v-catalog/1", "spaces": {"s1": make_space().to_dict()}}},
            "a space is not the one its id says",
        ),
        ({"library": "keras"}, "cannot be read: Candidate .* library must be"),
        (
            {"embeddings": [{"digest": "sha256:../../x", "space": make_space().id, "task": "t"}]},
            "no SHA-256 digest",
        ),
    ],
)
def test_an_index_that_is_not_ours_is_refused(tmp_path, change, words):
    """It may come from a stranger: a digest is part of a path."""
    catalog = make_catalog(tmp_path, [Candidate("org/a", embeddings=[make_embedding()])])
    rewrite_index(catalog, **change)

    with pytest.raises(CatalogFileError, match=words):
        Catalog.load(tmp_path)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_index_is_named_with_its_remedy(tmp_path, damage):
    """The embeddings are not lost, and the message says so."""
    catalog = make_catalog(tmp_path, [Candidate("org/a", embeddings=[make_embedding()])])
    path = tmp_path / "candidates.parquet"
    path.write_bytes(damage(path.read_bytes()))

    with pytest.raises(
        CatalogFileError, match=r"candidates\.parquet' cannot be read.*Restore.*embeddings beside it"
    ):
        Catalog(tmp_path)
    with pytest.raises(CatalogFileError, match="cannot be read"):
        catalog.add(Candidate("org/b"))
    path.unlink()
    catalog.add(Candidate("org/b"))
    assert len(files_in(catalog)) == 1  # still there, as the message promised


def test_no_flipped_bit_gives_another_catalog(tmp_path):
    """Pages carry checksums; the rest of the file is structure that breaks."""
    catalog = make_catalog(tmp_path, [Candidate(f"org/model-{i}", likes=i, licence="mit") for i in range(5)])
    expected = list(catalog)
    path = tmp_path / "candidates.parquet"

    share = survivors(path, lambda: list(Catalog(tmp_path)) != expected)

    # Column statistics and names in the footer are not under a checksum; a few flips there show.
    assert share <= 0.05


# Several processes, kills, disks


ADD_SOME = """
for i in range(15):
    catalog.add(Candidate(f"org/{prefix}{i}"), embedding=make_embedding(seed=i, task=f"{prefix}{i}"))
"""


def test_two_processes_can_add_at_once(tmp_path):
    """Read, change and write are one step under the lock; otherwise the last one to write wins."""
    exits = all_at_once(tmp_path, ADD_SOME)

    catalog = Catalog.load(tmp_path)

    assert exits == [0, 0]
    assert sorted(item.id for item in catalog) == sorted(
        f"org/{prefix}{i}" for prefix in "ab" for i in range(15)
    )
    assert all(item.embeddings[0].task.id == item.id.removeprefix("org/") for item in catalog)


def test_what_another_added_is_kept_and_shows(tmp_path):
    """Two objects on one folder, as in two notebooks."""
    one, other = Catalog(tmp_path), Catalog(tmp_path)
    one.add(Candidate("org/a"))

    other.add(Candidate("org/b"))

    assert [candidate.id for candidate in other] == ["org/a", "org/b"]
    assert [candidate.id for candidate in one] == ["org/a"]  # as it was opened


ADD_TWO = 'catalog.extend([Candidate("org/b", embeddings=[make_embedding(seed=i) for i in (1, 2)])])'


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_a_killed_process_leaves_a_catalog_that_can_be_read_and_written(tmp_path, step):
    """Kills come at any moment: in an embedding, after it, in the index."""
    make_catalog(tmp_path, [Candidate("org/a", embeddings=[make_embedding(seed=0)])])

    exit = killed(tmp_path, step, ADD_TWO)
    catalog = Catalog.load(tmp_path)

    assert exit == -signal.SIGKILL
    assert [candidate.id for candidate in catalog] == ["org/a"]
    assert catalog["org/a"].embeddings[0] == make_embedding(seed=0)
    catalog.add(Candidate("org/b", embeddings=[make_embedding(seed=1)]))  # the lock died with its holder
    assert not list((tmp_path / "embeddings").glob(".*.tmp"))
    assert Catalog.load(tmp_path)["org/b"].embeddings[0] == make_embedding(seed=1)


@pytest.mark.parametrize("step", [1, 3])
def test_a_full_disk_leaves_the_catalog_as_it_was(tmp_path, monkeypatch, step):
    """In the embedding or in the index."""
    catalog = make_catalog(tmp_path, [Candidate("org/a")])

    fill_the_disk(monkeypatch, step)
    with pytest.raises(StorageError, match="the disk is full"):
        catalog.add(Candidate("org/b"), embedding=make_embedding())

    assert [candidate.id for candidate in catalog] == ["org/a"]
    assert [candidate.id for candidate in Catalog.load(tmp_path)] == ["org/a"]


def test_a_lock_that_is_not_given_back_is_named(tmp_path, monkeypatch):
    """Waiting for ever says nothing."""
    catalog = make_catalog(tmp_path, [Candidate("org/a")])
    monkeypatch.setattr(catalog_module, "_LOCK_SECONDS", 0.01)

    with (
        FileLock(tmp_path / ".lock"),
        pytest.raises(StorageError, match="another process has been changing it"),
    ):
        catalog.add(Candidate("org/b"))


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    """A file in the way of the default folder."""
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises((StorageError, CatalogFileError), match="file"):
        Catalog(tmp_path / "file" / "catalog").add(Candidate("org/a"))


# The matrix


@pytest.mark.parametrize(
    ("spread", "powers"),
    [(1.0, {1}), (2.0, {1, 2}), (6.0, {2, 4}), (12.0, {4, 8})],
)
def test_float16_rows_move_distances_by_less_than_any_standard_error(tmp_path, spread, powers):
    """Rows that span more powers of ten than float16 has are stored as roots, not flushed to zero."""
    rng = np.random.default_rng(0)
    space = make_space(2000)
    rows = [make_embedding(np.exp(rng.normal(-15, spread, 2000)), seed=i, space=space) for i in range(6)]
    target = make_embedding(np.exp(rng.normal(-15, spread, 2000)), space=space)
    catalog = make_catalog(tmp_path, [Candidate(f"org/{i}", embeddings=[row]) for i, row in enumerate(rows)])
    full = dict(
        zip([row.digest for row in rows], distances(target, [row.fisher for row in rows]), strict=True)
    )

    matrix = catalog.matrix(space)

    assert isinstance(matrix.values, np.memmap)
    assert matrix.values.dtype == np.float16
    assert set(matrix.power) <= powers
    expected = np.array([full[digest] for digest in matrix.digests])
    torch.testing.assert_close(matrix.distances(target), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["symmetric", "asymmetric", "kl", "correlation"])
def test_matrix_distances_are_those_of_the_decoded_rows(tmp_path, name):
    """In blocks or at once, and with rows of several powers."""
    space = make_space(3000)
    rng = np.random.default_rng(1)
    rows = [np.exp(rng.normal(-9, spread, 3000)) for spread in (1, 1, 6, 12) * 8]
    catalog = make_catalog(
        tmp_path,
        [
            Candidate(f"org/{i}", embeddings=[make_embedding(row, seed=i, space=space)])
            for i, row in enumerate(rows)
        ],
    )
    target = make_embedding(rows[0] * 1.5, space=space)

    matrix = catalog.matrix(space)
    halves = zip(matrix.values, matrix.scale, matrix.power, strict=True)
    decoded = np.stack([HalfVector(*half).decode() for half in halves])
    expected = distances(target, decoded, name=name)
    atol = 1e-6 if name in ("symmetric", "asymmetric") else 0  # these in float32

    assert {1, 2, 4} <= set(matrix.power)
    torch.testing.assert_close(matrix.distances(target, name=name), expected, rtol=1e-12, atol=atol)


@pytest.mark.parametrize("scale", [1e-38, 1e-8, 1.0, 1e30])
def test_encoding_keeps_zeros_and_any_scale(scale):
    """Dead filters are exactly zero, and must stay so: 0/0 counts as equal."""
    fisher = np.array([0, 1e-3, 1, 0.5, 0], np.float32) * np.float32(scale)

    half = HalfVector.encode(fisher)

    assert float(half.values.max()) == 6e4
    assert half.power == 1
    torch.testing.assert_close(half.decode(), fisher.astype(np.float64), rtol=2**-11, atol=0)
    assert list(HalfVector.encode(np.zeros(3, np.float32)).values) == [0, 0, 0]


def test_matrix_follows_the_catalog_and_copies_what_it_has(tmp_path, monkeypatch):
    """Adding one of three thousand must not read the others again."""
    space = make_space()
    catalog = make_catalog(
        tmp_path, [Candidate(f"org/{i}", embeddings=[make_embedding(seed=i, space=space)]) for i in range(4)]
    )
    first = catalog.matrix(space)
    opened = []
    real = TaskEmbedding.load

    def load(path):
        opened.append(path)
        return real(path)

    monkeypatch.setattr(TaskEmbedding, "load", load)
    assert Catalog.load(tmp_path).matrix(space).digests == first.digests
    assert opened == []
    catalog.add(Candidate("org/4"), embedding=make_embedding(seed=4, space=space))
    second = catalog.matrix(space)
    assert len(opened) == 1
    assert set(second.digests) > set(first.digests)
    catalog.remove("org/0")
    third = catalog.matrix(space)

    assert len(opened) == 1
    assert len(third) == 4
    row = {digest: place for place, digest in enumerate(first.digests)}
    for place, digest in enumerate(third.digests):
        if digest in row:
            assert third.values[place].tobytes() == first.values[row[digest]].tobytes()
    assert len(list((tmp_path / "matrices").iterdir())) == 2  # only the latest is kept


@pytest.mark.parametrize("damage", ["truncated", "absent", "text", "other shape"])
@pytest.mark.parametrize("suffix", ["npy", "safetensors"])
def test_a_damaged_cache_is_made_again(tmp_path, damage, suffix):
    """A cache may be deleted or damaged at any time."""
    space = make_space()
    catalog = make_catalog(tmp_path, [Candidate("org/a", embeddings=[make_embedding(space=space)])])
    expected = HalfVector.encode(make_embedding(space=space).fisher).values
    catalog.matrix(space)
    [path] = (tmp_path / "matrices").glob(f"*.{suffix}")
    if damage == "absent":
        path.unlink()
    elif damage == "other shape":
        np.save(path.with_suffix(".npy"), np.zeros((1, 3), np.float16))
    else:
        path.write_bytes(path.read_bytes()[:-4] if damage == "truncated" else b"text")

    actual = catalog.matrix(space)

    assert actual.digests == (make_embedding(space=space).digest,)
    torch.testing.assert_close(np.array(actual.values), expected[None], rtol=0, atol=0)


def test_damaged_embeddings_have_no_row_and_a_reason(tmp_path):
    """One bad candidate never ends a ranking; once healed, it is back."""
    space = make_space()
    candidates = [Candidate(f"org/{i}", embeddings=[make_embedding(seed=i, space=space)]) for i in range(3)]
    catalog = make_catalog(tmp_path, candidates)
    names = [catalog[f"org/{i}"].embeddings.records[0] for i in range(3)]
    (tmp_path / "embeddings" / names[0].file_name).write_bytes(b"damaged")
    candidates[2].embeddings[0].save(tmp_path / "embeddings" / names[1].file_name)

    for _ in range(2):  # made, then from the cache
        matrix = catalog.matrix(space)
        assert matrix.digests == (names[2].digest,)
        assert "no whole safetensors file" in matrix.damaged[names[0].digest]
        assert "holds another embedding than its name says" in matrix.damaged[names[1].digest]
    catalog.extend(candidates)

    assert len(catalog.matrix(space)) == 3
    assert catalog.matrix(space).damaged == {}


def test_a_catalog_that_cannot_be_written_can_still_be_ranked(tmp_path, monkeypatch):
    """Shared catalogs are often read-only; the matrix is then made in memory."""
    space = make_space()
    catalog = make_catalog(tmp_path, [Candidate("org/a", embeddings=[make_embedding(space=space)])])

    def fail(*arguments, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(storage.tempfile, "mkstemp", fail)
    matrix = catalog.matrix(space)

    assert len(matrix) == 1
    assert not isinstance(matrix.values, np.memmap)


def test_the_matrix_of_an_unknown_space_is_empty(tmp_path):
    """Asking is no error."""
    matrix = make_catalog(tmp_path, [Candidate("org/a")]).matrix(make_space())

    assert len(matrix) == 0
    assert matrix.distances(make_embedding()).shape == (0,)


def test_stored_embeddings_equal_the_tuple_they_hold(tmp_path):
    """Candidates compare by value, wherever their embeddings lie."""
    stored = make_catalog(tmp_path, [FULL])[FULL.id].embeddings

    assert isinstance(stored, StoredEmbeddings)
    assert stored == FULL.embeddings
    assert FULL.embeddings == stored
    assert stored != FULL.embeddings[:1]
    assert stored != ("text", "text")
    assert stored[:1] != stored


def test_a_catalog_imports_no_torch():
    """Listing candidates should start in a moment."""
    code = "import sys, t2v_hub.catalog; print('torch' in sys.modules, 'datasets' in sys.modules)"

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.split() == ["False", "False"]
