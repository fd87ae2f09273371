"""What the end of a process means, and when it is started again. Pure; seconds are arguments."""

import signal
from contextlib import suppress

from trio_dagnats.cli.exits import Exit
from trio_dagnats.worker.deadlines import gone_within

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
PROVEN = 60.0
"""Seconds of life that make a death the first one again."""
MARGIN = 0.25
"""Seconds until a process is killed that has not ended when its worker should have."""
HOPELESS = frozenset({Exit.USAGE, Exit.NO_ENGINE})
"""Exit codes of a worker that could not begin to serve."""
MOST_PER_CORE = 8
ALWAYS_LEGAL = 64


def deaths(before: int, lived: float) -> int:
    """Return how often in a row a process has died now that it died once more."""
    return 1 if lived >= PROVEN else before + 1


def pause(deaths: int) -> float:
    """Return the seconds until a process is started again: none at first, then ever more."""
    if deaths <= 1:
        return 0.0
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(deaths - 2, 16))


def hopeless(code: int, *, others_serve: bool) -> bool:
    """Say whether a process that has ended takes all of them with it.

    One that cannot begin ends everything, as it ends a single worker, but for others that serve
    well: what is in its way (half a deployment, a server that is away) may go by.
    """
    return code in HOPELESS and not others_serve


def patience(grace: float = 0.0) -> float:
    """Return the seconds that a process has from the beginning of its drain until it is killed."""
    return gone_within(grace) + MARGIN


def exit_code(returncode: int, *, told: bool = False) -> int:
    """Return a process's exit code as a shell has it: 128 and the number of a signal.

    Args:
        returncode: as ``subprocess`` has it: minus the number of a signal.
        told: we told it to end; one that did so before it had its signal handlers is no failure.
    """
    if told and returncode == -signal.SIGTERM:
        return Exit.DONE
    return returncode if returncode >= 0 else 128 - returncode


def obituary(returncode: int, pause: float) -> str:
    """Say how a process ended, and when it starts again."""
    again = f"it starts again {f'in {pause:g} s' if pause else 'at once'}"
    if returncode >= 0:
        return f"ended with exit code {returncode}; {again}"
    name = f"signal {-returncode}"
    with suppress(ValueError):  # some have no name
        name = signal.Signals(-returncode).name
    return f"was killed by {name}; {again}"


def most(cores: int) -> int:
    """Return how many processes are still sensible; more is a slip of the keyboard."""
    return max(ALWAYS_LEGAL, MOST_PER_CORE * cores)
