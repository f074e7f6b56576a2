"""Bulk work by an executor: what is sent, what comes back, and what is said where that cannot be."""

import pickle
import warnings
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
from elsewhere import Elsewhere

from t2v_hub import Executor, Task2Vec
from t2v_hub.errors import (
    DataNotFoundError,
    FewImagesWarning,
    MissingDependencyError,
    PlugInWarning,
    SettingsError,
    WorkerError,
)
from t2v_hub.executors import make_executor, results
from t2v_hub.testing import TINY, TinyNetwork, tiny_task


def embedder(**settings):
    return Task2Vec(TinyNetwork(), preprocessing=TINY, **{"cache": False, "progress": False, **settings})


def same(ours, theirs):
    return (
        ours.fisher.tobytes() == theirs.fisher.tobytes()
        and ours.deviations.tobytes() == theirs.deviations.tobytes()
        and ours.task == theirs.task
        and ours.space == theirs.space
        and repr(ours.measurement) == repr(theirs.measurement)  # a tolerance of NaN is none
    )


def test_an_executor_gives_what_embed_gives_in_the_order_of_the_tasks():
    """Whoever moves work to a cluster must not get other vectors; large and small tasks alike."""
    tasks = {"large": tiny_task(44), "small": tiny_task(6, seed=1), "two": tiny_task(8, 2, seed=2)}

    done = embedder().embed_many(tasks, executor=Elsewhere())

    assert not done.failures
    assert list(done.embeddings) == ["large", "small", "two"]
    for name, task in tasks.items():
        assert same(done.embeddings[name], embedder().embed(task, name=name))


def test_all_settings_travel():
    """A worker that measured with defaults would give vectors of another space, or of another precision."""
    settings = {
        "estimator": "exact", "max_samples": 20, "seed": 5, "dtype": "float64", "filters": ["conv*"]
    }  # fmt: skip
    tasks = {"a": tiny_task(12), "b": tiny_task(9, seed=4)}

    done = embedder(**settings).embed_many(tasks, executor=Elsewhere())

    for name, task in tasks.items():
        alone = embedder(**settings).embed(task, name=name)
        assert same(done.embeddings[name], alone)
        assert alone.measurement.n_samples == 20


def test_options_of_the_data_travel():
    """Columns with names of their own would not be found."""
    task = tiny_task().rename_columns({"image": "photo", "label": "kind"})

    done = embedder().embed_many({"a": task}, executor=Elsewhere(), image_column="photo", label_column="kind")

    assert done.embeddings["a"].task.label_column == "kind"


def test_the_probe_can_be_sent_after_it_was_used():
    """Hooks and copies on a device belong to this process."""
    used = embedder()
    first = used.embed(tiny_task(), name="a")

    done = used.embed_many({"a": tiny_task()}, executor=Elsewhere())

    assert same(done.embeddings["a"], first)


def test_what_was_measured_elsewhere_is_in_the_cache_here(tmp_path, monkeypatch):
    """The folder stays the same one for a worker with another working folder."""
    monkeypatch.chdir(tmp_path)
    here = embedder(cache="cache")

    class InAnotherFolder(Elsewhere):
        def map(self, function, items):
            Path("elsewhere").mkdir()
            sent = pickle.dumps(function)
            monkeypatch.chdir("elsewhere")
            yield from super().map(pickle.loads(sent), items)

    here.embed_many({"a": tiny_task()}, executor=InAnotherFolder())

    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 1
    assert not list((tmp_path / "elsewhere").iterdir())


def test_failures_are_named_and_the_others_go_on(tmp_path):
    """Bad data, and work that was lost with its worker, are told by their messages."""
    tasks = {
        "absent": str(tmp_path / "nothing"),
        "good": tiny_task(),
        "lost": tiny_task(),
        "also": tiny_task(6),
    }

    done = embedder().embed_many(tasks, executor=Elsewhere(lost=[2]))

    assert list(done.embeddings) == ["good", "also"]
    assert list(done.failures) == ["absent", "lost"]
    assert isinstance(done.failures["absent"], DataNotFoundError)
    with pytest.raises(WorkerError, match="lost with its worker"):
        raise done.failures["lost"]


def test_warnings_of_workers_are_given_here():
    """In the log of a worker nobody would read them."""
    with pytest.warns(FewImagesWarning, match="2 of 3 classes of 'tiny' have one image"):
        embedder(max_samples=4).embed_many({"tiny": tiny_task()}, executor=Elsewhere())


def speak(item):
    warnings.warn("deprecated somewhere", DeprecationWarning, stacklevel=1)
    return item


