"""`rank(..., refine=k)` with real networks on real digits, from folders and from a Hub."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from checkpoints import broken, digits, save_checkpoint, save_headless
from error_tables import results_of
from factories import make_catalog, make_embedding, make_space
from huggingface_hub import constants
from scipy.stats import ttest_rel

from t2v_hub.catalog import Candidate, Catalog, Result
from t2v_hub.data import load
from t2v_hub.errors import LabelError, SettingsError
from t2v_hub.features import reader
from t2v_hub.hub import push_embedding
from t2v_hub.probe import Preprocessing
from t2v_hub.scores import logistic_loss, logme, ridge_accuracy, ridge_loss, ridge_outcomes
from t2v_hub.selector import AutoSelector, Experience, Loading, ModelSelector
from t2v_hub.testing import tiny_task

SPACE = make_space(40)
TARGET = make_embedding(seed=99, space=SPACE, n_filters=40, task="digits", n_groups=8)
QUIET = Loading(device="cpu", progress=False)
HALF = Preprocessing(size=(32, 32), resize=32, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)


def source(seed, away=0.1):
    """An embedding that is the farther from `TARGET` the larger ``away`` is."""
    moved = np.random.default_rng(seed).normal(0, 1, 40)
    return make_embedding(TARGET.fisher * np.exp(away * moved), seed=seed, space=SPACE, task=f"source{seed}")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Four checkpoints of random weights: features of random weights tell digits apart, too."""
    root = tmp_path_factory.mktemp("checkpoints")
    libraries = ("timm", "transformers", "timm", "timm")
    return [str(save_checkpoint(root / f"net{i}", library, seed=i)) for i, library in enumerate(libraries)]


@pytest.fixture(scope="module")
def images():
    return digits(16)


@pytest.fixture
def catalog(tmp_path, folders):
    """The nets 0, 1 and 2, the nearest first; net 3 has no embedding, and the best prior."""
    candidates = [
        Candidate(id, embeddings=[source(i, 0.3 * (i + 1))], upstream_accuracy=0.1 * i or None)
        for i, id in enumerate(folders[:3])
    ]
    return make_catalog(tmp_path / "catalog", [*candidates, Candidate(folders[3], upstream_accuracy=0.9)])


@pytest.fixture
def selector(catalog, images):
    return ModelSelector(catalog, task=TARGET, images=images, loading=QUIET)


def names(ranking):
    return [Path(id).name for id in ranking.ranked]


def own_outcomes(folder, images):
    """Outcomes from timm's own features of the images that the selector draws."""
    sample = load(images, progress=False).sample(600, seed=0)
    pixels = sample.decode(HALF.prepare, progress=False)
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    inputs = (torch.from_numpy(pixels.images).float() / 255 - 0.5) / 0.5
    with torch.no_grad():
        features = network.forward_head(network.forward_features(inputs), pre_logits=True)
    return ridge_outcomes(features.numpy(), pixels.labels), features.numpy(), pixels.labels


def test_loaded_candidates_stand_first_by_what_their_features_say(selector, folders, images):
    """Against timm's own features and the scores called by hand; of two, each score says which is better."""
    found, losses = {}, {}
    for id in (folders[0], folders[3]):
        outcomes, features, labels = own_outcomes(id, images)
        found[id] = outcomes
        losses[id] = ridge_loss(features, labels), -logme(features, labels), logistic_loss(features, labels)
        assert outcomes.mean() == ridge_accuracy(features, labels)

    ranking = selector.rank(refine=2)

    assert set(ranking.ranked[:2]) == {folders[0], folders[3]}
    assert names(ranking)[2:] == ["net1", "net2"]
    assert [item.rank for item in ranking] == [1, 2, 3, 4]
    for item in ranking[:2]:
        other = losses[folders[3] if item.candidate.id == folders[0] else folders[0]]
        better = [own < one for own, one in zip(losses[item.candidate.id], other, strict=True)]
        assert item.score == pytest.approx((2 * sum(better) - 3) / 3)
        assert item.predicted_error == pytest.approx(1 - found[item.candidate.id].mean())
        low, high = item.predicted_interval
        assert low < item.predicted_error < high
        assert (item.gap, item.gap_error) == (None, None)
    assert ranking[0].score >= ranking[1].score
    assert [item.score for item in ranking[2:]] == [None, None]
    assert [item.predicted_error for item in ranking[2:]] == [None, None]
    gain = found[ranking[0].candidate.id] - found[folders[3]]
    difference = ranking.refinement.against_prior.difference
    assert difference.value == pytest.approx(gain.mean())
    assert ranking.n_loaded == 2


