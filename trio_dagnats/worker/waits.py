"""Scoped waits of a handler: pause and signal (design 8.3, 8.4).

While the whole attempt waits it gives up its slot and keeps its lease. The wait ends with its
scope: by drain, by the run's end, or by the handler's own cancellation.
"""

from functools import partial
from math import isfinite
from types import TracebackType
from typing import final

import trio

from trio_dagnats.errors import OutcomeError, UsageError
from trio_dagnats.worker.attempt import Attempt, Wait
from trio_dagnats.worker.progress import got_further
from trio_dagnats.worker.reasons import CancelReason
from trio_dagnats.worker.signals import SignalRegister

NS = 1_000_000_000
MAX_PAUSE = 365 * 86_400.0
"""Seconds of the longest pause: the engine's own sleeps are no longer."""


@final
class Waiting:
    """Marks a wait for the length of a block, without a slot while the whole attempt waits.

    Entering it while the worker drains ends the attempt at once: a wait that has not begun is
    better begun elsewhere. A class, for a generator weighs more, and there may be thousands.
    """

    __slots__ = ("_attempt", "_wait", "_whole")

    def __init__(self, attempt: Attempt, wait: Wait) -> None:
        self._attempt = attempt
        self._wait = wait
        self._whole = _waits_as_a_whole(attempt)

    async def __aenter__(self) -> None:
        attempt = self._attempt
        attempt.waits += (self._wait,)
        if self._whole:
            attempt.idle = True
            if attempt.hub.draining.is_set():
                attempt.cancel(CancelReason.DRAIN)
            attempt.hub.slots.suspend(attempt.share)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        attempt = self._attempt
        try:
            # A coroutine that is being closed must not wait any more.
            if self._whole and kind is not GeneratorExit:
                await attempt.hub.slots.resume(attempt.share)
                attempt.idle = False
        finally:
            if attempt.reason is None:  # else the farewell still needs to know it
                attempt.waits = tuple(other for other in attempt.waits if other is not self._wait)


def _waits_as_a_whole(attempt: Attempt) -> bool:
    return (
        (task := trio.lowlevel.current_task()) is attempt.main_task
        and not attempt.handler.threaded
        and not any(nursery.child_tasks for nursery in task.child_nurseries)
        and not attempt.waits
    )


async def pause(
    attempt: Attempt, duration: float, checkpoint: bytes | None, *, hand_back: bool
) -> None:
    """Wait durably; see ``TaskContext.pause``."""
    _check_duration("pause", duration)
    if duration > MAX_PAUSE:
        raise UsageError(f"pause must be at most {MAX_PAUSE:g} s, a year, not {duration!r}")
    begun_ns = attempt.hub.broker.time_ns()  # what storing it takes is part of the pause
    await _check_fits(attempt, duration)
    await ensure_note(attempt)
    attempt.pauses += 1
    number, known = attempt.pauses, attempt.note.pause
    if known is not None and known.number > number:
        await trio.lowlevel.checkpoint()
        return  # an earlier try of this dispatch has waited it out and gone on from there
    if known is not None and known.number == number:
        until_ns = known.until_ns
    else:
        until_ns = begun_ns + round(duration * NS)
        if checkpoint is not None:
            await save_checkpoint(attempt, checkpoint)
        attempt.note = attempt.note.with_pause(number, until_ns).with_signals(attempt.signals)
        await attempt.hub.store.save_note(attempt.task, attempt.note)
        attempt.note_written = True
    left = max(0.0, (until_ns - attempt.hub.broker.time_ns()) / NS)
    over = trio.current_time() + left
    if hand_back and left:
        await _hand_back(attempt, until_ns)
    async with Waiting(attempt, Wait(what=f"pause of {duration:g} s", until_ns=until_ns)):
        if left and attempt.idle:
            await got_further(attempt)
        await trio.sleep_until(over)


async def _hand_back(attempt: Attempt, until_ns: int) -> None:
    attempt.hand_back(CancelReason.HANDED_BACK, until_ns)
    await trio.lowlevel.checkpoint()
    raise OutcomeError(
        f"{attempt.label}: pause(hand_back=True) ends the handler, but it was called inside a "
        "shielded cancel scope; call it outside"
    )


async def wait_for_signal(attempt: Attempt, name: str, timeout: float | None) -> bytes:
    """Wait for a signal's next value; see ``TaskContext.wait_for_signal``."""
    if timeout is not None:
        _check_duration("wait_for_signal timeout", timeout)
    register = await signal_register(attempt, name)
    if timeout is None:  # without a scope, which weighs a kilobyte
        return await _receive(attempt, name, register)
    with trio.fail_after(timeout):
        return await _receive(attempt, name, register)


async def _receive(attempt: Attempt, name: str, register: SignalRegister) -> bytes:
    async with Waiting(attempt, Wait(what=f"signal {name}")):
        entry = await register.wait(partial(got_further, attempt) if attempt.idle else None)
    received(attempt, name, entry.revision)
    return entry.value


async def signal_register(attempt: Attempt, name: str) -> SignalRegister:
    """Return the signal, for values that the handler has not had yet."""
    await ensure_note(attempt)
    newer_than = max(attempt.signals.get(name, 0), attempt.note.signals.get(name, 0))
    hub = attempt.hub
    return SignalRegister(hub.broker, attempt.run_id, name, newer_than, hub.reads)


def received(attempt: Attempt, name: str, revision: int) -> None:
    """Remember that the handler has a signal's value; its next commit makes that final."""
    newest = max(revision, attempt.signals.get(name, 0))
    attempt.signals = {**attempt.signals, name: newest}
    attempt.signals_pending = True


async def save_checkpoint(attempt: Attempt, data: bytes) -> None:
    """Store the handler's own checkpoint; a loop's state, which has the usual key, stays."""
    store, task, beside = attempt.hub.store, attempt.task, attempt.handler.loop
    before = await store.load_checkpoint(task, beside=beside) if attempt.starts else data
    await store.save_checkpoint(task, data, beside=beside)
    attempt.checkpointed = True
    if before != data:
        await got_further(attempt, chance=True)


async def commit_signals(attempt: Attempt) -> None:
    """Count the signals that the handler has received as consumed (design 8.4)."""
    if not attempt.signals_pending:
        return
    await ensure_note(attempt)
    attempt.note = attempt.note.with_signals(attempt.signals)
    await attempt.hub.store.save_note(attempt.task, attempt.note)
    attempt.note_written = True
    attempt.signals_pending = False


async def ensure_note(attempt: Attempt) -> None:
    """Read the attempt note once, when it is first needed."""
    if not attempt.note_read:
        attempt.note = await attempt.hub.store.load_note(attempt.task, attempt.dispatch)
        attempt.note_read = True


def _check_duration(what: str, seconds: float) -> None:
    if not (isfinite(seconds) and seconds >= 0):
        raise UsageError(f"{what} must be a finite number of seconds >= 0, not {seconds!r}")


async def _check_fits(attempt: Attempt, duration: float) -> None:
    facts = await attempt.hub.facts.step(attempt.task)
    ran = trio.current_time() - attempt.started_at
    if facts.timeout and duration + ran >= facts.timeout:
        raise UsageError(
            f"a pause of {duration:g} s, {ran:.1f} s into the attempt, does not fit the timeout of "
            f"{facts.timeout:g} s of step {attempt.task.step_id!r}: raise the step's timeout, or "
            "use a sleep step"
        )
