"""Ray: searches with Tune that begin with the ranking, and bulk work by Ray's workers."""

import os
import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from checkpoints import broken as make_broken
from digits_pool import DATA
from ray_work import Streamer, Unreadable, Watched, lines, mistake, threads_of

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # before it is imported: nothing is reported anywhere
ray = pytest.importorskip("ray")
from ray import tune  # noqa: E402
from ray.tune.search.basic_variant import BasicVariantGenerator  # noqa: E402

from t2v_hub import Catalog, Executor, Task2Vec  # noqa: E402
from t2v_hub.enrich import enrich  # noqa: E402
from t2v_hub.errors import (  # noqa: E402
    EmptyCatalogError,
    FewCandidatesWarning,
    SettingsError,
    WorkerError,
)
from t2v_hub.hub import Connection  # noqa: E402
from t2v_hub.testing import TINY, TinyNetwork, tiny_task  # noqa: E402
from t2v_hub_integrations import Candidates  # noqa: E402
from t2v_hub_integrations.ray import RayExecutor, failures, ranked_search_alg, ranked_space  # noqa: E402

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def workers():
    """Two of them, which find what the tests have them do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]))
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            object_store_memory=100 << 20,
            logging_level="error",
            log_to_driver=False,
        )
    yield
    ray.shutdown()


def watched(tmp_path, **settings):
    made = Watched(TinyNetwork(), preprocessing=TINY, cache=tmp_path / "cache", progress=False, **settings)
    made.log, made.deadly = tmp_path / "log", {}
    return made


def counted(tmp_path, event):
    return Counter(name for what, name, _ in lines(tmp_path / "log") if what == event)


def alone(task, name, **settings):
    made = Task2Vec(TinyNetwork(), preprocessing=TINY, cache=False, progress=False, **settings)
    return made.embed(task, name=name)


def same(ours, theirs):
    return (
        ours.fisher.tobytes() == theirs.fisher.tobytes()
        and ours.deviations.tobytes() == theirs.deviations.tobytes()
        and (ours.task, ours.space) == (theirs.task, theirs.space)
    )


def test_killed_workers_lose_nothing_and_nothing_is_measured_twice(workers, tmp_path):
    """One dies within its task, one before anybody hears of its result; the bits are those of one process."""
    tasks = {str(n): tiny_task(n, seed=n) for n in (44, 30, 20, 5, 6, 7, 8, 9)}
    embedder = watched(tmp_path)
    embedder.deadly = {"44": 2, "20": -1}

    done = embedder.embed_many(tasks, executor="ray")

    assert not done.failures
    assert list(done.embeddings) == list(tasks)
    tries, pids = counted(tmp_path, "try"), {pid for e, _, pid in lines(tmp_path / "log") if e == "try"}
    assert {name: n for name, n in tries.items() if n > 1} == {"44": 2, "20": 2}
    assert str(os.getpid()) not in pids
    assert counted(tmp_path, "embedding") == dict.fromkeys(tasks, 1)
    blocks = Counter((name, index) for event, name, index in lines(tmp_path / "log") if event == "block")
    assert set(blocks.values()) == {1}
    assert counted(tmp_path, "block")["44"] == 5  # 132 images
    for name, task in tasks.items():
        assert same(done.embeddings[name], alone(task, name))


def test_what_was_measured_is_not_measured_again(workers, tmp_path):
    """A run that was stopped is started again; elsewhere and here share the cache."""
    tasks = {str(n): tiny_task(n, seed=n) for n in (5, 6)}
    first = watched(tmp_path).embed_many(tasks, executor="ray")

    again = watched(tmp_path).embed_many({**tasks, "7": tiny_task(7)}, executor=RayExecutor())

    assert counted(tmp_path, "embedding") == {"5": 1, "6": 1, "7": 1}
    assert all(same(again.embeddings[name], first.embeddings[name]) for name in tasks)
    assert same(watched(tmp_path).embed(tasks["5"], name="5"), first.embeddings["5"])
    assert counted(tmp_path, "embedding")["5"] == 1


def test_a_task_whose_workers_keep_dying_is_named(workers, tmp_path):
    """It must neither end the run nor be tried for ever."""
    tasks = {"good": tiny_task(5), "deadly": tiny_task(6), "bad": str(tmp_path / "no"), "also": tiny_task(7)}
    embedder = watched(tmp_path)
    embedder.deadly, embedder.again = {"deadly": 0}, True

    done = embedder.embed_many(tasks, executor=RayExecutor(max_retries=1))

    assert list(done.embeddings) == ["good", "also"]
    assert list(done.failures) == ["deadly", "bad"]
    assert counted(tmp_path, "try")["deadly"] == 2
    with pytest.raises(WorkerError, match=r"with its workers, 2 times \(WorkerCrashedError.* lower batch"):
        raise done.failures["deadly"]


def test_data_that_cannot_travel_is_named(workers):
    """A lock cannot be sent, and a file may be on one machine only."""
    tasks = {"locked": [threading.Lock()], "good": tiny_task(5), "gone": Unreadable()}
    embedder = Task2Vec(TinyNetwork(), preprocessing=TINY, cache=False, progress=False)

    done = embedder.embed_many(tasks, executor="ray")

    assert list(done.embeddings) == ["good"]
    with pytest.raises(
        WorkerError, match=r"cannot be sent to another process \(TypeError: .*lock.*Give an id"
    ):
        raise done.failures["locked"]
    with pytest.raises(WorkerError, match=r"cannot be read in another process \(FileNotFoundError: no such"):
        raise done.failures["gone"]


def test_settings_that_cannot_travel_are_refused(workers):
    """Nothing could be measured anywhere."""
    network = TinyNetwork()
    network.lock = threading.Lock()
    embedder = Task2Vec(network, preprocessing=TINY, cache=False, progress=False)

    with pytest.raises(SettingsError, match="cannot be sent to other processes .*Name the probe"):
        embedder.embed_many({"a": tiny_task(5)}, executor="ray")


def test_torch_has_as_many_threads_as_processors_were_asked_for(workers):
    """Each worker would else take all of the machine's."""
    [(_, (one, _, item))] = RayExecutor().map(threads_of, ["x"])
    [(_, (two, _, _))] = RayExecutor(num_cpus=2).map(threads_of, ["x"])
    [(_, (half, _, _))] = RayExecutor(num_cpus=0.5).map(threads_of, ["x"])

    assert (one, two, half, item) == (1, 2, 1, "x")


