"""The loopback Hub, seen through the real clients."""

import http.client
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    BadRequestError,
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import parse_ratelimit_headers

from t2v_hub.errors import SettingsError
from t2v_hub.testing import LoopbackHub

pytestmark = pytest.mark.filterwarnings("ignore:Warnings while validating metadata:UserWarning")

CARD = "---\nlicense: mit\ntags: [task2vec, 't2v-space:abc']\nother: {kept: [1, 2.5, null]}\n---\n# A net\n"


@pytest.fixture
def hub(loopback_hub: LoopbackHub) -> LoopbackHub:
    return loopback_hub


@pytest.fixture
def api(hub: LoopbackHub) -> HfApi:
    return HfApi(hub.endpoint, token=hub.token)


def as_user(hub: LoopbackHub, name: str, **may: bool) -> HfApi:
    return HfApi(hub.endpoint, token=hub.user(name, **may))


def nobody(hub: LoopbackHub) -> HfApi:
    return HfApi(hub.endpoint, token=False)


def fetch(
    hub: LoopbackHub, path: str, *, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """A request as no client would make it."""
    address = urlsplit(hub.endpoint)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=20)
    try:
        connection.request(
            method, path, body, {name.replace("_", "-"): text for name, text in headers.items()}
        )
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def add(text: str, path: str = "README.md") -> CommitOperationAdd:
    return CommitOperationAdd(path, text.encode())


# A repository's life


def test_a_card_travels_there_and_back(hub, api, tmp_path):
    """create_repo, upload_file and a download are what every push and pull is made of."""
    assert api.create_repo("owner/net").repo_id == "owner/net"
    pushed = api.upload_file(path_or_fileobj=CARD.encode(), path_in_repo="README.md", repo_id="owner/net")
    local = api.hf_hub_download("owner/net", "README.md", cache_dir=tmp_path)

    assert Path(local).read_text() == CARD
    assert hub.read("owner/net").decode() == CARD
    assert hub.head("owner/net") == pushed.oid == api.model_info("owner/net").sha
    assert [commit.author for commit in hub.history("owner/net")] == ["owner", "owner"]
    assert api.list_repo_files("owner/net") == [".gitattributes", "README.md"]


def test_a_repository_that_exists_is_not_made_again(api):
    """409 must carry the address: `exist_ok` reads it."""
    api.create_repo("owner/net")

    assert api.create_repo("owner/net", exist_ok=True).repo_id == "owner/net"
    with pytest.raises(HfHubHTTPError, match="already created"):
        api.create_repo("owner/net")


def test_a_commit_on_an_old_parent_is_refused(hub, api):
    """412 is what a writer that reads, changes and writes relies on."""
    old = hub.add_repo("owner/net", {"README.md": CARD})
    new = hub.commit("owner/net", {"README.md": CARD + "theirs\n"}, message="Theirs")

    with pytest.raises(HfHubHTTPError) as refused:
        api.create_commit("owner/net", [add("mine")], commit_message="Mine", parent_commit=old)
    assert refused.value.response.status_code == 412
    done = api.create_commit("owner/net", [add("mine")], commit_message="Mine", parent_commit=new)

    assert [commit.title for commit in hub.history("owner/net")] == ["Mine", "Theirs", "initial commit"]
    assert done.oid == hub.head("owner/net")
    assert hub.read("owner/net", revision=old).decode() == CARD


def test_a_commit_deletes_files_and_folders(hub, api):
    """Both have an operation of their own."""
    hub.add_repo("owner/net", {"README.md": CARD, "a.txt": "a", "logs/1": "1", "logs/old/2": "2"})

    api.create_commit(
        "owner/net",
        [CommitOperationDelete("a.txt"), CommitOperationDelete("logs/"), add("new", "b.txt")],
        commit_message="Tidy",
    )

    assert api.list_repo_files("owner/net") == ["README.md", "b.txt"]
    with pytest.raises(EntryNotFoundError):
        api.delete_file("a.txt", "owner/net")


def test_a_commit_may_be_sent_in_any_way(hub, api):
    """Paths that leave the repository, lines that are no JSON and contents that are no base64 are refused."""
    hub.add_repo("owner/net", {"README.md": CARD})
    header = {"key": "header", "value": {"summary": "Mine"}}

    def status(*lines: object) -> int:
        body = b"\n".join(json.dumps(line).encode() for line in lines)
        path = "/api/models/owner/net/commit/main"
        return fetch(hub, path, method="POST", body=body, Authorization=f"Bearer {hub.token}")[0]

    def file(path: str, content: str = "YQ==") -> dict[str, object]:
        return {"key": "file", "value": {"path": path, "content": content}}

    assert (
        status(file("a")) == status(header, 7) == status(header, {"key": "x", "value": {"path": "a"}}) == 400
    )
    assert status(header, file("../a")) == status(header, file("/a")) == status(header, file(".git/a")) == 400
    assert status(header, file("a", "?")) == 400
    assert status(header, {"key": "lfsFile", "value": {"path": "a.bin", "oid": "00"}}) == 400
    assert status(header, file("a")) == 200


def test_renamed_repositories_are_found_under_the_old_name(hub, api, tmp_path):
    """The Hub sends requests on with 307, reading and writing alike."""
    hub.add_repo("owner/old", {"README.md": CARD, "data/a.txt": "a"})
    api.move_repo("owner/old", "owner/new")
    hub.rename("owner/new", "owner/newest")

    assert api.model_info("owner/old").id == api.model_info("owner/new").id == "owner/newest"
    path = api.hf_hub_download("owner/old", "data/a.txt", cache_dir=tmp_path)
    assert Path(path).read_text() == "a"
    api.create_commit("owner/old", [add("mine")], commit_message="Mine")
    assert hub.read("owner/newest") == b"mine"
    assert [model.id for model in api.list_models()] == ["owner/newest"]


