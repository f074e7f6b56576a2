"""scikit-learn: its own checks, its searches and pipelines on real checkpoints, and what goes wrong."""

import pickle
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.manifold import MDS
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import validate_data

from t2v_hub import Catalog, ModelSelector, Task2Vec
from t2v_hub.embedding import Layer
from t2v_hub.errors import (
    CheckpointError,
    DataError,
    EmbeddingMismatchError,
    EmptyCatalogError,
    ImageError,
    LabelError,
    SettingsError,
    SkippedCheckpointsWarning,
    SkippedImagesWarning,
)
from t2v_hub_integrations.sklearn import CheckpointClassifier, Task2VecTransformer

EXAMPLE = Path(__file__).parent.parent / "examples" / "sklearn_classifier.py"
# Skipped by scikit-learn itself unless the environment asks for it before anything is imported.
SKIPPED = {"check_array_api_input"}


class ClassifierOfRows(CheckpointClassifier):
    """Reads a row of a table as an image of one line, for checks that have nothing but tables."""

    def _items(self, X, *, reset):
        X = validate_data(self, X, reset=reset, ensure_min_samples=2 if reset else 1)
        return list(np.rint(127.5 * (1 + np.tanh(X / 3))).astype(np.uint8)[:, None, :])

    def __sklearn_tags__(self):
        return of_tables(super().__sklearn_tags__())


class TransformerOfRows(Task2VecTransformer):
    """Reads a row of a table as an embedding's logarithms; ``probe`` holds an embedding to be like."""

    def _items(self, X, *, reset):
        X = validate_data(self, X, reset=reset, dtype=np.float64)
        space = replace(self.probe.space, layers=(Layer("columns", X.shape[1]),))
        like = {"prior": np.ones(1), "space": space, "deviations": None}
        return [replace(self.probe, fisher=1e-5 * np.exp(np.clip(row, -20, 20)), **like) for row in X]

    def __sklearn_tags__(self):
        return of_tables(super().__sklearn_tags__())


def of_tables(tags):
    inputs = tags.input_tags
    inputs.two_d_array, inputs.one_d_array, inputs.three_d_array, inputs.string = True, False, False, False
    return tags


@pytest.fixture(scope="module")
def train(digits_pool):
    return list(digits_pool.train["image"]), names(digits_pool.train["label"])


@pytest.fixture(scope="module")
def test(digits_pool):
    return list(digits_pool.test["image"]), names(digits_pool.test["label"])


def names(labels):
    return np.array([("zero", "one", "two", "three", "four")[label] for label in labels])


@pytest.fixture(scope="module")
def catalog(digits_pool):
    return str(digits_pool.catalog)


@pytest.fixture
def classifier(digits_pool, catalog):
    return CheckpointClassifier(catalog, probe=digits_pool.probe)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Folder of a checkpoint that takes images of 16 pixels: the checks run it some 8,000 times."""
    from cli_data import save_probe
    from transformers import ViTImageProcessor

    folder = save_probe(tmp_path_factory.mktemp("small") / "small")
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


def failed(results):
    return {r["check_name"]: r["exception"] for r in results if r["status"] not in ("passed", "skipped")}


def skipped(results):
    return {r["check_name"] for r in results if r["status"] == "skipped"}


def test_the_classifier_passes_all_of_sklearns_checks(small):
    """They were made for tables; which pixels stand for a row is all that is added here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the checks' own odd labels and tables
        results = check_estimator(ClassifierOfRows(checkpoint=str(small), cache=False), on_fail=None)

    assert not failed(results)
    assert skipped(results) <= SKIPPED
    assert len(results) > 50


