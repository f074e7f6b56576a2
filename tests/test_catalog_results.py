"""Results in a catalog: kept through processes, kills and damage; from tables, and from cards."""

import math
import signal
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from catalog_harm import DAMAGES, all_at_once, files_in, fill_the_disk, killed, survivors
from factories import make_catalog, make_embedding, make_space

from t2v_hub import storage
from t2v_hub.card import Readme, entry_values, space_tag
from t2v_hub.catalog import Candidate, Catalog, Result, load_results
from t2v_hub.catalog import catalog as catalog_module
from t2v_hub.errors import (
    CatalogFileError,
    EmbeddingFileError,
    ResultsError,
    SettingsError,
    StorageError,
)
from t2v_hub.hub import Connection
from t2v_hub.testing import LoopbackHub

PETS, LEAVES = make_embedding(seed=1, task="pets"), make_embedding(seed=2, task="org/leaves")


def file_of(embedding):
    return f"{embedding.digest.removeprefix('sha256:')}.safetensors"


def test_a_result_survives_the_disk(tmp_path):
    """Every field, and the task's embedding to the bit."""
    catalog = Catalog(tmp_path)

    result = catalog.record(PETS, "org/vit", 0.125, n=200, seed=3, n_test=88)

    assert result == Result("pets", "org/vit", 0.125, 200, 3, 88, PETS.digest, "run")
    again = Catalog.load(tmp_path)  # without any candidate
    assert again.results() == (result,)
    assert again.task_embedding(result.embedding) == PETS
    assert len(again) == 0


def test_a_task_can_be_its_id_alone(tmp_path):
    """Results of years ago have no embedding."""
    result = Catalog(tmp_path).record("pets", "org/vit", np.float32(0.5), n=np.int64(7))

    assert result == Result("pets", "org/vit", 0.5, n=7)
    assert type(result.error) is float and type(result.n) is int
    assert not (tmp_path / "embeddings").exists()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"task": ""}, "task must be an id of 1 to 4,096 characters, not ''"),
        ({"task": 3}, "task must be an id"),
        ({"checkpoint": None}, "checkpoint must be an id"),
        ({"checkpoint": "x" * 5000}, "checkpoint must be an id of 1 to 4,096 characters, not 'xxx.*…"),
        ({"checkpoint": "a\nb"}, "checkpoint must be an id of printable characters"),
        ({"task": "\ud800"}, "task must be an id of printable characters"),
        ({"error": 23.9}, r"error must be a share in \[0, 1\], 0.239 rather than 23.9, not 23.9"),
        ({"error": math.nan}, "error must be a share"),
        ({"error": -0.1}, "error must be a share"),
        ({"error": True}, "error must be a share"),
        ({"error": "0.1"}, "error must be a share"),
        ({"n": 0}, r"n must be a whole number >= 1 \(or None\), not 0"),
        ({"n": 2.5}, "n must be a whole number"),
        ({"n": True}, "n must be a whole number"),
        ({"n_test": 1 << 70}, "n_test must be a whole number >= 1"),
        ({"seed": -1}, "seed must be a whole number >= 0"),
        ({"embedding": "sha256:../../x"}, "embedding must be the digest of a TaskEmbedding"),
        ({"origin": "guess"}, "origin must be 'run' or 'card', not 'guess'"),
        ({"endpoint": 5}, "endpoint must be an address as text"),
    ],
)
def test_values_that_cannot_be_are_refused(values, words):
    """An error in per cent would make a checkpoint the worst for ever, quietly."""
    with pytest.raises(SettingsError, match=words):
        Result(**{"task": "pets", "checkpoint": "org/vit", "error": 0.1, **values})


def test_the_same_recorded_again_replaces(tmp_path):
    """Of one task, checkpoint, n and seed there is one error; of others, others."""
    catalog = Catalog(tmp_path)
    for error, n, seed in ((0.5, 5, 0), (0.4, 5, 1), (0.3, 20, 0), (0.2, None, None), (0.1, 5, 0)):
        catalog.record("pets", "org/vit", error, n=n, seed=seed)

    found = [(r.n, r.seed, r.error) for r in catalog.results()]

    assert found == [(None, None, 0.2), (5, 0, 0.1), (5, 1, 0.4), (20, 0, 0.3)]


