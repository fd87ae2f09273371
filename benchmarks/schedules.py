"""Random schedules of a worker's life on the in-memory server, each from a seed, in virtual time.

A schedule has a few tasks whose handlers end in all the ways there are, two workers, and a storm:
connections that are lost, acknowledgements that get lost, drains, crashes and cancelled runs. Then
the storm is over, and what must hold is checked: at most one outcome stored per attempt, no ACK
before its event, every task settled, no more attempts at once than slots, nothing left behind.

A seed that fails prints what happened, and the command that plays it again.

Run it:  python -m benchmarks.schedules
One:     python -m benchmarks.schedules --seed 17 --count 1
"""

import json
import logging
import time
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

import trio
import trio.testing

from benchmarks.common import OUTCOMES, Report, arguments
from trio_dagnats import Fatal, RateLimited, Retryable, TaskContext, Worker
from trio_dagnats.errors import DagnatsError
from trio_dagnats.local.engine import resources
from trio_dagnats.testing import MemoryBroker, MemoryServer
from trio_dagnats.transport.memory.consumers import Answer
from trio_dagnats.wire import events
from trio_dagnats.wire.names import TASK_QUEUES, WORKFLOW_HISTORY
from trio_dagnats.wire.text import compact

STORM = 90.0
"""Virtual seconds during which things go wrong."""
CALM = 7200.0
"""Virtual seconds within which every task has to be settled after the storm."""
SLOTS = 3
A_MINUTE = 1000
"""Schedules that have to be played in a minute."""


class Broken(AssertionError):  # noqa: N818 - named for what happened
    """An invariant does not hold."""


async def returns(_ctx: TaskContext, _random: Random) -> int:
    """Return a value."""
    return 1


async def completes(ctx: TaskContext, random: Random) -> None:
    """Complete by a call, and linger."""
    await ctx.complete(2)
    await trio.sleep(random.choice((0, 0.01, 3)))


async def completes_beside_a_child(ctx: TaskContext, _random: Random) -> None:
    """Complete in a child task beside another one."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 1)
        nursery.start_soon(ctx.complete, 3)


async def fails(_ctx: TaskContext, _random: Random) -> None:
    """Raise what nobody expects."""
    raise ValueError("no")


async def fails_by_a_call(ctx: TaskContext, _random: Random) -> None:
    """Fail by a call."""
    await ctx.fail("no")


async def is_fatal(_ctx: TaskContext, _random: Random) -> None:
    """Raise a group that holds a fatal error."""
    raise ExceptionGroup("both", [ValueError("no"), Fatal("never")])


async def is_limited(_ctx: TaskContext, _random: Random) -> None:
    """Raise a rate limit."""
    raise RateLimited("slower", 2)


async def retries(_ctx: TaskContext, random: Random) -> int:
    """Ask for a redelivery in place, most of the time."""
    if random.random() < 0.7:
        raise Retryable("again", delay=random.choice((0, 0.5, 20)))
    return 4


async def continues(ctx: TaskContext, _random: Random) -> None:
    """Continue, as a loop does."""
    await ctx.continue_()


async def pauses(ctx: TaskContext, random: Random) -> int:
    """Pause, or hand a pause back."""
    await ctx.pause(random.choice((0.2, 5, 60)), {"at": 1}, hand_back=random.random() < 0.3)
    return 5


async def checkpoints(ctx: TaskContext, _random: Random) -> int:
    """Write a checkpoint."""
    await ctx.checkpoint({"n": 1})
    return 6


async def swallows(_ctx: TaskContext, random: Random) -> int:
    """Swallow the cancellation."""
    with suppress(trio.Cancelled):
        await trio.sleep(random.choice((0.1, 30)))
    return 7


async def times_out(_ctx: TaskContext, _random: Random) -> None:
    """Run into a timeout of its own."""
    with trio.fail_after(0.5):
        await trio.sleep_forever()


ENDINGS = (
    returns,
    completes,
    completes_beside_a_child,
    fails,
    fails_by_a_call,
    is_fatal,
    is_limited,
    retries,
    continues,
    pauses,
    checkpoints,
    swallows,
    times_out,
)


@dataclass
class Site:
    """One worker's place: its process ends and comes again, its connection comes and goes."""

    number: int
    broker: MemoryBroker | None = None
    worker: Worker | None = None
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    most: int = 0
    over: bool = True

    def stop(self) -> None:
        """Drain the worker; one that has not begun yet is called off."""
        if self.worker is not None and self.worker._running:  # noqa: SLF001 - has it begun?
            self.worker.stop()
        else:
            self.scope.cancel()


