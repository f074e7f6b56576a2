"""AutoGluon's arguments from a ranking; with AutoGluon itself in an environment of its own."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from ray import tune

from t2v_hub import Candidate, Catalog
from t2v_hub.errors import EmptyCatalogError, FewCandidatesWarning, SettingsError, SkippedCheckpointsWarning
from t2v_hub.testing import LoopbackHub
from t2v_hub_integrations.autogluon import KEY, AutoGluonNames, failed_checkpoints, hpo_kwargs

EXAMPLE = Path(__file__).parent.parent / "examples" / "autogluon_search.py"
needs_autogluon = [
    pytest.mark.autogluon,
    pytest.mark.skipif(find_spec("autogluon") is None, reason="needs AutoGluon: make test-autogluon"),
]


def on_the_hub(ranking, ids, *, revision=None, library="timm", endpoint=None):
    """The ranking with other names for its first candidates."""
    items = tuple(
        replace(
            item,
            candidate=replace(item.candidate, id=id, revision=revision, library=library),
            endpoint=endpoint,
        )
        for item, id in zip(ranking.items, ids, strict=False)
    )
    return replace(ranking, items=items)


@pytest.fixture
def ranking(digits_pool):
    """Four of timm, the best not the first in the alphabet."""
    return on_the_hub(digits_pool.selector().rank(), ["a/c", "timm/resnet18.a1_in1k", "a/d", "a/b"])


def points(search):
    return [
        point[KEY]
        for point in search["hyperparameter_tune_kwargs"]["searcher_init_args"]["points_to_evaluate"]
    ]


def test_the_search_is_among_sorted_names_and_starts_in_ranked_order(ranking):
    """It is what AutoGluon takes as it is: `fit(table, **hpo_kwargs(ranking))`."""
    search = hpo_kwargs(ranking, top_k=4, seed=3)

    names = ["hf-hub:a/c", "hf-hub:timm/resnet18.a1_in1k", "hf-hub:a/d", "hf-hub:a/b"]
    assert set(search) == {"hyperparameters", "hyperparameter_tune_kwargs"}
    assert search["hyperparameters"][KEY].categories == sorted(names)
    assert points(search) == names
    tuning = dict(search["hyperparameter_tune_kwargs"])
    assert tuning.pop("searcher_init_args")["random_state"] == 3
    assert tuning == {"searcher": "random", "scheduler": "FIFO", "num_trials": 4}


def test_half_of_the_trials_are_ranked_where_more_is_searched(ranking):
    """The rest of the trials learn about what a ranking says nothing of."""
    rates = {"optim.lr": tune.loguniform(1e-5, 1e-2), "optim.max_epochs": 5}

    search = hpo_kwargs(ranking, top_k=4, n_trials=5, hyperparameters=rates)

    assert points(search) == ["hf-hub:a/c", "hf-hub:timm/resnet18.a1_in1k", "hf-hub:a/d"]
    assert search["hyperparameters"]["optim.max_epochs"] == 5
    assert set(rates) == {"optim.lr", "optim.max_epochs"}
    assert len(points(hpo_kwargs(ranking, top_k=4, n_trials=5))) == 4
    assert len(points(hpo_kwargs(ranking, top_k=4, n_trials=5, n_ranked=1))) == 1


def test_the_ranked_commit_is_the_one_that_is_searched(digits_pool):
    """What was pushed later is not what was ranked."""
    ranking = on_the_hub(digits_pool.selector().rank(), ["a/b"], revision="c0ffee")

    assert AutoGluonNames.of(ranking, top_k=1).names == {"a/b": "hf-hub:a/b@c0ffee"}


def test_what_autogluon_cannot_load_is_passed_over_and_named(digits_pool):
    """Each would cost a trial that fails; and they do not count among the first two."""
    ranking = digits_pool.selector().rank()
    usable = on_the_hub(ranking, ["a/b", "a/c"])
    elsewhere = on_the_hub(ranking, ["a/e"], endpoint="https://hub.example")
    unknown = on_the_hub(ranking, ["timm/no_such_net.v1", "timm/resnet18.a1_in1k"], library=None)
    nameless = on_the_hub(ranking, ["a/f"], library=None)
    mixed = replace(
        ranking, items=(ranking.items + elsewhere.items + unknown.items + nameless.items + usable.items)
    )

    with pytest.warns(
        SkippedCheckpointsWarning, match="AutoGluon cannot load 9 of the first 11 cand"
    ) as caught:
        names = AutoGluonNames.of(mixed, top_k=2)

    assert list(names.names) == ["timm/resnet18.a1_in1k", "a/b"]
    assert list(names.left_out) == [*ranking.ranked, "a/e", "timm/no_such_net.v1", "a/f"]
    said = str(caught[0].message)
    for id, why in names.left_out.items():
        assert f"{id} ({why})" in said
    reasons = " | ".join(names.left_out.values())
    assert re.search("of transformers, and it takes image networks of timm", reasons)
    assert re.search("a folder without pytorch_model.bin, and of folders it reads no safetensors", reasons)
    assert re.search("on https://hub.example, and timm asks http://127.0.0.1:9", reasons)
    assert re.search(r"timm \S+ has no 'no_such_net'", reasons)
    assert names.left_out["a/f"] == "its library is not known"
    assert caught[0].filename == __file__


def test_every_spelling_of_a_candidate_becomes_one_that_timm_understands(digits_pool, tmp_path):
    """`t2v catalog add resnet18` keeps timm's own name, and hf-hub: is how timm spells a repository."""
    file = tmp_path / "lone.safetensors"
    file.touch()
    ids = ["resnet18", "resnet18.a1_in1k", "hf-hub:a/b", "hf-hub:a/c@c0ffee", str(file), "no_such_net"]
    ranking = on_the_hub(digits_pool.selector().rank(), ids)

    with pytest.warns(SkippedCheckpointsWarning):
        names = AutoGluonNames.of(ranking, top_k=None)

    named = dict(names.names)
    assert named.pop("resnet18").startswith("hf-hub:timm/resnet18.")
    assert named == {
        "resnet18.a1_in1k": "hf-hub:timm/resnet18.a1_in1k",
        "hf-hub:a/b": "hf-hub:a/b",
        "hf-hub:a/c@c0ffee": "hf-hub:a/c@c0ffee",
    }
    assert list(names.left_out) == [str(file), "no_such_net"]
    assert names.left_out[str(file)] == "a file, and it reads folders and the Hub"
    assert "has no weights 'no_such_net' on the Hub" in names.left_out["no_such_net"]


