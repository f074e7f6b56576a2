"""``--log-json``: one JSON object a line on stderr, whatever happens and whoever prints."""

import io
import json
import os
import socket
import subprocess
import sys
import warnings
from datetime import datetime
from pathlib import Path

import pytest
import typer
from cli_data import SIZE, save_images, save_probe, t2v

from t2v_hub.cli.log import JsonLog, log_for
from t2v_hub.cli.output import session
from t2v_hub.errors import DataError, T2VWarning
from t2v_hub.testing import LoopbackHub, tiny_task

USER = Path(__file__).parent / "cli_user.py"
COMMON = {"schema", "time", "level", "event", "command", "host", "pid", "shard"}


def events(text):
    """The lines of a log, each checked for what all have."""
    found = [json.loads(line) for line in text.splitlines()]
    for item in found:
        assert item.keys() >= COMMON
        assert item["schema"] == "t2v-log/1"
        assert datetime.fromisoformat(item["time"]).utcoffset().total_seconds() == 0
        assert item["level"] in ("info", "warning", "error")
        assert (item["host"], isinstance(item["pid"], int)) == (socket.gethostname(), True)
        json.dumps(item, allow_nan=False)
    return found


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("log")
    save_images(folder / "good", n=4)
    path = folder / "tasks.csv"
    path.write_text("data\ngood\n./gone\n")
    return path


def test_a_run_in_lines(tmp_path, table, probe, monkeypatch):
    """What a collector gathers from a hundred machines: who, which row, how long, why not."""
    command = ["embed", "--many", table, "--shard", "0/1", "-o", tmp_path / "out", "--probe", probe, *SIZE]

    first = t2v(*command, "--log-json", "--json")
    monkeypatch.setenv("T2V_LOG", "json")
    second = t2v(*command, "-q")

    told = events(first.stderr)
    named = [item["event"] for item in told if item["event"] != "print"]
    assert named == ["note", "start", "embedding", "done", "embedding", "failed", "end"]
    by_name = {item["event"]: item for item in told}
    start, done, failed, end = (by_name[name] for name in ("start", "done", "failed", "end"))
    assert {item["shard"] for item in told} == {"0/1"}
    assert {item["command"] for item in told} == {"embed"}
    assert (start["n_rows"], start["n_in_shard"], start["probe"]) == (2, 2, str(probe))
    assert (done["row"], done["name"], done["file"]) == (
        1,
        "good",
        str(tmp_path / "out" / "good.safetensors"),
    )
    assert done["seconds"] > 0 and done["n_samples"] == 12 and done["space"] == start["space"]
    assert (failed["row"], failed["type"], failed["level"]) == (2, "DataNotFoundError", "error")
    assert [end[name] for name in ("exit_code", "n_embedded", "n_there", "n_failed", "n_files")] == [
        1,
        1,
        0,
        1,
        1,
    ]
    assert (first.exit_code, second.exit_code) == (1, 1)
    assert len(json.loads(first.stdout)["embeddings"]) == 1
    again = [item["event"] for item in events(second.stderr) if item["event"] != "print"]
    assert again == ["start", "there", "embedding", "failed", "end"]
    assert "1 before" in second.stdout


def test_an_error_that_ends_the_command_is_a_line(tmp_path):
    """And no rich text anywhere on stderr."""
    result = t2v("embed", "--many", tmp_path / "gone.csv", "-o", tmp_path / "out", "--log-json")

    (error,) = events(result.stderr)
    assert result.exit_code == 1
    assert (error["event"], error["level"], error["type"]) == ("error", "error", "ManifestError")
    assert "There is no manifest" in error["message"]


def test_whatever_is_printed_meanwhile_becomes_lines(capsys):
    """Other libraries print what they like, when they like."""
    with pytest.raises(typer.Exit), session(as_json=False, quiet=False, log=JsonLog("embed")) as output:
        print("to\nstdout")  # noqa: T201
        print("half a", end=" ", file=sys.stderr)  # noqa: T201
        print("line\r50 %\r\n[bold]no markup[/bold]", file=sys.stderr)  # noqa: T201
        warnings.warn("beware\nof this", T2VWarning, stacklevel=1)
        output.note("max_samples=3 é\udcff")
        output.fail("no")
        assert not output.progress
        raise DataError("Set max_samples=9.")

    told = [(item["event"], item.get("text") or item["message"]) for item in events(capsys.readouterr().err)]
    assert told == [
        ("print", "to"),
        ("print", "stdout"),
        ("print", "half a line"),
        ("print", "50 %"),
        ("print", "[bold]no markup[/bold]"),
        ("warning", "beware of this"),
        ("note", "max_samples=3 é\udcff"),
        ("error", "no"),
        ("error", "Set --max-samples 9."),
    ]


