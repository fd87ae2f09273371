"""The code of a documentation page: which blocks there are, and what comments say about them.

Comments (they are not shown) stand before the block that they are about, or after it::

    <!-- not run: REASON -->             before a block that cannot run
    <!-- served -->                      before a block that needs the page's worker running
    <!-- gives: TASK INPUT => OUTPUT --> after a block: a task of that type has this output, or
                                         fails with this text; both are JSON
"""

import ast
import builtins
import json
import re
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from inspect import CO_COROUTINE
from pathlib import Path
from types import FunctionType

import trio

from trio_dagnats import Worker
from trio_dagnats.testing import Harness

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
_PARTS = re.compile(
    r"<!-- (?P<note>.*?) -->|^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)
_GIVES = re.compile(r"gives: (?P<task>\S+) (?P<given>.*?) => (?P<output>.*)", re.DOTALL)
PATIENCE = 86_400.0
"""Virtual seconds: pages show long pauses."""
URL = '"nats://localhost:4222"'


@dataclass(frozen=True)
class Block:
    """A code block, or a comment (its language is empty)."""

    language: str
    text: str
    line: int
    note: str = ""
    """The comment before it."""


def parts(page: Path) -> Iterator[Block]:
    """Yield a page's code blocks and comments, in order."""
    text, note = page.read_text(), ""
    for found in _PARTS.finditer(text):
        line = text.count("\n", 0, found.start("code")) if found["language"] else 0
        yield Block(found["language"] or "", found["code"] or found["note"], line, note)
        note = found["note"] or ""


class Played:
    """A page whose Python blocks run one after the other, on an in-memory server."""

    def __init__(self, page: Path, harness: Harness) -> None:
        self.page = page
        self.harness = harness
        self.names: dict[str, object] = {"__name__": "docs", "__builtins__": builtins}
        self.names["broker"] = harness.broker
        self.names["serve"] = self._serve

    async def play(self) -> None:
        """Run every block, and check what comments say that it gives."""
        for block in parts(self.page):
            if block.language == "python" and not block.note.startswith("not run: "):
                await self._run(block)
            elif gives := _GIVES.fullmatch(block.text):
                await self._check(gives["task"], gives["given"], gives["output"])

    async def _run(self, block: Block) -> None:
        """Run a block; its ``await`` stands at the top level, as in the trio REPL."""
        text = block.text.replace(URL, "broker").replace(
            "trio.run(worker.start)", "await serve(worker)"
        )
        padded = "\n" * block.line + text
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        code = compile(padded, str(self.page), "exec", flags=flags, dont_inherit=True)
        async with AsyncExitStack() as stack:
            if block.note == "served":
                await stack.enter_async_context(self._worker())
            ran = FunctionType(code, self.names)()
            if code.co_flags & CO_COROUTINE:
                await ran

    async def _check(self, task: str, given: str, output: str) -> None:
        async with self._worker():
            outcome = await self.harness.run(task, json.loads(given), timeout=PATIENCE)
        found = outcome.error if outcome.kind == "failed" else outcome.output
        assert found == json.loads(output), f"{self.page.name}: {task} {given} gives {found!r}"

    async def _serve(self, worker: Worker) -> None:
        """Start a worker as ``trio.run(worker.start)`` does, until it is ready."""
        async with trio.open_nursery() as nursery:
            await nursery.start(_start, worker)
            nursery.cancel_scope.cancel()

    def _worker(self) -> Worker:
        found = self.names["worker"]
        assert isinstance(found, Worker)
        found.move_to(self.harness.broker)
        return found


async def _start(worker: Worker, task_status: trio.TaskStatus[None]) -> None:
    await worker.start(handle_signals=False, task_status=task_status)
