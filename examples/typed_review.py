"""Typed review: pydantic models in and out, and what bad input becomes.

The types come from the annotations alone. Input that does not fit never reaches the handler: the
step fails for good, with a text that names the field.

Run it:  python examples/typed_review.py
It prints::

    {'title': 'On Trio', 'verdict': 'too long'}
    refused: True
"""

import trio
from here import engine
from pydantic import BaseModel, Field

from trio_dagnats import Client, TaskContext, Worker, Workflow
from trio_dagnats.errors import RunFailed


class ReviewRequest(BaseModel):
    """What the step gets."""

    title: str
    words: int = Field(gt=0)


class Review(BaseModel):
    """What the step gives."""

    title: str
    verdict: str


async def review(ctx: TaskContext, request: ReviewRequest) -> Review:
    """Judge a text by its length."""
    verdict = "too long" if request.words > 1000 else "fine"
    return Review(title=request.title, verdict=verdict)


async def main() -> None:
    """Review one text, and one that is none."""
    async with engine() as url, Client(url) as client:
        worker = Worker(url)
        worker.handle_typed("review", review)

        workflow = Workflow("review")
        workflow.step("review")

        async with worker:
            await client.register(workflow)
            run = await client.start("review", ReviewRequest(title="On Trio", words=1200))
            print(await run.output(timeout=30))

            run = await client.start("review", {"title": "Nothing", "words": 0})
            try:
                await run.output(timeout=30)
            except RunFailed as failed:
                print("refused:", "words" in str(failed))


if __name__ == "__main__":
    trio.run(main)
