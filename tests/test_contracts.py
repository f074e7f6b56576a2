"""The contract tests for plug-ins: what t2v_hub has itself passes, and each defect is caught."""

import itertools
import random
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import make_embedding, make_space
from plugin_site import EXAMPLE
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestCentroid
from torch import nn

from t2v_hub import Candidate, Catalog, Preprocessing, ProbeNetwork
from t2v_hub.errors import LabelError
from t2v_hub.scores import BUILT_IN_SCORES, Score, leep, logme, ridge_loss
from t2v_hub.testing import TINY, TinyNetwork, check_catalog, check_probe, check_score, tiny_probe
from t2v_hub.testing.contracts import randomness_kept

# Scores


@pytest.mark.parametrize("name", BUILT_IN_SCORES)
def test_our_own_scores_keep_the_contract(name):
    """Nothing is asked of a stranger's that ours do not do; `logistic_loss` divides images into folds."""
    check_score(BUILT_IN_SCORES[name], any_order=name != "logistic_loss")


def test_folds_go_by_the_order_of_images():
    with pytest.raises(
        AssertionError, match="'logistic_loss' gave .* images in another order. .* any_order=F"
    ):
        check_score(BUILT_IN_SCORES["logistic_loss"])


CALLS = []


def counting(x, y):
    CALLS.append(0)
    return logme(x, y) + 1e-9 * len(CALLS)


def of_codes(x, y):
    return logme(x, y) + y.mean() * y[0]


def of_the_first(x, y):
    return logme(x, y) + x[0, 0]


def in_place(x, y):
    x -= x.mean(axis=0)
    return -ridge_loss(x, y)


def sorting(x, y):
    value = logme(x, y)
    y.sort()
    return value


def seeding(x, y):
    np.random.seed(0)
    return logme(x, y) + np.random.normal()


def drawing(x, y):
    return logme(x, y) + 0 * random.random()


def torch_seeding(x, y):
    torch.manual_seed(3)
    return logme(x, y)


def undefined_if_constant(x, y):
    with np.errstate(invalid="ignore", divide="ignore"):
        return -ridge_loss(x, y) + 0 * float(np.mean(x / x.std(axis=0)))


def overflowing(x, y):
    with np.errstate(over="ignore", invalid="ignore"):
        return logme(x, y) + 0 * float(np.square(np.square(x)).sum())


def failing_on_few(x, y):
    if len(x) < 3:
        raise ZeroDivisionError("too few")
    return logme(x, y)


SCORES = {
    "no score": (logme, "is no score: it must be a t2v_hub.scores.Score, not function"),
    "not like ours": (
        Score("logme", lambda x, y: 1.0, "features", "linear", ""),
        "has a score 'logme' itself",
    ),
    "combined": (Score("combined", logme, "features", "linear", ""), "has a score 'combined' itself"),
    "no name": (Score("a b", logme, "features", "linear", ""), "'a b' is no name for a plug-in"),
    "needs": (Score("mine", logme, "images", "linear", ""), "its needs must be one of features, predictions"),
    "counting": (counting, "and then .* for the same features and labels. Seed what is random in it"),
    "codes": (of_codes, "when the classes had other numbers"),
    "order": (of_the_first, "for the same images in another order"),
    "in place": (in_place, "changed the features or the labels that it was given. Work on a copy"),
    "labels in place": (sorting, "changed the features or the labels that it was given"),
    "seeding": (seeding, "The score 'mine' draws from, or seeds, random numbers that belong to the whole"),
    "drawing": (drawing, "draws from, or seeds, random numbers"),
    "torch": (torch_seeding, "draws from, or seeds, random numbers"),
    "direction": (
        ridge_loss,
        "for classes that lie apart and .* for noise; larger_is_better=True claims the",
    ),
    "constant": (undefined_if_constant, "gave nan for (equal images|features that are all 0)"),
    "huge": (overflowing, "gave nan for features of size 1e99; wanted a finite number, or a T2VError"),
    "few": (failing_on_few, "fails for two images: ZeroDivisionError: too few"),
    "arguments": (lambda x: 1.0, "fails for ordinary values: TypeError"),
    "array": (lambda x, y: np.array([logme(x, y)]), r"gave array\(.* for ordinary values; wanted a finite"),
}


