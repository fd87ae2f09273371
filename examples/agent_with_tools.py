"""An agent with tools: a model that streams, asks for tools, and answers when it knows enough.

The model here is a fake, so that nothing leaves your machine; a real one takes its place in
``model``. One iteration is one call of the model. The tools that it asks for run side by side in a
nursery, and the conversation is the loop's state: a worker may die between any two iterations.

Run it:  python examples/agent_with_tools.py
It prints::

    user: Which city is warmer, Oslo or Rome?
    tool: Oslo: 4 degrees
    tool: Rome: 19 degrees
    agent: It is Rome.
"""

from collections.abc import AsyncIterator

import trio
from here import engine
from pydantic import BaseModel

from trio_dagnats import Client, Continue, TaskContext, Worker, Workflow


class Chat(BaseModel):
    """The conversation so far."""

    lines: list[str]


async def model(chat: Chat) -> AsyncIterator[str]:
    """Stand in for a model: look up both cities, then answer, word by word."""
    known = [line for line in chat.lines if line.startswith("tool: ")]
    reply = "It is Rome." if known else "CALL weather Oslo; CALL weather Rome"
    for word in reply.split(" "):
        await trio.sleep(0.01)
        yield f"{word} "


async def weather(city: str) -> str:
    """Stand in for a tool that asks another service."""
    await trio.sleep(0.05)
    return f"{city}: { {'Oslo': 4, 'Rome': 19}[city] } degrees"


TOOLS = {"weather": weather}


async def use_tools(calls: list[str]) -> list[str]:
    """Run all tools at once; return what they found, in the order of the calls."""
    found = dict.fromkeys(calls, "")

    async def use(call: str) -> None:
        _, name, argument = call.split()
        found[call] = await TOOLS[name](argument)

    async with trio.open_nursery() as nursery:
        for call in calls:
            nursery.start_soon(use, call)
    return [f"tool: {text}" for text in found.values()]


async def agent(ctx: TaskContext, chat: Chat) -> Continue[Chat] | Chat:
    """Ask the model once, streaming what it says; then use the tools that it asks for."""
    reply = ""
    async for words in model(chat):
        await ctx.put_stream(words)
        reply += words
    calls = [part.strip() for part in reply.split(";") if "CALL" in part]
    if not calls:
        return Chat(lines=[*chat.lines, f"agent: {reply.strip()}"])
    return Continue(Chat(lines=[*chat.lines, *await use_tools(calls)]))


async def main() -> None:
    """Ask the agent something."""
    async with engine() as url, Client(url) as client:
        worker = Worker(url)
        worker.agent_loop("agent", agent)

        workflow = Workflow("agent")
        workflow.agent_loop("agent", max_iterations=5, max_duration=300)

        async with worker:
            await client.register(workflow)
            question = Chat(lines=["user: Which city is warmer, Oslo or Rome?"])
            run = await client.start("agent", question)
            print(*Chat.model_validate(await run.output(timeout=30)).lines, sep="\n")


if __name__ == "__main__":
    trio.run(main)
