"""Failure handler: a step that runs only when another one has failed for good.

Its input tells which step failed, and why. The failed step counts as ``recovered``, what depends on
it is skipped, and the run completes.

Run it:  python examples/on_failure.py
It prints::

    told the operator: import: the file is broken
    import recovered
    report skipped
    the run completed
"""

import json

import trio
from here import engine

from trio_dagnats import Client, Fatal, TaskContext, Worker, Workflow


async def import_file(ctx: TaskContext) -> None:
    """Fail, for good."""
    raise Fatal("the file is broken")


async def report(ctx: TaskContext) -> None:
    """Never run here."""


async def tell(ctx: TaskContext) -> None:
    """Tell somebody what failed."""
    failed = json.loads(ctx.input)
    print(f"told the operator: {failed['failed_step']}: {failed['error']}")


async def main() -> None:
    """Import a file that is broken."""
    async with engine() as url, Client(url) as client:
        worker = Worker(url)
        worker.handle("import", import_file)
        worker.handle("report", report)
        worker.handle("tell", tell)

        workflow = Workflow("import")
        imported = workflow.step("import", on_failure="tell")
        workflow.step("report", after=imported)
        workflow.step("tell")

        async with worker:
            await client.register(workflow)
            run = await client.start("import")
            ended = await run.wait(timeout=30)
            for step in ("import", "report"):
                print(step, ended.steps[step].status)
            print("the run", ended.status)


if __name__ == "__main__":
    trio.run(main)
