"""From the user's function to what the worker calls: raw, typed or agent loop, async or sync.

While a handler runs, no coroutine of ours stands around it that is not needed: the garbage
collector looks at each of them.

A synchronous function runs in a trio thread, bounded by the worker's concurrency. The thread is
never abandoned: trio cannot stop it, so a cancelled attempt waits for it (design 8.12).
"""

import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from inspect import isawaitable
from typing import Generic, NamedTuple, TypeVar, final, get_args, get_origin

import trio
from pydantic import TypeAdapter

from trio_dagnats.attempt.outcome import Completed, Continued, Outcome
from trio_dagnats.errors import Fatal, UsageError
from trio_dagnats.wire.data import to_output
from trio_dagnats.worker.attempts.attempt import Attempt
from trio_dagnats.worker.context import iteration
from trio_dagnats.worker.context.context import TaskContext
from trio_dagnats.worker.typed import signatures, typed_json

S = TypeVar("S")


@final
class Adapted(NamedTuple):
    """A function as the worker calls it.

    Attributes:
        call: runs it on a context.
        outcome: says what outcome its value means.
        threaded: it runs in a trio thread.
    """

    call: Callable[[TaskContext], Awaitable[object]]
    outcome: Callable[[object], Outcome]
    threaded: bool


@final
@dataclass(frozen=True, slots=True)
class Continue(Generic[S]):
    """Returned by an ``agent_loop`` handler: go on with this state in the next iteration.

    Args:
        state: the state of the next iteration, written with the handler's state type.
    """

    state: S


def raw(function: Callable[..., object]) -> Adapted:
    """Adapt ``function(ctx)``.

    Raises:
        UsageError: the signature does not fit.
    """
    signatures.check_parameters(function, ("ctx",))
    run, threaded = _runner(function)

    return Adapted(run, _completed, threaded)


def typed(function: Callable[..., object]) -> Adapted:
    """Adapt ``function(ctx, input: In) -> Out``; the types come from the annotations.

    Raises:
        UsageError: the signature does not fit, or a type cannot be read from JSON.
    """
    signatures.check_parameters(function, ("ctx", "input"))
    reads = signatures.adapter(function, signatures.annotation(function, 1))
    writes = signatures.adapter(function, signatures.annotation(function, None))
    run, threaded = _runner(function)

    def call(ctx: TaskContext) -> Awaitable[object]:
        return run(ctx, typed_json.read(reads, ctx.input, "input"))

    return Adapted(call, partial(_written, writes), threaded)


def agent_loop(function: Callable[..., object]) -> Adapted:
    """Adapt ``function(ctx, state: S) -> Continue[S] | Out``.

    The first iteration's state is the step's input, read as ``S``. A stored state that does not
    validate (the model has changed since) is handed back and retried, never overwritten.

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
        value = await run(ctx, await iteration.begin(attempt, states))
        if isinstance(value, Continue):
            await iteration.commit(attempt, states, value.state)
            return Continued(b"")
        return _written(writes, value)

    return Adapted(call, _as_it_is, threaded)


def _runner(function: Callable[..., object]) -> tuple[Callable[..., Awaitable[object]], bool]:
    if signatures.is_async(function):
        return function, False  # type: ignore[return-value]  # is_async has just established it

    def called(attempt: Attempt, *args: object) -> object:
        attempt.thread = threading.get_ident()
        try:
            return function(*args)
        finally:
            attempt.thread = None

    async def in_thread(ctx: TaskContext, *args: object) -> object:
        attempt = ctx._attempt  # noqa: SLF001 - the hub owns the threads
        call = partial(called, attempt, ctx, *args)
        value = await trio.to_thread.run_sync(call, limiter=attempt.hub.threads)
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


def _completed(value: object) -> Outcome:
    if isinstance(value, Continue):
        raise Fatal("only an agent_loop handler may return Continue; register it as one")
    try:
        return Completed(to_output(value))
    except UsageError as error:
        raise Fatal(str(error)) from error


def _written(writes: TypeAdapter[object], value: object) -> Outcome:
    return Completed(b"" if value is None else typed_json.write(writes, value, "output"))


def _as_it_is(outcome: object) -> Outcome:
    """Take what a loop's call returns: it has an outcome already."""
    assert isinstance(outcome, Completed | Continued)
    return outcome