def test_removed_repositories_are_gone(hub, api):
    """Also for those who knew them."""
    hub.add_repo("owner/a", {})
    hub.add_repo("owner/b", {})
    api.delete_repo("owner/a")
    hub.remove("owner/b")

    assert list(api.list_models()) == []
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("owner/a")
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo("owner/b")


def test_branches_tags_and_history(hub, api):
    """A revision is a branch, a tag, a pull request or a commit id, long or short."""
    first = hub.add_repo("owner/net", {"README.md": "one"})
    api.create_tag("owner/net", tag="v1")
    api.create_branch("owner/net", branch="dev")
    second = hub.commit("owner/net", {"README.md": "two"})
    on_dev = api.upload_file(
        path_or_fileobj=b"dev", path_in_repo="README.md", repo_id="owner/net", revision="dev"
    ).oid
    refs = api.list_repo_refs("owner/net")

    assert {ref.name: ref.target_commit for ref in refs.branches} == {"main": second, "dev": on_dev}
    assert {ref.name: ref.target_commit for ref in refs.tags} == {"v1": first}
    assert [commit.commit_id for commit in api.list_repo_commits("owner/net")] == [second, first]
    for revision, sha in {"v1": first, "dev": on_dev, first: first, second[:8]: second}.items():
        assert api.model_info("owner/net", revision=revision).sha == sha
    with pytest.raises(RevisionNotFoundError):
        api.model_info("owner/net", revision="nothing")
    with pytest.raises(HfHubHTTPError, match="already exists"):
        api.create_tag("owner/net", tag="v1")
    api.delete_tag("owner/net", tag="v1")
    api.delete_branch("owner/net", branch="dev")
    assert hub.head("owner/net") == second


def test_trees_and_paths(hub, api):
    """Folders are listed beside files, and say what changed them last."""
    first = hub.add_repo("owner/net", {"README.md": CARD, "a/b/c.bin": b"123", "a/d.txt": "d"})
    second = hub.commit("owner/net", {"a/d.txt": "e"})

    flat = {entry.path: entry for entry in api.list_repo_tree("owner/net", expand=True)}
    deep = [entry.path for entry in api.list_repo_tree("owner/net", "a", recursive=True)]
    (large,) = api.get_paths_info("owner/net", ["a/b/c.bin", "nothing"])

    assert list(flat) == ["README.md", "a"]
    assert flat["README.md"].last_commit.oid == first
    assert flat["a"].last_commit.oid == second
    assert deep == ["a/b", "a/b/c.bin", "a/d.txt"]
    assert large.lfs.size == large.size == 3
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree("owner/net", "nothing"))


def test_trees_are_paged(hub, api):
    """Clients follow the link."""
    hub.add_repo("owner/net", {f"{i:04d}.txt": "" for i in range(1003)})

    assert len(api.list_repo_files("owner/net")) == 1003
    assert len(hub.requests) == 2


def test_old_names_have_no_namespace(hub, api, tmp_path):
    """`mnist` and `gpt2` were named before there were namespaces."""
    hub.add_repo("mnist", {"README.md": CARD, "tree/a.txt": "a"}, kind="dataset")

    assert api.dataset_info("mnist").id == "mnist"
    assert api.list_repo_files("mnist", repo_type="dataset") == ["README.md", "tree/a.txt"]
    path = api.hf_hub_download("mnist", "tree/a.txt", repo_type="dataset", cache_dir=tmp_path)
    assert Path(path).read_text() == "a"
    with pytest.raises(HfHubHTTPError, match="no write access"):
        api.create_commit("mnist", [add("mine")], commit_message="Mine", repo_type="dataset")


# Pull requests


def test_a_reader_proposes_and_an_owner_merges(hub, api):
    """A pull request is how anyone writes an embedding into somebody else's card."""
    hub.add_repo("owner/net", {"README.md": CARD, "a.txt": "a"})
    reader = as_user(hub, "reader", can_write=False)
    with pytest.raises(HfHubHTTPError, match="no write access"):
        reader.create_commit("owner/net", [add("mine")], commit_message="Mine")
    proposed = reader.create_commit("owner/net", [add("mine")], commit_message="Mine", create_pr=True)
    more = reader.create_commit(
        "owner/net", [add("b", "b.txt")], commit_message="More", revision=proposed.pr_revision
    )
    hub.commit("owner/net", {"a.txt": "changed meanwhile"})
    (listed,) = api.get_repo_discussions("owner/net", author="reader", discussion_status="open")
    details = api.get_discussion_details("owner/net", listed.num)

    assert proposed.pr_num == listed.num == 1
    assert proposed.pr_url == f"{hub.endpoint}/owner/net/discussions/1"
    assert hub.pull_requests("owner/net")[0].sha == more.oid
    assert hub.read("owner/net").decode() == CARD
    assert hub.read("owner/net", revision="refs/pr/1") == b"mine"
    assert "+mine" in details.diff
    assert details.conflicting_files == []
    with pytest.raises(HfHubHTTPError, match="no write access"):
        reader.merge_pull_request("owner/net", 1)
    api.merge_pull_request("owner/net", 1)
    assert hub.read("owner/net") == b"mine"
    assert hub.read("owner/net", "a.txt") == b"changed meanwhile"
    assert hub.pull_requests("owner/net")[0].status == "merged"
    assert api.get_discussion_details("owner/net", 1).merge_commit_oid == hub.head("owner/net")
    assert list(api.get_repo_discussions("owner/net", discussion_status="open")) == []


