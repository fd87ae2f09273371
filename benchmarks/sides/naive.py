"""The straightforward trio worker: nats-py through trio-asyncio, one ``aio_as_trio`` per call."""

import sys

import nats
import trio
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig

from benchmarks.sides.messages import MAX_ACK_PENDING, TASK_QUEUES, codec, started
from benchmarks.sides.telling import Asked, Tally, ready

if sys.version_info >= (3, 14):
    from trio_dagnats.transport import trio_asyncio  # by itself it does not import
else:
    import trio_asyncio

LINGER = 5.0


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
        self._freed = trio.Event()

    async def serve(self) -> None:
        """Serve as many tasks as were asked for, and tell of them."""
        asked = self._asked
        queue = await trio_asyncio.aio_as_trio(self._stream.pull_subscribe)(
            f"task.{asked.task_type}.>",
            durable=f"workers-{asked.task_type}",
            stream=TASK_QUEUES,
            config=ConsumerConfig(max_ack_pending=MAX_ACK_PENDING),  # the default is 1000
        )
        ready()
        left = asked.tasks or float("inf")
        async with trio.open_nursery() as nursery:
            while left:
                while not self._free:
                    self._freed = trio.Event()
                    await self._freed.wait()
                messages = await self._pull(queue, int(min(self._free, left)))
                self._free -= len(messages)
                left -= len(messages)
                for message in messages:
                    nursery.start_soon(self._run, message)

    async def _pull(self, queue: JetStreamContext.PullSubscription, batch: int) -> list[Msg]:
        try:
            found: list[Msg] = await trio_asyncio.aio_as_trio(queue.fetch)(batch, timeout=LINGER)
        except TimeoutError:
            return []
        return found

    async def _run(self, message: Msg) -> None:
        step = self._codec.read(message.data)
        subject, body, headers = started(step)
        await trio_asyncio.aio_as_trio(self._stream.publish)(subject, body, headers=headers)
        output = await self._handle(step.input)
        subject, body, headers = self._codec.completed(step, output)
        await trio_asyncio.aio_as_trio(self._stream.publish)(subject, body, headers=headers)
        await trio_asyncio.aio_as_trio(message.ack)()
        self._free += 1
        self._freed.set()
        self._tally.done()

    async def _handle(self, given: object) -> object:
        if self._pause:
            await trio.sleep(self._pause)
        return None if self._swallows else given

    def tell(self) -> None:
        """Tell what was used."""
        self._tally.tell()


async def serve(asked: Asked) -> None:
    """Connect and serve."""
    async with trio_asyncio.open_loop():
        client = await trio_asyncio.aio_as_trio(nats.connect)(asked.url)
        loop = Loop(asked, client.jetstream())
        await loop.serve()
        await trio_asyncio.aio_as_trio(client.close)()
    loop.tell()


def main() -> None:
    """Serve."""
    trio.run(serve, Asked.from_arguments())


if __name__ == "__main__":
    main()
