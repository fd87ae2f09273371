"""A run of trio that its host abandons, and an attempt's coroutine that is closed after it."""

import os
import sys
import traceback
import warnings
from collections.abc import Callable
from queue import SimpleQueue

import trio

from trio_dagnats import TaskContext, Worker
from trio_dagnats.testing import Harness
from trio_dagnats.worker.attempts.attempt import Attempt

attempts: list[Attempt] = []


async def main() -> None:
    """Run one handler that waits for ever."""
    async with Harness() as harness:
        worker = Worker(harness.broker)

        @worker.handle("t")
        async def handler(ctx: TaskContext) -> None:
            attempts.append(ctx._attempt)
            await trio.sleep_forever()

        async with worker:
            await harness.run("t", timeout=3600)


def abandon() -> None:
    """Begin a run and turn to something else as soon as the handler waits."""
    todo: SimpleQueue[Callable[[], object]] = SimpleQueue()
    trio.lowlevel.start_guest_run(
        main, run_sync_soon_threadsafe=todo.put, done_callback=lambda _: None
    )
    while not attempts:
        todo.get(timeout=60)()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    abandon()
    (attempt,) = attempts
    assert attempt.main_task is not None
    try:
        attempt.main_task.coro.close()
    except RuntimeError as error:
        names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        sys.stdout.write(f"{error}, by {names[-1]}, left: {attempt.over}\n")
    sys.stdout.flush()
    os._exit(0)  # what is left of trio's run complains on its way out
