"""How a handler can end, what the network can do meanwhile, and one pair of them being played.

Everything happens on the in-memory server in virtual time: a first worker, whose connection has the
trouble, and from the handler's start on a second one, whose connection has none.
"""

from collections import Counter, deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import trio

from trio_dagnats import Continue, Fatal, RateLimited, Retryable, TaskContext, Worker
from trio_dagnats.errors import BrokerError, EngineError, OutcomeError
from trio_dagnats.local.engine import resources
from trio_dagnats.testing import MemoryBroker, MemoryServer
from trio_dagnats.transport.memory.consumers import Answer
from trio_dagnats.wire import events
from trio_dagnats.wire.events import EventType, parse_event
from trio_dagnats.wire.names import TASK_QUEUES, WORKFLOW_HISTORY
from trio_dagnats.wire.text import compact

ACK, NAK, NAK_DELAYED, NOTHING = "+ACK", "-NAK", "-NAK delayed", ""
COMPLETED, FAILED, CONTINUED = "step.completed", "step.failed", "step.continue"
OUTCOMES = (COMPLETED, FAILED, CONTINUED)
SETTLED_WITHIN = 7200.0


class Broken(AssertionError):  # noqa: N818 - named for what happened
    """Something does not hold."""


# How a handler ends ---------------------------------------------------------------------------


async def returns(ctx: TaskContext) -> int:
    return 1


async def returns_late(ctx: TaskContext) -> int:
    await trio.sleep(2)
    return 1


async def returns_what_is_no_json(ctx: TaskContext) -> object:
    return object()


async def returns_too_much(ctx: TaskContext) -> bytes:
    return b'"%b"' % (b"x" * 2_000_000)


async def raises(ctx: TaskContext) -> None:
    raise ValueError("no")


async def raises_fatal(ctx: TaskContext) -> None:
    raise Fatal("never")


async def raises_a_rate_limit(ctx: TaskContext) -> None:
    raise RateLimited("slower", 2)


async def raises_retryable_once(ctx: TaskContext) -> int:
    if ctx.deliveries == 1:
        raise Retryable("again", delay=1)
    return 1


async def raises_a_group(ctx: TaskContext) -> None:
    raise ExceptionGroup("all", [Retryable("again"), ExceptionGroup("", [Fatal("never")])])


async def completes(ctx: TaskContext) -> None:
    await ctx.complete(1)


async def completes_twice(ctx: TaskContext) -> None:
    await ctx.complete(1)
    await ctx.complete(2)


async def completes_and_fails(ctx: TaskContext) -> None:
    await ctx.complete(1)
    raise ValueError("too late")


async def completes_and_lingers(ctx: TaskContext) -> None:
    await ctx.complete(1)
    await trio.sleep(2)


async def completes_in_a_child(ctx: TaskContext) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 1)
        nursery.start_soon(ctx.complete, 1)


async def fails(ctx: TaskContext) -> None:
    await ctx.fail("no")


async def fails_for_good(ctx: TaskContext) -> None:
    await ctx.fail_permanent("never")


async def fails_for_a_while(ctx: TaskContext) -> None:
    await ctx.fail_retry_after("slower", 2)


async def continues(ctx: TaskContext) -> None:
    await ctx.continue_()


async def continues_twice(ctx: TaskContext) -> None:
    await ctx.continue_()
    with suppress(OutcomeError):
        await ctx.continue_()


async def continues_as_a_loop(ctx: TaskContext, state: int) -> Continue[int]:
    return Continue(state + 1)


async def runs_into_its_own_timeout(ctx: TaskContext) -> None:
    with trio.fail_after(1):
        await trio.sleep_forever()


async def gives_up_by_itself(ctx: TaskContext) -> int:
    with trio.move_on_after(1):
        await trio.sleep_forever()
    return 1


async def pauses(ctx: TaskContext) -> int:
    await ctx.pause(3, {"at": 1})
    return 1


async def hands_a_pause_back(ctx: TaskContext) -> int:
    await ctx.pause(3, {"at": 1}, hand_back=True)
    return 1


async def checkpoints(ctx: TaskContext) -> int:
    await ctx.checkpoint(1)
    return 1


async def is_ended(ctx: TaskContext) -> int:
    """Wait for the end from outside; whoever gets the task next returns."""
    if ctx.deliveries == 1:
        await trio.sleep_forever()
    return 1