def test_results_can_be_chosen(tmp_path):
    """What cards claim is not mixed with what was measured, unless that is asked for."""
    claim = Result("pets", "org/vit", 0.01, origin="card", endpoint="https://hub")
    own = [Result(t, c, 0.2, n=n) for t in ("pets", "leaves") for c in ("a", "b") for n in (5, 20)]
    catalog = Catalog(tmp_path)
    catalog.record_many([claim, *own])

    assert set(catalog.results()) == set(own)
    assert catalog.results(origin="card") == (claim,)
    assert set(catalog.results(origin=None)) == {claim, *own}
    assert catalog.results(task="pets", checkpoint="b", n=20) == (Result("pets", "b", 0.2, n=20),)
    assert catalog.results(n=7) == ()


def test_thousands_are_written_at_once(tmp_path, monkeypatch):
    """A file that is written anew for every row takes an hour."""
    catalog = Catalog(tmp_path)
    rows = [Result(f"task{i % 50}", f"org/{i // 50}", (i % 97) / 97, n=5, seed=0) for i in range(5000)]
    written = []
    real = storage.os.fsync
    monkeypatch.setattr(storage.os, "fsync", lambda handle: written.append(handle) or real(handle))

    catalog.record_many(rows)

    assert len(written) <= 2  # the file, and the folder
    assert set(catalog.results()) == set(rows)


def test_equal_results_make_equal_files(tmp_path):
    """Whatever order they came in: a folder under version control should not change by itself."""
    rows = [Result(f"task{i}", "org/a", i / 10, n=i % 3 or None, seed=i) for i in range(9)]
    one, other = Catalog(tmp_path / "one"), Catalog(tmp_path / "other")
    one.record_many(rows)
    other.record_many(rows[::-1])

    files = [(catalog.path / "results.parquet").read_bytes() for catalog in (one, other)]

    assert files[0] == files[1]


def test_what_cannot_be_recorded_is_named_and_nothing_is_written(tmp_path):
    """All of a list, or none."""
    catalog = Catalog(tmp_path)
    good, bare = Result("leaves", "org/vit", 0.1), Result("pets", "org/vit", 0.1, embedding=PETS.digest)

    with pytest.raises(SettingsError, match="task must be a TaskEmbedding or the id of a data set, not int"):
        catalog.record(5, "org/vit", 0.1)
    with pytest.raises(SettingsError, match="Only a Result can be recorded, not dict"):
        catalog.record_many([good, {}])
    with pytest.raises(ResultsError, match=r"on 'pets' names the embedding sha256:\w{12}…, which is neither"):
        catalog.record_many([good, bare], embeddings=[LEAVES])
    assert not (tmp_path / "results.parquet").exists()
    catalog.record_many([good, bare], embeddings=[PETS, LEAVES])

    assert len(catalog.results()) == 2
    assert files_in(catalog) == {file_of(PETS)}  # what no result names is not kept
    catalog.record_many([Result("pets", "org/other", 0.2, embedding=PETS.digest)])  # it is here by now


def test_embeddings_are_asked_for_by_their_digests(tmp_path):
    """A digest is part of a path, and may come from a stranger's file."""
    catalog = Catalog(tmp_path)
    catalog.record(PETS, "org/vit", 0.1)

    with pytest.raises(SettingsError, match=r"'\.\./x' is no digest of an embedding"):
        catalog.task_embedding("../x")
    with pytest.raises(EmbeddingFileError, match="no embedding file"):
        catalog.task_embedding(LEAVES.digest)
    LEAVES.save(tmp_path / "embeddings" / file_of(PETS))
    with pytest.raises(EmbeddingFileError, match="holds another embedding than its name says"):
        catalog.task_embedding(PETS.digest)

    catalog.record(PETS, "org/other", 0.1)  # heals it
    assert catalog.task_embedding(PETS.digest) == PETS


# Embeddings that several name