class Answers(deque[Answer]):
    """Checks each answer when the server gets it: no ACK before its event is stored."""

    def __init__(self, schedule: "Schedule") -> None:
        super().__init__()
        self._schedule = schedule

    def append(self, answer: Answer) -> None:
        """Take an answer."""
        super().append(answer)
        if answer.body == "+ACK":
            self._schedule.check_ack(answer.sequence)


class Schedule:
    """One seed's schedule; ``await run()`` raises :class:`Broken` when something does not hold."""

    def __init__(self, seed: int, log: list[str]) -> None:
        self.random = Random(seed)
        self.log = log
        self.server = MemoryServer()
        self.server.answers = Answers(self)
        self.ack_wait = self.random.choice((6.0, 30.0, 300.0))
        self.tasks: dict[int, str] = {}
        self.cancelled: set[str] = set()
        self.sites = [Site(0), Site(1)]

    async def run(self) -> None:
        """Live through the storm, and check what is left of it."""
        async with self.server:
            self.admin = MemoryBroker(self.server)
            await resources.ensure(self.admin, trio.current_time() + 10)
            await self._put_tasks()
            async with trio.open_nursery() as nursery:
                for site in self.sites:
                    self._start(nursery, site)
                await self._storm(nursery)
                await self._calm(nursery)
                for site in self.sites:
                    site.stop()
            self._check_end()

    async def _put_tasks(self) -> None:
        for number in range(self.random.randint(1, 6)):
            run_id = f"r{number}"
            ending = self.random.randrange(len(ENDINGS))
            body = {"task_id": f"{run_id}.s", "run_id": run_id, "step_id": "s", "input": ending}
            stored = await self.admin.store(
                f"task.t.{run_id}", compact(body), deadline=trio.current_time() + 10
            )
            self.tasks[stored.sequence] = run_id
            self.log.append(f"{run_id} {ENDINGS[ending].__name__}")

    def _start(self, nursery: trio.Nursery, site: Site) -> None:
        site.broker = MemoryBroker(self.server)
        site.scope, site.over = trio.CancelScope(), False
        site.worker = self._worker(site, site.broker)
        nursery.start_soon(self._serve, site, site.worker, site.scope)

    def _worker(self, site: Site, broker: MemoryBroker) -> Worker:
        grace, pipelined = self.random.choice((0.0, 1.0, 10.0)), self.random.random() < 0.3
        worker = Worker(broker, concurrency=SLOTS, grace=grace, pipeline_started=pipelined)
        generation = {"running": 0}

        @worker.handle("t", ack_wait=self.ack_wait)
        async def handler(ctx: TaskContext) -> object:
            generation["running"] += 1
            site.most = max(site.most, generation["running"])
            ending = ENDINGS[json.loads(ctx.input)]
            paused = ending is pauses
            generation["running"] -= paused
            try:
                await trio.sleep(self.random.choice((0, 0, 0.03, 0.2, 4, 40)))
                return await ending(ctx, self.random)
            finally:
                generation["running"] -= not paused

        return worker

    async def _serve(self, site: Site, worker: Worker, scope: trio.CancelScope) -> None:
        with scope, suppress(DagnatsError):  # its connection was cut while it started
            await worker.start(handle_signals=False)
        site.over = site.over or worker is site.worker
        service = worker._service  # noqa: SLF001 - what is left in it
        if service is not None and service.live:
            raise Broken(f"worker {site.number} left {service.live} behind")

    async def _storm(self, nursery: trio.Nursery) -> None:
        until = trio.current_time() + STORM
        while trio.current_time() < until:
            await trio.sleep(self.random.expovariate(0.25))
            site = self.random.choice(self.sites)
            act = self.random.choice((self._cut, self._lose, self._drain, self._crash, self._end))
            self.log.append(f"{trio.current_time():.3f} {act.__name__} {site.number}")
            await act(nursery, site)

    async def _cut(self, nursery: trio.Nursery, site: Site) -> None:
        async def mend(broker: MemoryBroker, after: float) -> None:
            await trio.sleep(after)
            broker.reconnect()

        if site.broker is not None and site.broker.connected:
            site.broker.disconnect()
            nursery.start_soon(mend, site.broker, self.random.choice((0.01, 1, 8, 50)))

    async def _lose(self, _nursery: trio.Nursery, site: Site) -> None:
        if site.broker is not None:
            site.broker.acks_to_lose += self.random.randint(1, 3)

    async def _drain(self, nursery: trio.Nursery, site: Site) -> None:
        site.stop()
        self._start(nursery, site)

    async def _crash(self, nursery: trio.Nursery, site: Site) -> None:
        if site.broker is not None:
            site.broker.crash()
            site.scope.cancel()
            self._start(nursery, site)

    async def _end(self, _nursery: trio.Nursery, _site: Site) -> None:
        run_id = self.random.choice(list(self.tasks.values()))
        self.cancelled.add(run_id)
        event = events.cancelled(run_id, self.admin.time_ns())
        await self.admin.store(
            event.subject, event.body, msg_id=event.msg_id, deadline=trio.current_time() + 10
        )
        await self.admin.kv_put(
            "workflow_runs",
            f"run.{run_id}",
            compact({"run_id": run_id, "status": "cancelled"}),
            deadline=trio.current_time() + 10,
        )

    async def _calm(self, nursery: trio.Nursery) -> None:
        for site in self.sites:
            if site.broker is not None:
                site.broker.acks_to_lose = 0
                if not site.broker.connected:
                    site.broker.reconnect()
            if site.over:
                self._start(nursery, site)
        with trio.move_on_after(CALM):
            while self._queued():
                await trio.sleep(1)

    def _queued(self) -> list[str]:
        queue = self.server.stream(TASK_QUEUES)
        return [record.subject for record in queue.read(">", self.server.time_ns())]

    def outcomes(self) -> Counter[str]:
        """Count the outcomes that are stored, by run; each run has one task."""
        found: Counter[str] = Counter()
        for record in self.server.stream(WORKFLOW_HISTORY).read(">", self.server.time_ns()):
            event = events.parse_event(record.body)
            found[event.run_id] += event.type in OUTCOMES
        return found

    def check_ack(self, sequence: int) -> None:
        """No ACK before the event: at most for a run that was cancelled."""
        run_id = self.tasks[sequence]
        if run_id not in self.cancelled and not self.outcomes()[run_id]:
            raise Broken(f"{run_id} was acknowledged without an outcome")

    def _check_end(self) -> None:
        left = self._queued()
        if left:
            raise Broken(f"{left} were never settled")
        found = self.outcomes()
        for run_id in self.tasks.values():
            if found[run_id] > 1:
                raise Broken(f"{run_id} has {found[run_id]} outcomes")
            if not found[run_id] and run_id not in self.cancelled:
                raise Broken(f"{run_id} has no outcome")
        for site in self.sites:
            if site.most > SLOTS:
                raise Broken(f"worker {site.number} ran {site.most} attempts at once")


