"""A worker whose process gets a Ctrl-C: ``interrupted_process.py WHERE``, with nobody's handler.

WHERE is ``handler``, ``child`` (a task of the handler's own), ``idle`` (no handler's frame runs) or
``twice`` (the second one is idle). Prints what the handler does that is not struck.
"""

import os
import signal
import sys

import trio
from trio.testing import wait_all_tasks_blocked

from trio_dagnats import TaskContext, Worker
from trio_dagnats.testing import Harness
from trio_dagnats.wire.text import compact


def tell(line: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{line}\n")


async def interrupt() -> None:
    """Get a Ctrl-C while a frame of a handler's runs."""
    os.kill(os.getpid(), signal.SIGINT)


async def interrupt_idle() -> None:
    """Get a Ctrl-C while all tasks wait."""
    await wait_all_tasks_blocked()
    await trio.to_thread.run_sync(os.kill, os.getpid(), signal.SIGINT)


async def main(where: str) -> None:
    """Serve one handler that is struck and one that is not."""
    async with Harness() as harness, trio.open_nursery() as nursery:
        worker = Worker(harness.broker, grace=60)
        begun = trio.Event()

        @worker.handle("struck")
        async def struck(ctx: TaskContext) -> None:
            await begun.wait()
            if where == "idle":
                nursery.start_soon(interrupt_idle)
                await ctx._attempt.shared.draining.wait()
            elif where == "child":
                async with trio.open_nursery() as own:
                    own.start_soon(interrupt)
                    await trio.sleep_forever()
            else:
                await interrupt()

        @worker.handle("other")
        async def other(ctx: TaskContext) -> None:
            begun.set()
            try:
                await ctx._attempt.shared.draining.wait()
                tell("drains")
                if where == "twice":
                    nursery.start_soon(interrupt_idle)
                    await trio.sleep_forever()
            except trio.Cancelled:
                tell("cancelled")
                raise
            tell("completes")

        for name in ("struck", "other"):
            task = compact({"run_id": name, "step_id": "s"})
            await harness.broker.store(f"task.{name}.r", task, deadline=trio.current_time() + 10)
        try:
            await worker.start(handle_signals=False)
        except KeyboardInterrupt as raised:
            answers = sorted({answer.body for answer in harness.server.answers})
            stored = harness.server.stream("KV_checkpoints")
            notes = [r.subject for r in stored.read("$KV.>", 0) if b"let_go" in r.body]
            tell(f"{raised!r} {' '.join(answers)} let go: {notes}")


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
