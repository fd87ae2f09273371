"""Puts tasks into the queue as cheaply as it can be done: one core is for the worker.

A socket and a string for each task; no acknowledgement, no loop, no client.
"""

import json
import socket
import time
from threading import Thread
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from trio_dagnats.wire.names import task_subject
from trio_dagnats.wire.text import compact


class Publisher:
    """A connection that dispatches tasks: ``with Publisher(url) as publisher``."""

    def __init__(self, url: str) -> None:
        found = urlsplit(url)
        self._socket = socket.create_connection((found.hostname, found.port or 4222))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        """Say hello, and answer the server's pings from now on."""
        options = {"verbose": False, "pedantic": False, "lang": "python", "version": "1"}
        self._socket.sendall(b"CONNECT %b\r\n" % json.dumps(options).encode())
        Thread(target=self._answer, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connection."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def put(self, task_type: str, run_id: str, given: object = 1) -> int:
        """Dispatch a task; return when, by the clock of this machine, in nanoseconds."""
        task = {"task_id": f"{run_id}.s", "run_id": run_id, "step_id": "s", "input": given}
        body = compact(task)
        frame = b"PUB %b %d\r\n%b\r\n" % (task_subject(task_type, run_id).encode(), len(body), body)
        begun = time.time_ns()
        self._socket.sendall(frame)
        return begun

    def _answer(self) -> None:
        with self._socket.makefile("rb") as lines:
            for line in lines:
                if line.startswith(b"PING"):
                    self._socket.sendall(b"PONG\r\n")
