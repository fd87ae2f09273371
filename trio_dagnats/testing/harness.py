"""Running one handler on one task, without a server process.

::

    harness                      in-memory server            the worker under test
       │  listen to history.<run>       │                              │
       │  store the task ──────────────►│ ────────────────────────────►│ the handler
       │◄───────────────────────────────│◄──── step.started, outcome ──│

There is no engine: nothing is retried, no next step is queued, no timeout fires. What the handler
made of this one task is all there is, which is why it can be told exactly.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import Literal, Self, final

import trio

from trio_dagnats.local.engine import resources
from trio_dagnats.transport.memory import MemoryBroker, MemoryServer
from trio_dagnats.transport.port import Message
from trio_dagnats.wire.data import to_bytes
from trio_dagnats.wire.events import EventType, HistoryEvent, parse_event
from trio_dagnats.wire.names import history_subject, task_subject
from trio_dagnats.wire.text import compact

STEP_ID = "step"
EVENTS_MOST = 1000
"""Events of one task that may come before the first is read."""
PATIENCE = 10.0
"""Seconds of the test's clock: with a virtual one they cost nothing."""
_ENDS: Mapping[str, Literal["completed", "failed", "continued"]] = {
    EventType.STEP_COMPLETED: "completed",
    EventType.STEP_FAILED: "failed",
    EventType.STEP_CONTINUE: "continued",
}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a handler's attempt became.

    Attributes:
        kind: ``completed``, ``failed`` or ``continued``.
        output: what it completed with, None for nothing.
        error: the text of its failure.
        failure_type: ``retriable``, ``non_retriable`` or ``retry_after``, empty unless failed.
    """

    kind: Literal["completed", "failed", "continued"]
    output: object = None
    error: str = ""
    failure_type: str = ""


@final
class Harness:
    """An in-memory server for tests of handlers; needs no process, and its time can be virtual.

    ::

        async with Harness() as harness, make_worker(harness.broker):
            outcome = await harness.run("hello", "world")
            assert outcome.output == {"hello": "world"}

    Attributes:
        broker: what a worker or a client under test is given in place of a URL.
        server: the server, for its ``answers`` and for more connections.
    """

    broker: MemoryBroker

    def __init__(self) -> None:
        self.server = MemoryServer()
        self._runs = count(1)

    async def __aenter__(self) -> Self:
        """Start the server, with the streams and buckets of an engine."""
        await self.server.__aenter__()
        self.broker = MemoryBroker(self.server)
        await resources.ensure(self.broker, trio.current_time() + PATIENCE)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the server."""
        await self.server.__aexit__(kind, error, trace)

    async def run(
        self,
        task_type: str,
        input: object = None,  # noqa: A002 - the word of the docs
        *,
        attempt: int = 1,
        timeout: float = PATIENCE,
    ) -> Outcome:
        """Give the worker one task of a new run, and return what it made of it.

        Each call is a run of its own, so calls may go side by side, and ids never collide. A
        retriable failure is an outcome like any other: nobody retries. Cancellation: the handler
        goes on, as it would.

        Args:
            task_type: the task.
            input: bytes as they are, everything else as JSON; None for none.
            attempt: which attempt the task says it is, from 1.
            timeout: seconds.

        Raises:
            trio.TooSlowError: no outcome in time.
        """
        run_id = f"run-{next(self._runs)}"
        send, receive = trio.open_memory_channel[HistoryEvent](EVENTS_MOST)

        def hear(message: Message | None) -> None:
            if message is not None:
                send.send_nowait(parse_event(message.body))

        with trio.fail_after(timeout):
            async with self.broker.listen(history_subject(run_id), hear):
                await self.broker.store(
                    task_subject(task_type, run_id),
                    _task(run_id, input, attempt),
                    deadline=trio.current_time() + timeout,
                )
                event = await receive.receive()
                while event.type not in _ENDS:
                    event = await receive.receive()
                return _outcome(event)


def _task(run_id: str, given: object, attempt: int) -> bytes:
    """Write a task as an engine does; the first attempt carries no number."""
    body: dict[str, object] = {
        "task_id": f"{run_id}.{STEP_ID}",
        "run_id": run_id,
        "step_id": STEP_ID,
    }
    if attempt > 1:
        body["attempt"] = attempt
    if given is not None:
        body["input"] = json.loads(to_bytes(given))
    return compact(body)


def _outcome(event: HistoryEvent) -> Outcome:
    """Read an outcome from its event."""
    kind = _ENDS[event.type]
    if kind != "failed":
        output = json.loads(event.payload) if event.payload else None
        return Outcome(kind=kind, output=output)
    found = json.loads(event.payload)
    return Outcome(kind=kind, error=found["error"], failure_type=found["failure_type"])