@pytest.mark.parametrize("defect", SCORES)
def test_a_defect_of_a_score_is_caught(defect):
    """Each in the words of what is to be mended."""
    function, message = SCORES[defect]
    given = function
    if defect != "no score" and not isinstance(function, Score):
        given = Score("mine", function, "features", "linear", "")

    with pytest.raises(AssertionError, match=message):
        check_score(given)


def test_a_score_may_refuse_what_has_no_value():
    """With an error of ours, which a ranking names; but not what every task is like."""

    def careful(x, y):
        if len(x) < 20:
            raise LabelError("Wanted 20 images.")
        return logme(x, y)

    def refusing(x, y):
        raise LabelError("No.")

    check_score(Score("mine", careful, "features", "linear", ""))
    with pytest.raises(AssertionError, match="fails for ordinary values: LabelError: No."):
        check_score(Score("mine", refusing, "features", "linear", ""))


def test_a_score_of_predictions_is_given_probabilities():
    """And at the edges those of one source class, and certain ones."""
    seen = []

    def recording(p, y):
        seen.append(p)
        return leep(p, y)

    check_score(Score("mine", recording, "predictions", "linear", ""))

    for p in seen:
        np.testing.assert_allclose(p.sum(axis=1), 1)
    assert {1, 9} <= {p.shape[1] for p in seen}


# Probes


class Random(TinyNetwork):
    def forward(self, images):
        return super().forward(images + 0.1 * torch.rand(1))


class OfTheBatch(TinyNetwork):
    def forward(self, images):
        return super().forward(images - images.mean(dim=0))


class Constant(TinyNetwork):
    def forward(self, images):
        return super().forward(0 * images)


class Detached(TinyNetwork):
    def forward(self, images):
        with torch.no_grad():
            hidden = torch.tanh(self.hidden(torch.tanh(self.conv2(self.conv1(images))).mean(dim=(2, 3))))
        return self.head(hidden)


class Flat(TinyNetwork):
    def forward(self, images):
        hidden = self.hidden(torch.tanh(self.conv2(self.norm(self.conv1(images)))).mean(dim=(2, 3)))
        return self.head(torch.round(100 * hidden))


class RandomGradients(TinyNetwork):
    def forward(self, images):
        return super().forward(images + 0.1 * torch.rand(1) * torch.is_grad_enabled())


class Infinite(TinyNetwork):
    def forward(self, images):
        return super().forward(images / 0)


def tiny(network):
    return ProbeNetwork.load(network, head="head", preprocessing=TINY)


def new_weights(location):
    return tiny(TinyNetwork(seed=int(np.random.default_rng().integers(1 << 30))))


SIDES = itertools.cycle((16, 24))


def another_size(location):
    side = next(SIDES)
    return ProbeNetwork.load(TinyNetwork(), preprocessing=Preprocessing(size=(side, side), resize=side))


def not_finite(location):
    network = TinyNetwork()
    probe = tiny(network)
    network.conv1.weight.data[0] = float("nan")
    return probe


def of_half(location):
    torch.set_default_dtype(torch.float64)
    return tiny_probe()


def without_gradients(location):
    torch.set_grad_enabled(False)
    return tiny_probe()


def numpy_seeding(location):
    np.random.seed(0)
    return tiny_probe()


