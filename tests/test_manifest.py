"""Tables of tasks: what is read, what is refused, which shard gets which row."""

import csv
import errno

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from t2v_hub.errors import DataNotFoundError, ManifestError, SettingsError, StorageError
from t2v_hub.manifest import Failure, Shard, load_manifest
from t2v_hub.manifest.failures import FailureTable, read_failures
from t2v_hub.manifest.run import _hopeless


def table(folder, text, name="tasks.csv"):
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def parquet(folder, **columns):
    path = folder / "tasks.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def test_a_row_says_which_data_and_what_to_call_it(tmp_path):
    """What a table leaves open is as for `t2v embed`: the path's end or the Hub id, and the split."""
    path = table(
        tmp_path,
        "data,name,split,max_samples\n"
        "./sub/pets/,,test,\n"
        "./gone.parquet,,,500\n"
        "org/beans,,train,20.0\n\n"
        'org/beans,"the ""best"", beans",,\n',
    )

    rows = load_manifest(path).rows

    assert [(row.number, row.task, row.file_name, row.max_samples) for row in rows] == [
        (1, "pets", "pets-test.safetensors", None),
        (2, "gone", "gone.safetensors", 500),
        (3, "org/beans", "org--beans-train.safetensors", 20),
        (4, 'the "best", beans', "the-best-beans.safetensors", None),
    ]
    assert rows[0].options == {"split": "test"}


def test_names_do_not_hang_on_what_this_machine_sees(tmp_path):
    """A node without the folder would divide the rows otherwise, and some would be in no shard."""
    path = table(tmp_path, "data\nsub/pets\n../x/leaves\na/b/c\nd.parquet\n")
    before = load_manifest(path).rows

    (tmp_path / "sub" / "pets").mkdir(parents=True)

    assert load_manifest(path).rows == before
    assert [row.task for row in before] == ["sub/pets", "leaves", "c", "d"]


@pytest.mark.parametrize("sign", [",", ";", "\t"])
def test_csv_as_spreadsheets_and_pandas_write_it(tmp_path, sign):
    """A name such as 007 is no number, and a mark at the beginning is no part of the first column's name."""
    text = f"name{sign}data{sign}max_samples\r\n007{sign}a/b{sign}\r\n1e5{sign}c/d{sign}12\r\n"

    rows = load_manifest(table(tmp_path, b"\xef\xbb\xbf" + text.encode())).rows

    assert [(row.task, row.max_samples) for row in rows] == [("007", None), ("1e5", 12)]


def test_parquet_as_pandas_writes_it(tmp_path):
    """A column of counts with gaps is one of floats there; a column of categories is a dictionary."""
    split = pa.array(["train", None]).dictionary_encode()

    rows = load_manifest(
        parquet(tmp_path, data=["a/b", "c/d"], split=split, max_samples=[10.0, float("nan")], name=[None, ""])
    ).rows

    assert [(row.options, row.max_samples) for row in rows] == [({"split": "train"}, 10), ({}, None)]