def test_a_pull_request_that_conflicts_is_not_merged(hub, api):
    """Both sides changed the card."""
    hub.add_repo("owner/net", {"README.md": CARD})
    api.create_commit("owner/net", [add("mine")], commit_message="Mine", create_pr=True)
    hub.commit("owner/net", {"README.md": "theirs"})

    assert api.get_discussion_details("owner/net", 1).conflicting_files == ["README.md"]
    with pytest.raises(HfHubHTTPError, match=r"conflicts with main in README\.md"):
        api.merge_pull_request("owner/net", 1)


def test_discussions_can_be_held(hub, api):
    """Drafts, comments, titles and closing, as far as clients reach them."""
    hub.add_repo("owner/net", {"README.md": CARD})
    draft = api.create_pull_request("owner/net", "A draft", description="why")
    api.comment_discussion("owner/net", draft.num, "because")
    api.rename_discussion("owner/net", draft.num, "A better title")
    api.change_discussion_status("owner/net", draft.num, "closed")
    talk = api.create_discussion("owner/net", "A talk")

    assert draft.status == "draft"
    found = api.get_discussion_details("owner/net", draft.num)
    assert (found.title, found.status) == ("A better title", "closed")
    assert [event.type for event in found.events] == ["comment", "comment", "title-change", "status-change"]
    assert not talk.is_pull_request
    assert [each.number for each in hub.pull_requests("owner/net")] == [draft.num]
    with pytest.raises(HfHubHTTPError, match="no discussion 7"):
        api.get_discussion_details("owner/net", 7)


def test_discussions_are_paged(hub, api):
    """By number of the page, not by a link."""
    hub.add_repo("owner/net", {"README.md": CARD})
    for i in range(53):
        api.create_commit("owner/net", [add(str(i))], commit_message=f"Mine {i}", create_pr=True)

    numbers = [each.num for each in api.get_repo_discussions("owner/net", discussion_type="pull_request")]

    assert numbers == list(range(53, 0, -1))


# Listings


def test_a_listing_carries_cards(hub, api):
    """One request for many cards is what a search is made of."""
    sha = hub.add_repo("org/net", {"README.md": CARD}, gated="auto", downloads=7)
    hub.add_repo("org/plain", {"README.md": "no metadata"})
    hub.add_repo("org/data", {"README.md": CARD}, kind="dataset")

    fields = ["cardData", "tags", "sha", "gated", "downloads", "lastModified"]
    (found,) = api.list_models(filter=["task2vec", "t2v-space:abc"], expand=fields)

    assert found.id == "org/net"
    assert found.card_data.to_dict()["other"] == {"kept": [1, 2.5, None]}
    assert (found.sha, found.gated, found.downloads) == (sha, "auto", 7)
    assert found.last_modified is not None
    assert found.author is None  # not asked for
    assert found.tags == ["task2vec", "t2v-space:abc", "license:mit", "region:us"]
    assert [data.id for data in api.list_datasets(filter="license:mit")] == ["org/data"]
    with pytest.raises(BadRequestError, match="expand"):
        list(api.list_models(expand=["nothing"]))


def test_filters_see_what_the_hub_derives(hub, api):
    """Library, task, data sets, base model and language become tags; gated and author have parameters."""
    card = (
        "---\nlibrary_name: timm\npipeline_tag: image-classification\ndatasets: [org/a, org/b]\n"
        "base_model: org/base\nlanguage: en\nmodel-index: []\n---\n"
    )
    config = json.dumps({"model_type": "vit", "architectures": ["ViTForImageClassification"]})
    hub.add_repo("org/one", {"README.md": card}, gated="manual")
    hub.add_repo("me/two", {"config.json": config, "model.safetensors": safetensors({"a": [2, 3], "b": [4]})})
    hub.add_repo("me/three", {"README.md": CARD}, library_name="keras", pipeline_tag="other", parameters=9)

    def found(**query: object) -> list[str]:
        return sorted(model.id for model in api.list_models(**query))

    for tag in ("timm", "dataset:org/b", "base_model:org/base", "base_model:finetune:org/base", "en"):
        assert found(filter=tag) == ["org/one"]
    assert found(filter="image-classification") == ["me/two", "org/one"]
    assert found(pipeline_tag="image-classification", author="me") == ["me/two"]
    assert found(filter=["transformers", "vit", "safetensors"]) == ["me/two"]
    assert found(filter="keras") == ["me/three"]
    assert found(gated=True) == ["org/one"]
    assert found(gated=False, search="TW") == ["me/two"]
    assert api.model_info("me/two").safetensors.total == 10
    assert api.model_info("me/three").safetensors.total == 9
    hub.add_repo(
        "me/data", {"README.md": "---\ntask_categories: [image-classification]\n---\n"}, kind="dataset"
    )
    assert [data.id for data in api.list_datasets(task_categories="image-classification")] == ["me/data"]


def safetensors(shapes: dict[str, list[int]]) -> bytes:
    header = json.dumps({"__metadata__": {}, **{name: {"shape": shape} for name, shape in shapes.items()}})
    return len(header).to_bytes(8, "little") + header.encode()


def test_pages_hold_everything_once_and_in_order(hub, api):
    """An immutable order stays whole while repositories come, change and go between pages."""
    for i in range(2_500):
        hub.add_repo(f"org/n{i:04d}", {"README.md": CARD}, downloads=i % 7)
    models = api.list_models(filter="task2vec", sort="created_at", expand=["sha"])
    seen = [next(models).id]
    hub.remove("org/n0007")
    hub.commit("org/n0001", {"README.md": CARD + "more"})
    hub.add_repo("org/late", {"README.md": CARD})
    seen += [model.id for model in models]

    assert seen == [f"org/n{i:04d}" for i in range(2499, -1, -1) if i != 7]
    assert len([each for each in hub.requests if each.path == "/api/models"]) == 3
    by_downloads = [model.downloads for model in api.list_models(sort="downloads", limit=1_200)]
    assert by_downloads == sorted(by_downloads, reverse=True)
    assert len(by_downloads) == 1_200
    assert next(iter(api.list_models(sort="last_modified"))).id == "org/late"


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "cursor=x", "sort=x", "cursor=WzEsMl0="])
def test_parameters_of_listings_are_checked(hub, query):
    """A client's slip is answered with 400."""
    assert (
        fetch(hub, f"/api/models?sort=createdAt&{query}" if "sort" not in query else f"/api/models?{query}")[
            0
        ]
        == 400
    )


