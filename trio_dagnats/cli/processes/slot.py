r"""One of the processes: started, and started again when it dies, for the length of a nursery task.

::

    supervisor --- SIGTERM: drain ------------------> child
               \-- socket, its end: without grace ---/
                /- socket: loaded, ready -----------/

The socket also ends when the supervisor is gone, even by SIGKILL. Signals from elsewhere do a child
no harm: however often it is told to drain, only the socket takes its grace away.

A slot from its start to its end::

    start ──► loaded ──► ready (serves) ──► ends by itself ──► judged ──► pause ──► start
      │          │            │                                  └─ hopeless: all are cancelled
      └──────────┴────────────┴── cancelled ──► SIGTERM ──► grace
                                    ──► the socket ends: no grace ──► SIGKILL

The grace is the worker's own, told by ``loaded``: a child that has not said it yet has not begun to
serve and has nothing to hand back, so it gets none.
"""

import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import final

import trio

from trio_dagnats.cli import child_link
from trio_dagnats.cli.exits import Exit
from trio_dagnats.cli.processes import rules
from trio_dagnats.logs import Log

log = Log("trio_dagnats.processes")

COMMAND_LINE = (sys.executable, "-P", "-m", "trio_dagnats.cli.main")
"""``-P``: the current directory must not be where this package's modules are looked for."""
COMMAND = "run-child"
"""A hidden command; only a supervisor calls it."""
KILL_PATIENCE = 5.0
"""Seconds for the system to end what was killed."""


@final
@dataclass(frozen=True, slots=True)
class Plan:
    """What every process runs.

    Attributes:
        target: ``FILE_OR_MODULE`` as it was given.
        environment: theirs; it names the server, for a URL may have a password, and arguments are
            seen by everybody.
    """

    target: str
    environment: Mapping[str, str]


@final
class Slot:
    """Keeps one process running until it is cancelled, and then drains it.

    Written by its own task (:meth:`run`); the supervisor reads ``serves`` and ``exit_code`` and
    calls :meth:`hurry`. ``_grace_time`` and ``_last_time`` are the two scopes of a drain:
    cancelling the one ends the grace, cancelling the other the waiting, and what is left then is
    SIGKILL.

    Args:
        number: which one it is, from 1.
        plan: what it runs.
        judge: takes the exit code of each process that has ended by itself; may cancel everything.

    Attributes:
        exit_code: of the process that was drained.
        serves: whether its process serves.
        has_served: set when it serves for the first time.
    """

    def __init__(self, number: int, plan: Plan, judge: Callable[[int], None]) -> None:
        self._number = number
        self._plan = plan
        self._judge = judge
        self._grace = 0.0
        self._grace_time = trio.CancelScope()
        self._last_time = trio.CancelScope()
        self.exit_code: int = Exit.DONE
        self.serves = False
        self.has_served = trio.Event()

    def hurry(self) -> None:
        """Take its time from a process that drains: first the grace, then all."""
        left = self._last_time if self._grace_time.cancel_called else self._grace_time
        left.cancel()

    async def run(self) -> None:
        """Keep a process running.

        Cancellation: it drains, and is killed when it takes longer than :func:`rules.patience`.
        """
        deaths = 0
        while True:
            begun = trio.current_time()
            returncode = await self._live()
            self._judge(rules.exit_code(returncode))
            await trio.lowlevel.checkpoint_if_cancelled()
            deaths = rules.deaths(deaths, trio.current_time() - begun)
            pause = rules.pause(deaths)
            log.warning("process %d %s", self._number, rules.obituary(returncode, pause))
            await trio.sleep(pause)

    async def _live(self) -> int:
        """Start a process and wait for its end; return its return code."""
        self._grace = 0.0
        try:
            process, stream = await child_link.start_child(
                self._command, stdin=subprocess.DEVNULL, env=self._plan.environment
            )
        except OSError as error:
            text = f"process {self._number} cannot be started: {error}"
            log.error(text)  # noqa: TRY400 - the sentence is enough
            return Exit.USAGE
        try:
            await self._hold(process, stream)
        finally:
            stream.socket.close()
        assert process.returncode is not None
        return process.returncode

    def _command(self, fd: int) -> list[str]:
        me = [sys.executable, "-P", "-m", "trio_dagnats.cli.main"]
        return [*me, COMMAND, str(self._number), str(fd), "--", self._plan.target]

    async def _hold(self, process: trio.Process, stream: trio.SocketStream) -> None:
        """Wait for a process's end, and hear what it tells; drain it if that is cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, process, stream)
                await process.wait()
                nursery.cancel_scope.cancel()
        finally:
            self.serves = False
            if process.returncode is None:
                await self._drain(process, stream)

    async def _listen(self, process: trio.Process, stream: trio.SocketStream) -> None:
        """Take what the process tells: the worker's grace when loaded, then that it serves."""

        async def take(line: child_link.Line) -> None:
            if "loaded" in line:
                self._grace = float(str(line["loaded"]))
            else:
                self.serves = True
                self.has_served.set()
                log.info("process %d serves (pid %d)", self._number, process.pid)

        await child_link.listen(stream, take)

    async def _drain(self, process: trio.Process, stream: trio.SocketStream) -> None:
        """Drain a process: SIGTERM, its grace, the end of the socket, and SIGKILL at last.

        Shielded, for it is a cancellation that brings us here; the deadline is that of the killing
        and five seconds more.
        """
        killed_at = trio.current_time() + rules.patience(self._grace)
        with trio.CancelScope(shield=True, deadline=killed_at + KILL_PATIENCE):
            process.terminate()
            with self._grace_time, trio.move_on_after(self._grace):
                await process.wait()
            with suppress(trio.BrokenResourceError):
                await stream.send_eof()
            self._last_time.deadline = min(killed_at, trio.current_time() + rules.patience())
            with self._last_time:
                await process.wait()
            if process.returncode is None:
                log.error("process %d did not end and is killed", self._number)
                process.kill()
                await process.wait()
        if process.returncode is not None:
            self.exit_code = rules.exit_code(process.returncode, told=True)
