"""What a handler sees of its attempt."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import final

import trio

from trio_dagnats.attempt.loop_bounds import LoopBounds
from trio_dagnats.attempt.outcome import Completed, Continued, Failed, describe, failure
from trio_dagnats.attempt.reasons import CancelReason
from trio_dagnats.errors import Fatal, RateLimited
from trio_dagnats.wire.data import to_bytes, to_output
from trio_dagnats.wire.events import FailureType
from trio_dagnats.wire.names import check_run_id, check_signal_name, stream_subject
from trio_dagnats.worker.attempts.attempt import Attempt
from trio_dagnats.worker.attempts.upkeep import heartbeat
from trio_dagnats.worker.context import waits
from trio_dagnats.worker.context.durable_map import DurableMaps, R, T
from trio_dagnats.worker.context.steering import Inbox, steering
from trio_dagnats.worker.engine.step_store import check_step
from trio_dagnats.worker.execution.effects import declare


@final
class TaskContext:
    """One attempt of one step, as its handler sees it. Made by the worker only.

    Properties cost nothing and may be read from anywhere. The coroutines are for the handler's
    own tasks; a synchronous handler, which runs in a trio thread, calls them through trio::

        trio.from_thread.run(ctx.checkpoint, {"page": 3})

    Exactly one outcome may be declared per attempt (``complete``, ``fail`` and their kin, or the
    handler's own return or exception); a second one raises ``OutcomeError`` at the call. Data is
    ``bytes`` (taken as it is) or anything that pydantic can serialise to JSON.

    Cancellation: every coroutine may be cancelled, but an outcome that is being stored is finished
    first, bounded by the lease.
    """

    __slots__ = ("_attempt", "_bounds", "_maps")

    def __init__(self, attempt: Attempt, bounds: LoopBounds | None = None) -> None:
        self._attempt = attempt
        self._bounds = bounds
        self._maps: DurableMaps | None = None

    def __repr__(self) -> str:
        return f"<TaskContext {self._attempt.label}>"

    @property
    def input(self) -> bytes:
        """The step's resolved input: raw JSON, empty if the step has none.

        That is the run's input for a step without dependencies, the output of the one it depends
        on, or an object of several outputs by step id; for an instance of a map, its item.
        """
        return self._attempt.task.input

    @property
    def run_id(self) -> str:
        """The run that this task belongs to."""
        return self._attempt.task.run_id

    @property
    def step_id(self) -> str:
        """The step's id; instances of a map step end in ``.map.<index>``."""
        return self._attempt.task.step_id

    @property
    def attempt(self) -> int:
        """The attempt number as the engine counts it, from 1; redeliveries do not change it."""
        return self._attempt.task.number

    @property
    def deliveries(self) -> int:
        """How often the server has handed this task out, from 1.

        More than the executions before this one: a task that was handed back, or that went to a
        worker which had just died, was delivered, too.
        """
        return self._attempt.delivery.deliveries

    @property
    def iteration(self) -> int:
        """Loop iterations that were committed before this one, from 0.

        An ``agent_loop`` counts in its checkpoint, for the DagNats engine forgets the number when
        it retries. In a plain handler it is the task's own.
        """
        return self._attempt.iteration

    @property
    def iterations_left(self) -> int | None:
        """How many iterations of an ``agent_loop`` may follow this one; None for no known bound.

        With 0 it must return the output: the engine would fail the step for a ``Continue``.
        """
        bounds = self._bounds
        return bounds.iterations_left(self._attempt.iteration) if bounds else None

    @property
    def duration_left(self) -> float | None:
        """Seconds in which an ``agent_loop`` may still continue; None for no known bound.

        The engine counts from the end of the first iteration.
        """
        bounds = self._bounds
        return bounds.duration_left(self._attempt.shared.broker.time_ns()) if bounds else None

    @property
    def metadata(self) -> Mapping[str, str]:
        """The step's metadata; empty with the DagNats engine, which never sends any."""
        return self._attempt.task.metadata

    @property
    def workflow_name(self) -> str:
        """The workflow's name, empty if the engine did not send it."""
        return self._attempt.task.workflow_name

    @property
    def task_type(self) -> str:
        """The task type that this handler was registered for."""
        return self._attempt.program.task_type

    @property
    def idempotency_key(self) -> str:
        """A key for calls to other systems: the same for every try of this step and iteration."""
        task = self._attempt.task
        return f"{task.run_id}.{task.step_id}.{self._attempt.iteration}"

    @property
    def draining(self) -> trio.Event:
        """Set when the worker begins to drain: a good moment for a checkpoint."""
        return self._attempt.shared.draining

    @property
    def cancel_reason(self) -> CancelReason | None:
        """Why the worker cancelled this attempt; None while it has not."""
        if self._attempt.reason is None and self._attempt.scope.cancel_called:
            return CancelReason.LEASE_LOST  # the scope's deadline is the end of the lease
        return self._attempt.reason

    async def complete(self, output: object = None) -> None:
        """Complete the step with this output; returns when the event is stored.

        None means no output. ``bytes`` must be JSON.

        Raises:
            OutcomeError: the attempt has an outcome already, or has ended.
            UsageError: the output cannot be written as JSON.
            NotStored: no acknowledgement within the lease; the task is handed back.
        """
        await declare(self._attempt, Completed(to_output(output)))

    async def continue_(self, output: object = None) -> None:
        """End this iteration of an ``agent_loop`` step; the engine dispatches the next one.

        The engine ignores the output, and each iteration gets the same input: carry state with
        ``checkpoint``.

        Raises:
            OutcomeError, UsageError, NotStored: as :meth:`complete`.
        """
        await declare(self._attempt, Continued(to_output(output)))

    async def fail(self, err: str | BaseException) -> None:
        """Fail the attempt; the engine's retry policy decides what comes next.

        Raises:
            OutcomeError, NotStored: as :meth:`complete`.
        """
        text = err if isinstance(err, str) else describe(err)
        await declare(self._attempt, Failed(kind=FailureType.RETRIABLE, error=text))

    async def fail_permanent(self, err: str | BaseException) -> None:
        """Fail the step for good, whatever its retry policy says.

        Raises:
            OutcomeError, NotStored: as :meth:`complete`.
        """
        await declare(self._attempt, failure(Fatal(err)))

    async def fail_retry_after(self, err: str | BaseException, after: float) -> None:
        """Fail the attempt; the engine runs the step again ``after`` seconds (0.1 to 3600).

        Raises:
            OutcomeError, NotStored: as :meth:`complete`.
            UsageError: ``after`` is not a duration.
        """
        await declare(self._attempt, failure(RateLimited(err, after)))

    async def checkpoint(self, data: object) -> None:
        """Store the step's checkpoint; the last write wins. It outlives attempts and workers.

        In an ``agent_loop`` it stands beside the loop's state and outlives iterations, too.
        Signals that this attempt has received count as consumed from here on.

        Raises:
            Missing: the server has no bucket ``checkpoints`` (split engine).
            Fatal: no key can hold the step's id.
            NotStored: no acknowledgement within 10 seconds.
            TooLarge: more than the server takes.
            UsageError: the data cannot be written as JSON.
        """
        await waits.save_checkpoint(self._attempt, to_bytes(data))
        await self._attempt.memory.commit_signals()

    async def load_checkpoint(self) -> bytes | None:
        """Read the step's checkpoint, None if there is none.

        Raises:
            NotStored: no answer within 10 seconds.
        """
        attempt = self._attempt
        return await attempt.shared.store.load_checkpoint(attempt.task, beside=attempt.program.loop)

    async def map(
        self,
        fn: Callable[[T], Awaitable[R]],
        items: Iterable[T],
        *,
        limit: int = 10,
        name: str = "",
    ) -> list[R]:
        """Run ``fn(item)`` for each item, ``limit`` at a time; return the results in order.

        Each finished item is stored, and a later try (redelivery, retry) runs only the others:
        those whose item, at the same place, is the same JSON as before. Items and results are what
        the function's annotations say, any JSON without. It is a nursery: the first error cancels
        the siblings and leaves in a group. Calls are known by their order, or by their ``name``.

        Raises:
            UsageError: a value out of range, or an item that is no JSON or of another type.
            Fatal: a result that cannot be stored.
            Missing, NotStored: as :meth:`checkpoint`.
        """
        if self._maps is None:
            self._maps = DurableMaps(self._attempt)
        return await self._maps.run(fn, items, limit=limit, name=name)

    async def pause(
        self, duration: float, checkpoint: object = None, *, hand_back: bool = False
    ) -> None:
        """Wait durably for ``duration`` seconds, without a slot; store the checkpoint first.

        If the worker drains or dies meanwhile, the handler starts again from its top, and the same
        call (the n-th of this dispatch) waits only for what is left. With ``hand_back=True`` the
        handler ends here and starts again after the pause; no worker is needed meanwhile.
        A checkpoint of None leaves the stored one alone. A pause counts against the step's timeout,
        which the engine does not stop meanwhile, so one that cannot fit is refused.

        Raises:
            UsageError: the duration is no finite number >= 0, or does not fit the step's timeout.
            Missing, NotStored, TooLarge: as :meth:`checkpoint`.
        """
        data = None if checkpoint is None else to_bytes(checkpoint)
        await waits.pause(self._attempt, duration, data, hand_back=hand_back)

    async def wait_for_signal(self, name: str, timeout: float | None = None) -> bytes:
        """Wait, without a slot, until somebody sends this run the signal; return its value.

        A signal is a register: the last value stands, and one sent before the wait counts. Within
        an attempt a value is returned once. It is consumed for good by the next ``checkpoint``,
        ``continue_`` or ``complete``: a handler that starts again before that gets it again.
        Without a ``timeout`` (seconds) it waits for as long as the run lasts.

        Raises:
            trio.TooSlowError: no signal within ``timeout``.
            UsageError: the name is no legal key, or the timeout no number >= 0.
            Missing: the server has no bucket ``signals`` (split engine).
        """
        return await waits.wait_for_signal(self._attempt, check_signal_name(name), timeout)

    def steering(self, name: str) -> AbstractAsyncContextManager[Inbox]:
        """Let a signal interrupt a block, and only it: a model call, a tool. See :class:`Inbox`.

        A message from before the block interrupts it at once, one from after it is the next one's.
        Consumed for good, and overwritten, as with ``wait_for_signal``. Not for threads.

        Raises:
            UsageError: the name is no legal key.
            Missing, NotStored: on entering, as :meth:`checkpoint`.
        """
        return steering(self._attempt, check_signal_name(name))

    async def send_signal(self, run_id: str, name: str, data: object = b"") -> None:
        """Send a signal to a run (this one or another).

        Raises:
            UsageError: the run id or the name is no legal key, or the data cannot be written.
            Missing, NotStored, TooLarge: as :meth:`checkpoint`.
        """
        await self._attempt.shared.store.send_signal(
            check_run_id(run_id), check_signal_name(name), to_bytes(data)
        )

    async def put_stream(self, data: object) -> None:
        """Publish text, bytes or JSON on the run's live stream; lost if nobody listens.

        Raises:
            TooLarge: more than the server takes.
            Fatal: no subject can hold the step's id.
        """
        task = self._attempt.task
        check_step(task)
        body = data.encode() if isinstance(data, str) else to_bytes(data)
        await self._attempt.shared.broker.publish(
            stream_subject(task.run_id, task.step_id), body, headers=self._attempt.trace.headers()
        )

    async def heartbeat(self) -> None:
        """Renew the lease now. Never needed: every attempt renews its own lease.

        Raises:
            NotStored: the server did not confirm while the lease lasted.
        """
        await heartbeat(self._attempt)