def test_embeddings_that_results_name_stay_when_candidates_go(tmp_path):
    """A data set can be the source of one checkpoint and a task for others."""
    catalog = make_catalog(tmp_path, [Candidate("org/a", embeddings=[PETS, LEAVES])])
    catalog.record(PETS, "org/b", 0.1)

    catalog.remove("org/a")

    assert files_in(catalog) == {file_of(PETS)}
    assert catalog.task_embedding(PETS.digest) == PETS


def test_embeddings_that_candidates_have_stay_when_results_go(tmp_path):
    """And the other way round; what nothing names any more is deleted."""
    catalog = make_catalog(tmp_path, [Candidate("org/a", embeddings=[PETS])])
    results = [catalog.record(task, "org/b", 0.1) for task in (PETS, LEAVES)]
    assert files_in(catalog) == {file_of(PETS), file_of(LEAVES)}

    assert catalog.remove_results(results) == 2
    assert catalog.remove_results(results) == 0

    assert files_in(catalog) == {file_of(PETS)}
    assert catalog["org/a"].embeddings[0] == PETS


def test_an_embedding_that_was_replaced_is_deleted(tmp_path):
    """A task that is measured again has another digest."""
    catalog = Catalog(tmp_path)
    catalog.record(PETS, "org/a", 0.1)

    newer = make_embedding(seed=9, task="pets")
    catalog.record(newer, "org/a", 0.2)

    assert files_in(catalog) == {file_of(newer)}


@pytest.mark.parametrize("damaged", ["results.parquet", "candidates.parquet"])
def test_where_it_is_not_known_what_is_named_nothing_is_deleted(tmp_path, damaged):
    """Damage to one file must not cost what it named; once restored, all is there."""
    catalog = make_catalog(tmp_path, [Candidate("org/a", embeddings=[PETS])])
    result = catalog.record(LEAVES, "org/b", 0.1)
    catalog.add(Candidate("org/c"), embedding=LEAVES)
    path = tmp_path / damaged
    content = path.read_bytes()
    path.write_bytes(b"damaged")

    if damaged == "results.parquet":
        catalog.remove("org/c")
    else:
        catalog.remove_results([result])
    path.write_bytes(content)

    assert {file_of(PETS), file_of(LEAVES)} == files_in(catalog)


def test_merge_carries_results_and_their_embeddings(tmp_path):
    """One that cannot be read is named, and its error is kept without."""
    one, other = make_catalog(tmp_path / "one", [Candidate("org/a")]), Catalog(tmp_path / "other")
    one.record("pets", "org/a", 0.5, n=5)
    other.record(PETS, "org/a", 0.4, n=5)
    other.record(LEAVES, "org/b", 0.3)
    other.record_many([Result("x/y", "org/b", 0.2, origin="card", endpoint="https://hub")])
    (other.path / "embeddings" / file_of(LEAVES)).write_bytes(b"damaged")

    left_out = one.merge(other)

    assert len(left_out) == 1
    assert left_out[0].startswith("a task with results: ") and file_of(LEAVES) in left_out[0]
    again = Catalog.load(one.path)
    assert again.results(task="pets") == (Result("pets", "org/a", 0.4, n=5, embedding=PETS.digest),)
    assert again.results(task="org/leaves") == (Result("org/leaves", "org/b", 0.3),)
    assert [r.task for r in again.results(origin="card")] == ["x/y"]
    assert again.task_embedding(PETS.digest) == PETS


def test_merge_names_results_that_cannot_be_read(tmp_path):
    """The candidates are merged all the same."""
    one, other = Catalog(tmp_path / "one"), make_catalog(tmp_path / "other", [Candidate("org/a")])
    other.record(PETS, "org/a", 0.4)
    (other.path / "results.parquet").write_bytes(b"damaged")

    [reason] = one.merge(other)

    assert "results.parquet' cannot be read" in reason
    assert "org/a" in one
    assert one.results() == ()


# Damage


