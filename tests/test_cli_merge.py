"""``t2v catalog merge``: what is taken over, whose word counts, and what a kill leaves behind."""

import json
import os
from pathlib import Path

import pytest
from cli_data import t2v, t2v_json
from factories import make_embedding

from t2v_hub.catalog import Candidate, Catalog, MergeConflict, Result, merge_catalogs
from t2v_hub.errors import CatalogFileError

PETS, LEAVES, OTHER_PETS = (
    make_embedding(seed=n, task=t) for n, t in ((1, "pets"), (2, "leaves"), (3, "pets"))
)


def catalog(path, *candidates, results=(), embeddings=()):
    made = Catalog(path)
    made.extend(candidates)
    made.record_many(results, embeddings=embeddings)
    return made


@pytest.fixture
def two(tmp_path):
    """Two catalogs that agree on some, and contradict each other on some."""
    here = catalog(
        tmp_path / "here",
        Candidate("org/a", likes=1, licence="mit", embeddings=[PETS]),
        Candidate("org/b", downloads=5),
        Candidate("org/r", revision="1" * 40, likes=3),
        results=[
            Result("pets", "org/a", 0.1, n=5, embedding=PETS.digest),
            Result("pets", "org/b", 0.2),
            Result("x", "org/b", 0.5, n_test=9),
        ],
        embeddings=[PETS],
    )
    there = catalog(
        tmp_path / "there",
        Candidate("org/a", likes=2, downloads=7, embeddings=[OTHER_PETS, LEAVES]),
        Candidate("org/b", downloads=5),
        Candidate("org/c", embeddings=[LEAVES]),
        Candidate("org/r", revision="2" * 40),
        results=[
            Result("pets", "org/a", 0.3, n=5, embedding=OTHER_PETS.digest),
            Result("pets", "org/b", 0.2),
            Result("x", "org/b", 0.5),
            Result("leaves", "org/c", 0.4, embedding=LEAVES.digest),
        ],
        embeddings=[OTHER_PETS, LEAVES],
    )
    return here, there


def facts(place):
    """All that a catalog holds, as it is on disk."""
    found = Catalog.load(place.path)
    return {item.id: (item, [e.digest for e in item.embeddings]) for item in found}, found.results(
        origin=None
    )


def bytes_of(place):
    """Its files, but for locks."""
    return {
        path: path.read_bytes()
        for path in place.path.rglob("*")
        if path.is_file() and ".lock" not in path.name
    }


def merge(here, *others, **more):
    flags = [part for item in more.items() for part in item]
    return t2v("catalog", "merge", *(one.path for one in others), "--catalog", here.path, *flags, "--json")


def test_what_one_side_knows_is_kept_and_the_other_ones_word_counts(two):
    """As `t2v catalog add` has it: what comes later is what is meant."""
    here, there = two

    values = t2v_json("catalog", "merge", there.path, "--catalog", here.path)

    candidates, results = facts(here)
    a, digests = candidates["org/a"]
    assert (a.likes, a.downloads, a.licence) == (2, 7, "mit")
    assert set(digests) == {OTHER_PETS.digest, LEAVES.digest}
    assert (candidates["org/r"][0].revision, candidates["org/r"][0].likes) == ("2" * 40, 3)
    assert candidates["org/c"][1] == [LEAVES.digest]
    assert [(r.task, r.checkpoint, r.error, r.n_test) for r in results] == [
        ("leaves", "org/c", 0.4, None), ("pets", "org/a", 0.3, None), ("pets", "org/b", 0.2, None),
        ("x", "org/b", 0.5, 9),
    ]  # fmt: skip
    names = ("n_added", "n_changed", "n_same", "n_embeddings", "n_results_added", "n_results_changed")
    assert [values[name] for name in names] == [1, 2, 1, 3, 1, 1]
    assert values["n_results_same"] == 2
    assert [(c["about"], c["what"], c["here"], c["there"], c["kept"]) for c in values["conflicts"]] == [
        ("org/a", "likes", "1", "2", "other"),
        ("org/a", "embedding of pets", PETS.digest[:19], OTHER_PETS.digest[:19], "other"),
        ("org/r", "revision", "1" * 40, "2" * 40, "other"),
        ("org/a on pets, n=5", "error", "0.1", "0.3", "other"),
        ("org/a on pets, n=5", "embedding", PETS.digest[:19], OTHER_PETS.digest[:19], "other"),
    ]
    names = {path.name.removesuffix(".safetensors") for path in (here.path / "embeddings").iterdir()}
    assert names == {item.digest.removeprefix("sha256:") for item in (OTHER_PETS, LEAVES)}


