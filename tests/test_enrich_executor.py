"""Enrichment whose data sets are measured elsewhere: all that it promises stays as it is."""

import pytest
from elsewhere import Elsewhere
from test_enrich import Embedder, add, run

from t2v_hub import Catalog
from t2v_hub.errors import DataError, RateLimitError, SettingsError, StorageError
from t2v_hub.testing import LoopbackHub


@pytest.fixture
def hub():
    with LoopbackHub() as hub:
        for name in ("org/birds", "org/cars", "org/flowers"):
            hub.add_repo(name, {"README.md": "# data"}, kind="dataset")
        add(hub, "owner/a", head="datasets: [org/birds]\n", downloads=9)
        add(hub, "owner/b", head="datasets: [org/birds]\n", downloads=8)
        add(hub, "owner/c", head="datasets: [org/cars]\n", downloads=7)
        add(hub, "owner/d", head="datasets: [org/flowers]\n", downloads=6)
        yield hub


@pytest.fixture
def embedder(tmp_path):
    return Embedder(tmp_path)


def seen(report):
    sets = [(d.id, d.n_checkpoints, d.state, d.reason) for d in report.data_sets]
    return sets, [(c.id, c.data_set, c.state, c.reason) for c in report.cards], report.without


def test_the_report_the_catalog_and_the_cards_are_those_of_one_process(hub, embedder, tmp_path):
    """In the same order, too, whichever was measured first."""
    (tmp_path / "here").mkdir()
    here = run(hub, Embedder(tmp_path / "here"), tmp_path / "here", catalog_only=True)
    done = run(hub, embedder, tmp_path, executor=Elsewhere(), catalog_only=True)
    written = run(hub, embedder, tmp_path, executor=Elsewhere())

    assert seen(done) == seen(here)
    assert [d.state for d in done.data_sets] == ["embedded"] * 3
    assert [d.state for d in written.data_sets] == ["reused"] * 3
    assert [c.state for c in written.cards] == ["committed"] * 4
    assert embedder.embedded == ["org/birds", "org/cars", "org/flowers"]
    here, elsewhere = (
        {c.id: [e.task.id for e in c.embeddings] for c in Catalog.load(tmp_path / folder / "catalog")}
        for folder in ("here", ".")
    )
    assert elsewhere == here
    assert here["owner/b"] == ["org/birds"]


def test_a_lost_worker_fails_its_data_set_only_and_the_next_run_goes_on(hub, embedder, tmp_path):
    """What was measured is not measured again."""
    first = run(hub, embedder, tmp_path, executor=Elsewhere(lost=[1]))

    again = run(hub, embedder, tmp_path, executor=Elsewhere())

    assert {d.id: d.state for d in first.data_sets} == {
        "org/birds": "embedded", "org/cars": "failed", "org/flowers": "embedded"
    }  # fmt: skip
    assert "lost with its worker" in str(first)
    assert {d.id: d.state for d in again.data_sets} == {
        "org/birds": "reused", "org/cars": "embedded", "org/flowers": "reused"
    }  # fmt: skip
    assert embedder.embedded == ["org/birds", "org/cars", "org/flowers"]


def test_workers_get_no_token_and_no_card(hub, embedder, tmp_path):
    """Ray keeps what is sent in a store that all of its processes read."""
    elsewhere = Elsewhere()

    run(hub, embedder, tmp_path, executor=elsewhere)

    assert hub.token
    assert len(elsewhere.sent) == 4
    for sent in elsewhere.sent:
        assert hub.token.encode() not in sent
        assert b"owner/" not in sent
        assert hub.endpoint.encode() not in sent


def test_a_data_set_with_two_names_is_measured_once(hub, embedder, tmp_path):
    """Both names are asked for before either is measured."""
    add(hub, "owner/e", head="datasets: [org/planes]\n", downloads=5)
    hub.add_repo("org/planes", {"README.md": "# data"}, kind="dataset")
    hub.rename("org/planes", "org/aircraft", kind="dataset")
    add(hub, "owner/f", head="datasets: [org/aircraft]\n", downloads=4)

    report = run(hub, embedder, tmp_path, executor=Elsewhere())

    assert embedder.embedded.count("org/aircraft") == 1
    states = sorted(d.state for d in report.data_sets if d.id == "org/aircraft")
    assert states == ["embedded", "reused"]
    assert {c.id: c.state for c in report.cards if c.id in ("owner/e", "owner/f")} == {
        "owner/e": "committed", "owner/f": "committed"
    }  # fmt: skip


def test_a_worker_that_is_told_to_wait_for_too_long_ends_the_run(hub, embedder, tmp_path):
    """What follows would fare no better; the work of the others is given up."""
    embedder.missing = {"org/flowers": RateLimitError("The Hub asks to wait for 4000 s.")}
    elsewhere = Elsewhere()

    with pytest.raises(RateLimitError, match="4000 s"):
        run(hub, embedder, tmp_path, executor=elsewhere)

    assert elsewhere.closed
    embedder.missing = {}
    assert len(run(hub, embedder, tmp_path, executor=elsewhere).data_sets) == 3


def test_an_unknown_executor_is_refused_before_the_hub_is_asked(hub, embedder, tmp_path):
    """A listing takes minutes."""
    with pytest.raises(SettingsError, match="There is no executor 'rya'"):
        run(hub, embedder, tmp_path, executor="rya")

    assert not hub.requests


def test_what_is_known_is_written_before_a_run_ends_badly(hub, embedder, tmp_path):
    """What another run measured waits for nothing; the limit of the Hub's patience must not cost it."""
    embedder.missing = {"org/cars": DataError("not now"), "org/flowers": DataError("not now")}
    run(hub, embedder, tmp_path, catalog_only=True)
    embedder.missing = {"org/cars": RateLimitError("The Hub asks to wait for 4000 s.")}
    Catalog.load(tmp_path / "catalog").remove("owner/a")

    with pytest.raises(RateLimitError, match="4000 s"):
        run(hub, embedder, tmp_path, executor=Elsewhere(), catalog_only=True)

    assert "owner/a" in Catalog.load(tmp_path / "catalog")


def test_the_full_disk_of_a_worker_fails_its_data_set_only(hub, embedder, tmp_path):
    """Another machine's scratch folder says nothing about this one's."""
    embedder.missing = {"org/cars": StorageError("Cannot write '/scratch/x': the disk is full.")}

    report = run(hub, embedder, tmp_path, executor=Elsewhere(), catalog_only=True)

    assert {d.id: d.state for d in report.data_sets} == {
        "org/birds": "embedded", "org/cars": "failed", "org/flowers": "embedded"
    }  # fmt: skip
    assert "in a worker: Cannot write '/scratch/x'" in str(report)
