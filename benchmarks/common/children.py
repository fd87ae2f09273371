"""Workers in processes of their own: ``python -m benchmarks.NAME --serve URL``.

Each line that one prints is an event, a JSON object with the time of the clock that all processes
of a machine share.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, Self

import trio

from trio_dagnats import Worker
from trio_dagnats.wire.text import compact

ROOT = Path(__file__).parent.parent.parent
LATE = 300.0
"""Seconds after which a worker will not tell any more what is waited for."""


def tell(what: str, **more: object) -> None:
    """Say an event to the parent, in one write: it is told even if we are killed right after."""
    os.write(1, compact({"what": what, "at": time.monotonic(), "pid": os.getpid(), **more}) + b"\n")


async def serve_until_killed(worker: Worker) -> NoReturn:
    """Serve in a process that its parent ends; it is told when the worker is ready."""
    async with worker:
        tell("ready")
        await trio.sleep_forever()


@dataclass(frozen=True, slots=True)
class Said:
    """An event that a worker process has told."""

    what: str
    at: float
    pid: int
    more: dict[str, object] = field(default_factory=dict)

    @property
    def run(self) -> str:
        """The run that it is about, empty for none."""
        return str(self.more.get("run", ""))


@dataclass
class Child:
    """A worker in a process of its own.

    Attributes:
        process: the process.
        said: what it has told so far, first to last.
    """

    process: trio.Process
    said: list[Said]
    _lot: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)
    _over: bool = False

    async def listen(self) -> None:
        """Take what it tells, until it has ended."""
        rest = b""
        assert self.process.stdout is not None
        async for chunk in self.process.stdout:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                found = json.loads(line)
                said = Said(found.pop("what"), found.pop("at"), found.pop("pid"), found)
                self.said.append(said)
            self._lot.unpark_all()
        self._over = True
        self._lot.unpark_all()

    async def heard(self, right: Callable[[Said], bool], times: int = 1) -> Said:
        """Wait until it has told so many such events; return the last of them."""
        seen = 0
        with trio.fail_after(LATE):
            while True:
                for said in self.said[seen:]:
                    seen += 1
                    times -= right(said) and said.pid == self.process.pid
                    if not times:
                        return said
                if self._over:
                    raise AssertionError(f"the worker ended early: {self.process.returncode}")
                await self._lot.park()

    async def ready(self) -> Self:
        """Wait until it serves."""
        await self.heard(lambda said: said.what == "ready")
        return self

    async def gone(self) -> float:
        """Wait until it has ended; return the seconds that this took from here."""
        begun = time.monotonic()
        await self.process.wait()
        return time.monotonic() - begun

    def kill(self) -> None:
        """End it on the spot, as the kernel does: without a word."""
        self.process.send_signal(signal.SIGKILL)


@asynccontextmanager
async def child(module: str, *args: object, said: list[Said] | None = None) -> AsyncIterator[Child]:
    """Run ``python -m benchmarks.MODULE ARGS`` for the length of a block.

    Args:
        module: the program.
        args: its arguments.
        said: where to keep what it tells: several children may share one list.
    """
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, args)]
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=ROOT
    )
    found = Child(process, [] if said is None else said)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.listen)
        try:
            yield found
        finally:
            if process.returncode is None:
                found.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


async def employ(
    module: str,
    *args: object,
    said: list[Said] | None = None,
    task_status: trio.TaskStatus[Child] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a child until it ends by itself; started when it serves. For ``nursery.start``."""
    async with child(module, *args, said=said) as found:
        task_status.started(await found.ready())
        await found.process.wait()
