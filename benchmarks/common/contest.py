"""Sides that take turns: each round every side gets a server of its own and the same tasks.

The clock is the server's: from the first stored ``step.started`` to the last stored
``step.completed``, so that it is the same for every side and no start-up is in it. Afterwards the
histories are checked: each run started once, then completed once, and the queue empty.
"""

import json
import subprocess
import sys
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import trio

from benchmarks.common.children import ROOT
from benchmarks.common.figures import Sample
from benchmarks.common.streams import left_in_queue, preload, prepare, records
from benchmarks.sides.orders import example
from trio_dagnats.local import Server
from trio_dagnats.transport import open_broker
from trio_dagnats.wire.events import parse_event
from trio_dagnats.wire.names import (
    BUCKET_CHECKPOINTS,
    BUCKET_RUNS,
    BUCKET_SIGNALS,
    BUCKET_WORKERS,
)

SIDES = {
    "ours": ("ours",),
    "ours-public": ("ours", "public"),
    "ours-pipelined": ("ours", "pipelined"),
    "ours-spans": ("ours", "spans"),
    "asyncio": ("plain",),
    "uvloop": ("plain", "uvloop"),
    "trio-asyncio": ("naive",),
}
"""Each side's program and what more it is told."""
T = TypeVar("T")
SLOW = "trio-asyncio"
FEWEST = 20
ROUNDS_OF_SLOTS = 100
TASK_TYPE = "work"
BUCKETS = (BUCKET_CHECKPOINTS, BUCKET_SIGNALS, BUCKET_WORKERS)
RIGHT_ORDER = ("step.started", "step.completed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a side has to do.

    Attributes:
        tasks: how many tasks; 0 for a side that serves until it is killed.
        concurrency: how many it may have at once.
        work: ``noop``; ``sleep``, which awaits 10 ms; ``typed``, a model of 1 KiB in and out;
            ``hold``, which does not end; ``swallow``, which returns nothing. The others return
            their input.
        size: bytes of the input, 0 for a number or the model.
        types: over how many task types the tasks are spread.
        runs: whether the server has the bucket of the runs. With it, the status of each run is
            read whose task has waited for more than a second, which no other side does.
    """

    tasks: int
    concurrency: int = 256
    work: str = "noop"
    size: int = 0
    types: int = 1
    runs: bool = False

    @property
    def given(self) -> object:
        """The input of each task."""
        return example() if self.work == "typed" else "x" * self.size if self.size else 1

    @property
    def task_types(self) -> list[str]:
        """The task types."""
        return [f"{TASK_TYPE}{n}" for n in range(self.types)] if self.types > 1 else [TASK_TYPE]


def load_for(side: str, at_once: int, most: int, work: str = "noop") -> Load:
    """Return seconds of work for a side: few at once get fewer tasks, and so does the slowest."""
    tasks = min(most, max(most // FEWEST, at_once * ROUNDS_OF_SLOTS))
    return Load(tasks=tasks // 4 if side == SLOW else tasks, concurrency=at_once, work=work)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a side did: tasks per second, microseconds of CPU for each, memory, histories.

    ``peak`` are the bytes that the last task had at once, if that was asked for; ``spans_ms`` are
    the milliseconds from each stored start to the stored completion.
    """

    rate: float
    client_us: float
    server_us: float
    early_mib: float
    half_mib: float
    end_mib: float
    peak: int
    orders: Counter[tuple[str, ...]]
    spans_ms: Sequence[float]

    def __str__(self) -> str:
        return f"{self.rate:.0f} tasks/s, {self.client_us:.0f} + {self.server_us:.0f} us of CPU"


def command(side: str, server: Server, load: Load, task_type: str = TASK_TYPE) -> list[str]:
    """Return how a side is started."""
    program, *more = SIDES[side]
    numbers = map(str, (load.tasks, load.concurrency, server_pid(server)))
    start = [sys.executable, "-m", f"benchmarks.sides.{program}"]
    more += [f"types={load.types}"] if load.types > 1 else []
    return [*start, server.url, task_type, load.work, *numbers, *more]


async def fill(url: str, load: Load) -> None:
    """Make what a worker finds on an engine's server, and put the tasks into the queue."""
    async with open_broker(url) as broker:
        await prepare(broker, *BUCKETS, *([BUCKET_RUNS] if load.runs else []))
        for number, task_type in enumerate(load.task_types):
            run_ids = [f"r{n}" for n in range(number, load.tasks, load.types)]
            await preload(broker, task_type, run_ids, load.given)


@dataclass(frozen=True, slots=True)
class Stored:
    """What the histories say: how many runs went through which events, when each was stored."""

    orders: Counter[tuple[str, ...]]
    times_ns: dict[str, list[int]]
    left: int

    def check(self, tasks: int) -> None:
        """Fail unless each run was started once, then completed once, and the queue is empty."""
        assert self.orders == {RIGHT_ORDER: tasks}, f"{self.orders} of {tasks} tasks"
        assert not self.left, f"{self.left} tasks are left in the queue"

    @property
    def rate(self) -> float:
        """Tasks per second, from the first event to the last one."""
        first = min(times[0] for times in self.times_ns.values())
        last = max(times[-1] for times in self.times_ns.values())
        return len(self.times_ns) / (last - first) * 1e9


async def read_histories(url: str) -> Stored:
    """Read what was stored."""
    kinds: dict[str, tuple[str, ...]] = defaultdict(tuple)
    times: dict[str, list[int]] = defaultdict(list)
    async with open_broker(url) as broker:
        for record in await records(broker):
            event = parse_event(record.body)
            kinds[event.run_id] += (event.type,)
            times[event.run_id].append(record.time_ns)
        return Stored(Counter(kinds.values()), times, await left_in_queue(broker))


def measure(side: str, load: Load, *more: str) -> Measured:
    """Let a side do it once, on a server of its own; ``more`` is what else it is told."""
    with Server() as server:
        trio.run(fill, server.url, load)
        run = [*command(side, server, load), *more]
        done = subprocess.run(run, capture_output=True, text=True, check=False, cwd=ROOT)
        if done.returncode:
            sys.exit(f"{side} failed:\n{done.stderr}")
        stored = trio.run(read_histories, server.url)
    stored.check(load.tasks)
    found = Measured(
        **json.loads(done.stdout.splitlines()[-1]),
        rate=stored.rate,
        orders=stored.orders,
        spans_ms=array("d", [(end - begin) / 1e6 for begin, end in stored.times_ns.values()]),
    )
    note(f"{side:12} {load}: {found}")
    return found


@contextmanager
def serving(side: str, server: Server, load: Load, task_type: str = TASK_TYPE) -> Iterator[int]:
    """Let a side serve for the length of a block; gives its process once it serves."""
    run = command(side, server, load, task_type)
    with subprocess.Popen(run, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n", f"{side} does not serve"
            yield process.pid
        finally:
            process.kill()


def server_pid(server: Server) -> int:
    """Return the process of a server."""
    found = server._server_pid()  # noqa: SLF001 - nobody else needs to know
    assert found is not None
    return found


def by_turns(sides: Sequence[str], rounds: int, run: Callable[[str], T]) -> dict[str, list[T]]:
    """Let each side run in each round; who begins changes from round to round."""
    found: dict[str, list[T]] = {side: [] for side in sides}
    for number in range(rounds):
        first = number % len(sides)
        for side in (*sides[first:], *sides[:first]):
            found[side].append(run(side))
    return found


def sample(values: Iterable[float]) -> Sample:
    """Return the values of all rounds as one figure."""
    return Sample(tuple(values))


def note(text: str) -> None:
    """Say how far it is, beside the results."""
    print(text, file=sys.stderr, flush=True)
