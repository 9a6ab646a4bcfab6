"""Training steps made of a backend's operations, one after the other."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from backends import Array, Steps, UpdateRule
from mnist_accel.data.batches import dropout_generator
from mnist_accel.nn.network import Network, Observer
from mnist_accel.training.data import TrainingData


class StepByStep:
    """The steps of a network and an optimizer, each operation by itself.

    Args:
        model: the network; its weights change.
        optimizer: how.
        seed: of dropout.
    """

    def __init__(self, model: Network, optimizer: UpdateRule, *, seed: int) -> None:
        self._model = model
        self._optimizer = optimizer
        self._seed = seed
        self._is_random = any(layer.is_random for layer in model.layers)

    def run(
        self,
        data: TrainingData,
        steps: Steps,
        state: Mapping[str, Array],
        *,
        observe: Observer | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Do the steps, until the last or until `should_stop`; losses are fetched at the end.

        The caller has entered `backend.computation`.

        Args:
            data: the data set.
            steps: which, at least one.
            state: the arrays of the optimizer, by name; changed in place.
            observe: is shown every tensor, by name, as it is computed.
            should_stop: asked between steps.

        Returns:
            Mean losses of the steps that were done, and how many images each has recognised.
        """
        backend = self._model.backend
        losses: list[Array] = []
        correct: list[Array] = []
        rows = backend.asarray(steps.rows())
        for number, (begin, end) in enumerate(steps.bounds - steps.first):
            if losses and should_stop():
                break
            is_whole = steps.order.kind == "full" and end - begin == data.examples
            batch = data.whole() if is_whole else data.batch(rows[begin:end])
            loss, hits = self._step(
                *batch,
                state,
                rate=float(steps.rates[number]),
                before=steps.before + number,
                observe=observe,
            )
            losses.append(loss)
            correct.append(hits)
        losses_host = backend.to_numpy(backend.xp.stack(losses)).astype(np.float64)
        return losses_host, backend.to_numpy(backend.xp.stack(correct))

    def _step(
        self,
        x: Array,
        labels: Array,
        state: Mapping[str, Array],
        *,
        rate: float,
        before: int,
        observe: Observer | None,
    ) -> tuple[Array, Array]:
        """Make one update; return the loss and the number of recognised images before it."""
        model = self._model
        rng = dropout_generator(self._seed, before) if self._is_random else None
        logits, tape = model.forward(x, rng=rng, observe=observe)
        loss, dlogits = model.loss.value_and_gradient(model.backend, logits, labels)
        correct = model.backend.count_correct(logits, labels)
        if observe is not None:
            observe("loss", loss)
        model.backward(dlogits, tape, observe=observe)
        model.backend.update(
            self._optimizer,
            model.parameters.flat,
            model.gradients.flat,
            state,
            lr=rate,
            step=before + 1,
        )
        if observe is not None:
            for key, view in model.parameters.views.items():
                observe(f"{key} after the update", view)
        return loss, correct
