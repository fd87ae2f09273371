"""The process that runs one version of the user's code: ``child.py FD URL GRACE TARGET``.

It imports the module, says what it found, and serves when it is told to. It drains when it is told
to, on SIGTERM, and when its parent has gone.

::

    state       from the parent                 what it does
    ---------   -----------------------------   ------------------------------------------------
    importing   -                               ``loaded`` at its end, or ``refused`` and exit
    waiting     ``serve``                       begin to serve; ``ready`` when it does
    waiting     ``drain``, SIGTERM, or gone     end at once: there is nothing to hand back
    serving     ``drain``                       drain with the grace, then end
    serving     SIGTERM, or gone                drain without any grace, then end

Why does it wait before it serves? Its workflows are to be registered first, and a version that
cannot even be imported must not take tasks from the one that works.

It hears no signal of the terminal, for it has a session of its own.
"""

import logging
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import final

import trio

from trio_dagnats.cli import child_link
from trio_dagnats.cli.exits import CliError, Exit, explain
from trio_dagnats.cli.target import Found, load, locate
from trio_dagnats.errors import DagnatsError, without_groups

LOG_FORMAT = "%(levelname)s %(name)s: %(message)s"
"""Without a time: what is seen in a terminal happens now."""


def main(arguments: list[str]) -> int:
    """Load the target and serve it; return the exit code.

    The import happens outside of trio: user code at the top level finds no event loop, as in
    ``run``.
    """
    fd, url, grace, text = arguments
    with socket.socket(fileno=int(fd)) as told:
        try:
            found = load(locate(text, Path.cwd()))
        except CliError as error:
            told.sendall(child_link.write("refused", str(error)))
            return Exit.USAGE
        logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, stream=sys.stderr)
        logging.getLogger("trio_dagnats").setLevel(logging.WARNING)
        found.worker.move_to(url)
        try:
            trio.run(_Life(found, float(grace)).run, told)
        except DagnatsError as error:
            text, code = explain(error, url)
            with suppress(OSError):
                told.sendall(child_link.write("refused", text))
            return code
    return Exit.DONE


@final
class _Life:
    """The worker from its order to serve to the end of its drain.

    ``_serving`` ends the worker: a drain gives it a deadline, and a second one can only make
    that nearer.
    """

    def __init__(self, found: Found, grace: float) -> None:
        self._found = found
        self._grace = grace
        self._serving = trio.CancelScope()
        self._serve = trio.Event()

    async def run(self, told: socket.socket) -> None:
        """Do what the parent says until it says drain, or goes."""
        stream = child_link.stream_of(told)
        await stream.send_all(
            child_link.write("loaded", [w.to_wire() for w in self._found.workflows])
        )
        with without_groups():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._obey, stream)
                nursery.start_soon(self._obey_signals)
                with self._serving:
                    await self._work(stream)
                nursery.cancel_scope.cancel()

    async def _work(self, stream: trio.SocketStream) -> None:
        """Serve from the order on, until the worker has ended.

        Cancellation comes from ``_serving`` when the grace is over: the worker then hands back what
        still runs.
        """
        await self._serve.wait()
        async with trio.open_nursery() as nursery:
            await nursery.start(self._start_worker)
            await stream.send_all(child_link.write("ready", 1))

    async def _start_worker(self, task_status: trio.TaskStatus[None]) -> None:
        """Start the worker without signal handlers of its own: they are this process's."""
        await self._found.worker.start(handle_signals=False, task_status=task_status)

    async def _obey(self, stream: trio.SocketStream) -> None:
        """Do what the parent says, until its end of the socket is closed: then it has gone."""
        await child_link.listen(stream, self._take)
        self._drain(0.0)  # the parent has gone

    async def _take(self, line: child_link.Line) -> None:
        if line["do"] == "serve":
            self._serve.set()
        else:
            self._drain(self._grace)

    async def _obey_signals(self) -> None:
        """Drain without grace on SIGTERM, which the guard sends when the parent is gone."""
        with trio.open_signal_receiver(signal.SIGTERM) as received:
            async for _ in received:
                self._drain(0.0)

    def _drain(self, grace: float) -> None:
        """Drain: what still runs after the grace is cancelled and handed back."""
        if self._serve.is_set():
            self._found.worker.stop()
        self._serving.deadline = min(
            self._serving.deadline, trio.current_time() + (grace if self._serve.is_set() else 0.0)
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