def test_the_others_are_ranked_as_without_them(selector, folders):
    """With their own gaps: the next one of the first stage may have moved up."""
    plain, refined = selector.rank(), selector.rank(refine=2)

    rest = {item.candidate.id: item for item in refined[2:]}
    assert names(plain) == ["net0", "net1", "net2", "net3"]
    assert rest[folders[1]].gap == plain[1].gap
    assert rest[folders[2]].gap is None
    assert rest[folders[1]].distance == plain[1].distance
    groups = [item.tie_group for item in refined]
    assert groups == sorted(groups)
    assert set(groups[:2]).isdisjoint(groups[2:])
    assert refined[0].distance == next(i.distance for i in plain if i.candidate.id == refined.ranked[0])


@pytest.mark.parametrize("n_known", [4, 1])
def test_beside_loaded_candidates_others_are_predicted_at_their_level(selector, catalog, folders, n_known):
    """From errors on other tasks; with one of the loaded alone nothing tells its level from its own luck."""
    table = np.array([[0.5, 0.4, 0.45, 0.2], [0.3, 0.2, 0.28, 0.1], [0.7, 0.5, 0.5, 0.4]])
    names = [*folders[:4]] if n_known == 4 else [*folders[1:3], "org/elsewhere", folders[3]]
    catalog.record_many(results_of(table, names))
    expectation = Experience.of(catalog, TARGET).expectation

    ranking = selector.rank(refine=2)

    items = {item.candidate.id: item for item in ranking}
    loaded = [items[folders[0]], items[folders[3]]]
    assert {item.predicted_from for item in loaded} == {"images"}
    assert [item.is_loaded for item in ranking] == [True, True, False, False]
    level = expectation.level
    if n_known == 4:
        own = [item.predicted_error - expectation.spread * item.experience for item in loaded]
        level = sum(own) / 2
    for id in folders[1:3]:
        expected = level + expectation.spread * expectation.effects[id]
        low, high = items[id].predicted_interval
        assert items[id].predicted_error == pytest.approx(expected)
        assert low <= expected <= high
        assert items[id].predicted_from == ("loaded candidates" if n_known == 4 else "other tasks")
    where = "beside those of the loaded candidates here" if n_known == 4 else "nothing of this task is in it"
    assert where in str(ranking)
    level_is = "the level is that of the loaded candidates here." if n_known == 4 else "from those tasks, so"
    assert "It was not loaded; those that were stand before it." in ranking.explain(3)
    assert level_is in ranking.explain(3)
    assert "Expected error" not in ranking.explain(0)


@pytest.mark.parametrize("top_k", [1, 2, 3, 4, 9])
def test_top_k_is_the_beginning_of_the_whole_refined_ranking(selector, top_k):
    """However many were loaded."""
    whole, part = selector.rank(refine=2), selector.rank(refine=2, top_k=top_k)

    assert part.ranked == whole.ranked[:top_k]
    assert [item.tie_group for item in part] == [item.tie_group for item in whole][:top_k]
    beyond = [item for item in whole[top_k:] if item.tie_group == part[-1].tie_group]
    assert part.n_tied_beyond == len(beyond)


def test_where_holds_for_what_is_loaded(selector, folders):
    """A licence that forbids the use forbids the download, too."""
    ranking = selector.rank(refine=3, where=lambda candidate: candidate.id != folders[3])

    assert folders[3] not in ranking.ranked
    assert ranking.n_loaded == 3
    assert ranking.refinement.against_prior.id == folders[2]


def test_recorded_errors_are_the_prior_that_the_first_is_held_against(selector, folders):
    """They say more than an accuracy that each reached on data of its own; so they say what is loaded."""
    errors = dict(zip(folders, (0.3, 0.4, 0.1, 0.2), strict=True))
    selector.catalog.record_many(Result(t, id, error) for id, error in errors.items() for t in ("t1", "t2"))

    ranking = selector.rank(refine=2)

    assert ranking.refinement.against_prior.id == folders[2]
    assert set(ranking.ranked[:2]) == {folders[0], folders[2]}
    assert {item.candidate.id: item.n_experience for item in ranking} == dict.fromkeys(folders, 2)


