"""Sessions: ``nox -s tests``, ``lint``, ``types``, ``demo``, ``bench``."""

import nox

nox.options.default_venv_backend = "venv"
nox.options.sessions = ["lint", "types", "tests"]


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def tests(session: nox.Session) -> None:
    """Run the tests, on real servers."""
    session.install("-e", ".[dev]")
    session.run("pytest", *(session.posargs or ["-n", "auto"]))


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format."""
    session.install("-e", ".[dev]")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Check types, strictly."""
    session.install("-e", ".[dev]")
    session.run("mypy")


@nox.session
def demo(session: nox.Session) -> None:
    """Run the main job on an engine of its own."""
    session.install("-e", ".[local]")
    session.run("python", "examples/demo.py")


@nox.session
def bench(session: nox.Session) -> None:
    """Run a program: ``nox -s bench -- NAME``; throughput and engine without a name."""
    session.install("-e", ".[dev]")
    name, *options = session.posargs or ["throughput"]
    session.run("python", "-m", f"benchmarks.{name}", *options)
    if not session.posargs:
        session.run("python", "-m", "benchmarks.engine")
