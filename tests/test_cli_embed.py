"""``t2v embed`` and what else measures images: real folders, a real (tiny) probe."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from cli_data import SIZE, save_images, save_probe, t2v, t2v_json

from t2v_hub.catalog import Catalog
from t2v_hub.embedding import TaskEmbedding
from t2v_hub.probe import load_checkpoint


@pytest.fixture(scope="module")
def leaves(tmp_path_factory):
    return save_images(tmp_path_factory.mktemp("images") / "leaves", seed=1)


def test_embed_writes_a_file_and_says_what_was_measured(tmp_path, pets, probe):
    """The file is the result, the words are its receipt."""
    path = tmp_path / "pets.safetensors"

    result = t2v("embed", pets, "-o", path, "--probe", probe, *SIZE, "--max-samples", 18, "--seed", 3)

    embedding = TaskEmbedding.load(path)
    assert result.exit_code == 0
    assert (embedding.task.id, embedding.task.n_samples, embedding.measurement.n_samples) == ("pets", 24, 18)
    assert embedding.measurement.seed == 3
    columns = "images from image, labels from label"
    for part in (
        "pets (train)",
        columns,
        "18 of 24 measured",
        embedding.space.id,
        str(path),
        f"{embedding.norm:.4g}",
    ):
        assert part in result.stdout
    assert "loading the probe" in result.stderr


def test_embed_as_json(tmp_path, pets, probe):
    """Only the object is on stdout, with one set of keys for one data set or many."""
    path = tmp_path / "pets.safetensors"

    values = t2v_json("embed", pets, "-o", path, "--probe", probe, *SIZE, "--name", "my pets")

    (found,) = values["embeddings"]
    embedding = TaskEmbedding.load(path)
    assert values["failures"] == []
    assert (found["task"], found["file"], found["digest"]) == ("my pets", str(path), embedding.digest)
    assert (found["n_measured"], found["n_classes"], found["n_filters"]) == (24, 3, embedding.space.n_filters)
    assert found["norm"] == embedding.norm
    assert (found["split"], found["image_column"], found["label_column"]) == ("train", "image", "label")
    assert found["seconds"] > 0


def test_the_options_reach_the_measurement(tmp_path, pets, probe):
    """An option that is dropped on the way would measure something else under its name."""
    options = {
        "--estimator": "exact",
        "--head": "entropy",
        "--head-strength": 3,
        "--filters": 0.5,
        "--sampling": "balanced",
        "--dtype": "float64",
        "--label-column": "label",
        "--split": "train",
    }
    flags = [*(part for item in options.items() for part in item), "--normalisation", "--no-cache"]

    t2v_json("embed", pets, "-o", tmp_path / "a.safetensors", "--probe", probe, *SIZE, *flags)
    t2v_json(
        *("embed", pets, "-o", tmp_path / "b.safetensors", "--probe", probe, *SIZE, "--n-labels", 2),
        *("--filters", "*.encoder.*", "--filters", "*.embedder.*"),
    )

    first, second = (TaskEmbedding.load(tmp_path / f"{name}.safetensors") for name in "ab")
    head = {"kind": "entropy", "strength": 3.0, "entropy": 0.9}
    assert first.measurement.estimator == "exact"
    assert first.measurement.dtype == "float64"
    assert head.items() <= first.space.head.items()
    assert first.space.sampling == {"fisher": "balanced"}
    assert any("normalization" in layer.name for layer in first.space.layers)
    assert second.measurement.n_labels == 2
    assert len(first.space.layers) > 1
    assert second.space.preprocessing["size"] == [32, 32]


def test_several_data_sets_of_which_one_fails(tmp_path, pets, leaves, probe):
    """What can be measured is, and the exit code still says that something is missing."""
    (tmp_path / "empty").mkdir()
    command = ["embed", pets, tmp_path / "empty", leaves, "-o", tmp_path / "out", "--probe", probe, *SIZE]

    result = t2v(*command)
    as_json = t2v(*command, "--json")

    assert result.exit_code == as_json.exit_code == 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"pets.safetensors", "leaves.safetensors"}
    assert "holds no images" in result.stderr
    assert f"error: 1 of 3 data sets could not be embedded: {tmp_path / 'empty'}." in result.stderr
    assert "pets" in result.stdout
    values = json.loads(as_json.stdout)
    assert [item["task"] for item in values["embeddings"]] == ["pets", "leaves"]
    assert [(item["data"], item["type"]) for item in values["failures"]] == [
        (str(tmp_path / "empty"), "DataNotFoundError")
    ]


def test_two_data_sets_of_one_name_do_not_share_a_file(tmp_path, pets, probe, monkeypatch):
    """The second would silently replace the first."""
    monkeypatch.chdir(tmp_path)
    other = save_images(tmp_path / "other" / "pets", seed=4)

    values = t2v_json("embed", pets, other, "--probe", probe, *SIZE, "--split", "train")

    assert [item["file"] for item in values["embeddings"]] == [
        "pets-train.safetensors",
        "pets-train-2.safetensors",
    ]
    assert (tmp_path / "pets-train-2.safetensors").is_file()


def test_a_single_failure_is_an_error_object(tmp_path, probe):
    """As for every other command."""
    folder = save_images(tmp_path / "single", n=1)

    result = t2v("embed", folder, "-o", tmp_path / "a.safetensors", "--probe", probe, *SIZE, "--json", "-q")

    error = json.loads(result.stdout)["error"]
    assert result.exit_code == 1
    assert error["type"] == "ClassSizeError"
    assert result.stderr == f"error: {error['message']}\n"
    assert not (tmp_path / "a.safetensors").exists()


def test_warnings_are_one_line_each_on_stderr(tmp_path, pets, probe):
    """They matter, and must neither hide in a trace of file names nor break the JSON."""
    folder = tmp_path / "pets"
    shutil.copytree(pets, folder)
    (folder / "a" / "0.png").write_bytes(b"no image")

    result = t2v("embed", folder, "-o", tmp_path / "a.safetensors", "--probe", probe, *SIZE, "-q", "--json")

    assert result.exit_code == 0
    assert json.loads(result.stdout)["embeddings"][0]["n_skipped"] == 1
    assert result.stderr.startswith("warning: 1 of 24 images could not be decoded")
    assert len(result.stderr.splitlines()) == 1


def test_a_probe_that_is_none(tmp_path, pets):
    """The commonest slip is a wrong path."""
    result = t2v("embed", pets, "--probe", tmp_path / "gone")

    assert result.exit_code == 1
    assert f"error: No such file or folder: {str(tmp_path / 'gone')!r}" in result.stderr


def test_a_local_checkpoint_is_described_by_its_own_files(tmp_path, probe, embedded):
    """Nobody should count parameters by hand, and no weights need to be loaded for it.

    Means and variances of batch normalisation stand beside them in the file and are none.
    """
    at = ("--catalog", tmp_path / "catalog")

    values = t2v_json("catalog", "add", probe, *at, "--embedding", embedded)["candidate"]
    wrong = t2v("catalog", "add", probe, *at, "--library", "timm")

    network = load_checkpoint(probe)
    assert values["parameters"] == sum(parameter.numel() for parameter in network.parameters())
    assert values["id"] == str(probe)
    assert (values["library"], values["parameters"], values["source"]) == ("transformers", 12_331, "pets")
    assert "is a transformers checkpoint, not one of timm" in wrong.stderr


def test_a_local_candidate_is_found_by_any_path_to_it(tmp_path, probe, monkeypatch):
    """It is kept under its whole path, which nobody wants to type."""
    at = ("--catalog", tmp_path / "catalog")
    t2v_json("catalog", "add", probe, *at)
    monkeypatch.chdir(probe.parent)

    assert t2v_json("catalog", "show", "probe", *at)["candidate"]["id"] == str(probe)
    assert t2v_json("catalog", "remove", "./probe", *at)["removed"] == str(probe)


def test_weights_that_are_cut_short_are_refused(tmp_path, probe):
    """Such a checkpoint would be ranked and then not load."""
    broken = shutil.copytree(probe, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes((probe / "model.safetensors").read_bytes()[:-8])

    result = t2v("catalog", "add", broken, "--catalog", tmp_path / "catalog")

    assert result.exit_code == 1
    assert "is no whole safetensors file" in result.stderr


def test_data_is_measured_in_the_catalogs_space(tmp_path, pets, leaves, probe):
    """Otherwise the first thing a new user sees is that spaces differ."""
    at = ("--catalog", tmp_path / "catalog")

    t2v_json("catalog", "add", "org/pets", *at, "--data", pets, "--probe", probe, *SIZE)
    t2v_json("catalog", "add", "org/leaves", *at, "--data", leaves, "--max-samples", 18)
    ranking = t2v_json("rank", pets, *at, "--max-samples", 20)
    named = t2v_json("rank", pets, *at, "--max-samples", 20, "--probe", probe)

    (space,) = Catalog.load(tmp_path / "catalog").spaces()
    assert ranking["space"] == space.id
    assert space.preprocessing["size"] == [32, 32]
    assert [item["id"] for item in ranking["candidates"]] == ["org/pets", "org/leaves"]
    assert named == ranking


def test_a_probe_that_the_catalog_does_not_know(tmp_path, pets, embedded):
    """Nothing would be comparable, which is better said before the images are measured."""
    at = ("--catalog", tmp_path / "catalog")
    t2v_json("catalog", "add", "org/pets", *at, "--embedding", embedded)

    result = t2v("rank", pets, *at, "--probe", save_probe(tmp_path / "other", seed=1))

    assert result.exit_code == 1
    assert "No embedding in" in result.stderr
    assert "was measured with the weights of" in result.stderr


def test_a_catalog_whose_probe_is_not_at_hand(tmp_path, pets, probe):
    """A catalog travels; a path in it does not."""
    at = ("--catalog", tmp_path / "catalog")
    moved = shutil.copytree(probe, tmp_path / "moved")
    t2v_json("catalog", "add", "org/pets", *at, "--data", pets, "--probe", moved, *SIZE)
    shutil.rmtree(moved)

    result = t2v("rank", pets, *at)

    assert result.exit_code == 1
    assert "which is not at hand" in result.stderr
    assert "Say with --probe where the same weights lie." in result.stderr
    assert t2v_json("rank", pets, *at, "--probe", probe)["candidates"][0]["id"] == "org/pets"


def start(folder: Path, data: Path, probe: Path) -> "subprocess.Popen[str]":
    """``t2v embed`` in a process of its own, which keeps everything in the folder."""
    code = "import sys; from t2v_hub.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "embed", data, "-o", folder / "a.safetensors", "--probe", probe]
    environment = {
        **os.environ,
        "T2V_HOME": str(folder / "home"),
        "HF_HOME": str(folder / "hf"),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [*command, "--image-size", "32", "--json"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts background jobs deaf to interrupts, and its children inherit that.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.default_int_handler),
    )


def blocks(folder: Path) -> list[Path]:
    return list((folder / "home").rglob("block-*.safetensors"))


def disturb(process: "subprocess.Popen[str]", folder: Path, sent: signal.Signals, after: int) -> str:
    """Send a signal once so many blocks are there; what the process then said on stderr."""
    deadline = time.monotonic() + 300
    while len(blocks(folder)) < after and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(sent)
    output, errors = process.communicate(timeout=300)
    assert output == ""
    assert not (folder / "a.safetensors").exists()
    return errors


def test_a_killed_and_interrupted_command_goes_on_to_the_same_bits(tmp_path, probe):
    """Measuring may take an hour; a closed lid must cost a block, and change nothing."""
    data = save_images(tmp_path / "six-blocks", n=60)
    (tmp_path / "undisturbed").mkdir()
    (tmp_path / "disturbed").mkdir()
    undisturbed = start(tmp_path / "undisturbed", data, probe)
    _, errors = undisturbed.communicate(timeout=300)
    assert undisturbed.returncode == 0, errors
    folder = tmp_path / "disturbed"

    killed = start(folder, data, probe)
    disturb(killed, folder, signal.SIGKILL, after=1)
    kept = len(blocks(folder))
    assert 1 <= kept < 5

    interrupted = start(folder, data, probe)
    errors = disturb(interrupted, folder, signal.SIGINT, after=kept + 1)
    assert interrupted.returncode == 130
    kept_in = folder / "home" / "embeddings"
    assert f"interrupted: blocks of images that were finished are kept in {kept_in}, and" in errors
    assert "Traceback" not in errors
    assert kept < len(blocks(folder)) < 6

    last = start(folder, data, probe)
    output, errors = last.communicate(timeout=300)
    assert last.returncode == 0, errors
    assert json.loads(output)["embeddings"][0]["n_measured"] == 180
    expected = (tmp_path / "undisturbed" / "a.safetensors").read_bytes()
    assert (folder / "a.safetensors").read_bytes() == expected
    assert blocks(folder) == []