def test_the_transformer_passes_all_of_sklearns_checks(digits_pool):
    """Clones, names of columns, output as data frames, pickles: all as of any other transformer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(TransformerOfRows("symmetric", probe=digits_pool.target), on_fail=None)

    assert not failed(results)
    assert skipped(results) <= SKIPPED
    assert len(results) > 40


@pytest.mark.parametrize("estimator", [CheckpointClassifier(), Task2VecTransformer()])
def test_sklearn_skips_what_takes_no_tables_as_it_is(estimator):
    """Why the two tests above add a reading of rows: without it scikit-learn runs one check of fifty."""
    with pytest.warns(UserWarning, match="Can't test estimator"):
        results = check_estimator(estimator)

    assert [result["check_name"] for result in results] == ["check_estimator_cloneable"]


def test_the_first_of_the_ranking_is_loaded_and_predicts(classifier, digits_pool, train, test):
    """The whole: choose, load, fit a head, predict; with labels as they were given."""
    best = digits_pool.selector().rank().ranked[0]

    classifier.fit(*train)

    assert classifier.checkpoint_ == classifier.ranking_[0].candidate.id == best
    assert classifier.classes_.tolist() == ["four", "one", "three", "two", "zero"]
    assert classifier.failures_ == {}
    assert set(classifier.predict(test[0])) <= set(classifier.classes_)
    assert classifier.score(*test) > 0.3  # of five classes


def test_it_predicts_what_the_same_head_does_on_timms_own_features(digits_pool, train, test):
    """Features from another layer, or through another transform, would still predict something."""
    expert = digits_pool.experts["high-chalk"]
    model = timm.create_model(f"local-dir:{expert}", pretrained=True, num_classes=0).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    with torch.no_grad():
        rows = [
            model(torch.stack([transform(i.convert("RGB")) for i in part])).double().numpy()
            for part in (train[0], test[0])
        ]
    head = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000)).fit(rows[0], train[1])

    classifier = CheckpointClassifier(checkpoint=str(expert), C=0.1).fit(*train)

    np.testing.assert_allclose(classifier.predict_proba(test[0]), head.predict_proba(rows[1]), atol=1e-3)
    assert classifier.ranking_ is None


def test_the_same_seed_gives_the_same_bits(classifier, train, test):
    """Whatever order of images is asked for, and whether features were kept or not."""
    first = clone(classifier).fit(*train).predict_proba(test[0])
    uncached = clone(classifier).set_params(cache=False).fit(*train)

    np.testing.assert_array_equal(uncached.predict_proba(test[0]), first)
    np.testing.assert_array_equal(uncached.predict_proba(test[0][:7]), first[:7])


def test_a_random_state_decides_which_images_are_embedded(classifier, train):
    """It is the seed of all that is drawn; an instance gives a new one each time, as elsewhere."""
    few = classifier.set_params(max_samples=20, cache=False)

    def distance(random_state):
        return clone(few).set_params(random_state=random_state).fit(*train).ranking_[0].distance

    assert distance(1) == distance(1) != distance(2)
    assert distance(np.random.RandomState(3)) == distance(np.random.RandomState(3))


def test_pickles_hold_the_network(classifier, digits_pool, train, test, monkeypatch):
    """A classifier that was sent elsewhere must predict where the checkpoint is not."""
    fitted = classifier.set_params(cache=False).fit(*train)
    expected = fitted.predict_proba(test[0])
    content = pickle.dumps(fitted)
    monkeypatch.setattr("t2v_hub.features.reader.find_model", None)  # whoever looks for files fails

    np.testing.assert_array_equal(pickle.loads(content).predict_proba(test[0]), expected)


def test_cross_validation_chooses_on_each_training_part(digits_pool, train):
    """A choice that saw the test part's labels would make the score too good."""
    seen = []

    def select(data):
        seen.append(data)
        return ModelSelector(Catalog.load(digits_pool.catalog)).rank(
            Task2Vec(digits_pool.probe, max_samples=50, standard_error=False, progress=False).embed(data)
        )

    scores = cross_val_score(CheckpointClassifier(select), *train, cv=StratifiedKFold(2))

    assert scores.shape == (2,)
    assert [task.n_samples for task in seen] == [25, 25]
    assert [task.class_names for task in seen] == [("four", "one", "three", "two", "zero")] * 2
    assert seen[0].key != seen[1].key is not None


def test_a_grid_search_goes_over_checkpoints_and_penalties(digits_pool, train, test):
    """Both are ordinary parameters; processes get them as they are."""
    experts = [str(digits_pool.experts[name]) for name in ("low-chalk", "high-chalk")]
    grid = {"checkpoint": experts, "C": [0.01, 1.0]}

    search = GridSearchCV(CheckpointClassifier(), grid, cv=2, error_score="raise").fit(*train)

    assert len(search.cv_results_["params"]) == 4
    assert search.best_estimator_.checkpoint_ in experts
    assert search.score(*test) > 0.2


