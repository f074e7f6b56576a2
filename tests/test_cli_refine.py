"""``t2v rank --refine``, ``--budget``, ``--score`` and ``--model2vec`` on real images and tiny networks."""

from typing import get_args

import numpy as np
import pytest
from checkpoints import save_checkpoint
from cli_data import save_probe, t2v, t2v_json
from factories import make_embedding

from t2v_hub.catalog import Candidate, Catalog
from t2v_hub.cli import options
from t2v_hub.embedding import TaskEmbedding
from t2v_hub.model2vec import Model2Vec
from t2v_hub.scores import BUILT_IN_SCORES, FeatureKind
from t2v_hub.selector import ModelSelector
from t2v_hub.selector.combined import COMBINED


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    return [str(save_checkpoint(root / f"net{i}", seed=i)) for i in range(2)]


@pytest.fixture
def catalog(tmp_path, folders, embedded):
    catalog = Catalog(tmp_path / "catalog")
    catalog.add(Candidate(folders[0]), embedding=TaskEmbedding.load(embedded))
    catalog.add(Candidate(folders[1], upstream_accuracy=0.9))
    return catalog


@pytest.fixture
def at(catalog, probe):
    return ("--catalog", catalog.path, "--probe", probe, "--device", "cpu")


@pytest.fixture
def fit(tmp_path, embedded, folders):
    """Learned from errors on the pets and two tasks like it, where the second network does better."""
    task = TaskEmbedding.load(embedded)
    rng = np.random.default_rng(0)
    tasks = [
        make_embedding(
            task.fisher * np.exp(rng.normal(0, 0.5, len(task.fisher))),
            space=task.space,
            prior=task.prior,
            task=f"task{i}",
        )
        for i in range(3)
    ]
    found = Model2Vec.fit(
        tasks,
        np.tile([0.5, 0.1], (3, 1)),
        candidates=folders,
        sources={folders[0]: task},
        temperature=0.05,
        strength=0.1,
    )
    return found.save(tmp_path / "fit.safetensors")


def test_refining_loads_and_says_what_came_of_it(pets, at, folders):
    """The same values as in Python, and a table of them."""
    values = t2v_json("rank", pets, *at, "--refine", 2)
    text = t2v("rank", pets, *at, "--refine", 2, "--score", "logme", "--max-images", 12).stdout

    done = values["refinement"]
    assert (done["score"], done["n_loaded"], done["n_images"], done["failed"]) == (
        "combined",
        2,
        24,
        {},
    )
    assert done["against_prior"]["id"] == folders[1]
    for item in values["candidates"]:
        assert abs(item["score"]) <= 1
        low, high = item["predicted_interval"]
        assert 0 <= low <= item["predicted_error"] <= high <= 1
    assert "Loaded      2 in " in text
    assert "scored by logme on 12 images of the task" in text
    assert "rank  checkpoint  predicted error ± 95 %  logme " in text


def test_features_of_all_layers_may_be_asked_for(pets, at):
    """Other features, other scores; the names are the library's."""
    last = t2v_json("rank", pets, *at, "--refine", 1, "--score", "logme")
    layers = t2v_json("rank", pets, *at, "--refine", 1, "--features", "layers", "--score", "logme")

    assert [values["refinement"]["features"] for values in (last, layers)] == ["last", "layers"]
    assert last["candidates"][0]["score"] != layers["candidates"][0]["score"]
    assert get_args(options.FeaturesName) == get_args(FeatureKind)


def test_a_budget_loads_one_at_least(pets, at):
    """No time is a limit, too."""
    values = t2v_json("rank", pets, *at, "--budget", 0)

    assert values["refinement"]["n_loaded"] == 1
    assert [item["predicted_error"] is None for item in values["candidates"]] == [False, True]


def test_nothing_is_kept_where_that_is_not_wanted(pets, at, tmp_path, monkeypatch):
    """Features are of private images."""
    monkeypatch.setenv("T2V_HOME", str(tmp_path / "home"))

    t2v_json("rank", pets, *at, "--refine", 1, "--no-cache")
    assert not (tmp_path / "home" / "features").exists()
    t2v_json("rank", pets, *at, "--refine", 1)
    assert len(list((tmp_path / "home" / "features").iterdir())) == 1


def test_learned_distances_rank(pets, embedded, at, fit, catalog, folders):
    """From an embedding file, and from images that are measured in their space."""
    expected = ModelSelector(catalog, distance=Model2Vec.load(fit)).rank(TaskEmbedding.load(embedded))

    of_file = t2v_json("rank", embedded, "--catalog", catalog.path, "--model2vec", fit)
    of_images = t2v("rank", pets, *at, "--model2vec", fit)

    assert of_file == expected.to_dict()
    assert of_file["distance"] == "model2vec"
    assert of_file["candidates"][0]["id"] == folders[1]
    assert "measuring in space" in of_images.stderr
    assert "of the learned distance" in of_images.stderr
    assert of_images.stdout.splitlines()[2:4] == str(expected).splitlines()[2:4]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--score", "logme"], 2, "--score goes with --refine or --budget; without these nothing is loaded"),
        (["--max-images", "20"], 2, "--max-images goes with --refine or --budget"),
        (["--features", "layers"], 2, "--features goes with --refine or --budget"),
        (["--refine", "1", "--features", "all"], 2, "Invalid value for '--features'"),
        (["--refine", "0"], 2, "Invalid value for '--refine'"),
        (["--budget", "-1"], 2, "Invalid value for '--budget'"),
        (["--refine", "1", "--score", "sfda"], 2, "There is no score 'sfda'. Choose one of: combined, logme"),
        (
            ["--refine", "1"],
            2,
            "loaded (--refine, --budget) to be scored on the task's images, and here is only",
        ),
        (["--distance", "symmetric", "--model2vec", "{fit}"], 2, "leave --distance symmetric out"),
        (["--model2vec", "nothing.safetensors"], 1, "There is no file of learned distances"),
    ],
)
def test_what_does_not_go_together_is_named(embedded, catalog, fit, arguments, code, message):
    """In the words of the command."""
    arguments = [str(fit) if text == "{fit}" else text for text in arguments]

    result = t2v("rank", embedded, "--catalog", catalog.path, *arguments)

    assert result.exit_code == code
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert "from_task" not in result.stderr


def test_a_probe_that_is_not_the_fits_is_named(pets, catalog, fit, tmp_path):
    """Before anything is measured."""
    other = save_probe(tmp_path / "other", seed=1)

    result = t2v("rank", pets, "--catalog", catalog.path, "--model2vec", fit, "--probe", other)

    assert result.exit_code == 1
    assert "The distance was learned in a space of " in result.stderr
    assert "Leave --probe out, or say where the same weights lie" in result.stderr


def test_a_fit_of_strangers_is_named_before_the_data_is_read(tmp_path, pets, fit):
    """Measuring takes minutes."""
    catalog = Catalog(tmp_path / "strangers")
    catalog.add(Candidate("org/x"))

    result = t2v("rank", pets, "--catalog", catalog.path, "--model2vec", fit)

    assert result.exit_code == 1
    assert "is among the 2 that the distance was learned for" in result.stderr


def test_the_scores_are_the_librarys():
    """They are written twice so that --help imports no numpy."""
    assert (COMBINED, *BUILT_IN_SCORES) == options.SCORES