def test_items_are_taken_only_when_there_is_room(workers):
    """Ten thousand data sets in memory would not fit into the workers' store."""
    taken = 0

    def items():
        nonlocal taken
        for number in range(100):
            taken += 1
            yield number

    outcomes = RayExecutor().map(threads_of, items())
    next(outcomes)
    taken_at_first = taken
    rest = [item for _, (_, _, item) in outcomes]

    assert taken_at_first <= 18  # 16 are handed over, and the next one was looked at
    assert len(rest) == 99


def test_enrichment_measures_on_workers_and_survives_their_deaths(workers, tmp_path, loopback_hub):
    """Each data set's first worker is killed; cards are written from here, each once."""
    from test_enrich import add

    hub = loopback_hub
    for number, name in enumerate(("org/birds", "org/cars")):
        hub.add_repo(name, {"README.md": "# data"}, kind="dataset")
        add(hub, f"owner/{number}", head=f"datasets: [{name}]\n", downloads=9 - number)
    link = Connection(endpoint=hub.endpoint, token=hub.token, progress=False)

    report = enrich(
        Streamer(tmp_path / "log"),
        executor="ray",
        catalog=Catalog(tmp_path / "catalog"),
        folder=tmp_path / "run",
        connection=link,
        progress=False,
    )

    assert [d.id for d in report.data_sets] == ["org/birds", "org/cars"]
    assert {d.state for d in report.data_sets} == {"embedded"}
    assert [(c.id, c.state) for c in report.cards] == [("owner/0", "committed"), ("owner/1", "committed")]
    assert counted(tmp_path, "try") == {"org/birds": 2, "org/cars": 2}
    assert len(Catalog.load(tmp_path / "catalog")["owner/0"].embeddings) == 1


def test_a_mistake_in_the_code_is_raised(workers):
    """With the worker's traceback; the same mistake would be made for each item."""
    with pytest.raises(ZeroDivisionError, match="a mistake in the code"):
        list(RayExecutor().map(mistake, range(3)))


def test_it_is_an_executor():
    assert isinstance(RayExecutor(), Executor)