def rewrite(catalog, metadata=None, **columns):
    """The file of results with other values in all rows, or other metadata."""
    path = catalog.path / "results.parquet"
    table = pq.read_table(path)
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        array = values if isinstance(values, pa.Array) else pa.array([values] * len(table))
        table = table.set_column(place, pa.field(name, array.type), array)
    if metadata is not None:
        table = table.replace_schema_metadata(metadata)
    pq.write_table(table, path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"metadata": {b"t2v_results": b'{"format": "t2v-results/2"}'}}, "format 't2v-results/2', not 't2v-"),
        ({"metadata": {b"t2v_results": b"[" * 100_000}}, "cannot be read"),
        ({"metadata": {}}, "has the format None.*holds no results, or a newer t2v_hub wrote it"),
        ({"error": 23.9}, "cannot be read: A result's error must be a share"),
        ({"error": "x"}, "cannot be read: A result's error must be a share"),
        ({"n": -1}, "cannot be read: A result's n must be"),
        ({"embedding": "sha256:../../x"}, "cannot be read: A result's embedding must be the digest"),
        ({"origin": "guess"}, "cannot be read: A result's origin must be"),
        ({"task": 5}, "cannot be read"),
    ],
)
def test_a_file_that_is_not_ours_is_refused(tmp_path, change, words):
    """It may come from a stranger."""
    catalog = Catalog(tmp_path)
    catalog.record(PETS, "org/vit", 0.1, n=5)
    rewrite(catalog, **change)

    with pytest.raises(CatalogFileError, match=words):
        catalog.results()


def test_a_small_file_cannot_fill_the_memory(tmp_path):
    """A long text is in a file once and in memory once for every row that repeats it."""
    catalog = Catalog(tmp_path)
    catalog.record_many([Result("pets", f"org/{i}", 0.1) for i in range(3000)])
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 3000, pa.int32()), pa.array(["x" * 1_000_000]))
    rewrite(catalog, task=long)
    assert (tmp_path / "results.parquet").stat().st_size < 3_000_000

    with pytest.raises(CatalogFileError, match="a text of its column task is longer than 4,096 characters"):
        catalog.results()


def test_a_file_that_claims_too_much_is_not_read(tmp_path, monkeypatch):
    """Rows of numbers compress to nothing."""
    catalog = Catalog(tmp_path)
    catalog.record_many([Result("pets", f"org/{i}", 0.1) for i in range(30)])

    monkeypatch.setattr("t2v_hub.catalog.results._MAX_ROWS", 20)
    with pytest.raises(CatalogFileError, match="claims 30 rows of [0-9,]+ bytes; at most 20 of"):
        catalog.results()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_and_stands_in_nobodys_way(tmp_path, damage):
    """Candidates can be ranked and added; what would write over it is refused."""
    catalog = make_catalog(tmp_path, [Candidate("org/a", embeddings=[PETS])])
    catalog.record(PETS, "org/a", 0.1)
    path = tmp_path / "results.parquet"
    path.write_bytes(damage(path.read_bytes()))

    with pytest.raises(
        CatalogFileError, match=r"results\.parquet' cannot be read.*Restore.*record them again"
    ):
        catalog.results()
    with pytest.raises(CatalogFileError, match="cannot be read"):
        catalog.record("pets", "org/a", 0.1)
    again = Catalog.load(tmp_path)
    again.add(Candidate("org/b"))
    assert len(again.matrix(PETS.space)) == 1


def test_no_flipped_bit_gives_other_results(tmp_path):
    """Pages carry checksums; the rest of the file is structure that breaks."""
    catalog = Catalog(tmp_path)
    catalog.record_many([Result(f"task{i}", "org/a", i / 7, n=5, seed=i) for i in range(7)])
    expected = catalog.results()
    path = tmp_path / "results.parquet"

    share = survivors(path, lambda: catalog.results() != expected)

    # Column statistics and names in the footer are not under a checksum; a few flips there show.
    assert share <= 0.05


# Several processes, kills, disks


RECORD_SOME = """
for i in range(15):
    task = make_embedding(seed=i, task=f"{prefix}{i}")
    catalog.record(task, f"org/{prefix}", i / 20, seed=i)
    catalog.add(Candidate(f"org/{prefix}{i}"), embedding=task)
    catalog.remove(f"org/{prefix}{i}")
"""


