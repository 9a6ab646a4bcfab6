"""Networks as scikit-learn estimators, with the parameters of `MLPClassifier` and `MLPRegressor`.

This package is the only one that imports scikit-learn; `pip install "mnist-accel[sklearn]"`
installs it.
"""

try:
    import sklearn  # noqa: F401
except ImportError as error:
    raise ImportError(
        'mnist_accel.sklearn needs scikit-learn; install it with pip install "mnist-accel[sklearn]"'
    ) from error

from mnist_accel.sklearn.classifier import NetworkClassifier
from mnist_accel.sklearn.regressor import NetworkRegressor

__all__ = ["NetworkClassifier", "NetworkRegressor"]
