"""``t2v catalog record`` and ``t2v catalog results``; no torch, no images."""

import pytest
from cli_data import t2v, t2v_json
from factories import make_catalog, make_embedding

from t2v_hub.catalog import Candidate, Catalog, Result

PETS = make_embedding(seed=1, task="pets")


@pytest.fixture
def pets(tmp_path):
    return PETS.save(tmp_path / "pets.safetensors")


@pytest.fixture
def folder(tmp_path):
    return make_catalog(tmp_path / "catalog", [Candidate("org/vit")]).path


@pytest.fixture
def at(folder):
    return ("--catalog", folder)


def test_record_keeps_the_error_and_the_embedding(pets, folder, at):
    """The same as Catalog.record; what replaces is said to."""
    arguments = ("catalog", "record", pets, "org/vit", 0.125, "--n", 20, "--seed", 3, "--n-test", 88, *at)

    first = t2v(*arguments)
    again = t2v_json(*arguments)

    assert first.exit_code == 0
    assert first.stdout == f"Recorded 1 result in {folder} (0 replaced), which has 1 result now\n"
    assert first.stderr == ""
    [result] = Catalog(folder).results()
    assert result == Result("pets", "org/vit", 0.125, 20, 3, 88, PETS.digest)
    assert Catalog(folder).task_embedding(result.embedding) == PETS
    assert (again["n_recorded"], again["n_replaced"], again["n_results"]) == (1, 1, 1)
    assert again["recorded"][0]["embedding"] == PETS.digest


def test_record_says_what_is_lacking(folder, at):
    """An id has no embedding, and a slip in a name makes a checkpoint that nobody has."""
    result = t2v("catalog", "record", "pets", "org/vti", "0.1", *at)
    quiet = t2v("catalog", "record", "pets", "org/vti", "0.1", "--quiet", *at)

    assert result.exit_code == 0
    assert "1 task recorded without an embedding: distances are learned only where one" in result.stderr
    assert "Not among the 1 candidate yet: org/vti; `t2v catalog add` adds one." in result.stderr
    assert quiet.stderr == ""


def test_a_checkpoint_is_called_as_the_catalog_calls_it(tmp_path, folder, at, monkeypatch):
    """A folder's id is its whole path, however it is typed."""
    checkpoint = tmp_path / "nets" / "resnet"
    checkpoint.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    for name in ("nets/resnet", "./nets/../nets/resnet", checkpoint, "hf-hub:org/vit"):
        assert t2v("catalog", "record", "pets", name, 0.1, *at).exit_code == 0

    assert {r.checkpoint for r in Catalog(folder).results()} == {str(checkpoint), "org/vit"}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["pets", "org/vit"], 2, "Wanted TASK, CHECKPOINT and ERROR, or --table FILE."),
        (["pets", "org/vit", "23.9"], 2, "error must be a share in [0, 1], 0.239 rather than 23.9"),
        (["pets", "org/vit", "many"], 2, "Invalid value"),
        (["pets", "org/vit", "0.1", "--n", "0"], 2, "Invalid value"),
        (["pets", "org/vit", "0.1", "--embedding", "e.safetensors"], 2, "give the embedding file as TASK"),
        (
            ["pets", "--table", "t.csv"],
            2,
            "--table brings all of a result; of the others, give only --embedd",
        ),
        (["--table", "t.csv", "--n", "5"], 2, "--table brings all of a result"),
        (["absent.safetensors", "org/vit", "0.1"], 1, "There is no embedding file 'absent.safetensors'"),
        (["./absent", "org/vit", "0.1"], 2, "No such file: './absent'. Wanted an embedding file, or the id"),
        (["pets", "./absent", "0.1"], 1, "No such file or folder: './absent'. Wanted a folder, or a reposit"),
        (["--table", "absent.csv"], 1, "There is no table of results 'absent.csv'"),
    ],
)
def test_slips_are_named_and_nothing_is_recorded(folder, at, arguments, code, words):
    """Wrong usage is 2, anything else that fails 1."""
    result = t2v("catalog", "record", *arguments, *at)

    assert result.exit_code == code
    assert words in " ".join(result.stderr.replace("│", " ").split())
    assert not (folder / "results.parquet").exists()


TABLE = """task,checkpoint,accuracy,n,seed,lr
pets,org/vit,0.9,20,0,1e-3
pets,org/resnet,0.8,20,0,1e-3
leaves,org/vit,0.7,20,0,1e-4
"""


def test_a_table_is_recorded_at_once(tmp_path, pets, folder, at):
    """With the embeddings of its tasks, where these are given; columns that mean nothing are named."""
    table = tmp_path / "results.csv"
    table.write_text(TABLE)

    result = t2v("catalog", "record", "--table", table, "--embedding", pets, *at)

    assert result.exit_code == 0
    assert result.stdout == f"Recorded 3 results in {folder} (0 replaced), which has 3 results now\n"
    assert "columns that were not used: lr" in result.stderr
    assert "1 task recorded without an embedding" in result.stderr
    assert Catalog(folder).results() == (
        Result("leaves", "org/vit", 0.3, n=20, seed=0),
        Result("pets", "org/resnet", 0.2, n=20, seed=0, embedding=PETS.digest),
        Result("pets", "org/vit", 0.1, n=20, seed=0, embedding=PETS.digest),
    )
    assert Catalog(folder).task_embedding(PETS.digest) == PETS


