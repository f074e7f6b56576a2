"""Slips that must cost neither a file nor an hour: wrong paths, files that exist, an interrupt."""

import pytest
from cli_data import SIZE, t2v, t2v_json
from factories import make_embedding

import t2v_hub.cli.measuring
from t2v_hub.catalog import Catalog
from t2v_hub.embedding import TaskEmbedding
from t2v_hub.task2vec import Task2Vec


@pytest.fixture
def no_measuring(monkeypatch):
    """Measuring is an error of the test."""

    def embed(*_, **__):
        raise AssertionError("it was measured")

    monkeypatch.setattr(Task2Vec, "embed", embed)


@pytest.fixture
def no_loading(monkeypatch):
    """Loading a probe is an error of the test."""

    def load(*_, **__):
        raise AssertionError("a probe was loaded")

    monkeypatch.setattr("t2v_hub.probe.ProbeNetwork.load", load)


def another_task(path):
    make_embedding(seed=1, task="plants").save(path)


def another_space(path):
    make_embedding(seed=1, task="pets").save(path)


def no_embedding(path):
    path.write_text("a letter to my aunt")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (
            another_task,
            "holds the embedding of another task, 'plants' instead of 'pets'. Pass another -o, or",
        ),
        (another_space, "holds the embedding of 'pets' in another space (probe"),
        (
            no_embedding,
            "is there already and is no embedding that can be read. Pass another -o, or --overwrite",
        ),
    ],
)
@pytest.mark.usefixtures("no_measuring")
def test_another_file_is_not_replaced(tmp_path, pets, probe, write, message):
    """It may have taken an hour, or be somebody's letter."""
    path = tmp_path / "a.safetensors"
    write(path)
    before = path.read_bytes()

    result = t2v("embed", pets, "-o", path, "--probe", probe, *SIZE)

    assert result.exit_code == 1
    assert message in result.stderr
    assert path.read_bytes() == before


def test_the_same_task_is_measured_again_and_others_by_overwrite(tmp_path, pets, probe):
    """Whoever types a command twice means it."""
    path = tmp_path / "a.safetensors"
    another_task(path)

    t2v_json("embed", pets, "-o", path, "--probe", probe, *SIZE, "--overwrite")
    t2v_json("embed", pets, "-o", path, "--probe", probe, *SIZE, "--max-samples", 18)

    assert TaskEmbedding.load(path).task.id == "pets"
    assert TaskEmbedding.load(path).measurement.n_samples == 18


@pytest.mark.usefixtures("no_loading")
def test_the_folder_of_the_output_must_exist(tmp_path, pets):
    """A mistyped folder would be made, and the file not found again."""
    missing = t2v("embed", pets, "-o", tmp_path / "otu" / "a.safetensors")
    (tmp_path / "file").write_text("")
    wrong = t2v("embed", pets, tmp_path, "-o", tmp_path / "file" / "out")

    assert missing.exit_code == wrong.exit_code == 1
    assert f"the folder {str(tmp_path / 'otu')!r} does not exist. Make it first" in missing.stderr
    assert f"the folder {str(tmp_path / 'file')!r} is no folder" in wrong.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["./no-such"], 1, "error: No such file or folder: './no-such'."),
        (["no-such.parquet"], 1, "error: No such file or folder: 'no-such.parquet'."),
        (["PETS", "--probe", "../no-such"], 1, "error: No such file or folder: '../no-such'."),
        (["PETS", "--probe", "no-such.json"], 1, "error: No such file or folder: 'no-such.json'."),
        (
            ["PETS", "--split", "tset"],
            1,
            "There is no split 'tset'; there are 'train'. Name one with --split.",
        ),
        (["PETS", "--label-column", "lable"], 1, "There is no column 'lable' (--label-column)."),
        (["./a", "./b"], 1, "2 of 2 data sets could not be embedded: ./a, ./b."),
        (["PETS", "--head-strength", "-1"], 2, "--head-strength must be a finite number > 0"),
    ],
)
@pytest.mark.usefixtures("no_loading")
def test_slips_are_named_before_the_probe_is_loaded(pets, arguments, code, message):
    """Without a network the probe would be blamed, with one the slip shows after minutes."""
    result = t2v("embed", *(pets if part == "PETS" else part for part in arguments))

    assert result.exit_code == code
    assert message in result.stderr