def test_a_folder_with_the_weights_that_autogluon_reads_is_taken(digits_pool, tmp_path):
    """It is what AutoGluon itself saves a network as."""
    (tmp_path / "pytorch_model.bin").touch()
    ranking = on_the_hub(digits_pool.selector().rank(), [str(tmp_path)])

    assert AutoGluonNames.of(ranking, top_k=1).names == {str(tmp_path): str(tmp_path)}


def test_nothing_that_can_be_loaded_says_what_to_add(digits_pool):
    """A search over nothing would fail somewhere inside Ray."""
    with pytest.raises(EmptyCatalogError, match=r"none of the 6 candidates: .*such as timm/resnet18.a1_in1k"):
        hpo_kwargs(digits_pool.selector())


def test_long_lists_of_what_is_passed_over_are_cut(digits_pool):
    """A catalog of the Hub has thousands of another library."""
    ranking = digits_pool.selector().rank()
    many = [on_the_hub(ranking, [f"a/{n}"], library="transformers").items[0] for n in range(25)]

    with pytest.raises(EmptyCatalogError, match=r"none of the 25 .*a/19 \([^)]*\) and 5 more\. Add"):
        AutoGluonNames.of(replace(ranking, items=tuple(many)))


def test_fewer_than_asked_for_is_said(ranking):
    """The search can go on, but not unnoticed."""
    with pytest.warns(FewCandidatesWarning, match="20 candidates were asked for; AutoGluon can load 4"):
        assert hpo_kwargs(ranking)["hyperparameter_tune_kwargs"]["num_trials"] == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"n_trials": 0}, "n_trials must be a whole number >= 1; got 0"),
        ({"n_ranked": 1.5}, "n_ranked must be a whole number >= 1; got 1.5"),
        ({"top_k": True}, "top_k must be a whole number >= 1; got True"),
        ({"n_trials": 2, "n_ranked": 3}, "There are 2 trials, so n_ranked=3 of them cannot be ranked"),
        ({"hyperparameters": {KEY: "resnet18"}}, "what the ranking decides; leave it out"),
        ({"searcher": "grid"}, "searcher must be 'random' or 'bayes', AutoGluon's names; got 'grid'"),
        (
            {"searcher": "bayes", "hyperparameters": {"optim.lr": tune.uniform(0, 1)}},
            "points that are complete, and a ranking says nothing about optim.lr. Use searcher='random'",
        ),
    ],
)
def test_arguments_that_cannot_work_are_refused(ranking, arguments, said):
    """AutoGluon would say so an hour later, or not at all."""
    with pytest.raises(SettingsError, match=re.escape(said)):
        hpo_kwargs(ranking, **{"top_k": 4, **arguments})


