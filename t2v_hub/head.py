"""The linear head: fitted on penultimate features, once per task, deterministic."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from t2v_hub.errors import SettingsError
from t2v_hub.logistic import MAX_UNKNOWNS, fit_many

Array = NDArray[np.float64]
Labels = NDArray[Any]

_ABSENT = -30.0  # logit of a class that no image shows: p of 1e-13, and still finite


@dataclass(frozen=True)
class Head:
    """A linear classifier on features.

    Attributes:
        weight: ``(n_classes, n_features)``.
        bias: ``(n_classes,)``.
        multi_label: Whether classes are independent (sigmoid) instead of exclusive (softmax).
    """

    weight: Array
    bias: Array
    multi_label: bool = False

    def probabilities(self, features: NDArray[Any]) -> Array:
        """Class probabilities, ``(n, n_classes)``."""
        from scipy.special import expit, softmax

        logits = features.astype(np.float64) @ self.weight.T + self.bias
        result: Array = expit(logits) if self.multi_label else softmax(logits, axis=1)
        return result


@dataclass(frozen=True)
class HeadRecipe:
    """How the head is fitted; part of the `Space`, since it decides what the embedding says.

    All recipes work on standardised features and weigh images so that every class counts the same
    (not for multi-label tasks, whose classes overlap).

    Attributes:
        kind: ``l2``: the mean cross-entropy plus ``strength / 2`` times the squared weights, to the
            optimum. ``cv``: the same, strength by 5-fold cross-validated likelihood. ``entropy``:
            ``l2`` and then a temperature that brings the mean entropy of the predictions to
            ``entropy`` times its largest value. ``adam``: the paper's short optimisation.
        strength: Of the penalty (``l2``, ``entropy``).
        scaling: ``common``: features are centred and divided by one number, their root mean square
            deviation. ``each``: every feature is divided by its own deviation; a feature that
            hardly ever fires then gets a huge weight, and with it the few images where it does.
        entropy: Target of the recipe ``entropy``, in (0, 1).
        epochs: Passes of ``adam``.
        draws: Class-balanced draws with replacement in each pass of ``adam``.
        learning_rate: Of ``adam``.
        weight_decay: Of ``adam``.
    """

    kind: Literal["l2", "cv", "entropy", "adam"] = "l2"
    strength: float = 10.0
    scaling: Literal["common", "each"] = "common"
    entropy: float = 0.9
    epochs: int = 2
    draws: int = 10_000
    learning_rate: float = 4e-4
    weight_decay: float = 1e-4

    def __post_init__(self) -> None:
        if self.kind not in ("l2", "cv", "entropy", "adam"):
            raise SettingsError(f"There is no head recipe {self.kind!r}; choose l2, cv, entropy or adam.")
        for name in ("strength", "learning_rate"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and np.isfinite(value) and value > 0):
                raise SettingsError(f"The head's {name} must be a finite number > 0, not {value!r}.")
        if self.scaling not in ("common", "each"):
            raise SettingsError(f"The head's scaling must be 'common' or 'each', not {self.scaling!r}.")
        if not (isinstance(self.entropy, int | float) and 0 < self.entropy < 1):
            raise SettingsError(f"The head's entropy must lie between 0 and 1, not {self.entropy!r}.")
        for name in ("epochs", "draws"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise SettingsError(f"The head's {name} must be a whole number >= 1, not {value!r}.")
        decay = self.weight_decay
        if not (isinstance(decay, int | float) and np.isfinite(decay) and decay >= 0):
            raise SettingsError(f"The head's weight_decay must be a finite number >= 0, not {decay!r}.")

    def to_dict(self) -> dict[str, Any]:
        """What matters of the recipe as plain values, for the `Space`."""
        used = {
            "l2": ("kind", "scaling", "strength"),
            "cv": ("kind", "scaling"),
            "entropy": ("kind", "scaling", "strength", "entropy"),
            "adam": ("kind", "scaling", "epochs", "draws", "learning_rate", "weight_decay"),
        }[self.kind]
        return {key: value for key, value in asdict(self).items() if key in used}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The recipe that `to_dict` wrote; other keys are ignored."""
        return cls(**{key: value for key, value in values.items() if key in cls.__dataclass_fields__})

    def fit(
        self,
        features: NDArray[Any],
        labels: Labels,
        *,
        n_classes: int | None = None,
        weights: Array | None = None,
        seed: int = 0,
    ) -> Head:
        """The head of this recipe.

        Args:
            features: ``(n, n_features)``.
            labels: ``(n,)`` codes from 0, or ``(n, n_classes)`` zeros and ones (multi-label).
            n_classes: How many classes; codes that do not occur get a probability near 0.
            weights: ``(n,)``, positive, how much each image counts within its class; 1 where absent.
            seed: Of the folds of ``cv`` and of the draws of ``adam``.
        """
        return self.fit_many([HeadProblem(features, labels, n_classes, weights)], seed=seed)[0]

    def fit_many(self, problems: Sequence["HeadProblem"], *, seed: int = 0) -> list[Head]:
        """Heads of this recipe, to the bit those that `fit` gives one by one; small ones side by side.

        Args:
            problems: What they are fitted to.
            seed: As in `fit`.
        """
        scaled = [_Scaled.of(problem, each=self.scaling == "each") for problem in problems]
        classifiers = [problem.classifiers() for problem in scaled]
        solutions = iter(self._solved([one for own in classifiers for one in own], seed))
        heads = []
        for problem, own in zip(scaled, classifiers, strict=True):
            parts = [next(solutions) for _ in own]
            if problem.multi_label:
                # Two exclusive classes as one logit: the difference of both rows.
                weight = np.stack([w[1] - w[0] for w, _ in parts])
                bias = np.array([b[1] - b[0] for _, b in parts])
            else:
                weight, bias = parts[0]
            if self.kind == "entropy":  # what is certain stays so
                undecided = problem.undecided()
                logits = problem.x @ weight[undecided].T + bias[undecided]
                factor = _temperature(logits, problem.share, self.entropy, multi_label=problem.multi_label)
                weight[undecided] *= factor
                bias[undecided] *= factor
            weight = weight / problem.deviation
            heads.append(Head(weight, bias - weight @ problem.mean, multi_label=problem.multi_label))
        return heads

    def _solved(self, classifiers: Sequence["_Classifier"], seed: int) -> list[tuple[Array, Array]]:
        """Weights ``(n_classes, n_features)`` and biases of each, in order."""
        results: dict[int, tuple[Array, Array]] = {}
        alike: dict[tuple[int, ...], list[int]] = {}
        for place, one in enumerate(classifiers):
            present = len(one.counts)
            if present == 1:
                results[place] = np.zeros((1, one.x.shape[1])), np.zeros(1)
            elif self.kind in ("l2", "entropy") and present * len(one.x) <= MAX_UNKNOWNS:
                alike.setdefault((*one.x.shape, present), []).append(place)
        for (_, _, present), places in alike.items():
            some = [classifiers[place] for place in places]
            solutions = fit_many(
                [one.x for one in some],
                [one.codes for one in some],
                [one.share for one in some],
                present,
                self.strength,
            )
            for place, (weight, bias, solved) in zip(places, solutions, strict=True):
                if solved:
                    results[place] = weight, bias
        for place, one in enumerate(classifiers):
            if place not in results:
                results[place] = self._fit_large(one, seed)
        return [one.with_absent(*results[place]) for place, one in enumerate(classifiers)]

    def _fit_large(self, one: "_Classifier", seed: int) -> tuple[Array, Array]:
        balance = one.share * len(one.x)
        if self.kind == "adam":
            return self._adam(one.x, one.codes, balance, len(one.counts), seed)
        coefficients, intercepts = self._logistic(one.x, one.codes, balance, one.counts, seed)
        if len(one.counts) == 2:  # scikit-learn's one row is the difference of two opposite ones
            coefficients = np.concatenate([-coefficients, coefficients]) / 2
            intercepts = np.concatenate([-intercepts, intercepts]) / 2
        return coefficients, intercepts

    def _logistic(
        self, x: Array, codes: Labels, balance: Array, counts: Labels, seed: int
    ) -> tuple[Array, Array]:
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import GridSearchCV, StratifiedKFold

        # scikit-learn minimises C * sum(loss) + |w|²/2. For two classes its one row w stands for the
        # rows -w/2 and w/2, whose squared weights are half of w's: C doubles.
        rows = 2.0 if len(counts) == 2 else 1.0
        model = LogisticRegression(C=rows / (self.strength * len(x)), tol=1e-8, max_iter=5000)
        if self.kind == "cv" and counts.min() >= 2:
            folds = StratifiedKFold(min(5, int(counts.min())), shuffle=True, random_state=seed)
            grid = {"C": [rows * c for c in (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)]}
            model.set_params(tol=1e-5)
            search = GridSearchCV(model, grid, scoring="neg_log_loss", cv=folds)
            search.fit(x, codes, sample_weight=balance)
            model = search.best_estimator_
        else:
            with warnings.catch_warnings():  # many classes of few images are no regression problem
                warnings.filterwarnings("ignore", message="The number of unique classes")
                model.fit(x, codes, sample_weight=balance)
        return model.coef_.astype(np.float64), model.intercept_.astype(np.float64)

    def _adam(
        self, x: Array, codes: Labels, balance: Array, n_classes: int, seed: int
    ) -> tuple[Array, Array]:
        import torch

        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 0xADA])))
        weight = torch.zeros(n_classes, x.shape[1], requires_grad=True)
        bias = torch.zeros(n_classes, requires_grad=True)
        optimiser = torch.optim.Adam([weight, bias], lr=self.learning_rate, weight_decay=self.weight_decay)
        inputs, targets = torch.from_numpy(x).float(), torch.from_numpy(codes).long()
        chances = balance / balance.sum()
        for _ in range(self.epochs):
            drawn = torch.from_numpy(generator.choice(len(x), size=self.draws, p=chances))
            for batch in drawn.split(64):
                optimiser.zero_grad()
                with torch.enable_grad():
                    loss = torch.nn.functional.cross_entropy(inputs[batch] @ weight.T + bias, targets[batch])
                loss.backward()
                optimiser.step()
        return weight.detach().double().numpy(), bias.detach().double().numpy()


