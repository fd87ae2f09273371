"""Ctrl-C in a program that leaves the signals to trio: the worker drains, and then it is raised."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("interrupted_process.py")
PATIENCE = 60.0


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("handler", ["drains", "completes", "KeyboardInterrupt() +ACK -NAK let go: []"]),
        ("child", ["drains", "completes", "KeyboardInterrupt() +ACK -NAK let go: []"]),
        ("idle", ["drains", "completes", "KeyboardInterrupt() +ACK let go: []"]),
        (
            "twice",
            [
                "drains",
                "cancelled",
                "KeyboardInterrupt() -NAK let go: ['$KV.checkpoints.other.s=note']",
            ],
        ),
    ],
)
def test_a_ctrl_c_drains_with_grace_and_is_raised_at_the_end(where: str, told: list[str]) -> None:
    """Whoever is struck is handed back, and its start counts; the others go on.

    A second one takes the grace away.
    """
    done = subprocess.run(
        [sys.executable, str(SCRIPT), where],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    assert done.stdout.splitlines() == told, done.stderr
