"""Eager training steps: Python calls one operation of the backend after another."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from backends import Array, Steps, UpdateRule
from mnist_accel.data.batches import dropout_generator
from mnist_accel.nn.network import Network, Observer
from mnist_accel.training.data import Batch, TrainingData


class EagerSteps:
    """Runs eager training steps of a network.

    Args:
        model: the network; its weights change.
        optimizer: the rule that updates the weights.
        seed: seed of the dropout masks.
    """

    def __init__(self, model: Network, optimizer: UpdateRule, *, seed: int) -> None:
        self._model = model
        self._optimizer = optimizer
        self._seed = seed
        self._is_random = model.is_random
        self._weights = [node.keys["W"] for node in model.graph.nodes if "W" in node.keys]

    def run(
        self,
        data: TrainingData,
        steps: Steps,
        state: Mapping[str, Array],
        *,
        observe: Observer | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Run the steps until the last one or until `should_stop` returns True.

        Must be called inside `backend.computation`. Losses are copied to the host after the last
        step, so that a step does not wait for the device.

        Args:
            data: the data set.
            steps: at least one step.
            state: the arrays of the optimizer, by name; changed in place.
            observe: called with the name and the value of each tensor after its computation.
            should_stop: called before every step except the first.

        Returns:
            Mean loss and number of correct images of each completed step, both (steps,).
        """
        backend = self._model.backend
        losses: list[Array] = []
        correct: list[Array] = []
        rows = backend.asarray(steps.rows())
        is_in_order = steps.parts[0].order.kind == "full"
        for number, (begin, end) in enumerate(steps.bounds):
            if losses and should_stop():
                break
            is_whole = is_in_order and end - begin == data.examples
            batch = data.whole if is_whole else data.batch(rows[begin:end])
            loss, step_correct = self._step(
                batch,
                state,
                lr=float(steps.rates[number]),
                step=steps.before + number + 1,
                observe=observe,
            )
            losses.append(loss)
            correct.append(step_correct)
        losses_host = backend.to_numpy(backend.xp.stack(losses)).astype(np.float64)
        return losses_host, backend.to_numpy(backend.xp.stack(correct))

    def _step(
        self,
        batch: Batch,
        state: Mapping[str, Array],
        *,
        lr: float,
        step: int,
        observe: Observer | None,
    ) -> tuple[Array, Array]:
        """Make one update; return the loss and the number of correct images before the update."""
        model, backend = self._model, self._model.backend
        rng = dropout_generator(self._seed, step - 1) if self._is_random else None
        logits, tape = model.forward(batch.x, rng=rng, observe=observe)
        loss, dlogits = backend.loss(model.loss.kind, logits, batch.targets, batch.weights)
        if model.loss.has_classes:
            correct = backend.count_correct(logits, batch.targets)
        else:
            correct = backend.zeros((), dtype="int64")
        if observe is not None:
            observe("loss", loss)
        model.backward(dlogits, tape, observe=observe)
        if model.loss.l2:
            loss = loss + self._add_penalty(batch.x.shape[0])
        weights, grads = model.parameters.flat, model.gradients.flat
        backend.update(self._optimizer, weights, grads, state, lr=lr, step=step)
        if observe is not None:
            for key, view in model.parameters.views.items():
                observe(f"{key} after the update", view)
        return loss, correct

    def _add_penalty(self, images: int) -> Array:
        """Add the gradient of the L2 penalty to the gradients; return the penalty, shape ()."""
        model, xp = self._model, self._model.backend.xp
        factor = model.loss.l2 / images
        squares = []
        for key in self._weights:
            weight = model.parameters.views[key]
            model.gradients.views[key][...] += factor * weight
            squares.append(xp.sum(weight * weight))
        return 0.5 * factor * sum(squares[1:], squares[0])