@dataclass(frozen=True, eq=False)
class HeadProblem:
    """What a head is fitted to; see `HeadRecipe.fit`."""

    features: NDArray[Any]
    labels: Labels
    n_classes: int | None = None
    weights: Array | None = None


@dataclass(frozen=True, eq=False)
class _Classifier:
    """One classifier over exclusive classes, of which ``present`` occur.

    ``x`` is ``(n, n_features)``, ``codes`` are places in ``present``, ``share`` sums to 1.
    """

    x: Array
    codes: NDArray[np.int64]
    share: Array
    present: NDArray[np.int64]
    counts: NDArray[np.int64]
    n_classes: int

    @classmethod
    def of(cls, x: Array, labels: Labels, share: Array, n_classes: int) -> Self:
        present, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
        return cls(x, codes.astype(np.int64), share, present.astype(np.int64), counts, n_classes)

    def with_absent(self, weight: Array, bias: Array) -> tuple[Array, Array]:
        """The rows among those of classes that do not occur."""
        weights, biases = np.zeros((self.n_classes, weight.shape[1])), np.full(self.n_classes, _ABSENT)
        weights[self.present], biases[self.present] = weight, bias
        return weights, biases


@dataclass(frozen=True, eq=False)
class _Scaled:
    """A problem whose features are centred and divided."""

    x: Array
    labels: Labels
    share: Array
    mean: Array
    deviation: Array
    n_classes: int

    @classmethod
    def of(cls, problem: HeadProblem, *, each: bool) -> Self:
        features, labels = problem.features.astype(np.float64), problem.labels
        share = shares(labels, np.ones(len(features)) if problem.weights is None else problem.weights)
        mean = share @ features
        deviation = np.sqrt(share @ np.square(features - mean))
        if not each:
            deviation = np.full_like(deviation, np.sqrt(np.square(deviation).mean()))
        deviation = np.where(deviation > 1e-12 * (np.abs(mean) + 1e-30), deviation, 1.0)
        n_classes = labels.shape[1] if labels.ndim == 2 else problem.n_classes or int(labels.max()) + 1
        return cls((features - mean) / deviation, labels, share, mean, deviation, n_classes)

    @property
    def multi_label(self) -> bool:
        return self.labels.ndim == 2

    def classifiers(self) -> list[_Classifier]:
        """One; for several labels per image, one for each class."""
        if not self.multi_label:
            return [_Classifier.of(self.x, self.labels, self.share, self.n_classes)]
        return [_Classifier.of(self.x, column.astype(np.int64), self.share, 2) for column in self.labels.T]

    def undecided(self) -> NDArray[np.int64]:
        """Classes that occur, and, of several per image, are not in all of them."""
        if self.multi_label:
            return np.flatnonzero(self.labels.min(axis=0) != self.labels.max(axis=0))
        return np.unique(self.labels).astype(np.int64)