def test_a_head_of_ones_own_is_cloned_and_searched_through(digits_pool, train):
    """Any classifier of scikit-learn will do, with its parameters in reach of a search."""
    own = SVC()
    expert = str(digits_pool.experts["low-chalk"])
    search = GridSearchCV(CheckpointClassifier(checkpoint=expert, head=own), {"head__C": [0.1, 10.0]}, cv=2)

    search.fit(*train)

    assert isinstance(search.best_estimator_.head_, SVC)
    assert not hasattr(own, "support_")
    assert not hasattr(CheckpointClassifier(head=RidgeClassifier()), "predict_proba")
    assert hasattr(CheckpointClassifier(), "predict_proba")


def test_all_kinds_of_images_give_the_same(digits_pool, train, test, tmp_path):
    """Lists, arrays, paths, a column of a data set, a series of pandas."""
    pandas = pytest.importorskip("pandas")
    X, y = train
    paths = [str(tmp_path / f"{number}.png") for number in range(len(X))]
    for path, image in zip(paths, X, strict=True):
        image.save(path)
    arrays = np.stack([np.asarray(image.convert("RGB")) for image in X])
    fixed = CheckpointClassifier(checkpoint=str(digits_pool.experts["low-chalk"]))
    expected = clone(fixed).fit(X, y).predict_proba(X)
    series = pandas.Series(paths, index=np.arange(len(X))[::-1])

    for images in (arrays, arrays / 255, paths, np.array(paths), series, digits_pool.train["image"]):
        np.testing.assert_array_equal(clone(fixed).fit(images, y).predict_proba(images), expected)
    assert clone(fixed).fit(arrays, y).n_features_in_ == arrays[0].size
    assert not hasattr(clone(fixed).fit(X, y), "n_features_in_")  # images of a list may differ in size


def test_a_second_stage_can_choose(classifier, train):
    """With images at hand, loading a few candidates decides better than distances do."""
    classifier.set_params(refine=2, where={"library": "timm"}).fit(*train)

    assert classifier.ranking_.n_loaded == 2
    assert {item.candidate.library for item in classifier.ranking_} == {"timm"}
    assert classifier.checkpoint_ == classifier.ranking_.ranked[0]


def test_a_checkpoint_that_does_not_load_is_passed_over_and_named(digits_pool, train, tmp_path):
    """One that was deleted must not end an evening's search."""
    ranking = digits_pool.selector().rank()
    gone = str(tmp_path / "gone")
    broken = replace(ranking[0], candidate=replace(ranking[0].candidate, id=gone))
    ranking = replace(ranking, items=(broken, *ranking.items[1:]))

    with pytest.warns(SkippedCheckpointsWarning, match="Candidates that stand before .* passed over: .*gone"):
        fitted = CheckpointClassifier(ranking).fit(*train)

    assert fitted.checkpoint_ == ranking.ranked[1]
    assert list(fitted.failures_) == [gone]
    assert "There is no network at" in fitted.failures_[gone]
    with pytest.raises(CheckpointError, match="None of the 1 candidates loads: .*There is no network"):
        CheckpointClassifier(ranking[:1]).fit(*train)
    with pytest.raises(CheckpointError, match="Cannot load checkpoint .*gone"):
        CheckpointClassifier(checkpoint=gone).fit(*train)


def test_a_catalog_knows_more_of_a_given_checkpoint(digits_pool, catalog, train, tmp_path):
    """Its commit and its library; a checkpoint that the catalog does not have is taken by its name."""
    expert = digits_pool.experts["low-chalk"]  # of transformers
    wrong = Catalog(tmp_path / "catalog")
    wrong.add(replace(Catalog.load(catalog)[str(expert)], library="timm", embeddings=()))

    with pytest.raises(
        CheckpointError, match="is a transformers checkpoint, not one of timm as its candidate"
    ):
        CheckpointClassifier(wrong, checkpoint=str(expert)).fit(*train)
    other = digits_pool.experts["high-chalk"]
    assert CheckpointClassifier(wrong, checkpoint=other).fit(*train).checkpoint_ == str(other)


def test_damaged_images_are_left_out_of_the_fit_but_not_of_predictions(digits_pool, train):
    """A few in a thousand always are; a prediction per image there must be."""
    X, y = [*train[0][:-1], b"no image"], train[1]
    fixed = CheckpointClassifier(checkpoint=str(digits_pool.experts["low-chalk"]))

    with pytest.warns(SkippedImagesWarning, match="1 of 50 images could not be decoded"):
        fixed.fit(X, y)

    with pytest.raises(ImageError, match="The first: image 49: cannot identify"):
        fixed.predict(X)
    with pytest.raises(ImageError, match="Too many images cannot be decoded"):
        fixed.fit([b""] * 3 + X[3:], y)


