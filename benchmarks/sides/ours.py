"""This worker; on nats-py's public calls alone, with pipelined starts or spans, if asked."""

import os
from typing import Self

import trio

from benchmarks.sides.telling import Asked, Tally, ready
from trio_dagnats import TaskContext, Worker
from trio_dagnats.telemetry import TraceContext
from trio_dagnats.wire.trace import NO_TRACE


class Spans:
    """A telemetry that does nothing; it is its own span."""

    def span(self, *_: object) -> Self:
        """Begin nothing."""
        return self

    def trace(self) -> TraceContext:
        """Return that of no span."""
        return NO_TRACE

    def record_error(self, error: BaseException) -> None:
        """Forget it."""

    def end(self) -> None:
        """End nothing."""

    def count(self, name: str, change: int) -> None:
        """Count nothing."""

    def record(self, name: str, value: float) -> None:
        """Record nothing."""


async def serve(asked: Asked) -> None:
    """Serve as many tasks as were asked for, and tell of them."""
    tally, over = Tally(asked), trio.Event()
    pipelined = "pipelined" in asked.more
    spans = Spans() if "spans" in asked.more else None
    worker = Worker(asked.url, spans, concurrency=asked.concurrency, pipeline_started=pipelined)
    if asked.work == "typed":
        from benchmarks.sides.orders import Order  # noqa: PLC0415 - the others need no pydantic

        @worker.handle_typed(asked.task_type)
        async def review(ctx: TaskContext, order: Order) -> Order:
            if tally.done():
                over.set()
            return order

    else:
        pause, swallows = asked.pause, asked.work == "swallow"

        async def work(ctx: TaskContext) -> bytes | None:
            if pause:
                await trio.sleep(pause)
            if tally.done():
                over.set()
            return None if swallows else ctx.input

        for task_type in asked.task_types:
            worker.handle(task_type, work)

    async with worker:
        ready()
        await over.wait()
    tally.tell()


def main() -> None:
    """Serve."""
    asked = Asked.from_arguments()
    if "public" in asked.more:
        os.environ["TRIO_DAGNATS_PUBLIC_PATH"] = "1"
    trio.run(serve, asked)


if __name__ == "__main__":
    main()
