"""Agent loop: one call per iteration, with a typed state that survives workers and restarts.

``Continue(state)`` stores the state and asks the engine for the next iteration; anything else is
the loop's output. The workflow bounds how often it may run.

Run it:  python examples/agent_loop.py
It prints::

    {'text': 'Is structure good? Yes.', 'steps': 3}
"""

import trio
from here import engine
from pydantic import BaseModel

from trio_dagnats import Client, Continue, TaskContext, Worker, Workflow


class Research(BaseModel):
    """What the agent knows so far."""

    question: str
    notes: list[str] = []


class Answer(BaseModel):
    """What the agent gives in the end."""

    text: str
    steps: int


async def research(ctx: TaskContext, state: Research) -> Continue[Research] | Answer:
    """Think once: look something up, or answer."""
    if len(state.notes) < 3:
        note = f"source {ctx.iteration + 1} says yes"
        return Continue(state.model_copy(update={"notes": [*state.notes, note]}))
    return Answer(text=f"{state.question} Yes.", steps=len(state.notes))


async def main() -> None:
    """Ask the agent one question."""
    async with engine() as url, Client(url) as client:
        worker = Worker(url)
        worker.agent_loop("research", research)

        workflow = Workflow("research")
        workflow.agent_loop("research", max_iterations=10)

        async with worker:
            await client.register(workflow)
            run = await client.start("research", Research(question="Is structure good?"))
            print(await run.output(timeout=30))


if __name__ == "__main__":
    trio.run(main)
