"""Networks as scikit-learn estimators, with the parameters of `MLPClassifier` and `MLPRegressor`.

This package is the only one that imports scikit-learn; `pip install "mnist-accel[sklearn]"`
installs it.
"""

from mnist_accel.util.optional_packages import missing

try:
    import sklearn  # noqa: F401
except ImportError as error:
    raise missing("mnist_accel.sklearn", "scikit-learn", extra="sklearn", error=error) from error

from mnist_accel.sklearn.classifier import NetworkClassifier
from mnist_accel.sklearn.regressor import NetworkRegressor

__all__ = ["NetworkClassifier", "NetworkRegressor"]
