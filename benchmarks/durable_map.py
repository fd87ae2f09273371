"""A durable map under kill -9: what runs again, and how much is written.

A worker process maps many items in one handler. For each size it is served undisturbed, and then
by a worker that is killed with SIGKILL when a random number of items is finished, and started
again. Each item's run is a line in a file; each write to the checkpoints bucket is heard.

Items that run again must be at most the map's limit, and the writes exactly one for each item, of
the same size whatever the number of items.

Run it:  python -m benchmarks.durable_map
"""

import argparse
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from trio_dagnats import Client, TaskContext, Worker, Workflow
from trio_dagnats.local import LocalEngine, Server
from trio_dagnats.transport import open_broker
from trio_dagnats.transport.port import Message
from trio_dagnats.wire.names import BUCKET_CHECKPOINTS, kv_subject

ACK_WAIT = 2.0
PATIENCE = 300.0


async def serve(url: str, items: int, limit: int, record: int) -> None:
    """Serve one map until the parent ends, which holds our standard input."""
    worker = Worker(url)

    async def item(number: int) -> int:
        os.write(record, b"%d\n" % number)
        await trio.sleep(0.001 * (number % 7))
        return number * number

    @worker.handle("map", ack_wait=ACK_WAIT)
    async def handler(ctx: TaskContext) -> int:
        return sum(await ctx.map(item, range(items), limit=limit))

    async with worker:
        print("ready", flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)


@dataclass
class Report:
    """What one map did."""

    output: object
    runs: list[int]
    writes: int
    written_bytes: int
    left_behind: int
    kills: int
    seconds: float

    def mistakes(self, items: int, limit: int) -> list[str]:
        """Say what is not as it must be."""
        again = len(self.runs) - len(set(self.runs))
        right = {
            f"the output is {self.output!r}": self.output == sum(n * n for n in range(items)),
            "items did not run": set(self.runs) == set(range(items)),
            f"{again} items ran again": again <= limit * self.kills,
            f"{self.writes} writes": self.writes == items,
            f"{self.left_behind} entries are left behind": not self.left_behind,
        }
        return [mistake for mistake, holds in right.items() if not holds]


class Entries:
    """The entries that are written, as they are sent."""

    def __init__(self) -> None:
        self.count = self.bytes = 0
        self._lot = trio.lowlevel.ParkingLot()

    def hear(self, message: Message | None) -> None:
        """Take a write; notes have another key."""
        assert message is not None, "the listener has lost its connection: count again"
        if "=map." in message.subject:
            self.count += 1
            self.bytes += len(message.body)
            self._lot.unpark_all()

    async def reach(self, count: int) -> None:
        """Wait until so many were written."""
        while self.count < count:
            await self._lot.park()


async def keep_serving(
    command: list[str], entries: Entries, kill_at: list[int], task_status: trio.TaskStatus[None]
) -> None:
    """Serve, and kill the worker each time that so many entries are written, until cancelled."""
    for number, count in enumerate([*kill_at, sys.maxsize]):
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            assert process.stdout is not None
            assert await process.stdout.receive_some(), "the worker ended before it served"
            if not number:
                task_status.started()
            await entries.reach(count)
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


async def play(url: str, items: int, limit: int, kill_at: list[int]) -> Report:
    """Map so many items; kill the worker at these numbers of finished ones."""
    entries, workflow = Entries(), Workflow("map")
    workflow.step("map")
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "runs"
        record.touch()
        command = [sys.executable, __file__, "--serve", url, "--items", str(items)]
        command += ["--limit", str(limit), "--record", str(record)]
        async with (
            open_broker(url) as broker,
            LocalEngine(url),
            Client(url) as client,
            broker.listen(kv_subject(BUCKET_CHECKPOINTS, ">"), entries.hear),
        ):
            await client.register(workflow)
            async with trio.open_nursery() as nursery:
                await nursery.start(partial(keep_serving, command, entries, kill_at))
                begun = time.perf_counter()
                run = await client.start("map")
                output = await run.output(timeout=PATIENCE)
                seconds = time.perf_counter() - begun
                await run.wait()
                left = await left_behind(url)
                nursery.cancel_scope.cancel()
        runs = [int(line) for line in record.read_text().split()]
    return Report(output, runs, entries.count, entries.bytes, left, len(kill_at), seconds)


async def left_behind(url: str) -> int:
    """Count the entries that are there after the outcome; clearing them is nobody's wait."""
    left = 0
    async with open_broker(url) as broker:
        for _ in range(50):
            soon = trio.current_time() + 10
            found = await broker.kv_entries(BUCKET_CHECKPOINTS, deadline=soon)
            left = sum("=map." in entry.key for entry in found)
            if not left:
                break
            await trio.sleep(0.1)
    return left


def main() -> None:
    """Map several sizes, undisturbed and killed; fail if anything is not exact."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[250, 500, 1000, 2000])
    parser.add_argument("--items", type=int, default=1000, help="the size that is killed")
    parser.add_argument("--rounds", type=int, default=10, help="how often it is killed")
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--serve", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--record", help=argparse.SUPPRESS)
    found = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    if found.serve:
        record = os.open(found.record, os.O_WRONLY | os.O_APPEND)
        trio.run(serve, found.serve, found.items, found.limit, record)
        return
    rng = random.Random(found.seed)
    plans: list[tuple[int, list[int]]] = [(size, []) for size in found.sizes]
    plans += [(found.items, [rng.randrange(1, found.items)]) for _ in range(found.rounds)]
    print(f"seed {found.seed}, limit {found.limit}, ack_wait {ACK_WAIT:g} s")
    mistakes: list[str] = []
    worst = 0
    for items, kill_at in plans:
        with Server() as server:
            report = trio.run(play, server.url, items, found.limit, kill_at)
        again = len(report.runs) - items
        worst = max(worst, again)
        mistakes += report.mistakes(items, found.limit)
        killed = f"killed at {kill_at[0]:4}" if kill_at else "undisturbed   "
        print(
            f"{items:5} items {killed}: {again:3} ran again, {report.writes} writes, "
            f"{report.written_bytes / items:.1f} bytes an item, {report.seconds:.2f} s",
            flush=True,
        )
    print(
        f"{found.rounds} kills: at most {worst} items ran again, the limit is {found.limit}; "
        f"{'; '.join(mistakes) or 'one write an item, every output exact, nothing left behind'}"
    )
    sys.exit(bool(mistakes))


if __name__ == "__main__":
    main()
