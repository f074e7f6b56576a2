"""Checkpoints of a ranking, loaded by a running process from the Hub whose cards told of them."""

import time
import traceback

import pytest
import safetensors.torch
import torch
from factories import make_embedding, make_space
from huggingface_hub import constants

from t2v_hub import Candidate, Catalog, ModelSelector, probe
from t2v_hub.demo.networks import new_network, save
from t2v_hub.errors import CheckpointError
from t2v_hub.hub import push_embedding
from t2v_hub.probe import load_checkpoint
from t2v_hub.testing import tiny_task

SPACE = make_space(40)
WIDTHS = (4, 4, 4, 4)
TARGET = make_embedding(seed=99, space=SPACE, n_filters=40)
LIBRARIES = ("timm", "transformers")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A checkpoint folder of each library."""
    made = {}
    for library in LIBRARIES:
        made[library] = tmp_path_factory.mktemp(library)
        network = new_network(library, 2, widths=WIDTHS, seed=1)
        save(network, made[library], class_names=["a", "b"], widths=WIDTHS)
    return made


@pytest.fixture
def hub(loopback_hub, folders):
    """A Hub with a checkpoint of each library and the embeddings of their source tasks in the cards."""
    for number, library in enumerate(LIBRARIES):
        files = {path.name: path.read_bytes() for path in folders[library].iterdir()}
        files["README.md"] = f"---\nlibrary_name: {library}\n---\n# A network\n"
        loopback_hub.add_repo(f"owner/{library}", files)
        source = make_embedding(seed=number, space=SPACE, n_filters=40, task=f"org/data{number}")
        push_embedding(
            f"owner/{library}",
            source,
            role="finetune",
            endpoint=loopback_hub.endpoint,
            token=loopback_hub.token,
        )
    return loopback_hub


def ranked(hub, folder, **options):
    """The ranked candidates by library, as read from the cards."""
    catalog = Catalog.from_hub(folder, space=SPACE, endpoint=hub.endpoint, **{"token": hub.token, **options})
    return {item.candidate.library: item for item in ModelSelector(catalog).rank(TARGET)}


def stored(folder):
    return safetensors.torch.load_file(folder / "model.safetensors")


def stem(network):
    """Weights of the first convolution, by whatever name."""
    return next(parameter for parameter in network.parameters() if parameter.dim() == 4).detach()


def with_other_kernels(folder):
    """The checkpoint's weights with other convolutions, as bytes."""
    state = {name: value + (value.dim() == 4) for name, value in stored(folder).items()}
    return safetensors.torch.save(state, metadata={"format": "pt"})


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_candidate_comes_from_the_hub_whose_card_told_of_it(hub, folders, tmp_path, library):
    """A running process cannot change HF_ENDPOINT, and the default Hub may have another of that name."""
    item = ranked(hub, tmp_path / "catalog")[library]

    network = item.load(tiny_task(), cache_dir=tmp_path / "cache")

    assert item.endpoint == hub.endpoint
    assert network.training
    state = network.state_dict()
    same = [key for key, value in stored(folders[library]).items() if torch.equal(state[key], value)]
    assert len(stored(folders[library])) - len(same) == 2, "all but the head's weight and bias"
    outputs = network(torch.zeros(2, 3, 32, 32))
    assert getattr(outputs, "logits", outputs).shape == (2, 3)


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_commit_that_was_ranked_is_loaded(hub, folders, tmp_path, library):
    """Weights that changed since are not those that the embedding and the accuracy describe."""
    item = ranked(hub, tmp_path / "catalog")[library]
    hub.commit(f"owner/{library}", {"model.safetensors": with_other_kernels(folders[library])})

    then = item.load(cache_dir=tmp_path / "cache")
    now = item.load(cache_dir=tmp_path / "cache", revision="main")

    assert item.candidate.revision != hub.head(f"owner/{library}")
    difference = stem(now) - stem(then)
    torch.testing.assert_close(difference, torch.ones_like(difference))


