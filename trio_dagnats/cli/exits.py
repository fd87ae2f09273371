"""What exit codes mean, and which error has which. Pure.

The numbers are public: scripts test them. 0 to 6 are ours, 70 is ``EX_SOFTWARE`` of
``sysexits.h``, and above 128 a shell expects a signal. ``run`` and ``dev`` end with 0 after
*one* signal, because that is how they are meant to be ended.

Called by ``app``, which explains every error here, and by commands that raise :class:`CliError`.
"""

from enum import IntEnum
from typing import final

import trio

from trio_dagnats.errors import (
    BrokerError,
    DagnatsError,
    EngineError,
    Missing,
    RunFailed,
    TooLarge,
)
from trio_dagnats.transport.options import shown
from trio_dagnats.wire.names import BUCKET_DEFS, BUCKET_RUNS, WORKFLOW_HISTORY

TRACEBACK = "TRIO_DAGNATS_TRACEBACK"
"""Set in the environment, it shows the traceback of every error."""


OF_EVERY_ENGINE = (BUCKET_RUNS, BUCKET_DEFS, WORKFLOW_HISTORY)
"""A server without one of these has no engine."""


@final
class Exit(IntEnum):
    """The exit codes; above 128 a signal's number is in it, as a shell expects it."""

    DONE = 0
    RUN_FAILED = 1
    USAGE = 2
    NO_ENGINE = 3
    NOT_FOUND = 4
    TOO_SLOW = 5
    CHANGES = 6
    BUG = 70
    INTERRUPTED = 130


MEANINGS: dict[Exit, str] = {
    Exit.DONE: "done; with --wait and for tail: the run completed",
    Exit.RUN_FAILED: "the run ended otherwise than completed",
    Exit.USAGE: "bad arguments, JSON, module, directory or port",
    Exit.NO_ENGINE: "no server, no engine on it, or it refused or did not answer",
    Exit.NOT_FOUND: "no such run or workflow, or the run has ended already",
    Exit.TOO_SLOW: "--timeout is over; the run goes on",
    Exit.CHANGES: "register --check: a workflow is new or would change",
    Exit.BUG: "a bug, or handlers that did not end (hard_exit)",
    Exit.INTERRUPTED: "Ctrl-C (143: SIGTERM); run and dev: the second one, 0 after one",
}
"""In the help of the program (:func:`table`), so each is a line."""


@final
class CliError(DagnatsError):
    """An error of the command line itself, with its exit code.

    The text is a whole sentence for the user, with the remedy: nothing is added to it.

    Args:
        text: what is wrong, and what to do.
        code: the exit code that it leads to.
    """

    def __init__(self, text: str, code: Exit = Exit.USAGE) -> None:
        super().__init__(text)
        self.code = code


_CODES: tuple[tuple[type[BaseException], Exit], ...] = (
    (RunFailed, Exit.RUN_FAILED),
    (TooLarge, Exit.USAGE),
    (BrokerError, Exit.NO_ENGINE),
    (EngineError, Exit.NO_ENGINE),
    (trio.TooSlowError, Exit.TOO_SLOW),
    (DagnatsError, Exit.USAGE),
    (OSError, Exit.USAGE),
)
"""The first that fits counts.

So the order matters: ``RunFailed`` and ``BrokerError`` are ``DagnatsError``, too. ``OSError`` is
here for files and ports that the user has named.
"""


def explain(error: BaseException, url: str = "") -> tuple[str, Exit]:
    """Return an error as one sentence, and its exit code.

    ``Missing`` for one of the buckets or the stream that every engine has means that there is no
    engine, and that is said; its own text would name a bucket that the user has never heard of.
    The text of everything else is made one line, as errors may have several.

    Args:
        error: what a command has raised, without groups around it.
        url: the server, if one is known; its password is not shown.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, CliError):
        return text, error.code
    if isinstance(error, Missing) and any(bucket in text for bucket in OF_EVERY_ENGINE):
        return _without_engine(url), Exit.NO_ENGINE
    if isinstance(error, trio.TooSlowError):
        text = "it took too long; the run goes on"
    for kind, code in _CODES:
        if isinstance(error, kind):
            return text, code
    return f"a bug: {type(error).__name__}: {text}", Exit.BUG


def _without_engine(url: str) -> str:
    """Say that there is a server but no engine, and which two ways there are to have one."""
    where = f"the server at {shown(url)}" if url else "the server"
    return f"{where} has no DagNats engine; start `dagnats serve` there, or use `trio-dagnats dev`"


def table() -> str:
    """Return the exit codes as lines of text."""
    return "\n".join(f"{code.value:>4}  {meaning}" for code, meaning in MEANINGS.items())
