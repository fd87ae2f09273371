"""Between the caller and the shielded service: a cancellation from outside becomes a drain."""

import trio

from trio_dagnats.worker.service import Service


async def serve(
    service: Service, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run a service until it has drained.

    Cancellation: relayed as a drain without grace, so that hand-backs still find a connection.
    """
    async with trio.open_nursery() as nursery:
        relay = trio.CancelScope()
        nursery.start_soon(_relay, service, relay)
        try:
            await service.run(task_status)
        finally:
            relay.cancel()


async def _relay(service: Service, scope: trio.CancelScope) -> None:
    with scope:
        try:
            await trio.sleep_forever()
        finally:
            service.drain(0.0)