def test_options_of_the_command_fill_empty_cells(tmp_path):
    """And are part of what the row means."""
    path = table(tmp_path, "data,split\na/b,\nc/d,test\n")

    plain, filled = load_manifest(path), load_manifest(path, defaults={"split": "train"})

    assert [row.options["split"] for row in filled.rows] == ["train", "test"]
    assert [row.file_name for row in filled.rows] == ["a--b-train.safetensors", "c--d-test.safetensors"]
    assert plain.rows[0].digest != filled.rows[0].digest
    assert plain.rows[1].digest == filled.rows[1].digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is empty"),
        ("data,name\n", "it has no row"),
        ("data\n\n\n", "it has no row"),
        ("name,split\na,b\n", "it has no column data; its columns are: name, split; known are: data, name,"),
        ("data,labels,x\na,b,c\n", "the columns 'labels', 'x' mean nothing here; known are: data, name"),
        ("data,data\na,b\n", "its column 'data' is there twice"),
        ("data,name\na/b,x\nc/d,y,z\n", "row 2 has 3 cells and the header 2: 'c/d,y,z'"),
        ("data,name\n,x\n", "row 1, column data: wanted a folder, a parquet file or the id"),
        ("data\na/b\n/\n", "row 2, column name: wanted what to call the data '/', got nothing"),
        ("data,name\na/b,x\nc/d,x\n", "rows 1 ('a/b') and 2 ('c/d') would both be written to 'x.safet"),
        ("data,name\na/b,x/y\nc/d,x--y\n", "rows 1 ('a/b') and 2 ('c/d') would both be written"),
        ("data,name\na/b,Pets\nc/d,pets\n", "would both be written to 'pets.safetensors'; tell them apart"),
        ("data,name\na/b,e\u0301\nc/d,\u00e9\n", "rows 1 ('a/b') and 2 ('c/d') would both be written"),
        ("data\na/b\nc/d\na/b\n", "rows 1 ('a/b') and 3 ('a/b') would both be written"),
        ("data,name\na/b,x\0y\n", "column name: wanted text without control characters, got 'x\\x00y'"),
        ("data\na/b\x1b[2J\n", "row 1, column data: wanted text without control characters"),
        (f"data\n{'a' * 5000}\n", "row 1, column data: wanted text of at most 4,096 characters"),
        ("data,max_samples\na/b,many\n", "max_samples: wanted a whole number >= 2 or nothing, got 'm"),
        ("data,max_samples\na/b,1\n", "max_samples: wanted a whole number >= 2 or nothing, got '1'"),
        ("data,max_samples\na/b,2.5\n", "max_samples: wanted a whole number >= 2 or nothing, got '2.5'"),
        ("data,small_classes\na/b,eat\n", "wanted 'error' or 'keep' or 'drop', got 'eat'"),
        (b"data\n\xff\xfe\n", "it is no whole CSV or parquet file"),
    ],
)  # fmt: skip
def test_tables_that_are_no_manifest(tmp_path, text, message):
    """Hours later, a slip in row 900 would cost those hours."""
    with pytest.raises(ManifestError) as raised:
        load_manifest(table(tmp_path, text))

    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"data": [1, 2]}, "row 1, column data: wanted text, got 1"),
        ({"data": ["a/b"], "name": [True]}, "row 1, column name: wanted text, got True"),
        ({"data": [["a"]]}, "its column data holds list"),
        ({"data": [b"a/b"]}, "its column data holds binary, not text"),
        ({"data": ["a/b"], "max_samples": [True]}, "wanted a whole number >= 2 or nothing, got True"),
        ({"data": ["a/b"], "max_samples": [float("inf")]}, "wanted a whole number >= 2 or nothing, got inf"),
        ({"data": ["a/b"], "max_samples": [-5]}, "wanted a whole number >= 2 or nothing, got -5"),
        ({"data": ["a/b"], "split": [{"a": 1}]}, "its column split holds struct"),
    ],
)
def test_parquet_files_of_other_types(tmp_path, columns, message):
    """They are not what they look like in a notebook."""
    with pytest.raises(ManifestError) as raised:
        load_manifest(parquet(tmp_path, **columns))

    assert message in str(raised.value)


def test_files_that_are_none(tmp_path):
    """A mistyped path is the commonest slip."""
    (tmp_path / "broken.parquet").write_bytes(b"PAR1garbagePAR1")

    with pytest.raises(ManifestError, match="There is no manifest"):
        load_manifest(tmp_path / "gone.csv")
    with pytest.raises(ManifestError, match="is a folder; a manifest is a CSV or parquet file"):
        load_manifest(tmp_path)
    with pytest.raises(ManifestError, match="it is no whole CSV or parquet file"):
        load_manifest(tmp_path / "broken.parquet")


def test_a_small_file_that_claims_much_is_not_read(tmp_path):
    """A text that is repeated a million times takes a few bytes on disk."""
    long = pa.array(["a/" + "b" * 3000]).dictionary_encode()
    many = pa.DictionaryArray.from_arrays(pa.array([0] * 1_100_000, pa.int32()), long.dictionary)

    path = parquet(tmp_path, data=many)

    assert path.stat().st_size < 1 << 20
    with pytest.raises(ManifestError, match="it claims 1,100,000 rows"):
        load_manifest(path)