def test_what_was_loaded_once_needs_no_hub(hub, tmp_path):
    """A commit never changes, so what is kept of it is good, whatever became of the repository."""
    item = ranked(hub, tmp_path / "catalog")["timm"]
    first = item.load(cache_dir=tmp_path / "cache")
    hub.stop()

    again = item.load(cache_dir=tmp_path / "cache")

    assert torch.equal(stem(first), stem(again))


def test_a_renamed_checkpoint_is_still_found(hub, tmp_path):
    item = ranked(hub, tmp_path / "catalog")["timm"]
    hub.rename("owner/timm", "owner/better")

    assert item.load(cache_dir=tmp_path / "cache") is not None


def test_a_gated_checkpoint_needs_a_token_that_was_granted(hub, folders, tmp_path):
    """Cards of gated checkpoints are open, so they are ranked; their weights are not."""
    files = {path.name: path.read_bytes() for path in folders["timm"].iterdir()}
    card = hub.read("owner/timm")
    hub.add_repo("org/gated", {**files, "README.md": card}, gated="manual")
    catalog = Catalog.from_hub(tmp_path / "catalog", space=SPACE, endpoint=hub.endpoint, token=False)
    item = next(item for item in ModelSelector(catalog).rank(TARGET) if item.candidate.id == "org/gated")
    reader = hub.user("reader")

    with pytest.raises(
        CheckpointError, match=r"'org/gated' is gated: accept its terms on the Hub at http://127"
    ):
        item.load(cache_dir=tmp_path / "cache")
    with pytest.raises(CheckpointError, match=r"'org/gated' is gated.* and pass a token for it \(token=\)"):
        item.load(cache_dir=tmp_path / "cache", token=reader)
    hub.grant("org/gated", "reader")
    assert item.load(cache_dir=tmp_path / "cache", token=reader) is not None


def test_a_private_checkpoint_needs_a_token(hub, folders, tmp_path):
    """A catalog may name any address: the token that is stored for one Hub must not go to another."""
    files = {path.name: path.read_bytes() for path in folders["timm"].iterdir()}
    hub.add_repo("owner/secret", {**files, "README.md": hub.read("owner/timm")}, private=True)
    catalog = Catalog.from_hub(tmp_path / "catalog", space=SPACE, endpoint=hub.endpoint, token=hub.token)
    item = next(item for item in ModelSelector(catalog).rank(TARGET) if item.candidate.id == "owner/secret")
    hub.clear_requests()

    with pytest.raises(CheckpointError, match="has no repository 'owner/secret' that you may read: it is"):
        item.load(cache_dir=tmp_path / "cache")
    assert item.load(cache_dir=tmp_path / "cache", token=hub.token) is not None
    assert {request.user for request in hub.requests} == {None, "owner"}


@pytest.mark.parametrize(("default", "sent"), [(True, None), (False, False)])
def test_the_stored_token_goes_to_the_hub_it_is_for_only(hub, tmp_path, monkeypatch, default, sent):
    """None makes the client take the stored one, False none at all."""
    asked = []
    monkeypatch.setattr(probe, "load_checkpoint", lambda location, **options: asked.append(options))
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint if default else "https://hub.example")
    item = ranked(hub, tmp_path / "catalog")["timm"]

    item.load()
    item.load(token="mine")
    item.load(endpoint="https://elsewhere.example")

    assert [options["token"] for options in asked] == [sent, "mine", None]
    assert [options["endpoint"] for options in asked] == [*[hub.endpoint] * 2, "https://elsewhere.example"]