def test_two_processes_can_record_at_once(tmp_path):
    """Read, change and write are one step under the lock; and nobody deletes what another has named."""
    exits = all_at_once(tmp_path, RECORD_SOME)

    found = Catalog.load(tmp_path).results()

    assert exits == [0, 0]
    assert {(r.task, r.checkpoint, r.seed, r.error) for r in found} == {
        (f"{prefix}{i}", f"org/{prefix}", i, i / 20) for prefix in "ab" for i in range(15)
    }
    assert all(Catalog(tmp_path).task_embedding(r.embedding).task.id == r.task for r in found)


RECORD_ONE = 'catalog.record(make_embedding(seed=2, task="org/leaves"), "org/b", 0.2)'


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_a_killed_process_leaves_results_that_can_be_read_and_written(tmp_path, step):
    """Kills come at any moment: in the embedding, after it, in the file of results, after that."""
    first = Catalog(tmp_path).record(PETS, "org/a", 0.1)

    exit = killed(tmp_path, step, RECORD_ONE)
    catalog = Catalog.load(tmp_path)

    assert exit == -signal.SIGKILL
    found = catalog.results()
    assert first in found and len(found) == 1 + (step == 4)
    assert all(catalog.task_embedding(r.embedding).task.id == r.task for r in found)
    second = catalog.record(LEAVES, "org/b", 0.3)  # the lock died with its holder
    assert set(catalog.results()) == {first, second}
    assert files_in(catalog) == {file_of(PETS), file_of(LEAVES)}  # nothing half written is left


@pytest.mark.parametrize("step", [1, 3])
def test_a_full_disk_leaves_the_results_as_they_were(tmp_path, monkeypatch, step):
    """In the embedding or in the file of results."""
    catalog = Catalog(tmp_path)
    first = catalog.record(PETS, "org/a", 0.1)

    fill_the_disk(monkeypatch, step)
    with pytest.raises(StorageError, match="the disk is full"):
        catalog.record(LEAVES, "org/b", 0.2)

    assert catalog.results() == (first,)


def test_a_lock_that_is_not_given_back_is_named(tmp_path, monkeypatch):
    """Waiting for ever says nothing."""
    from filelock import FileLock

    catalog = make_catalog(tmp_path, [Candidate("org/a")])
    monkeypatch.setattr(catalog_module, "_LOCK_SECONDS", 0.01)

    with (
        FileLock(tmp_path / ".lock"),
        pytest.raises(StorageError, match="another process has been changing it"),
    ):
        catalog.record("pets", "org/b", 0.1)


# Tables


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table_of_text_becomes_results(tmp_path):
    """Columns in any order, with others between; what is not known is empty, or what pandas writes."""
    path = write(
        tmp_path / "results.csv",
        "seed,lr,checkpoint,error,task,n\n"
        '1234567890123456789,1e-3,org/a,0.25,"org/pets, large",20\n'
        "\n"
        ",,org/a,1,007,\n"
        "2.0,x,org/b,0,pets,nan\n",
    )

    table = load_results(path)

    assert table.unused == ("lr",)
    assert table.results == (
        Result("org/pets, large", "org/a", 0.25, n=20, seed=1234567890123456789),
        Result("007", "org/a", 1.0),
        Result("pets", "org/b", 0.0, seed=2),
    )


@pytest.mark.parametrize("sign", [",", ";", "\t"])
def test_accuracies_stand_for_errors(tmp_path, sign):
    """A spreadsheet begins with a mark, ends lines its own way, and may separate by semicolons."""
    lines = ["task,checkpoint,accuracy,n_test", "pets,org/a,0.9,40", "pets,org/b,1.0,40"]
    text = "\ufeff" + "\r\n".join(lines).replace(",", sign)

    results = load_results(write(tmp_path / "results.csv", text)).results

    assert results == (Result("pets", "org/a", 0.1, n_test=40), Result("pets", "org/b", 0.0, n_test=40))