def test_an_interrupt_is_a_line(capsys):
    """The last one."""
    with pytest.raises(typer.Exit), session(as_json=False, quiet=True, kept=True, log=JsonLog("enrich")):
        raise KeyboardInterrupt

    (told,) = events(capsys.readouterr().err)
    assert (told["event"], told["level"]) == ("interrupted", "warning")


def test_numbers_that_are_none_are_null():
    """NaN is no JSON, and collectors drop the line."""
    file = io.StringIO()

    JsonLog("embed", file=file).event("done", standard_error=float("nan"), values=[float("inf"), 1.5])

    (told,) = events(file.getvalue())
    assert (told["standard_error"], told["values"]) == (None, [None, 1.5])
    assert file.getvalue().count("\n") == 1


@pytest.mark.parametrize(("said", "wanted"), [("json", True), ("JSON ", True), ("", False), ("text", False)])
def test_the_variable(monkeypatch, said, wanted):
    """For job scripts that start many commands."""
    monkeypatch.setenv("T2V_LOG", said)

    assert (log_for("embed", wanted=False) is not None) == wanted
    assert log_for("embed", wanted=True) is not None


def test_a_variable_that_says_something_else(monkeypatch, tmp_path):
    """A typing error would silently log text."""
    monkeypatch.setenv("T2V_LOG", "jsonl")

    result = t2v("embed", "--many", "t.csv", "-o", tmp_path / "out")

    assert result.exit_code == 2
    assert "T2V_LOG: must be json, text or nothing, not 'jsonl'." in " ".join(result.stderr.split())


def test_enrichment_in_lines(tmp_path):
    """Each data set and card as soon as it is finished; the JSON on stdout is as ever."""
    probe = save_probe(tmp_path / "probe")
    command = ["enrich", "--probe", str(probe), "--json", "--log-json"]
    home = str(tmp_path / "home")
    with LoopbackHub() as hub:
        tiny_task(20).to_parquet(tmp_path / "0.parquet")
        data = {"README.md": "# Colours\n", "data/train.parquet": (tmp_path / "0.parquet").read_bytes()}
        hub.add_repo("org/colours", data, kind="dataset")
        hub.add_repo("org/damaged", {"README.md": "# Data", "data.zip": b"garbage" * 99}, kind="dataset")
        for name, source in (("a", "colours"), ("d", "damaged")):
            card = f"---\nlicense: mit\ndatasets: [org/{source}]\n---\n# {name}\n"
            hub.add_repo(
                f"owner/{name}", {"README.md": card}, pipeline_tag="image-classification", library_name="timm"
            )
        done = subprocess.run(
            [sys.executable, USER, json.dumps([[home, [*command, "--dry-run"]], [home, command]])],
            env=os.environ | hub.environment(tmp_path / "hf"), capture_output=True, text=True, check=True,
        )  # fmt: skip

    planned, real = (json.loads(line) for line in done.stdout.splitlines())
    assert (planned["code"], real["code"]) == (0, 0), real["err"]
    assert [item["state"] for item in events(planned["err"]) if item["event"] == "data_set"] == [
        "planned"
    ] * 2
    told = [item for item in events(real["err"]) if item["event"] not in ("print", "note")]
    assert [item["event"] for item in told] == ["start", "data_set", "card", "data_set", "end"] or [
        item["event"] for item in told
    ] == ["start", "data_set", "data_set", "card", "end"]
    assert {(item["id"], item["state"], item["level"]) for item in told if "state" in item} == {
        ("org/colours", "embedded", "info"),
        ("owner/a", "committed", "info"),
        ("org/damaged", "failed", "error"),
    }
    assert told[-1]["n_failed"] == 1
    assert told[0]["filters"] == ["image-classification"]
    assert json.loads(real["out"])["schema"] == "t2v-enrich/1"


def test_a_defect_is_a_line_and_so_is_a_line_without_an_end(capsys):
    """A traceback of thirty lines is thirty records of nothing to a collector."""
    with pytest.raises(typer.Exit) as caught, session(as_json=False, quiet=False, log=JsonLog("embed")):
        sys.stderr.write("half a line")
        raise ZeroDivisionError("of nobody's making")

    assert caught.value.exit_code == 1
    error, half = events(capsys.readouterr().err)
    assert (error["event"], error["type"], error["message"]) == (
        "error",
        "ZeroDivisionError",
        "of nobody's making",
    )
    assert "test_cli_log.py" in error["traceback"]
    assert (half["event"], half["text"]) == ("print", "half a line")


@pytest.mark.parametrize("error", [typer.Exit(7), typer.BadParameter("no"), BrokenPipeError(32, "gone")])
def test_what_is_no_defect_passes(capsys, error):
    """A command that ends with a code has said why, usage is shown, and a closed pipe is nobody's fault."""
    with pytest.raises(type(error)) as caught, session(as_json=False, quiet=False, log=JsonLog("embed")):
        raise error

    assert caught.value is error
    assert capsys.readouterr().err == ""
