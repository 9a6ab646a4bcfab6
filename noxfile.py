"""nox sessions; `make test` and `make lint` run the same checks."""

import shutil
from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "tests"]
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]


def _install(session: nox.Session, *extra: str) -> None:
    session.install("--constraint", "constraints.txt", "--editable", ".[dev]", *extra)


def _lowest_versions() -> list[str]:
    """Return the requirements in pyproject.toml with their lowest versions: "numpy==2.0"."""
    project = nox.project.load_toml("pyproject.toml")["project"]
    requirements = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    return [requirement.replace(">=", "==", 1) for requirement in requirements]


def _fast_tests(session: nox.Session) -> None:
    arguments = session.posargs or ["-m", "not slow"]
    session.run("pytest", "--numprocesses", "auto", "--dist", "worksteal", *arguments)


@nox.session
def lint(session: nox.Session) -> None:
    _install(session)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    _install(session)
    session.run("mypy")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    _install(session)
    session.run("pytest", "--numprocesses", "auto", "--dist", "worksteal", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Change files at random for an hour; `nox -s fuzz -- --fuzz-minutes 5` takes less."""
    _install(session)
    session.run("pytest", "tests/fuzz", "--fuzz-minutes", "60", *session.posargs)


@nox.session
def crashes(session: nox.Session) -> None:
    """Stop trainings at every operation on files, and resume them: some minutes."""
    _install(session)
    session.run("pytest", "tests/runs/test_crashes.py", "--crash-every", "1", *session.posargs)


@nox.session(python=PYTHONS[0])
def lowest(session: nox.Session) -> None:
    """Run the fast tests with the lowest versions that pyproject.toml accepts."""
    session.install("--editable", ".[dev]", *_lowest_versions())
    _fast_tests(session)


@nox.session
def newest(session: nox.Session) -> None:
    """Run the fast tests with the newest versions, instead of those in constraints.txt."""
    session.install("--upgrade", "--editable", ".[dev]")
    _fast_tests(session)


@nox.session(python=PYTHONS[0])
@nox.parametrize("version", ["oldest", "newest"], ids=["oldest", "newest"])
def sklearn(session: nox.Session, version: str) -> None:
    """Test the estimators with the oldest and the newest scikit-learn that they support."""
    (requirement,) = nox.project.load_toml("pyproject.toml")["project"]["optional-dependencies"][
        "sklearn"
    ]
    wanted = requirement.replace(">=", "==", 1) if version == "oldest" else requirement
    session.install("--editable", ".[dev]", wanted, "pandas")  # some checks need data frames
    # scikit-learn 1.5 passes a generator, which pytest 9 deprecates.
    ignored = "ignore:Passing a non-Collection iterable"
    session.run("pytest", "tests/sklearn", "-W", ignored, *session.posargs)


@nox.session
def gpu(session: nox.Session) -> None:
    """Run the tests on a GPU; use `nox -s gpu -- cuda13` with a CUDA 13 driver."""
    extra = session.posargs[0] if session.posargs else "cuda12"
    session.install("--constraint", "constraints.txt", "--editable", f".[dev,{extra}]")
    session.run("pytest", "--require-backend", "cupy")


@nox.session(name="gpu-machine", python="3.12")
def gpu_machine(session: nox.Session) -> None:
    """Pack a bundle; import and collect everything with it on a simulated machine; no GPU."""
    session.install("-r", "benchmarks/gpu/machine.txt")
    bundle = Path(session.create_tmp(), "bundle")
    shutil.rmtree(bundle, ignore_errors=True)
    session.run("tools/gpu_bundle", "--out", str(bundle), external=True)
    session.run(str(bundle / "run"), "preflight", external=True)
    env = {"PYTHONPATH": f"{bundle / 'packages'}:{bundle / 'source'}"}
    session.run(
        *("python", "-P", "-m", "pytest", "--rootdir", str(bundle / "source"), "--collect-only"),
        *("-q", str(bundle / "source" / "tests")),
        env=env,
    )


@nox.session
def bench(session: nox.Session) -> None:
    """Run the benchmarks with all baselines; `nox -s bench -- --full` runs all cases."""
    session.install("--constraint", "constraints.txt", "--editable", ".[dev,bench-baselines]")
    session.run("python", "-m", "benchmarks", "run", *session.posargs)
