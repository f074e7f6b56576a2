"""``t2v rank``, ``t2v compare`` and ``t2v catalog`` on stored embeddings; no torch, no images."""

import json
import math

import numpy as np
import pytest
from cli_data import t2v, t2v_json
from factories import make_catalog, make_embedding, make_space

from t2v_hub.catalog import Candidate, Catalog
from t2v_hub.distance import distance_standard_error, pairwise
from t2v_hub.embedding import TaskEmbedding
from t2v_hub.selector import ModelSelector

TARGET = make_embedding(seed=1, task="photos", n_groups=8)


@pytest.fixture
def task(tmp_path):
    return TARGET.save(tmp_path / "photos.safetensors")


@pytest.fixture
def catalog(tmp_path):
    return make_catalog(
        tmp_path / "catalog",
        [
            Candidate(
                f"org/{name}",
                library=library,
                parameters=size,
                licence=licence,
                embeddings=[make_embedding(seed=seed, task=name, n_groups=8)],
            )
            for seed, (name, library, size, licence) in enumerate(
                [("birds", "timm", 11_000_000, "mit"), ("leaves", "transformers", 86_000_000, "apache-2.0")],
                2,
            )
        ]
        + [Candidate("org/unknown")],
    )


def test_rank_prints_the_ranking(task, catalog):
    """The same table as in Python."""
    result = t2v("rank", task, "--catalog", catalog.path)

    assert result.exit_code == 0
    assert result.stdout.rstrip("\n") == str(ModelSelector(catalog).rank(TARGET))
    assert result.stderr == ""


def test_rank_as_json_is_the_rankings_own_dictionary(task, catalog):
    """One schema for both doors."""
    ranking = ModelSelector(catalog, distance="symmetric").rank(TARGET, top_k=1)

    assert t2v_json("rank", task, "--catalog", catalog.path, "-k", 1, "--distance", "symmetric") == (
        ranking.to_dict()
    )


def test_rank_goes_by_the_relative_distance_unless_told_otherwise(task, catalog):
    """The paper's own is there by name."""
    rank = ("rank", task, "--catalog", catalog.path)
    plain, relative, asymmetric = (
        t2v_json(*rank, *choice) for choice in ((), ("--distance", "relative"), ("--distance", "asymmetric"))
    )

    assert plain == relative
    assert (plain["distance"], asymmetric["distance"]) == ("relative", "asymmetric")
    assert asymmetric == ModelSelector(catalog, distance="asymmetric").rank(TARGET).to_dict()
    assert asymmetric["candidates"][0]["distance"] != plain["candidates"][0]["distance"]
    words = " ".join(t2v("rank", "--help").stdout.replace("│", " ").split())
    assert "symmetric favours none. Default: relative." in words


def test_rank_where(task, catalog):
    """All conditions must hold."""
    values = t2v_json(
        "rank", task, "--catalog", catalog.path, "--where", "parameters<=30M", "--where", "licence=mit"
    )

    assert [item["id"] for item in values["candidates"]] == ["org/birds"]
    assert values["n_filtered"] == 2


def test_rank_explains_a_place_and_draws(task, catalog, tmp_path):
    """A number in the table is not yet a reason."""
    ranking = ModelSelector(catalog).rank(TARGET)
    picture = tmp_path / "ranking.png"

    result = t2v("rank", task, "--catalog", catalog.path, "--explain", 2, "--png", picture)
    values = t2v_json("rank", task, "--catalog", catalog.path, "--explain", 2, "--png", picture)

    assert ranking.explain(1) in result.stdout
    assert values["explanation"] == {"rank": 2, "text": ranking.explain(1)}
    assert values["picture"] == str(picture)
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "type_", "message"),
    [
        (["--explain", "4"], "SettingsError", "there are 3 ranked candidates to explain; give 1 to 3"),
        (["--where", "colour=red"], "SettingsError", "error: --where: a candidate has no field 'colour'"),
        (["--where", "size<=3M"], "SettingsError", "a candidate has no field 'size'"),
        (["--where", "licence=gpl", "--explain", "1"], "SettingsError", "no candidate is left to explain"),
        (["--split", "test"], "SettingsError", "an embedding already; --split cannot change"),
        (["--data-revision", "a"], "SettingsError", "an embedding already; --data-revision cannot"),
        (["--max-samples", "9", "--no-cache"], "SettingsError", "already; --max-samples, --no-cache cannot"),
        (["--catalog", "nowhere"], "CatalogFileError", "There is no catalog in"),
    ],
)
def test_an_error_is_named_on_stderr_and_in_the_json(task, catalog, arguments, type_, message):
    """A person reads the line, a program the object; neither gets a traceback."""
    result = t2v("rank", task, "--catalog", catalog.path, *arguments)
    as_json = t2v("rank", task, "--catalog", catalog.path, *arguments, "--json")

    assert result.exit_code == as_json.exit_code == (2 if type_ == "SettingsError" else 1)
    assert result.stdout == ""
    assert "error: " in result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    error = json.loads(as_json.stdout)["error"]
    assert error["type"] == type_
    assert as_json.stderr == result.stderr
    assert result.stderr.endswith(f"error: {error['message']}\n")