def shares(labels: Labels, weights: Array) -> Array:
    """What each image counts, ``(n,)`` of sum 1: every class alike, but for several labels per image.

    Args:
        labels: As `HeadRecipe.fit` takes them.
        weights: ``(n,)``, positive, how much each image counts within its class.
    """
    if labels.ndim == 1:
        weights = weights / np.bincount(labels, weights=weights)[labels]
    result: Array = weights / weights.sum()
    return result


def _temperature(logits: Array, share: Array, target: float, *, multi_label: bool) -> float:
    """Factor that brings the mean entropy of the predictions to ``target`` times the largest."""
    from scipy.optimize import brentq
    from scipy.special import entr, expit, softmax

    if logits.shape[1] < (1 if multi_label else 2):
        return 1.0

    def surplus(log_factor: float) -> float:
        scaled = logits * np.exp(log_factor)
        if multi_label:
            p = expit(scaled)
            relative = (entr(p) + entr(1 - p)).mean(axis=1) / np.log(2)
        else:
            relative = entr(softmax(scaled, axis=1)).sum(axis=1) / np.log(logits.shape[1])
        return float(share @ relative) - target

    low, high = -30.0, 30.0
    if surplus(low) <= 0 or surplus(high) >= 0:  # constant logits: no factor changes their entropy
        return 1.0
    return float(np.exp(brentq(surplus, low, high, xtol=1e-12)))