def test_listings_have_a_direction_and_details(hub):
    """As scripts ask for them without the client."""
    for name in ("a", "b"):
        hub.add_repo(f"org/{name}", {"README.md": CARD})

    def rows(query: str) -> list[dict[str, object]]:
        return json.loads(fetch(hub, f"/api/models?{query}")[2])

    assert [row["id"] for row in rows("sort=createdAt&direction=1")] == ["org/a", "org/b"]
    assert [row["id"] for row in rows("sort=createdAt&direction=-1")] == ["org/b", "org/a"]
    assert "cardData" not in rows("")[0] and "sha" not in rows("")[0]
    assert rows("cardData=true")[0]["cardData"]["license"] == "mit"
    assert rows("full=true")[0]["siblings"] == [{"rfilename": "README.md"}]


HOSTILE = {
    "does not parse": "tags: [a",
    "no mapping": "- a",
    "deep": "a: " + "[" * 300_000,
    "deep and closed": "a: " + "[" * 2_000 + "]" * 2_000,
    "multiplying": "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdef", "bcdefg", strict=True)),
    "recursive": "a: &a [*a]",
    "no boolean": "a: !!bool x",
    "no integer": "a: !!int ''",
    "no time": "a: !!timestamp x",
    "no such day": "a: 2024-99-99",
    "a number too long": "a: " + "9" * 5_000,
    "an object": "a: !!python/object/apply:os.getcwd []",
}


@pytest.mark.parametrize("front", HOSTILE.values(), ids=HOSTILE)
def test_a_card_that_cannot_be_read_has_no_metadata(hub, api, front):
    """Whatever stands there, the Hub goes on; libyaml itself would end the process on the deep one."""
    hub.add_repo("org/net", {"README.md": f"---\n{front}\n---\n"})

    assert api.model_info("org/net").card_data is None
    assert [model.tags for model in api.list_models()] == [["region:us"]]
    with pytest.raises(ValueError, match="Invalid metadata in README.md"):
        api.create_commit("org/net", [add(f"---\n{front}\n---\n")], commit_message="Mine", create_pr=True)


def test_values_that_json_lacks(hub, api):
    """Dates, keys that are numbers, numbers that are none, and times that YAML takes for numbers."""
    hub.add_repo(
        "org/net", {"README.md": "\ufeff---\r\nday: 2024-05-06\r\n1: .nan\r\n2: .inf\r\nt: 1:30\r\n---\r\n"}
    )

    said = json.loads(fetch(hub, "/api/models/org/net?expand=cardData")[2])["cardData"]

    assert said == {"day": "2024-05-06", "1": None, "2": None, "t": "1:30"}


# Who may


def test_private_repositories_are_for_those_who_may_know(hub, api):
    """To others they do not exist: 404 with a token, 401 without."""
    hub.add_repo("org/net", {"README.md": CARD}, private=True, owner="owner", granted=["friend"])
    friend, stranger = as_user(hub, "friend"), as_user(hub, "stranger")

    for known in (api, friend):
        assert known.model_info("org/net").private is True
        assert [model.id for model in known.list_models()] == ["org/net"]
    for other, status in ((stranger, 404), (nobody(hub), 401)):
        assert list(other.list_models()) == []
        with pytest.raises(RepositoryNotFoundError) as refused:
            other.model_info("org/net")
        assert refused.value.response.status_code == status
    hub.grant("org/net", "stranger")
    assert stranger.model_info("org/net").id == "org/net"
    assert len(list(stranger.list_models())) == 1


def test_gated_repositories_show_their_card_only(hub, api, tmp_path):
    """A search reads gated cards and no other file."""
    hub.add_repo("org/net", {"README.md": CARD, "config.json": "{}"}, gated="manual")
    reader = as_user(hub, "reader")

    for anyone in (reader, nobody(hub)):
        assert anyone.model_info("org/net").card_data.license == "mit"
        assert anyone.hf_hub_download("org/net", "README.md", cache_dir=tmp_path)
        with pytest.raises(GatedRepoError):
            anyone.hf_hub_download("org/net", "config.json", cache_dir=tmp_path)
        with pytest.raises(GatedRepoError):
            anyone.auth_check("org/net")
    hub.grant("org/net", "reader")
    reader.auth_check("org/net")
    assert reader.hf_hub_download("org/net", "config.json", cache_dir=tmp_path)


def test_disabled_repositories_open_to_nobody(hub, api):
    """Not even to their owner."""
    hub.add_repo("owner/net", {"README.md": CARD}, disabled=True)

    with pytest.raises(DisabledRepoError):
        api.model_info("owner/net")
    assert [model.disabled for model in api.list_models(expand=["disabled"])] == [True]


def test_settings_change_who_may(hub, api):
    """Visibility and gating, by whoever may write."""
    hub.add_repo("owner/net", {"README.md": CARD})
    api.update_repo_settings("owner/net", private=True, gated="auto")

    info = api.model_info("owner/net")
    assert (info.private, info.gated) == (True, "auto")
    with pytest.raises(RepositoryNotFoundError):
        nobody(hub).model_info("owner/net")
    api.update_repo_settings("owner/net", private=False)
    assert nobody(hub).model_info("owner/net").gated == "auto"
    with pytest.raises(HfHubHTTPError, match="no write access"):
        as_user(hub, "reader").update_repo_settings("owner/net", gated=False)


