"""The handle of one run: how it stands, its end, its events; signal and cancel it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import final

import trio

from trio_dagnats.client.follow import Events, read_history, wait_for_end
from trio_dagnats.client.schedule import unschedule
from trio_dagnats.client.timeline import RunTimeline, timeline
from trio_dagnats.errors import EngineError, RunFailed
from trio_dagnats.transport.events import store_event
from trio_dagnats.transport.patience import deadline_in
from trio_dagnats.transport.port import Broker, Message
from trio_dagnats.wire import events
from trio_dagnats.wire.data import to_bytes, to_output
from trio_dagnats.wire.definitions.workflow import WorkflowDef
from trio_dagnats.wire.events import EventType, HistoryEvent
from trio_dagnats.wire.names import (
    BUCKET_DEFS,
    BUCKET_RUNS,
    BUCKET_SIGNALS,
    check_signal_name,
    check_step_id,
    run_key,
    signal_key,
    stream_subject,
)
from trio_dagnats.wire.run import RunStatus, WorkflowRun
from trio_dagnats.wire.subjects import is_key

STREAM_BUFFER = 1000


@final
@dataclass(frozen=True, slots=True)
class Chunk:
    """What a handler sent with ``ctx.put_stream``."""

    step_id: str
    data: bytes


@final
class Run:
    """A run, known by its id; valid inside its client's block. Made by ``client.start``.

    Attributes:
        id: the run id.
    """

    def __init__(self, broker: Broker, run_id: str) -> None:
        self._broker = broker
        self.id = run_id

    def __repr__(self) -> str:
        return f"<Run {self.id}>"

    async def snapshot(self) -> WorkflowRun | None:
        """Return the run as it stands now; None if the engine has not stored it (yet).

        Raises:
            BrokerError: the server did not answer in time, or no engine has set it up.
        """
        entry = await self._broker.kv_get(BUCKET_RUNS, run_key(self.id), deadline=deadline_in())
        return None if entry is None else WorkflowRun.read(entry.value)

    async def status(self) -> RunStatus:
        """Return the run's status; ``pending`` while the engine has not stored it.

        Raises:
            BrokerError: the server did not answer in time, or no engine has set it up.
        """
        found = await self.snapshot()
        return RunStatus.PENDING if found is None else found.status

    async def wait(self, timeout: float | None = None) -> WorkflowRun:
        """Wait until the run has ended, however it ends; return its last snapshot.

        Args:
            timeout: seconds; None to wait for as long as it takes.

        Raises:
            trio.TooSlowError: the timeout is over; the run goes on.
            EngineError: the engine has not stored the run within 10 seconds: there is no such
                run, or no engine is running.
        """
        with trio.fail_after(float("inf") if timeout is None else timeout):
            return await wait_for_end(self._broker, self.id, self.snapshot)

    async def output(self, timeout: float | None = None) -> object:
        """Wait for the end, and return what the last steps gave.

        One step that nobody depends on: its output. Several: an object of them by step id.

        Args:
            timeout: seconds; None to wait for as long as it takes.

        Raises:
            RunFailed: the run ended otherwise than ``completed``; the text names step and error.
            trio.TooSlowError, EngineError: as :meth:`wait`.
        """
        ended = await self.wait(timeout)
        if ended.status is not RunStatus.COMPLETED:
            step_id, error = ended.failed_step()
            why = f": step {step_id!r}: {error}" if step_id else ""
            raise RunFailed(f"run {self.id} of {ended.workflow_id!r} {ended.status.value}{why}")
        return ended.output(await self._definition(ended.workflow_id))

    async def signal(self, name: str, data: object = None) -> None:
        """Give the run a signal: the value that ``ctx.wait_for_signal(name)`` returns.

        A signal is a register, not a queue: a second one replaces a first that nobody took.

        Args:
            name: letters, digits, ``-``, ``_``, ``=``, ``/``.
            data: bytes as they are, everything else as JSON.

        Raises:
            UsageError: the name is not legal, or the data cannot be written.
            Missing: this engine has no bucket for signals; only ``dagnats serve`` makes one.
            NotStored: not acknowledged in time.
        """
        key = signal_key(self.id, check_signal_name(name))
        await self._broker.kv_put(BUCKET_SIGNALS, key, to_bytes(data), deadline=deadline_in())

    async def cancel(self) -> None:
        """Cancel the run: its handlers are stopped. One that has ended stays as it is.

        One that is scheduled will not begin.

        Returns when the request is stored; :meth:`wait` tells when the run has ended.

        Raises:
            EngineError: the run is pending, and the engine cancels only running ones.
            NotStored: not acknowledged in time.
        """
        found = await self.snapshot()
        if found is not None and found.status.is_terminal:
            return
        if found is not None and found.status is RunStatus.PENDING:
            raise EngineError(f"run {self.id} is pending; the engine cancels only running ones")
        if found is None and await unschedule(self._broker, self.id):
            return
        event = events.cancelled(self.id, self._broker.time_ns())
        await store_event(self._broker, event, deadline=deadline_in())

    async def approve(self, step_id: str, output: object = None) -> None:
        """Approve a step of the type ``approval``; the first answer counts.

        Args:
            step_id: the step.
            output: becomes the step's output; anything that pydantic can write as JSON.

        Raises:
            UsageError: no step can have that id, or the output cannot be written.
            NotStored: not acknowledged in time.
        """
        await self._answer(EventType.APPROVAL_GRANTED, step_id, to_output(output))

    async def reject(self, step_id: str, reason: str = "rejected") -> None:
        """Reject a step of the type ``approval``: its run fails, for that reason.

        Raises:
            UsageError: no step can have that id.
            NotStored: not acknowledged in time.
        """
        await self._answer(EventType.APPROVAL_REJECTED, step_id, to_output(reason))

    async def _answer(self, kind: EventType, step_id: str, payload: bytes) -> None:
        now_ns = self._broker.time_ns()
        event = events.answered(kind, self.id, check_step_id(step_id), payload, now_ns)
        await store_event(self._broker, event, deadline=deadline_in())

    def events(self) -> AsyncIterator[HistoryEvent]:
        """Return an iterator over the run's events, from its start to its end, as they come.

        Leaving the loop early needs no clean-up.
        """
        return Events(self._broker, self.id, self.snapshot)

    async def history(self) -> list[HistoryEvent]:
        """Return the run's events up to now; empty if there is no such run.

        Raises:
            Missing: no engine has set this server up.
            NotStored: the server did not answer in time.
        """
        found, _ = await read_history(self._broker, self.id)
        return found

    async def timeline(self) -> RunTimeline | None:
        """Return the run's steps with their attempts and times; None if it is not stored (yet).

        Raises:
            BrokerError: the server did not answer in time, or no engine has set it up.
        """
        events = await self.history()
        found = await self.snapshot()  # after the events, so that it knows no less than they do
        return None if found is None else timeline(found, events)

    @asynccontextmanager
    async def chunks(self) -> AsyncIterator[trio.MemoryReceiveChannel[Chunk]]:
        """Listen to what all steps' handlers send with ``ctx.put_stream``, for a block.

        What is lost: as for :meth:`stream`.
        """
        send, receive = trio.open_memory_channel[Chunk](STREAM_BUFFER)
        prefix = stream_subject(self.id, "")

        def hear(message: Message | None) -> None:
            if message is not None:
                with suppress(trio.WouldBlock):
                    send.send_nowait(Chunk(message.subject.removeprefix(prefix), message.body))

        async with self._broker.listen(f"{prefix}>", hear):
            with send, receive:
                yield receive

    @asynccontextmanager
    async def stream(self, step_id: str) -> AsyncIterator[trio.MemoryReceiveChannel[bytes]]:
        """Listen to what a step's handler sends with ``ctx.put_stream``, for a block.

        Chunks that are sent before the block is entered, or while 1000 of them wait unread, are
        lost: streaming is for eyes, outputs and checkpoints are for results.

        Raises:
            UsageError: no step can have that id.
        """
        send, receive = trio.open_memory_channel[bytes](STREAM_BUFFER)

        def hear(message: Message | None) -> None:
            if message is not None:
                with suppress(trio.WouldBlock):
                    send.send_nowait(message.body)

        async with self._broker.listen(stream_subject(self.id, check_step_id(step_id)), hear):
            with send, receive:
                yield receive

    async def _definition(self, name: str) -> WorkflowDef:
        entry = None
        if is_key(name):  # else nothing can be registered under it
            entry = await self._broker.kv_get(BUCKET_DEFS, name, deadline=deadline_in())
        if entry is None:
            raise EngineError(f"workflow {name!r} is not registered any more; read wait() instead")
        return WorkflowDef.read(entry.value)
