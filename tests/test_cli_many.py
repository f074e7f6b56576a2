"""``t2v embed --many``: real folders, a real (tiny) probe, real processes that share a folder."""

import csv
import errno
import itertools
import json
import os
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cli_data import SIZE, save_images, t2v, t2v_json
from cli_worker import Worker
from factories import make_embedding

from t2v_hub.embedding import TaskEmbedding
from t2v_hub.errors import StorageError
from t2v_hub.manifest.standing import clear_half_written
from t2v_hub.task2vec import Task2Vec

_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def shared(tmp_path_factory, probe):
    """A folder with five data sets, the table of them, and what one process makes of it."""
    folder = tmp_path_factory.mktemp("shared")
    for number in range(5):
        save_images(folder / f"task{number}", seed=number, n=4)
    table = folder / "tasks.csv"
    table.write_text("data\n" + "".join(f"task{number}\n" for number in range(5)))
    flags = ["--probe", str(probe), *map(str, SIZE)]
    values = t2v_json("embed", "--many", table, "-o", folder / "alone", *flags, "--no-cache")
    return SimpleNamespace(folder=folder, table=table, flags=flags, values=values)


def start(shared, tmp_path, *arguments, out="out"):
    """The command in a process of its own."""
    command = ["embed", "--many", shared.table, "-o", tmp_path / out, *shared.flags, *arguments]
    own = {"T2V_HOME": str(tmp_path / "home"), "HF_HOME": str(tmp_path / "hf")}
    return Worker(command, own, tmp_path / f"said-{next(_NUMBERS)}")