def test_tokens_say_who_comes(hub, api):
    """A wrong one is refused everywhere, none is somebody without rights."""
    hub.add_repo("org/net", {"README.md": CARD}, owner="owner")
    wrong = HfApi(hub.endpoint, token="hf_wrong")

    assert api.whoami()["name"] == "owner"
    assert [org["name"] for org in api.whoami()["orgs"]] == ["org"]
    reader = as_user(hub, "reader", can_write=False)
    assert reader.whoami()["auth"]["accessToken"]["role"] == "read"
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        wrong.whoami()
    with pytest.raises(HfHubHTTPError, match="Invalid credentials in Authorization header"):
        wrong.model_info("org/net")
    with pytest.raises(HfHubHTTPError) as refused:
        nobody(hub).create_commit("org/net", [add("mine")], commit_message="Mine", create_pr=True)
    assert refused.value.response.status_code == 401
    only_reads = as_user(hub, "visitor", can_write=False, can_discuss=False)
    with pytest.raises(HfHubHTTPError) as refused:
        only_reads.create_commit("org/net", [add("mine")], commit_message="Mine", create_pr=True)
    assert refused.value.response.status_code == 403
    assert [request.user for request in hub.requests if request.status == 403] == ["visitor"]


def test_namespaces_belong_to_someone(hub, api):
    """Repositories are made, moved and deleted under one's own name and in one's organisations."""
    hub.add_repo("org/net", {"README.md": CARD}, owner="owner")
    hub.add_repo("others/net", {"README.md": CARD})
    api.create_repo("org/second", private=True)

    assert api.model_info("org/second").private
    for act in (
        lambda: api.create_repo("others/second"),
        lambda: api.delete_repo("others/net"),
        lambda: api.move_repo("org/net", "others/third"),
        lambda: as_user(hub, "bot", can_write=False).create_repo("bot/net"),
    ):
        with pytest.raises(HfHubHTTPError) as refused:
            act()
        assert refused.value.response.status_code == 403
    with pytest.raises(HfHubHTTPError, match="already a model org/second"):
        api.move_repo("org/net", "org/second")
    assert as_user(hub, "others").create_repo("others/second").repo_id == "others/second"


def test_cards_are_validated(hub, api):
    """Invalid metadata, metadata above 4 MB and a README above 10 MiB do not get in."""
    hub.add_repo("owner/net", {"README.md": CARD})

    def push(text: str) -> None:
        api.create_commit("owner/net", [add(text)], commit_message="Mine")

    with pytest.raises(ValueError, match='"tags" must be an array'):
        push("---\ntags: {a: b}\n---\n")
    with pytest.raises(HfHubHTTPError) as refused:
        push(f"---\na: {'x' * 4_300_000}\n---\n")
    assert refused.value.response.status_code == 413
    with pytest.raises(BadRequestError, match="larger than 10 MiB"):
        push(CARD + "x" * 10_500_000)
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        push("no metadata")
    line = {"key": "file", "value": {"path": "README.md", "content": "LS0tCmE6IFsKLS0tCg=="}}
    body = b'{"key": "header", "value": {"summary": "Mine"}}\n' + json.dumps(line).encode()
    status, headers, _ = fetch(
        hub,
        "/api/models/owner/net/commit/main",
        method="POST",
        body=body,
        Authorization=f"Bearer {hub.token}",
    )
    assert (status, "YAML metadata verification" in headers["X-Error-Message"]) == (400, True)


# Files


def test_parts_of_files(hub):
    """Downloads are resumed, and streams seek, with `Range`."""
    hub.add_repo("org/data", {"a.parquet": bytes(range(100))}, kind="dataset")
    path = "/datasets/org/data/resolve/main/a.parquet"

    def part(text: str) -> tuple[int, str | None, bytes]:
        status, headers, body = fetch(hub, path, Range=text)
        return status, headers["Content-Range"], body

    assert part("bytes=10-19") == (206, "bytes 10-19/100", bytes(range(10, 20)))
    assert part("bytes=90-") == (206, "bytes 90-99/100", bytes(range(90, 100)))
    assert part("bytes=-5") == (206, "bytes 95-99/100", bytes(range(95, 100)))
    assert part("bytes=90-1000") == (206, "bytes 90-99/100", bytes(range(90, 100)))
    assert part("bytes=100-")[:2] == (416, "bytes */100")
    assert part("bytes=-") == (200, None, bytes(range(100)))
    assert part("items=1-2")[0] == 200


def test_large_files_are_kept_once(hub, api, tmp_path):
    """Content that is known is not sent again, whichever repository holds it."""
    hub.add_repo("owner/a", {"README.md": CARD})
    hub.add_repo("owner/b", {"README.md": CARD})
    for repo_id in ("owner/a", "owner/b"):
        api.upload_file(path_or_fileobj=b"\0" * 999, path_in_repo="x/net.safetensors", repo_id=repo_id)

    assert hub.read("owner/b", "x/net.safetensors") == b"\0" * 999
    assert [request.path.endswith("/verify") for request in hub.requests if "/lfs/" in request.path[:5]] == [
        False,
        True,
    ]
    local = api.hf_hub_download("owner/b", "x/net.safetensors", cache_dir=tmp_path)
    assert Path(local).read_bytes() == b"\0" * 999
    assert fetch(hub, "/lfs/00", method="PUT", body=b"other")[0] == 400


