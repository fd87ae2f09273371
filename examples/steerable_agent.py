"""Steerable agent: a signal interrupts the model while it streams, and the conversation goes on.

Only the block under ``ctx.steering`` is cancelled. What the user says is there at the next line,
and what was said before is still in the state; ``ctx.iterations_left`` keeps the agent in bounds.

Run it:  python examples/steerable_agent.py
It prints::

    user: why trio?
    agent: Reason 0, at length ...
    user: shorter, please
    agent: Nurseries.
"""

from collections.abc import AsyncIterator

import trio
from here import engine
from pydantic import BaseModel

from trio_dagnats import Client, Continue, TaskContext, Worker, Workflow


class Chat(BaseModel):
    """What was said so far."""

    lines: list[str]


async def model(chat: Chat) -> AsyncIterator[str]:
    """Stand in for a model: it talks for an hour, unless the user wants it short."""
    if chat.lines[-1] == "user: shorter, please":
        yield "Nurseries."
        return
    for number in range(3600):
        yield f"Reason {number}, at length ..."
        await trio.sleep(1)


async def answer(ctx: TaskContext, chat: Chat) -> Continue[Chat] | Chat:
    """Let the model talk until it is done, or the user interrupts it."""
    said = ""
    async with ctx.steering("user") as inbox:
        async for words in model(chat):
            said = words
            await ctx.put_stream(words)
    lines = [*chat.lines, f"agent: {said}"]
    if inbox.message is None or not ctx.iterations_left:
        return Chat(lines=lines)
    return Continue(Chat(lines=[*lines, f"user: {inbox.message.decode()}"]))


async def main() -> None:
    """Ask something, and interrupt the answer."""
    async with engine() as url, Client(url) as client:
        worker = Worker(url)
        worker.agent_loop("answer", answer)

        workflow = Workflow("chat")
        workflow.agent_loop("answer", max_iterations=10)

        async with worker:
            await client.register(workflow)
            run = await client.start("chat", Chat(lines=["user: why trio?"]))
            async for event in run.events():
                if event.type == "step.started":
                    break
            await run.signal("user", b"shorter, please")
            output = await run.output(timeout=30)
            print(*Chat.model_validate(output).lines, sep="\n")


if __name__ == "__main__":
    trio.run(main)
