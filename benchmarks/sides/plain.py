"""A plain asyncio loop on nats-py: pulls in batches, a task per message; on uvloop if asked.

Whatever is acknowledged is awaited in the order in which this worker does it: ``step.started``,
the handler, ``step.completed``, then the task.
"""

import asyncio

import nats
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig

from benchmarks.sides.messages import MAX_ACK_PENDING, TASK_QUEUES, codec, started
from benchmarks.sides.telling import Asked, Tally, ready

LINGER = 5.0
"""Seconds that a pull waits for tasks."""


class Loop:
    """Serves one task type."""

    def __init__(self, asked: Asked, stream: JetStreamContext) -> None:
        self._asked = asked
        self._stream = stream
        self._codec = codec(asked.work)
        self._pause = asked.pause
        self._swallows = asked.work == "swallow"
        self._tally = Tally(asked)
        self._free = asked.concurrency
        self._freed = asyncio.Event()

    async def serve(self) -> None:
        """Serve as many tasks as were asked for, and tell of them."""
        asked = self._asked
        queue = await self._stream.pull_subscribe(
            f"task.{asked.task_type}.>",
            durable=f"workers-{asked.task_type}",
            stream=TASK_QUEUES,
            config=ConsumerConfig(max_ack_pending=MAX_ACK_PENDING),  # the default is 1000
        )
        ready()
        left = asked.tasks or float("inf")
        async with asyncio.TaskGroup() as group:
            while left:
                while not self._free:
                    self._freed.clear()
                    await self._freed.wait()
                messages = await self._pull(queue, int(min(self._free, left)))
                self._free -= len(messages)
                left -= len(messages)
                for message in messages:
                    group.create_task(self._run(message))

    async def _pull(self, queue: JetStreamContext.PullSubscription, batch: int) -> list[Msg]:
        try:
            return await queue.fetch(batch, timeout=LINGER)
        except TimeoutError:
            return []

    async def _run(self, message: Msg) -> None:
        step = self._codec.read(message.data)
        subject, body, headers = started(step)
        await self._stream.publish(subject, body, headers=headers)
        output = await self._handle(step.input)
        subject, body, headers = self._codec.completed(step, output)
        await self._stream.publish(subject, body, headers=headers)
        await message.ack()
        self._free += 1
        self._freed.set()
        self._tally.done()

    async def _handle(self, given: object) -> object:
        if self._pause:
            await asyncio.sleep(self._pause)
        return None if self._swallows else given

    def tell(self) -> None:
        """Tell what was used."""
        self._tally.tell()


async def serve(asked: Asked) -> None:
    """Connect and serve."""
    client = await nats.connect(asked.url)
    loop = Loop(asked, client.jetstream())
    await loop.serve()
    await client.drain()
    loop.tell()


def main() -> None:
    """Serve on asyncio's own loop, or on uvloop."""
    asked = Asked.from_arguments()
    if "uvloop" in asked.more:
        import uvloop  # noqa: PLC0415 - not everybody has it

        uvloop.run(serve(asked))
    else:
        asyncio.run(serve(asked))


if __name__ == "__main__":
    main()
