"""Between the caller and the shielded service: what reaches the caller becomes a drain."""

import trio

from trio_dagnats.inspection import is_interrupt
from trio_dagnats.worker.service import Service


async def serve(
    service: Service, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run a service until it has drained.

    Cancellation: relayed as a drain without grace, so that hand-backs still find a connection.

    Raises:
        KeyboardInterrupt: after the drain, if trio has raised a Ctrl-C here or in an attempt.
    """
    over = trio.Event()

    @trio.lowlevel.enable_ki_protection
    async def run() -> None:
        try:
            await service.run(task_status)
        finally:
            over.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        while not over.is_set():
            await _wait(service, over)
    if service.interrupted is not None:
        raise service.interrupted


@trio.lowlevel.enable_ki_protection
async def _wait(service: Service, over: trio.Event) -> None:
    """Wait where trio delivers a Ctrl-C that came at no better moment, if this is its main task."""
    try:
        await over.wait()
    except KeyboardInterrupt as error:
        if not is_interrupt(error):
            raise
        service.interrupt(error)
    except trio.Cancelled:
        service.drain(0.0)
        raise
