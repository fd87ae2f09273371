"""Sub-workflow: a step that is a whole run of another workflow.

It has a run id, a history and retries of its own; its input is the step's input, and its output is
the step's output. If it fails or is cancelled, so does the step.

Run it:  python examples/sub_workflow.py
It prints::

    {'title': 'Structure', 'text': 'structure holds'}
    the child was a run of its own: True
"""

import trio
from here import engine

from trio_dagnats import Client, TaskContext, Worker, Workflow


async def write(ctx: TaskContext, topic: str) -> str:
    """Write a text; a step of the inner workflow."""
    return f"{topic} holds"


async def publish(ctx: TaskContext, text: str) -> dict[str, str]:
    """Publish it; a step of the outer one."""
    return {"title": text.split(maxsplit=1)[0].capitalize(), "text": text}


async def main() -> None:
    """Run a workflow that runs another."""
    async with engine() as url, Client(url) as client:
        worker = Worker(url)
        worker.handle_typed("write", write)
        worker.handle_typed("publish", publish)

        inner = Workflow("article")
        inner.step("write")
        outer = Workflow("magazine")
        outer.step("publish", after=outer.sub_workflow("article"))

        async with worker:
            await client.register(inner)
            await client.register(outer)
            run = await client.start("magazine", "structure")
            print(await run.output(timeout=30))

            ended = await run.wait()
            child = client.run(ended.steps["article"].child_run_id)
            print("the child was a run of its own:", await child.output() == "structure holds")


if __name__ == "__main__":
    trio.run(main)
