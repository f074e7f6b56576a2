"""`share`: the experts on a Hub of this machine, uploaded, found by their cards, ranked and loaded."""

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from t2v_hub.catalog import Catalog
from t2v_hub.demo.folder import DemoFolder
from t2v_hub.demo.networks import seeded
from t2v_hub.demo.report import Expert, HubFindings
from t2v_hub.embedding import TaskEmbedding
from t2v_hub.errors import StorageError, T2VError
from t2v_hub.hub import Connection, push_embedding
from t2v_hub.selector import ModelSelector, Ranking
from t2v_hub.testing import LoopbackHub

if TYPE_CHECKING:
    from datasets import Dataset
    from huggingface_hub import HfApi

USER = "t2v-demo"
"""Who owns the experts on the Hub."""
_PATIENCE_S = 10.0  # the Hub is this process; where it does not answer, waiting does not help


def share(
    experts: Sequence[Expert],
    sources: Sequence[TaskEmbedding],
    tasks: Sequence[TaskEmbedding],
    rankings: Sequence[Ranking],
    train: "Dataset",
    folder: DemoFolder,
) -> HubFindings:
    """What came of sharing the experts as one would on the Hub: all of it with the clients one would use.

    The Hub listens on this machine while this runs. Where it cannot, or where it cannot be reached, the
    findings say so, and nothing is raised.

    Args:
        experts: What to upload.
        sources: Embedding of the source task of each.
        tasks: Embeddings of the targets.
        rankings: Of each target, from the local catalog.
        train: Images of the first target, whose first choice is loaded for it.
        folder: Where the catalog of what was found, and what is downloaded, is kept.
    """
    hub = LoopbackHub()
    token = hub.user(USER)
    try:
        hub.start()
    except OSError as error:
        return HubFindings(failure=f"no port of this machine can be listened on ({error.strerror or error})")
    try:
        with _quiet_client():
            link = Connection(
                endpoint=hub.endpoint, token=token, patience_s=_PATIENCE_S, tries=2, progress=False
            )
            for expert, source in zip(experts, sources, strict=True):
                _publish(expert, source, link)
            n_uploads = len(hub.requests)
            catalog = Catalog.from_hub(
                folder.hub_catalog, space=sources[0].space, endpoint=hub.endpoint, token=token
            )
            n_requests = len(hub.requests) - n_uploads
            selector = ModelSelector(catalog)
            found = [selector.rank(task) for task in tasks]
            with seeded(0):  # its fresh head
                found[0][0].load(train, cache_dir=folder.hub_cache)
    except StorageError:
        raise
    except T2VError as error:
        return HubFindings(failure=str(error))
    finally:
        hub.stop()
    pairs = list(zip(rankings, found, strict=True))
    return HubFindings(
        n_published=len(experts),
        n_uploads=n_uploads,
        n_requests=n_requests,
        n_found=len(catalog),
        largest_difference=max(_difference(*pair) for pair in pairs),
        same_order=all(_names(ours) == _names(theirs) for ours, theirs in pairs),
        loaded=found[0].ranked[0],
    )


def model_card(expert: Expert, source: TaskEmbedding) -> str:
    """README.md of an expert: what it is, what it was trained on, and what it is worth."""
    classes = ", ".join(source.task.class_names)
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"name": expert.name, "type": expert.name, "split": "test"},
        "metrics": [{"type": "accuracy", "value": expert.accuracy}],
    }
    values = {
        "license": "apache-2.0",
        "library_name": expert.library,
        "pipeline_tag": "image-classification",
        "tags": ["t2v-demo"],
        "model-index": [{"name": expert.name, "results": [result]}],
    }
    return (
        f"---\n{yaml.safe_dump(values, sort_keys=False)}---\n"
        f"# {expert.name}\n\n"
        f"A toy that `t2v demo` trained from scratch: a residual network of {expert.parameters:,} parameters "
        f"for {expert.library}, trained on {source.task.n_samples} images of scikit-learn's handwritten "
        f"digits ({classes}). It is right on {expert.accuracy:.1%} of held-out images of the same kind, and "
        f"good for nothing but to show how checkpoints are found by what they were trained on.\n"
    )


def _publish(expert: Expert, source: TaskEmbedding, link: Connection) -> None:
    """Upload an expert with its card, and write its embedding into that."""
    id, what = f"{USER}/{expert.name}", f"The upload of {expert.name!r}"
    link.call(partial(link.api.create_repo, id, exist_ok=True), what=what)
    link.call(partial(_upload, link.api, id, Path(expert.location), model_card(expert, source)), what=what)
    # Class names and the task's name are the demo's own: there is nothing to keep back.
    push_embedding(id, source, role="pretrain", publish_names=True, create_pr=False, connection=link)


def _upload(api: "HfApi", id: str, folder: Path, card: str) -> None:
    """All files of a folder and a card, in one commit."""
    from huggingface_hub import CommitOperationAdd

    with contextlib.ExitStack() as opened:
        operations = [CommitOperationAdd("README.md", card.encode())]
        for path in sorted(folder.iterdir()):
            # Opened here, since the client sends paths by Xet, which a Hub on this machine does not have;
            # whether it does so is fixed when it is imported.
            file = opened.enter_context(path.open("rb"))
            operations.append(CommitOperationAdd(path.name, file))
        api.create_commit(id, operations, commit_message="Upload the checkpoint")


def _difference(ours: Ranking, theirs: Ranking) -> float:
    """Largest difference between two distances of one expert."""
    distances = {Path(item.candidate.id).name: item.distance for item in ours}
    pairs = ((distances.get(Path(item.candidate.id).name), item.distance) for item in theirs)
    return max((abs(a - b) for a, b in pairs if a is not None and b is not None), default=0.0)


def _names(ranking: Ranking) -> list[str]:
    """Names of the experts, best first: of folders in one catalog, of repositories in the other."""
    return [Path(id).name for id in ranking.ranked]


@contextlib.contextmanager
def _quiet_client() -> Iterator[None]:
    """No bars and no warnings of the Hub's client: the story says what happens."""
    from huggingface_hub import utils

    client: Any = utils  # its type information leaves these out
    verbosity, bars = client.logging.get_verbosity(), not client.are_progress_bars_disabled()
    client.logging.set_verbosity_error()
    if bars:
        client.disable_progress_bars()
    try:
        yield
    finally:
        client.logging.set_verbosity(verbosity)
        if bars:
            client.enable_progress_bars()
