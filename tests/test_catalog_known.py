"""`KnownEmbeddings`: which embedding stands for a task, and which a candidate has."""

import pytest
from factories import make_catalog, make_embedding, make_space

from t2v_hub.card import Readme, entry_values, space_tag
from t2v_hub.catalog import Candidate, Catalog
from t2v_hub.catalog.known import KnownEmbeddings

SPACE, OTHER = make_space(20), make_space(20, beta=1.0)


def embedding(seed, task, *, space=SPACE, **measurement):
    return make_embedding(seed=seed, n_filters=20, space=space, task=task, **measurement)


NAMED, MORE = embedding(1, "pets", n_samples=100), embedding(2, "pets", n_samples=400)
GIVEN, ADDED, ELSEWHERE = embedding(3, "Pets"), embedding(4, "PETS"), embedding(5, "pets", space=OTHER)


@pytest.fixture
def catalog(tmp_path):
    """Candidates that were trained on the pets, and results that name two embeddings of them."""
    catalog = make_catalog(
        tmp_path / "catalog",
        [Candidate("org/a", embeddings=[ADDED, ELSEWHERE]), Candidate("org/b", embeddings=[ELSEWHERE])],
    )
    for task in (NAMED, MORE, ELSEWHERE):
        catalog.record(task, "org/x", 0.5, seed=task.measurement.seed)
    return catalog


@pytest.mark.parametrize(
    ("named", "given", "space", "expected"),
    [
        ([NAMED, MORE], [GIVEN], SPACE, MORE),
        ([NAMED, ELSEWHERE], [GIVEN], SPACE, NAMED),
        ([ELSEWHERE], [GIVEN], SPACE, GIVEN),
        ([], [GIVEN], OTHER, ELSEWHERE),
        ([], [], SPACE, ADDED),
        ([], [], make_space(20, beta=2.0), None),
    ],
)
def test_a_task_is_what_its_results_name_then_what_is_given_then_what_was_trained_on(
    catalog, named, given, space, expected
):
    """In one space; of several the one of the most images; whatever the case of the id."""
    known = KnownEmbeddings(catalog)
    for one in given:
        known.take(one)

    assert known.of_task("pEts", space.id, named=[one.digest for one in named]) == expected
    assert known.of_task("leaves", space.id) is None
    assert known.skipped == []


def test_what_a_stranger_calls_a_data_set_counts_only_where_that_is_wanted(loopback_hub, tmp_path):
    """A card can name any data set; what was added here names what its owner means."""
    entries = [entry_values(embedding(6, "org/pets"), role="finetune")]
    tags = {"task2vec", space_tag(SPACE.id)}
    card = Readme.parse(b"---\nlicense: mit\n---\n# Model\n").changed(append=entries, add_tags=tags)
    loopback_hub.add_repo("owner/m", {"README.md": card})
    catalog = Catalog.from_hub(tmp_path, endpoint=loopback_hub.endpoint)
    known = KnownEmbeddings(catalog)

    found = known.of_task("org/pets", SPACE.id)

    assert found.task.id == "org/pets"
    assert known.of_task("org/pets", SPACE.id, from_cards=False) is None
    assert known.of_candidate("owner/m", SPACE.id) == (found,)


def test_a_candidate_has_those_of_the_space(catalog):
    """One that is in no catalog has none."""
    known = KnownEmbeddings(catalog)

    assert known.of_candidate("org/a", SPACE.id) == (ADDED,)
    assert known.of_candidate("org/b", SPACE.id) == ()
    assert known.of_candidate("org/nobody", SPACE.id) == ()


def test_what_cannot_be_read_is_named_once(catalog):
    """With whose it is; the rest is there."""
    (catalog.embeddings_folder / f"{ADDED.digest.removeprefix('sha256:')}.safetensors").write_bytes(b"no")
    known = KnownEmbeddings(catalog)

    assert known.of_task("pets", SPACE.id) is None
    assert known.of_candidate("org/a", SPACE.id) == ()
    assert known.of_candidate("org/a", OTHER.id) == (ELSEWHERE,)
    [reason] = known.skipped
    assert reason.startswith("org/a: ") and "is not a usable embedding file" in reason
