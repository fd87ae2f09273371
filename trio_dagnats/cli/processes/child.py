"""One of several processes, as its supervisor starts it: ``run-child NUMBER FD FILE_OR_MODULE``.

It drains on SIGTERM, however often that comes: systemd tells every process of a unit, and so does
the supervisor. It drains without grace when the socket ends.

Two things watch over it, as one cannot. A task in trio obeys the socket while the loop runs. A
thread reads the same socket: it sees the end even while the user's module is being imported, or
a handler blocks the loop, and it ends the process with SIGKILL if nothing else does.

Only few words go back, in the lines of ``dev``: ``loaded`` with the worker's grace, and ``ready``.
"""

import os
import signal
import threading
import time
from contextlib import suppress
from typing import final

import click
import trio

from trio_dagnats.cli import child_link
from trio_dagnats.cli.exits import Exit
from trio_dagnats.cli.options import Setup
from trio_dagnats.cli.processes import rules
from trio_dagnats.cli.processes.slot import COMMAND
from trio_dagnats.cli.serve import Ready, find
from trio_dagnats.errors import without_groups
from trio_dagnats.worker.drain.interrupts import SIGNALS
from trio_dagnats.worker.worker import Worker

MARGIN = 1.0
"""Seconds that a supervisor which lives has more than we ourselves, to kill us and to say so."""


@click.command(COMMAND, hidden=True)
@click.argument("number", type=int)
@click.argument("fd", type=int)
@click.argument("file_or_module")
@click.pass_obj
def run_child(setup: Setup, number: int, fd: int, file_or_module: str) -> int:
    """Run the worker in FILE_OR_MODULE as one of several."""
    os.set_inheritable(fd, False)  # noqa: FBT003 - what handlers start must not hold it
    threading.Thread(target=_outlive_nobody, args=(fd,), daemon=True).start()
    worker = find(setup, file_or_module, f"[{number}] ").worker
    worker.worker_id += f"-{number}"  # one that the module chose is the same in all of them
    trio.run(_Life(worker, fd).run)
    return Exit.DONE


def _outlive_nobody(fd: int) -> None:
    """End this process when its supervisor is gone, whatever it does: import, block, hang.

    The socket is open as long as the process: closed under this thread, it would look the same.

    SIGTERM first: while the module is imported it ends the process, later it begins a drain. The
    task that reads the socket takes the grace away meanwhile. The seconds after it are those of
    a drain without grace, and one more.
    """
    with suppress(ConnectionResetError):  # its end, with words of ours unread
        os.read(fd, 1)  # it never says anything
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(rules.patience() + MARGIN)
    os.kill(os.getpid(), signal.SIGKILL)


@final
class _Life:
    """A worker from its start to the end of its drain.

    ``_serving`` is the last resort: cancelled, the worker drains without grace. An ordinary
    drain is ``Worker.stop``, which takes as long as the worker's own grace.
    """

    def __init__(self, worker: Worker, fd: int) -> None:
        self._worker = worker
        self._fd = fd
        self._serving = trio.CancelScope()

    async def run(self) -> None:
        """Serve until a signal or the end of the socket."""
        self._tell("loaded", self._worker.grace)
        ready = Ready(lambda: self._tell("ready", 1))
        with without_groups():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._obey_signals)
                nursery.start_soon(self._obey_link)
                with self._serving:
                    await self._worker.start(handle_signals=False, task_status=ready)
                nursery.cancel_scope.cancel()

    async def _obey_signals(self) -> None:
        """Drain with grace, however often told to: the supervisor and systemd both send SIGTERM."""
        with trio.open_signal_receiver(*SIGNALS) as received:
            async for _ in received:
                self._worker.stop()

    async def _obey_link(self) -> None:
        """Drain without grace when the socket ends: the supervisor says so, or is gone."""
        await trio.lowlevel.wait_readable(self._fd)
        self._serving.cancel()

    def _tell(self, key: str, value: object) -> None:
        """Tell the supervisor; nothing waits here, for two short lines fit every buffer."""
        with suppress(OSError):  # nobody listens any more
            os.write(self._fd, child_link.write(key, value))


COMMANDS = (run_child,)