@pytest.mark.parametrize(
    "name",
    ["../../x", "/etc/passwd", "..", ".", "a/../../b", "~/x", ".hidden", "x" * 300, "é" * 300, "C:\\x"],
)
def test_no_name_leads_out_of_the_folder(tmp_path, name):
    """Whoever writes the table need not be whoever runs it."""
    (row,) = load_manifest(parquet(tmp_path, data=["a/b"], name=[name])).rows

    path = tmp_path / "out" / row.file_name
    assert row.task == name
    assert path.resolve().parent == tmp_path / "out"
    assert not row.file_name.startswith(".")
    assert len(row.file_name.encode()) < 200


def test_paths_are_relative_to_the_table(tmp_path, monkeypatch):
    """A job starts in another folder than the one who wrote the table."""
    (tmp_path / "tables" / "pets").mkdir(parents=True)
    (tmp_path / "elsewhere" / "leaves").mkdir(parents=True)
    rows = "data\npets\nleaves\n./gone\norg/name\n~nobody-here/x\n"
    path = table(tmp_path / "tables", rows)
    monkeypatch.chdir(tmp_path / "elsewhere")

    manifest = load_manifest("../tables/tasks.csv")

    pets, leaves, gone, hub, nobody = manifest.rows
    assert manifest.location(pets) == str(tmp_path / "elsewhere" / ".." / "tables" / "pets")
    assert manifest.location(hub) == "org/name"
    with pytest.raises(DataNotFoundError, match=r"its own folder.*The present folder has one of that name"):
        manifest.location(leaves)
    with pytest.raises(DataNotFoundError, match="paths in a manifest are relative to its own folder"):
        manifest.location(gone)
    with pytest.raises(DataNotFoundError, match="cannot be looked for"):
        manifest.location(nobody)
    assert load_manifest(path).rows == manifest.rows


@pytest.mark.parametrize("n_rows", [0, 1, 7, 60, 1001])
@pytest.mark.parametrize("count", [1, 2, 3, 16])
def test_every_row_is_in_one_shard_and_shards_are_alike(n_rows, count):
    """No row twice, none forgotten, none left to one process alone."""
    names = [f"task-{i}" for i in range(n_rows)]

    parts = [Shard(i, count).places(names) for i in range(count)]

    assert sorted(place for part in parts for place in part) == list(range(n_rows))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_rows_that_are_appended_move_no_others():
    """A table grows while its shards are worked on."""
    names = [f"task-{i}" for i in range(103)]

    before = [set(Shard(i, 4).places(names)) for i in range(4)]
    after = [set(Shard(i, 4).places([*names, "new", "newer"])) for i in range(4)]

    assert all(old <= new for old, new in zip(before, after, strict=True))


def test_a_pattern_in_the_table_does_not_slow_one_shard():
    """Tables often go train, test, train, test; every second row would then be the slow one."""
    places = Shard(0, 2).places([f"task-{i}" for i in range(1000)])

    assert 200 < sum(place % 2 for place in places) < 300


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("4/4", "There is no shard 4/4; of 4 there are 0/4 to 3/4. They are counted from 0."),
        ("5/4", "There is no shard 5/4; of 4 there are 0/4 to 3/4."),
        ("0/0", "A shard is one of at least 1 part; got 0/0"),
        ("-1/4", "'-1/4' is no shard; wanted i/n, such as 0/4"),
        ("1", "'1' is no shard"),
        ("a/b", "'a/b' is no shard"),
        ("/", "'/' is no shard"),
        ("٠/٤", "is no shard"),
    ],
)
def test_shards_that_there_are_not(text, message):
    """SLURM_ARRAY_TASK_ID that is not set, an array from 1 to n: each would leave rows out in silence."""
    with pytest.raises(SettingsError) as raised:
        Shard.parse(text)

    assert message in str(raised.value)


def failure(number, **more):
    values = dict(
        row=number, name="a", file=f"{number}.safetensors", data="d", type="DataError", message="no",
        time="t", host="h",
    )  # fmt: skip
    return Failure(**{**values, **more})