def state_of(folder, trials, *, at="2026-01-01"):
    data = [[json.dumps({"config": {KEY: name}, "status": status}), "{}"] for name, status in trials]
    (folder / f"experiment_state-{at}.json").write_text(json.dumps({"trial_data": data}))


def test_a_checkpoint_that_worked_once_has_not_failed(tmp_path):
    """Its other trial may have had a learning rate that no network stands."""
    state_of(tmp_path, [("b", "TERMINATED"), ("c", "TERMINATED")], at="2026-01-01")
    state_of(
        tmp_path, [("b", "ERROR"), ("a", "ERROR"), ("a", "TERMINATED"), ("c", "TERMINATED")], at="2026-02-01"
    )

    assert failed_checkpoints(tmp_path) == ("b",)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"trial_data": [["{}", "{}"]]}', '{"trial_data": [1]}'])
def test_a_state_that_cannot_be_read_is_named(tmp_path, text):
    """Another version of Ray may write it otherwise."""
    with pytest.raises(SettingsError, match="has no state of a search; pass predictor.path"):
        failed_checkpoints(tmp_path)
    (tmp_path / "experiment_state-1.json").write_text(text)

    with pytest.raises(
        SettingsError, match=r"state of the search in '.*experiment_state-1.json' cannot be read"
    ):
        failed_checkpoints(tmp_path)


def test_without_ray_the_install_line_is_that_of_autogluon():
    """Ray comes with AutoGluon, and whoever is here wants AutoGluon."""
    code = "import sys; sys.modules['ray'] = None; import t2v_hub_integrations.autogluon"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert "MissingDependencyError: This needs ray" in done.stderr
    assert "pip install 't2v-hub[autogluon]'" in done.stderr


def test_autogluon_itself_is_not_imported():
    """What is emitted can be made where AutoGluon is not, and sent to where it is."""
    code = "import sys, t2v_hub_integrations.autogluon; print('autogluon' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["False"]


SEARCH = """
import json, sys
from pathlib import Path
from autogluon.core.hpo.ray_hpo import AutommRayTuneAdapter, run
from t2v_hub.embedding import TaskEmbedding
from t2v_hub.catalog import Catalog
from t2v_hub import ModelSelector
from t2v_hub_integrations.autogluon import KEY, hpo_kwargs

folder, searcher, out = sys.argv[1:]
task = TaskEmbedding.load(Path(folder) / "target.safetensors")
selector = ModelSelector(Catalog.load(Path(folder) / "catalog"), task=task)
search = hpo_kwargs(selector, top_k=3, n_trials=5, searcher=searcher)

def train(config, log, hyperparameters):
    from ray import tune
    with open(log, "a") as file:
        print(config[KEY], file=file)
    if config[KEY].endswith("a"):
        raise OSError("it does not load")
    tune.report({"val_accuracy": 0.5})

run(
    trainable=train,
    trainable_args={"log": out + ".log", "hyperparameters": {}},
    search_space=search["hyperparameters"],
    hyperparameter_tune_kwargs=search["hyperparameter_tune_kwargs"],
    metric="val_accuracy",
    mode="max",
    save_dir=out,
    ray_tune_adapter=AutommRayTuneAdapter(),
    total_resources={"num_cpus": 1, "num_gpus": 0},
)
ranked = [f"hf-hub:{id}" for id in selector.rank().ranked]
print(json.dumps([ranked, Path(out + ".log").read_text().split()]))
"""


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Four experts, of networks that AutoGluon's old timm can make."""
    from autogluon_pool import make_pool

    return make_pool(tmp_path_factory.mktemp("pool"))


