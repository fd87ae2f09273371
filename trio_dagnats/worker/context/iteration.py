"""One iteration of an agent loop: what is loaded before it, and what commits it (design 8.9).

::

    begin: state, number, signals <── the checkpoint, or the step's input; bounds <── the workflow
      │
    handler ── returns an output ──> step.completed
      │
      └─ returns Continue(state) ──> commit: one write of all four ──> step.continue ──> ACK

| killed | the next delivery |
|---|---|
| before the commit | runs the handler again, with the state of the iteration before |
| after it, the event stored or not | finds the state of its own dispatch: see ``triage`` |

State, number, dispatch and signals are one write because any two of them could be torn apart by a
kill: an iteration would run twice, or a message be lost. ``handlers.adapters`` calls both.
"""

from pydantic import TypeAdapter, ValidationError

from trio_dagnats.attempt.loop_bounds import LoopBounds
from trio_dagnats.attempt.loop_state import LoopState, read_state, write_state
from trio_dagnats.errors import Fatal, Retryable, TooLarge
from trio_dagnats.logs import Log
from trio_dagnats.worker.attempts.attempt import Attempt
from trio_dagnats.worker.typed import typed_json

log = Log("trio_dagnats.worker")


async def begin(attempt: Attempt, states: TypeAdapter[object]) -> tuple[object, LoopBounds]:
    """Return the state of the iteration that begins, and the loop's bounds.

    The first iteration's state is the step's input.

    Raises:
        Fatal: the input does not validate.
        Retryable: the stored state does not validate, see :func:`_read_stored`.
    """
    stored = read_state(await attempt.shared.store.load_checkpoint(attempt.task))
    facts = await attempt.shared.facts.step(attempt.task)
    bounds = LoopBounds(
        max_iterations=facts.max_iterations,
        max_duration=facts.max_duration,
        warn_at=facts.warn_at,
        begun_ns=stored.begun_ns if stored else 0,
        warned=stored.warned if stored else False,
    )
    if stored is None:
        first = typed_json.read(states, attempt.task.input, "state (from the step's input)")
        return first, bounds
    attempt.resume_iteration(stored.iteration)
    _warn(attempt, bounds)
    attempt.memory.resume_loop(stored.signals)
    return _read_stored(states, stored), bounds


async def commit(
    attempt: Attempt, states: TypeAdapter[object], state: object, bounds: LoopBounds
) -> None:
    """Write state, iteration, dispatch and consumed signals at once.

    The first commit notes when the loop has begun, for its bound in time: the engine counts from
    the end of the first iteration.

    Raises:
        Fatal: the state cannot be written, or is more than the server takes.
    """
    written, _ = typed_json.round_trip(states, state, "state")
    memory = attempt.memory
    await memory.read()
    loop = LoopState(
        state=written,
        iteration=attempt.iteration + 1,
        dispatch=attempt.dispatch,
        signals=memory.all_signals,
        begun_ns=bounds.begun_ns or attempt.shared.broker.time_ns(),
        warned=bounds.warned,
    )
    try:
        await attempt.shared.store.save_checkpoint(attempt.task, write_state(loop))
    except TooLarge as error:
        raise Fatal(f"state refused: {error}; keep what is large elsewhere") from error
    memory.stored_checkpoint(with_signals=True)


def _warn(attempt: Attempt, bounds: LoopBounds) -> None:
    """Warn once in the life of a loop: that it was done goes into its checkpoint."""
    near = bounds.warning(attempt.iteration, attempt.shared.broker.time_ns())
    if near and not bounds.warned:
        bounds.warned = True
        log.warning("%s nears its bound: %s", attempt.label, near, extra=attempt.log_fields)


def _read_stored(states: TypeAdapter[object], stored: LoopState) -> object:
    """Read a state that some version of the handler has stored.

    One that does not validate was written by another version, which may still be served by other
    workers, or again after a roll-back: so the task is handed back a few times, and then left to
    the engine's retry policy. The stored state stays as it is.
    """
    try:
        return states.validate_json(stored.state)
    except ValidationError as error:
        raise Retryable(
            f"the state that iteration {stored.iteration} has stored does not fit this handler: "
            f"{typed_json.validation_text(error, 'state')}; it is kept: give new fields a default, "
            "convert old states in a validator, or serve the version that wrote it"
        ) from error
