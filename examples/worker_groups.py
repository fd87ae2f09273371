"""Worker groups: several workers serve one task type, and steps say which of them may run them.

A worker with ``group="gpu"`` gets only steps of that group. Two workers of one group share its
steps: whoever has a free slot takes the next one. (Serve a task type with groups or without, not
both: the queue on the server refuses filters that overlap.)

Run it:  python examples/worker_groups.py
It prints::

    train ran on gpu
    report ran on cpu
    four more on gpu, by both workers: True
"""

from functools import partial

import trio
from here import engine

from trio_dagnats import Client, TaskContext, Worker, Workflow


def make_worker(url: str, name: str, group: str) -> Worker:
    """Make a worker of a group; it runs one task at a time."""
    worker = Worker(url, worker_id=name, concurrency=1)

    @worker.handle("compute", group=group)
    async def compute(ctx: TaskContext) -> str:
        await trio.sleep(0.3)
        return name

    return worker


def make_workflow(name: str, steps: dict[str, str]) -> Workflow:
    """Make a workflow of steps that run at once, each in its group."""
    workflow = Workflow(name)
    for step, group in steps.items():
        workflow.step(step, "compute", group=group)
    return workflow


async def main() -> None:
    """Serve two groups with three workers."""
    async with engine() as url, Client(url) as client, trio.open_nursery() as nursery:
        for name, group in (("cpu-1", "cpu"), ("gpu-1", "gpu"), ("gpu-2", "gpu")):
            worker = make_worker(url, name, group)
            await nursery.start(partial(worker.start, handle_signals=False))

        steps = {"train": "gpu", "report": "cpu"}
        await client.register(make_workflow("study", steps))
        run = await client.start("study")
        ended = await run.wait(timeout=30)
        for step in steps:
            print(step, "ran on", str(ended.steps[step].value()).partition("-")[0])

        await client.register(make_workflow("four", dict.fromkeys("abcd", "gpu")))
        run = await client.start("four")
        ended = await run.wait(timeout=30)
        took = {step.value() for step in ended.steps.values()}
        print("four more on gpu, by both workers:", took == {"gpu-1", "gpu-2"})
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