def play(seed: int) -> None:
    """Play one schedule in virtual time, and say how to play it again when it fails."""
    log: list[str] = []

    async def live() -> None:
        await Schedule(seed, log).run()

    trio._core._run._r.seed(seed)  # noqa: SLF001 - trio shuffles the tasks that are ready
    try:
        trio.run(live, clock=trio.testing.MockClock(autojump_threshold=0))
    except BaseException as error:
        again = f"python -m benchmarks.schedules --seed {seed} --count 1"
        error.add_note(f"seed {seed} fails; again: {again}\n" + "\n".join(log))
        raise


def main() -> None:
    """Play schedules one after the other; the first that fails ends the program."""
    parser = arguments(__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--count", type=int, default=2000)
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)
    begun, used = time.perf_counter(), time.process_time()
    for seed in range(asked.seed, asked.seed + asked.count):
        play(seed)
    took, used = time.perf_counter() - begun, time.process_time() - used
    report = Report()
    report.fact("schedules in which everything holds", asked.count)
    report.fact("a minute", asked.count / took * 60)
    report.fact("a minute of processor time", asked.count / used * 60)
    report.most("one schedule", took / asked.count * 1000, 60_000 / A_MINUTE, "ms")
    report.close(asked)


if __name__ == "__main__":
    main()
