"""Functions that scikit-learn 1.5 lacks."""

from typing import Any

try:
    from sklearn.utils.validation import validate_data
except ImportError:  # scikit-learn 1.5

    def validate_data(estimator: Any, *arrays: Any, **options: Any) -> Any:
        """Return the checked arrays, and set what the estimator knows about its features."""
        return estimator._validate_data(*arrays, **options)


__all__ = ["validate_data"]
