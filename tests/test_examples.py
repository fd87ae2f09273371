"""Every example as a user runs it: a process of its own, on a server and an engine of its own."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
PATIENCE = 60.0

OPEN = {"waiting: pending": "waiting: running"}
"""What an example may print instead: how far a run has come is for the engine to say."""


def promised(name: str) -> list[str]:
    """Return what an example's docstring says that it prints."""
    doc = ast.get_docstring(ast.parse((EXAMPLES / f"{name}.py").read_text())) or ""
    return [line.strip() for line in doc.partition("It prints::")[2].splitlines() if line.strip()]


NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem not in {"here", "demo"})


def run(name: str, url: str = "") -> subprocess.CompletedProcess[str]:
    """Run an example, on an engine of its own unless there is a URL."""
    environment = {**os.environ, "TRIO_DAGNATS_LIVE_URL": url}
    return subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py")],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment,
        check=False,
    )


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return what it printed."""
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    return [OPEN.get(line, line) for line in lines]


@pytest.mark.parametrize("name", NAMES)
def test_an_example_does_what_it_says(name: str) -> None:
    assert said(run(name)) == promised(name) != []


@pytest.mark.parametrize("name", [*NAMES, "demo"])
def test_an_example_opens_with_the_command_that_runs_it(name: str) -> None:
    text = (EXAMPLES / f"{name}.py").read_text()

    assert f"python examples/{name}.py\n" in text.split('"""')[1]


def test_the_demo_runs_a_workflow_to_its_end() -> None:
    done = run("demo")

    assert done.returncode == 0, done.stderr
    assert "workflow.completed" in done.stdout
    assert '"approved_by": "Ada"' in done.stdout


@pytest.mark.live
@pytest.mark.parametrize("name", [*NAMES, "demo"])
def test_an_example_ends_the_same_on_a_dagnats_engine(name: str, live_url: str) -> None:
    lines = said(run(name, live_url))

    assert lines == promised(name) if name != "demo" else "workflow.completed" in "".join(lines)
