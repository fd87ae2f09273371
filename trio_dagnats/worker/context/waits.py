"""Durable waits of a handler, pause and signal, and the checkpoint that goes with them."""

from functools import partial
from math import isfinite

import trio

from trio_dagnats.attempt.reasons import CancelReason
from trio_dagnats.errors import OutcomeError, UsageError
from trio_dagnats.wire.text import NS
from trio_dagnats.worker.attempts.attempt import Attempt, Wait
from trio_dagnats.worker.attempts.progress import got_further
from trio_dagnats.worker.attempts.waiting import Waiting
from trio_dagnats.worker.engine.signal_register import SignalRegister

MAX_PAUSE = 365 * 86_400.0
"""Seconds of the longest pause: the engine's own sleeps are no longer."""


async def pause(
    attempt: Attempt, duration: float, checkpoint: bytes | None, *, hand_back: bool
) -> None:
    """Wait durably; see ``TaskContext.pause``."""
    _check_duration("pause", duration)
    if duration > MAX_PAUSE:
        raise UsageError(f"pause must be at most {MAX_PAUSE:g} s, a year, not {duration!r}")
    attempt.shared.store.check(attempt.task)  # a pause that nobody remembers would never end
    begun_ns = attempt.shared.broker.time_ns()  # what storing it takes is part of the pause
    await _check_fits(attempt, duration)
    memory = attempt.memory
    await memory.read()
    number, known = memory.count_pause(), memory.note.pause
    if known is not None and known.number > number:
        await trio.lowlevel.checkpoint()
        return  # an earlier try of this dispatch has waited it out and gone on from there
    if known is not None and known.number == number:
        until_ns = known.until_ns
    else:
        until_ns = begun_ns + round(duration * NS)
        if checkpoint is not None:
            await save_checkpoint(attempt, checkpoint)
        await memory.begin_pause(number, until_ns)
    left = max(0.0, (until_ns - attempt.shared.broker.time_ns()) / NS)
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
    attempt.memory.received(name, entry.revision)
    return entry.value


async def signal_register(attempt: Attempt, name: str) -> SignalRegister:
    """Return the signal, for values that the handler has not had yet."""
    await attempt.memory.read()
    shared, newer_than = attempt.shared, attempt.memory.newest(name)
    return SignalRegister(shared.broker, attempt.run_id, name, newer_than, shared.reads)


async def save_checkpoint(attempt: Attempt, data: bytes) -> None:
    """Store the handler's own checkpoint; a loop's state, which has the usual key, stays."""
    store, task, beside = attempt.shared.store, attempt.task, attempt.program.loop
    memory = attempt.memory
    before = await store.load_checkpoint(task, beside=beside) if memory.starts else data
    await store.save_checkpoint(task, data, beside=beside)
    memory.stored_checkpoint()
    if before != data:
        await got_further(attempt, chance=True)


def _check_duration(what: str, seconds: float) -> None:
    if not (isfinite(seconds) and seconds >= 0):
        raise UsageError(f"{what} must be a finite number of seconds >= 0, not {seconds!r}")


async def _check_fits(attempt: Attempt, duration: float) -> None:
    facts = await attempt.shared.facts.step(attempt.task)
    ran = trio.current_time() - attempt.started_at
    if facts.timeout and duration + ran >= facts.timeout:
        raise UsageError(
            f"a pause of {duration:g} s, {ran:.1f} s into the attempt, does not fit the timeout of "
            f"{facts.timeout:g} s of step {attempt.task.step_id!r}: raise the step's timeout, or "
            "use a sleep step"
        )
