"""From the user's function to ``call(ctx) -> Outcome``: raw, typed or agent loop, async or sync.

A synchronous function runs in a trio thread, bounded by the worker's concurrency. The thread is
never abandoned: trio cannot stop it, so a cancelled attempt waits for it (design 8.12).
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from inspect import isawaitable
from typing import Generic, TypeVar, final, get_args, get_origin

import trio
from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from trio_dagnats.attempt.outcome import Completed, Continued, Outcome
from trio_dagnats.errors import Fatal, UsageError
from trio_dagnats.wire.data import to_output
from trio_dagnats.worker import signatures
from trio_dagnats.worker.attempt import Attempt
from trio_dagnats.worker.context import TaskContext
from trio_dagnats.worker.loopstate import LoopState, read_state, write_state
from trio_dagnats.worker.waits import ensure_note

S = TypeVar("S")

Call = Callable[[TaskContext], Awaitable[Outcome]]
SHOWN_ERRORS = 5


@final
@dataclass(frozen=True, slots=True)
class Continue(Generic[S]):
    """Returned by an ``agent_loop`` handler: go on with this state in the next iteration.

    Args:
        state: the state of the next iteration, written with the handler's state type.
    """

    state: S


def raw(function: Callable[..., object]) -> tuple[Call, bool]:
    """Adapt ``function(ctx)``; returns the call and whether it needs a thread.

    Raises:
        UsageError: the signature does not fit.
    """
    signatures.check_parameters(function, ("ctx",))
    run, threaded = _runner(function)

    async def call(ctx: TaskContext) -> Outcome:
        value = await run(ctx)
        if isinstance(value, Continue):
            raise Fatal("only an agent_loop handler may return Continue; register it as one")
        return Completed(_output(value))

    return call, threaded


def typed(function: Callable[..., object]) -> tuple[Call, bool]:
    """Adapt ``function(ctx, input: In) -> Out``; the types come from the annotations.

    Raises:
        UsageError: the signature does not fit, or a type cannot be read from JSON.
    """
    signatures.check_parameters(function, ("ctx", "input"))
    reads = signatures.adapter(function, signatures.annotation(function, 1))
    writes = signatures.adapter(function, signatures.annotation(function, None))
    run, threaded = _runner(function)

    async def call(ctx: TaskContext) -> Outcome:
        value = await run(ctx, _read(reads, ctx.input, "input"))
        return Completed(b"" if value is None else _write(writes, value, "output"))

    return call, threaded


def agent_loop(function: Callable[..., object]) -> tuple[Call, bool]:
    """Adapt ``function(ctx, state: S) -> Continue[S] | Out``.

    The first iteration's state is the step's input, read as ``S``.

    Raises:
        UsageError: the signature does not fit, or a type cannot be read from JSON.
    """
    signatures.check_parameters(function, ("ctx", "state"))
    state_type = signatures.annotation(function, 1)
    states = signatures.adapter(function, state_type)
    writes = signatures.adapter(function, _output_type(function, state_type))
    run, threaded = _runner(function)

    async def call(ctx: TaskContext) -> Outcome:
        attempt = ctx._attempt  # noqa: SLF001 - the loop is part of the attempt
        state = await _load(attempt, states)
        value = await run(ctx, state)
        if isinstance(value, Continue):
            await _commit(attempt, _write(states, value.state, "state"))
            return Continued(b"")
        return Completed(b"" if value is None else _write(writes, value, "output"))

    return call, threaded


def _runner(function: Callable[..., object]) -> tuple[Callable[..., Awaitable[object]], bool]:
    if signatures.is_async(function):
        return function, False  # type: ignore[return-value]  # is_async has just established it

    async def in_thread(ctx: TaskContext, *args: object) -> object:
        limiter = ctx._attempt.hub.threads  # noqa: SLF001 - the hub owns the threads
        value = await trio.to_thread.run_sync(partial(function, ctx, *args), limiter=limiter)
        if isawaitable(value):
            return await value  # a plain function that returns a coroutine: wait for it here
        return value

    return in_thread, True


def _output_type(function: Callable[..., object], state_type: object) -> object:
    """Return the loop's output type: the return annotation without ``Continue[...]``."""
    returned = signatures.members(signatures.annotation(function, None))
    outputs = [t for t in returned if t is not Continue and get_origin(t) is not Continue]
    if len(outputs) == len(returned):
        raise UsageError(
            f"agent loop {signatures.name_of(function)} must return Continue[...] | <output>; its "
            "annotation has no Continue, so it could never go on"
        )
    for continued in (t for t in returned if get_origin(t) is Continue):
        if get_args(continued)[0] != state_type:
            raise UsageError(
                f"agent loop {signatures.name_of(function)} takes a state of {state_type!r} but "
                f"returns {continued!r}; the two must be the same type"
            )
    if not outputs:
        return type(None)
    joined = outputs[0]
    for output in outputs[1:]:
        joined = joined | output  # type: ignore[operator]  # members of a union form a union
    return joined


async def _load(attempt: Attempt, states: TypeAdapter[object]) -> object:
    stored = read_state(await attempt.hub.store.load_checkpoint(attempt.task))
    if stored is None:
        return _read(states, attempt.task.input, "state (from the step's input)")
    attempt.iteration = stored.iteration
    attempt.signals = {**stored.signals, **attempt.signals}
    return _read(states, stored.state, "stored state")


async def _commit(attempt: Attempt, state: bytes) -> None:
    """Write state, iteration, dispatch and consumed signals at once (design 8.9)."""
    await ensure_note(attempt)
    loop = LoopState(
        state=state,
        iteration=attempt.iteration + 1,
        dispatch=attempt.dispatch,
        signals={**attempt.note.signals, **attempt.signals},
    )
    await attempt.hub.store.save_checkpoint(attempt.task, write_state(loop))
    attempt.checkpointed = True
    attempt.signals_pending = False


def _read(adapter: TypeAdapter[object], raw_json: bytes, what: str) -> object:
    """Validate JSON; bad input is the same on every try, so it is never retried."""
    try:
        return adapter.validate_json(raw_json or b"null")
    except ValidationError as error:
        told = "; ".join(
            f"{'.'.join([what, *map(str, e['loc'])])}: {e['msg']}"
            for e in error.errors(include_url=False, include_input=False)[:SHOWN_ERRORS]
        )
        raise Fatal(told) from error


def _write(adapter: TypeAdapter[object], value: object, what: str) -> bytes:
    try:
        return adapter.dump_json(value, warnings="error")
    except PydanticSerializationError as error:
        raise Fatal(f"{what} does not fit its annotation: {error}") from error


def _output(value: object) -> bytes:
    try:
        return to_output(value)
    except UsageError as error:
        raise Fatal(str(error)) from error
