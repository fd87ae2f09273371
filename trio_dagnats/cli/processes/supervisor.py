"""The processes and their supervisor: one drain for all of them, one exit code.

::

    signals     SIGINT, SIGTERM: the first one drains, each further one takes patience away
    └─ keeping     a task per slot: the first signal cancels them, and each drains its process

The exit code is the worst: a process that had to be killed, a worker that could not begin, or
the second signal. One that died and was started again does not count: that was mended.
"""

from typing import final

import trio

from trio_dagnats.cli.exits import Exit
from trio_dagnats.cli.processes import rules
from trio_dagnats.cli.processes.slot import Plan, Slot
from trio_dagnats.errors import without_groups
from trio_dagnats.logs import Log
from trio_dagnats.worker.drain.interrupts import SIGNALS

log = Log("trio_dagnats.processes")


@final
class Supervisor:
    """Keeps processes running until a signal, or until none of them can begin to serve.

    Args:
        count: how many.
        plan: what each of them runs.
    """

    def __init__(self, count: int, plan: Plan) -> None:
        self._slots = [Slot(number, plan, self._judge) for number in range(1, count + 1)]
        self._keeping = trio.CancelScope()
        self._verdict: int = Exit.DONE

    async def run(self) -> int:
        """Keep the processes running; return the worst exit code: theirs, or a second signal's."""
        with without_groups():
            async with trio.open_nursery() as nursery:
                await nursery.start(self._obey_signals)
                with self._keeping:
                    await self._keep()
                nursery.cancel_scope.cancel()
        return max(self._verdict, *(slot.exit_code for slot in self._slots))

    async def _keep(self) -> None:
        """Let the first one serve before the others start: what is in the way is said once."""
        first, *others = self._slots
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first.run)
            await first.has_served.wait()
            for slot in others:
                nursery.start_soon(slot.run)

    def _judge(self, code: int) -> None:
        """Decide by the end of one process whether all shall end.

        Called by a slot for each process that has ended by itself, before it is started again.
        Cancelling ``_keeping`` drains the others; their exit codes and the verdict are compared
        at the end.
        """
        if rules.hopeless(code, others_serve=any(slot.serves for slot in self._slots)):
            self._verdict = code
            self._keeping.cancel()

    async def _obey_signals(self, task_status: trio.TaskStatus[None]) -> None:
        """Drain at the first signal, and take patience away at each further one."""
        with trio.open_signal_receiver(*SIGNALS) as received:
            task_status.started()
            await anext(received)
            log.info("signal received: %d processes drain", len(self._slots))
            self._keeping.cancel()
            async for number in received:
                self._verdict = max(self._verdict, 128 + number)
                log.warning("signal received again: no more grace")
                for slot in self._slots:
                    slot.hurry()
