r"""The link to a child process of ours: a socket that it inherits, and the lines on it.

Each line is a JSON object. What the two sides say::

    child   {"loaded": ...}        the module is imported; nothing is served yet
            {"refused": sentence}  it cannot be imported or served; the process ends
            {"ready": 1}           the first task can arrive
    parent  {"do": "serve"}        begin to serve (``dev``)
            {"do": "drain"}        drain and end (``dev``); so does the end of the connection
"""

import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import final

import trio

from trio_dagnats.errors import WireError

MAX_LINE = 16 * 1024 * 1024

Line = dict[str, object]


async def start_child(
    command: Callable[[int], list[str]],
    *,
    stdin: int,
    stdout: int | None = None,
    stderr: int | None = None,
    env: Mapping[str, str],
) -> tuple[trio.Process, trio.SocketStream]:
    """Start a process that inherits its end of a link, in a session of its own.

    A Ctrl-C in the terminal is for us alone; we drain it.

    Args:
        command: makes the command of the number of the inherited socket.
        stdin: as for ``subprocess``, like the others.
        stdout: where its output goes.
        stderr: where its errors go.
        env: its environment.

    Returns:
        The process, and our end of the link, which the caller has to close.

    Raises:
        OSError: it cannot be started.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            process = await trio.lowlevel.open_process(
                command(theirs.fileno()),
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                env=env,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
    return process, stream_of(ours)


def stream_of(end: socket.socket) -> trio.SocketStream:
    """Return an end of a link as a stream."""
    end.settimeout(0)
    return trio.SocketStream(trio.socket.from_stdlib_socket(end))


async def listen(stream: trio.SocketStream, take: Callable[[Line], Awaitable[None]]) -> None:
    """Hand on each line of the other side, until it ends or goes.

    Raises:
        WireError: a line is too long.
    """
    pieces = Lines()
    with suppress(trio.BrokenResourceError):
        async for data in stream:
            for line in pieces.feed(data):
                await take(line)


def write(key: str, value: object) -> bytes:
    """Write a line."""
    return json.dumps({key: value}).encode() + b"\n"


@final
class Lines:
    """Puts pieces together to lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes | bytearray) -> list[dict[str, object]]:
        """Take a piece; return the lines that it completes.

        Raises:
            WireError: a line is too long.
        """
        *whole, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE:
            raise WireError(f"a line of more than {MAX_LINE} bytes")
        return [json.loads(line) for line in whole]
