"""SIGINT and SIGTERM as drains: the first one drains, the second one takes the grace away."""

import signal
from collections.abc import Callable
from typing import NoReturn, final

import trio

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@final
class Interrupts:
    """What the process was told.

    Args:
        drain: called with False for the first signal and True for the second one.
    """

    def __init__(self, drain: Callable[[bool], None]) -> None:
        self._drain = drain
        self.hurried_by: int | None = None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Receive signals until the second one; later ones act as Python's own handlers do.

        Ready (``task_status``) once none would be missed. Cancelled when the worker has ended.
        """
        with trio.open_signal_receiver(*SIGNALS) as received:
            task_status.started()
            await anext(received)
            self._drain(False)  # noqa: FBT003 - the one fact that the callback takes
            self.hurried_by = await anext(received)
            self._drain(True)  # noqa: FBT003 - the same

    def leave(self) -> None:
        """End the process as a shell expects it after a second signal: 130 for Ctrl-C.

        Raises:
            SystemExit: with 128 + the signal's number, if there was a second signal.
        """
        if self.hurried_by is not None:
            _exit(128 + self.hurried_by)


def _exit(code: int) -> NoReturn:
    raise SystemExit(code)