def test_a_damaged_task_is_an_error(tmp_path, catalog):
    """The file may have been cut short on its way."""
    (tmp_path / "bad.safetensors").write_bytes(b"no")

    result = t2v("rank", tmp_path / "bad.safetensors", "--catalog", catalog.path)

    assert result.exit_code == 1
    assert "is not a usable embedding file" in result.stderr


def test_compare_as_json(tmp_path, task):
    """Direction, names and errors are what a program needs to know."""
    other = make_embedding(seed=5, task="leaves", n_groups=8)
    files = [task, other.save(tmp_path / "leaves.safetensors")]

    values = t2v_json("compare", *files, "--distance", "asymmetric")

    assert values["names"] == ["photos", "leaves"]
    assert values["files"] == [str(file) for file in files]
    assert values["matrix"] == pairwise([TARGET, other], name="asymmetric").tolist()
    assert values["standard_errors"][0][1] == distance_standard_error(TARGET, other, name="asymmetric")
    assert values["standard_errors"][1][0] == distance_standard_error(other, TARGET, name="asymmetric")
    assert list(values) == [
        "distance",
        "space",
        "probe",
        "names",
        "files",
        "matrix",
        "standard_errors",
        "picture",
    ]


def test_compare_knows_no_infinite_number_in_json(tmp_path, task):
    """A divergence may be infinite, which JSON cannot say."""
    zero = make_embedding([0.0, *np.ones(11)], task="zero").save(tmp_path / "zero.safetensors")

    assert t2v_json("compare", task, zero, "--distance", "kl")["matrix"][0][1] is None


def test_compare_prints_distances_with_their_errors(tmp_path, task, monkeypatch):
    """In a narrow window the errors give way, then the columns go below each other."""
    files = [
        make_embedding(seed=i, task=f"task{i}", n_groups=8).save(tmp_path / f"{i}.safetensors")
        for i in (3, 4)
    ]

    wide = t2v("compare", task, *files).stdout
    monkeypatch.setenv("COLUMNS", "40")
    narrow = t2v("compare", task, *files).stdout
    monkeypatch.setenv("COLUMNS", "24")
    narrowest = t2v("compare", task, *files).stdout

    error = distance_standard_error(TARGET, TaskEmbedding.load(files[0]))
    assert f"± {error:.3f}" in wide
    assert "±" not in narrow
    assert "standard errors do not fit" in " ".join(narrow.split())
    assert narrow.count("task4") == 1
    assert narrowest.count("task4") == 2


def test_compare_draws(tmp_path, task):
    """For a page or a slide."""
    other = make_embedding(seed=5).save(tmp_path / "other.safetensors")

    result = t2v("compare", task, other, "--png", tmp_path / "matrix.png")

    assert "Picture written to" in result.stdout
    assert (tmp_path / "matrix.png").read_bytes().startswith(b"\x89PNG")


def test_compare_tells_equal_names_apart(tmp_path, task):
    """Two files of one task are compared to see how repeatable it is."""
    again = make_embedding(seed=9, task="photos").save(tmp_path / "again.safetensors")

    assert t2v_json("compare", task, again)["names"] == [
        "photos (photos.safetensors)",
        "photos (again.safetensors)",
    ]


def test_compare_refuses_embeddings_of_different_spaces(tmp_path, task):
    """Their numbers mean different things."""
    other = make_embedding(seed=5, space=make_space(12, probe="other", probe_digest="sha256:0"))

    result = t2v("compare", task, other.save(tmp_path / "other.safetensors"))

    assert result.exit_code == 1
    assert "error: Cannot compare embeddings of different spaces: probe" in result.stderr


