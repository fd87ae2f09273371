"""Every example as a user runs it: a process of its own, on a server and an engine of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
PATIENCE = 60.0

SAYS = {
    "hello": ["{'hello': '\"world\"'}"],
    "typed_review": ["{'title': 'On Trio', 'verdict': 'too long'}", "refused: True"],
    "agent_loop": ["{'text': 'Is structure good? Yes.', 'steps': 3}"],
    "steerable_agent": [
        "user: why trio?",
        "agent: Reason 0, at length ...",
        "user: shorter, please",
        "agent: Nurseries.",
    ],
    "durable_map": ["{'tries': 2, 'words': 2190}", "asked again for at most five: True"],
    "approval": ["waiting: ...", "{'published': '\"a good story\"', 'by': 'Ada'}"],
    "retry_and_fatal": [
        "charge: charged at attempt 3",
        "warm_up: attempt 1, delivery 2",
        "refuse: the card is stolen",
    ],
    "rate_limit": ["an answer", "came back after the delay: True"],
    "long_pause": [
        "first worker: ['worked', 'pausing']",
        "{'pages': 42}",
        "second worker: ['pausing']",
        "the pause was kept: True",
    ],
    "streaming": [
        *["Structure", "is", "what", "lets", "you", "let", "go"],
        "Structure is what lets you let go",
    ],
    "graceful_shutdown": ["completed", "handed back", "short", "long"],
}


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
    """Return what it printed; a status that may be this or that is left out."""
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    return ["waiting: ..." if line.startswith("waiting: ") else line for line in lines]


def test_every_example_is_tested() -> None:
    files = {path.stem for path in EXAMPLES.glob("*.py")}

    assert files == set(SAYS) | {"here", "demo"}


@pytest.mark.parametrize("name", SAYS)
def test_an_example_does_what_it_says(name: str) -> None:
    assert said(run(name)) == SAYS[name]


@pytest.mark.parametrize("name", [*SAYS, "demo"])
def test_an_example_opens_with_the_command_that_runs_it(name: str) -> None:
    text = (EXAMPLES / f"{name}.py").read_text()

    assert f"python examples/{name}.py\n" in text.split('"""')[1]


def test_the_demo_runs_a_workflow_to_its_end() -> None:
    done = run("demo")

    assert done.returncode == 0, done.stderr
    assert "workflow.completed" in done.stdout
    assert '"approved_by": "Ada"' in done.stdout


@pytest.mark.live
@pytest.mark.parametrize("name", [*SAYS, "demo"])
def test_an_example_ends_the_same_on_a_dagnats_engine(name: str, live_url: str) -> None:
    lines = said(run(name, live_url))

    assert lines == SAYS[name] if name in SAYS else "workflow.completed" in "".join(lines)