def files(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


def forget(folder, *names):
    for name in names:
        (folder / f"{name}.safetensors").unlink()


def copied(shared, tmp_path, name="out"):
    """A folder in which all rows are done."""
    return shutil.copytree(shared.folder / "alone", tmp_path / name)


def test_every_row_becomes_a_file_that_says_its_task(shared):
    """What `t2v embed` makes of each, to the bit."""
    values, alone = shared.values, shared.folder / "alone"

    assert [item["row"] for item in values["embeddings"]] == [1, 2, 3, 4, 5]
    assert (values["n_rows"], values["n_in_shard"], values["n_files"], values["shard"]) == (5, 5, 5, "0/1")
    assert values["failures"] == [] and values["failures_file"] is None
    assert [item["file"] for item in values["embeddings"]] == [
        str(alone / f"task{n}.safetensors") for n in range(5)
    ]
    single = shared.folder / "single.safetensors"
    t2v_json("embed", shared.folder / "task3", "-o", single, *shared.flags, "--no-cache")
    assert TaskEmbedding.load(single) == TaskEmbedding.load(alone / "task3.safetensors")


def test_shards_in_processes_at_once_and_one_of_them_twice(shared, tmp_path):
    """Each row is there, whole, with the bits of a single process; a job queued twice does no harm."""
    runs = [start(shared, tmp_path, "--shard", shard, "--json") for shard in ("0/2", "1/2", "1/2")]
    first, second, again = (run.ended() for run in runs)
    out = tmp_path / "out"

    assert [run.code for run in (first, second, again)] == [0, 0, 0], first.err + second.err + again.err
    rows = [
        sorted(item["row"] for item in (*values["embeddings"], *values["there"]))
        for values in (json.loads(run.out) for run in (first, second, again))
    ]
    assert sorted(rows[0] + rows[1]) == [1, 2, 3, 4, 5]
    assert rows[1] == rows[2]
    assert files(out) == files(shared.folder / "alone")
    assert not [path for path in out.rglob("*") if path.name.endswith((".tmp", ".csv"))]


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_loses_nothing_finished(shared, tmp_path, sent):
    """A batch system ends jobs as it likes; the same command then does the rest."""
    out = tmp_path / "out"
    killed = start(shared, tmp_path, "--log-json")
    deadline = time.monotonic() + 300
    while not files(out) and killed.is_running and time.monotonic() < deadline:
        time.sleep(0.005)
    killed.send(sent)
    end = killed.ended()
    done = {name: (out / name).stat().st_mtime_ns for name in files(out)}
    assert 1 <= len(done) < 5, end.err

    last = start(shared, tmp_path, "--json").ended()

    assert last.code == 0, last.err
    values = json.loads(last.out)
    assert {Path(item["file"]).name for item in values["there"]} == set(done)
    assert {name: (out / name).stat().st_mtime_ns for name in done} == done
    assert files(out) == files(shared.folder / "alone")
    if sent == signal.SIGTERM:
        assert end.code == 130
        assert json.loads(end.err.splitlines()[-1])["event"] == "interrupted"
        assert not list(out.rglob("*.tmp"))


def test_what_killed_processes_left_half_written_goes_what_others_write_stays(tmp_path):
    """Both look alike but for their age; and what is nobody's of ours is not even looked at."""
    (tmp_path / ".rows").mkdir()
    note, half = tmp_path / ".rows" / ".a.safetensors.json.x.tmp", tmp_path / ".a.safetensors.y.tmp"
    long = tmp_path / f".{'c' * 64}.z.tmp"
    new, notes, other = (
        tmp_path / name for name in (".b.safetensors.y.tmp", ".notes.tmp", ".d.safetensors.x.tmp")
    )
    for path in (note, half, long, new, notes, other):
        path.write_text("")
        os.utime(path, None if path == new else (0, 0))

    clear_half_written(tmp_path, {"a.safetensors", "b.safetensors", f"{'c' * 80}.safetensors"})

    assert not note.exists() and not half.exists() and not long.exists()
    assert new.exists() and notes.exists() and other.exists()


@pytest.fixture
def no_measuring(monkeypatch):
    """Measuring is an error of the test, which no table of failures hides."""

    def embed(*_, **__):
        pytest.exit("it was measured")

    monkeypatch.setattr(Task2Vec, "embed", embed)


@pytest.mark.usefixtures("no_measuring")
def test_done_rows_are_skipped(shared, tmp_path):
    """Without a look at their images, which may be far away."""
    out = copied(shared, tmp_path)

    result = t2v("embed", "--many", shared.table, "-o", out, *shared.flags)

    assert result.exit_code == 0
    assert "0 now, 5 before" in result.stdout
    assert f"5 of 5 rows have a file in {out}" in result.stdout
    assert files(out) == files(shared.folder / "alone")


def write_table(shared, tmp_path, text):
    """A table elsewhere; its paths are whole."""
    path = tmp_path / "table.csv"
    path.write_text(text.replace("\ntask", f"\n{shared.folder}/task"))
    return path


def test_failures_are_named_written_down_tried_again_and_healed(shared, tmp_path):
    """One bad row of thousands must neither end the run nor be forgotten."""
    out = copied(shared, tmp_path)
    save_images(tmp_path / "single", n=1)
    rows = f"data,name\ntask0,task0\n{tmp_path}/later,later\ntask2,task2\n{tmp_path}/single,single\n"
    command = ["embed", "--many", write_table(shared, tmp_path, rows), "-o", out, *shared.flags]

    result = t2v(*command)

    assert result.exit_code == 1
    assert "2 now, 0 before" in result.stdout  # the paths are other ones than in the first table
    assert "error: row 2, later: No such file or folder" in result.stderr
    assert "error: row 4, single: " in result.stderr
    table = out / "failures-0-of-1.csv"
    ending = (
        f"later (row 2), single (row 4). The same command tries them again; {table} says why each failed."
    )
    assert f"error: 2 of 4 rows could not be embedded: {ending}" in result.stderr
    with table.open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [(row["row"], row["name"], row["type"]) for row in found] == [
        ("2", "later", "DataNotFoundError"), ("4", "single", "ClassSizeError")
    ]  # fmt: skip
    assert "Traceback" not in table.read_text() + result.stderr

    shutil.copytree(shared.folder / "task1", tmp_path / "later")
    again = t2v(*command, "--json")

    values = json.loads(again.stdout)
    assert again.exit_code == 1
    assert [item["name"] for item in values["embeddings"]] == ["later"]
    assert [(item["row"], item["type"]) for item in values["failures"]] == [(4, "ClassSizeError")]
    assert values["failures_file"] == str(table)
    with table.open(newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["single"]

    shutil.rmtree(tmp_path / "single")
    shutil.copytree(shared.folder / "task3", tmp_path / "single")
    assert t2v(*command).exit_code == 0
    assert not table.exists()


def test_what_no_one_foresaw_is_a_failure_of_its_row(shared, tmp_path, monkeypatch):
    """Strangers' data sets go through libraries that may raise anything."""
    out = copied(shared, tmp_path)
    forget(out, "task1")

    def embed(*_, **__):
        raise RuntimeError("a tensor\nfell over")

    monkeypatch.setattr(Task2Vec, "embed", embed)
    result = t2v("embed", "--many", shared.table, "-o", out, *shared.flags, "--json")

    assert result.exit_code == 1
    assert json.loads(result.stdout)["failures"] == [
        {"row": 2, "name": "task1", "data": "task1", "type": "RuntimeError", "message": "a tensor fell over"}
    ]


def test_a_full_disk_ends_the_run(shared, tmp_path, monkeypatch):
    """Each of the other rows would be measured for an hour, and then not be written."""
    calls = []

    def embed(*_, **__):
        calls.append(1)
        error = StorageError("Cannot write: the disk is full.")
        error.errno = errno.ENOSPC
        raise error

    monkeypatch.setattr(Task2Vec, "embed", embed)
    result = t2v("embed", "--many", shared.table, "-o", tmp_path / "out", *shared.flags)

    assert result.exit_code == 1
    assert "error: Cannot write: the disk is full." in result.stderr
    assert len(calls) == 1


def test_other_settings_or_other_data_are_measured_again(shared, tmp_path):
    """A file of that name is no reason to believe that it holds what the table asks for now."""
    out = copied(shared, tmp_path)
    command = ["embed", "--many", None, "-o", out, *shared.flags]

    def embedded(rows, *more):
        command[2] = write_table(shared, tmp_path, rows)
        return [item["name"] for item in t2v_json(*command, *more)["embeddings"]]

    start = "data,name,max_samples\ntask0,task0,{}\ntask1,task1,\n"
    other = start.format("").replace("task0,", "task4,", 1)

    assert embedded(start.format("")) == ["task0", "task1"]  # the paths are other ones than in the table
    assert embedded(start.format("")) == []
    assert embedded(start.format(500)) == []  # there are only twelve
    assert embedded(start.format(9)) == ["task0"]
    assert TaskEmbedding.load(out / "task0.safetensors").measurement.n_samples == 9
    assert embedded(start.format(9)) == []
    assert embedded(other) == ["task0"]
    assert embedded(other) == []
    assert embedded(other, "--seed", 1) == ["task0", "task1"]
    assert embedded(other, "--seed", 1, "--overwrite") == ["task0", "task1"]


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: make_embedding(task="plants").save(path), "another task, 'plants' instead of 'task0'"),
        (lambda path: make_embedding(task="task0").save(path), "the embedding of 'task0' in another space"),
        (lambda path: path.write_text("a letter"), "is there already and is no embedding that can be read"),
        (lambda path: path.symlink_to("nowhere"), "is there already and is no embedding that can be read"),
        (lambda path: path.mkdir(), "is there already and is no embedding that can be read"),
    ],
)
@pytest.mark.usefixtures("no_measuring")
def test_other_files_are_not_replaced(shared, tmp_path, write, message):
    """A failure of that row, and of no other."""
    out = copied(shared, tmp_path)
    forget(out, "task0")
    write(out / "task0.safetensors")

    result = t2v("embed", "--many", shared.table, "-o", out, *shared.flags)

    assert result.exit_code == 1
    assert f"error: row 1, task0: '{out}/task0.safetensors' " in result.stderr
    assert message in result.stderr
    assert "choose another folder, or replace it with --overwrite." in result.stderr
    assert "0 now, 4 before" in result.stdout


