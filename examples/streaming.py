"""Streaming output: chunks for eyes while the step runs, the result when it is done.

Chunks are core NATS messages: nobody listening, nothing kept. So the handler here waits until
somebody says that they listen.

Run it:  python examples/streaming.py
It prints::

    Structure
    is
    what
    lets
    you
    let
    go
    Structure is what lets you let go
"""

import trio
from here import engine

from trio_dagnats import Client, TaskContext, Worker, Workflow

TEXT = "Structure is what lets you let go"


async def write(ctx: TaskContext) -> str:
    """Write word by word; an empty chunk is the end."""
    await ctx.wait_for_signal("listening", timeout=60)
    for word in TEXT.split():
        await ctx.put_stream(word.encode())
    await ctx.put_stream(b"")
    return TEXT


async def main() -> None:
    """Print the chunks as they come, then the output."""
    async with engine() as url, Client(url) as client:
        worker = Worker(url)
        worker.handle("write", write)

        workflow = Workflow("write")
        workflow.step("write")

        async with worker:
            await client.register(workflow)
            run = await client.start("write")
            async with run.stream("write") as chunks:
                await run.signal("listening")
                async for chunk in chunks:
                    if not chunk:
                        break
                    print(chunk.decode(), flush=True)
            print(await run.output(timeout=30))


if __name__ == "__main__":
    trio.run(main)