PROBES = {
    "text": (lambda location: location, "gives no probe: ProbeError: .* must give a ProbeNetwork"),
    "fails": (lambda location: 1 / 0, "gives no probe: ProbeError: .* ZeroDivisionError"),
    "no weights": (
        lambda location: nn.Identity(),
        "gives no probe: ProbeError: 'Identity' has no parameters",
    ),
    "other weights": (new_weights, "gave other weights when it was loaded again"),
    "other size": (another_size, "gave another preprocessing, head or other filters"),
    "not finite": (not_finite, "gives no probe: WeightsError: .* are NaN or infinite"),
    "random": (lambda location: tiny(Random()), "gave other features for the same images"),
    "of the batch": (lambda location: tiny(OfTheBatch()), "hang on the other images in the batch"),
    "constant": (lambda location: tiny(Constant()), "are the same for different images"),
    "detached": (lambda location: tiny(Detached()), "gives no probe: ProbeError: .* does not require grad"),
    "flat": (lambda location: tiny(Flat()), "All filters of 'here' have Fisher information 0"),
    "random gradients": (
        lambda location: tiny(RandomGradients()),
        "Embedding one data set twice with 'here'",
    ),
    "infinite": (lambda location: tiny(Infinite()), "Features of 'here' are not finite"),
    "type": (of_half, "changed torch's default type and whether gradients are on"),
    "gradients": (without_gradients, "changed torch's default type and whether gradients are on"),
    "seeding": (numpy_seeding, "Loading 'here' draws from, or seeds, random numbers"),
}


@pytest.fixture
def _torch_as_it_was():
    dtype = torch.get_default_dtype()
    yield
    torch.set_default_dtype(dtype)
    torch.set_grad_enabled(True)


@pytest.mark.parametrize(
    "load", [lambda location: tiny_probe(), lambda location: TinyNetwork()], ids=["probe", "module"]
)
def test_our_own_probe_keeps_the_contract(load):
    """As a `ProbeNetwork`, and as a network that sees 224 pixels."""
    check_probe(load, "here")


@pytest.mark.usefixtures("_torch_as_it_was")
@pytest.mark.filterwarnings("ignore::t2v_hub.errors.SlowPathWarning")
@pytest.mark.parametrize("defect", PROBES)
def test_a_defect_of_a_probe_is_caught(defect):
    load, message = PROBES[defect]

    with pytest.raises(AssertionError, match=message):
        check_probe(load, "here")


# Catalogs


@pytest.fixture
def folder(tmp_path):
    """A catalog of three candidates in two spaces, one of them without an embedding."""
    catalog = Catalog(tmp_path / "catalog")
    rng = np.random.default_rng(0)
    for number, space in enumerate((make_space(), make_space(beta=1e-7))):
        values = rng.uniform(1, 2, space.n_filters).astype(np.float32)
        embedding = make_embedding(values, space=space, task=f"task{number}")
        catalog.add(Candidate(f"org/net{number}"), embedding=embedding)
    catalog.add(Candidate("org/unknown", parameters=7))
    return tmp_path / "catalog"


def test_our_own_catalog_keeps_the_contract(folder):
    check_catalog(Catalog.load, str(folder))


class Doubled(Catalog):
    def __iter__(self):
        yield from super().__iter__()
        yield self["org/net0"]


class Stranger(Catalog):
    def __iter__(self):
        yield "org/net0"


class Miscounted(Catalog):
    def __len__(self):
        return 17


class Lost(Catalog):
    def __getitem__(self, id):
        return super().__getitem__("org/net0")


class Absent(Catalog):
    def __contains__(self, id):
        return id != "org/net1"


class Forgetful(Catalog):
    def matrix(self, space):
        return super().matrix(make_space(beta=0.5))


class Dwindling(Catalog):
    times = 0

    def __iter__(self):
        type(self).times += 1
        yield from (one for one in super().__iter__() if self.times < 8 or one.id != "org/unknown")


def emptied(location):
    catalog = Catalog(location)
    for id in [candidate.id for candidate in catalog]:
        catalog.remove(id)
    return catalog


def growing(location):
    catalog = Catalog(location)
    catalog.add(Candidate(f"org/new{len(catalog)}"))
    return catalog