def test_a_parquet_table_becomes_results(tmp_path):
    """As pandas writes it: whole numbers with gaps are floats."""
    path = tmp_path / "results.parquet"
    table = {
        "task": ["pets", "leaves"],
        "checkpoint": ["org/a", "org/b"],
        "error": [0.25, 0.5],
        "n": [20.0, math.nan],
        "seed": [3, None],
        "origin": ["run", "card"],
    }
    pq.write_table(pa.table(table), path)

    assert load_results(path).results == (
        Result("pets", "org/a", 0.25, n=20, seed=3),
        Result("leaves", "org/b", 0.5, origin="card"),
    )


def test_a_catalogs_own_file_is_a_table(tmp_path):
    """So that a pool of one's colleague can be judged without being merged."""
    catalog = Catalog(tmp_path)
    catalog.record("pets", "org/a", 0.25, n=20, seed=3, n_test=40)

    assert load_results(tmp_path / "results.parquet").results == catalog.results()


HEAD = "task,checkpoint,error,n,seed\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it has no column task and no column checkpoint; its columns are: none. Wanted columns such as"),
        ("task,error\na,0.1\n", "it has no column checkpoint; its columns are: task, error"),
        ("task,checkpoint,err\na,b,0.1\n", "it has no column error, and no column accuracy; its columns"),
        ("task,checkpoint,error,accuracy\na,b,0,1\n", "both a column error and a column accuracy"),
        ("task,task,checkpoint,error\na,a,b,0\n", "its column task is there twice"),
        (HEAD, "it has no row"),
        (HEAD + "a,b\n", "row 1 has 2 cells and the header 5: 'a,b'"),
        (HEAD + "a,b,0.1,5,0\na,b,23.9,5,1\n", "row 2, column error: wanted a share from 0 to 1, got '23.9'. "
         "Divide per cents by 100: 0.239."),
        ("task,checkpoint,accuracy\na,b,76.1%\n", "row 1, column accuracy: wanted a share from 0 to 1, got "
         "'76.1%'. Divide per cents by 100: 0.761."),
        ("task,checkpoint,accuracy\na,b,0.5%\n", "column accuracy: .* got '0.5%'. Divide .* 0.005."),
        (HEAD + "a,b,-0.1,5,0\n", r"row 1, column error: wanted a share from 0 to 1, got '-0.1'\.$"),
        (HEAD + "a,b,nan,5,0\n", "column error: wanted a share from 0 to 1, got 'nan'"),
        (HEAD + "a,b,1e400,5,0\n", "column error: wanted a share from 0 to 1, got '1e400'"),
        (HEAD + "a,b,,5,0\n", "column error: wanted a share from 0 to 1, got nothing"),
        (HEAD + "a,,0.1,5,0\n", "row 1, column checkpoint: wanted an id, got nothing"),
        (HEAD + "a,b,0.1,many,0\n", "row 1, column n: wanted a whole number or nothing, got 'many'"),
        (HEAD + "a,b,0.1,2.5,0\n", "column n: wanted a whole number or nothing, got '2.5'"),
        (HEAD + "a,b,0.1,-3,0\n", "row 1: A result's n must be a whole number >= 1"),
        (HEAD + "a,b,0.1,5," + "9" * 5000 + "\n", "column seed: wanted a whole number or nothing, got '999"),
        (HEAD + "a,b,0.1,5,0\nc,b,0.1,5,0\na,b,0.2,5,0\n", "rows 1 and 3 are both of the task 'a', the "
         "checkpoint 'b', n=5 and seed=0; number repetitions in a column seed"),
        (HEAD + '"a,b,0.1\n', "it is no whole CSV or parquet file"),
        (HEAD + "x" * 200_000 + ",b,0.1,5,0\n", "it is no whole CSV or parquet file"),
    ],
)  # fmt: skip
def test_a_table_that_is_none_is_named_by_row_and_column(tmp_path, text, words):
    """Whoever has a thousand rows must be told which."""
    with pytest.raises(ResultsError, match=words):
        load_results(write(tmp_path / "results.csv", text))


