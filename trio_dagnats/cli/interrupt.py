"""Ctrl-C as a cancellation: every command ends by its scopes, never by a traceback.

Used by commands that do one thing and end. ``dev`` and ``run`` have signals of their own: there
the first one is not an end but the beginning of a drain.

Why not leave Ctrl-C to trio? It would raise ``KeyboardInterrupt`` in whichever task runs, and
SIGTERM would end the process with its connection open. As a cancellation both unwind every block.
"""

import signal
from collections.abc import Awaitable, Callable
from typing import TypeVar, final

import trio

from trio_dagnats.errors import DagnatsError, without_groups

T = TypeVar("T")


@final
class Interrupted(DagnatsError):  # noqa: N818 - named for what happened
    """A signal ended the command; ``number`` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__("interrupted")
        self.number = number


def run(main: Callable[[], Awaitable[T]]) -> T:
    """Run a command in trio until it ends or SIGINT or SIGTERM cancels it.

    A second signal ends it as Python does.

    Raises:
        Interrupted: a signal came first.
    """
    return trio.run(_interruptible, main)


async def _interruptible(main: Callable[[], Awaitable[T]]) -> T:
    """Run the command beside a task that waits for the first signal.

    The receiver ends with that signal: from then on SIGINT and SIGTERM are Python's again, so a
    command that does not unwind can be ended all the same. A result that was there before the
    signal counts.
    """
    result: list[T] = []
    number = 0
    with without_groups():
        async with trio.open_nursery() as nursery:

            async def watch(task_status: trio.TaskStatus[None]) -> None:
                nonlocal number
                with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
                    task_status.started()
                    number = await anext(received)
                nursery.cancel_scope.cancel()

            await nursery.start(watch)
            result.append(await main())
            nursery.cancel_scope.cancel()
    if not result:
        raise Interrupted(number)
    return result[0]