def test_a_budget_of_no_time_loads_one(selector, folders):
    """The nearest."""
    ranking = selector.rank(budget_s=0.0)

    assert (ranking.n_loaded, ranking.ranked[0]) == (1, folders[0])
    assert ranking.refinement.against_prior.difference is None
    assert selector.rank(budget_s=1e6).n_loaded == 4


@pytest.mark.parametrize("how", ["nan", "gone"])
def test_a_checkpoint_that_does_not_load_keeps_its_place_by_distance(tmp_path, images, how):
    """It is named, and the next one is loaded instead."""
    paths = [save_checkpoint(tmp_path / f"net{i}", seed=i) for i in range(3)]
    broken(paths[0]) if how == "nan" else shutil.rmtree(paths[0])
    reason = "NaN or infinite" if how == "nan" else "There is no network at"
    candidates = [Candidate(str(path), embeddings=[source(i, 0.3 * (i + 1))]) for i, path in enumerate(paths)]
    selector = ModelSelector(
        make_catalog(tmp_path / "c", candidates), task=TARGET, images=images, loading=QUIET
    )

    ranking = selector.rank(refine=1)

    assert names(ranking) == ["net1", "net0", "net2"]
    assert [item.is_loaded for item in ranking] == [True, False, False]
    assert list(ranking.failed) == [str(paths[0])]
    assert reason in ranking.failed[str(paths[0])]
    assert "Could not be loaded, and keep their place by distance (1):\n  net0: Cannot load" in str(ranking)
    assert "It could not be loaded, so it stands by distance" in ranking.explain(1)


def test_leep_of_a_headless_checkpoint_is_blank(tmp_path, folders, images):
    """By name: no score, but an error and a place among the loaded."""
    bare = str(save_headless(tmp_path / "bare"))
    catalog = make_catalog(
        tmp_path / "c",
        [Candidate(bare, embeddings=[source(0, 0.1)]), Candidate(folders[0], embeddings=[source(1, 0.9)])],
    )

    ranking = ModelSelector(catalog, task=TARGET, images=images, loading=QUIET).rank(refine=2, score="leep")

    assert ranking.ranked == (folders[0], bare)
    assert ranking[0].score < 0
    assert ranking[1].score is None
    assert 0 <= ranking[1].predicted_error <= 1
    assert "It has no leep, which needs the predictions of a head of its own" in ranking.explain(1)
    assert ranking.to_dict()["candidates"][1]["score"] is None


def test_ties_are_those_of_differences_image_by_image(selector, folders, images):
    """By a paired test of outcomes from timm's own features."""
    timms = [folders[0], folders[2], folders[3]]
    found = {id: own_outcomes(id, images)[0] for id in timms}

    ranking = selector.rank(refine=3, score="ridge_accuracy", where=lambda candidate: candidate.id in timms)

    assert ranking.ranked == tuple(sorted(timms, key=lambda id: -found[id].mean()))
    groups, first = [], None
    for id in ranking.ranked:
        if first is None or abs(ttest_rel(found[first], found[id]).statistic) > 1.96:
            first = id
            groups.append([])
        groups[-1].append(id)
    for number, members in enumerate(groups, start=1):
        for id in members:
            item = ranking[ranking.ranked.index(id)]
            assert (item.tie_group, item.tied) == (number, tuple(members))