def test_files_that_are_no_tables_are_named(tmp_path, monkeypatch):
    """Absent, a folder, a picture, half of a parquet file, too large."""
    (tmp_path / "half.parquet").write_bytes(b"PAR1 and then nothing")
    (tmp_path / "picture.csv").write_bytes(b"\x89PNG\xff\xfe")
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 3000, pa.int32()), pa.array(["x" * 1_000_000]))
    pq.write_table(
        pa.table({"task": long, "checkpoint": ["b"] * 3000, "error": [0.1] * 3000}), tmp_path / "l.pq"
    )

    with pytest.raises(ResultsError, match="There is no table of results .*absent.csv'. Check the path"):
        load_results(tmp_path / "absent.csv")
    with pytest.raises(StorageError, match="Cannot read"):
        load_results(tmp_path)
    for name in ("half.parquet", "picture.csv"):
        with pytest.raises(
            ResultsError, match=f"{name}' is no table of results: it is no whole CSV or parquet"
        ):
            load_results(tmp_path / name)
    with pytest.raises(ResultsError, match="a text of its column task is longer"):
        load_results(tmp_path / "l.pq")
    monkeypatch.setattr("t2v_hub.catalog.tables._MAX_BYTES", 1000)
    with pytest.raises(ResultsError, match="it is larger than 0 MiB"):
        load_results(tmp_path / "l.pq")
    tasks = [f"{'x' * 1000}{i}" for i in range(99)]
    table = pa.table({"task": tasks, "checkpoint": ["b"] * 99, "error": [0.1] * 99})
    pq.write_table(table, tmp_path / "s.pq", compression="zstd")
    monkeypatch.setattr("t2v_hub.catalog.tables._MAX_BYTES", (tmp_path / "s.pq").stat().st_size)
    with pytest.raises(ResultsError, match="it claims 99 rows of [0-9,]+ bytes"):
        load_results(tmp_path / "s.pq")


# What cards claim


SPACE = make_space(20)


@pytest.fixture
def hub():
    with LoopbackHub() as hub:
        yield hub


def claim(data_set, value, *, task="image-classification", split="test", **metric):
    return {
        "task": {"type": task},
        "dataset": {"type": data_set, "name": data_set, "split": split},
        "metrics": [{"type": "accuracy", "name": "Accuracy", "value": value, **metric}],
    }


def card(number, *claims):
    import yaml

    source = make_embedding(seed=number, space=SPACE, n_filters=20, task=f"org/data{number}")
    head = yaml.safe_dump({"model-index": [{"name": "x", "results": list(claims)}]}) if claims else ""
    return Readme.parse(f"---\nlicense: mit\n{head}---\n# Model\n".encode()).changed(
        append=[entry_values(source, role="finetune")], add_tags={"task2vec", space_tag(SPACE.id)}
    )


def connection(hub):
    return Connection(endpoint=hub.endpoint, token=hub.token, sleep=lambda _: None, progress=False)


def claims_in(catalog):
    return {(r.task, r.checkpoint): r.error for r in catalog.results(origin="card")}


def test_accuracies_in_cards_become_claims(hub, tmp_path):
    """On named data sets, of images, held out; in per cent or as shares; the best kind of each."""
    hub.add_repo(
        "owner/a",
        {
            "README.md": card(
                1,
                claim("beans", 0.9),
                claim("org/shares", 0.5, split="validation"),
                claim("org/percent", 76.1),
                claim("Org/Text", "81.5%"),
                claim("org/twice", 0.1, split=None),
                claim("org/twice", 0.7),
                claim("org/train", 0.99, split="train"),
                claim("org/words", 0.99, task="text-classification"),
                claim("imagefolder", 0.99),
                claim("org/strange", 761.0),
                claim("org/f1", 0.8, type="f1", name="F1"),
            )
        },
    )

    catalog = Catalog.from_hub(tmp_path, endpoint=hub.endpoint)

    assert claims_in(catalog) == pytest.approx(
        {
            ("AI-Lab-Makerere/beans", "owner/a"): 0.1,
            ("org/shares", "owner/a"): 0.5,
            ("org/percent", "owner/a"): 0.239,
            ("Org/Text", "owner/a"): 0.185,
            ("org/twice", "owner/a"): 0.3,
        },
        abs=1e-12,
    )
    assert catalog.results() == ()
    assert {r.endpoint for r in catalog.results(origin="card")} == {hub.endpoint}