async def is_ended_and_swallows_it(ctx: TaskContext) -> int:
    if ctx.deliveries == 1:
        with suppress(trio.Cancelled):
            await trio.sleep_forever()
    return 1


async def is_ended_in_a_pause(ctx: TaskContext) -> int:
    await ctx.pause(20 if ctx.deliveries == 1 else 0)
    return 1


# What ends it from outside --------------------------------------------------------------------


async def drain(pair: "Pair") -> None:
    pair.workers[0].stop()


async def cancel_the_worker(pair: "Pair") -> None:
    pair.scopes[0].cancel()


async def cancel_the_run(pair: "Pair") -> None:
    event = events.cancelled("r", pair.admin.time_ns())
    await pair.tell(event.body)
    run = compact({"run_id": "r", "status": "cancelled"})
    await pair.admin.kv_put("workflow_runs", "run.r", run, deadline=trio.current_time() + 10)


async def time_the_step_out(pair: "Pair") -> None:
    body = {"type": EventType.STEP_FAILED.value, "run_id": "r", "step_id": "s"}
    await pair.tell(compact({**body, "attempt_number": 1}))


@dataclass(frozen=True)
class Ending:
    """How a handler ends: what is published for it, and what the message is answered."""

    body: Callable[..., Awaitable[object]]
    outcome: str
    answer: str
    act: "Callable[[Pair], Awaitable[None]] | None" = None

    @property
    def name(self) -> str:
        """Its name."""
        by = f" by {self.act.__name__}" if self.act else ""
        return f"{self.body.__name__}{by}".replace("_", " ")


ENDINGS = [
    Ending(returns, COMPLETED, ACK),
    Ending(returns_late, COMPLETED, ACK),
    Ending(returns_what_is_no_json, FAILED, ACK),
    Ending(returns_too_much, FAILED, ACK),
    Ending(raises, FAILED, ACK),
    Ending(raises_fatal, FAILED, ACK),
    Ending(raises_a_rate_limit, FAILED, ACK),
    Ending(raises_retryable_once, COMPLETED, NAK_DELAYED),
    Ending(raises_a_group, FAILED, ACK),
    Ending(completes, COMPLETED, ACK),
    Ending(completes_twice, COMPLETED, ACK),
    Ending(completes_and_fails, COMPLETED, ACK),
    Ending(completes_and_lingers, COMPLETED, ACK),
    Ending(completes_in_a_child, COMPLETED, ACK),
    Ending(fails, FAILED, ACK),
    Ending(fails_for_good, FAILED, ACK),
    Ending(fails_for_a_while, FAILED, ACK),
    Ending(continues, CONTINUED, ACK),
    Ending(continues_twice, CONTINUED, ACK),
    Ending(continues_as_a_loop, CONTINUED, ACK),
    Ending(runs_into_its_own_timeout, FAILED, ACK),
    Ending(gives_up_by_itself, COMPLETED, ACK),
    Ending(pauses, COMPLETED, ACK),
    Ending(hands_a_pause_back, COMPLETED, NAK_DELAYED),
    Ending(checkpoints, COMPLETED, ACK),
    Ending(is_ended, COMPLETED, NAK, drain),
    Ending(is_ended, COMPLETED, NAK, cancel_the_worker),
    Ending(is_ended, "", ACK, cancel_the_run),
    Ending(is_ended, "", ACK, time_the_step_out),
    Ending(is_ended_and_swallows_it, COMPLETED, NAK, drain),
    Ending(is_ended_and_swallows_it, "", ACK, cancel_the_run),
    Ending(is_ended_in_a_pause, COMPLETED, NAK_DELAYED, drain),
    Ending(is_ended_in_a_pause, "", ACK, cancel_the_run),
]


# What the network does ------------------------------------------------------------------------


async def nothing(pair: "Pair") -> None:
    """All is well."""


async def loses_an_ack(pair: "Pair") -> None:
    pair.brokers[0].acks_to_lose = 1


async def loses_three_acks(pair: "Pair") -> None:
    pair.brokers[0].acks_to_lose = 3


async def is_cut_for_a_while(pair: "Pair") -> None:
    pair.brokers[0].disconnect()
    pair.later(3, pair.brokers[0].reconnect)


