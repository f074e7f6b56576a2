"""``t2v benchmark``: the library's benchmark, at a shell."""

import csv
import json
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cli_data import t2v, t2v_json
from pools import Pool

from t2v_hub.catalog import Catalog
from t2v_hub.judging import benchmark

POOL = Pool(n_tasks=6, n_candidates=4, n_splits=2, facts={"parameters": [3, 1, 2, 4]})


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    return POOL.catalog(tmp_path_factory.mktemp("pool"))


def save_table(path):
    """The pool's results as a user has them."""
    rows = [
        {key: getattr(result, key) for key in ("task", "checkpoint", "error", "n", "seed", "n_test")}
        for result in POOL.results()
    ]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_it_prints_the_benchmark(catalog):
    """The same tables as in Python."""
    result = t2v("benchmark", "--catalog", catalog.path)

    assert result.exit_code == 0
    assert result.stdout.rstrip("\n") == str(benchmark(catalog))
    assert "learning distances anew for each task" in result.stderr


def test_as_json_it_is_the_benchmarks_own_dictionary(catalog):
    """One schema for both doors."""
    values = t2v_json("benchmark", "--catalog", catalog.path, "--no-model2vec", "--n", 100)

    assert values == json.loads(json.dumps(benchmark(catalog, model2vec=False, n=100).to_dict()))


def test_as_markdown_no_line_is_broken(catalog, monkeypatch):
    """A row of a table in two lines is no table."""
    monkeypatch.setenv("COLUMNS", "60")

    result = t2v("benchmark", "--catalog", catalog.path, "--no-model2vec", "--markdown", "--quiet")

    assert result.stdout.rstrip("\n") == benchmark(catalog, model2vec=False).to_markdown()
    assert result.stderr == ""


@pytest.mark.parametrize("name", ["runs.csv", "runs.parquet"])
def test_results_may_come_from_a_table(catalog, tmp_path, name):
    """Whoever kept a spreadsheet need not record anew; the catalog still knows facts and embeddings."""
    file = save_table(tmp_path / name)

    values = t2v_json("benchmark", "--catalog", catalog.path, "--results", file, "--no-model2vec")

    assert values == t2v_json("benchmark", "--catalog", catalog.path, "--no-model2vec")


def test_a_table_alone_is_enough_for_the_free_rows(tmp_path):
    """Without a catalog there are no embeddings, and the verdict says what is missing."""
    values = t2v_json("benchmark", "--results", save_table(tmp_path / "runs.csv"))

    (table,) = values["tables"]
    assert {row["kind"] for row in table["rows"]} == {"reference", "free"}
    assert table["verdict"]["answer"] == "undecided"


def test_options_reach_the_benchmark(catalog):
    values = t2v_json("benchmark", "--catalog", catalog.path, "--group-by", "owner", "--no-model2vec")

    assert values == json.loads(
        json.dumps(benchmark(catalog, group_by="owner", model2vec=False).to_dict(), allow_nan=False)
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--catalog", "nowhere"], 1, "There is no catalog in"),
        (["--results", "nowhere.csv"], 1, "There is no table of results 'nowhere.csv'"),
        ([], 1, "There are no results to judge by in"),
        (["--markdown", "--json"], 2, "--markdown and --json are two forms of one answer"),
        (["--n", "0"], 2, "Invalid value"),
        (["--group-by", "colour"], 2, "Invalid value"),
    ],
)
def test_an_error_is_named_and_has_its_exit_code(arguments, code, message):
    result = t2v("benchmark", *arguments)

    assert result.exit_code == code
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert "Traceback" not in result.stderr


def test_messages_speak_of_options(tmp_path):
    """Nobody can pass group_by= at a shell."""
    pool = Pool(n_tasks=3, n_owners=1)
    pool.catalog(tmp_path)

    result = t2v("benchmark", "--catalog", tmp_path, "--group-by", "owner")

    assert result.exit_code == 2
    assert "--group-by owner leaves one group" in result.stderr


def test_it_needs_no_torch(catalog):
    """Nothing is measured."""
    code = (
        "import sys; from t2v_hub.cli import app\n"
        f"try: app(['benchmark', '--catalog', {str(catalog.path)!r}, '--json'])\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'sklearn', 'transformers', 'pandas'} & set(sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert len(Catalog(catalog.path)) == 4
