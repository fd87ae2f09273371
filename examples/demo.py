"""The main job, start to end: a server, an engine, a worker, and a run of a real workflow.

A report is written: three sources are fetched (one of them fails at first and is retried), each
page is summarised by an instance of a map step, an agent loop edits the draft until it is content,
an editor approves it by a signal, and it is published.

Run it:  python examples/demo.py
"""

import json

import trio
from here import engine
from pydantic import BaseModel

from trio_dagnats import Client, Continue, Retry, Run, TaskContext, Worker, Workflow

SOURCES = ["trio.readthedocs.io", "docs.nats.io", "dagnats"]


class Page(BaseModel):
    """A page that was fetched."""

    source: str
    words: int


class Draft(BaseModel):
    """A report while it is edited."""

    text: str
    score: int = 0


def make_worker(url: str) -> Worker:
    """Make the worker with all handlers."""
    worker = Worker(url)

    @worker.handle_typed("fetch")
    async def fetch(ctx: TaskContext, sources: list[str]) -> list[Page]:
        if ctx.attempt == 1:
            raise ConnectionError("the network is not up yet")
        await trio.sleep(0.1)
        return [Page(source=source, words=100 * len(source)) for source in sources]

    @worker.handle_typed("summarise")
    async def summarise(ctx: TaskContext, page: Page) -> str:
        await trio.sleep(0.1)
        return f"{page.source} in {page.words // 100} words"

    @worker.handle_typed("draft")
    async def draft(ctx: TaskContext, summaries: list[str]) -> Draft:
        return Draft(text="; ".join(summaries))

    @worker.agent_loop("edit")
    async def edit(ctx: TaskContext, state: Draft) -> Continue[Draft] | Draft:
        await trio.sleep(0.1)
        better = state.model_copy(update={"score": state.score + 3})
        return better if better.score >= 9 else Continue(better)

    @worker.handle_typed("publish")
    async def publish(ctx: TaskContext, report: Draft) -> dict[str, str]:
        approval = json.loads(await ctx.wait_for_signal("approval", timeout=600))
        return {"report": report.text, "approved_by": approval["by"]}

    return worker


def make_workflow() -> Workflow:
    """Describe the workflow; durations are seconds."""
    workflow = Workflow("report", timeout=300)
    pages = workflow.step("fetch", retry=Retry(3, delay=0.2), timeout=30)
    summaries = workflow.map("summarise", over=pages, max_items=100)
    draft = workflow.step("draft", after=summaries)
    edited = workflow.agent_loop("edit", after=draft, max_iterations=10)
    workflow.step("publish", after=edited)
    return workflow


async def show(run: Run) -> None:
    """Print the run's events as they come, and approve the report when it is asked for."""
    begun = trio.current_time()
    async for event in run.events():
        said = json.loads(event.payload)["error"] if event.type == "step.failed" else ""
        at = trio.current_time() - begun
        print(f"{at:6.2f} s  {event.step_id or 'run':14} {event.type:20} {said}".rstrip())
        if (event.step_id, event.type) == ("publish", "step.started"):
            await run.signal("approval", {"by": "Ada"})


async def main() -> None:
    """Run it all."""
    print("starting nats-server, engine and worker ...")
    async with engine() as url, Client(url) as client, make_worker(url):
        await client.register(make_workflow())
        run = await client.start("report", SOURCES)
        await show(run)
        print(json.dumps(await run.output(timeout=60), indent=2))


if __name__ == "__main__":
    trio.run(main)
