"""What the programs of this folder share: streams and tasks, worker processes, figures.

A worker in a process of its own is ``python -m benchmarks.NAME --serve URL``; each line that it
prints is an event, a JSON object with the time of the clock that all processes of a machine share.
"""

import argparse
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NoReturn, Self

import trio

from trio_dagnats.local.engine import resources
from trio_dagnats.transport import open_broker
from trio_dagnats.transport.port import Broker, Record
from trio_dagnats.wire.events import HistoryEvent, parse_event
from trio_dagnats.wire.names import TASK_QUEUES, WORKFLOW_HISTORY, task_subject
from trio_dagnats.wire.text import compact

ROOT = Path(__file__).parent.parent
AT_ONCE = 512
OUTCOMES = frozenset({"step.completed", "step.failed", "step.continue"})
SOON = 60.0
"""Seconds within which a server on this machine answers, whatever else the machine does."""
LATE = 300.0
"""Seconds after which a worker will not tell any more what is waited for."""


async def prepare(broker: Broker, *buckets: str) -> None:
    """Make the streams that a worker needs, and these buckets of an engine."""
    deadline = trio.current_time() + SOON
    for spec in resources.STREAMS:
        if spec.name in {TASK_QUEUES, WORKFLOW_HISTORY}:
            await broker.ensure_stream(spec, deadline=deadline)
    for bucket in buckets:
        await broker.ensure_bucket(bucket, ttl_ns=resources.BUCKETS[bucket], deadline=deadline)


async def put_task(broker: Broker, task_type: str, run_id: str, given: object = 1) -> None:
    """Dispatch a task of a run of its own, as the engine does it."""
    body = {"task_id": f"{run_id}.s", "run_id": run_id, "step_id": "s", "input": given}
    deadline = trio.current_time() + SOON
    await broker.store(task_subject(task_type, run_id), compact(body), deadline=deadline)


async def preload(broker: Broker, task_type: str, run_ids: Iterable[str]) -> None:
    """Put a task of each run into the queue."""
    limit = trio.CapacityLimiter(AT_ONCE)

    async def put(run_id: str) -> None:
        async with limit:
            await put_task(broker, task_type, run_id)

    async with trio.open_nursery() as nursery:
        for run_id in run_ids:
            nursery.start_soon(put, run_id)


async def records(broker: Broker) -> list[Record]:
    """Read the history of all runs."""
    deadline = trio.current_time() + SOON
    return await broker.records(WORKFLOW_HISTORY, "history.>", deadline=deadline)


async def events(broker: Broker) -> list[HistoryEvent]:
    """Read the history of all runs, event by event."""
    return [parse_event(record.body) for record in await records(broker)]


async def count(broker: Broker) -> Counter[tuple[str, str]]:
    """Count the events of every run by their type."""
    return Counter((event.run_id, event.type) for event in await events(broker))


async def left_in_queue(broker: Broker) -> int:
    """Return how many task messages are not settled."""
    found = await broker.consumers(TASK_QUEUES, deadline=trio.current_time() + SOON)
    return sum(state.pending + state.ack_pending for state in found)


async def until_empty(url: str, seconds: float) -> int:
    """Wait until no task is left, at most for so long; return how many are left all the same."""
    async with open_broker(url) as broker:
        with trio.move_on_after(seconds):
            while await left_in_queue(broker):
                await trio.sleep(0.1)
        return await left_in_queue(broker)


async def living_tasks() -> int:
    """Count the trio tasks that stay: the least number within a while, for some come and go."""
    least = trio.lowlevel.current_statistics().tasks_living
    for _ in range(20):
        await trio.sleep(0.02)
        least = min(least, trio.lowlevel.current_statistics().tasks_living)
    return least


