r"""One child process with one version of the user's code, for the length of a nursery task.

::

    this process --- socket pair: load, serve, drain --- child
                 \-- a pipe that only we hold --- guard --/

The guard ends the child when we are gone, even by SIGKILL (``trio_dagnats/local/guard.py``).
"""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import final

import trio

from trio_dagnats.cli import child_link
from trio_dagnats.cli.exits import CliError
from trio_dagnats.client import WorkflowDef
from trio_dagnats.local import guard

END_PATIENCE = 8.0
"""Seconds for the guard to end its child: it kills it after five."""
LAST_WORDS = 1.0
"""Seconds for what the process has printed to arrive after its end."""

Tell = Callable[[bytes], None]
"""Takes a piece of what the child prints."""


@final
class WorkerProcess:
    """A worker in a process of its own.

    Called by ``Reloader``: :meth:`run` in a task that holds the process, the other methods
    beside it and in this order: ``load``, ``serve``, ``drain``. ``ended`` is set when the
    process is gone and its streams are closed, whatever ended it.

    Args:
        target: ``FILE_OR_MODULE`` as it was given.
        url: the server that it shall serve.
        grace: seconds that a drain leaves its running handlers.
        tell: where its output goes; None to let it share our own stderr and stdout.
    """

    def __init__(self, target: str, url: str, grace: float, *, tell: Tell | None = None) -> None:
        self._arguments = [url, f"{grace:g}", target]
        self._tell = tell
        self._stream: trio.SocketStream | None = None
        self._process: trio.Process | None = None
        self._heard, self._lines = trio.open_memory_channel[dict[str, object]](16)
        self.ended = trio.Event()

    @property
    def exit_code(self) -> int | None:
        """The process's exit code, None while it runs."""
        return None if self._process is None else self._process.returncode

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the process until it ends; when cancelled, end it.

        Ready (``task_status``) when it runs; it may not have imported anything yet.
        """
        process, stream = await child_link.start_child(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if self._tell else None,
            stderr=subprocess.STDOUT if self._tell else None,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self._process, self._stream = process, stream
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, stream)
                if process.stdout is not None:
                    nursery.start_soon(self._read_output, process.stdout)
                task_status.started()
                await process.wait()
                # What it has started may hold its pipes open for ever.
                nursery.cancel_scope.deadline = trio.current_time() + LAST_WORDS
        finally:
            await self._end(process)
            stream.socket.close()

    async def load(self) -> list[WorkflowDef]:
        """Wait until the user's module is imported; return its workflows.

        Raises:
            CliError: it cannot be imported, or has no worker; the text is one sentence.
        """
        found = (await self._next("while it was imported"))["loaded"]
        assert isinstance(found, list)
        return [WorkflowDef.read(item) for item in found]

    async def serve(self) -> None:
        """Begin to serve; returns when the first task can arrive.

        Raises:
            CliError: it cannot, or the process ended.
        """
        await self._order("serve")
        await self._next("before it served anything")

    async def drain(self) -> None:
        """Begin to drain; the process ends by itself afterwards."""
        await self._order("drain")

    def _command(self, fd: int) -> list[str]:
        """Return the guard's command line, whose child is ours: it outlives us for a moment."""
        child = [sys.executable, "-m", "trio_dagnats.cli.dev.child", str(fd), *self._arguments]
        return [sys.executable, "-I", "-S", str(guard.__file__), *child]

    async def _next(self, when: str) -> dict[str, object]:
        """Wait for the child's next word; a refusal, or none at all, is an error.

        ``when`` says, for the error, what was waited for.
        """
        try:
            line = await self._lines.receive()
        except trio.EndOfChannel:
            raise CliError(f"the worker's process ended {when}") from None
        if "refused" in line:
            raise CliError(str(line["refused"]))
        return line

    async def _order(self, what: str) -> None:
        assert self._stream is not None
        # It may have ended, or be ending.
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._stream.send_all(child_link.write("do", what))

    async def _listen(self, stream: trio.SocketStream) -> None:
        """Take the child's words; closing the channel tells whoever waits that it has ended."""
        async with self._heard:
            await child_link.listen(stream, self._heard.send)

    async def _read_output(self, stream: trio.abc.ReceiveStream) -> None:
        assert self._tell is not None
        async for data in stream:
            self._tell(bytes(data))

    async def _end(self, process: trio.Process) -> None:
        """Let go of the guard, which ends its child, and of everything that is open."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + END_PATIENCE):
            assert process.stdin is not None
            await process.stdin.aclose()
            await process.wait()
        if process.stdout is not None:
            await trio.aclose_forcefully(process.stdout)
        self.ended.set()