def test_ours_can_count_instead(two):
    """Then the other one only fills gaps, and leaves no file that nothing names."""
    here, there = two

    values = t2v_json("catalog", "merge", there.path, "--catalog", here.path, "--prefer", "here")

    candidates, results = facts(here)
    a, digests = candidates["org/a"]
    assert (a.likes, a.downloads, a.licence) == (1, 7, "mit")
    assert set(digests) == {PETS.digest, LEAVES.digest}
    assert (candidates["org/r"][0].revision, candidates["org/r"][0].likes) == ("1" * 40, 3)
    assert [r.error for r in results if r.checkpoint == "org/a"] == [0.1]
    assert {c["kept"] for c in values["conflicts"]} == {"here"}
    assert len(values["conflicts"]) == 5
    names = {path.name.removesuffix(".safetensors") for path in (here.path / "embeddings").iterdir()}
    assert names == {item.digest.removeprefix("sha256:") for item in (PETS, LEAVES)}


@pytest.mark.parametrize("prefer", ["other", "here"])
def test_merging_again_changes_nothing(two, prefer):
    """So it can be repeated after a kill, or by whoever does not know whether it was done."""
    here, there = two
    t2v_json("catalog", "merge", there.path, "--catalog", here.path, "--prefer", prefer)
    before = bytes_of(here)

    values = t2v_json("catalog", "merge", there.path, "--catalog", here.path, "--prefer", prefer)

    assert bytes_of(here) == before
    zero = ("n_added", "n_changed", "n_embeddings", "n_results_added", "n_results_changed")
    assert [values[name] for name in zero] == [0] * 5
    assert (values["n_same"], values["n_results_same"]) == (4, 4)


@pytest.mark.parametrize("prefer", ["other", "here"])
def test_a_dry_run_says_what_the_real_one_does(two, prefer):
    """And writes nothing."""
    here, there = two
    before = bytes_of(here)
    command = ["catalog", "merge", there.path, "--catalog", here.path, "--prefer", prefer]

    planned = t2v_json(*command, "--dry-run")

    assert bytes_of(here) == before
    done = t2v_json(*command)
    changed = {"dry_run", "n_candidates"}
    assert {k: v for k, v in planned.items() if k not in changed} == {
        k: v for k, v in done.items() if k not in changed
    }
    assert (planned["dry_run"], done["dry_run"]) == (True, False)


def test_several_others_one_after_the_other(tmp_path):
    """Each shard of a job has a catalog; a later one's word counts over an earlier one's."""
    here = tmp_path / "new"
    for number in range(3):
        catalog(tmp_path / f"shard{number}", Candidate(f"org/{number}"), Candidate("org/all", likes=number))

    values = t2v_json("catalog", "merge", *(tmp_path / f"shard{n}" for n in range(3)), "--catalog", here)

    assert [item.id for item in Catalog.load(here)] == ["org/0", "org/1", "org/2", "org/all"]
    assert Catalog.load(here)["org/all"].likes == 2
    assert (values["n_added"], values["n_changed"], values["n_candidates"]) == (4, 2, 4)


def test_what_cannot_be_read_is_named_and_the_rest_is_taken(two):
    """One bad file must not end a merge of thousands; exit code 1 says that something is missing."""
    here, there = two
    name = LEAVES.digest.removeprefix("sha256:")
    (there.path / "embeddings" / f"{name}.safetensors").write_bytes(b"damaged")

    result = merge(here, there)

    values = json.loads(result.stdout)
    assert result.exit_code == 1
    assert [reason.split(":")[0] for reason in values["left_out"]] == [
        "org/a",
        "org/c",
        "a task with results",
    ]
    assert "error: left out: org/a: " in result.stderr
    candidates, results = facts(here)
    assert candidates["org/c"][1] == []
    assert Result("leaves", "org/c", 0.4) in results


def test_a_known_task_is_not_forgotten_for_one_that_cannot_be_read(two):
    """A result whose embedding is lost over there says nothing against the one here."""
    here, there = two
    (there.path / "embeddings" / f"{OTHER_PETS.digest[7:]}.safetensors").unlink()

    merge(here, there)

    [result] = Catalog.load(here.path).results(checkpoint="org/a")
    assert (result.error, result.embedding) == (0.3, PETS.digest)
    assert Catalog.load(here.path).task_embedding(PETS.digest) == PETS