def test_failures_are_written_whole_and_heal(tmp_path):
    """The table is what one looks at in the morning."""
    files = [f"{n}.safetensors" for n in range(3)]
    held = FailureTable(tmp_path, Shard(1, 4), files=files)

    held.add(failure(2, message='said "no",\nthen = more'))
    held.add(failure(1))

    with (tmp_path / "failures-1-of-4.csv").open(newline="") as file:
        assert [row["row"] for row in csv.DictReader(file)] == ["1", "2"]
    again = FailureTable(tmp_path, Shard(1, 4), files=files)
    assert [item.message for item in again] == ["no", 'said "no",\nthen = more']
    again.heal("1.safetensors")
    again.heal("0.safetensors")
    assert [item.row for item in read_failures(again.path)] == [2]
    again.heal("2.safetensors")
    assert not again.path.exists()


def test_another_division_of_the_work_heals_old_tables(tmp_path):
    """Whoever reruns four shards in one process must not keep four tables of what is done."""
    for i in range(2):
        FailureTable(tmp_path, Shard(i, 2), files=[f"{i}.safetensors"]).add(failure(i))

    FailureTable(tmp_path, Shard(), files=[]).settle({"0.safetensors"})

    assert not (tmp_path / "failures-0-of-2.csv").exists()
    assert [item.row for item in read_failures(tmp_path / "failures-1-of-2.csv")] == [1]


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\0", b"row,name\n1", b"row,name,file,data,type,message,time,host\nx,,,,,,,\n"]
)
def test_a_damaged_table_of_failures_is_none(tmp_path, content):
    """It must not end a run: the rows are tried again in any case."""
    path = tmp_path / "failures-0-of-1.csv"
    path.write_bytes(content)

    assert list(FailureTable(tmp_path, Shard(), files=["1.safetensors"])) == []


def test_a_folder_where_the_table_is_to_be(tmp_path):
    """Named, as every file that cannot be written."""
    (tmp_path / "failures-0-of-1.csv").mkdir()
    held = FailureTable(tmp_path, Shard(), files=["1.safetensors"])

    with pytest.raises(StorageError, match="a folder of that name exists"):
        held.add(failure(1))


def test_two_manifests_in_one_folder_keep_their_failures(tmp_path):
    """That all rows of one are embedded says nothing of the other's; rows that moved to another shard go."""
    first = FailureTable(
        tmp_path,
        Shard(),
        files={"1.safetensors", "2.safetensors"},
        manifest={"1.safetensors", "2.safetensors"},
    )
    first.add(failure(1))
    first.add(failure(2))

    second = FailureTable(
        tmp_path,
        Shard(),
        files={"7.safetensors", "8.safetensors"},
        manifest={"7.safetensors", "8.safetensors", "2.safetensors"},
    )
    second.add(failure(7))
    second.settle({"8.safetensors"})
    second = FailureTable(
        tmp_path,
        Shard(),
        files={"7.safetensors", "8.safetensors"},
        manifest={"7.safetensors", "8.safetensors", "2.safetensors"},
    )
    second.heal("7.safetensors")
    second.settle({"7.safetensors", "8.safetensors"})

    assert [item.file for item in read_failures(first.path)] == ["1.safetensors"]


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_full_disk_below_another_error_ends_the_run(wrapped):
    """Every row that follows would fail, too: a table of thousands is no help."""
    full = OSError(errno.ENOSPC, "No space left on device", "/hf/cache/x")
    error = full
    if wrapped:
        error = DataNotFoundError("The data cannot be read.")
        error.__cause__ = RuntimeError("what a library made of it")
        error.__cause__.__context__ = full

    found = _hopeless(error)

    assert isinstance(found, StorageError)
    assert "/hf/cache/x" in str(found)
    assert found.errno == errno.ENOSPC
    assert _hopeless(found) is found
    assert _hopeless(DataNotFoundError("gone")) is None
    assert _hopeless(OSError(errno.ENOENT, "gone")) is None


def test_a_read_only_place_that_somebody_could_do_without_ends_nothing():
    """A library tries to write a cache, goes on without, and then fails on this row's data alone."""
    error = ValueError("no image")
    error.__context__ = OSError(errno.EROFS, "Read-only file system")
    assert _hopeless(error) is None

    error.__context__ = OSError(errno.ENOSPC, "No space left on device")
    assert _hopeless(error) is not None
    error.__suppress_context__ = True
    assert _hopeless(error) is None
    loop = ValueError("a")
    loop.__cause__ = loop
    assert _hopeless(loop) is None