def test_headers_name_commit_and_content(hub):
    """Caches are keyed by them."""
    sha = hub.add_repo("org/net", {"README.md": "hello\n", "a.bin": b"123"})

    status, small, body = fetch(hub, "/org/net/resolve/main/README.md", method="HEAD")
    _, large, _ = fetch(hub, "/org/net/resolve/main/a.bin", method="HEAD")

    assert (status, body, small["Content-Length"]) == (200, b"", "6")
    assert small["X-Repo-Commit"] == large["X-Repo-Commit"] == sha
    assert small["ETag"] == '"ce013625030ba8dba906f756967f9e9ca394464a"'  # what `git hash-object` says
    assert small["X-Linked-Etag"] is None
    assert large["X-Linked-Etag"] == '"a665a45920422f9d417e4867efdc4fb8a04a1f3fff1fa07e998e86f7f7a27ae3"'
    assert large["X-Linked-Size"] == "3"
    assert small["X-Request-Id"] != large["X-Request-Id"]


def test_what_is_not_there(hub, api, tmp_path):
    """File, revision and repository are told apart by `X-Error-Code`; other paths are 404."""
    sha = hub.add_repo("org/net", {"README.md": CARD})

    status, headers, _ = fetch(hub, "/org/net/resolve/main/nothing")
    assert (status, headers["X-Error-Code"], headers["X-Repo-Commit"]) == (404, "EntryNotFound", sha)
    with pytest.raises(RevisionNotFoundError):
        api.hf_hub_download("org/net", "README.md", revision="nothing", cache_dir=tmp_path)
    with pytest.raises(RepositoryNotFoundError):
        api.hf_hub_download("org/none", "README.md", cache_dir=tmp_path)
    for path in ("/", "/api", "/api/spaces/a/b", "/a/b/c", "/api/models/org/net/nothing", "/lfs/00"):
        assert fetch(hub, path)[0] == 404
    assert fetch(hub, "/api/validate-yaml", method="POST", body=b"7")[0] == 400


def test_requests_are_remembered(hub, api):
    """Tests count them: a search may not fetch files one by one."""
    hub.add_repo("org/net", {"README.md": CARD})
    list(api.list_models(filter=["a", "b"]))

    (request,) = hub.requests
    assert (request.method, request.path, request.status, request.user) == (
        "GET",
        "/api/models",
        200,
        "owner",
    )
    assert request.query == {"filter": ["a", "b"]}
    hub.clear_requests()
    assert hub.requests == []


# Faults


def status_of(api: HfApi, repo_id: str = "org/net") -> int:
    try:
        api.model_info(repo_id)
    except HfHubHTTPError as error:
        return error.response.status_code
    return 200


def test_failures_come_as_often_as_asked(hub, api):
    """By path and method, first come first served."""
    hub.add_repo("org/net", {"README.md": CARD})
    hub.faults.fail(503, times=2, path=r"/api/models/org")
    hub.faults.fail(500, path=r"/api/models/org/net$", method="GET")
    hub.faults.fail(502, path=r"expand=sha", method="POST")

    assert [status_of(api) for _ in range(4)] == [503, 503, 500, 200]
    api.model_info("org/net", expand=["sha"])
    hub.faults.clear()
    hub.faults.fail(429, retry_after_s=7)
    with pytest.raises(HfHubHTTPError) as refused:
        api.model_info("org/net")
    headers = refused.value.response.headers
    assert headers["Retry-After"] == "7"
    limit = parse_ratelimit_headers(headers)
    assert (limit.remaining, limit.reset_in_seconds, limit.limit, limit.window_seconds) == (0, 7, 500, 300)
    hub.faults.fail(403, headers={"X-Error-Code": "GatedRepo"})
    with pytest.raises(GatedRepoError):
        api.model_info("org/net")


def test_too_many_requests_are_refused_until_the_window_ends(hub, api):
    """And the headers count them down."""
    hub.add_repo("org/net", {"README.md": CARD})
    hub.faults.rate_limit(2, window_s=3600)

    _, headers, _ = fetch(hub, "/api/models/org/net")
    assert parse_ratelimit_headers(headers).remaining == 1
    assert fetch(hub, "/org/net/resolve/main/README.md")[0] == 200  # not counted
    assert [status_of(api) for _ in range(3)] == [200, 429, 429]
    with pytest.raises(HfHubHTTPError, match="your 'api' rate limit"):
        api.model_info("org/net")
    hub.faults.rate_limit(1, window_s=1e-9)
    assert [status_of(api) for _ in range(3)] == [200, 200, 200]
    hub.faults.clear()
    assert status_of(api) == 200


def test_connections_are_cut(hub, api):
    """Before the answer, in its middle, and with a commit carried out or not."""
    head = hub.add_repo("owner/net", {"README.md": CARD})
    path = "/api/models/owner/net/commit/main"

    def post(summary: str) -> None:
        body = json.dumps({"key": "header", "value": {"summary": summary}}).encode()
        fetch(hub, path, method="POST", body=body, Authorization=f"Bearer {hub.token}")

    hub.faults.cut(path="commit/main", carried_out=False)
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        post("lost")
    assert hub.head("owner/net") == head
    hub.faults.cut(path="commit/main")
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        post("carried out")
    assert hub.history("owner/net")[0].title == "carried out"
    hub.faults.cut(after_bytes=5, path="resolve")
    with pytest.raises(http.client.IncompleteRead) as cut:
        fetch(hub, "/owner/net/resolve/main/README.md")
    assert cut.value.partial == CARD[:5].encode()
    assert [request.status for request in hub.requests] == [0, 0, 200]


