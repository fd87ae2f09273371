"""A worker process for the tests of signals: ``worker_process.py URL GRACE [stubborn|hard]``."""

import logging
import sys

import trio

from trio_dagnats import TaskContext, Worker

logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")


def main() -> None:
    """Serve a task that takes an hour."""
    sys.stdout.write("imported\n")
    sys.stdout.flush()
    url, grace, *more = sys.argv[1:]
    stubborn = more == ["stubborn"]
    worker = Worker(url, grace=float(grace), hard_exit=bool(more))

    @worker.handle("long")
    async def long(ctx: TaskContext) -> None:
        with trio.CancelScope(shield=stubborn):
            await trio.sleep(3600)

    trio.run(worker.start)


if __name__ == "__main__":
    main()