def test_nothing_is_written_outside_the_folder(shared, tmp_path):
    """Names come from whoever wrote the table; a link of that name is replaced, not followed."""
    out, victim = tmp_path / "deep" / "out", tmp_path / "victim"
    out.mkdir(parents=True)
    victim.write_text("mine")
    (out / "linked.safetensors").symlink_to(victim)
    path = tmp_path / "table.parquet"
    names = ["../../x", "/tmp/t2v-absolute", "linked"]
    pq.write_table(pa.table({"data": [str(shared.folder / "task0")] * 3, "name": names}), path)
    before = {item for item in tmp_path.rglob("*") if out not in item.parents}

    values = t2v_json("embed", "--many", path, "-o", out, *shared.flags, "--overwrite")

    assert {Path(item["file"]).name for item in values["embeddings"]} == {
        "x.safetensors", "tmp--t2v-absolute.safetensors", "linked.safetensors"
    }  # fmt: skip
    assert {item for item in tmp_path.rglob("*") if out not in item.parents} == before
    assert victim.read_text() == "mine"
    assert not (out / "linked.safetensors").is_symlink()
    assert [TaskEmbedding.load(item["file"]).task.id for item in values["embeddings"]] == names


@pytest.mark.usefixtures("no_measuring")
def test_the_status_of_all_shards(shared, tmp_path, monkeypatch):
    """One asks it from a login node, where no probe is and none should be loaded."""
    monkeypatch.setattr("t2v_hub.probe.ProbeNetwork.load", None)
    out = copied(shared, tmp_path)
    forget(out, "task1", "task2", "task3")
    (out / "task3.safetensors").write_text("a letter")
    header = "row,name,file,data,type,message,time,host\n"
    for number, (file, said) in enumerate([("task1", "old"), ("task1", "new"), ("task0", "healed")]):
        line = f"2,{file},{file}.safetensors,{file},DataError,{said},2030-01-0{number + 1},node\n"
        (out / f"failures-{number}-of-3.csv").write_text(header + line)

    values = t2v_json("embed", "--many", shared.table, "--status", "-o", out)
    text = t2v("embed", "--many", shared.table, "--status", "-o", out)
    none = t2v_json("embed", "--many", shared.table, "--status", "-o", tmp_path / "nothing")

    assert (values["n_rows"], values["n_done"], values["n_failed"], values["n_missing"]) == (5, 2, 1, 2)
    assert [item["message"] for item in values["failures"]] == ["new"]
    assert [item["name"] for item in values["missing"]] == ["task2", "task3"]
    assert list(values["spaces"].values()) == [2]
    assert "is no embedding that can be read" in values["problems"][0]
    assert "2 of 5 rows" in text.stdout and "task1: new" in text.stdout
    assert none["n_missing"] == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["DATA", "--many", "T", "-o", "out"], "brings its own data: leave DATA out"),
        (["--many", "T"], "--many needs the folder to write to"),
        (["--many", "T", "-o", "a.safetensors"], "is a file; for --many give a folder"),
        (["--many", "T", "-o", "out", "--name", "x"], "one name cannot be that of several tasks"),
        (["--many", "T", "-o", "out", "--shard", "4/4"], "There is no shard 4/4; of 4 there are 0/4 to 3/4."),
        (["--many", "T", "-o", "out", "--shard", "/"], "'/' is no shard; wanted i/n"),
        (["--many", "T", "-o", "out", "--status", "--shard", "0/2"], "--status is of all shards"),
        (["--many", "T", "-o", "out", "--status", "--log-json"], "logs what is done"),
        (["DATA", "--shard", "0/2"], "goes with --many"),
        (["DATA", "--status"], "goes with --many"),
        (["DATA", "--log-json"], "goes with --many"),
    ],
)
def test_wrong_usage(shared, arguments, message):
    """Exit code 2, before anything is loaded."""
    result = t2v("embed", *(shared.table if part == "T" else part for part in arguments))

    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())


def test_a_table_that_is_none_is_named_before_the_probe_is_loaded(tmp_path, monkeypatch):
    """As every slip."""
    monkeypatch.setattr("t2v_hub.probe.ProbeNetwork.load", None)
    (tmp_path / "t.csv").write_text("data,lables\na,b\n")

    wrong = t2v("embed", "--many", tmp_path / "t.csv", "-o", tmp_path / "out")
    absent = t2v("embed", "--many", tmp_path / "gone.csv", "-o", tmp_path / "out")

    assert (wrong.exit_code, absent.exit_code) == (1, 1)
    assert "the column 'lables' means nothing here; known are: data, name, split" in wrong.stderr
    assert "There is no manifest" in absent.stderr
    assert not (tmp_path / "out").exists()