@pytest.mark.parametrize(
    ("X", "y", "error", "message"),
    [
        ("a.png", ["a"], DataError, r"X must be a list of images .* got str"),
        (None, ["a"], DataError, r"X must be a list of images .* got NoneType"),
        (
            np.zeros((4, 64)),
            list("aabb"),
            DataError,
            r"shape \(4, 64\), which is no array of images. Reshape",
        ),
        (np.zeros((4, 8, 8)), None, LabelError, "requires y to be passed, but the target y is None"),
        (
            np.zeros((4, 8, 8)),
            list("aab"),
            LabelError,
            "one label per image: Found input variables with incon",
        ),
        (np.zeros((4, 8, 8)), [0.1, 0.2, 0.3, 0.4], LabelError, "Unknown label type: continuous"),
        (np.zeros((4, 8, 8)), [0, 1, np.nan, 1], LabelError, "one label per image: Input y contains NaN"),
        (
            np.zeros((4, 8, 8)),
            list("aaaa"),
            LabelError,
            "All 4 images are of one class, 'a'; wanted at least",
        ),
        (np.zeros((0, 8, 8)), [], ImageError, "There is no image; wanted at least one"),
        (np.full((4, 8, 8), -3.0), list("aabb"), DataError, "values from -3 to -3; wanted 0 to 1"),
    ],
)
def test_what_cannot_be_fitted_on_is_refused(X, y, error, message):
    """What is wrong is said before anything is loaded or embedded."""
    with pytest.raises(error, match=message):
        CheckpointClassifier(checkpoint="nobody/nothing").fit(X, y)


def test_options_that_cannot_work_are_refused(train, tmp_path):
    """Rather than ignored in silence."""
    with pytest.raises(SettingsError, match="taken as it is, and refine=2 would compare"):
        CheckpointClassifier(checkpoint="a/b", refine=2).fit(*train)
    with pytest.raises(SettingsError, match="Wanted a Ranking, or a ModelSelector"):
        CheckpointClassifier(3).fit(*train)
    with pytest.raises(EmptyCatalogError, match="no candidate"):
        CheckpointClassifier(tmp_path / "empty").fit(*train)
    with pytest.raises(NotFittedError):
        CheckpointClassifier().predict(train[0])


def test_the_example_compares_the_choice_with_chance_and_pixels(digits_hub, tmp_path):
    """What a reader copies must run as it stands."""
    from digits_pool import DATA

    done = digits_hub.run(EXAMPLE, ["--data", DATA, "--others", "2"], tmp_path)

    lines = done.stdout.splitlines()
    assert sum(line.startswith("random: digits/") for line in lines) == 2
    assert any(line.startswith("chosen: digits/") for line in lines)
    assert lines[-1].startswith("raw pixels: accuracy ")


@pytest.fixture
def transformer(digits_pool):
    return Task2VecTransformer(probe=digits_pool.probe, max_samples=50)


def test_data_sets_become_rows_that_embeddings_give_too(transformer, digits_pool):
    """A row must be the embedding that `Task2Vec` measures, whatever it was made from."""
    tasks = [digits_pool.train, digits_pool.test]
    task2vec = Task2Vec(digits_pool.probe, max_samples=50, standard_error=False, progress=False)
    embeddings = [task2vec.embed(task) for task in tasks]

    rows = transformer.set_params(coordinates="fisher").fit_transform(tasks)

    np.testing.assert_allclose(rows, [embedding.fisher for embedding in embeddings], rtol=1e-4)
    mixed = transformer.fit([embeddings[0], tasks[1]]).transform([embeddings[0], tasks[1]])
    np.testing.assert_allclose(mixed, rows, rtol=1e-4)
    assert transformer.fit(embeddings).task2vec_ is None
    np.testing.assert_allclose(transformer.transform(tasks), rows, rtol=1e-4)  # made for the space then


def test_columns_are_named_by_their_filters(transformer, digits_pool):
    """So that a component of PCA can be read."""
    transformer.fit([digits_pool.target])
    space = digits_pool.target.space

    columns = transformer.get_feature_names_out()

    assert len(columns) == len(set(columns)) == space.n_filters
    assert columns[0] == f"{space.layers[0].name}[0]"
    assert columns[-1] == f"{space.layers[-1].name}[{space.layers[-1].n_filters - 1}]"


