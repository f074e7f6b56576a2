"""Synthetic embeddings, candidates and catalogs for tests; no probe, no images, no torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from t2v_hub.catalog import Candidate, Catalog
from t2v_hub.embedding import Layer, Measurement, Space, TaskEmbedding, TaskInfo, jackknife_standard_error


def make_space(n_filters: int | Sequence[int] = 12, **changes: Any) -> Space:
    """A space; ``n_filters`` of one layer, or of several."""
    sizes = [n_filters] if isinstance(n_filters, int) else list(n_filters)
    settings: dict[str, Any] = {
        "probe_digest": "sha256:" + "ab" * 32,
        "layers": tuple(Layer(f"layer{i}.conv", size) for i, size in enumerate(sizes)),
        "preprocessing": {"size": 224, "mean": [0.485, 0.456, 0.406]},
        "head": {"loss": "softmax", "l2": 0.01},
        "sampling": {"how": "natural"},
        "family": "fisher",
        "beta": 1e-7,
        "probe": "timm/resnet18.a1_in1k",
    }
    return Space(**{**settings, **changes})


def make_embedding(
    fisher: ArrayLike | None = None,
    *,
    seed: int = 0,
    n_filters: int = 12,
    task: str | None = None,
    space: Space | None = None,
    prior: ArrayLike | None = None,
    deviations: ArrayLike | None = None,
    n_groups: int | None = None,
    noise: float = 0.01,
    **measurement: Any,
) -> TaskEmbedding:
    """An embedding of the given values, or of seeded log-normal ones.

    With ``n_groups``, deviations are drawn for so many groups, such that each filter's relative
    standard error is about ``noise``; further arguments are fields of its `Measurement`.
    """
    rng = np.random.default_rng(seed)
    values = np.exp(rng.normal(-9.0, 2.0, n_filters)) if fisher is None else np.asarray(fisher, np.float64)
    space = make_space(len(values)) if space is None else space
    if n_groups is not None:
        deviations = rng.normal(0.0, noise / np.sqrt(n_groups), (n_groups, len(values)))
    measured: dict[str, Any] = {"estimator": "monte_carlo", "n_samples": 500, "seed": seed, **measurement}
    if deviations is not None and "standard_error" not in measured:
        error = values * jackknife_standard_error(np.asarray(deviations, np.float64))
        measured["standard_error"] = float(np.linalg.norm(error) / max(np.linalg.norm(values), 1e-300))
    return TaskEmbedding(
        fisher=values,  # type: ignore[arg-type]  # it is cast there
        prior=np.full(len(space.layers), 1e-3) if prior is None else np.asarray(prior),  # type: ignore[arg-type]
        space=space,
        task=TaskInfo(
            task or f"task{seed}",
            n_samples=1000,
            n_classes=4,
            revision="a" * 40 if "/" in (task or "") else None,  # from the Hub, as its id says
            class_names=("a", "b", "c", "d"),
        ),
        measurement=Measurement(**measured),
        deviations=None if deviations is None else np.asarray(deviations),  # type: ignore[arg-type]
    )


def make_catalog(path: Path, candidates: Sequence[Candidate]) -> Catalog:
    """A catalog of these candidates."""
    catalog = Catalog(path)
    catalog.extend(candidates)
    return catalog
