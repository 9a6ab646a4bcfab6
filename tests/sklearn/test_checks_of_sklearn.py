"""The checks that scikit-learn provides for estimators of other packages."""

from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from mnist_accel.sklearn import NetworkClassifier, NetworkRegressor

ESTIMATORS = (NetworkClassifier, NetworkRegressor)

pytestmark = pytest.mark.filterwarnings("ignore")  # the checks themselves warn


@parametrize_with_checks([cls(backend="numpy") for cls in ESTIMATORS])
def test_estimators_pass_on_numpy(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([cls(backend="numba") for cls in ESTIMATORS])
def test_estimators_pass_on_numba(estimator: Any, check: Any) -> None:
    check(estimator)