def test_it_works_in_pipelines_and_manifolds(digits_pool):
    """Rows that scikit-learn cannot use would be of no use: sources of one style lie together."""
    names = list(digits_pool.sources)
    tasks = [digits_pool.sources[name] for name in names]
    styles = np.array([name.partition("-")[2] for name in names])

    clusters = make_pipeline(
        Task2VecTransformer(), PCA(n_components=4, random_state=0), KMeans(3, n_init=10, random_state=0)
    ).fit_predict(tasks)
    places = MDS(2, random_state=0, n_init=1, init="random").fit_transform(
        Task2VecTransformer().fit_transform(tasks)
    )

    assert places.shape == (6, 2)
    assert np.isfinite(places).all()
    assert len(set(clusters)) == 3
    assert all(len(set(clusters[styles == style])) == 1 for style in set(styles))


def test_a_transformer_can_be_cloned_changed_and_sent(transformer, digits_pool):
    """Searches do all three."""
    changed = clone(transformer).set_params(coordinates="symmetric", max_samples=20)
    fitted = changed.fit([digits_pool.train])

    again = pickle.loads(pickle.dumps(fitted))

    np.testing.assert_array_equal(again.transform([digits_pool.train]), fitted.transform([digits_pool.train]))
    assert clone(fitted).get_params() == fitted.get_params()
    assert not hasattr(clone(fitted), "space_")


def test_a_data_set_that_fails_is_named_by_its_place(transformer, digits_pool, tmp_path):
    """A row cannot be missing, and of a hundred data sets nobody finds the one by its reason."""
    one_class = digits_pool.train.filter(lambda label: label == 1, input_columns="label")
    tasks = [digits_pool.train, one_class, digits_pool.test, str(tmp_path / "nowhere")]

    with pytest.raises(
        LabelError, match=r"2 of 4 data sets cannot be embedded: X\[1\]: .*; X\[3\]: "
    ) as caught:
        transformer.fit(tasks).transform(tasks)

    assert "A row cannot be missing: repair them or leave them out" in str(caught.value)
    with pytest.raises(LabelError, match=r"1 of 2 data sets cannot be embedded: X\[0\]"):
        transformer.fit([one_class, digits_pool.train])


def test_an_embedding_of_another_space_is_named_by_its_place(transformer, digits_pool):
    """Its columns would mean other filters."""
    strange = replace(digits_pool.target, space=replace(digits_pool.target.space, beta=1.0))

    with pytest.raises(EmbeddingMismatchError, match=r"X\[1\] is not in the space of the others. .*beta"):
        transformer.fit([digits_pool.target]).transform([digits_pool.target, strange])


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ([], "at least one; got nothing in it"),
        ("org/name", r"got str. Wrap a single one: \[X\]"),
        (np.zeros((3, 2)), r"got an array of shape \(3, 2\)"),
        ({"a": 1}, "got dict"),
    ],
)
def test_what_is_no_list_of_data_sets_is_refused(transformer, X, message):
    """A single data set would be read as a list of its rows."""
    with pytest.raises(SettingsError, match=message):
        transformer.fit(X)


def test_unknown_coordinates_are_refused(digits_pool):
    """As any option that only some values allow."""
    with pytest.raises(SettingsError, match="coordinates must be one of relative, .*, fisher; got 'log'"):
        Task2VecTransformer("log").fit([digits_pool.target])
    with pytest.raises(SettingsError, match="got Dataset. Wrap a single one"):
        Task2VecTransformer().fit(digits_pool.train)
    with pytest.raises(NotFittedError):
        Task2VecTransformer().transform([digits_pool.target])


@pytest.mark.parametrize("module", ["sklearn", "timm"])
@pytest.mark.parametrize("broken", [False, True])
def test_an_absent_tool_is_named_and_a_broken_one_is_not_hidden(module, broken):
    """Only the first is cured by installing it."""
    code = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name == "{module + ".base" if broken and module == "sklearn" else module}":
            raise ModuleNotFoundError("No module named 'x'", name="{"joblib" if broken else module}")
sys.meta_path.insert(0, Absent())
import t2v_hub_integrations.{module}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    if broken:
        assert "MissingDependencyError" not in done.stderr
        assert "ModuleNotFoundError: No module named 'x'" in done.stderr
    else:
        assert f"MissingDependencyError: This needs {module}, which is not installed" in done.stderr
        assert f"pip install 't2v-hub[{module}]'" in done.stderr
