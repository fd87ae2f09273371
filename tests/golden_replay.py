"""Feeding a transcript's messages to our worker, with handlers that behave as the recorded ones."""

import json
from collections import Counter, defaultdict
from contextlib import AsyncExitStack
from functools import partial

import trio
import trio.testing
from golden_files import Scenario, Sent, line
from pydantic import BaseModel

from trio_dagnats import Fatal, RateLimited, TaskContext, Worker
from trio_dagnats.local.engine import resources
from trio_dagnats.transport.memory import MemoryBroker, MemoryServer
from trio_dagnats.transport.port import Message
from trio_dagnats.wire.events import EventType

RUN, WORKER, SECOND = "RUN0", "WORKER0", "WORKER1"
FED = ("task.", "history.", "$KV.signals.", "$KV.workflow_runs.")
AFTER_A_MESSAGE = 0.06
"""Seconds that pass: long enough for the run watch to be armed."""
AT_THE_END = 12
"""Seconds that pass at the end, for handlers that sleep and messages that come again."""


class Number(BaseModel):
    """The typed handler's input and output."""

    n: int


class Handlers:
    """What the recorded handlers did, one method for each task type."""

    def __init__(self) -> None:
        self._calls: defaultdict[str, int] = defaultdict(int)

    def register(self, worker: Worker, only: str, group: str | None) -> None:
        """Serve one task type or all."""
        for task in [only] if only else sorted(set(TASKS)):
            handler = getattr(self, task, self.echo)
            ack_wait = 3.0 if task == "slowk" else 300.0
            register = worker.handle_typed if task == "typed" else worker.handle
            register(task, handler, group=group, ack_wait=ack_wait)

    async def echo(self, ctx: TaskContext) -> bytes:
        return ctx.input or b'{"ok":true}'

    async def items(self, ctx: TaskContext) -> list[int]:
        return [1, 2, 3]

    async def noitems(self, ctx: TaskContext) -> list[int]:
        return []

    async def double(self, ctx: TaskContext) -> dict[str, int]:
        return {"item": json.loads(ctx.input)}

    async def failtwo(self, ctx: TaskContext) -> object:
        if ctx.input == b"2":
            await ctx.fail("two is bad")
        return json.loads(ctx.input)

    async def flaky(self, ctx: TaskContext) -> dict[str, int]:
        self._calls[ctx.run_id] += 1
        call, retries = self._calls[ctx.run_id], 0 if ctx.attempt == 1 else ctx.attempt
        if call < 3:
            await ctx.fail(f"boom {call} (retry count {retries})")
        return {"retry_count": retries}

    flakyg = flaky

    async def slow(self, ctx: TaskContext) -> dict[str, bool]:
        await trio.sleep(3)
        return {"late": True}

    async def slowk(self, ctx: TaskContext) -> dict[str, int]:
        await trio.sleep(2)
        return {"retry_count": 0}

    async def waiter(self, ctx: TaskContext) -> bytes:
        return await ctx.wait_for_signal("go", timeout=60)

    async def loop(self, ctx: TaskContext) -> dict[str, int]:
        found = await ctx.load_checkpoint()
        state = {"n": (json.loads(found)["n"] if found else 0) + 1}
        await ctx.checkpoint(state)
        if state["n"] < 4:
            await ctx.continue_(state)
        return state

    async def loopforever(self, ctx: TaskContext) -> None:
        await ctx.continue_({})

    async def ckpt(self, ctx: TaskContext) -> bytes:
        found = await ctx.load_checkpoint()
        if found is None:
            await ctx.checkpoint({"at": 1})
            await ctx.fail("after checkpoint")
        return found or b""

    async def pauser(self, ctx: TaskContext) -> dict[str, object]:
        await ctx.pause(1.0, {"pause_resume": "nap"}, hand_back=True)
        found = await ctx.load_checkpoint()
        return {"checkpoint": (found or b"").decode(), "retry_count": 0}

    async def typed(self, ctx: TaskContext, input: Number) -> Number:  # noqa: A002
        return Number(n=input.n + 1)

    async def ratelimit(self, ctx: TaskContext) -> dict[str, bool]:
        if ctx.attempt == 1:
            raise RateLimited("429", after=0.5)
        return {"ok": True}

    async def fatal(self, ctx: TaskContext) -> None:
        raise Fatal("bad card")

    async def failsoft(self, ctx: TaskContext) -> dict[str, bool]:
        if ctx.attempt == 1:
            await ctx.fail("soft")
        return {"ok": True}

    async def failalways(self, ctx: TaskContext) -> None:
        await ctx.fail("always")

    async def ctrl(self, ctx: TaskContext) -> None:
        await ctx.fail("bad \x1b[31m byte\x07")

    async def nothing(self, ctx: TaskContext) -> None:
        pass

    async def streamer(self, ctx: TaskContext) -> dict[str, int]:
        for number in range(3):
            await ctx.put_stream(f"chunk {number}".encode())
        return {"chunks": 3}

    async def plan(self, ctx: TaskContext) -> object:
        steps = [{"id": "a", "task": "echo"}, {"id": "b", "task": "echo", "depends_on": ["a"]}]
        return {"steps": steps}


