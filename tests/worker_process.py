"""A worker process for the tests of signals: ``worker_process.py URL GRACE``."""

import logging
import sys

import trio

from trio_dagnats import TaskContext, Worker

logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")


def main() -> None:
    """Serve a task that takes an hour."""
    url, grace = sys.argv[1:]
    worker = Worker(url, grace=float(grace))

    @worker.handle("long")
    async def long(ctx: TaskContext) -> None:
        await trio.sleep(3600)

    trio.run(worker.start)


if __name__ == "__main__":
    main()
