"""The variational estimate of one task: the precision at which each filter's weights must be known."""

import numpy as np
from numpy.typing import NDArray

from t2v_hub.data import DecodedSample
from t2v_hub.errors import InsufficientMemoryError
from t2v_hub.estimate import Estimate, TaskFisher
from t2v_hub.fisher import SquaredGradients
from t2v_hub.fisher.variational import Images, Optimum, VariationalLoss, VariationalRecipe
from t2v_hub.head import Head, HeadRecipe, shares
from t2v_hub.passes import out_of_memory
from t2v_hub.probe import ProbeNetwork

Array = NDArray[np.float64]

_N_LABELS = 4  # drawn per image for the start: backward passes are cheaper than new images


class TaskPrecision(TaskFisher):
    """Measures one sample with one probe: features and head as for the Fisher, then the minimisation.

    Args:
        squares: Of the probe's features, placed where it is to run, inside `frozen`.
        probe: The probe.
        sample: The images and labels.
        head: How the head is fitted at first.
        recipe: How the loss is minimised.
        beta: Weight of the prior.
        seed: What all randomness hangs on.
        batch_size: Images per pass on an accelerator.
        progress: Whether to show bars.
        name: What the bars call the task.
    """

    def __init__(
        self,
        squares: SquaredGradients,
        probe: ProbeNetwork,
        sample: DecodedSample,
        *,
        head: HeadRecipe,
        recipe: VariationalRecipe,
        beta: float,
        seed: int,
        batch_size: int,
        progress: bool,
        name: str,
    ) -> None:
        super().__init__(
            squares,
            probe,
            sample,
            recipe=head,
            estimator="monte_carlo",
            n_labels=_N_LABELS,
            seed=seed,
            batch_size=batch_size,
            tolerance=None,
            standard_error=False,
            progress=progress,
            name=name,
        )
        self._chances = shares(sample.labels, sample.weights)
        self._loss = VariationalLoss(
            probe.features, probe.layers, recipe=recipe, beta=beta, seed=seed, pass_size=self.passes.size
        )

    def _probabilities_of_draws(self) -> Array:
        return self._probabilities  # drawn labels all count alike in the start

    def minimise(self) -> Estimate:
        """The precisions; no deviations, since nothing says how they would move with other images.

        Where several processes share the work, each minimises, and all take what the first one got.

        Raises:
            ProbeError: A layer's noise cannot be drawn at its output.
            ProbeOutputError: Features or gradients are not finite.
            InsufficientMemoryError: A pass does not fit into memory.
        """
        self._loss.check(self.passes.chosen(np.zeros(1, np.int64)))
        self._fit_heads()
        optimum = self.processes.share(self._optimum)[0]
        head = Head(optimum.head_weight, optimum.head_bias, multi_label=self.multi_label)
        return Estimate(
            fisher=optimum.precision,
            n_samples=self.layout.n_samples,
            deviations=np.zeros((0, self.n_filters)),
            mean_confidence=float(head.probabilities(self._features).max(axis=1).mean()),
            pass_size=self._loss.pass_size,
        )

    def _optimum(self) -> Optimum:
        images = Images(
            self.passes.chosen,
            self.sample.labels,
            self._labels,
            shares(self.sample.labels, self.sample.weights),
        )
        with self._bar("variational", self._loss.n_steps) as bar:

            def advance() -> None:
                bar.update()

            try:
                return self._loss.minimise(self._head.weight, self._head.bias, images, on_step=advance)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                # No smaller passes: these would draw other noise, and go through another half of the steps.
                raise InsufficientMemoryError(
                    f"{self._loss.pass_size} noisy images of {self.sample.images.shape[1:]} do not fit into "
                    f"the memory of {self.probe.device} with {self.probe.name!r}. Use a smaller batch_size "
                    f"(on an accelerator), a smaller image_size or fewer filters."
                ) from error