@pytest.mark.parametrize("options", [{"num_cpus": -1}, {"memory": "much"}, {"colour": 1}], ids=str)
def test_options_that_ray_does_not_take_are_refused(options):
    """They would be found out when the data is read."""
    with pytest.raises(SettingsError, match="Ray takes no tasks with"):
        RayExecutor(**options)


@pytest.mark.parametrize("often", [-1, "often", True, 1.5])
def test_a_number_of_tries_that_cannot_be_is_refused(often):
    with pytest.raises(SettingsError, match="max_retries must be a whole number >= 0"):
        RayExecutor(max_retries=often)


def test_the_space_is_a_sorted_choice_among_the_first(digits_pool):
    """Sorted, so that another ranking of the same candidates can go on with a stored search."""
    candidates = Candidates.of(digits_pool.selector())

    space = ranked_space(candidates, top_k=4)
    nested = ranked_space(digits_pool.selector(), top_k=4, parameter="model/name")

    assert space["checkpoint"].categories == sorted(candidates.ranked[:4])
    assert nested["model"]["name"].categories == sorted(candidates.ranked[:4])


def suggested(search, n, space, rewards=None):
    """The checkpoints that a search suggests, one after the other, asked as Tune asks it."""
    ids = []
    if isinstance(search, BasicVariantGenerator):
        from ray.tune.experiment import Experiment

        tune.register_trainable("nothing", lambda config: None)
        search.add_configurations([Experiment("e", "nothing", config=space, num_samples=n)])
        while (trial := search.next_trial()) is not None:
            ids.append(trial.config["checkpoint"])
        return ids
    search.set_search_properties("accuracy", "max", space)
    for number in range(n):
        ids.append(search.suggest(str(number))["checkpoint"])
        search.on_trial_complete(str(number), {"accuracy": 0.5, "training_iteration": 1})
    return ids


@pytest.mark.parametrize("backend", ["random", "optuna"])
def test_the_first_trials_go_by_the_ranking(digits_pool, workers, backend):
    """At most half of the budget, best first; the rest is the search's own, over all choices."""
    candidates = Candidates.of(digits_pool.selector(), top_k=6)
    space = {**ranked_space(candidates), "lr": tune.loguniform(1e-4, 1e-1)}

    ids = suggested(ranked_search_alg(candidates, n_trials=8, backend=backend, seed=1), 8, space)

    assert tuple(ids[:4]) == candidates.ranked[:4]
    assert len(ids) == 8
    assert set(ids) <= set(candidates.choices)


def test_a_seed_repeats_what_is_drawn(digits_pool, workers):
    candidates = Candidates.of(digits_pool.selector())
    space = ranked_space(candidates, top_k=6)

    first, second, other = (
        suggested(ranked_search_alg(candidates, n_trials=12, seed=seed), 12, space) for seed in (1, 1, 2)
    )

    assert first == second
    assert first[:6] == other[:6] == list(candidates.ranked)
    assert first != other


def test_known_parameters_go_with_the_ranked_trials(digits_pool):
    """A learning rate that is known to work need not be drawn where the checkpoint is what is tried."""
    search = ranked_search_alg(
        Candidates.of(digits_pool.selector()),
        n_trials=5,
        parameter="model/name",
        extra={"model/lr": 0.1, "b": 8},
    )

    ids = Candidates.of(digits_pool.selector()).ranked[:2]
    assert search._points_to_evaluate == [{"model": {"name": id, "lr": 0.1}, "b": 8} for id in ids]