def test_hanging_requests_wake_when_told(hub, api):
    """A test need not wait for them."""
    hub.add_repo("org/net", {"README.md": CARD})
    hub.faults.hang(3600, path="org/net", times=2)
    done: list[int] = []
    waiting = threading.Thread(target=lambda: done.append(fetch(hub, "/api/models/org/net")[0]))
    waiting.start()

    with pytest.raises(Exception, match="timed out"):
        api.model_info("org/net", timeout=0.05)
    hub.faults.clear()
    waiting.join(20)
    assert done == [200]


def test_latency_is_added(hub):
    """A few milliseconds show that it is served all the same."""
    hub.faults.latency_s = 0.002

    assert fetch(hub, "/api/models")[0] == 200
    assert hub.faults.latency_s == 0.002
    hub.faults.clear()
    assert hub.faults.latency_s == 0


def test_listings_may_lag_behind(hub, api):
    """The Hub caches them: a fresh push is seen in `model_info` first."""
    hub.add_repo("owner/a", {"README.md": CARD})

    def listed() -> list[str]:
        return [model.id for model in api.list_models(filter="task2vec", sort="created_at")]

    hub.faults.stale_listings = True
    hub.add_repo("owner/b", {"README.md": CARD})
    hub.commit("owner/a", {"README.md": "no metadata"})
    hub.remove("owner/b")
    assert hub.faults.stale_listings is True
    assert listed() == ["owner/a"]
    assert api.model_info("owner/a").card_data is None
    hub.faults.stale_listings = False
    assert listed() == []
    hub.faults.stale_listings = 2
    hub.commit("owner/a", {"README.md": CARD})
    assert [listed(), listed(), listed()] == [[], [], ["owner/a"]]
    assert hub.faults.stale_listings is False


def test_a_racing_writer_gets_in_between(hub, api):
    """After a commit arrived and before its parent is checked."""
    head = hub.add_repo("owner/net", {"README.md": CARD})
    hub.faults.before_commit(lambda: hub.commit("owner/net", {"a.txt": "theirs"}), times=1)

    with pytest.raises(HfHubHTTPError) as refused:
        api.create_commit("owner/net", [add("mine")], commit_message="Mine", parent_commit=head)
    assert refused.value.response.status_code == 412
    api.create_commit("owner/net", [add("mine")], commit_message="Mine", parent_commit=hub.head("owner/net"))
    assert [commit.author for commit in hub.history("owner/net")] == ["owner", "someone", "owner"]


def test_a_hub_that_lies(hub, api):
    """Every answer is untrusted input."""
    hub.add_repo("org/net", {"README.md": CARD})
    hub.faults.lie(r"/api/models$", b'[{"id": "org/fake"}]')
    hub.faults.lie(
        r"/org/net/resolve/", b"\xff\x00", content_type="text/plain", headers={"X-Repo-Commit": "x"}
    )

    assert [model.id for model in api.list_models()] == ["org/fake"]
    assert fetch(hub, "/org/net/resolve/main/README.md")[2] == b"\xff\x00"
    assert fetch(hub, "/org/net/resolve/main/README.md")[2] == CARD.encode()


# The hub itself


def test_a_hub_stops_and_starts_again():
    """What it holds stays; connections that clients keep do not outlive it."""
    hub = LoopbackHub()
    hub.add_repo("org/net", {"README.md": CARD})
    with pytest.raises(SettingsError, match=r"does not listen: use `with LoopbackHub\(\)"):
        hub.endpoint  # noqa: B018
    hub.start()
    hub.start()
    address = urlsplit(hub.endpoint)
    kept = http.client.HTTPConnection(address.hostname, address.port, timeout=20)
    kept.request("GET", "/api/models")
    kept.getresponse().read()
    hub.stop()
    hub.stop()

    with pytest.raises((http.client.HTTPException, ConnectionError)):
        kept.request("GET", "/api/models")
        kept.getresponse()
    with hub:
        assert json.loads(fetch(hub, "/api/models")[2])[0]["id"] == "org/net"


def test_many_clients_at_once(hub, api):
    """Commits without a parent all arrive, one after the other."""
    hub.add_repo("owner/net", {"README.md": CARD})

    def commit(i: int) -> None:
        api.create_commit("owner/net", [add(str(i), f"{i}.txt")], commit_message=f"Number {i}")

    threads = [threading.Thread(target=commit, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(hub.history("owner/net")) == 13
    assert len(api.list_repo_files("owner/net")) == 13


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda hub: hub.add_repo("a/b/c", {}), "'a/b/c' is no repository id"),
        (lambda hub: hub.add_repo("org/net", {}), "already a model 'org/net': use hub.commit"),
        (lambda hub: hub.add_repo("org/x", {}, kind="space"), "kind must be 'model' or 'dataset'"),
        (lambda hub: hub.add_repo("org/x", {}, gated=True), "gated must be False, 'auto' or 'manual'"),
        (lambda hub: hub.commit("org/none", {}), r"no model 'org/none'; it has \['org/net'\]"),
        (lambda hub: hub.read("org/net", "none"), r"'org/net' has no 'none' but \['README.md'\]"),
        (lambda hub: hub.read("org/net", revision="none"), "'org/net' has no revision 'none'"),
        (lambda hub: hub.rename("org/net", "a b"), "'a b' is no repository id"),
        (lambda hub: hub.rename("org/net", "org/net"), "already a model 'org/net'"),
        (lambda hub: hub.user("a/b"), "user cannot be called 'a/b'"),
        (lambda hub: hub.faults.fail(200), "status must be an error, 400 to 599, not 200"),
        (lambda hub: hub.faults.fail(500, times=0), "times must be 1 or more, not 0"),
        (lambda hub: hub.faults.fail(500, path="("), r"path must be a regular expression, not '\('"),
        (lambda hub: hub.faults.rate_limit(-1, 1), "n must not be negative"),
        (lambda hub: hub.faults.cut(after_bytes=-1), "after_bytes must not be negative"),
        (lambda hub: hub.faults.hang(-1), "seconds must not be negative"),
        (lambda hub: setattr(hub.faults, "latency_s", -1), "latency_s must be a number of seconds"),
        (lambda hub: setattr(hub.faults, "stale_listings", -1), "stale_listings must be True, False or"),
    ],
)
def test_slips_are_told(act, message):
    """The hub is an interface for people as well."""
    hub = LoopbackHub()
    hub.add_repo("org/net", {"README.md": CARD})

    with pytest.raises(SettingsError, match=message):
        act(hub)