TASKS = [name for name in vars(Handlers) if not name.startswith("_") and name != "register"]
TASKS.append("nobody")


class Replay:
    """One transcript, fed to one worker or two on an in-memory server."""

    def __init__(self, scenario: Scenario, clock: trio.testing.MockClock) -> None:
        self._scenario = scenario
        self._clock = clock
        self._heard: list[str] = []
        self._handlers = Handlers()

    async def run(self, *, only: str = "", group: str | None = None, late: bool = False) -> None:
        """Feed everything; ``late`` starts the worker only when all is there."""
        async with MemoryServer() as self.server, AsyncExitStack() as stack:
            broker = MemoryBroker(self.server)
            await resources.ensure(broker, trio.current_time() + 10)
            await stack.enter_async_context(broker.listen(">", self._hear))
            start = partial(self._start, stack, broker, only, group)
            if not late:
                await start(WORKER)
            for message in self._scenario.messages:
                if message.subject.startswith(FED) and not message.by_worker:
                    self._feed(message)
                    await self._pass(AFTER_A_MESSAGE)
            if late:
                await self._pass(1.1)
                await start(WORKER)
            for _ in range(AT_THE_END * 2):
                await self._pass(0.5)

    async def run_killed(self) -> None:
        """Feed the task, cut the first worker off, let a second one take over."""
        async with MemoryServer() as self.server, AsyncExitStack() as stack:
            first, second = MemoryBroker(self.server), MemoryBroker(self.server)
            await resources.ensure(first, trio.current_time() + 10)
            await stack.enter_async_context(second.listen(">", self._hear))
            await self._start(stack, first, "slowk", None, WORKER)
            for message in self._scenario.messages:
                if message.subject.startswith("task."):
                    self._feed(message)
            await self._pass(1.2)
            first.crash()
            await self._start(stack, second, "slowk", None, SECOND)
            for _ in range(AT_THE_END * 2):
                await self._pass(0.5)
            first.reconnect()

    def lines(self) -> Counter[str]:
        """Return what the worker sent, as comparable lines."""
        answers = [
            f"ACK {durable} delivery {count} |  | {json.dumps({'text': body})}"
            for durable, count, body, _ in self.server.answers
        ]
        return Counter(self._heard + answers)

    async def _start(
        self, stack: AsyncExitStack, broker: MemoryBroker, only: str, group: str | None, name: str
    ) -> None:
        worker = Worker(broker, worker_id=name, grace=0)
        self._handlers.register(worker, only, group)
        await stack.enter_async_context(worker)

    async def _pass(self, seconds: float) -> None:
        await trio.testing.wait_all_tasks_blocked()
        self._clock.jump(seconds)
        await trio.testing.wait_all_tasks_blocked()

    def _feed(self, message: Sent) -> None:
        headers = {k: v for k, v in message.headers.items() if k != "Nats-Msg-Id"}
        subject, body = _concrete(message.subject), _concrete(message.raw().decode()).encode()
        self.server.store(subject, body, headers, _concrete(message.msg_id), None)

    def _hear(self, message: Message | None) -> None:
        assert message is not None
        text = message.body.decode(errors="replace")
        try:
            body = json.loads(text) if text else None
        except ValueError:
            body = {"text": text}
        msg_id = message.headers.get("Nats-Msg-Id", "")
        sent = Sent(message.subject, msg_id, dict(message.headers), body)
        if sent.by_worker:
            self._heard.append(_general(line(sent.subject, sent.msg_id, sent.body)))


def expected(scenario: Scenario) -> Counter[str]:
    """Return what the recorded worker sent, as comparable lines."""
    return Counter(
        line(message.subject, message.msg_id, message.body)
        for message in scenario.messages
        if message.by_worker and message.type != EventType.STEP_QUEUED
    )


def _concrete(text: str) -> str:
    return text.replace("$RUN", RUN).replace("$WORKER1", SECOND).replace("$WORKER", WORKER)


def _general(text: str) -> str:
    return text.replace(RUN, "$RUN").replace(SECOND, "$WORKER1").replace(WORKER, "$WORKER")