def test_a_sampler_of_optuna_draws_what_the_ranking_leaves(digits_pool):
    """Its own seed and settings count; the ranking is put before it."""
    optuna = pytest.importorskip("optuna")
    candidates = Candidates.of(digits_pool.selector(), top_k=6)
    space = {**ranked_space(candidates), "lr": tune.uniform(0, 1)}
    draws = []

    class Sampler(optuna.samplers.RandomSampler):
        def sample_independent(self, study, trial, name, distribution):
            draws.append((trial.number, name))
            return super().sample_independent(study, trial, name, distribution)

    ids = suggested(ranked_search_alg(candidates, n_trials=4, sampler=Sampler(seed=1)), 4, space)

    assert tuple(ids[:2]) == candidates.ranked[:2]
    assert sorted(draws) == [(0, "lr"), (1, "lr"), (2, "checkpoint"), (2, "lr"), (3, "checkpoint"), (3, "lr")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_trials": 0}, "n_trials must be a whole number >= 1, the budget of the search; got 0"),
        ({"n_trials": True}, "n_trials must be a whole number"),
        ({"share": 0}, r"share must be a number in \(0, 1\].* got 0"),
        ({"share": 1.5}, r"share must be a number in \(0, 1\]"),
        ({"backend": "hyperopt"}, "There is no backend 'hyperopt'; choose 'random' or 'optuna'"),
        (
            {"backend": "optuna", "extra": {"lr": 1}},
            "takes no partial points, so extra={'lr': 1} cannot be kept",
        ),
        ({"extra": {"checkpoint": "a"}}, "extra fixes 'checkpoint', which the ranking is to give"),
    ],
)
def test_options_that_cannot_work_are_refused(digits_pool, options, message):
    """Before a cluster is set to work."""
    with pytest.raises(SettingsError, match=message):
        ranked_search_alg(digits_pool.selector().rank(), **{"n_trials": 10, "top_k": 6, **options})


def test_an_empty_ranking_is_no_search(digits_pool):
    """Tune would fail somewhere in its workers."""
    empty = digits_pool.selector().rank(where=lambda candidate: False)

    for make in (ranked_space, lambda selection: ranked_search_alg(selection, n_trials=2)):
        with pytest.raises(EmptyCatalogError, match="nothing to search among"):
            make(empty)


def test_fewer_candidates_are_said_once(digits_pool, recwarn):
    """Who made the candidates was told; the space and the search are two calls."""
    with pytest.warns(FewCandidatesWarning, match="20 candidates were asked for and the ranking has 6"):
        ranked_space(digits_pool.selector())
    recwarn.clear()
    candidates = Candidates.of(digits_pool.selector())
    ranked_space(candidates)
    ranked_search_alg(candidates, n_trials=3)

    assert not recwarn.list


def test_checkpoints_that_do_not_load_or_kill_their_worker_end_their_trials_only(
    digits_pool, workers, tmp_path
):
    """The search goes on, they cannot win, and are named at the end."""
    ranking = digits_pool.selector().rank(top_k=3)
    shutil.copytree(ranking[0].candidate.id, tmp_path / "bad")
    bad = replace(ranking[0].candidate, id=str(make_broken(tmp_path / "bad")))
    items = (replace(ranking[0], candidate=bad), *ranking.items[1:])
    candidates = Candidates.of(replace(ranking, items=items))
    broken, deadly, good = candidates.ranked
    data = digits_pool.train

    def train(config):
        id = config["model"]["checkpoint"]
        if id == deadly:
            os._exit(1)
        candidates.load(id, data)
        tune.report({"accuracy": 0.1})

    results = tune.Tuner(
        train,
        param_space=ranked_space(candidates, parameter="model/checkpoint"),
        tune_config=tune.TuneConfig(
            metric="accuracy",
            mode="max",
            num_samples=3,
            search_alg=ranked_search_alg(
                candidates, n_trials=3, share=1, parameter="model/checkpoint", seed=0
            ),
        ),
        run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0),
    ).fit()

    named = failures(results, parameter="model/checkpoint")
    assert list(named) == [broken, deadly]
    assert "NaN or infinite" in named[broken]
    assert "Traceback" not in named[broken]
    assert "died" in named[deadly]
    assert results.get_best_result().config == {"model": {"checkpoint": good}}


def test_who_worked_once_is_no_failure():
    """One learning rate may diverge, one worker may run out of memory."""

    def result(id, error=None):
        return SimpleNamespace(config={"checkpoint": id}, error=error, path="")

    results = [result("a", ValueError("diverged")), result("a"), result("b", ValueError("gone")), result("c")]

    assert failures(results) == {"b": "gone"}


