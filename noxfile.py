"""`nox -s lint|types|tests|slow|bench|docs`, each in its own fresh environment."""

from __future__ import annotations

import nox

nox.options.sessions = ["lint", "types", "tests"]


@nox.session
def lint(session: nox.Session) -> None:
    """Format, lint and layer contracts."""
    session.install("-e", ".[dev]")
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("lint-imports", env={"PYTHONPATH": "tools"})


@nox.session
def types(session: nox.Session) -> None:
    """mypy, strict, over code and tests."""
    session.install("-e", ".[dev]")
    session.run("mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """Everything but the slow ones."""
    session.install("-e", ".[dev]")
    session.run("pytest", "-n", "2", "-m", "not slow", *session.posargs)


@nox.session
def slow(session: nox.Session) -> None:
    """The slow tests, with the nightly Hypothesis profile."""
    session.install("-e", ".[dev]")
    env = {"HYPOTHESIS_PROFILE": "nightly"}
    session.run("pytest", "-n", "2", "-m", "slow", *session.posargs, env=env)


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmark tables: against fuse2fs, and what must not grow with size."""
    session.install(".")
    session.run("python", "benchmarks/scale.py")
    session.run("python", "benchmarks/compare.py", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """The tests that hold man pages and documents to the code."""
    session.install("-e", ".[dev]")
    session.run("pytest", "tests/docs", *session.posargs)
