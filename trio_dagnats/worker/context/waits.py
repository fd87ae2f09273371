"""Durable waits of a handler, pause and signal, and the checkpoint that goes with them.

A wait is durable by what is stored before it, not by whoever waits: the attempt keeps its lease and
gives up its slot (``attempts.waiting``), and if its worker drains or dies the handler starts again
from its top elsewhere. What it finds then:

| | stored | by | the next try, at the same call |
|---|---|---|---|
| pause | its number and its end, in the note | ``pause``, as it begins | waits for what is left |
| checkpoint | the user's data | ``save_checkpoint`` | loads it, if it asks |
| signal | nothing, before it is committed | the next commit | gets the value again |

In order, a pause: the checkpoint is stored, then the note with the end of the pause and the signals
that count as consumed, then the slot is given up. Killed before the note, the pause begins anew;
after it, only what is left is waited for. Its end is a time of the wall clock, so that another
machine can go on with it.

A pause is found again by its number in the dispatch: the handler that starts again has to come to
the same calls in the same order, which its checkpoint is for. A lower number than that of the noted
pause has been waited out; a higher one is new.
"""

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
    """Wait durably; see ``TaskContext.pause``.

    Args:
        attempt: who pauses.
        duration: seconds.
        checkpoint: what is stored first; None stores nothing.
        hand_back: end the handler here, and have the task come back after the pause.
    """
    _check_duration("pause", duration)
    if duration > MAX_PAUSE:
        raise UsageError(f"pause must be at most {MAX_PAUSE:g} s, a year, not {duration!r}")
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
    """End the handler by its own cancellation; the farewell NAKs with what is left of the pause.

    Raises:
        OutcomeError: the handler has shielded itself against it.
    """
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
    """Wait for the value; the attempt remembers its revision, so that it is returned once.

    That all of an attempt waits is progress, but only once there is no value yet: a handler that
    dies over the value that it finds has got no further.
    """
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
    """Store the handler's own checkpoint; a loop's state, which has the usual key, stays.

    For an attempt whose task was started before, the stored one is read first: another one than
    before is progress, so that a task that gets further each time is not given up. The ordinary
    attempt has nothing to prove, and does not read.
    """
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
    """Refuse a pause during which the engine would time the step out (contract H16).

    By the workflow's definition, which may have changed, and this attempt's time alone: what was
    used before a redelivery is not known. So it catches what can never fit, and no more.
    """
    facts = await attempt.shared.facts.step(attempt.task)
    ran = trio.current_time() - attempt.started_at
    if facts.timeout and duration + ran >= facts.timeout:
        raise UsageError(
            f"a pause of {duration:g} s, {ran:.1f} s into the attempt, does not fit the timeout of "
            f"{facts.timeout:g} s of step {attempt.task.step_id!r}: raise the step's timeout, or "
            "use a sleep step"
        )