def test_catalog_add_list_show_remove(tmp_path, task):
    """The life of a candidate, without a look at the Hub."""
    folder = tmp_path / "new"
    at = ("--catalog", folder)
    facts = "--library timm --parameters 86M --license mit --upstream-accuracy 0.8 --likes 2 --not-gated"

    added = t2v_json("catalog", "add", "hf-hub:org/vit", *at, "--embedding", task, *facts.split())
    updated = t2v_json("catalog", "add", "org/vit", *at, "--downloads", 7, "--revision", "abc")
    listed = t2v_json("catalog", "list", *at)
    shown = t2v_json("catalog", "show", "org/vit", *at)
    removed = t2v_json("catalog", "remove", "org/vit", *at)

    record = {"task": "photos", "space": TARGET.space.id, "digest": TARGET.digest}
    assert (added["updated"], updated["updated"]) == (False, True)
    assert updated["candidate"] == {
        "id": "org/vit",
        "revision": "abc",
        "library": "timm",
        "source": "photos",
        "embeddings": [record],
        "parameters": 86_000_000,
        "licence": "mit",
        "downloads": 7,
        "likes": 2,
        "gated": False,
        "upstream_accuracy": 0.8,
    }
    assert listed["candidates"] == [updated["candidate"]]
    assert listed["spaces"] == [
        {"id": TARGET.space.id, "probe": TARGET.space.probe, "n_filters": 12, "n_candidates": 1}
    ]
    (embedding,) = shown["candidate"]["embeddings"]
    assert (embedding["task"], embedding["norm"]) == ("photos", TARGET.norm)
    assert removed == {"catalog": str(folder), "removed": "org/vit", "n_candidates": 0}
    assert len(Catalog.load(folder)) == 0


def test_the_catalog_in_words(tmp_path, task, catalog):
    """Unknown facts are dashes where facts stand in columns, and left out where they do not."""
    at = ("--catalog", catalog.path)

    added = t2v("catalog", "add", "org/new", *at)
    listed = t2v("catalog", "list", *at).stdout
    shown = t2v("catalog", "show", "org/birds", *at).stdout
    removed = t2v("catalog", "remove", "org/new", *at).stdout

    assert added.stdout.splitlines()[0] == f"Added org/new to {catalog.path}, which has 4 candidates now"
    assert "org/new is no folder here; taken as a repository on the Hub" in added.stderr
    assert "It has no embedding, so it is ranked last" in added.stderr
    assert listed.startswith(f"4 candidates in {catalog.path}\nspace ")
    assert "org/leaves   transformers" in listed
    assert "86,000,000" in listed
    assert "upstream accuracy" in listed
    assert shown.startswith(f"org/birds in {catalog.path}\n")
    assert "upstream accuracy" in shown
    assert "trained on" in shown
    assert "11,000,000" in shown
    assert removed == f"Removed org/new from {catalog.path}, which has 3 candidates now\n"


def test_a_name_of_timms_is_a_candidate(catalog):
    """`load` knows it too, so it need not be written as the repository."""
    added = t2v_json("catalog", "add", "resnet18.a1_in1k", "--catalog", catalog.path)

    assert (added["candidate"]["id"], added["candidate"]["library"]) == ("resnet18.a1_in1k", "timm")


def test_an_empty_catalog_says_how_to_add(tmp_path, monkeypatch):
    """Its path is whole, whatever was typed."""
    monkeypatch.chdir(tmp_path)
    make_catalog(tmp_path / "catalog", [Candidate("org/a")]).remove("org/a")
    (tmp_path / "link").symlink_to(tmp_path / "catalog")

    result = t2v("catalog", "list", "--catalog", "link/../link")

    assert result.stdout == f"0 candidates in {tmp_path / 'catalog'}\n"
    assert "Add one with `t2v catalog add CHECKPOINT --data DATA`" in result.stderr