async def is_cut_beyond_the_lease(pair: "Pair") -> None:
    pair.brokers[0].disconnect()
    pair.later(pair.ack_wait + 20, pair.brokers[0].reconnect)


async def is_cut_after_the_outcome(pair: "Pair") -> None:
    pair.brokers[0].acks_to_lose = 1
    pair.brokers[0].line.answers_to_lose = 1
    pair.upon_outcome = pair.brokers[0].disconnect
    pair.later(8, pair.brokers[0].reconnect)


async def is_stuck_for_a_while(pair: "Pair") -> None:
    pair.brokers[0].line.hold()
    pair.later(4, pair.brokers[0].line.release)


async def is_stuck_beyond_a_short_lease(pair: "Pair") -> None:
    """As long as a connection can be dead before it is aborted (``abort_after``)."""
    pair.brokers[0].line.hold()
    pair.later(pair.brokers[0].abort_after - 1, pair.brokers[0].line.release)


async def loses_the_answer(pair: "Pair") -> None:
    pair.brokers[0].line.answers_to_lose = 1


async def refuses_for_a_while(pair: "Pair") -> None:
    history = pair.server.streams.pop(WORKFLOW_HISTORY)
    pair.later(12, lambda: pair.server.streams.update({WORKFLOW_HISTORY: history}))


async def has_other_news_of_the_run(pair: "Pair") -> None:
    for number in range(3):
        body = {"type": "step.started", "run_id": "r", "step_id": f"other{number}"}
        await pair.tell(compact({**body, "worker_id": "w", "attempt_number": 1}))


async def kills_the_worker_before(pair: "Pair") -> None:
    pair.kill()
    await trio.sleep_forever()


async def kills_the_worker_after_the_outcome(pair: "Pair") -> None:
    pair.brokers[0].line.answers_to_lose = 1
    pair.upon_outcome = pair.kill


NETWORKS: list[Callable[["Pair"], Awaitable[None]]] = [
    nothing,
    loses_an_ack,
    loses_three_acks,
    is_cut_for_a_while,
    is_cut_beyond_the_lease,
    is_cut_after_the_outcome,
    is_stuck_for_a_while,
    is_stuck_beyond_a_short_lease,
    loses_the_answer,
    refuses_for_a_while,
    has_other_news_of_the_run,
    kills_the_worker_before,
    kills_the_worker_after_the_outcome,
]


class Answers(deque[Answer]):
    """Checks each answer when the server gets it."""

    def __init__(self, pair: "Pair") -> None:
        super().__init__()
        self._pair = pair

    def append(self, answer: Answer) -> None:
        super().append(answer)
        self._pair.check_answer(answer)


