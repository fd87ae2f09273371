"""A handler that blocks the event loop beside healthy ones: who is named, and what runs twice.

One worker process runs 50 healthy handlers and one that calls `time.sleep`; a second worker process
serves the same task type. Played with the default lease and with a lease far shorter than the
block. Must hold: one stack in the log, with the guilty line, within 2 seconds; at the default lease
no task is delivered twice; at the short one, where the second worker takes over, no step has two
outcomes and every run completes.

Run it:  python -m benchmarks.blocked
"""

import argparse
import logging
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass

import trio

from trio_dagnats import Client, Run, TaskContext, Worker, Workflow
from trio_dagnats.local import LocalEngine, Server
from trio_dagnats.wire.events import EventType

DEFAULT_LEASE = 300.0
SHORT_LEASE = 6.0
NAMED_WITHIN = 2.0
GUILTY = "time.sleep(seconds)"
PATIENCE = 180.0


async def serve(url: str, seconds: float, ack_wait: float) -> None:
    """Serve until the parent ends, which holds our standard input."""
    worker = Worker(url)

    @worker.handle("work", ack_wait=ack_wait)
    async def work(ctx: TaskContext) -> int:
        if ctx.input == b'"guilty"' and ctx.deliveries == 1:
            await trio.sleep(1)  # the healthy ones are under way
            print(f"blocks {time.time()}", file=sys.stderr, flush=True)
            time.sleep(seconds)  # noqa: ASYNC251 - what this is about
        else:
            await trio.sleep(5)
        return ctx.deliveries

    async with worker:
        await trio.to_thread.run_sync(sys.stdin.read)


@dataclass
class Report:
    """What one play did."""

    stacks: int
    named_after: float
    names_the_line: bool
    delivered_twice: int
    completed_twice: int
    completed: int

    def mistakes(self, runs: int, *, takes_over: bool) -> list[str]:
        """Say what is not as it must be."""
        right = {
            f"{self.stacks} stacks in the log": self.stacks == 1,
            f"named after {self.named_after:.1f} s": 0 < self.named_after < NAMED_WITHIN,
            "the stack does not hold the guilty line": self.names_the_line,
            f"{self.completed_twice} steps completed twice": not self.completed_twice,
            f"{self.completed} of {runs} runs completed": self.completed == runs,
            f"{self.delivered_twice} tasks delivered twice": takes_over
            == bool(self.delivered_twice),
        }
        return [mistake for mistake, holds in right.items() if not holds]


async def play(url: str, healthy: int, seconds: float, ack_wait: float) -> Report:
    """Run the healthy tasks and the blocking one on the first of two workers."""
    options = [str(seconds), str(ack_wait)]
    with tempfile.NamedTemporaryFile("w+b", suffix=".log") as log:
        async with LocalEngine(url), Client(url) as client:
            workflow = Workflow("work")
            workflow.step("work")
            await client.register(workflow)
            async with trio.open_nursery() as nursery:
                command = [sys.executable, __file__, "--serve", url, *options]
                await nursery.start(hold, command, log.fileno())
                await serving(client, 1)
                runs = [await client.start("work", "fine") for _ in range(healthy)]
                runs.append(await client.start("work", "guilty"))
                await begun(runs)
                await nursery.start(hold, command, subprocess.DEVNULL)
                with trio.fail_after(PATIENCE):
                    ends = [await run.wait() for run in runs]
                    await log_ends(trio.Path(log.name))
                nursery.cancel_scope.cancel()
            events = [event for run in runs for event in await run.history()]
        counts = Counter((event.run_id, event.type) for event in events)
        told = await trio.Path(log.name).read_text()
    return Report(
        stacks=told.count("blocks the event loop"),
        named_after=named_after(told),
        names_the_line=GUILTY in told,
        delivered_twice=sum(counts[run.id, EventType.STEP_STARTED] > 1 for run in runs),
        completed_twice=sum(counts[run.id, EventType.STEP_COMPLETED] > 1 for run in runs),
        completed=sum(end.status.value == "completed" for end in ends),
    )


async def hold(
    command: list[str], err: int, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Hold a worker process until cancelled."""
    process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stderr=err)
    try:
        task_status.started()
        await trio.sleep_forever()
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def serving(client: Client, count: int) -> None:
    """Wait until so many workers are in the directory."""
    with trio.fail_after(PATIENCE):
        while len(await client.workers()) < count:
            await trio.sleep(0.05)


async def begun(runs: list[Run]) -> None:
    """Wait until the first worker has them all."""
    with trio.fail_after(PATIENCE):
        for run in runs:
            async for event in run.events():
                if event.type == EventType.STEP_STARTED:
                    break


async def log_ends(log: trio.Path) -> None:
    """Wait until the blocked worker has told that it runs again."""
    while "runs again" not in await log.read_text():
        await trio.sleep(0.1)


def named_after(told: str) -> float:
    """Return the seconds from the begin of the block to the stack in the log."""
    begin = stack = 0.0
    for line in told.splitlines():
        if line.startswith("blocks "):
            begin = float(line.split()[1])
        elif "blocks the event loop" in line:
            stack = float(line.split()[0])
    return stack - begin


def main() -> None:
    """Play both leases; fail if anything is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--healthy", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    found = parser.parse_args()
    if found.serve:
        logging.basicConfig(format="%(created)f %(levelname)s %(message)s", level=logging.WARNING)
        url, seconds, ack_wait = found.serve
        trio.run(serve, url, float(seconds), float(ack_wait))
        return
    failed = False
    for lease in (DEFAULT_LEASE, SHORT_LEASE):
        with Server() as server:
            report = trio.run(play, server.url, found.healthy, found.seconds, lease)
        mistakes = report.mistakes(found.healthy + 1, takes_over=lease < found.seconds)
        print(
            f"lease {lease:g} s, blocked for {found.seconds:g} s beside {found.healthy} handlers: "
            f"{report.stacks} stack in the log after {report.named_after:.2f} s, "
            f"{report.delivered_twice} tasks delivered twice, {report.completed_twice} completed "
            f"twice, {report.completed} runs completed",
            flush=True,
        )
        for mistake in mistakes:
            print(f"  WRONG: {mistake}", flush=True)
        failed = failed or bool(mistakes)
    sys.exit(failed)


if __name__ == "__main__":
    main()