def test_claims_follow_their_cards(hub, tmp_path):
    """Changed, taken back, gone with the repository or its embedding; what was measured stays."""
    for number in range(5):
        hub.add_repo(f"owner/m{number}", {"README.md": card(number, claim("org/x", 0.5))})
    catalog = Catalog.from_hub(tmp_path, endpoint=hub.endpoint)
    own = catalog.record("org/x", "owner/m3", 0.4)
    assert len(claims_in(catalog)) == 5

    hub.commit("owner/m0", {"README.md": card(0, claim("org/x", 0.75), claim("org/y", 0.25))})
    hub.commit("owner/m1", {"README.md": card(1)})
    hub.commit("owner/m2", {"README.md": "# nothing"})
    hub.remove("owner/m3")
    catalog.sync(connection=connection(hub))

    assert claims_in(catalog) == {
        ("org/x", "owner/m0"): 0.25,
        ("org/y", "owner/m0"): 0.75,
        ("org/x", "owner/m4"): 0.5,
    }
    assert catalog.results() == (own,)


def test_a_claim_stays_where_another_question_still_finds_its_card(hub, tmp_path):
    """A card that lost a tag has left one listing, and not the others."""
    hub.add_repo("owner/a", {"README.md": card(1, claim("org/x", 0.5))}, pipeline_tag="image-classification")
    catalog = Catalog(tmp_path)
    catalog.sync(connection=connection(hub))
    catalog.sync(filter="image-classification", connection=connection(hub))
    hub.remove("owner/a")
    hub.add_repo("owner/a", {"README.md": card(1, claim("org/x", 0.5))}, pipeline_tag="other")

    catalog.sync(filter="image-classification", connection=connection(hub))
    assert claims_in(catalog) == {("org/x", "owner/a"): 0.5}

    hub.remove("owner/a")
    catalog.sync(connection=connection(hub))
    assert claims_in(catalog) == {}


def test_two_hubs_claim_each_for_itself(hub, tmp_path):
    """What one takes back, the other still says."""
    catalog = Catalog(tmp_path)
    with LoopbackHub() as other:
        for one, accuracy in ((hub, 0.5), (other, 0.75)):
            one.add_repo("org/same", {"README.md": card(1, claim("org/x", accuracy))})
            catalog.sync(connection=connection(one))
        assert sorted(r.error for r in catalog.results(origin="card")) == [0.25, 0.5]

        hub.remove("org/same")
        catalog.sync(connection=connection(hub))

        [left] = catalog.results(origin="card")
        assert (left.error, left.endpoint) == (0.25, other.endpoint)


def test_a_card_with_endless_claims_is_bounded(hub, tmp_path):
    """A card may have megabytes."""
    many = [claim(f"org/x{i}", 0.5) for i in range(400)]
    hub.add_repo("evil/a", {"README.md": card(1, *many)})

    assert len(claims_in(Catalog.from_hub(tmp_path, endpoint=hub.endpoint))) == 16


def test_damaged_results_spoil_no_reading_of_cards(hub, tmp_path):
    """Whoever ranks needs no results; the report names the file, and how to get the claims again."""
    hub.add_repo("owner/a", {"README.md": card(1, claim("org/x", 0.5))})
    (tmp_path / "results.parquet").write_bytes(b"damaged")
    catalog = Catalog(tmp_path)

    report = catalog.sync(connection=connection(hub))

    assert "owner/a" in catalog
    assert any("results.parquet' cannot be read" in reason for reason in report.skipped)
    assert any("`t2v catalog sync --again`" in reason for reason in report.skipped)
    (tmp_path / "results.parquet").unlink()
    catalog.sync(again=True, connection=connection(hub))
    assert claims_in(catalog) == {("org/x", "owner/a"): 0.5}
