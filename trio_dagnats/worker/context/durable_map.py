"""Durable fan-out in one handler: each finished item is an entry, which a later try finds.

Entries stand beside the checkpoint, one key each, so that a map of n items writes n entries and
nothing twice. A try begins with one read of them and runs what is not finished. The keys name the
iteration of a loop, so that no iteration finds another one's results.

What is left of them: an outcome that ends the step (or a continue, for its iteration) clears them
in one request. A worker that is killed between the two leaves them behind, as garbage.

::

    items ──> checked, marked ──> entries read ──> what is finished, and still the same item
                                                      │ the others
                                                      v
                        result <── read back <── entry stored <── function, ``limit`` at a time

| a worker is killed | the next try |
|---|---|
| while an item runs | runs that item again |
| after its entry is stored | has its result, and runs it no more |
| after all of them | has all results, and goes on behind the call |

| the attempt ends | its entries |
|---|---|
| completed, or failed for good | all of the step's are cleared |
| continued | those of this iteration are cleared |
| failed, and the engine's policy has a retry left | stay, for that |
| handed back, lease lost, timed out by the engine | stay, for the next try |
| its run was cancelled, or has ended | all of the step's are cleared |

Each stored item is progress: what was started before it is not held against the task.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar, cast, final

import trio
from pydantic import TypeAdapter, ValidationError

from trio_dagnats.attempt import mapped
from trio_dagnats.attempt.mapped import Entry
from trio_dagnats.attempt.outcome import Continued, Failed
from trio_dagnats.attempt.reasons import ENDINGS
from trio_dagnats.errors import BrokerError, Fatal, TooLarge, UsageError
from trio_dagnats.logs import Log
from trio_dagnats.wire.events import FailureType
from trio_dagnats.wire.names import check_map_name, map_prefix
from trio_dagnats.wire.text import compact
from trio_dagnats.worker.attempts.attempt import Attempt
from trio_dagnats.worker.attempts.progress import got_further
from trio_dagnats.worker.engine.settle import Verdict
from trio_dagnats.worker.typed import signatures, typed_json

log = Log("trio_dagnats.worker")

T = TypeVar("T")
R = TypeVar("R")

MAX_ITEMS = 10_000
"""Items of one call: a try reads all their entries at once."""


@final
@dataclass(frozen=True, slots=True)
class _Plan(Generic[T, R]):
    """One call: what is to be done, checked before anything runs.

    Attributes:
        attempt: whose call it is.
        call: what it is known by, in keys and logs.
        function: runs one item.
        items: as the function takes them: validated by the annotation of its parameter.
        marks: a fingerprint for each, of the function's name and the item's JSON.
        results: reads and writes results, by the annotation of the return value.
    """

    attempt: Attempt
    call: str
    function: Callable[[T], Awaitable[R]]
    items: list[T]
    marks: list[str]
    results: TypeAdapter[object]

    @property
    def prefix(self) -> str:
        """The keys of this call's entries, without the item's number."""
        task = self.attempt.task
        return f"{map_prefix(task.run_id, task.step_id, self.attempt.iteration)}{self.call}."


@final
class DurableMaps:
    """The durable maps of one attempt: each call is known by its name or its number.

    Made by ``TaskContext.map`` with the first call. A number is that of the unnamed calls in this
    try, so a handler whose calls depend on anything but its input and its results has to name them.
    """

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._calls: list[str] = []

    async def run(
        self,
        function: Callable[[T], Awaitable[R]],
        items: Iterable[T],
        *,
        limit: int,
        name: str,
    ) -> list[R]:
        """Run a function for each item, once each over all tries; see ``TaskContext.map``.

        ``limit`` tasks take the items that are left from one iterator, so that none waits for the
        slowest of a batch. The first error ends all; those that were raised leave in a group, made
        here and not by the nursery.

        Cancellation: items that run are cancelled; what is finished stays stored.
        """
        if limit not in range(1, MAX_ITEMS + 1):
            raise UsageError(f"limit of map must be a whole number 1 to {MAX_ITEMS}, not {limit!r}")
        plan = _plan(self._attempt, function, items, self._call(name))
        found = _restore(plan, await self._attempt.shared.store.load_items(plan.prefix))
        left = [place for place in range(len(plan.items)) if place not in found]
        todo = iter(left)

        errors: list[BaseException] = []

        async def work() -> None:
            try:
                for place in todo:
                    found[place] = await _one(plan, place)
            except trio.Cancelled:
                raise
            except BaseException as error:  # noqa: BLE001 - raised below
                # It is the handler's, and may be one whose repr, which a nursery asks for, raises.
                errors.append(error)
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for _ in range(min(limit, len(left))):
                nursery.start_soon(work)
        if errors:
            raise BaseExceptionGroup("errors of map", errors)
        return [found[place] for place in range(len(plan.items))]

    def _call(self, name: str) -> str:
        """Return what a call is known by: its name, or which unnamed call of the try it is."""
        number = sum(call.isdigit() for call in self._calls) + 1
        call = check_map_name(name) if name else str(number)
        if call in self._calls:
            raise UsageError(
                f"map {name!r} was called already in this attempt; give each its own name"
            )
        if not self._calls:
            self._attempt.leave_behind(clear_entries)
        self._calls.append(call)
        return call


async def clear_entries(attempt: Attempt) -> None:
    """Clear the entries that nobody will read any more; off the attempt's path.

    Registered by the first call (``Attempt.leave_behind``), run after the message is answered.
    """
    task, iteration = attempt.task, None
    if isinstance(attempt.outcome, Continued):
        iteration = attempt.iteration
    try:
        if await _is_final(attempt):
            prefix = map_prefix(task.run_id, task.step_id, iteration)
            await attempt.shared.store.clear_items(prefix)
    except BrokerError:
        log.debug("%s: entries of map not cleared", attempt.label, extra=attempt.log_fields)


async def _is_final(attempt: Attempt) -> bool:
    """Say whether no retry will ask for the entries.

    Whether a failure is the last one only the engine knows; here it is taken from the step's
    policy, as far as that can be read. If it cannot, the policy counts as none, and a retry runs
    all items again.
    """
    if attempt.verdict is not Verdict.STORED:
        return attempt.reason is not None and ENDINGS[attempt.reason].run_is_over
    failed = attempt.outcome
    if not isinstance(failed, Failed) or failed.kind is FailureType.NON_RETRIABLE:
        return True
    return attempt.task.number > (await attempt.shared.facts.step(attempt.task)).retries


def _plan(
    attempt: Attempt, function: Callable[[T], Awaitable[R]], items: Iterable[T], call: str
) -> _Plan[T, R]:
    """Check a call, and fingerprint its items; nothing has run and nothing is read yet.

    Raises:
        UsageError: the function, an item or the number of items cannot be used.
    """
    if not signatures.is_async(function):
        raise UsageError(
            f"map needs an async function, not {signatures.name_of(function)}; run what blocks by "
            "trio.to_thread.run_sync inside one"
        )
    signatures.check_parameters(function, ("item",))
    given = list(items)
    if len(given) > MAX_ITEMS:
        raise UsageError(f"map takes at most {MAX_ITEMS} items, not {len(given)}; call it in parts")
    reads = signatures.adapter(function, signatures.hint(function, 0) or object)
    checked = [_item(reads, place, item) for place, item in enumerate(given)]
    title = signatures.name_of(function)
    return _Plan(
        attempt=attempt,
        call=call,
        function=function,
        items=[cast("T", item) for item, _ in checked],
        marks=[mapped.fingerprint(title, written) for _, written in checked],
        results=signatures.adapter(function, signatures.hint(function, None) or object),
    )


def _item(reads: TypeAdapter[object], place: int, item: object) -> tuple[object, bytes]:
    """Return an item as the function takes it, and its JSON."""
    try:
        value = reads.validate_python(item)
        return value, compact(value)
    except ValidationError as error:
        raise UsageError(typed_json.validation_text(error, f"items[{place}]")) from error
    except UsageError as error:
        raise UsageError(f"items[{place}]: {error}; map tells items by their JSON") from error


def _restore(plan: _Plan[T, R], stored: dict[int, bytes]) -> dict[int, R]:
    """Return the results of earlier tries that still count; the others run again."""
    found: dict[int, R] = {}
    for place, value in mapped.finished(stored, plan.marks).items():
        try:
            found[place] = cast("R", plan.results.validate_json(value))
        except ValidationError:  # the function's result type has changed
            continue
    if stored:
        log.info(
            "%s: map %s goes on: %d of %d items are finished, %d entries are of other items or "
            "results",
            plan.attempt.label,
            plan.call,
            len(found),
            len(plan.items),
            len(stored) - len(found),
            extra=plan.attempt.log_fields,
        )
    return found


async def _one(plan: _Plan[T, R], place: int) -> R:
    """Run one item and store its result; what is returned is what a later try would read.

    So a handler sees the same on every try: a tuple without an annotation is a list at once.
    The entry is written until the lease ends and not after it: another worker may be at it then.

    Raises:
        Fatal: the result is no JSON of its annotation, or more than the server takes.
        NotStored: no acknowledgement in time.
    """
    value = await plan.function(plan.items[place])
    what = f"result of items[{place}]"
    written, result = typed_json.round_trip(plan.results, value, what)
    attempt, entry = plan.attempt, Entry(plan.marks[place], written)
    try:
        await attempt.shared.store.save_item(
            f"{plan.prefix}{place}", mapped.encode(entry), until=attempt.lease_until
        )
    except TooLarge as error:
        raise Fatal(f"{what} refused: {error}; store it elsewhere, return a reference") from error
    await got_further(attempt)
    return cast("R", result)