@pytest.mark.parametrize(
    ("where", "known"),
    [
        (["licence=apache"], "licence is mit (1), apache-2.0 (1); not known of 1."),
        (["parameters<=1M"], "parameters lies between 11,000,000 and 86,000,000; not known of 1."),
        (["likes>=3"], "likes is not known of any candidate."),
        (["library=timm", "licence=apache-2.0"], "library is timm (1), transformers (1); not known of 1."),
    ],
)
def test_conditions_that_no_candidate_meets(task, catalog, where, known):
    """An empty ranking does not say that the licence was misspelt."""
    result = t2v("rank", task, "--catalog", catalog.path, *(part for x in where for part in ("--where", x)))

    assert result.exit_code == 0
    assert result.stderr.startswith(f"warning: No candidate meets {' and '.join(where)}. ")
    assert known in result.stderr


def test_an_embedding_of_another_space_is_said_to_be_one(tmp_path, catalog):
    """It would silently stand last in every ranking."""
    other = make_embedding(seed=5, space=make_space(12, probe="other", probe_digest="sha256:0"))
    at = ("--catalog", catalog.path)

    beside = t2v("catalog", "add", "org/a", *at, "--embedding", other.save(tmp_path / "a.safetensors"))
    alike = t2v("catalog", "add", "org/b", *at, "--embedding", TARGET.save(tmp_path / "b.safetensors"))
    first = t2v(
        "catalog", "add", "org/b", "--catalog", tmp_path / "new", "--embedding", tmp_path / "b.safetensors"
    )

    assert (
        f"This opens another space, {other.space.id}: org/a will not rank beside the other" in beside.stderr
    )
    assert "probe 'other' against" in beside.stderr
    assert "another space" not in alike.stderr + first.stderr


def test_quiet_leaves_out_messages(catalog):
    """In a script they are noise."""
    assert t2v("catalog", "add", "org/new", "--catalog", catalog.path, "--quiet").stderr == ""


def test_a_damaged_embedding_does_not_hide_the_others(catalog):
    """One bad file is named, and the rest is shown."""
    digest = TARGET.digest
    catalog.add(Candidate("org/birds"), embedding=TARGET)
    file = catalog.path / "embeddings" / f"{digest.removeprefix('sha256:')}.safetensors"
    file.write_bytes(file.read_bytes()[:-4])

    result = t2v("catalog", "show", "org/birds", "--catalog", catalog.path, "--json")

    shown = json.loads(result.stdout)["candidate"]
    assert result.exit_code == 0
    assert [item["task"] for item in shown["embeddings"]] == ["birds"]
    assert len(shown["damaged"]) == 1
    assert result.stderr.startswith("warning: ")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["show", "org/bird"], 1, "has no candidate 'org/bird' among its 3. Similar: org/birds"),
        (["remove", "org/x"], 1, "has no candidate 'org/x'"),
        (["add", "no such/thing/here"], 1, "is no folder here and no name of a repository. Wanted a folder"),
        (["add", "no-such-ckpt"], 1, "is no folder here and no network that timm has weights for. Wanted"),
        (["add", "./no-such"], 1, "error: No such file or folder: './no-such'. Check the path; wanted"),
        (["add", "gone.safetensors"], 1, "No such file or folder: 'gone.safetensors'"),
        (["add", "resnet18", "--library", "transformers"], 2, "is a timm checkpoint, not one of"),
        (["add", "org/a", "--max-samples", "9"], 2, "go with --data, and there is none"),
        (["add", "org/a", "--head-strength", "-1"], 2, "--head-strength must be a finite number > 0"),
        (["add", "org/a", "--parameters", "many"], 2, "parameters: 'many' is no number"),
        (["add", "org/a", "--embedding", "gone.safetensors"], 1, "There is no embedding file"),
    ],
)
def test_what_cannot_be_done_with_a_catalog(catalog, arguments, code, message):
    """Nothing is written then."""
    before = (catalog.path / "candidates.parquet").read_bytes()

    result = t2v("catalog", *arguments, "--catalog", catalog.path)

    assert result.exit_code == code
    assert message in result.stderr
    assert (catalog.path / "candidates.parquet").read_bytes() == before


def test_numbers_that_are_not_known_are_null(tmp_path):
    """NaN is no JSON."""
    embedding = make_embedding(seed=3)
    catalog = make_catalog(tmp_path, [Candidate("org/a", embeddings=[embedding])])

    (shown,) = t2v_json("catalog", "show", "org/a", "--catalog", catalog.path)["candidate"]["embeddings"]

    assert math.isnan(embedding.standard_error)
    assert shown["standard_error"] is None