def test_features_of_all_layers_are_scored_where_they_are_wanted(selector, folders, images):
    """Against the scores of a matrix from hooks of our own; and the ranking says so."""
    sample = load(images, progress=False).sample(600, seed=0)
    pixels = sample.decode(HALF.prepare, progress=False)
    network = timm.create_model(f"local-dir:{folders[0]}", pretrained=True).eval()
    found = {}
    for name in ("act1", "layer1", "layer2", "layer3", "layer4"):
        network.get_submodule(name).register_forward_hook(
            lambda _, __, output, name=name: found.update({name: output.double().mean(dim=(2, 3)).numpy()})
        )
    with torch.no_grad():
        network((torch.from_numpy(pixels.images).float() / 255 - 0.5) / 0.5)
    rows = [values - values.mean(axis=0) for values in found.values()]
    layers = np.hstack([values / np.linalg.norm(values) for values in rows])

    ranking = selector.rank(refine=1, features="layers", score="ridge_loss")

    assert ranking.ranked[0] == folders[0]
    assert ranking[0].score == pytest.approx(ridge_loss(layers, pixels.labels), rel=1e-4)
    assert ranking[0].predicted_error == pytest.approx(1 - ridge_accuracy(layers, pixels.labels))
    assert ranking[0].score != pytest.approx(selector.rank(refine=1, score="ridge_loss")[0].score, rel=1e-3)
    assert ranking.to_dict()["refinement"]["features"] == ranking.refinement.features == "layers"
    assert "scored by ridge_loss of all layers on 80 images" in str(ranking)
    assert "a linear classifier on the features of all its layers misses" in ranking.explain(0)


def test_a_checkpoint_whose_stages_cannot_be_read_is_skipped_and_named(selector, folders, monkeypatch):
    """The next one is loaded instead."""

    def forward_intermediates(network, *arguments, **options):
        raise NotImplementedError("none in this version")

    monkeypatch.setattr(timm.models.ResNet, "forward_intermediates", forward_intermediates)

    ranking = selector.rank(refine=1, features="layers")

    assert ranking.ranked[0] == folders[1]
    assert set(ranking.failed) == {folders[0]}
    words = f"The stages of '{folders[0]}' cannot be read: timm's forward_intermediates fails (none in"
    assert ranking.failed[folders[0]].startswith(words)
    assert selector.rank(refine=1).failed == {}


def test_other_features_are_refused(selector):
    """Whether or not anything is to be loaded."""
    for k in (0, 1):
        with pytest.raises(SettingsError, match="features must be 'last' or 'layers'; got 'all'"):
            selector.rank(refine=k, features="all")


# Where images come from


def test_data_can_be_ranked_directly(catalog, images, monkeypatch):
    """It is read once, for both stages."""
    embedded = []

    class Task2Vec:
        @staticmethod
        def for_space(space):
            return type("", (), {"embed": lambda self, data: embedded.append(data) or TARGET})()

    monkeypatch.setattr("t2v_hub.task2vec.Task2Vec", Task2Vec)

    ranking = ModelSelector(catalog, loading=QUIET).rank(images, refine=1)

    assert ranking.n_loaded == 1
    assert len(embedded[0]) == 80


def test_an_automatic_selector_keeps_the_images(tmp_path, folders, images):
    """From data to a refined ranking with a real probe; the second time nothing is measured."""
    from cli_data import save_probe

    from t2v_hub.task2vec import Task2Vec

    settings = {"max_samples": 20, "progress": False, "device": "cpu", "cache": tmp_path / "cache"}
    probe = save_probe(tmp_path / "probe")
    task2vec = Task2Vec(probe, image_size=32, **settings)
    catalog = Catalog(tmp_path / "catalog")
    for target, id in zip((1, 2), folders, strict=False):
        catalog.add(Candidate(id), embedding=task2vec.embed(digits(4, target=target)))

    selector = AutoSelector.from_task(images, catalog=catalog, **settings)
    ranking = selector.rank(refine=2)

    assert ranking.n_loaded == 2
    assert {item.candidate.id for item in ranking} == set(folders[:2])
    assert len(list((tmp_path / "cache" / "features").glob("*.safetensors"))) == 2
    assert selector.loading == Loading(device="cpu", cache=tmp_path / "cache" / "features", progress=False)
    assert selector.rank(refine=2).items == ranking.items


def test_without_images_nothing_can_be_loaded_for(catalog):
    """An embedding does not hold them; the message says what to pass."""
    words = r"here is only an embedding. Pass the images themselves, or bind them with AutoSelector.from_task"
    bound = AutoSelector.from_task(TARGET, catalog=catalog)

    with pytest.raises(SettingsError, match=words):
        ModelSelector(catalog).rank(TARGET, refine=1)
    with pytest.raises(SettingsError, match=words):
        bound.rank(budget_s=3)
    with pytest.raises(SettingsError, match=words):
        ModelSelector(catalog, task=TARGET, images=tiny_task()).rank(
            make_embedding(seed=1, space=SPACE, n_filters=40), refine=1
        )
    with pytest.raises(SettingsError, match="refine must be a whole number"):
        bound.rank(refine=-1)