class TestWithAutoGluon:
    """`make test-autogluon`."""

    pytestmark = needs_autogluon

    def test_the_example_trains_the_first_of_the_ranking(self, pool, tmp_path_factory, tmp_path):
        """A search that starts anywhere else would make the ranking an ornament."""
        from digits_pool import DATA, publish

        out = tmp_path / "out"
        with LoopbackHub() as server:
            hub = publish(pool, server, tmp_path_factory.mktemp("hub"))
            server.clear_requests()
            arguments = ["--data", DATA, "--trials", "2", "--epochs", "1", "--out", str(out)]
            done = hub.run(EXAMPLE, arguments, tmp_path, timeout=1200)
            paths = {request.path for request in server.requests if "model.safetensors" in request.path}

        ranked = re.findall(r"^ +\d+  (digits/\S+)", done.stdout, flags=re.MULTILINE)
        assert len(ranked) == 4
        assert searched(out) == [(id, "TERMINATED") for id in ranked[:2]]
        assert failed_checkpoints(out) == ()
        assert re.search(rf"^best: hf-hub:({'|'.join(ranked[:2])})@", done.stdout, flags=re.MULTILINE)
        assert re.search(r"'accuracy': [\d.]+", done.stdout)
        assert [id for id in ranked if any(f"/{id}/" in path for path in paths)] == ranked[:2]

    def test_of_folders_it_reads_headless_weights_in_a_pickle_only(self, tmp_path):
        """This is what `AutoGluonNames` goes by; another version of AutoGluon may read more."""
        import timm
        import torch
        from autogluon.multimodal.models.timm_image import TimmAutoModelForImagePrediction
        from timm.models._hub import save_for_hf

        network = timm.create_model("lcnet_035", num_classes=3)
        save_for_hf(network, str(tmp_path), safe_serialization=True)
        with pytest.raises(ValueError, match="does not exist or model is invalid"):
            TimmAutoModelForImagePrediction("timm_image", str(tmp_path), num_classes=5)
        network.reset_classifier(0)
        torch.save(network.state_dict(), tmp_path / "pytorch_model.bin")

        loaded = TimmAutoModelForImagePrediction("timm_image", str(tmp_path), num_classes=5)

        assert loaded.head.out_features == 5
        torch.testing.assert_close(loaded.model.state_dict(), network.state_dict())

    @pytest.mark.parametrize("searcher", ["random", "bayes"])
    def test_its_searchers_take_the_points_in_order_and_pass_what_fails(self, pool, searcher, tmp_path):
        """Ray and HyperOpt check points when the search runs; and one bad checkpoint ends neither."""
        catalog = Catalog(tmp_path / "catalog")
        for id, source in zip("abc", pool.sources.values(), strict=False):
            catalog.add(Candidate(f"digits/{id}", library="timm", source=id), embedding=source)
        pool.target.save(tmp_path / "target.safetensors")
        (tmp_path / "search.py").write_text(SEARCH)
        out = tmp_path / "out"
        command = [sys.executable, str(tmp_path / "search.py"), str(tmp_path), searcher, str(out)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)

        assert done.returncode == 0, done.stderr[-3000:]
        ranked, tried = json.loads(done.stdout.splitlines()[-1])
        assert tried[:3] == ranked
        assert len(tried) == 5
        assert set(tried[3:]) <= set(ranked)
        assert failed_checkpoints(out) == ("hf-hub:digits/a",)


def searched(folder):
    """Ids that a search tried, in order, and how it ended."""
    state = json.loads(next(folder.glob("experiment_state-*.json")).read_text())
    trials = sorted(
        (json.loads(text) for text, _ in state["trial_data"]), key=lambda trial: trial["trial_id"]
    )
    return [
        (trial["config"][KEY].removeprefix("hf-hub:").partition("@")[0], trial["status"]) for trial in trials
    ]