@pytest.mark.parametrize(
    ("happen", "message"),
    [
        (
            lambda hub: hub.remove("owner/timm"),
            "has no repository 'owner/timm' that you may read: .* was deleted",
        ),
        (
            lambda hub: hub.stop(),
            r"the Hub at http://127\S+ did not answer \(ConnectError\). Check the connec",
        ),
        (
            lambda hub: hub.faults.lie("/api/models/owner/timm/tree", b"[{]"),
            r"the Hub at http://127\S+ did not answer \(JSONDecodeError\)",
        ),
        (lambda hub: hub.faults.cut(after_bytes=100, times=9), r"did not answer \(RemoteProtocolError\)"),
        (lambda hub: hub.faults.fail(500, times=9, path="/tree/"), r"did not answer \(HfHubHTTPError"),
        (lambda hub: hub.faults.fail(403, times=9, path="/tree/"), "does not let you read 'owner/timm'"),
    ],
)
def test_what_does_not_load_says_why_in_one_error(hub, tmp_path, monkeypatch, happen, message):
    """Traces of the client say nothing of the candidate, and may hold what a server echoed."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the client waits between its tries
    item = ranked(hub, tmp_path / "catalog")["timm"]
    happen(hub)

    with pytest.raises(CheckpointError, match=f"^Cannot load checkpoint 'owner/timm': .*{message}") as raised:
        item.load(cache_dir=tmp_path / "cache", token=hub.user("someone"))

    trace = "".join(traceback.format_exception(raised.value))
    assert "huggingface_hub.errors" not in trace
    assert hub.user("someone") not in trace


def test_a_token_that_is_not_valid_is_said_to_be(hub, tmp_path):
    item, wrong = ranked(hub, tmp_path / "catalog")["timm"], "hf_" + "wrong" * 3

    with pytest.raises(CheckpointError, match="pass a token for it") as raised:
        item.load(cache_dir=tmp_path / "cache", token=wrong)

    assert wrong not in "".join(traceback.format_exception(raised.value))


def test_a_commit_that_is_gone_is_named(hub, tmp_path):
    """Owners squash histories."""
    item = ranked(hub, tmp_path / "catalog")["timm"]

    with pytest.raises(CheckpointError, match=f"'owner/timm' has no revision '{'0' * 40}'.* revision='main'"):
        item.load(cache_dir=tmp_path / "cache", revision="0" * 40)


def test_in_offline_mode_the_variable_is_named(hub, tmp_path, monkeypatch):
    item = ranked(hub, tmp_path / "catalog")["timm"]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    with pytest.raises(CheckpointError, match=r"\(OfflineModeIsEnabled\). .*unset HF_HUB_OFFLINE"):
        item.load(cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("endpoint", ["hub.example", "ftp://hub.example", "http://hub?x"])
def test_an_address_that_is_none_is_refused(endpoint):
    with pytest.raises(
        CheckpointError, match="endpoint must be an address such as https://huggingface.co, not"
    ):
        load_checkpoint("org/net", endpoint=endpoint)


def test_what_was_added_here_comes_from_the_default_hub(hub, folders, tmp_path):
    """Only what the cards of a Hub told of is known to be there."""
    catalog = Catalog.from_hub(tmp_path / "catalog", space=SPACE, endpoint=hub.endpoint, token=hub.token)
    source = make_embedding(seed=5, space=SPACE, n_filters=40, task="mine")
    catalog.add(Candidate(str(folders["timm"]), library="timm"), embedding=source)
    catalog.add(Candidate("org/other", library="timm"), embedding=source)
    catalog.add(Candidate("owner/timm", revision="f" * 40, library="timm"), embedding=source)

    ranking = ModelSelector(catalog).rank(TARGET)

    known = {item.candidate.id: item.endpoint for item in ranking}
    assert known == {
        str(folders["timm"]): None,
        "org/other": None,
        "owner/timm": None,
        "owner/transformers": hub.endpoint,
    }
    listed = {item["id"]: item["endpoint"] for item in ranking.to_dict()["candidates"]}
    assert listed == known


def test_a_later_reading_is_heeded(hub, tmp_path):
    """One process may rank, bring the catalog up to date, and rank again."""
    catalog = Catalog.from_hub(tmp_path / "catalog", space=SPACE, endpoint=hub.endpoint, token=hub.token)
    ModelSelector(catalog).rank(TARGET)
    hub.add_repo("owner/new", {"README.md": hub.read("owner/timm")})
    catalog.sync(space=SPACE, endpoint=hub.endpoint, token=hub.token)

    assert {item.endpoint for item in ModelSelector(catalog).rank(TARGET)} == {hub.endpoint}
