"""``t2v diversity`` on stored embeddings; no torch, no images."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from cli_data import t2v, t2v_json
from factories import make_embedding, make_space

from t2v_hub import cross_diversity, diversity, readiness


def plain(result):
    """As JSON has it, which knows no tuples."""
    return json.loads(json.dumps(asdict(result)))


@pytest.fixture
def tasks():
    return [make_embedding(seed=i, task=f"task{i}") for i in range(6)]


@pytest.fixture
def folder(tmp_path, tasks):
    for task in tasks:
        task.save(tmp_path / "mine" / f"{task.task.id}.safetensors")
    return tmp_path / "mine"


@pytest.fixture
def others(tmp_path):
    found = [make_embedding(seed=i, task=f"other{i}") for i in range(10, 14)]
    return found, [task.save(tmp_path / f"{task.task.id}.safetensors") for task in found]


def test_diversity_of_a_folder_as_json(folder, tasks):
    """The numbers are the library's own."""
    values = t2v_json("diversity", folder)

    assert list(values) == ["distance", "space", "probe", "collections", "cross_diversity"]
    (collection,) = values["collections"]
    assert collection["names"] == [task.task.id for task in tasks]
    assert collection["files"] == [str(folder / f"{task.task.id}.safetensors") for task in tasks]
    assert collection["diversity"] == plain(diversity(tasks))
    assert collection["readiness"] == plain(readiness(tasks))
    assert collection["skipped"] == []
    assert values["cross_diversity"] is None
    assert values["distance"] == "symmetric"


def test_against_takes_every_file_that_follows(folder, tasks, others):
    """A shell turns a pattern into many words; those after the first must not join the other side."""
    embeddings, files = others

    values = t2v_json("diversity", folder, "--against", *files, "--distance", "asymmetric")

    assert [len(item["files"]) for item in values["collections"]] == [6, 4]
    assert values["cross_diversity"] == plain(cross_diversity(tasks, embeddings, distance="asymmetric"))
    assert values["collections"][1]["diversity"] == plain(diversity(embeddings, distance="asymmetric"))


def test_against_ends_at_the_next_option(tmp_path, folder, others):
    """Repeated, it goes on; what it takes leaves nothing for the first collection."""
    _, files = others

    repeated = t2v_json("diversity", folder, "--against", files[0], "--against", *files[1:3])
    result = t2v("diversity", "--against", folder, *files)

    assert len(repeated["collections"][1]["files"]) == 3
    assert result.exit_code == 2
    assert "Missing argument" in result.stderr


def test_diversity_as_text(folder, tasks, others):
    """A table of both collections, and of what lies between them."""
    embeddings, files = others
    mine, across = diversity(tasks), cross_diversity(tasks, embeddings)

    alone = t2v("diversity", folder).stdout
    both = t2v("diversity", folder, "--against", *files).stdout

    low, high = mine.interval
    row = f"{mine.value:.3f} {mine.standard_error:.3f} {low:.3f} to {high:.3f}"
    assert f"diversity {row}" in " ".join(alone.split())
    assert f"6 tasks ({folder})" in alone
    assert f"cohesion {readiness(tasks).cohesion:.3g}" in " ".join(alone.split())
    assert f"diversity A {row}" in " ".join(both.split())
    assert f"cross-diversity {across.value:.3f} {across.standard_error:.3f}" in " ".join(both.split())
    assert "B: 4 tasks" in both
    assert "density B" in both


def test_one_task_against_many(folder, others):
    """How far a new task lies from those that there are; alone it has no diversity."""
    _, files = others

    values = t2v_json("diversity", files[0], "--against", folder)
    text = t2v("diversity", files[0], "--against", folder).stdout

    assert values["collections"][0]["diversity"] is None
    assert values["collections"][0]["readiness"] is None
    assert values["cross_diversity"]["interval"] is None
    assert values["cross_diversity"]["n"] == [1, 6]
    assert "A: 1 task (" in text
    assert "diversity A – – –" in " ".join(text.split())


def test_a_bad_file_in_a_folder_is_left_out_and_named(folder):
    """One bad item never ends a run over many; a file that was given by name must be readable."""
    bad = folder / "bad.safetensors"
    bad.write_bytes(b"junk")

    by_folder = t2v("diversity", folder)
    values = t2v_json("diversity", folder)
    by_name = t2v("diversity", folder / "task0.safetensors", bad)

    assert by_folder.exit_code == 0
    assert "6 tasks" in by_folder.stdout
    assert ", 1 left out" in by_folder.stdout
    assert "warning: left out: " in by_folder.stderr
    assert "bad.safetensors' is not a usable embedding file" in values["collections"][0]["skipped"][0]
    assert by_name.exit_code == 1
    assert "is not a usable embedding file" in by_name.stderr


def test_what_has_no_diversity_is_an_error(tmp_path, folder):
    """Each says what to do."""
    (tmp_path / "empty").mkdir()
    elsewhere = make_embedding(seed=9, space=make_space(12, probe_digest="sha256:0"))
    zero = make_embedding([0.0, *np.ones(11)])
    alone = folder / "task0.safetensors"

    empty = t2v("diversity", tmp_path / "empty")
    single = t2v("diversity", alone)
    mixed = t2v("diversity", alone, elsewhere.save(tmp_path / "elsewhere.safetensors"))
    across = t2v("diversity", folder, "--against", tmp_path / "elsewhere.safetensors")
    infinite = t2v("diversity", alone, zero.save(tmp_path / "zero.safetensors"), "--distance", "kl")
    absent = t2v("diversity", tmp_path / "absent.safetensors")

    assert (empty.exit_code, single.exit_code, mixed.exit_code, infinite.exit_code) == (1, 2, 1, 2)
    assert "There is no embedding in the folder" in empty.stderr
    assert "`t2v embed` wrote" in empty.stderr
    assert "needs the embeddings of two tasks or more, and got 1" in single.stderr
    assert "Cannot compare embeddings of different spaces" in mixed.stderr
    assert "Cannot compare embeddings of different spaces" in across.stderr
    assert "2 of the distances 'kl' are infinite" in infinite.stderr
    assert "There is no embedding file" in absent.stderr