@pytest.mark.usefixtures("no_loading")
def test_rank_and_add_name_a_wrong_path_before_the_probe_is_loaded(tmp_path):
    """They measure as `t2v embed` does."""
    at = ("--catalog", tmp_path / "catalog")
    embedding = make_embedding(seed=1).save(tmp_path / "a.safetensors")
    t2v_json("catalog", "add", "org/a", *at, "--embedding", embedding)

    for result in (
        t2v("rank", "./no-such", *at),
        t2v("catalog", "add", "org/b", *at, "--data", "./no-such"),
        t2v("catalog", "add", "org/b", *at, "--data", "./no-such", *SIZE),
    ):
        assert result.exit_code == 1
        assert "error: No such file or folder: './no-such'." in result.stderr


def test_an_option_of_the_space_keeps_the_catalogs_probe(tmp_path, pets, probe):
    """The default probe, from the Hub, has nothing to do with this catalog."""
    at = ("--catalog", tmp_path / "catalog")
    settings = (*SIZE, "--head", "entropy")
    t2v_json("catalog", "add", "org/a", *at, "--data", pets, "--probe", probe, *settings)

    same = t2v("catalog", "add", "org/d", *at, "--data", pets, *settings)
    other = t2v("catalog", "add", "org/b", *at, "--data", pets, "--image-size", 48, "--head-strength", 3)
    layers = t2v("catalog", "add", "org/c", *at, "--data", pets, "--filters", "*.embedder.*")

    assert (other.exit_code, layers.exit_code, same.exit_code) == (0, 0, 0)
    first, second, third = (Catalog.load(tmp_path / "catalog")[f"org/{name}"].embeddings[0] for name in "abc")
    assert first.space.probe_digest == second.space.probe_digest == third.space.probe_digest
    assert second.space.preprocessing["size"] == [48, 48]
    assert (second.space.head["kind"], second.space.head["strength"]) == ("entropy", 3.0)
    assert third.space.preprocessing == first.space.preprocessing
    assert len(third.space.layers) < len(first.space.layers)
    note = f"This opens another space, {second.space.id}: org/b will not rank beside the other candidates"
    assert note in other.stderr
    assert f"This opens another space, {third.space.id}" in layers.stderr
    assert "another space" not in same.stderr


def test_the_tolerance_reaches_the_measurement(tmp_path, pets, probe):
    """And stands in the receipt, since it says why fewer images were measured."""
    path = tmp_path / "a.safetensors"

    values = t2v_json("embed", pets, "-o", path, "--probe", probe, *SIZE, "--tolerance", 0.25)

    assert TaskEmbedding.load(path).measurement.tolerance == 0.25
    assert values["embeddings"][0]["tolerance"] == 0.25


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            [],
            "blocks of images that were finished are kept in {home}/embeddings, and the same command goes on",
        ),
        (["--no-cache"], "no blocks of images are kept (--no-cache), so the same command starts anew."),
    ],
)
def test_an_interrupt_says_what_is_kept(tmp_path, pets, probe, monkeypatch, flags, words):
    """Only blocks are, and only with a cache."""
    monkeypatch.setenv("T2V_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(Task2Vec, "embed", interrupted)

    result = t2v("embed", pets, "-o", tmp_path / "a.safetensors", "--probe", probe, *SIZE, *flags)

    assert result.exit_code == 130
    assert f"interrupted: {words.format(home=tmp_path / 'home')}" in result.stderr


def test_an_interrupt_of_what_measures_nothing_promises_nothing(tmp_path, monkeypatch):
    """There are no blocks of a list."""
    monkeypatch.setattr(Catalog, "load", interrupted)

    result = t2v("catalog", "list", "--catalog", tmp_path)

    assert result.exit_code == 130
    assert result.stderr == "interrupted: the command did not finish.\n"


def interrupted(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize("text", ["org/name", "beans", "resnet18.a1_in1k", "hf://data/a.parquet"])
def test_names_of_the_hub_are_no_absent_paths(text):
    """Only what can be nothing but a path may be refused unseen."""
    assert not t2v_hub.cli.measuring.absent(text)