def better_known(location):
    catalog = Catalog(location)
    old = catalog["org/unknown"].parameters
    catalog.add(Candidate("org/unknown", parameters=old + 1))
    return catalog


def without_embeddings(location):
    catalog = Catalog(location)
    for id in ("org/net0", "org/net1"):
        if id in catalog:
            catalog.remove(id)
    return catalog


def damaged(location):
    for path in (Path(location) / "embeddings").iterdir():
        path.write_bytes(b"nothing")
    return Catalog(location)


def shuffling(location):
    random.shuffle([1, 2, 3])
    return Catalog(location)


CATALOGS = {
    "text": (lambda location: location, "gives no catalog: CatalogError: .* must give a Catalog, not a str"),
    "fails": (lambda location: 1 / 0, "gives no catalog: CatalogError: .* ZeroDivisionError"),
    "empty": (emptied, "has no candidate"),
    "stranger": (Stranger, "which is no Candidate"),
    "doubled": (Doubled, r"more than one candidate of the ids \['org/net0'\]"),
    "miscounted": (Miscounted, "is 17, and it holds 3 candidates"),
    "lost": (Lost, "holds 'org/net1', and finds Candidate.* by that id"),
    "absent": (Absent, "holds 'org/net1', and `in` denies it"),
    "growing": (growing, "had other candidates when it was opened again: .'org/new4'"),
    "other facts": (better_known, "had other candidates when it was opened again: .'org/unknown'"),
    "unmeasured": (without_embeddings, "No candidate of .* has an embedding"),
    "damaged": (damaged, "An embedding of 'org/net0' in .* cannot be read: EmbeddingFileError"),
    "forgetful": (Forgetful, "cannot be ranked for 'task.': KeyError"),
    "dwindling": (Dwindling, "Two rankings of .* differ. The catalog must stay as it was opened"),
    "shuffling": (shuffling, "draws from, or seeds, random numbers"),
}


@pytest.mark.parametrize("defect", CATALOGS)
def test_a_defect_of_a_catalog_is_caught(defect, folder):
    opens, message = CATALOGS[defect]

    with pytest.raises(AssertionError, match=message):
        check_catalog(opens, str(folder))


# The example


def test_the_example_keeps_its_contracts(tmp_path, monkeypatch):
    """By the tests that stand beside it, which whoever copies it copies, too."""
    monkeypatch.syspath_prepend(EXAMPLE)
    tests = import_module("test_t2v_hub_lab")

    tests.test_score()
    tests.test_probe(tmp_path)
    tests.test_catalog(tmp_path)

    assert Path(tests.__file__).parent == EXAMPLE


@pytest.mark.filterwarnings("ignore:self.within_class_std_dev_")
def test_the_example_score_is_what_it_says(monkeypatch):
    """Against scikit-learn's nearest centroid, fitted without each image."""
    monkeypatch.syspath_prepend(EXAMPLE)
    x, labels = load_digits(return_X_y=True)
    x, labels = x[:80], labels[:80]
    others = [np.arange(80) != i for i in range(80)]

    value = import_module("t2v_hub_lab").centroid_accuracy(x, labels)

    hits = [NearestCentroid().fit(x[o], labels[o]).predict(x[~o]) == labels[~o] for o in others]
    assert value == pytest.approx(np.mean(hits))


def test_the_example_is_short():
    """Who reads it should see what a plug-in is, not what this one does."""
    source = (EXAMPLE / "t2v_hub_lab.py").read_text(encoding="utf-8")

    assert sum(1 for line in source.splitlines() if line.strip()) < 60


def test_a_score_may_be_the_first_to_import_torch(monkeypatch):
    """Inside its function, so that who ranks by distance need not wait; before, its generator is nobody's."""
    torch = sys.modules["torch"]
    monkeypatch.delitem(sys.modules, "torch")

    with randomness_kept("a score"):
        sys.modules["torch"] = torch

    with pytest.raises(AssertionError, match="a score draws from"), randomness_kept("a score"):
        torch.rand(1)
