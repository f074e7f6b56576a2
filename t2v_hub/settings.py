"""Which settings of `Task2Vec` can work."""

from typing import Literal

import torch

from t2v_hub.errors import SettingsError
from t2v_hub.fisher.variational import VariationalRecipe
from t2v_hub.head import HeadRecipe

Dtype = Literal["float32", "float64", "bfloat16"]
EstimatorName = Literal["monte_carlo", "exact", "empirical", "variational"]
Sampling = Literal["natural", "balanced"]


def check_settings(
    *,
    batch_size: int,
    max_samples: int,
    n_labels: int,
    seed: int,
    estimator: EstimatorName,
    sampling: Sampling,
    dtype: Dtype,
    beta: float,
    tolerance: float | None,
    standard_error: bool,
    head: HeadRecipe | None,
    variational: VariationalRecipe | None,
    device: str | None,
) -> None:
    """Return when `Task2Vec` can measure with these.

    Raises:
        SettingsError: One of them cannot work, or not with the others.
    """
    for name, value, least in (
        ("batch_size", batch_size, 1),
        ("max_samples", max_samples, 2),
        ("n_labels", n_labels, 1),
        ("seed", seed, 0),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise SettingsError(f"{name} must be a whole number >= {least}, not {value!r}.")
    if estimator not in ("monte_carlo", "exact", "empirical", "variational"):
        raise SettingsError(
            f"There is no estimator {estimator!r}; choose monte_carlo, exact, empirical or variational."
        )
    if sampling not in ("natural", "balanced"):
        raise SettingsError(f"sampling must be 'natural' or 'balanced', not {sampling!r}.")
    if dtype not in ("float32", "float64", "bfloat16"):
        raise SettingsError(f"dtype must be 'float32', 'float64' or 'bfloat16', not {dtype!r}.")
    if dtype == "bfloat16" and estimator == "variational":
        raise SettingsError(
            "The variational estimate sums up small steps, which bfloat16 would lose; choose "
            "dtype='float32', or another estimator."
        )
    if isinstance(beta, bool) or not isinstance(beta, int | float) or not (0 < beta < float("inf")):
        raise SettingsError(f"beta must be a finite number > 0, not {beta!r}.")
    if tolerance is not None and not (
        isinstance(tolerance, int | float) and not isinstance(tolerance, bool) and 0 < tolerance < 1
    ):
        raise SettingsError(f"tolerance must lie between 0 and 1, or be None, not {tolerance!r}.")
    if tolerance is not None and not standard_error:
        raise SettingsError("tolerance needs the standard error; leave standard_error=True.")
    if tolerance is not None and estimator == "variational":
        raise SettingsError(
            "tolerance needs a standard error, and the variational estimate has none; pass tolerance=None."
        )
    if head is not None and not isinstance(head, HeadRecipe):
        raise SettingsError(f"head must be a HeadRecipe, such as HeadRecipe(kind='l2'), not {head!r}.")
    if variational is not None and not isinstance(variational, VariationalRecipe):
        raise SettingsError(
            f"variational must be a VariationalRecipe, such as VariationalRecipe(epochs=1), "
            f"not {variational!r}."
        )
    if variational is not None and estimator != "variational":
        raise SettingsError(
            f"A variational recipe is of no use to the estimator {estimator!r}; choose "
            f"estimator='variational', or leave the recipe out."
        )
    if device is not None:
        _check_device(device)


def _check_device(device: str) -> None:
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, ValueError, TypeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise SettingsError(
            f"device={device!r} cannot be used here: {reason}. Pass 'cpu', or None for what is at hand."
        ) from error