def test_runs_repeat_to_the_letter():
    """Commit ids and dates follow from contents and order alone."""

    def run() -> list[object]:
        hub = LoopbackHub()
        hub.add_repo("org/net", {"README.md": CARD, "a.bin": b"1"})
        hub.commit("org/net", {"a.bin": None})
        return hub.history("org/net")

    assert run() == run()


def test_the_hub_loads_no_library_that_it_serves():
    """A test of a plug-in's cards starts without torch."""
    code = (
        "import sys; from t2v_hub.testing import Faults, LoopbackHub, Request; "
        "heavy = {'torch', 'transformers', 'datasets', 'huggingface_hub', 'numpy'} & set(sys.modules); "
        "assert not heavy, heavy; import t2v_hub.testing as here; "
        "assert all(name in dir(here) for name in here.__all__)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    import t2v_hub.testing

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        t2v_hub.testing.nothing  # noqa: B018


# Libraries that take no endpoint


def run_child(hub: LoopbackHub, home: Path, code: str, **more: object) -> dict[str, object]:
    """Runs code in a process that knows no other Hub, and returns what it says last."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **hub.environment(home, **more), "TQDM_DISABLE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_transformers_and_timm_load_from_it(hub, tmp_path):
    """Checkpoints are pushed, which takes large file storage, and loaded back to the bit."""
    code = """
import json, timm, torch
from huggingface_hub import snapshot_download
from transformers import AutoModelForImageClassification, ViTConfig, ViTForImageClassification
config = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
                   image_size=8, patch_size=4)
model = ViTForImageClassification(config)
model.push_to_hub("owner/vit", token=None)
loaded = AutoModelForImageClassification.from_pretrained("owner/vit")
same = all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), loaded.state_dict().values()))
net = timm.create_model("test_vit", num_classes=3)
timm.models.push_to_hf_hub(net, "owner/timm", model_config={"architecture": "test_vit", "num_classes": 3})
again = timm.create_model("hf-hub:owner/timm", pretrained=True)
folder = snapshot_download("owner/timm", local_dir=__import__("os").environ["HF_HOME"] + "/copy")
print(json.dumps({"vit": same, "timm": torch.equal(net.head.weight, again.head.weight)}))
"""
    said = run_child(hub, tmp_path / "home", code)

    assert said == {"vit": True, "timm": True}
    assert (tmp_path / "home" / "copy" / "model.safetensors").exists()
    api = nobody(hub)
    assert "transformers" in api.model_info("owner/vit").tags
    assert api.model_info("owner/timm").library_name == "timm"
    assert {"PUT"} == {request.method for request in hub.requests if request.path.startswith("/lfs/")} - {
        "POST"
    }
    (weights,) = (
        each for each in api.model_info("owner/vit", files_metadata=True).siblings if each.lfs is not None
    )
    assert weights.rfilename == "model.safetensors"
    assert weights.lfs.size == weights.size == len(hub.read("owner/vit", "model.safetensors"))


def test_datasets_load_and_stream_from_it(hub, tmp_path):
    """Image data sets in parquet, by push_to_hub, load_dataset and streaming."""
    code = """
import json
from PIL import Image as Pictures
from datasets import ClassLabel, Dataset, Features, Image, load_dataset
features = Features({"image": Image(), "label": ClassLabel(names=["a", "b"])})
pictures = [Pictures.new("RGB", (8, 8), (i, 0, 0)) for i in range(6)]
made = Dataset.from_dict({"image": pictures, "label": [0, 1] * 3}, features=features)
made.push_to_hub("owner/data", split="train")
mapped = load_dataset("owner/data", split="train")
streamed = load_dataset("owner/data", split="train", streaming=True)
red = lambda rows: [row["image"].getpixel((0, 0))[0] for row in rows]
print(json.dumps({"mapped": red(mapped), "streamed": red(streamed), "names": mapped.features["label"].names}))
"""
    said = run_child(hub, tmp_path / "home", code)

    assert said == {"mapped": [0, 1, 2, 3, 4, 5], "streamed": [0, 1, 2, 3, 4, 5], "names": ["a", "b"]}
    assert {request.user for request in hub.requests if request.method != "PUT"} == {"owner"}
    info = nobody(hub).dataset_info("owner/data")
    assert any(file.rfilename.endswith(".parquet") for file in info.siblings)


def test_an_environment_without_a_token_is_nobodys(hub, tmp_path, monkeypatch):
    """A token of the parent's must not leak into it."""
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_parent")
    hub.add_repo("org/net", {"README.md": CARD})
    code = (
        "import json; from huggingface_hub import get_token, model_info; "
        "print(json.dumps({'token': get_token(), 'id': model_info('org/net').id}))"
    )

    assert run_child(hub, tmp_path, code, token=False) == {"token": None, "id": "org/net"}
    assert [request.user for request in hub.requests] == [None]


def test_the_examples_of_the_page_run():
    """docs/testing.md is code that people copy."""
    page = (Path(__file__).parent.parent / "docs" / "testing.md").read_text(encoding="utf-8")
    blocks = [block.partition("```")[0] for block in page.split("```python\n")[1:]]
    assert blocks
    code = "\n".join(blocks)

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