def test_whoever_is_killed_loses_nothing(two, monkeypatch):
    """Between the candidates and the results, and before either; merging again completes it."""
    here, there = two
    before = facts(here)

    class Killed(BaseException):
        pass

    def killed(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("t2v_hub.catalog.catalog.write_index", killed)
        with pytest.raises(Killed):
            merge_catalogs(Catalog(here.path), [there])
    assert facts(here) == before

    with monkeypatch.context() as patch:
        patch.setattr("t2v_hub.catalog.recording.write_results", killed)
        with pytest.raises(Killed):
            merge_catalogs(Catalog(here.path), [there])
    candidates, results = facts(here)
    assert "org/c" in candidates
    assert results == before[1]

    report = merge_catalogs(Catalog(here.path), [there])
    assert (report.n_same, report.n_results_added) == (4, 1)


def test_a_catalog_that_others_write_meanwhile(two, monkeypatch):
    """It is read again under the lock, so nobody's candidate is lost."""
    here, there = two
    stale = Catalog(here.path)
    Catalog(here.path).add(Candidate("org/late"))

    merge_catalogs(stale, [there])

    assert "org/late" in Catalog.load(here.path)
    assert "org/c" in Catalog.load(here.path)


def test_a_stranger_can_neither_write_elsewhere_nor_read_files(two, tmp_path):
    """The digests in the other one's table become names of files."""
    import pyarrow.parquet as pq

    here, there = two
    index = there.path / "candidates.parquet"
    before = set(tmp_path.rglob("*"))
    for digest in ("sha256:../../../victim", "../" * 9 + "etc/passwd", f"sha256:{'0' * 63}/"):
        table = pq.read_table(index)
        rows = table.to_pylist()
        for row in rows:
            for record in row["embeddings"]:
                record["digest"] = digest
        pq.write_table(table.from_pylist(rows, schema=table.schema), index)

        result = merge(here, there)

        assert result.exit_code == 1
        assert "error" in json.loads(result.stdout)
    assert set(tmp_path.rglob("*")) - before <= {there.path / ".lock", here.path / ".lock"}


@pytest.mark.parametrize(
    ("others", "code", "message"),
    [
        (["here"], 2, "cannot be merged into itself; leave it out."),
        (["linked"], 2, "cannot be merged into itself; leave it out."),
        (["there", "there/"], 2, "is given twice; leave one out."),
        (["gone"], 1, "There is no catalog in"),
        ([], 2, "Missing argument 'OTHER"),
    ],
)
def test_wrong_usage_of_merge(two, tmp_path, others, code, message):
    """Nothing is written."""
    here, _ = two
    os.symlink(here.path, tmp_path / "linked")  # noqa: PTH211
    before = bytes_of(here)

    result = t2v("catalog", "merge", *(tmp_path / name for name in others), "--catalog", here.path)

    assert result.exit_code == code
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert bytes_of(here) == before
    assert not (tmp_path / "gone").exists()


def test_a_damaged_catalog_is_named(two, tmp_path):
    """Not half of it is taken."""
    here, there = two
    (there.path / "candidates.parquet").write_bytes(b"PAR1damagedPAR1")

    result = merge(here, there)

    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["type"] == CatalogFileError.__name__


def test_the_words(two):
    """Contradictions are named one a line."""
    here, there = two

    result = t2v("catalog", "merge", there.path, "--catalog", here.path, "--dry-run")

    assert (
        f"Would merge into {here.path}: 1 candidate added, 2 changed, 1 the same; 3 new embeddings"
        in result.stdout
    )
    assert "1 result added, 1 changed, 2 the same" in result.stdout
    assert "5 contradictions, 0 left out" in result.stdout
    assert "warning: org/a: likes 1 here, 2 there; the other one's stays." in result.stderr


def test_the_report_in_python(two):
    """What the command prints."""
    here, there = two

    report = merge_catalogs(here, [there])

    assert report.conflicts[0] == MergeConflict("org/a", "likes", "1", "2", "other")
    assert Path(here.path).is_dir()


def test_a_catalog_that_cannot_be_read_costs_no_other(two, tmp_path):
    """One bad shard of eight; exit code 1 says that something is missing."""
    here, there = two
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "candidates.parquet").write_bytes(b"damaged")

    done = t2v("catalog", "merge", bad, there.path, "--catalog", here.path, "--json")
    alone = t2v("catalog", "merge", bad, "--catalog", here.path)

    assert (done.exit_code, alone.exit_code) == (1, 1)
    assert "org/c" in facts(here)[0]
    [reason] = json.loads(done.stdout)["left_out"]
    assert str(bad) in reason
    assert "cannot be read" in alone.stderr
