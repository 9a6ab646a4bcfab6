"""Makes `pytest benchmarks/` run the suite. The options of pytest-benchmark can be used, too."""

from benchmarks.session.plugin import (  # noqa: F401  # pytest finds hooks and fixtures by their names
    measure,
    pytest_addoption,
    pytest_benchmark_update_json,
    pytest_collection_finish,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_generate_tests,
    pytest_runtest_makereport,
    pytest_sessionfinish,
)