def test_warnings_of_others_are_left_where_they_are():
    """They are about the worker's installation, and lines of its files; there they are given, once."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        done = list(results(Elsewhere(), speak, ["x"]))

    assert done == [(0, "x")]
    assert [(one.category, one.filename) for one in caught] == [(DeprecationWarning, __file__)]


def explode(item):
    raise ZeroDivisionError(f"a mistake in the code, {item}")


def test_a_mistake_in_the_code_is_raised_and_ends_the_work():
    """Only errors of ours are outcomes; all else would be found too late."""
    elsewhere = Elsewhere()

    with pytest.raises(ZeroDivisionError, match="a mistake"):
        list(results(elsewhere, explode, [1]))

    assert elsewhere.closed


def test_who_stops_looking_gives_up_the_work():
    """An interrupted call must not leave a cluster at work."""
    elsewhere = Elsewhere()
    some = results(elsewhere, str, [1, 2, 3])
    assert next(some) == (2, "3")

    some.close()

    assert elsewhere.closed


def test_no_tasks_are_no_work():
    """A filter may leave none."""
    done = embedder().embed_many({}, executor=Elsewhere())

    assert (done.embeddings, done.failures) == ({}, {})


def offered(monkeypatch, *entries):
    made = [EntryPoint(name, value, "t2v_hub.executors") for name, value in entries]
    monkeypatch.setattr("t2v_hub.plugins.entry_points", lambda group: [e for e in made if e.group == group])


def test_an_executor_is_found_by_the_name_of_its_entry_point(monkeypatch):
    """Other packages bring others."""
    offered(monkeypatch, ("elsewhere", "elsewhere:Elsewhere"))

    assert isinstance(make_executor("elsewhere"), Elsewhere)
    assert isinstance(make_executor("elsewhere"), Executor)


def test_an_unknown_executor_is_refused_with_the_known_ones(monkeypatch):
    """The name is a user's, and misspelt; nothing is embedded, or loaded, before that is said."""
    offered(monkeypatch, ("rex", "no_such_module:Rex"), ("dusk", "no_such_module:Dusk"))

    with pytest.raises(
        SettingsError, match="There is no executor 'ray'; installed packages have 'dusk', 'rex'"
    ):
        embedder().embed_many({"a": tiny_task()}, executor="ray")


def test_without_any_executor_that_is_said(monkeypatch):
    offered(monkeypatch)

    with pytest.raises(SettingsError, match="installed packages have none"):
        make_executor("ray")


def test_an_executor_that_does_not_load_says_why(monkeypatch):
    """Who asks for it by name is not helped by a warning that it is left out."""
    offered(monkeypatch, ("broken", "no_such_module:Broken"), ("fails", f"{__name__}:needs_luck"))

    with pytest.raises(
        SettingsError, match="'broken' cannot be loaded: ModuleNotFoundError: No module named 'no"
    ):
        make_executor("broken")
    with pytest.raises(SettingsError, match="'fails' cannot be made: RuntimeError: no luck"):
        make_executor("fails")


def needs_luck():
    raise RuntimeError("no luck")


class Dist:
    def __init__(self, name):
        self.name = name


def test_ours_is_not_replaced_by_another_of_its_name(monkeypatch):
    """A package that sorts before ours would else take all work that is meant for ours."""
    entries = [
        EntryPoint("ray", value, "t2v_hub.executors")._for(Dist(package))
        for package, value in (("a-package", "no_such_module:Rex"), ("t2v-hub", "elsewhere:Elsewhere"))
    ]
    monkeypatch.setattr("t2v_hub.plugins.entry_points", lambda group: entries)

    with pytest.warns(PlugInWarning, match="'ray' of a-package .* another package has one of this name"):
        made = make_executor("ray")

    assert isinstance(made, Elsewhere)


def needs_ray():
    raise MissingDependencyError("This needs ray, which is not installed: pip install 't2v-hub[ray]'.")


def test_what_an_executor_lacks_is_said(monkeypatch):
    offered(monkeypatch, ("lacking", f"{__name__}:needs_ray"))

    with pytest.raises(MissingDependencyError, match=r"pip install 't2v-hub\[ray\]'"):
        make_executor("lacking")


@pytest.mark.parametrize("wrong", [4, object(), Elsewhere], ids=["a number", "an object", "a class"])
def test_what_is_no_executor_is_refused(wrong):
    """A number of workers is what one would try."""
    with pytest.raises(SettingsError, match=r"An executor has a method map\(function, items\)"):
        embedder().embed_many({"a": tiny_task()}, executor=wrong)


def test_here_is_the_default():
    """Nothing is sent anywhere by those who do not ask for it; small tasks go on sharing their passes."""
    tasks = {"a": tiny_task(6), "b": tiny_task(5, seed=2)}

    here, explicit = embedder().embed_many(tasks), embedder().embed_many(tasks, executor=None)

    for name in tasks:
        assert same(here.embeddings[name], explicit.embeddings[name])
        np.testing.assert_allclose(
            here.embeddings[name].fisher, embedder().embed(tasks[name]).fisher, rtol=1e-5, atol=1e-9
        )