def memory_mib(pid: int | None = None) -> float:
    """Return the memory that a process has now, this one if none is named."""
    pages = int(Path(f"/proc/{pid or 'self'}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1024**2


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of the values does not exceed; NaN for none at all."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def tell(what: str, **more: object) -> None:
    """Say an event to the parent, in one write: it is told even if we are killed right after."""
    os.write(1, compact({"what": what, "at": time.monotonic(), "pid": os.getpid(), **more}) + b"\n")


@dataclass(frozen=True, slots=True)
class Said:
    """An event that a worker process has told."""

    what: str
    at: float
    pid: int
    more: dict[str, object] = field(default_factory=dict)

    @property
    def run(self) -> str:
        """The run that it is about, empty for none."""
        return str(self.more.get("run", ""))


@dataclass
class Child:
    """A worker in a process of its own.

    Attributes:
        process: the process.
        said: what it has told so far, first to last.
    """

    process: trio.Process
    said: list[Said]
    _lot: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)
    _over: bool = False

    async def listen(self) -> None:
        """Take what it tells, until it has ended."""
        rest = b""
        assert self.process.stdout is not None
        async for chunk in self.process.stdout:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                found = json.loads(line)
                said = Said(found.pop("what"), found.pop("at"), found.pop("pid"), found)
                self.said.append(said)
            self._lot.unpark_all()
        self._over = True
        self._lot.unpark_all()

    async def heard(self, right: Callable[[Said], bool], times: int = 1) -> Said:
        """Wait until it has told so many such events; return the last of them."""
        seen = 0
        with trio.fail_after(LATE):
            while True:
                for said in self.said[seen:]:
                    seen += 1
                    times -= right(said) and said.pid == self.process.pid
                    if not times:
                        return said
                if self._over:
                    raise AssertionError(f"the worker ended early: {self.process.returncode}")
                await self._lot.park()

    async def ready(self) -> Self:
        """Wait until it serves."""
        await self.heard(lambda said: said.what == "ready")
        return self

    async def gone(self) -> float:
        """Wait until it has ended; return the seconds that this took from here."""
        begun = time.monotonic()
        await self.process.wait()
        return time.monotonic() - begun

    def kill(self) -> None:
        """End it on the spot, as the kernel does: without a word."""
        self.process.send_signal(signal.SIGKILL)


@asynccontextmanager
async def child(module: str, *args: object, said: list[Said] | None = None) -> AsyncIterator[Child]:
    """Run ``python -m benchmarks.MODULE ARGS`` for the length of a block.

    Args:
        module: the program.
        args: its arguments.
        said: where to keep what it tells: several children may share one list.
    """
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, args)]
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=ROOT
    )
    found = Child(process, [] if said is None else said)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.listen)
        try:
            yield found
        finally:
            if process.returncode is None:
                found.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


async def employ(
    module: str,
    *args: object,
    said: list[Said] | None = None,
    task_status: trio.TaskStatus[Child] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a child until it ends by itself; started when it serves. For ``nursery.start``."""
    async with child(module, *args, said=said) as found:
        task_status.started(await found.ready())
        await found.process.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A result. ``bar`` is the most it may be; None for one that is only told."""

    what: str
    value: float
    unit: str = ""
    bar: float | None = None

    @property
    def holds(self) -> bool:
        """Whether it is within its bar."""
        return self.bar is None or self.value <= self.bar

    def __str__(self) -> str:
        number = f"{self.value:.0f}" if float(self.value).is_integer() else f"{self.value:.2f}"
        told = f"{self.what}: {number} {self.unit}".rstrip()
        if self.bar is None:
            return told
        return f"{told}, the bar is {self.bar:g}{'' if self.holds else ' -- MISSED'}"


@dataclass
class Report:
    """What a program has found."""

    figures: list[Figure] = field(default_factory=list)

    def fact(self, what: str, value: float, unit: str = "") -> None:
        """Add a figure without a bar."""
        self._add(Figure(what=what, value=value, unit=unit))

    def most(self, what: str, value: float, bar: float, unit: str = "") -> None:
        """Add a figure that must not be above its bar."""
        self._add(Figure(what=what, value=value, unit=unit, bar=bar))

    def times(self, what: str, seconds: Sequence[float], bar: float) -> None:
        """Add durations, in milliseconds: their median, p99 (which has the bar) and worst."""
        found = [value * 1000 for value in seconds]
        self.fact(f"{what}, median of {len(found)}", percentile(found, 0.5), "ms")
        self.most(f"{what}, p99", percentile(found, 0.99), bar, "ms")
        self.fact(f"{what}, worst", max(found, default=float("nan")), "ms")

    def _add(self, figure: Figure) -> None:
        self.figures.append(figure)

    @property
    def missed(self) -> list[str]:
        """The figures that are above their bars."""
        return [str(figure) for figure in self.figures if not figure.holds]

    def close(self, settings: argparse.Namespace) -> NoReturn:
        """Print everything and end the process: 1 if a bar was missed."""
        asked = {key: value for key, value in vars(settings).items() if value is not None}
        if asked.pop("json", False):
            found = [{**asdict(figure), "holds": figure.holds} for figure in self.figures]
            print(json.dumps({"asked": asked, "figures": found}))
        else:
            machine = f"Python {platform.python_version()}, {os.cpu_count()} cores"
            print(f"{' '.join(f'{key}={value}' for key, value in asked.items())}; {machine}")
            print("\n".join(map(str, self.figures)))
        sys.exit(bool(self.missed))


def arguments(text: str | None) -> argparse.ArgumentParser:
    """Return a parser with what all programs take."""
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--serve", metavar="URL", help=argparse.SUPPRESS)
    return parser


def outcomes(found: Iterable[HistoryEvent]) -> Counter[str]:
    """Count the outcomes of each run."""
    return Counter(event.run_id for event in found if event.type in OUTCOMES)
