"""Optimizer updates over a whole parameter vector.

Each method changes its arrays in place and returns nothing. The rules and the defaults of their
callers are PyTorch's, so that a figure can be compared. Weight decay λ adds λ·w to the gradient
(L2 regularisation); only Adam can decouple it from the gradient (AdamW, Loshchilov and Hutter
2019). All arrays are one-dimensional, of one length and one dtype.
"""

from backends.operations.common import Array, Operations, require_same_dtype


class Updates(Operations):
    """One step of each optimizer."""

    def sgd_update(self, weights: Array, grads: Array, *, lr: float, weight_decay: float) -> None:
        """Descend the gradient: w ← w − lr·g."""
        require_same_dtype("sgd_update", weights=weights, grads=grads)
        weights -= lr * _decayed(grads, weights, weight_decay)

    def momentum_update(
        self,
        weights: Array,
        grads: Array,
        velocity: Array,
        *,
        lr: float,
        momentum: float,
        nesterov: bool,
        weight_decay: float,
    ) -> None:
        """Descend a running sum of gradients: v ← μ·v + g, w ← w − lr·v.

        With `nesterov`, w ← w − lr·(g + μ·v), the gradient seen from where v leads to
        (Sutskever et al. 2013, in PyTorch's form).
        """
        require_same_dtype("momentum_update", weights=weights, grads=grads, velocity=velocity)
        grads = _decayed(grads, weights, weight_decay)
        velocity *= momentum
        velocity += grads
        weights -= lr * (grads + momentum * velocity if nesterov else velocity)

    def adagrad_update(
        self,
        weights: Array,
        grads: Array,
        square_sum: Array,
        *,
        lr: float,
        eps: float,
        weight_decay: float,
    ) -> None:
        """Divide by the root of the sum of squares: s ← s + g², w ← w − lr·g / (√s + ε).

        Source: Duchi, Hazan and Singer 2011.
        """
        require_same_dtype("adagrad_update", weights=weights, grads=grads, square_sum=square_sum)
        grads = _decayed(grads, weights, weight_decay)
        square_sum += grads * grads
        weights -= lr * grads / (self.xp.sqrt(square_sum) + eps)

    def rmsprop_update(
        self,
        weights: Array,
        grads: Array,
        square_mean: Array,
        *,
        lr: float,
        decay: float,
        eps: float,
        weight_decay: float,
    ) -> None:
        """Divide by the root of a running mean of squares: s ← ρ·s + (1 − ρ)·g².

        w ← w − lr·g / (√s + ε), with ρ = `decay`. Source: Tieleman and Hinton 2012.
        """
        require_same_dtype("rmsprop_update", weights=weights, grads=grads, square_mean=square_mean)
        grads = _decayed(grads, weights, weight_decay)
        square_mean *= decay
        square_mean += (1 - decay) * grads * grads
        weights -= lr * grads / (self.xp.sqrt(square_mean) + eps)

    def adam_update(
        self,
        weights: Array,
        grads: Array,
        mean: Array,
        square_mean: Array,
        *,
        lr: float,
        beta1: float,
        beta2: float,
        eps: float,
        weight_decay: float,
        decoupled: bool,
        step: int,
    ) -> None:
        """Divide the running mean of gradients by the root of the running mean of squares.

        m ← β₁·m + (1 − β₁)·g, s ← β₂·s + (1 − β₂)·g², both divided by 1 − βᵗ at step t ≥ 1, and
        w ← w − lr·m̂ / (√ŝ + ε). Source: Kingma and Ba 2015, algorithm 1. With `decoupled`, decay
        is w ← w − lr·λ·w before the step, and the gradient is left alone (AdamW).
        """
        require_same_dtype(
            "adam_update", weights=weights, grads=grads, mean=mean, square_mean=square_mean
        )
        if decoupled:
            weights *= 1 - lr * weight_decay
        else:
            grads = _decayed(grads, weights, weight_decay)
        mean *= beta1
        mean += (1 - beta1) * grads
        square_mean *= beta2
        square_mean += (1 - beta2) * grads * grads
        root = self.xp.sqrt(square_mean / (1 - beta2**step)) + eps
        weights -= (lr / (1 - beta1**step)) * mean / root


def _decayed(grads: Array, weights: Array, weight_decay: float) -> Array:
    """Return the gradient of the loss plus ½·λ·‖w‖²."""
    return grads + weight_decay * weights if weight_decay else grads