def test_a_table_with_one_bad_row_is_not_recorded(tmp_path, folder, at):
    """The row and the column are named."""
    table = tmp_path / "results.csv"
    table.write_text(TABLE + "leaves,org/resnet,65.0,20,0,1\n")

    result = t2v("catalog", "record", "--table", table, *at)

    assert result.exit_code == 1
    assert (
        "row 4, column accuracy: wanted a share from 0 to 1, got '65.0'. Divide per cents by 100: 0.65."
        in (result.stderr)
    )
    assert not (folder / "results.parquet").exists()


def test_strange_names_in_a_table_are_names(tmp_path, folder, at):
    """They come from a file: none may be taken for a path that breaks."""
    table = tmp_path / "results.csv"
    names = ["~nobody-of-that-name/net", "x" * 300, "a/" * 1500 + "b"]
    table.write_text("task,checkpoint,error\n" + "".join(f"pets,{name},0.5\n" for name in names))

    assert t2v("catalog", "record", "--table", table, *at).exit_code == 0

    assert {r.checkpoint for r in Catalog(folder).results()} == set(names)


def test_embeddings_must_be_of_tasks_in_the_table(tmp_path, pets, at):
    """Otherwise a slip in a name would leave the task without, and nobody would know."""
    table, birds = tmp_path / "results.csv", make_embedding(task="birds").save(tmp_path / "b.safetensors")
    table.write_text(TABLE)

    other = t2v("catalog", "record", "--table", table, "--embedding", birds, *at)
    twice = t2v("catalog", "record", "--table", table, "--embedding", pets, "--embedding", pets, *at)

    assert (other.exit_code, twice.exit_code) == (2, 2)
    assert (
        "is the embedding of 'birds', and the table has no result on that task. Its tasks are: leaves, pet"
        in (other.stderr)
    )
    assert "Two of the --embedding files are of the task 'pets'; give one." in twice.stderr


@pytest.fixture
def some(folder):
    catalog = Catalog(folder)
    catalog.record(PETS, "org/vit", 0.1, n=20, seed=0, n_test=1000)
    catalog.record("leaves", "org/vit", 0.25)
    catalog.record("leaves", "org/resnet", 0.5, n=5)
    claim = Result("birds", "org/vit", 0.01, origin="card", endpoint="https://hub")
    catalog.record_many([claim])
    return catalog


@pytest.mark.usefixtures("some")
def test_results_lists_what_is_there(folder, at):
    """A row each, and how many claims of cards are not shown."""
    lines = t2v("catalog", "results", *at)
    rows = [line.split() for line in lines.stdout.splitlines()]

    assert lines.exit_code == 0
    assert lines.stdout.splitlines()[0] == f"3 results in {folder}: 2 tasks, 2 checkpoints"
    assert rows[3:] == [
        ["leaves", "org/resnet", "0.5000", "5", "–", "–", "–", "here"],
        ["leaves", "org/vit", "0.2500", "–", "–", "–", "–", "here"],
        ["pets", "org/vit", "0.1000", "20", "0", "1,000", PETS.digest[7:15], "here"],
    ]
    assert "Cards claim 1 more; --origin card lists them." in lines.stderr
    assert "card on https://hub" in t2v("catalog", "results", "--origin", "all", *at).stdout


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ([], 3),
        (["--task", "leaves"], 2),
        (["--checkpoint", "org/vit"], 2),
        (["--n", "5"], 1),
        (["--task", "leaves", "--checkpoint", "org/vit"], 1),
        (["--origin", "card"], 1),
        (["--origin", "all"], 4),
        (["--task", "none"], 0),
    ],
)
def test_results_as_json(some, at, arguments, found):
    """The fields of `Result`, chosen as `Catalog.results` does."""
    values = t2v_json("catalog", "results", *arguments, *at)

    assert len(values["results"]) == found
    assert {Result(**row) for row in values["results"]} <= set(some.results(origin=None))
    assert values["n_tasks"] == len({row["task"] for row in values["results"]})
    assert values["removed"] is False


def test_results_can_be_removed(some, folder, at):
    """A slip in a name must not stay for ever; all at once is not removed by a slip, either."""
    refused = t2v("catalog", "results", "--remove", *at)
    removed = t2v("catalog", "results", "--remove", "--task", "pets", *at)

    assert refused.exit_code == 2
    assert "--remove needs --task, --checkpoint or --n, to say which results." in refused.stderr
    assert removed.stdout == f"Removed 1 result from {folder}: 1 task, 1 checkpoint\n"
    assert {r.task for r in some.results(origin=None)} == {"leaves", "birds"}
    assert list((folder / "embeddings").iterdir()) == []


def test_a_catalog_without_results_says_how_to_begin(tmp_path, at):
    """An empty list alone is no help."""
    result = t2v("catalog", "results", *at)
    absent = t2v("catalog", "results", "--catalog", tmp_path / "absent")

    assert result.exit_code == 0
    assert (
        "Record one with `t2v catalog record TASK CHECKPOINT ERROR`, or many with --table." in result.stderr
    )
    assert absent.exit_code == 1
    assert "There is no catalog in" in absent.stderr


def test_the_first_result_makes_a_catalog(tmp_path, pets):
    """Nothing else must be there."""
    folder = tmp_path / "new"

    assert t2v("catalog", "record", pets, "org/vit", 0.1, "--catalog", folder).exit_code == 0

    assert t2v_json("catalog", "results", "--catalog", folder)["n_tasks"] == 1
    assert t2v_json("catalog", "list", "--catalog", folder)["candidates"] == []


def test_a_damaged_embedding_is_named(pets, at):
    """Before anything is recorded."""
    pets.write_bytes(b"damaged")

    result = t2v("catalog", "record", pets, "org/vit", 0.1, *at)

    assert result.exit_code == 1
    assert "pets.safetensors' is not a usable embedding file" in result.stderr
