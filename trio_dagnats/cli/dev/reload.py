"""Keeping one version of the user's code in service, and replacing it when files change.

A new version is imported first; only when that went well it begins to serve, and the old one
drains beside it: handlers that run may end within the grace, the rest is handed back to the new
version. A version that cannot be imported changes nothing.

::

    a file changes ─► make a process ─► import ─► register ─► serve ─► the old one drains
                                           │         │          │        ├─ ends: grace + 60 s
                                           └─────────┴──────────┘        └─ or is killed: its tasks
                                      fails: its process ends,              come back when their
                                      the old one stays                     lease is over

While both serve, each of them may get a task; neither is more right than the other. Of three the
oldest is ended at once. An import that hangs is cancelled by the next change, which is perhaps its
repair.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Protocol, final

import trio
from watchfiles import Change, PythonFilter, awatch

from trio_dagnats.cli.dev.process import WorkerProcess
from trio_dagnats.cli.exits import explain
from trio_dagnats.client import WorkflowDef
from trio_dagnats.errors import DagnatsError, without_groups

RETIRE_PATIENCE = 60.0
"""Seconds beyond the grace that handlers in threads may take to end in an old version."""
CLOSE_PATIENCE = 5.0
"""The same at the end of everything."""
LOOK_UP_MS = 100
"""The watching thread sees a cancellation only when it looks up."""
SLOW_IMPORT = 10.0
"""Seconds; a module that runs its worker on import never comes back, and says nothing."""

Register = Callable[[list[WorkflowDef]], Awaitable[None]]
"""Registers what a version holds; may refuse, and then the version does not serve."""
MakeWorker = Callable[[], WorkerProcess]
"""Makes a process that is not started yet; called for each version."""


class Teller(Protocol):
    """Where news go.

    A protocol, so that tests need no terminal; ``Screen`` is one.
    """

    def say(self, text: str) -> None:
        """Say something."""
        ...

    def warn(self, text: str) -> None:
        """Warn of something."""
        ...

    def fail(self, text: str) -> None:
        """Say what went wrong."""
        ...


@final
class Reloader:
    """The versions of the user's code, at most two at a time.

    ``_current`` is the version in service, with the scope that holds its process: cancelling
    that scope ends the process. ``_retiring`` is the scope of the version that drains. Written
    by :meth:`replace` and :meth:`close` only; versions never change themselves.

    Args:
        make: makes the process of a new version.
        register: registers the workflows of a new version before it serves.
        teller: where news go.
        nursery: holds the processes.
        grace: seconds that a drain leaves running handlers.
    """

    def __init__(
        self,
        make: MakeWorker,
        register: Register,
        teller: Teller,
        nursery: trio.Nursery,
        grace: float,
    ) -> None:
        self._make = make
        self._register = register
        self._teller = teller
        self._nursery = nursery
        self._grace = grace
        self._current: tuple[WorkerProcess, trio.CancelScope] | None = None
        self._retiring = trio.CancelScope()

    async def replace(self) -> None:
        """Bring the newest version into service.

        Until the new version serves, an error or a cancellation ends it and leaves the old one
        as it was. The switch itself has no ``await`` in it, so there is never none in service,
        and never a third.

        Raises:
            DagnatsError: it cannot be imported, registered or served; the old one goes on.
        """
        worker, scope = self._make(), trio.CancelScope()
        await self._nursery.start(self._hold, worker, scope)
        try:
            await self._register(await self._import(worker))
            await worker.serve()
        except BaseException:
            scope.cancel()
            raise
        old, self._current = self._current, (worker, scope)
        self._nursery.start_soon(self._watch_over, worker)
        if old is not None:
            self._retiring.cancel()  # of three versions the oldest goes at once
            self._retiring = old[1]
            self._nursery.start_soon(self.retire, *old)

    async def follow(
        self, root: Path, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Bring the first version into service, and a new one when files under ``root`` change.

        Ready (``task_status``) when the first version serves. Files are watched from before its
        import on, so that no change is missed.

        One change may come while the one before is being imported: then that import is cancelled
        and the newer one begins. Cancellation ends the watching; versions are held by another
        nursery and stay.

        Raises:
            DagnatsError: the first version cannot be imported, registered or served.
        """
        latest = trio.CancelScope()
        served = False
        async with trio.open_nursery() as nursery:
            async for changes in _changes(root):
                if not served:
                    await self.replace()
                    served = True
                    task_status.started()
                elif changes:
                    names = sorted({Path(path).name for _, path in changes})
                    latest.cancel()  # an import that hangs must not keep its own repair away
                    latest = trio.CancelScope()
                    nursery.start_soon(self._try_replace, names, latest)

    async def close(self) -> None:
        """Drain what is in service and wait for it.

        Called once, when nothing is watched any more; what retires already ends with the
        nursery.
        """
        if self._current is not None:
            current, self._current = self._current, None
            self._teller.say(f"draining, {self._grace:g} s at most; Ctrl-C again ends it at once")
            await self.retire(*current, patience=CLOSE_PATIENCE)

    async def retire(
        self, worker: WorkerProcess, scope: trio.CancelScope, patience: float = RETIRE_PATIENCE
    ) -> None:
        """Drain a version and wait for its end; end it if it takes too long.

        Cancellation ends the waiting and leaves the version draining; whoever cancels also holds
        its scope.
        """
        await worker.drain()
        with trio.move_on_after(self._grace + patience):
            await worker.ended.wait()
            return
        self._teller.warn(
            "handlers of an old worker did not end (in a thread, or swallowing their "
            "cancellation); its process is ended, and their tasks come back with their lease"
        )
        scope.cancel()

    async def _try_replace(self, names: list[str], scope: trio.CancelScope) -> None:
        """Replace the version in service and say what became of it.

        ``names`` are those of the changed files. Only errors that are a sentence are told; any
        other is a bug and ends ``dev``.
        """
        shown = ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
        with scope:
            try:
                await self.replace()
            except DagnatsError as error:
                goes_on = "; the old worker goes on" if self._in_service else ""
                self._teller.fail(f"{explain(error)[0]}{goes_on}")
            else:
                self._teller.say(f"reloaded ({shown} changed)")

    @property
    def _in_service(self) -> bool:
        return self._current is not None and not self._current[0].ended.is_set()

    @staticmethod
    async def _hold(
        worker: WorkerProcess, scope: trio.CancelScope, task_status: trio.TaskStatus[None]
    ) -> None:
        """Hold a version's process until it ends; when its scope is cancelled, end it."""
        with scope:
            await worker.run(task_status)

    async def _import(self, worker: WorkerProcess) -> list[WorkflowDef]:
        """Wait for a version's import, which may take as long as it likes; after a while say so."""
        with without_groups():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._remind)
                found = await worker.load()
                nursery.cancel_scope.cancel()
        return found

    async def _remind(self) -> None:
        await trio.sleep(SLOW_IMPORT)
        self._teller.warn(
            f"the module is still being imported after {SLOW_IMPORT:g} s; if it runs the worker "
            'itself, put that under `if __name__ == "__main__":`'
        )

    async def _watch_over(self, worker: WorkerProcess) -> None:
        """Say so if a version that is in service ends by itself.

        It is not started again by itself: with the same code it would most likely end the same
        way.
        """
        await worker.ended.wait()
        if self._current is not None and self._current[0] is worker:
            self._teller.fail(
                f"the worker's process ended with exit code {worker.exit_code}; it starts again "
                "when a file changes"
            )


def _changes(root: Path) -> AsyncIterator[set[tuple[Change, str]]]:
    """Yield changes of Python files under a directory, and empty sets while there are none."""
    return awatch(
        root,
        watch_filter=PythonFilter(),
        rust_timeout=LOOK_UP_MS,
        yield_on_timeout=True,
        raise_interrupt=False,
    )