@dataclass
class Pair:
    """One ending on one network; ``await play()`` raises :class:`Broken` if a rule is broken."""

    ending: Ending
    network: Callable[["Pair"], Awaitable[None]]
    ack_wait: float
    pipelined: bool = False
    server: MemoryServer = field(default_factory=MemoryServer)
    workers: list[Worker] = field(default_factory=list)
    brokers: list[MemoryBroker] = field(default_factory=list)
    scopes: list[trio.CancelScope] = field(default_factory=list)
    upon_outcome: Callable[[], None] = field(default=lambda: None)
    live: int = 0
    broken: list[str] = field(default_factory=list)

    async def play(self) -> None:
        """Let the handler end, and check what has become of it when all is over."""
        self.server.answers = Answers(self)
        self.struck = trio.Event()
        async with self.server:
            self.admin = MemoryBroker(self.server)
            await resources.ensure(self.admin, trio.current_time() + 10)
            async with (
                trio.open_nursery() as self.nursery,
                self.admin.listen("history.r", self.hear),
            ):
                self.start_worker()
                await self.put_task()
                await self.struck.wait()
                self.start_worker()
                if self.ending.act is not None:
                    await trio.sleep(1)
                    await self.ending.act(self)
                with trio.fail_after(SETTLED_WITHIN):
                    while self.queued() or WORKFLOW_HISTORY not in self.server.streams:
                        await trio.sleep(1)
                await trio.sleep(self.ack_wait + 30)  # whatever is late arrives
                for worker in self.workers:
                    worker.stop()
            self.check_end()

    def start_worker(self) -> None:
        """Start a worker on a connection of its own."""
        broker, scope = MemoryBroker(self.server), trio.CancelScope()
        worker = Worker(broker, grace=0, pipeline_started=self.pipelined)
        register = worker.handle
        if self.ending.body is continues_as_a_loop:
            register = worker.agent_loop
        register(
            "t",
            self.handler_of_a_loop if "loop" in self.ending.name else self.handler,
            ack_wait=self.ack_wait,
        )
        self.brokers.append(broker)
        self.workers.append(worker)
        self.scopes.append(scope)
        self.nursery.start_soon(self.serve, worker, scope)

    async def serve(self, worker: Worker, scope: trio.CancelScope) -> None:
        with scope:
            while True:
                with suppress(EngineError):  # the history is gone for now
                    await worker.start(handle_signals=False)
                    return
                await trio.sleep(1)

    async def handler(self, ctx: TaskContext) -> object:
        return await self.execute(ctx)

    async def handler_of_a_loop(self, ctx: TaskContext, state: int) -> Continue[int] | int:
        return await self.execute(ctx, state)  # type: ignore[return-value]  # its only ending

    async def execute(self, ctx: TaskContext, *state: int) -> object:
        self.live += 1
        if self.live > 1:
            self.broken.append("two executions at once")
        try:
            if not self.struck.is_set():
                self.struck.set()
                await self.network(self)
            return await self.ending.body(ctx, *state)
        finally:
            self.live -= 1

    def hear(self, message: object) -> None:
        if self.outcomes():
            act, self.upon_outcome = self.upon_outcome, lambda: None
            act()

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        async def wait() -> None:
            await trio.sleep(seconds)
            call()

        self.nursery.start_soon(wait)

    def kill(self) -> None:
        """End the first worker as a kill does: without a word."""
        self.brokers[0].crash()
        self.scopes[0].cancel()

    async def put_task(self) -> None:
        body = {"run_id": "r", "step_id": "s", "input": 0}
        await self.admin.store("task.t.r", compact(body), deadline=trio.current_time() + 10)

    async def tell(self, body: bytes) -> None:
        """Store an event of the engine's, as soon as there is a history."""
        while True:
            with suppress(BrokerError):
                await self.admin.store("history.r", body, deadline=trio.current_time() + 10)
                return
            await trio.sleep(1)

    def queued(self) -> int:
        """Return how many tasks are not settled."""
        return len(list(self.server.stream(TASK_QUEUES).read(">", self.server.time_ns())))

    def outcomes(self) -> list[str]:
        """Return the outcomes that workers have stored."""
        history = self.server.streams.get(WORKFLOW_HISTORY)
        if history is None:
            return []
        found = [parse_event(record.body) for record in history.read(">", self.server.time_ns())]
        return [
            event.type
            for event in found
            if event.type in OUTCOMES and (event.worker_id or event.type == CONTINUED)
        ]

    def check_answer(self, answer: Answer) -> None:
        """No ACK before the event, and nothing but an ACK that changes nothing after the lease."""
        consumer = self.server.stream(TASK_QUEUES).consumers[answer.durable]
        current = consumer._deliveries.get(answer.sequence) == answer.deliveries
        if answer.body == ACK:
            if self.ending.outcome and not self.outcomes():
                self.broken.append(
                    f"delivery {answer.deliveries} was acknowledged before its event"
                )
        elif not (current and answer.sequence in consumer._leases):
            self.broken.append(f"delivery {answer.deliveries}: {answer.body} after its lease")

    def check_end(self) -> None:
        """What must be true when all is over."""
        outcomes = self.outcomes()
        if outcomes != [self.ending.outcome] * bool(self.ending.outcome):
            self.broken.append(f"outcomes: {outcomes}")
        counts = Counter(answer.deliveries for answer in self.server.answers)
        if max(counts.values(), default=0) > 1:
            self.broken.append("a delivery was answered twice")
        first = [answer.body for answer in self.server.answers if answer.deliveries == 1]
        told = [NAK_DELAYED if "delay" in body else body for body in first]
        if self.network is nothing and told != [self.ending.answer]:
            self.broken.append(f"the message was answered {told}")
        for worker in self.workers:
            service = worker._service
            assert service is not None
            if service.live or service._slots.running or service._slots.waiting:
                self.broken.append(f"left behind: {service.live} {service._slots}")
        if self.broken:
            raise Broken("; ".join(self.broken))
