"""The live tree of a busy worker: how soon it answers, and whether it names the guilty line.

A worker process runs 1000 handlers, each with two child tasks; one of them, and only one, hangs on
a line of its own. The parent asks over NATS, as `trio-dagnats ps` does: discovery, the answer in
parts, and reading it. The worker's own part is what its STATS say. Every answer is checked: each
attempt once, three tasks each, the guilty line named with its run. The parent runs the engine, too;
what that holds in memory is hidden from the garbage collector, as it is not there in a real `ps`.

Run it:  python -m benchmarks.ps
"""

import gc
import json
import subprocess
import sys
import time

import trio

from benchmarks.common import ROOT, Report, arguments
from trio_dagnats import Client, TaskContext, Worker, Workflow
from trio_dagnats.client import AttemptTree, TaskTree
from trio_dagnats.local import LocalEngine, Server
from trio_dagnats.transport import open_broker
from trio_dagnats.wire import micro

BAR_MS = 50.0
GUILTY = "await trio.Event().wait()  # nobody will ever set it"
PATIENCE = 120.0


async def hang() -> None:
    """Stand on the line that has to be found."""
    await trio.Event().wait()  # nobody will ever set it


async def serve(url: str, handlers: int) -> None:
    """Serve until the parent ends, which holds our standard input."""
    worker = Worker(url, concurrency=handlers, grace=0)

    async def tool() -> None:
        await trio.sleep(3600)

    @worker.handle("busy")
    async def busy(ctx: TaskContext) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tool)
            nursery.start_soon(hang if ctx.input == b'"guilty"' else trio.sleep_forever)
            await trio.sleep_forever()

    async with worker:
        await trio.to_thread.run_sync(sys.stdin.read)


def tasks(tree: TaskTree) -> int:
    """Count the tasks of a tree."""
    return tree.alike * (1 + sum(map(tasks, tree.children)))


def texts(tree: TaskTree) -> list[str]:
    """List the lines on which the tasks of a tree stand."""
    own = [tree.place.text] if tree.place else []
    return own + [text for child in tree.children for text in texts(child)]


def check(found: list[AttemptTree], handlers: int, guilty: str) -> None:
    """Fail unless the answer is whole and names the guilty line."""
    assert len({a.run_id for a in found}) == len(found) == handlers, f"{len(found)} attempts"
    trees = {a.run_id: a.tasks for a in found if a.tasks is not None}
    assert all(tasks(tree) == 3 for tree in trees.values()), "a task is not told"
    assert [run for run, tree in trees.items() if GUILTY in texts(tree)] == [guilty]


async def look(client: Client) -> list[AttemptTree]:
    """Ask the one worker."""
    (worker,) = await client.attempts(timeout=PATIENCE)
    assert worker.attempts is not None, "the worker did not answer"
    return list(worker.attempts)


async def measure(url: str, handlers: int, rounds: int) -> tuple[list[float], float]:
    """Serve, start the runs, ask; return the seconds of each answer, and the worker's own."""
    command = [sys.executable, "-m", "benchmarks.ps", "--serve", url]
    command += ["--handlers", str(handlers)]
    async with LocalEngine(url), Client(url) as client:
        workflow = Workflow("busy")
        workflow.step("busy")
        await client.register(workflow)
        runs = [await client.start("busy", "fine" if n else "guilty") for n in range(handlers)]
        process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, cwd=ROOT)
        try:
            await all_begun(client, handlers)
            gc.collect()
            gc.freeze()
            took = [await ask(client, handlers, runs[0].id) for _ in range(rounds)]
            return took, await own_part(url)
        finally:
            gc.unfreeze()
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


async def all_begun(client: Client, handlers: int) -> None:
    """Wait until every handler runs."""
    with trio.fail_after(PATIENCE):
        begun = 0
        while begun < handlers:
            await trio.sleep(0.1)
            workers = await client.attempts(timeout=PATIENCE)
            begun = sum(a.tasks is not None for w in workers for a in w.attempts or ())


async def ask(client: Client, handlers: int, guilty: str) -> float:
    """Ask once, check the answer, and return how many seconds it took."""
    begun = time.perf_counter()
    found = await look(client)
    took = time.perf_counter() - begun
    check(found, handlers, guilty)
    await trio.sleep(0.05)
    return took


async def own_part(url: str) -> float:
    """Return the seconds that the worker says an answer takes it, on the average."""
    async with open_broker(url) as broker:
        answer = await broker.request(micro.verb_subject(micro.Verb.STATS), b"", timeout=10)
    (endpoint,) = json.loads(answer.body)["endpoints"]
    return float(endpoint["average_processing_time"]) / 1e9


def main() -> None:
    """Ask, print, and fail below the bar."""
    parser = arguments(__doc__)
    parser.add_argument("--handlers", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=200)
    asked = parser.parse_args()
    if asked.serve:
        trio.run(serve, asked.serve, asked.handlers)
        return
    with Server() as server:
        took, own = trio.run(measure, server.url, asked.handlers, asked.rounds)
    report = Report()
    report.fact("answers that were whole and named the guilty line", len(took))
    report.fact("tasks told in each", 3 * asked.handlers)
    report.times("answer", took, BAR_MS)
    report.fact("the worker's own part of it, mean", own * 1000, "ms")
    report.close(asked)


if __name__ == "__main__":
    main()