def test_several_labels_per_image_are_refused(catalog):
    """Before anything is downloaded."""
    from datasets import Dataset, Features, Image, Sequence, Value

    picture = tiny_task()["image"][0]
    rows = {"image": [picture] * 4, "label": [[0], [1], [0, 1], [1]]}
    table = Dataset.from_dict(rows, features=Features({"image": Image(), "label": Sequence(Value("int64"))}))

    with pytest.raises(LabelError, match="need one label per image"):
        ModelSelector(catalog, task=TARGET, images=table, loading=QUIET).rank(refine=1)


# What is kept


def test_features_are_kept_below_home(selector, monkeypatch, tmp_path):
    """A second ranking builds no network."""
    monkeypatch.setenv("T2V_HOME", str(tmp_path / "home"))
    first = selector.rank(refine=2)
    assert len(list((tmp_path / "home" / "features").glob("*.safetensors"))) == 2

    def load_network(files):
        raise AssertionError("a network was loaded")

    monkeypatch.setattr(reader, "load_network", load_network)

    assert selector.rank(refine=2, score="logme").n_loaded == 2
    assert selector.rank(refine=2).items == first.items


@pytest.fixture
def hub(loopback_hub, folders, tmp_path, monkeypatch):
    """A Hub with two of the checkpoints, their embeddings in the cards; nothing is kept elsewhere."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    for number, folder in enumerate(folders[:2]):
        library = ("timm", "transformers")[number]
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        files["README.md"] = f"---\nlibrary_name: {library}\n---\n# A network\n"
        loopback_hub.add_repo(f"owner/net{number}", files)
        push_embedding(
            f"owner/net{number}",
            source(number, 0.3 * (number + 1)),
            role="finetune",
            endpoint=loopback_hub.endpoint,
            token=loopback_hub.token,
        )
    return loopback_hub


def test_candidates_come_from_the_hub_whose_cards_told_of_them(hub, folders, images, selector, tmp_path):
    """The same weights from a folder give the same errors; once read, they are not fetched again."""
    catalog = Catalog.from_hub(tmp_path / "synced", space=SPACE, endpoint=hub.endpoint, token=hub.token)
    remote = ModelSelector(catalog, task=TARGET, images=images, loading=QUIET)
    local = {Path(item.candidate.id).name: item for item in selector.rank(refine=4)}

    first = remote.rank(refine=2)
    hub.stop()
    shutil.rmtree(tmp_path / "hf")
    again = remote.rank(refine=2)

    assert first.failed == {}
    for item in first:
        assert item.predicted_error == local[item.candidate.id.removeprefix("owner/")].predicted_error
    assert again.items == first.items
    assert not (tmp_path / "hf").exists()


def test_a_hub_out_of_reach_leaves_the_first_stage(hub, images, tmp_path, monkeypatch):
    """The ranking says so, and is as good as it was."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client waits between its tries
    catalog = Catalog.from_hub(tmp_path / "synced", space=SPACE, endpoint=hub.endpoint, token=hub.token)
    hub.stop()

    ranking = ModelSelector(catalog, task=TARGET, images=images, loading=QUIET).rank(refine=1)

    assert ranking.ranked == ("owner/net0", "owner/net1")
    assert ranking.n_loaded == 0
    assert sorted(ranking.failed) == ["owner/net0", "owner/net1"]
    assert "No candidate was loaded; the order is that of the first stage." in str(ranking)


@pytest.mark.parametrize(("mine", "sent"), [(True, True), (False, False)])
def test_a_token_goes_to_the_hub_it_is_for_only(hub, images, tmp_path, mine, sent):
    """A catalog can name any address."""
    catalog = Catalog.from_hub(tmp_path / "synced", space=SPACE, endpoint=hub.endpoint, token=hub.token)
    endpoint = hub.endpoint if mine else "https://hub.example"
    loading = Loading(device="cpu", progress=False, endpoint=endpoint, token=hub.token)
    hub.clear_requests()

    ModelSelector(catalog, task=TARGET, images=images, loading=loading).rank(refine=1)

    assert {request.user for request in hub.requests} == ({"owner"} if sent else {None})
    assert hub.token not in repr(loading)