@pytest.mark.parametrize("backend", ["random", "optuna"])
def test_more_than_twenty_are_ranked_where_more_are_asked_for(digits_pool, backend):
    """The default of one adapter must not cut what another was told."""
    ranking = digits_pool.selector().rank()
    items = tuple(
        replace(item, candidate=replace(item.candidate, id=f"{number:02d}-{place}"))
        for number in range(5)
        for place, item in enumerate(ranking)
    )
    many = Candidates.of(replace(ranking, items=items))

    search = ranked_search_alg(many, n_trials=100, top_k=29, backend=backend, share=0.29)

    if backend == "random":
        tried = [point["checkpoint"] for point in search._points_to_evaluate]
    else:
        search.set_search_properties("accuracy", "max", ranked_space(many, top_k=29))
        tried = [search.suggest(f"{number}")["checkpoint"] for number in range(29)]
    assert tuple(tried) == many.ranked[:29]


def run_without(tmp_path, absent, code):
    """What a process says in which a package, or something that it needs, is not there."""
    hook = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {absent!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
    )
    return subprocess.run(
        [sys.executable, "-c", hook + code], cwd=tmp_path, capture_output=True, text=True, check=False
    ).stderr.splitlines()[-1]


ASK = "from t2v_hub.executors import make_executor; make_executor('ray')"


@pytest.mark.parametrize("code", ["import t2v_hub_integrations.ray", ASK], ids=["import", "by name"])
def test_ray_absent_is_said_with_the_install_line(tmp_path, code):
    """`No module named 'ray'` does not say which extra it is."""
    last = run_without(tmp_path, "ray", code)

    assert last == (
        "t2v_hub.errors.MissingDependencyError: This needs ray, which is not installed: "
        "pip install 't2v-hub[ray]'."
    )


@pytest.mark.parametrize("code", ["import t2v_hub_integrations.ray", ASK], ids=["import", "by name"])
def test_a_broken_ray_is_not_hidden(tmp_path, code):
    """Installing what is there already would not help."""
    last = run_without(tmp_path, "ray._raylet", code)

    assert "No module named 'ray._raylet'" in last
    assert "pip install" not in last


def test_optuna_absent_is_said_where_it_is_asked_for(tmp_path, digits_pool):
    """The rest of the module does without it."""
    code = (
        "from t2v_hub import Catalog, ModelSelector, TaskEmbedding\n"
        "from t2v_hub_integrations.ray import ranked_search_alg\n"
        f"selector = ModelSelector(Catalog.load({str(digits_pool.catalog)!r}))\n"
        f"ranking = selector.rank(TaskEmbedding.load({str(tmp_path / 'task')!r}))\n"
        "ranked_search_alg(ranking, n_trials=2, top_k=6, backend='optuna')\n"
    )
    digits_pool.target.save(tmp_path / "task")

    last = run_without(tmp_path, "optuna", code)

    assert "This needs optuna, which is not installed: pip install 't2v-hub[optuna]'." in last


def test_the_example_of_tune_searches(digits_hub, tmp_path):
    """As a user runs it, against a Hub."""
    arguments = ["--data", DATA, "--trials", "2", "--epochs", "1"]

    done = digits_hub.run(ROOT / "examples" / "ray_tune_search.py", arguments, tmp_path)
    lines = done.stdout.splitlines()

    [best] = [line for line in lines if line.startswith("Best of 2: digits/")]
    assert 0 <= float(best.rsplit(" ", 1)[1]) <= 1
    assert not any(line.startswith("Failed") for line in lines)


def test_the_example_of_bulk_work_embeds(digits_hub, tmp_path):
    """One data set is there, and one is not."""
    arguments = ["--data", DATA, "digits/nothing"]

    done = digits_hub.run(ROOT / "examples" / "ray_embed_many.py", arguments, tmp_path)
    lines = done.stdout.splitlines()

    assert any(line.startswith(f"{DATA}: 5 classes, standard error ") for line in lines)
    assert any(line.startswith("Failed: digits/nothing: ") for line in lines)
    assert any(re.fullmatch(rf"{DATA}: -?\d\.\d+", line) for line in lines)
    assert (tmp_path / "embeddings" / "digits--odd-chalk.safetensors").exists()
    assert list((tmp_path / "t2v" / "embeddings").glob("*.safetensors"))


def test_the_benchmark_of_bulk_work_finds_nothing_lost():
    """Its quick form kills workers and counts; nothing is timed."""
    command = [sys.executable, str(ROOT / "benchmarks" / "ray_embed.py"), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "| workers killed (SIGKILL) | 2 | 2 |" in done.stdout
    assert "| embeddings measured | 9 | 9 |" in done.stdout
