"""From the user's function to what the worker calls: raw, typed or agent loop, async or sync.

| registered by | the function gets | its value becomes | read and written by |
|---|---|---|---|
| ``handle`` | ``ctx``, raw bytes in ``ctx.input`` | completed | any JSON |
| ``handle_typed`` | ``ctx``, the input | completed | its annotations |
| ``agent_loop`` | ``ctx``, the state | continued (``Continue``) or completed | its annotations |

All that can be wrong with a function is found when it is registered; what is wrong with a task's
input when it is called, and that is a failure for good.

While a handler runs, no coroutine of ours stands around it that is not needed: the garbage
collector looks at each of them.

A synchronous function runs in a trio thread, bounded by the worker's concurrency. The thread is
never abandoned: trio cannot stop it, so a cancelled attempt waits for it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from inspect import isawaitable
from typing import Generic, NamedTuple, TypeVar, final, get_args, get_origin

from pydantic import TypeAdapter

from trio_dagnats.attempt.outcome import Completed, Continued, Outcome
from trio_dagnats.errors import Fatal, UsageError
from trio_dagnats.wire.data import to_output
from trio_dagnats.worker.attempts.attempt import Attempt
from trio_dagnats.worker.attempts.threads import run_in_thread
from trio_dagnats.worker.context import iteration
from trio_dagnats.worker.context.context import TaskContext
from trio_dagnats.worker.typed import signatures, typed_json

S = TypeVar("S")
Run = Callable[..., Awaitable[object]]


@final
class Adapted(NamedTuple):
    """A function as the worker calls it.

    Attributes:
        call: runs it for an attempt.
        outcome: says what outcome its value means.
        threaded: it runs in a trio thread.
        loop: one call per engine iteration, with its state in the checkpoint.
    """

    call: Callable[[Attempt], Awaitable[object]]
    outcome: Callable[[object], Outcome]
    threaded: bool
    loop: bool = False


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
    if not signatures.is_async(function):
        in_thread = partial(_in_thread, function)
        return Adapted(lambda a: in_thread(a, TaskContext(a)), _completed, threaded=True)
    run: Run = function  # type: ignore[assignment]  # is_async has just established it

    def call(attempt: Attempt) -> Awaitable[object]:
        return run(TaskContext(attempt))

    return Adapted(call, _completed, threaded=False)


def typed(function: Callable[..., object]) -> Adapted:
    """Adapt ``function(ctx, input: In) -> Out``; the types come from the annotations.

    Raises:
        UsageError: the signature does not fit, or a type cannot be read from JSON.
    """
    signatures.check_parameters(function, ("ctx", "input"))
    reads = signatures.adapter(function, signatures.annotation(function, 1))
    writes = signatures.adapter(function, signatures.annotation(function, None))
    run, threaded = _runner(function)

    def call(attempt: Attempt) -> Awaitable[object]:
        value = typed_json.read(reads, attempt.task.input, "input")
        return run(attempt, TaskContext(attempt), value)

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

    async def call(attempt: Attempt) -> Outcome:
        state, bounds = await iteration.begin(attempt, states)
        value = await run(attempt, TaskContext(attempt, bounds), state)
        if isinstance(value, Continue):
            await iteration.commit(attempt, states, value.state, bounds)
            return Continued(b"")
        return _written(writes, value)

    return Adapted(call, _as_it_is, threaded, loop=True)


def _runner(function: Callable[..., object]) -> tuple[Run, bool]:
    """Return what runs a function (``run(attempt, ctx, value)``), and whether in a thread.

    An async function is called and not awaited in here: its coroutine is what the worker awaits.
    """
    if not signatures.is_async(function):
        return partial(_in_thread, function), True
    run: Run = function  # type: ignore[assignment]  # is_async has just established it

    def in_task(_: Attempt, ctx: TaskContext, *values: object) -> Awaitable[object]:
        return run(ctx, *values)

    return in_task, False


async def _in_thread(
    function: Callable[..., object],
    attempt: Attempt,
    ctx: TaskContext,
    *values: object,
) -> object:
    value = await run_in_thread(attempt, partial(function, ctx, *values))
    if isawaitable(value):
        return await value  # a plain function that returns a coroutine: wait for it here
    return value


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
    """Complete with a value without annotation.

    Raises:
        Fatal: it is no JSON, or a ``Continue``, which only a loop knows.
    """
    if isinstance(value, Continue):
        raise Fatal("only an agent_loop handler may return Continue; register it as one")
    try:
        return Completed(to_output(value))
    except UsageError as error:
        raise Fatal(str(error)) from error


def _written(writes: TypeAdapter[object], value: object) -> Outcome:
    """Complete with a value as its annotation says; None is no output, whatever it says."""
    return Completed(b"" if value is None else typed_json.write(writes, value, "output"))


def _as_it_is(outcome: object) -> Outcome:
    """Take what a loop's call returns: it has an outcome already."""
    assert isinstance(outcome, Completed | Continued)
    return outcome
